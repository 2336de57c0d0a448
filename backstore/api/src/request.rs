//! Requests, answers and errors: plain values.

use crate::{Checks, Tag};
use memory::Buffer;
use std::{fmt, ops::Range, os::fd::OwnedFd, sync::Arc};

/// What a store can do, fixed while it is open, but for its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes when it was opened, a multiple of the volume's block size. A store whose size has changed since says
    /// so by [`StoreError::OutOfRange`].
    pub bytes: u64,
    /// Offset and length of native I/O are multiples of this (1: anything). A write that isn't aligned is done as
    /// read-modify-write by the store, and needs the range of [`BlockQueue::exclusive`](crate::BlockQueue::exclusive)
    /// to itself.
    pub alignment: u32,
    /// What the medium writes at once, bytes (VPD B0 granularity, READ CAPACITY exponent).
    pub physical_block: u32,
    /// Best transfer size, bytes; 0 unknown.
    pub optimal_io: u32,
    /// Discard gives space back; granularity in bytes (0: no discard).
    pub discard_granularity: u32,
    /// Discarded blocks read as zeroes.
    pub discard_zeroes: bool,
    /// Survives a restart of the process (false for RAM, null).
    pub persistent: bool,
    /// Refuses writes.
    pub read_only: bool,
    /// A spinning medium (VPD B1 rotation rate).
    pub rotational: bool,
    /// Reads come from memory, once the medium was read: [`Request::Prefetch`] is of use.
    pub cached: bool,
    /// A write of up to so many bytes is on the medium whole or not at all, whatever happens; 0: not promised.
    pub atomic_write: u32,
}

impl Geometry {
    /// A persistent, writable medium that takes any I/O and no discard: a beginning to change fields of.
    pub const fn new(bytes: u64) -> Geometry {
        Geometry {
            bytes,
            alignment: 1,
            physical_block: 4096,
            optimal_io: 0,
            discard_granularity: 0,
            discard_zeroes: false,
            persistent: true,
            read_only: false,
            rotational: false,
            cached: false,
            atomic_write: 0,
        }
    }

    /// A range lies inside the medium.
    #[inline]
    pub fn holds(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.bytes)
    }
}

/// A block-store request. Offsets and lengths are bytes and multiples of the volume's block size.
pub enum Request {
    /// Fills `range` of the buffer. A store may answer with the data at another place of the buffer (aligned direct
    /// I/O): see [`Answer::Data`]. Bytes of the buffer outside `range` may be overwritten.
    Read {
        /// First byte of the medium.
        offset: u64,
        /// Where the data goes.
        buffer: Buffer,
        /// Part of the buffer's payload; its length is the length of the read.
        range: Range<u32>,
    },
    /// Writes `range` of the buffer.
    Write {
        /// First byte of the medium.
        offset: u64,
        /// Where the data is.
        buffer: Buffer,
        /// Part of the buffer's payload; its length is the length of the write.
        range: Range<u32>,
        /// On stable storage before it completes (FUA).
        durable: bool,
    },
    /// Like Read, of blocks with their tuples behind them ([`TUPLE`](crate::TUPLE)): `range` is as long as both. For
    /// media with protection information alone.
    ReadTuples {
        /// First byte of the medium, tuples not counted.
        offset: u64,
        /// Where the blocks go.
        buffer: Buffer,
        /// Part of the buffer's payload; whole blocks with their tuples.
        range: Range<u32>,
        /// What is checked before it completes.
        checks: Checks,
    },
    /// Like Write, of blocks with their tuples behind them. The buffer comes back as it was.
    WriteTuples {
        /// First byte of the medium, tuples not counted.
        offset: u64,
        /// Where the blocks are.
        buffer: Buffer,
        /// Part of the buffer's payload; whole blocks with their tuples.
        range: Range<u32>,
        /// On stable storage before it completes (FUA).
        durable: bool,
        /// What is checked before anything is written.
        checks: Checks,
    },
    /// All completed writes reach stable storage.
    Flush,
    /// The blocks need not be kept (UNMAP). Reads as zeroes if [`Geometry::discard_zeroes`]. Partial granules stay.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The range reads as zeroes afterwards.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Space may be given back.
        unmap: bool,
        /// On stable storage before it completes.
        durable: bool,
    },
    /// Repeats the first `pattern` bytes of the buffer over a range (WRITE SAME); bounded by the caller to a few MiB.
    Fill {
        /// First byte of the medium.
        offset: u64,
        /// Bytes of the medium; the last repetition is cut when this is not a multiple of `pattern`.
        length: u64,
        /// Begins with the pattern.
        buffer: Buffer,
        /// Length of the pattern, bytes; not 0.
        pattern: u32,
        /// On stable storage before it completes.
        durable: bool,
        /// The pattern is one block with its tuple. For media with protection information alone.
        tuple: Option<Repeated>,
    },
    /// The range will be read soon. A hint: it completes before the data is nearer.
    Prefetch {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Copies a range of another store of the same kind, without a buffer. Only what
    /// [`BlockQueue::can_copy`](crate::BlockQueue::can_copy) allows. When it fails, any part of the range may have been
    /// written.
    Copy {
        /// First byte of the medium.
        offset: u64,
        /// Bytes.
        length: u64,
        /// What the other store's [`BlockQueue::copy_source`](crate::BlockQueue::copy_source) gave.
        source: CopySource,
        /// First byte there.
        from: u64,
        /// On stable storage before it completes.
        durable: bool,
    },
    /// How much space the store takes up, and how much more it can have.
    Space,
    /// Where in the range data is: answers with extents from `offset` on, at most `limit`, and perhaps not as far as
    /// the end of the range.
    Status {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Most extents wanted.
        limit: u32,
    },
}

impl Request {
    /// The bytes of the medium that it is about: `None` for a Flush. The end saturates, so that a hostile length is
    /// merely out of range.
    pub fn span(&self) -> Option<Range<u64>> {
        let (offset, length) = match self {
            Request::Read { offset, range, .. } | Request::Write { offset, range, .. } => {
                (*offset, u64::from(range.end.saturating_sub(range.start)))
            }
            Request::ReadTuples { offset, range, checks, .. } | Request::WriteTuples { offset, range, checks, .. } => {
                (*offset, u64::from(checks.on_medium(range.end.saturating_sub(range.start))))
            }
            Request::Discard { offset, length }
            | Request::Zero { offset, length, .. }
            | Request::Fill { offset, length, .. }
            | Request::Prefetch { offset, length }
            | Request::Copy { offset, length, .. }
            | Request::Status { offset, length, .. } => (*offset, *length),
            Request::Flush | Request::Space => return None,
        };
        Some(offset..offset.saturating_add(length))
    }

    /// Changes what the medium holds (a Discard too).
    pub fn is_write(&self) -> bool {
        match self {
            Request::Write { .. }
            | Request::WriteTuples { .. }
            | Request::Discard { .. }
            | Request::Zero { .. }
            | Request::Fill { .. }
            | Request::Copy { .. } => true,
            Request::Read { .. }
            | Request::ReadTuples { .. }
            | Request::Prefetch { .. }
            | Request::Flush
            | Request::Space
            | Request::Status { .. } => false,
        }
    }

    /// Gives the buffer back, of a request that will not be made.
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Request::Read { buffer, .. }
            | Request::Write { buffer, .. }
            | Request::ReadTuples { buffer, .. }
            | Request::WriteTuples { buffer, .. }
            | Request::Fill { buffer, .. } => Some(buffer),
            Request::Flush
            | Request::Space
            | Request::Discard { .. }
            | Request::Zero { .. }
            | Request::Prefetch { .. }
            | Request::Copy { .. }
            | Request::Status { .. } => None,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.span().unwrap_or(0..0);
        let (name, durable) = match self {
            Request::Read { .. } => ("Read", false),
            Request::Write { durable, .. } => ("Write", *durable),
            Request::ReadTuples { .. } => ("ReadTuples", false),
            Request::WriteTuples { durable, .. } => ("WriteTuples", *durable),
            Request::Flush => return f.write_str("Flush"),
            Request::Discard { .. } => ("Discard", false),
            Request::Zero { unmap: false, durable, .. } => ("Zero", *durable),
            Request::Zero { unmap: true, durable, .. } => ("Zero+unmap", *durable),
            Request::Fill { durable, .. } => ("Fill", *durable),
            Request::Space => return f.write_str("Space"),
            Request::Prefetch { .. } => ("Prefetch", false),
            Request::Copy { durable, .. } => ("Copy", *durable),
            Request::Status { .. } => ("Status", false),
        };
        write!(f, "{name}{} {:#x}..{:#x}", if durable { "+durable" } else { "" }, span.start, span.end)
    }
}

/// The tuple of a block that is repeated: reference tags count on from it, but for type 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repeated {
    /// What is checked of it before anything is written.
    pub checks: Checks,
    /// First byte of the medium that all of the repetition writes; this request may be a part of it.
    pub from: u64,
}

/// A store that another one may copy from.
#[derive(Clone, Debug)]
pub struct CopySource {
    /// Its open file.
    pub descriptor: Arc<OwnedFd>,
    /// The file system that it is in.
    pub device: u64,
}

/// Provisioning status of an extent (SBC-4 5.8, GET LBA STATUS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Holds what was written; else it reads as zeroes where [`Geometry::discard_zeroes`] or no block was ever given
    /// back.
    pub mapped: bool,
}

/// Space behind a medium, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Bytes that the medium takes up.
    pub used: Option<u64>,
    /// Bytes that are free for it, and perhaps for others.
    pub available: Option<u64>,
}

/// A successful answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The data of a Read: this range of the buffer.
    Data(Range<u32>),
    /// Done.
    Done,
    /// Answer to Status: adjacent extents that begin at the asked offset, neighbours differing in `mapped`.
    Extents(Vec<Extent>),
    /// Answer to Space.
    Space(Space),
}

/// Why a store could not do it. `offset` is the byte where it went wrong, as near as is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// EIO and friends: MEDIUM ERROR, UNRECOVERED READ or WRITE ERROR with the LBA.
    #[error("the medium failed at byte {offset}")]
    Medium {
        /// Where.
        offset: u64,
    },
    /// ENOSPC, EDQUOT: DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
    #[error("no space left in the store")]
    NoSpace,
    /// The file or device is gone: NOT READY.
    #[error("the store is gone")]
    Gone,
    /// A flush failed earlier; all is refused until the operator clears it: MEDIUM ERROR / HARDWARE ERROR.
    #[error("a flush failed earlier and the volume is latched as failed")]
    Latched,
    /// A tuple is not what it should be: ABORTED COMMAND, LOGICAL BLOCK ... CHECK FAILED with the LBA.
    #[error("the {tag:?} tag of the block at byte {offset} is wrong")]
    Protection {
        /// Which of its fields.
        tag: Tag,
        /// First byte of the block, tuples not counted.
        offset: u64,
    },
    /// Outside of the medium, which has become smaller since the request was checked: ILLEGAL REQUEST, LOGICAL BLOCK
    /// ADDRESS OUT OF RANGE.
    #[error("outside of the {bytes} bytes of the store")]
    OutOfRange {
        /// What is left of it.
        bytes: u64,
    },
    /// Opened read-only: DATA PROTECT, WRITE PROTECTED.
    #[error("the store is read-only")]
    ReadOnly,
    /// Anything else, with its errno: HARDWARE ERROR, INTERNAL TARGET FAILURE. EINVAL: the request itself is wrong
    /// (outside its own buffer).
    #[error("the store failed with errno {0}")]
    Other(i32),
}

/// An answer with the caller's tag and buffer.
pub struct Completion {
    /// The caller's.
    pub tag: u64,
    /// What happened.
    pub result: Result<Answer, StoreError>,
    /// The request's buffer.
    pub buffer: Option<Buffer>,
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("tag", &self.tag)
            .field("result", &self.result)
            .field("buffer", &self.buffer.is_some())
            .finish()
    }
}
