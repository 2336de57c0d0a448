//! NOP-Out and NOP-In (RFC 7143 11.18 and 11.19).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

/// NOP-Out (RFC 7143 11.18): a ping, the answer to a NOP-In, or a carrier of ExpStatSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NopOut {
    /// I: for immediate delivery.
    pub immediate: bool,
    /// Bytes of ping data.
    pub data_segment_length: u32,
    /// Copied from the NOP-In with its tag.
    pub lun: u64,
    /// [`RESERVED_TAG`]: no answer is wanted.
    pub initiator_task_tag: u32,
    /// The tag of the NOP-In that this answers, or [`RESERVED_TAG`].
    pub target_transfer_tag: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl NopOut {
    /// Parses the header. Refuses a NOP-Out without a tag that is not immediate (11.18.1): it would use up a CmdSN
    /// without an answer.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<NopOut, ParseError> {
        expect(header, Opcode::NopOut)?;
        let immediate = header[0] & IMMEDIATE != 0;
        let initiator_task_tag = u32_at(header, 16);
        forbid(
            initiator_task_tag == RESERVED_TAG && !immediate,
            Opcode::NopOut,
            "the Initiator Task Tag is the reserved one, and the I bit is 0",
        )?;
        Ok(NopOut {
            immediate,
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            initiator_task_tag,
            target_transfer_tag: u32_at(header, 20),
            cmd_sn: u32_at(header, 24),
            exp_stat_sn: u32_at(header, 28),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::NopOut.code() | bit(self.immediate, IMMEDIATE);
        header[1] = FINAL;
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 24, self.cmd_sn);
        put_u32(header, 28, self.exp_stat_sn);
    }
}

impl fmt::Display for NopOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NOP-Out{} lun={} itt={} ttt={} cmd_sn={} exp_stat_sn={} data={}",
            Flags([("I", self.immediate)]),
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            Tag(self.target_transfer_tag),
            self.cmd_sn,
            self.exp_stat_sn,
            self.data_segment_length
        )
    }
}

/// NOP-In (RFC 7143 11.19): the answer to a NOP-Out, a ping, or a carrier of MaxCmdSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NopIn {
    /// Bytes of ping data, in an answer.
    pub data_segment_length: u32,
    /// Comes back in the answer; valid with `target_transfer_tag`.
    pub lun: u64,
    /// The tag of the NOP-Out that this answers, or [`RESERVED_TAG`].
    pub initiator_task_tag: u32,
    /// Asks for an answer unless it is [`RESERVED_TAG`].
    pub target_transfer_tag: u32,
    /// StatSN; the next one, not advanced, when `initiator_task_tag` is the reserved tag.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
}

impl NopIn {
    /// Parses the header.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<NopIn, ParseError> {
        expect(header, Opcode::NopIn)?;
        Ok(NopIn {
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            initiator_task_tag: u32_at(header, 16),
            target_transfer_tag: u32_at(header, 20),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::NopIn.code();
        header[1] = FINAL;
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
    }
}

impl fmt::Display for NopIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NOP-In lun={} itt={} ttt={} stat_sn={} exp_cmd_sn={} max_cmd_sn={} data={}",
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            Tag(self.target_transfer_tag),
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.data_segment_length
        )
    }
}
