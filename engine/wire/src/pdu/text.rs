//! Text Request and Text Response (RFC 7143 11.10 and 11.11). What the data segment says is in [`crate::text`].

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

/// Text Request (RFC 7143 11.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextRequest {
    /// I: for immediate delivery.
    pub immediate: bool,
    /// F: the initiator has no more to say.
    pub final_bit: bool,
    /// C: the text goes on in the next PDU.
    pub continue_bit: bool,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// Copied from the target when `target_transfer_tag` is.
    pub lun: u64,
    /// Never the reserved tag.
    pub initiator_task_tag: u32,
    /// The target's tag of a negotiation that goes on, or [`RESERVED_TAG`].
    pub target_transfer_tag: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl TextRequest {
    /// Parses the header. Refuses F and C at once (11.10.2) and the reserved Initiator Task Tag.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<TextRequest, ParseError> {
        expect(header, Opcode::TextRequest)?;
        let flags = header[1];
        let initiator_task_tag = u32_at(header, 16);
        forbid(flags & (FINAL | CONTINUE) == FINAL | CONTINUE, Opcode::TextRequest, "F and C are both set")?;
        forbid(initiator_task_tag == RESERVED_TAG, Opcode::TextRequest, "the Initiator Task Tag is the reserved one")?;
        Ok(TextRequest {
            immediate: header[0] & IMMEDIATE != 0,
            final_bit: flags & FINAL != 0,
            continue_bit: flags & CONTINUE != 0,
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
        header[0] = Opcode::TextRequest.code() | bit(self.immediate, IMMEDIATE);
        header[1] = bit(self.final_bit, FINAL) | bit(self.continue_bit, CONTINUE);
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 24, self.cmd_sn);
        put_u32(header, 28, self.exp_stat_sn);
    }
}

impl fmt::Display for TextRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Text Request{} lun={} itt={} ttt={} cmd_sn={} exp_stat_sn={} data={}",
            Flags([("I", self.immediate), ("F", self.final_bit), ("C", self.continue_bit)]),
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            Tag(self.target_transfer_tag),
            self.cmd_sn,
            self.exp_stat_sn,
            self.data_segment_length
        )
    }
}

/// Text Response (RFC 7143 11.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextResponse {
    /// F: the target has no more to say.
    pub final_bit: bool,
    /// C: the text goes on in the next PDU.
    pub continue_bit: bool,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// Valid with `target_transfer_tag`.
    pub lun: u64,
    /// Initiator Task Tag.
    pub initiator_task_tag: u32,
    /// [`RESERVED_TAG`] with F, another value without.
    pub target_transfer_tag: u32,
    /// StatSN.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
}

impl TextResponse {
    /// Parses the header. Refuses F and C at once (11.11.2).
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<TextResponse, ParseError> {
        expect(header, Opcode::TextResponse)?;
        let flags = header[1];
        forbid(flags & (FINAL | CONTINUE) == FINAL | CONTINUE, Opcode::TextResponse, "F and C are both set")?;
        Ok(TextResponse {
            final_bit: flags & FINAL != 0,
            continue_bit: flags & CONTINUE != 0,
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
        header[0] = Opcode::TextResponse.code();
        header[1] = bit(self.final_bit, FINAL) | bit(self.continue_bit, CONTINUE);
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
    }
}

impl fmt::Display for TextResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Text Response{} lun={} itt={} ttt={} stat_sn={} exp_cmd_sn={} max_cmd_sn={} data={}",
            Flags([("F", self.final_bit), ("C", self.continue_bit)]),
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
