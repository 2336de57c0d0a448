//! Result functions: how an offer and our settings become one value, for every operational key alike.
//!
//! A value is a `u32` here: a number is itself, `No` and `Yes` are 0 and 1, a digest is 0 (`None`) or 1 (`CRC32C`),
//! and TaskReporting counts up from `RFC3720`.

use crate::keys::{Function, Key};
use crate::value;
use crate::{DigestChoice, Parameters, Settings, TaskReporting};

const REPORTING: [TaskReporting; 3] = [TaskReporting::Rfc3720, TaskReporting::ResponseFence, TaskReporting::FastAbort];

fn reporting(level: u32) -> TaskReporting {
    REPORTING.get(level as usize).copied().unwrap_or_default()
}

/// Reads an operational key's value.
pub(crate) fn get(parameters: &Parameters, key: Key) -> u32 {
    let p = parameters;
    match key {
        Key::HeaderDigest => p.header_digest.into(),
        Key::DataDigest => p.data_digest.into(),
        Key::MaxConnections => p.max_connections.into(),
        Key::InitialR2T => p.initial_r2t.into(),
        Key::ImmediateData => p.immediate_data.into(),
        Key::MaxRecvDataSegmentLength => p.max_recv_data_segment_length,
        Key::MaxBurstLength => p.max_burst_length,
        Key::FirstBurstLength => p.first_burst_length,
        Key::DefaultTime2Wait => p.default_time2wait.into(),
        Key::DefaultTime2Retain => p.default_time2retain.into(),
        Key::MaxOutstandingR2T => p.max_outstanding_r2t.into(),
        Key::DataPDUInOrder => p.data_pdu_in_order.into(),
        Key::DataSequenceInOrder => p.data_sequence_in_order.into(),
        Key::ErrorRecoveryLevel => p.error_recovery_level.into(),
        Key::TaskReporting => p.task_reporting as u32,
        Key::ISCSIProtocolLevel => p.iscsi_protocol_level.into(),
        _ => 0,
    }
}

/// Writes an operational key's value, which its range (checked before) keeps within the field.
pub(crate) fn set(parameters: &mut Parameters, key: Key, value: u32) {
    let p = parameters;
    let yes = value != 0;
    let short = u16::try_from(value).unwrap_or(u16::MAX);
    let byte = u8::try_from(value).unwrap_or(u8::MAX);
    match key {
        Key::HeaderDigest => p.header_digest = yes,
        Key::DataDigest => p.data_digest = yes,
        Key::MaxConnections => p.max_connections = short,
        Key::InitialR2T => p.initial_r2t = yes,
        Key::ImmediateData => p.immediate_data = yes,
        Key::MaxRecvDataSegmentLength => p.max_recv_data_segment_length = value,
        Key::MaxBurstLength => p.max_burst_length = value,
        Key::FirstBurstLength => p.first_burst_length = value,
        Key::DefaultTime2Wait => p.default_time2wait = short,
        Key::DefaultTime2Retain => p.default_time2retain = short,
        Key::MaxOutstandingR2T => p.max_outstanding_r2t = short,
        Key::DataPDUInOrder => p.data_pdu_in_order = yes,
        Key::DataSequenceInOrder => p.data_sequence_in_order = yes,
        Key::ErrorRecoveryLevel => p.error_recovery_level = byte,
        Key::TaskReporting => p.task_reporting = reporting(value),
        Key::ISCSIProtocolLevel => p.iscsi_protocol_level = byte,
        _ => {}
    }
}

/// Our own setting of a key with a numerical or boolean result function, or of TaskReporting.
pub(crate) fn ours(settings: &Settings, key: Key) -> u32 {
    let s = settings;
    match key {
        Key::MaxConnections => s.max_connections.into(),
        Key::InitialR2T => s.initial_r2t.into(),
        Key::ImmediateData => s.immediate_data.into(),
        Key::MaxRecvDataSegmentLength => s.max_recv_data_segment_length,
        Key::MaxBurstLength => s.max_burst_length,
        Key::FirstBurstLength => s.first_burst_length.min(s.max_burst_length),
        Key::DefaultTime2Wait => s.default_time2wait.into(),
        Key::DefaultTime2Retain => s.default_time2retain.into(),
        Key::MaxOutstandingR2T => s.max_outstanding_r2t.into(),
        Key::DataPDUInOrder => s.data_pdu_in_order.into(),
        Key::DataSequenceInOrder => s.data_sequence_in_order.into(),
        Key::ErrorRecoveryLevel => s.error_recovery_level.into(),
        Key::TaskReporting => s.task_reporting as u32,
        Key::ISCSIProtocolLevel => s.iscsi_protocol_level.into(),
        _ => 0,
    }
}

fn digest_choice(settings: &Settings, key: Key) -> DigestChoice {
    if key == Key::DataDigest { settings.data_digest } else { settings.header_digest }
}

/// True when our settings can live with this value. It is also what an answer to our offer must fulfil: a responder
/// may only move a value the way that its result function goes.
pub(crate) fn acceptable(settings: &Settings, key: Key, value: u32) -> bool {
    let mine = ours(settings, key);
    match key.row().function {
        Function::Minimum(_) | Function::And => value <= mine,
        Function::Maximum(_) | Function::Or => value >= mine,
        Function::List if key == Key::TaskReporting => value <= mine,
        Function::List => digest_choice(settings, key).takes(value != 0),
        _ => true,
    }
}

/// The result of the peer's offer and our own value `mine`; None: the offer is malformed, out of range, or a list with
/// nothing for us in it, and is to be rejected.
pub(crate) fn answer(settings: &Settings, key: Key, mine: u32, offer: &str) -> Option<u32> {
    match &key.row().function {
        Function::List => wire::value::list(offer)
            .filter_map(|item| list_item(key, item))
            .find(|&item| acceptable(settings, key, item)),
        function => {
            let theirs = parse(key, offer)?;
            Some(match function {
                Function::Maximum(_) | Function::Or => theirs.max(mine),
                _ => theirs.min(mine),
            })
        }
    }
}

fn list_item(key: Key, item: &str) -> Option<u32> {
    match (key, item) {
        (Key::HeaderDigest | Key::DataDigest, "None") => Some(0),
        (Key::HeaderDigest | Key::DataDigest, "CRC32C") => Some(1),
        (Key::TaskReporting, _) => REPORTING.iter().find(|level| level.as_str() == item).map(|&level| level as u32),
        _ => None,
    }
}

/// A single value of an operational key; None when it is malformed or out of range.
pub(crate) fn parse(key: Key, text: &str) -> Option<u32> {
    match &key.row().function {
        Function::Minimum(range) | Function::Maximum(range) | Function::DeclaredNumber(range) => {
            value::number(text).filter(|number| range.contains(number))
        }
        Function::And | Function::Or => wire::value::boolean(text).ok().map(u32::from),
        Function::List => list_item(key, text),
        _ => None,
    }
}

/// Appends `key=value` with a single value.
pub(crate) fn put(out: &mut Vec<u8>, key: Key, number: u32) {
    match key.row().function {
        Function::And | Function::Or => value::put(out, key.name(), wire::value::from_boolean(number != 0)),
        Function::List if key == Key::TaskReporting => value::put(out, key.name(), reporting(number).as_str()),
        Function::List => value::put(out, key.name(), if number != 0 { "CRC32C" } else { "None" }),
        _ => value::put(out, key.name(), &number.to_string()),
    }
}

/// Appends our offer: a list where the key is one, `mine` otherwise.
pub(crate) fn put_offer(out: &mut Vec<u8>, settings: &Settings, key: Key, mine: u32) {
    match key {
        Key::HeaderDigest | Key::DataDigest => value::put(out, key.name(), digest_choice(settings, key).offer()),
        Key::TaskReporting => {
            let list: Vec<&str> = (0..=mine).rev().map(|level| reporting(level).as_str()).collect();
            value::put(out, key.name(), &list.join(","));
        }
        _ => put(out, key, mine),
    }
}
