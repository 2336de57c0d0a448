//! TEST UNIT READY and REQUEST SENSE (SPC-4 6.39, 6.47).

use crate::{
    access,
    cdb::Cdb,
    command::{Command, Context, Step, answer, good},
    readiness,
    sense::{Sense, SenseKey, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const OPCODE: u8 = 0x03;

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x00, 0x00, 0x00, 0x00, 0x00, 0x00], Traits::MEDIUM, test_unit_ready),
    Entry::new(&[OPCODE, 0x01, 0x00, 0x00, 0xFF, 0x00], Traits::EXEMPT, request_sense),
];

fn test_unit_ready(_: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    good()
}

/// Sense data is given with CHECK CONDITION, so what is left to ask for are a pending unit attention, which is cleared
/// by this, and the state of the unit.
fn request_sense(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let attention = context.nexus.as_mut().and_then(|nexus| nexus.pending().take());
    let sense = match attention {
        Some(attention) => attention.sense(),
        None => match access::sense(unit.access(context.port.portal_group)) {
            Sense { key: SenseKey::NoSense, .. } => readiness::sense(unit),
            sense => sense,
        },
    };
    give(sense, &command.cdb, context)
}

/// REQUEST SENSE to a LUN that is not there.
pub(crate) fn absent(cdb: &Cdb, context: &mut Context<'_>) -> Step {
    give(Sense::illegal(asc::LOGICAL_UNIT_NOT_SUPPORTED), cdb, context)
}

pub(crate) fn give(sense: Sense, cdb: &Cdb, context: &mut Context<'_>) -> Step {
    let mut bytes = [0; 252];
    let length = sense.emit(cdb.bit(1, 0), &mut bytes);
    context.scratch.clear();
    context.scratch.extend_from_slice(&bytes[..length]);
    answer(context, u32::from(cdb.byte(4)))
}
