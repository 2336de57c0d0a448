//! Reject (RFC 7143 11.17).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

code_enum! {
    /// Reject reasons (RFC 7143 11.17.1).
    pub enum RejectReason: u8 {
        /// Data digest error; the PDU may be sent again.
        DataDigestError = 0x02 => "data digest error",
        /// SNACK reject; the PDU may be sent again.
        SnackReject = 0x03 => "SNACK reject",
        /// Protocol error.
        ProtocolError = 0x04 => "protocol error",
        /// Command not supported.
        CommandNotSupported = 0x05 => "command not supported",
        /// Too many immediate commands; may be sent again.
        ImmediateCommandReject = 0x06 => "immediate command reject",
        /// Task in progress.
        TaskInProgress = 0x07 => "task in progress",
        /// Invalid DataACK.
        InvalidDataAck = 0x08 => "invalid data ACK",
        /// Invalid PDU field.
        InvalidPduField = 0x09 => "invalid PDU field",
        /// Out of target transfer tags; may be sent again.
        LongOperationReject = 0x0a => "long operation reject",
        /// Negotiation reset: deprecated, not to be used.
        NegotiationReset = 0x0b => "negotiation reset (deprecated)",
        /// The target waits for a logout.
        WaitingForLogout = 0x0c => "waiting for logout",
    }
}

/// Reject (RFC 7143 11.17). The data segment holds the header of the PDU in error: basic and additional segments, without
/// digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// Reason.
    pub reason: RejectReason,
    /// Bytes of the header in error, at least 48.
    pub data_segment_length: u32,
    /// StatSN.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// The next DataSN or R2TSN of the task, when data or an R2T SNACK was rejected; else 0.
    pub data_sn: u32,
}

impl Reject {
    /// Parses the header.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<Reject, ParseError> {
        expect(header, Opcode::Reject)?;
        Ok(Reject {
            reason: RejectReason::from_code(header[2]),
            data_segment_length: u24_at(header, 5),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
            data_sn: u32_at(header, 36),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::Reject.code();
        header[1] = FINAL;
        header[2] = self.reason.code();
        put_u24(header, 5, self.data_segment_length);
        put_u32(header, 16, RESERVED_TAG);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
        put_u32(header, 36, self.data_sn);
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Reject {} stat_sn={} exp_cmd_sn={} max_cmd_sn={} data_sn={} data={}",
            self.reason, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, self.data_sn, self.data_segment_length
        )
    }
}
