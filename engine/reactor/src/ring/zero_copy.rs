//! Sends that the kernel makes from the message's own memory.
//!
//! Such a send completes twice: first with what the socket took, when the next send may follow, and once more when nothing
//! of its memory is in a packet any more, which is after the peer has acknowledged it. Between the two the message stays in its
//! slot, but the slot no longer counts among the operations of its file: a peer that never acknowledges must not keep a
//! closed socket open. Instead such a socket is closed with a reset, and the kernel lets go of the memory.

use super::Ring;
use crate::{Completion, Errno, Returned};
use io_uring::cqueue;
use memory::Key;

/// Bit of a notification's result: the kernel has copied after all (IORING_NOTIF_USAGE_ZC_COPIED).
const COPIED: i32 = i32::MIN;
/// So many notifications tell whether it is worth it.
const JUDGED: u64 = 256;

impl Ring {
    /// A completion of a send that more follow, or the one that says that its memory is free.
    #[cold]
    pub(super) fn zero_copy_done(&mut self, key: Key, result: i32, flags: u32, out: &mut Vec<Completion>) {
        let Some(sending) = self.slots.get_mut(key).and_then(|slot| slot.sending()) else {
            self.counters.stale += u64::from(!cqueue::more(flags));
            return;
        };
        if !cqueue::notif(flags) {
            sending.notices += 1;
            return self.step(key, result, None, out);
        }
        sending.notices = sending.notices.saturating_sub(1);
        self.counters.zero_copy += 1;
        self.counters.zero_copy_copied += u64::from(result & COPIED != 0);
        if self.counters.zero_copy == JUDGED {
            self.judge();
        }
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(result) = slot.sending().and_then(|sending| sending.over.filter(|_| sending.notices == 0)) else {
            return;
        };
        let Some(slot) = self.slots.remove(key) else { return };
        if let Some(file) = self.files.get_mut(slot.file) {
            file.held -= 1;
        }
        let token = slot.token;
        if let Returned::Message(message) = slot.finish(result, None, &mut self.vectors) {
            out.push(Completion { token, result, returned: Returned::Late(message) });
        }
    }

    /// A send is over while the kernel still holds its memory.
    #[cold]
    pub(super) fn hold(&mut self, key: Key, result: Result<u32, Errno>) -> Completion {
        let slot = self.slots.get_mut(key).expect("a slot in flight");
        let (token, file) = (slot.token, slot.file);
        if let Some(sending) = slot.sending() {
            sending.over = Some(result);
        }
        if let Some(file) = self.files.get_mut(file) {
            file.held += 1;
        }
        self.unlink(key);
        Completion { token, result, returned: Returned::Held }
    }

    /// What a send without a copy failed with may be no fault of the connection: it is tried as an ordinary one.
    #[cold]
    pub(super) fn falls_back(&mut self, key: Key, result: i32) -> bool {
        let slot = self.slots.get_mut(key).expect("a slot in flight");
        let cancelled = slot.cancelled;
        let Some(sending) = slot.sending().filter(|sending| sending.zero_copy && !cancelled) else { return false };
        if !matches!(-result, libc::ENOMEM | libc::ENOBUFS | libc::EOPNOTSUPP | libc::EINVAL) {
            return false;
        }
        sending.plain = true;
        self.counters.zero_copy_refused += 1;
        if self.counters.zero_copy_refused == 1 {
            let error = Errno(-result);
            tracing::warn!(
                %error,
                "the kernel refuses to send without a copy, ordinary sends stand in; for want of memory: raise the limit of \
                 locked memory (ulimit -l, LimitMEMLOCK= in a systemd unit), or leave `zero_copy` out"
            );
        }
        true
    }

    fn judge(&self) {
        let (sent, copied) = (self.counters.zero_copy, self.counters.zero_copy_copied);
        if copied == sent {
            tracing::warn!(
                "the first {sent} sends that were to go without a copy were copied all the same, as they are on loopback and by \
                 network cards without scatter-gather: `zero_copy` only costs here, leave it out"
            );
        } else {
            tracing::info!(sent, copied, "sends without a copy, and those of them that the kernel had to copy");
        }
    }
}
