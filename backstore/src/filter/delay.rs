//! Completes every request a fixed time after the store below did.

use backstore_api::{BlockQueue, Completion, Geometry, Request, Submitted};
use reactor::Reactor;
use std::{collections::VecDeque, ops::Range, time::Duration};

/// Makes a store slow.
#[derive(Clone, Debug)]
pub struct Delay {
    /// Added to every request.
    pub by: Duration,
}

pub(super) struct DelayQueue<R> {
    inner: Box<dyn BlockQueue<R, reactor::Completion>>,
    by: Duration,
    /// Ended below, and when to say so: in order, because the delay is the same for all.
    waiting: VecDeque<(Duration, Completion)>,
    depth: u32,
}

impl<R: Reactor> DelayQueue<R> {
    pub(super) fn new(
        inner: Box<dyn BlockQueue<R, reactor::Completion>>,
        settings: Delay,
        depth: u32,
    ) -> DelayQueue<R> {
        DelayQueue { inner, by: settings.by, waiting: VecDeque::with_capacity(depth as usize), depth }
    }

    fn hold(&mut self, now: Duration, completion: Completion) {
        self.waiting.push_back((now + self.by, completion));
    }
}

impl<R: Reactor> BlockQueue<R, reactor::Completion> for DelayQueue<R> {
    fn geometry(&self) -> &Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted {
        if self.in_flight() >= self.depth {
            return Submitted::Full(request);
        }
        match self.inner.submit(reactor, tag, request) {
            Submitted::Done(completion) => {
                self.hold(reactor.now(), completion);
                Submitted::Pending
            }
            other => other,
        }
    }

    fn complete(&mut self, reactor: &mut R, completion: reactor::Completion) -> Option<Completion> {
        if let Some(completion) = self.inner.complete(reactor, completion) {
            self.hold(reactor.now(), completion);
        }
        None
    }

    fn poll(&mut self, reactor: &mut R) -> Option<Completion> {
        while let Some(completion) = self.inner.poll(reactor) {
            self.hold(reactor.now(), completion);
        }
        if self.waiting.front()?.0 > reactor.now() {
            return None;
        }
        self.waiting.pop_front().map(|(_, completion)| completion)
    }

    fn deadline(&self) -> Option<Duration> {
        let own = self.waiting.front().map(|(due, _)| *due);
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
