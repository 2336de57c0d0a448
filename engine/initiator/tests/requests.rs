//! Everything beside SCSI commands against a hand-written target: pings, task management, text, logout, messages.

mod common;

use common::Scripted;
use initiator::{CloseReason, Command, Event, Limits, SubmitError, Transfer, cdb};
use negotiation::Parameters;
use std::time::Duration;
use wire::{
    AsyncEvent, AsyncMessage, LogoutReason, LogoutResponse, LogoutResult, NopIn, RESERVED_TAG, Reject, RejectReason,
    RequestPdu, TaskManagementFunction, TaskManagementResponse, TaskManagementResult, TextResponse,
};

fn nop_in(initiator_task_tag: u32, target_transfer_tag: u32) -> NopIn {
    NopIn {
        data_segment_length: 0,
        lun: 0x0005_0000_0000_0000,
        initiator_task_tag,
        target_transfer_tag,
        stat_sn: 500,
        exp_cmd_sn: 100,
        max_cmd_sn: 107,
    }
}

fn text_response(tag: u32) -> TextResponse {
    TextResponse {
        final_bit: true,
        continue_bit: false,
        data_segment_length: 0,
        lun: 0,
        initiator_task_tag: tag,
        target_transfer_tag: RESERVED_TAG,
        stat_sn: 500,
        exp_cmd_sn: 101,
        max_cmd_sn: 107,
    }
}

fn message(async_event: AsyncEvent) -> AsyncMessage {
    AsyncMessage {
        data_segment_length: 0,
        lun: 0,
        stat_sn: 500,
        exp_cmd_sn: 100,
        max_cmd_sn: 107,
        async_event,
        async_vcode: 0,
        parameter1: 0,
        parameter2: 7,
        parameter3: 9,
    }
}

fn new() -> Scripted {
    Scripted::new(Parameters::default())
}

/// Gives a PDU and counts the events, each of which `see` judges.
fn give(
    scripted: &mut Scripted,
    pdu: impl Into<wire::ResponsePdu>,
    data: &[u8],
    mut see: impl FnMut(Event<'_, Transfer>),
) {
    let bytes = scripted.pdu(pdu, data);
    let mut count = 0;
    scripted
        .give(&bytes, |event| {
            count += 1;
            see(event);
        })
        .unwrap();
    assert_eq!(count, 1);
}

#[test]
fn a_targets_ping_is_answered_with_its_tag() {
    let mut scripted = new();
    scripted.give_quietly(nop_in(RESERVED_TAG, 77), b"ping");
    let (pdu, data) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::NopOut);
    assert!(pdu.immediate && data.is_empty());
    assert_eq!((pdu.initiator_task_tag, pdu.target_transfer_tag), (RESERVED_TAG, 77));
    assert_eq!((pdu.lun, pdu.cmd_sn, pdu.exp_stat_sn), (0x0005_0000_0000_0000, 100, 500));
}

#[test]
fn a_nop_in_without_tags_moves_the_window_alone() {
    let mut scripted = new();
    scripted.give_quietly(NopIn { max_cmd_sn: 120, ..nop_in(RESERVED_TAG, RESERVED_TAG) }, &[]);
    assert!(scripted.sent().is_empty());
    assert_eq!(scripted.connection.window_room(), 21);
    assert_eq!(scripted.connection.exp_stat_sn(), 500);
}

#[test]
fn our_ping_comes_back_with_its_data() {
    let mut scripted = new();
    let ping = scripted.connection.ping(b"hello", &mut scripted.out).unwrap();
    let (pdu, data) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::NopOut);
    assert_eq!((pdu.immediate, pdu.target_transfer_tag, &data[..]), (true, RESERVED_TAG, &b"hello"[..]));
    give(&mut scripted, nop_in(pdu.initiator_task_tag, RESERVED_TAG), &data, |event| match event {
        Event::Pong { task, data } => assert_eq!((task, data), (ping, &b"hello"[..])),
        other => panic!("{other:?}"),
    });
    assert_eq!(scripted.connection.exp_stat_sn(), 501);
    let mut in_order = || {
        let ping = scripted.connection.ping_in_order(&[], &mut scripted.out).unwrap();
        let (pdu, _) = scripted.sent_one();
        let pdu = expect!(pdu, RequestPdu::NopOut);
        assert_eq!(pdu.initiator_task_tag, ping.initiator_task_tag());
        (pdu.immediate, pdu.cmd_sn)
    };
    assert_eq!(in_order(), (false, 100));
    assert_eq!(in_order(), (false, 101));
}

#[test]
fn ping_data_must_fit_into_one_pdu() {
    let mut scripted = new();
    let long = vec![0; 8193];
    assert_eq!(scripted.connection.ping(&long, &mut scripted.out), Err(SubmitError::TooLong));
    assert!(scripted.out.is_empty());
}

#[test]
fn an_abort_names_the_task_and_its_number() {
    let mut scripted = new();
    let command = Command::none(cdb::test_unit_ready());
    let mut submit = || scripted.connection.submit(&command, Transfer::default(), &mut scripted.out).unwrap();
    submit();
    let task = submit();
    scripted.sent();
    let function = TaskManagementFunction::AbortTask;
    let request = scripted.connection.task_management(function, 0, Some(task), &mut scripted.out).unwrap();
    let (pdu, _) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::TaskManagementRequest);
    assert!(pdu.immediate);
    assert_eq!(pdu.function, function);
    assert_eq!((pdu.referenced_task_tag, pdu.ref_cmd_sn, pdu.cmd_sn), (task.initiator_task_tag(), 101, 102));
    let done = TaskManagementResponse {
        response: TaskManagementResult::Complete,
        data_segment_length: 0,
        additional_information: 0,
        initiator_task_tag: pdu.initiator_task_tag,
        stat_sn: 500,
        exp_cmd_sn: 102,
        max_cmd_sn: 109,
    };
    give(&mut scripted, done, &[], |event| match event {
        Event::TaskManagement { task, response } => {
            assert_eq!((task, response), (request, TaskManagementResult::Complete));
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(scripted.connection.in_flight(), 2);
    assert!(scripted.connection.forget(task).is_some());
    assert!(scripted.connection.forget(task).is_none());
    assert_eq!(scripted.connection.in_flight(), 1);
    // What comes for it now is nobody's.
    let late = TaskManagementResponse { stat_sn: 501, ..done };
    give(&mut scripted, late, &[], |event| assert!(matches!(event, Event::Stray { .. })));
}

#[test]
fn a_long_text_answer_is_asked_for_in_parts() {
    let mut scripted = new();
    let request = scripted.connection.send_targets("All", &mut scripted.out).unwrap();
    let (pdu, data) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::TextRequest);
    assert_eq!(data, b"SendTargets=All\0");
    assert!(pdu.final_bit && !pdu.immediate);
    assert_eq!(scripted.connection.text(b"A=b\0", &mut scripted.out), Err(SubmitError::NoTag));
    let tag = pdu.initiator_task_tag;
    let part =
        TextResponse { final_bit: false, continue_bit: true, lun: 6, target_transfer_tag: 9, ..text_response(tag) };
    scripted.give_quietly(part, b"TargetName=iqn.a\0TargetAddr");
    let (pdu, data) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::TextRequest);
    assert!(data.is_empty());
    assert_eq!((pdu.initiator_task_tag, pdu.target_transfer_tag, pdu.lun), (tag, 9, 6));
    assert_eq!((pdu.cmd_sn, pdu.exp_stat_sn), (101, 501));
    let rest = TextResponse { stat_sn: 501, ..text_response(tag) };
    give(&mut scripted, rest, b"ess=127.0.0.1:3260,1\0", |event| match event {
        Event::Text { task, text } => {
            assert_eq!(task, request);
            let targets = initiator::parse_targets(text).unwrap();
            assert_eq!(targets[0].name, "iqn.a");
            assert_eq!(targets[0].addresses[0].portal_group_tag, Some(1));
        }
        other => panic!("{other:?}"),
    });
    scripted.connection.text(b"A=b\0", &mut scripted.out).unwrap();
}

#[test]
fn a_text_answer_without_end_is_refused() {
    let limits = Limits { text_length: 10, ..Limits::default() };
    let mut scripted = Scripted::with_limits(Parameters::default(), 8, limits);
    let tag = scripted.connection.send_targets("", &mut scripted.out).unwrap().initiator_task_tag();
    let part = TextResponse { final_bit: false, target_transfer_tag: 9, ..text_response(tag) };
    scripted.give_quietly(part, &[b'a'; 10]);
    let part = TextResponse { stat_sn: 501, ..part };
    assert!(scripted.refusal(part, b"b").contains("longer than we take"));

    let mut scripted = new();
    let tag = scripted.connection.send_targets("", &mut scripted.out).unwrap().initiator_task_tag();
    let part = TextResponse { initiator_task_tag: tag, stat_sn: 500, ..part };
    assert!(scripted.refusal(part, &[]).contains("empty Text Response"));
}

#[test]
fn after_a_logout_the_connection_is_over() {
    let mut scripted = new();
    scripted.connection.logout(LogoutReason::CloseSession, &mut scripted.out).unwrap();
    let (pdu, _) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::LogoutRequest);
    assert!(pdu.immediate);
    let done = LogoutResponse {
        response: LogoutResult::Success,
        data_segment_length: 0,
        initiator_task_tag: pdu.initiator_task_tag,
        stat_sn: 500,
        exp_cmd_sn: 100,
        max_cmd_sn: 107,
        time2wait: 2,
        time2retain: 3,
    };
    let bytes = scripted.pdu(done, &[]);
    let mut seen = false;
    let end = scripted.give(&bytes, |event| match event {
        Event::Logout { response, time2wait, time2retain, .. } => {
            assert_eq!((response, time2wait, time2retain), (LogoutResult::Success, 2, 3));
            seen = true;
        }
        other => panic!("{other:?}"),
    });
    assert!(seen);
    assert_eq!(end, Err(CloseReason::Logout));
}

#[test]
fn messages_reach_the_caller_and_a_drop_ends_the_connection() {
    let mut scripted = new();
    give(&mut scripted, message(AsyncEvent::LogoutRequest), &[], |event| {
        let message = expect!(event, Event::Asynchronous);
        assert_eq!(message.event, AsyncEvent::LogoutRequest);
        assert_eq!(message.parameters, [0, 7, 9]);
    });
    let sense = AsyncMessage { stat_sn: 501, ..message(AsyncEvent::ScsiEvent) };
    give(&mut scripted, sense, &[0, 2, 0x70, 1, 9, 9], |event| {
        assert_eq!(expect!(event, Event::Asynchronous).data, [0x70, 1]);
    });
    // Another connection's end is not ours.
    let other = AsyncMessage { stat_sn: 502, parameter1: 4, ..message(AsyncEvent::ConnectionDrop) };
    give(&mut scripted, other, &[], |event| assert!(matches!(event, Event::Asynchronous(_))));
    let ours = AsyncMessage { stat_sn: 503, ..message(AsyncEvent::ConnectionDrop) };
    let ours = scripted.pdu(ours, &[]);
    assert_eq!(scripted.give(&ours, |_| {}), Err(CloseReason::Dropped));
}

#[test]
fn a_reject_brings_the_header_back() {
    let mut scripted = new();
    scripted.connection.ping(&[], &mut scripted.out).unwrap();
    let rejected: [u8; 48] = scripted.out[..].try_into().unwrap();
    let reject = Reject {
        reason: RejectReason::ProtocolError,
        data_segment_length: 0,
        stat_sn: 500,
        exp_cmd_sn: 100,
        max_cmd_sn: 107,
        data_sn: 0,
    };
    give(&mut scripted, reject, &rejected, |event| match event {
        Event::Reject { reason, header } => {
            assert_eq!((reason, header), (RejectReason::ProtocolError, Some(rejected)));
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn raw_pdus_go_out_as_they_are_and_their_answers_come_back() {
    let mut scripted = Scripted::new(Parameters { header_digest: true, ..Parameters::default() });
    let mut header = [0xee; 48];
    header[0] = 0x40;
    header[4..8].copy_from_slice(&[0, 0, 0, 2]);
    scripted.connection.raw(&header, &[], b"ab", &mut scripted.out);
    assert_eq!(scripted.out.len(), 48 + 4 + 4);
    assert_eq!(scripted.out[..48], header);
    assert_eq!(scripted.connection.cmd_sn(), 100);
    give(&mut scripted, nop_in(0xeeee_eeee, RESERVED_TAG), b"ab", |event| match event {
        Event::Stray { header, data } => {
            assert_eq!(NopIn::parse(&header).unwrap().initiator_task_tag, 0xeeee_eeee);
            assert_eq!(data, b"ab");
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(scripted.connection.exp_stat_sn(), 501);
}

#[test]
fn silence_is_broken_by_a_ping_and_then_ends_the_connection() {
    let limits = Limits {
        ping_interval: Some(Duration::from_secs(10)),
        ping_timeout: Duration::from_secs(3),
        ..Limits::default()
    };
    let mut scripted = Scripted::with_limits(Parameters::default(), 8, limits);
    let tick = |scripted: &mut Scripted, now: u64| {
        let next = scripted.connection.tick(Duration::from_secs(now), &mut scripted.out);
        next.map(|next| next.unwrap().as_secs())
    };
    assert_eq!(tick(&mut scripted, 100), Ok(110));
    assert_eq!(tick(&mut scripted, 105), Ok(110));
    assert!(scripted.out.is_empty());
    assert_eq!(tick(&mut scripted, 110), Ok(113));
    let (pdu, _) = scripted.sent_one();
    let tag = expect!(pdu, RequestPdu::NopOut).initiator_task_tag;
    scripted.give_quietly(nop_in(tag, RESERVED_TAG), &[]);
    assert_eq!(tick(&mut scripted, 112), Ok(122));
    assert_eq!(tick(&mut scripted, 122), Ok(125));
    assert_eq!(tick(&mut scripted, 125), Err(CloseReason::Timeout));
}

#[test]
fn login_pdus_and_unknown_opcodes_close_the_connection() {
    for opcode in [0x23, 0x00, 0x01, 0x3e, 0x2a] {
        let mut scripted = new();
        let mut header = [0; 48];
        header[0] = opcode;
        assert!(matches!(scripted.give(&header, |_| {}), Err(CloseReason::Protocol(_))), "{opcode:#x}");
    }
}
