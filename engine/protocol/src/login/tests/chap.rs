//! CHAP through the login, against the initiator's half of the negotiation crate, and against those who cheat.

use super::super::*;
use super::script::*;
use negotiation::chap::{Algorithm, ChapError, Credentials, InitiatorChap, Keys, Secret};
use rand::SeedableRng;
use rand::rngs::StdRng;
use wire::LoginStatus;
use wire::text::pairs;

fn keys(text: &[u8]) -> Keys<'_> {
    let mut keys = Keys::default();
    for pair in pairs(text) {
        let (name, value) = pair.unwrap();
        keys.insert(name, value).unwrap();
    }
    keys
}

/// Login text as the lines that `Script` takes.
fn lines(text: &[u8]) -> String {
    String::from_utf8(text.to_vec()).unwrap().replace('\0', " ")
}

/// A script whose target has chosen CHAP.
fn chosen() -> Script {
    let mut script = Script::new();
    let reply = script.stay(SECURITY, &format!("{} AuthMethod=CHAP,None", Script::names(LOCKED))).unwrap();
    assert_eq!(reply.value("AuthMethod"), Some("CHAP"));
    script
}

/// Runs CHAP with the initiator's half; gives its last reply.
fn prove(script: &mut Script, credentials: &Credentials) -> (Option<Reply>, Option<Result<(), ChapError>>) {
    let mut rng = StdRng::seed_from_u64(99);
    let (mut offer, mut response) = (Vec::new(), Vec::new());
    let offered = InitiatorChap::offer(credentials, &mut offer);
    let challenge = script.stay(SECURITY, &lines(&offer)).unwrap();
    assert!(!challenge.response.transit);
    let responded = offered.respond(credentials, &keys(&challenge.text), &mut rng, &mut response).unwrap();
    let reply = script.transit(SECURITY, OPERATIONAL, &lines(&response));
    let proved = match &reply {
        Some(reply) if reply.response.status == LoginStatus::Success => {
            Some(responded.verify(credentials, &keys(&reply.text)))
        }
        _ => None,
    };
    (reply, proved)
}

// R6, R7.
#[test]
fn both_sides_prove_themselves_and_the_login_goes_on() {
    for algorithm in Algorithm::ALL {
        let both = credentials();
        let mutual = both.mutual().cloned();
        let initiator = Credentials::new(both.user(), both.secret().clone(), mutual, [algorithm]).unwrap();
        let mut script = chosen();
        let (reply, proved) = prove(&mut script, &initiator);
        assert_eq!(proved, Some(Ok(())));
        let response = reply.unwrap().response;
        assert!(response.transit && response.next_stage == OPERATIONAL);
        script.transit(OPERATIONAL, FULL, "");
        assert_eq!(
            script.admitted().authentication,
            Authentication::Chap { user: "alice".into(), algorithm, mutual: true }
        );
    }
}

#[test]
fn one_way_is_enough_for_a_target_with_a_mutual_secret() {
    let initiator = Credentials::new("alice", credentials().secret().clone(), None, Algorithm::ALL).unwrap();
    let mut script = chosen();
    let (reply, _) = prove(&mut script, &initiator);
    assert!(reply.unwrap().text.is_empty());
    script.transit(OPERATIONAL, FULL, "");
    assert!(matches!(script.admitted().authentication, Authentication::Chap { mutual: false, .. }));
}

#[test]
fn wrong_secrets_and_names_fail_with_0201_and_a_reason_for_the_log() {
    let with = |user: &str, secret: &str| {
        Credentials::new(user, Secret::new(secret.as_bytes().to_vec()), None, Algorithm::ALL).unwrap()
    };
    for (initiator, why) in
        [(with("alice", "alicesecret2"), ChapError::WrongResponse), (with("bob", "alicesecret1"), ChapError::WrongName)]
    {
        let mut script = chosen();
        let (reply, _) = prove(&mut script, &initiator);
        assert_eq!(reply.as_ref().unwrap().text, b"");
        let (status, failure) = script.refused(reply);
        assert_eq!((status, &failure), (LoginStatus::AuthenticationFailure, &LoginFailure::Chap(why)));
        let log = format!("{failure} {failure:?}");
        assert!(!log.contains("secret1") && !log.contains("secret2"), "{log}");
        assert_eq!(script.login.initiator_name(), Some(INITIATOR));
    }
}

#[test]
fn the_authentication_can_not_be_skipped() {
    let names = Script::names(LOCKED);
    type Attempt = fn(&mut Script, &str) -> Option<Reply>;
    let attempts: [Attempt; 16] = [
        // Straight to the operational stage.
        |script, names| script.stay(OPERATIONAL, names),
        |script, names| script.transit(OPERATIONAL, FULL, names),
        // Out of the security stage without a word of it.
        |script, names| script.transit(SECURITY, OPERATIONAL, names),
        |script, names| script.transit(SECURITY, FULL, names),
        |script, names| {
            script.stay(SECURITY, names).unwrap();
            script.transit(SECURITY, FULL, "")
        },
        |script, names| {
            script.stay(SECURITY, names).unwrap();
            script.transit(OPERATIONAL, FULL, "")
        },
        // With a method that is not allowed.
        |script, names| script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=None")),
        |script, names| script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=KRB5,SRP")),
        |script, names| script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=Reject")),
        // CHAP is chosen, and then there is nothing of it.
        |script, names| {
            script.stay(SECURITY, &format!("{names} AuthMethod=CHAP")).unwrap();
            script.transit(SECURITY, OPERATIONAL, "")
        },
        |script, names| {
            script.stay(SECURITY, &format!("{names} AuthMethod=CHAP")).unwrap();
            script.transit(OPERATIONAL, FULL, "")
        },
        |script, names| {
            script.stay(SECURITY, &format!("{names} AuthMethod=CHAP")).unwrap();
            script.stay(SECURITY, "")
        },
        // The challenge is out, and is not answered.
        |script, names| {
            script.stay(SECURITY, &format!("{names} AuthMethod=CHAP")).unwrap();
            script.stay(SECURITY, "CHAP_A=7").unwrap();
            script.transit(SECURITY, FULL, "")
        },
        |script, names| {
            script.stay(SECURITY, &format!("{names} AuthMethod=CHAP")).unwrap();
            script.stay(SECURITY, "CHAP_A=7").unwrap();
            script.transit(OPERATIONAL, FULL, "")
        },
        // Another challenge, and another.
        |script, names| {
            script.stay(SECURITY, &format!("{names} AuthMethod=CHAP")).unwrap();
            script.stay(SECURITY, "CHAP_A=7").unwrap();
            script.stay(SECURITY, "CHAP_A=7")
        },
        // A response before the challenge.
        |script, names| {
            let response = format!("CHAP_N=alice CHAP_R=0x{}", "00".repeat(32));
            script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=CHAP {response}"))
        },
    ];
    for (index, attempt) in attempts.iter().enumerate() {
        let mut script = Script::new();
        let reply = attempt(&mut script, &names);
        let (status, failure) = script.refused(reply);
        assert_eq!(status, LoginStatus::AuthenticationFailure, "attempt {index}: {failure}");
    }
}

#[test]
fn transit_bits_before_the_end_are_a_wish_and_no_more() {
    let mut script = Script::new();
    let names = Script::names(LOCKED);
    let reply = script.transit(SECURITY, OPERATIONAL, &format!("{names} AuthMethod=CHAP,None")).unwrap();
    assert!(!reply.response.transit);
    let reply = script.transit(SECURITY, OPERATIONAL, "CHAP_A=7").unwrap();
    assert!(!reply.response.transit && reply.value("CHAP_C").is_some());
}

#[test]
fn a_target_without_credentials_refuses_who_insists_on_chap() {
    let mut script = Script::new();
    let reply = script.transit(SECURITY, OPERATIONAL, &format!("{} AuthMethod=CHAP", Script::names(OPEN)));
    assert_eq!(script.refused(reply).1, LoginFailure::NoCommonAuthMethod);
}

#[test]
fn a_reflected_challenge_ends_the_connection() {
    let mut script = chosen();
    let challenge = script.stay(SECURITY, "CHAP_A=7").unwrap();
    let answer = format!(
        "CHAP_N=alice CHAP_R=0x{} CHAP_I={} CHAP_C={}",
        "00".repeat(32),
        challenge.value("CHAP_I").unwrap(),
        challenge.value("CHAP_C").unwrap()
    );
    let reply = script.transit(SECURITY, OPERATIONAL, &answer);
    assert_eq!(reply.as_ref().unwrap().text, b"");
    let (status, failure) = script.refused(reply);
    assert_eq!((status, failure), (LoginStatus::AuthenticationFailure, LoginFailure::Chap(ChapError::Reflected)));
}

// R18.
#[test]
fn a_recorded_response_does_not_open_another_login() {
    let mut script = chosen();
    let mut response = Vec::new();
    let both = credentials();
    let offered = InitiatorChap::offer(&both, &mut Vec::new());
    let challenge = script.stay(SECURITY, "CHAP_A=7").unwrap();
    offered.respond(&both, &keys(&challenge.text), &mut StdRng::seed_from_u64(1), &mut response).unwrap();

    let mut replay = chosen();
    replay.rng = StdRng::seed_from_u64(2);
    replay.stay(SECURITY, "CHAP_A=7").unwrap();
    let reply = replay.transit(SECURITY, OPERATIONAL, &lines(&response));
    assert_eq!(replay.refused(reply).1, LoginFailure::Chap(ChapError::WrongResponse));
}

#[test]
fn discovery_asks_for_chap_where_the_directory_does() {
    let discovery = format!("InitiatorName={INITIATOR} SessionType=Discovery");
    let mut script = Script::new();
    script.targets.discovery_needs_chap = true;
    let reply = script.transit(SECURITY, OPERATIONAL, &format!("{discovery} AuthMethod=None"));
    assert_eq!(script.refused(reply).0, LoginStatus::AuthenticationFailure);

    let mut script = Script::new();
    script.targets.discovery_needs_chap = true;
    script.stay(SECURITY, &format!("{discovery} AuthMethod=CHAP")).unwrap();
    let (_, proved) = prove(&mut script, &credentials());
    assert_eq!(proved, Some(Ok(())));
    script.transit(OPERATIONAL, FULL, "");
    assert!(script.admitted().target_name.is_none());
}
