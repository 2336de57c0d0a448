//! POPULATE TOKEN (SBC-4 5.12): a token for data as it is now. It takes no longer than the writes that are on their way,
//! so that IMMED changes nothing.

use super::{
    be16, be32,
    extended::begin,
    operation::{Ending, Operation},
    ranges, token,
};
use crate::{
    command::{Command, Context, Event, State, Step, fail, good},
    sense::{Sense, SenseKey, asc},
    status::Status,
    unit::LogicalUnit,
};
use std::{ops::Range, sync::Arc, time::Duration};

pub(super) const ACTION: u8 = 0x10;
const HEADER: usize = 16;
/// Length of any list that is taken.
const MOST: usize = HEADER + ranges::MOST * 16 + 15;

/// MAXIMUM INACTIVITY TIMEOUT and DEFAULT INACTIVITY TIMEOUT, in seconds.
pub(super) const MOST_TIMEOUT_S: u32 = 3600;
pub(super) const TIMEOUT_S: u32 = 60;

pub(super) fn populate_token(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match command.cdb.u32(10) {
        0 => good(),
        length if length < HEADER as u32 || length as usize > MOST => {
            fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR))
        }
        length => command.receive(length, parameters),
    }
}

/// Waits until nobody is writing to what a token shall stand for.
pub(crate) struct Populating {
    operation: Arc<Operation>,
    ranges: Vec<Range<u64>>,
    timeout: Duration,
}

fn parameters(command: &mut Command, list: &[u8], unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let (ranges, timeout) = match parse(list, unit) {
        Ok(parsed) => parsed,
        Err(sense) => return fail(sense),
    };
    let operation = match begin(Some(command.cdb.u32(6)), ACTION, context) {
        Ok(operation) => operation,
        Err(step) => return step,
    };
    let hull = ranges.iter().cloned().reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
    let Some(hull) = hull else {
        // There is nothing that a token could stand for.
        operation.end(Ending::Ended { status: Status::Good, sense: None });
        return good();
    };
    command.state = State::Populating(Box::new(Populating { operation, ranges, timeout }));
    Step::Barrier { offset: hull.start, length: hull.end - hull.start }
}

/// The ranges and the inactivity timeout.
fn parse(list: &[u8], unit: &LogicalUnit) -> Result<(Vec<Range<u64>>, Duration), Sense> {
    if be16(list, 0) < 30 {
        return Err(Sense::field_in_parameters(0, None));
    }
    let timeout = match be32(list, 4) {
        0 => TIMEOUT_S,
        timeout if timeout > MOST_TIMEOUT_S => return Err(Sense::field_in_parameters(4, None)),
        timeout => timeout,
    };
    // RTV: the type has to be one that is made. A point in time copy of the default type would outlive changes.
    if list[2] & 2 != 0 && ![token::CHANGE_VULNERABLE, token::ANY_POINT_IN_TIME].contains(&be32(list, 8)) {
        return Err(Sense::field_in_parameters(8, None));
    }
    Ok((ranges::parse(list, HEADER, unit)?, Duration::from_secs(timeout.into())))
}

impl Populating {
    /// Nobody is writing there, and nobody begins to before the next step is known.
    pub fn step(&mut self, event: &Event<'_>, unit: &Arc<LogicalUnit>, context: &mut Context<'_>) -> Step {
        let bytes = self.ranges.iter().map(|range| range.end - range.start).sum();
        let created = match event {
            Event::Stored => {
                let ranges = std::mem::take(&mut self.ranges);
                let owner = context.nexus.as_ref().map(|nexus| nexus.path().initiator.clone());
                context.port.copies.create(unit, ranges, self.timeout, owner, context.port, context.now)
            }
            Event::Failed(error) => Err(Sense::from_store(*error, unit.block_size(), false)),
            _ => Err(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE)),
        };
        match created {
            Ok(token) => {
                self.operation.moved(bytes);
                self.operation.give(token);
                self.operation.end(Ending::Ended { status: Status::Good, sense: None });
                good()
            }
            Err(sense) => {
                self.operation.end(Ending::Ended { status: Status::CheckCondition, sense: Some(sense) });
                fail(sense)
            }
        }
    }
}

impl Drop for Populating {
    fn drop(&mut self) {
        self.operation.end(Ending::Terminated);
    }
}
