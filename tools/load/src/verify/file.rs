//! `--verify-file`: what each block must hold, from one run to the next.
//!
//! Little endian: magic, version, number of units; for each unit its number, seed, block shift, offset and length of
//! its range, the next generation, and a generation per block; at the end the CRC32C of all before.

use crate::size::ByteRange;
use std::{fs, io::Write, path::Path};
use wire::digest::crc32c;

const MAGIC: &[u8; 8] = b"ringload";
const VERSION: u32 = 1;

/// What is known of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Target name and LUN, as in the stamps.
    pub unit: u64,
    /// Of all its stamps.
    pub seed: u64,
    /// Bytes per block.
    pub block_shift: u32,
    /// What the generations are of.
    pub range: ByteRange,
    /// Behind all of them.
    pub next: u32,
    /// One per block.
    pub generations: Vec<u32>,
}

/// Reads a file; `None` when there is none yet.
pub fn load(path: &Path) -> Result<Option<Vec<Known>>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("--verify-file {}: {error}", path.display())),
    };
    let wrong = || format!("--verify-file {}: it was not written by --verify-file, or is damaged", path.display());
    parse(&bytes).map(Some).ok_or_else(wrong)
}

/// Replaces a file: after a crash there is the old or the new one, whole.
pub fn save(path: &Path, units: &[Known]) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("--verify-file {}: {error}", path.display());
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = Path::new(&name);
    let mut file = fs::File::create(beside).map_err(wrong)?;
    file.write_all(&emit(units)).and_then(|()| file.sync_all()).map_err(wrong)?;
    fs::rename(beside, path).map_err(wrong)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrong)
}

fn emit(units: &[Known]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((units.len() as u32).to_le_bytes());
    for unit in units {
        for field in [unit.unit, unit.seed, u64::from(unit.block_shift), unit.range.offset, unit.range.length] {
            out.extend(field.to_le_bytes());
        }
        out.extend(unit.next.to_le_bytes());
        out.extend(unit.generations.iter().flat_map(|generation| generation.to_le_bytes()));
    }
    let sum = crc32c(&out);
    out.extend(sum.to_le_bytes());
    out
}

fn parse(bytes: &[u8]) -> Option<Vec<Known>> {
    let (mut rest, sum) = bytes.split_last_chunk::<4>()?;
    if crc32c(rest) != u32::from_le_bytes(*sum) || rest.split_off(..8)? != MAGIC || short(&mut rest)? != VERSION {
        return None;
    }
    let mut units = Vec::new();
    for _ in 0..short(&mut rest)? {
        let (unit, seed) = (long(&mut rest)?, long(&mut rest)?);
        let block_shift = u32::try_from(long(&mut rest)?).ok().filter(|shift| *shift < 32)?;
        let range = ByteRange { offset: long(&mut rest)?, length: long(&mut rest)? };
        let next = short(&mut rest)?;
        let blocks = usize::try_from(range.length >> block_shift).ok()?;
        let (generations, _) = rest.split_off(..blocks.checked_mul(4)?)?.as_chunks::<4>();
        let generations = generations.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        units.push(Known { unit, seed, block_shift, range, next, generations });
    }
    rest.is_empty().then_some(units)
}

fn short(rest: &mut &[u8]) -> Option<u32> {
    rest.split_off(..4)?.try_into().ok().map(u32::from_le_bytes)
}

fn long(rest: &mut &[u8]) -> Option<u64> {
    rest.split_off(..8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Known> {
        let range = ByteRange { offset: 4096, length: 2048 };
        vec![
            Known { unit: 1, seed: 2, block_shift: 9, range, next: 8, generations: vec![0, 7, 3, 4] },
            Known { unit: 5, seed: 2, block_shift: 11, range, next: 2, generations: vec![1] },
        ]
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(load(&path), Ok(None));
        save(&path, &known()).unwrap();
        save(&path, &known()).unwrap();
        assert_eq!(load(&path), Ok(Some(known())));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let good = emit(&known());
        assert_eq!(parse(&good), Some(known()));
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut]), None, "{cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(parse(&bad), None, "{at}");
        }
    }
}
