//! iSCSI login keys with their result functions, and CHAP: what the two ends of a login agree on, and how they
//! prove who they are.
//!
//! Both roles use it. A [`Negotiator`] holds one connection's offers and answers, key by key; what came out is a
//! [`Parameters`]. [`chap`] has the verifier's and the prover's half of the authentication, each as plain steps from
//! keys to keys. Nothing here knows a PDU, a socket or a clock; randomness is an argument.
#![forbid(unsafe_code)]

pub mod chap;
mod error;
pub mod keys;
mod negotiator;
mod parameters;
mod result;
mod settings;
pub mod value;

pub use error::NegotiationError;
pub use keys::Key;
pub use negotiator::{MAX_UNKNOWN_KEYS, Negotiator, Role, SessionType, receive_in_full_feature_phase};
pub use parameters::{Parameters, TaskReporting};
pub use settings::{DigestChoice, Settings};
