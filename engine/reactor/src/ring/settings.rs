//! Sizes of a ring, and what it counts.

use crate::FeatureMask;
use std::time::Duration;

/// Sizes and bounds of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSettings {
    /// Submissions that are published at once; more than that cost a further system call.
    pub entries: u32,
    /// Operations in flight.
    pub slots: u32,
    /// Descriptors registered at once.
    pub files: u32,
    /// Buffers of [`Class::Medium`](memory::Class::Medium) that wait for received data, at most 32768. They come from the pool.
    pub receive_buffers: u16,
    /// Threads for [`Reactor::offload`](crate::Reactor::offload); they start with the first job.
    pub helper_threads: u32,
    /// Kernel workers for file I/O that can't go inline; 0: the kernel's default.
    pub iowq_bounded: u32,
    /// Kernel workers for other work that can't go inline; 0: the kernel's default.
    pub iowq_unbounded: u32,
    /// Processors of helper threads and kernel workers; empty: where the core itself runs.
    pub worker_cpus: Vec<u32>,
    /// The longest time that it looks for work before it sleeps; zero: never.
    pub spin: Duration,
    /// The longest time that the kernel polls the network cards of the ring's sockets before it lets the core sleep; zero:
    /// never. Whole microseconds count.
    pub busy_poll: Duration,
    /// Messages with a piece of at least so many bytes are sent without a copy; 0: none.
    pub zero_copy: u32,
    /// Messages whose pieces of regions have at least so many bytes are spliced: the pages go to the socket themselves; 0:
    /// none.
    pub splice: u32,
    /// Kernel features not to use.
    pub features: FeatureMask,
}

impl Default for RingSettings {
    fn default() -> RingSettings {
        RingSettings {
            entries: 256,
            slots: 4096,
            files: 1024,
            receive_buffers: 64,
            helper_threads: 2,
            iowq_bounded: 16,
            iowq_unbounded: 16,
            worker_cpus: Vec::new(),
            spin: Duration::ZERO,
            busy_poll: Duration::ZERO,
            zero_copy: 0,
            splice: 0,
            features: FeatureMask::NONE,
        }
    }
}

impl RingSettings {
    /// Room for completions: each slot may have one of its own and one of its cancellation.
    pub(crate) fn completions(&self) -> u32 {
        self.slots.saturating_mul(2).saturating_add(64).max(self.entries.saturating_mul(2)).min(65536)
    }
}

/// What a ring counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Completions whose operation was gone already: should stay 0.
    pub stale: u64,
    /// Times that the completion queue was found full.
    pub overflows: u64,
    /// System calls into the ring.
    pub enters: u64,
    /// Those of them that slept.
    pub sleeps: u64,
    /// Times that it looked for work before a sleep.
    pub spins: u64,
    /// Receives that found no provided buffer.
    pub starved: u64,
    /// Bytes of regions, and what stood between them, that were spliced.
    pub spliced: u64,
    /// Sends without a copy whose memory the kernel has let go of.
    pub zero_copy: u64,
    /// Those of them that it has copied after all.
    pub zero_copy_copied: u64,
    /// Sends that it refused to make without a copy, and that were made with one.
    pub zero_copy_refused: u64,
}
