//! Holds what reads bring against the ledger, as it comes: no read is kept whole.

use super::file::Known;
use super::{Ledger, Stamping};
use crate::operation::Operation;
use crate::size::ByteRange;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checks {
    /// Blocks that held what they should.
    pub blocks_checked: u64,
    /// Blocks that nobody had stamped, as far as we know.
    pub blocks_unknown: u64,
}

impl std::ops::Add for Checks {
    type Output = Checks;

    fn add(self, other: Checks) -> Checks {
        Checks {
            blocks_checked: self.blocks_checked + other.blocks_checked,
            blocks_unknown: self.blocks_unknown + other.blocks_unknown,
        }
    }
}

/// What a thread knows of the logical units.
pub struct Checker {
    units: Vec<Unit>,
    /// For each read in flight, the beginning of a block whose rest is still to come.
    partial: Vec<Vec<u8>>,
    free: Vec<u32>,
    spare: Vec<u8>,
    /// What was checked.
    pub checks: Checks,
}

struct Unit {
    stamping: &'static Stamping,
    ledger: Ledger,
}

impl Checker {
    /// For so many commands in flight. The stampings are made once per run, for its whole life.
    pub fn new(units: Vec<(&'static Stamping, Ledger)>, in_flight: usize) -> Checker {
        let longest = units.iter().map(|(stamping, _)| stamping.block_length()).max().unwrap_or(0);
        Checker {
            units: units.into_iter().map(|(stamping, ledger)| Unit { stamping, ledger }).collect(),
            partial: (0..in_flight).map(|_| Vec::with_capacity(longest)).collect(),
            free: (0..in_flight as u32).rev().collect(),
            spare: vec![0; longest],
            checks: Checks::default(),
        }
    }

    /// The part of a unit that is this thread's.
    pub fn range(&self, unit: usize) -> ByteRange {
        self.units[unit].ledger.range()
    }

    /// `--verify-fill`: the next write of a unit that is not written yet.
    pub fn next_fill(&mut self, unit: usize, longest: u32, start: u64) -> Option<Operation> {
        let ledger = &mut self.units[unit].ledger;
        let range = ledger.range();
        let left = range.offset + range.length - ledger.fill_from;
        if left == 0 {
            return None;
        }
        let length = left.min(u64::from(longest)) as u32;
        let mut operation = Operation { start, offset: ledger.fill_from, length, write: true, ..Operation::default() };
        // The first write there is: nobody is in its way, but reads of unknown blocks.
        if !self.claim(unit, &mut operation) {
            return None;
        }
        self.units[unit].ledger.fill_from += u64::from(length);
        Some(operation)
    }

    /// `--verify-fill`: blocks are still to be written.
    pub fn fills(&self, unit: usize) -> bool {
        let ledger = &self.units[unit].ledger;
        ledger.fill_from != ledger.range().offset + ledger.range().length
    }

    /// Takes the blocks of an operation; false when others are in the way.
    pub fn claim(&mut self, unit: usize, operation: &mut Operation) -> bool {
        let Some(slot) = self.free.last().copied() else {
            return false;
        };
        let Unit { stamping, ledger } = &mut self.units[unit];
        if operation.write {
            let Some(generation) = ledger.claim_write(operation.offset, operation.length) else {
                return false;
            };
            operation.generation = generation;
        } else if !ledger.claim_read(operation.offset, operation.length) {
            return false;
        }
        self.free.pop();
        operation.stamping = Some(stamping);
        operation.slot = slot;
        self.partial[slot as usize].clear();
        true
    }

    /// An operation has ended, well or not.
    pub fn release(&mut self, unit: usize, operation: &Operation, good: bool) {
        let ledger = &mut self.units[unit].ledger;
        if operation.write {
            ledger.release_write(operation.offset, operation.length, good.then_some(operation.generation));
        } else {
            ledger.release_read(operation.offset, operation.length);
        }
        self.free.push(operation.slot);
    }

    /// Checks bytes of a read that belong at `at` of its data; they come in order.
    pub fn check(&mut self, unit: usize, operation: &Operation, at: u32, mut bytes: &[u8]) -> Result<(), String> {
        let Unit { stamping, ledger } = &self.units[unit];
        let (shift, length) = (stamping.block_shift, stamping.block_length());
        let partial = &mut self.partial[operation.slot as usize];
        if at == 0 {
            // An operation that is sent again begins anew.
            partial.clear();
        }
        let spare = &mut self.spare[..length];
        let mut lba = (operation.offset + u64::from(at)) >> shift;
        if !partial.is_empty() || !bytes.len().is_multiple_of(length) {
            debug_assert_eq!(at as usize % length, partial.len());
        }
        while !bytes.is_empty() {
            let block = if partial.is_empty() && bytes.len() >= length {
                bytes.split_off(..length).expect("it is that long")
            } else {
                let taken = bytes.len().min(length - partial.len());
                partial.extend_from_slice(bytes.split_off(..taken).expect("it is that long"));
                if partial.len() < length {
                    return Ok(());
                }
                &partial[..]
            };
            let expected = ledger.generation(lba);
            match stamping.check(lba, expected, block, spare) {
                Ok(true) => self.checks.blocks_checked += 1,
                Ok(false) => self.checks.blocks_unknown += 1,
                Err(fault) => {
                    let known = match expected {
                        0 => "the stamp of another run".to_owned(),
                        generation => format!("generation {generation} of seed {:#x}", stamping.seed),
                    };
                    return Err(format!("MISMATCH at LBA {lba} (byte {}): expected {known}, {fault}", lba << shift));
                }
            }
            partial.clear();
            lba += 1;
        }
        Ok(())
    }

    /// What is known of a unit, for the file.
    pub fn known(&self, unit: usize) -> Known {
        let Unit { stamping, ledger } = &self.units[unit];
        Known {
            unit: stamping.unit,
            seed: stamping.seed,
            block_shift: stamping.block_shift,
            range: ledger.range(),
            next: ledger.next_generation(),
            generations: ledger.generations().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use initiator::DataOut;

    static STAMPING: Stamping = Stamping { unit: 1, seed: 2, block_shift: 9 };

    fn checker() -> Checker {
        Checker::new(vec![(&STAMPING, Ledger::new(ByteRange { offset: 4096, length: 65536 }, 9))], 4)
    }

    fn operation(write: bool) -> Operation {
        Operation { offset: 8192, length: 4096, write, ..Operation::default() }
    }

    fn written(checker: &mut Checker) -> Vec<u8> {
        let (mut write, mut data) = (operation(true), Vec::new());
        assert!(checker.claim(0, &mut write));
        // In pieces that end within blocks, as Data-Out may.
        for (at, length) in [(0, 700), (700, 1), (701, 3395)] {
            write.append(at, length, &mut data);
        }
        checker.release(0, &write, true);
        data
    }

    #[test]
    fn what_is_written_is_read_back_in_any_pieces() {
        let mut checker = checker();
        let data = written(&mut checker);
        for piece in [1, 100, 511, 512, 513, 1024, 4096] {
            let mut read = operation(false);
            assert!(checker.claim(0, &mut read));
            let mut at = 0;
            for bytes in data.chunks(piece) {
                assert_eq!(checker.check(0, &read, at, bytes), Ok(()), "in pieces of {piece}");
                at += bytes.len() as u32;
            }
            checker.release(0, &read, true);
        }
        assert_eq!(checker.checks, Checks { blocks_checked: 7 * 8, blocks_unknown: 0 });
    }

    #[test]
    fn a_mismatch_names_block_generations_and_byte() {
        let mut checker = checker();
        let old = written(&mut checker);
        let _ = written(&mut checker);
        let mut read = operation(false);
        assert!(checker.claim(0, &mut read));
        let error = checker.check(0, &read, 512, &old[512..]).unwrap_err();
        for part in
            ["LBA 17 (byte 8704)", "expected generation 2 of seed 0x2", "found generation 1", "first wrong byte"]
        {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn writes_keep_others_off_and_failed_ones_are_forgotten() {
        let mut checker = checker();
        let old = written(&mut checker);
        let (mut write, mut read) = (operation(true), operation(false));
        assert!(checker.claim(0, &mut write));
        assert!(!checker.claim(0, &mut read));
        checker.release(0, &write, false);
        assert!(checker.claim(0, &mut read));
        // Old or new, nobody knows; but whole.
        assert_eq!(checker.check(0, &read, 0, &old), Ok(()));
    }
}
