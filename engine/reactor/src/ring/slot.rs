//! An operation in flight: what it owns, how far it is, and its next submission.

use super::{
    files::Links,
    provided,
    sending::{Round, Sending, Vector},
};
use crate::{Descriptor, Errno, Operation, Pdus, Returned};
use io_uring::{opcode, squeue, types};
use memory::{Buffer, HEADROOM, Pool};
use std::{ops::Range, os::fd::RawFd};

/// How the kernel is told which file is meant.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Position among the registered files.
    Fixed(u32),
    /// A descriptor of the process.
    Plain(RawFd),
}

/// Builds a submission for either kind of target.
macro_rules! on {
    ($target:expr, |$fd:ident| $build:expr) => {
        match $target {
            Target::Fixed(slot) => {
                let $fd = types::Fixed(slot);
                $build
            }
            Target::Plain(raw) => {
                let $fd = types::Fd(raw);
                $build
            }
        }
    };
}

/// Bytes of one read-ahead: its length is a 32-bit number in a ring.
const READ_AHEAD_MOST: u64 = 1 << 30;

/// Has the notification of a send without a copy tell whether there was one (IORING_SEND_ZC_REPORT_USAGE).
pub(crate) const REPORT_USAGE: u16 = 1 << 3;

/// Waits for data before the first attempt to receive (IORING_RECVSEND_POLL_FIRST).
const POLL_FIRST: u16 = 1;

/// Interruptions in a row after which an operation fails.
const PATIENCE: u8 = 16;

pub(crate) struct Slot {
    pub(crate) token: u64,
    /// Its file; still named when that has been closed, while the kernel holds on to a message.
    pub(crate) file: Descriptor,
    pub(crate) links: Links,
    /// Somebody wants it to end: it is not continued.
    pub(crate) cancelled: bool,
    interrupted: u8,
    work: Work,
}

enum Work {
    /// Into a provided buffer.
    Receive {
        stay: bool,
        most: u32,
    },
    /// Into a buffer that was taken when it was submitted.
    ReceiveOwn {
        buffer: Buffer,
        most: u32,
    },
    ReceiveInto {
        buffer: Buffer,
        range: Range<u32>,
        behind: u32,
        vector: Option<Box<Vector>>,
    },
    ReceivePdus {
        pdus: Pdus,
        vector: Option<Box<Vector>>,
    },
    Send(Sending),
    Read(Transfer),
    Write {
        transfer: Transfer,
        durable: bool,
    },
    Sync {
        data_only: bool,
    },
    Allocate {
        mode: i32,
        offset: u64,
        length: u64,
    },
    ReadAhead {
        offset: u64,
        length: u64,
    },
    Shutdown,
}

struct Transfer {
    offset: u64,
    buffer: Buffer,
    range: Range<u32>,
    done: u32,
}

impl Transfer {
    /// Address, length and file offset of what is left.
    fn rest(&mut self) -> (*mut u8, u32, u64) {
        let at = self.range.start + self.done;
        (self.buffer.as_mut_ptr().wrapping_add(at as usize), self.range.end - at, self.offset + u64::from(self.done))
    }
}

/// What the ring lends for building a submission.
pub(crate) struct Tools<'a> {
    pub(crate) pool: &'a Pool,
    /// The pool's pieces are registered.
    pub(crate) fixed_buffers: bool,
    pub(crate) vectors: &'a mut Vec<Box<Vector>>,
    /// The least piece of a message that is worth a send without a copy; 0: none is.
    pub(crate) zero_copy: u32,
    /// The last receive has left nothing in the socket.
    pub(crate) emptied: bool,
    /// Receives can stay.
    pub(crate) multishot: bool,
}

/// What a completion of the kernel means for an operation.
pub(crate) enum Step {
    /// Submit the rest.
    Again,
    /// There is room in the socket: splice the rest.
    Room,
    /// It is over.
    Over(Result<u32, Errno>),
}

/// # Panics
/// If the range isn't inside the buffer: a mistake of the caller that must never reach the kernel.
fn check(buffer: &Buffer, range: &Range<u32>) {
    assert!(range.start <= range.end && range.end as usize <= buffer.len(), "a range lies outside of its buffer");
}

impl Slot {
    /// `own` is the buffer of a Receive without provided ones.
    pub(crate) fn new(operation: Operation, own: Option<Buffer>, token: u64, file: Descriptor, links: Links) -> Slot {
        let transfer = |offset, buffer: Buffer, range: Range<u32>| {
            check(&buffer, &range);
            Transfer { offset, buffer, range, done: 0 }
        };
        let work = match (operation, own) {
            (Operation::Receive { stay, most, .. }, None) => Work::Receive { stay, most },
            (Operation::Receive { most, .. }, Some(buffer)) => Work::ReceiveOwn { buffer, most },
            (Operation::ReceiveInto { buffer, range, behind, .. }, _) => {
                check(&buffer, &range);
                assert!(behind as usize <= HEADROOM, "more comes behind a range than the headroom holds");
                Work::ReceiveInto { buffer, range, behind, vector: None }
            }
            (Operation::ReceivePdus { pdus, .. }, _) => {
                pdus.check();
                Work::ReceivePdus { pdus, vector: None }
            }
            (Operation::Send { message, .. }, _) => Work::Send(Sending::new(message)),
            (Operation::Read { offset, buffer, range, .. }, _) => Work::Read(transfer(offset, buffer, range)),
            (Operation::Write { offset, buffer, range, durable, .. }, _) => {
                Work::Write { transfer: transfer(offset, buffer, range), durable }
            }
            (Operation::Sync { data_only, .. }, _) => Work::Sync { data_only },
            (Operation::Allocate { mode, offset, length, .. }, _) => Work::Allocate { mode, offset, length },
            (Operation::ReadAhead { offset, length, .. }, _) => Work::ReadAhead { offset, length },
            (Operation::Shutdown { .. }, _) => Work::Shutdown,
        };
        Slot { token, file, links, cancelled: false, interrupted: 0, work }
    }

    /// The next submission; None when nothing is left to do (an empty message).
    pub(crate) fn entry(&mut self, target: Target, tools: &mut Tools<'_>) -> Option<squeue::Entry> {
        let entry = match &mut self.work {
            Work::Receive { stay: true, .. } if tools.multishot => {
                on!(target, |fd| opcode::RecvMulti::new(fd, provided::GROUP).build())
            }
            Work::Receive { most, .. } => on!(target, |fd| {
                let length = (*most).min(memory::Class::Medium.bytes() as u32);
                let first = if tools.emptied { POLL_FIRST } else { 0 };
                opcode::Recv::new(fd, std::ptr::null_mut(), length).buf_group(provided::GROUP).ioprio(first).build()
            })
            .flags(squeue::Flags::BUFFER_SELECT),
            Work::ReceiveOwn { buffer, most } => {
                let (address, length) = (buffer.as_mut_ptr(), (*most).min(buffer.len() as u32));
                on!(target, |fd| opcode::Recv::new(fd, address, length).build())
            }
            Work::ReceiveInto { buffer, range, behind, vector } => {
                let address = buffer.as_mut_ptr().wrapping_add(range.start as usize);
                let length = range.end - range.start;
                if *behind == 0 {
                    on!(target, |fd| opcode::Recv::new(fd, address, length).build())
                } else {
                    let vector = vector.get_or_insert_with(|| Vector::spare(tools.vectors));
                    vector.set(0, address, length as usize);
                    vector.set(1, buffer.with_headroom().as_ptr(), *behind as usize);
                    let header: *mut libc::msghdr = vector.header(2);
                    on!(target, |fd| opcode::RecvMsg::new(fd, header).build())
                }
            }
            Work::ReceivePdus { pdus, vector } => {
                let vector = vector.get_or_insert_with(|| Vector::spare(tools.vectors));
                for place in 0..pdus.buffers.len() {
                    let range = pdus.range(place);
                    let bytes = &mut pdus.buffers[place].with_headroom()[range];
                    vector.set(place, bytes.as_mut_ptr(), bytes.len());
                }
                let header: *mut libc::msghdr = vector.header(pdus.buffers.len());
                on!(target, |fd| opcode::RecvMsg::new(fd, header).build())
            }
            Work::Send(sending) if sending.waited => {
                on!(target, |fd| opcode::PollAdd::new(fd, libc::POLLOUT as u32).build())
            }
            Work::Send(sending) => {
                // With MSG_WAITALL the kernel itself waits for room and goes on.
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                let round = sending.next(tools.vectors);
                let zero_copy = tools.zero_copy > 0 && sending.spares_copy(&round, tools.zero_copy);
                match round {
                    Round::Done => return None,
                    Round::One(address, length) if zero_copy => on!(target, |fd| {
                        opcode::SendZc::new(fd, address, length).flags(flags).zc_flags(REPORT_USAGE).build()
                    }),
                    Round::Many(header) if zero_copy => on!(target, |fd| {
                        opcode::SendMsgZc::new(fd, header).flags(flags as u32).ioprio(REPORT_USAGE).build()
                    }),
                    Round::One(address, length) => {
                        on!(target, |fd| opcode::Send::new(fd, address, length).flags(flags).build())
                    }
                    Round::Many(header) => {
                        on!(target, |fd| opcode::SendMsg::new(fd, header).flags(flags as u32).build())
                    }
                }
            }
            Work::Read(transfer) => {
                let (address, length, offset) = transfer.rest();
                if tools.fixed_buffers && transfer.buffer.is_of(tools.pool) {
                    let piece = transfer.buffer.piece();
                    on!(target, |fd| opcode::ReadFixed::new(fd, address, length, piece).offset(offset).build())
                } else {
                    on!(target, |fd| opcode::Read::new(fd, address, length).offset(offset).build())
                }
            }
            Work::Write { transfer, durable } => {
                let (address, length, offset) = transfer.rest();
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                if tools.fixed_buffers && transfer.buffer.is_of(tools.pool) {
                    let piece = transfer.buffer.piece();
                    on!(target, |fd| opcode::WriteFixed::new(fd, address, length, piece)
                        .offset(offset)
                        .rw_flags(flags)
                        .build())
                } else {
                    on!(target, |fd| opcode::Write::new(fd, address, length).offset(offset).rw_flags(flags).build())
                }
            }
            Work::Sync { data_only } => {
                let flags = if *data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
                on!(target, |fd| opcode::Fsync::new(fd).flags(flags).build())
            }
            Work::Allocate { mode, offset, length } => {
                on!(target, |fd| opcode::Fallocate::new(fd, *length).offset(*offset).mode(*mode).build())
            }
            Work::ReadAhead { offset, length } => {
                let length = (*length).min(READ_AHEAD_MOST) as libc::off_t;
                on!(target, |fd| opcode::Fadvise::new(fd, length, libc::POSIX_FADV_WILLNEED).offset(*offset).build())
            }
            Work::Shutdown => on!(target, |fd| opcode::Shutdown::new(fd, libc::SHUT_RDWR).build()),
        };
        // An operation that was interrupted or would have to wait goes to a worker that may.
        Some(if self.interrupted > 0 && !self.is_socket_work() { entry.flags(squeue::Flags::ASYNC) } else { entry })
    }

    fn is_socket_work(&self) -> bool {
        !matches!(
            self.work,
            Work::Read(_) | Work::Write { .. } | Work::Sync { .. } | Work::Allocate { .. } | Work::ReadAhead { .. }
        )
    }

    /// A read or a write of a file.
    pub(crate) fn moves_blocks(&self) -> bool {
        matches!(self.work, Work::Read(_) | Work::Write { .. })
    }

    /// The kernel still holds memory of its message.
    pub(crate) fn is_held(&self) -> bool {
        matches!(&self.work, Work::Send(sending) if sending.notices > 0)
    }

    /// If it is a send.
    pub(crate) fn sending(&mut self) -> Option<&mut Sending> {
        if let Work::Send(sending) = &mut self.work { Some(sending) } else { None }
    }

    /// Waits for a buffer of the provided ring.
    pub(crate) fn takes_provided(&self) -> bool {
        matches!(self.work, Work::Receive { .. })
    }

    /// It is a receive that may stay.
    pub(crate) fn may_stay(&self) -> bool {
        matches!(self.work, Work::Receive { stay: true, .. })
    }

    /// It is a receive.
    pub(crate) fn receives(&self) -> bool {
        matches!(
            self.work,
            Work::Receive { .. } | Work::ReceiveOwn { .. } | Work::ReceiveInto { .. } | Work::ReceivePdus { .. }
        )
    }

    /// Judges a result of the kernel: a count, or a negative errno.
    pub(crate) fn step(&mut self, result: i32) -> Step {
        if result < 0 {
            let again = matches!(-result, libc::EINTR | libc::EAGAIN);
            // A worker that waited with a send for memory, for as long as one may wait with the socket (`Ring::bound_waits`):
            // that passes, and is no fault of the connection.
            let waits = result == -libc::EAGAIN && matches!(self.work, Work::Send(_));
            if again && !self.cancelled && (waits || self.interrupted < PATIENCE) {
                self.interrupted = self.interrupted.saturating_add(1);
                return Step::Again;
            }
            let errno = if -result == libc::EINTR && self.cancelled { libc::ECANCELED } else { -result };
            return Step::Over(Err(Errno(errno)));
        }
        self.interrupted = 0;
        if let Work::Send(Sending { waited: true, .. }) = &self.work {
            // Events of a poll, no bytes.
            return if self.cancelled { Step::Over(Err(Errno(libc::ECANCELED))) } else { Step::Room };
        }
        let count = result as u32;
        let (over, at_end) = match &mut self.work {
            Work::Send(sending) => {
                sending.advance(count as usize);
                (sending.is_done().then(|| sending.sent()), Err(Errno(libc::EPIPE)))
            }
            Work::Read(transfer) => {
                transfer.done += count;
                assert!(transfer.done <= transfer.range.end - transfer.range.start, "the kernel read too much");
                let all = transfer.range.end - transfer.range.start;
                ((transfer.done == all).then_some(all), Ok(transfer.done))
            }
            Work::Write { transfer, .. } => {
                transfer.done += count;
                assert!(transfer.done <= transfer.range.end - transfer.range.start, "the kernel wrote too much");
                let all = transfer.range.end - transfer.range.start;
                ((transfer.done == all).then_some(all), Err(Errno(libc::EIO)))
            }
            _ => (Some(count), Ok(count)),
        };
        match over {
            Some(count) => Step::Over(Ok(count)),
            // Nothing moved although something was left: the end of the file, or a broken one.
            None if count == 0 => Step::Over(at_end),
            None if self.cancelled => Step::Over(Err(Errno(libc::ECANCELED))),
            None => Step::Again,
        }
    }

    /// What it owned. `provided` is the buffer that the kernel chose; it goes home unless it holds data.
    pub(crate) fn finish(
        self,
        result: Result<u32, Errno>,
        provided: Option<Buffer>,
        vectors: &mut Vec<Box<Vector>>,
    ) -> Returned {
        let holds_data = matches!(result, Ok(count) if count > 0);
        match (self.work, provided) {
            (Work::Receive { .. }, Some(buffer)) | (Work::ReceiveOwn { buffer, .. }, _) if holds_data => {
                Returned::Buffer(buffer)
            }
            (Work::Receive { .. } | Work::ReceiveOwn { .. }, _) => Returned::Nothing,
            (Work::ReceiveInto { buffer, vector, .. }, _) => {
                vectors.extend(vector);
                Returned::Buffer(buffer)
            }
            (Work::ReceivePdus { pdus, vector }, _) => {
                vectors.extend(vector);
                Returned::Pdus(pdus)
            }
            (Work::Read(transfer) | Work::Write { transfer, .. }, _) => Returned::Buffer(transfer.buffer),
            (Work::Send(sending), _) => Returned::Message(sending.finish(vectors)),
            (Work::Sync { .. } | Work::Allocate { .. } | Work::ReadAhead { .. } | Work::Shutdown, _) => {
                Returned::Nothing
            }
        }
    }
}
