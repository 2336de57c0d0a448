//! Joins the engine and the stores: data cores, connections, dispatch, placement, the control thread, shutdown.
//!
//! [`run`] is the whole target. The data path is [`core::Core`], generic over the reactor; the decisions of the control
//! thread are state machines of their own, so that both run under a simulation as well.
#![forbid(unsafe_code)]

mod boot;
pub mod control;
pub mod core;
pub mod lasting;
pub mod mail;
mod outgoing;
pub mod state;

pub use boot::ServeError;

use rustix::{
    process::{Resource, getrlimit, setrlimit},
    thread::{CapabilitySet, capabilities},
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// What is there once all portals are open.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Addresses that are listened on, with their real ports.
    pub portals: Vec<SocketAddr>,
    /// Names of the targets.
    pub targets: Vec<String>,
}

/// Serves a plan until SIGTERM or SIGINT, and drains. SIGHUP reads `source`, the file that the plan came from, again, and
/// applies what has changed in it; without one it drains, too. Blocks. `ready` is called when every volume is open and every
/// portal listens.
///
/// # Errors
/// What could not be opened, with the way out; or what could not be flushed at the end.
pub fn run(plan: config::Plan, source: Option<PathBuf>, ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    raise_file_limit(plan.pools().descriptors);
    raise_memory_limit(plan.pools().pinned_bytes);
    let house = boot::House::open(&plan)?;
    let bell = Arc::new(tokio::sync::Notify::new());
    let ring = bell.clone();
    let (post, cores) = boot::start_cores(&plan, &house, move || ring.notify_one())?;
    // Only now, with every volume ready, is anybody let in.
    let portals = control::open_portals(&plan)?;
    let addresses = portals.iter().map(|p| (p.address, p.group)).collect();
    let targets = control::directory::Targets::new(plan, source, addresses)
        .map_err(|error| ServeError::Control(std::io::Error::other(error.to_string())))?;
    control::run(targets, house, post, bell, portals, cores, ready)
}

/// Raises the soft limit to the hard one, and says what it is then; None: there is none.
fn raise(limited: Resource, what: &str) -> Option<u64> {
    let mut limit = getrlimit(limited);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(limited, limit) {
        tracing::warn!(%error, "the limit of {what} could not be raised");
    }
    getrlimit(limited).current
}

/// Every connection is a descriptor.
fn raise_file_limit(wanted: u64) {
    if let Some(most) = raise(Resource::Nofile, "open files")
        && most < wanted
    {
        tracing::warn!("only {most} files may be open, and {wanted} may be needed; raise the limit (ulimit -n)");
    }
}

/// Pages of files are locked in memory. Who has the right to is not bound by the limit.
fn raise_memory_limit(wanted: u64) {
    let bound = !capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if let Some(most) = raise(Resource::Memlock, "locked memory")
        && bound
        && most < wanted
    {
        tracing::warn!(
            "only {most} bytes of memory may be locked (RLIMIT_MEMLOCK), and the `pinned` of all volumes are {wanted}: what is \
             more will be read in the usual way; raise the limit (ulimit -l, LimitMEMLOCK= of a systemd unit)"
        );
    }
}
