//! Sans-IO iSCSI target: [`login`] until the full feature phase, then [`Connection`] and [`Session`].
//! Bytes, results and the time are arguments; what to send is written into a [`Sink`].
// INTERFACE SKETCH: what the server is written against. Split inside into files by PDU family / concern.
pub mod login; // see there

use memory::{Key, Slab};
use negotiation::Parameters;
use std::time::Duration;

/// Where PDUs are written. The server's is the connection's outgoing message.
pub trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
    /// Appends `n` bytes to be filled in.
    fn reserve(&mut self, n: usize) -> &mut [u8];
}
impl Sink for Vec<u8> { fn put(&mut self, b: &[u8]) { self.extend_from_slice(b) }
    fn reserve(&mut self, n: usize) -> &mut [u8] { let l = self.len(); self.resize(l + n, 0); &mut self[l..] } }

/// A task's key in [`Tasks`].
pub type TaskKey = Key;
/// Tasks of all sessions of a core; the server keeps its own state in `T`.
pub type Tasks<T> = Slab<Task<T>>;

/// A SCSI task as the protocol sees it, and the server's part of it.
pub struct Task<T> {
    pub session: u32,             // server's index of the session (given at session creation)
    pub initiator_task_tag: u32,
    pub lun: u64,
    pub attribute: u8,            // RFC 7143 11.3.1.1 ATTR
    pub read_length: u32,         // expected data transfer length in each direction (EDTL)
    pub write_length: u32,
    // ... private: DataSN, R2TSN, outstanding bursts, next unsolicited offset, received ranges, ...
    /// The server's.
    pub work: T,
}

/// What input led to.
pub enum Advance {
    /// All input is used up.
    Idle,
    Event(Event),
    /// `length` payload bytes of a data segment come next in the stream, and belong at `offset` of the task's data
    /// (`task: None`: to be thrown away). The server takes any number of them from the input, or receives them straight
    /// into a buffer, and reports each piece with `Connection::payload`.
    Payload { task: Option<TaskKey>, offset: u32, length: u32 },
    /// The connection must be closed after what is in the sink has been sent.
    Close(CloseReason),
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason { Logout, HeaderDigest, Protocol(&'static str), Reinstated /* .. */ }

/// What the server has to do.
pub enum Event {
    /// A SCSI command. The task is in the slab. `cdb` is the 16-byte field plus the extended CDB AHS in `extended`.
    /// `immediate`: bytes of immediate data that follow as Payload. `held`: CmdSN is ahead; take its data, but start it only
    /// at `Released`. `unsolicited`: more data comes without R2T (F bit 0).
    Command { task: TaskKey, cdb: [u8; 16], immediate: u32, held: bool, unsolicited: bool },
    /// A held command's turn has come.
    Released { task: TaskKey },
    /// A Data-Out PDU (or immediate data) is complete and its digest was right: bytes [offset, offset+length) are valid.
    /// `sequence_end`: F bit, the burst or the unsolicited sequence is over.
    Data { task: TaskKey, offset: u32, length: u32, sequence_end: bool },
    /// The data of a task is beyond repair (digest error or sequence error at ERL 0): end the command with CHECK CONDITION
    /// ABORTED COMMAND, asc/ascq given (47h/05h, 0Ch/0Ch ..). The Reject is already in the sink.
    DataError { task: TaskKey, asc: u8, ascq: u8 },
    /// A task management function; answer with `Session::task_management_response` when it is truly done.
    TaskManagement(TaskManagement),
    /// A text request with SendTargets in full feature phase: the server fills in the list via `Connection::text_response`.
    SendTargets { /* which: All (discovery only) / this target / named */ },
    /// The initiator asked to log out (close session / connection): server ends tasks, then `logout_response`.
    Logout { reason: u8 },
}
pub struct TaskManagement { pub key: u32 /* protocol's handle */, pub function: u8, pub lun: u64,
    /// ABORT TASK: the task, when it exists here. `referenced_gone`: it doesn't, but its CmdSN was received (function complete) or
    /// not (RFC 7143 11.5.1 rules are decided here).
    pub referenced: Option<TaskKey> }
/// RFC 7143 11.6.1.
#[repr(u8)] #[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TmfResponse { Complete = 0, NoTask = 1, NoLun = 2, TaskStillAllegiant = 3, ReassignmentNotSupported = 4, NotSupported = 5, AuthorizationFailed = 6, Rejected = 255 }

/// What is the same for all connections of a session: CmdSN window, order, held commands. A plain value.
pub struct Session { /* .. */ }
/// One connection in full feature phase: framing, StatSN, digests, parameters, NOPs. A plain value.
pub struct Connection { /* .. */ }

impl Session {
    /// `index`: copied into its tasks. `window`: how many commands it may have queued (MaxCmdSN - ExpCmdSN + 1).
    pub fn new(index: u32, parameters: &Parameters, exp_cmd_sn: u32, window: u32) -> Session { todo!() }
}
impl Connection {
    pub fn new(parameters: Parameters, stat_sn: u32, now: Duration) -> Connection { todo!() }
    /// Uses up input (partial headers are kept inside) until there is something for the server. Answers to NOP-Out, Rejects
    /// and the like are written to the sink by itself.
    pub fn advance<T: Default>(&mut self, session: &mut Session, tasks: &mut Tasks<T>, input: &mut &[u8], sink: &mut impl Sink, now: Duration) -> Advance { todo!() }
    /// Payload bytes as announced, wherever they were put; digest is computed over them here.
    pub fn payload(&mut self, bytes: &[u8]) { todo!() }

    /// Solicits `length` bytes at `offset` of the task's data (<= MaxBurstLength; outstanding <= MaxOutstandingR2T is checked with `may_solicit`).
    pub fn ready_to_transfer<T>(&mut self, session: &mut Session, tasks: &mut Tasks<T>, task: TaskKey, offset: u32, length: u32, sink: &mut impl Sink) { todo!() }
    pub fn may_solicit<T>(&self, task: &Task<T>) -> bool { todo!() }

    /// Header of the next Data-In PDU of a task, for up to `available` bytes that follow at its current offset; cut by
    /// MaxRecvDataSegmentLength and MaxBurstLength. With `finish` the status goes into the last PDU if it is plain GOOD.
    /// Header incl. digest is written to `out` (<= 52 bytes).
    pub fn data_in<T>(&mut self, session: &mut Session, task: &mut Task<T>, available: u32, finish: Option<Finish>, out: &mut [u8; 52]) -> DataIn { todo!() }
    /// Pad and data digest that follow the payload (0..=8 bytes).
    pub fn data_trailer(&self, payload: &[u8], out: &mut [u8; 8]) -> usize { todo!() }
    /// True when Data-In needs no digest over the payload (payload need not be read).
    pub fn data_digest(&self) -> bool { todo!() }

    /// SCSI Response (when the status did not go with Data-In). `transferred`: what SCSI wanted to move (for residuals).
    pub fn response<T>(&mut self, session: &mut Session, task: &Task<T>, finish: Finish, sense: &[u8], sink: &mut impl Sink) { todo!() }
    /// Forgets the task: the server calls it after the response; opens the window.
    pub fn retire<T>(&mut self, session: &mut Session, tasks: &mut Tasks<T>, task: TaskKey) -> Option<T> { todo!() }

    pub fn task_management_response(&mut self, session: &mut Session, key: u32, response: TmfResponse, sink: &mut impl Sink) { todo!() }
    pub fn text_response(&mut self, session: &mut Session, text: &[u8], sink: &mut impl Sink) { todo!() }
    pub fn logout_response(&mut self, session: &mut Session, sink: &mut impl Sink) { todo!() }
    /// Asynchronous message (RFC 7143 11.9): 1 logout request, 2/3 drop, with times.
    pub fn asynchronous(&mut self, session: &mut Session, event: u8, parameters: [u16; 3], sink: &mut impl Sink) { todo!() }
    /// Liveness: sends a NOP-In ping after `nop_interval` of silence, Close after `nop_timeout`. Gives the next time to call.
    pub fn tick(&mut self, session: &mut Session, now: Duration, sink: &mut impl Sink) -> Result<Duration, CloseReason> { todo!() }
}
/// How a task ends.
#[derive(Clone, Copy, Debug)]
pub struct Finish { pub status: u8, /// What the SCSI command moves in all, before it is cut to the expected length (for residual over/underflow).
    pub transfer: u32 }
/// A Data-In PDU's shape.
pub struct DataIn { /// Header bytes in `out`.
    pub header: usize, /// Payload bytes of this PDU.
    pub payload: u32, /// The status was in it.
    pub finished: bool }
