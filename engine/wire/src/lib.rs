//! iSCSI PDUs, text keys and digests: bytes in, meaning out.
//!
//! Sans-IO, without a clock, without state: everything is a function of the bytes that it is given, and every byte is
//! taken for hostile. Section numbers are RFC 7143's unless they say otherwise.
//!
//! - One struct per PDU ([`ScsiCommand`], [`DataIn`], ...) with `parse` and `emit` over the 48 bytes of its basic header
//!   segment; [`Bhs`] is the view of what all have in common; [`RequestPdu`] and [`ResponsePdu`] choose by opcode.
//! - [`ahs`]: additional header segments. [`digest`]: CRC32C. [`text`]: `key=value` pairs, [`value`]: what is in them.
//! - [`serial`]: arithmetic on CmdSN and its like. [`names`]: iSCSI names and TargetAddress.
#![forbid(unsafe_code)]

#[macro_use]
mod code;
pub mod ahs;
pub mod bhs;
pub mod digest;
mod error;
mod field;
pub mod names;
pub mod pdu;
pub mod serial;
pub mod text;
pub mod value;

pub use bhs::{BHS_LEN, Bhs, DIGEST_LEN, MAX_DATA_SEGMENT_LENGTH, Opcode, RESERVED_TAG, opcode, padded, padding};
pub use digest::{Crc32c, crc32c};
pub use error::ParseError;
pub use pdu::*;
