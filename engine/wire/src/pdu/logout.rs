//! Logout Request and Logout Response (RFC 7143 11.14 and 11.15).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

code_enum! {
    /// Why the initiator logs out (RFC 7143 11.14.1).
    pub enum LogoutReason: u8 {
        /// Close the session.
        CloseSession = 0 => "close the session",
        /// Close the connection that `cid` names.
        CloseConnection = 1 => "close the connection",
        /// Remove the connection that `cid` names, for recovery.
        RemoveForRecovery = 2 => "remove the connection for recovery",
    }
}

code_enum! {
    /// Logout responses (RFC 7143 11.15.1).
    pub enum LogoutResult: u8 {
        /// Connection or session closed.
        Success = 0 => "closed",
        /// CID not found.
        CidNotFound = 1 => "CID not found",
        /// Connection recovery is not supported.
        RecoveryNotSupported = 2 => "connection recovery not supported",
        /// Cleanup failed.
        CleanupFailed = 3 => "cleanup failed",
    }
}

/// Logout Request (RFC 7143 11.14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogoutRequest {
    /// I: for immediate delivery.
    pub immediate: bool,
    /// Reason, 0..=127.
    pub reason: LogoutReason,
    /// 0 by the RFC.
    pub data_segment_length: u32,
    /// Never the reserved tag.
    pub initiator_task_tag: u32,
    /// Connection identifier; ignored when the session is closed.
    pub cid: u16,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl LogoutRequest {
    /// Parses the header. Refuses the reserved Initiator Task Tag.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<LogoutRequest, ParseError> {
        expect(header, Opcode::LogoutRequest)?;
        let initiator_task_tag = u32_at(header, 16);
        forbid(
            initiator_task_tag == RESERVED_TAG,
            Opcode::LogoutRequest,
            "the Initiator Task Tag is the reserved one",
        )?;
        Ok(LogoutRequest {
            immediate: header[0] & IMMEDIATE != 0,
            reason: LogoutReason::from_code(header[1] & 0x7f),
            data_segment_length: u24_at(header, 5),
            initiator_task_tag,
            cid: u16_at(header, 20),
            cmd_sn: u32_at(header, 24),
            exp_stat_sn: u32_at(header, 28),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::LogoutRequest.code() | bit(self.immediate, IMMEDIATE);
        header[1] = FINAL | (self.reason.code() & 0x7f);
        put_u24(header, 5, self.data_segment_length);
        put_u32(header, 16, self.initiator_task_tag);
        put_u16(header, 20, self.cid);
        put_u32(header, 24, self.cmd_sn);
        put_u32(header, 28, self.exp_stat_sn);
    }
}

impl fmt::Display for LogoutRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Logout Request{} {} cid={} itt={} cmd_sn={} exp_stat_sn={}",
            Flags([("I", self.immediate)]),
            self.reason,
            self.cid,
            Tag(self.initiator_task_tag),
            self.cmd_sn,
            self.exp_stat_sn
        )
    }
}

/// Logout Response (RFC 7143 11.15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogoutResponse {
    /// Response.
    pub response: LogoutResult,
    /// 0 by the RFC.
    pub data_segment_length: u32,
    /// Initiator Task Tag.
    pub initiator_task_tag: u32,
    /// StatSN.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// Seconds to wait before a new login, when the logout failed.
    pub time2wait: u16,
    /// Seconds after Time2Wait in which tasks are kept.
    pub time2retain: u16,
}

impl LogoutResponse {
    /// Parses the header.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<LogoutResponse, ParseError> {
        expect(header, Opcode::LogoutResponse)?;
        Ok(LogoutResponse {
            response: LogoutResult::from_code(header[2]),
            data_segment_length: u24_at(header, 5),
            initiator_task_tag: u32_at(header, 16),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
            time2wait: u16_at(header, 40),
            time2retain: u16_at(header, 42),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::LogoutResponse.code();
        header[1] = FINAL;
        header[2] = self.response.code();
        put_u24(header, 5, self.data_segment_length);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
        put_u16(header, 40, self.time2wait);
        put_u16(header, 42, self.time2retain);
    }
}

impl fmt::Display for LogoutResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Logout Response {} itt={} time2wait={} time2retain={} stat_sn={} exp_cmd_sn={} max_cmd_sn={}",
            self.response,
            Tag(self.initiator_task_tag),
            self.time2wait,
            self.time2retain,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn
        )
    }
}
