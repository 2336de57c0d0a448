//! Which way short pieces of regions take to a socket: by the page, or copied.
//!
//! Large pieces are always cheaper by the page. Of 4 KiB, a reference to a page costs about what its copy does: more on one
//! machine, less on another or under another load. So the ring weighs it: from time to time it sends a few MiB in turn in the one way
//! and in the other, and stays with the one that took the core less processor time.

use super::sending::Pages;
use std::time::Duration;

/// Shorter pieces are weighed.
const SHORT: u64 = 16 << 10;
/// Bytes that go in one way before it is the other's turn: so many, or for each socket so many. It has to be more than what is on its
/// way to all peers at a time, which the caches have to hold: with a thousand sessions copying is dear for all only if all is copied.
const BLOCK: u64 = 2 << 20;
const OF_SOCKET: u64 = 256 << 10;
/// Of these one part in so many is not counted: caches are as the other way has left them.
const SETTLING: u64 = 4;
/// Blocks of each way in a trial, and of large ones. Their medians count: now and then somebody else has the processor.
const BLOCKS: usize = 16;
const LARGE_BLOCKS: usize = 5;
/// Bytes before the first trial, and between two, in blocks.
const FIRST: u64 = 8;
const REST: u64 = 1024;
/// The other way has to be better by one part in so many.
const GAIN: u64 = 32;

/// Costs of the blocks of a trial, in nanoseconds a MiB: of the way that is in use, and of the other.
#[derive(Default)]
struct Trial {
    costs: [[u64; BLOCKS]; 2],
    /// Bytes of a block.
    block: u64,
    /// Blocks that are over.
    blocks: usize,
    /// Bytes of this block, those that count, and their time.
    bytes: u64,
    counted: u64,
    time: Duration,
    /// Processor time of the core when the last turn was over.
    last: Option<Duration>,
}

impl Trial {
    /// Blocks of each way.
    fn each(&self) -> usize {
        if self.block > BLOCK { LARGE_BLOCKS } else { BLOCKS }
    }

    /// It is the other way's turn.
    fn is_of_other(&self) -> bool {
        self.blocks % 2 == 1
    }

    /// Counts a turn that ended at a processor time, of which the core has looked for work for a while; true when the last block is over.
    fn turned(&mut self, bytes: u64, now: Duration, looked: Duration) -> bool {
        let Some(last) = self.last.replace(now) else { return false };
        if bytes == 0 {
            return false;
        }
        if self.bytes >= self.block / SETTLING {
            self.counted += bytes;
            self.time += now.saturating_sub(last).saturating_sub(looked);
        }
        self.bytes += bytes;
        if self.bytes < self.block || self.counted == 0 {
            return false;
        }
        let nanos = u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX);
        let cost = nanos.saturating_mul(1 << 10) / (self.counted >> 10).max(1);
        self.costs[usize::from(self.is_of_other())][self.blocks / 2] = cost;
        self.blocks += 1;
        (self.bytes, self.counted, self.time) = (0, 0, Duration::ZERO);
        self.blocks == 2 * self.each()
    }

    /// The other way is cheaper.
    fn speaks_for_other(&mut self) -> bool {
        let each = self.each();
        let [used, other] = self.costs.each_mut().map(|costs| {
            let costs = &mut costs[..each];
            costs.sort_unstable();
            costs[each / 2]
        });
        tracing::trace!(used, other, "ways of short reads weighed, in ns a MiB");
        other < used - used / GAIN
    }
}

/// By the mean: all pieces of a message go in one way. Who asks before there is a message knows of one piece, and takes the others to
/// be like it.
fn are_short(pages: &Pages) -> bool {
    pages.bytes < SHORT * pages.pieces
}

/// Learns whether short pieces are spliced.
pub(super) struct Weigher {
    splices: bool,
    trial: Option<Trial>,
    /// Blocks before the next trial.
    rest: u64,
    /// Bytes since the last one.
    since: u64,
    /// Bytes that could go either way, since the last turn.
    bytes: u64,
}

impl Weigher {
    /// Pieces are spliced until something else is known.
    pub(super) fn new() -> Weigher {
        Weigher { splices: true, trial: None, rest: FIRST, since: 0, bytes: 0 }
    }

    /// Whether pieces are spliced now.
    pub(super) fn splices(&self, pages: &Pages) -> bool {
        !are_short(pages) || self.splices_short()
    }

    /// Whether short ones are.
    fn splices_short(&self) -> bool {
        self.splices != self.trial.as_ref().is_some_and(Trial::is_of_other)
    }

    /// Processor time is measured.
    pub(super) fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// Pieces are sent: whether they are spliced. Those that could go either way count.
    pub(super) fn weigh(&mut self, pages: &Pages) -> bool {
        if are_short(pages) {
            self.bytes += pages.bytes;
        }
        self.splices(pages)
    }

    /// A turn is over, in which the core has looked for work for a while. `processor_time`: of its thread.
    pub(super) fn turned(&mut self, looked: Duration, sockets: u32, processor_time: impl FnOnce() -> Duration) {
        let bytes = std::mem::take(&mut self.bytes);
        let Some(trial) = &mut self.trial else {
            self.since += bytes;
            let block = BLOCK.max(u64::from(sockets) * OF_SOCKET);
            if self.since >= self.rest * block {
                self.trial = Some(Trial { block, ..Trial::default() });
            }
            return;
        };
        if trial.turned(bytes, processor_time(), looked) {
            if trial.speaks_for_other() {
                self.splices = !self.splices;
                tracing::debug!(
                    spliced = self.splices,
                    "short reads of RAM volumes are sent in the other way from now on"
                );
            }
            (self.trial, self.rest, self.since) = (None, REST, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of 4 KiB.
    fn short(bytes: u64) -> Pages {
        Pages { bytes, pieces: bytes >> 12 }
    }

    /// Sends so many bytes in turns of 256 KiB. `cost`: nanoseconds of a turn, by whether it splices, and its number. Gives
    /// how many bytes were spliced.
    fn send(weigher: &mut Weigher, bytes: u64, cost: impl Fn(bool, u64) -> u64) -> u64 {
        const TURN: u64 = 256 << 10;
        let (mut spliced, mut time) = (0, Duration::ZERO);
        let looked = Duration::from_micros(30);
        for turn in 0..bytes / TURN {
            let splices = weigher.weigh(&short(TURN));
            spliced += if splices { TURN } else { 0 };
            time += looked + Duration::from_nanos(cost(splices, turn));
            weigher.turned(looked, 8, || time);
            // What nothing was sent in says nothing.
            time += Duration::from_millis(turn % 3);
            weigher.turned(Duration::ZERO, 8, || time);
        }
        spliced
    }

    /// A trial, and what comes before it.
    const TRIAL: u64 = (FIRST + 2 * BLOCKS as u64) * BLOCK;

    #[test]
    fn the_cheaper_way_is_taken_soon_and_for_nearly_all() {
        for copy in [70_000, 90_000, 110_000, 130_000] {
            let mut weigher = Weigher::new();
            let cost = |splices, _| if splices { 100_000 } else { copy };
            send(&mut weigher, TRIAL, cost);
            assert_eq!(weigher.splices_short(), copy > 100_000);
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
            send(&mut weigher, REST * BLOCK + TRIAL, cost);
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
    fn nothing_is_measured_between_trials() {
        let mut weigher = Weigher::new();
        for _ in 0..(FIRST * BLOCK) >> 20 {
            weigher.weigh(&short(1 << 20));
            weigher.turned(Duration::ZERO, 8, || unreachable!("no trial yet"));
        }
        assert!(weigher.trial.is_some());
    }

    #[test]
    fn with_many_sockets_more_is_sent_in_one_way_at_a_time() {
        for (sockets, block) in [(0, 2), (8, 2), (64, 16), (1000, 250)] {
            let mut weigher = Weigher::new();
            let (mut spliced, mut time) = (0, Duration::ZERO);
            while spliced == 0 || weigher.splices_short() {
                weigher.weigh(&short(1 << 20));
                time += Duration::from_millis(1);
                weigher.turned(Duration::ZERO, sockets, || time);
                spliced += 1;
            }
            // Before the trial, and its first block. The first turn of a trial only begins to measure.
            assert_eq!(spliced, (FIRST + 1) * block + 1, "{sockets}");
        }
    }

    #[test]
    fn what_is_large_in_the_mean_is_always_spliced_and_does_not_count() {
        let mut weigher = Weigher { splices: false, ..Weigher::new() };
        let (large, short) = (Pages { bytes: 2 * SHORT, pieces: 2 }, Pages { bytes: 2 * SHORT - 1, pieces: 2 });
        assert!(weigher.splices(&large) && weigher.weigh(&large));
        assert_eq!(weigher.bytes, 0);
        assert!(!weigher.splices(&short) && !weigher.weigh(&short));
        assert_eq!(weigher.bytes, short.bytes);
    }
}
