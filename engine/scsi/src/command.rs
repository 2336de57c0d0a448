//! A command as a state machine, and what is common to all commands (SPC-4 clause 4, SAM-5 5.3 to 5.14).

use crate::{
    access,
    background::Job,
    cdb::{Cdb, VARIABLE_LENGTH},
    copy::{populate::Populating, running::Running},
    port::{Path, TargetPort},
    readiness,
    reservations::{Rule, Verdict},
    sbc,
    sense::{Sense, SenseKey, asc},
    spc,
    status::Status,
    table::{self, Entry, Found, Traits},
    unit::{Flags, LogicalUnit, UnitId},
};
use backstore_api::StoreError;
use std::sync::Arc;

pub use crate::step::{Context, Event, Moving, Outcome, Span, Step};

/// A command between events. Small (at most 96 bytes), moved into the server's task slot. Holds its CDB (16 bytes; no
/// command with a longer one is supported).
pub struct Command {
    pub(crate) cdb: Cdb,
    pub(crate) state: State,
}

/// What a command waits for.
pub(crate) enum State {
    /// Nothing: it is done.
    Done,
    /// The end of a read (false) or write (true) of the whole span, which begins at this byte.
    Moving {
        write: bool,
        offset: u64,
    },
    /// Parameter data or a pattern.
    Receiving {
        length: u32,
        then: Received,
    },
    /// The store's end of one thing; `write`: it changes something.
    Storing {
        write: bool,
        then: Stored,
    },
    /// Ranges that are worked off in bounded pieces.
    Checking(sbc::verify::Checking),
    Filling(sbc::write_same::Filling),
    Unmapping(Box<sbc::unmap::Unmapping>),
    Copying(Box<Running>),
    Populating(Box<Populating>),
    /// Extents of GET LBA STATUS.
    Extents,
    /// Space for LOG SENSE.
    Space,
    /// The end of a save; `number` is that of the lasting state after the command's change.
    Saving {
        number: u64,
        then: Saved,
        /// Whose tasks are aborted next.
        preempted: Arc<[Path]>,
    },
    /// The end of their tasks.
    Aborting(Arc<[Path]>),
}

/// Who hears how a save ended: with the number that [`Command::save`] was given.
pub(crate) type Saved = fn(&mut Command, Result<(), StoreError>, u64, &LogicalUnit, &mut Context<'_>) -> Step;

/// Who takes the parameter data.
pub(crate) type Received = fn(&mut Command, &[u8], &LogicalUnit, &mut Context<'_>) -> Step;

/// Goes on when the store has done it.
pub(crate) type Stored = fn(&Cdb, &LogicalUnit, &mut Context<'_>) -> Step;

impl Command {
    /// Checks all that can be checked from the CDB: opcode, service action, reserved bits, NACA, range, length, write
    /// protection, unit attention (INQUIRY, REPORT LUNS, REQUEST SENSE exempt), started or not. The task attribute is the
    /// server's (ACA refused).
    ///
    /// `cdb`: as it came, 16 bytes, longer ones with the extended CDB.
    #[inline]
    pub fn start(cdb: &[u8], context: &mut Context<'_>) -> (Command, Step) {
        let mut command = Command { cdb: Cdb::new(cdb), state: State::Done };
        let step = match context.unit {
            Some(unit) => command.begin(cdb.len(), unit, context),
            None => command.begin_absent(context),
        };
        (command, step)
    }

    /// The same for the REPORT LUNS well-known logical unit ([`crate::WELL_KNOWN_REPORT_LUNS`]): every command ends at
    /// once. Of the context, the port and the scratch are used.
    pub fn start_well_known(cdb: &[u8], context: &mut Context<'_>) -> (Command, Step) {
        let command = Command { cdb: Cdb::new(cdb), state: State::Done };
        let step = spc::well_known::start(&command.cdb, context);
        (command, step)
    }

    #[inline]
    fn begin(&mut self, length: usize, unit: &Arc<LogicalUnit>, context: &mut Context<'_>) -> Step {
        let (flags, attention) = match &mut context.nexus {
            Some(nexus) => nexus.refresh(unit),
            None => (unit.flags(), false),
        };
        let found = table::find(&self.cdb);
        if attention
            && !matches!(found, Found::Entry(entry) if entry.traits.has(Traits::EXEMPT))
            && let Some(nexus) = &mut context.nexus
            && let Some(attention) = nexus.pending().take()
        {
            return fail(attention.sense());
        }
        let entry = match found {
            Found::Entry(entry) if entry.supported(unit) => entry,
            Found::Entry(Entry { opcode: VARIABLE_LENGTH, .. }) | Found::NoAction
                if self.cdb.opcode() == VARIABLE_LENGTH && table::has_opcode(VARIABLE_LENGTH, unit) =>
            {
                return fail(Sense::field_in_cdb(8, None));
            }
            Found::Entry(Entry { service_action: Some(_), .. }) | Found::NoAction
                if self.cdb.opcode() != VARIABLE_LENGTH =>
            {
                return fail(Sense::field_in_cdb(1, Some(4)));
            }
            _ => return fail(Sense::illegal(asc::INVALID_COMMAND_OPERATION_CODE)),
        };
        if let Some(nexus) = &context.nexus
            && nexus.verdict() != Verdict::All
            && !Rule::of(entry).admits(nexus.verdict(), &self.cdb)
        {
            return conflict();
        }
        if let Err(sense) = self.check(entry, length, flags, unit, context.port) {
            return fail(sense);
        }
        (entry.start)(self, unit, context)
    }

    #[inline]
    fn check(
        &self,
        entry: &Entry,
        length: usize,
        flags: Flags,
        unit: &LogicalUnit,
        port: &TargetPort,
    ) -> Result<(), Sense> {
        if length < entry.usage.len() {
            return Err(Sense::illegal(asc::INVALID_FIELD_IN_CDB));
        }
        if let Some((byte, bit)) = entry.reserved_bit(&self.cdb) {
            return Err(Sense::field_in_cdb(byte, Some(bit)));
        }
        if flags.has(Flags::UNREADY) {
            access::check(unit, entry, port.portal_group)?;
            readiness::check(unit, entry, flags)?;
        }
        match entry.traits.has(Traits::WRITES).then(|| flags.write_protected()).flatten() {
            Some(sense) => Err(sense),
            None => Ok(()),
        }
    }

    /// A command to a LUN that is not there (SPC-4 5.11, 6.6).
    fn begin_absent(&mut self, context: &mut Context<'_>) -> Step {
        let answer = match table::find(&self.cdb) {
            Found::Entry(entry) if entry.traits.has(Traits::EXEMPT) => match entry.reserved_bit(&self.cdb) {
                Some((byte, bit)) => return fail(Sense::field_in_cdb(byte, Some(bit))),
                None => entry.opcode,
            },
            _ => return fail(Sense::illegal(asc::LOGICAL_UNIT_NOT_SUPPORTED)),
        };
        match answer {
            spc::inquiry::OPCODE => spc::inquiry::absent(&self.cdb, context),
            spc::luns::OPCODE => spc::luns::report(&self.cdb, context),
            _ => spc::sense::absent(&self.cdb, context),
        }
    }

    /// It was a REPORT LUNS that ended well: who has the list knows of its change, at whatever logical unit
    /// ([`Nexus::luns_reported`](crate::Nexus::luns_reported), SPC-5 6.34).
    pub fn has_reported_luns(&self, step: &Step) -> bool {
        self.cdb.opcode() == spc::luns::OPCODE && matches!(step, Step::Done(Outcome { status: Status::Good, .. }))
    }

    /// Takes what happened. After [`Step::Done`] nothing more is expected.
    pub fn step(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Step {
        let step = match context.unit {
            Some(unit) => self.advance(event, unit, context),
            // The LUN was taken away under the command.
            None => fail(Sense::illegal(asc::LOGICAL_UNIT_NOT_SUPPORTED)),
        };
        if matches!(step, Step::Done(_)) {
            self.state = State::Done;
        }
        step
    }

    #[inline]
    fn advance(&mut self, event: Event<'_>, unit: &Arc<LogicalUnit>, context: &mut Context<'_>) -> Step {
        // Their data-out has exactly one length.
        let exact = matches!(
            self.cdb.opcode(),
            sbc::write_same::WRITE_SAME_10
                | sbc::write_same::WRITE_SAME_16
                | VARIABLE_LENGTH
                | sbc::compare_and_write::OPCODE
                | sbc::write_atomic::OPCODE
        );
        match (&mut self.state, event) {
            (State::Moving { .. }, Event::Moved) => good(),
            (State::Saving { number, then, .. }, event @ (Event::Stored | Event::Failed(_))) => {
                let (number, then) = (*number, *then);
                let result = if let Event::Failed(error) = event { Err(error) } else { Ok(()) };
                then(self, result, number, unit, context)
            }
            (State::Populating(populating), event) => populating.step(&event, unit, context),
            (State::Copying(running), event) => running.step(event, unit, context),
            (State::Checking(_), Event::Failed(_)) if self.cdb.opcode() == spc::diagnostic::SEND => {
                fail(Sense::new(SenseKey::HardwareError, asc::LOGICAL_UNIT_FAILED_SELF_TEST))
            }
            (state, Event::Failed(error)) => fail(Sense::from_store(error, unit.block_size(), state.writes())),
            (State::Moving { offset: begin, .. }, Event::Miscompare { offset }) => {
                let sense = Sense::new(SenseKey::Miscompare, asc::MISCOMPARE_DURING_VERIFY);
                fail(sense.with_information(offset.saturating_sub(*begin)))
            }
            // RFC 7143 11.4.7.2: incorrect amount of data.
            (State::Moving { .. }, Event::Short) => {
                fail(Sense::new(SenseKey::AbortedCommand, asc::NOT_ENOUGH_UNSOLICITED_DATA))
            }
            (State::Receiving { length, then }, Event::Received(data)) if data.len() >= *length as usize => {
                let (length, then) = (*length as usize, *then);
                then(self, &data[..length], unit, context)
            }
            // NUMBER OF LOGICAL BLOCKS of 0 beside data: 256 were meant, and don't fit the field.
            (State::Receiving { length: 0, .. }, Event::Long) if exact => fail(Sense::field_in_cdb(13, None)),
            (State::Receiving { .. }, Event::Received(_) | Event::Short | Event::Long) if exact => {
                fail(Sense::illegal(asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT))
            }
            (State::Receiving { .. }, Event::Received(_) | Event::Short) => {
                fail(Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR))
            }
            (State::Receiving { length, .. }, Event::Long) => Step::Receive { length: *length },
            (State::Storing { then, .. }, Event::Stored) => then(&self.cdb, unit, context),
            (State::Aborting(_), Event::Aborted) => good(),
            (State::Checking(checking), Event::Moved) => checking.next(unit),
            (State::Filling(filling), Event::Stored) => filling.next(),
            (State::Unmapping(unmapping), Event::Stored) => unmapping.next(),
            (State::Extents, Event::Extents(extents)) => sbc::capacity::lba_status(&self.cdb, extents, unit, context),
            (State::Space, Event::Space(space)) => spc::log_pages::provisioning(&self.cdb, space, unit, context),
            _ => fail(Sense::new(SenseKey::HardwareError, asc::INTERNAL_TARGET_FAILURE)),
        }
    }

    /// It carries a copy out that this unit is a side of.
    pub fn copies_at(&self, unit: UnitId) -> bool {
        matches!(&self.state, State::Copying(running) if running.touches(unit))
    }

    /// Who asked for the copy that it carries out.
    pub fn copies_for(&self) -> Option<&Path> {
        match &self.state {
            State::Copying(running) => running.path(),
            _ => None,
        }
    }

    /// Waits for parameter data.
    pub(crate) fn receive(&mut self, length: u32, then: Received) -> Step {
        self.state = State::Receiving { length, then };
        Step::Receive { length }
    }

    /// Carries a copy operation out.
    pub(crate) fn run(&mut self, mut running: Running, context: &mut Context<'_>) -> Step {
        let Some(unit) = context.unit.cloned() else {
            return fail(Sense::illegal(asc::LOGICAL_UNIT_NOT_SUPPORTED));
        };
        let step = running.next(&unit, context);
        self.state = State::Copying(Box::new(running));
        step
    }

    /// Begins a job of the unit's own; `wait`: status comes with its end.
    pub(crate) fn work(&mut self, job: Job, wait: bool, unit: &LogicalUnit) -> Step {
        if let Err(sense) = unit.begin_job(job) {
            return fail(sense);
        }
        let then: Stored = match wait {
            true => |_, unit, _| unit.failed_job().map_or_else(good, |_| unit.occupied().map_or_else(good, fail)),
            false => |_, _, _| good(),
        };
        self.state = State::Storing { write: true, then };
        Step::Work { wait }
    }

    /// Waits until the unit's lasting state is on stable storage.
    pub(crate) fn save(&mut self, number: u64, then: Saved) -> Step {
        self.save_then_abort(number, [].into(), then)
    }

    /// The same; `preempted` is for [`Command::abort`], which `then` is to call.
    pub(crate) fn save_then_abort(&mut self, number: u64, preempted: Arc<[Path]>, then: Saved) -> Step {
        self.state = State::Saving { number, then, preempted };
        Step::Save
    }

    /// Waits until the tasks of these nexuses are gone.
    pub(crate) fn abort(&mut self, preempted: Arc<[Path]>) -> Step {
        if preempted.is_empty() {
            return good();
        }
        self.state = State::Aborting(preempted);
        Step::Abort
    }

    /// Whose tasks [`Step::Abort`] ends.
    pub fn preempted(&self) -> Option<&Arc<[Path]>> {
        match &self.state {
            State::Aborting(preempted) => Some(preempted),
            _ => None,
        }
    }

    /// Ends with a flush.
    pub(crate) fn flush(&mut self) -> Step {
        self.flush_then(|_, _, _| good())
    }

    /// Waits for a flush.
    pub(crate) fn flush_then(&mut self, then: Stored) -> Step {
        self.state = State::Storing { write: true, then };
        Step::Flush
    }
}

impl State {
    /// The store was asked to change something.
    fn writes(&self) -> bool {
        match self {
            State::Moving { write, .. } | State::Storing { write, .. } => *write,
            State::Filling(_) | State::Unmapping(_) => true,
            _ => false,
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({:02x?})", self.cdb.0)
    }
}

/// Done without data.
#[inline]
pub(crate) fn good() -> Step {
    Step::Done(Outcome { status: Status::Good, sense: None, data: 0 })
}

/// Done with CONDITION MET.
pub(crate) fn condition_met() -> Step {
    Step::Done(Outcome { status: Status::ConditionMet, sense: None, data: 0 })
}

/// Done with RESERVATION CONFLICT.
#[cold]
pub(crate) fn conflict() -> Step {
    Step::Done(Outcome { status: Status::ReservationConflict, sense: None, data: 0 })
}

/// Done with CHECK CONDITION.
#[cold]
pub(crate) fn fail(sense: Sense) -> Step {
    Step::Done(Outcome { status: Status::CheckCondition, sense: Some(sense), data: 0 })
}

/// Done, with the scratch as answer, cut to the ALLOCATION LENGTH.
pub(crate) fn answer(context: &mut Context<'_>, allocation_length: u32) -> Step {
    let length = u32::try_from(context.scratch.len()).unwrap_or(u32::MAX);
    Step::Done(Outcome { status: Status::Good, sense: None, data: length.min(allocation_length) })
}
