//! Sans-IO SCSI: CDBs, sense, LUN maps, unit attentions, task sets; SPC and SBC command families.
//!
//! A command is a state machine: [`Command::start`] looks at the CDB before any buffer is taken, [`Command::step`] takes
//! what happened; both answer with a [`Step`]. Bulk data never passes through here: the server moves it between store and
//! network for `Step::Read`, `Step::Write` and `Step::Compare`.
// INTERFACE SKETCH: what the server is written against. Inside, split freely: one file per command family
// (spc/inquiry.rs, spc/vpd.rs, spc/mode.rs, spc/opcodes.rs, spc/luns.rs, sbc/transfer.rs, sbc/provisioning.rs, ...).
use backstore_api::{Extent, Geometry, StoreError};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// SAM-5 status codes.
#[repr(u8)] #[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status { Good = 0, CheckCondition = 2, ConditionMet = 4, Busy = 8, ReservationConflict = 0x18, TaskSetFull = 0x28, AcaActive = 0x30, TaskAborted = 0x40 }

/// Sense: key, ASC, ASCQ, INFORMATION, sense-key specific (field pointer, progress); fixed and descriptor format (D_SENSE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense { /* key, asc, ascq, information: Option<u64>, specific: .. */ }
impl Sense {
    /// Writes it in the format that the unit's D_SENSE bit asks for; gives its length (<= 252).
    pub fn emit(&self, descriptor: bool, out: &mut [u8; 252]) -> usize { todo!() }
    pub fn from_store(error: StoreError, block_size: u32, write: bool) -> Sense { todo!() }
}

/// Identity of a logical unit: immutable while it exists.
#[derive(Clone, Debug)]
pub struct Identity { pub vendor: String, pub product: String, pub revision: String, pub serial: String,
    /// NAA designator, 8 bytes for type 3.
    pub naa: u64, /// The volume's full name, `iqn_prefix:name`.
    pub name: String }
impl Identity { /// NAA 3 from SHA-256 of the full name; serial from the same digest; vendor RINGLUN, product "DISK" defaults.
    pub fn from_name(full_name: &str) -> Identity { todo!() } }

/// A logical unit, shared by all cores. Its changing state (mode pages, start/stop, prevent counts, the log of unit
/// attentions) is behind a mutex that only control commands take; `generation()` is one atomic load, and everything a
/// READ or WRITE needs to know is cached by the [`Nexus`] until the generation moves.
pub struct LogicalUnit { /* .. */ }
impl LogicalUnit {
    /// `block_size` 512 or 4096.
    pub fn new(identity: Identity, geometry: Geometry, block_size: u32) -> Arc<LogicalUnit> { todo!() }
    pub fn generation(&self) -> u64 { todo!() }
    pub fn identity(&self) -> &Identity { todo!() }
    pub fn block_size(&self) -> u32 { todo!() }
    pub fn geometry(&self) -> Geometry { todo!() }
    /// MAXIMUM TRANSFER LENGTH in bytes, as VPD B0 says.
    pub fn max_transfer(&self) -> u32 { todo!() }
    /// Write cache enabled (mode page 08h WCE).
    pub fn write_cache(&self) -> bool { todo!() }
    /// Establishes a unit attention for every nexus but `except` (nexus identifier). Visible at once on all cores.
    pub fn attention(&self, attention: Attention, except: Option<u64>) { todo!() }
    /// LOGICAL UNIT RESET: mode pages to saved values, prevent cleared, BUS DEVICE RESET attention to all
    /// (`except`: who asked, by SAM gets it too; pass None).
    pub fn reset(&self) { todo!() }
}
/// Unit attention conditions (ASC/ASCQ).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attention { PowerOn, BusDeviceReset, NexusLoss, ModeParametersChanged, CapacityChanged, ReportedLunsChanged, CommandsCleared, InquiryChanged /* ... */ }

/// What one session (I_T nexus) knows of one logical unit. Lives with the session, on its core.
pub struct Nexus { /* cursor into the unit's attention log, cached mode bits, pending attentions, prevent flag */ }
impl Nexus { /// A new nexus has POWER ON (29h/01h style) pending. `id`: unique per session in the process.
    pub fn new(unit: &LogicalUnit, id: u64) -> Nexus { todo!() }
    /// The session ended: prevent flags are dropped, and so on.
    pub fn end(self, unit: &LogicalUnit) { todo!() } }

/// What the target port looks like to SCSI: names for VPD 83h, and its LUNs.
pub struct TargetPort {
    /// Target iqn.
    pub target_name: String,
    /// Target portal group tag.
    pub portal_group: u16,
    /// RELATIVE TARGET PORT IDENTIFIER, allocated once and recorded.
    pub relative_port: u16,
    /// LUN (0..16383) to logical unit.
    pub luns: BTreeMap<u16, Arc<LogicalUnit>>,
}
/// Decodes the 8-byte SAM LUN (peripheral, flat, well-known REPORT LUNS): the LUN number, or None (no such LUN).
pub fn lun_number(raw: u64) -> Option<u16> { todo!() }

/// What a command sees when it starts or steps.
pub struct Context<'a> {
    pub port: &'a TargetPort,
    /// None: no such LUN (INQUIRY 7Fh, REPORT LUNS, REQUEST SENSE answer; else ILLEGAL REQUEST 25h/00h).
    pub unit: Option<&'a Arc<LogicalUnit>>,
    pub nexus: Option<&'a mut Nexus>,
    /// Reused per core: answer data is written here by the command (`Outcome::data` bytes from its beginning).
    pub scratch: &'a mut Vec<u8>,
    pub now: Duration,
}

/// A command between events. Small (<= 96 bytes), moved into the server's task slot. Holds its CDB (16 bytes; longer ones
/// are refused until needed).
pub struct Command { /* .. */ }
impl Command {
    /// Checks all that can be checked from the CDB: opcode, service action, reserved bits, NACA, range, length, write
    /// protection, unit attention (INQUIRY, REPORT LUNS, REQUEST SENSE exempt), start/stop state, medium.
    /// `attribute` of the task is checked by the server (ACA refused).
    pub fn start(cdb: &[u8], context: &mut Context<'_>) -> (Command, Step) { todo!() }
    pub fn step(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Step { todo!() }
}

/// Bytes of the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span { pub offset: u64, pub length: u32 }

/// What the command wants next.
#[derive(Debug)]
pub enum Step {
    /// Medium to initiator. Event::Moved at the end.
    Read { span: Span },
    /// Initiator to medium. `durable`: FUA or WCE=0. `verify`: read back and compare (WRITE AND VERIFY). Event::Moved.
    Write { span: Span, durable: bool, verify: bool },
    /// Initiator's data is compared with the medium, byte by byte (VERIFY BYTCHK=01b; `repeat`: one block compared with
    /// all, BYTCHK=11b). Event::Moved, or Event::Miscompare.
    Compare { span: Span, repeat: bool },
    /// Reads the medium and throws the data away (VERIFY BYTCHK=00b). Event::Moved.
    Check { span: Span },
    /// Collect `length` bytes of parameter data or one pattern block from the initiator (<= 64 KiB). Event::Received.
    Receive { length: u32 },
    /// SYNCHRONIZE CACHE and flushing MODE SELECT: Event::Stored.
    Flush,
    /// UNMAP of one range: Event::Stored.
    Discard { offset: u64, length: u64 },
    /// WRITE SAME of zeroes, or with UNMAP set on a discard_zeroes store: Event::Stored.
    Zero { offset: u64, length: u64, unmap: bool, durable: bool },
    /// WRITE SAME with the block that was received last (the server still has it): Event::Stored.
    Fill { offset: u64, length: u64, durable: bool },
    /// GET LBA STATUS: Event::Extents.
    Status { offset: u64, length: u64, limit: u32 },
    /// Finished. With status Good and `data` > 0: send that many bytes of the scratch.
    Done(Outcome),
}
/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    Moved, Miscompare { /// Byte offset in the medium of the first difference.
        offset: u64 }, Received(&'a [u8]), Stored, Extents(&'a [Extent]), Failed(StoreError),
    /// The initiator gave fewer bytes than the CDB needs (EDTL short).
    Short,
}
/// How it ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome { pub status: Status, pub sense: Option<Sense>,
    /// Bytes of answer in the scratch, already cut to the ALLOCATION LENGTH.
    pub data: u32 }

/// The task set of one nexus and LUN (SAM-5 chapter 8; TST=001b so it is local to the core).
pub struct TaskSet { /* counts, waiting queue */ }
#[derive(Clone, Copy, PartialEq, Eq, Debug)] pub enum Attribute { Untagged, Simple, Ordered, HeadOfQueue, Aca }
#[derive(Clone, Copy, PartialEq, Eq, Debug)] pub enum Admit { Run, Wait }
impl TaskSet {
    pub fn new() -> TaskSet { todo!() }
    /// SIMPLE is O(1) when nothing ORDERED is about. `task`: the server's index.
    pub fn enter(&mut self, task: u32, attribute: Attribute) -> Admit { todo!() }
    /// A task ended or was aborted, running or waiting: appends those that may run now.
    pub fn leave(&mut self, task: u32, attribute: Attribute, ready: &mut Vec<u32>) { todo!() }
}

/// The fence: exclusion against I/O that other cores have submitted already (ARCHITECTURE.md). Sans-IO: `FenceHome` runs
/// on the unit's home core, `FenceGate` on every core.
pub mod fence { /* FenceId, FenceRequest{unit, range: Option<Range<u64>>}, FenceHome::{request, acknowledged, released, core_gone} -> actions;
 FenceGate::{hold, released, blocks(range) -> bool} */ }
