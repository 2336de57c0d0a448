//! READ and WRITE of 6, 10, 12 and 16 bytes (SBC-3 5.9 to 5.13, 5.34 to 5.38).
//!
//! DPO is taken and means nothing here. FUA of a READ needs nothing: the store answers with what was written last. Group
//! numbers are not supported, hence reserved.

use crate::{
    command::{Command, Context, Moving, State, Step, fail, good},
    counters::Count,
    sbc::{protection, range::Blocks},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

const READS: Traits = Traits::MEDIUM.and(Traits::PROTECT);
const WRITES: Traits = Traits::MEDIUM.and(Traits::WRITES).and(Traits::PROTECT);
const FUA: u8 = 3;

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0x00], READS, read_6).timeouts(1, 30),
    Entry::new(&[0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0x00], WRITES, write_6).timeouts(1, 30),
    Entry::new(&[0x28, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], READS, read_10).timeouts(1, 30),
    Entry::new(&[0x2A, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], WRITES, write_10).timeouts(1, 30),
    Entry::new(&[0xA8, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00], READS, read_12)
        .timeouts(1, 30),
    Entry::new(&[0xAA, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00], WRITES, write_12)
        .timeouts(1, 30),
    Entry::new(
        &[0x88, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        READS,
        read_16,
    )
    .timeouts(1, 30),
    Entry::new(
        &[0x8A, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        WRITES,
        write_16,
    )
    .timeouts(1, 30),
];

fn read_6(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_6(&command.cdb), unit, context)
}

fn read_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_10(&command.cdb), unit, context)
}

fn read_12(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_12(&command.cdb), unit, context)
}

fn read_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_16(&command.cdb), unit, context)
}

fn write_6(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_6(&command.cdb), false, unit, context)
}

fn write_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_10(&command.cdb), command.cdb.bit(1, FUA), unit, context)
}

fn write_12(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_12(&command.cdb), command.cdb.bit(1, FUA), unit, context)
}

fn write_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_16(&command.cdb), command.cdb.bit(1, FUA), unit, context)
}

#[inline]
fn read(command: &mut Command, blocks: Blocks, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    if command.cdb.byte(1) >> 5 != 0 {
        let checks = protection::asked(&command.cdb, blocks.lba, unit);
        return protection::transfer(command, blocks, checks, Moving::Read, unit, context);
    }
    match blocks.transfer(unit) {
        Ok(Some(span)) => {
            command.state = State::Moving { write: false, offset: span.offset };
            if let Some(nexus) = &context.nexus {
                nexus.count(Count::Reads, 1);
                nexus.count(Count::ReadBlocks, u64::from(span.length >> unit.block_shift()));
            }
            Step::Read { span }
        }
        Ok(None) => good(),
        Err(sense) => fail(sense),
    }
}

#[inline]
fn write(
    command: &mut Command,
    blocks: Blocks,
    force_unit_access: bool,
    unit: &LogicalUnit,
    context: &mut Context<'_>,
) -> Step {
    let durable = force_unit_access || !unit.write_cache();
    if command.cdb.byte(1) >> 5 != 0 {
        let checks = protection::asked(&command.cdb, blocks.lba, unit);
        return protection::transfer(command, blocks, checks, Moving::Write { durable, verify: false }, unit, context);
    }
    match blocks.transfer(unit) {
        Ok(Some(span)) => {
            command.state = State::Moving { write: true, offset: span.offset };
            if let Some(nexus) = &context.nexus {
                nexus.count(Count::Writes, 1);
                nexus.count(Count::WrittenBlocks, u64::from(span.length >> unit.block_shift()));
                nexus.count(Count::CachedWrites, u64::from(!durable));
            }
            Step::Write { span, durable, verify: false }
        }
        Ok(None) => good(),
        Err(sense) => fail(sense),
    }
}
