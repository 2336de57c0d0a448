//! What is counted: operations, bytes, latencies.

use hdrhistogram::Histogram;

/// Longest latency that is told from longer ones: 100 s.
const LONGEST_NS: u64 = 100_000_000_000;

/// One direction.
#[derive(Clone)]
pub struct Counter {
    /// Operations that ended well.
    pub operations: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their latencies in nanoseconds, to three digits.
    pub latency: Histogram<u32>,
}

impl Default for Counter {
    fn default() -> Counter {
        let latency = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds that are right");
        Counter { operations: 0, bytes: 0, latency }
    }
}

impl Counter {
    /// Counts an operation.
    #[inline]
    pub fn record(&mut self, bytes: u32, latency_ns: u64) {
        self.operations += 1;
        self.bytes += u64::from(bytes);
        self.latency.saturating_record(latency_ns);
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Counter) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).expect("the same bounds");
    }
}

/// Both directions.
#[derive(Clone, Default)]
pub struct Counters {
    /// Reads.
    pub read: Counter,
    /// Writes.
    pub write: Counter,
}

impl Counters {
    /// Adds another's.
    pub fn add(&mut self, other: &Counters) {
        self.read.add(&other.read);
        self.write.add(&other.write);
    }

    /// Both together.
    pub fn total(&self) -> Counter {
        let mut total = self.read.clone();
        total.add(&self.write);
        total
    }
}
