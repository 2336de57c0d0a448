//! In which portions the requests that have ended are told.
//!
//! Some disks, virtual ones above all, do one request after the other and interrupt when nothing is left. All requests end at once
//! then, and the disk stands still until the first answer has reached the initiator and its next command has come. With many
//! answers in one send that takes long. So such a burst is told by quarters, one a turn: what the initiator asks for
//! meanwhile goes to the disk before the next quarter is sent.

use std::collections::VecDeque;

/// Smaller bursts are told at once.
const BURST: usize = 16;
/// Parts of a burst: the last of them is told so many turns less one after the first.
const PARTS: u8 = 4;
/// None is smaller: the disk is to be busy with what follows a part until more follows.
const LEAST: usize = 8;

/// Requests that have ended, oldest first.
pub(super) struct Portions<T> {
    ended: VecDeque<T>,
    /// How many may still be told in this turn; None: it has not begun.
    left: Option<usize>,
    /// What ends in this turn is all that the disk had.
    burst: bool,
    /// Parts of a burst that are still to be told, and the size of each but the last.
    parts: u8,
    part: usize,
}

impl<T> Portions<T> {
    pub(super) fn with_capacity(capacity: usize) -> Portions<T> {
        Portions { ended: VecDeque::with_capacity(capacity), left: None, burst: false, parts: 0, part: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.ended.len()
    }

    pub(super) fn push(&mut self, ended: T) {
        self.ended.push_back(ended);
    }

    /// The oldest, whatever else has ended.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.ended.pop_front()
    }

    /// What ends in this turn is all that the disk had.
    pub(super) fn burst(&mut self) {
        self.burst = true;
    }

    /// The next that is told in this turn; after None the next turn begins.
    pub(super) fn next(&mut self) -> Option<T> {
        let left = self.left.unwrap_or_else(|| {
            let all = self.ended.len();
            if std::mem::take(&mut self.burst) && self.parts == 0 && all >= BURST {
                (self.parts, self.part) = (PARTS, (all / usize::from(PARTS)).max(LEAST));
            }
            self.parts = self.parts.saturating_sub(1);
            if self.parts == 0 { all } else { self.part }
        });
        let next = if left == 0 { None } else { self.ended.pop_front() };
        if self.ended.is_empty() {
            self.parts = 0;
        }
        // Nobody asks on when nothing is left.
        self.left = if next.is_none() || self.ended.is_empty() { None } else { Some(left - 1) };
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told in each turn, while `more` end in each of them.
    fn told(portions: &mut Portions<usize>, more: usize) -> Vec<usize> {
        let mut turns = Vec::new();
        while portions.len() > 0 && turns.len() < 6 {
            turns.push(std::iter::from_fn(|| portions.next()).count());
            (0..more).for_each(|n| portions.push(n));
        }
        turns
    }

    fn ended(count: usize) -> Portions<usize> {
        let mut portions = Portions::with_capacity(4);
        (0..count).for_each(|n| portions.push(n));
        portions.burst();
        portions
    }

    #[test]
    fn a_burst_is_told_by_quarters() {
        for (count, turns) in
            [(15, vec![15]), (16, vec![8, 8]), (20, vec![8, 8, 4]), (32, vec![8, 8, 8, 8]), (255, vec![63, 63, 63, 66])]
        {
            let mut portions = ended(count);
            assert_eq!(told(&mut portions, 0), turns);
            // The next one as well.
            (0..count).for_each(|n| portions.push(n));
            portions.burst();
            assert_eq!(told(&mut portions, 0), turns);
            // It was one.
            (0..count).for_each(|n| portions.push(n));
            assert_eq!(told(&mut portions, 0), [count]);
        }
    }

    #[test]
    fn of_a_disk_that_works_on_all_is_told_at_once() {
        let mut portions = Portions::with_capacity(4);
        (0..200).for_each(|n| portions.push(n));
        assert_eq!(told(&mut portions, 0), [200]);
    }

    #[test]
    fn the_last_quarter_takes_all_with_it_that_has_ended_meanwhile() {
        assert_eq!(told(&mut ended(32), 20), [8, 8, 8, 68, 20, 20]);
    }

    #[test]
    fn all_is_told_in_its_order() {
        let mut portions = ended(32);
        let mut all = Vec::new();
        while portions.len() > 0 {
            all.extend(std::iter::from_fn(|| portions.next()));
            if all.len() == 8 {
                (32..40).for_each(|n| portions.push(n));
            }
        }
        assert!(all.into_iter().eq(0..40));
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        let mut portions = ended(0);
        assert_eq!((portions.next(), portions.pop(), portions.next()), (None, None, None));
        portions.push(7);
        assert_eq!((portions.pop(), portions.len()), (Some(7), 0));
    }
}
