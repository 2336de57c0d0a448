//! Target ports and logical unit numbers (SAM-5 4.7).

use crate::{copy::token::CopyManager, unit::LogicalUnit};
use std::{collections::BTreeMap, sync::Arc};

/// The initiator port of a session (SAM-5 4.5.6; RFC 7143 4.4.2: InitiatorName with ISID).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct InitiatorPort {
    /// InitiatorName.
    pub name: Arc<str>,
    /// ISID.
    pub isid: [u8; 6],
}

/// An I_T nexus: it outlives the sessions that use it, one after another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Path {
    /// Whose commands come over it.
    pub initiator: Arc<InitiatorPort>,
    /// RELATIVE TARGET PORT IDENTIFIER of the port that they come to.
    pub relative_port: u16,
}

/// A target port among those of its target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortId {
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_port: u16,
    /// Target portal group tag: TARGET PORT GROUP.
    pub portal_group: u16,
}

/// What the target port looks like to SCSI: names for VPD 83h, and its LUNs.
#[derive(Debug)]
pub struct TargetPort {
    /// Target iqn.
    pub target_name: String,
    /// Target portal group tag.
    pub portal_group: u16,
    /// RELATIVE TARGET PORT IDENTIFIER, allocated once and recorded.
    pub relative_port: u16,
    /// All ports of the target, this one among them: each reaches all of its LUNs.
    pub ports: Vec<PortId>,
    /// LUN (0..16383) to logical unit.
    pub luns: BTreeMap<u16, Arc<LogicalUnit>>,
    /// The copy manager's tokens: the same of all ports of this host.
    pub copies: Arc<CopyManager>,
}

/// What [`lun_number`] gives for the REPORT LUNS well-known logical unit. No map holds it: its commands go to
/// [`crate::Command::start_well_known`].
pub const WELL_KNOWN_REPORT_LUNS: u16 = 0xC101;

/// Decodes the 8-byte SAM LUN, as a big-endian number: peripheral device addressing on bus 0, flat space addressing, and
/// the well-known REPORT LUNS. Gives the LUN number, or None (no such LUN).
pub fn lun_number(raw: u64) -> Option<u16> {
    let [first, second, rest @ ..] = raw.to_be_bytes();
    if rest != [0; 6] {
        return None;
    }
    match first >> 6 {
        0b00 if first == 0 => Some(u16::from(second)),
        0b01 => Some(u16::from(first & 0x3F) << 8 | u16::from(second)),
        _ if u16::from_be_bytes([first, second]) == WELL_KNOWN_REPORT_LUNS => Some(WELL_KNOWN_REPORT_LUNS),
        _ => None,
    }
}

/// The 8-byte SAM LUN of a number below 16384: peripheral device addressing below 256, flat space addressing above.
pub fn lun_field(lun: u16) -> [u8; 8] {
    let [high, low] = lun.to_be_bytes();
    let first = if lun < 256 { 0 } else { 0x40 | high & 0x3F };
    [first, low, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lun_survives_its_field() {
        for lun in 0..16384 {
            assert_eq!(lun_number(u64::from_be_bytes(lun_field(lun))), Some(lun));
        }
    }

    #[test]
    fn other_addressing_methods_and_deeper_levels_are_no_lun() {
        assert_eq!(lun_number(0x0005_0000_0000_0000), Some(5));
        assert_eq!(lun_number(0x4005_0000_0000_0000), Some(5));
        assert_eq!(lun_number(0xC101_0000_0000_0000), Some(WELL_KNOWN_REPORT_LUNS));
        assert_eq!(lun_number(0x0105_0000_0000_0000), None, "bus 1");
        assert_eq!(lun_number(0x8005_0000_0000_0000), None, "logical unit addressing");
        assert_eq!(lun_number(0xD200_0005_0000_0000), None, "extended flat");
        assert_eq!(lun_number(0x0005_0001_0000_0000), None, "second level");
    }
}
