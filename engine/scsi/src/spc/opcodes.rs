//! REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.35, 6.36).

use crate::{
    command::{Command, Context, Step, answer, fail},
    sense::Sense,
    table::{self, Entry, Traits, entries},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::action(
        0x0C,
        &[0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::ALWAYS,
        report_operation_codes,
    ),
    Entry::action(
        0x0D,
        &[0xA3, 0x0D, 0x80, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::ALWAYS,
        report_task_management,
    ),
];

/// SUPPORT of the one_command format.
const NOT_SUPPORTED: u8 = 0b001;
const SUPPORTED: u8 = 0b011;

fn report_operation_codes(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let cdb = &command.cdb;
    let (opcode, action, with_timeouts) = (cdb.byte(3), cdb.u16(4), cdb.bit(2, 7));
    context.scratch.clear();
    let first = table::first(opcode).filter(|entry| entry.supported(unit));
    let has_actions = first.is_some_and(|entry| entry.service_action.is_some());
    let by_action = || table::find_action(opcode, action).filter(|entry| entry.supported(unit));
    let entry = match cdb.byte(2) & 0x07 {
        0b000 => {
            all(unit, with_timeouts, context.scratch);
            return answer(context, cdb.u32(6));
        }
        0b001 if has_actions => return fail(Sense::field_in_cdb(2, Some(2))),
        0b001 => first,
        0b010 if first.is_some() && !has_actions => return fail(Sense::field_in_cdb(2, Some(2))),
        0b010 => by_action(),
        // Either form: without service actions the one asked for has to be zero.
        0b011 if has_actions => by_action(),
        0b011 => first.filter(|_| action == 0),
        _ => return fail(Sense::field_in_cdb(2, Some(2))),
    };
    one(entry, unit, with_timeouts, context.scratch);
    answer(context, cdb.u32(6))
}

fn all(unit: &LogicalUnit, with_timeouts: bool, out: &mut Vec<u8>) {
    out.extend([0; 4]);
    for entry in entries().filter(|entry| entry.supported(unit)) {
        let [action_high, action_low] = entry.service_action.unwrap_or(0).to_be_bytes();
        let timeouts_present = u8::from(with_timeouts) << 1;
        let has_action = u8::from(entry.service_action.is_some());
        let length = entry.usage.len() as u8;
        out.extend([entry.opcode, 0, action_high, action_low, 0, timeouts_present | has_action, 0, length]);
        if with_timeouts {
            timeouts(entry, out);
        }
    }
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
}

fn one(entry: Option<&Entry>, unit: &LogicalUnit, with_timeouts: bool, out: &mut Vec<u8>) {
    let Some(entry) = entry else {
        out.extend([0, NOT_SUPPORTED, 0, 0]);
        return;
    };
    out.extend([0, u8::from(with_timeouts) << 7 | SUPPORTED, 0, entry.usage.len() as u8]);
    out.extend(entry.usage(unit));
    if with_timeouts {
        timeouts(entry, out);
    }
}

/// The command timeouts descriptor (SPC-4 6.35.4).
fn timeouts(entry: &Entry, out: &mut Vec<u8>) {
    out.extend([0x00, 0x0A, 0, 0]);
    out.extend(entry.nominal_s.to_be_bytes());
    out.extend(entry.recommended_s.to_be_bytes());
}

fn report_task_management(command: &mut Command, _: &LogicalUnit, context: &mut Context<'_>) -> Step {
    // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET.
    const FUNCTIONS: u8 = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;
    context.scratch.clear();
    context.scratch.extend([FUNCTIONS, 0, 0, 0]);
    // REPD: no timeouts are said.
    if command.cdb.bit(2, 7) {
        context.scratch.resize(16, 0);
        context.scratch[3] = 12;
    }
    answer(context, command.cdb.u32(6))
}
