//! Reservations of a logical unit: persistent ones (SPC-4 5.12), and those of RESERVE and RELEASE (SPC-2 5.5).
//!
//! Who may do what is one word per nexus, the [`Verdict`], which the nexus keeps until the unit's generation moves; each
//! entry of the opcode table has a [`Rule`] that says up to which verdict it may run.

mod kept;
mod rules;
mod state;
mod transport_id;

pub use kept::Kept;
pub(crate) use rules::{Rule, Verdict};
pub(crate) use state::{Change, Kind, Known, Move, Preempt, Refused, Register, Reservations};
pub(crate) use transport_id::TransportId;

use crate::{port::Path, unit::LogicalUnit};
use std::sync::Arc;

/// What a successful PERSISTENT RESERVE OUT leaves to be done.
pub(crate) struct Done {
    /// The lasting state has changed to this number, and must be saved.
    pub save: Option<u64>,
    /// Who has lost a registration or a reservation by preemption.
    pub preempted: Arc<[Path]>,
}

impl LogicalUnit {
    /// Carries out a PERSISTENT RESERVE OUT: all of it, or nothing. It is visible on all cores when this returns.
    pub(crate) fn change_reservations(
        &self,
        act: impl FnOnce(&mut Reservations, &Known) -> Result<Change, Refused>,
    ) -> Result<Done, Refused> {
        let mut guard = self.lock();
        let state = &mut *guard;
        // SPC-2 5.5.3: between RESERVE and RELEASE nobody has persistent reservations.
        if state.reservations.reserved.is_some() {
            return Err(Refused::Conflict);
        }
        let before = state.reservations.clone();
        let change = act(&mut state.reservations, &state.nexuses)?;
        for (attention, paths) in change.attentions {
            state.log.push_to(attention, paths);
        }
        let save = (before.is_kept() || state.reservations.is_kept()).then(|| {
            state.changed_for_good(Box::new(|_, state| {
                // PRGENERATION never goes back.
                let generation = state.reservations.generation;
                state.reservations = before;
                state.reservations.generation = generation;
            }))
        });
        self.changed();
        Ok(Done { save, preempted: change.preempted })
    }

    /// Looks at the reservations.
    pub(crate) fn with_reservations<T>(&self, look: impl FnOnce(&Reservations) -> T) -> T {
        look(&self.lock().reservations)
    }

    /// RESERVE or RELEASE of SPC-2 by a session. False: RESERVATION CONFLICT.
    pub(crate) fn reserve_or_release(&self, session: u64, path: &Path, reserve: bool) -> bool {
        let mut state = self.lock();
        let reservations = &mut state.reservations;
        if !reservations.registrations().is_empty() {
            // SPC-4 5.12.3: who has what a RESERVE gives by its persistent reservation is told GOOD, and nothing changes.
            return reservations.kind().is_some() && reservations.verdict(session, path) == Verdict::All;
        }
        let holder = reservations.reserved;
        match holder {
            Some(other) if other != session => return !reserve,
            _ => reservations.reserved = reserve.then_some(session),
        }
        if reservations.reserved != holder {
            self.changed();
        }
        true
    }
}
