//! Writes of which all data is collected in one buffer before any of it is written.

use crate::{
    command::{Command, Received, Span, State, Step, fail, good},
    sbc::range::Blocks,
    unit::LogicalUnit,
};

/// That buffer's size.
pub(crate) const MOST_BYTES: u32 = 256 << 10;

/// Takes `times` the bytes of the blocks, which are `most` at most.
pub(crate) fn receive(
    command: &mut Command,
    blocks: Blocks,
    times: u64,
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
    let (_, length) = blocks.bytes(unit);
    // No blocks: nothing is transferred, and nothing may be offered.
    command.receive((times * length) as u32, then)
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
