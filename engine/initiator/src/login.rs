//! The login phase: security and operational stages until the full feature phase (RFC 7143 chapter 6).

use crate::event::CloseReason;
use crate::frame::{Headers, Segment, append};
use crate::targets::Address;
use crate::window::Window;
use negotiation::chap::{ChapError, Credentials, InitiatorChap, InitiatorResponded, Keys};
use negotiation::{Key, NegotiationError, Negotiator, Parameters, Role, SessionType, Settings};
use rand::CryptoRng;
use std::mem;
use wire::text::{TextAccumulator, TextError, TextWriter, pairs};
use wire::{BHS_LEN, Bhs, Isid, LoginRequest, LoginResponse, LoginStatus, Opcode, Stage};

/// Longest data segment before anything is agreed (RFC 7143 13.12).
const SEGMENT: usize = 8192;
/// Longest text of one answer, all its PDUs together.
const TEXT: usize = 64 << 10;
/// Requests after which a login that makes no end is given up.
const ROUNDS: usize = 64;

/// What a login is for, and what it offers.
#[derive(Clone, Debug)]
pub struct LoginOptions {
    /// InitiatorName.
    pub initiator_name: String,
    /// InitiatorAlias.
    pub initiator_alias: Option<String>,
    /// TargetName; needed but for discovery.
    pub target_name: Option<String>,
    /// Normal or discovery.
    pub session_type: SessionType,
    /// ISID (RFC 7143 11.12.5); [`random_isid`] makes one.
    pub isid: Isid,
    /// TSIH: 0 for a new session.
    pub tsih: u16,
    /// CID.
    pub connection_id: u16,
    /// CmdSN of the login, and of the first command.
    pub cmd_sn: u32,
    /// Operational keys.
    pub settings: Settings,
    /// Authenticate with CHAP.
    pub chap: Option<Credentials>,
    /// With `chap`: let the target do without.
    pub allow_no_authentication: bool,
    /// Without `chap`: pass through the security stage all the same, with AuthMethod=None.
    pub security_stage: bool,
    /// Further keys for the operational stage.
    pub further_keys: Vec<(String, String)>,
    /// Most bytes of text in a request, at most 8192: longer text goes in several PDUs with the C bit.
    pub text_per_pdu: usize,
}

/// An ISID of the "random" type (RFC 7143 11.12.5).
pub fn random_isid(rng: &mut (impl CryptoRng + ?Sized)) -> Isid {
    let bytes = rng.next_u64().to_be_bytes();
    Isid([0x80, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
}

impl LoginOptions {
    /// A normal session with a target, without authentication, with the default offers.
    pub fn normal(initiator_name: impl Into<String>, target_name: impl Into<String>) -> LoginOptions {
        LoginOptions {
            initiator_name: initiator_name.into(),
            initiator_alias: None,
            target_name: Some(target_name.into()),
            session_type: SessionType::Normal,
            isid: Isid([0x80, 0, 0, 0, 0, 1]),
            tsih: 0,
            connection_id: 0,
            cmd_sn: 1,
            settings: Settings::default(),
            chap: None,
            allow_no_authentication: false,
            security_stage: true,
            further_keys: Vec::new(),
            text_per_pdu: SEGMENT,
        }
    }

    /// A discovery session.
    pub fn discovery(initiator_name: impl Into<String>) -> LoginOptions {
        LoginOptions {
            target_name: None,
            session_type: SessionType::Discovery,
            ..LoginOptions::normal(initiator_name, "")
        }
    }
}

/// Where a login has ended: what [`Connection::new`](crate::Connection::new) starts from.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// What was agreed.
    pub parameters: Parameters,
    /// Normal or discovery.
    pub session_type: SessionType,
    /// ISID.
    pub isid: Isid,
    /// TSIH, as the target has given it.
    pub tsih: u16,
    /// CID.
    pub connection_id: u16,
    /// TargetPortalGroupTag, when the target has said it.
    pub target_portal_group_tag: Option<u16>,
    /// TargetAlias, when the target has said it.
    pub target_alias: Option<String>,
    pub(crate) window: Window,
}

impl LoggedIn {
    /// A session that both sides assume without a login, for tests and benches: `cmd_sn` is the first CmdSN,
    /// `commands` how many the target takes, `stat_sn` the first StatSN.
    pub fn assumed(parameters: Parameters, cmd_sn: u32, commands: u32, stat_sn: u32) -> LoggedIn {
        LoggedIn {
            parameters,
            session_type: SessionType::Normal,
            isid: Isid([0x80, 0, 0, 0, 0, 1]),
            tsih: 1,
            connection_id: 0,
            target_portal_group_tag: None,
            target_alias: None,
            window: Window {
                cmd_sn,
                exp_cmd_sn: cmd_sn,
                max_cmd_sn: cmd_sn.wrapping_add(commands).wrapping_sub(1),
                exp_stat_sn: stat_sn,
            },
        }
    }
}

/// Why a login has failed. The connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The target has said no.
    #[error("login refused: {0}")]
    Refused(LoginStatus),
    /// The target is elsewhere.
    #[error("login redirected: {status}")]
    Redirected {
        /// For now or for good.
        status: LoginStatus,
        /// Where to.
        addresses: Vec<Address>,
    },
    /// The operational keys led nowhere.
    #[error("negotiation: {0}")]
    Negotiation(#[from] NegotiationError),
    /// CHAP: of the target's proof, or of its keys.
    #[error("CHAP: {0}")]
    Chap(#[from] ChapError),
    /// The target's text can't be read.
    #[error("login text: {0}")]
    Text(#[from] TextError),
    /// The target wants an AuthMethod that was not offered.
    #[error("the target chose an AuthMethod that was not offered")]
    AuthMethod,
    /// The target has broken the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
}

fn broken<V>(rule: &'static str) -> Result<V, LoginError> {
    Err(LoginError::Protocol(rule))
}

/// Where the security stage stands.
enum Security {
    /// AuthMethod is offered.
    Offered,
    ChapOffered(InitiatorChap),
    ChapResponded(InitiatorResponded),
    /// Nothing more to prove.
    Proven,
}

enum State {
    New,
    Security(Security),
    Operational,
    Ended,
}

/// What a batch of the target's keys said, beside operational keys.
#[derive(Default)]
struct Batch<'a> {
    method: Option<&'a str>,
    chap: Keys<'a>,
    /// Our answers to its offers.
    answers: Vec<u8>,
}

/// A login on its way.
pub struct Login {
    options: LoginOptions,
    state: State,
    negotiator: Negotiator,
    headers: Headers,
    current: Option<([u8; BHS_LEN], Segment)>,
    segment: Vec<u8>,
    received: TextAccumulator,
    /// Text that is to be sent, and how much of it has been.
    text: Vec<u8>,
    sent: usize,
    /// What the last request said.
    transit: bool,
    stage: Stage,
    exp_stat_sn: Option<u32>,
    rounds: usize,
    target_portal_group_tag: Option<u16>,
    target_alias: Option<String>,
}

impl Login {
    /// Nothing is sent before [`start`](Self::start).
    pub fn new(options: LoginOptions) -> Login {
        Login {
            negotiator: Negotiator::new(Role::Initiator, options.settings, options.session_type),
            options,
            state: State::New,
            headers: Headers::new(),
            current: None,
            segment: Vec::new(),
            received: TextAccumulator::new(TEXT),
            text: Vec::new(),
            sent: 0,
            transit: false,
            stage: Stage::SecurityNegotiation,
            exp_stat_sn: None,
            rounds: 0,
            target_portal_group_tag: None,
            target_alias: None,
        }
    }

    /// Sends the first request. [`LoginError::Text`]: a name or key of the options can't be sent.
    pub fn start(&mut self, out: &mut Vec<u8>) -> Result<(), LoginError> {
        let mut text = Vec::new();
        let mut writer = TextWriter::new(&mut text);
        writer.pair("InitiatorName", &self.options.initiator_name)?;
        if let Some(alias) = &self.options.initiator_alias {
            writer.pair("InitiatorAlias", alias)?;
        }
        if let Some(name) = &self.options.target_name {
            writer.pair("TargetName", name)?;
        }
        let discovery = self.options.session_type == SessionType::Discovery;
        writer.pair("SessionType", if discovery { "Discovery" } else { "Normal" })?;
        if self.options.chap.is_some() || self.options.security_stage {
            let methods = match (&self.options.chap, self.options.allow_no_authentication) {
                (Some(_), false) => "CHAP",
                (Some(_), true) => "CHAP,None",
                (None, _) => "None",
            };
            writer.pair("AuthMethod", methods)?;
            self.state = State::Security(Security::Offered);
            self.stage = Stage::SecurityNegotiation;
            let transit = self.options.chap.is_none();
            self.send(text, transit, out)
        } else {
            self.operational(text, out)
        }
    }

    /// Takes input. `Some`: logged in; what is left of `input` belongs to the connection.
    pub fn advance(
        &mut self,
        input: &mut &[u8],
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<Option<LoggedIn>, LoginError> {
        let result = self.take(input, rng, out);
        if !matches!(result, Ok(None)) {
            self.state = State::Ended;
        }
        result
    }

    fn take(
        &mut self,
        input: &mut &[u8],
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<Option<LoggedIn>, LoginError> {
        loop {
            if matches!(self.state, State::New | State::Ended) {
                return if input.is_empty() { Ok(None) } else { broken("input outside of a login") };
            }
            let Some((header, segment)) = &mut self.current else {
                // No digests before the full feature phase (RFC 7143 13.1).
                let Some(header) = self.headers.next(input, false).map_err(framing)? else {
                    return Ok(None);
                };
                let length = Bhs(&header).data_segment_length();
                if length as usize > SEGMENT {
                    return broken("a data segment longer than 8192 bytes in the login phase");
                }
                self.segment.clear();
                self.current = Some((header, Segment::new(length, false)));
                continue;
            };
            let (bytes, rest) = input.split_at(input.len().min(segment.remaining as usize));
            segment.payload(bytes);
            self.segment.extend_from_slice(bytes);
            *input = rest;
            if segment.remaining != 0 || !segment.trailer(input).map_err(framing)? {
                return Ok(None);
            }
            let header = *header;
            self.current = None;
            if let Some(logged_in) = self.response(&header, rng, out)? {
                return Ok(Some(logged_in));
            }
        }
    }

    fn response(
        &mut self,
        header: &[u8; BHS_LEN],
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<Option<LoggedIn>, LoginError> {
        if Bhs(header).opcode() != Opcode::LoginResponse {
            return broken("not a Login Response in the login phase");
        }
        let Ok(pdu) = LoginResponse::parse(header) else {
            return broken("a Login Response with both T and C");
        };
        if pdu.initiator_task_tag != 0 {
            return broken("a Login Response with another Initiator Task Tag");
        }
        match pdu.status.class() {
            0 => {}
            1 => return self.redirected(pdu.status),
            _ => return Err(LoginError::Refused(pdu.status)),
        }
        self.check(&pdu)?;
        if self.sent < self.text.len() {
            if pdu.transit || pdu.continue_bit || !self.segment.is_empty() {
                return broken("the target did not wait for the rest of a text");
            }
            return self.send_rest(out).map(|()| None);
        }
        self.received.push(&self.segment)?;
        if pdu.continue_bit {
            // Asks for the rest.
            return self.send(Vec::new(), false, out).map(|()| None);
        }
        let received = mem::replace(&mut self.received, TextAccumulator::new(TEXT));
        self.batch(&pdu, received.bytes(), rng, out)
    }

    /// What has to hold in every successful response.
    fn check(&mut self, pdu: &LoginResponse) -> Result<(), LoginError> {
        if pdu.version_active != 0 {
            return broken("a version that was not offered");
        }
        if pdu.isid != self.options.isid {
            return broken("a Login Response with another ISID");
        }
        if self.exp_stat_sn.is_some_and(|expected| expected != pdu.stat_sn) {
            return broken("StatSN out of order in the login phase");
        }
        self.exp_stat_sn = Some(pdu.stat_sn.wrapping_add(1));
        if pdu.current_stage != self.stage {
            return broken("a Login Response of another stage");
        }
        if pdu.transit && (!self.transit || pdu.next_stage != self.next_stage()) {
            return broken("the target changes to a stage that was not asked for");
        }
        Ok(())
    }

    fn next_stage(&self) -> Stage {
        match self.stage {
            Stage::SecurityNegotiation => Stage::LoginOperationalNegotiation,
            _ => Stage::FullFeaturePhase,
        }
    }

    fn redirected<V>(&self, status: LoginStatus) -> Result<V, LoginError> {
        let mut addresses = Vec::new();
        for pair in pairs(&self.segment) {
            if let ("TargetAddress", value) = pair? {
                match Address::parse(value) {
                    Some(address) => addresses.push(address),
                    None => return broken("a redirection to something that is no address"),
                }
            }
        }
        Err(LoginError::Redirected { status, addresses })
    }

    /// All text of a response is here.
    fn batch(
        &mut self,
        pdu: &LoginResponse,
        text: &[u8],
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<Option<LoggedIn>, LoginError> {
        let mut batch = self.keys(text)?;
        match mem::replace(&mut self.state, State::Ended) {
            State::Security(security) => self.secure(security, pdu, batch, rng, out).map(|()| None),
            State::Operational => {
                if !batch.chap.is_empty() || batch.method.is_some() {
                    return broken("security keys in the operational stage");
                }
                self.negotiator.complete_answers(&mut batch.answers);
                self.negotiator.offer_needed(&mut batch.answers);
                if pdu.transit {
                    if !batch.answers.is_empty() {
                        return broken("the target ended the login with an offer open");
                    }
                    return self.finish(pdu).map(Some);
                }
                self.state = State::Operational;
                self.send(batch.answers, true, out).map(|()| None)
            }
            State::New | State::Ended => broken("input outside of a login"),
        }
    }

    fn keys<'a>(&mut self, text: &'a [u8]) -> Result<Batch<'a>, LoginError> {
        let mut batch = Batch::default();
        for pair in pairs(text) {
            let (name, value) = pair?;
            if batch.chap.insert(name, value)? {
                continue;
            }
            match self.negotiator.receive(name, value, &mut batch.answers)? {
                Some(Key::AuthMethod) => batch.method = Some(value),
                Some(Key::TargetAlias) => self.target_alias = Some(value.to_owned()),
                Some(Key::TargetPortalGroupTag) => match value.parse() {
                    Ok(tag) => self.target_portal_group_tag = Some(tag),
                    Err(_) => return broken("a TargetPortalGroupTag that is no number"),
                },
                _ => {}
            }
        }
        Ok(batch)
    }

    fn secure(
        &mut self,
        security: Security,
        pdu: &LoginResponse,
        batch: Batch<'_>,
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<(), LoginError> {
        let mut text = batch.answers;
        let (next, transit) = match (security, &self.options.chap) {
            (Security::Offered, Some(credentials)) if batch.method == Some("CHAP") => {
                (Security::ChapOffered(InitiatorChap::offer(credentials, &mut text)), false)
            }
            (Security::Offered, chap) => {
                let may_be_none = chap.is_none() || self.options.allow_no_authentication;
                // A target may leave out the answer to the only choice.
                if !may_be_none || batch.method.is_some_and(|method| method != "None") {
                    return Err(LoginError::AuthMethod);
                }
                (Security::Proven, true)
            }
            (Security::ChapOffered(chap), Some(credentials)) => {
                (Security::ChapResponded(chap.respond(credentials, &batch.chap, rng, &mut text)?), true)
            }
            (Security::ChapResponded(responded), Some(credentials)) => {
                responded.verify(credentials, &batch.chap)?;
                (Security::Proven, true)
            }
            (Security::Proven, _) => (Security::Proven, true),
            (Security::ChapOffered(_) | Security::ChapResponded(_), None) => {
                return Err(LoginError::AuthMethod);
            }
        };
        if pdu.transit {
            return match next {
                Security::Proven => self.operational(text, out),
                _ => broken("the target ended the security stage before its end"),
            };
        }
        self.state = State::Security(next);
        self.send(text, transit, out)
    }

    /// Begins the operational stage: `text` goes first.
    fn operational(&mut self, mut text: Vec<u8>, out: &mut Vec<u8>) -> Result<(), LoginError> {
        self.state = State::Operational;
        self.stage = Stage::LoginOperationalNegotiation;
        self.negotiator.offer_all(&mut text);
        let mut writer = TextWriter::new(&mut text);
        for (key, value) in &self.options.further_keys {
            writer.pair(key, value)?;
        }
        self.send(text, true, out)
    }

    fn finish(&self, pdu: &LoginResponse) -> Result<LoggedIn, LoginError> {
        if pdu.tsih == 0 || self.options.tsih != 0 && pdu.tsih != self.options.tsih {
            return broken("the last Login Response has a wrong TSIH");
        }
        Ok(LoggedIn {
            parameters: self.negotiator.finish()?,
            session_type: self.options.session_type,
            isid: self.options.isid,
            tsih: pdu.tsih,
            connection_id: self.options.connection_id,
            target_portal_group_tag: self.target_portal_group_tag,
            target_alias: self.target_alias.clone(),
            window: Window {
                cmd_sn: self.options.cmd_sn,
                exp_cmd_sn: pdu.exp_cmd_sn,
                max_cmd_sn: pdu.max_cmd_sn,
                exp_stat_sn: pdu.stat_sn.wrapping_add(1),
            },
        })
    }

    /// Sends text, in as many requests as it takes; the last one has T as given.
    fn send(&mut self, text: Vec<u8>, transit: bool, out: &mut Vec<u8>) -> Result<(), LoginError> {
        self.text = text;
        self.sent = 0;
        self.transit = transit;
        self.send_rest(out)
    }

    fn send_rest(&mut self, out: &mut Vec<u8>) -> Result<(), LoginError> {
        self.rounds += 1;
        if self.rounds > ROUNDS {
            return broken("the login makes no end");
        }
        let rest = &self.text[self.sent..];
        let part = &rest[..rest.len().min(self.options.text_per_pdu.clamp(1, SEGMENT))];
        let last = part.len() == rest.len();
        let transit = self.transit && last;
        let mut header = [0; BHS_LEN];
        LoginRequest {
            transit,
            continue_bit: !last,
            current_stage: self.stage,
            next_stage: if transit { self.next_stage() } else { Stage::SecurityNegotiation },
            version_max: 0,
            version_min: 0,
            total_ahs_length: 0,
            data_segment_length: part.len() as u32,
            isid: self.options.isid,
            tsih: self.options.tsih,
            initiator_task_tag: 0,
            cid: self.options.connection_id,
            cmd_sn: self.options.cmd_sn,
            exp_stat_sn: self.exp_stat_sn.unwrap_or(0),
        }
        .emit(&mut header);
        append(out, &header, &[], part, false, false);
        self.sent += part.len();
        Ok(())
    }
}

fn framing(_: CloseReason) -> LoginError {
    LoginError::Protocol("framing")
}
