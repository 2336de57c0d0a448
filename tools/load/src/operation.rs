//! One read or write on its way.

use crate::verify::Stamping;
use initiator::DataOut;
use std::{cell::Cell, sync::LazyLock};
use wire::digest::Crc32c;

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

    #[inline]
    fn crc32c(&self, offset: u32, length: u32) -> Option<u32> {
        self.stamping.is_none().then(|| pattern_digest(offset, length))
    }
}

fn pattern(offset: u32, length: u32) -> &'static [u8] {
    let at = offset as usize % PATTERN_LENGTH;
    &PATTERN[at..(at + length as usize).min(PATTERN_LENGTH)]
}

/// CRC32C of a piece of what plain writes carry.
#[derive(Clone, Copy)]
struct Known {
    at: usize,
    length: u32,
    crc: u32,
}

/// So many digests are kept, each in one place: a run has pieces of few lengths.
const KNOWN: usize = 64;

thread_local! {
    /// The same pieces come again and again, and it is the target's digests that are measured.
    static DIGESTS: [Cell<Known>; KNOWN] = const { [const { Cell::new(Known { at: 0, length: 0, crc: 0 }) }; KNOWN] };
}

fn pattern_digest(offset: u32, length: u32) -> u32 {
    let at = offset as usize % PATTERN_LENGTH;
    let place = (at >> 9 ^ length as usize >> 9) % KNOWN;
    DIGESTS.with(|digests| {
        let slot = &digests[place];
        let known = slot.get();
        if (known.at, known.length) == (at, length) {
            return known.crc;
        }
        let (mut sum, mut done) = (Crc32c::new(), 0);
        while done < length {
            let piece = pattern(offset + done, length - done);
            sum.update(piece);
            done += piece.len() as u32;
        }
        slot.set(Known { at, length, crc: sum.finish() });
        sum.finish()
    })
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

    #[test]
    fn digests_of_plain_data_are_those_of_their_bytes() {
        let operation = Operation { length: 400_000, ..Operation::default() };
        // Twice: what is kept is right, too, also where several share a place.
        for _ in 0..2 {
            for at in [0, 512, 4096, 65_024, 65_536, 65_537, 131_072] {
                for length in [0, 1, 512, 4096, 65_536, 65_537, 262_144] {
                    let mut bytes = Vec::new();
                    operation.append(at, length, &mut bytes);
                    assert_eq!(operation.crc32c(at, length), Some(wire::crc32c(&bytes)), "{length} bytes at {at}");
                }
            }
        }
        static STAMPING: Stamping = Stamping { unit: 1, seed: 2, block_shift: 9 };
        assert_eq!(Operation { stamping: Some(&STAMPING), ..operation }.crc32c(0, 512), None);
    }
}
