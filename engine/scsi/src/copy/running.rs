//! Carries a copy operation out, one bounded piece after the other. Before each it looks whether the operation was
//! aborted and whether the units may still be read and written.

use super::{
    extended::Segments,
    operation::{Ending, Operation},
    write_using::TokenWrite,
};
use crate::{
    access,
    command::{Context, Event, Outcome, Step, fail},
    port::{Path, TargetPort},
    readiness,
    reservations::Verdict,
    sense::{Sense, SenseKey, asc},
    status::Status,
    unit::{LogicalUnit, UnitId},
};
use backstore_api::Extent;
use std::{collections::VecDeque, sync::Arc};

/// Bytes of one piece: between stores in memory, which move it at once on the core that others wait for, and others.
const MEMORY_PIECE: u64 = 2 << 20;
const PIECE: u64 = 16 << 20;
/// The same of zeroes.
const ZERO_PIECE: u64 = 4 << 20;
/// What moves within itself goes through one buffer after the other.
const OVERLAP_PIECE: u64 = 64 << 10;
/// Bytes of the source whose holes are asked for at once.
const SURVEY: u64 = 1 << 30;
/// Extents of one answer.
const SURVEY_EXTENTS: u32 = 64;
/// A smaller hole is copied like data.
const HOLE: u64 = 64 << 10;
/// Holes begin and end at multiples of this, from the beginning of a move on: blocks of any unit.
const HOLE_GRANULE: u64 = 4096;

/// Where data comes from.
#[derive(Clone)]
pub(crate) enum Source {
    /// A unit, from this byte on.
    Unit(Arc<LogicalUnit>, u64),
    /// It is all zeroes.
    Zeroes,
}

/// Data to move: a range of whole blocks within both units.
#[derive(Clone)]
pub(crate) struct Move {
    pub source: Source,
    pub target: Arc<LogicalUnit>,
    /// Byte of the target.
    pub at: u64,
    /// Bytes.
    pub length: u64,
}

/// Which unit did not do its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Culprit {
    Source,
    Target,
}

/// A move that is under way.
struct Current {
    motion: Move,
    /// Bytes done.
    done: u64,
    /// Source and target overlap, and the source is to be read from its end.
    backward: bool,
    /// Source and target overlap.
    overlaps: bool,
    /// What comes next of the source: length, and whether it has to be copied.
    runs: VecDeque<(u64, bool)>,
    /// The source's holes were asked for, from what is done on.
    asked: bool,
    /// Bytes of the piece that was asked for.
    piece: u64,
}

impl Current {
    fn new(motion: Move) -> Current {
        let (overlaps, backward) = match &motion.source {
            Source::Unit(unit, from) if Arc::ptr_eq(unit, &motion.target) => {
                let overlaps = from.abs_diff(motion.at) < motion.length;
                (overlaps, overlaps && *from < motion.at)
            }
            _ => (false, false),
        };
        Current { motion, done: 0, backward, overlaps, runs: VecDeque::new(), asked: false, piece: 0 }
    }

    fn left(&self) -> u64 {
        self.motion.length - self.done
    }

    /// Bytes that are in the target, from the beginning on.
    fn in_order(&self) -> u64 {
        if self.backward && self.left() > 0 { 0 } else { self.done }
    }

    /// What to do now.
    fn step(&mut self) -> Step {
        let left = self.left();
        let Source::Unit(source, from) = &self.motion.source else { return self.blank(left) };
        let (source, from, target) = (source.clone(), *from, self.motion.target.clone());
        let (at, durable) = (self.motion.at, target.durable(false));
        let copy = |place: u64, length: u64| Step::Copy {
            source: source.id(),
            from: from + place,
            target: target.id(),
            to: at + place,
            length: length as u32,
            durable,
        };
        if self.overlaps {
            // As if all had been read before anything is written.
            self.piece = left.min(OVERLAP_PIECE);
            return copy(if self.backward { left - self.piece } else { self.done }, self.piece);
        }
        if self.runs.is_empty() {
            let store = source.store();
            if store.discard_granularity > 0 && store.discard_zeroes && !self.asked {
                self.asked = true;
                let (offset, length) = (from + self.done, left.min(SURVEY));
                return Step::Survey { unit: source.id(), offset, length, limit: SURVEY_EXTENTS };
            }
            self.runs.push_back((left.min(SURVEY), true));
        }
        self.asked = false;
        let (length, mapped) = *self.runs.front().expect("one was put there");
        let memory = !source.store().persistent && !target.store().persistent;
        match mapped {
            true => {
                self.piece = length.min(if memory { MEMORY_PIECE } else { PIECE });
                copy(self.done, self.piece)
            }
            false => self.blank(length),
        }
    }

    /// Zeroes, up to this many bytes.
    fn blank(&mut self, most: u64) -> Step {
        self.piece = most.min(ZERO_PIECE);
        let target = &self.motion.target;
        Step::Blank {
            unit: target.id(),
            offset: self.motion.at + self.done,
            length: self.piece,
            unmap: target.unmaps() && target.store().discard_zeroes,
            durable: target.durable(false),
        }
    }

    /// The piece is done.
    fn advance(&mut self) {
        self.done += self.piece;
        if let Some((length, _)) = self.runs.front_mut() {
            *length -= self.piece.min(*length);
            if *length == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// Takes in where the source has data. What isn't told is copied.
    fn survey(&mut self, extents: &[Extent]) {
        let Source::Unit(_, from) = self.motion.source else { return };
        let (begin, end) = (self.done, self.done + self.left().min(SURVEY));
        let mut at = begin;
        for extent in extents {
            if extent.offset != from + at || extent.length == 0 || at >= end {
                break;
            }
            let next = at.saturating_add(extent.length).min(end);
            let hole = at.next_multiple_of(HOLE_GRANULE)..next / HOLE_GRANULE * HOLE_GRANULE;
            if !extent.mapped && hole.end.saturating_sub(hole.start) >= HOLE {
                self.run(hole.start - at, true);
                self.run(hole.end - hole.start, false);
                self.run(next - hole.end, true);
            } else {
                self.run(next - at, true);
            }
            at = next;
        }
        if at == begin {
            self.run(end - begin, true);
        }
    }

    fn run(&mut self, length: u64, mapped: bool) {
        match self.runs.back_mut() {
            _ if length == 0 => {}
            Some(last) if last.1 == mapped => last.0 += length,
            _ => self.runs.push_back((length, mapped)),
        }
    }
}

/// What is to be copied.
pub(super) enum Script {
    Segments(Segments),
    Token(TokenWrite),
}

impl Script {
    /// The next data to move; None at the end.
    fn next(
        &mut self,
        unit: &Arc<LogicalUnit>,
        context: &Context<'_>,
        operation: &Operation,
    ) -> Result<Option<Move>, Sense> {
        match self {
            Script::Segments(segments) => segments.next(unit, context, operation),
            Script::Token(write) => Ok(write.next(context.now)),
        }
    }

    /// Why what was moved last must not count, nor anything be moved any more.
    fn invalid(&self) -> Option<Sense> {
        match self {
            Script::Segments(_) => None,
            Script::Token(write) => write.invalid(),
        }
    }

    fn failure(&self, culprit: Culprit, reason: Option<Sense>, done: u64, length: u64) -> Sense {
        match self {
            Script::Segments(segments) => segments.failure(culprit, done, length),
            Script::Token(write) => write.failure(culprit, reason),
        }
    }

    /// All is moved; gives what goes with GOOD.
    fn end(&self) -> Result<Option<Sense>, Sense> {
        match self {
            Script::Segments(segments) => Ok(segments.information()),
            Script::Token(write) => write.end().map(|()| None),
        }
    }
}

/// A copy operation and the command that carries it out.
pub(crate) struct Running {
    operation: Arc<Operation>,
    script: Script,
    current: Option<Current>,
    /// For whom: its session may be gone before the operation is.
    nexus: Option<(u64, Path)>,
    /// The command is to be answered before the first piece.
    detach: bool,
}

impl Running {
    /// `immediate`: its command is answered first.
    pub(super) fn new(operation: Arc<Operation>, script: Script, immediate: bool, context: &Context<'_>) -> Running {
        let nexus = context.nexus.as_ref().map(|nexus| (nexus.id(), nexus.path().clone()));
        Running { operation, script, current: None, nexus, detach: immediate }
    }

    /// A unit is a side of what is being moved.
    pub fn touches(&self, unit: UnitId) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let source = matches!(&current.motion.source, Source::Unit(source, _) if source.id() == unit);
            source || current.motion.target.id() == unit
        })
    }

    /// Who asked for it.
    pub fn path(&self) -> Option<&Path> {
        self.nexus.as_ref().map(|(_, path)| path)
    }

    /// The next piece, or the end.
    pub fn next(&mut self, unit: &Arc<LogicalUnit>, context: &mut Context<'_>) -> Step {
        if self.detach {
            return Step::Detach;
        }
        loop {
            if self.operation.is_aborted() {
                let sense = Sense::new(SenseKey::CopyAborted, asc::COMMANDS_CLEARED_BY_DEVICE_SERVER);
                self.operation.end(Ending::Terminated);
                return fail(sense);
            }
            if let Some(sense) = self.script.invalid() {
                return self.fail(sense);
            }
            match &mut self.current {
                None => match self.script.next(unit, context, &self.operation) {
                    Ok(Some(motion)) => self.current = Some(Current::new(motion)),
                    Ok(None) => return self.succeed(),
                    Err(sense) => return self.fail(sense),
                },
                Some(current) if current.left() == 0 => {
                    self.current = None;
                }
                Some(current) => {
                    if let Some((culprit, reason)) = refuses(&current.motion, context.port, self.nexus.as_ref()) {
                        return self.blame(culprit, reason);
                    }
                    return current.step();
                }
            }
        }
    }

    /// Takes what happened; gives the next step.
    pub fn step(&mut self, event: Event<'_>, unit: &Arc<LogicalUnit>, context: &mut Context<'_>) -> Step {
        if self.detach {
            self.detach = false;
            return match event {
                Event::Stored => {
                    self.operation.detach();
                    self.next(unit, context)
                }
                _ => Step::Done(Outcome { status: Status::Busy, sense: None, data: 0 }),
            };
        }
        // Whoever has changed the source meanwhile has cancelled the token first.
        if let Some(sense) = self.script.invalid() {
            return self.fail(sense);
        }
        let Some(current) = &mut self.current else {
            return self.fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE));
        };
        match event {
            Event::Extents(extents) if current.asked => current.survey(extents),
            // It is found out when the data is read.
            Event::Failed(_) if current.asked => {
                let all = current.left().min(SURVEY);
                current.run(all, true);
            }
            Event::Moved | Event::Stored if current.piece > 0 => {
                let before = current.in_order();
                current.advance();
                current.piece = 0;
                let bytes = current.in_order() - before;
                self.operation.moved(bytes);
            }
            Event::Failed(error) => {
                let block = current.motion.target.block_size();
                return self.blame(Culprit::Target, Some(Sense::from_store(error, block, true)));
            }
            Event::CopyFailed { error, reading, moved } => {
                if !current.backward {
                    let moved = u64::from(moved).min(current.piece);
                    current.done += moved;
                    self.operation.moved(moved);
                }
                let block = current.motion.target.block_size();
                let culprit = if reading { Culprit::Source } else { Culprit::Target };
                return self.blame(culprit, Some(Sense::from_store(error, block, true)));
            }
            Event::Occupied { reading } => {
                let culprit = if reading { Culprit::Source } else { Culprit::Target };
                let refused = refuses(&current.motion, context.port, self.nexus.as_ref());
                let (culprit, reason) = refused.unwrap_or((culprit, None));
                return self.blame(culprit, reason);
            }
            _ => return self.fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE)),
        }
        self.next(unit, context)
    }

    /// One of the two units did not do it.
    fn blame(&mut self, culprit: Culprit, reason: Option<Sense>) -> Step {
        let (done, length) = match &self.current {
            Some(current) => (current.in_order(), current.motion.length),
            None => (0, 0),
        };
        let sense = self.script.failure(culprit, reason, done, length);
        self.fail(sense)
    }

    fn fail(&mut self, sense: Sense) -> Step {
        self.operation.end(Ending::Ended { status: Status::CheckCondition, sense: Some(sense) });
        fail(sense)
    }

    fn succeed(&mut self) -> Step {
        let sense = match self.script.end() {
            Ok(sense) => sense,
            Err(sense) => return self.fail(sense),
        };
        self.operation.end(Ending::Ended { status: Status::Good, sense });
        Step::Done(Outcome { status: Status::Good, sense, data: 0 })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Aborted by task management, or by the end of its session.
        self.operation.end(Ending::Terminated);
    }
}

/// A unit that can't take part as it is, by the port that the command came to, or for a reservation of others; and what
/// a write to it would be told.
fn refuses(motion: &Move, port: &TargetPort, nexus: Option<&(u64, Path)>) -> Option<(Culprit, Option<Sense>)> {
    let verdict = |unit: &LogicalUnit| match nexus {
        Some((id, path)) => unit.with_reservations(|state| state.verdict(*id, path)),
        None => Verdict::All,
    };
    let unready =
        |unit: &LogicalUnit| access::closed(unit, port.portal_group).or_else(|| readiness::refuses_medium(unit));
    let target = &motion.target;
    let reason = unready(target).or_else(|| target.flags().write_protected());
    if reason.is_some() || verdict(target) > Verdict::All {
        return Some((Culprit::Target, reason));
    }
    let Source::Unit(source, _) = &motion.source else { return None };
    let reason = unready(source);
    (reason.is_some() || verdict(source) > Verdict::Reads).then_some((Culprit::Source, reason))
}
