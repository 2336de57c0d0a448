//! WRITE ATOMIC 16 (SBC-4 5.45): all of the blocks are written, or none. There only when the store can.

use crate::{
    command::{Command, Context, Span, State, Step, fail, good},
    sbc::range::Blocks,
    sense::Sense,
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

/// The data is collected in one buffer of this size before any of it is written.
const MOST_BYTES: u32 = 256 << 10;
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
    let blocks = blocks(command);
    if let Err(sense) = blocks.check(unit) {
        return fail(sense);
    }
    if blocks.count > u64::from(most_blocks(unit)) {
        return fail(Sense::field_in_cdb(12, None));
    }
    let (_, length) = blocks.bytes(unit);
    // No blocks: nothing is transferred, and nothing may be offered.
    command.receive(length as u32, received)
}

fn received(command: &mut Command, _: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let (offset, length) = blocks(command).bytes(unit);
    if length == 0 {
        return good();
    }
    let durable = command.cdb.bit(1, 3) || !unit.write_cache();
    command.state = State::Moving { write: true, offset };
    Step::Put { span: Span { offset, length: length as u32 }, durable }
}
