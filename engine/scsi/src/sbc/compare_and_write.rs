//! COMPARE AND WRITE (SBC-3 5.2): the lock primitive of VMware and of clusters.

use crate::{
    command::{Command, Context, Step, fail},
    sbc::{
        collect::{self, MOST_BYTES},
        protection,
        range::Blocks,
    },
    sense::Sense,
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use backstore_api::{Checks, TUPLE};

pub(crate) const OPCODE: u8 = 0x89;

pub(crate) const TABLE: &[Entry] = &[Entry::new(
    &[OPCODE, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0xFF, 0x00, 0x00],
    Traits::MEDIUM.and(Traits::WRITES).and(Traits::PROTECT),
    compare_and_write,
)
.timeouts(1, 30)];

/// MAXIMUM COMPARE AND WRITE LENGTH in blocks (VPD B0h): both halves of the data lie in one buffer, perhaps with tuples.
pub(crate) fn most_blocks(unit: &LogicalUnit) -> u8 {
    let block = unit.block_size() + unit.protection().map_or(0, |_| TUPLE);
    u8::try_from(MOST_BYTES / 2 / block).unwrap_or(u8::MAX)
}

/// WRPROTECT: what is checked of the tuples that come with the blocks. None: these come alone.
fn checks(command: &Command, unit: &LogicalUnit) -> Result<Option<Checks>, Sense> {
    match command.cdb.byte(1) >> 5 {
        0 => Ok(None),
        _ => protection::asked(&command.cdb, blocks(command).lba, unit).map(Some),
    }
}

fn compare_and_write(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let block = match checks(command, unit) {
        Ok(checks) => checks.map_or(unit.block_size(), |checks| checks.block_with_tuple()),
        Err(sense) => return fail(sense),
    };
    collect::receive(command, blocks(command), 2 * block, u32::from(most_blocks(unit)), unit, received)
}

fn blocks(command: &Command) -> Blocks {
    Blocks::of_one_byte(&command.cdb, 13)
}

fn received(command: &mut Command, _: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match checks(command, unit) {
        Ok(checks) => {
            collect::write(command, blocks(command), unit, |span, durable| Step::Swap { span, durable, checks })
        }
        Err(sense) => fail(sense),
    }
}
