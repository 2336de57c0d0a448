//! The basic header segment: what the headers of all PDUs have in common (RFC 7143 11.2.1).

use crate::field::{FINAL, IMMEDIATE, OPCODE_MASK, u24_at, u32_at, u64_at};

/// Bytes of a basic header segment.
pub const BHS_LEN: usize = 48;
/// Bytes of a header or data digest.
pub const DIGEST_LEN: usize = 4;
/// The largest DataSegmentLength that the header can say: 2^24 - 1 bytes.
pub const MAX_DATA_SEGMENT_LENGTH: u32 = (1 << 24) - 1;
/// The task or transfer tag that stands for "none" (RFC 7143 11.2.1.8).
pub const RESERVED_TAG: u32 = 0xffff_ffff;

code_enum! {
    /// Opcodes, without the immediate bit (RFC 7143 11.2.1.2). Below 0x20 from the initiator, else from the target.
    pub enum Opcode: u8 {
        /// NOP-Out.
        NopOut = 0x00 => "NOP-Out",
        /// SCSI Command.
        ScsiCommand = 0x01 => "SCSI Command",
        /// SCSI Task Management Function Request.
        TaskManagementRequest = 0x02 => "Task Management Request",
        /// Login Request.
        LoginRequest = 0x03 => "Login Request",
        /// Text Request.
        TextRequest = 0x04 => "Text Request",
        /// SCSI Data-Out.
        DataOut = 0x05 => "Data-Out",
        /// Logout Request.
        LogoutRequest = 0x06 => "Logout Request",
        /// SNACK Request.
        Snack = 0x10 => "SNACK Request",
        /// NOP-In.
        NopIn = 0x20 => "NOP-In",
        /// SCSI Response.
        ScsiResponse = 0x21 => "SCSI Response",
        /// SCSI Task Management Function Response.
        TaskManagementResponse = 0x22 => "Task Management Response",
        /// Login Response.
        LoginResponse = 0x23 => "Login Response",
        /// Text Response.
        TextResponse = 0x24 => "Text Response",
        /// SCSI Data-In.
        DataIn = 0x25 => "Data-In",
        /// Logout Response.
        LogoutResponse = 0x26 => "Logout Response",
        /// Ready To Transfer.
        ReadyToTransfer = 0x31 => "R2T",
        /// Asynchronous Message.
        AsyncMessage = 0x32 => "Async Message",
        /// Reject.
        Reject = 0x3f => "Reject",
    }
}

impl Opcode {
    /// True for the opcodes that an initiator sends.
    pub const fn is_request(self) -> bool {
        self.code() < 0x20
    }
}

/// The opcode of a header.
#[inline]
pub fn opcode(header: &[u8; BHS_LEN]) -> Opcode {
    Opcode::from_code(header[0] & OPCODE_MASK)
}

/// Bytes of padding after a segment of `len` bytes, up to the next multiple of 4.
#[inline]
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// `len` rounded up to a multiple of 4; saturates near `usize::MAX`.
#[inline]
pub const fn padded(len: usize) -> usize {
    len.saturating_add(padding(len))
}

/// View of the fields that all PDUs have at the same place.
#[derive(Clone, Copy, Debug)]
pub struct Bhs<'a>(pub &'a [u8; BHS_LEN]);

impl<'a> Bhs<'a> {
    /// A view of this header.
    #[inline]
    pub const fn new(header: &'a [u8; BHS_LEN]) -> Bhs<'a> {
        Bhs(header)
    }

    /// The opcode.
    #[inline]
    pub fn opcode(self) -> Opcode {
        opcode(self.0)
    }

    /// The I bit: the command is for immediate delivery. Requests only.
    #[inline]
    pub fn immediate(self) -> bool {
        self.0[0] & IMMEDIATE != 0
    }

    /// The F bit (T in login PDUs).
    #[inline]
    pub fn final_bit(self) -> bool {
        self.0[1] & FINAL != 0
    }

    /// TotalAHSLength as the header says it: in words of four bytes.
    #[inline]
    pub fn total_ahs_length(self) -> u8 {
        self.0[4]
    }

    /// Bytes of all additional header segments, padding included: 0..=1020.
    #[inline]
    pub fn ahs_len(self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// DataSegmentLength in bytes, without padding.
    #[inline]
    pub fn data_segment_length(self) -> u32 {
        u24_at(self.0, 5)
    }

    /// Bytes of the data segment with its padding.
    #[inline]
    pub fn padded_data_len(self) -> usize {
        padded(self.data_segment_length() as usize)
    }

    /// LUN: the eight bytes of SAM, big endian. Not in all PDUs; login PDUs have ISID and TSIH here.
    #[inline]
    pub fn lun(self) -> u64 {
        u64_at(self.0, 8)
    }

    /// Initiator Task Tag.
    #[inline]
    pub fn initiator_task_tag(self) -> u32 {
        u32_at(self.0, 16)
    }

    /// Bytes before the data segment: basic and additional header segments, and the header digest if there is one.
    #[inline]
    pub fn header_len(self, header_digest: bool) -> usize {
        BHS_LEN + self.ahs_len() + usize::from(header_digest) * DIGEST_LEN
    }

    /// Bytes after the header: data, padding, and the data digest, which is there only when there is data
    /// (RFC 7143 11.2.3).
    #[inline]
    pub fn data_len(self, data_digest: bool) -> usize {
        let padded = self.padded_data_len();
        padded + usize::from(data_digest && padded != 0) * DIGEST_LEN
    }

    /// Bytes of the whole PDU on the wire.
    #[inline]
    pub fn pdu_len(self, header_digest: bool, data_digest: bool) -> usize {
        self.header_len(header_digest) + self.data_len(data_digest)
    }
}
