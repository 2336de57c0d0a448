//! Blocks that say what they are, and a load of writes that remembers what was acknowledged.
//!
//! Every block of an extent holds its address, the extent's version and bytes that follow from both: a block that is
//! torn, in the wrong place or from an older write is told apart.

use crate::{Client, End, Seen};
use initiator::{Command, Handle, cdb};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

const MAGIC: &[u8; 8] = b"ringlun\0";
/// Bytes before the filling.
const HEAD: usize = 24;

/// Fills a block with its stamp.
pub fn stamp(lba: u64, version: u64, block: &mut [u8]) {
    block[..8].copy_from_slice(MAGIC);
    block[8..16].copy_from_slice(&lba.to_be_bytes());
    block[16..HEAD].copy_from_slice(&version.to_be_bytes());
    filling(lba, version, &mut block[HEAD..]);
}

fn filling(lba: u64, version: u64, bytes: &mut [u8]) {
    let mut state = lba.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    for chunk in bytes.chunks_mut(8) {
        // xorshift64: quick, and different for every stamp.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeros.
    Nothing,
    /// A whole stamp of this address and version.
    Stamp {
        /// The address it was written for.
        lba: u64,
        /// Its version.
        version: u64,
    },
    /// Something else: torn, or foreign.
    Garbage,
}

/// Reads a block.
pub fn read(block: &[u8]) -> Found {
    if block.iter().all(|byte| *byte == 0) {
        return Found::Nothing;
    }
    let number = |at: usize| u64::from_be_bytes(block[at..at + 8].try_into().expect("eight bytes"));
    let (lba, version) = (number(8), number(16));
    let mut whole = vec![0; block.len()];
    stamp(lba, version, &mut whole);
    if whole == block { Found::Stamp { lba, version } } else { Found::Garbage }
}

/// Blocks that are always written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub lba: u64,
    /// How many.
    pub blocks: u32,
}

#[derive(Debug)]
struct Entry {
    extent: Extent,
    submitted: u64,
    acknowledged: u64,
    in_flight: bool,
}

/// What a block should not be.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which block.
    pub lba: u64,
    /// What it holds.
    pub found: Found,
    /// The last version that was acknowledged (0: none).
    pub acknowledged: u64,
    /// The last version that was sent.
    pub submitted: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { lba, found, acknowledged, submitted } = self;
        write!(f, "block {lba} holds {found:?}; version {acknowledged} was acknowledged, {submitted} sent")
    }
}

/// What was written where, and what of it was acknowledged.
#[derive(Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
    block_size: u32,
}

/// How a load writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Commands at a time.
    pub depth: usize,
    /// Every so many writes carry FUA; 0: none.
    pub fua_every: u64,
    /// Every so many writes are followed by a SYNCHRONIZE CACHE; 0: never.
    pub sync_every: u64,
    /// Seed of the order.
    pub seed: u64,
}

impl Ledger {
    /// Nothing is written yet. Extents must not overlap.
    pub fn new(extents: impl IntoIterator<Item = Extent>, block_size: u32) -> Ledger {
        let entry = |extent| Entry { extent, submitted: 0, acknowledged: 0, in_flight: false };
        Ledger { entries: extents.into_iter().map(entry).collect(), block_size }
    }

    /// Writes extents in random order until `enough` writes are acknowledged or the connection ends. `progress` counts
    /// acknowledged writes. A target that asks for a logout gets none: the load goes on.
    ///
    /// # Errors
    /// The end of the connection.
    ///
    /// # Panics
    /// On any status but GOOD (and BUSY or TASK SET FULL, which are no acknowledgement).
    pub fn write(
        &mut self,
        client: &mut Client,
        manner: Manner,
        enough: u64,
        progress: &AtomicU64,
    ) -> Result<u64, End> {
        for entry in &mut self.entries {
            // What an earlier connection has not heard about: its write has ended long ago, or never will.
            entry.in_flight = false;
        }
        let mut rng = SmallRng::seed_from_u64(manner.seed);
        let mut flying: HashMap<Handle, Option<(usize, u64)>> = HashMap::new();
        let (mut sent, mut acknowledged) = (0, 0);
        loop {
            while flying.len() < manner.depth && acknowledged + (flying.len() as u64) < enough {
                let at = rng.random_range(0..self.entries.len());
                if self.entries[at].in_flight {
                    // Two writes of one extent at a time have no order.
                    if flying.len() * 2 >= self.entries.len() {
                        break;
                    }
                    continue;
                }
                let Some(handle) = self.submit(client, at, manner, sent)? else { break };
                sent += 1;
                flying.insert(handle, Some((at, self.entries[at].submitted)));
                if manner.sync_every > 0 && sent % manner.sync_every == 0 {
                    let command = Command::none(cdb::synchronize_cache_16(0, 0)).to_lun(client.lun);
                    if let Some(handle) = client.submit(&command, Vec::new())? {
                        flying.insert(handle, None);
                    }
                }
            }
            if flying.is_empty() {
                return Ok(acknowledged);
            }
            let Seen::Done(handle, done) = client.hear()? else { continue };
            let Some(what) = flying.remove(&handle) else { continue };
            let refused = matches!(done.status, 0x08 | 0x28);
            assert!(refused || done.status == 0, "status {:#x}, sense {:x?}", done.status, done.sense());
            let Some((at, version)) = what else { continue };
            let entry = &mut self.entries[at];
            entry.in_flight = false;
            if refused {
                continue;
            }
            entry.acknowledged = version;
            acknowledged += 1;
            progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn submit(&mut self, client: &mut Client, at: usize, manner: Manner, sent: u64) -> Result<Option<Handle>, End> {
        let entry = &mut self.entries[at];
        let Extent { lba, blocks } = entry.extent;
        let version = entry.submitted + 1;
        let mut data = vec![0; (blocks * self.block_size) as usize];
        for (lba, block) in (lba..).zip(data.chunks_mut(self.block_size as usize)) {
            stamp(lba, version, block);
        }
        let mut cdb = cdb::write_16(lba, blocks);
        if manner.fua_every > 0 && sent.is_multiple_of(manner.fua_every) {
            cdb = cdb::with_fua(cdb);
        }
        let command = Command::write(cdb, data.len() as u32).to_lun(client.lun);
        // Counted before it is known to be sent: a connection that breaks in the middle may still bring it there.
        entry.submitted = version;
        let handle = client.submit(&command, data)?;
        match handle {
            Some(_) => entry.in_flight = true,
            None => entry.submitted = version - 1,
        }
        Ok(handle)
    }

    /// Reads all extents with `read` (first block, blocks) and gives every block that lost an acknowledged write, or that
    /// holds what was never written to it.
    pub fn lost(&self, mut read: impl FnMut(u64, u32) -> Vec<u8>) -> Vec<Lost> {
        let mut lost = Vec::new();
        for entry in &self.entries {
            let Extent { lba, blocks } = entry.extent;
            let data = read(lba, blocks);
            assert_eq!(data.len(), (blocks * self.block_size) as usize);
            for (lba, block) in (lba..).zip(data.chunks(self.block_size as usize)) {
                let found = self::read(block);
                let fine = match found {
                    Found::Nothing => entry.acknowledged == 0,
                    Found::Stamp { lba: of, version } => {
                        of == lba && (entry.acknowledged..=entry.submitted).contains(&version)
                    }
                    Found::Garbage => false,
                };
                if !fine {
                    let Entry { acknowledged, submitted, .. } = *entry;
                    lost.push(Lost { lba, found, acknowledged, submitted });
                }
            }
        }
        lost
    }

    /// Checks over a client that nothing is lost.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn verify(&self, client: &mut Client) {
        let lost = self.lost(|lba, blocks| client.read(lba, blocks, self.block_size));
        assert_nothing_lost(&lost);
    }

    /// Extents with an acknowledged write.
    pub fn written(&self) -> usize {
        self.entries.iter().filter(|entry| entry.acknowledged > 0).count()
    }
}

/// Fails with the first few.
///
/// # Panics
/// Unless it is empty.
#[track_caller]
pub fn assert_nothing_lost(lost: &[Lost]) {
    let shown: Vec<String> = lost.iter().take(8).map(ToString::to_string).collect();
    assert!(lost.is_empty(), "{} blocks are not what they should be:\n{}", lost.len(), shown.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_misplaced_block_is_seen() {
        let mut block = vec![0; 512];
        assert_eq!(read(&block), Found::Nothing);
        stamp(7, 3, &mut block);
        assert_eq!(read(&block), Found::Stamp { lba: 7, version: 3 });
        let mut newer = vec![0; 512];
        stamp(7, 4, &mut newer);
        block[256..].copy_from_slice(&newer[256..]);
        assert_eq!(read(&block), Found::Garbage);
        block[511] ^= 1;
        assert_eq!(read(&block), Found::Garbage);
    }

    #[test]
    fn the_ledger_tells_lost_writes_from_unacknowledged_ones() {
        let mut ledger = Ledger::new([Extent { lba: 4, blocks: 2 }], 512);
        let disk = |versions: [u64; 2]| {
            let mut data = vec![0; 1024];
            for (i, version) in versions.into_iter().enumerate().filter(|(_, version)| *version > 0) {
                stamp(4 + i as u64, version, &mut data[i * 512..][..512]);
            }
            data
        };
        ledger.entries[0].submitted = 3;
        ledger.entries[0].acknowledged = 2;
        for (versions, expected) in [([2, 2], 0), ([3, 2], 0), ([3, 3], 0), ([1, 2], 1), ([0, 0], 2), ([4, 3], 1)] {
            assert_eq!(ledger.lost(|_, _| disk(versions)).len(), expected, "{versions:?}");
        }
        ledger.entries[0].acknowledged = 0;
        assert_eq!(ledger.lost(|_, _| disk([0, 1])), []);
    }
}
