//! Writes to memory whose data comes in any pieces, while fences come and go, tasks are aborted, buffers run out and
//! PDUs are out of order: what was answered is what is there, and nothing is written that should not be.

use super::*;
use memory::{Buffer, Class};
use scsi::fence::{FenceId, FenceRequest};
use std::{collections::VecDeque, ops::Range};
use wire::{Opcode, RESERVED_TAG, TaskManagementFunction, TaskManagementRequest};

const MEDIUM: usize = 8 << 20;
/// Bytes of the medium that a command has for itself.
const PLOT: usize = 1 << 20;
const MOST: u64 = 768 << 10;
const FIRST_BURST: usize = 64 << 10;
const CLASSES: [Class; 3] = [Class::Small, Class::Medium, Class::Large];

/// Numbers by chance (SplitMix64).
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % below
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.roll(chances) == 0
    }
}

/// Data that is still to be sent, for one R2T or unasked.
struct Burst {
    tag: u32,
    next: usize,
    end: usize,
    data_sn: u32,
}

/// A WRITE on its way.
struct Writing {
    tag: u32,
    plot: usize,
    data: Vec<u8>,
    /// Bytes that are to be written.
    length: usize,
    bursts: VecDeque<Burst>,
    /// From there on nothing may be written.
    spoiled: Option<usize>,
    /// A task management function was asked for; with `Some`, answered: what was there then.
    aborted: Option<Option<Vec<u8>>>,
}

struct Chance {
    rig: Rig,
    dice: Dice,
    bytes: Vec<u8>,
    model: Vec<u8>,
    writing: Vec<Writing>,
    /// With what lies under it.
    fences: Vec<(FenceId, Range<usize>, Vec<u8>)>,
    serial: u32,
    taken: Vec<Buffer>,
    outcomes: [u32; 4],
}

impl Chance {
    fn new(seed: u64) -> Chance {
        let delay = Duration::ZERO..Duration::from_nanos(1);
        let world = World::with(seed, Conduct { delay, fragment: true, window: 4 << 20 });
        let kind = Kind::Ram { bytes: MEDIUM as u64, preallocate: false };
        let mut dice = Dice(seed);
        let (burst, r2ts) = (1 << (16 + dice.roll(4)), 1 + dice.roll(4) as u16);
        let mut rig = Rig::within(world, kind, None, |parameters| {
            (parameters.initial_r2t, parameters.first_burst_length) = (false, FIRST_BURST as u32);
            (parameters.max_burst_length, parameters.max_outstanding_r2t) = (burst, r2ts);
        });
        // Of half of them, data is collected in windows, as with a file.
        rig.core.units[0].writes_now = seed.is_multiple_of(2);
        let model = vec![0; MEDIUM];
        let (bytes, writing, fences, taken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Chance { rig, dice, bytes, model, writing, fences, serial: 0, taken, outcomes: [0; 4] }
    }

    fn medium(&mut self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; range.len()];
        self.rig.core.units[0].queue.read_now(range.start as u64, &mut bytes).expect("memory").unwrap();
        bytes
    }

    fn begin(&mut self) {
        let free = |plot: &usize| self.writing.iter().all(|writing| writing.plot != *plot);
        let Some(plot) = (0..MEDIUM / PLOT).filter(free).min_by_key(|plot| plot * 5 % 8) else { return };
        let most = if self.dice.one_in(2) { MOST } else { 40_000 };
        let expected = self.dice.roll(most) as usize + 1;
        let expected = if self.dice.one_in(4) { expected } else { expected.next_multiple_of(512) };
        let blocks = if self.dice.one_in(8) { 1 + self.dice.roll(1536) as usize } else { expected.div_ceil(512) };
        let immediate = match self.dice.roll(3) {
            0 => 0,
            1 => FIRST_BURST.min(expected),
            _ => self.dice.roll(FIRST_BURST.min(expected) as u64 + 1) as usize,
        };
        let unasked = self.dice.one_in(2) && immediate < FIRST_BURST.min(expected);
        let tag = self.rig.cmd_sn - 1;
        let data: Vec<u8> = (0..expected).map(|n| (n / 3 * 7 + n + tag as usize * 31) as u8 | 1).collect();
        let mut cdb = [0; 16];
        cdb[0] = 0x2a;
        cdb[2..6].copy_from_slice(&((plot * PLOT / 512) as u32).to_be_bytes());
        cdb[7..9].copy_from_slice(&(blocks as u16).to_be_bytes());
        // FUA.
        cdb[1] = if self.dice.one_in(4) { 8 } else { 0 };
        let mut header = [0; BHS_LEN];
        ScsiCommand {
            final_bit: !unasked,
            write: true,
            attribute: if self.dice.one_in(6) { TaskAttribute::Ordered } else { TaskAttribute::Simple },
            data_segment_length: immediate as u32,
            expected_data_transfer_length: expected as u32,
            ..plain(tag, self.rig.cmd_sn, &cdb)
        }
        .emit(&mut header);
        self.rig.cmd_sn += 1;
        let first = data[..immediate].to_vec();
        let end = FIRST_BURST.min(expected);
        let bursts = unasked.then_some(Burst { tag: RESERVED_TAG, next: immediate, end, data_sn: 0 });
        let length = (blocks * 512).min(expected) / 512 * 512;
        let bursts = bursts.into_iter().collect();
        self.writing.push(Writing { tag, plot, data, length, bursts, spoiled: None, aborted: None });
        self.write(&header, &first);
    }

    fn write(&mut self, header: &[u8], data: &[u8]) {
        // The target may have to do with any beginning of it.
        let whole = [header, data, &[0; 3][..wire::padding(data.len())]].concat();
        let cut = self.dice.roll(whole.len() as u64 + 1) as usize;
        self.rig.peer.write(&whole[..cut]);
        if self.dice.one_in(2) {
            self.turns();
        }
        self.rig.peer.write(&whole[cut..]);
    }

    /// Sends a PDU of some command's data.
    fn pour(&mut self) {
        let open: Vec<usize> = (0..self.writing.len()).filter(|n| !self.writing[*n].bursts.is_empty()).collect();
        if open.is_empty() {
            return;
        }
        let nth = open[self.dice.roll(open.len() as u64) as usize];
        let spoils = self.dice.one_in(150);
        let most = if self.dice.one_in(2) { 256 << 10 } else { 3000 };
        let step = 1 + self.dice.roll(most) as usize;
        let writing = &mut self.writing[nth];
        let burst = &mut writing.bursts[0];
        let range = burst.next..(burst.next + step).min(burst.end).min(burst.next + (256 << 10));
        if spoils && writing.spoiled.is_none() {
            writing.spoiled = Some(range.start);
            burst.data_sn += 1;
        }
        let mut header = [0; BHS_LEN];
        DataOut {
            final_bit: range.end == burst.end,
            data_segment_length: range.len() as u32,
            lun: 0,
            initiator_task_tag: writing.tag,
            target_transfer_tag: burst.tag,
            exp_stat_sn: 1,
            data_sn: burst.data_sn,
            buffer_offset: range.start as u32,
        }
        .emit(&mut header);
        (burst.next, burst.data_sn) = (range.end, burst.data_sn + 1);
        if burst.next == burst.end {
            writing.bursts.pop_front();
        }
        let data = writing.data[range].to_vec();
        self.write(&header, &data);
    }

    fn abort(&mut self) {
        let running: Vec<usize> = (0..self.writing.len()).filter(|n| self.writing[*n].aborted.is_none()).collect();
        if running.is_empty() {
            return;
        }
        let nth = running[self.dice.roll(running.len() as u64) as usize];
        let mut header = [0; BHS_LEN];
        let tag = self.writing[nth].tag;
        TaskManagementRequest {
            immediate: true,
            function: TaskManagementFunction::AbortTask,
            data_segment_length: 0,
            lun: 0,
            initiator_task_tag: tag | 0x1000_0000,
            referenced_task_tag: tag,
            cmd_sn: self.rig.cmd_sn,
            exp_stat_sn: 1,
            ref_cmd_sn: tag + 1,
            exp_data_sn: 0,
        }
        .emit(&mut header);
        self.writing[nth].aborted = Some(None);
        self.write(&header, &[]);
    }

    fn fence(&mut self) {
        if self.fences.len() < 2 && self.dice.one_in(2) {
            let start = self.dice.roll(MEDIUM as u64 - 1) as usize;
            let range = start..(start + 1 + self.dice.roll(PLOT as u64) as usize).min(MEDIUM);
            self.serial += 1;
            let id = FenceId { core: 1, serial: self.serial };
            let bytes = range.start as u64..range.end as u64;
            let request = FenceRequest { id, range: Some(bytes) };
            // What is in memory is never on its way to a store.
            assert!(self.rig.core.units[0].gate.hold(request, std::iter::empty()));
            let under = self.medium(range.clone());
            self.fences.push((id, range, under));
        } else if let Some((id, range, under)) = self.fences.pop() {
            assert!(self.medium(range) == under, "something was written under a fence");
            self.rig.core.units[0].gate.released(id);
            self.rig.core.retry_unit(0);
        }
    }

    fn turns(&mut self) {
        for _ in 0..1 + self.dice.roll(4) {
            self.rig.core.turn().unwrap();
            self.bytes.extend(self.rig.peer.read(1 << 20));
        }
        while let Some(header) = self.bytes.first_chunk::<BHS_LEN>().copied() {
            let length = BHS_LEN + (Bhs::new(&header).data_segment_length() as usize).next_multiple_of(4);
            if self.bytes.len() < length {
                break;
            }
            self.bytes.drain(..length);
            self.hear(&header);
        }
    }

    fn hear(&mut self, header: &[u8; BHS_LEN]) {
        let tag = Bhs::new(header).initiator_task_tag() & 0x0fff_ffff;
        let Some(nth) = self.writing.iter().position(|writing| writing.tag == tag) else {
            // It was answered before its abort came.
            assert_eq!(wire::opcode(header), Opcode::TaskManagementResponse, "about {tag}");
            return;
        };
        match wire::opcode(header) {
            Opcode::ReadyToTransfer => {
                let r2t = ReadyToTransfer::parse(header).unwrap();
                let next = r2t.buffer_offset as usize;
                let end = next + r2t.desired_data_transfer_length as usize;
                let burst = Burst { tag: r2t.target_transfer_tag, next, end, data_sn: 0 };
                self.writing[nth].bursts.push_back(burst);
            }
            Opcode::TaskManagementResponse => {
                let at = self.writing[nth].plot * PLOT;
                let now = self.medium(at..at + PLOT);
                self.writing[nth].aborted = Some(Some(now));
                // A part of what was asked for may still be on the way.
                if self.dice.one_in(2) {
                    self.writing[nth].bursts.clear();
                }
            }
            Opcode::ScsiResponse => {
                let response = ScsiResponse::parse(header).unwrap();
                let writing = self.writing.remove(nth);
                self.judge(writing, Some(response.status));
            }
            other => panic!("{other:?} about {tag}"),
        }
    }

    /// Holds what is there against what was said. None: it was aborted.
    fn judge(&mut self, writing: Writing, status: Option<u8>) {
        let at = writing.plot * PLOT;
        let (found, old) = (self.medium(at..at + PLOT), self.model[at..at + PLOT].to_vec());
        let (new, length) = (&writing.data, writing.length);
        assert!(found[length..] == old[length..], "{}: beyond its end", writing.tag);
        let tag = writing.tag;
        match status {
            Some(0) => {
                // What it had to send beyond the blocks of its command doesn't matter.
                let gap = writing.spoiled.filter(|from| *from < length);
                assert_eq!(gap, None, "{tag}: a gap in its data");
                assert!(found[..length] == new[..length], "{tag}: what was answered is not there");
                self.outcomes[0] += 1;
            }
            Some(0x28) => {
                assert!(found == old, "{tag}: TASK SET FULL after a part of it was written");
                self.outcomes[1] += 1;
            }
            Some(0x02) | None => {
                let blocks = found.chunks(512).zip(old.chunks(512)).zip(new[..length].chunks(512));
                for (n, ((found, old), new)) in blocks.enumerate() {
                    assert!(found == old || found == new, "{tag}: block {n} is neither old nor new");
                    let behind = writing.spoiled.is_some_and(|from| (n + 1) * 512 > from);
                    assert!(found == old || !behind, "{tag}: block {n} was written behind a gap");
                }
                if let Some(Some(then)) = &writing.aborted {
                    assert!(found == *then, "{tag}: written after its abort was answered");
                }
                self.outcomes[if status.is_some() { 2 } else { 3 }] += 1;
            }
            Some(other) => panic!("{tag}: status {other:#x}"),
        }
        self.model[at..at + PLOT].copy_from_slice(&found);
    }

    fn run(&mut self, steps: u32) {
        let before = CLASSES.map(|class| self.rig.core.reactor().pool().available(class));
        for step in 0.. {
            let over = step >= steps;
            if over && self.writing.is_empty() && self.fences.is_empty() {
                break;
            }
            assert!(step < 100 * steps, "no end: {:?}", self.writing.iter().map(|w| w.tag).collect::<Vec<_>>());
            match self.dice.roll(40) {
                0..8 if !over && self.writing.len() < 4 => self.begin(),
                8 if !over => self.abort(),
                9 | 10 if !over || !self.fences.is_empty() => self.fence(),
                11 if !over && self.dice.one_in(3) => {
                    let pool = self.rig.core.reactor().pool();
                    self.taken = std::iter::from_fn(|| pool.take(Class::Large)).collect();
                }
                12 => self.taken.clear(),
                _ => self.pour(),
            }
            self.turns();
            // What was aborted and has nothing on the way any more is over.
            let over = |w: &Writing| matches!(w.aborted, Some(Some(_))) && w.bursts.is_empty();
            if let Some(nth) = self.writing.iter().position(over) {
                (0..30).for_each(|_| _ = self.rig.core.turn().unwrap());
                let writing = self.writing.remove(nth);
                self.judge(writing, None);
            }
        }
        self.taken.clear();
        self.rig.turns();
        assert!(self.medium(0..MEDIUM) == self.model);
        assert_eq!(CLASSES.map(|class| self.rig.core.reactor().pool().available(class)), before);
        assert!(self.rig.core.tasks.is_empty());
    }
}

#[test]
fn what_was_answered_is_there_and_nothing_else_is() {
    let mut outcomes = [0; 4];
    for seed in 0..60 {
        let mut chance = Chance::new(seed);
        chance.run(600);
        outcomes.iter_mut().zip(chance.outcomes).for_each(|(all, one)| *all += one);
    }
    assert!(outcomes.iter().all(|count| *count > 5), "GOOD, TASK SET FULL, CHECK CONDITION, aborted: {outcomes:?}");
}
