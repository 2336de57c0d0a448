//! REPORT LUNS (SPC-4 6.33).

use crate::{
    cdb::Cdb,
    command::{Command, Context, Step, answer, fail},
    port::{WELL_KNOWN_REPORT_LUNS, lun_field},
    sense::Sense,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const OPCODE: u8 = 0xA0;

pub(crate) const TABLE: &[Entry] =
    &[Entry::new(&[OPCODE, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], Traits::EXEMPT, report_luns)];

fn report_luns(command: &mut Command, _: &LogicalUnit, context: &mut Context<'_>) -> Step {
    report(&command.cdb, context)
}

/// The answer is the same for every LUN, also for one that is not there. There are no administrative logical units, and
/// no subsidiary ones.
pub(crate) fn report(cdb: &Cdb, context: &mut Context<'_>) -> Step {
    let (with_luns, with_well_known) = match cdb.byte(2) {
        // All but well-known ones.
        0x00 => (true, false),
        // Well-known ones.
        0x01 => (false, true),
        // All.
        0x02 => (true, true),
        // Administrative ones; those and all that are nobody's subsidiaries; subsidiaries of the addressed one.
        0x10 | 0x12 => (false, false),
        0x11 => (true, false),
        _ => return fail(Sense::field_in_cdb(2, None)),
    };
    let allocation_length = cdb.u32(6);
    if allocation_length < 16 {
        return fail(Sense::field_in_cdb(6, None));
    }
    context.scratch.clear();
    context.scratch.extend([0; 8]);
    if with_luns {
        for lun in context.port.luns.keys().filter(|lun| **lun < 16384) {
            context.scratch.extend(lun_field(*lun));
        }
    }
    if with_well_known {
        let [high, low] = WELL_KNOWN_REPORT_LUNS.to_be_bytes();
        context.scratch.extend([high, low, 0, 0, 0, 0, 0, 0]);
    }
    let length = (context.scratch.len() - 8) as u32;
    context.scratch[..4].copy_from_slice(&length.to_be_bytes());
    answer(context, allocation_length)
}
