//! SYNCHRONIZE CACHE, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.17, 5.25 to 5.27).

use crate::{
    command::{Command, Context, Step, fail, good},
    sbc::range::Blocks,
    sense::Sense,
    table::{Entry, Traits},
    unit::{Flags, LogicalUnit},
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x35, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], Traits::MEDIUM, synchronize_10)
        .timeouts(5, 120),
    Entry::new(
        &[0x91, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::MEDIUM,
        synchronize_16,
    )
    .timeouts(5, 120),
    Entry::new(&[0x1B, 0x01, 0x00, 0x0F, 0xF7, 0x00], Traits::NONE, start_stop_unit).timeouts(5, 120),
    Entry::new(&[0x1E, 0x00, 0x00, 0x00, 0x03, 0x00], Traits::NONE, prevent_allow),
];

fn synchronize_10(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    synchronize(command, Blocks::of_10(&command.cdb), unit)
}

fn synchronize_16(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    synchronize(command, Blocks::of_16(&command.cdb), unit)
}

/// All is flushed, whatever the range; a number of 0 means up to the end. IMMED only allows an early status, so status
/// comes after the flush.
fn synchronize(command: &mut Command, blocks: Blocks, unit: &LogicalUnit) -> Step {
    match blocks.check(unit) {
        Ok(()) => command.flush(false),
        Err(sense) => fail(sense),
    }
}

/// The medium can't be loaded or ejected, and there are no power conditions: LOEJ and POWER CONDITION are refused.
fn start_stop_unit(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let byte = command.cdb.byte(4);
    if byte & 0xF0 != 0 {
        return fail(Sense::field_in_cdb(4, Some(7)));
    }
    if command.cdb.byte(3) & 0x0F != 0 {
        return fail(Sense::field_in_cdb(3, Some(3)));
    }
    let (no_flush, load_eject, start) = (byte & 0x04 != 0, byte & 0x02 != 0, byte & 0x01 != 0);
    if load_eject {
        return fail(Sense::field_in_cdb(4, Some(1)));
    }
    if !start && !no_flush {
        return command.flush(true);
    }
    if unit.flags().has(Flags::STOPPED) == start {
        unit.change(None, None, |flags| flags.set(Flags::STOPPED, !start));
    }
    good()
}

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
