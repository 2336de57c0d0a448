//! PDUs that are alike are received into the buffers of their windows; and whatever comes among them is what it is.

use super::chance::Dice;
use super::*;
use crate::core::Receiving;
use memory::Class;

const WRITE: u8 = 0x2a;
const WRITE_AND_VERIFY: u8 = 0x2e;
const MEDIUM: u64 = 8 << 20;

fn rig(seed: u64, fragment: bool, digests: [bool; 2]) -> Rig {
    let delay = Duration::ZERO..Duration::from_nanos(1);
    let world = World::with(seed, Conduct { delay, fragment, window: 8 << 20 });
    let mut rig = Rig::within(world, Kind::Ram { bytes: MEDIUM, preallocate: false }, None, |parameters| {
        [parameters.header_digest, parameters.data_digest] = digests;
    });
    // As with a file, data is collected in windows.
    rig.core.units[0].writes_now = false;
    rig
}

fn data(length: u32, seed: u32) -> Vec<u8> {
    (0..length).map(|n| (n / 97 * 31 + n + seed * 7) as u8).collect()
}

impl Rig {
    /// A write with all of its data, at a block.
    fn put(&mut self, opcode: u8, block: u32, data: &[u8], digest: Option<u32>) {
        let mut cdb = access(opcode, data.len() as u32);
        cdb[2..6].copy_from_slice(&block.to_be_bytes());
        self.command(TaskAttribute::Simple, &cdb, data.len() as u32, data);
        digest.into_iter().for_each(|crc| self.peer.write(&wire::digest::to_wire(crc)));
    }

    /// Tag and status of responses, with sense data under a digest or not. A Reject tells of wrong digests besides.
    fn responses(&mut self, [header_digest, data_digest]: [bool; 2], count: usize) -> Vec<(u32, u8)> {
        let (mut bytes, mut statuses) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            self.core.turn().unwrap();
            bytes.extend(self.peer.read(1 << 20));
            while let Some(header) = bytes.first_chunk::<BHS_LEN>().copied() {
                let length = Bhs::new(&header).pdu_len(header_digest, data_digest);
                if bytes.len() < length {
                    break;
                }
                bytes.drain(..length);
                statuses.extend(ScsiResponse::parse(&header).ok().map(|r| (r.initiator_task_tag, r.status)));
            }
            if statuses.len() >= count {
                return statuses;
            }
        }
        panic!("{} of {count} responses came", statuses.len());
    }

    /// Turns until it has been asked for nothing more; how often into several buffers.
    fn count_pdus(&mut self) -> u32 {
        let mut count = 0;
        for _ in 0..2000 {
            self.core.turn().unwrap();
            count += u32::from(self.link().1.receiving == Receiving::Pdus);
        }
        count
    }
}

#[test]
fn writes_that_are_alike_are_received_into_buffers_of_their_own() {
    for (length, count) in [(64 << 10, 40), (32 << 10, 80), (8 << 10, 300)] {
        for digests in [[false; 2], [true, false], [true; 2]] {
            let mut rig = rig(1, false, digests);
            let before = rig.available();
            let (first, all) = (rig.cmd_sn - 1, data(length * count, length));
            for (data, n) in all.chunks(length as usize).zip(0..) {
                let digest = digests[1].then(|| wire::crc32c(data));
                rig.put(WRITE, n * length / BLOCK, data, digest);
            }
            let times = rig.count_pdus();
            let expected: Vec<_> = (first..first + count).map(|tag| (tag, 0)).collect();
            let mut statuses = rig.statuses(count as usize);
            statuses.sort_unstable();
            assert_eq!(statuses, expected);
            assert!(rig.medium(0, all.len()) == all);
            // 256 KiB at a time.
            assert!(times + 4 >= length * count / (256 << 10), "{times} times with {length} bytes each");
            assert_eq!(rig.available(), before);
        }
    }
}

#[test]
fn data_of_one_window_in_several_pdus_is_put_together() {
    // Four of them are as long as a buffer; only the first one may become it.
    const PIECE: usize = 16 << 10;
    const LENGTH: u32 = 4 * PIECE as u32;
    let mut rig = rig(1, false, [false; 2]);
    let (first, before) = (rig.cmd_sn - 1, rig.available());
    let all = data(LENGTH * 24, 9);
    for n in 0..24 {
        let mut cdb = access(WRITE, LENGTH);
        cdb[2..6].copy_from_slice(&(n * LENGTH / BLOCK).to_be_bytes());
        rig.command(TaskAttribute::Simple, &cdb, LENGTH, &[]);
    }
    let (mut statuses, mut times) = (Vec::new(), 0);
    while statuses.len() < 24 {
        for pdu in rig.pdus(1) {
            let Ok(r2t) = ReadyToTransfer::parse(&pdu) else {
                statuses.push(ScsiResponse::parse(&pdu).unwrap().status);
                continue;
            };
            let tag = r2t.initiator_task_tag;
            let data = &all[(tag - first) as usize * LENGTH as usize..][..LENGTH as usize];
            for (piece, n) in data.chunks(PIECE).zip(0..) {
                let (at, last) = (n * PIECE as u32, n == 3);
                rig.data_out_piece(tag, r2t.target_transfer_tag, at, piece, n, last);
            }
        }
        times += rig.count_pdus();
    }
    assert_eq!(statuses, [0; 24]);
    assert!(rig.medium(0, all.len()) == all);
    assert!(times > 2, "{times}");
    assert_eq!(rig.available(), before);
}

#[test]
fn whatever_comes_among_them_is_what_it_is() {
    let mut times = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let digests = [dice.one_in(3), dice.one_in(3)];
        let mut rig = rig(seed, dice.one_in(2), digests);
        let before = rig.available();
        let mut model = vec![0; MEDIUM as usize];
        for round in 0..6 {
            let first = rig.cmd_sn - 1;
            let (mut expected, mut at, usual) = (Vec::new(), 0, [64, 64, 32, 16, 9][dice.roll(5) as usize] << 10);
            for n in 0..30 {
                let tag = first + n;
                let other = dice.one_in(5);
                let status = match if other { dice.roll(6) } else { 6 } {
                    0 => {
                        rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
                        0
                    }
                    // Beyond the end: refused, and its data thrown away.
                    1 => {
                        let data = data(usual, 1);
                        let digest = digests[1].then(|| wire::crc32c(&data));
                        rig.put(WRITE, u32::MAX - 1000, &data, digest);
                        2
                    }
                    // Its digest is wrong: the data is not written.
                    2 if digests[1] => {
                        let data = data(usual, 2);
                        rig.put(WRITE, 0, &data, Some(!wire::crc32c(&data)));
                        2
                    }
                    kind => {
                        let length = match kind {
                            3 => 512 * (1 + dice.roll(128) as u32),
                            4 => 512,
                            _ => usual,
                        };
                        let length = length.min(MEDIUM as u32 - at);
                        let data = data(length, seed as u32 + round * 31 + n);
                        let opcode = if kind == 5 { WRITE_AND_VERIFY } else { WRITE };
                        let digest = digests[1].then(|| wire::crc32c(&data));
                        rig.put(opcode, at / BLOCK, &data, digest);
                        model[at as usize..at as usize + data.len()].copy_from_slice(&data);
                        at += length;
                        0
                    }
                };
                expected.push((tag, status));
            }
            times += rig.count_pdus();
            let mut statuses = rig.responses(digests, expected.len());
            statuses.sort_unstable();
            assert_eq!(statuses, expected, "seed {seed}, round {round}");
            assert!(rig.medium(0, model.len()) == model, "seed {seed}, round {round}");
        }
        assert_eq!(rig.available(), before, "seed {seed}");
        assert!(rig.core.tasks.is_empty());
    }
    assert!(times > 500, "{times}");
}

#[test]
fn without_buffers_to_spare_and_when_the_session_ends_it_is_as_before() {
    for ending in 0..3 {
        let mut rig = rig(3, false, [false; 2]);
        let before = rig.available();
        let mut taken = rig.take_all(Class::Medium);
        taken.truncate(if ending == 0 { taken.len() / 3 } else { 0 });
        let all = data(64 << 10, 5);
        let first = rig.cmd_sn - 1;
        (0..20).for_each(|n| rig.put(WRITE, n * 128, &all, None));
        match ending {
            0 => {
                assert_eq!(rig.count_pdus(), 0);
                let mut statuses = rig.statuses(20);
                statuses.sort_unstable();
                assert_eq!(statuses, (first..first + 20).map(|tag| (tag, 0)).collect::<Vec<_>>());
            }
            _ => {
                while rig.link().1.receiving != Receiving::Pdus {
                    rig.core.turn().unwrap();
                }
                let key = rig.link().0;
                match ending {
                    1 => rig.core.cut(key, CloseReason::Silent),
                    _ => rig.peer.close(),
                }
                (0..200).for_each(|_| _ = rig.core.turn().unwrap());
                assert_eq!((rig.core.sessions(), rig.core.reactor().in_flight()), (0, 0));
            }
        }
        drop(taken);
        assert_eq!(rig.available(), before);
    }
}

/// A session that sends writes as long as a buffer, and among them whatever it may or may not.
struct Hostile {
    rig: Rig,
    dice: Dice,
    digests: [bool; 2],
    held: Option<u32>,
    stream: Vec<u8>,
}

impl Hostile {
    fn pdu(&mut self, mut header: [u8; BHS_LEN], ahs: &[u8], data: &[u8], right: bool) {
        header[4] = (ahs.len() / 4) as u8;
        let header = [&header[..], ahs].concat();
        self.stream.extend(&header);
        if self.digests[0] {
            self.stream.extend(wire::digest::to_wire(wire::crc32c(&header)));
        }
        let padded = [data, &[0; 3][..wire::padding(data.len())]].concat();
        self.stream.extend(&padded);
        if self.digests[1] && !data.is_empty() {
            let crc = wire::crc32c(&padded);
            self.stream.extend(wire::digest::to_wire(if right { crc } else { !crc }));
        }
    }

    fn management(&mut self, function: wire::TaskManagementFunction) {
        let mut header = [0; BHS_LEN];
        let about = self.rig.cmd_sn.wrapping_sub(2 + self.dice.roll(6) as u32) & 0xffff;
        wire::TaskManagementRequest {
            immediate: true,
            function,
            data_segment_length: 0,
            lun: 0,
            initiator_task_tag: 0x1000_0000 | about,
            referenced_task_tag: about,
            cmd_sn: self.rig.cmd_sn,
            exp_stat_sn: 1,
            ref_cmd_sn: about.wrapping_add(1),
            exp_data_sn: 0,
        }
        .emit(&mut header);
        self.pdu(header, &[], &[], true);
    }

    fn put(&mut self, usual: u32) {
        use wire::TaskAttribute::*;
        let length = if self.dice.one_in(6) { 1 + self.dice.roll(100_000) as u32 } else { usual };
        let most = length.min(64 << 10);
        let immediate = if self.dice.one_in(8) { self.dice.roll(u64::from(most)) as u32 } else { most };
        let attribute = [Simple, Simple, Simple, Ordered, HeadOfQueue][self.dice.roll(5) as usize];
        // One is left out, and comes later.
        let cmd_sn = match self.held.take_if(|_| self.dice.one_in(4)) {
            Some(cmd_sn) => cmd_sn,
            None => {
                if self.held.is_none() && self.dice.one_in(8) {
                    self.held = Some(self.rig.cmd_sn);
                    self.rig.cmd_sn += 1;
                }
                self.rig.cmd_sn += 1;
                self.rig.cmd_sn - 1
            }
        };
        let opcode = if self.dice.one_in(8) { WRITE_AND_VERIFY } else { WRITE };
        let mut cdb = access(opcode, length.next_multiple_of(BLOCK));
        let block = self.dice.roll(MEDIUM / u64::from(BLOCK)) as u32;
        cdb[2..6].copy_from_slice(&block.to_be_bytes());
        let command = ScsiCommand {
            final_bit: !self.dice.one_in(6),
            write: true,
            attribute,
            data_segment_length: immediate,
            expected_data_transfer_length: length,
            ..plain(cmd_sn - 1, cmd_sn, &cdb)
        };
        let mut header = [0; BHS_LEN];
        command.emit(&mut header);
        let right = !self.dice.one_in(12);
        // A CDB's rest that nobody asked for.
        let ahs: &[u8] = if self.dice.one_in(15) { &[0, 5, 1, 0, 1, 2, 3, 4] } else { &[] };
        self.pdu(header, ahs, &data(immediate, block), right);
    }

    /// Data of some task, asked for or not, where it belongs or not.
    fn pour(&mut self, usual: u32, r2t: Option<ReadyToTransfer>) {
        let about = self.rig.cmd_sn.wrapping_sub(2 + self.dice.roll(4) as u32) & 0xffff;
        let (tag, transfer, at, most) = match r2t {
            Some(r2t) => {
                (r2t.initiator_task_tag, r2t.target_transfer_tag, r2t.buffer_offset, r2t.desired_data_transfer_length)
            }
            None => (about, wire::RESERVED_TAG, 0, usual),
        };
        let length = most.min(200 << 10);
        let mut header = [0; BHS_LEN];
        DataOut {
            final_bit: length == most || self.dice.one_in(4),
            data_segment_length: length,
            lun: 0,
            initiator_task_tag: tag,
            target_transfer_tag: transfer,
            exp_stat_sn: 1,
            data_sn: u32::from(self.dice.one_in(10)),
            buffer_offset: if self.dice.one_in(10) { 512 } else { at },
        }
        .emit(&mut header);
        let right = !self.dice.one_in(10);
        self.pdu(header, &[], &data(length, tag), right);
    }

    fn batch(&mut self, usual: u32, r2ts: &mut Vec<ReadyToTransfer>) {
        use wire::TaskManagementFunction::*;
        for _ in 0..20 {
            match self.dice.roll(40) {
                0 => self.management(AbortTask),
                1 => self.management(AbortTaskSet),
                2 if self.dice.one_in(4) => self.management(LogicalUnitReset),
                3..6 => {
                    let r2t = r2ts.pop();
                    self.pour(usual, r2t);
                }
                // An opcode that there isn't, with data.
                6 => {
                    let mut header = [0; BHS_LEN];
                    header[0] = 0x1f;
                    header[5..8].copy_from_slice(&usual.to_be_bytes()[1..]);
                    self.pdu(header, &[], &data(usual, 1), true);
                }
                7 if self.dice.one_in(60) => {
                    let mut header = [0; BHS_LEN];
                    wire::LogoutRequest {
                        immediate: self.dice.one_in(2),
                        reason: wire::LogoutReason::CloseSession,
                        data_segment_length: 0,
                        initiator_task_tag: 0x2000_0000,
                        cid: 0,
                        cmd_sn: self.rig.cmd_sn,
                        exp_stat_sn: 1,
                    }
                    .emit(&mut header);
                    self.pdu(header, &[], &[], true);
                }
                8 if self.dice.one_in(60) => {
                    let nonsense = self.dice.roll(200) as usize;
                    self.stream.extend(vec![0xee; nonsense]);
                }
                _ => self.put(usual),
            }
        }
    }
}

#[test]
fn whatever_a_peer_does_all_buffers_come_home() {
    let (mut times, mut ended, mut asked) = (0, 0, 0);
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let digests = [dice.one_in(3), dice.one_in(3)];
        let mut rig = rig(seed, dice.one_in(2), digests);
        let before = rig.available();
        let mut hostile = Hostile { rig, dice, digests, held: None, stream: Vec::new() };
        let (mut r2ts, mut answer) = (Vec::new(), Vec::new());
        'session: for _ in 0..12 {
            let usual = [64, 64, 32, 16, 9][hostile.dice.roll(5) as usize] << 10;
            hostile.batch(usual, &mut r2ts);
            let stream = std::mem::take(&mut hostile.stream);
            let pieces = 1 + hostile.dice.roll(3) as usize;
            for piece in stream.chunks(stream.len() / pieces + 1) {
                hostile.rig.peer.write(piece);
                for _ in 0..1 + hostile.dice.roll(300) {
                    hostile.rig.core.turn().unwrap();
                    answer.extend(hostile.rig.peer.read(1 << 20));
                    let Some((_, link)) = hostile.rig.core.links.iter().next() else {
                        ended += 1;
                        break 'session;
                    };
                    times += u32::from(link.receiving == Receiving::Pdus);
                }
            }
            while let Some(header) = answer.first_chunk::<BHS_LEN>().copied() {
                let length = Bhs::new(&header).pdu_len(digests[0], digests[1]);
                if answer.len() < length {
                    break;
                }
                answer.drain(..length);
                r2ts.extend(ReadyToTransfer::parse(&header));
            }
            asked += r2ts.len();
        }
        hostile.rig.peer.close();
        (0..300).for_each(|_| _ = hostile.rig.core.turn().unwrap());
        let core = &mut hostile.rig.core;
        assert_eq!((core.sessions(), core.tasks.len(), core.reactor().in_flight()), (0, 0, 0), "seed {seed}");
        assert!(core.units[0].dying.is_empty() && core.units[0].waiting.is_empty(), "seed {seed}");
        assert_eq!(hostile.rig.available(), before, "seed {seed}");
    }
    assert!(times > 100 && ended > 10 && asked > 20, "{times}, {ended}, {asked}");
}
