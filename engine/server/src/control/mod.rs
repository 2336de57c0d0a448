//! The control thread: portals, logins, discovery, the registry of sessions, signals, shutdown.

pub mod half_open;
pub mod registry;
