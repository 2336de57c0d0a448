//! NOPs and liveness, text, logout, asynchronous messages.

use super::harness::*;
use crate::{CloseReason, Event, MAX_TEXT, SendTargets};
use negotiation::Parameters;
use std::time::Duration;
use wire::{
    AsyncEvent, LogoutReason, LogoutRequest, LogoutResult, NopOut, RESERVED_TAG, RejectReason, ResponsePdu,
    TextRequest, TextResponse,
};

fn nop(n: u32) -> NopOut {
    NopOut {
        immediate: false,
        data_segment_length: 0,
        lun: 0,
        initiator_task_tag: 700 + n,
        target_transfer_tag: RESERVED_TAG,
        cmd_sn: FIRST_CMD_SN + n,
        exp_stat_sn: FIRST_STAT_SN,
    }
}

#[test]
fn a_ping_is_answered_with_its_data() {
    for digests in [false, true] {
        let mut target = Target::with(Parameters { header_digest: digests, data_digest: digests, ..parameters() });
        assert_eq!(target.send(|h| nop(0).emit(h), b"hello"), []);
        let (ResponsePdu::NopIn(answer), data) = target.reply() else { panic!() };
        assert_eq!(data, b"hello");
        assert_eq!((answer.initiator_task_tag, answer.target_transfer_tag), (700, RESERVED_TAG));
        assert_eq!((answer.stat_sn, answer.exp_cmd_sn), (FIRST_STAT_SN, FIRST_CMD_SN + 1));
        assert_eq!(target.connection.stat_sn(), FIRST_STAT_SN + 1);
        // Nothing is kept for an idle connection.
        assert_eq!(target.connection.collected.capacity(), 0);
    }
}

#[test]
fn a_ping_is_echoed_as_far_as_the_peer_can_take_it() {
    let mut target = Target::new();
    let bytes = pdu(|h| nop(0).emit(h), &pattern(0, 3000), &target.parameters);
    target.feed(&bytes[..2500]);
    // No more of it is kept.
    assert_eq!(target.connection.collected.len(), 1024);
    target.feed(&bytes[2500..]);
    assert_eq!(target.reply().1, pattern(0, 1024));
}

#[test]
fn an_immediate_ping_uses_no_cmd_sn() {
    let mut target = Target::new();
    target.send(|h| NopOut { immediate: true, ..nop(0) }.emit(h), &[]);
    assert!(matches!(target.reply().0, ResponsePdu::NopIn(_)));
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN);
}

#[test]
fn a_ping_ahead_of_its_turn_keeps_its_data() {
    let mut target = Target::new();
    target.send(|h| nop(1).emit(h), b"later");
    assert_eq!(target.replies(), []);
    target.command(plain(0), &[]);
    assert_eq!(target.reply().1, b"later");
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 2);
}

#[test]
fn what_is_kept_for_pings_ahead_is_bounded() {
    let mut target = Target::new();
    for n in 1..WINDOW {
        target.send(|h| nop(n).emit(h), &pattern(0, 4096));
    }
    let rejects = target.replies();
    assert_eq!(rejects.len(), WINDOW as usize - 1 - 4);
    assert!(rejects.iter().all(|(reply, _)| matches!(reply, ResponsePdu::Reject(_))));
    target.command(plain(0), &[]);
    assert_eq!(target.replies().len(), 4);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + WINDOW);
}

#[test]
fn a_ping_with_a_wrong_digest_is_rejected() {
    let mut target = Target::with(Parameters { data_digest: true, ..parameters() });
    let mut bytes = pdu(|h| nop(0).emit(h), b"hello", &target.parameters);
    bytes[50] ^= 1;
    target.feed(&bytes);
    assert_eq!(target.rejected(), RejectReason::DataDigestError);
    target.command(plain(1), &[]);
}

#[test]
fn silence_is_broken_by_a_ping_and_ended_by_a_close() {
    let mut target = Target::new();
    let second = Duration::from_secs;
    target.connection.set_liveness(second(10), second(5));
    let tick = |target: &mut Target, at| target.connection.tick(&mut target.session, second(at), &mut target.sink);
    assert_eq!(tick(&mut target, 0), Ok(second(10)));
    target.now = second(8);
    target.command(plain(0), &[]);
    assert_eq!(tick(&mut target, 10), Ok(second(18)));
    assert_eq!(target.replies(), []);
    assert_eq!(tick(&mut target, 18), Ok(second(23)));
    let ResponsePdu::NopIn(ping) = target.reply().0 else { panic!() };
    assert_ne!(ping.target_transfer_tag, RESERVED_TAG);
    assert_eq!((ping.initiator_task_tag, ping.stat_sn), (RESERVED_TAG, FIRST_STAT_SN));
    assert_eq!(target.connection.stat_sn(), FIRST_STAT_SN);
    // One at a time.
    assert_eq!(tick(&mut target, 20), Ok(second(23)));
    assert_eq!(target.replies(), []);
    target.now = second(21);
    let answer = NopOut {
        immediate: true,
        initiator_task_tag: RESERVED_TAG,
        target_transfer_tag: ping.target_transfer_tag,
        ..nop(1)
    };
    assert_eq!(target.send(|h| answer.emit(h), &[]), []);
    assert_eq!(target.replies(), []);
    assert_eq!(tick(&mut target, 23), Ok(second(31)));
    assert_eq!(tick(&mut target, 31), Ok(second(36)));
    assert_eq!(tick(&mut target, 36), Err(CloseReason::Silent));
    target.connection.set_liveness(Duration::ZERO, Duration::ZERO);
    assert!(tick(&mut target, 1000).is_ok());
}

#[test]
fn payload_is_a_sign_of_life_while_a_ping_waits() {
    let mut target = Target::new();
    let second = Duration::from_secs;
    target.connection.set_liveness(second(10), second(5));
    let tick = |target: &mut Target, at| target.connection.tick(&mut target.session, second(at), &mut target.sink);
    let bytes = pdu(|h| write(0, 100).emit(h), &pattern(0, 100), &target.parameters);
    target.feed(&bytes[..48]);
    assert_eq!(tick(&mut target, 10), Ok(second(15)));
    // Received straight into a buffer, without input to advance.
    target.connection.payload(&bytes[48..60]);
    target.now = second(13);
    target.feed(&[]);
    assert_eq!(tick(&mut target, 15), Ok(second(18)));
    assert_eq!(tick(&mut target, 18), Err(CloseReason::Silent));
}

fn text(n: u32, tag: u32) -> TextRequest {
    TextRequest {
        immediate: true,
        final_bit: true,
        continue_bit: false,
        data_segment_length: 0,
        lun: 0,
        initiator_task_tag: 800 + n,
        target_transfer_tag: tag,
        cmd_sn: FIRST_CMD_SN,
        exp_stat_sn: FIRST_STAT_SN,
    }
}

fn text_reply(target: &mut Target) -> (TextResponse, Vec<u8>) {
    match target.reply() {
        (ResponsePdu::TextResponse(response), data) => (response, data),
        other => panic!("not a text response: {other:?}"),
    }
}

#[test]
fn send_targets_is_answered_by_the_server() {
    for (value, which) in [
        ("", SendTargets::This),
        ("All", SendTargets::All),
        ("iqn.2026-01.io.ringlun:db1", SendTargets::Named("iqn.2026-01.io.ringlun:db1".into())),
    ] {
        let mut target = Target::new();
        let log = target.send(|h| text(0, RESERVED_TAG).emit(h), format!("SendTargets={value}\0").as_bytes());
        assert_eq!(log, [Log::Event(Event::SendTargets(which))]);
        target.connection.text_response(&mut target.session, b"TargetName=x\0", &mut target.sink);
        let (response, data) = text_reply(&mut target);
        assert_eq!(data, b"TargetName=x\0");
        assert!(response.final_bit && !response.continue_bit);
        assert_eq!((response.target_transfer_tag, response.initiator_task_tag), (RESERVED_TAG, 800));
        // There is nothing more to answer.
        target.connection.text_response(&mut target.session, b"TargetName=x\0", &mut target.sink);
        assert_eq!(target.replies(), []);
    }
}

#[test]
fn a_long_answer_comes_in_pieces() {
    let mut target = Target::new();
    target.send(|h| text(0, RESERVED_TAG).emit(h), b"SendTargets=All\0");
    let list = pattern(0, 2500);
    target.connection.text_response(&mut target.session, &list, &mut target.sink);
    let mut whole = Vec::new();
    for length in [1024, 1024, 452] {
        let (response, data) = text_reply(&mut target);
        assert_eq!(data.len(), length);
        whole.extend(data);
        let last = length == 452;
        assert_eq!((response.final_bit, response.continue_bit), (last, !last));
        if !last {
            assert_eq!(target.send(|h| text(0, response.target_transfer_tag).emit(h), &[]), []);
        }
    }
    assert_eq!(whole, list);
}

#[test]
fn a_request_may_come_in_pieces() {
    let mut target = Target::new();
    let first = TextRequest { continue_bit: true, final_bit: false, ..text(0, RESERVED_TAG) };
    assert_eq!(target.send(|h| first.emit(h), b"SendTar"), []);
    let (response, data) = text_reply(&mut target);
    assert!(data.is_empty() && !response.final_bit && !response.continue_bit);
    assert_ne!(response.target_transfer_tag, RESERVED_TAG);
    let log = target.send(|h| text(0, response.target_transfer_tag).emit(h), b"gets=All\0");
    assert_eq!(log, [Log::Event(Event::SendTargets(SendTargets::All))]);
}

#[test]
fn the_length_that_the_peer_takes_can_be_declared_anew() {
    let mut target = Target::new();
    target.send(|h| text(0, RESERVED_TAG).emit(h), b"MaxRecvDataSegmentLength=0x2000\0");
    assert!(text_reply(&mut target).0.final_bit);
    assert_eq!(target.connection.parameters().peer_max_recv_data_segment_length, 8192);
    for value in ["511", "16777216", "+600", "", "x"] {
        target.send(|h| text(0, RESERVED_TAG).emit(h), format!("MaxRecvDataSegmentLength={value}\0").as_bytes());
        assert_eq!(text_reply(&mut target).1, b"MaxRecvDataSegmentLength=Reject\0");
    }
    assert_eq!(target.connection.parameters().peer_max_recv_data_segment_length, 8192);
}

#[test]
fn other_keys_are_refused_by_name() {
    let mut target = Target::new();
    target.send(|h| text(0, RESERVED_TAG).emit(h), b"X-a.b=1\0MaxBurstLength=512\0InitiatorAlias=me\0");
    assert_eq!(text_reply(&mut target).1, b"X-a.b=NotUnderstood\0MaxBurstLength=Reject\0");
}

#[test]
fn text_that_is_none_is_rejected() {
    let long = [b"k".repeat(64), b"=1\0".to_vec()].concat();
    for bytes in [&b"novalue\0"[..], b"=x\0", b"\xff\xfe=1\0", &long] {
        let mut target = Target::new();
        target.send(|h| text(0, RESERVED_TAG).emit(h), bytes);
        assert_eq!(target.rejected(), RejectReason::ProtocolError);
    }
}

#[test]
fn text_without_end_is_rejected() {
    let mut target = Target::new();
    let mut tag = RESERVED_TAG;
    let mut sent = 0;
    loop {
        let piece = TextRequest { continue_bit: true, final_bit: false, ..text(0, tag) };
        target.send(|h| piece.emit(h), &[b'a'; 4096]);
        sent += 4096;
        match target.reply().0 {
            ResponsePdu::TextResponse(response) => tag = response.target_transfer_tag,
            ResponsePdu::Reject(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, MAX_TEXT + 4096);
    assert!(target.connection.text.is_none());
}

#[test]
fn a_text_request_with_a_wrong_tag_is_rejected() {
    let mut target = Target::new();
    target.send(|h| text(0, 55).emit(h), b"SendTargets=All\0");
    assert_eq!(target.rejected(), RejectReason::ProtocolError);
}

#[test]
fn a_second_exchange_waits_for_the_first_answer() {
    let mut target = Target::new();
    target.send(|h| text(0, RESERVED_TAG).emit(h), b"SendTargets=All\0");
    assert_eq!(target.send(|h| text(1, RESERVED_TAG).emit(h), b"SendTargets=All\0"), []);
    assert_eq!(target.rejected(), RejectReason::ProtocolError);
    target.connection.text_response(&mut target.session, b"a=b\0", &mut target.sink);
    assert_eq!(text_reply(&mut target).1, b"a=b\0");
}

fn logout(reason: LogoutReason, cid: u16) -> LogoutRequest {
    LogoutRequest {
        immediate: false,
        reason,
        data_segment_length: 0,
        initiator_task_tag: 900,
        cid,
        cmd_sn: FIRST_CMD_SN,
        exp_stat_sn: FIRST_STAT_SN,
    }
}

#[test]
fn a_logout_is_answered_by_the_server_and_ends_the_connection() {
    for (reason, code) in [(LogoutReason::CloseSession, 0), (LogoutReason::CloseConnection, 1)] {
        let mut target = Target::new();
        target.connection.set_cid(3);
        let log = target.send(|h| logout(reason, 3).emit(h), &[]);
        assert_eq!(log, [Log::Event(Event::Logout { reason: code })]);
        // Nothing is read after it.
        assert_eq!(target.send(|h| plain(1).emit(h), &[]), []);
        assert!(target.tasks.is_empty() && target.connection.logout_waits());
        target.connection.logout_response(&mut target.session, &mut target.sink);
        let ResponsePdu::LogoutResponse(response) = target.reply().0 else { panic!() };
        assert_eq!((response.response, response.initiator_task_tag), (LogoutResult::Success, 900));
        assert_eq!((response.time2wait, response.time2retain), (2, 20));
        assert_eq!(target.feed(&[]), [Log::Close(CloseReason::Logout)]);
        target.connection.logout_response(&mut target.session, &mut target.sink);
        assert_eq!(target.replies(), []);
    }
}

#[test]
fn a_logout_of_another_connection_is_refused() {
    for (reason, result) in [
        (LogoutReason::CloseConnection, LogoutResult::CidNotFound),
        (LogoutReason::RemoveForRecovery, LogoutResult::RecoveryNotSupported),
    ] {
        let mut target = Target::new();
        target.connection.set_cid(3);
        assert_eq!(target.send(|h| logout(reason, 4).emit(h), &[]), []);
        let ResponsePdu::LogoutResponse(response) = target.reply().0 else { panic!() };
        assert_eq!(response.response, result);
        target.command(plain(1), &[]);
    }
}

#[test]
fn an_asynchronous_message_carries_its_parameters() {
    let mut target = Target::new();
    target.connection.asynchronous(&mut target.session, 1, [7, 8, 9], &mut target.sink);
    let ResponsePdu::AsyncMessage(message) = target.reply().0 else { panic!() };
    assert_eq!(message.async_event, AsyncEvent::LogoutRequest);
    assert_eq!((message.parameter1, message.parameter2, message.parameter3), (7, 8, 9));
    assert_eq!(message.stat_sn, FIRST_STAT_SN);
    assert_eq!(target.connection.stat_sn(), FIRST_STAT_SN + 1);
}
