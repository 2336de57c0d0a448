//! FORMAT UNIT (SBC-4 5.4): all blocks become zeroes, and are unmapped where there is UNMAP. The block size and the type of
//! protection are the configuration's; there are no lists of defects.

use crate::{
    background::{Job, Kind},
    command::{Command, Context, Step, fail},
    sense::{Sense, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use backstore_api::Protection;

pub(crate) const OPCODE: u8 = 0x04;

pub(crate) const TABLE: &[Entry] = &[Entry::new(
    // FMTPINFO is looked at, to refuse what it asks for.
    &[OPCODE, 0xFF, 0x00, 0x00, 0x00, 0x00],
    Traits::MEDIUM.and(Traits::WRITES),
    format_unit,
)
.timeouts(60, 86_400)];

const FMTDATA: u8 = 4;
const LONGLIST: u8 = 5;

fn format_unit(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let byte = command.cdb.byte(1);
    let (information, usage) = formatted_with(unit.protection());
    if byte >> 6 != information {
        return fail(Sense::field_in_cdb(1, Some(7)));
    }
    let long = command.cdb.bit(1, LONGLIST);
    if !command.cdb.bit(1, FMTDATA) {
        // LONGLIST, CMPLST and DEFECT LIST FORMAT speak of a list that doesn't come.
        return match byte & 0x2F {
            // PROTECTION FIELD USAGE would be 000b: type 2.
            0 if usage != 0 => fail(Sense::field_in_cdb(1, Some(7))),
            0 => command.work(Job::new(Kind::Format, true), true, unit),
            _ => fail(Sense::field_in_cdb(1, Some(5))),
        };
    }
    command.receive(if long { 8 } else { 4 }, |command, list, unit, _| match check(list, unit.protection()) {
        Ok(immediate) => command.work(Job::new(Kind::Format, true), !immediate, unit),
        Err(sense) => fail(sense),
    })
}

/// FMTPINFO and PROTECTION FIELD USAGE of the only type that a medium can be formatted with (SBC-3 table 37): the
/// configuration's.
fn formatted_with(protection: Option<Protection>) -> (u8, u8) {
    match protection {
        None => (0b00, 0b000),
        Some(Protection::Type1) => (0b10, 0b000),
        Some(Protection::Type2) => (0b11, 0b000),
        Some(Protection::Type3) => (0b11, 0b001),
    }
}

/// The parameter list header, of 4 or 8 bytes; gives IMMED.
fn check(list: &[u8], protection: Option<Protection>) -> Result<bool, Sense> {
    let Some(([usage, options, third, fourth], rest)) = list.split_first_chunk::<4>() else {
        return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR));
    };
    if usage & 0x07 != formatted_with(protection).1 {
        return Err(Sense::field_in_parameters(0, Some(2)));
    }
    // DPRY, DCRT and STPF need FOV; an INITIALIZATION PATTERN is not supported.
    if options & 0x70 != 0 && options & 0x80 == 0 {
        return Err(Sense::field_in_parameters(1, Some(6)));
    }
    if options & 0x08 != 0 {
        return Err(Sense::field_in_parameters(1, Some(3)));
    }
    // DEFECT LIST LENGTH; in the long header the protection interval comes before it.
    if rest.is_empty() && (*third, *fourth) != (0, 0) {
        return Err(Sense::field_in_parameters(2, None));
    }
    if *fourth != 0 {
        return Err(Sense::field_in_parameters(3, None));
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Sense::field_in_parameters(4, None));
    }
    Ok(options & 0x02 != 0)
}
