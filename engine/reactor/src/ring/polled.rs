//! Disks whose completions are looked for instead of waited for.
//!
//! A ring that polls (IORING_SETUP_IOPOLL) knows reads and writes alone, and completes something only when it is asked. So it is
//! a second ring beside the core's own, made for the first file that wants it. While something is in flight there, the core
//! looks at both and does not sleep; with nothing in flight it is not touched. All else that is done with such a file (flushes,
//! allocation) goes to the core's own ring.

use super::{Kind, Ring, files::Holder, user_key};
use crate::{Completion, Descriptor, Feature, Use};
use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use memory::{Buffer, Class, Key};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the first read of a file may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Completions that are collected at a time.
const BATCH: usize = 64;

pub(super) struct Polled {
    ring: IoUring,
    /// Submissions that found the queue full.
    backlog: VecDeque<squeue::Entry>,
    /// What was pushed and has not completed.
    in_flight: u32,
    /// The arena is registered here, too.
    fixed_buffers: bool,
}

impl Polled {
    /// `main` has the arena registered, if anybody has.
    fn new(main: &IoUring, operations: u32, fixed_buffers: bool) -> io::Result<Polled> {
        let completions = operations.clamp(64, 32_768).next_power_of_two();
        let mut builder = IoUring::builder();
        builder.dontfork().setup_iopoll().setup_clamp().setup_submit_all().setup_cqsize(completions);
        let ring = builder.build(completions.min(256))?;
        // Linux 6.12; without it pages are pinned per operation.
        let fixed_buffers = fixed_buffers && ring.submitter().register_buffers_clone(main.as_raw_fd()).is_ok();
        Ok(Polled { ring, backlog: VecDeque::new(), in_flight: 0, fixed_buffers })
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: as in `Ring::try_push`: what an entry points to is owned by its slot, or by `first_read`, until the
        // terminal completion has been seen.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        if self.backlog.is_empty() && self.try_push(&entry) {
            return;
        }
        self.backlog.push_back(entry);
    }

    /// Publishes what waits, and has the driver looked at once.
    fn enter(&mut self) -> io::Result<()> {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        let submitted = {
            let mut queue = self.ring.submission();
            queue.sync();
            queue.len() as u32
        };
        let events = EnterFlags::GETEVENTS.bits();
        // SAFETY: without an extended argument the call takes no memory but the ring's own.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(submitted, 0, events, None) } {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Reads the beginning of a file, as the way to learn whether that can be done here.
    fn first_read(&mut self, file: &OwnedFd, mut buffer: Buffer) -> io::Result<()> {
        let (address, length) = (buffer.as_mut_ptr(), buffer.len() as u32);
        self.push(opcode::Read::new(types::Fd(file.as_raw_fd()), address, length).build());
        let end = Instant::now() + PATIENCE;
        loop {
            self.enter()?;
            if let Some(entry) = self.ring.completion().next() {
                self.in_flight -= 1;
                return match entry.result() {
                    error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                    _ => Ok(()),
                };
            }
            if Instant::now() >= end {
                // It may still be written to.
                std::mem::forget(buffer);
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Ring {
    /// How a file whose completions are to be looked for is held: as that, or, with a warning, as any other.
    pub(super) fn polled_holder(&mut self, file: &Arc<OwnedFd>) -> Holder {
        match self.try_polling(file) {
            Ok(()) => {
                self.features.set(Feature::PolledDisks, Use::Used);
                Holder::Polled(file.clone())
            }
            Err(error) => {
                if self.features.get(Feature::PolledDisks) == Use::Unasked {
                    self.features.set(Feature::PolledDisks, Use::Absent);
                }
                tracing::warn!(
                    %error,
                    "a volume's device can't be polled, its completions interrupt: that takes direct I/O, a driver with polled \
                     queues (NVMe: nvme.poll_queues=1 or more) and a file system that passes them on; or leave `poll` out"
                );
                Holder::Shared(file.clone())
            }
        }
    }

    fn try_polling(&mut self, file: &OwnedFd) -> io::Result<()> {
        if !self.features.wanted(Feature::PolledDisks) {
            return Err(io::Error::other("`mask_features` names it"));
        }
        let buffer = self.pool.take(Class::Small).ok_or(io::ErrorKind::OutOfMemory)?;
        if self.polled.is_none() {
            let fixed_buffers = self.features.uses(Feature::RegisteredBuffers);
            self.polled = Some(Box::new(Polled::new(&self.ring, self.slots.capacity(), fixed_buffers)?));
        }
        match &mut self.polled {
            Some(polled) => polled.first_read(file, buffer),
            None => Ok(()),
        }
    }

    /// Something is in flight on a disk that does not interrupt.
    pub(super) fn polls(&self) -> bool {
        self.polled.as_ref().is_some_and(|polled| polled.in_flight > 0)
    }

    /// Whether the operation goes to the polled ring, and whether the arena is registered there.
    pub(super) fn goes_polled(&self, key: Key, file: Descriptor) -> Option<bool> {
        let polled = self.polled.as_ref()?;
        let is_polled = matches!(self.files.at(file.slot).holder, Holder::Polled(_));
        (is_polled && self.slots.get(key)?.moves_blocks()).then_some(polled.fixed_buffers)
    }

    pub(super) fn push_polled(&mut self, entry: squeue::Entry) {
        if let Some(polled) = &mut self.polled {
            polled.push(entry);
        }
    }

    /// Looks at the disks once, and collects what they have done.
    pub(super) fn look_at_disks(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        while let Some(polled) = &mut self.polled
            && polled.in_flight > 0
        {
            polled.enter()?;
            let mut batch = [(0, 0); BATCH];
            let mut count = 0;
            for (place, entry) in batch.iter_mut().zip(polled.ring.completion()) {
                *place = (entry.user_data(), entry.result());
                count += 1;
            }
            polled.in_flight = polled.in_flight.saturating_sub(count as u32);
            for (data, result) in &batch[..count] {
                let key = user_key(*data);
                if *result == -libc::EOPNOTSUPP && self.stop_polling(key) {
                    self.advance(key);
                } else if data >> 60 == Kind::Operation as u64 {
                    self.operation_done(key, *result, 0, out);
                } else {
                    // The first read of a file, long after it was given up.
                    self.counters.stale += 1;
                }
            }
            if count < BATCH {
                break;
            }
        }
        Ok(())
    }

    /// A file can't be polled after all (its beginning was a hole, say): from now on it is one like others.
    #[cold]
    fn stop_polling(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key).filter(|slot| !slot.cancelled) else { return false };
        let holder = &mut self.files.at_mut(slot.file.slot).holder;
        if let Holder::Polled(file) = holder {
            tracing::warn!(
                "a volume's device can't be polled after all, its completions interrupt from now on; leave `poll` out"
            );
            *holder = Holder::Shared(file.clone());
        }
        true
    }
}
