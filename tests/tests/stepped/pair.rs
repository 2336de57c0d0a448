//! Both sides after a login, and what moves bytes between them.

use crate::target::{Target, pattern};
use initiator::{
    Command, Connection, Event, Limits, LoggedIn, Login, LoginError, LoginOptions, Residual, Transfer, cdb,
};
use negotiation::{DigestChoice, Settings};
use protocol::login::LoginFailure;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use wire::{RejectReason, TaskManagementResult};

pub const TARGET: &str = "iqn.2026-01.io.ringlun:stepped";
pub const INITIATOR: &str = "iqn.2026-01.io.ringlun:initiator";

/// Gives `bytes` piece by piece, of one byte up to a few thousand.
pub fn in_pieces(rng: &mut StdRng, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
    while !bytes.is_empty() {
        let most = if rng.next_u32().is_multiple_of(8) { 60 } else { 5000 };
        let n = (rng.next_u32() as usize % most + 1).min(bytes.len());
        take(&bytes[..n]);
        bytes = &bytes[n..];
    }
}

/// Runs a login to its end; `Err` has what each side makes of it.
pub fn log_in(
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
pub struct End {
    pub status: u8,
    pub sense: Vec<u8>,
    pub residual: Residual,
    pub data: Vec<u8>,
}

/// Both sides after a login.
pub struct Pair {
    pub connection: Connection<Transfer>,
    pub target: Target,
    pub to_target: Vec<u8>,
    pub rng: StdRng,
    pub ends: HashMap<u32, End>,
    pub management: Vec<TaskManagementResult>,
    pub rejects: Vec<RejectReason>,
    pub pongs: Vec<Vec<u8>>,
    pub texts: Vec<Vec<u8>>,
    pub closed: Option<initiator::CloseReason>,
}

impl Pair {
    pub fn new(ours: Settings, theirs: Settings, window: u32) -> Pair {
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

    pub fn submit(&mut self, command: &Command<'_>, data: Vec<u8>) -> u32 {
        let transfer = Transfer::sending(data);
        self.connection.submit(command, transfer, &mut self.to_target).expect("sent").initiator_task_tag()
    }

    /// Moves bytes both ways until neither side has any.
    pub fn run(&mut self) {
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

    pub fn receive(&mut self, mut input: &[u8]) {
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
    pub fn receive_anything(&mut self, mut input: &[u8]) {
        while let Ok(Some(_)) = self.connection.receive(&mut input, &mut self.to_target) {}
    }

    pub fn end_of(&mut self, tag: u32) -> End {
        self.run();
        assert_eq!(self.closed, None);
        self.ends.remove(&tag).expect("an end")
    }

    pub fn read(&mut self, lba: u32, blocks: u16, expected: u32) -> End {
        let tag = self.submit(&Command::read(cdb::read_10(lba, blocks), expected), Vec::new());
        self.end_of(tag)
    }

    pub fn write(&mut self, lba: u32, blocks: u16, expected: u32) -> End {
        let data: Vec<u8> = (0..expected).map(|offset| pattern(lba, offset)).collect();
        let tag = self.submit(&Command::write(cdb::write_10(lba, blocks), expected), data);
        self.end_of(tag)
    }

    pub fn written(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.target.full.as_mut().expect("in full feature phase").written)
    }
}

pub fn expected_data(lba: u32, length: u32) -> Vec<u8> {
    (0..length).map(|offset| pattern(lba, offset)).collect()
}

/// Small limits, so that everything has to be cut.
pub fn small() -> Settings {
    Settings {
        max_recv_data_segment_length: 1536,
        max_burst_length: 5120,
        first_burst_length: 2560,
        max_outstanding_r2t: 1,
        ..Settings::default()
    }
}

pub fn digests(on: bool) -> Settings {
    let choice = if on { DigestChoice::Require } else { DigestChoice::Never };
    Settings { header_digest: choice, data_digest: choice, ..small() }
}
