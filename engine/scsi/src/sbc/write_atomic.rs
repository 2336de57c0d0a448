//! WRITE ATOMIC 16 (SBC-4 5.45): all of the blocks are written, or none. There only when the store can.

use crate::{
    command::{Command, Context, Step},
    sbc::{
        collect::{self, MOST_BYTES},
        range::Blocks,
    },
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const OPCODE: u8 = 0x9C;

pub(crate) const TABLE: &[Entry] = &[Entry::new(
    // Bytes 10 and 11 are the ATOMIC BOUNDARY; there is none.
    &[OPCODE, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00],
    Traits::MEDIUM.and(Traits::WRITES).and(Traits::ATOMIC),
    write_atomic,
)
.timeouts(1, 30)];

/// Initiators that don't ask how long an atomic write may be take this for granted.
const LEAST_BLOCKS: u32 = 256;

/// MAXIMUM ATOMIC TRANSFER LENGTH in blocks (VPD B0h); 0: no atomic writes.
pub(crate) fn most_blocks(unit: &LogicalUnit) -> u32 {
    let blocks = unit.store().atomic_write.min(MOST_BYTES) >> unit.block_shift();
    if blocks < LEAST_BLOCKS { 0 } else { blocks }
}

fn blocks(command: &Command) -> Blocks {
    Blocks::of_two_bytes(&command.cdb, 12)
}

fn write_atomic(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    collect::receive(command, blocks(command), 1, most_blocks(unit), unit, received)
}

fn received(command: &mut Command, _: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    collect::write(command, blocks(command), unit, |span, durable| Step::Put { span, durable })
}
