//! Filters: queues that wrap another queue and are queues themselves. For tests, and for production where it says so.

mod delay;
mod fault;
mod limit;

pub use delay::Delay;
pub use fault::{Fault, Kinds};
pub use limit::Limit;

use backstore_api::BlockQueue;
use reactor::{Completion, Reactor};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A filter and its settings.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Completes later.
    Delay(Delay),
    /// Fails some requests.
    Fault(Fault),
    /// Bounds the rate and the number in flight.
    Limit(Limit),
}

/// A filter of one open store: its settings, and what its queues share.
pub(crate) struct Armed {
    filter: Filter,
    /// Fault: how many queues were made. Limit: the time, in nanoseconds, when the next request may start.
    shared: Arc<AtomicU64>,
}

pub(crate) fn arm(filter: &Filter) -> Armed {
    Armed { filter: filter.clone(), shared: Arc::new(AtomicU64::new(0)) }
}

impl Armed {
    pub(crate) fn wrap<R: Reactor + 'static>(
        &self,
        inner: Box<dyn BlockQueue<R, Completion>>,
        depth: u32,
    ) -> Box<dyn BlockQueue<R, Completion>> {
        match &self.filter {
            Filter::Delay(settings) => Box::new(delay::DelayQueue::new(inner, settings.clone(), depth)),
            Filter::Fault(settings) => {
                let queue = self.shared.fetch_add(1, Ordering::Relaxed);
                Box::new(fault::FaultQueue::new(inner, settings.clone(), queue))
            }
            Filter::Limit(settings) => {
                let shared = Arc::clone(&self.shared);
                Box::new(limit::LimitQueue::new(inner, settings.clone(), shared, depth))
            }
        }
    }
}
