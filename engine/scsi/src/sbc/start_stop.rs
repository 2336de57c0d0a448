//! START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.17, 5.25).

use crate::{
    cdb::Cdb,
    command::{Command, Context, Step, fail, good},
    sense::{Sense, asc},
    table::{Entry, Traits},
    unit::{Flags, LogicalUnit},
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x1B, 0x01, 0x00, 0x0F, 0xF7, 0x00], Traits::NONE, start_stop_unit).timeouts(5, 120),
    Entry::new(&[0x1E, 0x00, 0x00, 0x00, 0x03, 0x00], Traits::NONE, prevent_allow),
];

const NO_FLUSH: u8 = 2;
const LOEJ: u8 = 1;
const START: u8 = 0;

/// POWER CONDITION.
const NONE: u8 = 0x0;
const ACTIVE: u8 = 0x1;
const LU_CONTROL: u8 = 0x7;

const STANDBY_BY_COMMAND: u16 = 0x5E04;

/// What it takes to be in a power condition: POWER CONDITION, its MODIFIER, and the sense of REQUEST SENSE (SPC-4 5.12).
/// Forced ones are those that a timer of no length would lead to.
const LOW_POWER: [(u8, u8, u16); 10] = [
    (0x2, 0, 0x5E03),             // IDLE_A
    (0x2, 1, 0x5E06),             // IDLE_B
    (0x2, 2, 0x5E08),             // IDLE_C
    (0x3, 0, STANDBY_BY_COMMAND), // STANDBY_Z
    (0x3, 1, 0x5E0A),             // STANDBY_Y
    (0xA, 0, 0x5E01),             // FORCE_IDLE_0
    (0xA, 1, 0x5E05),
    (0xA, 2, 0x5E07),
    (0xB, 0, 0x5E02), // FORCE_STANDBY_0
    (0xB, 1, 0x5E09),
];

/// IMMED only allows an early status, so status comes when it is done.
fn start_stop_unit(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    if let Err(sense) = check(&command.cdb, unit) {
        return fail(sense);
    }
    let cdb = command.cdb;
    let goes_down = match condition(&cdb) {
        NONE => !cdb.bit(4, START),
        other => other != ACTIVE && other != LU_CONTROL,
    };
    if goes_down && !cdb.bit(4, NO_FLUSH) && !unit.flags().has(Flags::EJECTED) {
        return command.flush_then(apply);
    }
    apply(&cdb, unit, context)
}

fn condition(cdb: &Cdb) -> u8 {
    cdb.byte(4) >> 4
}

fn modifier(cdb: &Cdb) -> u8 {
    cdb.byte(3) & 0x0F
}

/// The low power condition that is asked for, as its sense code.
fn low_power(cdb: &Cdb) -> Option<u16> {
    let wanted = (condition(cdb), modifier(cdb));
    LOW_POWER.iter().find(|(condition, modifier, _)| (*condition, *modifier) == wanted).map(|(.., code)| *code)
}

fn check(cdb: &Cdb, unit: &LogicalUnit) -> Result<(), Sense> {
    let known = |kind: u8| LOW_POWER.iter().any(|(condition, ..)| *condition == kind);
    match condition(cdb) {
        NONE | ACTIVE | LU_CONTROL if modifier(cdb) != 0 => Err(Sense::field_in_cdb(3, Some(3))),
        // A fixed medium is neither loaded nor ejected.
        NONE if cdb.bit(4, LOEJ) && !unit.removable() => Err(Sense::field_in_cdb(4, Some(LOEJ))),
        NONE | ACTIVE | LU_CONTROL => Ok(()),
        // To a drive with a removable medium a condition that it doesn't know is no reason to do anything.
        kind if !known(kind) && unit.removable() => Ok(()),
        kind if !known(kind) => Err(Sense::field_in_cdb(4, Some(7))),
        _ if low_power(cdb).is_none() => Err(Sense::field_in_cdb(3, Some(3))),
        _ => Ok(()),
    }
}

/// START and LOEJ are ignored with a power condition (SBC-3 5.25).
fn apply(cdb: &Cdb, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let nexus = context.nexus.as_ref().map(|nexus| nexus.id());
    let start = cdb.bit(4, START);
    let done = match condition(cdb) {
        NONE if cdb.bit(4, LOEJ) => unit.move_medium(start, nexus),
        // A drive with a removable medium spins up by itself when that is used (MMC-6 6.42). So does one that others use,
        // too: a host that shuts down stops its disks, and would take them from the others of its cluster.
        NONE if !start && (unit.removable() || unit.is_shared(context)) => {
            unit.rest(STANDBY_BY_COMMAND);
            Ok(())
        }
        NONE => unit.start(start),
        ACTIVE => unit.start(true),
        _ => {
            if let Some(code) = low_power(cdb) {
                unit.rest(code);
            }
            Ok(())
        }
    };
    done.map_or_else(fail, |()| good())
}

/// PREVENT 01b lasts until this nexus allows, is lost, or the unit is reset (SPC-4 5.14).
fn prevent_allow(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let prevent = command.cdb.byte(4);
    if prevent > 1 {
        return fail(Sense::field_in_cdb(4, Some(1)));
    }
    if let Some(nexus) = &context.nexus {
        unit.prevent(nexus.id(), prevent == 1);
    }
    good()
}

impl LogicalUnit {
    /// Other initiators than that of the command are logged in.
    fn is_shared(&self, context: &Context<'_>) -> bool {
        let own = context.nexus.as_ref().map(|nexus| &nexus.path().initiator.name);
        self.lock().nexuses.values().any(|path| Some(&path.initiator.name) != own)
    }

    /// PREVENT ALLOW MEDIUM REMOVAL of one nexus.
    pub(crate) fn prevent(&self, nexus: u64, prevent: bool) {
        let mut state = self.lock();
        state.prevent.retain(|id| *id != nexus);
        if prevent {
            state.prevent.push(nexus);
        }
    }

    /// Some nexus prevents medium removal.
    pub fn removal_prevented(&self) -> bool {
        self.lock().is_prevented()
    }

    /// Loads the medium and starts the unit, or ejects it. Nobody may prevent a change.
    fn move_medium(&self, load: bool, nexus: Option<u64>) -> Result<(), Sense> {
        let moved = self.try_change(|state, flags| {
            if load != flags.has(Flags::EJECTED) {
                flags.set(Flags::STOPPED, flags.has(Flags::STOPPED) && !load);
                return Ok(());
            }
            if state.is_prevented() {
                return Err(Sense::illegal(asc::MEDIUM_REMOVAL_PREVENTED));
            }
            flags.set(Flags::EJECTED, !load);
            if load {
                flags.set(Flags::STOPPED, false);
                flags.set(Flags::LOW_POWER, false);
                state.attention(crate::Attention::MediumMayHaveChanged, nexus);
            }
            Ok(())
        });
        if !load && moved.is_ok() {
            self.revoke_tokens();
        }
        moved
    }

    fn start(&self, start: bool) -> Result<(), Sense> {
        self.try_change(|_, flags| {
            if flags.has(Flags::EJECTED) {
                return Err(crate::readiness::NO_MEDIUM);
            }
            flags.set(Flags::STOPPED, !start);
            flags.set(Flags::LOW_POWER, false);
            Ok(())
        })
    }
}
