//! Joins the engine and the stores: data cores, connections, dispatch, placement, the control thread, shutdown.
#![forbid(unsafe_code)]

pub mod control;
pub mod core;
pub mod mail;
mod outgoing;
pub mod state;
