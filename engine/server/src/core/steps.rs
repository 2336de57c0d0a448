//! Runs SCSI commands: each step that a command asks for becomes a transfer, a store operation or the end.

use super::{
    Core,
    copying::Copy,
    link::NO_LUN,
    work::{Failure, Motion, Stage},
};
use backstore_api::{Extent, Repeated, Space, StoreError};
use protocol::TaskKey;
use reactor::Reactor;
use scsi::{Command, Context, Event, Moving, Outcome, Sense, Span, Status, Step, UnitId};

/// A store operation without data between initiator and store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Plain {
    /// SYNCHRONIZE CACHE.
    #[default]
    Flush,
    /// The unit's lasting state to stable storage: not the store's.
    Save,
    /// UNMAP of one range.
    Discard { offset: u64, length: u64 },
    /// WRITE SAME of zeroes.
    Zero { offset: u64, length: u64, unmap: bool, durable: bool },
    /// WRITE SAME of the block in `Work::parameter`.
    Fill { offset: u64, length: u64, durable: bool, tuple: Option<Repeated> },
    /// PRE-FETCH.
    Prefetch { offset: u64, length: u64 },
    /// LOG SENSE.
    Space,
    /// Nothing: it waits for its fence, under which the command is stepped.
    Barrier { offset: u64, length: u64 },
    /// GET LBA STATUS.
    Status { offset: u64, length: u64, limit: u32 },
}

impl Plain {
    /// The medium range that it touches; empty for a flush.
    pub fn range(&self) -> std::ops::Range<u64> {
        match *self {
            Plain::Flush | Plain::Save | Plain::Space => 0..0,
            Plain::Discard { offset, length }
            | Plain::Zero { offset, length, .. }
            | Plain::Fill { offset, length, .. }
            | Plain::Prefetch { offset, length }
            | Plain::Barrier { offset, length }
            | Plain::Status { offset, length, .. } => offset..offset.saturating_add(length),
        }
    }

    /// Whether it changes the medium.
    pub fn writes(&self) -> bool {
        matches!(self, Plain::Discard { .. } | Plain::Zero { .. } | Plain::Fill { .. })
    }
}

impl<R: Reactor> Core<R> {
    /// Starts a task's command: its turn in the task set has come.
    pub(crate) fn start(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        task.work.stage = Stage::Running;
        let (cdb, length) = (task.work.cdb, usize::from(task.work.cdb_length));
        if let Some((asc, ascq)) = task.work.early_error {
            return self.finish(task_key, failed(aborted(asc, ascq)));
        }
        if attribute_refused(task.attribute) {
            // NormACA is 0: no ACA condition ever exists (SAM-5 8.7).
            return self.finish(task_key, failed(Sense::illegal(INVALID_MESSAGE_ERROR)));
        }
        let well_known = task.work.place.is_none() && scsi::lun_number(task.lun) == Some(scsi::WELL_KNOWN_REPORT_LUNS);
        let Some((command, step)) = self.with_context(task_key, true, |context| match well_known {
            false => Command::start(&cdb[..length], context),
            true => Command::start_well_known(&cdb[..length], context),
        }) else {
            return;
        };
        if let Some(task) = self.tasks.get_mut(task_key) {
            if command.has_reported_luns(&step)
                && let Some(link) = self.links.get_mut(task.work.link)
            {
                link.places.iter_mut().for_each(|place| place.nexus.luns_reported());
            }
            task.work.command = Some(command);
        }
        if self.begin(task_key, step) {
            self.drive(task_key);
        }
    }

    /// Calls into `scsi` with what the task's command may see.
    fn with_context<T>(
        &mut self,
        task_key: TaskKey,
        starts: bool,
        call: impl FnOnce(&mut Context<'_>) -> T,
    ) -> Option<T> {
        let task = self.tasks.get(task_key)?;
        if let Some(port) = &task.work.detached {
            let unit = Some(self.units[task.work.unit as usize].logical());
            let now = self.reactor.now();
            return Some(call(&mut Context { port, unit, nexus: None, scratch: &mut self.scratch, now }));
        }
        let link = self.links.get_mut(task.work.link)?;
        let (unit, nexus) = match task.work.place.map(|place| &mut link.places[place as usize]) {
            // The LUN was taken away before the command could start: it is one to no LUN.
            Some(place) if starts && place.lun == NO_LUN => (None, None),
            Some(place) => (Some(self.units[place.unit as usize].logical()), Some(&mut place.nexus)),
            None => (None, None),
        };
        let mut context =
            Context { port: &link.port, unit, nexus, scratch: &mut self.scratch, now: self.reactor.now() };
        Some(call(&mut context))
    }

    /// Tells the command what happened; gives its next step.
    pub(crate) fn step(&mut self, task_key: TaskKey, event: Event<'_>) -> Option<Step> {
        let mut command = self.tasks.get_mut(task_key)?.work.command.take()?;
        let step = self.with_context(task_key, false, |context| command.step(event, context));
        self.tasks.get_mut(task_key)?.work.command = Some(command);
        step
    }

    /// Tells a running task's command what it has waited for, and goes on with it. Any other task has ended meanwhile.
    pub(crate) fn go_on(&mut self, task_key: TaskKey, event: Event<'_>) {
        if self.tasks.get(task_key).is_some_and(|task| task.work.stage == Stage::Running)
            && let Some(step) = self.step(task_key, event)
            && self.begin(task_key, step)
        {
            self.drive(task_key);
        }
    }

    /// Moves a running task on as far as it goes.
    pub(crate) fn drive(&mut self, task_key: TaskKey) {
        let mut steps = 0;
        loop {
            let Some(task) = self.tasks.get(task_key) else { return };
            if task.work.stage != Stage::Running {
                return;
            }
            let (task_unit, target) = (task.work.unit, task.work.sides[1]);
            let step = match self.pump(task_key) {
                Pumped::Waiting => return,
                Pumped::Moved => self.step(task_key, Event::Moved),
                Pumped::Stepped(step) => Some(step),
                Pumped::Failed(failure) => match failure {
                    Failure::Store(error) => self.step(task_key, Event::Failed(error)),
                    Failure::Copy { error, reading } => {
                        let moved = self.tasks.get(task_key).map_or(0, |task| task.work.transfer.finished);
                        self.step(task_key, Event::CopyFailed { error, reading, moved })
                    }
                    Failure::Occupied(unit) if task_unit != unit => {
                        self.step(task_key, Event::Occupied { reading: target != unit })
                    }
                    Failure::Occupied(unit) => {
                        let sense = self.units[unit as usize].logical().occupied();
                        // It is through already: the command has merely come at a bad time.
                        let sense = sense.unwrap_or(aborted(0, 0));
                        return self.finish(task_key, failed(sense));
                    }
                    Failure::Miscompare(offset) => self.step(task_key, Event::Miscompare { offset }),
                    Failure::Starved => return self.finish(task_key, super::transfer::REFUSED),
                    Failure::Data(asc, ascq) => {
                        return self.finish(task_key, failed(aborted(asc, ascq)));
                    }
                },
                Pumped::Received => self.parameter_received(task_key),
                Pumped::Stored => self.step(task_key, Event::Stored),
                Pumped::Extents(extents) => self.step(task_key, Event::Extents(&extents)),
                Pumped::Space(space) => self.step(task_key, Event::Space(space)),
            };
            let Some(step) = step else { return };
            if !self.begin(task_key, step) {
                return;
            }
            // A store that does all at once would keep the core for as long as a command takes.
            steps += 1;
            if steps == STEPS_PER_TURN {
                return self.yielded.push(task_key);
            }
        }
    }

    /// Goes on with tasks that had their share of the last turn.
    pub(crate) fn resume_yielded(&mut self) {
        for task_key in std::mem::take(&mut self.yielded) {
            self.drive(task_key);
        }
    }

    fn parameter_received(&mut self, task_key: TaskKey) -> Option<Step> {
        let parameter = self.tasks.get_mut(task_key)?.work.parameter.take()?;
        let step = self.step(task_key, Event::Received(&parameter.buffer[..parameter.length as usize]));
        // WRITE SAME still needs its block.
        self.tasks.get_mut(task_key)?.work.parameter = Some(parameter);
        step
    }

    /// Sets a step up. False when there is nothing to drive: the task has ended, or something else goes on with it.
    pub(crate) fn begin(&mut self, task_key: TaskKey, step: Step) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let (reads, writes) = (task.read_length, task.write_length);
        let work = &mut *task.work;
        let block = match work.place {
            Some(_) => self.units[work.unit as usize].block_size(),
            None => 512,
        };
        // R is set and W is not: nothing could be written, and GOOD would be a lie.
        let contradicts = match step {
            Step::Write { .. }
            | Step::Merge { .. }
            | Step::Compare { .. }
            | Step::Receive { .. }
            | Step::MoveTuples { moving: Moving::Write { .. } | Moving::Compare, .. } => reads > 0 && writes == 0,
            _ => false,
        };
        if contradicts {
            let sense = Sense::illegal(scsi::asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
            self.finish(task_key, failed(sense));
            return false;
        }
        match step {
            Step::Done(outcome) => {
                self.finish(task_key, outcome);
                return false;
            }
            Step::Read { span } => {
                work.wanted = span.length;
                work.begin(Motion::Read, span, span.length.min(reads));
            }
            Step::Write { span, durable, verify } => {
                work.wanted = span.length;
                let length = span.length.min(writes) / block * block;
                let transfer = work.begin(Motion::Write, span, length);
                transfer.durable = durable;
                transfer.verify = verify;
                // Under a digest nothing is written before that has come and is right; and what would have to wait for its turn is
                // not asked for before there is a buffer.
                let range = span.offset..span.offset + u64::from(length);
                work.transfer.flows = !verify
                    && !self.loans.has(work.unit, &range)
                    && self.units[work.unit as usize].takes_now(span.offset, length)
                    && self.links.get(work.link).is_some_and(|link| !link.connection.data_digest());
            }
            Step::Compare { span, repeat } => {
                let comes = if repeat { block } else { span.length };
                work.wanted = comes;
                let length = if repeat && writes >= block { span.length } else { comes.min(writes) / block * block };
                work.begin(Motion::Compare, span, length).repeat = repeat;
            }
            Step::Swap { span, durable, checks } => {
                let length = checks.map_or(span.length, |checks| span.length / block * checks.block_with_tuple());
                let transfer = work.begin(Motion::Swap, span, length);
                (transfer.durable, transfer.tuples) = (durable, checks);
            }
            Step::Put { span, durable } => {
                work.begin(Motion::Put, span, span.length).durable = durable;
            }
            Step::Merge { span, durable } => {
                work.wanted = span.length;
                let length = span.length.min(writes) / block * block;
                work.begin(Motion::Merge, span, length).durable = durable;
            }
            Step::Check { span } => {
                work.begin(Motion::Check, span, span.length);
            }
            Step::MoveTuples { span, moving, checks } => {
                let length = span.length / checks.block_size * checks.block_with_tuple();
                let (motion, offered) = match moving {
                    Moving::Read => (Motion::Read, reads),
                    Moving::Write { .. } => (Motion::Write, writes),
                    Moving::Compare => (Motion::Compare, writes),
                    Moving::Check => (Motion::Check, length),
                };
                work.wanted = if motion == Motion::Check { 0 } else { length };
                let transfer = work.begin(motion, span, length.min(offered));
                transfer.tuples = Some(checks);
                transfer.length = transfer.whole_blocks(transfer.length);
                if let Moving::Write { durable, verify } = moving {
                    (transfer.durable, transfer.verify) = (durable, verify);
                }
            }
            Step::Receive { length } => {
                work.wanted = length;
                if writes != length {
                    let event = if writes < length { Event::Short } else { Event::Long };
                    match self.step(task_key, event) {
                        // It takes what it asked for, and the rest becomes a residual.
                        Some(Step::Receive { .. }) if writes > length => {}
                        Some(Step::Receive { .. }) | None => {
                            let sense = Sense::illegal(scsi::asc::PARAMETER_LIST_LENGTH_ERROR);
                            self.finish(task_key, failed(sense));
                            return false;
                        }
                        Some(step) => return self.begin(task_key, step),
                    }
                }
                if length == 0 {
                    let step = self.step(task_key, Event::Received(&[]));
                    return step.is_some_and(|step| self.begin(task_key, step));
                }
                let Some(task) = self.tasks.get_mut(task_key) else { return false };
                let work = &mut *task.work;
                work.begin(Motion::Receive, Span { offset: 0, length }, length);
            }
            Step::Copy { source, from, target, to, length, durable } => {
                let copy = Copy { source, from, target, to, length, durable };
                if let Some(step) = self.begin_copy(task_key, &copy) {
                    return self.begin(task_key, step);
                }
            }
            Step::Barrier { offset, length } => self.begin_plain(task_key, Plain::Barrier { offset, length }),
            Step::Detach => {
                let event = match self.detach(task_key) {
                    true => Event::Stored,
                    false => Event::Failed(StoreError::Other(0)),
                };
                let step = self.step(task_key, event);
                return step.is_some_and(|step| self.begin(task_key, step));
            }
            Step::Survey { unit, offset, length, limit } => {
                return self.begin_elsewhere(task_key, unit, Plain::Status { offset, length, limit });
            }
            Step::Blank { unit, offset, length, unmap, durable } => {
                return self.begin_elsewhere(task_key, unit, Plain::Zero { offset, length, unmap, durable });
            }
            Step::Flush => self.begin_plain(task_key, Plain::Flush),
            Step::Work { wait } => {
                work.begin(Motion::None, Span { offset: 0, length: 0 }, 0);
                self.begin_work(task_key, wait);
            }
            Step::Save => self.begin_plain(task_key, Plain::Save),
            Step::Space => self.begin_plain(task_key, Plain::Space),
            Step::Abort => {
                work.begin(Motion::None, Span { offset: 0, length: 0 }, 0);
                self.abort_preempted(task_key);
                return false;
            }
            Step::Discard { offset, length } => self.begin_plain(task_key, Plain::Discard { offset, length }),
            Step::Zero { offset, length, unmap, durable } => {
                self.begin_plain(task_key, Plain::Zero { offset, length, unmap, durable });
            }
            Step::Fill { offset, length, durable, tuple } => {
                self.begin_plain(task_key, Plain::Fill { offset, length, durable, tuple });
            }
            Step::Prefetch { offset, length } => self.begin_plain(task_key, Plain::Prefetch { offset, length }),
            Step::Status { offset, length, limit } => {
                self.begin_plain(task_key, Plain::Status { offset, length, limit });
            }
        }
        true
    }

    fn begin_plain(&mut self, task_key: TaskKey, plain: Plain) {
        if let Some(task) = self.tasks.get_mut(task_key) {
            task.work.begin(Motion::Plain, Span { offset: 0, length: 1 }, 1);
            task.work.plain = plain;
        }
    }

    /// The same at any unit. False: as [`Core::begin`].
    fn begin_elsewhere(&mut self, task_key: TaskKey, unit: UnitId, plain: Plain) -> bool {
        let Some(place) = self.position(unit) else {
            let step = self.step(task_key, Event::Failed(StoreError::Gone));
            return step.is_some_and(|step| self.begin(task_key, step));
        };
        self.begin_plain(task_key, plain);
        if let Some(task) = self.tasks.get_mut(task_key) {
            task.work.sides = [place; 2];
        }
        true
    }
}

/// Steps that a task may take in one go: a VERIFY of the whole medium has thousands, of up to 8 MiB each.
const STEPS_PER_TURN: u32 = 2;

/// What a transfer came to.
pub(crate) enum Pumped {
    /// It goes on when something happens.
    Waiting,
    /// All bytes are where they belong.
    Moved,
    /// The command has been stepped already.
    Stepped(Step),
    /// It ended early, with nothing in flight.
    Failed(Failure),
    /// Parameter data is in `Work::parameter`.
    Received,
    /// The plain operation is done.
    Stored,
    /// GET LBA STATUS has its answer.
    Extents(Vec<Extent>),
    /// LOG SENSE has its answer.
    Space(Space),
}

/// CHECK CONDITION with a sense.
pub(crate) fn failed(sense: Sense) -> Outcome {
    Outcome { status: Status::CheckCondition, sense: Some(sense), data: 0 }
}

/// INVALID MESSAGE ERROR.
const INVALID_MESSAGE_ERROR: u16 = 0x4900;

/// ABORTED COMMAND.
fn aborted(asc: u8, ascq: u8) -> Sense {
    Sense::new(scsi::SenseKey::AbortedCommand, u16::from_be_bytes([asc, ascq]))
}

fn attribute_refused(code: u8) -> bool {
    code == 4
}
