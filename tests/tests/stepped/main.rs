//! The initiator and the target's protocol stepped in one thread, over a wire that cuts the stream anywhere.

mod target;

use initiator::{
    Advance, Command, Connection, Event, Limits, LoggedIn, Login, LoginError, LoginOptions, Residual, SubmitError,
    Transfer, cdb, parse_targets,
};
use negotiation::chap::{Algorithm, Credentials, Mutual, Secret};
use negotiation::{DigestChoice, Settings};
use protocol::login::{Authentication, DiscoverySession, LoginFailure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use target::{BLOCK, SENSE, STALL, Target, pattern};
use wire::{LoginStatus, LogoutReason, RejectReason, TaskManagementFunction, TaskManagementResult};

const TARGET: &str = "iqn.2026-01.io.ringlun:stepped";
const INITIATOR: &str = "iqn.2026-01.io.ringlun:initiator";

/// Gives `bytes` piece by piece, of one byte up to a few thousand.
fn in_pieces(rng: &mut StdRng, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
    while !bytes.is_empty() {
        let most = if rng.next_u32().is_multiple_of(8) { 60 } else { 5000 };
        let n = (rng.next_u32() as usize % most + 1).min(bytes.len());
        take(&bytes[..n]);
        bytes = &bytes[n..];
    }
}

/// Runs a login to its end; `Err` has what each side makes of it.
fn log_in(
    options: LoginOptions,
    target: &mut Target,
    rng: &mut StdRng,
) -> Result<LoggedIn, (LoginError, Option<LoginFailure>)> {
    let mut login = Login::new(options);
    let mut to_target = Vec::new();
    login.start(&mut to_target).expect("legal names");
    let mut failure = None;
    for _ in 0..100 {
        let sent = std::mem::take(&mut to_target);
        in_pieces(rng, &sent, |piece| {
            if failure.is_none() {
                failure = target.receive(piece).err();
            }
        });
        let back = std::mem::take(&mut target.out);
        let mut input = &back[..];
        match login.advance(&mut input, rng, &mut to_target) {
            Ok(Some(logged_in)) => {
                assert!(input.is_empty() && to_target.is_empty());
                return Ok(logged_in);
            }
            Ok(None) => assert!(failure.is_none(), "{failure:?} without a refusal"),
            Err(error) => return Err((error, failure)),
        }
    }
    panic!("the login makes no end");
}

/// How a command has ended.
#[derive(Debug)]
struct End {
    status: u8,
    sense: Vec<u8>,
    residual: Residual,
    data: Vec<u8>,
}

/// Both sides after a login.
struct Pair {
    connection: Connection<Transfer>,
    target: Target,
    to_target: Vec<u8>,
    rng: StdRng,
    ends: HashMap<u32, End>,
    management: Vec<TaskManagementResult>,
    rejects: Vec<RejectReason>,
    pongs: Vec<Vec<u8>>,
    texts: Vec<Vec<u8>>,
    closed: Option<initiator::CloseReason>,
}

impl Pair {
    fn new(ours: Settings, theirs: Settings, window: u32) -> Pair {
        let mut rng = StdRng::seed_from_u64(11);
        let mut target = Target::new(theirs, None, window, StdRng::seed_from_u64(12));
        let options = LoginOptions { settings: ours, ..LoginOptions::normal(INITIATOR, TARGET) };
        let logged_in = log_in(options, &mut target, &mut rng).expect("logged in");
        let full = target.full.as_ref().expect("in full feature phase");
        let (ours, theirs) = (&logged_in.parameters, full.connection.parameters());
        assert_eq!(ours.max_recv_data_segment_length, theirs.peer_max_recv_data_segment_length);
        assert_eq!(ours.peer_max_recv_data_segment_length, theirs.max_recv_data_segment_length);
        let mirrored = negotiation::Parameters {
            max_recv_data_segment_length: theirs.max_recv_data_segment_length,
            peer_max_recv_data_segment_length: theirs.peer_max_recv_data_segment_length,
            ..*ours
        };
        assert_eq!(mirrored, *theirs, "both sides have agreed on the same");
        Pair {
            connection: Connection::new(&logged_in, Limits::default()),
            target,
            to_target: Vec::new(),
            rng,
            ends: HashMap::new(),
            management: Vec::new(),
            rejects: Vec::new(),
            pongs: Vec::new(),
            texts: Vec::new(),
            closed: None,
        }
    }

    fn submit(&mut self, command: &Command<'_>, data: Vec<u8>) -> u32 {
        let transfer = Transfer::sending(data);
        self.connection.submit(command, transfer, &mut self.to_target).expect("sent").initiator_task_tag()
    }

    /// Moves bytes both ways until neither side has any.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let sent = std::mem::take(&mut self.to_target);
            let target = &mut self.target;
            in_pieces(&mut self.rng, &sent, |piece| target.receive(piece).expect("no login"));
            let back = std::mem::take(&mut self.target.out);
            if back.is_empty() && sent.is_empty() {
                return;
            }
            let mut pieces = Vec::new();
            in_pieces(&mut self.rng, &back, |piece| pieces.push(piece.to_vec()));
            for piece in pieces {
                self.receive(&piece);
            }
        }
        panic!("no end");
    }

    fn receive(&mut self, mut input: &[u8]) {
        loop {
            match self.connection.receive(&mut input, &mut self.to_target) {
                Ok(None) => return,
                Err(reason) => {
                    self.closed = Some(reason);
                    return;
                }
                Ok(Some(event)) => match event {
                    Event::Response(end) => {
                        let tag = end.task.initiator_task_tag();
                        assert_eq!(end.received as usize, end.user.data_in.len());
                        let end = End {
                            status: end.status,
                            sense: end.sense.to_vec(),
                            residual: end.residual,
                            data: end.user.data_in,
                        };
                        assert!(self.ends.insert(tag, end).is_none());
                    }
                    Event::TaskManagement { response, .. } => self.management.push(response),
                    Event::Reject { reason, .. } => self.rejects.push(reason),
                    Event::Pong { data, .. } => self.pongs.push(data.to_vec()),
                    Event::Text { text, .. } => self.texts.push(text.to_vec()),
                    Event::Logout { .. } => {}
                    other => panic!("unexpected {other:?}"),
                },
            }
        }
    }

    /// Takes input from a target that can't be trusted.
    fn receive_anything(&mut self, mut input: &[u8]) {
        while let Ok(Some(_)) = self.connection.receive(&mut input, &mut self.to_target) {}
    }

    fn end_of(&mut self, tag: u32) -> End {
        self.run();
        assert_eq!(self.closed, None);
        self.ends.remove(&tag).expect("an end")
    }

    fn read(&mut self, lba: u32, blocks: u16, expected: u32) -> End {
        let tag = self.submit(&Command::read(cdb::read_10(lba, blocks), expected), Vec::new());
        self.end_of(tag)
    }

    fn write(&mut self, lba: u32, blocks: u16, expected: u32) -> End {
        let data: Vec<u8> = (0..expected).map(|offset| pattern(lba, offset)).collect();
        let tag = self.submit(&Command::write(cdb::write_10(lba, blocks), expected), data);
        self.end_of(tag)
    }

    fn written(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.target.full.as_mut().expect("in full feature phase").written)
    }
}

fn expected_data(lba: u32, length: u32) -> Vec<u8> {
    (0..length).map(|offset| pattern(lba, offset)).collect()
}

/// Small limits, so that everything has to be cut.
fn small() -> Settings {
    Settings {
        max_recv_data_segment_length: 1536,
        max_burst_length: 5120,
        first_burst_length: 2560,
        max_outstanding_r2t: 1,
        ..Settings::default()
    }
}

fn digests(on: bool) -> Settings {
    let choice = if on { DigestChoice::Require } else { DigestChoice::Never };
    Settings { header_digest: choice, data_digest: choice, ..small() }
}

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

#[test]
fn reads_of_many_sizes_bring_the_right_bytes() {
    for on in [false, true] {
        let mut pair = Pair::new(digests(on), digests(on), 8);
        for blocks in [0, 1, 2, 3, 4, 5, 9, 10, 11, 20, 21, 63, 64] {
            let length = u32::from(blocks) * BLOCK;
            let end = pair.read(blocks.into(), blocks, length);
            assert_eq!((end.status, end.residual), (0, Residual::None), "{blocks} blocks");
            assert!(end.data == expected_data(blocks.into(), length), "{blocks} blocks");
        }
    }
}

#[test]
fn a_read_says_what_was_not_expected_or_not_moved() {
    for on in [false, true] {
        let mut pair = Pair::new(digests(on), digests(on), 8);
        // Expected: more than the command moves, less, odd, none.
        for (blocks, expected) in [(4, 3000), (4, 100_000), (4, 1000), (4, 1001), (4, 1), (4, 0), (0, 100)] {
            let end = pair.read(9, blocks, expected);
            let length = u32::from(blocks) * BLOCK;
            let residual = match length.cmp(&expected) {
                std::cmp::Ordering::Less => Residual::Underflow(expected - length),
                std::cmp::Ordering::Equal => Residual::None,
                std::cmp::Ordering::Greater => Residual::Overflow(length - expected),
            };
            assert_eq!((end.status, end.residual), (0, residual), "{blocks} blocks, {expected} expected");
            assert!(end.data == expected_data(9, length.min(expected)));
        }
    }
}

/// All 4 combinations of InitialR2T and ImmediateData, with 1 and 4 R2Ts, without and with digests.
fn every_way_of_writing(mut run: impl FnMut(&mut Pair, &str)) {
    for case in 0..16 {
        let bit = |n: u32| case >> n & 1 == 1;
        let (initial_r2t, immediate_data) = (bit(0), bit(1));
        let max_outstanding_r2t = if bit(2) { 4 } else { 1 };
        let settings = Settings { initial_r2t, immediate_data, max_outstanding_r2t, ..digests(bit(3)) };
        let mut pair = Pair::new(settings, settings, 8);
        let name = format!("InitialR2T {initial_r2t}, ImmediateData {immediate_data}, R2Ts {max_outstanding_r2t}");
        run(&mut pair, &name);
    }
}

#[test]
fn writes_of_many_sizes_arrive_in_every_way() {
    every_way_of_writing(|pair, name| {
        for blocks in [0, 1, 2, 3, 4, 5, 6, 10, 15, 16, 25, 64, 101] {
            let length = u32::from(blocks) * BLOCK;
            let end = pair.write(blocks.into(), blocks, length);
            assert_eq!((end.status, end.residual), (0, Residual::None), "{name}: {blocks} blocks");
            let written = pair.written();
            assert!(written == [(blocks.into(), expected_data(blocks.into(), length))], "{name}: {blocks} blocks");
        }
    });
}

#[test]
fn writes_that_bring_more_or_less_say_so() {
    every_way_of_writing(|pair, name| {
        for (blocks, expected) in [(4, 5000), (30, 7777), (1, 513), (3, 1)] {
            let end = pair.write(5, blocks, expected);
            let length = u32::from(blocks) * BLOCK;
            let residual = if length < expected {
                Residual::Underflow(expected - length)
            } else {
                Residual::Overflow(length - expected)
            };
            assert_eq!((end.status, end.residual), (0, residual), "{name}: {blocks} blocks, {expected} expected");
            assert!(pair.written() == [(5, expected_data(5, length.min(expected)))], "{name}");
        }
    });
}

#[test]
fn a_failed_command_brings_its_sense() {
    every_way_of_writing(|pair, name| {
        for length in [0, 512, 20_000] {
            let command = Command::write(cdb::mode_select_10(false, 0), length);
            let tag = pair.submit(&command, vec![1; length as usize]);
            let end = pair.end_of(tag);
            assert_eq!((end.status, &end.sense[..]), (2, &SENSE[..]), "{name}: {length} bytes");
            let residual = if length == 0 { Residual::None } else { Residual::Underflow(length) };
            assert_eq!(end.residual, residual, "{name}: {length} bytes");
        }
    });
}

#[test]
fn many_commands_at_once_keep_apart() {
    every_way_of_writing(|pair, name| {
        let mut writes = 0;
        for round in 0..6u32 {
            let mut expected = HashMap::new();
            let mut number = 0;
            loop {
                let (lba, blocks) = (round * 100 + number, (number * 7 % 40 + 1) as u16);
                let length = u32::from(blocks) * BLOCK;
                let write = number.is_multiple_of(2);
                let (command, data) = if write {
                    (Command::write(cdb::write_10(lba, blocks), length), expected_data(lba, length))
                } else {
                    (Command::read(cdb::read_10(lba, blocks), length), Vec::new())
                };
                match pair.connection.submit(&command, Transfer::sending(data), &mut pair.to_target) {
                    Ok(task) => expected.insert(task.initiator_task_tag(), (write, lba, length)),
                    Err(refused) => {
                        assert_eq!(refused.reason, SubmitError::Full);
                        break;
                    }
                };
                number += 1;
            }
            assert_eq!(number, 8, "{name}: the whole window");
            pair.run();
            for (tag, (write, lba, length)) in expected {
                let end = pair.ends.remove(&tag).expect("an end");
                assert_eq!((end.status, end.residual), (0, Residual::None), "{name}");
                if write {
                    writes += 1;
                } else {
                    assert!(end.data == expected_data(lba, length), "{name}");
                }
            }
        }
        let written = pair.written();
        assert_eq!(written.len(), writes);
        for (lba, data) in written {
            assert!(data == expected_data(lba, data.len() as u32), "{name}");
        }
        assert_eq!(pair.closed, None, "{name}");
        assert_eq!(pair.rejects, [], "{name}");
        assert_eq!(pair.target.full.as_ref().map(|full| full.tasks.len()), Some(0), "{name}");
    });
}

#[test]
fn commands_out_of_order_wait_for_those_before_them() {
    let mut pair = Pair::new(small(), small(), 8);
    let first = pair.connection.cmd_sn();
    pair.connection.set_cmd_sn(first + 1);
    let later = pair.submit(&Command::write(cdb::write_10(2, 20), 20 * BLOCK), expected_data(2, 20 * BLOCK));
    pair.run();
    assert!(pair.ends.is_empty() && pair.written().is_empty());
    pair.connection.set_cmd_sn(first);
    let earlier = pair.submit(&Command::write(cdb::write_10(1, 1), BLOCK), expected_data(1, BLOCK));
    pair.connection.set_cmd_sn(first + 2);
    pair.run();
    assert_eq!(pair.ends[&later].status, 0);
    assert_eq!(pair.ends[&earlier].status, 0);
    let order: Vec<u32> = pair.written().into_iter().map(|(lba, _)| lba).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn pings_come_back_and_are_answered() {
    let mut pair = Pair::new(digests(true), digests(true), 8);
    pair.connection.ping(b"abcde", &mut pair.to_target).expect("sent");
    pair.connection.ping_in_order(&[], &mut pair.to_target).expect("sent");
    pair.run();
    assert_eq!(pair.pongs, [b"abcde".to_vec(), Vec::new()]);
    assert_eq!(pair.closed, None);
}

#[test]
fn aborts_and_resets_end_stalled_commands() {
    let mut pair = Pair::new(small(), small(), 8);
    let mut stall = [0; 16];
    stall[0] = STALL;
    let command = Command::none(stall);
    let submit =
        |pair: &mut Pair| pair.connection.submit(&command, Transfer::default(), &mut pair.to_target).expect("sent");
    let tasks: Vec<_> = (0..4).map(|_| submit(&mut pair)).collect();
    pair.run();
    let abort = TaskManagementFunction::AbortTask;
    let send = |pair: &mut Pair, function, task| {
        pair.connection.task_management(function, 0, task, &mut pair.to_target).expect("sent");
        pair.run();
        pair.management.pop().expect("a response")
    };
    assert_eq!(send(&mut pair, abort, Some(tasks[1])), TaskManagementResult::Complete);
    // Gone, though its number was received.
    assert_eq!(send(&mut pair, abort, Some(tasks[1])), TaskManagementResult::TaskDoesNotExist);
    let reset = TaskManagementFunction::LogicalUnitReset;
    assert_eq!(send(&mut pair, reset, None), TaskManagementResult::Complete);
    assert_eq!(pair.target.full.as_ref().map(|full| full.tasks.len()), Some(0));
    for task in tasks {
        assert!(pair.connection.forget(task).is_some());
    }
    assert_eq!(pair.read(1, 1, BLOCK).status, 0);
    assert_eq!(pair.connection.window_room(), 8);
}

#[test]
fn send_targets_works_in_a_normal_session() {
    let mut pair = Pair::new(small(), small(), 8);
    pair.connection.send_targets("", &mut pair.to_target).expect("sent");
    pair.run();
    let targets = parse_targets(&pair.texts[0]).expect("a list");
    assert_eq!(targets[0].name, TARGET);
}

#[test]
fn a_logout_closes_both_sides() {
    let mut pair = Pair::new(small(), small(), 8);
    pair.connection.logout(LogoutReason::CloseSession, &mut pair.to_target).expect("sent");
    pair.run();
    // The event came before the end.
    pair.receive(&[]);
    assert_eq!(pair.closed, Some(initiator::CloseReason::Logout));
}

#[test]
fn corrupt_data_fail_the_command_and_nothing_else() {
    let mut pair = Pair::new(digests(true), digests(true), 8);
    let tag = pair.submit(&Command::write(cdb::write_10(1, 2), 2 * BLOCK), expected_data(1, 2 * BLOCK));
    let at = pair.to_target.len() - 100;
    pair.to_target[at] ^= 1;
    let end = pair.end_of(tag);
    assert_eq!((end.status, end.sense[2] & 0x0f, end.sense[12], end.sense[13]), (2, 0x0b, 0x47, 0x05));
    assert_eq!(pair.rejects, [RejectReason::DataDigestError]);
    assert!(pair.written().is_empty());
    assert_eq!(pair.write(1, 2, 2 * BLOCK).status, 0);
    assert_eq!(pair.read(1, 2, 2 * BLOCK).status, 0);
}

#[test]
fn a_corrupt_header_closes_the_connection() {
    let mut pair = Pair::new(digests(true), digests(true), 8);
    pair.submit(&Command::read(cdb::read_10(1, 2), 2 * BLOCK), Vec::new());
    pair.to_target[20] ^= 1;
    pair.run();
    let full = pair.target.full.as_ref().expect("in full feature phase");
    assert_eq!(full.closed, Some(protocol::CloseReason::HeaderDigest));
    assert!(pair.ends.is_empty());
}

/// Any legal settings; digests in two of four cases.
fn any_settings(rng: &mut StdRng) -> Settings {
    let mut among = |values: &[u32]| values[rng.next_u32() as usize % values.len()];
    let max_burst_length = among(&[512, 513, 1024, 5000, 65_536, 1 << 20]);
    let digest = |n| [DigestChoice::Never, DigestChoice::Allow, DigestChoice::Prefer][n as usize];
    Settings {
        header_digest: digest(among(&[0, 1, 2])),
        data_digest: digest(among(&[0, 1, 2])),
        initial_r2t: among(&[0, 1]) == 1,
        immediate_data: among(&[0, 1]) == 1,
        max_recv_data_segment_length: among(&[512, 515, 700, 4096, 65_536]),
        max_burst_length,
        first_burst_length: among(&[512, 600, 4096, 65_536]).min(max_burst_length),
        max_outstanding_r2t: among(&[1, 2, 3, 8]) as u16,
        data_pdu_in_order: among(&[0, 1]) == 1,
        data_sequence_in_order: among(&[0, 1]) == 1,
        ..Settings::default()
    }
}

#[test]
fn any_two_sides_agree_and_move_any_commands() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (ours, theirs) = (any_settings(&mut rng), any_settings(&mut rng));
        let window = rng.next_u32() % 6 + 1;
        let mut pair = Pair::new(ours, theirs, window);
        for round in 0..4 {
            let mut expected = HashMap::new();
            for number in 0..rng.next_u32() % 8 {
                let mut any = |most: u32| rng.next_u32() % most;
                let (lba, blocks) = (round * 10_000 + number, any(50) as u16);
                let moved = u32::from(blocks) * BLOCK;
                let length = if any(3) == 0 { any(30_000) } else { moved };
                let write = any(2) == 0;
                let mut command = if write {
                    Command::write(cdb::write_10(lba, blocks), length)
                } else {
                    Command::read(cdb::read_10(lba, blocks), length)
                };
                // RFC 7143 11.3.4: all that may go unasked, or the immediate data alone.
                command.immediate_data = (any(4) == 0).then(|| any(600));
                let alone = if pair.connection.parameters().immediate_data { any(513) } else { 0 };
                if any(4) == 0 {
                    (command.immediate_data, command.unsolicited_data) = (None, Some(alone));
                }
                command.immediate = any(6) == 0;
                let data = if write { expected_data(lba, length) } else { Vec::new() };
                match pair.connection.submit(&command, Transfer::sending(data), &mut pair.to_target) {
                    Ok(task) => expected.insert(task.initiator_task_tag(), (write, lba, moved, length)),
                    Err(refused) => {
                        assert_eq!(refused.reason, SubmitError::Full);
                        break;
                    }
                };
            }
            pair.run();
            assert_eq!((pair.closed, &pair.rejects[..]), (None, &[][..]), "seed {seed}");
            let mut written: HashMap<u32, Vec<u8>> = pair.written().into_iter().collect();
            for (tag, (write, lba, moved, length)) in expected {
                let end = pair.ends.remove(&tag).unwrap_or_else(|| panic!("seed {seed}: no end"));
                let residual = match moved.cmp(&length) {
                    std::cmp::Ordering::Less => Residual::Underflow(length - moved),
                    std::cmp::Ordering::Equal => Residual::None,
                    std::cmp::Ordering::Greater => Residual::Overflow(moved - length),
                };
                assert_eq!((end.status, end.residual), (0, residual), "seed {seed}: {:?}", end.sense);
                let data = if write { written.remove(&lba).unwrap_or_default() } else { end.data };
                assert!(data == expected_data(lba, moved.min(length)), "seed {seed}");
            }
            assert!(written.is_empty() && pair.ends.is_empty());
        }
    }
}

/// Without digests a flipped bit can mean anything: a connection may close, a command may fail or never end, but
/// neither side may panic, or go on for ever.
#[test]
fn flipped_bits_are_survived_by_both_sides() {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = Settings { max_outstanding_r2t: 4, initial_r2t: seed % 2 == 0, ..digests(false) };
        let mut pair = Pair::new(settings, settings, 8);
        for lba in 0..3 {
            let blocks = rng.next_u32() as u16 % 30;
            let length = u32::from(blocks) * BLOCK;
            pair.submit(&Command::write(cdb::write_10(lba, blocks), length), expected_data(lba, length));
            pair.submit(&Command::read(cdb::read_10(lba, blocks), length), Vec::new());
        }
        pair.connection.send_targets("", &mut pair.to_target).expect("sent");
        let abort = TaskManagementFunction::AbortTaskSet;
        pair.connection.task_management(abort, 0, None, &mut pair.to_target).expect("sent");
        let mut flips = 0;
        for _ in 0..200 {
            let mut sent = std::mem::take(&mut pair.to_target);
            flip(&mut rng, &mut sent, &mut flips);
            pair.target.receive(&sent).expect("no login");
            let mut back = std::mem::take(&mut pair.target.out);
            flip(&mut rng, &mut back, &mut flips);
            pair.receive_anything(&back);
            if sent.is_empty() && back.is_empty() {
                break;
            }
        }
        assert!(pair.to_target.is_empty() && flips > 0, "seed {seed}: no end");
    }
}

/// Flips a bit in the header that a stream begins with, or anywhere.
fn flip(rng: &mut StdRng, bytes: &mut [u8], flips: &mut u32) {
    if bytes.is_empty() || *flips > 0 && rng.next_u32().is_multiple_of(2) {
        return;
    }
    let range = if rng.next_u32().is_multiple_of(2) { bytes.len().min(48) } else { bytes.len() };
    bytes[rng.next_u32() as usize % range] ^= 1 << (rng.next_u32() % 8);
    *flips += 1;
}
