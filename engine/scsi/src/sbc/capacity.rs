//! READ CAPACITY 10 and 16, GET LBA STATUS (SBC-3 5.6, 5.15, 5.16).

use crate::{
    cdb::Cdb,
    command::{Command, Context, State, Step, answer, fail},
    profile::Provisioning,
    sbc::range::out_of_range,
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use backstore_api::{Extent, Protection};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Traits::PRESENT, read_capacity_10),
    Entry::action(
        0x10,
        &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::PRESENT,
        read_capacity_16,
    ),
    Entry::action(
        0x12,
        &[0x9E, 0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::MEDIUM,
        get_lba_status,
    )
    .timeouts(1, 30),
];

/// Most descriptors in one answer of GET LBA STATUS.
const MOST_EXTENTS: u32 = 1024;

/// PROVISIONING STATUS (SBC-4 table 61).
const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;
const ANCHORED: u8 = 2;

fn read_capacity_10(_: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let last = u32::try_from(unit.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
    context.scratch.clear();
    context.scratch.extend(last.to_be_bytes());
    context.scratch.extend(unit.block_size().to_be_bytes());
    answer(context, 8)
}

fn read_capacity_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let mut data = [0u8; 32];
    data[..8].copy_from_slice(&unit.blocks().saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&unit.block_size().to_be_bytes());
    // P_TYPE, PROT_EN.
    data[12] = match unit.protection() {
        None => 0b0000,
        Some(Protection::Type1) => 0b0001,
        Some(Protection::Type2) => 0b0011,
        Some(Protection::Type3) => 0b0101,
    };
    data[13] = physical_exponent(unit);
    if unit.unmaps() {
        data[14] |= 0x80; // LBPME
        if unit.unmaps_to_zeroes() {
            data[14] |= 0x40; // LBPRZ
        }
    }
    context.scratch.clear();
    context.scratch.extend(data);
    answer(context, command.cdb.u32(10))
}

/// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
pub(crate) fn physical_exponent(unit: &LogicalUnit) -> u8 {
    let blocks = unit.physical_block() >> unit.block_shift();
    if blocks.is_power_of_two() { (blocks.trailing_zeros() as u8).min(15) } else { 0 }
}

fn get_lba_status(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let (lba, allocation_length, blocks) = (command.cdb.u64(2), command.cdb.u32(10), unit.blocks());
    if lba >= blocks {
        return fail(out_of_range(lba));
    }
    if allocation_length < 24 || !unit.unmaps() {
        // No room for a descriptor, or nothing but mapped blocks (SBC-4 4.7.2): without asking the store.
        return lba_status(&command.cdb, &[], unit, context);
    }
    command.state = State::Extents;
    let offset = lba << unit.block_shift();
    let length = (blocks << unit.block_shift()) - offset;
    Step::Status { offset, length, limit: ((allocation_length - 8) / 16).min(MOST_EXTENTS) }
}

/// The answer. A block of which a part is mapped is mapped; so is what the store says nothing of.
pub(crate) fn lba_status(cdb: &Cdb, extents: &[Extent], unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let (block, mut next) = (u64::from(unit.block_size()), cdb.u64(2));
    let unmapped = if unit.provisioning() == Provisioning::Resource { ANCHORED } else { DEALLOCATED };
    let most = 8 + 16 * MOST_EXTENTS as usize;
    context.scratch.clear();
    context.scratch.extend([0; 8]);
    for extent in extents {
        let end = extent.offset.saturating_add(extent.length);
        let end = if extent.mapped { end.div_ceil(block) } else { end / block };
        let end = end.min(unit.blocks());
        while next < end && context.scratch.len() < most {
            let count = (end - next).min(u64::from(u32::MAX)) as u32;
            descriptor(context.scratch, next, count, if extent.mapped { MAPPED } else { unmapped });
            next += u64::from(count);
        }
    }
    if context.scratch.len() == 8 {
        // Nothing was said; or of the first block a part alone.
        let left = unit.blocks().saturating_sub(next);
        let count = if extents.is_empty() { left } else { left.min(1) };
        descriptor(context.scratch, next, count.min(u64::from(u32::MAX)) as u32, MAPPED);
    }
    let length = (context.scratch.len() - 4) as u32;
    context.scratch[..4].copy_from_slice(&length.to_be_bytes());
    answer(context, cdb.u32(10))
}

fn descriptor(out: &mut Vec<u8>, lba: u64, count: u32, status: u8) {
    out.extend(lba.to_be_bytes());
    out.extend(count.to_be_bytes());
    out.extend([status, 0, 0, 0]);
}
