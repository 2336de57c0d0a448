//! Carries a copy operation out, one bounded piece after the other. Before each it looks whether the operation was
//! aborted and whether the units may still be read and written.

use super::{
    extended::Segments,
    operation::{Ending, Operation},
};
use crate::{
    access::AccessState,
    command::{Context, Event, Outcome, Step, fail},
    port::TargetPort,
    reservations::Verdict,
    sense::{Sense, SenseKey, asc},
    status::Status,
    unit::{Flags, LogicalUnit, Nexus},
};
use backstore_api::{Extent, StoreError};
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
        let Source::Unit(unit, from) = &motion.source;
        let (from, same) = (*from, Arc::ptr_eq(unit, &motion.target));
        let overlaps = same && from.abs_diff(motion.at) < motion.length;
        let backward = overlaps && from < motion.at;
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
        let Source::Unit(source, from) = &self.motion.source;
        let (source, from, target) = (source.clone(), *from, self.motion.target.clone());
        let (at, durable, left) = (self.motion.at, target.durable(false), self.left());
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
            false => {
                self.piece = length.min(ZERO_PIECE);
                let (offset, unmap) = (at + self.done, target.unmaps() && target.store().discard_zeroes);
                Step::Blank { unit: target.id(), offset, length: self.piece, unmap, durable }
            }
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
        let Source::Unit(_, from) = self.motion.source;
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

/// A copy operation and the command that carries it out.
pub(crate) struct Running {
    operation: Arc<Operation>,
    script: Segments,
    current: Option<Current>,
}

impl Running {
    pub fn new(operation: Arc<Operation>, script: Segments) -> Running {
        Running { operation, script, current: None }
    }

    /// The next piece, or the end.
    pub fn next(&mut self, unit: &Arc<LogicalUnit>, context: &mut Context<'_>) -> Step {
        loop {
            if self.operation.is_aborted() {
                let sense = Sense::new(SenseKey::CopyAborted, asc::COMMANDS_CLEARED_BY_DEVICE_SERVER);
                self.operation.end(Ending::Terminated);
                return fail(sense);
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
                    if let Some(culprit) = refuses(&current.motion, context.port, context.nexus.as_deref()) {
                        return self.blame(culprit, None);
                    }
                    return current.step();
                }
            }
        }
    }

    /// Takes what happened; gives the next step.
    pub fn step(&mut self, event: Event<'_>, unit: &Arc<LogicalUnit>, context: &mut Context<'_>) -> Step {
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
            Event::Failed(error) => return self.blame(Culprit::Target, Some(error)),
            Event::CopyFailed { error, reading, moved } => {
                if !current.backward {
                    let moved = u64::from(moved).min(current.piece);
                    current.done += moved;
                    self.operation.moved(moved);
                }
                return self.blame(if reading { Culprit::Source } else { Culprit::Target }, Some(error));
            }
            _ => return self.fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE)),
        }
        self.next(unit, context)
    }

    /// One of the two units did not do it.
    fn blame(&mut self, culprit: Culprit, error: Option<StoreError>) -> Step {
        let (done, length) = match &self.current {
            Some(current) => (current.in_order(), current.motion.length),
            None => (0, 0),
        };
        let sense = self.script.failure(culprit, error, done, length);
        self.fail(sense)
    }

    fn fail(&mut self, sense: Sense) -> Step {
        self.operation.end(Ending::Ended { status: Status::CheckCondition, sense: Some(sense) });
        fail(sense)
    }

    fn succeed(&mut self) -> Step {
        let sense = self.script.information();
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

/// A unit that can't take part as it is, by the port that the command came to, or for a reservation of others.
fn refuses(motion: &Move, port: &TargetPort, nexus: Option<&Nexus>) -> Option<Culprit> {
    let Source::Unit(source, _) = &motion.source;
    let flags = motion.target.flags();
    let absent = [Flags::STOPPED, Flags::EJECTED];
    let refused = [Flags::READ_ONLY, Flags::SOFTWARE_PROTECTED];
    let verdict = |unit: &LogicalUnit| {
        let restricted = matches!(unit.access(port.portal_group), AccessState::Standby | AccessState::Unavailable);
        match nexus {
            _ if restricted => Verdict::Little,
            Some(nexus) => unit.with_reservations(|state| state.verdict(nexus.id(), nexus.path())),
            None => Verdict::All,
        }
    };
    if absent.into_iter().chain(refused).any(|flag| flags.has(flag)) || verdict(&motion.target) > Verdict::All {
        return Some(Culprit::Target);
    }
    let missing = absent.into_iter().any(|flag| source.flags().has(flag));
    (missing || verdict(source) > Verdict::Reads).then_some(Culprit::Source)
}
