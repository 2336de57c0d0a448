//! One read or write on its way.

use crate::verify::Stamping;
use initiator::DataOut;
use std::sync::LazyLock;

/// What goes with a command and comes back with its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operation {
    /// When it was built or due, in nanoseconds of the run's clock.
    pub start: u64,
    /// Its first byte in the logical unit.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
    /// Direction.
    pub write: bool,
    /// With `--verify`: what its blocks hold.
    pub stamping: Option<&'static Stamping>,
    /// With `--verify`: of all blocks of a write.
    pub generation: u32,
    /// With `--verify`: its place among those in flight.
    pub slot: u32,
}

/// What plain writes carry: bytes that don't compress, repeated without end.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    let mut bytes = vec![0; PATTERN_LENGTH];
    SmallRng::seed_from_u64(0x7269_6e67_6c75_6e21).fill_bytes(&mut bytes);
    bytes
});

/// Small enough to stay in the processor's cache, large enough for few pieces.
const PATTERN_LENGTH: usize = 64 << 10;

impl DataOut for Operation {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        match self.stamping {
            None => {
                let end = offset + length;
                let mut at = offset;
                while at < end {
                    let piece = pattern(at, end - at);
                    out.extend_from_slice(piece);
                    at += piece.len() as u32;
                }
            }
            Some(stamping) => self.append_stamped(stamping, offset, length, out),
        }
    }

    #[inline]
    fn lasting(&self, offset: u32, length: u32) -> Option<&'static [u8]> {
        self.stamping.is_none().then(|| pattern(offset, length))
    }
}

fn pattern(offset: u32, length: u32) -> &'static [u8] {
    let at = offset as usize % PATTERN_LENGTH;
    &PATTERN[at..(at + length as usize).min(PATTERN_LENGTH)]
}

impl Operation {
    fn append_stamped(&self, stamping: &Stamping, offset: u32, length: u32, out: &mut Vec<u8>) {
        let block = stamping.block_length();
        let (start, end) = (offset as usize, (offset + length) as usize);
        let first = (self.offset + u64::from(offset)) >> stamping.block_shift;
        // Whole blocks are made in place; of those at the edges the part that is not wanted goes again.
        let (before, begin) = (start % block, out.len());
        let blocks = end.div_ceil(block) - start / block;
        out.resize(begin + blocks * block, 0);
        for (lba, bytes) in (first..).zip(out[begin..].chunks_exact_mut(block)) {
            stamping.fill(lba, self.generation, bytes);
        }
        if before != 0 {
            out.drain(begin..begin + before);
        }
        out.truncate(begin + length as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use initiator::Output;

    #[test]
    fn data_are_the_same_however_they_are_cut() {
        static STAMPING: Stamping = Stamping { unit: 1, seed: 2, block_shift: 9 };
        for stamping in [None, Some(&STAMPING)] {
            let operation = Operation { length: 200_000, stamping, generation: 3, ..Operation::default() };
            let (mut whole, mut cut) = (Vec::new(), Vec::new());
            operation.append(0, 200_000, &mut whole);
            let mut at = 0;
            while at < 200_000 {
                let length = (200_000 - at).min(7777);
                cut.put_data(&operation, at, length, None);
                at += length;
            }
            assert_eq!(whole.len(), 200_000);
            assert!(whole == cut);
        }
    }
}
