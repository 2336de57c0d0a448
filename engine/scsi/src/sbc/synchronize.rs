//! SYNCHRONIZE CACHE 10 and 16 (SBC-3 5.26, 5.27). SYNC_NV, which is obsolete, is ignored: there is no other cache.

use crate::{
    command::{Command, Context, Step, fail},
    counters::Count,
    sbc::range::Blocks,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x35, 0x06, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], Traits::MEDIUM, synchronize_10)
        .timeouts(5, 120),
    Entry::new(
        &[0x91, 0x06, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::MEDIUM,
        synchronize_16,
    )
    .timeouts(5, 120),
];

fn synchronize_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    synchronize(command, Blocks::of_10(&command.cdb), unit, context)
}

fn synchronize_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    synchronize(command, Blocks::of_16(&command.cdb), unit, context)
}

/// All is flushed, whatever the range; a number of 0 means up to the end. IMMED only allows an early status, so status
/// comes after the flush.
fn synchronize(command: &mut Command, blocks: Blocks, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    match blocks.check(unit) {
        Ok(()) => {
            if let Some(nexus) = &context.nexus {
                nexus.count(Count::Flushes, 1);
            }
            command.flush()
        }
        Err(sense) => fail(sense),
    }
}
