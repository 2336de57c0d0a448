//! What all queues of one open file share: the descriptor, what became of it, and what it was found not to do.

use super::walk::Missing;
use crate::Capacity;
use crate::errno::store_error;
use backstore_api::{CopySource, Extent, Space, StoreError};
use reactor::{Errno, JobResult};
use rustix::fs::{Advice, SeekFrom};
use std::{
    num::NonZeroU64,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Bytes of one extent in a job's answer.
const PACKED: usize = 17;

pub(crate) struct Shared {
    pub(crate) descriptor: Arc<OwnedFd>,
    pub(crate) path: PathBuf,
    /// The page cache is between us and the medium.
    pub(crate) buffered: bool,
    /// The file can say where its holes are.
    pub(crate) holes: bool,
    /// Its space stays allocated: what was zeroed is told from data by what is not written yet, which looks like data
    /// while it is in the page cache.
    keeps: bool,
    /// How to see that it is gone.
    pub(crate) presence: Presence,
    /// What of it is served.
    pub(crate) capacity: Capacity,
    /// Extents are told in whole blocks of this many bytes.
    pub(crate) block_size: u64,
    latched: AtomicBool,
    gone: AtomicBool,
    no_punch: AtomicBool,
    no_zero: AtomicBool,
    no_copy: AtomicBool,
    #[cfg(feature = "broken-durability")]
    pub(crate) broken: super::Broken,
}

/// What tells a file that is there from one that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// A regular file that had a name when it was opened: it is gone with its last name.
    Name,
    /// A device: it is gone when it has no size.
    Size,
    /// Never had a name (O_TMPFILE, memfd): it stays until closed.
    Always,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The rings let go of the open file some time later; the lock must not outlive the volume.
        let _ = rustix::fs::flock(&self.descriptor, rustix::fs::FlockOperation::Unlock);
    }
}

impl Shared {
    pub(crate) fn new(
        descriptor: impl Into<Arc<OwnedFd>>,
        path: PathBuf,
        buffered: bool,
        holes: bool,
        presence: Presence,
        block_size: u32,
        bytes: u64,
    ) -> Shared {
        Shared {
            descriptor: descriptor.into(),
            path,
            buffered,
            holes,
            keeps: false,
            presence,
            block_size: u64::from(block_size.max(1)),
            capacity: Capacity::new(bytes),
            latched: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            no_punch: AtomicBool::new(false),
            no_zero: AtomicBool::new(false),
            no_copy: AtomicBool::new(false),
            #[cfg(feature = "broken-durability")]
            broken: super::Broken::default(),
        }
    }

    /// The same of a file that keeps its space.
    pub(crate) fn keeping(mut self, keeps: bool) -> Shared {
        self.keeps = keeps;
        self
    }

    pub(crate) fn state(&self) -> Result<(), StoreError> {
        if self.gone.load(Ordering::Acquire) {
            return Err(StoreError::Gone);
        }
        if self.latched.load(Ordering::Acquire) {
            return Err(StoreError::Latched);
        }
        Ok(())
    }

    /// Data that was acknowledged, or was about to be, may be lost.
    pub(crate) fn latch(&self, errno: Errno) {
        if !self.latched.swap(true, Ordering::AcqRel) {
            tracing::error!(
                path = %self.path.display(),
                errno = errno.0,
                "a flush failed: the volume is latched as failed until it is cleared"
            );
        }
    }

    pub(crate) fn clear_latch(&self) {
        if self.latched.swap(false, Ordering::AcqRel) {
            tracing::warn!(path = %self.path.display(), "the latch of a failed flush was cleared");
        }
    }

    pub(crate) fn missing(&self) -> Missing {
        Missing { punch: self.no_punch.load(Ordering::Relaxed), zero: self.no_zero.load(Ordering::Relaxed) }
    }

    pub(crate) fn lacks_punch(&self) {
        self.no_punch.store(true, Ordering::Relaxed);
    }

    pub(crate) fn lacks_zero(&self) {
        self.no_zero.store(true, Ordering::Relaxed);
    }

    pub(crate) fn lacks_copy(&self) {
        self.no_copy.store(true, Ordering::Relaxed);
    }

    /// Its file system was not found unable to copy between files.
    pub(crate) fn may_copy(&self) -> bool {
        !self.no_copy.load(Ordering::Relaxed)
    }

    /// Copies from another file; gives the bytes that were copied. Blocks.
    pub(crate) fn copy(&self, source: &CopySource, mut from: u64, mut offset: u64, length: u64) -> JobResult {
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let copied = rustix::fs::copy_file_range(
                &*source.descriptor,
                Some(&mut from),
                &*self.descriptor,
                Some(&mut offset),
                most,
            );
            match copied {
                Ok(0) => break,
                Ok(copied) => left -= (copied as u64).min(left),
                Err(_) if left < length => break,
                Err(error) => return Err(Errno(error.raw_os_error())),
            }
        }
        Ok((length - left, Vec::new()))
    }

    pub(crate) fn set_gone(&self) {
        if !self.gone.swap(true, Ordering::AcqRel) {
            tracing::error!(path = %self.path.display(), "the file or device behind a volume is gone");
        }
    }

    /// Looks whether it is still there. Blocks.
    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        let there = match self.presence {
            Presence::Always => Ok(true),
            Presence::Name => rustix::fs::fstat(&*self.descriptor).map(|stat| stat.st_nlink > 0),
            Presence::Size => rustix::fs::seek(&*self.descriptor, SeekFrom::End(0)).map(|size| size > 0),
        };
        let gone = match there {
            Ok(there) => !there,
            Err(error) => store_error(Errno(error.raw_os_error()), 0) == StoreError::Gone,
        };
        if gone {
            self.set_gone();
        }
        self.state()
    }

    /// [`probe`](Self::probe) as a job, which has nothing to say: whoever asks next hears of it. Blocks.
    pub(crate) fn look(&self) -> JobResult {
        let _ = self.probe();
        Ok((0, Vec::new()))
    }

    /// The extents of a range, packed for a job's answer. Blocks.
    pub(crate) fn list(&self, offset: u64, end: u64, limit: u32) -> JobResult {
        if self.keeps
            && let Some(length) = NonZeroU64::new(end.saturating_sub(offset))
        {
            // A hint: what isn't dropped is called data.
            let _ = rustix::fs::fadvise(&*self.descriptor, offset, Some(length), Advice::DontNeed);
        }
        let seek = |from| match rustix::fs::seek(&*self.descriptor, from) {
            Ok(found) => Ok(found.min(end)),
            Err(rustix::io::Errno::NXIO) => Ok(end),
            Err(error) => Err(Errno(error.raw_os_error())),
        };
        let mut packed = Vec::new();
        let mut at = offset;
        let mut push = |from: u64, to: u64, mapped: bool| {
            packed.extend_from_slice(&from.to_le_bytes());
            packed.extend_from_slice(&(to - from).to_le_bytes());
            packed.push(u8::from(mapped));
        };
        let mut count = 0;
        while at < end && count < limit {
            // A block with any data in it is mapped.
            let data = (seek(SeekFrom::Data(at))? / self.block_size * self.block_size).max(at);
            let data = if data + self.block_size > end { end } else { data };
            if data > at {
                push(at, data, false);
                at = data;
            } else {
                let hole = seek(SeekFrom::Hole(at))?;
                // It may have become a hole since; one block is still true of the moment before.
                let hole = hole.max(at + 1).next_multiple_of(self.block_size).min(end);
                push(at, hole, true);
                at = hole;
            }
            count += 1;
        }
        Ok((u64::from(count), packed))
    }
}

impl Shared {
    /// The space that the file takes up, and what its file system has left, packed for a job's answer; a device doesn't
    /// say. Blocks.
    pub(crate) fn space(&self) -> JobResult {
        let errno = |error: rustix::io::Errno| Errno(error.raw_os_error());
        let (used, available) = match self.presence {
            Presence::Size => return Ok((0, Vec::new())),
            Presence::Name | Presence::Always => {
                let stat = rustix::fs::fstat(&self.descriptor).map_err(errno)?;
                let system = rustix::fs::fstatvfs(&self.descriptor).map_err(errno)?;
                (u64::try_from(stat.st_blocks).unwrap_or(0) * 512, system.f_bavail.saturating_mul(system.f_frsize))
            }
        };
        Ok((0, [used.to_le_bytes(), available.to_le_bytes()].concat()))
    }
}

/// The other side of [`Shared::space`].
pub(crate) fn unpack_space(packed: &[u8]) -> Space {
    let number = |at: usize| packed.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    Space { used: number(0), available: number(8) }
}

/// The other side of [`Shared::list`]. Neighbours that say the same become one.
pub(crate) fn unpack(packed: &[u8]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::with_capacity(packed.len() / PACKED);
    for piece in packed.chunks_exact(PACKED) {
        let number = |at: usize| piece[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let extent = Extent { offset: number(0), length: number(8), mapped: piece[16] != 0 };
        match extents.last_mut() {
            Some(last) if last.mapped == extent.mapped => last.length += extent.length,
            _ => extents.push(extent),
        }
    }
    extents
}
