//! The login phase, target side, and discovery sessions: what happens on a connection before it reaches a data core, or
//! instead.
//!
//! [`Login`] takes bytes as they come and answers into a [`Sink`], until it admits ([`Admission`]) or closes. Sans-IO:
//! the time limit is the caller's, the targets are a [`Directory`], randomness is an argument. What one login can hold
//! is bounded: a PDU of 8 KiB, [`MAX_TEXT`] bytes of text, [`MAX_REQUESTS`] requests.
//!
//! - Whoever admits calls the registry (a session with the same names and ISID is reinstated, a limit is looked at),
//!   then [`Admission::accept`] or [`Admission::refuse`].
//! - Operational keys are taken in the security stage as well, since they take no effect before the end. Security keys
//!   are not taken in the operational stage.
//! - One-way CHAP is enough for a target with mutual credentials: whether the target has to prove itself is the
//!   initiator's choice.
//! - After a failure the caller sends what is in the sink, and closes.

mod access;
mod admission;
mod batch;
mod directory;
mod discovery;
mod failure;
mod frame;
mod send_targets;
mod sequence;
mod state;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Authentication};
pub use directory::{Access, Directory, TargetEntry};
pub use discovery::{DiscoveryEnd, DiscoverySession, DiscoveryStep};
pub use failure::LoginFailure;
pub use send_targets::send_targets_text;

use crate::Sink;
use access::failure_text;
use frame::{Framer, MAX_DATA};
use negotiation::{Negotiator, Role, SessionType, Settings};
use rand::CryptoRng;
use sequence::Sequence;
use state::{Input, Next, Start, State};
use std::net::IpAddr;
use wire::text::TextAccumulator;
use wire::{BHS_LEN, LoginRequest, Opcode, Stage, opcode};

/// Most bytes of text that a login may send in all.
pub const MAX_TEXT: usize = 64 << 10;
/// Most Login Requests of a login.
pub const MAX_REQUESTS: u32 = 64;

/// What input led to.
#[derive(Debug)]
pub enum LoginStep {
    /// All input is used up: send what is in the sink, read more.
    More,
    /// The login is through, and wants its last word. What is left of the input belongs to the full feature phase.
    Admit(Box<Admission>),
    /// Refused. The response, if one is due, is in the sink; send it, and close.
    Close(LoginFailure),
}

/// One connection in the login phase.
pub struct Login {
    framer: Framer,
    core: Core,
    /// None: it has admitted or closed.
    state: Option<State>,
}

/// What all states of a login share.
struct Core {
    settings: Settings,
    address: IpAddr,
    portal_group: u16,
    negotiator: Negotiator,
    session_type: SessionType,
    initiator_name: Option<String>,
    initiator_alias: Option<String>,
    target_name: Option<String>,
    sequence: Option<Sequence>,
    /// The stage of a batch that goes on in the next request.
    stage: Option<Stage>,
    text: TextAccumulator,
    text_length: usize,
    requests: u32,
}

enum Outcome {
    Continue(State),
    Admit(Box<Admission>),
}

impl Login {
    /// A fresh connection from `address` to a portal of the group `portal_group`. `settings`: what we agree to at most.
    pub fn new(settings: Settings, address: IpAddr, portal_group: u16) -> Login {
        Login {
            framer: Framer::new(),
            core: Core {
                settings,
                address: address.to_canonical(),
                portal_group,
                negotiator: Negotiator::new(Role::Target, settings, SessionType::Normal),
                session_type: SessionType::Normal,
                initiator_name: None,
                initiator_alias: None,
                target_name: None,
                sequence: None,
                stage: None,
                text: TextAccumulator::new(MAX_TEXT),
                text_length: 0,
                requests: 0,
            },
            state: Some(State::Start(Start)),
        }
    }

    /// InitiatorName as far as it is known: for the log.
    pub fn initiator_name(&self) -> Option<&str> {
        self.core.initiator_name.as_deref()
    }

    /// TargetName as far as it is known: for the log.
    pub fn target_name(&self) -> Option<&str> {
        self.core.target_name.as_deref()
    }

    /// Takes input. Answers go to `out`, which is to be sent in any case. After `Admit` or `Close` nothing more is taken.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        directory: &dyn Directory,
        rng: &mut dyn CryptoRng,
        out: &mut impl Sink,
    ) -> LoginStep {
        loop {
            let Some(state) = self.state.take() else {
                return LoginStep::Close(LoginFailure::Target("the login is over"));
            };
            let (header, taken) = match self.framer.next(input) {
                Ok(None) => {
                    self.state = Some(state);
                    return LoginStep::More;
                }
                Ok(Some(frame)) => {
                    let taken = self.core.step(state, &frame.header, frame.data, directory, rng, out);
                    (frame.header, taken)
                }
                Err(bad) => {
                    let failure = self.core.expected(&bad.header).err();
                    (bad.header, Err(failure.unwrap_or(LoginFailure::Format(bad.why))))
                }
            };
            match taken {
                Ok(Outcome::Continue(state)) => self.state = Some(state),
                Ok(Outcome::Admit(admission)) => return LoginStep::Admit(admission),
                Err(failure) => {
                    self.core.refuse(&header, &failure, out);
                    return LoginStep::Close(failure);
                }
            }
        }
    }
}

impl Core {
    fn expected(&self, header: &[u8; BHS_LEN]) -> Result<(), LoginFailure> {
        match (opcode(header), &self.sequence) {
            (Opcode::LoginRequest, _) => Ok(()),
            (other, None) => Err(LoginFailure::NotALogin(other)),
            (other, Some(_)) => Err(LoginFailure::NotALoginRequest(other)),
        }
    }

    fn step(
        &mut self,
        state: State,
        header: &[u8; BHS_LEN],
        data: &[u8],
        directory: &dyn Directory,
        rng: &mut dyn CryptoRng,
        out: &mut impl Sink,
    ) -> Result<Outcome, LoginFailure> {
        self.expected(header)?;
        let request = LoginRequest::parse(header)?;
        let mut sequence = *self.sequence.get_or_insert_with(|| Sequence::begin(&request));
        sequence.check(&request)?;
        check_stage(self.stage.take().or(state.stage()), &state, &request)?;
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return Err(LoginFailure::TooLong("64 requests"));
        }
        self.text_length += data.len();
        if self.text_length > MAX_TEXT {
            return Err(LoginFailure::TooLong("64 KiB of text"));
        }
        self.text.push(data)?;
        let stage = request.current_stage;
        if request.continue_bit {
            // RFC 7143 6.2: nothing is said until the text is whole.
            sequence.respond(stage, None, &[], out);
            self.sequence = Some(sequence);
            self.stage = Some(stage);
            return Ok(Outcome::Continue(state));
        }
        let text = std::mem::replace(&mut self.text, TextAccumulator::new(MAX_TEXT));
        let mut answers = Vec::new();
        let next = state.handle(Input {
            core: self,
            request: &request,
            text: text.bytes(),
            directory,
            rng,
            out: &mut answers,
        })?;
        // The number of unknown keys is bounded, so this is never reached by a sane peer; a longer answer would have to be
        // cut over several responses.
        if answers.len() > MAX_DATA {
            return Err(LoginFailure::OutOfResources);
        }
        let (state, transit) = match next {
            Next::Stay(state) => (state, None),
            Next::Transit(state, stage) => (state, Some(stage)),
            Next::Admit(authentication, parameters) => {
                return Ok(Outcome::Admit(Box::new(Admission {
                    initiator_name: self.initiator_name.clone().unwrap_or_default(),
                    initiator_alias: self.initiator_alias.clone(),
                    target_name: self.target_name.clone(),
                    session_type: self.session_type,
                    isid: sequence.isid,
                    tsih: sequence.tsih,
                    cid: sequence.cid,
                    parameters,
                    cmd_sn: sequence.cmd_sn,
                    stat_sn: sequence.stat_sn.wrapping_add(1),
                    authentication,
                    sequence,
                    stage,
                    text: answers,
                })));
            }
        };
        sequence.respond(stage, transit, &answers, out);
        self.sequence = Some(sequence);
        Ok(Outcome::Continue(state))
    }

    /// Writes the Login Response that refuses. `header` is the request's, which need not be right.
    fn refuse(&self, header: &[u8; BHS_LEN], failure: &LoginFailure, out: &mut impl Sink) {
        let Some(status) = failure.status() else { return };
        let sequence = self.sequence.or_else(|| {
            let mut header = *header;
            header[1] = 0; // Flags that contradict each other are what was wrong.
            LoginRequest::parse(&header).ok().map(|request| Sequence::begin(&request))
        });
        if let Some(sequence) = sequence {
            let text = failure_text(failure);
            let stage = Stage::from_code(header[1] >> 2 & 3);
            sequence::put(&sequence.response(stage, None, status, &text), &text, out);
        }
    }
}

/// RFC 7143 11.12.3: from where to where. `stage`: where the login is, if it is settled.
fn check_stage(stage: Option<Stage>, state: &State, request: &LoginRequest) -> Result<(), LoginFailure> {
    let current = request.current_stage;
    match stage {
        Some(stage) if stage != current => return Err(state.out_of_stage()),
        Some(_) => {}
        None if matches!(current, Stage::SecurityNegotiation | Stage::LoginOperationalNegotiation) => {}
        None => return Err(LoginFailure::Stage("CSG is no stage of a login")),
    }
    if !request.transit {
        return Ok(());
    }
    match (current, request.next_stage) {
        (_, Stage::FullFeaturePhase) => Ok(()),
        (Stage::SecurityNegotiation, Stage::LoginOperationalNegotiation) => Ok(()),
        _ => Err(LoginFailure::Stage("NSG is not a stage that can follow")),
    }
}
