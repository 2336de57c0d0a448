//! PERSISTENT RESERVE OUT (SPC-4 6.16). REPLACE LOST RESERVATION is not there: nothing is ever lost (RLR_C is 0).

use crate::{
    command::{Command, Context, Saved, State, Step, conflict, fail, good},
    port::{Path, TargetPort},
    reservations::{Done, Known, Move, Preempt, Refused, Register, Reservations, TransportId},
    sense::{Sense, SenseKey, asc},
    table::{Entry, Start, Traits},
    unit::LogicalUnit,
};
use backstore_api::StoreError;

pub(crate) const TABLE: &[Entry] = &[
    action(REGISTER, &[0x5F, 0x00, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], longer),
    action(0x01, &[0x5F, 0x01, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], exact),
    action(0x02, &[0x5F, 0x02, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], exact),
    action(0x03, &[0x5F, 0x03, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], exact),
    action(0x04, &[0x5F, 0x04, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], exact),
    action(PREEMPT_AND_ABORT, &[0x5F, 0x05, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], exact),
    action(0x06, &[0x5F, 0x06, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], exact),
    action(0x07, &[0x5F, 0x07, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], longer),
];

const REGISTER: u8 = 0x00;
const PREEMPT_AND_ABORT: u8 = 0x05;

/// One service action.
const fn action(action: u8, usage: &'static [u8], start: Start) -> Entry {
    Entry::action(action, usage, Traits::NONE, start)
}

/// PARAMETER LIST LENGTH without TransportIDs.
const LIST: u32 = 24;
/// With: far more than a list of all registrations that there may be has of them in one command.
const MOST_LIST: u32 = 64 << 10;
const LENGTH_ERROR: Sense = Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR);

fn exact(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    if command.cdb.u32(5) == LIST { command.receive(LIST, received) } else { fail(LENGTH_ERROR) }
}

fn longer(command: &mut Command, _: &LogicalUnit, _: &mut Context<'_>) -> Step {
    let length = command.cdb.u32(5);
    if (LIST..=MOST_LIST).contains(&length) { command.receive(length, received) } else { fail(LENGTH_ERROR) }
}

/// The parameter list has come.
fn received(command: &mut Command, list: &[u8], unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let Some(nexus) = &context.nexus else {
        return fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE));
    };
    let (path, port) = (nexus.path().clone(), context.port);
    let number = |at: usize| list[at..at + 8].iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    let (key, action_key) = (number(0), number(8));
    let (scope, kind) = (command.cdb.byte(2) >> 4, command.cdb.byte(2) & 0x0F);
    let action = command.cdb.service_action() as u8;
    let result = unit.change_reservations(|reservations, known| match action {
        REGISTER | 0x06 => {
            let ignore = action != REGISTER;
            let specified = specified(list, ignore, &path, reservations, known)?;
            let (all_ports, aptpl) = (list[20] & 0x04 != 0, list[20] & 0x01 != 0);
            let further_ports = port.ports.iter().filter(|_| all_ports).map(|id| id.relative_port).collect();
            let request = Register { key, new_key: action_key, ignore, aptpl, further_ports, specified };
            reservations.register(&path, &request)
        }
        0x07 => {
            if number(16) as u32 as usize != list.len() - LIST as usize {
                return Err(LENGTH_ERROR.into());
            }
            let (unregister, aptpl) = (list[17] & 0x02 != 0, list[17] & 0x01 != 0);
            let to = destination(list, port, reservations, known);
            reservations.move_to(&path, Move { key, new_key: action_key, unregister, aptpl, to })
        }
        // SPEC_I_PT is for REGISTER alone.
        _ if list[20] & 0x08 != 0 => Err(Sense::field_in_parameters(20, Some(3)).into()),
        0x01 => reservations.reserve(&path, key, scope, kind),
        0x02 => reservations.release(&path, key, scope, kind),
        0x03 => reservations.clear(&path, key),
        _ => reservations.preempt(&path, &Preempt { key, victim: action_key, scope, kind }),
    });
    match result {
        Ok(Done { save, preempted }) => {
            let preempted = if action == PREEMPT_AND_ABORT { preempted } else { [].into() };
            match save {
                Some(number) => command.save_then_abort(number, preempted, saved as Saved),
                None => command.abort(preempted),
            }
        }
        Err(Refused::Conflict) => conflict(),
        Err(Refused::Sense(sense)) => fail(sense),
    }
}

/// The save has ended: what it stood for holds, or is taken back.
fn saved(
    command: &mut Command,
    result: Result<(), StoreError>,
    number: u64,
    unit: &LogicalUnit,
    _: &mut Context<'_>,
) -> Step {
    match (result, &command.state) {
        (Ok(()), State::Saving { preempted, .. }) => {
            let preempted = preempted.clone();
            command.abort(preempted)
        }
        (Ok(()), _) => good(),
        (Err(_), _) => {
            unit.take_back(number);
            fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE))
        }
    }
}

/// SPEC_I_PT: the nexuses of the initiator ports in the list, at the port of `path`.
fn specified(
    list: &[u8],
    ignore: bool,
    path: &Path,
    reservations: &Reservations,
    known: &Known,
) -> Result<Option<Vec<Path>>, Refused> {
    let specifies = list[20] & 0x08 != 0;
    if specifies && ignore {
        return Err(Sense::field_in_parameters(20, Some(3)).into());
    }
    if !specifies {
        return if list.len() == LIST as usize { Ok(None) } else { Err(LENGTH_ERROR.into()) };
    }
    let malformed = || Refused::from(Sense::field_in_parameters(24, None));
    let ids = TransportId::parse_list(&list[24..]).ok_or_else(malformed)?;
    let mut all = Vec::new();
    for id in ids {
        let ports = id.ports(paths(reservations, known));
        // A device of which no port is known.
        if ports.is_empty() {
            return Err(malformed());
        }
        all.extend(ports.into_iter().map(|initiator| Path { initiator, relative_port: path.relative_port }));
    }
    Ok(Some(all))
}

/// Whom REGISTER AND MOVE names: its port must be one of the target's, and its TransportID stand for one initiator port.
fn destination(list: &[u8], port: &TargetPort, reservations: &Reservations, known: &Known) -> Result<Path, Sense> {
    let relative_port = u16::from_be_bytes([list[18], list[19]]);
    if !port.ports.iter().any(|id| id.relative_port == relative_port) {
        return Err(Sense::field_in_parameters(18, None));
    }
    const MALFORMED: Sense = Sense::field_in_parameters(24, None);
    let id = match TransportId::parse(&list[24..]) {
        Some((id, length)) if length == list.len() - LIST as usize => id,
        _ => return Err(MALFORMED),
    };
    let there = paths(reservations, known).filter(|path| path.relative_port == relative_port);
    match id.ports(there).as_slice() {
        [initiator] => Ok(Path { initiator: initiator.clone(), relative_port }),
        _ => Err(MALFORMED),
    }
}

/// Every nexus that is known: logged in, or registered.
fn paths<'a>(reservations: &'a Reservations, known: &'a Known) -> impl Iterator<Item = &'a Path> {
    known.values().chain(reservations.registrations().iter().map(|r| &r.path))
}
