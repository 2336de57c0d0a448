//! A disk in memory: a region that all cores share.
//!
//! Every request completes at once, but for the first write to a huge page, which gets its memory by a helper thread.

mod queue;
mod shared;
mod there;

use crate::Capacity;
use crate::settings::OpenError;
use backstore_api::Geometry;
use memory::Region;
use queue::RamQueue;
use rustix::thread::{MembarrierCommand, membarrier};
use shared::{GRANULE, Shared};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often its size a volume may grow to while it is in use, and bytes that every one may grow to: addresses are kept
/// for that, which take no memory.
const ROOM: u64 = 16;
const LEAST_ROOM: u64 = 64 << 30;
/// How long readers are waited for before blocks that were cut off are zeroed, and how often is looked. Each core asks for what it
/// has lent after a second, and takes it back two seconds later.
const READERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

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
        } else {
            // Has the kernel make the huge page of zeroes that all reads of what was never written find: once per process.
            region.read(0, &mut [0; 1]);
        }
        let shared = Arc::new(Shared::new(region, preallocate, Capacity::new(bytes))?);
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
        if bytes > old {
            self.shared.opened(old);
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

    /// `token_base`: see [`Store::queue`](crate::Store::queue). So many writes at most wait for memory.
    pub(crate) fn queue(&self, token_base: u64, depth: u32) -> RamQueue {
        RamQueue::new(Arc::clone(&self.shared), self.geometry.clone(), token_base, depth)
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
