//! Any settings, any commands, and flipped bits.

use crate::pair::*;
use crate::target::BLOCK;
use initiator::{Command, Residual, SubmitError, Transfer, cdb};
use negotiation::{DigestChoice, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use wire::TaskManagementFunction;

/// Any legal settings; digests in two of four cases.
fn any_settings(rng: &mut StdRng) -> Settings {
    let mut among = |values: &[u32]| values[rng.next_u32() as usize % values.len()];
    let max_burst_length = among(&[512, 513, 1024, 5000, 65_536, 1 << 20]);
    let digest = |n| [DigestChoice::Never, DigestChoice::Allow, DigestChoice::Prefer][n as usize];
    Settings {
        header_digest: digest(among(&[0, 1, 2])),
        data_digest: digest(among(&[0, 1, 2])),
        initial_r2t: among(&[0, 1]) == 1,
        immediate_data: among(&[0, 1]) == 1,
        max_recv_data_segment_length: among(&[512, 515, 700, 4096, 65_536]),
        max_burst_length,
        first_burst_length: among(&[512, 600, 4096, 65_536]).min(max_burst_length),
        max_outstanding_r2t: among(&[1, 2, 3, 8]) as u16,
        data_pdu_in_order: among(&[0, 1]) == 1,
        data_sequence_in_order: among(&[0, 1]) == 1,
        ..Settings::default()
    }
}

#[test]
fn any_two_sides_agree_and_move_any_commands() {
    let mut at_once = 0;
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (ours, theirs) = (any_settings(&mut rng), any_settings(&mut rng));
        let window = rng.next_u32() % 6 + 1;
        let mut pair = Pair::new(ours, theirs, window);
        for round in 0..4 {
            let mut expected = HashMap::new();
            for number in 0..rng.next_u32() % 8 {
                let mut any = |most: u32| rng.next_u32() % most;
                let most = if any(2) == 0 { 4 } else { 50 };
                let (lba, blocks) = (round * 10_000 + number, any(most) as u16);
                let moved = u32::from(blocks) * BLOCK;
                let length = if any(3) == 0 { any(30_000) } else { moved };
                let write = any(2) == 0;
                let mut command = if write {
                    Command::write(cdb::write_10(lba, blocks), length)
                } else {
                    Command::read(cdb::read_10(lba, blocks), length)
                };
                // RFC 7143 11.3.4: all that may go unasked, or the immediate data alone.
                command.immediate_data = (any(4) == 0).then(|| any(600));
                let alone = if pair.connection.parameters().immediate_data { any(513) } else { 0 };
                if any(4) == 0 {
                    (command.immediate_data, command.unsolicited_data) = (None, Some(alone));
                }
                command.immediate = any(6) == 0;
                let data = if write { expected_data(lba, length) } else { Vec::new() };
                match pair.connection.submit(&command, Transfer::sending(data), &mut pair.to_target) {
                    Ok(task) => expected.insert(task.initiator_task_tag(), (write, lba, moved, length)),
                    Err(refused) => {
                        assert_eq!(refused.reason, SubmitError::Full);
                        break;
                    }
                };
            }
            pair.run();
            assert_eq!((pair.closed, &pair.rejects[..]), (None, &[][..]), "seed {seed}");
            let mut written: HashMap<u32, Vec<u8>> = pair.written().into_iter().collect();
            for (tag, (write, lba, moved, length)) in expected {
                let end = pair.ends.remove(&tag).unwrap_or_else(|| panic!("seed {seed}: no end"));
                let residual = match moved.cmp(&length) {
                    std::cmp::Ordering::Less => Residual::Underflow(length - moved),
                    std::cmp::Ordering::Equal => Residual::None,
                    std::cmp::Ordering::Greater => Residual::Overflow(moved - length),
                };
                assert_eq!((end.status, end.residual), (0, residual), "seed {seed}: {:?}", end.sense);
                let data = if write { written.remove(&lba).unwrap_or_default() } else { end.data };
                assert!(data == expected_data(lba, moved.min(length)), "seed {seed}");
            }
            assert!(written.is_empty() && pair.ends.is_empty());
        }
        at_once += pair.target.full.expect("still there").at_once;
    }
    assert!(at_once > 100, "{at_once} were answered as they came");
}

/// Without digests a flipped bit can mean anything: a connection may close, a command may fail or never end, but
/// neither side may panic, or go on for ever.
#[test]
fn flipped_bits_are_survived_by_both_sides() {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = Settings { max_outstanding_r2t: 4, initial_r2t: seed % 2 == 0, ..digests(false) };
        let mut pair = Pair::new(settings, settings, 8);
        for lba in 0..3 {
            let blocks = rng.next_u32() as u16 % 30;
            let length = u32::from(blocks) * BLOCK;
            pair.submit(&Command::write(cdb::write_10(lba, blocks), length), expected_data(lba, length));
            pair.submit(&Command::read(cdb::read_10(lba, blocks), length), Vec::new());
        }
        pair.connection.send_targets("", &mut pair.to_target).expect("sent");
        let abort = TaskManagementFunction::AbortTaskSet;
        pair.connection.task_management(abort, 0, None, &mut pair.to_target).expect("sent");
        let mut flips = 0;
        for _ in 0..200 {
            let mut sent = std::mem::take(&mut pair.to_target);
            flip(&mut rng, &mut sent, &mut flips);
            pair.target.receive(&sent).expect("no login");
            let mut back = std::mem::take(&mut pair.target.out);
            flip(&mut rng, &mut back, &mut flips);
            pair.receive_anything(&back);
            if sent.is_empty() && back.is_empty() {
                break;
            }
        }
        assert!(pair.to_target.is_empty() && flips > 0, "seed {seed}: no end");
    }
}

/// Flips a bit in the header that a stream begins with, or anywhere.
fn flip(rng: &mut StdRng, bytes: &mut [u8], flips: &mut u32) {
    if bytes.is_empty() || *flips > 0 && rng.next_u32().is_multiple_of(2) {
        return;
    }
    let range = if rng.next_u32().is_multiple_of(2) { bytes.len().min(48) } else { bytes.len() };
    bytes[rng.next_u32() as usize % range] ^= 1 << (rng.next_u32() % 8);
    *flips += 1;
}
