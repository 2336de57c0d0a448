//! A simulated reactor. The same engine that runs on a [`Ring`](crate::Ring) runs here on a virtual clock, with
//! streams, files, delays and disasters that a seed decides.
//!
//! - A [`World`] holds the clock, the streams and the files; each [`Twin`] is one core in it. All are of one thread:
//!   the test turns them one after another.
//! - Time stands still while anything can happen now. It passes in a `turn` that sleeps, when all twins of the world
//!   sleep: up to the next event or the next time that one of them waits for. So a `turn` may return with nothing,
//!   as a real one may; turn all twins in a loop.
//! - A poll with nothing to do takes a microsecond, so that a loop that spins for a while comes to its end.
//! - Disk operations are never cancelled, as with a real kernel; receives and sends that wait are.
//! - A Receive that may stay does so mostly, and ends now and then without a reason; a cancel may leave bytes behind.
//! - Buffers of Receive come from a reserve of the twin that it refills from the pool at each turn, as on a ring.

mod disk;
mod message;
mod random;
mod stream;
#[cfg(test)]
mod tests;
mod world;

pub use disk::TwinFile;
pub use stream::Peer;
pub use world::{Conduct, World};

use crate::{Completion, Descriptor, Errno, Job, Operation, OperationId, Reactor, Returned, Wait, Wake};
use disk::Change;
use memory::{Arena, Buffer, Class, Key, Pool, Slab};
use message::{receive, send};
use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use world::{Core, Mood, Object, Operator};

/// What a poll without a completion takes.
const POLL: Duration = Duration::from_micros(1);

/// Jobs at once, as on a ring.
const JOBS: usize = crate::offload::JOBS;

/// Bounds of a twin, as [`RingSettings`](crate::RingSettings).
#[derive(Clone, Debug)]
pub struct TwinSettings {
    /// Operations in flight.
    pub slots: u32,
    /// Descriptors registered at once.
    pub files: u32,
    /// Buffers of [`Class::Medium`] kept ready for receives.
    pub receive_buffers: u16,
}

impl Default for TwinSettings {
    fn default() -> TwinSettings {
        TwinSettings { slots: 1024, files: 256, receive_buffers: 8 }
    }
}

/// Wakes a twin.
#[derive(Clone)]
pub struct TwinWaker(Arc<AtomicBool>);

impl Wake for TwinWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Handle {
    object: Object,
    closing: bool,
    in_flight: u32,
    /// Keeps the descriptor open that stands for the object.
    _token: Token,
}

enum Token {
    Own { _fd: OwnedFd },
    Shared { _fd: Arc<OwnedFd> },
}

enum Work {
    Operation {
        operation: Operation,
        file: u32,
        object: Object,
        /// Bytes of a message that are gone.
        sent: usize,
        /// What a sync covers.
        mark: u64,
        cancelled: bool,
    },
    Job(Job),
}

struct Slot {
    token: u64,
    work: Work,
}

/// One simulated core of a [`World`].
pub struct Twin {
    world: World,
    core: usize,
    life: u64,
    pool: Pool,
    settings: TwinSettings,
    reserve: Vec<Buffer>,
    slots: Slab<Slot>,
    jobs: usize,
    handles: Slab<Handle>,
    ready: VecDeque<Completion>,
    waker: TwinWaker,
    now: Duration,
}

impl Twin {
    /// A new core in a world, with its own memory.
    pub fn new(world: &World, arena: &Arena, settings: TwinSettings) -> Twin {
        let waker = TwinWaker(Arc::new(AtomicBool::new(false)));
        let mut state = world.state();
        state.cores.push(Core { mood: Mood::Awake, pending: waker.0.clone() });
        let mut twin = Twin {
            world: world.clone(),
            core: state.cores.len() - 1,
            life: state.life,
            pool: arena.pool(),
            reserve: Vec::new(),
            slots: Slab::with_capacity(settings.slots),
            jobs: 0,
            handles: Slab::with_capacity(settings.files),
            ready: VecDeque::new(),
            waker,
            now: state.now,
            settings,
        };
        drop(state);
        twin.refill();
        twin
    }

    /// The world that it lives in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Opens a file of its world by itself.
    ///
    /// # Errors
    /// As [`Reactor::register`].
    pub fn open(&mut self, file: &TwinFile) -> io::Result<Descriptor> {
        let token = self.world.open(file)?;
        self.register_shared(&token)
    }

    /// The power failed since it was made.
    pub fn is_dead(&self) -> bool {
        self.world.state().life != self.life
    }

    fn refill(&mut self) {
        while self.reserve.len() < usize::from(self.settings.receive_buffers) {
            let Some(buffer) = self.pool.take_reserved(Class::Medium) else { break };
            self.reserve.push(buffer);
        }
        self.keep_reserve();
    }

    /// What is missing in the reserve is nobody else's, as on a ring.
    fn keep_reserve(&self) {
        let missing = usize::from(self.settings.receive_buffers).saturating_sub(self.reserve.len());
        self.pool.set_reserved(Class::Medium, missing as u32);
    }

    fn add_handle(&mut self, object: Object, token: Token) -> io::Result<Descriptor> {
        let handle = Handle { object, closing: false, in_flight: 0, _token: token };
        let key = self
            .handles
            .insert(handle)
            .map_err(|_| io::Error::new(io::ErrorKind::QuotaExceeded, "the twin's table of files is full"))?;
        Ok(Descriptor { slot: key.index, generation: key.generation })
    }

    fn handle(&mut self, descriptor: Descriptor) -> Option<&mut Handle> {
        let key = Key { index: descriptor.slot, generation: descriptor.generation };
        self.handles.get_mut(key).filter(|handle| !handle.closing)
    }

    fn complete_at_once(&mut self, operation: Operation, token: u64, errno: i32) -> OperationId {
        let returned = operation.into_returned();
        self.ready.push_back(Completion { token, result: Err(Errno(errno)), returned });
        OperationId(Key { index: 0, generation: 0 })
    }

    /// Takes an operation out, with its handle if that was closing and this was the last one.
    fn finish(&mut self, key: Key, result: Result<u32, Errno>, received: Option<Buffer>) -> Completion {
        let slot = self.slots.remove(key).expect("an operation in flight");
        let Work::Operation { operation, file, .. } = slot.work else { unreachable!("a job ends elsewhere") };
        let handle = self.handles.at_mut(file).expect("a file outlives the operations on it");
        handle.in_flight -= 1;
        if handle.closing && handle.in_flight == 0 {
            self.remove_handle(file);
        }
        let returned = match received {
            Some(buffer) => {
                self.keep_reserve();
                Returned::Buffer(buffer)
            }
            None => operation.into_returned(),
        };
        Completion { token: slot.token, result, returned }
    }

    fn remove_handle(&mut self, slot: u32) {
        let Some(key) = self.handles.key_at(slot) else { return };
        self.handles.remove(key);
    }

    fn cancel_key(&mut self, key: Key) {
        let operator = Operator::new(self.core, key);
        let Some(Slot { work: Work::Operation { object, cancelled, .. }, .. }) = self.slots.get_mut(key) else {
            return;
        };
        *cancelled = true;
        if let Object::End(end) = *object {
            let mut state = self.world.state();
            if state.unpark(end, operator) {
                state.schedule(operator);
            }
        }
    }

    /// Something may be possible now for an operation.
    fn attempt(&mut self, operator: Operator, out: &mut Vec<Completion>) {
        let key = operator.key();
        let Some(slot) = self.slots.get_mut(key) else { return };
        let token = slot.token;
        if matches!(slot.work, Work::Job(_)) {
            out.extend(self.run_job(key));
            return;
        }
        let Work::Operation { operation, object, sent, mark, cancelled, .. } = &mut slot.work else { return };
        let mut state = self.world.state();
        let mut received = None;
        let outcome = match (*object, operation) {
            // What was still there goes to the next receive.
            (Object::End(_), Operation::Receive { stay: true, .. }) if *cancelled && state.random.coin() => {
                Some(Err(Errno::CANCELED))
            }
            (Object::End(end), Operation::Receive { stay, most, .. }) => match self.reserve.pop() {
                None => Some(Err(Errno::NO_BUFFERS)),
                Some(mut buffer) => {
                    let room = buffer.len().min(*most as usize);
                    let outcome = receive(&mut state, end, operator, *cancelled, &mut buffer[..room]);
                    match outcome {
                        Some(Ok(count)) if count > 0 && *stay && !*cancelled && state.random.below(8) > 0 => {
                            state.schedule(operator);
                            drop(state);
                            self.keep_reserve();
                            let returned = Returned::Part(buffer);
                            return out.push(Completion { token, result: Ok(count), returned });
                        }
                        Some(Ok(count)) if count > 0 => received = Some(buffer),
                        _ => self.reserve.push(buffer),
                    }
                    outcome
                }
            },
            (Object::End(end), Operation::ReceiveInto { buffer, range, behind, .. }) => {
                let mut bytes = vec![0; (range.end - range.start + *behind) as usize];
                let outcome = receive(&mut state, end, operator, *cancelled, &mut bytes);
                if let Some(Ok(count)) = outcome {
                    let (first, second) = bytes[..count as usize].split_at(range.len().min(count as usize));
                    buffer[range.start as usize..][..first.len()].copy_from_slice(first);
                    buffer.with_headroom()[..second.len()].copy_from_slice(second);
                }
                outcome
            }
            (Object::End(end), Operation::ReceivePdus { pdus, .. }) => {
                let places = 0..pdus.buffers.len();
                let mut bytes = vec![0; places.clone().map(|place| pdus.range(place).len()).sum()];
                let outcome = receive(&mut state, end, operator, *cancelled, &mut bytes);
                if let Some(Ok(count)) = outcome {
                    let mut rest = &bytes[..count as usize];
                    for place in places {
                        let range = pdus.range(place);
                        let (now, later) = rest.split_at(rest.len().min(range.len()));
                        pdus.buffers[place].with_headroom()[range][..now.len()].copy_from_slice(now);
                        rest = later;
                    }
                }
                outcome
            }
            (Object::End(end), Operation::Send { message, .. }) => {
                send(&mut state, end, operator, *cancelled, message, sent)
            }
            (Object::End(end), Operation::Shutdown { .. }) => {
                state.shut(end);
                Some(Ok(0))
            }
            (Object::File(id), operation) => {
                let state = &mut *state;
                let disk = &mut state.files[id];
                if disk.stalled {
                    disk.parked.push(operator);
                    None
                } else {
                    Some(match operation {
                        Operation::Read { offset, buffer, range, .. } => {
                            disk.read(*offset, &mut buffer[range.start as usize..range.end as usize])
                        }
                        Operation::Write { durable, .. } => disk.complete(operator, *durable, false),
                        Operation::Sync { .. } => disk.sync(*mark, &mut state.random),
                        Operation::Allocate { mode, .. } => {
                            let keep_size = *mode & libc::FALLOC_FL_KEEP_SIZE != 0;
                            disk.complete(operator, false, keep_size).map(|_| 0)
                        }
                        Operation::ReadAhead { .. } => Ok(0),
                        _ => Err(Errno(libc::ENOTSOCK)),
                    })
                }
            }
            (Object::End(_), _) => Some(Err(Errno(libc::ESPIPE))),
        };
        drop(state);
        if let Some(result) = outcome {
            let completion = self.finish(key, result, received);
            out.push(completion);
        }
    }

    fn run_job(&mut self, key: Key) -> Option<Completion> {
        let Slot { token, work: Work::Job(job) } = self.slots.remove(key)? else { return None };
        self.jobs -= 1;
        Some(match job() {
            Ok((number, bytes)) => {
                Completion { token, result: Ok(number as u32), returned: Returned::Job(number, bytes) }
            }
            Err(errno) => Completion { token, result: Err(errno), returned: Returned::Nothing },
        })
    }

    fn run_due(&mut self, out: &mut Vec<Completion>) {
        loop {
            let Some(operator) = self.world.state().due(self.core) else { return };
            self.attempt(operator, out);
        }
    }

    /// Checks what a kernel would refuse at once, and tells a disk what is coming.
    fn begin(&mut self, operation: &Operation, object: Object, operator: Operator) -> Result<u64, Errno> {
        let Object::File(id) = object else { return Ok(0) };
        let mut state = self.world.state();
        let disk = &mut state.files[id];
        let aligned = |offset: u64, buffer: &Buffer, range: &std::ops::Range<u32>| {
            let address = buffer.as_ptr() as u64 + u64::from(range.start);
            [offset, address, u64::from(range.end - range.start)].iter().all(|n| n.is_multiple_of(disk.alignment))
        };
        match operation {
            Operation::Read { offset, buffer, range, .. } if !aligned(*offset, buffer, range) => {
                Err(Errno(libc::EINVAL))
            }
            Operation::Write { offset, buffer, range, .. } => {
                if !aligned(*offset, buffer, range) {
                    return Err(Errno(libc::EINVAL));
                }
                let bytes = buffer[range.start as usize..range.end as usize].to_vec();
                disk.begin(operator, Change::write(*offset, bytes));
                Ok(0)
            }
            Operation::Allocate { mode, offset, length, .. } => {
                let zeroes = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
                if *length == 0 || offset.checked_add(*length).is_none_or(|end| end > i64::MAX as u64) {
                    return Err(Errno(libc::EINVAL));
                }
                if mode & libc::FALLOC_FL_PUNCH_HOLE != 0 && mode & libc::FALLOC_FL_KEEP_SIZE == 0 {
                    return Err(Errno(libc::EOPNOTSUPP));
                }
                // Plain allocation changes no byte, but may make the file longer.
                let change = match mode & zeroes {
                    0 => Change::zero(offset + length, 0),
                    _ => Change::zero(*offset, *length),
                };
                disk.begin(operator, change);
                Ok(0)
            }
            Operation::Sync { .. } => Ok(disk.sync_mark()),
            _ => Ok(0),
        }
    }
}

impl Reactor for Twin {
    type Waker = TwinWaker;

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn waker(&self) -> TwinWaker {
        self.waker.clone()
    }

    fn register(&mut self, descriptor: OwnedFd) -> io::Result<Descriptor> {
        let object = self.world.state().object(&descriptor)?;
        self.add_handle(object, Token::Own { _fd: descriptor })
    }

    fn register_shared(&mut self, file: &Arc<OwnedFd>) -> io::Result<Descriptor> {
        let object = self.world.state().object(&**file)?;
        self.add_handle(object, Token::Shared { _fd: file.clone() })
    }

    fn close(&mut self, descriptor: Descriptor) {
        let Some(handle) = self.handle(descriptor) else { return };
        handle.closing = true;
        let (object, in_flight) = (handle.object, handle.in_flight);
        if in_flight == 0 {
            self.remove_handle(descriptor.slot);
        }
        let on_it = |work: &Work| matches!(work, Work::Operation { file, .. } if *file == descriptor.slot);
        let keys: Vec<Key> = self.slots.iter().filter(|(_, slot)| on_it(&slot.work)).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.cancel_key(key));
        if let Object::End(end) = object {
            self.world.state().shut(end);
        }
    }

    /// Whatever was sent.
    fn abort(&mut self, descriptor: Descriptor) {
        let end = self.handle(descriptor).map(|handle| handle.object);
        self.close(descriptor);
        if let Some(Object::End(end)) = end {
            self.world.state().reset(end.connection);
        }
    }

    fn submit(&mut self, operation: Operation, token: u64) -> Result<OperationId, Operation> {
        if self.slots.len() as usize + self.ready.len() >= self.slots.capacity() as usize {
            return Err(operation);
        }
        let descriptor = operation.descriptor();
        let Some(handle) = self.handle(descriptor) else {
            return Ok(self.complete_at_once(operation, token, libc::EBADF));
        };
        let object = handle.object;
        if self.is_dead() {
            return Ok(self.complete_at_once(operation, token, libc::ESHUTDOWN));
        }
        match &operation {
            Operation::ReceiveInto { behind, .. } if *behind as usize > memory::HEADROOM => {
                panic!("more comes behind a range than the headroom holds");
            }
            Operation::ReceivePdus { pdus, .. } => pdus.check(),
            Operation::ReceiveInto { buffer, range, .. }
            | Operation::Read { buffer, range, .. }
            | Operation::Write { buffer, range, .. } => {
                assert!(
                    range.start <= range.end && range.end as usize <= buffer.len(),
                    "a range lies outside of its buffer"
                );
            }
            _ => {}
        }
        // The key is needed before the operation moves in: this is the one that it will get.
        let placeholder = Slot { token, work: Work::Job(Box::new(|| Err(Errno(libc::EIO)))) };
        let Ok(key) = self.slots.insert(placeholder) else { unreachable!("room was checked above") };
        let operator = Operator::new(self.core, key);
        let mark = match self.begin(&operation, object, operator) {
            Ok(mark) => mark,
            Err(errno) => {
                self.slots.remove(key);
                return Ok(self.complete_at_once(operation, token, errno.0));
            }
        };
        if let Some(handle) = self.handles.at_mut(descriptor.slot) {
            handle.in_flight += 1;
        }
        if let Some(slot) = self.slots.get_mut(key) {
            slot.work = Work::Operation { operation, file: descriptor.slot, object, sent: 0, mark, cancelled: false };
        }
        self.world.state().schedule(operator);
        Ok(OperationId(key))
    }

    fn has_more(&self, socket: Descriptor) -> bool {
        let key = Key { index: socket.slot, generation: socket.generation };
        match self.handles.get(key).map(|handle| handle.object) {
            Some(Object::End(end)) => matches!(self.world.state().incoming(end).waiting(), Ok(Some(1..))),
            _ => false,
        }
    }

    fn cancel(&mut self, id: OperationId) {
        self.cancel_key(id.0);
    }

    fn offload(&mut self, job: Job, token: u64) -> Result<(), Job> {
        if self.jobs == JOBS || self.is_dead() {
            return Err(job);
        }
        match self.slots.insert(Slot { token, work: Work::Job(job) }) {
            Ok(key) => {
                self.jobs += 1;
                self.world.state().schedule(Operator::new(self.core, key));
                Ok(())
            }
            Err(Slot { work: Work::Job(job), .. }) => Err(job),
            Err(_) => unreachable!("what came back is what was given"),
        }
    }

    fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        if self.is_dead() {
            return Err(io::Error::from_raw_os_error(libc::ESHUTDOWN));
        }
        self.refill();
        let before = out.len();
        out.extend(self.ready.drain(..));
        loop {
            self.run_due(out);
            let woken = self.waker.0.swap(false, Ordering::SeqCst);
            let mut state = self.world.state();
            self.now = state.now;
            let until = match wait {
                _ if woken || out.len() > before => {
                    state.cores[self.core].mood = Mood::Awake;
                    return Ok(());
                }
                Wait::Poll => {
                    state.cores[self.core].mood = Mood::Awake;
                    state.now += POLL;
                    self.now = state.now;
                    return Ok(());
                }
                Wait::Until(time) if time <= state.now => {
                    state.cores[self.core].mood = Mood::Awake;
                    return Ok(());
                }
                Wait::Until(time) => Some(time),
                Wait::Forever => None,
            };
            state.cores[self.core].mood = Mood::Asleep(until);
            if !state.pass_time(self.core) {
                return Ok(());
            }
        }
    }

    fn in_flight(&self) -> u32 {
        self.slots.len() + self.ready.len() as u32
    }
}

impl Drop for Twin {
    /// As when a process is killed: its connections end; its disk operations happen, or not.
    fn drop(&mut self) {
        self.pool.set_reserved(Class::Medium, 0);
        let mut state = self.world.state();
        if state.life != self.life {
            return;
        }
        state.remove_core(self.core);
        for (_, handle) in self.handles.iter() {
            if let Object::End(end) = handle.object {
                state.shut(end);
            }
        }
    }
}
