//! What of a logical unit outlives the process.
//!
//! Whoever changes a part asks for [`Step::Save`](crate::Step::Save) before it answers GOOD: the server then puts what
//! [`LogicalUnit::lasting`] says at that moment on stable storage. Two saves of a unit may be under way at once; the later
//! copy has the earlier change in it, so that the order in which they end doesn't matter as long as no older copy
//! overwrites a newer one.

use crate::{
    access::KeptAccess,
    background::Job,
    command::{Saved, fail, good},
    reservations::{Kept as KeptReservations, Reservations},
    sense::{Sense, SenseKey, asc},
    spc::{
        information::Information,
        mode_pages::{KeptPage, Modes},
    },
    unit::{Flags, LogicalUnit, State},
};
use serde::{Deserialize, Serialize};
use std::{convert::Infallible, fmt};

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
    /// How its medium is divided, if it has protection information.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Saved mode pages that are not as by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mode_pages: Vec<KeptPage>,
    /// Identifying information.
    #[serde(skip_serializing_if = "Information::is_empty")]
    pub(crate) information: Information,
    /// States of target port groups that initiators have set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) access: Vec<KeptAccess>,
}

/// What decides where the protection information of a medium lies, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Bytes of its blocks.
    pub bytes: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Type of protection.
    pub protection: u8,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layout { bytes, block_size, protection } = self;
        write!(f, "type {protection} for {bytes} bytes in blocks of {block_size}")
    }
}

/// Takes a change back that could not be saved.
pub(crate) type Undo = Box<dyn FnOnce(&LogicalUnit, &mut State) + Send>;

impl State {
    /// Something has changed that lasts; gives the number for [`crate::Command::save`]. `undo` is called if that fails, unless
    /// another change stands on this one already. Then it stays, as the initiator can see; it was told that its command
    /// failed.
    pub(crate) fn changed_for_good(&mut self, undo: Undo) -> u64 {
        self.lasting_number += 1;
        self.undo = Some((self.lasting_number, undo));
        self.lasting_number
    }
}

impl LogicalUnit {
    /// A consistent copy of the lasting state, and its number: a later state has a higher one. Takes the unit's mutex.
    pub fn lasting(&self) -> (u64, Lasting) {
        let state = self.lock();
        let mut lasting = state.lasting.clone();
        lasting.reservations = state.reservations.keep();
        lasting.layout = self.layout();
        lasting.mode_pages = state.modes.keep(self.thin());
        lasting.information = state.information.clone();
        lasting.access = self.keep_access();
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
        let reservations = lasting.reservations.take().map(Reservations::of).transpose()?;
        let modes = Modes::of(std::mem::take(&mut lasting.mode_pages), self.thin())?;
        let information = std::mem::take(&mut lasting.information).checked()?;
        self.restore_access(std::mem::take(&mut lasting.access))?;
        let now = modes.current.flags();
        self.try_change(|state, flags| {
            if let Some(reservations) = reservations {
                state.reservations = reservations;
            }
            (state.modes, state.information, state.lasting) = (modes, information, lasting);
            flags.take(now);
            flags.set(Flags::OCCUPIED, occupied);
            Ok::<(), Infallible>(())
        })
        .map_err(|never| match never {})
    }

    /// The change that led to this number could not be saved.
    pub(crate) fn take_back(&self, number: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        match state.undo.take() {
            Some((after, undo)) if after == number => {
                undo(self, state);
                state.lasting_number += 1;
                self.changed();
            }
            other => state.undo = other,
        }
    }

    /// How its medium is divided; None: it has no protection information, or is empty at each start.
    pub fn layout(&self) -> Option<Layout> {
        let protection = self.protection().filter(|_| self.store().persistent)?;
        let bytes = self.blocks() << self.block_shift();
        Some(Layout { bytes, block_size: self.block_size(), protection: protection.number() })
    }

    /// Changes the lasting state, in memory; gives its new number.
    pub(crate) fn change_lasting(&self, change: impl FnOnce(&mut Lasting)) -> u64 {
        let mut state = self.lock();
        change(&mut state.lasting);
        state.lasting_number += 1;
        state.lasting_number
    }
}

/// The end of a save that nothing follows: what could not be saved is taken back.
pub(crate) const KEPT: Saved = |_, result, number, unit, _| match result {
    Ok(()) => good(),
    Err(_) => {
        unit.take_back(number);
        fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE))
    }
};
