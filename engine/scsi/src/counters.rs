//! What a unit has done, for its log pages. Each nexus counts on a cache line of its own, which it alone writes to: a
//! READ or WRITE pays two additions.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Count {
    /// READ commands, and the logical blocks that they asked for.
    Reads,
    ReadBlocks,
    /// WRITE commands, and theirs.
    Writes,
    WrittenBlocks,
    /// WRITE commands that may end in the write cache.
    CachedWrites,
    /// SYNCHRONIZE CACHE.
    Flushes,
}

const KINDS: usize = 6;

/// Numbers by [`Count`].
pub(crate) type Totals = [u64; KINDS];

/// The counts of one nexus.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counters([AtomicU64; KINDS]);

impl Counters {
    /// Only the nexus that owns them calls it, so that no atomic addition is needed.
    #[inline]
    pub fn add(&self, count: Count, number: u64) {
        let cell = &self.0[count as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
    }

    fn totals(&self) -> Totals {
        array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }
}

/// The counts of all nexuses of a unit.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    live: Vec<Arc<Counters>>,
    /// Of nexuses that are gone.
    ended: Totals,
    /// Where counting began again.
    base: Totals,
}

impl Ledger {
    /// Counters for a new nexus.
    pub fn open(&mut self) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        self.live.push(counters.clone());
        counters
    }

    /// A nexus ends.
    pub fn close(&mut self, counters: &Arc<Counters>) {
        if let Some(place) = self.live.iter().position(|live| Arc::ptr_eq(live, counters)) {
            let totals = self.live.swap_remove(place).totals();
            add(&mut self.ended, &totals);
        }
    }

    fn ever(&self) -> Totals {
        let mut sum = self.ended;
        for counters in &self.live {
            add(&mut sum, &counters.totals());
        }
        sum
    }

    /// Since the last reset.
    pub fn totals(&self) -> Totals {
        let ever = self.ever();
        array::from_fn(|at| ever[at].wrapping_sub(self.base[at]))
    }

    /// These count from zero again.
    pub fn reset(&mut self, counts: &[Count]) {
        let ever = self.ever();
        for count in counts {
            self.base[*count as usize] = ever[*count as usize];
        }
    }
}

fn add(sum: &mut Totals, totals: &Totals) {
    for (sum, number) in sum.iter_mut().zip(totals) {
        *sum = sum.wrapping_add(*number);
    }
}
