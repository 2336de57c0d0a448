//! Writes of which all data is collected in one buffer before any of it is written.

use crate::{
    command::{Command, Received, Span, State, Step, fail, good},
    sbc::range::Blocks,
    unit::LogicalUnit,
};

/// That buffer's size.
pub(crate) const MOST_BYTES: u32 = 256 << 10;

/// Takes the bytes of the blocks, which are `most` at most; `block`: bytes that come for one.
pub(crate) fn receive(
    command: &mut Command,
    blocks: Blocks,
    block: u32,
    most: u32,
    unit: &LogicalUnit,
    then: Received,
) -> Step {
    if let Err(sense) = blocks.check(unit) {
        return fail(sense);
    }
    if blocks.count > u64::from(most) {
        return fail(blocks.count_refused());
    }
    // No blocks: nothing is transferred, and nothing may be offered.
    command.receive(blocks.count as u32 * block, then)
}

/// It has come: what is written of it, and whether it has to be on stable storage before the end (FUA).
pub(crate) fn write(
    command: &mut Command,
    blocks: Blocks,
    unit: &LogicalUnit,
    step: impl FnOnce(Span, bool) -> Step,
) -> Step {
    let (offset, length) = blocks.bytes(unit);
    if length == 0 {
        return good();
    }
    command.state = State::Moving { write: true, offset };
    step(Span { offset, length: length as u32 }, unit.durable(command.cdb.bit(1, 3)))
}
