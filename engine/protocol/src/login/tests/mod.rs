//! The login against scripted requests, against the prover of the negotiation crate, and against chance.

mod chance;
mod chap;
mod discovery;
mod operational;
mod refusals;
mod script;
