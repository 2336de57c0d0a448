//! Commands of block devices (SBC-3).

pub(crate) mod capacity;
pub(crate) mod collect;
pub(crate) mod compare_and_write;
pub(crate) mod defects;
pub(crate) mod format;
pub(crate) mod orwrite;
pub(crate) mod prefetch;
pub(crate) mod protection;
pub(crate) mod range;
pub(crate) mod sanitize;
pub(crate) mod start_stop;
pub(crate) mod synchronize;
pub(crate) mod transfer;
pub(crate) mod unmap;
pub(crate) mod verify;
pub(crate) mod write_atomic;
pub(crate) mod write_same;
