//! Asynchronous Message (RFC 7143 11.9).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

code_enum! {
    /// Asynchronous events (RFC 7143 11.9.1).
    pub enum AsyncEvent: u8 {
        /// A SCSI asynchronous event; sense is in the data segment.
        ScsiEvent = 0 => "SCSI event",
        /// The target asks for a logout within `parameter3` seconds.
        LogoutRequest = 1 => "target requests logout",
        /// The target will drop connection `parameter1`.
        ConnectionDrop = 2 => "target drops the connection",
        /// The target will drop all connections of the session.
        SessionDrop = 3 => "target drops the session",
        /// The target asks to negotiate parameters on this connection within `parameter3` seconds.
        NegotiationRequest = 4 => "target requests parameter negotiation",
        /// All active tasks of the LUN are being terminated.
        TaskTermination = 5 => "tasks of the logical unit are terminated",
        /// Vendor specific; `async_vcode` says what.
        VendorSpecific = 255 => "vendor specific event",
    }
}

/// Asynchronous Message (RFC 7143 11.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsyncMessage {
    /// Bytes of sense and event data.
    pub data_segment_length: u32,
    /// Logical unit of a SCSI event or task termination; else 0.
    pub lun: u64,
    /// StatSN.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// AsyncEvent.
    pub async_event: AsyncEvent,
    /// AsyncVCode, with [`AsyncEvent::VendorSpecific`].
    pub async_vcode: u8,
    /// CID, for [`AsyncEvent::ConnectionDrop`].
    pub parameter1: u16,
    /// Time2Wait in seconds, for the drops.
    pub parameter2: u16,
    /// Time2Retain in seconds for the drops; the time to act for the requests.
    pub parameter3: u16,
}

impl AsyncMessage {
    /// Parses the header.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<AsyncMessage, ParseError> {
        expect(header, Opcode::AsyncMessage)?;
        Ok(AsyncMessage {
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
            async_event: AsyncEvent::from_code(header[36]),
            async_vcode: header[37],
            parameter1: u16_at(header, 38),
            parameter2: u16_at(header, 40),
            parameter3: u16_at(header, 42),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::AsyncMessage.code();
        header[1] = FINAL;
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, RESERVED_TAG);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
        header[36] = self.async_event.code();
        header[37] = self.async_vcode;
        put_u16(header, 38, self.parameter1);
        put_u16(header, 40, self.parameter2);
        put_u16(header, 42, self.parameter3);
    }
}

impl fmt::Display for AsyncMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Async Message {} vcode={} parameters={},{},{} lun={} stat_sn={} exp_cmd_sn={} max_cmd_sn={} data={}",
            self.async_event,
            self.async_vcode,
            self.parameter1,
            self.parameter2,
            self.parameter3,
            Lun(self.lun),
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.data_segment_length
        )
    }
}
