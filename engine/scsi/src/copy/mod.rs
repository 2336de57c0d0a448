//! Third-party copy (SPC-4 5.17): EXTENDED COPY, copies by tokens (SBC-4 4.28), and what belongs to them.
//!
//! The copy manager of a unit moves data between logical units of this host. It is a part of the unit's command: a
//! [`running::Running`] asks for bounded pieces, and checks before each what may have changed since the last.

mod abort;
mod cscd;
mod extended;
mod list;
pub(crate) mod operation;
pub(crate) mod page;
pub(crate) mod populate;
mod ranges;
mod results;
pub(crate) mod running;
mod segment;
pub(crate) mod token;
mod write_using;

use crate::table::{Entry, Traits};

/// Opcode of the commands that begin and abort operations.
const OUT: u8 = 0x83;
/// Opcode of those that tell of them.
const IN: u8 = 0x84;

/// GROUP NUMBER: nobody asks what a group did.
const GROUP: u8 = 0x3F;

/// MAXIMUM CSCD DESCRIPTOR COUNT.
const MOST_CSCDS: usize = 64;
/// MAXIMUM SEGMENT DESCRIPTOR COUNT.
const MOST_SEGMENTS: usize = 256;
/// MAXIMUM DESCRIPTOR LIST LENGTH: all CSCD descriptors and all block to block segment descriptors.
const MOST_LIST: usize = MOST_CSCDS * 32 + MOST_SEGMENTS * 28;

pub(crate) const TABLE: &[Entry] = &[
    Entry::action(
        extended::LID1,
        &[OUT, extended::LID1, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::NONE,
        extended::extended_copy,
    )
    .timeouts(60, 600),
    Entry::action(
        extended::LID4,
        &[OUT, extended::LID4, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::NONE,
        extended::extended_copy,
    )
    .timeouts(60, 600),
    Entry::action(
        populate::ACTION,
        &[OUT, populate::ACTION, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0],
        Traits::MEDIUM,
        populate::populate_token,
    )
    .timeouts(2, 60),
    Entry::action(
        write_using::ACTION,
        &[OUT, write_using::ACTION, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0],
        Traits::MEDIUM.and(Traits::WRITES),
        write_using::write_using_token,
    )
    .timeouts(5, 120),
    Entry::action(
        abort::ACTION,
        &[OUT, abort::ACTION, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        Traits::NONE,
        abort::copy_operation_abort,
    ),
    Entry::action(
        results::STATUS_LID1,
        &[IN, results::STATUS_LID1, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::NONE,
        results::status_lid1,
    ),
    Entry::action(
        results::OPERATING_PARAMETERS,
        &[IN, results::OPERATING_PARAMETERS, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::NONE,
        results::operating_parameters,
    ),
    Entry::action(
        results::FAILURE_DETAILS,
        &[IN, results::FAILURE_DETAILS, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::NONE,
        results::failure_details,
    ),
    Entry::action(
        results::STATUS_LID4,
        &[IN, results::STATUS_LID4, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::NONE,
        results::status_lid4,
    ),
    Entry::action(
        results::TOKEN_INFORMATION,
        &[IN, results::TOKEN_INFORMATION, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        Traits::NONE,
        results::token_information,
    ),
];

/// Big-endian numbers of a parameter list; 0 where it ends before.
fn be16(list: &[u8], at: usize) -> u16 {
    list.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn be32(list: &[u8], at: usize) -> u32 {
    u32::from(be16(list, at)) << 16 | u32::from(be16(list, at + 2))
}

fn be64(list: &[u8], at: usize) -> u64 {
    u64::from(be32(list, at)) << 32 | u64::from(be32(list, at + 4))
}
