//! The data half of a RAM disk on one core: everything ends at once, but for writes that have to get memory.
//!
//! Those wait, with their buffers, until a helper thread has it, and are carried out here then: a region is written to by data cores
//! alone, and as long as one of them is the only one, it can lend.

use super::shared::Shared;
use crate::errno::{EINVAL, no_memory};
use crate::{Capacity, in_range};
use backstore_api::{Answer, BlockQueue, Completion, Geometry, Request, Space, StoreError, Submitted};
use memory::{Buffer, Region};
use reactor::{Errno, Reactor};
use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

/// Jobs at a time that writes wait for.
const JOBS: usize = 4;
/// Slot of the one that nobody waits for: it gets memory ahead.
const AHEAD: usize = JOBS;

/// Data half of a RAM disk.
pub(crate) struct RamQueue {
    shared: Arc<Shared>,
    capacity: Capacity,
    geometry: Geometry,
    token_base: u64,
    depth: usize,
    /// Writes that have no memory yet.
    waiting: VecDeque<(u64, Request)>,
    /// Ended, and not told yet.
    ready: VecDeque<Completion>,
    /// Huge pages that helper threads get at the moment.
    jobs: [Option<Range<u64>>; JOBS + 1],
    /// Huge pages that are to be got ahead, one after the other.
    ahead: Range<u64>,
    /// Somebody waits for what has come by a job of another core.
    has_come: bool,
}

impl RamQueue {
    pub(super) fn new(shared: Arc<Shared>, geometry: Geometry, token_base: u64, depth: u32) -> RamQueue {
        let capacity = shared.capacity.clone();
        let depth = depth as usize;
        RamQueue {
            shared,
            capacity,
            geometry,
            token_base,
            depth,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            jobs: Default::default(),
            ahead: 0..0,
            has_come: false,
        }
    }

    /// The range that a request touches by writing to it, if it will be carried out.
    fn touches(&self, request: &Request) -> Option<Range<u64>> {
        match request {
            Request::Write { .. } | Request::Fill { .. } | Request::Zero { unmap: false, .. } => request.span(),
            _ => None,
        }
        .filter(|_| in_range(request, &self.capacity).is_ok())
    }

    /// The huge pages that a request has to wait for.
    fn lacks(&self, request: &Request) -> Option<Range<u64>> {
        self.shared.lacks(&self.touches(request)?)
    }

    /// Carries out a request that waits for nothing, and notes what its sender will want next.
    fn carry_out(&mut self, tag: u64, request: Request) -> Completion {
        if let Some(wanted) = self.touches(&request).and_then(|span| self.shared.wants(&span)) {
            self.ahead = wanted;
        }
        let (result, buffer) = self.run(request);
        Completion { tag, result, buffer }
    }

    /// Has memory got for those who wait, and ahead.
    fn fetch<R: Reactor>(&mut self, reactor: &mut R) {
        for at in 0..self.waiting.len() {
            let Some(slot) = self.jobs[..JOBS].iter().position(Option::is_none) else { break };
            let Some(wanted) = self.lacks(&self.waiting[at].1) else {
                self.has_come = true;
                continue;
            };
            let comes = |job: &Range<u64>| job.start <= wanted.start && wanted.end <= job.end;
            if !self.jobs.iter().flatten().any(comes) && !self.start(reactor, slot, wanted) {
                return;
            }
        }
        while self.jobs[AHEAD].is_none() && !self.ahead.is_empty() {
            let page = self.ahead.start;
            if !self.shared.has(page) && !self.start(reactor, AHEAD, page..page + 1) {
                return;
            }
            self.ahead.start += 1;
        }
    }

    /// False: the reactor takes no job now.
    fn start<R: Reactor>(&mut self, reactor: &mut R, slot: usize, wanted: Range<u64>) -> bool {
        let (shared, pages) = (Arc::clone(&self.shared), wanted.clone());
        let job = Box::new(move || shared.get(pages).map(|()| (0, Vec::new())));
        let started = reactor.offload(job, self.token_base | slot as u64).is_ok();
        if started {
            self.jobs[slot] = Some(wanted);
        }
        started
    }

    /// A job has ended: so does who has waited for it.
    fn got(&mut self, pages: &Range<u64>, result: Result<(), Errno>) {
        for _ in 0..self.waiting.len() {
            let Some((tag, request)) = self.waiting.pop_front() else { return };
            // What the job has got may have been given back again: then the write gets it itself, rather than to wait for ever.
            let waits = self.lacks(&request).map(|lacks| pages.start <= lacks.start && lacks.end <= pages.end);
            let done = match (waits, result) {
                (Some(false), _) => {
                    self.waiting.push_back((tag, request));
                    continue;
                }
                (Some(true), Err(errno)) => {
                    Completion { tag, result: Err(no_memory(errno)), buffer: request.into_buffer() }
                }
                (None, _) | (Some(true), Ok(())) => self.carry_out(tag, request),
            };
            self.ready.push_back(done);
        }
    }

    fn run(&self, request: Request) -> (Result<Answer, StoreError>, Option<Buffer>) {
        if let Err(error) = in_range(&request, &self.capacity) {
            return (Err(error), request.into_buffer());
        }
        let shared = &*self.shared;
        match request {
            Request::Read { offset, mut buffer, range } => {
                shared.region.read(offset, &mut buffer[range.start as usize..range.end as usize]);
                (Ok(Answer::Data(range)), Some(buffer))
            }
            Request::Write { offset, buffer, range, .. } => {
                shared.write(offset, &buffer[range.start as usize..range.end as usize]);
                (Ok(Answer::Done), Some(buffer))
            }
            // Out of range already.
            Request::ReadTuples { buffer, .. } | Request::WriteTuples { buffer, .. } => (Err(EINVAL), Some(buffer)),
            Request::Flush | Request::Prefetch { .. } => (Ok(Answer::Done), None),
            Request::Space => {
                let used = shared.used(self.capacity.bytes());
                let available = self.capacity.bytes().saturating_sub(used);
                (Ok(Answer::Space(Space { used: Some(used), available: Some(available) })), None)
            }
            Request::Discard { offset, length } => {
                shared.discard(offset, length);
                (Ok(Answer::Done), None)
            }
            Request::Zero { offset, length, unmap, .. } => {
                shared.zero(offset, length, unmap);
                (Ok(Answer::Done), None)
            }
            Request::Fill { offset, length, buffer, pattern, .. } => {
                let (mut at, end) = (offset, offset + length);
                while at < end {
                    let part = u64::from(pattern).min(end - at);
                    shared.write(at, &buffer[..part as usize]);
                    at += part;
                }
                (Ok(Answer::Done), Some(buffer))
            }
            // Nothing is offered to copy from.
            Request::Copy { .. } => (Err(EINVAL), None),
            Request::Status { offset, length, limit } => {
                (Ok(Answer::Extents(shared.status(offset..offset + length, limit))), None)
            }
        }
    }
}

impl<R: Reactor> BlockQueue<R, reactor::Completion> for RamQueue {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted {
        let submitted = if self.lacks(&request).is_none() {
            Submitted::Done(self.carry_out(tag, request))
        } else if self.waiting.len() + self.ready.len() >= self.depth {
            return Submitted::Full(request);
        } else {
            self.waiting.push_back((tag, request));
            Submitted::Pending
        };
        if !self.waiting.is_empty() || !self.ahead.is_empty() {
            self.fetch(reactor);
        }
        submitted
    }

    fn complete(&mut self, reactor: &mut R, completion: reactor::Completion) -> Option<Completion> {
        let slot = (completion.token & 0xff_ffff) as usize;
        let pages = self.jobs.get_mut(slot)?.take()?;
        match completion.result {
            // Who needs it asks, and is told.
            Err(_) if slot == AHEAD => self.ahead = 0..0,
            result => self.got(&pages, result.map(drop)),
        }
        self.fetch(reactor);
        self.ready.pop_front()
    }

    fn poll(&mut self, reactor: &mut R) -> Option<Completion> {
        let is_stuck = !self.waiting.is_empty() && self.jobs.iter().all(Option::is_none);
        if std::mem::take(&mut self.has_come) || is_stuck {
            self.got(&(0..0), Ok(()));
            // The reactor may have had no room for a job.
            self.fetch(reactor);
        }
        self.ready.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        (self.has_come || !self.ready.is_empty()).then_some(Duration::ZERO)
    }

    fn in_flight(&self) -> u32 {
        let jobs = self.jobs.iter().flatten().count();
        (self.waiting.len() + self.ready.len()).max(jobs) as u32
    }

    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        if let Err(error) = self.capacity.holds(offset, into.len() as u64) {
            return Some(Err(error));
        }
        self.shared.region.read(offset, into);
        Some(Ok(()))
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), StoreError>> {
        if let Err(error) = self.capacity.holds(offset, from.len() as u64) {
            return Some(Err(error));
        }
        if !self.shared.region.may_write() || !self.shared.is_there(offset..offset + from.len() as u64) {
            return None;
        }
        self.shared.stream(offset, from);
        Some(Ok(()))
    }

    fn writes_now(&self, offset: u64, length: u64) -> bool {
        // What lies outside is refused at once.
        self.capacity.holds(offset, length).is_err() || self.shared.is_easy(offset..offset + length)
    }

    fn region(&self, offset: u64, length: u32) -> Option<(&Arc<Region>, u64)> {
        self.capacity.holds(offset, u64::from(length)).ok().map(|()| (&self.shared.region, offset))
    }
}
