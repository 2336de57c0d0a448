//! COMPARE AND WRITE (SBC-3 5.2): the lock primitive of VMware and of clusters.

use crate::{
    command::{Command, Context, Step},
    sbc::{
        collect::{self, MOST_BYTES},
        range::Blocks,
    },
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const OPCODE: u8 = 0x89;

pub(crate) const TABLE: &[Entry] = &[Entry::new(
    &[OPCODE, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0xFF, 0x00, 0x00],
    Traits::MEDIUM.and(Traits::WRITES),
    compare_and_write,
)
.timeouts(1, 30)];

/// MAXIMUM COMPARE AND WRITE LENGTH in blocks (VPD B0h): both halves of the data lie in one buffer.
pub(crate) fn most_blocks(unit: &LogicalUnit) -> u8 {
    u8::try_from(MOST_BYTES / 2 / unit.block_size()).unwrap_or(u8::MAX)
}

fn compare_and_write(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    collect::receive(command, blocks(command), 2, u32::from(most_blocks(unit)), unit, received)
}

fn blocks(command: &Command) -> Blocks {
    Blocks::of_one_byte(&command.cdb, 13)
}

fn received(command: &mut Command, _: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    collect::write(command, blocks(command), unit, |span, durable| Step::Swap { span, durable })
}
