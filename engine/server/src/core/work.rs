//! The server's part of a task: the SCSI command, and the windows through which its data moves.

use super::{
    steps::Plain,
    unit::{Charge, Weight},
};
use backstore_api::{Checks, StoreError};
use memory::{Buffer, Key, RegionSlice};
use scsi::{Command, Outcome, Span, TargetPort, UnitId};
use std::{
    ops::{Deref, DerefMut, Range},
    sync::Arc,
    time::Duration,
};

/// Windows of one task that may be in use at once.
pub(crate) const WINDOWS: usize = 4;

/// Stands for a window where the whole transfer is meant.
pub(crate) const WHOLE: usize = usize::MAX;

/// Where a task is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Stage {
    /// Just arrived.
    #[default]
    New,
    /// CmdSN is ahead of its turn.
    Held,
    /// Waits for others of its task set.
    Queued,
    /// The SCSI command runs.
    Running,
    /// Its outcome is known; unsolicited data is still on its way.
    Ending,
    /// Aborted, or its session is gone; only I/O in flight keeps it.
    Dying,
}

/// What moves between store and network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Motion {
    /// Nothing.
    #[default]
    None,
    /// Store to initiator.
    Read,
    /// Initiator to store.
    Write,
    /// Initiator's data against the store's; `repeat`: its one block against each of the store's.
    Compare,
    /// Store to nowhere.
    Check,
    /// Initiator to the command: parameter data.
    Receive,
    /// Store to store.
    Copy,
    /// COMPARE AND WRITE: `Work::parameter` against the store, then into it.
    Swap,
    /// WRITE ATOMIC: `Work::parameter` into the store.
    Put,
    /// ORWRITE: initiator to store, ORed with what is there. The transfer has a fence, not its windows.
    Merge,
    /// No data between initiator and store (flush, discard, ...): window 0 stands for it.
    Plain,
}

/// What a window of a copy does at the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Leg {
    /// Reads from the source.
    #[default]
    Read,
    /// Writes to the target.
    Write,
    /// The target's store copies by itself.
    Both,
}

/// Where a window is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    /// Not in use.
    #[default]
    Free,
    /// Data comes from the initiator.
    Filling,
    /// All is here; it waits for its turn at the store (a fence, an overlap, a full queue).
    Ready,
    /// The store has it.
    Storing,
    /// Written; waits to be read back.
    Reading,
    /// What was written is being read back.
    Verifying,
    /// Done, and not yet taken in order.
    Done,
}

/// A piece of a transfer, at most one buffer.
#[derive(Default)]
pub(crate) struct Window {
    pub phase: Phase,
    /// Offset in the transfer.
    pub start: u32,
    pub length: u32,
    /// Bytes before its start that were its own, and have been written as they came.
    pub done: u32,
    /// Bytes that arrived, or the range of the buffer that holds what was read.
    pub filled: u32,
    pub data: Range<u32>,
    /// Absent while the store or a receive has it.
    pub buffer: Option<Buffer>,
    /// What a compare or a verify holds against the other.
    pub other: Option<Buffer>,
    /// The buffers count against the unit's share as long as the window has them or the store does.
    pub charge: Option<Charge>,
    pub other_charge: Option<Charge>,
    /// A read's window counts as read ahead for its LUN.
    pub weight: Option<Weight>,
    /// Pages of a RAM volume instead of a buffer.
    pub region: Option<RegionSlice>,
    /// Bytes from its start that R2Ts have asked for, or that came unasked.
    pub asked: u32,
    /// VERIFY BYTCHK=11b: bytes of the one block that comes for all; else 0.
    pub block: u32,
    /// Of a copy.
    pub leg: Leg,
    /// The exclusive range that this window holds through a fence.
    pub fence: FenceState,
}

impl Window {
    /// Its first bytes have been written: it goes on behind them.
    pub fn advance(&mut self, bytes: u32) {
        self.start += bytes;
        self.length -= bytes;
        self.done += bytes;
        self.filled = self.filled.saturating_sub(bytes);
        self.asked = self.asked.saturating_sub(bytes);
        if self.length == 0 {
            self.phase = Phase::Done;
        }
    }

    /// What is wrong if the store gave fewer bytes than it has; `start`: where those begin.
    pub fn shortfall(&self, start: u64) -> Option<StoreError> {
        let found = self.data.len();
        (found < self.length as usize).then_some(StoreError::Medium { offset: start + found as u64 })
    }

    /// Bytes that come from the initiator for it.
    pub fn expected(&self) -> u32 {
        if self.block > 0 { self.block } else { self.length }
    }
}

/// Data that came before its command could start.
pub(crate) struct Early {
    /// Absent while a receive has it.
    pub buffer: Option<Buffer>,
    pub capacity: u32,
    pub filled: u32,
    pub charge: Option<Charge>,
}

/// Data that a command keeps.
pub(crate) struct Parameter {
    pub buffer: Buffer,
    pub length: u32,
    pub charge: Option<Charge>,
}

/// A window's exclusion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum FenceState {
    /// None is needed, or none was asked for.
    #[default]
    None,
    /// Asked for.
    Asked(u32),
    /// Held.
    Held(u32),
}

/// A transfer: `length` bytes at `base` of the medium, in windows.
#[derive(Default)]
pub(crate) struct Transfer {
    pub motion: Motion,
    pub base: u64,
    /// Where the data of a copy goes.
    pub to: u64,
    pub length: u32,
    pub durable: bool,
    pub verify: bool,
    pub repeat: bool,
    /// Data goes to the store as it comes: see `core/flowing.rs`.
    pub flows: bool,
    /// Blocks move with their tuples of protection information: lengths count both, `base` doesn't.
    pub tuples: Option<Checks>,
    /// Bytes that have been given to windows.
    pub planned: u32,
    /// Bytes done, in order.
    pub finished: u32,
    /// Ring of windows in order: `first` is the oldest of `used`.
    pub first: u8,
    pub used: u8,
    pub windows: [Window; WINDOWS],
    /// The exclusive range of all of it (ORWRITE).
    pub fence: FenceState,
    /// The first thing that went wrong.
    pub failure: Option<Failure>,
}

/// Why a transfer ends early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    Store(StoreError),
    Miscompare(u64),
    /// A copy; `reading`: its source could not be read.
    Copy {
        error: StoreError,
        reading: bool,
    },
    /// The unit has begun to work for itself: its position.
    Occupied(u16),
    /// Data came that had to wait for its turn at the store, and there was no buffer; nothing has been written.
    Starved,
    /// The protocol gave up on the data, or there was no place for it any more: ASC, ASCQ of ABORTED COMMAND.
    Data(u8, u8),
}

impl Transfer {
    /// Indexes of the windows in use, oldest first.
    pub fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, used) = (self.first as usize, self.used as usize);
        (0..used).map(move |i| (first + i) % WINDOWS)
    }

    /// A free window at the end of the order.
    pub fn open(&mut self, length: u32) -> Option<usize> {
        if self.is_full() {
            return None;
        }
        let index = (self.first as usize + self.used as usize) % WINDOWS;
        self.used += 1;
        let start = self.planned;
        self.planned += length;
        self.windows[index] = Window { start, length, ..Window::default() };
        Some(index)
    }

    /// Takes the oldest window off.
    pub fn close_oldest(&mut self) -> Window {
        assert!(self.used > 0);
        let window = std::mem::take(&mut self.windows[self.first as usize]);
        self.first = (self.first + 1) % WINDOWS as u8;
        self.used -= 1;
        self.finished += window.done + window.length;
        window
    }

    /// The oldest window is done, and can be taken off.
    pub fn is_oldest_done(&self) -> bool {
        self.used > 0 && self.windows[self.first as usize].phase == Phase::Done
    }

    /// No window is free.
    pub fn is_full(&self) -> bool {
        self.used as usize == WINDOWS
    }

    /// Bytes that no window has been given.
    pub fn left(&self) -> u32 {
        self.length - self.planned
    }

    /// The window that holds a byte of the transfer.
    pub fn window_at(&self, offset: u32) -> Option<usize> {
        self.order().find(|&i| {
            let w = &self.windows[i];
            offset >= w.start && offset - w.start < w.length
        })
    }

    /// Medium range of all of it.
    pub fn whole(&self) -> Range<u64> {
        self.base..self.base + u64::from(self.length)
    }

    /// The fence that a window asks for: its own, or with [`WHOLE`] the transfer's.
    pub fn fence(&mut self, window: usize) -> &mut FenceState {
        match self.windows.get_mut(window) {
            Some(window) => &mut window.fence,
            None => &mut self.fence,
        }
    }

    /// Whether a window, or the whole transfer, holds its fence.
    pub fn is_fenced(&self, window: usize) -> bool {
        let held = |fence| matches!(fence, FenceState::Held(_));
        held(self.windows[window].fence) || held(self.fence)
    }

    /// Medium range of a window.
    pub fn range(&self, window: usize) -> Range<u64> {
        let w = &self.windows[window];
        let (start, length) = match self.tuples {
            Some(checks) => (checks.on_medium(w.start), checks.on_medium(w.length)),
            None => (w.start, w.length),
        };
        let start = self.base + u64::from(start);
        start..start + u64::from(length)
    }

    /// What is checked of a window's tuples.
    pub fn checks(&self, window: usize) -> Option<Checks> {
        self.tuples.map(|checks| checks.skip(self.windows[window].start / checks.block_with_tuple()))
    }

    /// As much of a length as is whole blocks, where they have tuples.
    pub fn whole_blocks(&self, length: u32) -> u32 {
        self.tuples.map_or(length, |checks| length / checks.block_with_tuple() * checks.block_with_tuple())
    }
}

/// The place of a task's [`Work`]: the protocol moves its tasks by value, so that what is large stays behind a
/// pointer. It is filled when the task's command arrives, and emptied when the task goes.
#[derive(Default)]
pub(crate) struct Slot(Option<Box<Work>>);

impl Slot {
    /// Fills the place.
    pub fn fill(&mut self, work: Box<Work>) {
        self.0 = Some(work);
    }

    /// Empties it; the memory is used again.
    pub fn empty(self) -> Option<Box<Work>> {
        self.0
    }
}

impl Deref for Slot {
    type Target = Work;

    fn deref(&self) -> &Work {
        self.0.as_ref().expect("filled with the command's arrival")
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut Work {
        self.0.as_mut().expect("filled with the command's arrival")
    }
}

/// The server's part of a task.
#[derive(Default)]
pub(crate) struct Work {
    pub stage: Stage,
    /// The session's LUN entry; `None`: no such LUN.
    pub place: Option<u16>,
    /// The core's unit; meaningful with a `place`.
    pub unit: u16,
    /// The units whose stores the transfer is between, for a copy: source and target. Else both are the one.
    pub sides: [u16; 2],
    /// It was answered and goes on without a session, which had this port.
    pub detached: Option<Arc<TargetPort>>,
    /// The stores were found not to copy by themselves.
    pub by_hand: bool,
    pub command: Option<Command>,
    pub cdb: [u8; 32],
    /// Bytes of it.
    pub cdb_length: u8,
    pub transfer: Transfer,
    /// Bytes that the command moves by its CDB, for residuals.
    pub wanted: u32,
    /// More data without R2T is to come.
    pub unsolicited: bool,
    /// No buffer was free for data that came unasked: it ends in TASK SET FULL.
    pub starved: bool,
    /// It is counted in its task set.
    pub entered: bool,
    /// It stands in a list of waiting tasks.
    pub listed: bool,
    /// Whose it is.
    pub link: Key,
    /// Bytes of immediate data.
    pub immediate: u32,
    /// When the initiator was asked for data last, or sent some.
    pub asked_at: Duration,
    /// Data that came before the command could start.
    pub early: Option<Early>,
    /// That data was broken: ASC, ASCQ.
    pub early_error: Option<(u8, u8)>,
    /// Set with `Stage::Ending`.
    pub outcome: Option<Outcome>,
    /// Received parameter data, or the block of WRITE SAME and VERIFY BYTCHK=11b.
    pub parameter: Option<Parameter>,
    /// A store operation without data.
    pub plain: Plain,
    /// What the store has answered to it.
    pub answer: Option<backstore_api::Answer>,
    /// It stands in the list of those that wait for a buffer.
    pub starving: bool,
    /// Operations that own memory of this task: store I/O and direct receives.
    pub in_flight: u8,
}

impl Work {
    /// It is a command to this unit, or a copy that this unit is a side of.
    pub fn touches(&self, unit: u16, id: UnitId) -> bool {
        self.place.is_some()
            && (self.unit == unit || self.command.as_ref().is_some_and(|command| command.copies_at(id)))
    }

    /// Its data goes to the store as it comes.
    pub fn flows(&self) -> bool {
        self.stage == Stage::Running && self.transfer.motion == Motion::Write && self.transfer.flows
    }

    /// It puts the unit's lasting state on stable storage.
    pub fn saves(&self) -> bool {
        self.transfer.motion == Motion::Plain && matches!(self.plain, Plain::Save)
    }

    /// Makes it as new. Windows in use are given up; unused ones are as new already.
    pub fn reset(&mut self) {
        for i in self.transfer.order() {
            self.transfer.windows[i] = Window::default();
        }
        (self.transfer.first, self.transfer.used) = (0, 0);
        self.begin(Motion::None, Span { offset: 0, length: 0 }, 0);
        self.stage = Stage::New;
        (self.place, self.unit, self.link) = (None, 0, Key::default());
        (self.sides, self.by_hand, self.detached) = ([0; 2], false, None);
        (self.command, self.outcome, self.parameter, self.answer) = (None, None, None, None);
        (self.early, self.early_error, self.immediate, self.wanted) = (None, None, 0, 0);
        (self.unsolicited, self.starved, self.entered) = (false, false, false);
        (self.listed, self.starving, self.in_flight) = (false, false, 0);
        self.asked_at = Duration::ZERO;
    }

    /// Begins a transfer with the task's own unit.
    pub fn begin(&mut self, motion: Motion, span: Span, length: u32) -> &mut Transfer {
        debug_assert_eq!((self.transfer.used, self.transfer.fence), (0, FenceState::None));
        self.sides = [self.unit; 2];
        let transfer = &mut self.transfer;
        (transfer.motion, transfer.base, transfer.length) = (motion, span.offset, length);
        (transfer.durable, transfer.verify, transfer.repeat, transfer.flows) = (false, false, false, false);
        transfer.tuples = None;
        (transfer.planned, transfer.finished, transfer.failure) = (0, 0, None);
        transfer
    }

    /// The unit whose store a window's I/O goes to.
    #[inline]
    pub fn store_unit(&self, window: usize) -> u16 {
        let source = self.transfer.motion == Motion::Copy && self.transfer.windows[window].leg == Leg::Read;
        self.sides[usize::from(!source)]
    }

    /// Bytes of source and target where a copy is so far from its beginning.
    pub fn copy_place(&self, start: u32) -> (u64, u64) {
        (self.transfer.base + u64::from(start), self.transfer.to + u64::from(start))
    }

    /// The medium range that a window's I/O touches at its [`store_unit`](Work::store_unit).
    #[inline]
    pub fn store_range(&self, window: usize) -> Range<u64> {
        match self.transfer.motion {
            Motion::Plain => self.plain.range(),
            Motion::Copy => {
                let w = &self.transfer.windows[window];
                let (from, to) = self.copy_place(w.start);
                let start = if w.leg == Leg::Read { from } else { to };
                start..start + u64::from(w.length)
            }
            _ => self.transfer.range(window),
        }
    }

    /// The same of the source, where the target's store copies by itself.
    #[inline]
    pub fn second_range(&self, window: usize) -> Option<(u16, Range<u64>)> {
        let w = &self.transfer.windows[window];
        if self.transfer.motion != Motion::Copy || w.leg != Leg::Both {
            return None;
        }
        let (from, _) = self.copy_place(w.start);
        Some((self.sides[0], from..from + u64::from(w.length)))
    }
}
