//! Which peers have to be acknowledged in the middle of a PDU.
//!
//! The kernel delays acknowledgements by 40 ms and more when it may send them with an answer. A peer that sends a header and
//! its data in two pieces, and holds the second one back until the first is acknowledged (Nagle, RFC 1122 4.2.3.4),
//! waits for that with every single write, while there is no answer yet. Initiators should switch Nagle off, and nearly all
//! do: for them it would be a system call and a packet in vain, so a peer has to be late first.

use std::{ops::RangeInclusive, time::Duration};

/// Delays of an acknowledgement: TCP_DELACK_MIN less a tick of the kernel's clock, to TCP_DELACK_MAX and some more.
const DELAYED: RangeInclusive<Duration> = Duration::from_millis(30)..=Duration::from_millis(250);
/// So many in a row are no accident.
const ENOUGH: u8 = 2;

/// What is known of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prompting {
    /// When it last stopped in the middle of a PDU, if it has not gone on.
    since: Option<Duration>,
    /// Pauses in the middle of a PDU, as long as acknowledgements are delayed, without one between them that was not.
    late: u8,
}

impl Prompting {
    /// Bytes came, and were used up; now it is `amid_pdu` or not. True: acknowledge them if there is nothing to send.
    #[inline]
    pub(crate) fn came(&mut self, amid_pdu: bool, now: Duration) -> bool {
        if let Some(since) = self.since.take()
            && self.late < ENOUGH
        {
            self.late = if DELAYED.contains(&now.saturating_sub(since)) { self.late + 1 } else { 0 };
        }
        if amid_pdu {
            self.since = Some(now);
        }
        amid_pdu && self.late == ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers and data `pauses` ms apart; gives which headers were to be acknowledged.
    fn acknowledged(pauses: &[u64]) -> Vec<bool> {
        let mut prompting = Prompting::default();
        let mut now = Duration::from_secs(9);
        let write = |pause: &u64| {
            let wanted = prompting.came(true, now);
            now += Duration::from_millis(*pause);
            assert!(!prompting.came(false, now), "a whole PDU is acknowledged by its answer");
            // Between commands it may be as quiet as it likes.
            now += Duration::from_millis(40);
            wanted
        };
        pauses.iter().map(write).collect()
    }

    #[test]
    fn a_peer_that_was_late_twice_is_prompted_from_then_on() {
        assert_eq!(acknowledged(&[44, 41, 0, 0, 300, 0]), [false, false, true, true, true, true]);
    }

    #[test]
    fn others_are_not() {
        assert_eq!(acknowledged(&[0, 1, 44, 0, 44, 10, 200, 300, 200, 2000, 44, 0]), [false; 12]);
    }
}
