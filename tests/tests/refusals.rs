//! Who may not come in, does not: with the right status, a line in the log that says why, and no secret in it. And those
//! who never finish their login keep nobody out.

use initiator::LoginOptions;
use md5::{Digest, Md5};
use negotiation::chap::{Algorithm, Credentials, Mutual, Secret};
use ringlun_tests::{
    Client, ConnectError, Setup, Target,
    client::{INITIATOR, connect_from, options},
    wait,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use wire::{BHS_LEN, Bhs, Isid, LoginRequest, LoginResponse, LoginStatus, Stage};

const SECRET: &str = "alice's very own secret";
const MUTUAL: &str = "what the target proves";
const WRONG: &str = "a guess, and a wrong one";
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn target() -> Target {
    Target::start(&format!(
        "[[volume]]\nname = \"chap\"\nstore = {{ kind = \"ram\", size = \"16MiB\" }}\n\
         [[volume.access]]\ninitiator = \"{INITIATOR}\"\n\
         chap = {{ user = \"alice\", secret = \"{SECRET}\", mutual_user = \"ringlun\", mutual_secret = \"{MUTUAL}\" }}\n\
         [[volume]]\nname = \"local\"\nstore = {{ kind = \"ram\", size = \"16MiB\" }}\n\
         [[volume.access]]\ninitiator = \"{INITIATOR}\"\naddresses = [\"127.0.0.1\"]\n"
    ))
}

fn chap(target: &Target, user: &str, secret: &str, mutual: Option<&str>) -> LoginOptions {
    let mutual = mutual.map(|secret| Mutual { user: "ringlun".to_owned(), secret: Secret::new(secret) });
    let credentials = Credentials::new(user, Secret::new(secret), mutual, Algorithm::ALL).expect("good credentials");
    LoginOptions { chap: Some(credentials), ..options(&target.name("chap")) }
}

#[track_caller]
fn refused(result: Result<Client, ConnectError>) -> LoginStatus {
    match result {
        Err(ConnectError::Login(initiator::LoginError::Refused(status))) => status,
        Err(other) => panic!("not refused, but {other}"),
        Ok(_) => panic!("it was let in"),
    }
}

/// The log names who, and why; and no secret, in any form that the login has it.
#[track_caller]
fn says_why(target: &Target, initiator: &str, reason: &str) {
    target.logged(&[initiator, reason]);
    let log = target.log();
    for secret in [SECRET, MUTUAL, WRONG] {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!log.contains(secret) && !log.to_lowercase().contains(&hex), "a secret is in the log:\n{log}");
    }
    assert!(!log.contains("CHAP_R=") && !log.contains("CHAP_C="), "a challenge or response is in the log:\n{log}");
}

#[test]
fn the_right_secrets_are_let_in() {
    let target = target();
    for options in [chap(&target, "alice", SECRET, None), chap(&target, "alice", SECRET, Some(MUTUAL))] {
        let mut client = target.log_in(options).unwrap_or_else(|error| panic!("{error}"));
        client.settle();
        client.log_out().expect("a logout");
    }
    // Every algorithm.
    for algorithm in Algorithm::ALL {
        let credentials = Credentials::new("alice", Secret::new(SECRET), None, [algorithm]).expect("good credentials");
        let options = LoginOptions { chap: Some(credentials), ..options(&target.name("chap")) };
        assert!(target.log_in(options).is_ok(), "{algorithm:?}");
    }
    target.end();
}

#[test]
fn a_wrong_secret_is_refused() {
    let target = target();
    let status = refused(target.log_in(chap(&target, "alice", WRONG, None)));
    assert_eq!(status, LoginStatus::AuthenticationFailure);
    says_why(&target, INITIATOR, "does not match the configured secret");
    target.end();
}

#[test]
fn a_wrong_user_is_refused() {
    let target = target();
    let status = refused(target.log_in(chap(&target, "mallory", SECRET, None)));
    assert_eq!(status, LoginStatus::AuthenticationFailure);
    says_why(&target, INITIATOR, "not the configured user");
    target.end();
}

#[test]
fn a_target_that_proves_itself_with_another_secret_is_not_believed() {
    let target = target();
    match target.log_in(chap(&target, "alice", SECRET, Some(WRONG))) {
        Err(ConnectError::Login(initiator::LoginError::Chap(_))) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the initiator believed it"),
    }
    target.end();
}

#[test]
fn a_login_without_the_authentication_that_is_asked_for_is_refused() {
    let target = target();
    let without = options(&target.name("chap"));
    // AuthMethod=None, and no security stage at all.
    for (security_stage, reason) in [(true, "authentication"), (false, "skips the authentication")] {
        let status = refused(target.log_in(LoginOptions { security_stage, ..without.clone() }));
        assert_eq!(status, LoginStatus::AuthenticationFailure);
        says_why(&target, INITIATOR, reason);
    }
    target.end();
}

#[test]
fn an_unknown_initiator_is_refused() {
    let target = target();
    let stranger = "iqn.2026-01.example:stranger";
    for name in ["chap", "local"] {
        let status =
            refused(target.log_in(LoginOptions { initiator_name: stranger.to_owned(), ..options(&target.name(name)) }));
        assert_eq!(status, LoginStatus::AuthorizationFailure, "{name}");
    }
    says_why(&target, stranger, "may not use this target");
    target.end();
}

#[test]
fn an_address_that_is_not_allowed_is_refused() {
    let target = target();
    assert!(target.log_in(options(&target.name("local"))).is_ok(), "the allowed address");
    let status = refused(Client::connect_from(OTHER, target.portal(), options(&target.name("local"))));
    assert_eq!(status, LoginStatus::AuthorizationFailure);
    target.logged(&["127.0.0.2", INITIATOR, "from this address"]);
    target.end();
}

#[test]
fn a_target_that_does_not_exist_is_not_found() {
    let target = target();
    let status = refused(target.log_in(options(&target.name("nothing"))));
    assert_eq!(status, LoginStatus::NotFound);
    target.logged(&[INITIATOR, "no such target"]);
    target.end();
}

/// A login by hand.
struct Hand {
    stream: TcpStream,
}

impl Hand {
    fn connect(portal: SocketAddr) -> Hand {
        let stream = TcpStream::connect(portal).expect("a connection");
        stream.set_read_timeout(Some(wait::SOON)).expect("a time limit");
        Hand { stream }
    }

    fn say(&mut self, transit: bool, pairs: &[(&str, &str)]) {
        let text: String = pairs.iter().map(|(key, value)| format!("{key}={value}\0")).collect();
        self.stream.write_all(&login_request(transit, &text)).expect("it is open");
    }

    fn hear(&mut self) -> (LoginResponse, HashMap<String, String>) {
        let mut header = [0; BHS_LEN];
        self.stream.read_exact(&mut header).expect("a response");
        let mut data = vec![0; Bhs(&header).padded_data_len()];
        self.stream.read_exact(&mut data).expect("its text");
        let text = String::from_utf8_lossy(&data).into_owned();
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        (LoginResponse::parse(&header).expect("a Login Response"), pairs)
    }
}

fn login_request(transit: bool, text: &str) -> Vec<u8> {
    let mut header = [0; BHS_LEN];
    LoginRequest {
        transit,
        continue_bit: false,
        current_stage: Stage::SecurityNegotiation,
        next_stage: if transit { Stage::LoginOperationalNegotiation } else { Stage::SecurityNegotiation },
        version_max: 0,
        version_min: 0,
        total_ahs_length: 0,
        data_segment_length: text.len() as u32,
        isid: Isid([0x80, 1, 2, 3, 4, 5]),
        tsih: 0,
        initiator_task_tag: 0,
        cid: 0,
        cmd_sn: 1,
        exp_stat_sn: 0,
    }
    .emit(&mut header);
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(BHS_LEN + wire::padded(text.len()), 0);
    bytes
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").expect("hexadecimal");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits")).collect()
}

#[test]
fn a_reflected_challenge_is_refused_though_the_response_is_right() {
    let target = target();
    let name = target.name("chap");
    let mut peer = Hand::connect(target.portal());
    peer.say(
        false,
        &[("InitiatorName", INITIATOR), ("TargetName", &name), ("SessionType", "Normal"), ("AuthMethod", "CHAP")],
    );
    assert_eq!(peer.hear().1["AuthMethod"], "CHAP");
    peer.say(false, &[("CHAP_A", "5")]);
    let (_, challenge) = peer.hear();
    let (identifier, theirs) = (&challenge["CHAP_I"], &challenge["CHAP_C"]);
    let mut digest = Md5::new();
    digest.update([identifier.parse::<u8>().expect("an identifier")]);
    digest.update(SECRET);
    digest.update(unhex(theirs));
    let response: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let response = format!("0x{response}");
    peer.say(true, &[("CHAP_N", "alice"), ("CHAP_R", &response), ("CHAP_I", identifier), ("CHAP_C", theirs)]);
    let (answer, pairs) = peer.hear();
    assert_eq!(answer.status, LoginStatus::AuthenticationFailure);
    assert!(!pairs.contains_key("CHAP_R"), "it answered for its own challenge");
    assert_eq!(peer.stream.read(&mut [0]).expect("the end"), 0, "the connection stays open");
    says_why(&target, INITIATOR, "reflected our challenge");
    target.end();
}

/// How many of this process's connections may be open.
fn allow_files(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let maximum = limit.maximum.map(|most| most.max(wanted));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        panic!("this test holds {wanted} connections, and the limit of open files can't be raised: {error}");
    }
}

/// Connections that get no further: a third says nothing, a third half a header, a third waits for a challenge's answer.
fn half_open(local: IpAddr, target: &Target, count: usize) -> Vec<TcpStream> {
    let first =
        format!("InitiatorName={INITIATOR}\0TargetName={}\0SessionType=Normal\0AuthMethod=CHAP\0", target.name("chap"));
    let request = login_request(false, &first);
    (0..count)
        .map(|i| {
            let mut stream = connect_from(local, target.portal()).unwrap_or_else(|error| panic!("number {i}: {error}"));
            let said = match i % 3 {
                0 => Ok(()),
                1 => stream.write_all(&request[..BHS_LEN / 2]),
                _ => stream.write_all(&request),
            };
            // It may have been evicted already.
            drop(said);
            stream
        })
        .collect()
}

#[test]
fn ten_thousand_half_open_connections_stop_no_login_and_cost_little_memory() {
    const COUNT: usize = 10_000;
    const BOUND: u64 = 64 << 20;
    allow_files(COUNT as u64 + 500);
    let target = target();
    let log_in = |what: &str| {
        let mut client = match target.log_in(chap(&target, "alice", SECRET, Some(MUTUAL))) {
            Ok(client) => client,
            Err(error) => panic!("{what}: {error}"),
        };
        client.settle();
        client.log_out().expect("a logout");
    };
    log_in("before");
    let before = target.memory("VmRSS");
    for local in [IpAddr::V4(Ipv4Addr::LOCALHOST), OTHER] {
        let held = half_open(local, &target, COUNT);
        log_in(&format!("with {COUNT} half-open connections from {local}"));
        let now = target.memory("VmRSS");
        println!(
            "{COUNT} half-open connections from {local}: {} KiB more than the {} KiB before",
            now.saturating_sub(before) >> 10,
            before >> 10
        );
        assert!(now.saturating_sub(before) < BOUND, "{before} bytes before, {now} with them");
        drop(held);
    }
    // And while they keep coming.
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                drop(half_open(OTHER, &target, 200));
            }
        });
        for _ in 0..20 {
            log_in("while half-open connections keep coming from another address");
        }
        enough.store(true, Ordering::Relaxed);
    });
    let peak = target.memory("VmHWM");
    println!("peak: {} KiB more than before", peak.saturating_sub(before) >> 10);
    assert!(peak.saturating_sub(before) < BOUND, "{before} bytes before, {peak} at the peak");
    target.end();
}

#[test]
fn a_connection_that_does_not_log_in_is_closed_after_its_time() {
    let target = Setup::new("[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n")
        .server("login_timeout_s = 1")
        .start();
    let mut silent = TcpStream::connect(target.portal()).expect("a connection");
    silent.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    assert_eq!(silent.read(&mut [0]).expect("it is closed, not left open"), 0);
    // A session has no such limit.
    let mut client = target.client("disk");
    client.stream().set_read_timeout(Some(Duration::from_millis(1500))).expect("a time limit");
    let heard = client.stream().peek(&mut [0]).map_err(|error| error.kind());
    assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock), "nothing is said, and nothing closed");
    client.settle();
    target.end();
}
