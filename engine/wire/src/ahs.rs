//! Additional header segments (RFC 7143 11.2.2): between the basic header segment and the header digest.
//!
//! A segment is AHSLength (two bytes: how many follow the type), AHSType, the content, and padding to a multiple of four.

use crate::padded;

/// Bytes of all additional header segments together: TotalAHSLength counts up to 255 words.
pub const MAX_AHS_LEN: usize = 255 * 4;
/// Bytes that an extended CDB may have beyond the 16 in the basic header segment (SPC: 260 bytes in all).
pub const MAX_EXTENDED_CDB: usize = 260 - 16;

const LENGTH_AND_TYPE: usize = 3;
const TYPE_MASK: u8 = 0x3f;
const EXTENDED_CDB: u8 = 1;
const BIDIRECTIONAL_READ_LENGTH: u8 = 2;

/// Segments that can't be read, or can't be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AhsError {
    /// A segment ends beyond TotalAHSLength, or the rest is too short for one.
    #[error("an additional header segment is longer than TotalAHSLength allows")]
    Truncated,
    /// A segment whose length does not fit its type.
    #[error("an additional header segment of type {ahs_type} has AHSLength {length}")]
    Length {
        /// AHSType.
        ahs_type: u8,
        /// AHSLength.
        length: u16,
    },
    /// A type that the RFC does not define.
    #[error("additional header segment of the unknown type {0}")]
    UnknownType(u8),
    /// Two segments of the same type.
    #[error("two additional header segments of type {0}")]
    Repeated(u8),
    /// More than 1020 bytes of segments.
    #[error("the additional header segments are longer than 1020 bytes")]
    TooLong,
}

/// One additional header segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment<'a> {
    /// The CDB's bytes from the 17th on (RFC 7143 11.2.2.3): 1..=244.
    ExtendedCdb(&'a [u8]),
    /// Bytes that a bidirectional command is expected to read (RFC 7143 11.2.2.4).
    BidirectionalReadLength(u32),
    /// Another type.
    Unknown {
        /// AHSType, 6 bits.
        ahs_type: u8,
        /// What follows it, without padding.
        content: &'a [u8],
    },
}

/// Iterates over the segments in `bytes`. It ends after the first error.
pub fn segments(bytes: &[u8]) -> Segments<'_> {
    Segments { rest: bytes }
}

/// See [`segments`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    fn take(&mut self) -> Result<Segment<'a>, AhsError> {
        let [high, low, ahs_type, after @ ..] = self.rest else {
            return Err(AhsError::Truncated);
        };
        let length = u16::from_be_bytes([*high, *low]);
        let ahs_type = ahs_type & TYPE_MASK;
        let content = after.get(..usize::from(length)).ok_or(AhsError::Truncated)?;
        // Segments are padded, and TotalAHSLength counts the padding; so it is there.
        self.rest = self.rest.get(padded(LENGTH_AND_TYPE + usize::from(length))..).ok_or(AhsError::Truncated)?;
        match (ahs_type, content) {
            // The first byte of both known types is reserved.
            (EXTENDED_CDB, [_, cdb @ ..]) if (1..=MAX_EXTENDED_CDB).contains(&cdb.len()) => {
                Ok(Segment::ExtendedCdb(cdb))
            }
            (BIDIRECTIONAL_READ_LENGTH, [_, a, b, c, d]) => {
                Ok(Segment::BidirectionalReadLength(u32::from_be_bytes([*a, *b, *c, *d])))
            }
            (EXTENDED_CDB | BIDIRECTIONAL_READ_LENGTH, _) => Err(AhsError::Length { ahs_type, length }),
            (ahs_type, content) => Ok(Segment::Unknown { ahs_type, content }),
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<Segment<'a>, AhsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let segment = self.take();
        if segment.is_err() {
            self.rest = &[];
        }
        Some(segment)
    }
}

/// The segments of a SCSI Command, each at most once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommandSegments<'a> {
    /// The CDB's bytes from the 17th on.
    pub extended_cdb: Option<&'a [u8]>,
    /// Bidirectional Read Expected Data Transfer Length, bytes.
    pub bidirectional_read_length: Option<u32>,
}

impl<'a> CommandSegments<'a> {
    /// Reads all segments; refuses repeated and unknown ones.
    pub fn parse(bytes: &'a [u8]) -> Result<CommandSegments<'a>, AhsError> {
        let mut found = CommandSegments::default();
        for segment in segments(bytes) {
            match segment? {
                Segment::ExtendedCdb(cdb) => {
                    if found.extended_cdb.replace(cdb).is_some() {
                        return Err(AhsError::Repeated(EXTENDED_CDB));
                    }
                }
                Segment::BidirectionalReadLength(length) => {
                    if found.bidirectional_read_length.replace(length).is_some() {
                        return Err(AhsError::Repeated(BIDIRECTIONAL_READ_LENGTH));
                    }
                }
                Segment::Unknown { ahs_type, .. } => return Err(AhsError::UnknownType(ahs_type)),
            }
        }
        Ok(found)
    }
}

/// Builds the additional header segments of a PDU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// No segments yet.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Appends a segment.
    ///
    /// # Errors
    /// [`AhsError::Length`] for an extended CDB that is empty or longer than [`MAX_EXTENDED_CDB`],
    /// [`AhsError::TooLong`] when all would be longer than [`MAX_AHS_LEN`].
    pub fn push(&mut self, segment: Segment<'_>) -> Result<(), AhsError> {
        match segment {
            Segment::ExtendedCdb(cdb) if cdb.is_empty() || cdb.len() > MAX_EXTENDED_CDB => Err(AhsError::Length {
                ahs_type: EXTENDED_CDB,
                length: u16::try_from(cdb.len().saturating_add(1)).unwrap_or(u16::MAX),
            }),
            Segment::ExtendedCdb(cdb) => self.append(EXTENDED_CDB, &[&[0], cdb]),
            Segment::BidirectionalReadLength(length) => {
                self.append(BIDIRECTIONAL_READ_LENGTH, &[&[0], &length.to_be_bytes()])
            }
            Segment::Unknown { ahs_type, content } => self.append(ahs_type & TYPE_MASK, &[content]),
        }
    }

    fn append(&mut self, ahs_type: u8, parts: &[&[u8]]) -> Result<(), AhsError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let end = self.bytes.len().saturating_add(padded(length.saturating_add(LENGTH_AND_TYPE)));
        if end > MAX_AHS_LEN {
            return Err(AhsError::TooLong);
        }
        let length = u16::try_from(length).map_err(|_| AhsError::TooLong)?;
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.push(ahs_type);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.resize(end, 0);
        Ok(())
    }

    /// The segments: a multiple of four bytes, at most [`MAX_AHS_LEN`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// TotalAHSLength: words of four bytes.
    pub fn total_ahs_length(&self) -> u8 {
        // At most 255, as `append` makes sure.
        (self.bytes.len() / 4) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_extended_cdb_of_32_bytes_has_ahs_length_17() {
        let mut builder = Builder::new();
        builder.push(Segment::ExtendedCdb(&[0xaa; 16])).unwrap();
        assert_eq!(builder.bytes()[..4], [0, 17, 1, 0]);
        assert_eq!(builder.total_ahs_length(), 5);
    }

    #[test]
    fn a_bidirectional_read_length_is_two_words() {
        let mut builder = Builder::new();
        builder.push(Segment::BidirectionalReadLength(0x0102_0304)).unwrap();
        assert_eq!(builder.bytes(), [0, 5, 2, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_segment_may_not_reach_beyond_the_total() {
        for bytes in [&[0][..], &[0, 5, 2, 0, 1, 2, 3], &[0xff, 0xff, 1, 0], &[0, 6, 3, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(segments(bytes).last(), Some(Err(AhsError::Truncated)), "{bytes:?}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_the_type_are_refused() {
        let short = AhsError::Length { ahs_type: 2, length: 1 };
        assert_eq!(segments(&[0, 1, 2, 0]).next(), Some(Err(short)));
        let empty = AhsError::Length { ahs_type: 1, length: 1 };
        assert_eq!(segments(&[0, 1, 1, 0]).next(), Some(Err(empty)));
        let mut long = vec![0, 246, 1];
        long.resize(252, 0);
        assert_eq!(segments(&long).next(), Some(Err(AhsError::Length { ahs_type: 1, length: 246 })));
        assert!(Builder::new().push(Segment::ExtendedCdb(&[0; 245])).is_err());
        assert!(Builder::new().push(Segment::ExtendedCdb(&[])).is_err());
    }

    #[test]
    fn a_command_has_each_segment_once() {
        let mut builder = Builder::new();
        builder.push(Segment::BidirectionalReadLength(8)).unwrap();
        builder.push(Segment::ExtendedCdb(&[7; 3])).unwrap();
        let parsed = CommandSegments::parse(builder.bytes()).unwrap();
        assert_eq!((parsed.extended_cdb, parsed.bidirectional_read_length), (Some(&[7u8; 3][..]), Some(8)));
        builder.push(Segment::BidirectionalReadLength(8)).unwrap();
        assert_eq!(CommandSegments::parse(builder.bytes()), Err(AhsError::Repeated(2)));
        assert_eq!(CommandSegments::parse(&[0, 1, 9, 0]), Err(AhsError::UnknownType(9)));
    }

    #[test]
    fn a_builder_stops_at_255_words() {
        let mut builder = Builder::new();
        let content = [1; 1017];
        builder.push(Segment::Unknown { ahs_type: 5, content: &content }).unwrap();
        assert_eq!(builder.total_ahs_length(), 255);
        assert_eq!(builder.push(Segment::BidirectionalReadLength(1)), Err(AhsError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
            let count = segments(&bytes).count();
            prop_assert!(count <= bytes.len() / 4 + 1);
            let _ = CommandSegments::parse(&bytes);
        }

        #[test]
        fn what_is_built_is_what_is_read(
            parts in prop::collection::vec((3u8..64, prop::collection::vec(any::<u8>(), 0..60)), 0..12),
            cdb in prop::collection::vec(any::<u8>(), 1..=MAX_EXTENDED_CDB),
            length: u32,
        ) {
            let mut all = vec![Segment::ExtendedCdb(&cdb), Segment::BidirectionalReadLength(length)];
            all.extend(parts.iter().map(|(t, content)| Segment::Unknown { ahs_type: *t, content }));
            let mut builder = Builder::new();
            for segment in &all {
                builder.push(*segment).unwrap();
            }
            let read: Result<Vec<_>, _> = segments(builder.bytes()).collect();
            prop_assert_eq!(read.unwrap(), all);
        }
    }
}
