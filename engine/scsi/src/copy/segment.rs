//! Segment descriptors: what is to be copied (SPC-4 6.4.6).

use super::{
    be16, be32, be64,
    cscd::{self, Side},
    list::List,
    running::{Move, Source},
};
use crate::{
    command::Context,
    sense::{Sense, SenseKey, Specific, asc},
    unit::{Flags, LogicalUnit},
};
use std::sync::Arc;

/// Bytes before those that DESCRIPTOR LENGTH counts.
pub(super) const HEADER: usize = 4;

/// Block device to block device.
pub(super) const BLOCKS: u8 = 0x02;
/// Verify CSCD.
pub(super) const VERIFY: u8 = 0x07;
/// Block device with offset to block device with offset.
pub(super) const BYTES: u8 = 0x0A;

/// What is checked of each descriptor before anything is copied.
pub(super) fn check(code: u8) -> Result<(), Sense> {
    match code {
        BLOCKS | VERIFY | BYTES => Ok(()),
        _ => Err(Sense::illegal(asc::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE)),
    }
}

/// A segment that is ready to be processed.
pub(super) struct Segment {
    pub source: Side,
    /// The same as the source, where nothing is written.
    pub target: Side,
    /// None: there is nothing to move.
    pub motion: Option<Move>,
}

/// COPY ABORTED because of a field of the segment descriptor.
fn wrong(code: u16, field: u16) -> Sense {
    let mut sense = Sense::new(SenseKey::CopyAborted, code);
    sense.specific = Specific::Segment { descriptor: true, byte: field };
    sense
}

/// Finds out what a segment descriptor asks for. Errors are complete but for the segment's number.
pub(super) fn plan(
    list: &List,
    descriptor: &[u8],
    own: &Arc<LogicalUnit>,
    context: &Context<'_>,
) -> Result<Segment, Sense> {
    let length = match descriptor[0] {
        BLOCKS => 28,
        BYTES => 32,
        _ => 12,
    };
    if descriptor.len() != length {
        return Err(wrong(asc::INVALID_FIELD_IN_PARAMETER_LIST, 2));
    }
    let source = cscd::resolve(list, be16(descriptor, 4), 4, own, context)?;
    if descriptor[0] == VERIFY {
        // TUR.
        let flags = source.unit.flags();
        if descriptor[8] & 1 != 0 && (flags.has(Flags::STOPPED) || flags.has(Flags::EJECTED)) {
            return Err(source.failure());
        }
        return Ok(Segment { target: source.clone(), source, motion: None });
    }
    let target = cscd::resolve(list, be16(descriptor, 6), 6, own, context)?;
    let (from, at, length) = match descriptor[0] {
        BLOCKS => blocks(descriptor, &source.unit, &target.unit)?,
        _ => bytes(descriptor, &source.unit, &target.unit)?,
    };
    let motion = (length > 0).then(|| Move {
        source: Source::Unit(source.unit.clone(), from),
        target: target.unit.clone(),
        at,
        length,
    });
    Ok(Segment { source, target, motion })
}

/// Where in the source, where in the destination, and how many bytes.
type Bytes = (u64, u64, u64);

fn blocks(descriptor: &[u8], source: &LogicalUnit, target: &LogicalUnit) -> Result<Bytes, Sense> {
    // DC: the number is of blocks of the destination.
    let counted = if descriptor[1] & 2 != 0 { target } else { source };
    let length = u64::from(be16(descriptor, 10)) << counted.block_shift();
    // Residual data of a segment is neither kept for the next one nor padded.
    if length & u64::from(source.block_size().max(target.block_size()) - 1) != 0 {
        return Err(wrong(asc::UNEXPECTED_INEXACT_SEGMENT, 10));
    }
    let from = place(be64(descriptor, 12), length, source).ok_or(wrong(asc::NONE, 12))?;
    let at = place(be64(descriptor, 20), length, target).ok_or(wrong(asc::NONE, 20))?;
    Ok((from, at, length))
}

fn bytes(descriptor: &[u8], source: &LogicalUnit, target: &LogicalUnit) -> Result<Bytes, Sense> {
    let length = u64::from(be32(descriptor, 8));
    let (from, at) = (u64::from(be16(descriptor, 28)), u64::from(be16(descriptor, 30)));
    // DATA SEGMENT GRANULARITY: whole blocks alone.
    let (read, written) = (u64::from(source.block_size()), u64::from(target.block_size()));
    for (number, block, field) in [(length, read.max(written), 8), (from, read, 28), (at, written, 30)] {
        if !number.is_multiple_of(block) {
            return Err(wrong(asc::COPY_SEGMENT_GRANULARITY_VIOLATION, field));
        }
    }
    let begin = place(be64(descriptor, 12), from + length, source).ok_or(wrong(asc::NONE, 12))?;
    let target = place(be64(descriptor, 20), at + length, target).ok_or(wrong(asc::NONE, 20))?;
    Ok((begin + from, target + at, length))
}

/// The byte where a block begins, if so many bytes are there.
fn place(lba: u64, length: u64, unit: &LogicalUnit) -> Option<u64> {
    let fits = lba <= unit.blocks() && length >> unit.block_shift() <= unit.blocks() - lba;
    fits.then(|| lba << unit.block_shift())
}
