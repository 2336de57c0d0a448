//! PRE-FETCH 10 and 16 (SBC-3 5.7, 5.8).
//!
//! CONDITION MET says that the blocks are in the cache, or will be soon; GOOD that there is no cache that could hold them.
//! GROUP NUMBER is of no consequence.

use crate::{
    command::{Command, Context, Step, condition_met, fail, good},
    sbc::range::Blocks,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x34, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F, 0xFF, 0xFF, 0x00], Traits::MEDIUM, prefetch_10)
        .timeouts(1, 30),
    Entry::new(
        &[0x90, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F, 0x00],
        Traits::MEDIUM,
        prefetch_16,
    )
    .timeouts(1, 30),
];

fn prefetch_10(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    prefetch(command, Blocks::of_10(&command.cdb), unit)
}

fn prefetch_16(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    prefetch(command, Blocks::of_16(&command.cdb), unit)
}

/// Status comes once the store has begun to read, with IMMED and without. A number of 0 means up to the end.
fn prefetch(command: &mut Command, mut blocks: Blocks, unit: &LogicalUnit) -> Step {
    if let Err(sense) = blocks.check(unit) {
        return fail(sense);
    }
    if !unit.store().cached {
        return good();
    }
    if blocks.count == 0 {
        blocks.count = unit.blocks() - blocks.lba;
    }
    let (offset, length) = blocks.bytes(unit);
    command.state = crate::command::State::Storing { write: false, then: |_, _, _| condition_met() };
    Step::Prefetch { offset, length }
}
