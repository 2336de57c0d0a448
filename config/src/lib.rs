//! The configuration file: TOML text to a validated [`Plan`].
//!
//! Contract:
//! - A [`Plan`] is plain data: no descriptors, no threads, nothing that changes. What it says has been checked, as far
//!   as it can be checked before anything is opened.
//! - [`load`] reads a file, [`parse`] takes text and a [`Host`] that answers what is asked of the system (which cores,
//!   which files), so that tests need neither.
//! - A [`Report`] collects every mistake of a file, each with file, line, column, key, cause and cure. It is a miette
//!   diagnostic; the source text in it has asterisks where secrets were.
//! - A [`Secret`] never shows itself and is wiped when dropped; so is the text that a configuration was read from.
//! - No input text makes this crate panic.
#![forbid(unsafe_code)]

mod access;
mod display;
mod host;
mod log;
mod mask;
mod names;
mod plan;
mod pools;
mod read;
mod report;
mod secret;
mod size;

pub use access::{Access, AccessRule, Chap, Credentials, Denial, HashAlgorithm, InitiatorPattern, PatternError};
pub use host::{Host, PathState, System};
pub use log::log_filter;
pub use plan::{
    AccessState, FEATURES, IdentityOverride, Limits, LogFormat, LogSettings, Naa, Plan, Portal, PortalGroup,
    Provisioning, Server, Store, Target, Volume,
};
pub use pools::{HELD_SENDS, Pools, buffer_cost};
pub use read::{Loaded, load, parse};
pub use report::{Problem, Report};
pub use secret::Secret;
pub use size::{Size, SizeError};

/// Port of a portal that names none (RFC 7143 4.1: the registered port of iSCSI).
pub const DEFAULT_PORT: u16 = 3260;
