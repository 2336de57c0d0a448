//! CHAP for iSCSI (RFC 1994, RFC 7143 12.1.3): both halves, one-way and mutual, sans-IO.
//!
//! The target's side runs [`TargetChap::challenge`], then [`TargetChap::verify`]; the initiator's runs
//! [`InitiatorChap::offer`], [`InitiatorChap::respond`], then [`InitiatorResponded::verify`]. Each step takes the
//! [`Keys`] of one batch and appends its own. An initiator that does not ask for mutual authentication gets none, even
//! where the target has a mutual secret: to be sure of the target is the initiator's choice.
//!
//! Identifiers and challenges are fresh for each login. An identifier that comes again is legal (there are 256 of
//! them); a challenge that comes back is not.

mod algorithm;
mod credentials;
mod initiator;
mod keys;
mod secret;
mod target;

pub use algorithm::Algorithm;
pub use credentials::{Credentials, Mutual};
pub use initiator::{InitiatorChap, InitiatorResponded};
pub use keys::Keys;
pub use secret::Secret;
pub use target::{Authenticated, TargetChap};

/// Longest challenge that is taken, bytes (RFC 7143 12.1.3).
pub const MAX_CHALLENGE: usize = 1024;

/// Why an authentication failed. No text of it holds a secret, a challenge or a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChapError {
    /// Nothing of the list in CHAP_A is allowed here.
    #[error("no CHAP algorithm of the peer's list is allowed here")]
    NoCommonAlgorithm,
    /// A key of this step is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A key came twice in a step.
    #[error("{0} came twice")]
    Duplicate(&'static str),
    /// A key of another step came.
    #[error("{0} came where it has no place")]
    Unexpected(&'static str),
    /// A value that is not what the key holds.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A response as long as no digest of the algorithm.
    #[error("CHAP_R has the wrong length for the algorithm")]
    ResponseLength,
    /// The peer's challenge is our own: it would have us answer for it (RFC 7143 12.1.3).
    #[error("the peer reflected our challenge")]
    Reflected,
    /// CHAP_N is not the name that the credentials have.
    #[error("CHAP_N is not the configured user")]
    WrongName,
    /// CHAP_R does not prove the secret.
    #[error("CHAP_R does not match the configured secret")]
    WrongResponse,
    /// The initiator asks for a proof, and the target has no secret for it.
    #[error("the initiator asks for mutual CHAP, and none is configured")]
    NoMutualCredentials,
    /// One secret for both directions (RFC 7143 12.1.3 forbids it).
    #[error("the secrets of the two directions are equal")]
    EqualSecrets,
}

#[cfg(test)]
mod tests;
