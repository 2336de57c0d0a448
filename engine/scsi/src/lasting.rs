//! What of a logical unit outlives the process.
//!
//! Whoever changes a part asks for [`Step::Save`](crate::Step::Save) before it answers GOOD: the server then puts what
//! [`LogicalUnit::lasting`] says at that moment on stable storage. Two saves of a unit may be under way at once; the later
//! copy has the earlier change in it, so that the order in which they end doesn't matter as long as no older copy
//! overwrites a newer one.

use crate::{
    background::Job,
    reservations::{Kept as KeptReservations, Reservations},
    unit::LogicalUnit,
};
use serde::{Deserialize, Serialize};

/// The lasting state of a logical unit; each family of commands has its part. A part that a record lacks is as in a new
/// unit, and parts that are not known here are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lasting {
    /// Persistent reservations with APTPL set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<KeptReservations>,
    /// What the unit has to do by itself, or has failed to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<Job>,
}

impl LogicalUnit {
    /// A consistent copy of the lasting state, and its number: a later state has a higher one. Takes the unit's mutex.
    pub fn lasting(&self) -> (u64, Lasting) {
        let state = self.lock();
        let mut lasting = state.lasting.clone();
        lasting.reservations = state.reservations.keep();
        (state.lasting_number, lasting)
    }

    /// Puts back what [`LogicalUnit::lasting`] gave in an earlier life, before the first command.
    ///
    /// # Errors
    /// What can't be: the record is damaged.
    pub fn restore(&self, mut lasting: Lasting) -> Result<(), String> {
        if lasting.job.as_ref().is_some_and(|job| !job.fits(self)) {
            return Err("the job that it names is not one for this unit".into());
        }
        let occupied = lasting.job.is_some();
        let mut state = self.lock();
        if let Some(kept) = lasting.reservations.take() {
            state.reservations = Reservations::of(kept)?;
        }
        state.lasting = lasting;
        drop(state);
        self.set_occupied(occupied);
        Ok(())
    }

    /// Changes the lasting state, in memory; gives its new number.
    pub(crate) fn change_lasting(&self, change: impl FnOnce(&mut Lasting)) -> u64 {
        let mut state = self.lock();
        change(&mut state.lasting);
        state.lasting_number += 1;
        state.lasting_number
    }
}
