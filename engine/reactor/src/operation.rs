//! The typed catalogue of operations.
use memory::{Buffer, RegionSlice};
use std::ops::Range;

/// A registered file or socket of one reactor, with a generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Descriptor { /// Slot in the table of registered files.
    pub slot: u32, /// Tells a reused slot from its former holder.
    pub generation: u32 }

/// Names a submitted operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OperationId(pub memory::Key);

/// An errno of the kernel, as a positive number (`libc::EIO`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

/// What can be asked of a reactor.
pub enum Operation {
    /// Receives what is there (at least one byte; 0 = end of stream) into a buffer of the reactor's own provided
    /// ring; the buffer comes back in the completion. ENOBUFS when the ring of buffers is empty: submit again later.
    Receive { socket: Descriptor },
    /// Receives exactly into `range` of a buffer (MSG_WAITALL semantics are not promised: look at the count).
    ReceiveInto { socket: Descriptor, buffer: Buffer, range: Range<u32> },
    /// Sends all of a message (short sends are continued inside). One in flight per socket is the caller's duty.
    Send { socket: Descriptor, message: Message },
    /// Reads `range.len()` bytes at `offset`; short only at the end of the file.
    Read { file: Descriptor, offset: u64, buffer: Buffer, range: Range<u32> },
    /// Writes `range` of a buffer at `offset`; `durable` as RWF_DSYNC.
    Write { file: Descriptor, offset: u64, buffer: Buffer, range: Range<u32>, durable: bool },
    /// fsync or fdatasync.
    Sync { file: Descriptor, data_only: bool },
    /// fallocate with a mode of `libc::FALLOC_FL_*`.
    Allocate { file: Descriptor, mode: i32, offset: u64, length: u64 },
    /// shutdown(2), both directions.
    Shutdown { socket: Descriptor },
}

/// Bytes to send, in order. Allocated once per connection and recycled: it comes back, with its parts, when sent.
#[derive(Default)]
pub struct Message {
    /// Headers and small payloads.
    pub bytes: Vec<u8>,
    /// What is sent, in order. Empty: all of `bytes`.
    pub parts: Vec<Part>,
    /// Buffers that parts refer to; they go home when the message is cleared after the send.
    pub buffers: Vec<Buffer>,
}

/// One piece of a [`Message`].
pub enum Part {
    /// A range of `Message::bytes`.
    Bytes(Range<u32>),
    /// A range of `Message::buffers[index]`; several parts may name the same buffer.
    Buffer {
        /// Position in `Message::buffers`.
        index: u32,
        /// Bytes of its payload.
        range: Range<u32>,
    },
    /// Pages of a RAM volume.
    Region(RegionSlice),
}

/// An operation's terminal completion.
pub struct Completion {
    /// The submitter's token.
    pub token: u64,
    /// Bytes moved (0 for operations that move none), or the errno. A cancelled one is ECANCELED.
    pub result: Result<u32, Errno>,
    /// What the operation owned.
    pub returned: Returned,
}

/// What comes home with a completion.
pub enum Returned {
    /// Nothing was owned.
    Nothing,
    /// The buffer of a Receive, ReceiveInto, Read or Write.
    Buffer(Buffer),
    /// The message of a Send.
    Message(Message),
    /// A job's bytes (its number, cut to u32, is `result`; the whole number is here).
    Job(u64, Vec<u8>),
}
