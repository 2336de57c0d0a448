//! How long to look for work before going to sleep.
//!
//! Waking a sleeping thread costs several times what a small command does, above all on virtual machines. So a core
//! that had work a moment ago looks on for a while. How long, it learns: a gap in the work that was shorter than the
//! bound makes the next look longer, a longer one ends it. A core without work pays for one look, and then sleeps.

use std::time::Duration;

/// First look after a gap that would have been worth it.
const FIRST: Duration = Duration::from_micros(10);

/// Learns how long a core looks for work before it sleeps: never longer than its bound.
pub(crate) struct Spinner {
    bound: Duration,
    window: Duration,
}

impl Spinner {
    /// With a bound of zero it never spins.
    pub(crate) fn new(bound: Duration) -> Spinner {
        Spinner { bound, window: Duration::ZERO }
    }

    /// How long to look this time.
    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    /// Work came after a gap: while looking, or after a sleep.
    pub(crate) fn worked(&mut self, gap: Duration) {
        if gap > self.bound {
            self.window = Duration::ZERO;
        } else if gap >= self.window {
            self.window = (self.window * 2).max(FIRST).min(self.bound);
        }
    }

    /// A sleep ended with nothing to do.
    pub(crate) fn idled(&mut self) {
        self.window = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn short_gaps_make_it_look_and_one_long_gap_ends_it() {
        let mut spinner = Spinner::new(us(50));
        assert_eq!(spinner.window(), us(0));
        for (gap, window) in [(30, 10), (30, 20), (30, 40), (30, 40), (45, 50), (49, 50), (51, 0), (9, 10)] {
            spinner.worked(us(gap));
            assert_eq!(spinner.window(), us(window), "after a gap of {gap} us");
        }
        spinner.idled();
        assert_eq!(spinner.window(), us(0));
    }

    #[test]
    fn a_bound_of_zero_never_looks() {
        let mut spinner = Spinner::new(us(0));
        for gap in [0, 1, 10] {
            spinner.worked(us(gap));
            assert_eq!(spinner.window(), us(0));
        }
    }

    #[test]
    fn sparse_work_costs_no_looking() {
        // One command in a millisecond, for ever.
        let mut spinner = Spinner::new(us(50));
        for _ in 0..100 {
            spinner.worked(us(1000));
            assert_eq!(spinner.window(), us(0));
        }
    }
}
