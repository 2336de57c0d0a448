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
