//! ORWRITE 16 (SBC-3 5.21): bits are set, none is cleared, and nothing comes between the reading and the writing.

use crate::{
    command::{Command, Context, State, Step, fail, good},
    sbc::range::Blocks,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[Entry::new(
    &[0x8B, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
    Traits::MEDIUM.and(Traits::WRITES),
    orwrite,
)
.timeouts(2, 60)];

fn orwrite(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match Blocks::of_16(&command.cdb).transfer(unit) {
        Ok(Some(span)) => {
            command.state = State::Moving { write: true, offset: span.offset };
            Step::Merge { span, durable: unit.durable(command.cdb.bit(1, 3)) }
        }
        Ok(None) => good(),
        Err(sense) => fail(sense),
    }
}
