//! Block stores: RAM, null, file and block device, and filters around them.
//!
//! A [`Store`] is the control half: opened once per volume, away from the data cores, because opening, locking and
//! sizing block. [`Store::queue`] makes the data half for one core, a [`BlockQueue`](backstore_api::BlockQueue) whose
//! I/O goes through that core's reactor.
//!
//! - Files and devices are opened and locked once; every core registers that same open file.
//! - A queue never has more than `depth` requests in flight. It takes what it needs for them (slots, bounce buffers)
//!   when it is made, and allocates nothing for a read or a write, but the memory of a RAM disk itself: by a helper thread.
//! - A failed flush latches the store on all cores until [`Store::clear_latch`]: the kernel reports lost pages once,
//!   and would call the next flush good.
//! - One flush of a queue runs at a time; those that come meanwhile share the next. Of two on different cores the kernel
//!   tells only one of a lost page: the other learns of it from the latch, if the first one's end was seen before.
//! - A file that was deleted while open, or a device that was removed, is found at the next flush (looked at once a
//!   second at most), after any medium error, and by [`Store::probe`]; from then on all is refused as gone.
#![forbid(unsafe_code)]

mod errno;
mod file;
mod filter;
mod null;
mod protection;
mod ram;
mod settings;
mod store;

pub use filter::{Delay, Fault, Filter, Kinds, Limit};
pub use settings::{BlockSettings, DEPTH_LIMIT, FileSettings, Kind, OpenError, Settings};
pub use store::Store;

#[cfg(feature = "broken-durability")]
pub use file::Broken;

use backstore_api::{Request, StoreError};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes of a medium, known to all its queues: it may change while they are in use.
#[derive(Clone, Debug)]
pub(crate) struct Capacity(Arc<AtomicU64>);

impl Capacity {
    pub(crate) fn new(bytes: u64) -> Capacity {
        Capacity(Arc::new(AtomicU64::new(bytes)))
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Release);
    }

    /// A range lies inside of it.
    #[inline]
    pub(crate) fn holds(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        let bytes = self.bytes();
        match offset.checked_add(length) {
            Some(end) if end <= bytes => Ok(()),
            _ => Err(StoreError::OutOfRange { bytes }),
        }
    }
}

/// A medium without protection information can do the request.
fn in_range(request: &Request, capacity: &Capacity) -> Result<(), StoreError> {
    match request {
        Request::ReadTuples { .. } | Request::WriteTuples { .. } => Err(errno::EINVAL),
        _ => lies_within(request, capacity.bytes()),
    }
}

/// The request lies inside the medium, and its data inside its buffer.
fn lies_within(request: &Request, bytes: u64) -> Result<(), StoreError> {
    let buffer = match request {
        Request::Read { buffer, range, .. }
        | Request::Write { buffer, range, .. }
        | Request::ReadTuples { buffer, range, .. }
        | Request::WriteTuples { buffer, range, .. } => range.start <= range.end && range.end as usize <= buffer.len(),
        Request::Fill { buffer, pattern, .. } => *pattern > 0 && *pattern as usize <= buffer.len(),
        _ => true,
    };
    if !buffer {
        return Err(errno::EINVAL);
    }
    // A saturated end is beyond every medium, whose size fits in an i64.
    match request.span() {
        Some(span) if span.end > bytes => Err(StoreError::OutOfRange { bytes }),
        _ => Ok(()),
    }
}
