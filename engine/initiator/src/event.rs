//! What input leads to in full feature phase.

use crate::Handle;
use wire::{AsyncEvent, LogoutResult, RejectReason, ScsiResponseCode, TaskManagementResult};

/// One step of [`Connection::advance`](crate::Connection::advance).
#[derive(Debug)]
pub enum Advance<'a, T> {
    /// All input is used up; more has to come.
    Idle,
    /// Something for the caller.
    Event(Event<'a, T>),
    /// `length` bytes of Data-In payload come next in the stream and belong at `offset` of the command's data. Take any
    /// number of them from the input ([`take_payload`](crate::Connection::take_payload)) or receive them straight into
    /// a buffer and report them ([`payload`](crate::Connection::payload)). It is announced again, with what is left,
    /// until all of it has been reported; with an empty input that means: more has to come.
    Payload {
        /// The command.
        task: Handle,
        /// Buffer offset of the next byte.
        offset: u32,
        /// Bytes left of this data segment.
        length: u32,
    },
    /// The connection is over: close it after what was written to the output has been sent.
    Close(CloseReason),
}

/// Why a connection must be closed. At error recovery level 0 every loss of integrity ends the session (RFC 7143 7.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The target has agreed to a logout.
    #[error("logged out")]
    Logout,
    /// A header digest is wrong.
    #[error("header digest error")]
    HeaderDigest,
    /// A data digest is wrong.
    #[error("data digest error")]
    DataDigest,
    /// The target has broken the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The target has announced that it drops this connection (asynchronous event 2 or 3).
    #[error("dropped by the target")]
    Dropped,
    /// No answer to a ping in time.
    #[error("the target does not answer")]
    Timeout,
}

/// What the target has said. Slices borrow from the connection until its next call.
#[derive(Debug)]
pub enum Event<'a, T> {
    /// A SCSI command has ended; its handle is dead.
    Response(Response<'a, T>),
    /// The answer to a ping.
    Pong {
        /// The ping.
        task: Handle,
        /// The ping data as it came back.
        data: &'a [u8],
    },
    /// The answer to a task management request (RFC 7143 11.6).
    TaskManagement {
        /// The request.
        task: Handle,
        /// Response code (11.6.1).
        response: TaskManagementResult,
    },
    /// The whole answer to a text request, put together from all its PDUs: `key=value` pairs with a zero byte after each.
    Text {
        /// The request.
        task: Handle,
        /// The text.
        text: &'a [u8],
    },
    /// The answer to a logout (RFC 7143 11.15). Success is followed by [`Advance::Close`].
    Logout {
        /// The request.
        task: Handle,
        /// What became of it.
        response: LogoutResult,
        /// Seconds to wait before reconnecting.
        time2wait: u16,
        /// Seconds after that in which tasks can be reassigned.
        time2retain: u16,
    },
    /// An asynchronous message (RFC 7143 11.9). A drop of this connection or of the session is followed by [`Advance::Close`].
    Asynchronous(Asynchronous<'a>),
    /// The target has rejected a PDU of ours (RFC 7143 11.17). Its task, if any, stays: see
    /// [`forget`](crate::Connection::forget).
    Reject {
        /// Reason code (11.17.1).
        reason: RejectReason,
        /// The rejected header, when the Reject held at least 48 bytes.
        header: Option<[u8; 48]>,
    },
    /// A PDU for a tag that we don't know: the answer to a [`raw`](crate::Connection::raw) PDU, or the target's mistake.
    /// StatSN and the CmdSN window have been followed.
    Stray {
        /// The header.
        header: [u8; 48],
        /// Its data segment.
        data: &'a [u8],
    },
}

/// The end of a SCSI command, from a SCSI Response PDU or from the last Data-In.
#[derive(Debug)]
pub struct Response<'a, T> {
    /// The command.
    pub task: Handle,
    /// What was submitted with it.
    pub user: T,
    /// iSCSI response (RFC 7143 11.4.3).
    pub response: ScsiResponseCode,
    /// SCSI status, valid when `response` is [`ScsiResponseCode::CommandCompleted`].
    pub status: u8,
    /// Residual of the command's data (of the write part when it is bidirectional).
    pub residual: Residual,
    /// Residual of the read part of a bidirectional command.
    pub bidirectional_residual: Residual,
    /// Sense data; empty when there is none.
    pub sense: &'a [u8],
    /// Data-In bytes that came.
    pub received: u32,
    /// The status came with the last Data-In.
    pub with_data: bool,
}

/// Residual count (RFC 7143 11.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residual {
    /// All expected bytes were moved, and no more.
    #[default]
    None,
    /// So many of the expected bytes were not moved.
    Underflow(u32),
    /// So many bytes more would have been moved if they had been expected.
    Overflow(u32),
}

impl Residual {
    /// From the flags of a PDU, of which at most one is set.
    pub(crate) fn from_flags(overflow: bool, underflow: bool, count: u32) -> Residual {
        match (overflow, underflow) {
            (true, _) => Residual::Overflow(count),
            (false, true) => Residual::Underflow(count),
            (false, false) => Residual::None,
        }
    }
}

/// An asynchronous message (RFC 7143 11.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asynchronous<'a> {
    /// What has happened.
    pub event: AsyncEvent,
    /// Vendor's code.
    pub vcode: u8,
    /// Parameter1 to Parameter3; their meaning depends on the event.
    pub parameters: [u16; 3],
    /// The LUN field.
    pub lun: u64,
    /// Sense data of event 0, else the data segment as it came.
    pub data: &'a [u8],
}
