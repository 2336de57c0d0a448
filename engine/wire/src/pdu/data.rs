//! SCSI Data-Out and SCSI Data-In (RFC 7143 11.7).

use super::scsi_response::Status;
use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

/// SCSI Data-Out (RFC 7143 11.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataOut {
    /// F: the last PDU of the unsolicited data, or of the sequence that an R2T asked for.
    pub final_bit: bool,
    /// Bytes of data.
    pub data_segment_length: u32,
    /// Logical unit; valid with `target_transfer_tag`.
    pub lun: u64,
    /// The command's tag.
    pub initiator_task_tag: u32,
    /// The R2T's tag; [`crate::RESERVED_TAG`] for unsolicited data.
    pub target_transfer_tag: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// Counts the PDUs of a sequence from 0.
    pub data_sn: u32,
    /// Where in the task's data this segment belongs, bytes.
    pub buffer_offset: u32,
}

impl DataOut {
    /// Parses the header.
    #[inline]
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<DataOut, ParseError> {
        expect(header, Opcode::DataOut)?;
        Ok(DataOut {
            final_bit: header[1] & FINAL != 0,
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            initiator_task_tag: u32_at(header, 16),
            target_transfer_tag: u32_at(header, 20),
            exp_stat_sn: u32_at(header, 28),
            data_sn: u32_at(header, 36),
            buffer_offset: u32_at(header, 40),
        })
    }

    /// Writes all 48 bytes.
    #[inline]
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        header[0] = Opcode::DataOut.code();
        header[1] = bit(self.final_bit, FINAL);
        header[2..5].fill(0);
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 24, 0);
        put_u32(header, 28, self.exp_stat_sn);
        put_u32(header, 32, 0);
        put_u32(header, 36, self.data_sn);
        put_u32(header, 40, self.buffer_offset);
        put_u32(header, 44, 0);
    }
}

impl fmt::Display for DataOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Data-Out{} lun={} itt={} ttt={} data_sn={} offset={} exp_stat_sn={} data={}",
            Flags([("F", self.final_bit)]),
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            Tag(self.target_transfer_tag),
            self.data_sn,
            self.buffer_offset,
            self.exp_stat_sn,
            self.data_segment_length
        )
    }
}

const ACKNOWLEDGE: u8 = 0x40;
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;
const STATUS: u8 = 0x01;

/// SCSI Data-In (RFC 7143 11.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataIn {
    /// F: the last PDU of a sequence.
    pub final_bit: bool,
    /// A: asks for a DataACK SNACK; error recovery level 1 and 2 only.
    pub acknowledge: bool,
    /// O, valid with `status_present`.
    pub residual_overflow: bool,
    /// U, valid with `status_present`.
    pub residual_underflow: bool,
    /// S: `status`, `residual_count` and `stat_sn` are valid, and no SCSI Response follows.
    pub status_present: bool,
    /// SCSI status, valid with `status_present`.
    pub status: u8,
    /// Bytes of data.
    pub data_segment_length: u32,
    /// Logical unit; only with `acknowledge`, else 0.
    pub lun: u64,
    /// The command's tag.
    pub initiator_task_tag: u32,
    /// For the DataACK; else [`crate::RESERVED_TAG`].
    pub target_transfer_tag: u32,
    /// StatSN, valid with `status_present`.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// Counts the Data-In PDUs of a command from 0.
    pub data_sn: u32,
    /// Where in the task's data this segment belongs, bytes.
    pub buffer_offset: u32,
    /// Bytes, valid with `status_present` and O or U.
    pub residual_count: u32,
}

impl DataIn {
    /// The one PDU that carries all data of a command and status GOOD. StatSN, ExpCmdSN and MaxCmdSN are left at 0: they are the
    /// sender's to fill in.
    #[inline]
    pub fn whole(initiator_task_tag: u32, data_segment_length: u32) -> DataIn {
        DataIn {
            final_bit: true,
            acknowledge: false,
            residual_overflow: false,
            residual_underflow: false,
            status_present: true,
            status: 0,
            data_segment_length,
            lun: 0,
            initiator_task_tag,
            target_transfer_tag: RESERVED_TAG,
            stat_sn: 0,
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
            data_sn: 0,
            buffer_offset: 0,
            residual_count: 0,
        }
    }

    /// Parses the header. Refuses S without F, and overflow and underflow at once (11.7.3).
    #[inline]
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<DataIn, ParseError> {
        expect(header, Opcode::DataIn)?;
        let flags = header[1];
        forbid(flags & (FINAL | STATUS) == STATUS, Opcode::DataIn, "S is set without F")?;
        forbid(
            flags & (OVERFLOW | UNDERFLOW) == OVERFLOW | UNDERFLOW,
            Opcode::DataIn,
            "overflow and underflow are both set",
        )?;
        Ok(DataIn {
            final_bit: flags & FINAL != 0,
            acknowledge: flags & ACKNOWLEDGE != 0,
            residual_overflow: flags & OVERFLOW != 0,
            residual_underflow: flags & UNDERFLOW != 0,
            status_present: flags & STATUS != 0,
            status: header[3],
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            initiator_task_tag: u32_at(header, 16),
            target_transfer_tag: u32_at(header, 20),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
            data_sn: u32_at(header, 36),
            buffer_offset: u32_at(header, 40),
            residual_count: u32_at(header, 44),
        })
    }

    /// Writes all 48 bytes.
    #[inline]
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        header[0] = Opcode::DataIn.code();
        header[1] = bit(self.final_bit, FINAL)
            | bit(self.acknowledge, ACKNOWLEDGE)
            | bit(self.residual_overflow, OVERFLOW)
            | bit(self.residual_underflow, UNDERFLOW)
            | bit(self.status_present, STATUS);
        header[2] = 0;
        header[3] = self.status;
        header[4] = 0;
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
        put_u32(header, 36, self.data_sn);
        put_u32(header, 40, self.buffer_offset);
        put_u32(header, 44, self.residual_count);
    }
}

impl fmt::Display for DataIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Data-In{} itt={} data_sn={} offset={}",
            Flags([("F", self.final_bit), ("A", self.acknowledge), ("S", self.status_present)]),
            Tag(self.initiator_task_tag),
            self.data_sn,
            self.buffer_offset
        )?;
        if self.acknowledge {
            write!(f, " lun={} ttt={}", Lun(self.lun), Tag(self.target_transfer_tag))?;
        }
        if self.status_present {
            write!(f, " {} stat_sn={}", Status(self.status), self.stat_sn)?;
            if self.residual_overflow {
                write!(f, " overflow={}", self.residual_count)?;
            }
            if self.residual_underflow {
                write!(f, " underflow={}", self.residual_count)?;
            }
        }
        write!(f, " exp_cmd_sn={} max_cmd_sn={} data={}", self.exp_cmd_sn, self.max_cmd_sn, self.data_segment_length)
    }
}
