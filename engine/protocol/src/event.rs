//! What input led to, and what the server has to do about it.

use crate::task::{Task, TaskKey};
use std::fmt;

/// What input led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Advance {
    /// All input is used up.
    Idle,
    /// Something for the server.
    Event(Event),
    /// `length` payload bytes of a data segment come next in the stream, and belong at `offset` of the task's data
    /// (`task: None`: to be thrown away). The server takes any number of them from the input, or receives them straight
    /// into a buffer, and reports each piece with [`Connection::payload`](crate::Connection::payload). Until all
    /// are reported, the next `advance` gives the rest again.
    Payload {
        /// Whose data it is; `None` also when the task was retired or got its status meanwhile.
        task: Option<TaskKey>,
        /// Where the bytes belong, in bytes from the start of the task's data.
        offset: u32,
        /// How many bytes are still to come.
        length: u32,
    },
    /// The connection must be closed after what is in the sink has been sent. It is given again by later calls.
    Close(CloseReason),
}

/// Why a connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The logout was answered.
    Logout,
    /// A header digest was wrong: the stream can't be trusted any more (RFC 7143 7.7, error recovery level 0).
    HeaderDigest,
    /// The peer broke a rule that leaves no way to go on.
    Protocol(&'static str),
    /// Another login took the session's place. Given by the server, never by this crate.
    Reinstated,
    /// The peer did not answer a ping in time.
    Silent,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Logout => "logged out",
            CloseReason::HeaderDigest => "a header digest was wrong",
            CloseReason::Protocol(what) => what,
            CloseReason::Reinstated => "another login took its place",
            CloseReason::Silent => "no answer to a ping",
        })
    }
}

/// What the server has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A SCSI command; the task is in the slab.
    Command {
        /// Its task.
        task: TaskKey,
        /// The header's 16-byte CDB field. [`Connection::extended_cdb`](crate::Connection::extended_cdb) has what came in
        /// an AHS beyond it, until the next `advance`.
        cdb: [u8; 16],
        /// Bytes of immediate data that follow as `Payload`.
        immediate: u32,
        /// CmdSN is ahead; take its data, but start it only at `Released`.
        held: bool,
        /// More data comes without R2T (F bit 0).
        unsolicited: bool,
    },
    /// A held command's turn has come.
    Released {
        /// Its task.
        task: TaskKey,
    },
    /// A Data-Out PDU (or immediate data) is complete and its digest was right: bytes [offset, offset + length) are
    /// valid.
    Data {
        /// Its task.
        task: TaskKey,
        /// First byte.
        offset: u32,
        /// Number of bytes; 0 when a PDU without data ended a sequence.
        length: u32,
        /// F bit, the burst or the unsolicited sequence is over.
        sequence_end: bool,
    },
    /// The data of a task is beyond repair at error recovery level 0: end the command with CHECK CONDITION, ABORTED COMMAND and
    /// this asc and ascq (RFC 7143 11.4.7.2): 47h/05h for a digest or sequence error, 0Ch/0Ch unexpected unsolicited data,
    /// 0Ch/0Dh not enough or too much unsolicited data. It comes once, when the initiator owes no more data; what comes
    /// between the error and it is thrown away. After a digest error the Reject is in the sink already.
    DataError {
        /// Its task.
        task: TaskKey,
        /// Additional sense code.
        asc: u8,
        /// Additional sense code qualifier.
        ascq: u8,
    },
    /// A task management function; answer with
    /// [`Connection::task_management_response`](crate::Connection::task_management_response) when it is truly done.
    TaskManagement(TaskManagement),
    /// A text request with SendTargets in full feature phase: the server fills in the list via
    /// [`Connection::text_response`](crate::Connection::text_response).
    SendTargets(SendTargets),
    /// The initiator asked to log out: the server ends the tasks, then calls
    /// [`Connection::logout_response`](crate::Connection::logout_response). Input is thrown away from here on.
    Logout {
        /// 0 close the session, 1 close the connection (RFC 7143 11.14.1).
        reason: u8,
    },
}

/// Which targets a SendTargets asks for (RFC 7143 appendix C).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendTargets {
    /// All that the initiator may see; meant for discovery sessions.
    All,
    /// The session's own target.
    This,
    /// The target of this name.
    Named(Box<str>),
}

/// A task management function for the server (RFC 7143 11.5): ABORT TASK with a task to abort, ABORT TASK SET, CLEAR TASK
/// SET, LOGICAL UNIT RESET, TARGET WARM RESET and TARGET COLD RESET. Other functions are answered without the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagement {
    /// The protocol's handle, for the response.
    pub key: u32,
    /// 1 ABORT TASK, 2 ABORT TASK SET, 4 CLEAR TASK SET, 5 LOGICAL UNIT RESET, 6 TARGET WARM RESET, 7 TARGET COLD RESET.
    pub function: u8,
    /// Logical Unit Number field.
    pub lun: u64,
    /// ABORT TASK: the task, always there (an ABORT TASK for a task that is not here is answered by the rules of RFC 7143
    /// 11.6.1 without the server). `None` for all others.
    pub referenced: Option<TaskKey>,
    /// Its own CmdSN: later commands are not affected.
    pub cmd_sn: u32,
}

impl TaskManagement {
    /// Whether a task of the session that sent the request is in its scope: by function, LUN and order.
    /// For ABORT TASK compare with `referenced`.
    pub fn affects<T>(&self, task: &Task<T>) -> bool {
        let before = task.is_immediate() || (task.cmd_sn().wrapping_sub(self.cmd_sn) as i32) < 0;
        match self.function {
            2 | 4 | 5 => before && task.lun == self.lun,
            6 | 7 => before,
            _ => false,
        }
    }
}

/// Response field of a Task Management Function Response (RFC 7143 11.6.1).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TmfResponse {
    /// Function complete.
    Complete = 0,
    /// Task does not exist.
    NoTask = 1,
    /// LUN does not exist.
    NoLun = 2,
    /// Task still allegiant.
    TaskStillAllegiant = 3,
    /// Task allegiance reassignment not supported.
    ReassignmentNotSupported = 4,
    /// Task management function not supported.
    NotSupported = 5,
    /// Function authorization failed.
    AuthorizationFailed = 6,
    /// Function rejected.
    Rejected = 255,
}
