//! Commands and their data.

use crate::pair::*;
use crate::target::{BLOCK, SENSE};
use initiator::{Command, Residual, SubmitError, Transfer, cdb};
use negotiation::Settings;
use std::collections::HashMap;

#[test]
fn reads_of_many_sizes_bring_the_right_bytes() {
    for on in [false, true] {
        let mut pair = Pair::new(digests(on), digests(on), 8);
        for blocks in [0, 1, 2, 3, 4, 5, 9, 10, 11, 20, 21, 63, 64] {
            let length = u32::from(blocks) * BLOCK;
            let end = pair.read(blocks.into(), blocks, length);
            assert_eq!((end.status, end.residual), (0, Residual::None), "{blocks} blocks");
            assert!(end.data == expected_data(blocks.into(), length), "{blocks} blocks");
        }
    }
}

#[test]
fn a_read_says_what_was_not_expected_or_not_moved() {
    for on in [false, true] {
        let mut pair = Pair::new(digests(on), digests(on), 8);
        // Expected: more than the command moves, less, odd, none.
        for (blocks, expected) in [(4, 3000), (4, 100_000), (4, 1000), (4, 1001), (4, 1), (4, 0), (0, 100)] {
            let end = pair.read(9, blocks, expected);
            let length = u32::from(blocks) * BLOCK;
            let residual = match length.cmp(&expected) {
                std::cmp::Ordering::Less => Residual::Underflow(expected - length),
                std::cmp::Ordering::Equal => Residual::None,
                std::cmp::Ordering::Greater => Residual::Overflow(length - expected),
            };
            assert_eq!((end.status, end.residual), (0, residual), "{blocks} blocks, {expected} expected");
            assert!(end.data == expected_data(9, length.min(expected)));
        }
    }
}

/// All 4 combinations of InitialR2T and ImmediateData, with 1 and 4 R2Ts, without and with digests.
fn every_way_of_writing(mut run: impl FnMut(&mut Pair, &str)) {
    for case in 0..16 {
        let bit = |n: u32| case >> n & 1 == 1;
        let (initial_r2t, immediate_data) = (bit(0), bit(1));
        let max_outstanding_r2t = if bit(2) { 4 } else { 1 };
        let settings = Settings { initial_r2t, immediate_data, max_outstanding_r2t, ..digests(bit(3)) };
        let mut pair = Pair::new(settings, settings, 8);
        let name = format!("InitialR2T {initial_r2t}, ImmediateData {immediate_data}, R2Ts {max_outstanding_r2t}");
        run(&mut pair, &name);
    }
}

#[test]
fn writes_of_many_sizes_arrive_in_every_way() {
    every_way_of_writing(|pair, name| {
        for blocks in [0, 1, 2, 3, 4, 5, 6, 10, 15, 16, 25, 64, 101] {
            let length = u32::from(blocks) * BLOCK;
            let end = pair.write(blocks.into(), blocks, length);
            assert_eq!((end.status, end.residual), (0, Residual::None), "{name}: {blocks} blocks");
            let written = pair.written();
            assert!(written == [(blocks.into(), expected_data(blocks.into(), length))], "{name}: {blocks} blocks");
        }
    });
}

#[test]
fn writes_that_bring_more_or_less_say_so() {
    every_way_of_writing(|pair, name| {
        for (blocks, expected) in [(4, 5000), (30, 7777), (1, 513), (3, 1)] {
            let end = pair.write(5, blocks, expected);
            let length = u32::from(blocks) * BLOCK;
            let residual = if length < expected {
                Residual::Underflow(expected - length)
            } else {
                Residual::Overflow(length - expected)
            };
            assert_eq!((end.status, end.residual), (0, residual), "{name}: {blocks} blocks, {expected} expected");
            assert!(pair.written() == [(5, expected_data(5, length.min(expected)))], "{name}");
        }
    });
}

#[test]
fn a_failed_command_brings_its_sense() {
    every_way_of_writing(|pair, name| {
        for length in [0, 512, 20_000] {
            let command = Command::write(cdb::mode_select_10(false, 0), length);
            let tag = pair.submit(&command, vec![1; length as usize]);
            let end = pair.end_of(tag);
            assert_eq!((end.status, &end.sense[..]), (2, &SENSE[..]), "{name}: {length} bytes");
            let residual = if length == 0 { Residual::None } else { Residual::Underflow(length) };
            assert_eq!(end.residual, residual, "{name}: {length} bytes");
        }
    });
}

#[test]
fn many_commands_at_once_keep_apart() {
    every_way_of_writing(|pair, name| {
        let mut writes = 0;
        for round in 0..6u32 {
            let mut expected = HashMap::new();
            let mut number = 0;
            loop {
                let (lba, blocks) = (round * 100 + number, (number * 7 % 40 + 1) as u16);
                let length = u32::from(blocks) * BLOCK;
                let write = number.is_multiple_of(2);
                let (command, data) = if write {
                    (Command::write(cdb::write_10(lba, blocks), length), expected_data(lba, length))
                } else {
                    (Command::read(cdb::read_10(lba, blocks), length), Vec::new())
                };
                match pair.connection.submit(&command, Transfer::sending(data), &mut pair.to_target) {
                    Ok(task) => expected.insert(task.initiator_task_tag(), (write, lba, length)),
                    Err(refused) => {
                        assert_eq!(refused.reason, SubmitError::Full);
                        break;
                    }
                };
                number += 1;
            }
            assert_eq!(number, 8, "{name}: the whole window");
            pair.run();
            for (tag, (write, lba, length)) in expected {
                let end = pair.ends.remove(&tag).expect("an end");
                assert_eq!((end.status, end.residual), (0, Residual::None), "{name}");
                if write {
                    writes += 1;
                } else {
                    assert!(end.data == expected_data(lba, length), "{name}");
                }
            }
        }
        let written = pair.written();
        assert_eq!(written.len(), writes);
        for (lba, data) in written {
            assert!(data == expected_data(lba, data.len() as u32), "{name}");
        }
        assert_eq!(pair.closed, None, "{name}");
        assert_eq!(pair.rejects, [], "{name}");
        assert_eq!(pair.target.full.as_ref().map(|full| full.tasks.len()), Some(0), "{name}");
    });
}
