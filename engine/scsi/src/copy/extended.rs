//! EXTENDED COPY (LID1 and LID4; SPC-4 6.4, 6.5).

use super::{
    list::{self, List},
    operation::{Operation, Refusal},
    running::{Culprit, Move, Running, Script},
    segment::{self, Segment},
};
use crate::{
    command::{Command, Context, Outcome, Step, fail, good},
    sense::{Sense, SenseKey, asc},
    status::Status,
    unit::LogicalUnit,
};
use std::sync::Arc;

pub(super) const LID1: u8 = 0x00;
pub(super) const LID4: u8 = 0x01;

pub(super) fn extended_copy(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match command.cdb.u32(10) {
        0 => good(),
        length if length as usize > list::MOST => fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR)),
        length => command.receive(length, parameters),
    }
}

fn parameters(command: &mut Command, bytes: &[u8], _: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let action = command.cdb.service_action() as u8;
    let list = match List::parse(action, bytes) {
        Ok(list) => list,
        Err(sense) => return fail(sense),
    };
    let operation = match begin(list.id, action, context) {
        Ok(operation) => operation,
        Err(step) => return step,
    };
    let immediate = list.immediate;
    let script = Script::Segments(Segments { list, number: 0, segment: None });
    command.run(Running::new(operation, script, immediate, context), context)
}

/// Begins an operation of the session that the command came from.
pub(super) fn begin(id: Option<u32>, action: u8, context: &Context<'_>) -> Result<Arc<Operation>, Step> {
    let nexus = context.nexus.as_ref().map_or(0, |nexus| nexus.id());
    let (Some(id), Some(unit)) = (id, context.unit) else { return Ok(Operation::unlisted(nexus, 0, action)) };
    unit.copies().begin(nexus, id, action).map_err(|refusal| match refusal {
        Refusal::Duplicate => fail(Sense::illegal(asc::OPERATION_IN_PROGRESS)),
        Refusal::Full => Step::Done(Outcome { status: Status::Busy, sense: None, data: 0 }),
    })
}

/// The segments of a parameter list, one after the other.
pub(crate) struct Segments {
    list: List,
    /// Of the next one.
    number: usize,
    /// The one that is being processed.
    segment: Option<Segment>,
}

impl Segments {
    /// The next data to move; None at the end.
    pub fn next(
        &mut self,
        unit: &Arc<LogicalUnit>,
        context: &Context<'_>,
        operation: &Operation,
    ) -> Result<Option<Move>, Sense> {
        while let Some(descriptor) = self.list.segment(self.number) {
            operation.segment(self.number as u16);
            self.number += 1;
            let segment =
                segment::plan(&self.list, descriptor, unit, context).map_err(|sense| self.of_segment(sense))?;
            let motion = segment.motion.clone();
            self.segment = Some(segment);
            if motion.is_some() {
                return Ok(motion);
            }
        }
        Ok(None)
    }

    /// Puts the number of the segment in (SPC-4 5.17.7.4 b).
    fn of_segment(&self, mut sense: Sense) -> Sense {
        sense.command = Some(self.number.saturating_sub(1) as u32);
        sense
    }

    /// The end of a segment that a unit did not do, of whose `length` bytes `done` are written.
    pub fn failure(&self, culprit: Culprit, done: u64, length: u64) -> Sense {
        let Some(segment) = &self.segment else {
            return Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE);
        };
        let mut sense = match culprit {
            Culprit::Source => segment.source.failure(),
            Culprit::Target => segment.target.failure(),
        };
        // The residual, when anything was written, in blocks of the destination.
        if done > 0 {
            sense.information = Some((length - done) >> segment.target.unit.block_shift());
        }
        self.of_segment(sense)
    }

    /// What goes with GOOD (G_SENSE, SPC-4 6.4.2).
    pub fn information(&self) -> Option<Sense> {
        self.list.good_sense.then(|| {
            let mut sense = Sense::new(SenseKey::Completed, asc::EXTENDED_COPY_INFORMATION_AVAILABLE);
            sense.command = Some(self.number as u32);
            sense
        })
    }
}
