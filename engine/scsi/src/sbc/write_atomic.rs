//! WRITE ATOMIC 16 (SBC-4 5.45): all of the blocks are written, or none. There only when the store can.

use crate::{
    command::{Command, Context, Step, fail},
    sbc::{
        collect::{self, MOST_BYTES},
        range::Blocks,
    },
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

/// Initiators that don't ask how long an atomic write may be take this for granted.
const LEAST_BLOCKS: u32 = 256;

/// MAXIMUM ATOMIC TRANSFER LENGTH in blocks (VPD B0h); 0: no atomic writes.
pub(crate) fn most_blocks(unit: &LogicalUnit) -> u32 {
    let blocks = unit.store().atomic_write.min(MOST_BYTES) >> unit.block_shift();
    let blocks = blocks - blocks % physical(unit);
    if blocks < LEAST_BLOCKS { 0 } else { blocks }
}

/// ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY in blocks (VPD B0h): whole physical blocks, as a disk has it
/// that is made of them. None: they may lie anywhere, or there are no atomic writes.
pub(crate) fn granularity(unit: &LogicalUnit) -> Option<u32> {
    (most_blocks(unit) > 0).then(|| physical(unit)).filter(|blocks| *blocks > 1)
}

/// Blocks of a physical block.
fn physical(unit: &LogicalUnit) -> u32 {
    (unit.physical_block() >> unit.block_shift()).max(1)
}

fn blocks(command: &Command) -> Blocks {
    Blocks::of_two_bytes(&command.cdb, 12)
}

fn write_atomic(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let wanted = blocks(command);
    match wanted.check(unit).and_then(|()| whole(&wanted, unit)) {
        Ok(()) => collect::receive(command, wanted, unit.block_size(), most_blocks(unit), unit, received),
        Err(sense) => fail(sense),
    }
}

/// Nothing but whole physical blocks.
fn whole(blocks: &Blocks, unit: &LogicalUnit) -> Result<(), Sense> {
    let Some(granularity) = granularity(unit).map(u64::from) else { return Ok(()) };
    if !blocks.lba.is_multiple_of(granularity) {
        return Err(Sense::field_in_cdb(2, None));
    }
    if blocks.count.is_multiple_of(granularity) { Ok(()) } else { Err(blocks.count_refused()) }
}

fn received(command: &mut Command, _: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    collect::write(command, blocks(command), unit, |span, durable| Step::Put { span, durable })
}
