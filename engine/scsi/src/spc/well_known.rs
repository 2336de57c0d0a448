//! The REPORT LUNS well-known logical unit (SPC-4 8.2): it has no medium and no unit attentions.

use crate::{
    cdb::Cdb,
    command::{Context, Step, answer, fail, good},
    sense::{Sense, SenseKey, asc},
    spc::{inquiry, luns, sense, vpd},
    table::{self, Found},
};

const TEST_UNIT_READY: u8 = 0x00;

pub(crate) fn start(cdb: &Cdb, context: &mut Context<'_>) -> Step {
    let known = matches!(cdb.opcode(), TEST_UNIT_READY | inquiry::OPCODE | luns::OPCODE | sense::OPCODE);
    let Found::Entry(entry) = table::find(cdb) else {
        return fail(Sense::illegal(asc::INVALID_COMMAND_OPERATION_CODE));
    };
    match entry.reserved_bit(cdb) {
        _ if !known => fail(Sense::illegal(asc::INVALID_COMMAND_OPERATION_CODE)),
        Some((byte, bit)) => fail(Sense::field_in_cdb(byte, Some(bit))),
        None => match entry.opcode {
            TEST_UNIT_READY => good(),
            inquiry::OPCODE if cdb.bit(1, 0) => pages(cdb, context),
            inquiry::OPCODE => inquiry::well_known(cdb, context),
            luns::OPCODE => luns::report(cdb, context),
            _ => sense::give(Sense::new(SenseKey::NoSense, asc::NONE), cdb, context),
        },
    }
}

fn pages(cdb: &Cdb, context: &mut Context<'_>) -> Step {
    context.scratch.clear();
    if !vpd::emit_well_known(cdb.byte(2), context.port, context.scratch) {
        return fail(Sense::field_in_cdb(2, None));
    }
    answer(context, u32::from(cdb.u16(3)))
}
