//! Whatever comes, nothing panics, and nobody is let in who has not proved himself.

use super::super::*;
use super::script::*;
use proptest::prelude::*;

fn any_line() -> impl Strategy<Value = String> {
    const FIXED: &[&str] = &[
        "AuthMethod=CHAP",
        "AuthMethod=None",
        "AuthMethod=CHAP,None",
        "CHAP_A=7",
        "CHAP_A=5,6,7,8",
        "CHAP_N=alice",
        "CHAP_I=1",
        "CHAP_C=0x00112233445566778899aabbccddeeff",
        "SessionType=Normal",
        "HeaderDigest=CRC32C,None",
        "ImmediateData=Yes",
        "MaxRecvDataSegmentLength=8192",
        "FirstBurstLength=65536",
        "TargetName=iqn.2026-01.io.ringlun:open",
    ];
    prop_oneof![
        6 => proptest::sample::select(FIXED).prop_map(str::to_owned),
        1 => "CHAP_R=0x[0-9a-f]{64}",
        1 => "[A-Z][A-Za-z]{0,12}=[!-~]{0,16}",
    ]
}

prop_compose! {
    fn any_request()(
        bits in (0u8..16, 0u8..4, 0u8..4),
        lines in prop::collection::vec(any_line(), 0..4),
    ) -> (bool, bool, Stage, Stage, String) {
        // Mostly right, so that it gets far.
        let transit = bits.0 & 1 != 0;
        let continued = !transit && bits.0 & 14 == 14;
        (transit, continued, Stage::from_code(bits.1), Stage::from_code(bits.2), lines.join(" "))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_order_of_requests_enters_a_locked_target(
        requests in prop::collection::vec(any_request(), 1..10),
        sane in prop::bool::weighted(0.8),
    ) {
        let mut script = Script::new();
        let mut names = Script::names(LOCKED);
        for (transit, continued, current, next, lines) in requests {
            let (current, next) = if sane { (SECURITY, OPERATIONAL) } else { (current, next) };
            (script.request.transit, script.request.continue_bit) = (transit, continued);
            (script.request.current_stage, script.request.next_stage) = (current, next);
            let all = format!("{} {lines}", std::mem::take(&mut names));
            let reply = script.send(&text(&all));
            match script.last.take() {
                Some(LoginStep::More) => {
                    let response = reply.unwrap().response;
                    prop_assert!(!response.transit, "nobody leaves the security stage");
                }
                Some(LoginStep::Close(failure)) => {
                    prop_assert_eq!(reply.map(|reply| reply.response.status), failure.status());
                    break;
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn an_open_target_is_entered_only_by_a_whole_login(requests in prop::collection::vec(any_request(), 1..10)) {
        let mut script = Script::new();
        let mut names = Script::names(OPEN);
        for (transit, continued, current, next, lines) in requests {
            (script.request.transit, script.request.continue_bit) = (transit, continued);
            (script.request.current_stage, script.request.next_stage) = (current, next);
            let all = format!("{} {lines}", std::mem::take(&mut names));
            script.send(&text(&all));
            match script.last.take() {
                Some(LoginStep::More) => {}
                Some(LoginStep::Admit(admission)) => {
                    prop_assert!(transit && next == FULL);
                    prop_assert_eq!(admission.authentication, Authentication::None);
                    prop_assert_eq!(admission.target_name.as_deref(), Some(OPEN));
                    break;
                }
                _ => break,
            }
        }
    }

    #[test]
    fn any_bytes_in_any_pieces_never_panic(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0x43u8), any::<u8>()], 0..400),
        login in any::<bool>(),
        piece in 1usize..100,
    ) {
        let mut script = Script::new();
        let mut bytes = bytes;
        if login && bytes.len() >= 8 {
            // A login of a short text.
            (bytes[0], bytes[4], bytes[5], bytes[6]) = (0x43, 0, 0, 0);
        }
        for piece in bytes.chunks(piece) {
            script.raw(piece);
            if !matches!(script.last, Some(LoginStep::More)) {
                break;
            }
        }
        let admitted = matches!(script.last, Some(LoginStep::Admit(_)));
        prop_assert!(!admitted);
    }
}
