//! Parameter lists of EXTENDED COPY, and what is checked of them before anything is copied (SPC-4 5.17.7.1, 6.4.2,
//! 6.4.3, 6.5).

use super::{MOST_CSCDS, MOST_LIST, MOST_SEGMENTS, be16, be32, cscd, extended, segment};
use crate::sense::{Sense, asc};
use std::ops::Range;

/// Header of a LID1 list.
pub(super) const HEADER_LID1: usize = 16;
/// Header of a LID4 list: that of LID1, and what stands at the place of its first CSCD descriptor.
const HEADER_LID4: usize = 48;
/// Length of any list that is taken, in bytes.
pub(super) const MOST: usize = HEADER_LID4 + MOST_LIST;

/// LIST ID USAGE 11b: no identifier.
const USAGE_NONE: u8 = 0b11;

/// A parameter list whose descriptors are known to be there.
pub(super) struct List {
    bytes: Vec<u8>,
    cscds: Range<usize>,
    /// Where each segment descriptor begins.
    segments: Vec<usize>,
    /// LIST IDENTIFIER, if the operation can be asked for.
    pub id: Option<u32>,
    /// Sense data is wanted with GOOD.
    pub good_sense: bool,
    /// The command is answered before the data is copied.
    pub immediate: bool,
}

impl List {
    /// Errors: those that are found before the first segment is processed (SPC-4 5.17.7.3).
    pub fn parse(action: u8, bytes: &[u8]) -> Result<List, Sense> {
        let mut list = if action == extended::LID1 { List::header_1(bytes)? } else { List::header_4(bytes)? };
        let Range { start, end } = list.cscds.clone();
        for at in (start..end).step_by(cscd::LENGTH) {
            cscd::check(&bytes[at..at + cscd::LENGTH])?;
        }
        let all = list.bytes.len();
        let mut at = end;
        while at < all {
            if list.segments.len() == MOST_SEGMENTS {
                return Err(Sense::illegal(asc::TOO_MANY_SEGMENT_DESCRIPTORS));
            }
            segment::check(bytes[at])?;
            list.segments.push(at);
            at += segment::HEADER + usize::from(be16(bytes, at + 2));
        }
        // The last one is longer than the list.
        if at > all {
            return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR));
        }
        Ok(list)
    }

    fn header_1(bytes: &[u8]) -> Result<List, Sense> {
        let lengths = (usize::from(be16(bytes, 2)), be32(bytes, 8), be32(bytes, 12));
        let mut list = List::lay_out(bytes, HEADER_LID1, lengths, 12)?;
        list.id = identifier(bytes, u32::from(bytes[0]), 0)?;
        Ok(list)
    }

    fn header_4(bytes: &[u8]) -> Result<List, Sense> {
        // PARAMETER LIST FORMAT, HEADER CSCD DESCRIPTOR LIST LENGTH and TYPE CODE.
        for (at, right) in
            [(0, bytes.first() == Some(&1)), (2, be16(bytes, 2) == 32), (16, bytes.get(16) == Some(&0xFF))]
        {
            if bytes.len() >= HEADER_LID4 && !right {
                return Err(Sense::field_in_parameters(at, None));
            }
        }
        let lengths = (usize::from(be16(bytes, 42)), u32::from(be16(bytes, 44)), u32::from(be16(bytes, 46)));
        let mut list = List::lay_out(bytes, HEADER_LID4, lengths, 46)?;
        list.id = identifier(bytes, be32(bytes, 20), 20)?;
        list.immediate = bytes[15] & 1 != 0;
        list.good_sense = bytes[15] & 2 != 0;
        if list.immediate && (list.good_sense || list.id.is_none()) {
            return Err(Sense::illegal(asc::INVALID_FIELD_IN_CDB));
        }
        Ok(list)
    }

    /// Finds the descriptors, whose lengths are those of CSCD descriptors, segment descriptors and inline data.
    fn lay_out(
        bytes: &[u8],
        header: usize,
        (cscds, segments, inline): (usize, u32, u32),
        inline_at: u16,
    ) -> Result<List, Sense> {
        let wrong = Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR));
        let segments = segments as usize;
        if bytes.len() < header || cscds.saturating_add(segments) > MOST_LIST {
            return wrong;
        }
        let all = header + cscds + segments;
        if bytes.len() < all {
            return wrong;
        }
        if cscds > MOST_CSCDS * cscd::LENGTH {
            return Err(Sense::illegal(asc::TOO_MANY_TARGET_DESCRIPTORS));
        }
        if !cscds.is_multiple_of(cscd::LENGTH) {
            return Err(Sense::field_in_parameters(if header == HEADER_LID1 { 2 } else { 42 }, None));
        }
        // MAXIMUM INLINE DATA LENGTH is 0.
        if inline > 0 {
            return Err(Sense::field_in_parameters(inline_at, None));
        }
        Ok(List {
            bytes: bytes[..all].to_vec(),
            cscds: header..header + cscds,
            segments: Vec::new(),
            id: None,
            good_sense: false,
            immediate: false,
        })
    }

    /// A segment descriptor.
    pub fn segment(&self, number: usize) -> Option<&[u8]> {
        let start = *self.segments.get(number)?;
        let end = self.segments.get(number + 1).copied().unwrap_or(self.bytes.len());
        self.bytes.get(start..end)
    }

    /// The CSCD descriptor of an ID below 0800h, and where it is (SPC-4 table 148).
    pub fn cscd(&self, id: u16) -> Option<(&[u8], u16)> {
        let at = HEADER_LID1 + usize::from(id) * cscd::LENGTH;
        let there = id < 0x0800 && self.cscds.start <= at && at < self.cscds.end;
        there.then(|| (&self.bytes[at..at + cscd::LENGTH], at as u16))
    }
}

/// The identifier, unless LIST ID USAGE says that there is none (SPC-4 tables 128 and 129).
fn identifier(bytes: &[u8], id: u32, at: u16) -> Result<Option<u32>, Sense> {
    match bytes[1] >> 3 & 0b11 {
        0b01 => Err(Sense::field_in_parameters(1, Some(4))),
        USAGE_NONE if id != 0 => Err(Sense::field_in_parameters(at, None)),
        USAGE_NONE => Ok(None),
        _ => Ok(Some(id)),
    }
}
