//! READ BUFFER and WRITE BUFFER (SPC-4 6.18, 6.49): the echo buffer of each nexus, and one data buffer of the unit. They
//! test the way to the unit; microcode can't be loaded.

use crate::{
    command::{Command, Context, Step, answer, fail, good},
    sense::{Sense, SenseKey, asc},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x3B, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], Traits::NONE, write_buffer),
    Entry::new(&[0x3C, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], Traits::NONE, read_buffer),
];

const DATA: u8 = 0x02;
const DESCRIPTOR: u8 = 0x03;
const ECHO: u8 = 0x0A;
const ECHO_DESCRIPTOR: u8 = 0x0B;

/// Bytes of an echo buffer (at most 4,096, SPC-4 6.18.9).
const ECHO_BYTES: usize = 4096;
/// Bytes of the data buffer: BUFFER ID 0.
const DATA_BYTES: usize = 64 << 10;
/// OFFSET BOUNDARY: offsets are multiples of four.
const BOUNDARY: u8 = 2;

fn no_mode() -> Step {
    fail(Sense::field_in_cdb(1, Some(4)))
}

/// BUFFER ID, which is 0, and BUFFER OFFSET of the data buffer.
fn place(command: &Command) -> Result<usize, Sense> {
    let offset = command.cdb.u24(3) as usize;
    if command.cdb.byte(2) != 0 {
        return Err(Sense::field_in_cdb(2, None));
    }
    if offset > DATA_BYTES || !offset.is_multiple_of(1 << BOUNDARY) {
        return Err(Sense::field_in_cdb(3, None));
    }
    Ok(offset)
}

fn write_buffer(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let length = command.cdb.u24(6);
    let most = match command.cdb.byte(1) & 0x1F {
        DATA => match place(command) {
            Ok(offset) => DATA_BYTES - offset,
            Err(sense) => return fail(sense),
        },
        // BUFFER ID and BUFFER OFFSET mean nothing here.
        ECHO => ECHO_BYTES,
        _ => return no_mode(),
    };
    if length as usize > most {
        return fail(Sense::field_in_cdb(6, None));
    }
    match length {
        0 => good(),
        length => command.receive(length, take),
    }
}

fn take(command: &mut Command, data: &[u8], unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    if command.cdb.byte(1) & 0x1F == ECHO {
        if let Some(nexus) = &mut context.nexus {
            nexus.echo = data.into();
        }
        return good();
    }
    let Ok(offset) = place(command) else { return no_mode() };
    unit.buffer(|buffer| {
        buffer.resize(DATA_BYTES, 0);
        if let Some(part) = buffer.get_mut(offset..offset + data.len()) {
            part.copy_from_slice(data);
        }
    });
    good()
}

fn read_buffer(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let length = command.cdb.u24(6);
    let out = &mut *context.scratch;
    out.clear();
    match command.cdb.byte(1) & 0x1F {
        DATA => match place(command) {
            Ok(offset) => unit.buffer(|buffer| {
                out.resize((DATA_BYTES - offset).min(length as usize), 0);
                let part = buffer.get(offset..).unwrap_or(&[]);
                let held = part.len().min(out.len());
                out[..held].copy_from_slice(&part[..held]);
            }),
            Err(sense) => return fail(sense),
        },
        // An unknown BUFFER ID has no capacity.
        DESCRIPTOR if command.cdb.byte(2) != 0 => out.extend([0; 4]),
        DESCRIPTOR => {
            let [_, capacity @ ..] = (DATA_BYTES as u32).to_be_bytes();
            out.push(BOUNDARY);
            out.extend(capacity);
        }
        ECHO => match &context.nexus {
            Some(nexus) if !nexus.echo.is_empty() => out.extend_from_slice(&nexus.echo),
            _ => return fail(Sense::new(SenseKey::IllegalRequest, asc::COMMAND_SEQUENCE_ERROR)),
        },
        // EBOS: each nexus has its own.
        ECHO_DESCRIPTOR => {
            let [high, low] = (ECHO_BYTES as u16).to_be_bytes();
            out.extend([0x01, 0, high, low]);
        }
        _ => return no_mode(),
    }
    answer(context, length)
}
