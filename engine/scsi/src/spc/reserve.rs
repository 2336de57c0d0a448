//! RESERVE and RELEASE (SPC-2 7.21, 7.22), and how they go with persistent reservations (SPC-4 5.12.3: CRH is 1).
//!
//! Third-party reservations and extents are refused. A reservation ends with its session, and with a reset.

use crate::{
    command::{Command, Context, Step, conflict, fail, good},
    sense::{Sense, SenseKey, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x16, 0x00, 0x00, 0x00, 0x00, 0x00], Traits::NONE, reserve),
    Entry::new(&[0x17, 0x00, 0x00, 0x00, 0x00, 0x00], Traits::NONE, release),
    Entry::new(&[0x56, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], Traits::NONE, reserve),
    Entry::new(&[0x57, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], Traits::NONE, release),
];

fn reserve(_: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    change(unit, context, true)
}

fn release(_: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    change(unit, context, false)
}

fn change(unit: &LogicalUnit, context: &mut Context<'_>, reserve: bool) -> Step {
    let Some(nexus) = &context.nexus else {
        return fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE));
    };
    if unit.reserve_or_release(nexus.id(), nexus.path(), reserve) { good() } else { conflict() }
}
