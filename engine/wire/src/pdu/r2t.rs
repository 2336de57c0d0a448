//! Ready To Transfer (RFC 7143 11.8).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

/// Ready To Transfer, R2T (RFC 7143 11.8): the target asks for a piece of a write's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadyToTransfer {
    /// Logical unit.
    pub lun: u64,
    /// The command's tag.
    pub initiator_task_tag: u32,
    /// Comes back in the Data-Out PDUs; never the reserved tag.
    pub target_transfer_tag: u32,
    /// The next StatSN; not advanced by an R2T.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// Counts the R2Ts of a command from 0.
    pub r2t_sn: u32,
    /// Where in the task's data the piece begins, bytes.
    pub buffer_offset: u32,
    /// Bytes; not 0, at most MaxBurstLength.
    pub desired_data_transfer_length: u32,
}

impl ReadyToTransfer {
    /// Parses the header. Refuses a length of 0 (11.8.4) and the reserved Target Transfer Tag (11.8.5).
    #[inline]
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<ReadyToTransfer, ParseError> {
        expect(header, Opcode::ReadyToTransfer)?;
        let target_transfer_tag = u32_at(header, 20);
        let desired_data_transfer_length = u32_at(header, 44);
        forbid(desired_data_transfer_length == 0, Opcode::ReadyToTransfer, "the Desired Data Transfer Length is 0")?;
        forbid(
            target_transfer_tag == RESERVED_TAG,
            Opcode::ReadyToTransfer,
            "the Target Transfer Tag is the reserved one",
        )?;
        Ok(ReadyToTransfer {
            lun: u64_at(header, 8),
            initiator_task_tag: u32_at(header, 16),
            target_transfer_tag,
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
            r2t_sn: u32_at(header, 36),
            buffer_offset: u32_at(header, 40),
            desired_data_transfer_length,
        })
    }

    /// Writes all 48 bytes.
    #[inline]
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        header[0] = Opcode::ReadyToTransfer.code();
        header[1] = FINAL;
        header[2..8].fill(0);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
        put_u32(header, 36, self.r2t_sn);
        put_u32(header, 40, self.buffer_offset);
        put_u32(header, 44, self.desired_data_transfer_length);
    }
}

impl fmt::Display for ReadyToTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "R2T lun={} itt={} ttt={} r2t_sn={} offset={} length={} stat_sn={} exp_cmd_sn={} max_cmd_sn={}",
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            Tag(self.target_transfer_tag),
            self.r2t_sn,
            self.buffer_offset,
            self.desired_data_transfer_length,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn
        )
    }
}
