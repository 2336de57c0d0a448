//! Sans-IO iSCSI initiator for load, tests and simulation: [`Login`] until the full feature phase, then
//! [`Connection`]. Bytes come in, bytes go out; time and randomness are arguments.
//!
//! One connection per session, error recovery level 0. The initiator is strict: what a target may not do ends the
//! connection with a reason that names it. PDUs that no state machine would send go out through
//! [`Connection::raw`].
//!
//! A connection takes all its memory when it is made: a READ costs no allocation between
//! [`Connection::submit`] and [`Event::Response`].
#![forbid(unsafe_code)]

pub mod cdb;
mod connection;
mod data_out;
mod event;
mod frame;
mod login;
mod output;
mod receive;
mod requests;
mod submit;
mod tags;
mod targets;
mod transfer;
mod window;

pub use connection::{Connection, Handle, Limits};
pub use data_out::DataOut;
pub use event::{Advance, Asynchronous, CloseReason, Event, Residual, Response};
pub use frame::append as append_pdu;
pub use login::{LoggedIn, Login, LoginError, LoginOptions, random_isid};
pub use output::{Gather, Output};
pub use submit::{Command, Refused, SubmitError, lun};
pub use targets::{Address, Target, TargetsError, parse_targets};
pub use transfer::Transfer;

// What its options and answers are made of.
pub use negotiation::{DigestChoice, Parameters, SessionType, Settings, chap};
