//! The stores through their public interface.

mod failing;
mod filters;
mod harness;
mod memory_disks;
mod model;
mod opening;
mod plain;
