//! What a turn does when nothing is to be done: looks for work for a moment, then sleeps.

use super::{Ring, clock, processor_time};
use crate::Completion;
use rustix::thread::sched_yield;
use std::{io, time::Duration};

/// Looks for work between two looks at the clock.
const LOOKS: u32 = 8;
/// So often a core that looks gives way to others on its processor, above all to those that it waits for: otherwise a peer on
/// the same machine waited until the look was over.
const GIVE_WAY: Duration = Duration::from_micros(5);
/// System calls after a sleep for what else has come: the kernel ends the sleep with one completion, and makes at most 20 in
/// each further call.
const GATHERINGS: u32 = 8;

impl Ring {
    /// Nothing is to be done now: looks for work for a while, if that was worth it lately, and then sleeps, at the longest
    /// for `time`.
    pub(super) fn rest(&mut self, time: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        // A core without any session may sleep for ever.
        let (window, start) = (self.spinner.window(), clock());
        let before = out.len();
        if let Some(time) = time
            && !window.is_zero()
        {
            self.publish()?;
            self.reap(out);
            // What collecting has led to: the rest of a short send, the next read of the bell.
            self.publish()?;
            if out.len() > before || !self.backlog.is_empty() || self.look(start + window.min(time)) {
                let entered = self.publish();
                self.spinner.worked(clock().saturating_sub(start));
                return entered;
            }
        }
        if !self.sleeper.lie_down() {
            return self.publish();
        }
        let left = time.map(|time| time.saturating_sub(clock().saturating_sub(start)));
        let entered = self.enter(Some(left)).and_then(|()| self.gather());
        self.sleeper.get_up();
        if self.ring.completion().is_empty() {
            self.spinner.idled();
        } else {
            self.spinner.worked(clock().saturating_sub(start));
        }
        entered
    }

    /// The first completion has ended a sleep: collects those that came with it.
    fn gather(&mut self) -> io::Result<()> {
        for _ in 0..GATHERINGS {
            if !self.ring.submission().taskrun() {
                break;
            }
            self.enter(None)?;
        }
        Ok(())
    }

    /// Looks for completions and wakes until the time; true when there are some.
    fn look(&mut self, end: Duration) -> bool {
        self.counters.spins += 1;
        // Not by the clock: others may have had the processor meanwhile.
        let start = self.weigher.is_trying().then(processor_time);
        let found = self.finds_something(end);
        if let Some(start) = start {
            self.looked += processor_time().saturating_sub(start);
        }
        found
    }

    fn finds_something(&mut self, end: Duration) -> bool {
        let mut way = clock() + GIVE_WAY;
        loop {
            for _ in 0..LOOKS {
                let queue = self.ring.submission();
                let found = queue.taskrun() || queue.cq_overflow();
                drop(queue);
                if found || !self.ring.completion().is_empty() || self.sleeper.is_woken() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = clock();
            if now >= end {
                return false;
            }
            if now >= way {
                sched_yield();
                way = clock() + GIVE_WAY;
            }
        }
    }
}
