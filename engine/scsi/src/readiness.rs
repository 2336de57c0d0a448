//! Whether a unit can do what a command asks: medium there, started, awake, not occupied by work of its own.

use crate::{
    background::Kind,
    sbc::{format, sanitize},
    sense::{Sense, SenseKey, asc},
    table::{Entry, Traits},
    unit::{Flags, LogicalUnit},
};

pub(crate) const NO_MEDIUM: Sense = Sense::new(SenseKey::NotReady, asc::MEDIUM_NOT_PRESENT);
const STOPPED: Sense = Sense::new(SenseKey::NotReady, asc::INITIALIZING_COMMAND_REQUIRED);

/// Refuses what can't be done with [`Flags::UNREADY`] in this state. Use of the medium ends a low power condition.
#[cold]
pub(crate) fn check(unit: &LogicalUnit, entry: &Entry, flags: Flags) -> Result<(), Sense> {
    let medium = entry.traits.has(Traits::MEDIUM);
    if flags.has(Flags::OCCUPIED)
        && !entry.traits.has(Traits::EXEMPT.and(Traits::ALWAYS))
        && let Some(sense) = unit.occupied()
    {
        // A failure is left by the command that failed; after that of a FORMAT UNIT the medium alone is no use.
        let leaves = match unit.failed_job().map(|job| job.kind) {
            None => false,
            Some(Kind::Format) => !medium || entry.opcode == format::OPCODE,
            Some(_) => entry.opcode == sanitize::OPCODE,
        };
        if !leaves {
            return Err(sense);
        }
    }
    if flags.has(Flags::EJECTED) && (medium || entry.traits.has(Traits::PRESENT)) {
        return Err(NO_MEDIUM);
    }
    if flags.has(Flags::STOPPED) && medium {
        return Err(STOPPED);
    }
    // TEST UNIT READY doesn't use it.
    if flags.has(Flags::LOW_POWER) && medium && entry.opcode != 0 {
        unit.wake();
    }
    Ok(())
}

/// Why the unit's medium can't be used as it is; its copies are asked this.
pub(crate) fn refuses_medium(unit: &LogicalUnit) -> Option<Sense> {
    let flags = unit.flags();
    if flags.has(Flags::OCCUPIED)
        && let Some(sense) = unit.occupied()
    {
        return Some(sense);
    }
    let absent = flags.has(Flags::EJECTED).then_some(NO_MEDIUM);
    absent.or_else(|| flags.has(Flags::STOPPED).then_some(STOPPED))
}

impl Flags {
    /// Why nothing may be written.
    #[inline]
    pub fn write_protected(self) -> Option<Sense> {
        let code = match (self.has(Flags::READ_ONLY), self.has(Flags::SOFTWARE_PROTECTED)) {
            (false, false) => return None,
            (true, _) => asc::WRITE_PROTECTED,
            (false, true) => asc::SOFTWARE_WRITE_PROTECTED,
        };
        Some(Sense::new(SenseKey::DataProtect, code))
    }
}

/// What REQUEST SENSE says of the state, without a pending unit attention.
pub(crate) fn sense(unit: &LogicalUnit) -> Sense {
    let flags = unit.flags();
    if flags.has(Flags::OCCUPIED)
        && let Some(sense) = unit.occupied()
    {
        sense
    } else if flags.has(Flags::EJECTED) {
        NO_MEDIUM
    } else if flags.has(Flags::STOPPED) {
        STOPPED
    } else if flags.has(Flags::LOW_POWER) {
        Sense::new(SenseKey::NoSense, unit.power())
    } else if unit.modes(|modes| modes.current.exceptions()) == (true, 6) {
        // MRIE 6h: only on request.
        Sense::new(SenseKey::NoSense, asc::FALSE_FAILURE_PREDICTION)
    } else {
        Sense::new(SenseKey::NoSense, asc::NONE)
    }
}

impl LogicalUnit {
    /// Enters a low power condition; `code`: what REQUEST SENSE says of it.
    pub(crate) fn rest(&self, code: u16) {
        self.lock().power = code;
        self.change(None, None, |flags| flags.set(Flags::LOW_POWER, true));
    }

    /// Leaves it.
    fn wake(&self) {
        self.change(None, None, |flags| flags.set(Flags::LOW_POWER, false));
    }

    /// Sense code of the low power condition.
    fn power(&self) -> u16 {
        self.lock().power
    }
}
