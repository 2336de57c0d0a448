//! The real reactor: one io_uring, made and used by one thread.

mod closing;
mod files;
mod jobs;
mod messages;
mod multishot;
mod polled;
mod provided;
mod publishing;
mod resting;
mod sending;
mod settings;
mod setup;
mod slot;
mod spinner;
mod splicing;
#[cfg(test)]
mod tests;
mod waker;
mod weighing;
mod zero_copy;

pub use settings::{Counters, RingSettings};
pub use waker::RingWaker;

use crate::{
    Completion, Descriptor, Errno, Feature, Features, Job, Operation, OperationId, Reactor, Use, Wait,
    descriptor::{duplicate, make_blocking},
    offload::Offload,
};
use files::{Files, Holder, Links, NONE};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use memory::{Arena, Class, Key, Pool, Region, Slab};
use provided::Provided;
use rustix::time::{ClockId, clock_gettime};
use sending::{Pages, SPLICE_WORTH, Vector, splice_least};
use slot::{Slot, Step, Target, Tools};
use spinner::Spinner;
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};
use weighing::Weigher;

/// What a completion is about: the upper four bits of its `user_data`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Operation = 1,
    Cancel = 2,
    Bell = 3,
    Message = 4,
    MessageSent = 5,
}

/// Bits of `user_data` for the index of a slot; the generation is above, the kind on top.
const INDEX_BITS: u32 = 28;

const fn user_data(kind: Kind, key: Key) -> u64 {
    (kind as u64) << 60 | (key.generation as u64) << INDEX_BITS | key.index as u64
}

const fn user_key(data: u64) -> Key {
    Key { index: data as u32 & ((1 << INDEX_BITS) - 1), generation: (data >> INDEX_BITS) as u32 }
}

const NO_KEY: Key = Key { index: 0, generation: 0 };

/// Wakes of other rings on their way at once; more than that go by eventfd.
const MESSAGES: u32 = 64;

/// The reactor on io_uring. Made by the thread that uses it, and not `Send`.
///
/// Dropping it cancels what is in flight and waits for that, at most five seconds; after that the memory is
/// leaked rather than freed under the kernel's hands. Completions that were not collected are lost, so drain first.
pub struct Ring {
    /// Closed before anything that it may touch is freed.
    ring: IoUring,
    polled: Option<Box<polled::Polled>>,
    pool: Pool,
    features: Features,
    provided: Option<Provided>,
    slots: Slab<Slot>,
    files: Files,
    vectors: Vec<Box<Vector>>,
    /// Submissions that found the queue full.
    backlog: VecDeque<squeue::Entry>,
    /// Something for a disk is not published.
    for_disks: bool,
    /// Completions that the kernel has no part in.
    ready: VecDeque<Completion>,
    sleeper: waker::Sleeper,
    /// Where the kernel puts the bell's counter.
    bell: Box<u64>,
    bell_armed: bool,
    messages: Slab<waker::Message>,
    offload: Offload<RingWaker>,
    spinner: Spinner,
    /// Messages with a piece of so many bytes are sent without a copy; 0: none.
    zero_copy: u32,
    /// Messages whose pieces of regions have so many bytes are spliced.
    splice: u32,
    splicer: Option<Box<splicing::Splicer>>,
    weigher: Weigher,
    /// Processor time of looking for work in this turn, while short reads are weighed.
    looked: Duration,
    now: Duration,
    counters: Counters,
}

impl Ring {
    /// Makes the ring of the calling thread. `arena` is the core's memory; its pieces are registered if possible.
    ///
    /// # Errors
    /// When there is no io_uring, or no memory for it; the message says what to do. Whatever else is missing is
    /// reported by [`Ring::features`] and, where it can be helped, as a warning.
    pub fn new(settings: &RingSettings, arena: &Arena) -> io::Result<Ring> {
        assert!(settings.slots < 1 << INDEX_BITS, "a ring has less than 2^28 slots");
        let setup::Parts { ring, mut features, mut provided } = setup::set_up(settings, arena)?;
        let pool = arena.pool();
        if let Some(provided) = &mut provided {
            provided.replenish(&pool);
        }
        let sleeper = waker::Sleeper::new()?;
        if features.wanted(Feature::MessageRing) && messages::supports_messages(&ring) {
            sleeper.open_to_rings(Some(Arc::new(duplicate(&ring)?)));
            waker::outbox_open();
            features.set(Feature::MessageRing, Use::Used);
        }
        let zero_copy = if features.uses(Feature::ZeroCopy) { settings.zero_copy } else { 0 };
        let splicer = Ring::try_splicing(settings.splice > 0, &mut features);
        let offload = Offload::new(settings.helper_threads, settings.worker_cpus.clone(), sleeper.waker());
        let mut ring = Ring {
            ring,
            polled: None,
            pool,
            features,
            provided,
            slots: Slab::with_capacity(settings.slots),
            files: Files::new(settings.files),
            vectors: Vec::new(),
            backlog: VecDeque::with_capacity(settings.entries as usize),
            for_disks: false,
            ready: VecDeque::with_capacity(64),
            sleeper,
            bell: Box::new(0),
            bell_armed: false,
            messages: Slab::with_capacity(MESSAGES),
            offload,
            spinner: Spinner::new(settings.spin),
            zero_copy,
            splice: settings.splice,
            splicer,
            weigher: Weigher::new(),
            looked: Duration::ZERO,
            now: clock(),
            counters: Counters::default(),
        };
        ring.arm_bell();
        Ok(ring)
    }

    /// What of the kernel is in use.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Keeps a read on the eventfd outstanding: it ends the sleep when somebody wakes the core.
    fn arm_bell(&mut self) {
        let fd = types::Fd(self.sleeper.eventfd().as_raw_fd());
        let entry = opcode::Read::new(fd, std::ptr::from_mut(&mut *self.bell).cast(), 8).build();
        self.bell_armed = true;
        self.push(entry.user_data(user_data(Kind::Bell, NO_KEY)));
    }

    fn register_holder(&mut self, holder: Holder) -> io::Result<Descriptor> {
        let raw = holder.raw();
        let in_table = self.is_in_table(&holder);
        let Ok(descriptor) = self.files.insert(holder) else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the ring's table of files is full"));
        };
        if in_table && let Err(error) = self.ring.submitter().register_files_update(descriptor.slot, &[raw]) {
            self.files.remove(descriptor.slot);
            return Err(error);
        }
        Ok(descriptor)
    }

    /// The file lives in the ring's table.
    fn is_in_table(&self, holder: &Holder) -> bool {
        self.features.uses(Feature::RegisteredFiles)
            && (self.features.uses(Feature::PromptRelease) || !matches!(holder, Holder::Own(_)))
    }

    fn target(&self, slot: u32) -> Target {
        let holder = &self.files.at(slot).holder;
        if self.is_in_table(holder) { Target::Fixed(slot) } else { Target::Plain(holder.raw()) }
    }

    /// Queues a submission; publishes the queue when it is full.
    fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            if self.try_push(&entry) {
                return;
            }
            // A busy kernel is not an error: the backlog goes first next time.
            let _ = self.enter(None);
            if self.try_push(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what an entry points to is owned by its slot (or by the ring itself) until the terminal completion
        // has been seen, and neither moves: slots are in a slab, buffers and vectors on the heap.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    fn push_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Queues the next submission of an operation. False when it has nothing left to do.
    fn advance(&mut self, key: Key) -> bool {
        let file = self.slots.get(key).expect("a slot in flight").file;
        let polled = self.goes_polled(key, file);
        let emptied = self.files.at(file.slot).emptied;
        let (target, fixed_buffers) = match polled {
            None => (self.target(file.slot), self.features.uses(Feature::RegisteredBuffers)),
            Some(fixed_buffers) => (Target::Plain(self.files.at(file.slot).holder.raw()), fixed_buffers),
        };
        let mut tools = Tools {
            pool: &self.pool,
            fixed_buffers,
            vectors: &mut self.vectors,
            zero_copy: self.zero_copy,
            emptied,
            multishot: self.features.uses(Feature::Multishot),
        };
        let slot = self.slots.get_mut(key).expect("a slot in flight");
        match slot.entry(target, &mut tools) {
            Some(entry) => {
                let entry = entry.user_data(user_data(Kind::Operation, key));
                if polled.is_some() {
                    self.push_polled(entry)
                } else {
                    self.push(entry)
                }
                true
            }
            None => false,
        }
    }

    /// Bytes of a send that are gone; 0 for other operations.
    fn sent(&mut self, key: Key) -> u32 {
        self.slots.get_mut(key).and_then(Slot::sending).map_or(0, |sending| sending.sent())
    }

    /// Takes an operation out of its slot; closes its file when it was the last one there.
    fn finish(&mut self, key: Key, result: Result<u32, Errno>, provided: Option<memory::Buffer>) -> Completion {
        self.unlink(key);
        let slot = self.slots.remove(key).expect("a slot in flight");
        let token = slot.token;
        Completion { token, result, returned: slot.finish(result, provided, &mut self.vectors) }
    }

    /// A completion without the kernel: `operation` comes home as it is.
    fn refuse(&mut self, operation: Operation, token: u64, errno: i32) -> OperationId {
        let returned = operation.into_returned();
        self.ready.push_back(Completion { token, result: Err(Errno(errno)), returned });
        OperationId(NO_KEY)
    }

    /// Collects all completions that are there.
    fn reap(&mut self, out: &mut Vec<Completion>) {
        const BATCH: usize = 64;
        loop {
            let mut batch = [(0, 0, 0); BATCH];
            let mut count = 0;
            for (place, entry) in batch.iter_mut().zip(self.ring.completion()) {
                *place = (entry.user_data(), entry.result(), entry.flags());
                count += 1;
            }
            // Of many receives that wait, each slot has left the cache.
            for (data, ..) in &batch[..count] {
                self.slots.fetch(user_key(*data).index);
            }
            for (data, result, flags) in &batch[..count] {
                self.handle(*data, *result, *flags, out);
            }
            if count == BATCH {
                continue;
            }
            // What didn't fit waits inside the kernel until it is asked.
            if !self.ring.submission().cq_overflow() {
                return;
            }
            self.counters.overflows += 1;
            if self.enter(None).is_err() {
                return;
            }
            if self.ring.completion().is_empty() {
                return;
            }
        }
    }

    fn handle(&mut self, data: u64, result: i32, flags: u32, out: &mut Vec<Completion>) {
        const OPERATION: u64 = Kind::Operation as u64;
        const CANCEL: u64 = Kind::Cancel as u64;
        const BELL: u64 = Kind::Bell as u64;
        const MESSAGE: u64 = Kind::Message as u64;
        const MESSAGE_SENT: u64 = Kind::MessageSent as u64;
        let key = user_key(data);
        match data >> 60 {
            OPERATION => self.operation_done(key, result, flags, out),
            CANCEL => self.cancel_answered(key, result),
            MESSAGE => {}
            BELL => {
                self.bell_armed = false;
                if result >= 0 || matches!(-result, libc::EINTR | libc::EAGAIN) {
                    self.arm_bell();
                } else if -result != libc::ECANCELED {
                    tracing::error!(errno = -result, "the ring can't be woken any more");
                }
            }
            MESSAGE_SENT => {
                if let Some(message) = self.messages.remove(key)
                    && result < 0
                {
                    message.fall_back();
                }
            }
            _ => self.counters.stale += 1,
        }
    }

    fn operation_done(&mut self, key: Key, result: i32, flags: u32, out: &mut Vec<Completion>) {
        let provided = match (cqueue::buffer_select(flags), &mut self.provided) {
            (Some(id), Some(provided)) => provided.take(id, &self.pool),
            _ => None,
        };
        if cqueue::more(flags) || cqueue::notif(flags) {
            return match provided {
                Some(buffer) => self.received_part(key, result, buffer, out),
                None => self.zero_copy_done(key, result, flags, out),
            };
        }
        let Some(slot) = self.slots.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        if result == -libc::ENOBUFS && slot.takes_provided() {
            self.counters.starved += 1;
            if let Some(provided) = &mut self.provided {
                provided.miss();
            }
        }
        if slot.receives() {
            let file = self.files.at_mut(slot.file.slot);
            let left = cqueue::sock_nonempty(flags);
            (file.emptied, file.left) = (result > 0 && !left, result > 0 && left);
        }
        self.step(key, result, provided, out);
    }

    /// Goes on with an operation after a result of the kernel, or ends it.
    fn step(&mut self, key: Key, result: i32, provided: Option<memory::Buffer>, out: &mut Vec<Completion>) {
        let again = result < 0 && self.zero_copy > 0 && self.falls_back(key, result);
        let slot = self.slots.get_mut(key).expect("a slot in flight");
        let result = match if again { Step::Again } else { slot.step(result) } {
            Step::Over(result) => result,
            Step::Room if self.splice(key) => Ok(self.sent(key)),
            // What is left after an interruption is never nothing: `step` would have said that it is over.
            Step::Room | Step::Again if self.advance(key) => return,
            Step::Room | Step::Again => Ok(self.sent(key)),
        };
        let held = self.slots.get(key).is_some_and(Slot::is_held);
        let completion = if held { self.hold(key, result) } else { self.finish(key, result, provided) };
        out.push(completion);
    }
}

impl Reactor for Ring {
    type Waker = RingWaker;

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn waker(&self) -> RingWaker {
        self.sleeper.waker()
    }

    fn register(&mut self, descriptor: OwnedFd) -> io::Result<Descriptor> {
        make_blocking(descriptor.as_fd())?;
        if self.splicer.is_some() {
            Ring::bound_waits(descriptor.as_fd());
        }
        self.register_holder(Holder::Own(descriptor))
    }

    fn register_shared(&mut self, file: &Arc<OwnedFd>) -> io::Result<Descriptor> {
        make_blocking(file.as_fd())?;
        self.register_holder(Holder::Shared(file.clone()))
    }

    fn register_polled(&mut self, file: &Arc<OwnedFd>) -> io::Result<Descriptor> {
        make_blocking(file.as_fd())?;
        let holder = self.polled_holder(file);
        self.register_holder(holder)
    }

    fn close(&mut self, descriptor: Descriptor) {
        let Some(file) = self.files.open(descriptor) else {
            return;
        };
        file.closing = true;
        let mut next = file.first;
        if next == NONE {
            self.close_now(descriptor.slot);
            return;
        }
        while let Some(key) = self.slots.key_at(next) {
            next = self.slots.at(next).map_or(NONE, |slot| slot.links.after);
            self.cancel_slot(key);
        }
    }

    fn abort(&mut self, descriptor: Descriptor) {
        if let Some(file) = self.files.open(descriptor) {
            file.resets = file.refers;
        }
        self.close(descriptor);
    }

    fn submit(&mut self, operation: Operation, token: u64) -> Result<OperationId, Operation> {
        if self.slots.len() as usize + self.ready.len() >= self.slots.capacity() as usize {
            return Err(operation);
        }
        let descriptor = operation.descriptor();
        let Some(file) = self.files.open(descriptor) else {
            return Ok(self.refuse(operation, token, libc::EBADF));
        };
        let (first, direct) = (file.first, file.direct);
        let for_disk = self.disks_first(&operation, direct);
        let mut own = None;
        if matches!(operation, Operation::Receive { .. }) && self.provided.is_none() {
            own = self.pool.take(Class::Medium);
            if own.is_none() {
                self.counters.starved += 1;
                return Ok(self.refuse(operation, token, libc::ENOBUFS));
            }
        }
        let links = Links { before: NONE, after: first };
        let mut slot = Slot::new(operation, own, token, descriptor, links);
        let pages = match self.splicer {
            Some(_) => slot.sending().and_then(|sending| sending.worth_splicing(self.splice)),
            None => None,
        };
        let splices = pages.is_some_and(|pages| self.weigher.weigh(&pages));
        let Ok(key) = self.slots.insert(slot) else { unreachable!("room was checked above") };
        if let Some(neighbour) = self.slots.at_mut(first) {
            neighbour.links.before = key.index;
        }
        self.files.at_mut(descriptor.slot).first = key.index;
        let ended = (splices && self.splice(key)) || !self.advance(key);
        // Not before: a full queue is published to make room.
        self.for_disks |= for_disk;
        if ended {
            let sent = self.sent(key);
            let completion = self.finish(key, Ok(sent), None);
            self.ready.push_back(completion);
            return Ok(OperationId(NO_KEY));
        }
        Ok(OperationId(key))
    }

    fn has_more(&self, socket: Descriptor) -> bool {
        self.files.get(socket).is_some_and(|file| file.left)
    }

    fn splices(&self, region: &Region, piece: u32, message: usize) -> bool {
        self.splicer.is_some()
            && piece >= splice_least(region, self.splice)
            && message as u64 >= SPLICE_WORTH
            && self.weigher.splices(&Pages { bytes: u64::from(piece), pieces: 1 })
    }

    fn acknowledge(&mut self, socket: Descriptor) {
        if let Some(file) = self.files.open(socket) {
            // A socket of another family has no such option, and needs none.
            let _ = rustix::net::sockopt::set_tcp_quickack(file.holder.as_fd(), true);
        }
    }

    fn cancel(&mut self, id: OperationId) {
        self.cancel_slot(id.0);
    }

    fn start_disks(&mut self) {
        if self.for_disks {
            // What goes wrong is said at the end of the turn.
            _ = self.enter(None);
        }
    }

    fn offload(&mut self, job: Job, token: u64) -> Result<(), Job> {
        self.offload.start(job, token)
    }

    fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        let before = out.len();
        if let Some(provided) = &mut self.provided
            && provided.is_short()
        {
            provided.replenish(&self.pool);
        }
        self.send_messages();
        self.push_backlog();
        out.extend(self.ready.drain(..));
        self.collect_jobs(out);

        let sleep = match wait {
            _ if out.len() > before || !self.ring.completion().is_empty() => None,
            // What found no room in the queue is not with the kernel: nothing would end the sleep.
            _ if !self.backlog.is_empty() || self.polls() => None,
            Wait::Poll => None,
            Wait::Forever => Some(None),
            Wait::Until(time) => match time.saturating_sub(clock()) {
                Duration::ZERO => None,
                left => Some(Some(left)),
            },
        };
        let entered = match sleep {
            Some(time) => self.rest(time, out),
            None => self.publish(),
        };
        self.sleeper.clear();
        self.reap(out);
        let looked = self.look_at_disks(out);
        self.collect_jobs(out);
        self.now = clock();
        self.weigher.turned(std::mem::take(&mut self.looked), self.files.len(), processor_time);
        entered.and(looked)
    }

    fn in_flight(&self) -> u32 {
        self.slots.len() + (self.ready.len() + self.offload.in_flight()) as u32
    }
}

/// The monotonic clock: its epoch is the same for all threads.
fn clock() -> Duration {
    read_clock(ClockId::Monotonic)
}

/// What this thread has had of a processor.
fn processor_time() -> Duration {
    read_clock(ClockId::ThreadCPUTime)
}

fn read_clock(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
