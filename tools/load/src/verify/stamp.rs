//! What a stamped block holds: a header that names it, and content that follows from the header.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic |
//! | 8..16 | logical unit: a number made of target name and LUN |
//! | 16..24 | LBA |
//! | 24..32 | seed of the run that wrote it |
//! | 32..36 | generation: which write |
//! | 36..40 | CRC32C of the block with zeros here |
//! | 40.. | numbers that follow from all that |

use std::fmt;
use wire::digest::Crc32c;

const MAGIC: u64 = 0x7269_6e67_5374_6d70;
const HEADER: usize = 40;
const CRC: std::ops::Range<usize> = 36..40;

/// What all stamps of a run on a logical unit have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamping {
    /// Target name and LUN.
    pub unit: u64,
    /// Of the run.
    pub seed: u64,
    /// Bytes per logical block, as a power of two.
    pub block_shift: u32,
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There should be a stamp.
    Unstamped,
    /// It belongs elsewhere.
    Misplaced { lba: u64 },
    /// Another run's stamp where ours should be.
    ForeignSeed { found: u64 },
    /// It is from another write than the last.
    Generation { found: u32 },
    /// It is not what its own header says: parts of two writes, or flipped bits.
    Damaged { generation: u32, first_wrong: usize },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unstamped => f.write_str("found no stamp (first wrong byte 0)"),
            Fault::Misplaced { lba } => write!(f, "found the block of LBA {lba} (first wrong byte 16)"),
            Fault::ForeignSeed { found } => {
                write!(f, "found a block of another run, seed {found:#x} (first wrong byte 24)")
            }
            Fault::Generation { found } => write!(f, "found generation {found} (first wrong byte 32)"),
            Fault::Damaged { generation, first_wrong } => {
                write!(f, "found generation {generation}, damaged (first wrong byte {first_wrong})")
            }
        }
    }
}

fn word(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}

/// A number from all that a header says; each input moves half of the bits.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Stamping {
    /// For a unit by its names.
    pub fn new(target: &str, lun: u16, seed: u64, block_shift: u32) -> Stamping {
        let mut unit = u64::from(lun);
        for byte in target.bytes() {
            unit = mix(unit ^ u64::from(byte)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        Stamping { unit, seed, block_shift }
    }

    /// Bytes per block.
    pub fn block_length(&self) -> usize {
        1 << self.block_shift
    }

    /// Writes a whole block.
    pub fn fill(&self, lba: u64, generation: u32, block: &mut [u8]) {
        block[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..16].copy_from_slice(&self.unit.to_le_bytes());
        block[16..24].copy_from_slice(&lba.to_le_bytes());
        block[24..32].copy_from_slice(&self.seed.to_le_bytes());
        block[32..36].copy_from_slice(&generation.to_le_bytes());
        block[CRC].fill(0);
        let mut state = mix(self.unit ^ mix(self.seed ^ mix(lba ^ mix(u64::from(generation)))));
        for word in block[HEADER..].chunks_exact_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let value = (state ^ (state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            word.copy_from_slice(&(value ^ (value >> 29)).to_le_bytes());
        }
        let mut sum = Crc32c::new();
        sum.update(block);
        block[CRC].copy_from_slice(&sum.finish().to_le_bytes());
    }

    /// Holds a block against what is known of it; `expected` is the generation, 0 for a block that nobody has written
    /// as far as we know. `spare` is a block to work in. True: the block was checked.
    pub fn check(&self, lba: u64, expected: u32, block: &[u8], spare: &mut [u8]) -> Result<bool, Fault> {
        if expected != 0 {
            self.fill(lba, expected, spare);
            if spare == block {
                return Ok(true);
            }
            return Err(self.explain(lba, expected, block, spare));
        }
        if word(block, 0) != MAGIC || word(block, 8) != self.unit {
            return Ok(false);
        }
        // Of an earlier run, whose seed it says itself.
        let seed = word(block, 24);
        let generation = u32::from_le_bytes(block[32..36].try_into().expect("four bytes"));
        let theirs = Stamping { seed, ..*self };
        theirs.fill(lba, generation, spare);
        if spare == block { Ok(true) } else { Err(theirs.explain(lba, generation, block, spare)) }
    }

    /// Why a block is wrong.
    #[cold]
    fn explain(&self, lba: u64, expected: u32, block: &[u8], spare: &mut [u8]) -> Fault {
        if word(block, 0) != MAGIC || word(block, 8) != self.unit {
            return Fault::Unstamped;
        }
        let (found_lba, seed) = (word(block, 16), word(block, 24));
        let generation = u32::from_le_bytes(block[32..36].try_into().expect("four bytes"));
        // What the block itself says that it is.
        Stamping { seed, ..*self }.fill(found_lba, generation, spare);
        if let Some(first_wrong) = (0..block.len()).find(|at| block[*at] != spare[*at]) {
            return Fault::Damaged { generation, first_wrong };
        }
        if found_lba != lba {
            Fault::Misplaced { lba: found_lba }
        } else if seed != self.seed {
            Fault::ForeignSeed { found: seed }
        } else {
            debug_assert_ne!(generation, expected);
            Fault::Generation { found: generation }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 512;

    fn stamping() -> Stamping {
        Stamping::new("iqn.2026-01.io.ringlun:a", 3, 77, 9)
    }

    fn block(lba: u64, generation: u32) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        stamping().fill(lba, generation, &mut block);
        block
    }

    fn check(lba: u64, expected: u32, block: &[u8]) -> Result<bool, Fault> {
        stamping().check(lba, expected, block, &mut [0; BLOCK])
    }

    #[test]
    fn a_block_is_what_was_written() {
        assert_eq!(check(5, 9, &block(5, 9)), Ok(true));
        // Of an earlier run: known by its stamp alone.
        assert_eq!(check(5, 0, &block(5, 9)), Ok(true));
    }

    #[test]
    fn blocks_of_others_are_passed_over_unless_they_should_be_ours() {
        assert_eq!(check(5, 0, &[0; BLOCK]), Ok(false));
        assert_eq!(check(5, 1, &[0; BLOCK]), Err(Fault::Unstamped));
        let mut other = vec![0; BLOCK];
        Stamping::new("iqn.2026-01.io.ringlun:b", 3, 77, 9).fill(5, 9, &mut other);
        assert_eq!(check(5, 0, &other), Ok(false));
        assert_eq!(check(5, 9, &other), Err(Fault::Unstamped));
    }

    #[test]
    fn a_block_in_the_wrong_place_is_seen() {
        assert_eq!(check(6, 9, &block(5, 9)), Err(Fault::Misplaced { lba: 5 }));
        assert_eq!(check(6, 0, &block(5, 9)), Err(Fault::Misplaced { lba: 5 }));
    }

    #[test]
    fn a_lost_write_is_seen() {
        assert_eq!(check(5, 9, &block(5, 8)), Err(Fault::Generation { found: 8 }));
        let mut other = vec![0; BLOCK];
        Stamping { seed: 78, ..stamping() }.fill(5, 9, &mut other);
        assert_eq!(check(5, 9, &other), Err(Fault::ForeignSeed { found: 78 }));
    }

    #[test]
    fn a_torn_block_is_seen_at_the_tear() {
        for (cut, first_wrong) in [(256, 256), (8, 36)] {
            let (old, new) = (block(5, 8), block(5, 9));
            let torn = [&new[..cut], &old[cut..]].concat();
            for expected in [9, 0] {
                match check(5, expected, &torn) {
                    Err(Fault::Damaged { first_wrong: at, .. }) if cut == 256 => assert_eq!(at, first_wrong),
                    // The tear is in front of the generation: it is the old block.
                    Err(Fault::Generation { found: 8 }) if cut == 8 && expected == 9 => {}
                    Ok(true) if cut == 8 && expected == 0 => {}
                    other => panic!("{cut} {expected}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = block(5, 9);
        for bit in 0..BLOCK * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(5, 9, &bad).is_err(), "bit {bit}");
            // Without a known generation, one that is no longer stamped can't be told from others.
            let unstamped = bit / 8 < 16;
            assert_eq!(check(5, 0, &bad).is_err(), !unstamped, "bit {bit}");
        }
    }
}
