//! Stages, transitions, continued text and the final response.

use super::super::*;
use super::script::*;
use negotiation::{DigestChoice, NegotiationError, SessionType};
use wire::{Isid, LoginStatus};

#[test]
fn an_open_target_is_entered_through_both_stages() {
    let mut script = Script::new();
    let names = Script::names(OPEN);
    let reply = script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=CHAP,None")).unwrap();
    assert_eq!(reply.lines(), ["TargetPortalGroupTag=7", "AuthMethod=None"]);
    assert!(reply.response.transit && reply.response.next_stage == OPERATIONAL);
    assert_eq!((reply.response.tsih, reply.response.exp_cmd_sn), (0, 77));
    let reply = script.transit(OPERATIONAL, FULL, "HeaderDigest=CRC32C,None MaxRecvDataSegmentLength=65536");
    assert!(reply.is_none(), "the final response is for whoever installs the session");
    let admission = script.admitted();
    assert_eq!(admission.initiator_name, INITIATOR);
    assert_eq!(admission.target_name.as_deref(), Some(OPEN));
    assert_eq!(admission.authentication, Authentication::None);
    assert_eq!((admission.isid, admission.tsih, admission.cid), (Isid([0x80, 1, 2, 3, 4, 5]), 0, 9));
    assert_eq!((admission.cmd_sn, admission.stat_sn), (77, 502));
    assert!(admission.parameters.header_digest && !admission.parameters.data_digest);
    assert_eq!(admission.parameters.peer_max_recv_data_segment_length, 65536);
    assert_eq!(admission.parameters.max_recv_data_segment_length, 262_144);

    let mut out = Vec::new();
    admission.accept(0x55, 77, 140, &mut out);
    let last = super::script::reply(&out);
    assert_eq!(last.lines(), ["HeaderDigest=CRC32C", "MaxRecvDataSegmentLength=262144"]);
    let response = last.response;
    assert!(response.transit && response.current_stage == OPERATIONAL && response.next_stage == FULL);
    assert_eq!((response.status, response.tsih), (LoginStatus::Success, 0x55));
    assert_eq!((response.stat_sn, response.exp_cmd_sn, response.max_cmd_sn), (501, 77, 140));
}

#[test]
fn identity_may_be_repeated_as_it_was_in_a_later_stage() {
    let mut script = Script::new();
    let names = Script::names(OPEN);
    script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=CHAP,None")).unwrap();
    let reply = script.transit(OPERATIONAL, FULL, &names);
    assert!(reply.is_none());
    assert_eq!(script.admitted().target_name.as_deref(), Some(OPEN));
    for changed in
        ["InitiatorName=iqn.2026-01.example:other", "TargetName=iqn.2026-01.example:other", "SessionType=Discovery"]
    {
        let mut script = Script::new();
        script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=None")).unwrap();
        let reply = script.transit(OPERATIONAL, FULL, changed);
        assert_eq!(script.refused(reply).0, LoginStatus::InitiatorError, "{changed}");
    }
}

#[test]
fn a_login_may_begin_in_the_operational_stage() {
    let (reply, parameters) = Script::operational(Settings::default(), "ImmediateData=Yes InitialR2T=No");
    assert_eq!(
        reply.lines(),
        ["ImmediateData=Yes", "InitialR2T=No", "TargetPortalGroupTag=7", "MaxRecvDataSegmentLength=262144"]
    );
    assert!(parameters.immediate_data && !parameters.initial_r2t);
}

#[test]
fn the_security_stage_may_lead_straight_to_the_full_feature_phase() {
    let mut script = Script::new();
    script.transit(SECURITY, FULL, &Script::names(OPEN));
    let admission = script.admitted();
    assert_eq!(admission.parameters, negotiation::Parameters::default());
    let mut out = Vec::new();
    admission.accept(1, 77, 77, &mut out);
    let reply = super::script::reply(&out);
    assert!(reply.response.current_stage == SECURITY && reply.response.next_stage == FULL);
}

#[test]
fn a_stage_may_take_several_requests() {
    let mut script = Script::new();
    let reply = script.stay(SECURITY, &Script::names(OPEN)).unwrap();
    assert!(!reply.response.transit);
    assert_eq!(script.stay(SECURITY, "").unwrap().text, b"");
    assert_eq!(script.stay(SECURITY, "AuthMethod=None").unwrap().lines(), ["AuthMethod=None"]);
    assert!(script.transit(SECURITY, OPERATIONAL, "").unwrap().response.transit);
    assert_eq!(
        script.stay(OPERATIONAL, "InitialR2T=No").unwrap().lines(),
        ["InitialR2T=No", "MaxRecvDataSegmentLength=262144"]
    );
    assert_eq!(script.stay(OPERATIONAL, "ImmediateData=No").unwrap().lines(), ["ImmediateData=No"]);
    script.transit(OPERATIONAL, FULL, "");
    assert!(!script.admitted().parameters.initial_r2t);
}

#[test]
fn text_may_be_cut_anywhere_and_is_answered_when_it_is_whole() {
    let whole = text(&format!("{} AuthMethod=None", Script::names(OPEN)));
    let mut script = Script::new();
    for piece in whole.chunks(17) {
        script.request.continue_bit = true;
        let reply = script.send(piece).unwrap();
        assert!(reply.text.is_empty() && !reply.response.transit && !reply.response.continue_bit);
    }
    script.request.continue_bit = false;
    let reply = script.transit(SECURITY, OPERATIONAL, "").unwrap();
    assert_eq!(reply.lines(), ["TargetPortalGroupTag=7", "AuthMethod=None"]);
}

#[test]
fn the_stage_ends_only_when_the_targets_own_offers_are_answered() {
    let settings = Settings { immediate_data: false, header_digest: DigestChoice::Require, ..Settings::default() };
    let mut script = Script::with(settings);
    let reply = script.transit(OPERATIONAL, FULL, &Script::names(OPEN)).unwrap();
    assert!(!reply.response.transit);
    assert!(reply.lines().contains(&"ImmediateData=No") && reply.lines().contains(&"HeaderDigest=CRC32C"));
    script.transit(OPERATIONAL, FULL, "ImmediateData=No HeaderDigest=CRC32C");
    assert!(!script.admitted().parameters.immediate_data);

    let mut script = Script::with(settings);
    script.transit(OPERATIONAL, FULL, &Script::names(OPEN));
    let reply = script.transit(OPERATIONAL, FULL, "ImmediateData=No HeaderDigest=Reject");
    let (status, failure) = script.refused(reply);
    assert_eq!(status, LoginStatus::InitiatorError);
    assert_eq!(failure, NegotiationError::Unacceptable(negotiation::Key::HeaderDigest).into());
}

#[test]
fn bytes_may_come_one_by_one_and_what_follows_the_login_is_left() {
    let mut script = Script::new();
    let data = text(&Script::names(OPEN));
    let mut request = script.request;
    (request.transit, request.current_stage, request.next_stage) = (true, OPERATIONAL, FULL);
    request.data_segment_length = data.len() as u32;
    let bytes = pdu(|header| request.emit(header), &data);
    for &byte in &bytes[..bytes.len() - 1] {
        assert!(script.raw(&[byte]).is_empty());
        assert!(matches!(script.last, Some(LoginStep::More)));
    }
    let rest = [&bytes[bytes.len() - 1..], b"leftover"].concat();
    let mut input = rest.as_slice();
    let step = script.login.receive(&mut input, &script.targets, &mut script.rng, &mut Vec::new());
    assert!(matches!(step, LoginStep::Admit(_)));
    assert_eq!(input, b"leftover");
    assert!(matches!(
        script.login.receive(&mut input, &script.targets, &mut script.rng, &mut Vec::new()),
        LoginStep::Close(_)
    ));
}

#[test]
fn names_are_compared_without_case() {
    let mut script = Script::new();
    let lines = Script::names(OPEN).replace("redhat", "RedHat").replace("ringlun", "RINGLUN");
    script.transit(OPERATIONAL, FULL, &lines);
    let admission = script.admitted();
    assert_eq!((admission.initiator_name.as_str(), admission.target_name.as_deref()), (INITIATOR, Some(OPEN)));
}

#[test]
fn a_connection_may_ask_to_join_a_session() {
    let mut script = Script::new();
    script.request.tsih = 0x99;
    script.transit(OPERATIONAL, FULL, &Script::names(OPEN));
    let admission = script.admitted();
    assert_eq!((admission.tsih, admission.cid), (0x99, 9));
    let mut out = Vec::new();
    admission.refuse(&LoginFailure::NoSession, &mut out);
    let reply = reply(&out);
    assert_eq!(reply.response.status, LoginStatus::SessionDoesNotExist);
    assert!(!reply.response.transit && reply.text.is_empty());
}

#[test]
fn a_discovery_session_needs_no_target_and_no_chap() {
    let mut script = Script::new();
    let lines = format!("InitiatorName={INITIATOR} SessionType=Discovery AuthMethod=None InitiatorAlias=box");
    let reply = script.transit(SECURITY, OPERATIONAL, &lines).unwrap();
    assert_eq!(reply.lines(), ["AuthMethod=None"], "without a target there is no portal group tag");
    script.transit(OPERATIONAL, FULL, "HeaderDigest=CRC32C,None DefaultTime2Wait=0 IFMarker=No MaxConnections=1");
    let admission = script.admitted();
    assert_eq!(admission.session_type, SessionType::Discovery);
    assert_eq!(admission.initiator_alias.as_deref(), Some("box"));
    assert!(!admission.parameters.header_digest);
    assert_eq!(admission.parameters.max_recv_data_segment_length, 8192);
}

// R5: what the seeds recommend for Linux and for Windows is agreed to as it is offered.
#[test]
fn the_keys_of_real_initiators_are_agreed_to() {
    let settings = Settings { max_outstanding_r2t: 16, ..Settings::default() };
    let linux = "HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No \
                 ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes MaxBurstLength=1048576 FirstBurstLength=262144 \
                 MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes \
                 MaxRecvDataSegmentLength=262144";
    let (reply, parameters) = Script::operational(settings, linux);
    for key in linux.split(' ').filter(|line| !line.is_empty() && !line.starts_with("MaxRecv")) {
        assert!(reply.lines().contains(&key), "{key}: {:?}", reply.lines());
    }
    assert_eq!((parameters.max_burst_length, parameters.first_burst_length), (1_048_576, 262_144));
    assert_eq!(parameters.peer_max_recv_data_segment_length, 262_144);
    assert!(!parameters.initial_r2t && parameters.immediate_data);

    let windows = "HeaderDigest=None,CRC32C DataDigest=None,CRC32C ErrorRecoveryLevel=2 InitialR2T=No ImmediateData=Yes \
                   MaxRecvDataSegmentLength=65536 MaxBurstLength=262144 FirstBurstLength=65536 MaxConnections=1 \
                   DataPDUInOrder=Yes DataSequenceInOrder=Yes DefaultTime2Wait=0 DefaultTime2Retain=60 \
                   MaxOutstandingR2T=16";
    let (_, parameters) = Script::operational(settings, windows);
    assert_eq!((parameters.max_burst_length, parameters.first_burst_length), (262_144, 65536));
    assert_eq!((parameters.peer_max_recv_data_segment_length, parameters.max_outstanding_r2t), (65536, 16));
    assert_eq!((parameters.error_recovery_level, parameters.default_time2wait), (0, 2));
}

#[test]
fn a_connection_that_says_nothing_costs_little() {
    // And nothing on the heap before its first data segment.
    assert!(size_of::<Login>() <= 1024, "{} bytes", size_of::<Login>());
}
