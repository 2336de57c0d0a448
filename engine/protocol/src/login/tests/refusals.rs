//! Every status class and detail, and what causes it.

use super::super::*;
use super::script::*;
use negotiation::{Key, NegotiationError};
use wire::{LoginStatus, NopOut, RESERVED_TAG};

/// A first request to the open target with these lines in place of its names.
fn first(lines: &str) -> (LoginStatus, LoginFailure) {
    let mut script = Script::new();
    let reply = script.transit(SECURITY, OPERATIONAL, lines);
    script.refused(reply)
}

#[test]
fn what_the_directory_says_becomes_the_status() {
    for (target, status) in [
        ("nowhere", LoginStatus::NotFound),
        ("removed", LoginStatus::TargetRemoved),
        ("forbidden", LoginStatus::AuthorizationFailure),
        ("unavailable", LoginStatus::ServiceUnavailable),
        ("moved", LoginStatus::TargetMovedTemporarily),
        ("gone", LoginStatus::TargetMovedPermanently),
    ] {
        let lines = Script::names(&format!("iqn.2026-01.io.ringlun:{target}"));
        assert_eq!(first(&lines).0, status, "{target}");
    }
    assert_eq!(first(&Script::names("no-iscsi-name")).0, LoginStatus::NotFound);
    let stranger = Script::names(OPEN).replace("redhat", "stranger");
    assert_eq!(first(&stranger).0, LoginStatus::AuthorizationFailure);

    let mut script = Script::new();
    script.login = Login::new(Settings::default(), "10.1.1.1".parse().unwrap(), 7);
    let reply = script.transit(SECURITY, OPERATIONAL, &Script::names(OPEN));
    assert_eq!(script.refused(reply).0, LoginStatus::AuthorizationFailure, "another address");
}

#[test]
fn a_redirection_names_the_address_without_a_group() {
    let mut script = Script::new();
    let reply = script.transit(SECURITY, OPERATIONAL, &Script::names("iqn.2026-01.io.ringlun:moved"));
    assert_eq!(reply.as_ref().unwrap().lines(), ["TargetAddress=10.0.0.9:3261"]);
    assert_eq!(script.refused(reply).0, LoginStatus::TargetMovedTemporarily);
}

#[test]
fn missing_names_and_unknown_session_types_have_their_own_status() {
    let name = format!("InitiatorName={INITIATOR}");
    assert_eq!(first(&format!("TargetName={OPEN}")).0, LoginStatus::MissingParameter);
    assert_eq!(first(&name).0, LoginStatus::MissingParameter);
    assert_eq!(first("").0, LoginStatus::MissingParameter);
    assert_eq!(first(&format!("{name} SessionType=Other")).0, LoginStatus::SessionTypeNotSupported);
    assert_eq!(first(&format!("InitiatorName=me TargetName={OPEN}")).0, LoginStatus::InitiatorError);
}

#[test]
fn keys_that_break_the_rules_are_an_initiator_error() {
    let names = Script::names(OPEN);
    for (lines, failure) in [
        ("MaxBurstLength=4096 MaxBurstLength=4096", NegotiationError::Duplicate(Key::MaxBurstLength)),
        ("TargetPortalGroupTag=1", NegotiationError::WrongSender(Key::TargetPortalGroupTag)),
        ("SendTargets=All", NegotiationError::WrongPhase(Key::SendTargets)),
        ("MaxRecvDataSegmentLength=1", NegotiationError::BadDeclaration(Key::MaxRecvDataSegmentLength)),
    ] {
        let (status, why) = first(&format!("{names} {lines}"));
        assert_eq!((status, why), (LoginStatus::InitiatorError, failure.into()), "{lines}");
    }
    for broken in [&b"InitiatorName\0"[..], b"InitiatorName=x", b"=x\0", b"\xff\xff=\0"] {
        let mut script = Script::new();
        let reply = script.send(broken);
        let (status, why) = script.refused(reply);
        assert!(status == LoginStatus::InitiatorError && matches!(why, LoginFailure::Text(_)), "{broken:?}");
    }
}

#[test]
fn names_belong_to_the_first_batch() {
    for late in ["TargetName=iqn.2026-01.io.ringlun:locked", "SessionType=Discovery"] {
        let mut script = Script::new();
        // Discovery needs no target, so that the key has not come before.
        let first = match late.starts_with("TargetName") {
            true => format!("InitiatorName={INITIATOR} SessionType=Discovery"),
            false => format!("InitiatorName={INITIATOR} TargetName={OPEN}"),
        };
        script.stay(SECURITY, &first).unwrap();
        let reply = script.stay(SECURITY, late);
        let (status, failure) = script.refused(reply);
        assert_eq!(status, LoginStatus::InitiatorError);
        assert!(matches!(failure, LoginFailure::MisplacedKey(_)), "{failure:?}");
    }
}

#[test]
fn security_keys_have_no_place_in_the_operational_stage() {
    for late in ["AuthMethod=None", "CHAP_A=7", "CHAP_N=alice"] {
        let mut script = Script::new();
        let reply = script.stay(OPERATIONAL, &format!("{} {late}", Script::names(OPEN)));
        assert_eq!(script.refused(reply).0, LoginStatus::InitiatorError, "{late}");
    }
}

#[test]
fn a_version_above_ours_is_unsupported() {
    let mut script = Script::new();
    (script.request.version_min, script.request.version_max) = (1, 2);
    let reply = script.transit(SECURITY, OPERATIONAL, &Script::names(OPEN));
    let response = reply.as_ref().unwrap().response;
    assert_eq!((response.version_max, response.version_active), (0, 0));
    assert_eq!(script.refused(reply).0, LoginStatus::UnsupportedVersion);

    let mut script = Script::new();
    script.request.version_max = 3;
    assert!(script.transit(SECURITY, OPERATIONAL, &Script::names(OPEN)).unwrap().response.transit);
}

#[test]
fn what_has_to_stay_the_same_is_checked() {
    let changes: [fn(&mut LoginRequest); 8] = [
        |request| request.isid.0[5] += 1,
        |request| request.tsih = 1,
        |request| request.cid += 1,
        |request| request.initiator_task_tag += 1,
        |request| request.cmd_sn += 1,
        |request| request.version_max = 1,
        |request| request.exp_stat_sn += 1,
        |request| request.current_stage = OPERATIONAL,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut script = Script::new();
        script.stay(SECURITY, &Script::names(OPEN)).unwrap();
        change(&mut script.request);
        let reply = script.send(b"");
        assert_eq!(script.refused(reply).0, LoginStatus::InitiatorError, "change {index}");
    }
    // Also in the middle of a batch.
    let mut script = Script::new();
    script.request.continue_bit = true;
    script.send(b"InitiatorName=").unwrap();
    script.request.current_stage = OPERATIONAL;
    let reply = script.send(b"iqn");
    assert_eq!(script.refused(reply).0, LoginStatus::InitiatorError);
}

#[test]
fn an_expected_stat_sn_that_lags_is_tolerated() {
    let mut script = Script::new();
    script.stay(SECURITY, &Script::names(OPEN)).unwrap();
    script.request.exp_stat_sn -= 1;
    let data = text("AuthMethod=None");
    script.request.data_segment_length = data.len() as u32;
    let request = script.request;
    let out = script.raw(&pdu(|header| request.emit(header), &data));
    assert_eq!(reply(&out).response.stat_sn, 501);
}

#[test]
fn stages_that_no_login_has_are_refused() {
    for (current, transit, next) in [
        (Stage::Other(2), false, SECURITY),
        (FULL, false, SECURITY),
        (SECURITY, true, SECURITY),
        (SECURITY, true, Stage::Other(2)),
        (OPERATIONAL, true, SECURITY),
        (OPERATIONAL, true, OPERATIONAL),
    ] {
        let mut script = Script::new();
        (script.request.current_stage, script.request.transit, script.request.next_stage) = (current, transit, next);
        let reply = script.send(&text(&Script::names(OPEN)));
        assert_eq!(script.refused(reply).0, LoginStatus::InitiatorError, "{current:?} {transit} {next:?}");
    }
}

#[test]
fn transit_and_continue_at_once_are_refused() {
    let mut script = Script::new();
    let request = script.request;
    let mut bytes = pdu(|header| request.emit(header), &[]);
    bytes[1] |= 0xc0;
    let out = script.raw(&bytes);
    assert_eq!(script.refused(Some(reply(&out))).0, LoginStatus::InitiatorError);
}

#[test]
fn additional_header_segments_and_long_data_are_refused_before_they_are_read() {
    for change in [|bytes: &mut Vec<u8>| bytes[4] = 1, |bytes: &mut Vec<u8>| bytes[5..8].copy_from_slice(&[0, 0x20, 1])]
    {
        let mut script = Script::new();
        let request = script.request;
        let mut bytes = pdu(|header| request.emit(header), &[]);
        change(&mut bytes);
        let out = script.raw(&bytes);
        assert_eq!(script.refused(Some(reply(&out))).0, LoginStatus::InitiatorError);
    }
}

#[test]
fn a_first_pdu_that_is_no_login_closes_without_an_answer() {
    let mut script = Script::new();
    assert!(script.raw(b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.0\r\n\r\n").is_empty());
    let Some(LoginStep::Close(failure)) = script.last.take() else { panic!() };
    assert_eq!(failure.status(), None);
}

#[test]
fn another_pdu_in_the_login_phase_is_invalid_during_login() {
    let nop = NopOut {
        immediate: true,
        data_segment_length: 0,
        lun: 0,
        initiator_task_tag: 1,
        target_transfer_tag: RESERVED_TAG,
        cmd_sn: 77,
        exp_stat_sn: 501,
    };
    let mut script = Script::new();
    script.stay(SECURITY, &Script::names(OPEN)).unwrap();
    let out = script.raw(&pdu(|header| nop.emit(header), &[]));
    assert_eq!(script.refused(Some(reply(&out))).0, LoginStatus::InvalidDuringLogin);
}

#[test]
fn requests_and_text_are_bounded() {
    let mut script = Script::new();
    script.stay(SECURITY, &Script::names(OPEN)).unwrap();
    let mut count = 1;
    let reply = loop {
        let reply = script.stay(SECURITY, "");
        count += 1;
        if matches!(script.last, Some(LoginStep::Close(_))) {
            break reply;
        }
    };
    assert_eq!((script.refused(reply).0, count), (LoginStatus::InitiatorError, MAX_REQUESTS + 1));

    let mut script = Script::new();
    script.request.continue_bit = true;
    let mut total = 0;
    let reply = loop {
        let reply = script.send(&[b'A'; 8000]);
        total += 8000;
        if matches!(script.last, Some(LoginStep::Close(_))) {
            break reply;
        }
    };
    assert_eq!(script.refused(reply).0, LoginStatus::InitiatorError);
    assert!((MAX_TEXT..MAX_TEXT + 8001).contains(&total));

    // Also when each batch is short enough.
    let mut script = Script::new();
    script.stay(SECURITY, &Script::names(OPEN)).unwrap();
    let mut batches = 0;
    let reply = loop {
        let reply = script.stay(SECURITY, &format!("X-{batches}={}", "v".repeat(8000)));
        batches += 1;
        if matches!(script.last, Some(LoginStep::Close(_))) {
            break reply;
        }
    };
    assert_eq!((script.refused(reply).0, batches), (LoginStatus::InitiatorError, 9));

    let mut script = Script::new();
    let unknown: String = (0..65).map(|number| format!(" K{number}=1")).collect();
    let reply = script.stay(SECURITY, &(Script::names(OPEN) + &unknown));
    assert_eq!(script.refused(reply).0, LoginStatus::InitiatorError);
}

#[test]
fn answers_to_as_many_long_unknown_keys_as_are_taken_fit_one_response() {
    let unknown: String = (0..64).map(|number| format!(" X{number:062}=1")).collect();
    let (reply, _) = Script::operational(Settings::default(), &unknown);
    assert_eq!(reply.lines().iter().filter(|line| line.ends_with("=NotUnderstood")).count(), 64);
}

#[test]
fn every_failure_of_the_registry_has_its_status() {
    let mut script = Script::new();
    script.transit(OPERATIONAL, FULL, &Script::names(OPEN));
    let admission = script.admitted();
    for (failure, status) in [
        (LoginFailure::TooManyConnections, LoginStatus::TooManyConnections),
        (LoginFailure::CannotJoin, LoginStatus::CannotIncludeInSession),
        (LoginFailure::NoSession, LoginStatus::SessionDoesNotExist),
        (LoginFailure::Target("no core"), LoginStatus::TargetError),
        (LoginFailure::Unavailable, LoginStatus::ServiceUnavailable),
        (LoginFailure::OutOfResources, LoginStatus::OutOfResources),
    ] {
        let mut out = Vec::new();
        admission.refuse(&failure, &mut out);
        assert_eq!(reply(&out).response.status, status);
    }
}
