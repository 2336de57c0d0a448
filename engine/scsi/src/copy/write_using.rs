//! WRITE USING TOKEN (SBC-4 5.59): writes what a token stands for.

use super::{
    be16, be32, be64,
    extended::begin,
    ranges,
    running::{Culprit, Move, Running, Script, Source},
    token::{self, Lease, Token},
};
use crate::{
    command::{Command, Context, Step, fail, good},
    sense::{Sense, SenseKey, asc},
    unit::LogicalUnit,
};
use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

pub(super) const ACTION: u8 = 0x11;
const HEADER: usize = 536;
/// Length of any list that is taken.
const MOST: usize = HEADER + ranges::MOST * 16 + 15;
/// Where the token is.
const TOKEN: usize = 16;

pub(super) fn write_using_token(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match command.cdb.u32(10) {
        0 => good(),
        length if length < HEADER as u32 || length as usize > MOST => {
            fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR))
        }
        length => command.receive(length, parameters),
    }
}

fn parameters(command: &mut Command, list: &[u8], _: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let Some(unit) = context.unit.cloned() else { return fail(Sense::illegal(asc::LOGICAL_UNIT_NOT_SUPPORTED)) };
    let script = match parse(list, &unit, context) {
        Ok(script) => script,
        Err(sense) => return fail(sense),
    };
    let operation = match begin(Some(command.cdb.u32(6)), ACTION, context) {
        Ok(operation) => operation,
        Err(step) => return step,
    };
    let immediate = list[2] & 1 != 0;
    command.run(Running::new(operation, Script::Token(script), immediate, context), context)
}

/// What is to be written, piece by piece.
pub(crate) struct TokenWrite {
    moves: VecDeque<Move>,
    /// None: zeroes.
    lease: Option<Lease>,
    /// DEL_TKN.
    delete: bool,
    /// The token stands for less than what was asked for: blocks that it has.
    short: Option<u64>,
}

fn parse(list: &[u8], unit: &Arc<LogicalUnit>, context: &Context<'_>) -> Result<TokenWrite, Sense> {
    let targets = ranges::parse(list, HEADER, unit)?;
    let mut script = TokenWrite { moves: VecDeque::new(), lease: None, delete: list[2] & 2 != 0, short: None };
    if be32(list, TOKEN) == token::BLOCK_ZERO {
        if be16(list, TOKEN + 6) != token::FIELD_LENGTH {
            return Err(Sense::illegal(asc::INVALID_TOKEN_LENGTH));
        }
        script.moves = targets.iter().map(|range| to(unit, range, Source::Zeroes)).collect();
        return Ok(script);
    }
    let token: &Token = list[TOKEN..].first_chunk().ok_or(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR))?;
    let lease = context.port.copies.look_up(token, context.now)?;
    // OFFSET INTO ROD is in blocks of this unit.
    let offset = be64(list, 8).checked_mul(unit.block_size().into());
    let Some(offset) = offset.filter(|offset| *offset < lease.rod.bytes()) else {
        return Err(Sense::field_in_parameters(8, None));
    };
    let wanted: u64 = targets.iter().map(|range| range.end - range.start).sum();
    let there = (lease.rod.bytes() - offset) >> unit.block_shift() << unit.block_shift();
    script.short = (there < wanted).then_some(there >> unit.block_shift());
    script.moves = pair(&lease, offset, wanted.min(there), &targets, unit);
    // Blocks of another size may not fit the pieces.
    let (read, written) = (1 << lease.rod.block_shift, u64::from(unit.block_size()));
    let whole = |part: &Move| {
        let Source::Unit(_, from) = part.source else { return true };
        from.is_multiple_of(read) && part.at.is_multiple_of(written) && part.length.is_multiple_of(read.max(written))
    };
    if !script.moves.iter().all(whole) {
        return Err(Sense::new(SenseKey::CopyAborted, asc::UNEXPECTED_INEXACT_SEGMENT));
    }
    script.lease = Some(lease);
    Ok(script)
}

fn to(unit: &Arc<LogicalUnit>, range: &Range<u64>, source: Source) -> Move {
    Move { source, target: unit.clone(), at: range.start, length: range.end - range.start }
}

/// Which part of the token's data goes where.
fn pair(lease: &Lease, offset: u64, mut left: u64, targets: &[Range<u64>], unit: &Arc<LogicalUnit>) -> VecDeque<Move> {
    let mut moves = VecDeque::new();
    let mut skip = offset;
    let mut sources = lease.rod.ranges().iter().filter_map(|range| {
        let length = range.end - range.start;
        let skipped = skip.min(length);
        skip -= skipped;
        (skipped < length).then(|| range.start + skipped..range.end)
    });
    let mut source = sources.next();
    for target in targets {
        let mut target = target.clone();
        while let Some(from) = source.as_mut().filter(|_| left > 0 && target.start < target.end) {
            let length = (from.end - from.start).min(target.end - target.start).min(left);
            let origin = Source::Unit(lease.unit.clone(), from.start);
            moves.push_back(to(unit, &(target.start..target.start + length), origin));
            from.start += length;
            target.start += length;
            left -= length;
            if from.start == from.end {
                source = sources.next();
            }
        }
    }
    moves
}

impl TokenWrite {
    /// The next data to move.
    pub fn next(&mut self, now: Duration) -> Option<Move> {
        if let Some(lease) = &self.lease {
            lease.renew(now);
        }
        self.moves.pop_front()
    }

    /// What was read last is perhaps not what the token stands for.
    pub fn invalid(&self) -> Option<Sense> {
        let cancelled = self.lease.as_ref().is_some_and(|lease| lease.rod.is_cancelled());
        cancelled.then(|| Sense::illegal(asc::TOKEN_CANCELLED))
    }

    /// All was moved; an error, if it was less than what was asked for (SBC-4 4.28.2).
    pub fn end(&self) -> Result<(), Sense> {
        if let Some(lease) = self.lease.as_ref().filter(|_| self.delete) {
            lease.delete();
        }
        match self.short {
            None => Ok(()),
            Some(blocks) => {
                let key = if blocks > 0 { SenseKey::CopyAborted } else { SenseKey::IllegalRequest };
                Err(Sense::new(key, asc::COPY_TARGET_DEVICE_DATA_UNDERRUN).with_information(blocks))
            }
        }
    }

    /// A unit did not do its part; of the own one the reason is known.
    pub fn failure(&self, culprit: Culprit, reason: Option<Sense>) -> Sense {
        let foreign = Sense::new(SenseKey::CopyAborted, asc::THIRD_PARTY_DEVICE_FAILURE);
        match culprit {
            Culprit::Target => reason.unwrap_or(foreign),
            Culprit::Source => foreign,
        }
    }
}
