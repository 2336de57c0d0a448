//! The logical units of a run with `--verify`, and what `--verify-file` knows of them.

use super::file::{self, Known};
use super::{Checker, Ledger, Stamping};
use crate::size::ByteRange;
use crate::url::Url;
use crate::workload::share;
use std::path::Path;

/// Most memory for generations.
const MOST_MEMORY: u64 = 8 << 30;

/// A logical unit, however many URLs lead to it.
struct Unit {
    stamping: &'static Stamping,
    range: ByteRange,
    /// The generation of each block of the range, as far as known, and the next one.
    generations: Vec<u32>,
    next: u32,
}

/// All of them.
pub struct Units {
    units: Vec<Unit>,
    of_url: Vec<usize>,
    /// What the file knows of units that this run leaves alone.
    others: Vec<Known>,
    fill: bool,
}

impl Units {
    /// For each URL the part that is used, and the length of its blocks. `file` is taken up if it is there.
    pub fn new(
        urls: &[Url],
        parts: &[(ByteRange, u32)],
        seed: u64,
        file: Option<&Path>,
        fill: bool,
    ) -> Result<Units, String> {
        let mut others = match file {
            Some(path) => file::load(path)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut all = Units { units: Vec::new(), of_url: Vec::new(), others: Vec::new(), fill };
        let mut memory = 0;
        for (url, (range, block_length)) in urls.iter().zip(parts) {
            let mut stamping = Stamping::new(&url.target, url.lun, seed, block_length.trailing_zeros());
            if let Some(index) = all.units.iter().position(|unit| unit.stamping.unit == stamping.unit) {
                all.of_url.push(index);
                continue;
            }
            let blocks = range.length >> stamping.block_shift;
            // Generation and who is there, and once more the generation for the file.
            memory += blocks * 9;
            if memory > MOST_MEMORY {
                return Err(format!(
                    "{url}: --verify of {} bytes takes too much memory: use a smaller --range",
                    range.length
                ));
            }
            let (mut generations, mut next) = (Vec::new(), 1);
            if let Some(at) = others.iter().position(|known| known.unit == stamping.unit) {
                let known = others.swap_remove(at);
                if known.range != *range || known.block_shift != stamping.block_shift {
                    return Err(format!(
                        "{url}: --verify-file knows {}:{} with blocks of {} bytes, but this run is about {}:{} with blocks \
                         of {block_length}: use the same --range, or another file",
                        known.range.offset,
                        known.range.length,
                        1u64 << known.block_shift,
                        range.offset,
                        range.length
                    ));
                }
                (stamping.seed, generations, next) = (known.seed, known.generations, known.next);
            }
            generations.resize(blocks as usize, 0);
            all.of_url.push(all.units.len());
            // For the life of the program: commands refer to it.
            let stamping = Box::leak(Box::new(stamping));
            all.units.push(Unit { stamping, range: *range, generations, next });
        }
        all.others = others;
        Ok(all)
    }

    /// Which unit a URL leads to.
    pub fn of_url(&self, url: usize) -> usize {
        self.of_url[url]
    }

    /// The part of every unit that is a thread's own.
    pub fn checker(&self, thread: u64, threads: u64, longest: u64, in_flight: usize) -> Result<Checker, String> {
        let ledgers = self.units.iter().map(|unit| {
            let Some(range) = share(unit.range, thread, threads, longest) else {
                return Err(format!(
                    "--verify: each of {threads} threads needs a part of the range for itself, of at least one operation \
                     of {longest} bytes: use a larger --range or fewer --threads"
                ));
            };
            let shift = unit.stamping.block_shift;
            let first = ((range.offset - unit.range.offset) >> shift) as usize;
            let known = &unit.generations[first..first + (range.length >> shift) as usize];
            let mut ledger = Ledger::resume(range, shift, known, unit.next);
            if self.fill {
                ledger.fill_from = range.offset;
            }
            Ok((unit.stamping, ledger))
        });
        Ok(Checker::new(ledgers.collect::<Result<_, _>>()?, in_flight))
    }

    /// Writes down what is known now.
    pub fn save(mut self, path: &Path, checkers: &[Checker]) -> Result<(), String> {
        let mut known = self.others;
        for (index, unit) in self.units.iter_mut().enumerate() {
            for part in checkers.iter().map(|checker| checker.known(index)) {
                let first = ((part.range.offset - unit.range.offset) >> unit.stamping.block_shift) as usize;
                unit.generations[first..first + part.generations.len()].copy_from_slice(&part.generations);
                unit.next = unit.next.max(part.next);
            }
            known.push(Known {
                unit: unit.stamping.unit,
                seed: unit.stamping.seed,
                block_shift: unit.stamping.block_shift,
                range: unit.range,
                next: unit.next,
                generations: std::mem::take(&mut unit.generations),
            });
        }
        file::save(path, &known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;

    const RANGE: ByteRange = ByteRange { offset: 4096, length: 65536 + 512 };

    fn units(path: &Path, range: ByteRange, seed: u64) -> Result<Units, String> {
        let urls = ["iscsi://a/iqn.a/0", "iscsi://b/iqn.a/0", "iscsi://a/iqn.a/1"].map(|url| url.parse().unwrap());
        Units::new(&urls, &[(range, 512); 3], seed, Some(path), false)
    }

    fn write(checker: &mut Checker, unit: usize, offset: u64) {
        let mut operation = Operation { offset, length: 4096, write: true, ..Operation::default() };
        assert!(checker.claim(unit, &mut operation));
        checker.release(unit, &operation, true);
    }

    #[test]
    fn a_later_run_knows_what_all_threads_have_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let first = units(&path, RANGE, 1).unwrap();
        assert_eq!([0, 1, 2].map(|url| first.of_url(url)), [0, 0, 1]);
        let mut checkers = [0, 1].map(|thread| first.checker(thread, 2, 4096, 8).unwrap());
        assert_eq!(checkers[1].range(0).offset, 4096 + 32768);
        write(&mut checkers[0], 0, 4096);
        write(&mut checkers[1], 0, 4096 + 32768);
        write(&mut checkers[1], 1, 4096 + 32768);
        first.save(&path, &checkers).unwrap();

        // With another seed and another number of threads.
        let second = units(&path, RANGE, 2).unwrap();
        let checker = second.checker(0, 1, 4096, 8).unwrap();
        let known = checker.known(0);
        assert_eq!((known.seed, known.next), (1, 2));
        let written: Vec<usize> = (0..known.generations.len()).filter(|at| known.generations[*at] != 0).collect();
        assert_eq!(written, (0..8).chain(64..72).collect::<Vec<_>>());
        assert_eq!(checker.known(1).generations[64..72], [1; 8]);
    }

    #[test]
    fn another_range_is_refused_and_other_units_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        units(&path, RANGE, 1).unwrap().save(&path, &[]).unwrap();
        let other = ByteRange { length: 65536, ..RANGE };
        assert!(units(&path, other, 1).err().unwrap().contains("use the same --range"));
        let alone =
            Units::new(&["iscsi://a/iqn.z/0".parse().unwrap()], &[(RANGE, 512)], 1, Some(&path), false).unwrap();
        alone.save(&path, &[]).unwrap();
        assert_eq!(file::load(&path).unwrap().unwrap().len(), 3);
    }

    #[test]
    fn threads_without_a_part_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let units = units(&folder.path().join("file"), RANGE, 1).unwrap();
        assert!(units.checker(0, 17, 4096, 8).err().unwrap().contains("fewer --threads"));
    }
}
