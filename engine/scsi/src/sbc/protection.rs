//! Protection information in commands (SBC-3 4.22): what RDPROTECT, WRPROTECT and VRPROTECT ask for, and the commands of
//! 32 bytes, which carry the tags that type 2 is checked by.

use crate::{
    cdb::Cdb,
    command::{Command, Context, Moving, Step, fail, good},
    sbc::{range::Blocks, transfer, verify::byte_check},
    sense::{Sense, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use backstore_api::{Checks, Protection};

const READS: Traits = Traits::MEDIUM.and(Traits::TYPE2);
pub(crate) const WRITES: Traits = Traits::MEDIUM.and(Traits::WRITES).and(Traits::TYPE2);

/// A CDB of 32 bytes: CONTROL, GROUP NUMBER and the flags of byte 10 differ; LBA, tags and length do not.
pub(crate) const fn usage(action: u8, flags: u8) -> [u8; 32] {
    let mut usage = [0xFF; 32];
    (usage[0], usage[1], usage[9], usage[10]) = (0x7F, 0, action, flags);
    // Reserved, GROUP NUMBER; the high half of the service action; reserved.
    (usage[2], usage[3], usage[4], usage[5], usage[6], usage[8], usage[11]) = (0, 0, 0, 0, 0, 0, 0);
    usage
}

const READ: [u8; 32] = usage(0x09, 0xF8);
const VERIFY: [u8; 32] = usage(0x0A, 0xF6);
const WRITE: [u8; 32] = usage(0x0B, 0xF8);
const WRITE_AND_VERIFY: [u8; 32] = usage(0x0C, 0xF6);

pub(crate) const TABLE: &[Entry] = &[
    Entry::long(0x0009, &READ, READS, read_32).timeouts(1, 30),
    Entry::long(0x000A, &VERIFY, READS, verify_32).timeouts(2, 60),
    Entry::long(0x000B, &WRITE, WRITES, write_32).timeouts(1, 30),
    Entry::long(0x000C, &WRITE_AND_VERIFY, WRITES, write_and_verify_32).timeouts(2, 60),
];

/// The upper three bits of byte 1 (RDPROTECT, WRPROTECT, VRPROTECT) of a command of 10 to 16 bytes, which are not zero:
/// what is checked of the tuples that move with the blocks.
pub(crate) fn asked(cdb: &Cdb, lba: u64, unit: &LogicalUnit) -> Result<Checks, Sense> {
    match unit.protection() {
        None => Err(Sense::field_in_cdb(1, Some(7 - cdb.byte(1).leading_zeros() as u8))),
        // They have no field for the tags that this type is checked by (SBC-3 5.9).
        Some(Protection::Type2) => Err(Sense::illegal(asc::INVALID_COMMAND_OPERATION_CODE)),
        Some(kind) => {
            // The lower half.
            let reference = (kind == Protection::Type1).then_some(lba as u32);
            chosen(cdb.byte(1) >> 5, 1, None, reference, unit)
        }
    }
}

/// The same of a command of 32 bytes, in byte 10, with the tags that it carries.
pub(crate) fn asked_by_32(cdb: &Cdb, unit: &LogicalUnit) -> Result<Checks, Sense> {
    chosen(cdb.byte(10) >> 5, 10, Some((cdb.u16(24), cdb.u16(26))), Some(cdb.u32(20)), unit)
}

/// SBC-3 tables 63, 65 and 67 of a protected medium.
fn chosen(
    field: u8,
    byte: u16,
    application: Option<(u16, u16)>,
    reference: Option<u32>,
    unit: &LogicalUnit,
) -> Result<Checks, Sense> {
    let all = Checks { block_size: unit.block_size(), guard: true, application, reference };
    match field {
        0b001 | 0b101 => Ok(all),
        0b010 => Ok(Checks { guard: false, ..all }),
        0b011 => Ok(Checks::none(unit.block_size())),
        0b100 => Ok(Checks { application: None, reference: None, ..all }),
        _ => Err(Sense::field_in_cdb(byte, Some(7))),
    }
}

/// Moves blocks together with their tuples, for a command of 10 to 16 bytes that asks for it.
#[cold]
pub(crate) fn transfer(
    command: &mut Command,
    blocks: Blocks,
    moving: Moving,
    unit: &LogicalUnit,
    context: &Context<'_>,
) -> Step {
    let checks = asked(&command.cdb, blocks.lba, unit);
    with_tuples(command, blocks, checks, moving, unit, context)
}

fn with_tuples(
    command: &mut Command,
    blocks: Blocks,
    checks: Result<Checks, Sense>,
    moving: Moving,
    unit: &LogicalUnit,
    context: &Context<'_>,
) -> Step {
    match checks.and_then(|checks| Ok((checks, blocks.transfer(unit)?))) {
        Ok((checks, Some(span))) => {
            transfer::begin(command, span, moving, unit, context);
            Step::MoveTuples { span, moving, checks }
        }
        Ok((_, None)) => good(),
        Err(sense) => fail(sense),
    }
}

fn read_32(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    long(command, Moving::Read, unit, context)
}

fn verify_32(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    match command.cdb.byte(10) >> 1 & 0b11 {
        0b00 => long(command, Moving::Check, unit, context),
        0b01 => long(command, Moving::Compare, unit, context),
        _ => fail(Sense::field_in_cdb(10, Some(2))),
    }
}

fn write_32(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let durable = unit.durable(command.cdb.bit(10, 3));
    long(command, Moving::Write { durable, verify: false }, unit, context)
}

fn write_and_verify_32(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    match command.cdb.byte(10) >> 1 & 0b11 {
        0b00 | 0b01 => long(command, Moving::Write { durable: true, verify: true }, unit, context),
        _ => fail(Sense::field_in_cdb(10, Some(2))),
    }
}

/// A command of 32 bytes: with a field of zero the tuples stay here.
fn long(command: &mut Command, moving: Moving, unit: &LogicalUnit, context: &Context<'_>) -> Step {
    let cdb = &command.cdb;
    let blocks = Blocks::of_32(cdb);
    match cdb.byte(10) >> 5 {
        0 => transfer::plain(command, blocks, moving, unit, context),
        _ => {
            let checks = asked_by_32(cdb, unit);
            with_tuples(command, blocks, checks, moving, unit, context)
        }
    }
}

/// VERIFY of 10 to 16 bytes with VRPROTECT.
#[cold]
pub(crate) fn verify(command: &mut Command, blocks: Blocks, unit: &LogicalUnit, context: &Context<'_>) -> Step {
    let moving = match byte_check(&command.cdb) {
        0b00 => Moving::Check,
        0b01 => Moving::Compare,
        // One block can't have the reference tags of many.
        _ => return fail(Sense::field_in_cdb(1, Some(2))),
    };
    transfer(command, blocks, moving, unit, context)
}
