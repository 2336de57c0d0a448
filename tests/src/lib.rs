//! What the tests of the real program share: starting and stopping `ringlun`, running other people's clients, and a
//! small blocking client of our own for what those can't do.
//!
//! Nothing here sleeps for a fixed time: everything waits for a condition, and gives up after a bound. All traffic is on
//! loopback, on ports that the kernel chooses.
#![forbid(unsafe_code)]

pub mod client;
pub mod exercise;
pub mod programs;
pub mod reservations;
pub mod stamps;
pub mod target;
pub mod wait;

pub use client::{Client, ConnectError, Done, End, Seen};
pub use target::{Setup, Target};
