//! What the login has to know of the targets here, and who may use them.

use negotiation::chap::Credentials;
use std::net::IpAddr;
use std::sync::Arc;
use wire::names::TargetAddress;

/// The targets of this host and their access lists, as the configuration has them at this moment. Names are normalized
/// ([`wire::names::normalize`]).
pub trait Directory {
    /// May this initiator, connecting from this address, log in to this target? `target_name: None` asks for a discovery
    /// session.
    fn access(&self, initiator_name: &str, target_name: Option<&str>, address: IpAddr) -> Access;

    /// The targets that this initiator may see from this address, each with the portals that it may use.
    fn targets(&self, initiator_name: &str, address: IpAddr) -> Vec<TargetEntry>;
}

/// The directory's answer.
#[derive(Clone, Debug)]
pub enum Access {
    /// No authentication.
    Open,
    /// CHAP with these credentials, or no login.
    Chap(Arc<Credentials>),
    /// No such target (status 0203h).
    NotFound,
    /// The target was taken away (0204h).
    Removed,
    /// Not this initiator, or not from this address (0202h).
    Forbidden,
    /// The target is served elsewhere (0101h, or 0102h when `permanently`). A portal group tag is not sent
    /// (RFC 7143 11.13.5).
    Moved {
        /// Where to go.
        to: TargetAddress,
        /// For good.
        permanently: bool,
    },
    /// The target is not ready, or shutting down (0301h).
    Unavailable,
}

/// One target in an answer to SendTargets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetEntry {
    /// TargetName.
    pub name: String,
    /// Its portals, each with its portal group tag.
    pub addresses: Vec<TargetAddress>,
}
