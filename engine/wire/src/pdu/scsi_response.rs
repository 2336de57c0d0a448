//! SCSI Response (RFC 7143 11.4, RFC 7144).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError};
use core::fmt;

code_enum! {
    /// What became of the command at the iSCSI level (RFC 7143 11.4.3). 0x80..=0xff are vendor specific.
    pub enum ScsiResponseCode: u8 {
        /// The status field is valid.
        CommandCompleted = 0x00 => "command completed at target",
        /// The target failed; status and sense are not valid.
        TargetFailure = 0x01 => "target failure",
    }
}

const BIDI_OVERFLOW: u8 = 0x10;
const BIDI_UNDERFLOW: u8 = 0x08;
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;

/// SCSI Response (RFC 7143 11.4). The data segment holds sense (two bytes SenseLength first) and response data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScsiResponse {
    /// o: overflow of a bidirectional command's read.
    pub bidi_read_overflow: bool,
    /// u: underflow of a bidirectional command's read.
    pub bidi_read_underflow: bool,
    /// O: `residual_count` bytes were not moved because the expected length was too short.
    pub residual_overflow: bool,
    /// U: `residual_count` bytes of the expected length were not moved.
    pub residual_underflow: bool,
    /// Response.
    pub response: ScsiResponseCode,
    /// SCSI status (SAM), valid if `response` is [`ScsiResponseCode::CommandCompleted`].
    pub status: u8,
    /// Bytes of sense and response data, SenseLength included.
    pub data_segment_length: u32,
    /// Status qualifier of RFC 7144; 0 below iSCSIProtocolLevel 2.
    pub status_qualifier: u16,
    /// Initiator Task Tag.
    pub initiator_task_tag: u32,
    /// SNACK Tag, 0 at error recovery level 0.
    pub snack_tag: u32,
    /// StatSN.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// How many R2T and Data-In PDUs the command had.
    pub exp_data_sn: u32,
    /// Bytes, with `bidi_read_overflow` or `bidi_read_underflow`.
    pub bidi_read_residual_count: u32,
    /// Bytes, with `residual_overflow` or `residual_underflow`.
    pub residual_count: u32,
}

impl ScsiResponse {
    /// Parses the header. Refuses overflow and underflow at once (11.4.1).
    #[inline]
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<ScsiResponse, ParseError> {
        expect(header, Opcode::ScsiResponse)?;
        let flags = header[1];
        let both = |mask| flags & mask == mask;
        forbid(
            both(OVERFLOW | UNDERFLOW) || both(BIDI_OVERFLOW | BIDI_UNDERFLOW),
            Opcode::ScsiResponse,
            "overflow and underflow are both set",
        )?;
        Ok(ScsiResponse {
            bidi_read_overflow: flags & BIDI_OVERFLOW != 0,
            bidi_read_underflow: flags & BIDI_UNDERFLOW != 0,
            residual_overflow: flags & OVERFLOW != 0,
            residual_underflow: flags & UNDERFLOW != 0,
            response: ScsiResponseCode::from_code(header[2]),
            status: header[3],
            data_segment_length: u24_at(header, 5),
            status_qualifier: u16_at(header, 8),
            initiator_task_tag: u32_at(header, 16),
            snack_tag: u32_at(header, 20),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
            exp_data_sn: u32_at(header, 36),
            bidi_read_residual_count: u32_at(header, 40),
            residual_count: u32_at(header, 44),
        })
    }

    /// Writes all 48 bytes.
    #[inline]
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        header[0] = Opcode::ScsiResponse.code();
        header[1] = FINAL
            | bit(self.bidi_read_overflow, BIDI_OVERFLOW)
            | bit(self.bidi_read_underflow, BIDI_UNDERFLOW)
            | bit(self.residual_overflow, OVERFLOW)
            | bit(self.residual_underflow, UNDERFLOW);
        header[2] = self.response.code();
        header[3] = self.status;
        header[4] = 0;
        put_u24(header, 5, self.data_segment_length);
        put_u16(header, 8, self.status_qualifier);
        header[10..16].fill(0);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.snack_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
        put_u32(header, 36, self.exp_data_sn);
        put_u32(header, 40, self.bidi_read_residual_count);
        put_u32(header, 44, self.residual_count);
    }
}

/// Prints a SCSI status by its SAM name.
pub(crate) struct Status(pub u8);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x00 => "GOOD",
            0x02 => "CHECK CONDITION",
            0x04 => "CONDITION MET",
            0x08 => "BUSY",
            0x18 => "RESERVATION CONFLICT",
            0x28 => "TASK SET FULL",
            0x30 => "ACA ACTIVE",
            0x40 => "TASK ABORTED",
            other => return write!(f, "status {other:#04x}"),
        })
    }
}

impl fmt::Display for ScsiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SCSI Response ")?;
        match self.response {
            ScsiResponseCode::CommandCompleted => write!(f, "{}", Status(self.status))?,
            other => write!(f, "{other}")?,
        }
        write!(f, " itt={}", Tag(self.initiator_task_tag))?;
        if self.residual_overflow {
            write!(f, " overflow={}", self.residual_count)?;
        }
        if self.residual_underflow {
            write!(f, " underflow={}", self.residual_count)?;
        }
        if self.bidi_read_overflow {
            write!(f, " bidi_read_overflow={}", self.bidi_read_residual_count)?;
        }
        if self.bidi_read_underflow {
            write!(f, " bidi_read_underflow={}", self.bidi_read_residual_count)?;
        }
        if self.status_qualifier != 0 {
            write!(f, " qualifier={:#06x}", self.status_qualifier)?;
        }
        write!(
            f,
            " stat_sn={} exp_cmd_sn={} max_cmd_sn={} exp_data_sn={} data={}",
            self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, self.exp_data_sn, self.data_segment_length
        )
    }
}
