//! Work that belongs to a logical unit and to no session: SANITIZE and FORMAT UNIT (SBC-4 4.11, 4.34).
//!
//! A command begins a [`Job`], which is part of the unit's lasting state. The unit's home core takes it up as a
//! [`Background`], and does one [`Chore`] after the other: the job is recorded, those who wait for that are told, the whole
//! unit is claimed, and then the medium is worked off in bounded pieces. Aborts, resets and the end of its session don't
//! touch it; after a restart it goes on from its last checkpoint.

use crate::{
    sense::{Sense, SenseKey, Specific, asc},
    unit::{Flags, LogicalUnit},
};
use backstore_api::StoreError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Bytes of one write: others have the core in between.
const FILL_PIECE: u64 = 1 << 20;
const ZERO_PIECE: u64 = 4 << 20;
const UNMAP_PIECE: u64 = 64 << 20;
/// Bytes between two records of how far it has come.
const CHECKPOINT: u64 = 16 << 30;

/// What is to be done with the whole medium.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// SANITIZE, OVERWRITE.
    Overwrite {
        /// INITIALIZATION PATTERN: 1 byte to a logical block, which it is repeated in.
        pattern: Vec<u8>,
        /// INVERT: every other pass writes the complement.
        invert: bool,
        /// OVERWRITE COUNT, 1 to 31.
        passes: u8,
    },
    /// SANITIZE, BLOCK ERASE.
    Erase,
    /// FORMAT UNIT.
    Format,
}

/// A job as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub kind: Kind,
    /// AUSE: a failure may be left with EXIT FAILURE MODE.
    pub unrestricted: bool,
    pass: u8,
    /// Bytes of this pass that are on the medium.
    offset: u64,
    pub failed: bool,
}

impl Job {
    pub fn new(kind: Kind, unrestricted: bool) -> Job {
        Job { kind, unrestricted, pass: 0, offset: 0, failed: false }
    }

    fn passes(&self) -> u8 {
        match self.kind {
            Kind::Overwrite { passes, .. } => passes.max(1),
            Kind::Erase | Kind::Format => 1,
        }
    }

    /// It makes sense for this unit: a record may be damaged.
    pub fn fits(&self, unit: &LogicalUnit) -> bool {
        let size = unit.blocks() << unit.block_shift();
        let pattern = match &self.kind {
            Kind::Overwrite { pattern, .. } => (1..=unit.block_size() as usize).contains(&pattern.len()),
            Kind::Erase | Kind::Format => true,
        };
        pattern
            && self.pass < self.passes()
            && self.offset <= size
            && self.offset.is_multiple_of(unit.block_size().into())
    }

    /// What commands are told meanwhile, or after it has failed.
    fn sense(&self, progress: u16) -> Sense {
        let code = match (self.failed, &self.kind) {
            (true, Kind::Format) => return Sense::new(SenseKey::MediumError, asc::FORMAT_COMMAND_FAILED),
            (true, _) => return Sense::new(SenseKey::MediumError, asc::SANITIZE_COMMAND_FAILED),
            (false, Kind::Format) => asc::FORMAT_IN_PROGRESS,
            (false, _) => asc::SANITIZE_IN_PROGRESS,
        };
        Sense { specific: Specific::Progress(progress), ..Sense::new(SenseKey::NotReady, code) }
    }
}

/// What the home core does next for a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chore {
    /// Put [`LogicalUnit::lasting`] on stable storage.
    Save,
    /// Tell those who wait for the beginning; the error: it could not be recorded, and nothing will be done.
    Began(Result<(), StoreError>),
    /// Keep all I/O of others away from the whole unit, until it has ended. What is under way ends, or is refused with
    /// [`LogicalUnit::occupied`].
    Claim,
    /// Write what [`Background::pattern`] makes over a range.
    Fill {
        /// Bytes.
        offset: u64,
        /// Bytes; bounded.
        length: u64,
    },
    /// Zero a range.
    Zero {
        /// Bytes.
        offset: u64,
        /// Bytes; bounded.
        length: u64,
        /// Space may be given back.
        unmap: bool,
    },
    /// All that was written reaches stable storage.
    Flush,
    /// It is over: release the claim, and tell those who wait for the end.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Recording,
    Telling(Result<(), StoreError>),
    Claiming,
    Working,
    /// A checkpoint: what is written so far is made stable, and then recorded.
    Flushing,
    Noting,
    /// All is written.
    LastFlush,
    Forgetting,
    /// It has failed.
    Failing,
    Over,
}

/// A job on its way. Lives on the unit's home core.
#[derive(Debug)]
pub struct Background {
    job: Job,
    size: u64,
    unmap: bool,
    phase: Phase,
    /// Bytes since the last checkpoint.
    since: u64,
}

impl Background {
    /// Takes up what the unit has to do, if it has. Once: the caller knows whom it runs already.
    pub fn take_up(unit: &LogicalUnit) -> Option<Background> {
        let state = unit.lock();
        let job = state.lasting.job.clone().filter(|job| !job.failed)?;
        // What was restored is recorded.
        let phase = if state.job_is_new { Phase::Recording } else { Phase::Claiming };
        let size = unit.blocks() << unit.block_shift();
        Some(Background { job, size, unmap: unit.unmaps(), phase, since: 0 })
    }

    /// What to do now. Asking again gives the same until [`Background::done`].
    pub fn next(&self) -> Chore {
        match self.phase {
            Phase::Recording | Phase::Noting | Phase::Forgetting | Phase::Failing => Chore::Save,
            Phase::Telling(result) => Chore::Began(result),
            Phase::Claiming => Chore::Claim,
            Phase::Flushing | Phase::LastFlush => Chore::Flush,
            Phase::Over => Chore::End,
            Phase::Working => {
                let offset = self.job.offset;
                let piece = |most: u64| (self.size - offset).min(most);
                match self.job.kind {
                    Kind::Overwrite { .. } => Chore::Fill { offset, length: piece(FILL_PIECE) },
                    Kind::Erase | Kind::Format => {
                        let most = if self.unmap { UNMAP_PIECE } else { ZERO_PIECE };
                        Chore::Zero { offset, length: piece(most), unmap: self.unmap }
                    }
                }
            }
        }
    }

    /// Fills `into` with what this pass writes. It begins at a block, and its length is a multiple of the block size.
    pub fn pattern(&self, block_size: u32, into: &mut [u8]) {
        let Kind::Overwrite { pattern, invert, .. } = &self.job.kind else { return };
        let mask = if *invert && self.job.pass % 2 == 1 { 0xFF } else { 0 };
        for block in into.chunks_mut(block_size as usize) {
            for (byte, pattern) in block.iter_mut().zip(pattern.iter().cycle()) {
                *byte = pattern ^ mask;
            }
        }
    }

    /// The pass that runs: each has a pattern of its own.
    pub fn pass(&self) -> u8 {
        self.job.pass
    }

    /// The chore is done, or failed.
    pub fn done(&mut self, unit: &LogicalUnit, result: Result<(), StoreError>) {
        self.phase = match (self.phase, result) {
            (Phase::Recording, Ok(())) => {
                unit.lock().job_is_new = false;
                Phase::Telling(Ok(()))
            }
            (Phase::Recording, Err(error)) => {
                unit.change_lasting(|lasting| lasting.job = None);
                unit.set_occupied(false);
                Phase::Telling(Err(error))
            }
            (Phase::Telling(Ok(())), _) => Phase::Claiming,
            (Phase::Telling(Err(_)), _) | (Phase::Failing, _) => Phase::Over,
            (Phase::Claiming, _) => {
                unit.revoke_tokens();
                Phase::Working
            }
            (Phase::Working, Ok(())) => self.advance(unit),
            (Phase::Flushing, Ok(())) => {
                let (pass, offset) = (self.job.pass, self.job.offset);
                unit.change_lasting(|lasting| {
                    if let Some(job) = &mut lasting.job {
                        (job.pass, job.offset) = (pass, offset);
                    }
                });
                Phase::Noting
            }
            // Without the note more is done again after a restart, no less.
            (Phase::Noting, _) => Phase::Working,
            (Phase::LastFlush, Ok(())) => {
                unit.change_lasting(|lasting| lasting.job = None);
                Phase::Forgetting
            }
            (Phase::Forgetting, Ok(())) => {
                unit.set_occupied(false);
                Phase::Over
            }
            // What can't be forgotten would be done again after a restart, over new data.
            (Phase::Working | Phase::Flushing | Phase::LastFlush | Phase::Forgetting, Err(_)) => {
                let failed = Job { failed: true, ..self.job.clone() };
                unit.change_lasting(|lasting| lasting.job = Some(failed));
                Phase::Failing
            }
            (Phase::Over, _) => Phase::Over,
        };
    }

    fn advance(&mut self, unit: &LogicalUnit) -> Phase {
        let (Chore::Fill { length, .. } | Chore::Zero { length, .. }) = self.next() else { return self.phase };
        self.job.offset += length;
        self.since += length;
        let passes = u128::from(self.job.passes());
        let all = u128::from(self.size) * passes;
        let done = u128::from(self.size) * u128::from(self.job.pass) + u128::from(self.job.offset);
        unit.set_progress(((done << 16) / all.max(1)).min(0xFFFF) as u16);
        if self.job.offset >= self.size {
            if self.job.pass + 1 >= self.job.passes() {
                return Phase::LastFlush;
            }
            self.job.pass += 1;
            self.job.offset = 0;
        }
        if self.since >= CHECKPOINT {
            self.since = 0;
            return Phase::Flushing;
        }
        Phase::Working
    }
}

impl LogicalUnit {
    /// PROGRESS INDICATION of its job.
    fn progress(&self) -> u16 {
        self.progress.load(Ordering::Relaxed)
    }

    fn set_progress(&self, progress: u16) {
        self.progress.store(progress, Ordering::Relaxed);
    }

    /// Begins a job; the command that asked goes on with [`Step::Work`](crate::Step::Work). From now on other commands
    /// are refused.
    pub(crate) fn begin_job(&self, job: Job) -> Result<(), Sense> {
        let refused = self.try_change(|state, flags| {
            if let Some(running) = state.lasting.job.as_ref().filter(|job| !job.failed) {
                return Err(running.sense(self.progress()));
            }
            state.lasting.job = Some(job);
            state.lasting_number += 1;
            state.job_is_new = true;
            flags.set(Flags::OCCUPIED, true);
            Ok(())
        });
        if refused.is_ok() {
            self.set_progress(0);
        }
        refused
    }

    /// Bytes a second that its jobs work off at most; None: as many as they can.
    pub fn background_rate(&self) -> Option<std::num::NonZeroU64> {
        std::num::NonZeroU64::new(self.profile().background_rate)
    }

    /// What commands are told while the unit works for itself, or after that has failed. None: it is free.
    pub fn occupied(&self) -> Option<Sense> {
        let progress = self.progress();
        self.lock().lasting.job.as_ref().map(|job| job.sense(progress))
    }

    /// The job that has failed.
    pub(crate) fn failed_job(&self) -> Option<Job> {
        self.lock().lasting.job.clone().filter(|job| job.failed)
    }

    /// Forgets a job that has failed; gives the number of the lasting state.
    pub(crate) fn leave_failure(&self) -> u64 {
        let number = self.change_lasting(|lasting| {
            if lasting.job.as_ref().is_some_and(|job| job.failed) {
                lasting.job = None;
            }
        });
        let free = self.lock().lasting.job.is_none();
        if free {
            self.set_occupied(false);
        }
        number
    }

    pub(crate) fn set_occupied(&self, occupied: bool) {
        self.change(None, None, |flags| flags.set(Flags::OCCUPIED, occupied));
    }
}
