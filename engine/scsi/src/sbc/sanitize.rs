//! SANITIZE (SBC-4 5.36): OVERWRITE, BLOCK ERASE, EXIT FAILURE MODE. No store holds its data under a key of its own, so
//! there is no CRYPTOGRAPHIC ERASE.

use crate::{
    background::{Job, Kind},
    cdb::Cdb,
    command::{Command, Context, Step, fail, good},
    sense::{Sense, SenseKey, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const OPCODE: u8 = 0x48;

const WRITES: Traits = Traits::MEDIUM.and(Traits::WRITES);
/// IMMED and AUSE beside the service action; ZNR is for zoned media.
const fn usage(action: u8) -> [u8; 10] {
    [OPCODE, 0xA0 | action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]
}

pub(crate) const TABLE: &[Entry] = &[
    Entry::action(0x01, &const { usage(0x01) }, WRITES, overwrite).timeouts(60, 86_400),
    Entry::action(0x02, &const { usage(0x02) }, WRITES.and(Traits::THIN), block_erase).timeouts(60, 86_400),
    Entry::action(0x1F, &const { usage(0x1F) }, Traits::MEDIUM, exit_failure_mode),
];

const HEADER: usize = 4;

fn parameter_list_length(cdb: &Cdb) -> u32 {
    u32::from(cdb.u16(7))
}

fn overwrite(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let length = parameter_list_length(&command.cdb);
    // The header and 1 byte to a block of pattern (SBC-4 5.36.2.2).
    if length <= HEADER as u32 || length > HEADER as u32 + unit.block_size() {
        return fail(Sense::field_in_cdb(7, None));
    }
    command.receive(length, |command, list, unit, _| match pattern(list, unit) {
        Ok(kind) => begin(command, kind, unit),
        Err(sense) => fail(sense),
    })
}

fn pattern(list: &[u8], unit: &LogicalUnit) -> Result<Kind, Sense> {
    let Some((header, pattern)) = list.split_first_chunk::<HEADER>() else {
        return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR));
    };
    let passes = header[0] & 0x1F;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] & 0x60 != 0 {
        return Err(Sense::field_in_parameters(0, Some(6))); // TEST
    }
    if passes == 0 {
        return Err(Sense::field_in_parameters(0, Some(4)));
    }
    if length == 0 || length > unit.block_size() as usize || length > pattern.len() {
        return Err(Sense::field_in_parameters(2, None));
    }
    Ok(Kind::Overwrite { pattern: pattern[..length].to_vec(), invert: header[0] & 0x80 != 0, passes })
}

fn block_erase(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    if parameter_list_length(&command.cdb) != 0 {
        return fail(Sense::field_in_cdb(7, None));
    }
    begin(command, Kind::Erase, unit)
}

fn begin(command: &mut Command, kind: Kind, unit: &LogicalUnit) -> Step {
    let (immediate, unrestricted) = (command.cdb.bit(1, 7), command.cdb.bit(1, 5));
    // A failure in restricted mode is left by a SANITIZE in restricted mode alone (SBC-4 4.11.4).
    if unrestricted && unit.failed_job().is_some_and(|job| !job.unrestricted) {
        return fail(Sense::field_in_cdb(1, Some(5)));
    }
    command.work(Job::new(kind, unrestricted), !immediate, unit)
}

fn exit_failure_mode(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    if parameter_list_length(&command.cdb) != 0 {
        return fail(Sense::field_in_cdb(7, None));
    }
    match unit.failed_job() {
        None => good(),
        Some(job) if job.kind == Kind::Format || !job.unrestricted => {
            fail(Sense::new(SenseKey::MediumError, asc::SANITIZE_COMMAND_FAILED))
        }
        Some(_) => {
            let number = unit.leave_failure();
            command.save(number, |_, result, _, _, _| match result {
                Ok(()) => good(),
                // It comes back after a restart, and can be left again.
                Err(_) => fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE)),
            })
        }
    }
}
