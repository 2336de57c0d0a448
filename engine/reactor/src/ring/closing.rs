//! The end of operations, files and the ring: nothing that the kernel may still touch is freed.

use super::{
    Kind, NO_KEY, Ring,
    files::{Links, NONE},
    provided, user_data, waker,
};
use crate::Reactor;
use io_uring::opcode;
use memory::{Class, Key, Slab};
use std::time::{Duration, Instant};

/// How long a ring that is dropped waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(5);

impl Ring {
    pub(super) fn cancel_slot(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if !std::mem::replace(&mut slot.cancelled, true) {
            self.push_cancel(key);
        }
    }

    pub(super) fn push_cancel(&mut self, key: Key) {
        let entry = opcode::AsyncCancel::new(user_data(Kind::Operation, key)).build();
        self.push(entry.user_data(user_data(Kind::Cancel, key)));
    }

    /// Takes an operation off its file, and closes the file when it was the last one there.
    pub(super) fn unlink(&mut self, key: Key) {
        let slot = self.slots.get(key).expect("a slot in flight");
        let (Links { before, after }, file) = (slot.links, slot.file.slot);
        if let Some(neighbour) = self.slots.at_mut(before) {
            neighbour.links.after = after;
        }
        if let Some(neighbour) = self.slots.at_mut(after) {
            neighbour.links.before = before;
        }
        let known = self.files.at_mut(file);
        if known.first == key.index {
            known.first = after;
        }
        if known.closing && known.first == NONE {
            self.close_now(file);
        }
    }

    pub(super) fn close_now(&mut self, slot: u32) {
        let Some(file) = self.files.remove(slot) else { return };
        if file.held > 0 || file.resets {
            // What the peer has not acknowledged is not to wait for it.
            let _ = rustix::net::sockopt::set_socket_linger(file.holder.as_fd(), Some(Duration::ZERO));
        }
        if self.is_in_table(&file.holder)
            && let Err(error) = self.ring.submitter().register_files_update(slot, &[-1])
        {
            tracing::error!(%error, slot, "a registered file could not be taken out of the ring");
        }
    }
}

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
