//! The data half of a file or block device on one core: a slab of requests, each of which is a walk.
//!
//! One sync runs at a time. Requests that want one meanwhile share the next: it starts after all that they cover.

use super::op::{Op, operation, put, take_back};
use super::pinned::Side;
use super::portions::Portions;
use super::reserve::Reserve;
use super::shared::{Shared, unpack, unpack_space};
use super::walk::{Limits, Next, Task};
use crate::errno::{EINVAL, is_medium, is_transient, is_unsupported, store_error};
use backstore_api::{Answer, BlockQueue, Completion, CopySource, Geometry, Request, StoreError, Submitted};
use memory::{Buffer, Key, PageReader, Slab};
use reactor::{Descriptor, Errno, Reactor, Returned};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Slot of the look that no request waits for; no slab is that large.
const LOOK_TOKEN: u64 = 0xff_ffff;
/// Slot of the job that has a chunk come, for which no request waits either.
const PIN_TOKEN: u64 = 0xff_fffe;
/// Between two looks whether the file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is smaller, or begins amid a page, is copied through a buffer as well.
const COPY_GRANULE: u64 = 4096;
/// Requests that a disk begins with that stood still.
const FIRST: u32 = 4;
/// Times that an operation is tried again after EINTR or EAGAIN.
const RETRIES: u8 = 16;

/// Whether an operation has the disk move blocks.
fn moves(next: Next) -> bool {
    matches!(next, Next::Direct { .. } | Next::Fetch { .. } | Next::Store { .. })
}

pub(crate) struct FileQueue {
    pub(super) shared: Arc<Shared>,
    pub(super) geometry: Geometry,
    pub(super) limits: Limits,
    /// As others copy from it; None: they can't.
    source: Option<CopySource>,
    /// Pages that are kept in memory.
    pinned: Option<Side>,
    descriptor: Descriptor,
    token_base: u64,
    ops: Slab<Op>,
    /// Free bounce buffers.
    bounce: Vec<Buffer>,
    /// Requests that wait for a bounce buffer or for the reactor.
    held: VecDeque<Key>,
    /// Requests that wait for others to end.
    reserve: Reserve,
    /// Reads and writes that are running.
    at_disk: u32,
    syncing: bool,
    /// Requests that the running sync covers, besides the one that started it.
    joined: Vec<Key>,
    /// Requests that wait for the next one.
    sync_waiting: VecDeque<Key>,
    /// Ended, and not told yet: for `poll`.
    ready: Portions<Completion>,
    next_look: Duration,
    looking: bool,
}

impl FileQueue {
    pub(crate) fn new(
        shared: Arc<Shared>,
        geometry: Geometry,
        limits: Limits,
        descriptor: Descriptor,
        token_base: u64,
        depth: u32,
        bounce: Vec<Buffer>,
    ) -> FileQueue {
        FileQueue {
            shared,
            geometry,
            limits,
            source: None,
            pinned: None,
            descriptor,
            token_base,
            ops: Slab::with_capacity(depth),
            bounce,
            held: VecDeque::with_capacity(depth as usize),
            reserve: Reserve::with_capacity(depth),
            at_disk: 0,
            syncing: false,
            joined: Vec::with_capacity(depth as usize),
            sync_waiting: VecDeque::with_capacity(depth as usize),
            // What ends while a burst is told.
            ready: Portions::with_capacity(4 * depth as usize),
            next_look: Duration::ZERO,
            looking: false,
        }
    }

    /// Others may copy from it.
    pub(crate) fn offer(mut self, source: Option<CopySource>) -> FileQueue {
        self.source = source;
        self
    }

    /// Keeps pages in memory.
    pub(crate) fn pinning(mut self, side: Option<Side>) -> FileQueue {
        self.pinned = side;
        self
    }

    /// A read goes to the file: perhaps the next ones need not.
    fn warm<R: Reactor>(&mut self, reactor: &mut R, offset: u64) {
        let Some(side) = &mut self.pinned else { return };
        side.note(offset);
        if let Some(job) = side.job(reactor.now())
            && reactor.offload(job, self.token_base | PIN_TOKEN).is_err()
        {
            side.answered(Err(Errno::AGAIN), reactor.now());
        }
    }

    fn token(&self, key: Key) -> u64 {
        self.token_base | u64::from(key.generation & 0xff) << 16 | u64::from(key.index)
    }

    /// Starts the next operation of a request, or holds the request until that is possible.
    fn drive<R: Reactor>(&mut self, reactor: &mut R, key: Key) {
        let token = self.token(key);
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let mut next = op.walk.next(&self.limits, self.shared.missing());
        if matches!(next, Next::Punch { .. } | Next::ZeroRange { .. } | Next::Clone { .. })
            && let Some(side) = &self.pinned
        {
            if !op.disturbs {
                op.disturbs = true;
                op.clears = side.pinned.disturb(op.walk.at..op.walk.end);
            }
            if op.clears {
                next = Next::Clear;
            }
        }
        if matches!(next, Next::Fetch { .. } | Next::Store { .. }) && op.bounce.is_none() {
            op.bounce = self.bounce.pop();
            if op.bounce.is_none() {
                self.held.push_back(key);
                return;
            }
        }
        if next == Next::Sync && self.syncing {
            self.sync_waiting.push_back(key);
            return;
        }
        let started = match next {
            Next::Look => {
                let shared = Arc::clone(&self.shared);
                reactor.offload(Box::new(move || shared.look()), token).is_ok()
            }
            Next::Count => {
                let shared = Arc::clone(&self.shared);
                reactor.offload(Box::new(move || shared.space()), token).is_ok()
            }
            Next::List => {
                let shared = Arc::clone(&self.shared);
                let (at, end) = (op.walk.at, op.walk.end);
                let limit = if let Task::Status(limit) = op.walk.task { limit } else { 0 };
                reactor.offload(Box::new(move || shared.list(at, end, limit)), token).is_ok()
            }
            Next::Clear => match &self.pinned {
                Some(side) => {
                    let (pinned, span) = (Arc::clone(&side.pinned), op.walk.at..op.walk.end);
                    reactor.offload(Box::new(move || pinned.clear(span)), token).is_ok()
                }
                None => false,
            },
            Next::Clone { offset, from, length } => match op.source.clone() {
                Some(source) => {
                    let shared = Arc::clone(&self.shared);
                    reactor.offload(Box::new(move || shared.copy(&source, from, offset, length)), token).is_ok()
                }
                None => false,
            },
            _ => match operation(op, next, self.descriptor) {
                None => false,
                Some(operation) => match reactor.submit(operation, token) {
                    Ok(_) => true,
                    Err(refused) => {
                        take_back(op, next, refused);
                        false
                    }
                },
            },
        };
        if started {
            op.running = Some(next);
            self.at_disk += u32::from(moves(next));
            if next == Next::Sync {
                self.syncing = true;
                self.joined.extend(self.sync_waiting.drain(..));
            }
        } else {
            self.held.push_back(key);
        }
    }

    /// Tries each held request once.
    fn drive_held<R: Reactor>(&mut self, reactor: &mut R) {
        for _ in 0..self.held.len() {
            if let Some(key) = self.held.pop_front() {
                self.drive(reactor, key);
            }
        }
    }

    /// Has the disk begin with what was kept back: with a few, while the others are made ready.
    fn drive_reserve<R: Reactor>(&mut self, reactor: &mut R) {
        let mut count = 0;
        while let Some(key) = self.reserve.pop() {
            self.drive(reactor, key);
            count += 1;
            if count == FIRST {
                reactor.start_disks();
            }
        }
        if count > 0 {
            reactor.start_disks();
        }
    }

    /// The sync of `leader` ended with `result` (None: it goes on), and so did those that share it.
    fn synced<R: Reactor>(
        &mut self,
        reactor: &mut R,
        outcome: Result<u32, Errno>,
        result: &Option<Result<Answer, StoreError>>,
    ) {
        self.syncing = false;
        for at in 0..self.joined.len() {
            let key = self.joined[at];
            let ended = match (outcome, result) {
                (Ok(moved), _) => self.landed(key, Next::Sync, moved, None, reactor.now()),
                (Err(_), Some(Err(error))) => Some(Err(*error)),
                // It is tried again, for all of them.
                (Err(_), _) => {
                    self.sync_waiting.push_back(key);
                    continue;
                }
            };
            match ended {
                Some(result) => {
                    let completion = self.end(key, result);
                    completion.into_iter().for_each(|completion| self.ready.push(completion));
                }
                None => self.drive(reactor, key),
            }
        }
        self.joined.clear();
    }

    /// Sends a helper to see whether the file is still there; nobody waits for it.
    fn look<R: Reactor>(&mut self, reactor: &mut R) {
        if !self.looking {
            let shared = Arc::clone(&self.shared);
            let job = Box::new(move || shared.look());
            self.looking = reactor.offload(job, self.token_base | LOOK_TOKEN).is_ok();
        }
    }

    fn key_of(&self, token: u64) -> Option<Key> {
        let slot = (token & 0xff_ffff) as u32;
        let key = self.ops.key_at(slot & 0xffff)?;
        (key.generation & 0xff == slot >> 16).then_some(key)
    }

    /// An operation ended well: the request goes on (None) or ends.
    fn landed(
        &mut self,
        key: Key,
        next: Next,
        moved: u32,
        job: Option<Vec<u8>>,
        now: Duration,
    ) -> Option<Result<Answer, StoreError>> {
        let op = self.ops.get_mut(key)?;
        match (next, job) {
            (Next::List, Some(packed)) => return Some(Ok(Answer::Extents(unpack(&packed)))),
            (Next::Count, Some(packed)) => return Some(Ok(Answer::Space(unpack_space(&packed)))),
            _ => {}
        }
        let user: &mut [u8] = op.user.as_deref_mut().unwrap_or_default();
        let bounce: &mut [u8] = op.bounce.as_deref_mut().unwrap_or_default();
        if let Err(error) = op.walk.landed(next, moved, &self.limits, user, bounce) {
            return Some(Err(error));
        }
        if op.walk.next(&self.limits, self.shared.missing()) == Next::Look {
            if now < self.next_look {
                op.walk.finish();
            } else {
                self.next_look = now + LOOK_EVERY;
            }
        }
        if op.walk.next(&self.limits, self.shared.missing()) != Next::Done {
            return None;
        }
        // What the kernel told another core of lost data holds for this one too.
        if (op.walk.durable || op.walk.task == Task::Flush)
            && let Err(error) = self.shared.state()
        {
            return Some(Err(error));
        }
        Some(Ok(match &op.walk.task {
            Task::Read(range) => Answer::Data(range.clone()),
            _ => Answer::Done,
        }))
    }

    /// An operation failed: the request goes on another way (None) or ends.
    fn failed(&mut self, key: Key, next: Next, errno: Errno) -> Option<Result<Answer, StoreError>> {
        let op = self.ops.get_mut(key)?;
        if is_transient(errno) && op.retries < RETRIES {
            op.retries += 1;
            return None;
        }
        let writes = matches!(op.walk.task, Task::Write | Task::Fill(_) | Task::Zero { .. });
        match next {
            Next::Punch { .. } | Next::ZeroRange { .. }
                if is_unsupported(errno) || StoreError::Other(errno.0) == EINVAL =>
            {
                match next {
                    Next::Punch { .. } => self.shared.lacks_punch(),
                    _ => self.shared.lacks_zero(),
                }
                // A discard is a hint; zeroes are written instead.
                return (op.walk.task == Task::Discard).then_some(Ok(Answer::Done));
            }
            // A hint.
            Next::Advise { .. } => return Some(Ok(Answer::Done)),
            // The caller has other ways.
            Next::Clone { .. } => {
                if is_unsupported(errno) || errno.0 == rustix::io::Errno::XDEV.raw_os_error() {
                    self.shared.lacks_copy();
                }
                return Some(Err(store_error(errno, op.walk.at)));
            }
            Next::Sync if errno.0 != rustix::io::Errno::CANCELED.raw_os_error() => {
                self.shared.latch(errno);
                let error = store_error(errno, 0);
                let medium = matches!(error, StoreError::Medium { .. });
                return Some(Err(if medium { StoreError::Latched } else { error }));
            }
            // The error may be that of an earlier write's pages: it is told once, and they are dropped.
            Next::Direct { .. } | Next::Store { .. }
                if writes && op.walk.durable && self.shared.buffered && is_medium(errno) =>
            {
                self.shared.latch(errno);
            }
            _ => {}
        }
        let error = store_error(errno, op.walk.at);
        if error == StoreError::Gone {
            self.shared.set_gone();
        }
        Some(Err(error))
    }

    fn end(&mut self, key: Key, result: Result<Answer, StoreError>) -> Option<Completion> {
        let op = self.ops.remove(key)?;
        self.bounce.extend(op.bounce);
        if let Some(side) = self.pinned.as_ref().filter(|_| op.disturbs) {
            side.pinned.calm();
        }
        Some(Completion { tag: op.tag, result, buffer: op.user })
    }
}

impl<R: Reactor> BlockQueue<R, reactor::Completion> for FileQueue {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted {
        let done = |result, buffer| Submitted::Done(Completion { tag, result, buffer });
        if let Some(error) = self.refusal(&request) {
            return done(Err(error), request.into_buffer());
        }
        if self.skips_flush(&request) {
            return done(Ok(Answer::Done), None);
        }
        if self.ops.len() >= self.ops.capacity() {
            return Submitted::Full(request);
        }
        let (walk, user, source) = self.plan(request);
        if let Some(answer) = self.answer_now(&walk) {
            return done(Ok(answer), user);
        }
        if matches!(walk.task, Task::Read(_)) {
            self.warm(reactor, walk.at);
        }
        let may_wait = !self.shared.buffered && matches!(walk.task, Task::Read(_) | Task::Write);
        match self.ops.insert(Op::new(tag, walk, user, source)) {
            Ok(key) => {
                if !(may_wait && self.reserve.keeps(key, self.at_disk, reactor.now())) {
                    self.drive(reactor, key);
                }
                Submitted::Pending
            }
            Err(op) => done(Err(StoreError::Other(rustix::io::Errno::AGAIN.raw_os_error())), op.user),
        }
    }

    fn complete(&mut self, reactor: &mut R, completion: reactor::Completion) -> Option<Completion> {
        if completion.token & 0xff_ffff == LOOK_TOKEN {
            self.looking = false;
            self.drive_held(reactor);
            return None;
        }
        if completion.token & 0xff_ffff == PIN_TOKEN {
            if let Some(side) = &mut self.pinned {
                let found = completion.result.map(u64::from);
                side.answered(found, reactor.now());
            }
            self.drive_held(reactor);
            return None;
        }
        let key = self.key_of(completion.token)?;
        let next = self.ops.get_mut(key)?.running.take()?;
        if moves(next) {
            if !self.shared.buffered {
                if self.reserve.ended(self.at_disk, reactor.now()) {
                    self.ready.burst();
                }
                self.drive_reserve(reactor);
            }
            self.at_disk -= 1;
        }
        let op = self.ops.get_mut(key)?;
        let job = match completion.returned {
            Returned::Buffer(buffer) => {
                put(op, next, buffer);
                None
            }
            Returned::Job(_, bytes) => Some(bytes),
            // Nothing that a store asks for.
            _ => None,
        };
        let outcome = completion.result;
        let result = match outcome {
            // However that ended: the file is what is asked for.
            _ if next == Next::Clear => {
                op.clears = false;
                None
            }
            Ok(moved) => self.landed(key, next, moved, job, reactor.now()),
            Err(errno) => {
                if is_medium(errno) {
                    self.look(reactor);
                }
                self.failed(key, next, errno)
            }
        };
        if next == Next::Sync {
            self.synced(reactor, outcome, &result);
        }
        let ended = match result {
            Some(result) => self.end(key, result),
            None => {
                self.drive(reactor, key);
                None
            }
        };
        if !self.syncing
            && let Some(first) = self.sync_waiting.pop_front()
        {
            self.drive(reactor, first);
        }
        if !self.held.is_empty() {
            self.drive_held(reactor);
        }
        if self.shared.buffered {
            return ended.or_else(|| self.ready.pop());
        }
        // How many have ended together is known when the turn's completions are through.
        ended.into_iter().for_each(|ended| self.ready.push(ended));
        None
    }

    fn poll(&mut self, reactor: &mut R) -> Option<Completion> {
        if !self.held.is_empty() {
            self.drive_held(reactor);
        }
        self.reserve.turn_over();
        if self.reserve.is_overdue(reactor.now()) {
            self.drive_reserve(reactor);
        }
        self.ready.next()
    }

    fn deadline(&self) -> Option<Duration> {
        if self.ready.len() > 0 { Some(Duration::ZERO) } else { self.reserve.deadline() }
    }

    fn in_flight(&self) -> u32 {
        self.ops.len()
            + self.ready.len() as u32
            + u32::from(self.looking)
            + u32::from(self.pinned.as_ref().is_some_and(Side::is_asking))
    }

    fn close(&mut self, reactor: &mut R) {
        reactor.close(self.descriptor);
    }

    fn pages(&self, offset: u64, length: u32) -> Option<&PageReader> {
        let reader = &self.pinned.as_ref()?.reader;
        let there = reader.holds(offset, length)
            && self.shared.state().is_ok()
            && self.shared.capacity.holds(offset, u64::from(length)).is_ok();
        there.then_some(reader)
    }

    fn copy_source(&self) -> Option<CopySource> {
        self.source.clone()
    }

    fn can_copy(&self, source: &CopySource, from: u64, to: u64, length: u64) -> bool {
        let here = self.source.as_ref().is_some_and(|own| own.device == source.device);
        let aligned = (from | to | length).is_multiple_of(self.limits.alignment.max(COPY_GRANULE));
        here && aligned && self.shared.may_copy()
    }
}
