//! How long to look for work before going to sleep.
//!
//! Waking a sleeping thread costs several times what a small command does, above all on virtual machines. So a core
//! that had work a moment ago looks on for a while. How long, it learns: a gap in the work that was shorter than the
//! bound makes the next look longer, a longer one ends it. A core without work pays for one look, and then sleeps.
//!
//! A gap that ended with a sleep is measured with the time that waking took, which may be as long as the bound: what came within
//! it looks as if it had come behind it. So of gaps that are longer, but not by far, some are looked through all the same; if
//! that finds something, it goes on.

use std::time::Duration;

/// First look after a gap that would have been worth it.
const FIRST: Duration = Duration::from_micros(10);
/// Shorter gaps may have been within the bound but for the time that waking took: half of this, on a virtual machine of
/// which all processors sleep.
const DOUBTFUL: Duration = Duration::from_millis(1);
/// After so many of them in sleep the next is looked through.
const BETWEEN_TRIALS: u8 = 16;

/// Learns how long a core looks for work before it sleeps: never longer than its bound.
pub(crate) struct Spinner {
    bound: Duration,
    window: Duration,
    /// Doubtful gaps that were slept through since the last trial.
    doubts: u8,
}

impl Spinner {
    /// With a bound of zero it never spins.
    pub(crate) fn new(bound: Duration) -> Spinner {
        Spinner { bound, window: Duration::ZERO, doubts: 0 }
    }

    /// How long to look this time.
    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    /// Work came after a gap: while looking, or after a sleep.
    pub(crate) fn worked(&mut self, gap: Duration) {
        if gap <= self.bound {
            if gap >= self.window {
                self.window = (self.window * 2).max(FIRST).min(self.bound);
            }
            return;
        }
        let doubtful = self.window.is_zero() && gap < DOUBTFUL.max(self.bound * 2);
        self.window = Duration::ZERO;
        if doubtful {
            self.doubts += 1;
            if self.doubts == BETWEEN_TRIALS {
                (self.doubts, self.window) = (0, self.bound);
            }
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
        for gap in (0..100).chain([100; 100]) {
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

    /// What a core does with such gaps: looks in microseconds, of which it found something in so many.
    fn lives(spinner: &mut Spinner, gaps: impl IntoIterator<Item = u64>) -> (u64, u32) {
        const WAKING: u64 = 40;
        let (mut looked, mut found) = (0, 0);
        for gap in gaps {
            let window = spinner.window().as_micros() as u64;
            looked += gap.min(window);
            found += u32::from(gap <= window);
            spinner.worked(us(if gap <= window { gap } else { gap + WAKING }));
        }
        (looked, found)
    }

    #[test]
    fn waking_late_does_not_hide_that_a_look_would_have_found_something() {
        // 30 us, and 40 more to wake up: longer than the bound.
        let mut spinner = Spinner::new(us(50));
        let (_, found) = lives(&mut spinner, [30; 100]);
        assert_eq!(found, 100 - u32::from(BETWEEN_TRIALS));
        // A hiccup of the peer ends it for a moment.
        let (_, found) = lives(&mut spinner, [&[5000_u64] as &[u64], &[30; 100]].concat());
        assert_eq!(found, 100 - u32::from(BETWEEN_TRIALS));
        // As long as the bound may be.
        let mut spinner = Spinner::new(us(1000));
        let (_, found) = lives(&mut spinner, [980; 100]);
        assert_eq!(found, 100 - u32::from(BETWEEN_TRIALS));
    }

    #[test]
    fn where_most_looks_are_in_vain_a_core_looks_for_little_of_its_time() {
        for gaps in [[60, 60, 60], [140, 140, 140], [20, 120, 120], [900, 900, 900]] {
            let mut spinner = Spinner::new(us(50));
            let gaps = gaps.repeat(1000);
            let all: u64 = gaps.iter().sum();
            let (looked, _) = lives(&mut spinner, gaps);
            assert!(looked * 10 < all, "{looked} of {all} us");
        }
    }
}
