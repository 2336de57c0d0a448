//! READ DEFECT DATA 10 and 12 (SBC-3 5.14, 5.15): a medium of ours has no list of defects.

use crate::{
    command::{Command, Context, Step, answer},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x37, 0x00, 0x1F, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00], Traits::MEDIUM, read_defects_10),
    Entry::new(
        &[0xB7, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::MEDIUM,
        read_defects_12,
    ),
];

/// The lists that are asked for are valid and empty, in whatever format.
fn read_defects_10(command: &mut Command, _: &LogicalUnit, context: &mut Context<'_>) -> Step {
    context.scratch.clear();
    context.scratch.extend([0, command.cdb.byte(2) & 0x1F, 0, 0]);
    answer(context, u32::from(command.cdb.u16(7)))
}

fn read_defects_12(command: &mut Command, _: &LogicalUnit, context: &mut Context<'_>) -> Step {
    context.scratch.clear();
    context.scratch.extend([0, command.cdb.byte(1) & 0x1F, 0, 0, 0, 0, 0, 0]);
    answer(context, command.cdb.u32(6))
}
