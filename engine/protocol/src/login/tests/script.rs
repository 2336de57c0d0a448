//! An initiator that says what it is told to.

use super::super::*;
use negotiation::Parameters;
use negotiation::chap::{Algorithm, Credentials, Mutual, Secret};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use wire::names::TargetAddress;
use wire::{Isid, LoginResponse, LoginStatus, padding};

pub const INITIATOR: &str = "iqn.1994-05.com.redhat:8e89b27b5b8";
pub const OPEN: &str = "iqn.2026-01.io.ringlun:open";
pub const LOCKED: &str = "iqn.2026-01.io.ringlun:locked";
pub const SECURITY: Stage = Stage::SecurityNegotiation;
pub const OPERATIONAL: Stage = Stage::LoginOperationalNegotiation;
pub const FULL: Stage = Stage::FullFeaturePhase;

pub fn credentials() -> Credentials {
    let mutual = Mutual { user: "ringlun".into(), secret: Secret::new(b"ringsecret01".to_vec()) };
    Credentials::new("alice", Secret::new(b"alicesecret1".to_vec()), Some(mutual), Algorithm::ALL).unwrap()
}

/// A directory with one target of each kind of access, named after it.
#[derive(Default)]
pub struct Targets {
    pub discovery_needs_chap: bool,
    pub many: usize,
}

impl Directory for Targets {
    fn access(&self, initiator_name: &str, target_name: Option<&str>, address: IpAddr) -> Access {
        let to = TargetAddress::new("10.0.0.9:3261".parse().unwrap(), 1);
        let Some(name) = target_name else {
            return if self.discovery_needs_chap { Access::Chap(Arc::new(credentials())) } else { Access::Open };
        };
        if initiator_name != INITIATOR || !address.is_loopback() {
            return Access::Forbidden;
        }
        match name.rsplit(':').next().unwrap() {
            "open" => Access::Open,
            "locked" => Access::Chap(Arc::new(credentials())),
            "removed" => Access::Removed,
            "forbidden" => Access::Forbidden,
            "moved" => Access::Moved { to, permanently: false },
            "gone" => Access::Moved { to, permanently: true },
            "unavailable" => Access::Unavailable,
            _ => Access::NotFound,
        }
    }

    fn targets(&self, _: &str, _: IpAddr) -> Vec<TargetEntry> {
        let portal = TargetAddress::new("127.0.0.1:3260".parse().unwrap(), 1);
        let entry = |name: &str| TargetEntry { name: name.to_owned(), addresses: vec![portal] };
        let many = (0..self.many).map(|number| entry(&format!("iqn.2026-01.io.ringlun:many{number:05}")));
        [OPEN, LOCKED].into_iter().map(entry).chain(many).collect()
    }
}

/// A login with what has been said.
pub struct Script {
    pub login: Login,
    pub targets: Targets,
    pub rng: StdRng,
    /// What the next request will have in its header.
    pub request: LoginRequest,
    pub last: Option<LoginStep>,
}

/// What a request led to.
#[derive(Debug)]
pub struct Reply {
    pub response: LoginResponse,
    pub text: Vec<u8>,
}

impl Reply {
    pub fn lines(&self) -> Vec<&str> {
        std::str::from_utf8(&self.text).unwrap().split_terminator('\0').collect()
    }
    pub fn value(&self, key: &str) -> Option<&str> {
        self.lines().into_iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

/// `a=1 b=2` as login text. Values have no spaces here.
pub fn text(lines: &str) -> Vec<u8> {
    lines.split_whitespace().flat_map(|line| [line.as_bytes(), b"\0"].concat()).collect()
}

/// A PDU of this header and data.
pub fn pdu(emit: impl FnOnce(&mut [u8; BHS_LEN]), data: &[u8]) -> Vec<u8> {
    let mut header = [0; BHS_LEN];
    emit(&mut header);
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&[0; 3][..padding(data.len())]);
    bytes
}

pub fn reply(bytes: &[u8]) -> Reply {
    let header: &[u8; BHS_LEN] = bytes.first_chunk().expect("a Login Response");
    let response = LoginResponse::parse(header).unwrap();
    let length = response.data_segment_length as usize;
    assert_eq!(bytes.len(), BHS_LEN + length + padding(length), "one response");
    Reply { response, text: bytes[BHS_LEN..BHS_LEN + length].to_vec() }
}

impl Script {
    pub fn new() -> Script {
        Script::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Script {
        Script {
            login: Login::new(settings, "127.0.0.1".parse().unwrap(), 7),
            targets: Targets::default(),
            rng: StdRng::seed_from_u64(1),
            request: LoginRequest {
                transit: false,
                continue_bit: false,
                current_stage: SECURITY,
                next_stage: SECURITY,
                version_max: 0,
                version_min: 0,
                total_ahs_length: 0,
                data_segment_length: 0,
                isid: Isid([0x80, 1, 2, 3, 4, 5]),
                tsih: 0,
                initiator_task_tag: 0x1234,
                cid: 9,
                cmd_sn: 77,
                exp_stat_sn: 500,
            },
            last: None,
        }
    }

    /// Sends bytes; what comes back is left as it is.
    pub fn raw(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut input = bytes;
        self.last = Some(self.login.receive(&mut input, &self.targets, &mut self.rng, &mut out));
        out
    }

    /// Sends `self.request` with this text, and gives the response, if there is one.
    pub fn send(&mut self, data: &[u8]) -> Option<Reply> {
        self.request.data_segment_length = data.len() as u32;
        let request = self.request;
        let out = self.raw(&pdu(|header| request.emit(header), data));
        if out.is_empty() {
            return None;
        }
        let reply = reply(&out);
        if reply.response.status == LoginStatus::Success {
            assert_eq!(reply.response.stat_sn, self.request.exp_stat_sn, "StatSN goes up by one");
            assert_eq!(reply.response.initiator_task_tag, self.request.initiator_task_tag);
            assert_eq!(reply.response.isid, self.request.isid);
            self.request.exp_stat_sn = self.request.exp_stat_sn.wrapping_add(1);
        }
        Some(reply)
    }

    /// A request of `stage` that stays in it.
    pub fn stay(&mut self, stage: Stage, lines: &str) -> Option<Reply> {
        (self.request.transit, self.request.current_stage) = (false, stage);
        self.send(&text(lines))
    }

    /// A request that is ready to go from `stage` to `next`.
    pub fn transit(&mut self, stage: Stage, next: Stage, lines: &str) -> Option<Reply> {
        (self.request.transit, self.request.current_stage, self.request.next_stage) = (true, stage, next);
        let reply = self.send(&text(lines));
        self.request.transit = false;
        reply
    }

    /// The first request of a normal session.
    pub fn names(target: &str) -> String {
        format!("InitiatorName={INITIATOR} TargetName={target} SessionType=Normal")
    }

    /// The login refused with this status, and says why in its step.
    pub fn refused(&mut self, reply: Option<Reply>) -> (LoginStatus, LoginFailure) {
        let reply = reply.expect("a response that refuses");
        match self.last.take() {
            Some(LoginStep::Close(failure)) => {
                assert_eq!(failure.status(), Some(reply.response.status));
                assert!(!reply.response.transit);
                (reply.response.status, failure)
            }
            other => panic!("{other:?} after {reply:?}"),
        }
    }

    pub fn admitted(&mut self) -> Box<Admission> {
        match self.last.take() {
            Some(LoginStep::Admit(admission)) => admission,
            other => panic!("{other:?}"),
        }
    }

    /// Logs in to the open target in the operational stage with these keys.
    pub fn operational(settings: Settings, lines: &str) -> (Reply, Parameters) {
        let mut script = Script::with(settings);
        script.transit(OPERATIONAL, FULL, &format!("{} {lines}", Script::names(OPEN)));
        let admission = script.admitted();
        let mut out = Vec::new();
        admission.accept(3, 77, 77, &mut out);
        (reply(&out), admission.parameters)
    }
}
