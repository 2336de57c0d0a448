//! Prover and verifier against each other, and the verifier against those who cheat.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn credentials(mutual: bool, algorithms: &[Algorithm]) -> Credentials {
    let mutual = mutual.then(|| Mutual { user: "ringlun".into(), secret: Secret::new(b"ringsecret01".to_vec()) });
    Credentials::new("alice", Secret::new(b"alicesecret1".to_vec()), mutual, algorithms).unwrap()
}

fn keys(text: &[u8]) -> Keys<'_> {
    let mut keys = Keys::default();
    for pair in wire::text::pairs(text) {
        let (name, value) = pair.unwrap();
        assert!(keys.insert(name, value).unwrap());
    }
    keys
}

fn value_of<'a>(text: &'a [u8], key: &str) -> &'a str {
    wire::text::pairs(text).map(Result::unwrap).find(|(name, _)| *name == key).unwrap().1
}

/// A target that has challenged, and its challenge's text.
fn challenged(credentials: &Credentials, offer: &str, seed: u64) -> (TargetChap, Vec<u8>) {
    let mut text = Vec::new();
    let mut keys = Keys::default();
    keys.insert("CHAP_A", offer).unwrap();
    let chap =
        TargetChap::challenge(credentials, &keys, &mut StdRng::seed_from_u64(seed), &mut text).expect("a challenge");
    (chap, text)
}

/// A whole authentication between an initiator and a target with these credentials.
fn authenticate(initiator: &Credentials, target: &Credentials) -> Result<Authenticated, ChapError> {
    let mut rng = StdRng::seed_from_u64(7);
    let (mut offer, mut challenge, mut response, mut proof) = (vec![], vec![], vec![], vec![]);
    let offered = InitiatorChap::offer(initiator, &mut offer);
    let chap = TargetChap::challenge(target, &keys(&offer), &mut rng, &mut challenge)?;
    let responded = offered.respond(initiator, &keys(&challenge), &mut rng, &mut response)?;
    let authenticated = chap.verify(target, &keys(&response), &mut proof)?;
    responded.verify(initiator, &keys(&proof))?;
    Ok(authenticated)
}

#[test]
fn every_algorithm_authenticates_one_way_and_mutually() {
    for algorithm in Algorithm::ALL {
        for mutual in [false, true] {
            let both = credentials(mutual, &[algorithm]);
            assert_eq!(authenticate(&both, &both), Ok(Authenticated { mutual }), "{algorithm}");
        }
    }
}

#[test]
fn an_initiator_that_asks_for_no_proof_gets_none() {
    let (initiator, target) = (credentials(false, &Algorithm::ALL), credentials(true, &Algorithm::ALL));
    assert_eq!(authenticate(&initiator, &target), Ok(Authenticated { mutual: false }));
}

#[test]
fn a_proof_that_is_not_configured_is_refused() {
    let (initiator, target) = (credentials(true, &Algorithm::ALL), credentials(false, &Algorithm::ALL));
    assert_eq!(authenticate(&initiator, &target), Err(ChapError::NoMutualCredentials));
}

#[test]
fn the_first_allowed_of_the_initiators_list_is_chosen() {
    for (offer, allowed, chosen) in [
        ("5,6,7,8", &Algorithm::ALL[..], Some(Algorithm::Md5)),
        ("8,7,6,5", &[Algorithm::Md5, Algorithm::Sha256], Some(Algorithm::Sha256)),
        ("4,255,99999999999,x,,6", &Algorithm::ALL, Some(Algorithm::Sha1)),
        ("0x7", &Algorithm::ALL, Some(Algorithm::Sha256)),
        ("5", &[Algorithm::Sha3_256], None),
        ("", &Algorithm::ALL, None),
    ] {
        let mut offered = Keys::default();
        offered.insert("CHAP_A", offer).unwrap();
        let mut text = Vec::new();
        let mut rng = StdRng::seed_from_u64(1);
        let result = TargetChap::challenge(&credentials(false, allowed), &offered, &mut rng, &mut text);
        match (result, chosen) {
            (Ok(chap), Some(chosen)) => {
                assert_eq!(chap.algorithm(), chosen);
                assert_eq!(value_of(&text, "CHAP_A"), (chosen as u8).to_string());
            }
            (Err(error), None) => assert_eq!((error, text.as_slice()), (ChapError::NoCommonAlgorithm, &b""[..])),
            _ => panic!("{offer:?}"),
        }
    }
}

#[test]
fn challenges_are_fresh_and_as_long_as_the_response() {
    for algorithm in Algorithm::ALL {
        let allowed = credentials(false, &[algorithm]);
        let offer = (algorithm as u8).to_string();
        let mut rng = StdRng::seed_from_u64(3);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50 {
            let mut keys = Keys::default();
            keys.insert("CHAP_A", &offer).unwrap();
            let mut text = Vec::new();
            TargetChap::challenge(&allowed, &keys, &mut rng, &mut text).unwrap();
            let challenge = wire::value::binary(value_of(&text, "CHAP_C"), 1024).unwrap();
            assert!(challenge.len() == algorithm.length() && challenge.len() >= 16);
            assert!(seen.insert(challenge));
        }
    }
}

#[test]
fn a_wrong_secret_or_name_is_refused() {
    let target = credentials(true, &Algorithm::ALL);
    let with =
        |user: &str, secret: &[u8]| Credentials::new(user, Secret::new(secret.to_vec()), None, Algorithm::ALL).unwrap();
    assert_eq!(authenticate(&with("alice", b"alicesecret2"), &target), Err(ChapError::WrongResponse));
    assert_eq!(authenticate(&with("alice", b"alicesecret"), &target), Err(ChapError::WrongResponse));
    assert_eq!(authenticate(&with("bob", b"alicesecret1"), &target), Err(ChapError::WrongName));
    assert_eq!(authenticate(&with("alic", b"alicesecret1"), &target), Err(ChapError::WrongName));
    assert_eq!(authenticate(&with("ringlun", b"ringsecret01"), &target), Err(ChapError::WrongName));
}

#[test]
fn a_target_that_proves_nothing_is_refused() {
    let initiator = credentials(true, &Algorithm::ALL);
    let false_target = Credentials::new(
        "alice",
        Secret::new(b"alicesecret1".to_vec()),
        Some(Mutual { user: "ringlun".into(), secret: Secret::new(b"ringsecret02".to_vec()) }),
        Algorithm::ALL,
    );
    assert_eq!(authenticate(&initiator, &false_target.unwrap()), Err(ChapError::WrongResponse));

    let mut rng = StdRng::seed_from_u64(9);
    let (_, challenge) = challenged(&initiator, "7", 1);
    let respond = |rng: &mut StdRng| {
        let offered = InitiatorChap::offer(&initiator, &mut Vec::new());
        offered.respond(&initiator, &keys(&challenge), rng, &mut Vec::new()).unwrap()
    };
    assert!(respond(&mut rng).expects_proof());
    assert_eq!(respond(&mut rng).verify(&initiator, &Keys::default()), Err(ChapError::Missing("CHAP_N")));
    let one = keys(b"CHAP_N=ringlun\0");
    assert_eq!(respond(&mut rng).verify(&initiator, &one), Err(ChapError::Missing("CHAP_R")));
}

#[test]
fn a_target_may_not_choose_an_algorithm_that_was_not_offered() {
    let initiator = credentials(false, &[Algorithm::Sha3_256]);
    let offered = InitiatorChap::offer(&initiator, &mut Vec::new());
    let (_, challenge) = challenged(&credentials(false, &Algorithm::ALL), "5", 1);
    let result = offered.respond(&initiator, &keys(&challenge), &mut StdRng::seed_from_u64(1), &mut Vec::new());
    assert!(matches!(result, Err(ChapError::NoCommonAlgorithm)));
}

#[test]
fn a_reflected_challenge_is_refused_and_never_answered() {
    let target = credentials(true, &Algorithm::ALL);
    let (chap, challenge) = challenged(&target, "7", 5);
    let reflected = format!(
        "CHAP_N=alice\0CHAP_R=0x{}\0CHAP_I={}\0CHAP_C={}\0",
        "00".repeat(32),
        value_of(&challenge, "CHAP_I"),
        value_of(&challenge, "CHAP_C")
    );
    let mut out = Vec::new();
    assert_eq!(chap.verify(&target, &keys(reflected.as_bytes()), &mut out), Err(ChapError::Reflected));
    assert!(out.is_empty());

    // Nor in another encoding, by one who knows the secret.
    let (chap, challenge) = challenged(&target, "7", 5);
    let mut response = Vec::new();
    let offered = InitiatorChap::offer(&target, &mut Vec::new());
    offered.respond(&target, &keys(&challenge), &mut StdRng::seed_from_u64(6), &mut response).unwrap();
    let ours = wire::value::binary(value_of(&challenge, "CHAP_C"), 1024).unwrap();
    let reflected = format!(
        "CHAP_N=alice\0CHAP_R={}\0CHAP_I=1\0CHAP_C={}\0",
        value_of(&response, "CHAP_R"),
        wire::value::to_base64(&ours)
    );
    assert_eq!(chap.verify(&target, &keys(reflected.as_bytes()), &mut out), Err(ChapError::Reflected));
    assert!(out.is_empty());
}

#[test]
fn an_identifier_that_comes_back_is_legal() {
    let both = credentials(true, &Algorithm::ALL);
    let (chap, challenge) = challenged(&both, "7", 5);
    let mut response = Vec::new();
    let offered = InitiatorChap::offer(&both, &mut Vec::new());
    offered.respond(&both, &keys(&challenge), &mut StdRng::seed_from_u64(6), &mut response).unwrap();
    let repeated = format!(
        "CHAP_N=alice\0CHAP_R={}\0CHAP_I={}\0CHAP_C=0x0102030405060708090a0b0c0d0e0f10\0",
        value_of(&response, "CHAP_R"),
        value_of(&challenge, "CHAP_I"),
    );
    let verified = chap.verify(&both, &keys(repeated.as_bytes()), &mut Vec::new());
    assert_eq!(verified, Ok(Authenticated { mutual: true }));
}

#[test]
fn responses_are_taken_in_hex_and_in_base64() {
    let both = credentials(false, &Algorithm::ALL);
    for encode in [wire::value::to_hex, wire::value::to_base64] {
        let (chap, challenge) = challenged(&both, "8", 5);
        let mut response = Vec::new();
        let offered = InitiatorChap::offer(&both, &mut Vec::new());
        offered.respond(&both, &keys(&challenge), &mut StdRng::seed_from_u64(6), &mut response).unwrap();
        let bytes = wire::value::binary(value_of(&response, "CHAP_R"), 1024).unwrap();
        let text = format!("CHAP_N=alice\0CHAP_R={}\0", encode(&bytes));
        assert_eq!(
            chap.verify(&both, &keys(text.as_bytes()), &mut Vec::new()),
            Ok(Authenticated { mutual: false }),
            "{text}"
        );
    }
}

#[test]
fn malformed_responses_are_refused_for_their_reason() {
    let target = credentials(true, &Algorithm::ALL);
    let hash = format!("0x{}", "ab".repeat(32));
    for (text, error) in [
        (String::new(), ChapError::Missing("CHAP_N")),
        ("CHAP_N=alice\0".into(), ChapError::Missing("CHAP_R")),
        (format!("CHAP_R={hash}\0"), ChapError::Missing("CHAP_N")),
        (format!("CHAP_N=alice\0CHAP_R={hash}ab\0"), ChapError::ResponseLength),
        ("CHAP_N=alice\0CHAP_R=0x\0".into(), ChapError::Malformed("CHAP_R")),
        ("CHAP_N=alice\0CHAP_R=zz\0".into(), ChapError::Malformed("CHAP_R")),
        (format!("CHAP_N=alice\0CHAP_R={hash}\0CHAP_I=1\0"), ChapError::Missing("CHAP_C")),
        (format!("CHAP_N=alice\0CHAP_R={hash}\0CHAP_C=0x01\0"), ChapError::Missing("CHAP_I")),
        (format!("CHAP_N=alice\0CHAP_R={hash}\0CHAP_I=256\0CHAP_C=0x01\0"), ChapError::Malformed("CHAP_I")),
        (format!("CHAP_N=alice\0CHAP_R={hash}\0CHAP_I=1\0CHAP_C=0x\0"), ChapError::Malformed("CHAP_C")),
        (
            format!("CHAP_N=alice\0CHAP_R={hash}\0CHAP_I=1\0CHAP_C=0x{}\0", "00".repeat(1025)),
            ChapError::Malformed("CHAP_C"),
        ),
        (format!("CHAP_A=5\0CHAP_N=alice\0CHAP_R={hash}\0"), ChapError::Unexpected("CHAP_A")),
    ] {
        let (chap, _) = challenged(&target, "7", 5);
        assert_eq!(chap.verify(&target, &keys(text.as_bytes()), &mut Vec::new()), Err(error), "{text}");
    }
    let mut twice = Keys::default();
    twice.insert("CHAP_N", "a").unwrap();
    assert_eq!(twice.insert("CHAP_N", "a"), Err(ChapError::Duplicate("CHAP_N")));
    assert_eq!(twice.insert("CHAP_X", "a"), Ok(false));
}

#[test]
fn equal_secrets_in_both_directions_are_refused() {
    let secret = Secret::new(b"one secret!!".to_vec());
    let mutual = Mutual { user: "ringlun".into(), secret: secret.clone() };
    assert_eq!(Credentials::new("alice", secret, Some(mutual), Algorithm::ALL), Err(ChapError::EqualSecrets));
}

#[test]
fn nothing_prints_a_secret() {
    let printed = format!("{:?}", credentials(true, &Algorithm::ALL));
    assert!(printed.contains("alice") && printed.contains("Secret(..)"));
    assert!(!printed.contains("alicesecret1") && !printed.contains("ringsecret01"), "{printed}");
    assert!(!printed.contains(&format!("{:?}", b"alicesecret1".to_vec())), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn only_the_secret_authenticates(
        lines in prop::collection::vec(
            (prop_oneof![Just("CHAP_N"), Just("CHAP_R"), Just("CHAP_I"), Just("CHAP_C"), Just("CHAP_A")],
             prop_oneof![Just("alice".to_owned()), "0x[0-9a-f]{64}", "[0-9]{1,3}", "0b[A-Za-z0-9+/]{0,44}=?", "[ -~]{0,20}"]),
            0..6,
        ),
        seed: u64,
    ) {
        let target = credentials(true, &Algorithm::ALL);
        let (chap, _) = challenged(&target, "7", seed);
        let mut keys = Keys::default();
        for (name, value) in &lines {
            let _ = keys.insert(name, value);
        }
        let mut out = Vec::new();
        prop_assert!(chap.verify(&target, &keys, &mut out).is_err());
        prop_assert!(out.is_empty());
    }
}
