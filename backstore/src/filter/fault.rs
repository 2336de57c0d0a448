//! Fails requests by kind, place and chance, instead of making them. Seeded: the same requests fail the same way.

use backstore_api::{BlockQueue, Completion, Geometry, Request, StoreError, Submitted};
use memory::Region;
use reactor::Reactor;
use std::{ops::Range, sync::Arc, time::Duration};

/// Makes a store fail.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which requests.
    pub kinds: Kinds,
    /// Bytes of the medium that fail; `None`: all, and flushes.
    pub range: Option<Range<u64>>,
    /// Chance that such a request fails, in millionths.
    pub per_million: u32,
    /// Failures per queue before it stops; `None`: no end.
    pub count: Option<u64>,
    /// How they fail. The offset of [`StoreError::Medium`] is replaced by the first failing byte of the request.
    pub error: StoreError,
    /// Of the dice; each queue adds its number.
    pub seed: u64,
}

/// Kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Read.
    pub read: bool,
    /// Write, Zero, Fill and Discard.
    pub write: bool,
    /// Flush.
    pub flush: bool,
}

impl Kinds {
    /// Everything but Status.
    pub const ALL: Kinds = Kinds { read: true, write: true, flush: true };

    fn hold(self, request: &Request) -> bool {
        match request {
            Request::Read { .. } => self.read,
            Request::Flush => self.flush,
            Request::Space | Request::Prefetch { .. } | Request::Status { .. } => false,
            _ => self.write,
        }
    }
}

pub(super) struct FaultQueue<R> {
    inner: Box<dyn BlockQueue<R, reactor::Completion>>,
    settings: Fault,
    left: u64,
    dice: u64,
}

impl<R: Reactor> FaultQueue<R> {
    pub(super) fn new(
        inner: Box<dyn BlockQueue<R, reactor::Completion>>,
        settings: Fault,
        queue: u64,
    ) -> FaultQueue<R> {
        let left = settings.count.unwrap_or(u64::MAX);
        let dice = settings.seed.wrapping_add(queue);
        FaultQueue { inner, settings, left, dice }
    }

    /// 0..1,000,000 (SplitMix64).
    fn roll(&mut self) -> u32 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % 1_000_000) as u32
    }

    /// The error of a request that is to fail.
    fn strikes(&mut self, request: &Request) -> Option<StoreError> {
        if self.left == 0 || !self.settings.kinds.hold(request) {
            return None;
        }
        let at = match (request.span(), &self.settings.range) {
            (span, None) => span.map_or(0, |span| span.start),
            (None, Some(_)) => return None,
            (Some(span), Some(range)) => {
                let first = span.start.max(range.start);
                if first >= span.end.min(range.end) {
                    return None;
                }
                first
            }
        };
        if self.roll() >= self.settings.per_million {
            return None;
        }
        self.left -= 1;
        Some(match self.settings.error {
            StoreError::Medium { .. } => StoreError::Medium { offset: at },
            other => other,
        })
    }

    /// No request of a kind and range can fail, so it may go past this filter. One of no bytes can't: where the memory is can be
    /// asked whatever fails.
    fn spares(&self, kind: bool, offset: u64, length: u64) -> bool {
        let hit = self
            .settings
            .range
            .as_ref()
            .is_none_or(|range| offset < range.end && range.start < offset.saturating_add(length));
        length == 0 || self.left == 0 || !kind || self.settings.per_million == 0 || !hit
    }
}

impl<R: Reactor> BlockQueue<R, reactor::Completion> for FaultQueue<R> {
    fn geometry(&self) -> &Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted {
        match self.strikes(&request) {
            Some(error) => Submitted::Done(Completion { tag, result: Err(error), buffer: request.into_buffer() }),
            None => self.inner.submit(reactor, tag, request),
        }
    }

    fn complete(&mut self, reactor: &mut R, completion: reactor::Completion) -> Option<Completion> {
        self.inner.complete(reactor, completion)
    }

    fn poll(&mut self, reactor: &mut R) -> Option<Completion> {
        self.inner.poll(reactor)
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn in_flight(&self) -> u32 {
        self.inner.in_flight()
    }

    fn close(&mut self, reactor: &mut R) {
        self.inner.close(reactor);
    }

    fn exclusive(&self, range: Range<u64>) -> Option<Range<u64>> {
        self.inner.exclusive(range)
    }

    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        let spared = self.spares(self.settings.kinds.read, offset, into.len() as u64);
        if spared { self.inner.read_now(offset, into) } else { None }
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), StoreError>> {
        let spared = self.spares(self.settings.kinds.write, offset, from.len() as u64);
        if spared { self.inner.write_now(offset, from) } else { None }
    }

    fn writes_now(&self, offset: u64, length: u64) -> bool {
        self.inner.writes_now(offset, length)
    }

    fn region(&self, offset: u64, length: u32) -> Option<(&Arc<Region>, u64)> {
        let spared = self.spares(self.settings.kinds.read, offset, u64::from(length));
        if spared { self.inner.region(offset, length) } else { None }
    }
}
