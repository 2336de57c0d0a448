//! Wakes of other cores, sent as messages from ring to ring.

use super::{Kind, NO_KEY, Ring, user_data, waker};
use io_uring::{IoUring, opcode};

impl Ring {
    /// Queues the wakes that this thread has for others.
    pub(super) fn send_messages(&mut self) {
        let (messages, mut entries) = (&mut self.messages, [const { None }; 8]);
        let mut count = 0;
        let mut more = Vec::new();
        waker::outbox_take(|message| match messages.insert(message) {
            Ok(key) => {
                let entry = messages.get(key).map(|message| {
                    let entry = message.entry(user_data(Kind::Message, NO_KEY));
                    entry.user_data(user_data(Kind::MessageSent, key))
                });
                match entries.get_mut(count) {
                    Some(place) => *place = entry,
                    None => more.extend(entry),
                }
                count += 1;
            }
            Err(message) => message.fall_back(),
        });
        for entry in entries.into_iter().flatten().chain(more) {
            self.push(entry);
        }
    }
}

/// The kernel has them.
pub(super) fn supports_messages(ring: &IoUring) -> bool {
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::MsgRingData::CODE)
}
