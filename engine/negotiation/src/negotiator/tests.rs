//! The negotiator against itself, and against a peer's lines.

use super::*;
use crate::{DigestChoice, TaskReporting};
use proptest::prelude::*;

fn target(settings: Settings) -> Negotiator {
    Negotiator::new(Role::Target, settings, SessionType::Normal)
}

/// Feeds `key=value` lines as one batch, and gives the answers as lines.
fn say(negotiator: &mut Negotiator, lines: &[&str]) -> Result<Vec<String>, NegotiationError> {
    let mut out = Vec::new();
    for line in lines {
        let (key, text) = line.split_once('=').unwrap();
        negotiator.receive(key, text, &mut out)?;
    }
    negotiator.complete_answers(&mut out);
    Ok(lines_of(&out))
}

fn lines_of(text: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(text).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// One offer to a fresh target, and its answer.
fn answer(settings: Settings, line: &str) -> String {
    let answers = say(&mut target(settings), &[line]).unwrap();
    assert_eq!(answers.len(), 1, "{line}: {answers:?}");
    answers[0].clone()
}

#[test]
fn each_result_function_gives_what_the_standard_says() {
    let ours = Settings {
        max_connections: 4,
        max_outstanding_r2t: 8,
        default_time2retain: 10,
        error_recovery_level: 0,
        task_reporting: TaskReporting::ResponseFence,
        ..Settings::default()
    };
    for (offer, expected) in [
        // Minimum.
        ("MaxConnections=8", "MaxConnections=4"),
        ("MaxConnections=1", "MaxConnections=1"),
        ("MaxBurstLength=16776192", "MaxBurstLength=1048576"),
        ("MaxBurstLength=0x4000", "MaxBurstLength=16384"),
        ("FirstBurstLength=65536", "FirstBurstLength=65536"),
        ("FirstBurstLength=16777215", "FirstBurstLength=262144"),
        ("DefaultTime2Retain=0", "DefaultTime2Retain=0"),
        ("DefaultTime2Retain=60", "DefaultTime2Retain=10"),
        ("MaxOutstandingR2T=16", "MaxOutstandingR2T=8"),
        ("ErrorRecoveryLevel=2", "ErrorRecoveryLevel=0"),
        ("iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1"),
        // Maximum.
        ("DefaultTime2Wait=0", "DefaultTime2Wait=2"),
        ("DefaultTime2Wait=3600", "DefaultTime2Wait=3600"),
        // Or.
        ("InitialR2T=No", "InitialR2T=No"),
        ("InitialR2T=Yes", "InitialR2T=Yes"),
        ("DataPDUInOrder=No", "DataPDUInOrder=Yes"),
        ("DataSequenceInOrder=No", "DataSequenceInOrder=Yes"),
        // And.
        ("ImmediateData=Yes", "ImmediateData=Yes"),
        ("ImmediateData=No", "ImmediateData=No"),
        // The first of the offered list that we support.
        ("HeaderDigest=CRC32C,None", "HeaderDigest=CRC32C"),
        ("HeaderDigest=None,CRC32C", "HeaderDigest=None"),
        ("DataDigest=X-com.example.md5,CRC32C", "DataDigest=CRC32C"),
        ("TaskReporting=FastAbort,ResponseFence,RFC3720", "TaskReporting=ResponseFence"),
        ("TaskReporting=RFC3720,ResponseFence", "TaskReporting=RFC3720"),
    ] {
        assert_eq!(answer(ours, offer), expected);
    }
}

#[test]
fn our_own_settings_move_a_value_only_its_functions_way() {
    let ours = Settings { initial_r2t: true, immediate_data: false, data_pdu_in_order: false, ..Settings::default() };
    assert_eq!(answer(ours, "InitialR2T=No"), "InitialR2T=Yes");
    assert_eq!(answer(ours, "ImmediateData=Yes"), "ImmediateData=No");
    assert_eq!(answer(ours, "DataPDUInOrder=Yes"), "DataPDUInOrder=Yes");
    assert_eq!(answer(ours, "DataPDUInOrder=No"), "DataPDUInOrder=No");
}

#[test]
fn bad_values_are_rejected_and_leave_the_default() {
    for offer in [
        "MaxConnections=0",
        "MaxConnections=65536",
        "MaxBurstLength=511",
        "MaxBurstLength=16777216",
        "MaxBurstLength=262144~524288",
        "MaxBurstLength=-1",
        "MaxBurstLength=",
        "FirstBurstLength=99999999999999999999",
        "DefaultTime2Wait=3601",
        "ErrorRecoveryLevel=3",
        "InitialR2T=maybe",
        "ImmediateData=yes",
        "HeaderDigest=MD5",
        "HeaderDigest=",
        "TaskReporting=Whenever",
        "iSCSIProtocolLevel=32",
    ] {
        let mut negotiator = target(Settings::default());
        let key = offer.split('=').next().unwrap();
        assert_eq!(say(&mut negotiator, &[offer]).unwrap(), [format!("{key}=Reject")], "{offer}");
        assert_eq!(negotiator.parameters, Parameters::default(), "{offer}");
    }
}

#[test]
fn a_declaration_gets_no_answer_and_a_bad_one_ends_the_login() {
    let mut negotiator = target(Settings::default());
    assert_eq!(say(&mut negotiator, &["MaxRecvDataSegmentLength=65536"]).unwrap(), [""; 0]);
    assert_eq!(negotiator.finish().unwrap().peer_max_recv_data_segment_length, 65536);
    for bad in ["511", "16777216", "0", "x"] {
        let line = format!("MaxRecvDataSegmentLength={bad}");
        assert_eq!(
            say(&mut target(Settings::default()), &[&line]),
            Err(NegotiationError::BadDeclaration(Key::MaxRecvDataSegmentLength))
        );
    }
}

#[test]
fn our_length_is_declared_once_and_only_then_in_force() {
    let mut negotiator = target(Settings::default());
    assert_eq!(negotiator.finish().unwrap().max_recv_data_segment_length, 8192);
    let mut out = Vec::new();
    negotiator.declare(&mut out);
    negotiator.declare(&mut out);
    assert_eq!(lines_of(&out), ["MaxRecvDataSegmentLength=262144"]);
    assert_eq!(negotiator.finish().unwrap().max_recv_data_segment_length, 262_144);
}

#[test]
fn unknown_keys_are_not_understood_and_obsolete_ones_answered() {
    let lines = [
        "X-com.example.key=1",
        "NoSuchKey=Yes",
        "IFMarker=Yes",
        "OFMarker=No",
        "IFMarkInt=2048~8192",
        "OFMarkInt=2048",
        "RDMAExtensions=Yes",
    ];
    assert_eq!(
        say(&mut target(Settings::default()), &lines).unwrap(),
        [
            "X-com.example.key=NotUnderstood",
            "NoSuchKey=NotUnderstood",
            "IFMarker=No",
            "OFMarker=No",
            "IFMarkInt=Reject",
            "OFMarkInt=Reject",
            "RDMAExtensions=NotUnderstood",
        ]
    );
}

#[test]
fn answers_to_unknown_keys_are_bounded() {
    let mut negotiator = target(Settings::default());
    let mut out = Vec::new();
    for number in 0..MAX_UNKNOWN_KEYS {
        negotiator.receive(&format!("K{number}"), "1", &mut out).unwrap();
    }
    assert_eq!(negotiator.receive("K", "1", &mut out), Err(NegotiationError::TooManyUnknownKeys));
}

#[test]
fn a_key_that_comes_twice_ends_the_login() {
    for (first, second, key) in [
        ("MaxBurstLength=4096", "MaxBurstLength=4096", Key::MaxBurstLength),
        ("HeaderDigest=Reject", "HeaderDigest=None", Key::HeaderDigest),
        ("MaxRecvDataSegmentLength=4096", "MaxRecvDataSegmentLength=8192", Key::MaxRecvDataSegmentLength),
        ("InitiatorName=iqn.2001-04.com.a", "InitiatorName=iqn.2001-04.com.b", Key::InitiatorName),
        ("AuthMethod=None", "AuthMethod=CHAP", Key::AuthMethod),
        ("IFMarker=No", "IFMarker=No", Key::IFMarker),
    ] {
        assert_eq!(say(&mut target(Settings::default()), &[first, second]), Err(NegotiationError::Duplicate(key)));
        let mut negotiator = target(Settings::default());
        say(&mut negotiator, &[first]).unwrap();
        assert_eq!(say(&mut negotiator, &[second]), Err(NegotiationError::Duplicate(key)), "in a later batch");
    }
}

#[test]
fn keys_of_the_other_role_or_phase_are_refused() {
    for line in ["TargetAlias=x", "TargetAddress=10.0.0.1", "TargetPortalGroupTag=1"] {
        let result = say(&mut target(Settings::default()), &[line]);
        assert!(matches!(result, Err(NegotiationError::WrongSender(_))), "{line}: {result:?}");
    }
    assert_eq!(say(&mut target(Settings::default()), &["TargetPortalGroupTag=NotUnderstood"]).unwrap(), [""; 0]);
    assert_eq!(
        say(&mut target(Settings::default()), &["SendTargets=All"]),
        Err(NegotiationError::WrongPhase(Key::SendTargets))
    );
    let mut initiator = Negotiator::new(Role::Initiator, Settings::default(), SessionType::Normal);
    assert_eq!(
        say(&mut initiator, &["InitiatorName=iqn.2001-04.com.a"]),
        Err(NegotiationError::WrongSender(Key::InitiatorName))
    );
    let addresses = ["TargetAddress=10.0.0.1", "TargetAddress=10.0.0.2"];
    assert_eq!(say(&mut initiator, &addresses).unwrap(), [""; 0], "TargetAddress may be repeated");
}

#[test]
fn what_has_no_meaning_is_irrelevant() {
    let mut discovery = Negotiator::new(Role::Target, Settings::default(), SessionType::Discovery);
    let lines =
        ["MaxConnections=1", "InitialR2T=Yes", "ErrorRecoveryLevel=2", "DefaultTime2Wait=2", "HeaderDigest=None"];
    assert_eq!(
        say(&mut discovery, &lines).unwrap(),
        [
            "MaxConnections=Irrelevant",
            "InitialR2T=Irrelevant",
            "ErrorRecoveryLevel=0",
            "DefaultTime2Wait=2",
            "HeaderDigest=None"
        ]
    );
    // Whatever the order: the answer waits for the other two.
    let lines = ["FirstBurstLength=4096", "ImmediateData=No", "InitialR2T=Yes"];
    let answers = say(&mut target(Settings::default()), &lines).unwrap();
    assert_eq!(answers, ["ImmediateData=No", "InitialR2T=Yes", "FirstBurstLength=Irrelevant"]);
}

#[test]
fn the_first_burst_never_exceeds_the_burst_in_any_order() {
    for lines in
        [["FirstBurstLength=262144", "MaxBurstLength=16384"], ["MaxBurstLength=16384", "FirstBurstLength=262144"]]
    {
        let mut negotiator = target(Settings::default());
        let answers = say(&mut negotiator, &lines).unwrap();
        assert!(answers.contains(&"FirstBurstLength=16384".to_owned()), "{answers:?}");
        assert_eq!(negotiator.finish().unwrap().first_burst_length, 16384);
    }
    let mut negotiator = target(Settings::default());
    let lines = ["FirstBurstLength=262144", "MaxBurstLength=1048576"];
    assert_eq!(say(&mut negotiator, &lines).unwrap(), ["MaxBurstLength=1048576", "FirstBurstLength=262144"]);
}

#[test]
fn a_target_offers_what_the_initiator_left_out_and_the_default_does_not_suit() {
    let ours = Settings { max_burst_length: 65536, immediate_data: false, ..Settings::default() };
    let mut negotiator = target(ours);
    let mut out = Vec::new();
    assert!(negotiator.offer_needed(&mut out));
    assert_eq!(lines_of(&out), ["MaxRecvDataSegmentLength=262144", "ImmediateData=No", "MaxBurstLength=65536"]);
    assert!(matches!(negotiator.finish(), Err(NegotiationError::Unanswered(_))));
    say(&mut negotiator, &["ImmediateData=No", "MaxBurstLength=32768"]).unwrap();
    out.clear();
    // Which leaves the default of FirstBurstLength too large: with InitialR2T=Yes it means nothing.
    assert!(!negotiator.offer_needed(&mut out));
    let agreed = negotiator.finish().unwrap();
    assert_eq!((agreed.max_burst_length, agreed.first_burst_length, agreed.immediate_data), (32768, 32768, false));
}

#[test]
fn an_answer_must_be_one_that_the_offer_allows() {
    let offering = || {
        let settings = Settings { default_time2wait: 5, initial_r2t: true, ..Settings::default() };
        let mut initiator = Negotiator::new(Role::Initiator, settings, SessionType::Normal);
        initiator.offer_all(&mut Vec::new());
        initiator
    };
    for (line, key) in [
        ("MaxBurstLength=1048577", Key::MaxBurstLength),
        ("MaxBurstLength=511", Key::MaxBurstLength),
        ("DefaultTime2Wait=4", Key::DefaultTime2Wait),
        ("InitialR2T=No", Key::InitialR2T),
        ("ImmediateData=1", Key::ImmediateData),
        ("HeaderDigest=None,CRC32C", Key::HeaderDigest),
        ("ErrorRecoveryLevel=1", Key::ErrorRecoveryLevel),
    ] {
        assert_eq!(say(&mut offering(), &[line]), Err(NegotiationError::BadAnswer(key)), "{line}");
    }
}

#[test]
fn a_digest_that_one_side_requires_is_on_or_the_login_fails() {
    let requires = Settings { header_digest: DigestChoice::Require, ..Settings::default() };
    let never = Settings { header_digest: DigestChoice::Never, ..Settings::default() };
    let refused = NegotiationError::Unacceptable(Key::HeaderDigest);
    let (initiator, target) = negotiate(requires, Settings::default(), true);
    assert!(initiator.unwrap().header_digest && target.unwrap().header_digest);
    let (initiator, target) = negotiate(Settings::default(), requires, true);
    assert!(initiator.unwrap().header_digest && target.unwrap().header_digest);
    assert_eq!(negotiate(requires, never, true).0, Err(refused));
    assert_eq!(negotiate(never, requires, true).1, Err(refused));
}

#[test]
fn lengths_may_be_declared_anew_in_the_full_feature_phase_and_nothing_else() {
    let mut parameters = Parameters::default();
    let mut out = Vec::new();
    let mut say = |line: &str| {
        let (key, text) = line.split_once('=').unwrap();
        receive_in_full_feature_phase(Role::Target, &mut parameters, key, text, &mut out)
    };
    assert_eq!(say("MaxRecvDataSegmentLength=4096"), Ok(None));
    assert_eq!(say("MaxRecvDataSegmentLength=1024"), Ok(None));
    assert_eq!(say("SendTargets=All"), Ok(Some(Key::SendTargets)));
    assert_eq!(say("X-what=1"), Ok(None));
    assert_eq!(say("MaxBurstLength=4096"), Err(NegotiationError::WrongPhase(Key::MaxBurstLength)));
    assert_eq!(say("AuthMethod=None"), Err(NegotiationError::WrongPhase(Key::AuthMethod)));
    assert_eq!(say("TargetName=iqn.2001-04.com.a"), Err(NegotiationError::WrongPhase(Key::TargetName)));
    assert_eq!(say("MaxRecvDataSegmentLength=1"), Err(NegotiationError::BadDeclaration(Key::MaxRecvDataSegmentLength)));
    assert_eq!(parameters.peer_max_recv_data_segment_length, 1024);
    assert_eq!(lines_of(&out), ["X-what=NotUnderstood"]);
}

#[test]
fn a_joining_connection_keeps_what_is_its_own() {
    let session = Parameters { max_burst_length: 4096, first_burst_length: 512, ..Parameters::default() };
    let connection =
        Parameters { header_digest: true, peer_max_recv_data_segment_length: 1024, ..Parameters::default() };
    let joined = connection.joined_to(&session);
    assert_eq!(
        joined,
        Parameters {
            header_digest: true,
            peer_max_recv_data_segment_length: 1024,
            max_burst_length: 4096,
            first_burst_length: 512,
            ..Parameters::default()
        }
    );
}

/// Both roles' outcome of a whole negotiation; `all`: the initiator offers all keys, or else only what it must.
fn negotiate(
    initiator: Settings,
    target: Settings,
    all: bool,
) -> (Result<Parameters, NegotiationError>, Result<Parameters, NegotiationError>) {
    let mut initiator = Negotiator::new(Role::Initiator, initiator, SessionType::Normal);
    let mut target = Negotiator::new(Role::Target, target, SessionType::Normal);
    let mut request = Vec::new();
    if all {
        initiator.offer_all(&mut request);
    } else {
        initiator.offer_needed(&mut request);
    }
    for _ in 0..8 {
        let mut response = Vec::new();
        receive_all(&mut target, &request, &mut response);
        target.offer_needed(&mut response);
        request.clear();
        receive_all(&mut initiator, &response, &mut request);
        if request.is_empty() && !target.is_waiting() {
            break;
        }
    }
    (initiator.finish(), target.finish())
}

fn receive_all(negotiator: &mut Negotiator, text: &[u8], out: &mut Vec<u8>) {
    for pair in wire::text::pairs(text) {
        let (key, value) = pair.unwrap();
        negotiator.receive(key, value, out).unwrap();
    }
    negotiator.complete_answers(out);
}

fn any_digest() -> impl Strategy<Value = DigestChoice> {
    prop_oneof![
        Just(DigestChoice::Never),
        Just(DigestChoice::Allow),
        Just(DigestChoice::Prefer),
        Just(DigestChoice::Require)
    ]
}

prop_compose! {
    fn any_settings()(
        digests in (any_digest(), any_digest()),
        booleans: [bool; 4],
        lengths in (512u32..1 << 24, 512u32..1 << 24, 512u32..1 << 24),
        counts in (1u16.., 1u16.., 0u16..=3600, 0u16..=3600, 0u8..=2),
        reporting in 0usize..2,
    ) -> Settings {
        Settings {
            header_digest: digests.0,
            data_digest: digests.1,
            max_connections: counts.0,
            initial_r2t: booleans[0],
            immediate_data: booleans[1],
            max_recv_data_segment_length: lengths.0,
            max_burst_length: lengths.1,
            first_burst_length: lengths.2,
            default_time2wait: counts.2,
            default_time2retain: counts.3,
            max_outstanding_r2t: counts.1,
            data_pdu_in_order: booleans[2],
            data_sequence_in_order: booleans[3],
            error_recovery_level: counts.4,
            task_reporting: [TaskReporting::Rfc3720, TaskReporting::FastAbort][reporting],
            // Its name begins with a small letter: `receive` is given it as it is.
            iscsi_protocol_level: 1,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn both_sides_end_with_the_same(initiator in any_settings(), target in any_settings(), all: bool) {
        if let (Ok(one), Ok(other)) = negotiate(initiator, target, all) {
            let mirrored = Parameters {
                max_recv_data_segment_length: other.peer_max_recv_data_segment_length,
                peer_max_recv_data_segment_length: other.max_recv_data_segment_length,
                ..other
            };
            prop_assert_eq!(one, mirrored);
            prop_assert_eq!(one.max_recv_data_segment_length, initiator.max_recv_data_segment_length);
            prop_assert_eq!(other.max_recv_data_segment_length, target.max_recv_data_segment_length);
            prop_assert!(one.first_burst_length <= one.max_burst_length);
            for (settings, agreed) in [(initiator, one), (target, other)] {
                prop_assert!(agreed.max_burst_length <= settings.max_burst_length);
                prop_assert!(agreed.initial_r2t || !settings.initial_r2t);
                prop_assert!(!agreed.immediate_data || settings.immediate_data);
                prop_assert!(agreed.default_time2wait >= settings.default_time2wait);
                prop_assert!(agreed.error_recovery_level <= settings.error_recovery_level);
                prop_assert!(settings.header_digest.takes(agreed.header_digest));
            }
        } else {
            // Only digests can be irreconcilable.
            let irreconcilable = |one: DigestChoice, other: DigestChoice| {
                matches!((one, other), (DigestChoice::Never, DigestChoice::Require) | (DigestChoice::Require, DigestChoice::Never))
            };
            prop_assert!(
                irreconcilable(initiator.header_digest, target.header_digest)
                    || irreconcilable(initiator.data_digest, target.data_digest)
            );
        }
    }

    #[test]
    fn any_keys_in_any_order_keep_the_ranges(
        role in prop_oneof![Just(Role::Initiator), Just(Role::Target)],
        lines in prop::collection::vec(
            (0usize..crate::keys::COUNT, prop_oneof![
                Just("Yes".to_owned()), Just("No".to_owned()), Just("None,CRC32C".to_owned()), Just("Reject".to_owned()),
                any::<u32>().prop_map(|number| number.to_string()), "[ -~]{0,12}",
            ]),
            0..24,
        ),
    ) {
        let mut negotiator = Negotiator::new(role, Settings::default(), SessionType::Normal);
        let mut out = Vec::new();
        negotiator.offer_needed(&mut out);
        for (index, text) in &lines {
            let key = Key::all().nth(*index).unwrap();
            let _ = negotiator.receive(key.name(), text, &mut out);
        }
        negotiator.complete_answers(&mut out);
        if let Ok(agreed) = negotiator.finish() {
            let length = 512..1 << 24;
            prop_assert!(length.contains(&agreed.max_burst_length));
            prop_assert!(length.contains(&agreed.first_burst_length));
            prop_assert!(length.contains(&agreed.peer_max_recv_data_segment_length));
            prop_assert!(agreed.first_burst_length <= agreed.max_burst_length);
            prop_assert!(agreed.max_burst_length <= Settings::default().max_burst_length);
            prop_assert!(agreed.max_connections == 1 && agreed.max_outstanding_r2t == 1);
            prop_assert!(agreed.error_recovery_level == 0 && agreed.default_time2wait <= 3600);
        }
    }
}
