//! The CmdSN window, order, immediate commands, tags.

use super::harness::*;
use crate::{Event, MAX_IMMEDIATE, Session, Tasks};
use wire::{RejectReason, ResponsePdu, ScsiCommand};

fn held(log: &[Log]) -> bool {
    match log {
        [Log::Event(Event::Command { held, .. }), ..] => *held,
        other => panic!("not a command: {other:?}"),
    }
}

fn released(log: &Log, target: &Target) -> u32 {
    match log {
        Log::Event(Event::Released { task }) => target.tasks.get(*task).unwrap().initiator_task_tag,
        other => panic!("not a release: {other:?}"),
    }
}

#[test]
fn commands_ahead_are_held_and_released_in_order() {
    let mut target = Target::new();
    for n in [3, 1, 2] {
        assert!(held(&target.send(|h| plain(n).emit(h), &[])));
    }
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN);
    let log = target.send(|h| plain(0).emit(h), &[]);
    assert!(!held(&log));
    assert_eq!(log[1..].iter().map(|entry| released(entry, &target)).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 4);
}

#[test]
fn a_held_command_takes_its_immediate_data() {
    let mut target = Target::new();
    let log = target.send(|h| write(1, 10).emit(h), &pattern(0, 10));
    let task = target.session.find(&target.tasks, 1).unwrap();
    assert!(held(&log));
    assert_eq!(log[1..], [payload(task, 0, 10), data(task, 0, 10, true)]);
    assert_eq!(target.send(|h| plain(0).emit(h), &[])[1..], [Log::Event(Event::Released { task })]);
}

#[test]
fn commands_outside_the_window_and_duplicates_are_ignored_with_their_data() {
    let mut target = Target::new();
    target.command(plain(0), &[]);
    target.send(|h| plain(2).emit(h), &[]);
    let before = target.tasks.len();
    for n in [0, 2, WINDOW, WINDOW + 1, 1u32.wrapping_neg(), 0x8000_0000] {
        let mut command = write(n, 20);
        command.initiator_task_tag = 77;
        let log = target.send(|h| command.emit(h), &pattern(0, 20));
        assert_eq!(log, [dropped(0, 20)], "{n}");
    }
    assert_eq!(target.tasks.len(), before);
    assert_eq!(target.replies(), []);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 1);
}

#[test]
fn the_window_closes_with_queued_commands_and_opens_with_their_status() {
    let mut target = Target::new();
    let tasks: Vec<_> = (0..WINDOW).map(|n| target.command(plain(n), &[])).collect();
    assert_eq!(target.session.max_cmd_sn(), FIRST_CMD_SN + WINDOW - 1);
    // One more is outside.
    assert_eq!(target.send(|h| plain(WINDOW).emit(h), &[]), []);
    // The response itself tells that there is room again.
    target.respond(tasks[3], GOOD, 0, &[]);
    let ResponsePdu::ScsiResponse(response) = target.reply().0 else { panic!() };
    assert_eq!(response.max_cmd_sn, FIRST_CMD_SN + WINDOW);
    assert_eq!(response.exp_cmd_sn, FIRST_CMD_SN + WINDOW);
    target.command(plain(WINDOW), &[]);
    // An aborted task gives its place back too.
    target.connection.retire(&mut target.session, &mut target.tasks, tasks[0]).unwrap();
    assert_eq!(target.session.max_cmd_sn(), FIRST_CMD_SN + WINDOW + 1);
}

#[test]
fn the_window_works_across_the_wrap() {
    let parameters = parameters();
    let mut target = Target::with(parameters);
    target.session = Session::new(7, &parameters, u32::MAX - 1, 3);
    for (n, cmd_sn) in [u32::MAX, u32::MAX - 1, 0].into_iter().enumerate() {
        let command = ScsiCommand { cmd_sn, ..plain(n as u32) };
        assert_eq!(held(&target.send(|h| command.emit(h), &[])), n == 0);
    }
    assert_eq!(target.session.exp_cmd_sn(), 1);
    assert_eq!(target.session.max_cmd_sn(), 0);
}

#[test]
fn immediate_commands_run_at_once_and_use_no_cmd_sn() {
    let mut target = Target::new();
    let command = ScsiCommand { immediate: true, ..plain(5) };
    assert!(!held(&target.send(|h| command.emit(h), &[])));
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN);
    assert_eq!(target.session.max_cmd_sn(), FIRST_CMD_SN + WINDOW - 1);
}

#[test]
fn too_many_immediate_commands_are_rejected() {
    let mut target = Target::new();
    let immediate = |n| ScsiCommand { immediate: true, ..write(n, 4) };
    let first = target.command(immediate(1000), &[]);
    for n in 1..MAX_IMMEDIATE {
        target.command(immediate(1000 + n), &[]);
    }
    assert_eq!(target.send(|h| immediate(2000).emit(h), &pattern(0, 4)), [dropped(0, 4)]);
    assert_eq!(target.rejected(), RejectReason::ImmediateCommandReject);
    target.respond(first, GOOD, 4, &[]);
    target.command(immediate(2000), &[]);
}

#[test]
fn a_tag_in_use_is_rejected_and_uses_up_the_cmd_sn() {
    let mut target = Target::new();
    let first = target.command(plain(0), &[]);
    let again = ScsiCommand { initiator_task_tag: 0, ..plain(1) };
    assert_eq!(target.send(|h| again.emit(h), &[]), []);
    assert_eq!(target.rejected(), RejectReason::TaskInProgress);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 2);
    // The first one is untouched; after its status the tag is free, even before it is retired.
    let task = target.tasks.get_mut(first).unwrap();
    let finish = crate::Finish { status: GOOD, transfer: 0 };
    target.connection.response(&mut target.session, task, finish, &[], &mut target.sink);
    let again = ScsiCommand { initiator_task_tag: 0, ..plain(2) };
    let second = target.command(again, &[]);
    target.connection.retire(&mut target.session, &mut target.tasks, first).unwrap();
    assert_eq!(target.session.find(&target.tasks, 0), Some(second));
}

#[test]
fn the_reserved_tag_is_rejected() {
    let mut target = Target::new();
    let command = ScsiCommand { initiator_task_tag: u32::MAX, ..plain(0) };
    assert_eq!(target.send(|h| command.emit(h), &[]), []);
    assert_eq!(target.rejected(), RejectReason::InvalidPduField);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 1);
    assert!(target.tasks.is_empty());
}

#[test]
fn a_rejected_command_ahead_does_not_stop_those_after_it() {
    let mut target = Target::new();
    target.send(|h| ScsiCommand { initiator_task_tag: u32::MAX, ..plain(1) }.emit(h), &[]);
    target.send(|h| plain(2).emit(h), &[]);
    let log = target.send(|h| plain(0).emit(h), &[]);
    assert_eq!(log.len(), 2);
    assert_eq!(released(&log[1], &target), 2);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 3);
}

#[test]
fn a_held_task_that_was_retired_is_skipped() {
    let mut target = Target::new();
    target.send(|h| plain(1).emit(h), &[]);
    target.send(|h| plain(2).emit(h), &[]);
    let task = target.session.find(&target.tasks, 1).unwrap();
    target.connection.retire(&mut target.session, &mut target.tasks, task).unwrap();
    let log = target.send(|h| plain(0).emit(h), &[]);
    assert_eq!(log.len(), 2);
    assert_eq!(released(&log[1], &target), 2);
    assert_eq!(target.session.max_cmd_sn(), FIRST_CMD_SN + WINDOW);
}

#[test]
fn without_a_slot_a_command_gets_task_set_full_and_its_data_is_dropped() {
    let mut target = Target::new();
    target.tasks = Tasks::with_capacity(1);
    target.command(plain(0), &[]);
    assert_eq!(target.send(|h| write(1, 30).emit(h), &pattern(0, 30)), [dropped(0, 30)]);
    let ResponsePdu::ScsiResponse(response) = target.reply().0 else { panic!() };
    assert_eq!((response.status, response.initiator_task_tag), (0x28, 1));
    assert!(response.residual_underflow);
    assert_eq!(response.residual_count, 30);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 2);
}

#[test]
fn a_session_lists_its_own_tasks_alone() {
    let mut target = Target::new();
    let mut other = Session::new(8, &target.parameters, 0, 4);
    let foreign = {
        let mut connection = crate::Connection::new(target.parameters, 0, target.now);
        let bytes = pdu(|h| ScsiCommand { cmd_sn: 0, ..plain(0) }.emit(h), &[], &target.parameters);
        let advance = connection.advance(&mut other, &mut target.tasks, &mut &bytes[..], &mut Vec::new(), target.now);
        match advance {
            crate::Advance::Event(Event::Command { task, .. }) => task,
            _ => panic!(),
        }
    };
    let mut mine: Vec<_> =
        (0..6).map(|n| target.command(ScsiCommand { lun: u64::from(n % 2), ..plain(n) }, &[])).collect();
    let sorted = |mut keys: Vec<crate::TaskKey>| {
        keys.sort_by_key(|key| key.index);
        keys
    };
    assert_eq!(sorted(target.session.tasks(&target.tasks).collect()), mine);
    assert_eq!(sorted(target.session.tasks_of_lun(&target.tasks, 1).collect()), [mine[1], mine[3], mine[5]]);
    assert_eq!(other.tasks(&target.tasks).collect::<Vec<_>>(), [foreign]);
    // Nor can it retire the other's, or one twice.
    assert!(target.session.retire(&mut target.tasks, foreign).is_none());
    let gone = mine.remove(2);
    assert!(target.session.retire(&mut target.tasks, gone).is_some());
    assert!(target.session.retire(&mut target.tasks, gone).is_none());
    assert_eq!(sorted(target.session.tasks(&target.tasks).collect()), mine);
    assert_eq!(target.session.find(&target.tasks, 2), None);
}

#[test]
fn a_detached_task_is_no_longer_the_sessions_but_stays_in_its_slot() {
    let mut target = Target::new();
    let bytes = pdu(|h| write(0, 100).emit(h), &pattern(0, 100), &target.parameters);
    target.feed(&bytes[..68]);
    let task = target.session.find(&target.tasks, 0).unwrap();
    assert!(target.session.detach(&mut target.tasks, task));
    assert!(!target.session.detach(&mut target.tasks, task));
    assert!(target.tasks.get(task).is_some());
    assert_eq!(target.session.task_count(), 0);
    assert_eq!(target.session.max_cmd_sn(), FIRST_CMD_SN + WINDOW);
    // The rest of its data is dropped, and its tag is free.
    assert_eq!(target.feed(&bytes[68..]), [dropped(20, 80)]);
    let again = target.command(ScsiCommand { initiator_task_tag: 0, ..plain(1) }, &[]);
    assert_ne!(again, task);
    assert!(target.connection.retire(&mut target.session, &mut target.tasks, task).is_none());
}

#[test]
fn sessions_and_connections_can_move_to_another_thread() {
    fn movable<T: Send + 'static>() {}
    movable::<Session>();
    movable::<crate::Connection>();
    movable::<Tasks<u32>>();
}

#[test]
fn a_held_task_that_was_detached_is_skipped() {
    let mut target = Target::new();
    target.send(|h| plain(1).emit(h), &[]);
    let task = target.session.find(&target.tasks, 1).unwrap();
    assert!(target.session.detach(&mut target.tasks, task));
    assert_eq!(target.send(|h| plain(0).emit(h), &[]).len(), 1);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 2);
}

/// The fold of [`Session`]'s index of tags.
fn fold(tag: u32) -> u32 {
    tag ^ tag >> 8 ^ tag >> 16 ^ tag >> 24
}

#[test]
fn tags_that_were_picked_to_meet_in_one_bucket_do_not_make_a_long_chain() {
    const MANY: u32 = 4096;
    let mut target = Target::new();
    target.session = Session::new(7, &target.parameters, FIRST_CMD_SN, MANY);
    target.tasks = Tasks::with_capacity(2 * MANY);
    let tags: Vec<u32> = (0..u32::MAX).step_by(7).filter(|tag| fold(*tag) & 0x1fff == 5).take(MANY as usize).collect();
    for (n, tag) in (0..).zip(&tags) {
        let command = ScsiCommand { initiator_task_tag: *tag, ..plain(n) };
        target.command(command, &[]);
        if n % 1000 == 0 {
            assert_eq!(target.send(|h| command.emit(h), &[]), [], "a duplicate is ignored");
        }
    }
    let longest = target.session.longest_chain(&target.tasks);
    assert!(longest <= 33, "a command looks at {longest} others");
    assert_eq!(target.session.tasks(&target.tasks).count(), tags.len());
    let order = (0..tags.len()).map(|n| n * 1231 % tags.len());
    for n in order {
        let key = target.session.find(&target.tasks, tags[n]).expect("it is known");
        assert_eq!(target.tasks.get(key).unwrap().initiator_task_tag, tags[n]);
        target.respond(key, GOOD, 0, &[]);
        assert_eq!(target.session.find(&target.tasks, tags[n]), None);
    }
    assert_eq!((target.session.task_count(), target.tasks.len()), (0, 0));
}
