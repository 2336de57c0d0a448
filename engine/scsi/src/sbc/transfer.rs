//! READ and WRITE of 6, 10, 12 and 16 bytes (SBC-3 5.9 to 5.13, 5.34 to 5.38).
//!
//! DPO is taken and means nothing here. FUA of a READ needs nothing: the store answers with what was written last. Group
//! numbers are not supported, hence reserved.

use crate::{
    access,
    cdb::Cdb,
    command::{Command, Context, Moving, Span, State, Step, fail, good},
    counters::Count,
    port::TargetPort,
    sbc::{protection, range::Blocks},
    table::{self, Entry, Traits},
    unit::{Flags, LogicalUnit, Nexus},
};

const READS: Traits = Traits::MEDIUM.and(Traits::PROTECT);
const WRITES: Traits = Traits::MEDIUM.and(Traits::WRITES).and(Traits::PROTECT);
const FUA: u8 = 3;

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0x00], READS, read_6).timeouts(1, 30),
    Entry::new(&[0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0x00], WRITES, write_6).timeouts(1, 30),
    Entry::new(&[0x28, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], READS, read_10).timeouts(1, 30),
    Entry::new(&[0x2A, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], WRITES, write_10).timeouts(1, 30),
    Entry::new(&[0xA8, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00], READS, read_12)
        .timeouts(1, 30),
    Entry::new(&[0xAA, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00], WRITES, write_12)
        .timeouts(1, 30),
    Entry::new(
        &[0x88, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        READS,
        read_16,
    )
    .timeouts(1, 30),
    Entry::new(
        &[0x8A, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        WRITES,
        write_16,
    )
    .timeouts(1, 30),
];

fn read_6(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_6(&command.cdb), unit, context)
}

fn read_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_10(&command.cdb), unit, context)
}

fn read_12(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_12(&command.cdb), unit, context)
}

fn read_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    read(command, Blocks::of_16(&command.cdb), unit, context)
}

fn write_6(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_6(&command.cdb), false, unit, context)
}

fn write_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_10(&command.cdb), command.cdb.bit(1, FUA), unit, context)
}

fn write_12(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_12(&command.cdb), command.cdb.bit(1, FUA), unit, context)
}

fn write_16(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    write(command, Blocks::of_16(&command.cdb), command.cdb.bit(1, FUA), unit, context)
}

#[inline]
fn read(command: &mut Command, blocks: Blocks, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    if command.cdb.byte(1) >> 5 != 0 {
        return protection::transfer(command, blocks, Moving::Read, unit, context);
    }
    plain(command, blocks, Moving::Read, unit, context)
}

#[inline]
fn write(
    command: &mut Command,
    blocks: Blocks,
    force_unit_access: bool,
    unit: &LogicalUnit,
    context: &mut Context<'_>,
) -> Step {
    let moving = Moving::Write { durable: unit.durable(force_unit_access), verify: false };
    if command.cdb.byte(1) >> 5 != 0 {
        return protection::transfer(command, blocks, moving, unit, context);
    }
    plain(command, blocks, moving, unit, context)
}

/// Moves blocks without protection information.
#[inline]
pub(crate) fn plain(
    command: &mut Command,
    blocks: Blocks,
    moving: Moving,
    unit: &LogicalUnit,
    context: &Context<'_>,
) -> Step {
    match blocks.transfer(unit) {
        Ok(Some(span)) => {
            begin(command, span, moving, unit, context);
            match moving {
                Moving::Read => Step::Read { span },
                Moving::Write { durable, verify } => Step::Write { span, durable, verify },
                Moving::Compare => Step::Compare { span, repeat: false },
                Moving::Check => Step::Check { span },
            }
        }
        Ok(None) => good(),
        Err(sense) => fail(sense),
    }
}

/// What a command that moves blocks remembers, and is counted as.
#[inline]
pub(crate) fn begin(command: &mut Command, span: Span, moving: Moving, unit: &LogicalUnit, context: &Context<'_>) {
    command.state = State::Moving { write: matches!(moving, Moving::Write { .. }), offset: span.offset };
    if let Some(nexus) = &context.nexus {
        count(span, moving, unit, nexus);
    }
}

#[inline]
fn count(span: Span, moving: Moving, unit: &LogicalUnit, nexus: &Nexus) {
    let blocks = u64::from(span.length >> unit.block_shift());
    match moving {
        Moving::Read => {
            nexus.count(Count::Reads, 1);
            nexus.count(Count::ReadBlocks, blocks);
        }
        Moving::Write { durable, verify: false } => {
            nexus.count(Count::Writes, 1);
            nexus.count(Count::WrittenBlocks, blocks);
            nexus.count(Count::CachedWrites, u64::from(!durable));
        }
        Moving::Write { verify: true, .. } | Moving::Compare | Moving::Check => {}
    }
}

/// Whether all that keeps a unit from being ready is the state of other ports, which may be so for good.
#[cold]
fn is_ready(unit: &LogicalUnit, mut flags: Flags, port: &TargetPort) -> bool {
    flags.set(Flags::RESTRICTED, false);
    !flags.has(Flags::UNREADY) && access::closed(unit, port.portal_group).is_none()
}

/// A READ or WRITE of blocks that nothing stands in the way of: the server may carry it out without a [`Command`].
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// The blocks, in bytes.
    pub span: Span,
    moving: Moving,
}

impl Transfer {
    /// Looks whether a command is a READ or WRITE without protection information that this nexus may do now through its port,
    /// and that moves something. This changes nothing; in all other cases [`Command::start`] says what is to be said.
    #[inline]
    pub fn find(cdb: &[u8; 16], unit: &LogicalUnit, nexus: &Nexus, port: &TargetPort) -> Option<Transfer> {
        let flags = nexus.undisturbed(unit)?;
        let cdb = Cdb::new(cdb);
        let blocks = match cdb.opcode() {
            0x28 | 0x2A => Blocks::of_10(&cdb),
            0x88 | 0x8A => Blocks::of_16(&cdb),
            0xA8 | 0xAA => Blocks::of_12(&cdb),
            0x08 | 0x0A => Blocks::of_6(&cdb),
            _ => return None,
        };
        let entry = table::first(cdb.opcode())?;
        if flags.has(Flags::UNREADY) && !is_ready(unit, flags, port)
            || entry.reserved_bit(&cdb).is_some()
            || cdb.byte(1) >> 5 != 0
        {
            return None;
        }
        let moving = if !entry.traits.has(Traits::WRITES) {
            Moving::Read
        } else if flags.write_protected().is_some() {
            return None;
        } else {
            // A CDB of 6 bytes has an address there.
            let force_unit_access = cdb.opcode() != 0x0A && cdb.bit(1, FUA);
            Moving::Write { durable: unit.durable(force_unit_access), verify: false }
        };
        let span = blocks.transfer(unit).ok()??;
        Some(Transfer { span, moving })
    }

    /// It writes.
    #[inline]
    pub fn writes(&self) -> bool {
        matches!(self.moving, Moving::Write { .. })
    }

    /// It is carried out: counts it.
    #[inline]
    pub fn count(&self, unit: &LogicalUnit, nexus: &Nexus) {
        count(self.span, self.moving, unit, nexus);
    }
}
