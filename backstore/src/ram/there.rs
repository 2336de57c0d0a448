//! Which huge pages of a region have memory.
//!
//! Whatever touches one that has none is stopped by the kernel until that is found and zeroed: for a fraction of a millisecond,
//! or for tens of them where memory is fragmented. That is for helper threads; a data core looks here first.

use memory::{Region, zeroed_words};
use reactor::Errno;
use rustix::io::Errno as Os;
use std::{
    io,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Bytes that get their memory as one.
pub(super) const HUGE: u64 = 2 << 20;
/// Times that memory is asked for again which may have been given back meanwhile.
const TRIES: u32 = 8;

/// A bit per huge page: its first touch is over. It says nothing of what was written, and nobody's bytes depend on it: a bit
/// that is wrong costs a wait, or a job that finds nothing to do.
///
/// What a region has behind its last whole huge page counts as there: the kernel gives it small pages, which is quick.
pub(super) struct There {
    bits: Box<[AtomicU64]>,
    /// Counted up whenever memory has been given back.
    losses: AtomicU64,
    /// Somebody was told that there is no memory.
    told: AtomicBool,
}

/// The huge pages that a range touches.
pub(super) fn pages(span: &Range<u64>) -> Range<u64> {
    span.start / HUGE..span.end.div_ceil(HUGE)
}

impl There {
    /// For a region with this room; nothing is there.
    pub(super) fn new(room: u64) -> io::Result<There> {
        let words = usize::try_from(room.div_ceil(HUGE).div_ceil(64)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(There { bits: zeroed_words(words), losses: AtomicU64::new(0), told: AtomicBool::new(false) })
    }

    #[inline]
    pub(super) fn has(&self, page: u64) -> bool {
        self.bits[(page / 64) as usize].load(Ordering::Relaxed) >> (page % 64) & 1 == 1
    }

    pub(super) fn set(&self, page: u64) {
        self.bits[(page / 64) as usize].fetch_or(1 << (page % 64), Ordering::SeqCst);
    }

    /// Drops what is known of some pages: before their memory is given back, and after ([`lost`](There::lost)).
    pub(super) fn forget(&self, pages: Range<u64>) {
        for page in pages.filter(|page| self.has(*page)) {
            self.bits[(page / 64) as usize].fetch_and(!(1 << (page % 64)), Ordering::SeqCst);
        }
    }

    /// The memory of some pages has been given back. [`get`](There::get) counts before it asks for memory and again when it has
    /// said that it is there. If it doesn't see this one, all of it came later than the loss, or is forgotten here.
    pub(super) fn lost(&self, pages: Range<u64>) {
        self.losses.fetch_add(1, Ordering::SeqCst);
        self.forget(pages);
    }

    /// From the first page without memory to behind the last one. None: all of it is there.
    #[cold]
    pub(super) fn lacks(&self, pages: Range<u64>) -> Option<Range<u64>> {
        let mut lacking = pages.filter(|page| !self.has(*page));
        let first = lacking.next()?;
        Some(first..lacking.last().unwrap_or(first) + 1)
    }

    /// Gets memory for some pages of a region. Blocks: not for a data core.
    ///
    /// # Errors
    /// ENOMEM: there is no more of it.
    pub(super) fn get(&self, region: &Region, pages: Range<u64>) -> Result<(), Errno> {
        for page in pages {
            let start = page * HUGE;
            let length = region.len().saturating_sub(start).min(HUGE);
            for _ in 0..TRIES {
                if length == 0 || self.has(page) {
                    break;
                }
                let losses = self.losses.load(Ordering::SeqCst);
                match region.populate_range(start, length) {
                    // A kernel that can't do it does it at the first touch.
                    Err(error) if error.raw_os_error() != Some(Os::INVAL.raw_os_error()) => {
                        return Err(self.refused(&error));
                    }
                    _ => self.set(page),
                }
                if self.losses.load(Ordering::SeqCst) == losses {
                    break;
                }
                self.forget(page..page + 1);
            }
        }
        Ok(())
    }

    fn refused(&self, error: &io::Error) -> Errno {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "there is no memory for a RAM volume: writes to it fail where they need more");
        }
        Errno(error.raw_os_error().unwrap_or(Os::NOMEM.raw_os_error()))
    }
}
