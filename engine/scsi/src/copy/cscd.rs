//! Copy sources and copy destinations: which logical unit a descriptor means (SPC-4 6.4.5).

use super::list::List;
use crate::{
    command::Context,
    sense::{Sense, SenseKey, Specific, asc},
    spc::vpd,
    unit::LogicalUnit,
};
use std::sync::Arc;

/// Bytes of a descriptor.
pub(super) const LENGTH: usize = 32;
/// Identification Descriptor CSCD descriptor.
pub(super) const IDENTIFICATION: u8 = 0xE4;
/// The unit that the command was sent to.
pub(super) const OWN_UNIT: u16 = 0xFFFF;
/// Null logical units: nothing can be sent to them.
const NULL_UNITS: [u16; 2] = [0xC000, 0xC001];

/// A copy source or destination.
#[derive(Clone)]
pub(super) struct Side {
    pub unit: Arc<LogicalUnit>,
    /// Where its descriptor is in the parameter list.
    pub descriptor: Option<u16>,
}

impl Side {
    /// What the standard calls a CSCD command failure, with where the CSCD is named.
    pub fn failure(&self) -> Sense {
        pointed(asc::THIRD_PARTY_DEVICE_FAILURE, self.descriptor)
    }
}

/// COPY ABORTED because of a CSCD descriptor.
fn pointed(code: u16, descriptor: Option<u16>) -> Sense {
    let mut sense = Sense::new(SenseKey::CopyAborted, code);
    if let Some(byte) = descriptor {
        sense.specific = Specific::Segment { descriptor: false, byte };
    }
    sense
}

/// What is checked of each descriptor before anything is copied. LU ID TYPE is ignored (SPC-4 6.4.5.6).
pub(super) fn check(descriptor: &[u8]) -> Result<(), Sense> {
    match descriptor[0] {
        IDENTIFICATION => Ok(()),
        _ => Err(Sense::illegal(asc::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE)),
    }
}

/// The unit of a CSCD descriptor ID. `field`: where the segment descriptor has the ID.
pub(super) fn resolve(
    list: &List,
    id: u16,
    field: u16,
    own: &Arc<LogicalUnit>,
    context: &Context<'_>,
) -> Result<Side, Sense> {
    let in_segment = |code| {
        let mut sense = Sense::new(SenseKey::CopyAborted, code);
        sense.specific = Specific::Segment { descriptor: true, byte: field };
        sense
    };
    if id == OWN_UNIT {
        return Ok(Side { unit: own.clone(), descriptor: None });
    }
    if NULL_UNITS.contains(&id) {
        return Err(in_segment(asc::COPY_TARGET_DEVICE_NOT_REACHABLE));
    }
    let Some((descriptor, at)) = list.cscd(id) else {
        return Err(in_segment(asc::UNREACHABLE_COPY_TARGET));
    };
    // NUL of SPC-3: a null logical unit.
    if descriptor[1] & 0x20 != 0 {
        return Err(pointed(asc::COPY_TARGET_DEVICE_NOT_REACHABLE, Some(at)));
    }
    if descriptor[1] & 0x1F != 0 {
        return Err(pointed(asc::INCORRECT_COPY_TARGET_DEVICE_TYPE, Some(at)));
    }
    // Access: what the session's own port has, and nothing else.
    let unit = context.port.luns.values().find(|unit| is_named(unit, descriptor));
    let Some(unit) = unit else { return Err(pointed(asc::COPY_TARGET_DEVICE_NOT_REACHABLE, Some(at))) };
    // DISK BLOCK LENGTH.
    let block = u32::from_be_bytes([0, descriptor[29], descriptor[30], descriptor[31]]);
    if block != 0 && block != unit.block_size() {
        return Err(pointed(asc::INVALID_FIELD_IN_PARAMETER_LIST, Some(at + 29)));
    }
    Ok(Side { unit: unit.clone(), descriptor: Some(at) })
}

/// The descriptor of a unit: by its NAA designator.
pub(super) fn of_unit(unit: &LogicalUnit) -> [u8; LENGTH] {
    let mut descriptor = [0; LENGTH];
    descriptor[0] = IDENTIFICATION;
    if let Some((kind, code_set, value)) = vpd::unit_designators(unit).find(|known| known.2.len() <= 20) {
        descriptor[4..8].copy_from_slice(&[code_set, kind, 0, value.len() as u8]);
        descriptor[8..8 + value.len()].copy_from_slice(&value);
    }
    descriptor[29..].copy_from_slice(&unit.block_size().to_be_bytes()[1..]);
    descriptor
}

/// The unit's Device Identification page has this designator.
fn is_named(unit: &LogicalUnit, descriptor: &[u8]) -> bool {
    let (code_set, association, kind) = (descriptor[4] & 0x0F, descriptor[5] >> 4 & 0b11, descriptor[5] & 0x0F);
    let Some(designator) = descriptor[8..28].get(..usize::from(descriptor[7])) else { return false };
    association == 0
        && vpd::unit_designators(unit).any(|known| known.0 == kind && known.1 == code_set && known.2 == designator)
}
