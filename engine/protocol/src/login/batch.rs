//! The keys of one batch: all Login Requests up to one without the C bit.

use super::LoginFailure;
use negotiation::chap::Keys;
use negotiation::{Key, Negotiator, SessionType};
use wire::text::pairs;

/// What a batch has besides operational keys, which the negotiator has dealt with.
#[derive(Default)]
pub(super) struct Batch<'a> {
    pub chap: Keys<'a>,
    pub auth_method: Option<&'a str>,
    pub initiator_name: Option<&'a str>,
    pub initiator_alias: Option<&'a str>,
    pub target_name: Option<&'a str>,
    session_type: bool,
}

impl<'a> Batch<'a> {
    /// Runs a batch through the negotiator, whose answers go to `out`. `known`: declarations of an earlier batch that may
    /// be repeated as they were.
    pub(super) fn read(
        text: &'a [u8],
        known: impl Fn(&str, &str) -> bool,
        negotiator: &mut Negotiator,
        out: &mut Vec<u8>,
    ) -> Result<Batch<'a>, LoginFailure> {
        let mut batch = Batch::default();
        for pair in pairs(text) {
            let (name, value) = pair?;
            if known(name, value) || batch.chap.insert(name, value)? {
                continue;
            }
            match negotiator.receive(name, value, out)? {
                Some(Key::AuthMethod) => batch.auth_method = Some(value),
                Some(Key::InitiatorName) => batch.initiator_name = Some(value),
                Some(Key::InitiatorAlias) => batch.initiator_alias = Some(value),
                Some(Key::TargetName) => batch.target_name = Some(value),
                Some(Key::SessionType) => batch.session_type = true,
                Some(_) | None => {}
            }
        }
        negotiator.complete_answers(out);
        Ok(batch)
    }

    /// SessionType has to be known before the other keys make sense.
    pub(super) fn session_type(text: &[u8]) -> Result<SessionType, LoginFailure> {
        for pair in pairs(text) {
            match pair? {
                ("SessionType", "Normal") => return Ok(SessionType::Normal),
                ("SessionType", "Discovery") => return Ok(SessionType::Discovery),
                ("SessionType", _) => return Err(LoginFailure::SessionType),
                _ => {}
            }
        }
        Ok(SessionType::Normal)
    }

    /// Names and session type belong to the first batch: what was granted, was granted to them.
    pub(super) fn no_identity(&self) -> Result<(), LoginFailure> {
        let late = [
            ("InitiatorName", self.initiator_name.is_some()),
            ("TargetName", self.target_name.is_some()),
            ("SessionType", self.session_type),
        ];
        match late.iter().find(|(_, came)| *came) {
            Some((name, _)) => Err(LoginFailure::MisplacedKey(name)),
            None => Ok(()),
        }
    }

    /// Security keys have no place after the authentication.
    pub(super) fn no_security(&self) -> Result<(), LoginFailure> {
        if self.auth_method.is_some() {
            return Err(LoginFailure::MisplacedKey("AuthMethod"));
        }
        if !self.chap.is_empty() {
            return Err(LoginFailure::MisplacedKey("a key of CHAP"));
        }
        Ok(())
    }
}
