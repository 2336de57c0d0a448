//! Fields of a basic header segment, and how they are printed. Offsets are constants at every call, so the bounds checks
//! vanish when these are inlined.

use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

/// Bit 7 of byte 1: Final, Transit in login.
pub(crate) const FINAL: u8 = 0x80;
/// Bit 6 of byte 1 of login and text PDUs.
pub(crate) const CONTINUE: u8 = 0x40;
/// Bit 6 of byte 0.
pub(crate) const IMMEDIATE: u8 = 0x40;
/// The opcode's bits of byte 0.
pub(crate) const OPCODE_MASK: u8 = 0x3f;

#[inline(always)]
pub(crate) fn u16_at(header: &[u8; BHS_LEN], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

#[inline(always)]
pub(crate) fn u24_at(header: &[u8; BHS_LEN], at: usize) -> u32 {
    u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]])
}

#[inline(always)]
pub(crate) fn u32_at(header: &[u8; BHS_LEN], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[inline(always)]
pub(crate) fn u64_at(header: &[u8; BHS_LEN], at: usize) -> u64 {
    (u64::from(u32_at(header, at)) << 32) | u64::from(u32_at(header, at + 4))
}

#[inline(always)]
pub(crate) fn put_u16(header: &mut [u8; BHS_LEN], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The low 24 bits; a larger value is a mistake of the caller.
#[inline(always)]
pub(crate) fn put_u24(header: &mut [u8; BHS_LEN], at: usize, value: u32) {
    debug_assert!(value < 1 << 24, "a data segment length has 24 bits");
    header[at..at + 3].copy_from_slice(&value.to_be_bytes()[1..]);
}

#[inline(always)]
pub(crate) fn put_u32(header: &mut [u8; BHS_LEN], at: usize, value: u32) {
    header[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[inline(always)]
pub(crate) fn put_u64(header: &mut [u8; BHS_LEN], at: usize, value: u64) {
    header[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// `mask` where `on`, else 0: without a branch.
#[inline(always)]
pub(crate) fn bit(on: bool, mask: u8) -> u8 {
    u8::from(on) * mask
}

/// Refuses a header of another opcode.
#[inline(always)]
pub(crate) fn expect(header: &[u8; BHS_LEN], expected: Opcode) -> Result<(), ParseError> {
    if header[0] & OPCODE_MASK == expected.code() { Ok(()) } else { Err(wrong_opcode(header[0], expected)) }
}

#[cold]
fn wrong_opcode(byte: u8, expected: Opcode) -> ParseError {
    ParseError::WrongOpcode { expected, found: Opcode::from_code(byte & OPCODE_MASK) }
}

#[inline(always)]
pub(crate) fn forbid(broken: bool, pdu: Opcode, rule: &'static str) -> Result<(), ParseError> {
    if broken { Err(ParseError::Forbidden { pdu, rule }) } else { Ok(()) }
}

/// Prints the names of the flags that are set: ` [F R]`, or nothing.
pub(crate) struct Flags<const N: usize>(pub [(&'static str, bool); N]);

impl<const N: usize> fmt::Display for Flags<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = " [";
        for (name, _) in self.0.iter().filter(|(_, on)| *on) {
            write!(f, "{separator}{name}")?;
            separator = " ";
        }
        if separator == " " { f.write_str("]") } else { Ok(()) }
    }
}

/// Prints a task or transfer tag: hex, or `none` for the reserved value.
pub(crate) struct Tag(pub u32);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == RESERVED_TAG { f.write_str("none") } else { write!(f, "{:#x}", self.0) }
    }
}

/// Prints a LUN: its number when it is a single-level one of SAM-5 4.7.7, else all eight bytes.
pub(crate) struct Lun(pub u64);

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0 >> 48;
        match (self.0 << 16, first >> 8) {
            (0, 0) => write!(f, "{first}"),
            (0, 0x40..=0x7f) => write!(f, "{}", first & 0x3fff),
            _ => write!(f, "{:#018x}", self.0),
        }
    }
}

/// Prints bytes as `28 00 00`.
pub(crate) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { " " };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}
