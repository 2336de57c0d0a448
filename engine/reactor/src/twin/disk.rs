//! A simulated file: what it holds, what of that would survive a power cut, and what goes wrong with it.
//!
//! A write takes effect when it completes. It is volatile until a durable write or a finished sync covers it: a sync
//! covers the writes that were complete when it was submitted. A power cut keeps a random choice of the volatile
//! sectors, 512 bytes each, and of those in flight.

use super::{
    random::Random,
    world::{Operator, World},
};
use crate::Errno;
use std::{collections::BTreeMap, ops::Range};

const SECTOR: u64 = 512;

/// Bytes by sector; what was never written is zero.
#[derive(Default, Clone)]
struct Sparse {
    sectors: BTreeMap<u64, Box<[u8; SECTOR as usize]>>,
}

/// Cuts a range at the borders of sectors: (sector, range inside of it, position in the whole).
fn sectors(offset: u64, length: u64) -> impl Iterator<Item = (u64, Range<usize>, usize)> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let sector = at / SECTOR;
        let stop = end.min((sector + 1) * SECTOR);
        let piece = (sector, (at % SECTOR) as usize..(stop - sector * SECTOR) as usize, (at - offset) as usize);
        at = stop;
        Some(piece)
    })
}

impl Sparse {
    fn read(&self, offset: u64, into: &mut [u8]) {
        for (sector, inside, at) in sectors(offset, into.len() as u64) {
            let into = &mut into[at..at + inside.len()];
            match self.sectors.get(&sector) {
                Some(bytes) => into.copy_from_slice(&bytes[inside]),
                None => into.fill(0),
            }
        }
    }

    /// None: zeroes.
    fn put(&mut self, sector: u64, inside: Range<usize>, bytes: Option<&[u8]>) {
        match bytes {
            None if inside.len() == SECTOR as usize => {
                self.sectors.remove(&sector);
            }
            None => {
                if let Some(old) = self.sectors.get_mut(&sector) {
                    old[inside].fill(0);
                }
            }
            Some(bytes) => {
                let place = self.sectors.entry(sector).or_insert_with(|| Box::new([0; SECTOR as usize]));
                place[inside].copy_from_slice(bytes);
            }
        }
    }
}

/// A write or the zeroing of a range.
#[derive(Clone)]
pub(crate) struct Change {
    id: u64,
    offset: u64,
    length: u64,
    /// None: zeroes.
    bytes: Option<Vec<u8>>,
}

impl Change {
    pub(crate) fn write(offset: u64, bytes: Vec<u8>) -> Change {
        Change { id: 0, offset, length: bytes.len() as u64, bytes: Some(bytes) }
    }

    pub(crate) fn zero(offset: u64, length: u64) -> Change {
        Change { id: 0, offset, length, bytes: None }
    }

    fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// Does the sectors that `choose` wants.
    fn apply(&self, to: &mut Sparse, mut choose: impl FnMut() -> bool) -> bool {
        let mut all = true;
        for (sector, inside, at) in sectors(self.offset, self.length) {
            if choose() {
                let bytes = self.bytes.as_ref().map(|bytes| &bytes[at..at + inside.len()]);
                to.put(sector, inside, bytes);
            } else {
                all = false;
            }
        }
        all
    }

    /// The parts that lie outside of a range.
    fn without(self, range: &Range<u64>) -> Vec<Change> {
        let part = |from: u64, to: u64| {
            (from < to).then(|| Change {
                id: self.id,
                offset: from,
                length: to - from,
                bytes: self
                    .bytes
                    .as_ref()
                    .map(|bytes| bytes[(from - self.offset) as usize..(to - self.offset) as usize].to_vec()),
            })
        };
        let before = part(self.offset, self.end().min(range.start));
        let after = part(self.offset.max(range.end), self.end());
        before.into_iter().chain(after).collect()
    }
}

/// Something that goes wrong.
struct Fault {
    writes: bool,
    range: Range<u64>,
    errno: Errno,
    /// How often; None: always.
    times: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Disk {
    current: Sparse,
    length: u64,
    stable: Sparse,
    stable_length: u64,
    /// Complete and volatile, the oldest first.
    volatile: Vec<Change>,
    next_id: u64,
    /// Submitted and not complete.
    in_flight: BTreeMap<Operator, Change>,
    faults: Vec<Fault>,
    sync_fault: Option<Errno>,
    pub(crate) stalled: bool,
    /// Operations that wait for the end of the stall.
    pub(crate) parked: Vec<Operator>,
    pub(crate) alignment: u64,
    /// Bytes that may be written before ENOSPC.
    space: Option<u64>,
}

impl Disk {
    pub(crate) fn new(length: u64) -> Disk {
        Disk { length, stable_length: length, alignment: 1, ..Disk::default() }
    }

    fn fault(&mut self, writes: bool, range: Range<u64>) -> Result<(), Errno> {
        let hit =
            |fault: &Fault| fault.writes == writes && fault.range.start < range.end && range.start < fault.range.end;
        let Some(at) = self.faults.iter().position(hit) else { return Ok(()) };
        let errno = self.faults[at].errno;
        if let Some(times) = &mut self.faults[at].times {
            *times -= 1;
            if *times == 0 {
                self.faults.remove(at);
            }
        }
        Err(errno)
    }

    pub(crate) fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<u32, Errno> {
        self.fault(false, offset..offset.saturating_add(into.len() as u64))?;
        let count = self.length.saturating_sub(offset).min(into.len() as u64) as usize;
        self.current.read(offset, &mut into[..count]);
        Ok(count as u32)
    }

    /// A change that was submitted.
    pub(crate) fn begin(&mut self, operator: Operator, change: Change) {
        self.in_flight.insert(operator, change);
    }

    /// It completes.
    pub(crate) fn complete(&mut self, operator: Operator, durable: bool, keep_size: bool) -> Result<u32, Errno> {
        let Some(mut change) = self.in_flight.remove(&operator) else { return Err(Errno(libc::EIO)) };
        let range = change.offset..change.end();
        self.fault(true, range.clone())?;
        if let (Some(space), Some(_)) = (&mut self.space, &change.bytes) {
            *space = space.checked_sub(change.length).ok_or(Errno(libc::ENOSPC))?;
        }
        if keep_size {
            change.length = change.length.min(self.length.saturating_sub(change.offset));
        }
        let count = change.length as u32;
        change.apply(&mut self.current, || true);
        self.length = self.length.max(change.end());
        if durable {
            // What was volatile there is overwritten for good.
            self.volatile =
                std::mem::take(&mut self.volatile).into_iter().flat_map(|old| old.without(&range)).collect();
            change.apply(&mut self.stable, || true);
            self.stable_length = self.stable_length.max(change.end());
        } else {
            change.id = self.next_id;
            self.next_id += 1;
            self.volatile.push(change);
        }
        Ok(count)
    }

    /// What a sync that is submitted now will cover.
    pub(crate) fn sync_mark(&self) -> u64 {
        self.next_id
    }

    /// A sync ends. One that fails forgets what it covered: a later one succeeds without it, as in the kernel.
    pub(crate) fn sync(&mut self, mark: u64, random: &mut Random) -> Result<u32, Errno> {
        let failed = self.sync_fault.take();
        let (covered, rest) =
            std::mem::take(&mut self.volatile).into_iter().partition(|change: &Change| change.id < mark);
        self.volatile = rest;
        self.settle(covered, || failed.is_none() || random.coin());
        failed.map_or(Ok(0), Err)
    }

    fn settle(&mut self, changes: Vec<Change>, mut choose: impl FnMut() -> bool) {
        for change in changes {
            if change.apply(&mut self.stable, &mut choose) {
                self.stable_length = self.stable_length.max(change.end());
            }
        }
    }

    pub(crate) fn power_cut(&mut self, random: &mut Random) {
        let mut changes = std::mem::take(&mut self.volatile);
        changes.extend(std::mem::take(&mut self.in_flight).into_values());
        self.settle(changes, || random.coin());
        self.current = self.stable.clone();
        self.length = self.stable_length;
        self.parked.clear();
        self.stalled = false;
    }

    /// The process is gone, the system lives: what was in flight happens or doesn't.
    pub(crate) fn kill(&mut self, core: usize, random: &mut Random) {
        let gone: Vec<Operator> = self.in_flight.keys().copied().filter(|operator| operator.core == core).collect();
        for operator in gone {
            if random.coin() {
                let _ = self.complete(operator, false, false);
            } else {
                self.in_flight.remove(&operator);
            }
        }
        self.parked.retain(|operator| operator.core != core);
    }
}

/// A file of a [`World`]. Several twins may hold it open; it survives them and a power cut.
#[derive(Clone)]
pub struct TwinFile {
    pub(crate) world: World,
    pub(crate) id: usize,
}

impl TwinFile {
    fn with<R>(&self, act: impl FnOnce(&mut Disk) -> R) -> R {
        act(&mut self.world.state().files[self.id])
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.with(|disk| disk.length)
    }

    /// What a read would give now, as if the file went on with zeroes.
    pub fn contents(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.with(|disk| disk.current.read(range.start, &mut bytes));
        bytes
    }

    /// What would be there for certain after a power cut.
    pub fn stable_contents(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.with(|disk| disk.stable.read(range.start, &mut bytes));
        bytes
    }

    /// Puts bytes there, on stable storage, behind the back of every twin.
    pub fn fill(&self, offset: u64, bytes: &[u8]) {
        self.with(|disk| {
            let change = Change::write(offset, bytes.to_vec());
            change.apply(&mut disk.current, || true);
            change.apply(&mut disk.stable, || true);
            disk.length = disk.length.max(change.end());
            disk.stable_length = disk.stable_length.max(change.end());
        });
    }

    /// Reads that touch the range fail, `times` times or (None) always.
    pub fn fail_reads(&self, range: Range<u64>, errno: Errno, times: Option<u32>) {
        self.with(|disk| disk.faults.push(Fault { writes: false, range, errno, times: times.map(|n| n.max(1)) }));
    }

    /// Writes and allocations that touch the range fail, `times` times or (None) always, and change nothing.
    pub fn fail_writes(&self, range: Range<u64>, errno: Errno, times: Option<u32>) {
        self.with(|disk| disk.faults.push(Fault { writes: true, range, errno, times: times.map(|n| n.max(1)) }));
    }

    /// The next sync fails, and what it should have covered is never made stable: a later sync succeeds without it.
    pub fn fail_sync(&self, errno: Errno) {
        self.with(|disk| disk.sync_fault = Some(errno));
    }

    /// Only so many bytes can be written from now on, then ENOSPC. None: no limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.with(|disk| disk.space = bytes);
    }

    /// All faults are over.
    pub fn heal(&self) {
        self.with(|disk| {
            disk.faults.clear();
            disk.sync_fault = None;
            disk.space = None;
        });
    }

    /// Offset, length and memory of reads and writes must be multiples of this, or they fail with EINVAL (O_DIRECT).
    ///
    /// # Panics
    /// If it is 0.
    pub fn require_alignment(&self, bytes: u32) {
        assert!(bytes > 0);
        self.with(|disk| disk.alignment = u64::from(bytes));
    }

    /// Nothing on this file completes until [`TwinFile::release`].
    pub fn stall(&self) {
        self.with(|disk| disk.stalled = true);
    }

    /// Ends a stall.
    pub fn release(&self) {
        let parked = self.with(|disk| {
            disk.stalled = false;
            std::mem::take(&mut disk.parked)
        });
        for operator in parked {
            self.world.state().schedule(operator);
        }
    }

    /// Operations that a stall holds up.
    pub fn held_up(&self) -> usize {
        self.with(|disk| disk.parked.len())
    }
}
