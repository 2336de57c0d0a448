//! A login that is through, but for the last word.

use super::sequence::{self, Sequence};
use super::{LoginFailure, failure_text};
use crate::Sink;
use negotiation::chap::Algorithm;
use negotiation::{Parameters, SessionType};
use wire::{Isid, LoginStatus, Stage};

/// Everything is negotiated; whether the session can be had is for the registry to say. Exactly one of
/// [`accept`](Self::accept) and [`refuse`](Self::refuse) ends the login. A plain value: whoever installs the session
/// sends the final Login Response.
#[derive(Clone, Debug)]
pub struct Admission {
    /// InitiatorName, normalized.
    pub initiator_name: String,
    /// InitiatorAlias: text for people.
    pub initiator_alias: Option<String>,
    /// TargetName, normalized; None in a discovery session.
    pub target_name: Option<String>,
    /// Normal or discovery.
    pub session_type: SessionType,
    /// ISID. Together with the names and the portal group it identifies the session: one that exists already is
    /// reinstated when `tsih` is 0 (RFC 7143 6.3.5).
    pub isid: Isid,
    /// 0: a new session. Else the session that the connection wants to join; a connection of it with the same `cid` is
    /// reinstated (RFC 7143 6.3.4).
    pub tsih: u16,
    /// The connection's identifier in its session.
    pub cid: u16,
    /// What was negotiated. For a connection that joins a session, take
    /// [`joined_to`](negotiation::Parameters::joined_to) the session's.
    pub parameters: Parameters,
    /// CmdSN of the login: of the first command of a new session, too, since login requests are immediate.
    pub cmd_sn: u32,
    /// StatSN of the first PDU after the final Login Response.
    pub stat_sn: u32,
    /// Who proved what.
    pub authentication: Authentication,
    pub(super) sequence: Sequence,
    pub(super) stage: Stage,
    pub(super) text: Vec<u8>,
}

/// Who proved what to whom in a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nobody anything: the target is open to this initiator.
    None,
    /// The initiator proved itself by CHAP.
    Chap {
        /// Its CHAP_N.
        user: String,
        /// The algorithm.
        algorithm: Algorithm,
        /// The target proved itself, too.
        mutual: bool,
    },
}

impl Admission {
    /// Writes the final Login Response: the full feature phase begins behind it. `tsih`: the session's, not 0.
    /// `exp_cmd_sn` and `max_cmd_sn`: the session's window; a new session's begins at `cmd_sn`.
    pub fn accept(&self, tsih: u16, exp_cmd_sn: u32, max_cmd_sn: u32, out: &mut impl Sink) {
        let next = Some(Stage::FullFeaturePhase);
        let mut response = self.sequence.response(self.stage, next, LoginStatus::Success, &self.text);
        response.tsih = tsih;
        response.exp_cmd_sn = exp_cmd_sn;
        response.max_cmd_sn = max_cmd_sn;
        sequence::put(&response, &self.text, out);
    }

    /// Writes a Login Response that refuses; the connection is to be closed behind it.
    pub fn refuse(&self, failure: &LoginFailure, out: &mut impl Sink) {
        if let Some(status) = failure.status() {
            let text = failure_text(failure);
            sequence::put(&self.sequence.response(self.stage, None, status, &text), &text, out);
        }
    }
}
