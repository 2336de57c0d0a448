//! Logins and discovery.

use crate::pair::*;
use crate::target::Target;
use initiator::{Advance, Connection, Event, Limits, LoginError, LoginOptions, parse_targets};
use negotiation::Settings;
use negotiation::chap::{Algorithm, Credentials, Mutual, Secret};
use protocol::login::{Authentication, DiscoverySession, LoginFailure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::Ipv4Addr;
use wire::LoginStatus;

fn credentials(mutual: bool, algorithms: &[Algorithm]) -> Credentials {
    let mutual = mutual.then(|| Mutual { user: "ringlun".to_owned(), secret: Secret::new(&b"ringsecret01"[..]) });
    Credentials::new("alice", Secret::new(&b"alicesecret1"[..]), mutual, algorithms).expect("different secrets")
}

#[test]
fn chap_logs_in_one_way_and_mutually_with_every_algorithm() {
    for algorithm in Algorithm::ALL {
        for mutual in [false, true] {
            let mut rng = StdRng::seed_from_u64(1);
            let configured = credentials(true, &Algorithm::ALL);
            let mut target = Target::new(small(), Some(configured), 8, StdRng::seed_from_u64(2));
            let chap = Some(credentials(mutual, &[algorithm]));
            let options = LoginOptions { chap, ..LoginOptions::normal(INITIATOR, TARGET) };
            let logged_in = log_in(options, &mut target, &mut rng).expect("logged in");
            assert_eq!((logged_in.tsih, logged_in.target_portal_group_tag), (7, Some(1)));
            let admission = target.admission.expect("admitted");
            assert_eq!(admission.initiator_name, INITIATOR);
            let expected = Authentication::Chap { user: "alice".to_owned(), algorithm, mutual };
            assert_eq!(admission.authentication, expected);
        }
    }
}

/// What the initiator and the target make of a login with this CHAP to a target that asks for CHAP.
fn refusal(chap: Option<Credentials>, change: impl FnOnce(&mut LoginOptions)) -> (LoginError, LoginFailure) {
    let configured = credentials(true, &[Algorithm::Sha256]);
    let mut target = Target::new(small(), Some(configured), 8, StdRng::seed_from_u64(2));
    let mut options = LoginOptions { chap, ..LoginOptions::normal(INITIATOR, TARGET) };
    change(&mut options);
    let (error, failure) = log_in(options, &mut target, &mut StdRng::seed_from_u64(1)).expect_err("refused");
    (error, failure.expect("a reason"))
}

#[test]
fn wrong_credentials_are_refused_with_authentication_failure() {
    let refused = |chap| refusal(chap, |_| {}).0;
    let expected = LoginError::Refused(LoginStatus::AuthenticationFailure);
    let with = |user: &str, secret: &str, algorithms: &[Algorithm]| {
        Some(Credentials::new(user, Secret::new(secret.as_bytes()), None, algorithms).expect("legal"))
    };
    assert_eq!(refused(with("alice", "alicesecret2", &Algorithm::ALL)), expected);
    assert_eq!(refused(with("bob", "alicesecret1", &Algorithm::ALL)), expected);
    assert_eq!(refused(with("alice", "alicesecret1", &[Algorithm::Md5])), expected);
    assert_eq!(refused(None), expected);
    let skipped = refusal(None, |options| options.security_stage = false).0;
    assert_eq!(skipped, expected);
}

#[test]
fn an_unknown_target_is_not_found() {
    let (error, _) = refusal(None, |options| options.target_name = Some("iqn.2026-01.io.ringlun:other".to_owned()));
    assert_eq!(error, LoginError::Refused(LoginStatus::NotFound));
}

#[test]
fn login_text_may_come_in_many_pieces() {
    for security_stage in [false, true] {
        let mut target = Target::new(small(), None, 8, StdRng::seed_from_u64(2));
        let options = LoginOptions { text_per_pdu: 37, security_stage, ..LoginOptions::normal(INITIATOR, TARGET) };
        log_in(options, &mut target, &mut StdRng::seed_from_u64(1)).expect("logged in");
    }
}

#[test]
fn a_long_discovery_answer_arrives_whole() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut target = Target::new(Settings::default(), None, 8, StdRng::seed_from_u64(2));
    let mut options = LoginOptions::discovery(INITIATOR);
    options.settings.max_recv_data_segment_length = 512;
    let logged_in = log_in(options, &mut target, &mut rng).expect("logged in");
    let admission = target.admission.as_ref().expect("admitted");
    let mut discovery = DiscoverySession::new(admission, Ipv4Addr::LOCALHOST.into());
    let mut connection: Connection<()> = Connection::new(&logged_in, Limits::default());
    let (mut to_target, mut back) = (Vec::new(), Vec::new());
    connection.send_targets("All", &mut to_target).expect("sent");
    for _ in 0..100 {
        let sent = std::mem::take(&mut to_target);
        discovery.receive(&mut &sent[..], &target.directory, &mut back);
        let answer = std::mem::take(&mut back);
        match connection.advance(&mut &answer[..], &mut to_target) {
            Advance::Idle => {}
            Advance::Event(Event::Text { text, .. }) => {
                let targets = parse_targets(text).expect("a list");
                assert_eq!(targets.len(), 200);
                assert_eq!(targets[199].name, format!("{TARGET}199"));
                assert_eq!(targets[199].addresses[0].portal_group_tag, Some(1));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no end");
}
