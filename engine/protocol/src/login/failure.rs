//! Why a login failed: for the log in words, and for the wire as a status.

use negotiation::NegotiationError;
use negotiation::chap::ChapError;
use wire::names::{NameError, TargetAddress};
use wire::text::TextError;
use wire::{LoginStatus, Opcode, ParseError};

/// Why a login failed. Its text names no secret, challenge or response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginFailure {
    /// The first PDU is no Login Request: whoever this is, it speaks something else. Closed without an answer.
    #[error("the first PDU is not a Login Request ({0})")]
    NotALogin(Opcode),
    /// Another PDU before the login was over.
    #[error("{0} during the login phase")]
    NotALoginRequest(Opcode),
    /// A header that no Login Request may have.
    #[error("{0}")]
    Header(#[from] ParseError),
    /// Additional header segments, or a data segment above 8192 bytes.
    #[error("{0}")]
    Format(&'static str),
    /// A field that has to stay the same did not, or a number is out of order.
    #[error("{0} changed during the login")]
    Changed(&'static str),
    /// ExpStatSN acknowledges a response that was never sent.
    #[error("ExpStatSN is ahead of every response")]
    ExpStatSn,
    /// A stage, or a transition, that has no place here.
    #[error("{0}")]
    Stage(&'static str),
    /// More requests, or more text, than a login needs.
    #[error("the login takes more than {0}")]
    TooLong(&'static str),
    /// Malformed text.
    #[error("{0}")]
    Text(#[from] TextError),
    /// Keys that break the rules of negotiation.
    #[error("{0}")]
    Negotiation(#[from] NegotiationError),
    /// A security key outside of the authentication.
    #[error("{0} has no place in this stage")]
    MisplacedKey(&'static str),
    /// A name that is none.
    #[error("{key} is not an iSCSI name: {error}")]
    Name {
        /// Whose value.
        key: &'static str,
        /// What is wrong with it.
        error: NameError,
    },
    /// CHAP failed.
    #[error("authentication failed: {0}")]
    Chap(#[from] ChapError),
    /// AuthMethod offers nothing that is allowed here.
    #[error("the initiator offers no authentication method that is allowed here")]
    NoCommonAuthMethod,
    /// The initiator went on without the authentication that is asked for.
    #[error("the initiator skips the authentication that this target asks for")]
    AuthenticationSkipped,
    /// Not this initiator, or not from this address.
    #[error("this initiator may not use this target, or not from this address")]
    Forbidden,
    /// No such target.
    #[error("no such target")]
    NotFound,
    /// The target was taken away.
    #[error("the target was removed")]
    Removed,
    /// No version in common: ours is 0.
    #[error("the initiator needs at least protocol version {0}")]
    Version(u8),
    /// The session, or the target, has all the connections that it may have.
    #[error("too many connections")]
    TooManyConnections,
    /// A key that the first request has to have.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The connection can't join the session that TSIH names.
    #[error("the connection can't join this session")]
    CannotJoin,
    /// A SessionType that is neither Normal nor Discovery.
    #[error("unknown session type")]
    SessionType,
    /// TSIH names no session of this initiator with this target.
    #[error("there is no session with this TSIH")]
    NoSession,
    /// The target is served elsewhere.
    #[error("the target moved to {to}")]
    Moved {
        /// Where to go.
        to: TargetAddress,
        /// For good.
        permanently: bool,
    },
    /// Something went wrong here.
    #[error("internal error: {0}")]
    Target(&'static str),
    /// The target is not ready, or shutting down.
    #[error("the target is not available now")]
    Unavailable,
    /// A bound of this host is reached.
    #[error("all the sessions that this host or target may have are there (`max_connections`, `max_sessions`)")]
    OutOfResources,
}

impl LoginFailure {
    /// The status of the Login Response; None: the connection is closed without one.
    pub fn status(&self) -> Option<LoginStatus> {
        use LoginFailure::*;
        Some(match self {
            NotALogin(_) => return None,
            NotALoginRequest(_) => LoginStatus::InvalidDuringLogin,
            Header(_)
            | Format(_)
            | Changed(_)
            | ExpStatSn
            | Stage(_)
            | TooLong(_)
            | Text(_)
            | Negotiation(_)
            | MisplacedKey(_)
            | Name { .. } => LoginStatus::InitiatorError,
            Chap(_) | NoCommonAuthMethod | AuthenticationSkipped => LoginStatus::AuthenticationFailure,
            Forbidden => LoginStatus::AuthorizationFailure,
            NotFound => LoginStatus::NotFound,
            Removed => LoginStatus::TargetRemoved,
            Version(_) => LoginStatus::UnsupportedVersion,
            TooManyConnections => LoginStatus::TooManyConnections,
            Missing(_) => LoginStatus::MissingParameter,
            CannotJoin => LoginStatus::CannotIncludeInSession,
            SessionType => LoginStatus::SessionTypeNotSupported,
            NoSession => LoginStatus::SessionDoesNotExist,
            Moved { permanently: false, .. } => LoginStatus::TargetMovedTemporarily,
            Moved { permanently: true, .. } => LoginStatus::TargetMovedPermanently,
            Target(_) => LoginStatus::TargetError,
            Unavailable => LoginStatus::ServiceUnavailable,
            OutOfResources => LoginStatus::OutOfResources,
        })
    }
}
