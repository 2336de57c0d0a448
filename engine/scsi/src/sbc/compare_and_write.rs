//! COMPARE AND WRITE (SBC-3 5.2): the lock primitive of VMware and of clusters.

use crate::{
    command::{Command, Context, Span, State, Step, fail, good},
    sbc::range::Blocks,
    sense::Sense,
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

/// Both halves of the data lie in one buffer of this size.
const MOST_BYTES: u32 = 256 << 10;

/// MAXIMUM COMPARE AND WRITE LENGTH in blocks (VPD B0h).
pub(crate) fn most_blocks(unit: &LogicalUnit) -> u8 {
    u8::try_from(MOST_BYTES / 2 / unit.block_size()).unwrap_or(u8::MAX)
}

fn compare_and_write(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let blocks = blocks(command);
    if let Err(sense) = blocks.check(unit) {
        return fail(sense);
    }
    if blocks.count > u64::from(most_blocks(unit)) {
        return fail(Sense::field_in_cdb(13, None));
    }
    let (_, length) = blocks.bytes(unit);
    // No blocks: nothing is transferred, and nothing may be offered.
    command.receive(2 * length as u32, received)
}

fn blocks(command: &Command) -> Blocks {
    Blocks::of_one_byte(&command.cdb, 13)
}

fn received(command: &mut Command, _: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let (offset, length) = blocks(command).bytes(unit);
    if length == 0 {
        return good();
    }
    let durable = command.cdb.bit(1, 3) || !unit.write_cache();
    command.state = State::Moving { write: true, offset };
    Step::Swap { span: Span { offset, length: length as u32 }, durable }
}
