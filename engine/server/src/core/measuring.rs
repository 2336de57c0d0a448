//! How full the stores of thin units are: looked at once a second where an initiator has set a threshold.

use super::{Core, Drain};
use backstore_api::{Answer, Request, Submitted};
use reactor::Reactor;

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

    /// A store has answered.
    pub(crate) fn measured(&mut self, unit: u16, done: backstore_api::Completion) {
        let unit = &mut self.units[unit as usize];
        unit.measuring = false;
        if let Ok(Answer::Space(space)) = done.result {
            unit.logical().measure(space);
        }
    }
}
