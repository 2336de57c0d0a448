//! The ring of buffers from which the kernel takes one when data for a receive is there.

use io_uring::{IoUring, types::BufRingEntry};
use memory::{Buffer, Class, Pool};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

/// The one group of buffers of a ring.
pub(crate) const GROUP: u16 = 0;

/// As many as are given to the kernel at first, and at least.
const LEAST: u16 = 2;
/// Turns with receives after which there may be fewer.
const SEASON: u16 = 1024;

/// At most `limit` buffers of [`Class::Medium`], owned by the kernel until a completion names them.
pub(crate) struct Provided {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    mask: u16,
    tail: u16,
    /// What each buffer id stands for; None: not in the kernel's hands.
    held: Vec<Option<Buffer>>,
    free: Vec<u16>,
    /// How many the kernel is to have. It takes them in turn, so that all of them have to be in the cache for one to be:
    /// as many as a turn uses, and no more.
    aim: u16,
    /// Receives of this turn, the most of any in this season, and its turns.
    taken: u16,
    peak: u16,
    turns: u16,
    /// A receive found none.
    missed: bool,
}

impl Provided {
    /// Registers a ring for `limit` buffers (1 to 32768). It has none yet: see [`Provided::replenish`].
    pub(crate) fn new(ring: &IoUring, limit: u16) -> io::Result<Provided> {
        let limit = limit.clamp(1, 1 << 15);
        let count = limit.next_power_of_two();
        let layout = Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(4096))
            .map_err(io::Error::other)?;
        // SAFETY: the layout is not empty: count >= 1 entries of 16 bytes.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(raw.cast::<BufRingEntry>()) else { handle_alloc_error(layout) };
        let provided = Provided {
            entries,
            layout,
            mask: count - 1,
            tail: 0,
            held: (0..limit).map(|_| None).collect(),
            free: (0..limit).rev().collect(),
            aim: LEAST.min(limit),
            taken: 0,
            peak: 0,
            turns: 0,
            missed: false,
        };
        // SAFETY: page-aligned memory of `count` entries, which is freed in `drop` only, after it was unregistered or
        // the ring was closed (the kernel has its own pin on the pages).
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)? };
        Ok(provided)
    }

    /// Gives the kernel buffers from the pool for all that it used, as far as the pool has them. Those that are missing
    /// stay reserved: commands that took them would wait for data that nobody can receive any more.
    pub(crate) fn replenish(&mut self, pool: &Pool) {
        self.adapt();
        let before = self.tail;
        while self.is_short()
            && let Some(id) = self.free.last().copied()
        {
            let Some(mut buffer) = pool.take_reserved(Class::Medium) else {
                break;
            };
            self.free.pop();
            // SAFETY: the index is below the count of entries; the kernel reads entries between its head and the tail
            // that was last published only, and this one is behind that tail (at most `held.len()` are out).
            unsafe {
                let entry = &mut *self.entries.as_ptr().add(usize::from(self.tail & self.mask));
                entry.set_addr(buffer.as_mut_ptr() as u64);
                entry.set_len(buffer.class().bytes() as u32);
                entry.set_bid(id);
            }
            self.held[usize::from(id)] = Some(buffer);
            self.tail = self.tail.wrapping_add(1);
        }
        pool.set_reserved(Class::Medium, self.free.len() as u32);
        if self.tail != before {
            // SAFETY: the tail lies in the first entry's reserved field, aligned for u16, and lives as long as the
            // entries; the kernel only reads it.
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) }
                .store(self.tail, Ordering::Release);
        }
    }

    /// Learns from the last turn how many are needed.
    fn adapt(&mut self) {
        self.peak = self.peak.max(std::mem::take(&mut self.taken));
        self.turns += 1;
        if std::mem::take(&mut self.missed) {
            self.aim = self.aim.saturating_mul(2).min(self.held.len() as u16);
            (self.peak, self.turns) = (0, 0);
        } else if self.turns == SEASON {
            if self.peak <= self.aim / 2 {
                self.aim = (self.aim / 2).max(LEAST.min(self.held.len() as u16));
            }
            (self.peak, self.turns) = (0, 0);
        }
    }

    /// Some buffers are missing.
    pub(crate) fn is_short(&self) -> bool {
        self.held.len() - self.free.len() < usize::from(self.aim)
    }

    /// A receive found no buffer.
    pub(crate) fn miss(&mut self) {
        self.missed = true;
    }

    /// The buffer that a completion names: the kernel is through with it.
    pub(crate) fn take(&mut self, id: u16, pool: &Pool) -> Option<Buffer> {
        let buffer = self.held.get_mut(usize::from(id))?.take()?;
        self.free.push(id);
        self.taken += 1;
        pool.set_reserved(Class::Medium, self.free.len() as u32);
        Some(buffer)
    }

    /// The kernel may still write to them: never give them to anybody again.
    pub(crate) fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) }
    }
}
