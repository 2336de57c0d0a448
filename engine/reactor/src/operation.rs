//! The typed catalogue of operations.
use memory::{Buffer, HEADROOM, Lease, Region};
use std::{ops::Range, sync::Arc};

/// A registered file or socket of one reactor, with a generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Descriptor {
    /// Slot in the table of registered files.
    pub slot: u32,
    /// Tells a reused slot from its former holder; never 0.
    pub generation: u32,
}

/// Names a submitted operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OperationId(pub memory::Key);

/// An errno of the kernel, as a positive number (`libc::EIO`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// A send met a page that isn't there: [`Part::Pages`].
    pub const FAULT: Errno = Errno(libc::EFAULT);
    /// It was cancelled.
    pub const CANCELED: Errno = Errno(libc::ECANCELED);
    /// A receive found no buffer of the reactor's.
    pub const NO_BUFFERS: Errno = Errno(libc::ENOBUFS);
    /// Not now.
    pub const AGAIN: Errno = Errno(libc::EAGAIN);
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Errno({self})")
    }
}

impl std::error::Error for Errno {}

impl From<std::io::Error> for Errno {
    /// EIO when the error did not come from the system.
    fn from(error: std::io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// What can be asked of a reactor. Ranges are bytes of the buffer's payload and must lie inside it (a reactor panics
/// otherwise); offsets and lengths are bytes of the file.
pub enum Operation {
    /// Receives what is there (at least one byte; 0 = end of stream) into a buffer of the reactor's own provided
    /// ring; the buffer comes back in the completion when there are bytes in it. ENOBUFS when no buffer is free:
    /// submit again when some came home.
    Receive {
        /// From where.
        socket: Descriptor,
        /// It may stay when bytes have come, and say so ([`Returned::Part`]). It ends when a cancel asks for it, as any receive does
        /// (end of stream, an error, no buffer), and of its own accord at any time: submit again then.
        stay: bool,
        /// So many bytes at most; not with `stay`.
        most: u32,
    },
    /// Receives at least one byte into `range` of a buffer, and what comes behind that into its headroom (0 = end of stream):
    /// look at the count.
    ReceiveInto {
        /// From where.
        socket: Descriptor,
        /// Comes back.
        buffer: Buffer,
        /// Where to put the bytes.
        range: Range<u32>,
        /// So many bytes at most into the headroom, from its start.
        behind: u32,
    },
    /// Receives at least one byte of PDUs that are probably alike, so that the data of each lies at the start of a buffer, if they
    /// are (0 = end of stream): look at the count.
    ReceivePdus {
        /// From where.
        socket: Descriptor,
        /// Comes back.
        pdus: Pdus,
    },
    /// Sends all of a message (short sends are continued inside). One in flight per socket is the caller's duty.
    Send {
        /// Where to.
        socket: Descriptor,
        /// Comes back.
        message: Message,
    },
    /// Reads `range.len()` bytes at `offset`; short only at the end of the file.
    Read {
        /// From where.
        file: Descriptor,
        /// In the file.
        offset: u64,
        /// Comes back. Of the reactor's own pool it is the fastest.
        buffer: Buffer,
        /// Where to put the bytes.
        range: Range<u32>,
    },
    /// Writes `range` of a buffer at `offset`, all of it.
    Write {
        /// Where to.
        file: Descriptor,
        /// In the file.
        offset: u64,
        /// Comes back.
        buffer: Buffer,
        /// What to write.
        range: Range<u32>,
        /// On stable storage before it completes (RWF_DSYNC).
        durable: bool,
    },
    /// All completed writes of the file reach stable storage. Those still in flight may or may not.
    Sync {
        /// Which.
        file: Descriptor,
        /// fdatasync instead of fsync.
        data_only: bool,
    },
    /// fallocate(2).
    Allocate {
        /// Which.
        file: Descriptor,
        /// Of `libc::FALLOC_FL_*`.
        mode: i32,
        /// In the file.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// posix_fadvise(2), POSIX_FADV_WILLNEED: the range will be read soon.
    ReadAhead {
        /// Which.
        file: Descriptor,
        /// In the file.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// shutdown(2), both directions.
    Shutdown {
        /// Which.
        socket: Descriptor,
    },
}

impl Operation {
    /// What it is about.
    pub fn descriptor(&self) -> Descriptor {
        match *self {
            Operation::Receive { socket, .. }
            | Operation::ReceiveInto { socket, .. }
            | Operation::ReceivePdus { socket, .. }
            | Operation::Send { socket, .. }
            | Operation::Shutdown { socket } => socket,
            Operation::Read { file, .. }
            | Operation::Write { file, .. }
            | Operation::Sync { file, .. }
            | Operation::ReadAhead { file, .. }
            | Operation::Allocate { file, .. } => file,
        }
    }

    /// What it owns, for a completion without it having been done.
    pub fn into_returned(self) -> Returned {
        match self {
            Operation::ReceiveInto { buffer, .. }
            | Operation::Read { buffer, .. }
            | Operation::Write { buffer, .. } => Returned::Buffer(buffer),
            Operation::ReceivePdus { pdus, .. } => Returned::Pdus(pdus),
            Operation::Send { message, .. } => Returned::Message(message),
            Operation::Receive { .. }
            | Operation::Sync { .. }
            | Operation::Allocate { .. }
            | Operation::ReadAhead { .. }
            | Operation::Shutdown { .. } => Returned::Nothing,
        }
    }
}

/// Buffers for PDUs that follow each other and have as much data each. What is in front of the data lies right in front of it, at the end
/// of the buffer's headroom. The list comes back, to be used again.
#[derive(Default)]
pub struct Pdus {
    /// One for each, at least as long as the data.
    pub buffers: Vec<Buffer>,
    /// Bytes in front of the first one's data, and of the others'; not more than the headroom.
    pub first: u32,
    /// See `first`.
    pub between: u32,
    /// Bytes of data.
    pub data: u32,
}

impl Pdus {
    /// Bytes in front of the data in the buffer at this place.
    fn front(&self, place: usize) -> usize {
        (if place == 0 { self.first } else { self.between }) as usize
    }

    /// What lies in the buffer at this place if `count` bytes were received in all: in front of the data, and of the data.
    pub fn lengths(&self, place: usize, count: usize) -> (usize, usize) {
        let before = (0..place).map(|place| self.front(place) + self.data as usize).sum();
        let front = count.saturating_sub(before).min(self.front(place));
        (front, count.saturating_sub(before + front).min(self.data as usize))
    }

    /// # Panics
    /// If a PDU has no room in its buffer: a mistake of the caller that must never reach the kernel.
    pub(crate) fn check(&self) {
        (0..self.buffers.len()).for_each(|place| _ = self.range(place));
    }

    /// Where what comes is to be put: all of one buffer's, from the start of its headroom.
    pub(crate) fn range(&self, place: usize) -> Range<usize> {
        let (front, data) = (self.front(place), self.data as usize);
        assert!(front <= HEADROOM && data <= self.buffers[place].len(), "a PDU has no room in its buffer");
        HEADROOM - front..HEADROOM + data
    }

    /// What is in front of the data.
    pub fn in_front(&self, place: usize, length: usize) -> &[u8] {
        let front = self.front(place);
        &self.buffers[place].headroom()[HEADROOM - front..][..length]
    }
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
    /// Regions that parts refer to: counted once per message, not once per part, because all cores share the count.
    pub regions: Vec<Arc<Region>>,
    /// Leases of pages of files that parts refer to, one of each file.
    pub leases: Vec<Lease>,
}

impl Message {
    /// Bytes that are sent.
    pub fn length(&self) -> usize {
        if self.parts.is_empty() { self.bytes.len() } else { self.parts.iter().map(Part::length).sum() }
    }

    /// Empties it; the memory of its lists is kept.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.buffers.clear();
        self.regions.clear();
        self.leases.clear();
        self.bytes.clear();
    }
}

/// One piece of a [`Message`].
#[derive(Clone, Debug)]
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
    /// A range of `Message::regions[index]`: pages of a RAM volume.
    Region {
        /// Position in `Message::regions`.
        index: u32,
        /// Bytes of the region.
        length: u32,
        /// Where in the region they begin.
        offset: u64,
    },
    /// A range of a file, in the page cache, under `Message::leases[index]`. If the file doesn't have it any more, the send
    /// fails with EFAULT.
    Pages {
        /// Position in `Message::leases`.
        index: u32,
        /// Bytes.
        length: u32,
        /// Where in the file they begin.
        offset: u64,
    },
}

impl Part {
    /// Bytes of the piece.
    pub fn length(&self) -> usize {
        match self {
            Part::Bytes(range) | Part::Buffer { range, .. } => range.len(),
            Part::Region { length, .. } | Part::Pages { length, .. } => *length as usize,
        }
    }
}

/// An operation's terminal completion. A Send may have one more ([`Returned::Held`]), a Receive some before ([`Returned::Part`]).
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
    /// The buffer of a Receive that stays: the next bytes come with the same token.
    Part(Buffer),
    /// What a ReceivePdus was given.
    Pdus(Pdus),
    /// The message of a Send.
    Message(Message),
    /// A Send is over, but it was made without a copy, and the kernel still reads the message: it comes home later, in a
    /// second completion with the same token ([`Returned::Late`]). The next Send may follow now.
    Held,
    /// The message of a Send whose completion said [`Returned::Held`]; `result` is the same again.
    Late(Message),
    /// A job's bytes (its number, cut to u32, is `result`; the whole number is here).
    Job(u64, Vec<u8>),
}
