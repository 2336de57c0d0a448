//! What a logical unit is by configuration: fixed while it exists.

use crate::{access::GroupAccess, identity::Identity};
use backstore_api::Protection;
use std::time::Duration;

/// Logical block provisioning (SBC-4 4.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Provisioning {
    /// Every block is mapped; there is no UNMAP.
    Full,
    /// PROVISIONING TYPE resource provisioned: unmapped blocks are anchored, that is, their space is kept.
    Resource,
    /// Unmapped blocks are deallocated.
    Thin,
}

/// How a unit is set up, but for what its store can do ([`backstore_api::Geometry`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its names.
    pub identity: Identity,
    /// Bytes of a logical block: 512 or 4096; anything else counts as 512.
    pub block_size: u32,
    /// Bytes of a physical block; 0: what the store says.
    pub physical_block_size: u32,
    /// MEDIUM ROTATION RATE (VPD B1h), or 1 for a medium that doesn't rotate; 0: what the store says.
    pub rotation_rate: u16,
    /// Access states of target port groups; one that is not among them is active/optimized, always.
    pub access: Vec<GroupAccess>,
    /// Initiators may change them (SET TARGET PORT GROUPS).
    pub explicit_access: bool,
    /// Time since 1970 at the instant from which [`crate::Context::now`] counts; zero: not known.
    pub clock_zero: Duration,
    /// None: thin if its store gives space back, else full. Thin of a store that gives nothing back is full.
    pub provisioning: Option<Provisioning>,
    /// RMB: the medium can be ejected and loaded.
    pub removable: bool,
    /// Protection information that the medium is formatted with.
    pub protection: Option<Protection>,
    /// Write-protected, though its store could be written to.
    pub write_protected: bool,
    /// Bytes a second that SANITIZE and FORMAT UNIT work off at most; 0: as many as they can.
    pub background_rate: u64,
}

impl Profile {
    /// A unit with everything else as its store has it.
    pub fn new(identity: Identity, block_size: u32) -> Profile {
        Profile {
            identity,
            block_size,
            physical_block_size: 0,
            rotation_rate: 0,
            access: Vec::new(),
            explicit_access: false,
            clock_zero: Duration::ZERO,
            provisioning: None,
            removable: false,
            protection: None,
            write_protected: false,
            background_rate: 0,
        }
    }
}
