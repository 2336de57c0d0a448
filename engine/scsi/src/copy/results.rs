//! RECEIVE COPY STATUS (LID1 and LID4), RECEIVE COPY OPERATING PARAMETERS, RECEIVE COPY FAILURE DETAILS (SPC-4 6.22
//! to 6.25) and RECEIVE ROD TOKEN INFORMATION (SBC-4 5.25).

use super::{
    operation::{Ending, Operation},
    page,
};
use crate::{
    command::{Command, Context, Step, answer, fail},
    sense::Sense,
    status::Status,
    unit::LogicalUnit,
};
use std::sync::Arc;

pub(super) const STATUS_LID1: u8 = 0x00;
pub(super) const OPERATING_PARAMETERS: u8 = 0x03;
pub(super) const FAILURE_DETAILS: u8 = 0x04;
pub(super) const STATUS_LID4: u8 = 0x05;
pub(super) const TOKEN_INFORMATION: u8 = 0x07;

/// TRANSFER COUNT UNITS.
const BYTES: u8 = 0x00;
const KIBIBYTES: u8 = 0x01;
const LOGICAL_BLOCKS: u8 = 0xF1;
/// ESTIMATED STATUS UPDATE DELAY of an operation that has ended, and of one that runs: milliseconds.
const ENDED: u32 = 0xFFFF_FFFE;
const UPDATE_DELAY_MS: u32 = 100;

/// The operation that the session calls by this identifier.
fn find(id: u32, unit: &LogicalUnit, context: &Context<'_>) -> Option<Arc<Operation>> {
    let nexus = context.nexus.as_ref().map_or(0, |nexus| nexus.id());
    unit.copies().find(nexus, id)
}

fn unknown() -> Step {
    fail(Sense::field_in_cdb(2, None))
}

pub(super) fn status_lid1(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let found = find(command.cdb.byte(2).into(), unit, context);
    let Some(operation) = found.filter(|operation| operation.take_status()) else { return unknown() };
    let code = match operation.ending() {
        Ending::Running { .. } => 0x00,
        Ending::Ended { status: Status::Good, .. } => 0x01,
        Ending::Ended { .. } | Ending::Terminated => 0x02,
    };
    let (bytes, segments, _) = operation.progress();
    let (units, count) = match u32::try_from(bytes) {
        Ok(bytes) => (BYTES, bytes),
        Err(_) => (KIBIBYTES, u32::try_from(bytes >> 10).unwrap_or(u32::MAX)),
    };
    context.scratch.clear();
    context.scratch.extend(8u32.to_be_bytes());
    // HDD: nothing is held that could have been discarded.
    context.scratch.push(code);
    context.scratch.extend(segments.to_be_bytes());
    context.scratch.push(units);
    context.scratch.extend(count.to_be_bytes());
    answer(context, command.cdb.u32(10))
}

pub(super) fn failure_details(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let Some(operation) = find(command.cdb.byte(2).into(), unit, context) else { return unknown() };
    let ending = operation.ending();
    if matches!(ending, Ending::Running { .. }) || !operation.take_details() {
        return unknown();
    }
    context.scratch.clear();
    context.scratch.extend([0; 4]);
    if let Ending::Ended { status, sense: Some(sense) } = ending
        && status != Status::Good
    {
        context.scratch.resize(56, 0);
        context.scratch.extend([status as u8, 0]);
        let mut bytes = [0; 252];
        let length = sense.emit(unit.descriptor_sense(), &mut bytes);
        context.scratch.extend((length as u16).to_be_bytes());
        context.scratch.extend_from_slice(&bytes[..length]);
        let available = context.scratch.len() as u32 - 4;
        context.scratch[..4].copy_from_slice(&available.to_be_bytes());
    }
    answer(context, command.cdb.u32(10))
}

pub(super) fn status_lid4(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let Some(operation) = find(command.cdb.u32(2), unit, context) else { return unknown() };
    context.scratch.clear();
    header(&operation, (BYTES, operation.progress().0), unit, context.scratch);
    let available = context.scratch.len() as u32 - 4;
    context.scratch[..4].copy_from_slice(&available.to_be_bytes());
    answer(context, command.cdb.u32(10))
}

/// How far POPULATE TOKEN or WRITE USING TOKEN is, and the token. It can be had again until the session has another
/// operation with that identifier, or ends: an answer may get lost.
pub(super) fn token_information(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let Some(operation) = find(command.cdb.u32(2), unit, context) else { return unknown() };
    context.scratch.clear();
    let (bytes, _, _) = operation.progress();
    header(&operation, (LOGICAL_BLOCKS, bytes >> unit.block_shift()), unit, context.scratch);
    let out = &mut *context.scratch;
    // ROD TOKEN DESCRIPTORS LENGTH, and the only descriptor.
    operation.token(|token| match token {
        Some(token) => {
            out.extend((token.len() as u32 + 2).to_be_bytes());
            out.extend([0, 0]);
            out.extend_from_slice(token);
        }
        None => out.extend([0; 4]),
    });
    let available = out.len() as u32 - 4;
    out[..4].copy_from_slice(&available.to_be_bytes());
    answer(context, command.cdb.u32(10))
}

/// The shared third-party copy status header (SPC-4 table 248), with TRANSFER COUNT UNITS and TRANSFER COUNT.
fn header(operation: &Operation, (units, count): (u8, u64), unit: &LogicalUnit, out: &mut Vec<u8>) {
    let ending = operation.ending();
    let (_, segments, steps) = operation.progress();
    // COPY OPERATION STATUS, EXTENDED COPY COMPLETION STATUS and sense data.
    let (code, status, sense) = match ending {
        Ending::Running { background: false } => (0x11, 0, None),
        Ending::Running { background: true } => (0x12, 0, None),
        Ending::Ended { status: Status::Good, sense } => (0x01, Status::Good as u8, sense),
        Ending::Ended { status, sense } => (0x02, status as u8, sense),
        Ending::Terminated => (0x60, Status::TaskAborted as u8, None),
    };
    let delay = if matches!(ending, Ending::Running { .. }) { UPDATE_DELAY_MS } else { ENDED };
    let mut bytes = [0; 252];
    let length = sense.map_or(0, |sense| sense.emit(unit.descriptor_sense(), &mut bytes));
    let padded = length.next_multiple_of(4);
    bytes[length..padded].fill(0);
    out.extend([0, 0, 0, 0, operation.action, code]);
    out.extend(steps.to_be_bytes());
    out.extend(delay.to_be_bytes());
    out.extend([status, padded as u8, length as u8, units]);
    out.extend(count.to_be_bytes());
    out.extend(segments.to_be_bytes());
    out.extend([0; 6]);
    out.extend_from_slice(&bytes[..padded]);
}

pub(super) fn operating_parameters(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    context.scratch.clear();
    page::operating_parameters(unit, context.scratch);
    answer(context, command.cdb.u32(10))
}
