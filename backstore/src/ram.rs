//! A disk in memory: a region that all cores share. Every request completes at once.

use crate::errno::EINVAL;
use crate::settings::OpenError;
use crate::{Capacity, in_range};
use backstore_api::{Answer, BlockQueue, Completion, Extent, Geometry, Request, Space, StoreError, Submitted};
use memory::{Buffer, Region, zeroed_words};
use rustix::thread::{MembarrierCommand, membarrier};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

/// Bytes that are mapped or not as one.
const GRANULE: u64 = 4096;
/// How often its size a volume may grow to while it is in use, and bytes that every one may grow to: addresses are kept
/// for that, which take no memory.
const ROOM: u64 = 16;
const LEAST_ROOM: u64 = 64 << 30;
/// How long readers are waited for before blocks that were cut off are zeroed, and how often is looked. Each core asks for what it
/// has lent after a second, and takes it back two seconds later.
const READERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// Words of the bitmap that one Status looks at: 16 GiB of the volume.
const STATUS_WORDS: u64 = 1 << 16;

/// The memory, and which granules of it were written.
///
/// A write copies and then marks what isn't marked; a discard unmarks and then clears. Between its two steps a discard
/// makes all cores finish what they have under way ([`everywhere`]), so that writes need no fence of their own: either
/// the clearing comes after the copy, or the write has seen that it must mark again. However the two meet, a granule
/// that says "unmapped" holds zeroes.
struct Shared {
    region: Arc<Region>,
    mapped: Box<[AtomicU64]>,
    /// Memory is never given back.
    keeps: bool,
    capacity: Capacity,
}

/// Control half of a RAM disk.
pub(crate) struct Ram {
    shared: Arc<Shared>,
    geometry: Geometry,
}

impl Ram {
    /// Maps `bytes` of zeroes; memory is used as it is written, or with `preallocate` all of it at once and for good.
    pub(crate) fn new(bytes: u64, preallocate: bool) -> io::Result<Ram> {
        // Refused only where there is no such call at all: see `everywhere`.
        if let Err(error) = membarrier(MembarrierCommand::RegisterPrivateExpedited) {
            tracing::warn!(%error, "membarrier(2) is refused: a block that is written while another initiator unmaps it may be called unmapped");
        }
        let region = Region::with_room(bytes, bytes.saturating_mul(ROOM).max(LEAST_ROOM))?;
        if preallocate {
            region.populate()?;
        }
        let words = region.room().div_ceil(GRANULE).div_ceil(64);
        let mapped = zeroed_words(usize::try_from(words).map_err(|_| io::ErrorKind::OutOfMemory)?);
        let shared = Arc::new(Shared { region, mapped, keeps: preallocate, capacity: Capacity::new(bytes) });
        let geometry = Geometry {
            // Memory has no larger unit of writing; what is given back has.
            physical_block: 512,
            discard_granularity: if preallocate { 0 } else { GRANULE as u32 },
            discard_zeroes: !preallocate,
            persistent: false,
            cached: true,
            atomic_write: u32::MAX,
            ..Geometry::new(bytes)
        };
        Ok(Ram { shared, geometry })
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn capacity(&self) -> &Capacity {
        &self.shared.capacity
    }

    /// Whether it can have another size; it gets the memory. What it had behind a smaller one is gone: it reads as zeroes
    /// if it comes back. That waits for readers who are sent it from where it lies. Blocks.
    pub(crate) fn measure(&self, bytes: u64) -> Result<(), OpenError> {
        let end = Instant::now() + READERS;
        self.measure_with(bytes, || {
            std::thread::sleep(PAUSE);
            Instant::now() < end
        })
    }

    /// `pause` is called as long as readers are waited for, and says whether to wait on.
    fn measure_with(&self, bytes: u64, mut pause: impl FnMut() -> bool) -> Result<(), OpenError> {
        let (now, room) = (self.shared.capacity.bytes(), self.shared.region.room());
        if bytes > room {
            let cause = format!("its memory can't grow beyond {room} bytes while it is in use");
            return Err(OpenError::new("ram store", cause, "give the new `size` to the next start"));
        }
        let refused = |error| {
            let doing = format!("get {bytes} bytes of memory");
            OpenError::system("ram store", &doing, error, "choose a smaller `size`")
        };
        let old = self.shared.region.len();
        self.shared.region.grow(bytes).map_err(refused)?;
        if self.shared.keeps && bytes > old {
            self.shared.region.populate().map_err(refused)?;
        }
        let cut = bytes.min(old).saturating_sub(now);
        if cut == 0 {
            return Ok(());
        }
        let region = &self.shared.region;
        // They were sent blocks with digests before those were cut off. Nothing more is lent once this has asked.
        while !region.may_write() {
            if !pause() {
                let cause = "what it had there before is still on its way to readers";
                return Err(OpenError::new("ram store", cause, "reload again"));
            }
        }
        self.shared.zero(now, cut, true);
        region.let_go();
        Ok(())
    }

    pub(crate) fn queue(&self) -> RamQueue {
        let capacity = self.shared.capacity.clone();
        RamQueue { shared: Arc::clone(&self.shared), capacity, geometry: self.geometry.clone() }
    }
}

impl Shared {
    /// Sets or clears the marks of a range of granules. Words that are right already aren't written, so that cores
    /// don't take the cache line from each other.
    fn mark(&self, granules: Range<u64>, mapped: bool) {
        let mut granule = granules.start;
        while granule < granules.end {
            let (bit, word) = (granule % 64, (granule / 64) as usize);
            let count = (64 - bit).min(granules.end - granule);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let now = self.mapped[word].load(Ordering::Relaxed);
            if mapped && now & mask != mask {
                self.mapped[word].fetch_or(mask, Ordering::AcqRel);
            } else if !mapped && now & mask != 0 {
                self.mapped[word].fetch_and(!mask, Ordering::AcqRel);
            }
            granule += count;
        }
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

    fn write(&self, offset: u64, from: &[u8]) {
        self.region.write(offset, from);
        self.mark(touched(offset, from.len() as u64), true);
    }

    fn discard(&self, offset: u64, length: u64) {
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
        everywhere();
        self.region.zero(granules.start * GRANULE, length, !self.keeps);
    }

    fn zero(&self, offset: u64, length: u64, unmap: bool) {
        if !unmap {
            self.region.zero(offset, length, false);
            self.mark(touched(offset, length), true);
            return;
        }
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(GRANULE), end / GRANULE * GRANULE);
        if first < last {
            self.region.zero(offset, first - offset, false);
            self.clear(first / GRANULE..last / GRANULE);
            self.region.zero(last, end - last, false);
        } else {
            self.region.zero(offset, length, false);
        }
    }

    fn status(&self, span: Range<u64>, limit: u32) -> Vec<Extent> {
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

/// Data half of a RAM disk.
pub(crate) struct RamQueue {
    shared: Arc<Shared>,
    capacity: Capacity,
    geometry: Geometry,
}

impl RamQueue {
    fn run(&self, request: Request) -> (Result<Answer, StoreError>, Option<Buffer>) {
        if let Err(error) = in_range(&request, &self.capacity) {
            return (Err(error), request.into_buffer());
        }
        let shared = &*self.shared;
        match request {
            Request::Read { offset, mut buffer, range } => {
                shared.region.read(offset, &mut buffer[range.start as usize..range.end as usize]);
                (Ok(Answer::Data(range)), Some(buffer))
            }
            Request::Write { offset, buffer, range, .. } => {
                shared.write(offset, &buffer[range.start as usize..range.end as usize]);
                (Ok(Answer::Done), Some(buffer))
            }
            // Out of range already.
            Request::ReadTuples { buffer, .. } | Request::WriteTuples { buffer, .. } => (Err(EINVAL), Some(buffer)),
            Request::Flush | Request::Prefetch { .. } => (Ok(Answer::Done), None),
            Request::Space => {
                let words = self.capacity.bytes().div_ceil(GRANULE).div_ceil(64) as usize;
                let words = shared.mapped.iter().take(words);
                let mapped = words.map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()));
                let used = (mapped.sum::<u64>() * GRANULE).min(self.capacity.bytes());
                let available = self.capacity.bytes().saturating_sub(used);
                (Ok(Answer::Space(Space { used: Some(used), available: Some(available) })), None)
            }
            Request::Discard { offset, length } => {
                shared.discard(offset, length);
                (Ok(Answer::Done), None)
            }
            Request::Zero { offset, length, unmap, .. } => {
                shared.zero(offset, length, unmap);
                (Ok(Answer::Done), None)
            }
            Request::Fill { offset, length, buffer, pattern, .. } => {
                let (mut at, end) = (offset, offset + length);
                while at < end {
                    let part = u64::from(pattern).min(end - at);
                    shared.write(at, &buffer[..part as usize]);
                    at += part;
                }
                (Ok(Answer::Done), Some(buffer))
            }
            // Nothing is offered to copy from.
            Request::Copy { .. } => (Err(EINVAL), None),
            Request::Status { offset, length, limit } => {
                (Ok(Answer::Extents(shared.status(offset..offset + length, limit))), None)
            }
        }
    }
}

impl<R, C> BlockQueue<R, C> for RamQueue {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn submit(&mut self, _reactor: &mut R, tag: u64, request: Request) -> Submitted {
        let (result, buffer) = self.run(request);
        Submitted::Done(Completion { tag, result, buffer })
    }

    fn complete(&mut self, _reactor: &mut R, _completion: C) -> Option<Completion> {
        None
    }

    fn in_flight(&self) -> u32 {
        0
    }

    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        if let Err(error) = self.capacity.holds(offset, into.len() as u64) {
            return Some(Err(error));
        }
        self.shared.region.read(offset, into);
        Some(Ok(()))
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), StoreError>> {
        if let Err(error) = self.capacity.holds(offset, from.len() as u64) {
            return Some(Err(error));
        }
        if !self.shared.region.may_write() {
            return None;
        }
        self.shared.region.stream(offset, from);
        self.shared.mark(touched(offset, from.len() as u64), true);
        Some(Ok(()))
    }

    fn writes_now(&self) -> bool {
        true
    }

    fn region(&self, offset: u64, length: u32) -> Option<(&Arc<Region>, u64)> {
        self.capacity.holds(offset, u64::from(length)).ok().map(|()| (&self.shared.region, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_is_zeroed_when_nothing_is_lent_any_more() {
        let ram = Ram::new(1 << 20, false).unwrap();
        let region = ram.shared.region.clone();
        let at = |offset: u64| {
            let mut byte = [0];
            region.read(offset, &mut byte);
            byte[0]
        };
        let lend = || {
            ram.shared.write(0, &[7; 1 << 20]);
            region.hold().unwrap().lend()
        };
        let mut loan = Some(std::thread::scope(|scope| scope.spawn(lend).join().unwrap()));
        ram.capacity().set(64 << 10);
        assert!(ram.measure_with(1 << 20, || false).is_err(), "its readers don't say that they have it");
        assert_eq!(at(64 << 10), 7);
        // Other sizes are nobody's affair.
        ram.measure_with(32 << 10, || unreachable!()).unwrap();
        ram.measure_with(64 << 10, || unreachable!()).unwrap();
        let mut pauses = 0;
        let pause = || {
            assert_eq!((at(64 << 10), at((1 << 20) - 1)), (7, 7));
            pauses += 1;
            if pauses == 3 {
                loan = None;
            }
            true
        };
        ram.measure_with(1 << 20, pause).unwrap();
        assert_eq!((pauses, at((64 << 10) - 1), at(64 << 10), at((1 << 20) - 1)), (3, 7, 0, 0));
    }

    #[test]
    fn whoever_zeroes_does_not_stay_the_one_that_writes() {
        let ram = Ram::new(1 << 20, false).unwrap();
        ram.capacity().set(64 << 10);
        ram.measure(1 << 20).unwrap();
        let region = &ram.shared.region;
        assert!(std::thread::scope(|scope| scope.spawn(|| region.may_hold()).join().unwrap()));
    }
}
