//! iSCSI login keys with their result functions, and CHAP: what the two ends of a login agree on, and how they
//! prove who they are.
//!
//! Both roles use it. A negotiator holds one connection's offers and answers, key by key; what came out is a
//! [`Parameters`]. `chap` has the verifier's and the prover's half of the authentication, each as plain steps from
//! keys to keys. Nothing here knows a PDU, a socket or a clock; randomness is an argument.
#![forbid(unsafe_code)]

mod parameters;

pub use parameters::{Parameters, TaskReporting};
