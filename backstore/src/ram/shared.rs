//! What all cores have of a RAM disk: its memory, and what is known of it.

use super::there::{HUGE, There, pages};
use crate::Capacity;
use backstore_api::Extent;
use memory::{Region, zeroed_words};
use reactor::Errno;
use rustix::thread::{MembarrierCommand, membarrier};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
};

/// Bytes that are mapped or not as one.
pub(super) const GRANULE: u64 = 4096;
/// Granules of a huge page.
const GRANULES: u64 = HUGE / GRANULE;
/// Words of the bitmap that one Status looks at: 16 GiB of the volume.
const STATUS_WORDS: u64 = 1 << 16;
/// Huge pages that are got ahead of who writes one block after the other.
const AHEAD: u64 = 8;

/// The memory, which granules of it were written, and which huge pages of it are there.
///
/// A write copies and then marks what isn't marked; a discard unmarks and then clears. Between its two steps a discard
/// makes all cores finish what they have under way ([`everywhere`]), so that writes need no fence of their own: either
/// the clearing comes after the copy, or the write has seen that it must mark again. However the two meet, a granule
/// that says "unmapped" holds zeroes.
///
/// A granule that is mapped has memory. One that isn't may have some all the same, and no answer tells: see [`There`].
pub(super) struct Shared {
    pub(super) region: Arc<Region>,
    mapped: Box<[AtomicU64]>,
    there: There,
    /// Memory is never given back.
    pub(super) keeps: bool,
    pub(super) capacity: Capacity,
}

impl Shared {
    pub(super) fn new(region: Arc<Region>, keeps: bool, capacity: Capacity) -> io::Result<Shared> {
        let words = region.room().div_ceil(GRANULE).div_ceil(64);
        let mapped = zeroed_words(usize::try_from(words).map_err(|_| io::ErrorKind::OutOfMemory)?);
        let there = There::new(region.room())?;
        let shared = Shared { region, mapped, there, keeps, capacity };
        shared.opened(0);
        Ok(shared)
    }

    /// The region had `old` bytes, and has more.
    pub(super) fn opened(&self, old: u64) {
        let (first, new) = (old / HUGE, self.region.len());
        if self.keeps {
            (first..new.div_ceil(HUGE)).for_each(|page| self.there.set(page));
            return;
        }
        // It was the rest, and is whole now.
        self.there.lost(first..first + 1);
        if !new.is_multiple_of(HUGE) {
            self.there.set(new / HUGE);
        }
    }

    /// Sets or clears the marks of a range of granules. Words that are right already aren't written, so that cores
    /// don't take the cache line from each other.
    fn mark(&self, granules: Range<u64>, mapped: bool) {
        for (word, mask) in words(granules) {
            let now = self.mapped[word].load(Ordering::Relaxed);
            if mapped && now & mask != mask {
                self.mapped[word].fetch_or(mask, Ordering::AcqRel);
            } else if !mapped && now & mask != 0 {
                self.mapped[word].fetch_and(!mask, Ordering::AcqRel);
            }
        }
    }

    /// Whether all granules of a range are mapped.
    #[inline]
    fn are_mapped(&self, granules: Range<u64>) -> bool {
        words(granules).all(|(word, mask)| self.mapped[word].load(Ordering::Relaxed) & mask == mask)
    }

    /// Whether a write of this range waits for no memory.
    #[inline]
    pub(super) fn is_there(&self, span: Range<u64>) -> bool {
        self.are_mapped(touched(span.start, span.end - span.start)) || self.there.lacks(pages(&span)).is_none()
    }

    /// The huge pages that a write of this range has to get first.
    pub(super) fn lacks(&self, span: &Range<u64>) -> Option<Range<u64>> {
        if self.is_there(span.clone()) { None } else { self.there.lacks(pages(span)) }
    }

    /// The huge pages that should be got after a write of this range, because it comes to a new one and those before it were
    /// written to their end: as many as these, so that little is got for nobody.
    #[cold]
    pub(super) fn wants(&self, span: &Range<u64>) -> Option<Range<u64>> {
        let first = span.start.div_ceil(HUGE);
        if first * HUGE >= span.end || self.are_mapped(first * GRANULES..first * GRANULES + 1) {
            return None;
        }
        let mut run = u64::from(span.start < first * HUGE);
        let is_full_to_its_end = |end: u64| self.are_mapped(end * GRANULES - 1..end * GRANULES);
        while run < AHEAD && run < first && is_full_to_its_end(first - run) {
            run += 1;
        }
        let end = (first + 1 + run).min(self.capacity.bytes() / HUGE);
        // Half of it is enough to go on for a while.
        let looked_at = (first + run.div_ceil(2)).min(end.saturating_sub(1));
        (looked_at > first && !self.there.has(looked_at)).then_some(first + 1..end)
    }

    /// Whether nothing need be got before or after a write of this range.
    #[inline]
    pub(super) fn is_easy(&self, span: Range<u64>) -> bool {
        self.are_mapped(touched(span.start, span.end - span.start))
            || self.there.lacks(pages(&span)).is_none() && self.wants(&span).is_none()
    }

    /// Whether a huge page is there.
    pub(super) fn has(&self, page: u64) -> bool {
        self.there.has(page)
    }

    /// Gets memory. Blocks: not for a data core.
    pub(super) fn get(&self, pages: Range<u64>) -> Result<(), Errno> {
        self.there.get(&self.region, pages)
    }

    /// The first granule from `from` on, before `end`, that isn't `mapped`.
    fn run(&self, from: u64, end: u64, mapped: bool) -> u64 {
        let mut granule = from;
        while granule < end {
            let bits = self.mapped[(granule / 64) as usize].load(Ordering::Relaxed);
            let same = (if mapped { bits } else { !bits }) >> (granule % 64);
            let run = u64::from(same.trailing_ones());
            granule += run;
            if !granule.is_multiple_of(64) || run == 0 {
                break;
            }
        }
        granule.min(end)
    }

    pub(super) fn write(&self, offset: u64, from: &[u8]) {
        self.region.write(offset, from);
        self.mark(touched(offset, from.len() as u64), true);
    }

    /// The same past the cache: see [`Region::stream`].
    #[inline]
    pub(super) fn stream(&self, offset: u64, from: &[u8]) {
        self.region.stream(offset, from);
        self.mark(touched(offset, from.len() as u64), true);
    }

    pub(super) fn discard(&self, offset: u64, length: u64) {
        if self.keeps {
            return;
        }
        let inner = offset.div_ceil(GRANULE)..(offset + length) / GRANULE;
        if inner.start < inner.end {
            self.clear(inner);
        }
    }

    /// Makes granules unmapped.
    fn clear(&self, granules: Range<u64>) {
        let length = (granules.end - granules.start) * GRANULE;
        self.mark(granules.clone(), false);
        // Of a page that keeps a part of its memory, the rest comes back in small pages.
        let whole = granules.start.div_ceil(GRANULES)..granules.end / GRANULES;
        let gives_back = !self.keeps && !whole.is_empty();
        if gives_back {
            self.there.forget(whole.clone());
        }
        everywhere();
        self.region.zero(granules.start * GRANULE, length, !self.keeps);
        if gives_back {
            self.there.lost(whole);
        }
    }

    pub(super) fn zero(&self, offset: u64, length: u64, unmap: bool) {
        if !unmap {
            self.region.zero(offset, length, false);
            self.mark(touched(offset, length), true);
            return;
        }
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(GRANULE), end / GRANULE * GRANULE);
        if first < last {
            self.wipe(offset..first);
            self.clear(first / GRANULE..last / GRANULE);
            self.wipe(last..end);
        } else {
            self.wipe(offset..end);
        }
    }

    /// Zeroes a part of a granule, or of two. Those that are unmapped hold zeroes, and may have no memory.
    fn wipe(&self, span: Range<u64>) {
        for granule in touched(span.start, span.end - span.start) {
            if self.are_mapped(granule..granule + 1) {
                let (start, end) = (span.start.max(granule * GRANULE), span.end.min((granule + 1) * GRANULE));
                self.region.zero(start, end - start, false);
            }
        }
    }

    /// Bytes that are mapped, of the first `bytes`.
    pub(super) fn used(&self, bytes: u64) -> u64 {
        let words = self.mapped.iter().take(bytes.div_ceil(GRANULE).div_ceil(64) as usize);
        let granules: u64 = words.map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum();
        (granules * GRANULE).min(bytes)
    }

    pub(super) fn status(&self, span: Range<u64>, limit: u32) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut offset = span.start;
        let first = span.start / GRANULE;
        let last = touched(span.start, span.end - span.start).end.min(first + STATUS_WORDS * 64);
        let end = span.end.min(last * GRANULE);
        while offset < end && extents.len() < limit as usize {
            let granule = offset / GRANULE;
            let word = self.mapped[(granule / 64) as usize].load(Ordering::Relaxed);
            let mapped = word >> (granule % 64) & 1 == 1;
            let next = (self.run(granule, last, mapped).max(granule + 1) * GRANULE).min(end);
            extents.push(Extent { offset, length: next - offset, mapped });
            offset = next;
        }
        extents
    }
}

/// A full memory barrier on every core that runs this process; where the kernel has no such call, on this one alone.
fn everywhere() {
    if membarrier(MembarrierCommand::PrivateExpedited).is_err() {
        fence(Ordering::SeqCst);
    }
}

/// The granules that a range touches.
fn touched(offset: u64, length: u64) -> Range<u64> {
    offset / GRANULE..(offset + length).div_ceil(GRANULE)
}

/// The words that have the bits of a range of granules, and which of their bits these are.
#[inline]
fn words(granules: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let mut granule = granules.start;
    std::iter::from_fn(move || {
        if granule >= granules.end {
            return None;
        }
        let (bit, word) = (granule % 64, (granule / 64) as usize);
        let count = (64 - bit).min(granules.end - granule);
        granule += count;
        Some((word, (u64::MAX >> (64 - count)) << bit))
    })
}
