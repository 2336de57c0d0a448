//! A logical unit on one core: its store's queue, who waits for it, what may not be touched.

use crate::lasting::Keeper;
use backstore_api::{Answer, BlockQueue, Geometry, Request, StoreError, Submitted};
use memory::Class;
use protocol::TaskKey;
use reactor::{Completion, Reactor};
use scsi::{
    LogicalUnit,
    fence::{FenceGate, FenceHome},
};
use std::{cell::Cell, collections::VecDeque, ops::Range, rc::Rc, sync::Arc};

/// A logical unit as one core has it.
pub struct Unit<R: Reactor> {
    logical: Arc<LogicalUnit>,
    block_size: u32,
    /// Keeps its lasting state.
    pub(crate) keeper: Option<Arc<dyn Keeper>>,
    pub(crate) queue: Box<dyn BlockQueue<R, Completion>>,
    /// Its store is one that takes data as it comes: see [`takes_now`](Unit::takes_now).
    pub(crate) writes_now: bool,
    pub(crate) gate: FenceGate,
    /// Used on the unit's home core only.
    pub(crate) home: FenceHome,
    /// Tasks with windows that wait for the queue, a fence, or an aborted write to end.
    pub(crate) waiting: VecDeque<TaskKey>,
    /// Tasks that wait for what the unit does by itself: for its beginning, or (true) its end.
    pub(crate) awaiting: Vec<(TaskKey, bool)>,
    /// Ranges of aborted writes that the store still has, with the task's index: nothing newer may overtake them.
    pub(crate) dying: Vec<(u32, Range<u64>)>,
    /// Buffers that its tasks may hold on this core.
    pub(crate) share: u32,
    /// The same of each class: the few large ones are not one unit's alone, however many small ones there are.
    class_share: [u32; 3],
    charged: Rc<[Cell<u32>; 3]>,
    /// A fence was held, or an ORDERED command came: from then on nothing is sent from where it lies, since a read that
    /// is answered so is neither in flight nor in its task set while its bytes may still change.
    pub(crate) still: bool,
    /// Other cores that are still to say that they have nothing of it lent.
    pub(crate) recalls: u16,
    /// Its store is asked how full it is.
    pub(crate) measuring: bool,
    /// The drain's flush is not done.
    pub(crate) draining: bool,
    /// That flush is in flight.
    pub(crate) flushing: bool,
    /// False: it is gone, and its place is free.
    pub(crate) present: bool,
}

impl<R: Reactor> Unit<R> {
    /// A unit with its queue on this core. `share`: buffers of all classes that its tasks may hold together.
    pub fn new(logical: Arc<LogicalUnit>, queue: Box<dyn BlockQueue<R, Completion>>, share: u32) -> Self {
        Self {
            block_size: logical.block_size(),
            logical,
            keeper: None,
            writes_now: queue.writes_now(0, 0),
            queue,
            gate: FenceGate::new(),
            home: FenceHome::new(),
            waiting: VecDeque::new(),
            awaiting: Vec::new(),
            dying: Vec::new(),
            share,
            class_share: [u32::MAX; 3],
            charged: Rc::default(),
            still: false,
            recalls: 0,
            measuring: false,
            draining: false,
            flushing: false,
            present: true,
        }
    }

    /// The same with somebody who keeps its lasting state. Without, commands that must not be forgotten fail.
    #[must_use]
    pub fn kept_by(mut self, keeper: Arc<dyn Keeper>) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// A free place. `logical` stands for what was never there.
    pub(crate) fn vacant(logical: Arc<LogicalUnit>) -> Self {
        let queue = Box::new(Nothing(logical.geometry()));
        Self { present: false, ..Self::new(logical, queue, 0) }
    }

    /// Fills a free place. Gate and home stay: what is left of the last unit's fences ends by itself.
    pub(crate) fn fill(
        &mut self,
        logical: Arc<LogicalUnit>,
        keeper: Option<Arc<dyn Keeper>>,
        queue: Box<dyn BlockQueue<R, Completion>>,
        share: u32,
        class_share: [u32; 3],
    ) {
        debug_assert!(!self.present && self.waiting.is_empty() && self.dying.is_empty());
        self.block_size = logical.block_size();
        (self.logical, self.keeper) = (logical, keeper);
        self.use_queue(queue);
        (self.share, self.class_share) = (share, class_share);
        (self.still, self.measuring, self.present) = (false, false, true);
    }

    /// Frees its place: the store is let go of. Nothing may be in flight.
    pub(crate) fn leave(&mut self, reactor: &mut R) {
        debug_assert_eq!(self.queue.in_flight(), 0);
        self.queue.close(reactor);
        self.use_queue(Box::new(Nothing(self.logical.geometry())));
        self.waiting.clear();
        self.present = false;
    }

    /// Whether data for this range may go to the store as it comes ([`BlockQueue::writes_now`]).
    #[inline]
    pub(crate) fn takes_now(&self, offset: u64, length: u32) -> bool {
        self.writes_now && self.queue.writes_now(offset, u64::from(length))
    }

    fn use_queue(&mut self, queue: Box<dyn BlockQueue<R, Completion>>) {
        self.writes_now = queue.writes_now(0, 0);
        self.queue = queue;
    }

    /// The unit that all cores share.
    pub fn logical(&self) -> &Arc<LogicalUnit> {
        &self.logical
    }

    pub(crate) fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Whether new I/O on a range must wait.
    pub(crate) fn blocked(&self, range: Range<u64>) -> bool {
        (!self.dying.is_empty() && self.dying.iter().any(|(_, r)| overlap(r, &range))) || self.gate.blocks(&range)
    }

    /// Writes whole blocks if that can be done at once and nobody else claims them. None of them may be lent.
    pub(crate) fn write_now(&mut self, offset: u64, blocks: &[u8]) -> bool {
        let range = offset..offset + blocks.len() as u64;
        if self.blocked(range.clone()) {
            return false;
        }
        self.logical.written(&range);
        matches!(self.queue.write_now(offset, blocks), Some(Ok(())))
    }

    /// Bytes around a direct read that isn't aligned.
    pub(crate) fn read_slack(&self, offset: u64, length: u32) -> u32 {
        let alignment = self.queue.geometry().alignment;
        if alignment <= 1 || (offset.is_multiple_of(u64::from(alignment)) && length.is_multiple_of(alignment)) {
            return 0;
        }
        (2 * alignment).min(Class::Large.bytes() as u32 / 2)
    }

    /// Most buffers of each class.
    pub(crate) fn set_class_share(&mut self, share: [u32; 3]) {
        self.class_share = share;
    }

    /// Counts a buffer against its share; the count ends when the charge is dropped.
    pub(crate) fn charge(&self, class: Class) -> Charge {
        let count = &self.charged[class as usize];
        count.set(count.get() + 1);
        Charge(self.charged.clone(), class)
    }

    /// Whether it holds all that it may of a class.
    pub(crate) fn is_at_share(&self, class: Class) -> bool {
        let all: u32 = self.charged.iter().map(Cell::get).sum();
        all >= self.share || self.charged[class as usize].get() >= self.class_share[class as usize]
    }
}

/// The queue of a place without a unit.
struct Nothing(Geometry);

impl<R, C> BlockQueue<R, C> for Nothing {
    fn geometry(&self) -> &Geometry {
        &self.0
    }

    fn submit(&mut self, _reactor: &mut R, tag: u64, request: Request) -> Submitted {
        let result = match request {
            // There is nothing that could be lost.
            Request::Flush => Ok(Answer::Done),
            _ => Err(StoreError::Gone),
        };
        Submitted::Done(backstore_api::Completion { tag, result, buffer: request.into_buffer() })
    }

    fn complete(&mut self, _reactor: &mut R, _completion: C) -> Option<backstore_api::Completion> {
        None
    }

    fn in_flight(&self) -> u32 {
        0
    }
}

/// One buffer counted against a unit's share.
pub(crate) struct Charge(Rc<[Cell<u32>; 3]>, Class);

impl Drop for Charge {
    fn drop(&mut self) {
        let count = &self.0[self.1 as usize];
        count.set(count.get() - 1);
    }
}

pub(crate) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Bytes counted somewhere as long as this lives.
pub(crate) struct Weight(Rc<Cell<usize>>, usize);

impl Weight {
    pub fn new(count: &Rc<Cell<usize>>, bytes: usize) -> Weight {
        count.set(count.get() + bytes);
        Weight(count.clone(), bytes)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.0.set(self.0.get() - self.1);
    }
}
