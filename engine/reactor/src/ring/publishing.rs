//! When submissions are given to the kernel: at the end of a turn, and those to disks before a send.
//!
//! The kernel holds the requests of one call together, and gives them to the disk when it has been through all submissions of it.
//! A send among them takes its time there: the bytes are copied, and on loopback the peer's side runs, too. So what a disk is to
//! do is published by a call of its own before it.

use super::Ring;
use crate::{Operation, Reactor};
use io_uring::{EnterFlags, types};
use std::{io, time::Duration};

impl Ring {
    /// One system call: publishes, and runs what the kernel has put off. `sleep` is how long to wait for a completion.
    pub(super) fn enter(&mut self, sleep: Option<Option<Duration>>) -> io::Result<()> {
        let submitted = {
            let mut queue = self.ring.submission();
            queue.sync();
            queue.len() as u32
        };
        self.counters.enters += 1;
        self.for_disks = false;
        let submitter = self.ring.submitter();
        let events = EnterFlags::GETEVENTS.bits();
        let result = match sleep {
            // SAFETY: without an extended argument the call takes no memory but the ring's own.
            None => unsafe { submitter.enter::<libc::sigset_t>(submitted, 0, events, None) },
            Some(None) => {
                self.counters.sleeps += 1;
                // SAFETY: as above.
                unsafe { submitter.enter::<libc::sigset_t>(submitted, 1, events, None) }
            }
            Some(Some(time)) => {
                self.counters.sleeps += 1;
                let time = types::Timespec::from(time);
                let arguments = types::SubmitArgs::new().timespec(&time);
                let flags = events | EnterFlags::EXT_ARG.bits();
                // SAFETY: the argument and the time that it points to outlive the call.
                unsafe { submitter.enter(submitted, 1, flags, Some(&arguments)) }
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Nothing came in time; a signal; the kernel wants its completions collected first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                // Completions were lost for want of memory. Their operations will never end.
                Some(libc::EBADR) => {
                    tracing::error!("the kernel lost completions for want of memory");
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Publishes, and lets the kernel run what it has put off, if there is anything of that.
    pub(super) fn publish(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        let needed = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if needed { self.enter(None) } else { Ok(()) }
    }

    /// An operation is about to be submitted to an open file: a disk begins with what it has got before a send does. True: it
    /// is for a disk itself.
    pub(super) fn disks_first(&mut self, operation: &Operation, direct: bool) -> bool {
        match operation {
            Operation::Read { .. } | Operation::Write { .. } => return direct,
            Operation::Send { .. } => self.start_disks(),
            _ => {}
        }
        false
    }
}
