//! The line per second.

use crate::measure::{Counter, Counters};
use std::time::Instant;

/// Puts the threads' intervals together.
pub struct Progress {
    quiet: bool,
    threads: usize,
    heard: usize,
    interval: Counters,
    since: Instant,
    seconds: u64,
    /// Threads that have moved their amount.
    pub finished: usize,
}

impl Progress {
    /// Nothing was heard yet.
    pub fn new(quiet: bool, threads: usize) -> Progress {
        Progress {
            quiet,
            threads,
            heard: 0,
            interval: Counters::default(),
            since: Instant::now(),
            seconds: 0,
            finished: 0,
        }
    }

    /// The measuring begins.
    pub fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// All threads have moved their amount.
    pub fn all_finished(&self) -> bool {
        self.finished >= self.threads
    }

    /// Each thread tells once per interval: a line when all have.
    pub fn add(&mut self, counters: &Counters) {
        if self.quiet {
            return;
        }
        self.interval.add(counters);
        self.heard += 1;
        if self.heard < self.threads {
            return;
        }
        self.heard = 0;
        self.seconds += 1;
        let Counter { operations, bytes, latency } = std::mem::take(&mut self.interval).total();
        let passed = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        eprintln!(
            "{:>4} s  {:>10.0} IOPS  {:>8.1} MB/s  p50 {:.1} us  p99 {:.1} us",
            self.seconds,
            operations as f64 / passed,
            bytes as f64 / passed / 1e6,
            us(0.5),
            us(0.99)
        );
    }
}
