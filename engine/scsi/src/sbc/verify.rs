//! VERIFY and WRITE AND VERIFY of 10, 12 and 16 bytes (SBC-3 5.31 to 5.33, 5.40 to 5.42).

use crate::{
    cdb::Cdb,
    command::{Command, Context, Moving, Span, State, Step, fail, good},
    sbc::{protection, range::Blocks, transfer},
    sense::Sense,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

const READS: Traits = Traits::MEDIUM.and(Traits::PROTECT);
const WRITES: Traits = Traits::MEDIUM.and(Traits::WRITES).and(Traits::PROTECT);

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x2F, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], READS, verify_10).timeouts(2, 60),
    Entry::new(&[0x2E, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], WRITES, write_10).timeouts(2, 60),
    Entry::new(&[0xAF, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00], READS, verify_12)
        .timeouts(2, 60),
    Entry::new(&[0xAE, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00], WRITES, write_12)
        .timeouts(2, 60),
    Entry::new(
        &[0x8F, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        READS,
        verify_16,
    )
    .timeouts(2, 60),
    Entry::new(
        &[0x8E, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        WRITES,
        write_16,
    )
    .timeouts(2, 60),
];

/// The rest of a medium verification, one bounded piece after the other.
pub(crate) struct Checking {
    offset: u64,
    left: u64,
}

impl Checking {
    /// Reads a range, and throws it away.
    pub fn start(command: &mut Command, offset: u64, left: u64, unit: &LogicalUnit) -> Step {
        let mut checking = Checking { offset, left };
        let step = checking.next(unit);
        command.state = State::Checking(checking);
        step
    }

    pub fn next(&mut self, unit: &LogicalUnit) -> Step {
        let length = self.left.min(u64::from(unit.max_transfer()));
        if length == 0 {
            return good();
        }
        let span = Span { offset: self.offset, length: length as u32 };
        self.offset += length;
        self.left -= length;
        Step::Check { span }
    }
}

fn verify_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    verify(command, Blocks::of_10(&command.cdb), unit, context)
}

fn verify_12(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    verify(command, Blocks::of_12(&command.cdb), unit, context)
}

fn verify_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    verify(command, Blocks::of_16(&command.cdb), unit, context)
}

fn write_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_10(&command.cdb), unit, context)
}

fn write_12(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_12(&command.cdb), unit, context)
}

fn write_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_16(&command.cdb), unit, context)
}

/// BYTCHK.
pub(crate) fn byte_check(cdb: &Cdb) -> u8 {
    cdb.byte(1) >> 1 & 0b11
}

fn verify(command: &mut Command, blocks: Blocks, unit: &LogicalUnit, context: &Context<'_>) -> Step {
    if command.cdb.byte(1) >> 5 != 0 {
        return protection::verify(command, blocks, unit, context);
    }
    match byte_check(&command.cdb) {
        0b00 => check(command, blocks, unit),
        0b01 => transfer::plain(command, blocks, Moving::Compare, unit, context),
        0b11 => match blocks.transfer(unit) {
            Ok(Some(span)) => {
                command.state = State::Moving { write: false, offset: span.offset };
                Step::Compare { span, repeat: true }
            }
            Ok(None) => good(),
            Err(sense) => fail(sense),
        },
        _ => fail(Sense::field_in_cdb(1, Some(2))),
    }
}

/// Medium verification alone. MAXIMUM TRANSFER LENGTH doesn't apply: nothing is transferred.
fn check(command: &mut Command, blocks: Blocks, unit: &LogicalUnit) -> Step {
    if let Err(sense) = blocks.check(unit) {
        return fail(sense);
    }
    let (offset, left) = blocks.bytes(unit);
    Checking::start(command, offset, left, unit)
}

/// Reading back compares the bytes in any case, so BYTCHK 00b and 01b are the same here. What is verified has to be on
/// the medium, hence durable.
fn write(command: &mut Command, blocks: Blocks, unit: &LogicalUnit, context: &Context<'_>) -> Step {
    if byte_check(&command.cdb) > 0b01 {
        return fail(Sense::field_in_cdb(1, Some(2)));
    }
    let moving = Moving::Write { durable: true, verify: true };
    if command.cdb.byte(1) >> 5 != 0 {
        return protection::transfer(command, blocks, moving, unit, context);
    }
    transfer::plain(command, blocks, moving, unit, context)
}
