//! Why a negotiation can't go on.

use crate::Key;

/// Why a negotiation can't go on. At the target each ends the login with status 0200h; at the initiator it ends the
/// connection (RFC 7143 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// A key came twice (RFC 7143 6.3).
    #[error("{} was negotiated twice", .0.name())]
    Duplicate(Key),
    /// The other role's key.
    #[error("{} is not this side's to send", .0.name())]
    WrongSender(Key),
    /// A key of another phase.
    #[error("{} may not be sent in this phase", .0.name())]
    WrongPhase(Key),
    /// A declaration that is malformed or out of range.
    #[error("{} was declared with a value that it can't have", .0.name())]
    BadDeclaration(Key),
    /// An answer that the result function can't give for our offer.
    #[error("{} was answered with a value that the offer did not allow", .0.name())]
    BadAnswer(Key),
    /// What the negotiation left is not what we can work with.
    #[error("{} ended at a value that this side's settings rule out", .0.name())]
    Unacceptable(Key),
    /// An offer of ours got no answer.
    #[error("{} got no answer", .0.name())]
    Unanswered(Key),
    /// More unknown keys than we answer.
    #[error("more than {} unknown keys", crate::MAX_UNKNOWN_KEYS)]
    TooManyUnknownKeys,
}
