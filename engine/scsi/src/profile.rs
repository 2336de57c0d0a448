//! What a logical unit is by configuration: fixed while it exists.

use crate::identity::Identity;

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
}

impl Profile {
    /// A unit with everything else as its store has it.
    pub fn new(identity: Identity, block_size: u32) -> Profile {
        Profile { identity, block_size, physical_block_size: 0, rotation_rate: 0 }
    }
}
