//! The states of a login, target side: one type each, whose handler consumes it and says what comes next
//! (RFC 7143 6.3).
//!
//! ```text
//! Start -> Method -> Algorithm -> Proof -> Secure -> Operational -> admission
//!       \________________________________________/
//!        a target that is open to this initiator may be entered at Secure or Operational
//! ```
//!
//! A state that waits for CHAP holds the credentials, and the only ways out of it are the next step of CHAP and failure:
//! there is no flag that says who is authenticated.

use super::batch::Batch;
use super::{Authentication, Core, Directory, LoginFailure, access};
use negotiation::chap::{Credentials, TargetChap};
use negotiation::{DigestChoice, Negotiator, Parameters, Role, SessionType, Settings, value};
use rand::CryptoRng;
use std::sync::Arc;
use wire::{LoginRequest, Stage};

/// Where a login stands between two batches of keys.
pub(super) enum State {
    Start(Start),
    Method(Method),
    Algorithm(AwaitAlgorithm),
    Proof(AwaitProof),
    Secure(Secure),
    Operational(Operational),
}

/// What follows from a batch.
pub(super) enum Next {
    /// The stage goes on.
    Stay(State),
    /// The next stage begins.
    Transit(State, Stage),
    /// The login is through.
    Admit(Authentication, Parameters),
}

/// What a handler works with.
pub(super) struct Input<'a> {
    pub core: &'a mut Core,
    /// The last request of the batch, which has the T bit.
    pub request: &'a LoginRequest,
    pub text: &'a [u8],
    pub directory: &'a dyn Directory,
    pub rng: &'a mut dyn CryptoRng,
    /// The answers.
    pub out: &'a mut Vec<u8>,
}

impl Input<'_> {
    fn transits(&self) -> bool {
        self.request.transit
    }
}

impl State {
    /// The stage that requests must name; None: the first request may choose.
    pub(super) fn stage(&self) -> Option<Stage> {
        match self {
            State::Start(_) => None,
            State::Operational(_) => Some(Stage::LoginOperationalNegotiation),
            _ => Some(Stage::SecurityNegotiation),
        }
    }

    /// What a request that names another stage is guilty of.
    pub(super) fn out_of_stage(&self) -> LoginFailure {
        match self {
            State::Algorithm(_) | State::Proof(_) => LoginFailure::AuthenticationSkipped,
            State::Method(Method { credentials: Some(_) }) => LoginFailure::AuthenticationSkipped,
            _ => LoginFailure::Stage("CSG is not the stage that the login is in"),
        }
    }

    pub(super) fn handle(self, input: Input<'_>) -> Result<Next, LoginFailure> {
        let text = input.text;
        match self {
            State::Start(state) => state.handle(input),
            other => {
                // libiscsi says who it is in each stage. What is as it was granted is no news; all else is refused.
                let core = &mut *input.core;
                let known = |name: &str, value: &str| match name {
                    "InitiatorName" => core.initiator_name.as_deref() == Some(&wire::names::normalize(value)),
                    "TargetName" => core.target_name.as_deref() == Some(&wire::names::normalize(value)),
                    "SessionType" => match core.session_type {
                        SessionType::Normal => value == "Normal",
                        SessionType::Discovery => value == "Discovery",
                    },
                    _ => false,
                };
                let batch = Batch::read(text, known, &mut core.negotiator, input.out)?;
                batch.no_identity()?;
                match other {
                    State::Start(state) => state.handle(input),
                    State::Method(state) => state.handle(&batch, input),
                    State::Algorithm(state) => state.handle(&batch, input),
                    State::Proof(state) => state.handle(&batch, input),
                    State::Secure(state) => state.handle(&batch, input),
                    State::Operational(state) => state.handle(&batch, input),
                }
            }
        }
    }
}

/// Nothing is known of the initiator yet.
pub(super) struct Start;

impl Start {
    fn handle(self, input: Input<'_>) -> Result<Next, LoginFailure> {
        let core = &mut *input.core;
        let session_type = Batch::session_type(input.text)?;
        core.session_type = session_type;
        if session_type == SessionType::Discovery {
            core.negotiator = Negotiator::new(Role::Target, discovery_settings(core.settings), session_type);
        }
        let batch = Batch::read(input.text, |_, _| false, &mut core.negotiator, input.out)?;

        let initiator_name = batch.initiator_name.ok_or(LoginFailure::Missing("InitiatorName"))?;
        wire::names::check(initiator_name).map_err(|error| LoginFailure::Name { key: "InitiatorName", error })?;
        let initiator_name = wire::names::normalize(initiator_name);
        core.initiator_name = Some(initiator_name.clone());
        core.initiator_alias = batch.initiator_alias.map(str::to_owned);
        let target_name = match session_type {
            SessionType::Discovery if input.request.tsih != 0 => return Err(LoginFailure::NoSession),
            SessionType::Discovery => None,
            SessionType::Normal => Some(batch.target_name.ok_or(LoginFailure::Missing("TargetName"))?),
        };
        if let Some(name) = target_name {
            wire::names::check(name).map_err(|_| LoginFailure::NotFound)?;
            core.target_name = Some(wire::names::normalize(name));
        }
        let access = input.directory.access(&initiator_name, core.target_name.as_deref(), core.address);
        let credentials = access::grant(access)?;
        if session_type == SessionType::Normal {
            // RFC 7143 13.9: in the first response to a login that names a target.
            value::put(input.out, "TargetPortalGroupTag", &core.portal_group.to_string());
        }
        match (input.request.current_stage, credentials) {
            (Stage::SecurityNegotiation, credentials) => Method { credentials }.handle(&batch, input),
            (_, Some(_)) => Err(LoginFailure::AuthenticationSkipped),
            (_, None) => Operational { authentication: Authentication::None }.handle(&batch, input),
        }
    }
}

/// A discovery session lives on the control thread: it needs neither digests nor long segments.
fn discovery_settings(settings: Settings) -> Settings {
    Settings {
        header_digest: DigestChoice::Never,
        data_digest: DigestChoice::Never,
        max_recv_data_segment_length: super::MAX_DATA as u32,
        ..settings
    }
}

/// The initiator is known, and may be here; AuthMethod is not settled. `credentials`: it has to prove itself.
pub(super) struct Method {
    credentials: Option<Arc<Credentials>>,
}

impl Method {
    fn handle(self, batch: &Batch<'_>, input: Input<'_>) -> Result<Next, LoginFailure> {
        if !batch.chap.is_empty() {
            return Err(LoginFailure::AuthenticationSkipped);
        }
        let offers = |method| batch.auth_method.is_some_and(|list| wire::value::list(list).any(|item| item == method));
        match (self.credentials, batch.auth_method) {
            (Some(credentials), Some(_)) if offers("CHAP") => {
                value::put(input.out, "AuthMethod", "CHAP");
                // With T the initiator says that it would go on if None were chosen. It was not.
                Ok(Next::Stay(State::Algorithm(AwaitAlgorithm { credentials })))
            }
            (None, Some(_)) if offers("None") => {
                value::put(input.out, "AuthMethod", "None");
                Secure { authentication: Authentication::None }.go_on(input)
            }
            (_, Some(_)) => Err(LoginFailure::NoCommonAuthMethod),
            (Some(_), None) if input.transits() => Err(LoginFailure::AuthenticationSkipped),
            (None, None) if input.transits() => Secure { authentication: Authentication::None }.go_on(input),
            (credentials, None) => Ok(Next::Stay(State::Method(Method { credentials }))),
        }
    }
}

/// CHAP is agreed: CHAP_A must come.
pub(super) struct AwaitAlgorithm {
    credentials: Arc<Credentials>,
}

impl AwaitAlgorithm {
    fn handle(self, batch: &Batch<'_>, input: Input<'_>) -> Result<Next, LoginFailure> {
        if batch.chap.is_empty() {
            return Err(LoginFailure::AuthenticationSkipped);
        }
        let chap = TargetChap::challenge(&self.credentials, &batch.chap, input.rng, input.out)?;
        Ok(Next::Stay(State::Proof(AwaitProof { credentials: self.credentials, chap })))
    }
}

/// The challenge is out: CHAP_N and CHAP_R must come.
pub(super) struct AwaitProof {
    credentials: Arc<Credentials>,
    chap: TargetChap,
}

impl AwaitProof {
    fn handle(self, batch: &Batch<'_>, input: Input<'_>) -> Result<Next, LoginFailure> {
        if batch.chap.is_empty() {
            return Err(LoginFailure::AuthenticationSkipped);
        }
        let algorithm = self.chap.algorithm();
        let proved = self.chap.verify(&self.credentials, &batch.chap, input.out)?;
        let user = self.credentials.user().to_owned();
        let authentication = Authentication::Chap { user, algorithm, mutual: proved.mutual };
        Secure { authentication }.go_on(input)
    }
}

/// Authentication is over; the initiator has not left the security stage yet.
pub(super) struct Secure {
    authentication: Authentication,
}

impl Secure {
    fn handle(self, batch: &Batch<'_>, input: Input<'_>) -> Result<Next, LoginFailure> {
        batch.no_security()?;
        self.go_on(input)
    }

    fn go_on(self, input: Input<'_>) -> Result<Next, LoginFailure> {
        let Secure { authentication } = self;
        if !input.transits() {
            return Ok(Next::Stay(State::Secure(Secure { authentication })));
        }
        match input.request.next_stage {
            Stage::FullFeaturePhase => Ok(Next::Admit(authentication, input.core.negotiator.finish()?)),
            stage => Ok(Next::Transit(State::Operational(Operational { authentication }), stage)),
        }
    }
}

/// Operational keys are negotiated.
pub(super) struct Operational {
    authentication: Authentication,
}

impl Operational {
    fn handle(self, batch: &Batch<'_>, input: Input<'_>) -> Result<Next, LoginFailure> {
        batch.no_security()?;
        let negotiator = &mut input.core.negotiator;
        if !input.request.transit {
            negotiator.declare(input.out);
            return Ok(Next::Stay(State::Operational(self)));
        }
        // What the initiator has not named by now is ours to name, before the stage can end.
        if negotiator.offer_needed(input.out) {
            return Ok(Next::Stay(State::Operational(self)));
        }
        Ok(Next::Admit(self.authentication, negotiator.finish()?))
    }
}
