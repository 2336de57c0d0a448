//! The initiator and the target's protocol stepped in one thread, over a wire that cuts the stream anywhere.

mod chance;
mod commands;
mod logins;
mod pair;
mod sessions;
mod target;
