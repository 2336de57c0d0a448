//! What units are looked at for once a second: how full their stores are, where an initiator has set a threshold, and
//! tokens that have expired.

use super::{Core, Drain};
use backstore_api::{Answer, Request, Submitted};
use reactor::Reactor;
use std::time::Duration;

/// Tag of the requests: no task has it.
pub(crate) const SPACE_TAG: u64 = u64::MAX - 3;

impl<R: Reactor> Core<R> {
    /// Asks the stores of units with a threshold.
    pub(crate) fn measure_units(&mut self) {
        if !matches!(self.drain, Drain::No) {
            return;
        }
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            if !unit.present || unit.measuring || !unit.logical().has_thresholds() {
                continue;
            }
            match unit.queue.submit(&mut self.reactor, SPACE_TAG, Request::Space) {
                Submitted::Pending => unit.measuring = true,
                Submitted::Done(done) => self.measured(index as u16, done),
                // The next second comes.
                Submitted::Full(_) => {}
            }
        }
    }

    /// Tokens that nobody has used for too long expire; each unit's home core sees to it.
    pub(crate) fn sweep_tokens(&self, now: Duration) {
        for (_, unit) in (0..).zip(&self.units).filter(|(slot, _)| self.home(*slot) == self.number) {
            unit.logical().sweep_tokens(now);
        }
    }

    /// A store has answered.
    pub(crate) fn measured(&mut self, unit: u16, done: backstore_api::Completion) {
        let unit = &mut self.units[unit as usize];
        unit.measuring = false;
        if let Ok(Answer::Space(space)) = done.result {
            unit.logical().measure(space);
        }
    }
}
