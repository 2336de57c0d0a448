//! Which operation comes next.

use crate::operation::Operation;
use crate::options::Pattern;
use crate::size::ByteRange;
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// What all sessions do.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Sizes of operations; each is as likely.
    pub sizes: Vec<u32>,
    /// Random or sequential.
    pub pattern: Pattern,
    /// Of a hundred operations.
    pub read_percent: u8,
}

/// Where a session is in its walk.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// The part of the logical unit that operations go to.
    pub range: ByteRange,
    /// Sequential: the part that this session walks.
    pub share: ByteRange,
    /// Sequential: where the next operation begins.
    pub cursor: u64,
}

/// Draws operations.
pub struct Draw {
    mix: Mix,
    random: SmallRng,
}

impl Draw {
    /// Of a thread; each has its own seed.
    pub fn new(mix: Mix, seed: u64) -> Draw {
        Draw { mix, random: SmallRng::seed_from_u64(seed) }
    }

    /// A number below `bound`, evenly enough: the bias is below 2^-24 for 2^40 places.
    #[inline]
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.random.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// The next operation of a session.
    #[inline]
    pub fn next(&mut self, walk: &mut Walk, start: u64) -> Operation {
        let length = match self.mix.sizes[..] {
            [only] => only,
            _ => {
                let which = self.below(self.mix.sizes.len() as u64) as usize;
                self.mix.sizes[which]
            }
        };
        let write = match self.mix.read_percent {
            100 => false,
            0 => true,
            percent => self.below(100) >= u64::from(percent),
        };
        let size = u64::from(length);
        let offset = match self.mix.pattern {
            Pattern::Random => walk.range.offset + self.below(walk.range.length / size) * size,
            Pattern::Sequential => {
                let end = walk.share.offset + walk.share.length;
                let here = if walk.cursor + size > end { walk.share.offset } else { walk.cursor };
                walk.cursor = here + size;
                here
            }
        };
        Operation { start, offset, length, write, ..Operation::default() }
    }
}

/// The share of a session in a sequential walk: a whole number of the longest operations, so that none crosses over.
pub fn share(range: ByteRange, session: u64, sessions: u64, longest: u64) -> Option<ByteRange> {
    let units = range.length / longest;
    let (first, end) = (units * session / sessions, units * (session + 1) / sessions);
    (first < end).then(|| ByteRange { offset: range.offset + first * longest, length: (end - first) * longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: ByteRange = ByteRange { offset: 1 << 20, length: 1 << 20 };

    fn draw(sizes: &[u32], pattern: Pattern, read_percent: u8) -> Draw {
        Draw::new(Mix { sizes: sizes.to_vec(), pattern, read_percent }, 7)
    }

    #[test]
    fn random_operations_stay_in_the_range_and_reach_all_of_it() {
        let mut draw = draw(&[4096, 65536], Pattern::Random, 70);
        let mut walk = Walk { range: RANGE, share: RANGE, cursor: RANGE.offset };
        let mut places = std::collections::BTreeSet::new();
        let (mut writes, mut long) = (0, 0);
        for _ in 0..10_000 {
            let operation = draw.next(&mut walk, 0);
            let size = u64::from(operation.length);
            assert!(operation.offset >= RANGE.offset && operation.offset + size <= RANGE.offset + RANGE.length);
            assert_eq!(operation.offset % size, 0);
            places.insert(operation.offset);
            writes += u32::from(operation.write);
            long += u32::from(size == 65536);
        }
        assert_eq!(places.len(), 256);
        assert!((2700..3300).contains(&writes) && (4700..5300).contains(&long), "{writes} {long}");
    }

    #[test]
    fn a_sequential_walk_takes_every_place_of_its_share_in_turn() {
        let mut draw = draw(&[4096], Pattern::Sequential, 100);
        let share = share(RANGE, 1, 4, 4096).unwrap();
        let mut walk = Walk { range: RANGE, share, cursor: share.offset };
        let places: Vec<u64> = (0..65).map(|_| draw.next(&mut walk, 0).offset).collect();
        assert_eq!(places[0], RANGE.offset + RANGE.length / 4);
        assert!(places.windows(2).take(63).all(|pair| pair[1] == pair[0] + 4096));
        assert_eq!(places[64], places[0]);
    }

    #[test]
    fn shares_cover_the_range_and_never_overlap() {
        let mut at = RANGE.offset;
        for session in 0..3 {
            let share = share(RANGE, session, 3, 65536).unwrap();
            assert_eq!(share.offset, at);
            at += share.length;
        }
        assert_eq!(at, RANGE.offset + RANGE.length);
        assert_eq!(share(RANGE, 0, 17, 65536), None);
    }
}
