//! Which write each block is from, and who is at it now.

use crate::size::ByteRange;

/// The generation of blocks of which nothing is known.
const UNKNOWN: u32 = 0;
/// In `busy`: somebody writes. Below: so many read.
const WRITING: u8 = u8::MAX;

/// Part of a logical unit that one thread works on alone, so that reads and writes that overlap never are in flight
/// together.
#[derive(Clone, Debug)]
pub struct Ledger {
    block_shift: u32,
    range: ByteRange,
    generations: Vec<u32>,
    busy: Vec<u8>,
    /// The generation of the next write.
    next: u32,
    /// `--verify-fill`: where the next block is that was not written yet.
    pub fill_from: u64,
}

impl Ledger {
    /// Nothing is known of any block.
    pub fn new(range: ByteRange, block_shift: u32) -> Ledger {
        let blocks = (range.length >> block_shift) as usize;
        let end = range.offset + range.length;
        Ledger {
            block_shift,
            range,
            generations: vec![UNKNOWN; blocks],
            busy: vec![0; blocks],
            next: 1,
            fill_from: end,
        }
    }

    /// What an earlier run knew. `next` is behind all of its generations.
    pub fn resume(range: ByteRange, block_shift: u32, generations: &[u32], next: u32) -> Ledger {
        let mut ledger = Ledger::new(range, block_shift);
        ledger.generations.copy_from_slice(generations);
        ledger.next = next;
        ledger
    }

    /// What it is about.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// The generation of each block; those that were being written are unknown.
    pub fn generations(&self) -> impl Iterator<Item = u32> {
        self.generations.iter().zip(&self.busy).map(|(known, busy)| if *busy == WRITING { UNKNOWN } else { *known })
    }

    /// The generation of the next write.
    pub fn next_generation(&self) -> u32 {
        self.next
    }

    fn blocks(&self, offset: u64, length: u32) -> std::ops::Range<usize> {
        let first = ((offset - self.range.offset) >> self.block_shift) as usize;
        first..first + (length >> self.block_shift) as usize
    }

    /// Takes blocks for a read; false when somebody writes there.
    pub fn claim_read(&mut self, offset: u64, length: u32) -> bool {
        let blocks = self.blocks(offset, length);
        let busy = &mut self.busy[blocks];
        // The last count below WRITING stays free.
        if busy.iter().any(|count| *count >= WRITING - 1) {
            return false;
        }
        busy.iter_mut().for_each(|count| *count += 1);
        true
    }

    /// Takes blocks for a write and gives its generation; `None` when somebody is there.
    pub fn claim_write(&mut self, offset: u64, length: u32) -> Option<u32> {
        let blocks = self.blocks(offset, length);
        let busy = &mut self.busy[blocks];
        if busy.iter().any(|count| *count != 0) {
            return None;
        }
        busy.fill(WRITING);
        let generation = self.next;
        // 0 stands for unknown.
        self.next = self.next.checked_add(1).unwrap_or(1);
        Some(generation)
    }

    /// A read has ended.
    pub fn release_read(&mut self, offset: u64, length: u32) {
        let blocks = self.blocks(offset, length);
        self.busy[blocks].iter_mut().for_each(|count| *count -= 1);
    }

    /// A write has ended; `None`: nobody knows how.
    pub fn release_write(&mut self, offset: u64, length: u32, generation: Option<u32>) {
        let blocks = self.blocks(offset, length);
        self.generations[blocks.clone()].fill(generation.unwrap_or(UNKNOWN));
        self.busy[blocks].fill(0);
    }

    /// The generation of the block at `lba`.
    #[inline]
    pub fn generation(&self, lba: u64) -> u32 {
        self.generations[(lba - (self.range.offset >> self.block_shift)) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(ByteRange { offset: 8192, length: 8192 }, 9)
    }

    #[test]
    fn reads_share_blocks_and_writes_have_them_alone() {
        let mut ledger = ledger();
        assert!(ledger.claim_read(8192, 1024));
        assert!(ledger.claim_read(8704, 1024));
        assert_eq!(ledger.claim_write(9216, 512), None);
        ledger.release_read(8704, 1024);
        let generation = ledger.claim_write(9216, 512).unwrap();
        assert!(!ledger.claim_read(8704, 1024));
        assert!(ledger.claim_read(9728, 512));
        ledger.release_write(9216, 512, Some(generation));
        assert!(ledger.claim_read(8704, 1024));
        assert_eq!(ledger.generation(18), generation);
    }

    #[test]
    fn so_many_readers_are_not_taken_for_a_writer() {
        let mut ledger = ledger();
        let most = (0..1000).take_while(|_| ledger.claim_read(8192, 512)).count();
        assert_eq!(most, 254);
        (0..most).for_each(|_| ledger.release_read(8192, 512));
        assert!(ledger.claim_write(8192, 512).is_some());
    }

    #[test]
    fn each_write_has_its_own_generation_and_one_without_an_end_is_unknown() {
        let mut ledger = ledger();
        let first = ledger.claim_write(8192, 512).unwrap();
        ledger.release_write(8192, 512, Some(first));
        let second = ledger.claim_write(8192, 512).unwrap();
        assert!(second != first && first != 0);
        assert_eq!(ledger.generations().next(), Some(0));
        ledger.release_write(8192, 512, None);
        assert_eq!(ledger.generation(16), 0);
    }

    #[test]
    fn a_later_run_goes_on_where_the_first_has_ended() {
        let mut ledger = ledger();
        let generation = ledger.claim_write(8192, 4096).unwrap();
        ledger.release_write(8192, 4096, Some(generation));
        let known: Vec<u32> = ledger.generations().collect();
        let mut later = Ledger::resume(ledger.range(), 9, &known, ledger.next_generation());
        assert_eq!(later.generation(16), generation);
        assert!(later.claim_write(8192, 512).unwrap() > generation);
    }
}
