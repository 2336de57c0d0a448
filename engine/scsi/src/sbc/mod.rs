//! Commands of block devices (SBC-3).

pub(crate) mod capacity;
pub(crate) mod compare_and_write;
pub(crate) mod control;
pub(crate) mod range;
pub(crate) mod transfer;
pub(crate) mod unmap;
pub(crate) mod verify;
pub(crate) mod write_same;
