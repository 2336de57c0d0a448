//! Order, pings, task management, text, logout, and broken PDUs.

use crate::pair::*;
use crate::target::{BLOCK, STALL};
use initiator::{Command, Transfer, cdb, parse_targets};
use wire::{LogoutReason, RejectReason, TaskManagementFunction, TaskManagementResult};

#[test]
fn commands_out_of_order_wait_for_those_before_them() {
    let mut pair = Pair::new(small(), small(), 8);
    let first = pair.connection.cmd_sn();
    pair.connection.set_cmd_sn(first + 1);
    let later = pair.submit(&Command::write(cdb::write_10(2, 20), 20 * BLOCK), expected_data(2, 20 * BLOCK));
    pair.run();
    assert!(pair.ends.is_empty() && pair.written().is_empty());
    pair.connection.set_cmd_sn(first);
    let earlier = pair.submit(&Command::write(cdb::write_10(1, 1), BLOCK), expected_data(1, BLOCK));
    pair.connection.set_cmd_sn(first + 2);
    pair.run();
    assert_eq!(pair.ends[&later].status, 0);
    assert_eq!(pair.ends[&earlier].status, 0);
    let order: Vec<u32> = pair.written().into_iter().map(|(lba, _)| lba).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn pings_come_back_and_are_answered() {
    let mut pair = Pair::new(digests(true), digests(true), 8);
    pair.connection.ping(b"abcde", &mut pair.to_target).expect("sent");
    pair.connection.ping_in_order(&[], &mut pair.to_target).expect("sent");
    pair.run();
    assert_eq!(pair.pongs, [b"abcde".to_vec(), Vec::new()]);
    assert_eq!(pair.closed, None);
}

#[test]
fn aborts_and_resets_end_stalled_commands() {
    let mut pair = Pair::new(small(), small(), 8);
    let mut stall = [0; 16];
    stall[0] = STALL;
    let command = Command::none(stall);
    let submit =
        |pair: &mut Pair| pair.connection.submit(&command, Transfer::default(), &mut pair.to_target).expect("sent");
    let tasks: Vec<_> = (0..4).map(|_| submit(&mut pair)).collect();
    pair.run();
    let abort = TaskManagementFunction::AbortTask;
    let send = |pair: &mut Pair, function, task| {
        pair.connection.task_management(function, 0, task, &mut pair.to_target).expect("sent");
        pair.run();
        pair.management.pop().expect("a response")
    };
    assert_eq!(send(&mut pair, abort, Some(tasks[1])), TaskManagementResult::Complete);
    // Gone, though its number was received.
    assert_eq!(send(&mut pair, abort, Some(tasks[1])), TaskManagementResult::TaskDoesNotExist);
    let reset = TaskManagementFunction::LogicalUnitReset;
    assert_eq!(send(&mut pair, reset, None), TaskManagementResult::Complete);
    assert_eq!(pair.target.full.as_ref().map(|full| full.tasks.len()), Some(0));
    for task in tasks {
        assert!(pair.connection.forget(task).is_some());
    }
    assert_eq!(pair.read(1, 1, BLOCK).status, 0);
    assert_eq!(pair.connection.window_room(), 8);
}

#[test]
fn send_targets_works_in_a_normal_session() {
    let mut pair = Pair::new(small(), small(), 8);
    pair.connection.send_targets("", &mut pair.to_target).expect("sent");
    pair.run();
    let targets = parse_targets(&pair.texts[0]).expect("a list");
    assert_eq!(targets[0].name, TARGET);
}

#[test]
fn a_logout_closes_both_sides() {
    let mut pair = Pair::new(small(), small(), 8);
    pair.connection.logout(LogoutReason::CloseSession, &mut pair.to_target).expect("sent");
    pair.run();
    // The event came before the end.
    pair.receive(&[]);
    assert_eq!(pair.closed, Some(initiator::CloseReason::Logout));
}

#[test]
fn corrupt_data_fail_the_command_and_nothing_else() {
    let mut pair = Pair::new(digests(true), digests(true), 8);
    let tag = pair.submit(&Command::write(cdb::write_10(1, 2), 2 * BLOCK), expected_data(1, 2 * BLOCK));
    let at = pair.to_target.len() - 100;
    pair.to_target[at] ^= 1;
    let end = pair.end_of(tag);
    assert_eq!((end.status, end.sense[2] & 0x0f, end.sense[12], end.sense[13]), (2, 0x0b, 0x47, 0x05));
    assert_eq!(pair.rejects, [RejectReason::DataDigestError]);
    assert!(pair.written().is_empty());
    assert_eq!(pair.write(1, 2, 2 * BLOCK).status, 0);
    assert_eq!(pair.read(1, 2, 2 * BLOCK).status, 0);
}

#[test]
fn a_corrupt_header_closes_the_connection() {
    let mut pair = Pair::new(digests(true), digests(true), 8);
    pair.submit(&Command::read(cdb::read_10(1, 2), 2 * BLOCK), Vec::new());
    pair.to_target[20] ^= 1;
    pair.run();
    let full = pair.target.full.as_ref().expect("in full feature phase");
    assert_eq!(full.closed, Some(protocol::CloseReason::HeaderDigest));
    assert!(pair.ends.is_empty());
}
