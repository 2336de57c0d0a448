//! WRITE SAME 10, 16 and 32 (SBC-3 5.43 to 5.45).

use crate::{
    cdb::{Cdb, VARIABLE_LENGTH},
    command::{Command, Context, State, Step, fail, good},
    profile::Provisioning,
    sbc::{protection, range::Blocks},
    sense::Sense,
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use backstore_api::{Checks, Repeated};

pub(crate) const WRITE_SAME_10: u8 = 0x41;
pub(crate) const WRITE_SAME_16: u8 = 0x93;

const WRITES: Traits = Traits::MEDIUM.and(Traits::WRITES).and(Traits::PROTECT);
const LONG: [u8; 32] = protection::usage(0x0D, 0xF9);

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[WRITE_SAME_10, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0x00], WRITES, write_same)
        .timeouts(5, 120),
    Entry::new(
        &[WRITE_SAME_16, 0xF9, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        WRITES,
        write_same,
    )
    .timeouts(5, 120),
    Entry::long(0x000D, &LONG, protection::WRITES, write_same).timeouts(5, 120),
];

/// MAXIMUM WRITE SAME LENGTH in blocks (VPD B0h): bounds the time that one command takes.
pub(crate) const MOST_BLOCKS: u64 = 65535;

/// Bytes of one step: a store in memory does it at once, on the core that others wait for.
const FILL_PIECE: u64 = 1 << 20;
const ZERO_PIECE: u64 = 4 << 20;

/// The rest of a WRITE SAME, one bounded piece after the other.
pub(crate) struct Filling {
    offset: u64,
    left: u64,
    durable: bool,
    kind: Kind,
    tuple: Option<Repeated>,
}

enum Kind {
    Pattern,
    Zero { unmap: bool },
}

impl Filling {
    pub fn next(&mut self) -> Step {
        let piece = match self.kind {
            Kind::Pattern => FILL_PIECE,
            Kind::Zero { .. } => ZERO_PIECE,
        };
        let (offset, length, durable) = (self.offset, self.left.min(piece), self.durable);
        self.offset += length;
        self.left -= length;
        match self.kind {
            _ if length == 0 => good(),
            Kind::Pattern => Step::Fill { offset, length, durable, tuple: self.tuple },
            Kind::Zero { unmap } => Step::Zero { offset, length, unmap, durable },
        }
    }
}

/// A count of 0 means all blocks from the LBA on (WSNZ 0, VPD B0h). A unit that can unmap refuses it: of UNMAP with a
/// block that isn't zero initiators expect different things there (libiscsi's tests: zeroes), and more is at stake.
pub(crate) fn counts_to_the_end(unit: &LogicalUnit) -> bool {
    unit.provisioning() == Provisioning::Full
}

/// LBA and number of blocks as they stand there.
fn fields(cdb: &Cdb) -> Blocks {
    match cdb.opcode() {
        WRITE_SAME_10 => Blocks::of_10(cdb),
        WRITE_SAME_16 => Blocks::of_16(cdb),
        _ => Blocks::of_32(cdb),
    }
}

/// The blocks to write.
fn blocks(cdb: &Cdb, unit: &LogicalUnit) -> Result<Blocks, Sense> {
    let mut blocks = fields(cdb);
    blocks.check(unit)?;
    if blocks.count == 0 {
        if !counts_to_the_end(unit) {
            return Err(blocks.count_refused());
        }
        // Of a capacity that has shrunk since the check nothing is left.
        blocks.count = unit.blocks().saturating_sub(blocks.lba);
    }
    if blocks.count > MOST_BLOCKS { Err(blocks.count_refused()) } else { Ok(blocks) }
}

/// The byte that has WRPROTECT, ANCHOR, UNMAP and NDOB.
fn flags_at(cdb: &Cdb) -> usize {
    if cdb.opcode() == VARIABLE_LENGTH { 10 } else { 1 }
}

/// UNMAP.
fn unmap(cdb: &Cdb) -> bool {
    cdb.bit(flags_at(cdb), 3)
}

/// WRPROTECT: what is checked of the tuple that comes with the block. None: it comes alone.
fn checks(cdb: &Cdb, unit: &LogicalUnit) -> Result<Option<Checks>, Sense> {
    match (cdb.byte(flags_at(cdb)) >> 5, cdb.opcode()) {
        (0, _) => Ok(None),
        (_, VARIABLE_LENGTH) => protection::asked_by_32(cdb, unit).map(Some),
        _ => protection::asked(cdb, fields(cdb).lba, unit).map(Some),
    }
}

fn write_same(command: &mut Command, unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let checked = checks(&command.cdb, unit).and_then(|checks| check(&command.cdb, unit).map(|()| checks));
    match checked {
        Err(sense) => fail(sense),
        // NDOB (the bit is reserved in WRITE SAME 10): zeroes, without data, and without a tuple.
        Ok(_) if command.cdb.bit(flags_at(&command.cdb), 0) => {
            fill(command, Kind::Zero { unmap: unmap(&command.cdb) }, unit)
        }
        Ok(None) => command.receive(unit.block_size(), pattern),
        Ok(Some(checks)) => command.receive(checks.block_with_tuple(), pattern),
    }
}

fn check(cdb: &Cdb, unit: &LogicalUnit) -> Result<(), Sense> {
    // ANCHOR: with ANC_SUP, and never without UNMAP.
    let at = flags_at(cdb);
    if cdb.bit(at, 4) && (unit.provisioning() != Provisioning::Resource || !unmap(cdb)) {
        return Err(Sense::field_in_cdb(at as u16, Some(4)));
    }
    if unmap(cdb) && !unit.unmaps() {
        return Err(Sense::field_in_cdb(at as u16, Some(3)));
    }
    blocks(cdb, unit).map(drop)
}

/// The block has come. Only zeroes may be unmapped: blocks that are unmapped read as zeroes, or the command would not
/// have written what it was given (SBC-3 4.7.3.4.4). Those with a tuple are written: it is to be read again.
fn pattern(command: &mut Command, block: &[u8], unit: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let bare = block.len() == unit.block_size() as usize;
    let kind = match bare && block.iter().all(|byte| *byte == 0) {
        true => Kind::Zero { unmap: unmap(&command.cdb) },
        false => Kind::Pattern,
    };
    fill(command, kind, unit)
}

fn fill(command: &mut Command, kind: Kind, unit: &LogicalUnit) -> Step {
    // With the capacity of now: the data may have taken its time.
    let (offset, left) = match blocks(&command.cdb, unit) {
        Ok(blocks) => blocks.bytes(unit),
        Err(sense) => return fail(sense),
    };
    let tuple = match checks(&command.cdb, unit) {
        Ok(checks) => checks.map(|checks| Repeated { checks, from: offset }),
        Err(sense) => return fail(sense),
    };
    let mut filling = Filling { offset, left, durable: unit.durable(false), kind, tuple };
    let step = filling.next();
    command.state = State::Filling(filling);
    step
}
