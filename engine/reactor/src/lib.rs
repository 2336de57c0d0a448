//! One ring per core. The [`Reactor`] trait is what the engine and the stores are generic over; [`Ring`] is the real
//! one on io_uring, [`twin::Twin`] a simulated one for tests (sockets, files, time, lost power).
//!
//! Contract:
//! - An operation owns everything that the kernel may touch; it moves into a slot before the submission is
//!   published, and comes back in its terminal [`Completion`] only.
//! - A send of a large message may be made from its own memory (`RingSettings::zero_copy`). It completes twice then: see
//!   [`Returned::Held`].
//! - A Receive may stay, and completes with [`Returned::Part`] then, any number of times before its terminal completion. Whatever it
//!   brings is in the order of the stream, also what comes between a `cancel` and its end. So beside it there is no other
//!   receive on that socket, and whoever wants to receive in another way, or no more, cancels it and waits for the end. From a
//!   socket that always has more it may take many buffers in a turn: let it stay where little comes at a time.
//! - `token` is the caller's; it comes back unchanged. The reactor's own `user_data` carries slot and generation: a
//!   stale completion is dropped and counted.
//! - `submit` never blocks and gives the operation back when the slab of slots is full. What is wrong with an operation
//!   (a closed descriptor: EBADF) is said by its completion, in the next turn.
//! - Descriptors are registered files. `close` waits inside for operations in flight on it (it cancels them first).
//! - `turn` publishes everything submitted, in one system call, and collects completions. It may return with none.
//! - Wakes and mailboxes ([`mailbox()`]): look into the mailboxes after every turn; what is sent later ends the next turn's sleep.
//! - Nothing is allocated per operation. Helper threads, and vectors for sends of several parts, are made when first
//!   needed and kept.
#![allow(unsafe_code)] // one of the two homes of unsafe code: see ARCHITECTURE.md

pub mod descriptor;
mod features;
mod mailbox;
mod offload;
mod operation;
mod ring;
pub mod twin;

pub use features::{Feature, FeatureMask, Features, UnknownFeature, Use};
pub use mailbox::{Mailbox, Sender, mailbox};
pub use operation::*;
pub use ring::{Counters, Ring, RingSettings, RingWaker};

use std::{io, os::fd::OwnedFd, time::Duration};

/// How long a turn may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Collect what is ready.
    Poll,
    /// Sleep until a completion, a wake, or this time (same clock as [`Reactor::now`]).
    Until(Duration),
    /// Sleep until a completion or a wake.
    Forever,
}

/// Wakes a sleeping core from any thread: costs a system call only when the core sleeps.
pub trait Wake: Clone + Send + Sync + 'static {
    /// Makes the core's current or next `turn` return.
    fn wake(&self);
}

/// What the engine needs of a ring.
pub trait Reactor: 'static {
    /// Its waker.
    type Waker: Wake;
    /// The core's buffers.
    fn pool(&self) -> &memory::Pool;
    /// Time since an epoch that is the same on all cores of the process; read once per turn.
    fn now(&self) -> Duration;
    /// A waker for this core.
    fn waker(&self) -> Self::Waker;
    /// Registers a descriptor with the ring. Err when the table is full.
    fn register(&mut self, descriptor: OwnedFd) -> io::Result<Descriptor>;
    /// Registers another handle of the same open file (stores are opened once, and registered by every core).
    fn register_shared(&mut self, file: &std::sync::Arc<OwnedFd>) -> io::Result<Descriptor>;
    /// The same for direct I/O on a device that is to be polled: reads and writes don't interrupt, and `turn` looks for their
    /// completions instead of sleeping. Where that can't be done, with a warning, as `register_shared`.
    fn register_polled(&mut self, file: &std::sync::Arc<OwnedFd>) -> io::Result<Descriptor> {
        self.register_shared(file)
    }
    /// Cancels what is in flight on the descriptor; its operations complete with an error. The slot and the
    /// descriptor are closed after the last of them. A socket with messages that are [`Returned::Held`] is reset: what the
    /// peer has not acknowledged of them is lost.
    fn close(&mut self, descriptor: Descriptor);
    /// The same, and a socket that was given memory by reference ([`splices`](Reactor::splices)) is reset as well: its peer is
    /// not to have what it has not got by now.
    fn abort(&mut self, descriptor: Descriptor) {
        self.close(descriptor);
    }
    /// Queues an operation. Gives it back when no slot is free.
    #[allow(clippy::result_large_err)] // whole, as it came: a box would be one more allocation
    fn submit(&mut self, operation: Operation, token: u64) -> Result<OperationId, Operation>;
    /// Has the kernel acknowledge at once what has come on a socket, instead of waiting for something to send with it.
    /// Best effort, and of no effect where nothing is ever delayed.
    fn acknowledge(&mut self, _socket: Descriptor) {}
    /// Whether the last receive on a socket has left something in it: false if the kernel hasn't said so, as of one that was
    /// cancelled.
    fn has_more(&self, _socket: Descriptor) -> bool {
        false
    }
    /// Whether a message of so many bytes, with pieces of a region of so many, is sent without reading these.
    fn splices(&self, _region: &memory::Region, _piece: u32, _message: usize) -> bool {
        false
    }
    /// Asks for cancellation, best effort; the completion still comes.
    fn cancel(&mut self, id: OperationId);
    /// Publishes what was submitted for disks at once, not at the end of the turn: they stand still meanwhile.
    fn start_disks(&mut self) {}
    /// Runs a blocking call on the helper pool; completes with `token`, `result` = what it gives.
    /// Err(job) when the bounded queue is full.
    fn offload(&mut self, job: Job, token: u64) -> Result<(), Job>;
    /// Publishes, optionally sleeps, appends completions to `out`. An interrupted wait is not an error.
    fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()>;
    /// Operations in flight (for a drain before shutdown).
    fn in_flight(&self) -> u32;
}

/// A blocking call for the helper pool. Its answer is what a system call would give: Err is an errno.
pub type Job = Box<dyn FnOnce() -> JobResult + Send>;
/// Answer of a [`Job`]: a number, and bytes when it has more to say.
pub type JobResult = Result<(u64, Vec<u8>), Errno>;
