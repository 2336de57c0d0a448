//! Whether the peer is still there: pings after silence, the end after more of it.

use crate::connection::Connection;
use crate::event::CloseReason;
use crate::session::Session;
use crate::sink::Sink;
use std::time::Duration;

/// Silence before a ping, unless set otherwise.
const NOP_INTERVAL: Duration = Duration::from_secs(15);
/// Silence after a ping before the connection is closed, unless set otherwise.
const NOP_TIMEOUT: Duration = Duration::from_secs(30);
/// When to ask again where pings are off.
const NEVER: Duration = Duration::from_secs(3600);

/// When the peer was heard, and what it was asked.
#[derive(Debug)]
pub(crate) struct Liveness {
    interval: Duration,
    timeout: Duration,
    last: Duration,
    /// Payload came since `last`.
    payload: bool,
    /// Tag and time of the ping that was not answered.
    ping: Option<(u32, Duration)>,
}

impl Liveness {
    pub(crate) fn new(now: Duration) -> Liveness {
        Liveness { interval: NOP_INTERVAL, timeout: NOP_TIMEOUT, last: now, payload: false, ping: None }
    }

    #[inline]
    pub(crate) fn heard(&mut self, input: bool, now: Duration) {
        if input || self.payload {
            self.payload = false;
            self.last = self.last.max(now);
        }
    }

    #[inline]
    pub(crate) fn note_payload(&mut self) {
        self.payload = true;
    }

    pub(crate) fn answered(&mut self, tag: u32) {
        if self.ping.is_some_and(|ping| ping.0 == tag) {
            self.ping = None;
        }
    }
}

impl Connection {
    /// Sets the silence after which a ping is sent, and the silence after that which ends the connection. An interval of
    /// 0 turns pings off. Without a call they are 15 and 30 seconds.
    pub fn set_liveness(&mut self, nop_interval: Duration, nop_timeout: Duration) {
        self.liveness.interval = nop_interval;
        self.liveness.timeout = nop_timeout;
    }

    /// Liveness: sends a NOP-In ping after `nop_interval` of silence; `Err(CloseReason::Silent)` after `nop_timeout` more. Gives
    /// the next time to call, on the clock of `now`. Anything that comes in counts as a sign of life.
    pub fn tick(
        &mut self,
        session: &mut Session,
        now: Duration,
        sink: &mut impl Sink,
    ) -> Result<Duration, CloseReason> {
        self.liveness.heard(false, now);
        let Liveness { interval, timeout, last, ping, .. } = self.liveness;
        if interval.is_zero() {
            return Ok(now.saturating_add(NEVER));
        }
        if let Some((_, sent)) = ping {
            let end = sent.max(last).saturating_add(timeout);
            return if now >= end { Err(CloseReason::Silent) } else { Ok(end) };
        }
        let due = last.saturating_add(interval);
        if now < due {
            return Ok(due);
        }
        let tag = self.new_tag();
        self.liveness.ping = Some((tag, now));
        self.ping(session, tag, sink);
        Ok(now.saturating_add(timeout))
    }
}
