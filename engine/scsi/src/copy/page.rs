//! What the copy manager can do: the Third-party Copy VPD page (SPC-4 7.8.17) and RECEIVE COPY OPERATING PARAMETERS.

use super::{IN, MOST_CSCDS, MOST_LIST, MOST_SEGMENTS, OUT, TABLE, cscd, operation, populate, ranges, segment, token};
use crate::{port::TargetPort, unit::LogicalUnit};

/// Descriptor type codes that are taken, in ascending order.
const DESCRIPTORS: [u8; 4] = [segment::BLOCKS, segment::VERIFY, segment::BYTES, cscd::IDENTIFICATION];

/// OPTIMAL TRANSFER COUNT and the like, in bytes.
const OPTIMAL_BYTES: u64 = 64 << 20;

/// Binary logarithm of the smallest amount that a segment moves.
fn granularity(unit: &LogicalUnit) -> u8 {
    unit.block_shift() as u8
}

/// Appends a third-party copy descriptor, padded to a multiple of four bytes.
fn descriptor(out: &mut Vec<u8>, code: u16, parameters: &[u8]) {
    let length = parameters.len().next_multiple_of(4);
    out.extend(code.to_be_bytes());
    out.extend((length as u16).to_be_bytes());
    out.extend_from_slice(parameters);
    out.resize(out.len() + length - parameters.len(), 0);
}

/// The page from its header on.
pub(crate) fn third_party_copy(unit: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    // Block Device ROD Token Limits (SBC-4 6.6.9.3).
    let mut limits = [0; 32];
    limits[6..8].copy_from_slice(&(ranges::MOST as u16).to_be_bytes());
    limits[8..12].copy_from_slice(&populate::MOST_TIMEOUT_S.to_be_bytes());
    limits[12..16].copy_from_slice(&populate::TIMEOUT_S.to_be_bytes());
    limits[16..24].copy_from_slice(&(ranges::MOST_BYTES >> unit.block_shift()).to_be_bytes());
    limits[24..32].copy_from_slice(&(OPTIMAL_BYTES >> unit.block_shift()).to_be_bytes());
    descriptor(out, 0x0000, &limits);

    let mut commands = vec![0];
    for opcode in [OUT, IN] {
        let mut actions: Vec<u8> =
            TABLE.iter().filter(|e| e.opcode == opcode).filter_map(|e| e.service_action.map(|a| a as u8)).collect();
        actions.sort_unstable();
        commands.extend([opcode, actions.len() as u8]);
        commands.extend(actions);
    }
    commands[0] = commands.len() as u8 - 1;
    descriptor(out, 0x0001, &commands);

    let mut parameters = [0; 28];
    parameters[4..6].copy_from_slice(&(MOST_CSCDS as u16).to_be_bytes());
    parameters[6..8].copy_from_slice(&(MOST_SEGMENTS as u16).to_be_bytes());
    parameters[8..12].copy_from_slice(&(MOST_LIST as u32).to_be_bytes());
    descriptor(out, 0x0004, &parameters);

    let mut types = vec![DESCRIPTORS.len() as u8];
    types.extend(DESCRIPTORS);
    descriptor(out, 0x0008, &types);

    let [high, low] = cscd::OWN_UNIT.to_be_bytes();
    descriptor(out, 0x000C, &[0, 2, high, low]);

    token_features(out);

    let mut general = [0; 32];
    general[..4].copy_from_slice(&(operation::MOST as u32).to_be_bytes());
    general[4..8].copy_from_slice(&(operation::MOST as u32).to_be_bytes());
    general[12] = granularity(unit);
    descriptor(out, 0x8001, &general);
}

/// ROD Token Features (SPC-4 7.8.17.8) with what block devices have of them, and Supported ROD Token and ROD Types.
fn token_features(out: &mut Vec<u8>) {
    // REMOTE TOKENS 0: tokens of other copy managers are not taken.
    let mut features = [0; 44 + 48];
    features[20..24].copy_from_slice(&populate::MOST_TIMEOUT_S.to_be_bytes());
    features[42..44].copy_from_slice(&48u16.to_be_bytes());
    let block = &mut features[44..];
    block[2..4].copy_from_slice(&44u16.to_be_bytes());
    // MAXIMUM BYTES IN BLOCK ROD, and what is best.
    block[8..16].copy_from_slice(&ranges::MOST_BYTES.to_be_bytes());
    for at in [16, 24, 32] {
        block[at..at + 8].copy_from_slice(&OPTIMAL_BYTES.to_be_bytes());
    }
    descriptor(out, 0x0106, &features);

    // With TOKEN_OUT and TOKEN_IN.
    let mut types = vec![0, 0, 0, 3 * 64];
    for (rod_type, flags) in [(token::CHANGE_VULNERABLE, 3), (token::ANY_POINT_IN_TIME, 1), (token::BLOCK_ZERO, 2)] {
        let end = types.len() + 64;
        types.extend(rod_type.to_be_bytes());
        types.push(flags);
        types.resize(end, 0);
    }
    descriptor(out, 0x0108, &types);
}

/// Parameter data of RECEIVE COPY OPERATING PARAMETERS (SPC-4 table 244).
pub(super) fn operating_parameters(unit: &LogicalUnit, out: &mut Vec<u8>) {
    let mut data = [0; 44];
    data[..4].copy_from_slice(&((44 - 4 + DESCRIPTORS.len()) as u32).to_be_bytes());
    data[4] = 1; // SNLID
    data[8..10].copy_from_slice(&(MOST_CSCDS as u16).to_be_bytes());
    data[10..12].copy_from_slice(&(MOST_SEGMENTS as u16).to_be_bytes());
    data[12..16].copy_from_slice(&(MOST_LIST as u32).to_be_bytes());
    data[34..36].copy_from_slice(&(operation::MOST as u16).to_be_bytes());
    data[36] = operation::MOST as u8;
    data[37] = granularity(unit);
    data[43] = DESCRIPTORS.len() as u8;
    out.extend(data);
    out.extend(DESCRIPTORS);
}
