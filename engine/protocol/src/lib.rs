//! Sans-IO iSCSI target: [`login`] until the full feature phase, then [`Connection`] and [`Session`].
//!
//! Bytes, results and the time are arguments; what to send is written into a [`Sink`]. Nothing here holds a
//! descriptor, a pointer or a clock instant, so that a session can move between cores, processes and a simulation.
//!
//! Contract with the server:
//! - It calls [`Connection::advance`] until it gives [`Advance::Idle`] (or `Payload`, and no input is left), and carries
//!   out each event before the next call.
//! - Before each of these calls it may ask for a [`WholeCommand`], and answer it at once instead: that never becomes a task.
//! - [`Tasks`] is shared by all sessions of a core. Tasks enter it here and leave it through [`Connection::retire`] or
//!   [`Session::retire`] alone.
//! - What is kept for a peer is bounded: one header, one data segment of a NOP-Out, [`MAX_TEXT`] bytes of a text
//!   exchange, what is ahead in the command window, and [`MAX_MANAGEMENT`] task management requests.
//! - What one call writes into the sink is bounded by the input: a Reject of at most 104 bytes, or a PDU with its own
//!   data echoed, per PDU that came in. The server stops feeding input while too much waits to be sent.
#![forbid(unsafe_code)]

mod command;
mod connection;
mod data_in;
mod data_out;
mod emit;
mod event;
mod hold;
mod liveness;
pub mod login;
mod logout;
mod management;
mod nop;
mod segment;
mod session;
mod sink;
mod task;
mod text;
mod whole;

pub use connection::Connection;
pub use data_in::{DataIn, Finish};
pub use event::{Advance, CloseReason, Event, SendTargets, TaskManagement, TmfResponse};
pub use management::MAX_MANAGEMENT;
pub use session::{MAX_IMMEDIATE, MAX_WINDOW, Session};
pub use sink::Sink;
pub use task::{MAX_OUTSTANDING_R2T, MAX_TASKS, Task, TaskKey, Tasks};
pub use text::MAX_TEXT;
pub use whole::WholeCommand;

#[cfg(test)]
mod tests;
