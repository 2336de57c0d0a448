//! Block device range descriptors of POPULATE TOKEN and WRITE USING TOKEN (SBC-4 5.12.3).

use super::{be16, be32, be64};
use crate::{
    sbc::range::out_of_range,
    sense::{Sense, asc},
    unit::LogicalUnit,
};
use std::ops::Range;

/// MAXIMUM RANGE DESCRIPTORS.
pub(super) const MOST: usize = 128;
/// MAXIMUM TOKEN TRANSFER SIZE and MAXIMUM BYTES IN BLOCK ROD, in bytes: a command that isn't answered before it is done
/// has to be done in a few seconds.
pub(super) const MOST_BYTES: u64 = 256 << 20;

const DESCRIPTOR: usize = 16;

/// The byte ranges of a list whose header ends with BLOCK DEVICE RANGE DESCRIPTOR LENGTH before `header`. Ranges of
/// nothing are left out.
pub(super) fn parse(list: &[u8], header: usize, unit: &LogicalUnit) -> Result<Vec<Range<u64>>, Sense> {
    let at = header - 2;
    let (data_length, length) = (usize::from(be16(list, 0)), usize::from(be16(list, at)));
    // The DATA LENGTH field counts what is behind it.
    if data_length < at + DESCRIPTOR || data_length != at + length {
        return Err(Sense::field_in_parameters(0, None));
    }
    if length < DESCRIPTOR {
        return Err(Sense::field_in_parameters(at as u16, None));
    }
    // Descriptors that the list doesn't hold as a whole are ignored.
    let descriptors = &list[header..list.len().min(header + length)];
    let descriptors = descriptors.as_chunks::<DESCRIPTOR>().0;
    if descriptors.len() > MOST {
        return Err(Sense::illegal(asc::TOO_MANY_SEGMENT_DESCRIPTORS));
    }
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(descriptors.len());
    let mut total = 0;
    for (place, descriptor) in descriptors.iter().enumerate() {
        let (lba, count) = (be64(descriptor, 0), u64::from(be32(descriptor, 8)));
        if lba > unit.blocks() || count > unit.blocks() - lba {
            return Err(out_of_range(lba.max(unit.blocks())));
        }
        let (start, length) = (lba << unit.block_shift(), count << unit.block_shift());
        total += length;
        let range = start..start + length;
        let twice = ranges.iter().any(|other| other.start < range.end && range.start < other.end);
        if total > MOST_BYTES || twice {
            return Err(Sense::field_in_parameters((header + place * DESCRIPTOR) as u16, None));
        }
        if length > 0 {
            ranges.push(range);
        }
    }
    Ok(ranges)
}
