//! UNMAP (SBC-3 5.30).

use crate::{
    command::{Command, Context, State, Step, fail, good},
    profile::Provisioning,
    sbc::range::out_of_range,
    sense::{Sense, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[Entry::new(
    &[0x42, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
    Traits::MEDIUM.and(Traits::WRITES).and(Traits::THIN),
    unmap,
)
.timeouts(5, 120)];

/// MAXIMUM UNMAP LBA COUNT (VPD B0h), of all descriptors together.
pub(crate) const MOST_BLOCKS: u32 = 1 << 20;
/// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT (VPD B0h).
pub(crate) const MOST_DESCRIPTORS: u32 = 256;

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;
/// Bytes of one step.
const PIECE: u64 = 64 << 20;

/// The rest of an UNMAP, one range after the other.
pub(crate) struct Unmapping {
    /// Offset and length in bytes; last one first.
    ranges: Vec<(u64, u64)>,
    /// LBPRZ.
    zeroes: bool,
    /// Without a write cache it is on stable storage before the end: nobody flushes it later.
    flush: bool,
}

impl Unmapping {
    pub fn next(&mut self) -> Step {
        while let Some((offset, left)) = self.ranges.pop() {
            let length = left.min(PIECE);
            if left > length {
                self.ranges.push((offset + length, left - length));
            }
            if length > 0 {
                // Where unmapped blocks read as zeroes (LBPRZ), all of them have to, also those that share a granule of the
                // store with others.
                return match self.zeroes {
                    true => Step::Zero { offset, length, unmap: true, durable: false },
                    false => Step::Discard { offset, length },
                };
            }
        }
        if std::mem::take(&mut self.flush) { Step::Flush } else { good() }
    }
}

fn unmap(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    // ANCHOR: with ANC_SUP.
    if command.cdb.bit(1, 0) && unit.provisioning() != Provisioning::Resource {
        return fail(Sense::field_in_cdb(1, Some(0)));
    }
    match u32::from(command.cdb.u16(7)) {
        // Not an error, and nothing to do.
        0 => good(),
        length if length < HEADER as u32 => fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR)),
        length => command.receive(length, parameters),
    }
}

fn parameters(command: &mut Command, list: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match ranges(list, unit) {
        Ok(ranges) => {
            let flush = !unit.write_cache() && ranges.iter().any(|(_, length)| *length > 0);
            let mut unmapping = Box::new(Unmapping { ranges, zeroes: unit.unmaps_to_zeroes(), flush });
            let step = unmapping.next();
            command.state = State::Unmapping(unmapping);
            step
        }
        Err(sense) => fail(sense),
    }
}

/// The ranges in bytes, last one first. All are checked before any is unmapped.
fn ranges(list: &[u8], unit: &LogicalUnit) -> Result<Vec<(u64, u64)>, Sense> {
    let (Some(header), Some(descriptors)) = (list.first_chunk::<HEADER>(), list.get(HEADER..)) else {
        return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR));
    };
    // UNMAP BLOCK DESCRIPTOR DATA LENGTH. Descriptors that the list doesn't hold are cut off by its length, and a
    // partial one is ignored (SBC-3 5.30.2).
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let descriptors = descriptors.get(..length).unwrap_or(descriptors).as_chunks::<DESCRIPTOR>().0;
    if descriptors.len() > MOST_DESCRIPTORS as usize {
        return Err(Sense::field_in_parameters(2, None));
    }
    let blocks = unit.blocks();
    let mut ranges = Vec::with_capacity(descriptors.len() + 1);
    let mut total = 0u64;
    for (place, descriptor) in descriptors.iter().enumerate() {
        let at = (HEADER + place * DESCRIPTOR) as u16;
        let (lba, count) = fields(descriptor);
        // Zero blocks right behind the end are fine: nothing is unmapped.
        if lba > blocks || count > blocks - lba {
            return Err(out_of_range(lba.max(blocks)));
        }
        total += count;
        if total > u64::from(MOST_BLOCKS) {
            return Err(Sense::field_in_parameters(at + 8, None));
        }
        ranges.push((lba << unit.block_shift(), count << unit.block_shift()));
    }
    ranges.reverse();
    Ok(ranges)
}

/// LBA and NUMBER OF LOGICAL BLOCKS.
fn fields(descriptor: &[u8; DESCRIPTOR]) -> (u64, u64) {
    let number = |range: std::ops::Range<usize>| {
        descriptor[range].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    (number(0..8), number(8..12))
}
