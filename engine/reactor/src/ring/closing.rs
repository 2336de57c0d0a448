//! The end of a ring: nothing that the kernel may still touch is freed.

use super::{Kind, NO_KEY, Ring, provided, user_data, waker};
use crate::Reactor;
use io_uring::opcode;
use memory::{Class, Slab};
use std::time::{Duration, Instant};

/// How long a ring that is dropped waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(5);

impl Drop for Ring {
    fn drop(&mut self) {
        waker::outbox_close();
        self.sleeper.open_to_rings(None);
        for descriptor in self.files.all() {
            self.close(descriptor);
        }
        let bell = opcode::AsyncCancel::new(user_data(Kind::Bell, NO_KEY)).build();
        self.push(bell.user_data(user_data(Kind::Cancel, NO_KEY)));
        let end = Instant::now() + DRAIN;
        let mut out = Vec::new();
        loop {
            self.push_backlog();
            self.reap(&mut out);
            let looked = self.look_at_disks(&mut out);
            out.clear();
            if self.slots.is_empty() && !self.bell_armed && self.backlog.is_empty() {
                break;
            }
            let left = end.saturating_duration_since(Instant::now());
            let nap = left.min(Duration::from_millis(if self.polls() { 1 } else { 100 }));
            if left.is_zero() || looked.is_err() || self.enter(Some(Some(nap))).is_err() {
                self.leak();
                return;
            }
        }
        if self.provided.is_some() {
            let _ = self.ring.submitter().unregister_buf_ring(provided::GROUP);
            self.pool.set_reserved(Class::Medium, 0);
        }
    }
}

impl Ring {
    /// The kernel may still touch what its operations own: none of it is ever freed.
    fn leak(&mut self) {
        tracing::error!(
            operations = self.slots.len(),
            "a ring was closed with operations in flight; their memory is leaked"
        );
        std::mem::forget(std::mem::replace(&mut self.slots, Slab::with_capacity(0)));
        std::mem::forget(std::mem::take(&mut self.bell));
        self.pool.clone().leak();
        if let Some(provided) = self.provided.take() {
            provided.leak();
        }
    }
}
