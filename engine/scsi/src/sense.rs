//! Sense data: what it says, and its fixed and descriptor formats (SPC-4 4.5).

use backstore_api::{StoreError, Tag};
use std::fmt;

/// Sense keys (SPC-4 table 48).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SenseKey {
    /// Nothing to report.
    NoSense = 0x0,
    /// The unit can't be reached.
    NotReady = 0x2,
    /// The medium failed.
    MediumError = 0x3,
    /// The device server failed.
    HardwareError = 0x4,
    /// The command is wrong.
    IllegalRequest = 0x5,
    /// A unit attention condition.
    UnitAttention = 0x6,
    /// Writing is not allowed.
    DataProtect = 0x7,
    /// A third-party copy ended early.
    CopyAborted = 0xA,
    /// The device server gave up the command.
    AbortedCommand = 0xB,
    /// Data differs from the medium.
    Miscompare = 0xE,
    /// The command is completed, and there is more to know.
    Completed = 0xF,
}

/// ADDITIONAL SENSE CODE and QUALIFIER in one number, `0xAAQQ` (SPC-4 annex F).
pub mod asc {
    #![allow(missing_docs)] // the names are the standard's texts
    pub const NONE: u16 = 0x0000;
    pub const OPERATION_IN_PROGRESS: u16 = 0x0016;
    pub const EXTENDED_COPY_INFORMATION_AVAILABLE: u16 = 0x0020;
    pub const NOT_READY_CAUSE_NOT_REPORTABLE: u16 = 0x0400;
    pub const INITIALIZING_COMMAND_REQUIRED: u16 = 0x0402;
    pub const FORMAT_IN_PROGRESS: u16 = 0x0404;
    pub const SANITIZE_IN_PROGRESS: u16 = 0x041B;
    pub const PORT_IN_STANDBY: u16 = 0x040B;
    pub const PORT_UNAVAILABLE: u16 = 0x040C;
    pub const UNREACHABLE_COPY_TARGET: u16 = 0x0804;
    pub const WRITE_ERROR: u16 = 0x0C00;
    pub const UNEXPECTED_UNSOLICITED_DATA: u16 = 0x0C0C;
    pub const NOT_ENOUGH_UNSOLICITED_DATA: u16 = 0x0C0D;
    pub const THIRD_PARTY_DEVICE_FAILURE: u16 = 0x0D01;
    pub const COPY_TARGET_DEVICE_NOT_REACHABLE: u16 = 0x0D02;
    pub const INCORRECT_COPY_TARGET_DEVICE_TYPE: u16 = 0x0D03;
    pub const COPY_TARGET_DEVICE_DATA_UNDERRUN: u16 = 0x0D04;
    pub const INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT: u16 = 0x0E03;
    pub const GUARD_CHECK_FAILED: u16 = 0x1001;
    pub const APPLICATION_TAG_CHECK_FAILED: u16 = 0x1002;
    pub const REFERENCE_TAG_CHECK_FAILED: u16 = 0x1003;
    pub const UNRECOVERED_READ_ERROR: u16 = 0x1100;
    pub const PARAMETER_LIST_LENGTH_ERROR: u16 = 0x1A00;
    pub const MISCOMPARE_DURING_VERIFY: u16 = 0x1D00;
    pub const INVALID_COMMAND_OPERATION_CODE: u16 = 0x2000;
    pub const LBA_OUT_OF_RANGE: u16 = 0x2100;
    pub const UNSUPPORTED_TOKEN_TYPE: u16 = 0x2301;
    pub const TOKEN_UNKNOWN: u16 = 0x2304;
    pub const TOKEN_EXPIRED: u16 = 0x2307;
    pub const TOKEN_CANCELLED: u16 = 0x2308;
    pub const TOKEN_DELETED: u16 = 0x2309;
    pub const INVALID_TOKEN_LENGTH: u16 = 0x230A;
    pub const INVALID_FIELD_IN_CDB: u16 = 0x2400;
    pub const LOGICAL_UNIT_NOT_SUPPORTED: u16 = 0x2500;
    pub const INVALID_FIELD_IN_PARAMETER_LIST: u16 = 0x2600;
    pub const TOO_MANY_TARGET_DESCRIPTORS: u16 = 0x2606;
    pub const UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE: u16 = 0x2607;
    pub const TOO_MANY_SEGMENT_DESCRIPTORS: u16 = 0x2608;
    pub const UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE: u16 = 0x2609;
    pub const UNEXPECTED_INEXACT_SEGMENT: u16 = 0x260A;
    pub const COPY_SEGMENT_GRANULARITY_VIOLATION: u16 = 0x260D;
    pub const WRITE_PROTECTED: u16 = 0x2700;
    pub const SOFTWARE_WRITE_PROTECTED: u16 = 0x2702;
    pub const SPACE_ALLOCATION_FAILED: u16 = 0x2707;
    pub const POWER_ON_RESET_OR_BUS_DEVICE_RESET: u16 = 0x2900;
    pub const BUS_DEVICE_RESET: u16 = 0x2903;
    pub const NEXUS_LOSS: u16 = 0x2907;
    pub const MODE_PARAMETERS_CHANGED: u16 = 0x2A01;
    pub const LOG_PARAMETERS_CHANGED: u16 = 0x2A02;
    pub const ASYMMETRIC_ACCESS_STATE_CHANGED: u16 = 0x2A06;
    pub const CAPACITY_CHANGED: u16 = 0x2A09;
    pub const TIMESTAMP_CHANGED: u16 = 0x2A10;
    pub const COMMAND_SEQUENCE_ERROR: u16 = 0x2C00;
    pub const COMMANDS_CLEARED: u16 = 0x2F00;
    pub const MEDIUM_MAY_HAVE_CHANGED: u16 = 0x2800;
    pub const RESERVATIONS_PREEMPTED: u16 = 0x2A03;
    pub const RESERVATIONS_RELEASED: u16 = 0x2A04;
    pub const REGISTRATIONS_PREEMPTED: u16 = 0x2A05;
    pub const INVALID_RELEASE_OF_PERSISTENT_RESERVATION: u16 = 0x2604;
    pub const INSUFFICIENT_REGISTRATION_RESOURCES: u16 = 0x5504;
    pub const COMMANDS_CLEARED_BY_DEVICE_SERVER: u16 = 0x2F02;
    pub const FORMAT_COMMAND_FAILED: u16 = 0x3101;
    pub const SANITIZE_COMMAND_FAILED: u16 = 0x3103;
    pub const THRESHOLD_REACHED: u16 = 0x3807;
    pub const MEDIUM_NOT_PRESENT: u16 = 0x3A00;
    pub const LOGICAL_UNIT_FAILED_SELF_TEST: u16 = 0x3E03;
    pub const INQUIRY_CHANGED: u16 = 0x3F03;
    pub const DEVICE_IDENTIFIER_CHANGED: u16 = 0x3F05;
    pub const REPORTED_LUNS_CHANGED: u16 = 0x3F0E;
    pub const INTERNAL_TARGET_FAILURE: u16 = 0x4400;
    pub const INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN: u16 = 0x550D;
    pub const PROTOCOL_SERVICE_CRC_ERROR: u16 = 0x4705;
    pub const MEDIUM_REMOVAL_PREVENTED: u16 = 0x5302;
    pub const SET_TARGET_PORT_GROUPS_FAILED: u16 = 0x670A;
    pub const FALSE_FAILURE_PREDICTION: u16 = 0x5DFF;
}

/// SENSE KEY SPECIFIC (SPC-4 4.5.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Specific {
    /// SKSV is zero.
    None,
    /// Field pointer of ILLEGAL REQUEST.
    Field {
        /// In the CDB; else in the parameter list.
        cdb: bool,
        /// Byte where the field begins.
        byte: u16,
        /// Its most significant bit, when it is not the whole byte.
        bit: Option<u8>,
    },
    /// Progress of NOT READY and NO SENSE, in 65,536ths.
    Progress(u16),
    /// Segment pointer of COPY ABORTED.
    Segment {
        /// Counted from the beginning of the segment descriptor; else from that of the parameter list.
        descriptor: bool,
        /// Byte where what is wrong begins.
        byte: u16,
    },
}

/// Sense data without a format. The format is chosen when it is written: see [`Sense::emit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// SENSE KEY.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE (high byte) and QUALIFIER (low byte); names in [`asc`].
    pub asc: u16,
    /// INFORMATION; VALID is set when there is any.
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION.
    pub command: Option<u32>,
    /// SENSE KEY SPECIFIC.
    pub specific: Specific,
}

impl Sense {
    /// Sense of a key and code, without details.
    pub const fn new(key: SenseKey, asc: u16) -> Sense {
        Sense { key, asc, information: None, command: None, specific: Specific::None }
    }

    /// ILLEGAL REQUEST with a code of [`asc`].
    pub const fn illegal(asc: u16) -> Sense {
        Sense::new(SenseKey::IllegalRequest, asc)
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN CDB, with the place of the field.
    pub const fn field_in_cdb(byte: u16, bit: Option<u8>) -> Sense {
        let mut sense = Sense::illegal(asc::INVALID_FIELD_IN_CDB);
        sense.specific = Specific::Field { cdb: true, byte, bit };
        sense
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST, with the place of the field.
    pub const fn field_in_parameters(byte: u16, bit: Option<u8>) -> Sense {
        let mut sense = Sense::illegal(asc::INVALID_FIELD_IN_PARAMETER_LIST);
        sense.specific = Specific::Field { cdb: false, byte, bit };
        sense
    }

    /// The same with INFORMATION.
    pub const fn with_information(mut self, information: u64) -> Sense {
        self.information = Some(information);
        self
    }

    /// Writes it in the format that the unit's D_SENSE bit asks for (`descriptor`: response code 72h, else 70h, both
    /// "current"); gives its length: 18 for fixed format, 8 to 40 for descriptor format.
    ///
    /// Fixed format has 4 bytes for INFORMATION: a larger value is left out and VALID stays zero (SPC-4 4.5.3).
    pub fn emit(&self, descriptor: bool, out: &mut [u8; 252]) -> usize {
        let (code, qualifier) = ((self.asc >> 8) as u8, self.asc as u8);
        let specific = self.specific_bytes();
        if !descriptor {
            out[..18].fill(0);
            out[0] = 0x70;
            if let Some(information) = self.information.and_then(|i| u32::try_from(i).ok()) {
                out[0] |= 0x80;
                out[3..7].copy_from_slice(&information.to_be_bytes());
            }
            out[2] = self.key as u8;
            out[7] = 10;
            out[8..12].copy_from_slice(&self.command.unwrap_or(0).to_be_bytes());
            out[12] = code;
            out[13] = qualifier;
            if let Some(bytes) = specific {
                out[15..18].copy_from_slice(&bytes);
            }
            return 18;
        }
        out[..8].copy_from_slice(&[0x72, self.key as u8, code, qualifier, 0, 0, 0, 0]);
        let mut end = 8;
        if let Some(information) = self.information {
            out[end..end + 4].copy_from_slice(&[0x00, 0x0A, 0x80, 0]);
            out[end + 4..end + 12].copy_from_slice(&information.to_be_bytes());
            end += 12;
        }
        if let Some(command) = self.command {
            out[end..end + 8].copy_from_slice(&[0x01, 0x0A, 0, 0, 0, 0, 0, 0]);
            out[end + 8..end + 12].copy_from_slice(&command.to_be_bytes());
            end += 12;
        }
        if let Some(bytes) = specific {
            out[end..end + 8].copy_from_slice(&[0x02, 0x06, 0, 0, bytes[0], bytes[1], bytes[2], 0]);
            end += 8;
        }
        out[7] = (end - 8) as u8;
        end
    }

    /// The three bytes with SKSV, if there is anything to say.
    fn specific_bytes(&self) -> Option<[u8; 3]> {
        let (first, value) = match self.specific {
            Specific::None => return None,
            Specific::Field { cdb, byte, bit } => {
                let place = if cdb { 0x40 } else { 0 };
                (place | bit.map_or(0, |bit| 0x08 | (bit & 7)), byte)
            }
            Specific::Progress(progress) => (0, progress),
            Specific::Segment { descriptor, byte } => (if descriptor { 0x20 } else { 0 }, byte),
        };
        let [high, low] = value.to_be_bytes();
        Some([0x80 | first, high, low])
    }

    /// What an initiator is told when the store could not do it. `block_size` turns the byte offset into the LBA of
    /// INFORMATION; `write`: the store was asked to change something.
    pub fn from_store(error: StoreError, block_size: u32, write: bool) -> Sense {
        let medium = if write { asc::WRITE_ERROR } else { asc::UNRECOVERED_READ_ERROR };
        match error {
            StoreError::Medium { offset } => {
                Sense::new(SenseKey::MediumError, medium).with_information(offset / u64::from(block_size.max(1)))
            }
            StoreError::Protection { tag, offset } => {
                let code = match tag {
                    Tag::Guard => asc::GUARD_CHECK_FAILED,
                    Tag::Application => asc::APPLICATION_TAG_CHECK_FAILED,
                    Tag::Reference => asc::REFERENCE_TAG_CHECK_FAILED,
                };
                let lba = offset / u64::from(block_size.max(1));
                Sense::new(SenseKey::AbortedCommand, code).with_information(lba)
            }
            StoreError::NoSpace => Sense::new(SenseKey::DataProtect, asc::SPACE_ALLOCATION_FAILED),
            StoreError::Gone => Sense::new(SenseKey::NotReady, asc::NOT_READY_CAUSE_NOT_REPORTABLE),
            StoreError::Latched => Sense::new(SenseKey::MediumError, asc::WRITE_ERROR),
            StoreError::ReadOnly => Sense::new(SenseKey::DataProtect, asc::WRITE_PROTECTED),
            StoreError::OutOfRange { bytes } => {
                Sense::illegal(asc::LBA_OUT_OF_RANGE).with_information(bytes / u64::from(block_size.max(1)))
            }
            StoreError::Other(_) => Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE),
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:02x}h/{:02x}h", self.key, self.asc >> 8, self.asc & 0xFF)?;
        if let Some(information) = self.information {
            write!(f, " information {information:#x}")?;
        }
        match self.specific {
            Specific::None => Ok(()),
            Specific::Field { cdb, byte, bit } => {
                write!(f, " at {} byte {byte}", if cdb { "CDB" } else { "parameter list" })?;
                bit.map_or(Ok(()), |bit| write!(f, " bit {bit}"))
            }
            Specific::Progress(progress) => write!(f, " progress {progress}/65536"),
            Specific::Segment { descriptor, byte } => {
                write!(f, " at {} byte {byte}", if descriptor { "segment descriptor" } else { "parameter list" })
            }
        }
    }
}
