//! Receives that stay: one submission, and a completion whenever something has come.
//!
//! What io_uring promises of them: a completion with IORING_CQE_F_MORE is followed by others; one without it is the last, whether
//! it brings bytes (the completion queue was full), the end of the stream or an error. ENOBUFS ends them, too, and so does a
//! cancel, after which nothing more is taken from the socket. From a socket that has more than a buffer holds, the kernel
//! takes up to 32 buffers in one go, before it looks after the next.

use super::{Ring, provided::Provided, slot::Slot};
use crate::{Completion, Feature, Features, Returned, Use};
use io_uring::{IoUring, Probe, opcode};
use memory::{Buffer, Key};

impl Ring {
    /// A receive that goes on has brought bytes.
    pub(super) fn received_part(&mut self, key: Key, result: i32, buffer: Buffer, out: &mut Vec<Completion>) {
        match (self.slots.get(key), u32::try_from(result)) {
            (Some(slot), Ok(count)) => {
                let returned = Returned::Part(buffer);
                out.push(Completion { token: slot.token, result: Ok(count), returned });
            }
            _ => self.counters.stale += 1,
        }
    }

    /// The kernel doesn't find a receive that is between two attempts. Any other that isn't found is about to end by itself, but one
    /// that stays would go on: it is looked for again.
    pub(super) fn cancel_answered(&mut self, key: Key, result: i32) {
        let missed = matches!(-result, libc::ENOENT | libc::EALREADY);
        if missed && self.slots.get(key).is_some_and(Slot::may_stay) {
            self.push_cancel(key);
        }
    }
}

/// Receives have been able to stay since 6.0, but a socket that is never empty may keep a turn to itself before 6.8. What that
/// release brought is seen by an operation that came with it.
pub(super) fn look_for(ring: &IoUring, provided: Option<&Provided>, features: &mut Features) {
    let mut probe = Probe::new();
    if features.wanted(Feature::Multishot)
        && provided.is_some()
        && ring.submitter().register_probe(&mut probe).is_ok()
        && probe.is_supported(opcode::FixedFdInstall::CODE)
    {
        features.set(Feature::Multishot, Use::Used);
    }
}
