//! REPORT and SET TARGET PORT GROUPS (SPC-4 6.37, 6.46).

use crate::{
    access::AccessState,
    command::{Command, Context, Step, answer, fail, good},
    sense::{Sense, SenseKey, asc},
    spc::mode_pages::who,
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use std::collections::BTreeSet;

pub(crate) const TABLE: &[Entry] = &[
    Entry::action(
        0x0A,
        &[0xA3, 0xEA, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::NONE,
        report_groups,
    ),
    Entry::action(
        0x0A,
        &[0xA4, 0x0A, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
        Traits::EXPLICIT,
        set_groups,
    ),
];

/// U_SUP, S_SUP, AN_SUP, AO_SUP.
const SUPPORTED_STATES: u8 = 0x0F;
/// Bytes of a parameter list: each group once, and more than any target has.
const LONGEST_LIST: u32 = 4 + 4 * 1024;

/// The groups of the ports that reach the unit by this target.
fn groups(context: &Context<'_>) -> BTreeSet<u16> {
    context.port.ports.iter().map(|id| id.portal_group).collect()
}

fn report_groups(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let groups = groups(context);
    let out = &mut *context.scratch;
    out.clear();
    out.extend([0; 4]);
    match command.cdb.byte(1) >> 5 {
        0b000 => (),
        // The extended header; IMPLICIT TRANSITION TIME is 0: a transition takes none.
        0b001 => out.extend([0x10, 0, 0, 0]),
        _ => return fail(Sense::field_in_cdb(1, Some(7))),
    }
    for tag in groups {
        let (state, preferred, cause) = match unit.group(tag) {
            Some(group) => (group.state(), group.configured.preferred, group.cause()),
            None => (AccessState::Optimized, false, 0),
        };
        let ports = || context.port.ports.iter().filter(|id| id.portal_group == tag);
        let [high, low] = tag.to_be_bytes();
        let count = ports().count().min(255);
        out.extend([u8::from(preferred) << 7 | state as u8, SUPPORTED_STATES, high, low, 0, cause, 0, count as u8]);
        for id in ports().take(count) {
            out.extend([0, 0]);
            out.extend(id.relative_port.to_be_bytes());
        }
    }
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    answer(context, command.cdb.u32(6))
}

fn set_groups(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    match command.cdb.u32(6) {
        0 => good(),
        length if length < 4 || !length.is_multiple_of(4) => fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR)),
        length if length > LONGEST_LIST => fail(Sense::field_in_cdb(6, None)),
        length => command.receive(length, take),
    }
}

/// All of the list is checked before any of it holds.
fn take(command: &mut Command, list: &[u8], unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let known = groups(context);
    let mut states: Vec<(u16, AccessState)> = Vec::new();
    for (number, descriptor) in list.chunks_exact(4).enumerate().skip(1) {
        let at = (number * 4) as u16; // the list is bounded
        let tag = u16::from_be_bytes([descriptor[2], descriptor[3]]);
        let Some(state) = AccessState::of(descriptor[0] & 0x0F) else {
            return fail(Sense::field_in_parameters(at, Some(3)));
        };
        let twice = states.iter().any(|(other, _)| *other == tag);
        if twice || !known.contains(&tag) || unit.group(tag).is_none() {
            return fail(Sense::field_in_parameters(at + 2, None));
        }
        states.push((tag, state));
    }
    if states.is_empty() {
        return good();
    }
    let number = unit.set_access_for_good(&states, who(context).unwrap_or(u64::MAX));
    command.save(number, |_, result, number, unit, _| match result {
        Ok(()) => good(),
        Err(_) => {
            unit.take_back(number);
            fail(Sense::new(SenseKey::HardwareError, asc::SET_TARGET_PORT_GROUPS_FAILED))
        }
    })
}
