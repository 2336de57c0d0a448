//! Bounds how many requests a second a store gets, on all cores together, and how many at a time on each core.

use backstore_api::{BlockQueue, Completion, Geometry, Request, Submitted};
use reactor::Reactor;
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Keeps a store from getting too much.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Requests a second of the whole store; `None`: any number.
    pub per_second: Option<u32>,
    /// Requests that may start at once after a pause; at least 1.
    pub burst: u32,
    /// Requests in flight per core; `None`: the store's depth.
    pub in_flight: Option<u32>,
}

pub(super) struct LimitQueue<R> {
    inner: Box<dyn BlockQueue<R, reactor::Completion>>,
    /// Nanoseconds from one request to the next; 0: no bound.
    interval: u64,
    burst: u64,
    /// When the next request would start if all came evenly, nanoseconds of the reactor's clock. Shared by all queues.
    next: Arc<AtomicU64>,
    waiting: VecDeque<(u64, Request)>,
    /// Requests that the inner queue has: what it does besides is its own affair.
    passed: u32,
    /// What the shared time said last.
    due: Duration,
    bound: u32,
}

impl<R: Reactor> LimitQueue<R> {
    pub(super) fn new(
        inner: Box<dyn BlockQueue<R, reactor::Completion>>,
        settings: Limit,
        next: Arc<AtomicU64>,
        depth: u32,
    ) -> LimitQueue<R> {
        LimitQueue {
            inner,
            interval: settings.per_second.map_or(0, |rate| 1_000_000_000 / u64::from(rate.max(1))),
            burst: u64::from(settings.burst.max(1)),
            next,
            waiting: VecDeque::with_capacity(depth as usize),
            passed: 0,
            due: Duration::ZERO,
            bound: settings.in_flight.unwrap_or(depth).clamp(1, depth),
        }
    }

    /// Takes the right to start one request now; or says when to ask again.
    fn admit(&mut self, now: Duration) -> bool {
        if self.interval == 0 {
            return true;
        }
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let ahead = self.interval * (self.burst - 1);
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            (next.saturating_sub(ahead) <= now).then(|| next.max(now).saturating_add(self.interval))
        });
        if let Err(next) = taken {
            self.due = Duration::from_nanos(next.saturating_sub(ahead));
        }
        taken.is_ok()
    }

    fn pass(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted {
        let submitted = self.inner.submit(reactor, tag, request);
        self.passed += u32::from(matches!(submitted, Submitted::Pending));
        submitted
    }

    /// What ended of the requests that were passed on.
    fn ended(&mut self, completion: Option<Completion>) -> Option<Completion> {
        self.passed -= u32::from(completion.is_some());
        completion
    }
}

impl<R: Reactor> BlockQueue<R, reactor::Completion> for LimitQueue<R> {
    fn geometry(&self) -> &Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted {
        if self.passed + self.waiting.len() as u32 >= self.bound {
            return Submitted::Full(request);
        }
        if self.waiting.is_empty() && self.admit(reactor.now()) {
            return self.pass(reactor, tag, request);
        }
        self.waiting.push_back((tag, request));
        Submitted::Pending
    }

    fn complete(&mut self, reactor: &mut R, completion: reactor::Completion) -> Option<Completion> {
        let completion = self.inner.complete(reactor, completion);
        self.ended(completion)
    }

    fn poll(&mut self, reactor: &mut R) -> Option<Completion> {
        let completion = self.inner.poll(reactor);
        if completion.is_some() {
            return self.ended(completion);
        }
        while !self.waiting.is_empty() && self.admit(reactor.now()) {
            let (tag, request) = self.waiting.pop_front()?;
            match self.pass(reactor, tag, request) {
                Submitted::Done(completion) => return Some(completion),
                Submitted::Pending => {}
                // Its turn is lost, which slows the store by one request; it comes first again.
                Submitted::Full(request) => {
                    self.waiting.push_front((tag, request));
                    break;
                }
            }
        }
        None
    }

    fn deadline(&self) -> Option<Duration> {
        let own = (!self.waiting.is_empty()).then_some(self.due);
        own.into_iter().chain(self.inner.deadline()).min()
    }

    fn in_flight(&self) -> u32 {
        self.inner.in_flight() + self.waiting.len() as u32
    }

    fn close(&mut self, reactor: &mut R) {
        self.inner.close(reactor);
    }

    fn exclusive(&self, range: Range<u64>) -> Option<Range<u64>> {
        self.inner.exclusive(range)
    }
}
