//! SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-4 6.29, 6.42). Self-tests read the medium, in the foreground.

use crate::{
    command::{Command, Context, Step, answer, fail, good},
    sbc::verify::Checking,
    sense::{Sense, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const SEND: u8 = 0x1D;

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x1C, 0x01, 0xFF, 0xFF, 0xFF, 0x00], Traits::NONE, receive_results),
    Entry::new(&[SEND, 0xF7, 0x00, 0xFF, 0xFF, 0x00], Traits::NONE, send_diagnostic).timeouts(5, 86_400),
];

/// The one diagnostic page: supported diagnostic pages.
const SUPPORTED: u8 = 0x00;
/// SELF-TEST CODE: foreground short and extended self-test.
const SHORT: u8 = 0b101;
const EXTENDED: u8 = 0b110;
/// Bytes that the default and the short self-test read.
const SHORT_BYTES: u64 = 1 << 20;

fn receive_results(command: &mut Command, _: &LogicalUnit, context: &mut Context<'_>) -> Step {
    // Without PCV it is the page that SEND DIAGNOSTIC asked for, and there is only one.
    if command.cdb.byte(2) != SUPPORTED {
        return fail(Sense::field_in_cdb(2, None));
    }
    context.scratch.clear();
    context.scratch.extend([SUPPORTED, 0, 0, 1, SUPPORTED]);
    answer(context, u32::from(command.cdb.u16(3)))
}

/// DEVOFFL and UNITOFFL allow more than is done.
fn send_diagnostic(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let (code, length) = (command.cdb.byte(1) >> 5, command.cdb.u16(3));
    let (page_format, self_test) = (command.cdb.bit(1, 4), command.cdb.bit(1, 2));
    let all = unit.blocks() << unit.block_shift();
    let bytes = match (self_test, code) {
        (false, 0b000) => 0,
        (true, 0b000) | (false, SHORT) => all.min(SHORT_BYTES),
        (false, EXTENDED) => all,
        (true, _) => return fail(Sense::field_in_cdb(1, Some(2))),
        // No background tests, hence none to abort.
        (false, _) => return fail(Sense::field_in_cdb(1, Some(7))),
    };
    match length {
        0 if bytes == 0 => good(),
        0 => Checking::start(command, 0, bytes, unit),
        // A self-test takes no pages, and pages have the standard's format.
        _ if bytes > 0 => fail(Sense::field_in_cdb(3, None)),
        _ if !page_format => fail(Sense::field_in_cdb(1, Some(4))),
        length => command.receive(u32::from(length), take),
    }
}

fn take(_: &mut Command, list: &[u8], _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match list {
        [SUPPORTED, 0, 0, 0] => good(),
        [SUPPORTED, 0, _, _] => fail(Sense::field_in_parameters(2, None)),
        [SUPPORTED, _, _, _, ..] => fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR)),
        [_, _, _, _, ..] => fail(Sense::field_in_parameters(0, None)),
        _ => fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR)),
    }
}
