//! What a block store is asked, and what it answers. No I/O here.

use memory::{Buffer, RegionSlice};
use std::ops::Range;

/// What a store can do, fixed while it is open (a resize makes a new one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, a multiple of the volume's block size.
    pub bytes: u64,
    /// Offset and length of native I/O are multiples of this (1: anything). A write that isn't aligned is done as
    /// read-modify-write by the store, and needs the range of [`BlockQueue::exclusive`] to itself.
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
}

/// A block-store request. Offsets and lengths are bytes and multiples of the volume's block size.
pub enum Request {
    /// Fills `range` of the buffer. A store may answer with the data at another place of the buffer (aligned direct
    /// I/O): see [`Answer::Data`].
    Read { offset: u64, buffer: Buffer, range: Range<u32> },
    /// Writes `range` of the buffer; `durable`: on stable storage before it completes (FUA).
    Write { offset: u64, buffer: Buffer, range: Range<u32>, durable: bool },
    /// All completed writes reach stable storage.
    Flush,
    /// The blocks need not be kept (UNMAP). Reads as zeroes if `discard_zeroes`. Partial granules may stay.
    Discard { offset: u64, length: u64 },
    /// The range reads as zeroes afterwards; space may be given back when `unmap`.
    Zero { offset: u64, length: u64, unmap: bool, durable: bool },
    /// Repeats the first `pattern` bytes of the buffer over a range (WRITE SAME); bounded by the caller to a few MiB.
    Fill { offset: u64, length: u64, buffer: Buffer, pattern: u32, durable: bool },
    /// Where in the range data is: answers with extents from `offset` on, at most `limit`.
    Status { offset: u64, length: u64, limit: u32 },
}

/// Provisioning status of an extent (SBC-4 5.8, GET LBA STATUS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent { /// Bytes.
    pub offset: u64, /// Bytes.
    pub length: u64, /// Has blocks of its own.
    pub mapped: bool }

/// A successful answer.
pub enum Answer {
    /// The data of a Read: this range of the buffer.
    Data(Range<u32>),
    /// Done.
    Done,
    /// Answer to Status: adjacent extents that begin at the asked offset.
    Extents(Vec<Extent>),
}

/// Why a store could not do it. `offset` is the byte where it went wrong, as near as is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// EIO and friends: MEDIUM ERROR, UNRECOVERED READ or WRITE ERROR with the LBA.
    #[error("the medium failed at byte {offset}")]
    Medium { /// Where.
        offset: u64 },
    /// ENOSPC, EDQUOT: DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
    #[error("no space left in the store")]
    NoSpace,
    /// The file or device is gone: NOT READY.
    #[error("the store is gone")]
    Gone,
    /// A flush failed earlier; all is refused until the operator clears it: MEDIUM ERROR / HARDWARE ERROR.
    #[error("a flush failed earlier and the volume is latched as failed")]
    Latched,
    /// Opened read-only: DATA PROTECT, WRITE PROTECTED.
    #[error("the store is read-only")]
    ReadOnly,
    /// Anything else, with its errno: HARDWARE ERROR, INTERNAL TARGET FAILURE.
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

/// What became of a request.
pub enum Submitted {
    /// Done already.
    Done(Completion),
    /// Its completion comes out of [`BlockQueue::complete`].
    Pending,
    /// The queue is at its bound: keep it, and offer it again after a completion of this queue.
    Full(Request),
}

/// The data handle of one store on one core. `R` is the reactor, `C` its completion type.
pub trait BlockQueue<R, C> {
    /// What the store can do.
    fn geometry(&self) -> &Geometry;
    /// Starts a request. `tag` comes back in its completion.
    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted;
    /// Takes a reactor completion whose token this queue made. `Some` when a request ended with it.
    /// Tokens: the queue puts `token_base | slot` into its operations, where `token_base` is given when it is made
    /// and the lower 24 bits are the queue's own.
    fn complete(&mut self, reactor: &mut R, completion: C) -> Option<Completion>;
    /// Requests in flight.
    fn in_flight(&self) -> u32;
    /// The range that a write of this range needs to itself (rounded out to `alignment`); None when it needs no fence.
    fn exclusive(&self, range: Range<u64>) -> Option<Range<u64>> {
        let a = u64::from(self.geometry().alignment);
        let out = range.start / a * a..range.end.div_ceil(a) * a;
        (out != range).then_some(out)
    }
    /// Reads at once when that never blocks (RAM, null). None: use `submit`.
    fn read_now(&mut self, _offset: u64, _into: &mut [u8]) -> Option<Result<(), StoreError>> { None }
    /// Says that a block will be read soon.
    fn prefetch(&self, _offset: u64, _length: usize) {}
    /// The store's own pages for a send without a copy (RAM). None: use `submit`.
    fn region(&self, _offset: u64, _length: u32) -> Option<RegionSlice> { None }
}
