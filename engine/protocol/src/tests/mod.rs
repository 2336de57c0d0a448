//! Behaviour of the full feature phase, seen from the wire: a scripted initiator, and a server that does as it is told.

mod chaos;
mod framing;
mod harness;
mod management;
mod nop_text_logout;
mod order;
mod read;
mod whole;
mod write;
