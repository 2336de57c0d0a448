//! COPY OPERATION ABORT (SPC-4 6.3).

use crate::{
    command::{Command, Context, Step, fail, good},
    sense::Sense,
    unit::LogicalUnit,
};

pub(super) const ACTION: u8 = 0x1C;

/// The operation ends at its next step, before which its command doesn't end either.
pub(super) fn copy_operation_abort(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let nexus = context.nexus.as_ref().map_or(0, |nexus| nexus.id());
    match unit.copies().find(nexus, command.cdb.u32(2)).filter(|operation| operation.is_running()) {
        Some(operation) => {
            operation.abort();
            good()
        }
        None => fail(Sense::field_in_cdb(2, None)),
    }
}
