//! REPORT TIMESTAMP and SET TIMESTAMP (SPC-4 6.36, 6.45): the unit's clock, in milliseconds since 1970.

use crate::{
    attention::Attention,
    command::{Command, Context, Step, answer, fail, good},
    sense::{Sense, asc},
    spc::mode_pages::who,
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use std::time::Duration;

pub(crate) const TABLE: &[Entry] = &[
    Entry::action(
        0x0F,
        &[0xA3, 0x0F, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::NONE,
        report_timestamp,
    ),
    Entry::action(
        0x0F,
        &[0xA4, 0x0F, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::NONE,
        set_timestamp,
    ),
];

/// Bytes of the parameter data, both ways.
const LENGTH: u32 = 12;

/// TIMESTAMP ORIGIN: zero at power on; set by SET TIMESTAMP; set by other means.
const SINCE_START: u8 = 0b000;
const SET: u8 = 0b010;
const CLOCK: u8 = 0b011;

/// What a clock was set to, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp {
    milliseconds: u64,
    set_at: Duration,
}

fn report_timestamp(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let millis = |time: Duration| time.as_millis() as u64;
    let (origin, now) = match unit.timestamp(|timestamp| *timestamp) {
        Some(Timestamp { milliseconds, set_at }) => {
            (SET, milliseconds.wrapping_add(millis(context.now.saturating_sub(set_at))))
        }
        None if unit.clock_zero().is_zero() => (SINCE_START, millis(context.now)),
        None => (CLOCK, millis(unit.clock_zero().saturating_add(context.now))),
    };
    let [_, _, bytes @ ..] = now.to_be_bytes();
    let out = &mut *context.scratch;
    out.clear();
    out.extend([0, LENGTH as u8 - 2, origin, 0]);
    out.extend(bytes);
    out.extend([0, 0]);
    answer(context, command.cdb.u32(6))
}

fn set_timestamp(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match command.cdb.u32(6) {
        0 => good(),
        LENGTH => command.receive(LENGTH, take),
        _ => fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR)),
    }
}

fn take(_: &mut Command, list: &[u8], unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let &[_, _, _, _, a, b, c, d, e, f, ..] = list else {
        return fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR));
    };
    let milliseconds = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let set_at = context.now;
    unit.timestamp(|timestamp| *timestamp = Some(Timestamp { milliseconds, set_at }));
    unit.attention(Attention::TimestampChanged, who(context));
    good()
}
