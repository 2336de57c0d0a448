//! The stores through their public interface.

mod device;
mod failing;
mod filters;
mod harness;
mod memory_disks;
mod model;
mod on_ring;
mod on_twin;
mod opening;
mod pinned;
mod plain;
mod protected;
