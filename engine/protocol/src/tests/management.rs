//! Task management: which function reaches the server, when, and the rules for a task that is not there.

use super::harness::*;
use crate::{Event, MAX_MANAGEMENT, TaskManagement, TmfResponse};
use wire::{
    RESERVED_TAG, RejectReason, ResponsePdu, ScsiCommand, TaskManagementFunction as Function, TaskManagementRequest,
    TaskManagementResult as Result,
};

fn request(n: u32, function: Function) -> TaskManagementRequest {
    TaskManagementRequest {
        immediate: false,
        function,
        data_segment_length: 0,
        lun: LUN,
        initiator_task_tag: 9000 + n,
        referenced_task_tag: RESERVED_TAG,
        cmd_sn: FIRST_CMD_SN + n,
        exp_stat_sn: FIRST_STAT_SN,
        ref_cmd_sn: 0,
        exp_data_sn: 0,
    }
}

fn abort(n: u32, referenced: u32) -> TaskManagementRequest {
    TaskManagementRequest {
        immediate: true,
        referenced_task_tag: referenced,
        ref_cmd_sn: FIRST_CMD_SN + referenced,
        ..request(n, Function::AbortTask)
    }
}

fn passed(log: &[Log]) -> TaskManagement {
    match log {
        [Log::Event(Event::TaskManagement(request))] => *request,
        other => panic!("not a task management event: {other:?}"),
    }
}

fn answer(target: &mut Target) -> (Result, u32) {
    match target.reply().0 {
        ResponsePdu::TaskManagementResponse(response) => (response.response, response.initiator_task_tag),
        other => panic!("not a task management response: {other:?}"),
    }
}

#[test]
fn abort_task_finds_its_task_and_is_answered_when_the_server_says_so() {
    let mut target = Target::new();
    let task = target.command(plain(0), &[]);
    let request = passed(&target.send(|h| abort(1, 0).emit(h), &[]));
    assert_eq!((request.function, request.referenced), (1, Some(task)));
    assert_eq!(target.replies(), []);
    target.connection.retire(&mut target.session, &mut target.tasks, task);
    let answered = |target: &mut Target| {
        target.connection.task_management_response(
            &mut target.session,
            request.key,
            TmfResponse::Complete,
            &mut target.sink,
        );
    };
    answered(&mut target);
    assert_eq!(answer(&mut target), (Result::Complete, 9001));
    answered(&mut target);
    assert_eq!(target.replies(), []);
}

#[test]
fn abort_of_a_finished_task_says_that_it_does_not_exist() {
    let mut target = Target::new();
    let task = target.command(plain(0), &[]);
    target.respond(task, GOOD, 0, &[]);
    target.replies();
    assert_eq!(target.send(|h| abort(1, 0).emit(h), &[]), []);
    assert_eq!(answer(&mut target), (Result::TaskDoesNotExist, 9001));
}

#[test]
fn abort_of_another_luns_task_says_that_it_does_not_exist() {
    let mut target = Target::new();
    target.command(plain(0), &[]);
    assert_eq!(target.send(|h| TaskManagementRequest { lun: 0, ..abort(1, 0) }.emit(h), &[]), []);
    assert_eq!(answer(&mut target), (Result::TaskDoesNotExist, 9001));
}

#[test]
fn abort_of_a_command_that_never_came_takes_it_as_received() {
    let mut target = Target::new();
    target.command(plain(0), &[]);
    // 1 is missing; 2 waits for it.
    target.send(|h| plain(2).emit(h), &[]);
    let held = target.session.find(&target.tasks, 2).unwrap();
    let log = target.send(|h| abort(3, 1).emit(h), &[]);
    assert_eq!(log, [Log::Event(Event::Released { task: held })]);
    assert_eq!(answer(&mut target), (Result::Complete, 9003));
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 3);
    // If it comes after all, it is ignored.
    assert_eq!(target.send(|h| plain(1).emit(h), &[]), []);
}

#[test]
fn abort_of_what_lies_outside_the_window_or_after_the_request_plugs_nothing() {
    let mut target = Target::new();
    for reference in [2, 3, WINDOW + 5] {
        let request = TaskManagementRequest { ref_cmd_sn: FIRST_CMD_SN + reference, ..abort(2, 77) };
        assert_eq!(target.send(|h| request.emit(h), &[]), []);
        assert_eq!(answer(&mut target).0, Result::TaskDoesNotExist, "{reference}");
    }
    for n in 0..4 {
        target.command(plain(n), &[]);
    }
}

#[test]
fn a_held_task_can_be_aborted() {
    let mut target = Target::new();
    target.send(|h| plain(1).emit(h), &[]);
    let held = target.session.find(&target.tasks, 1).unwrap();
    let request = passed(&target.send(|h| abort(2, 1).emit(h), &[]));
    assert_eq!(request.referenced, Some(held));
    target.connection.retire(&mut target.session, &mut target.tasks, held);
    assert_eq!(target.send(|h| plain(0).emit(h), &[]).len(), 1);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 2);
}

#[test]
fn a_request_ahead_waits_for_its_turn() {
    let mut target = Target::new();
    assert_eq!(target.send(|h| request(1, Function::LogicalUnitReset).emit(h), &[]), []);
    let log = target.send(|h| plain(0).emit(h), &[]);
    assert_eq!(passed(&log[1..]).function, 5);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 2);
}

#[test]
fn an_immediate_request_for_many_tasks_waits_for_the_commands_before_it() {
    let mut target = Target::new();
    for function in [Function::AbortTaskSet, Function::ClearTaskSet, Function::LogicalUnitReset] {
        let next = target.session.exp_cmd_sn() - FIRST_CMD_SN;
        let reset = TaskManagementRequest { immediate: true, ..request(next + 1, function) };
        assert_eq!(target.send(|h| reset.emit(h), &[]), []);
        let log = target.send(|h| plain(next).emit(h), &[]);
        let request = passed(&log[1..]);
        assert_eq!(request.function, function.code());
        let task = target.session.find(&target.tasks, next).unwrap();
        assert!(request.affects(target.tasks.get(task).unwrap()));
    }
}

#[test]
fn a_target_reset_takes_missing_commands_as_received() {
    let mut target = Target::new();
    let reset = TaskManagementRequest { immediate: true, ..request(3, Function::TargetWarmReset) };
    assert_eq!(passed(&target.send(|h| reset.emit(h), &[])).function, 6);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 3);
    assert_eq!(target.send(|h| plain(1).emit(h), &[]), []);
    target.command(plain(3), &[]);
}

#[test]
fn the_scope_is_by_lun_and_order() {
    let mut target = Target::new();
    let same = target.command(plain(0), &[]);
    let other = target.command(ScsiCommand { lun: 0, ..plain(1) }, &[]);
    let set = passed(&target.send(|h| request(2, Function::AbortTaskSet).emit(h), &[]));
    let later = target.command(plain(3), &[]);
    let affected = |key| set.affects(target.tasks.get(key).unwrap());
    assert_eq!([same, other, later].map(affected), [true, false, false]);
    let reset = TaskManagement { function: 7, ..set };
    assert!(reset.affects(target.tasks.get(other).unwrap()));
}

#[test]
fn what_is_not_supported_is_answered_without_the_server() {
    let mut target = Target::new();
    for (n, (function, result)) in [
        (Function::ClearAca, Result::NotSupported),
        (Function::TaskReassign, Result::ReassignmentNotSupported),
        (Function::QueryTask, Result::NotSupported),
        (Function::Other(99), Result::NotSupported),
    ]
    .into_iter()
    .enumerate()
    {
        let n = n as u32;
        assert_eq!(target.send(|h| request(n, function).emit(h), &[]), []);
        assert_eq!(answer(&mut target), (result, 9000 + n));
    }
}

#[test]
fn too_many_requests_are_refused() {
    let mut target = Target::new();
    let reset =
        |n| TaskManagementRequest { immediate: true, initiator_task_tag: n, ..request(0, Function::LogicalUnitReset) };
    let first = passed(&target.send(|h| reset(0).emit(h), &[]));
    for n in 1..MAX_MANAGEMENT as u32 {
        passed(&target.send(|h| reset(n).emit(h), &[]));
    }
    assert_eq!(target.send(|h| reset(99).emit(h), &[]), []);
    assert_eq!(target.rejected(), RejectReason::ImmediateCommandReject);
    assert_eq!(target.send(|h| request(0, Function::LogicalUnitReset).emit(h), &[]), []);
    assert_eq!(answer(&mut target), (Result::Rejected, 9000));
    target.connection.task_management_response(&mut target.session, first.key, TmfResponse::NoLun, &mut target.sink);
    assert_eq!(answer(&mut target), (Result::LunDoesNotExist, 0));
    passed(&target.send(|h| reset(99).emit(h), &[]));
}
