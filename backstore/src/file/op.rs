//! A request of a file's queue, and the buffers that its operations take and give back.

use super::walk::{Next, Task, Walk};
use backstore_api::CopySource;
use memory::Buffer;
use reactor::{Descriptor, Operation};
use rustix::fs::FallocateFlags;

/// A request under way.
pub(super) struct Op {
    pub(super) tag: u64,
    pub(super) walk: Walk,
    /// What a copy copies.
    pub(super) source: Option<CopySource>,
    /// The operation in flight.
    pub(super) running: Option<Next>,
    /// The caller's buffer, when no operation has it.
    pub(super) user: Option<Buffer>,
    /// A bounce buffer, kept to the end, when no operation has it.
    pub(super) bounce: Option<Buffer>,
    pub(super) retries: u8,
    /// It takes pages away from the file, and said so to those that are kept in memory.
    pub(super) disturbs: bool,
    /// They are to leave first.
    pub(super) clears: bool,
}

impl Op {
    pub(super) fn new(tag: u64, walk: Walk, user: Option<Buffer>, source: Option<CopySource>) -> Op {
        Op { tag, walk, source, running: None, user, bounce: None, retries: 0, disturbs: false, clears: false }
    }
}

/// Builds the ring operation; the buffer it needs moves into it.
pub(super) fn operation(op: &mut Op, next: Next, file: Descriptor) -> Option<Operation> {
    let durable = op.walk.durable;
    Some(match next {
        Next::Direct { offset, place, length } => {
            let (buffer, range) = (op.user.take()?, place..place + length);
            match op.walk.task {
                Task::Read(_) => Operation::Read { file, offset, buffer, range },
                _ => Operation::Write { file, offset, buffer, range, durable },
            }
        }
        Next::Fetch { offset, length } => Operation::Read { file, offset, buffer: op.bounce.take()?, range: 0..length },
        Next::Store { offset, length, fresh } => {
            let mut buffer = op.bounce.take()?;
            if fresh {
                op.walk.source(op.user.as_deref().unwrap_or_default(), &mut buffer[..length as usize]);
            }
            Operation::Write { file, offset, buffer, range: 0..length, durable }
        }
        Next::Punch { offset, length } => {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Operation::Allocate { file, mode: mode.bits() as i32, offset, length }
        }
        Next::ZeroRange { offset, length } => {
            let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            Operation::Allocate { file, mode: mode.bits() as i32, offset, length }
        }
        Next::Advise { offset, length } => Operation::ReadAhead { file, offset, length },
        Next::Sync => Operation::Sync { file, data_only: true },
        Next::Clone { .. } | Next::Clear | Next::Look | Next::List | Next::Count | Next::Done => return None,
    })
}

/// The buffer of an operation that was not started.
pub(super) fn take_back(op: &mut Op, next: Next, refused: Operation) {
    if let Operation::Read { buffer, .. } | Operation::Write { buffer, .. } = refused {
        put(op, next, buffer);
    }
}

pub(super) fn put(op: &mut Op, next: Next, buffer: Buffer) {
    match next {
        Next::Direct { .. } => op.user = Some(buffer),
        _ => op.bounce = Some(buffer),
    }
}
