//! PERSISTENT RESERVE IN (SPC-4 6.15).

use crate::{
    command::{Command, Context, Step, answer, conflict},
    reservations::{Reservations, TransportId},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    entry(0x00, read_keys),
    entry(0x01, read_reservation),
    entry(0x02, report_capabilities),
    entry(0x03, read_full_status),
];

const fn entry(action: u8, start: crate::table::Start) -> Entry {
    let usage: &'static [u8] = match action {
        0 => &[0x5E, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
        1 => &[0x5E, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
        2 => &[0x5E, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
        _ => &[0x5E, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
    };
    Entry::action(action, usage, Traits::NONE, start)
}

/// More than ALLOCATION LENGTH can ask for.
const MOST: usize = 64 << 10;

/// Writes the answer under the unit's mutex, so that all of it is of one moment. It conflicts with every RESERVE, whoever
/// made it (SPC-2 5.5.3).
fn respond(
    command: &Command,
    unit: &LogicalUnit,
    context: &mut Context<'_>,
    write: impl FnOnce(&Reservations, &mut Vec<u8>),
) -> Step {
    context.scratch.clear();
    let readable = unit.with_reservations(|reservations| {
        if reservations.reserved.is_some() {
            return false;
        }
        write(reservations, context.scratch);
        true
    });
    if readable { answer(context, u32::from(command.cdb.u16(7))) } else { conflict() }
}

/// PRGENERATION and ADDITIONAL LENGTH.
fn header(reservations: &Reservations, length: usize, out: &mut Vec<u8>) {
    out.extend(reservations.generation().to_be_bytes());
    out.extend((length as u32).to_be_bytes());
}

fn read_keys(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    respond(command, unit, context, |reservations, out| {
        header(reservations, 8 * reservations.registrations().len(), out);
        for registration in reservations.registrations() {
            out.extend(registration.key.to_be_bytes());
        }
    })
}

fn read_reservation(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    respond(command, unit, context, |reservations, out| {
        let Some(kind) = reservations.kind() else { return header(reservations, 0, out) };
        header(reservations, 16, out);
        out.extend(reservations.holders_key().to_be_bytes());
        // SCOPE 0: the logical unit.
        out.extend([0, 0, 0, 0, 0, kind as u8, 0, 0]);
    })
}

fn report_capabilities(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    respond(command, unit, context, |reservations, out| {
        out.extend([
            0,
            8,
            0x10 | 0x08 | 0x04 | 0x01,               // CRH, SIP_C, ATP_C, PTPL_C
            0x80 | u8::from(reservations.is_kept()), // TMV, PTPL_A
            0x80 | 0x40 | 0x20 | 0x08 | 0x02,        // WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX
            0x01,                                    // EX_AC_AR
            0,
            0,
        ]);
    })
}

fn read_full_status(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    respond(command, unit, context, |reservations, out| {
        let all = reservations.registrations();
        header(reservations, all.iter().map(|r| 24 + TransportId::length(&r.path.initiator)).sum(), out);
        for registration in all {
            if out.len() > MOST {
                break;
            }
            let initiator = &registration.path.initiator;
            out.extend(registration.key.to_be_bytes());
            let held = reservations.kind().filter(|_| reservations.holds(&registration.path));
            // ALL_TG_PT is 0: each port of the target has a registration of its own.
            out.extend([0, 0, 0, 0, u8::from(held.is_some()), held.map_or(0, |kind| kind as u8), 0, 0, 0, 0]);
            out.extend(registration.path.relative_port.to_be_bytes());
            out.extend((TransportId::length(initiator) as u32).to_be_bytes());
            TransportId::emit(initiator, out);
        }
    })
}
