//! Which way short pieces of regions take to a socket: by the page, or copied.
//!
//! Large pieces are always cheaper by the page. Of 4 KiB, a reference to a page costs about what its copy does: more on one
//! machine, less on another or under another load. So the ring weighs it: from time to time it sends a few MiB in turn in the one way
//! and in the other, and stays with the one that kept the core busy for less time.

use std::time::Duration;

/// Shorter pieces, in the mean, are weighed.
pub(super) const SHORT: u64 = 16 << 10;
/// Bytes that go in one way before it is the other's turn.
const BLOCK: u64 = 2 << 20;
/// Of these the first are not counted: caches are as the other way has left them.
const SETTLING: u64 = 512 << 10;
/// Blocks of each way in a trial. Their medians count: now and then somebody else has the processor.
const BLOCKS: usize = 16;
/// Bytes before the first trial, and between two.
const FIRST: u64 = 16 << 20;
const REST: u64 = 4 << 30;
/// The other way has to be better by one part in so many.
const GAIN: u64 = 32;

/// Costs of the blocks of a trial, in nanoseconds a MiB: of the way that is in use, and of the other.
#[derive(Default)]
struct Trial {
    costs: [[u64; BLOCKS]; 2],
    /// Blocks that are over.
    blocks: usize,
    /// Bytes of this block, those that count, and their time.
    bytes: u64,
    counted: u64,
    time: Duration,
}

impl Trial {
    /// It is the other way's turn.
    fn is_of_other(&self) -> bool {
        self.blocks % 2 == 1
    }

    /// Counts a turn; true when the last block is over.
    fn turned(&mut self, bytes: u64, time: Duration) -> bool {
        if self.bytes >= SETTLING {
            self.counted += bytes;
            self.time += time;
        }
        self.bytes += bytes;
        if self.bytes < BLOCK || self.counted == 0 {
            return false;
        }
        let nanos = u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX);
        let cost = nanos.saturating_mul(1 << 10) / (self.counted >> 10).max(1);
        self.costs[usize::from(self.is_of_other())][self.blocks / 2] = cost;
        self.blocks += 1;
        (self.bytes, self.counted, self.time) = (0, 0, Duration::ZERO);
        self.blocks == 2 * BLOCKS
    }

    /// The other way is cheaper.
    fn speaks_for_other(&mut self) -> bool {
        let [used, other] = self.costs.each_mut().map(|costs| {
            costs.sort_unstable();
            costs[BLOCKS / 2]
        });
        other < used - used / GAIN
    }
}

/// Learns whether short pieces are spliced.
pub(super) struct Weigher {
    splices: bool,
    trial: Option<Trial>,
    /// Bytes until the next trial.
    left: u64,
    /// Bytes that could go either way, since the last turn.
    bytes: u64,
}

impl Weigher {
    /// Pieces are spliced until something else is known.
    pub(super) fn new() -> Weigher {
        Weigher { splices: true, trial: None, left: FIRST, bytes: 0 }
    }

    /// Whether short pieces are spliced now.
    pub(super) fn splices(&self) -> bool {
        self.splices != self.trial.as_ref().is_some_and(Trial::is_of_other)
    }

    /// So many bytes are sent that could go either way: whether they are spliced.
    pub(super) fn weigh(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        self.splices()
    }

    /// A turn is over, in which the core was busy for so long; `None`: nobody knows, since it slept.
    pub(super) fn turned(&mut self, busy: Option<Duration>) {
        let bytes = std::mem::take(&mut self.bytes);
        let Some(busy) = busy.filter(|_| bytes > 0) else { return };
        let Some(trial) = &mut self.trial else {
            self.left = self.left.saturating_sub(bytes);
            if self.left == 0 {
                self.trial = Some(Trial::default());
            }
            return;
        };
        if trial.turned(bytes, busy) {
            if trial.speaks_for_other() {
                self.splices = !self.splices;
                tracing::debug!(
                    spliced = self.splices,
                    "short reads of RAM volumes are sent in the other way from now on"
                );
            }
            (self.trial, self.left) = (None, REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends so many bytes in turns of 256 KiB. `cost`: nanoseconds of a turn, by whether it splices, and its number. Gives
    /// how many bytes were spliced.
    fn send(weigher: &mut Weigher, bytes: u64, cost: impl Fn(bool, u64) -> u64) -> u64 {
        const TURN: u64 = 256 << 10;
        let mut spliced = 0;
        for turn in 0..bytes / TURN {
            let splices = weigher.weigh(TURN);
            spliced += if splices { TURN } else { 0 };
            weigher.turned(Some(Duration::from_nanos(cost(splices, turn))));
        }
        spliced
    }

    /// A trial, and what comes before it.
    const TRIAL: u64 = FIRST + 2 * BLOCKS as u64 * BLOCK;

    #[test]
    fn the_cheaper_way_is_taken_soon_and_for_nearly_all() {
        for copy in [70_000, 90_000, 110_000, 130_000] {
            let mut weigher = Weigher::new();
            let cost = |splices, _| if splices { 100_000 } else { copy };
            send(&mut weigher, TRIAL, cost);
            assert_eq!(weigher.splices(), copy > 100_000);
            let spliced = send(&mut weigher, 32 << 30, cost);
            let share = (spliced * 1000) >> 35;
            assert!(if copy > 100_000 { share >= 985 } else { share <= 15 }, "{share} of 1000 at {copy} ns");
        }
    }

    #[test]
    fn what_makes_no_difference_changes_nothing() {
        let mut weigher = Weigher::new();
        for copy in [98_000, 100_000, 102_000] {
            send(&mut weigher, 16 << 30, |splices, _| if splices { 100_000 } else { copy });
            assert!(weigher.splices, "{copy}");
        }
    }

    #[test]
    fn it_is_weighed_again_when_the_load_has_changed() {
        let mut weigher = Weigher::new();
        let cheap_copy = |splices, _| if splices { 100_000 } else { 80_000 };
        let cheap_splice = |splices, _| if splices { 80_000 } else { 100_000 };
        for (cost, splices) in [(cheap_copy as fn(bool, u64) -> u64, false), (cheap_splice, true), (cheap_copy, false)]
        {
            send(&mut weigher, REST + TRIAL, cost);
            assert_eq!(weigher.splices, splices);
        }
    }

    #[test]
    fn a_pause_of_the_host_does_not_count() {
        // Each hundredth turn takes a millisecond longer, whatever it does, and each third block is slowed down by half.
        let pause = |turn: u64| if turn.is_multiple_of(100) { 1_000_000 } else { 0 };
        let slow = |turn: u64| if (turn / 8).is_multiple_of(3) { 50_000 } else { 0 };
        let mut weigher = Weigher::new();
        send(&mut weigher, TRIAL, |splices, turn| pause(turn) + slow(turn) + if splices { 100_000 } else { 85_000 });
        assert!(!weigher.splices);
        let mut weigher = Weigher::new();
        send(&mut weigher, 64 << 30, |splices, turn| {
            pause(turn) + slow(turn) + if splices { 100_000 } else { 115_000 }
        });
        assert!(weigher.splices);
    }

    #[test]
    fn turns_without_such_pieces_and_with_a_sleep_say_nothing() {
        let mut weigher = Weigher::new();
        for _ in 0..100_000 {
            weigher.turned(Some(Duration::from_secs(1)));
            weigher.weigh(1 << 20);
            weigher.turned(None);
        }
        assert!(weigher.trial.is_none() && weigher.left == FIRST);
    }
}
