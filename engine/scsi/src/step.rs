//! What a command sees, asks for and hears, and how it ends.

use crate::{
    port::TargetPort,
    sense::Sense,
    status::Status,
    unit::{LogicalUnit, Nexus, UnitId},
};
use backstore_api::{Checks, Extent, Repeated, Space, StoreError};
use std::{sync::Arc, time::Duration};

/// What a command sees when it starts or steps.
pub struct Context<'a> {
    /// The port that the command came to.
    pub port: &'a TargetPort,
    /// None: no such LUN (INQUIRY 7Fh, REPORT LUNS, REQUEST SENSE answer; else ILLEGAL REQUEST 25h/00h).
    pub unit: Option<&'a Arc<LogicalUnit>>,
    /// What the session knows of the unit. None: no unit attentions.
    pub nexus: Option<&'a mut Nexus>,
    /// Reused per core: answer data is written here by the command ([`Outcome::data`] bytes from its beginning).
    pub scratch: &'a mut Vec<u8>,
    /// The time, from any fixed instant.
    pub now: Duration,
}

/// Bytes of the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Where it begins.
    pub offset: u64,
    /// Its length; 0 only where the step says so.
    pub length: u32,
}

/// What the command wants next. Every span and range lies within the medium of its unit, and is a multiple of the block
/// size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Medium to initiator. [`Event::Moved`] at the end.
    Read {
        /// Not empty.
        span: Span,
    },
    /// Initiator to medium. [`Event::Moved`] at the end.
    Write {
        /// Not empty.
        span: Span,
        /// On stable storage before the end: FUA, WCE=0, or WRITE AND VERIFY.
        durable: bool,
        /// WRITE AND VERIFY: read back and compare. [`Event::Miscompare`] is possible.
        verify: bool,
    },
    /// Like [`Step::Read`], [`Step::Write`], [`Step::Compare`] or [`Step::Check`], of blocks with their tuples of
    /// protection information behind them.
    MoveTuples {
        /// Not empty; tuples not counted.
        span: Span,
        /// Which of them.
        moving: Moving,
        /// What is checked.
        checks: Checks,
    },
    /// The initiator's data is compared with the medium, byte by byte (VERIFY, BYTCHK=01b). [`Event::Moved`], or
    /// [`Event::Miscompare`].
    Compare {
        /// Not empty.
        span: Span,
        /// BYTCHK=11b: the initiator sends one block, which is compared with every block of the span.
        repeat: bool,
    },
    /// Reads the medium and throws the data away (VERIFY, BYTCHK=00b). [`Event::Moved`].
    Check {
        /// Not empty; at most the unit's maximum transfer.
        span: Span,
    },
    /// COMPARE AND WRITE: the first half of the data that was received last (the server still has it) is compared with
    /// the span; if it is equal, the second half is written there. Nothing else may touch the span meanwhile, on any
    /// core. [`Event::Moved`], or [`Event::Miscompare`].
    Swap {
        /// Not empty; half as long as what was received, tuples not counted.
        span: Span,
        /// As for a write.
        durable: bool,
        /// The blocks came with their tuples: what is checked of these. The blocks alone are compared.
        checks: Option<Checks>,
    },
    /// ORWRITE: initiator to medium, where each bit is set that is set in the data or in the medium. Nothing else may
    /// touch the span meanwhile, on any core. [`Event::Moved`] at the end.
    Merge {
        /// Not empty.
        span: Span,
        /// As for a write.
        durable: bool,
    },
    /// WRITE ATOMIC: the data that was received last (the server still has it) is written at once, and nothing else
    /// touches the span meanwhile, on any core. [`Event::Moved`].
    Put {
        /// As long as what was received.
        span: Span,
        /// As for a write.
        durable: bool,
    },
    /// PRE-FETCH: the store begins to bring the range nearer. [`Event::Stored`].
    Prefetch {
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Collect `length` bytes of parameter data, one pattern block, or the data of COMPARE AND WRITE from the initiator
    /// (0 to 262,144; 0: nothing may be offered).
    /// [`Event::Received`]; or, before anything is collected, [`Event::Short`] or [`Event::Long`].
    Receive {
        /// Bytes.
        length: u32,
    },
    /// SYNCHRONIZE CACHE, flushing MODE SELECT, START STOP UNIT: [`Event::Stored`].
    Flush,
    /// UNMAP of one range: [`Event::Stored`].
    Discard {
        /// Bytes.
        offset: u64,
        /// Bytes; bounded.
        length: u64,
    },
    /// WRITE SAME of zeroes, or with UNMAP: [`Event::Stored`].
    Zero {
        /// Bytes.
        offset: u64,
        /// Bytes; bounded.
        length: u64,
        /// Space may be given back.
        unmap: bool,
        /// As for a write.
        durable: bool,
    },
    /// WRITE SAME with the block that was received last (the server still has it): [`Event::Stored`].
    Fill {
        /// Bytes.
        offset: u64,
        /// Bytes; at most 1 MiB.
        length: u64,
        /// As for a write.
        durable: bool,
        /// The block came with its tuple.
        tuple: Option<Repeated>,
    },
    /// A job of the unit's own has begun (SANITIZE, FORMAT UNIT): its home core takes it up ([`crate::Background`]).
    /// [`Event::Stored`] when it is recorded, or with `wait` when it is over, well or not; [`Event::Failed`] when it can't
    /// be recorded.
    Work {
        /// Wait for the end.
        wait: bool,
    },
    /// What [`LogicalUnit::lasting`] says now is put on stable storage: [`Event::Stored`].
    Save,
    /// PREEMPT AND ABORT: the tasks of the nexuses that [`crate::Command::preempted`] names are aborted on this unit, on all
    /// cores, without status; each of them that had any hears [`crate::Attention::CommandsCleared`]. [`Event::Aborted`] when the
    /// last I/O of them has ended.
    Abort,
    /// LOG SENSE: how full the store is. [`Event::Space`].
    Space,
    /// GET LBA STATUS: [`Event::Extents`].
    Status {
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Most extents that are useful.
        limit: u32,
    },
    /// Third-party copy: from one unit to another, or to another place of the same one; in pieces, in any order.
    /// [`Event::Moved`], or [`Event::CopyFailed`].
    Copy {
        /// Where the data is.
        source: UnitId,
        /// Byte of the source.
        from: u64,
        /// Where it goes.
        target: UnitId,
        /// Byte of the target.
        to: u64,
        /// Not 0; at most 16 MiB. If source and target overlap, at most 64 KiB: all of it is read before any is written.
        length: u32,
        /// As for a write.
        durable: bool,
    },
    /// Waits until no write to the range is on its way, on any core. [`Event::Stored`]; none begins before the next
    /// step is known, which is [`Step::Done`].
    Barrier {
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The command is answered with GOOD, and goes on without its session. [`Event::Stored`]; or [`Event::Failed`] when too
    /// many go on so, after which it has to be done.
    Detach,
    /// As [`Step::Status`], of any unit.
    Survey {
        /// Whose.
        unit: UnitId,
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Most extents that are useful.
        limit: u32,
    },
    /// As [`Step::Zero`], of any unit.
    Blank {
        /// Whose.
        unit: UnitId,
        /// Bytes.
        offset: u64,
        /// Bytes; bounded.
        length: u64,
        /// Space may be given back.
        unmap: bool,
        /// As for a write.
        durable: bool,
    },
    /// Finished.
    Done(Outcome),
}

/// Where blocks go with their tuples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moving {
    /// As [`Step::Read`].
    Read,
    /// As [`Step::Write`].
    Write {
        /// On stable storage before the end.
        durable: bool,
        /// Read back and compare, tuples too.
        verify: bool,
    },
    /// As [`Step::Compare`], tuples too.
    Compare,
    /// As [`Step::Check`].
    Check,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// All of the span is moved, compared or checked.
    Moved,
    /// The data differs.
    Miscompare {
        /// Byte offset in the medium of the first difference.
        offset: u64,
    },
    /// Parameter data. Bytes beyond the asked length are ignored; fewer are treated as [`Event::Short`].
    Received(&'a [u8]),
    /// Flushed, discarded, zeroed, filled or saved.
    Stored,
    /// Answer to [`Step::Abort`].
    Aborted,
    /// Answer to [`Step::Status`], adjacent from its offset on.
    Extents(&'a [Extent]),
    /// Answer to [`Step::Space`].
    Space(Space),
    /// The store could not do it, or the lasting state could not be saved.
    Failed(StoreError),
    /// A [`Step::Copy`] ended early.
    CopyFailed {
        /// What the store says.
        error: StoreError,
        /// The source could not be read; else the target could not be written.
        reading: bool,
        /// Bytes that were written, from the beginning on without a gap.
        moved: u32,
    },
    /// Another unit than that of the command has begun to work for itself, so that a [`Step::Copy`], [`Step::Survey`] or
    /// [`Step::Blank`] ended early.
    Occupied {
        /// It is the source of the copy; else the target.
        reading: bool,
    },
    /// The initiator offers fewer bytes than [`Step::Receive`] asks for (Expected Data Transfer Length); or the data-out
    /// of a write or comparison ended too early.
    Short,
    /// The initiator offers more bytes than [`Step::Receive`] asks for. WRITE SAME ends with an error; other commands ask
    /// again by the same step, and the rest becomes a residual.
    Long,
}

/// How it ended. INFORMATION of a miscompare is the offset of the first difference in the data-out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Status of the response.
    pub status: Status,
    /// Sense data of a CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Bytes of answer in the scratch, already cut to the ALLOCATION LENGTH.
    pub data: u32,
}
