//! A medium with protection information (SBC-3 4.22): the blocks are where they are without it, their tuples lie behind
//! the last one. A queue that wraps the store's queue keeps both together.
//!
//! A write of a block and that of its tuple are two: [`BlockQueue::exclusive`] gives every write its range for itself, so
//! that neither another write nor a read comes in between. A power cut may: a block that was being written then, and
//! was not acknowledged, may be read as one whose check fails, until it is written again.

mod tuple;

use crate::errno::EINVAL;
use crate::lies_within;
use backstore_api::{
    Answer, BlockQueue, Checks, Completion, Geometry, Protection, Request, StoreError, Submitted, TUPLE,
};
use memory::{Buffer, Class};
use reactor::Reactor;
use std::{collections::VecDeque, io, ops::Range, time::Duration};

/// Requests that one queue has in flight at most: each has a buffer for its tuples.
pub(crate) const REQUESTS: u32 = 16;
/// The tuples of a large buffer full of the smallest blocks: what one request moves, and one step of longer ones.
const TUPLES_AT_ONCE: u64 = Class::Large.bytes() as u64 / 512;
/// The tuples begin at a multiple of this, so that those of the blocks of an aligned range can be written alone.
const AREA_ALIGNMENT: u64 = 4096;

/// Where a medium keeps its blocks and their tuples.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    kind: Protection,
    block_size: u64,
    /// As the volume has it: without the tuples.
    geometry: Geometry,
    /// First byte of the tuples.
    tuples: u64,
}

impl Layout {
    /// Divides a store; `None`: it is too small for a block.
    pub(crate) fn new(kind: Protection, block_size: u32, store: &Geometry) -> Option<Layout> {
        let (block, tuple) = (u64::from(block_size), u64::from(TUPLE));
        let mut blocks = store.bytes / (block + tuple);
        let end = |blocks: u64| (blocks * block).next_multiple_of(AREA_ALIGNMENT) + blocks * tuple;
        while blocks > 0 && end(blocks) > store.bytes {
            blocks -= 1;
        }
        let bytes = blocks * block;
        let tuples = bytes.next_multiple_of(AREA_ALIGNMENT);
        // A block and its tuple are two writes: not atomic.
        (blocks > 0).then(|| Layout {
            kind,
            block_size: block,
            geometry: Geometry { bytes, atomic_write: 0, ..store.clone() },
            tuples,
        })
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Class and number of the buffers that each queue keeps for tuples.
    pub(crate) fn buffers_per_queue(&self) -> (Class, u32) {
        // Reads of tuples are hardly ever aligned, and then need room for what lies around them.
        (if self.geometry.alignment > 1 { Class::Medium } else { Class::Small }, REQUESTS)
    }

    /// Wraps a store's queue. OutOfMemory: the pool has no buffers.
    pub(crate) fn wrap<R: Reactor + 'static>(
        &self,
        reactor: &R,
        inner: Box<dyn BlockQueue<R, reactor::Completion>>,
        depth: u32,
    ) -> io::Result<Box<dyn BlockQueue<R, reactor::Completion>>> {
        let (class, count) = self.buffers_per_queue();
        // Two requests of the store for each.
        let count = count.min(depth / 2).max(1);
        let free = (0..count).map(|_| reactor.pool().take(class)).collect::<Option<Vec<Buffer>>>();
        let free = free.ok_or(io::ErrorKind::OutOfMemory)?;
        let jobs = (0..count).map(|_| None).collect();
        Ok(Box::new(Queue { inner, layout: self.clone(), free, jobs, in_flight: 0, waiting: VecDeque::new() }))
    }

    /// Where the tuples of blocks are.
    fn tuples_of(&self, blocks: &Range<u64>) -> Range<u64> {
        let at = |block| self.tuples + block * u64::from(TUPLE);
        at(blocks.start)..at(blocks.end)
    }

    fn lba(&self, offset: u64) -> u64 {
        offset / self.block_size
    }
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Read,
    Write,
    /// Blocks that are all alike, or zero: their tuples are made after them, in steps.
    Repeat,
    /// Blocks that lose what they hold: their tuples first.
    Erase,
    /// Nothing about tuples.
    Other,
}

/// A request on its way.
struct Job {
    tag: u64,
    work: Work,
    blocks: Range<u64>,
    /// Tuples go between the blocks of the caller's buffer; what is checked.
    with_tuples: bool,
    checks: Checks,
    /// Of the caller's buffer.
    range: Range<u32>,
    durable: bool,
    /// The request for the blocks, until its turn comes.
    first: Option<Request>,
    /// Guards of the blocks of a Repeat, which come again and again, and the first block whose tuple isn't written.
    guards: Vec<u16>,
    next: u64,
    /// The tuple that came with the block of a Repeat, and the block whose tuple it is.
    given: Option<([u8; TUPLE as usize], u64)>,
    /// Requests at the store.
    at_store: u8,
    started: bool,
    /// The caller's buffer, and the tuples', when the store has neither.
    buffer: Option<Buffer>,
    tuples: Option<Buffer>,
    /// Where the answers of reads are in them.
    data_at: Range<u32>,
    tuples_at: Range<u32>,
    answer: Option<Answer>,
    error: Option<StoreError>,
}

struct Queue<R> {
    inner: Box<dyn BlockQueue<R, reactor::Completion>>,
    layout: Layout,
    free: Vec<Buffer>,
    jobs: Vec<Option<Job>>,
    in_flight: u32,
    /// What the store had no room for: tag and request.
    waiting: VecDeque<(u64, Request)>,
}

/// The lower bit of the tag that the store sees: a request for blocks, not for tuples.
const BLOCKS: u64 = 0;

impl<R: Reactor> Queue<R> {
    /// What becomes of a request that is in range; the buffer is as the store wants it. An error: a check has failed.
    fn plan(
        &self,
        tag: u64,
        request: Request,
        tuples: &mut Option<Buffer>,
    ) -> Result<Job, (StoreError, Option<Buffer>)> {
        let layout = &self.layout;
        let span = request.span().unwrap_or(0..0);
        let (offset, size) = (span.start, layout.block_size);
        let blocks = layout.lba(span.start)..span.end.div_ceil(size);
        let inherent = tuple::inherent(layout.kind, size as u32, blocks.start);
        let mut job = Job {
            tag,
            work: Work::Other,
            with_tuples: matches!(request, Request::ReadTuples { .. } | Request::WriteTuples { .. }),
            checks: inherent,
            range: 0..0,
            durable: false,
            first: None,
            guards: Vec::new(),
            next: blocks.start,
            given: None,
            at_store: 0,
            started: false,
            buffer: None,
            tuples: None,
            data_at: 0..0,
            tuples_at: 0..0,
            answer: None,
            error: None,
            blocks,
        };
        let length = (span.end - span.start) as u32;
        match request {
            Request::Read { buffer, range, .. } => {
                (job.work, job.range) = (Work::Read, range.clone());
                // Of the last block a part may be wanted; it is read whole, to be checked.
                let whole = range.start + ((job.blocks.end - job.blocks.start) * size) as u32;
                job.first = Some(Request::Read { offset, buffer, range: range.start..whole });
            }
            Request::ReadTuples { buffer, range, checks, .. } => {
                (job.work, job.range, job.checks) = (Work::Read, range.clone(), checks);
                job.first = Some(Request::Read { offset, buffer, range: range.start..range.start + length });
            }
            Request::Write { buffer, range, durable, .. } => {
                (job.work, job.range, job.durable) = (Work::Write, range.clone(), durable);
                let bytes = &buffer[range.start as usize..range.end as usize];
                if let Some(tuples) = tuples {
                    for (nth, block) in bytes.chunks(size as usize).enumerate() {
                        let made = tuple::made(layout.kind, tuple::guard(block), job.blocks.start + nth as u64);
                        tuple::store(tuples, nth, &made);
                    }
                }
                job.first = Some(Request::Write { offset, buffer, range, durable });
            }
            Request::WriteTuples { mut buffer, range, durable, checks, .. } => {
                (job.work, job.range, job.durable, job.checks) = (Work::Write, range.clone(), durable, checks);
                let bytes = &mut buffer[range.start as usize..range.end as usize];
                let whole = checks.block_with_tuple() as usize;
                for (nth, bytes) in bytes.chunks(whole).enumerate() {
                    let (block, rest) = bytes.split_at(size as usize);
                    let tuple = rest.first_chunk().expect("whole blocks with their tuples");
                    if let Err(tag) = tuple::check(&checks, nth as u32, block, tuple) {
                        let offset = offset + nth as u64 * size;
                        return Err((StoreError::Protection { tag, offset }, Some(buffer)));
                    }
                }
                if let Some(tuples) = tuples {
                    tuple::part(bytes, bytes.len() / whole, size as usize, tuples);
                }
                job.first = Some(Request::Write { offset, buffer, range: range.start..range.start + length, durable });
            }
            Request::Fill { buffer, mut pattern, durable, length, tuple: given, .. } => {
                (job.work, job.durable) = (Work::Repeat, durable);
                if let Some(given) = given {
                    let whole = buffer.get(..pattern as usize).and_then(|whole| whole.split_at_checked(size as usize));
                    let Some((block, Ok(tuple))) = whole.map(|(block, tuple)| (block, <[u8; 8]>::try_from(tuple)))
                    else {
                        return Err((EINVAL, Some(buffer)));
                    };
                    if let Err(tag) = tuple::check(&given.checks, 0, block, &tuple) {
                        return Err((StoreError::Protection { tag, offset: given.from }, Some(buffer)));
                    }
                    job.given = Some((tuple, layout.lba(given.from)));
                    pattern = size as u32;
                } else if pattern == 0 || !u64::from(pattern).is_multiple_of(size) {
                    return Err((EINVAL, Some(buffer)));
                } else {
                    job.guards = buffer[..pattern as usize].chunks(size as usize).map(tuple::guard).collect();
                }
                job.first = Some(Request::Fill { offset, length, buffer, pattern, durable, tuple: None });
            }
            Request::Zero { unmap: false, durable, .. } => {
                (job.work, job.durable) = (Work::Repeat, durable);
                // The guard of zeroes is zero.
                job.guards = vec![0];
                job.first = Some(request);
            }
            Request::Zero { .. } | Request::Discard { .. } => {
                job.work = Work::Erase;
                job.durable = matches!(request, Request::Zero { durable: true, .. });
                job.first = Some(request);
            }
            Request::Flush | Request::Space | Request::Prefetch { .. } | Request::Status { .. } => {
                job.first = Some(request);
            }
            // Nothing is offered to copy from: the tuples would stay behind.
            Request::Copy { .. } => return Err((EINVAL, None)),
        }
        job.tuples = tuples.take();
        Ok(job)
    }

    /// Moves a job on until it waits for the store; its completion when it has ended.
    fn advance(&mut self, reactor: &mut R, index: usize) -> Option<Completion> {
        loop {
            let job = self.jobs[index].as_mut()?;
            if job.at_store > 0 {
                return None;
            }
            let next = if job.error.is_some() { [None, None] } else { job.requests(&self.layout) };
            if next.iter().all(Option::is_none) {
                return self.end(index);
            }
            for (part, request) in next.into_iter().enumerate() {
                if let (Some(job), Some(request)) = (&mut self.jobs[index], request) {
                    job.at_store += 1;
                    self.offer(reactor, (index as u64) << 1 | part as u64, request);
                }
            }
        }
    }

    /// Gives the store a request; what ends at once is noted.
    fn offer(&mut self, reactor: &mut R, tag: u64, request: Request) {
        match self.inner.submit(reactor, tag, request) {
            Submitted::Done(completion) => {
                self.note(completion);
            }
            Submitted::Pending => {}
            Submitted::Full(request) => self.waiting.push_back((tag, request)),
        }
    }

    /// Notes how a request of the store has ended; gives its job.
    fn note(&mut self, completion: Completion) -> usize {
        let index = (completion.tag >> 1) as usize;
        let Some(job) = self.jobs.get_mut(index).and_then(Option::as_mut) else { return index };
        job.at_store -= 1;
        let for_blocks = completion.tag & 1 == BLOCKS;
        if for_blocks {
            job.buffer = completion.buffer;
        } else if completion.buffer.is_some() {
            job.tuples = completion.buffer;
        }
        match completion.result {
            Ok(Answer::Data(range)) if for_blocks => job.data_at = range,
            Ok(Answer::Data(range)) => job.tuples_at = range,
            Ok(answer) if for_blocks => job.answer = Some(answer),
            Ok(_) => {}
            Err(error) => job.fail(error, for_blocks, &self.layout),
        }
        index
    }

    /// Ends a job.
    fn end(&mut self, index: usize) -> Option<Completion> {
        let mut job = self.jobs[index].take()?;
        self.in_flight -= 1;
        let result = match job.error {
            Some(error) => Err(error),
            None if job.work == Work::Read => job.read(&self.layout).map(Answer::Data),
            None => Ok(job.answer.take().unwrap_or(Answer::Done)),
        };
        if let (Work::Write, true, Some(buffer), Some(tuples)) =
            (job.work, job.with_tuples, &mut job.buffer, &job.tuples)
        {
            let size = self.layout.block_size as usize;
            let blocks = (job.blocks.end - job.blocks.start) as usize;
            tuple::join(&mut buffer[job.range.start as usize..job.range.end as usize], blocks, size, tuples);
        }
        self.free.extend(job.tuples.take());
        Some(Completion { tag: job.tag, result, buffer: job.buffer.take().or_else(|| job.first?.into_buffer()) })
    }

    /// Ends what the inner queue says has ended.
    fn ended(&mut self, reactor: &mut R, completion: Completion) -> Option<Completion> {
        let index = self.note(completion);
        self.advance(reactor, index)
    }
}

impl Job {
    /// The next requests for the store: for the blocks, and for the tuples. Neither: it has ended.
    fn requests(&mut self, layout: &Layout) -> [Option<Request>; 2] {
        let at = layout.tuples_of(&self.blocks);
        let length = (at.end - at.start) as u32;
        let durable = self.durable;
        let started = std::mem::replace(&mut self.started, true);
        match self.work {
            Work::Other => [self.first.take(), None],
            _ if self.blocks.is_empty() => [self.first.take(), None],
            Work::Read | Work::Write if started => [None, None],
            Work::Read => {
                let tuples = self.tuples.take();
                let tuples = tuples.map(|buffer| Request::Read { offset: at.start, buffer, range: 0..length });
                [self.first.take(), tuples]
            }
            Work::Write => {
                let tuples = self.tuples.take();
                let tuples =
                    tuples.map(|buffer| Request::Write { offset: at.start, buffer, range: 0..length, durable });
                [self.first.take(), tuples]
            }
            Work::Erase if started => [self.first.take(), None],
            Work::Erase => {
                let (offset, length) = (at.start, at.end - at.start);
                [None, Some(Request::Zero { offset, length, unmap: true, durable })]
            }
            Work::Repeat if !started => [self.first.take(), None],
            Work::Repeat => {
                let blocks = self.next..self.blocks.end.min(self.next + TUPLES_AT_ONCE);
                let Some(mut buffer) = self.tuples.take_if(|_| !blocks.is_empty()) else { return [None, None] };
                for (nth, lba) in blocks.clone().enumerate() {
                    let tuple = match &self.given {
                        Some((tuple, first)) => tuple::counted(layout.kind, tuple, lba - first),
                        None => {
                            let guard = self.guards[(lba - self.blocks.start) as usize % self.guards.len()];
                            tuple::made(layout.kind, guard, lba)
                        }
                    };
                    tuple::store(&mut buffer, nth, &tuple);
                }
                self.next = blocks.end;
                let at = layout.tuples_of(&blocks);
                let range = 0..(at.end - at.start) as u32;
                [None, Some(Request::Write { offset: at.start, buffer, range, durable })]
            }
        }
    }

    /// Notes the first failure. One of the tuples' medium is one of the blocks'.
    fn fail(&mut self, error: StoreError, for_blocks: bool, layout: &Layout) {
        let error = match error {
            StoreError::Medium { offset } if !for_blocks => {
                let block = offset.saturating_sub(layout.tuples) / u64::from(TUPLE);
                let block = block.clamp(self.blocks.start, self.blocks.end.saturating_sub(1));
                StoreError::Medium { offset: block * layout.block_size }
            }
            other => other,
        };
        self.error.get_or_insert(error);
    }

    /// Checks what was read, and puts the tuples between the blocks if they are wanted. Gives where it is.
    fn read(&mut self, layout: &Layout) -> Result<Range<u32>, StoreError> {
        let size = layout.block_size as usize;
        let offset = self.blocks.start * layout.block_size;
        let (Some(buffer), Some(tuples)) = (&mut self.buffer, &mut self.tuples) else { return Err(EINVAL) };
        let blocks = (self.blocks.end - self.blocks.start) as usize;
        let whole = (self.data_at.len() / size).min(self.tuples_at.len() / TUPLE as usize);
        let found = &tuples[self.tuples_at.start as usize..];
        for nth in 0..whole.min(blocks) {
            let at = self.data_at.start as usize + nth * size;
            let block = &buffer[at..at + size];
            if let Err(tag) =
                tuple::check_read(layout.kind, &self.checks, nth as u32, block, &tuple::stored(found, nth))
            {
                return Err(StoreError::Protection { tag, offset: offset + (nth * size) as u64 });
            }
        }
        if whole < blocks {
            return Err(StoreError::Medium { offset: offset + (whole * size) as u64 });
        }
        if !self.with_tuples {
            return Ok(self.data_at.start..self.data_at.start + self.range.len() as u32);
        }
        let to = self.range.start as usize;
        let data = self.data_at.start as usize..self.data_at.end as usize;
        buffer.copy_within(data, to);
        tuple::join(&mut buffer[to..self.range.end as usize], blocks, size, found);
        Ok(self.range.clone())
    }
}

impl<R: Reactor> BlockQueue<R, reactor::Completion> for Queue<R> {
    fn geometry(&self) -> &Geometry {
        &self.layout.geometry
    }

    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted {
        let Some(index) = self.jobs.iter().position(Option::is_none) else { return Submitted::Full(request) };
        let refused = |error, buffer| Submitted::Done(Completion { tag, result: Err(error), buffer });
        let whole = match &request {
            Request::ReadTuples { range, checks, .. } | Request::WriteTuples { range, checks, .. } => {
                u64::from(checks.block_size) == self.layout.block_size
                    && range.end.saturating_sub(range.start).is_multiple_of(checks.block_with_tuple())
            }
            // An initiator that expects less than it asked for.
            Request::Read { offset, buffer, range } => {
                let size = self.layout.block_size;
                let whole = u64::from(range.end.saturating_sub(range.start)).next_multiple_of(size);
                offset.is_multiple_of(size) && u64::from(range.start) + whole <= buffer.len() as u64
            }
            request => request.span().is_none_or(|span| {
                let size = self.layout.block_size;
                span.start.is_multiple_of(size) && span.end.is_multiple_of(size)
            }),
        };
        if !whole || lies_within(&request, self.layout.geometry.bytes).is_err() {
            return refused(EINVAL, request.into_buffer());
        }
        if self.layout.geometry.read_only && request.is_write() {
            return refused(StoreError::ReadOnly, request.into_buffer());
        }
        let mut tuples = self.free.pop();
        let job = match self.plan(tag, request, &mut tuples) {
            Ok(job) => job,
            Err((error, buffer)) => {
                self.free.extend(tuples);
                return refused(error, buffer);
            }
        };
        self.jobs[index] = Some(job);
        self.in_flight += 1;
        match self.advance(reactor, index) {
            Some(completion) => Submitted::Done(completion),
            None => Submitted::Pending,
        }
    }

    fn complete(&mut self, reactor: &mut R, completion: reactor::Completion) -> Option<Completion> {
        let completion = self.inner.complete(reactor, completion)?;
        self.ended(reactor, completion)
    }

    fn poll(&mut self, reactor: &mut R) -> Option<Completion> {
        for _ in 0..self.waiting.len() {
            let (tag, request) = self.waiting.pop_front()?;
            self.offer(reactor, tag, request);
            if let Some(completion) = self.advance(reactor, (tag >> 1) as usize) {
                return Some(completion);
            }
        }
        while let Some(completion) = self.inner.poll(reactor) {
            if let Some(completion) = self.ended(reactor, completion) {
                return Some(completion);
            }
        }
        None
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn in_flight(&self) -> u32 {
        // The store may have work that no request waits for.
        self.in_flight.max(self.inner.in_flight())
    }

    fn close(&mut self, reactor: &mut R) {
        self.inner.close(reactor);
    }

    /// Every write: a block and its tuple change together. Rounded out to what the store writes at once of either.
    fn exclusive(&self, range: Range<u64>) -> Option<Range<u64>> {
        let alignment = u64::from(self.layout.geometry.alignment.max(1));
        let tuples_at_once = (alignment / u64::from(TUPLE)).max(1);
        let unit = alignment.max(tuples_at_once * self.layout.block_size);
        Some(range.start / unit * unit..range.end.div_ceil(unit).saturating_mul(unit))
    }
}
