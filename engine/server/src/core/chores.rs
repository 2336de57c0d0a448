//! What a unit does by itself ([`scsi::Background`]): its home core runs it between the turns of others, one chore at a
//! time. No link and no task has to do with it, but those that wait for its beginning or its end.

use super::{
    Core, Drain, KIND_CHORE,
    unit::Charge,
    work::{Failure, FenceState, Motion, Stage},
};
use crate::mail::{FromCore, ToCore};
use backstore_api::{Request, StoreError, Submitted};
use memory::{Buffer, Class};
use protocol::TaskKey;
use reactor::{Completion, Reactor};
use scsi::{Background, Chore, Event};
use std::time::Duration;

/// Tag of the store requests of chores: no task has it.
pub(crate) const CHORE_TAG: u64 = u64::MAX - 2;

/// Between two attempts to get what there is none of at the moment.
const RETRY: Duration = Duration::from_millis(1);

/// A message about what a unit does by itself.
#[derive(Clone, Debug)]
pub struct ChoreMail {
    /// The unit, by position.
    pub unit: u16,
    /// What about it.
    pub body: ChoreBody,
}

/// What such a message says.
#[derive(Clone, Debug)]
pub enum ChoreBody {
    /// To the home core: a command has begun a job.
    Begin,
    /// From the home core to all: it is recorded, or could not be.
    Began(Result<(), StoreError>),
    /// From the home core to all: it is over.
    Ended,
}

/// A job on its home core.
pub(crate) struct Runner {
    unit: u16,
    background: Background,
    fence: FenceState,
    /// The chore is under way.
    busy: bool,
    /// There was no buffer, or no room in a queue: not before this.
    retry: Duration,
    /// The pattern of a pass, when the store doesn't have it.
    pattern: Option<(u8, Buffer, Charge)>,
    charge: Option<Charge>,
    pass: u8,
}

impl Runner {
    /// Its chore is with the store or a helper thread; a fence that it waits for could be given up.
    fn in_flight(&self) -> bool {
        self.busy && !matches!(self.fence, FenceState::Asked(_))
    }
}

impl<R: Reactor> Core<R> {
    /// The command has begun a job; it waits for the end of it, or only for its beginning.
    pub(crate) fn begin_work(&mut self, task_key: TaskKey, wait: bool) {
        let Some(task) = self.tasks.get(task_key) else { return };
        let unit = task.work.unit;
        self.units[unit as usize].awaiting.push((task_key, wait));
        self.chore_send(self.home(unit), ChoreMail { unit, body: ChoreBody::Begin });
    }

    fn chore_send(&mut self, core: u16, mail: ChoreMail) {
        if core == self.number {
            self.chore_mail(mail);
        } else {
            self.post.send(core, ToCore::Core(FromCore::Chore(mail)));
        }
    }

    pub(crate) fn chore_mail(&mut self, ChoreMail { unit, body }: ChoreMail) {
        match body {
            ChoreBody::Begin => self.take_up(unit),
            ChoreBody::Began(result) => self.tell_awaiting(unit, |wait| !wait || result.is_err(), result),
            ChoreBody::Ended => self.tell_awaiting(unit, |_| true, Ok(())),
        }
    }

    /// Takes up a unit's job, if this is its home core and it has one that doesn't run.
    pub(crate) fn take_up(&mut self, unit: u16) {
        let here = self.home(unit) == self.number && self.units[unit as usize].present;
        if !here || self.runners.iter().any(|runner| runner.unit == unit) {
            return;
        }
        let Some(background) = Background::take_up(self.units[unit as usize].logical()) else { return };
        self.runners.push(Runner {
            unit,
            background,
            fence: FenceState::None,
            busy: false,
            retry: Duration::ZERO,
            pattern: None,
            charge: None,
            pass: 0,
        });
    }

    fn tell_awaiting(&mut self, unit: u16, told: impl Fn(bool) -> bool, result: Result<(), StoreError>) {
        let awaiting = &mut self.units[unit as usize].awaiting;
        let mut tasks = Vec::new();
        awaiting.retain(|(task, wait)| {
            if told(*wait) {
                tasks.push(*task);
            }
            !told(*wait)
        });
        for task_key in tasks {
            let event = match result {
                Ok(()) => Event::Stored,
                Err(error) => Event::Failed(error),
            };
            self.go_on(task_key, event);
        }
    }

    /// Whether a runner could go on at once.
    pub(crate) fn has_chores(&self) -> bool {
        self.runners.iter().any(|runner| !runner.busy && runner.retry.is_zero()) && !self.chores_rest()
    }

    /// When a runner tries again.
    pub(crate) fn chores_deadline(&self) -> Option<Duration> {
        if self.chores_rest() {
            return None;
        }
        self.runners.iter().filter(|runner| !runner.busy && !runner.retry.is_zero()).map(|runner| runner.retry).min()
    }

    /// A chore is with the store or a helper thread.
    pub(crate) fn chores_in_flight(&self) -> bool {
        self.runners.iter().any(Runner::in_flight)
    }

    /// A unit goes: its job is left as it is. False: a chore is still under way.
    pub(crate) fn leave_chore(&mut self, unit: u16) -> bool {
        let Some(place) = self.runners.iter().position(|runner| runner.unit == unit) else { return true };
        if self.runners[place].in_flight() {
            return false;
        }
        let runner = self.runners.swap_remove(place);
        self.drop_fence(unit, runner.fence);
        true
    }

    /// The core is being drained and has nothing else left: what isn't done is done after the next start.
    fn chores_rest(&self) -> bool {
        match self.drain {
            Drain::No => false,
            Drain::Asked(_) => self.links.is_empty() && self.tasks.is_empty(),
            Drain::Flushing | Drain::Done => true,
        }
    }

    /// Each runner's next chore.
    pub(crate) fn run_chores(&mut self) {
        if self.runners.is_empty() || self.chores_rest() {
            return;
        }
        let now = self.reactor.now();
        for place in (0..self.runners.len()).rev() {
            let runner = &mut self.runners[place];
            if !runner.busy && runner.retry <= now {
                runner.retry = Duration::ZERO;
                self.chore(place);
            }
        }
    }

    fn chore(&mut self, place: usize) {
        let runner = &mut self.runners[place];
        let unit = runner.unit;
        match runner.background.next() {
            Chore::Save => self.save_for(place),
            Chore::Began(result) => {
                self.chore_done(unit, Ok(()));
                self.tell_all(unit, ChoreBody::Began(result));
            }
            Chore::Claim => {
                let serial = self.next_fence();
                let runner = &mut self.runners[place];
                runner.fence = FenceState::Asked(serial);
                runner.busy = true;
                self.claim(unit, serial, None);
            }
            Chore::Fill { offset, length } => {
                let Some((buffer, pattern)) = self.pattern(place) else { return self.put_off(place) };
                self.pace(place, length);
                self.offer_chore(place, Request::Fill { offset, length, buffer, pattern, durable: false, tuple: None });
            }
            Chore::Zero { offset, length, unmap } => {
                self.pace(place, length);
                self.offer_chore(place, Request::Zero { offset, length, unmap, durable: false });
            }
            Chore::Flush => self.offer_chore(place, Request::Flush),
            Chore::End => {
                let runner = self.runners.swap_remove(place);
                self.drop_fence(unit, runner.fence);
                self.tell_all(unit, ChoreBody::Ended);
            }
        }
    }

    /// The next chore comes when this one's share of the time is over.
    fn pace(&mut self, place: usize, length: u64) {
        let runner = &mut self.runners[place];
        if let Some(rate) = self.units[runner.unit as usize].logical().background_rate() {
            let time = u128::from(length) * 1_000_000_000 / u128::from(rate.get());
            runner.retry = self.reactor.now() + Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX));
        }
    }

    /// The core stops: jobs are left as they are, and claims are given up.
    pub(crate) fn leave_chores(&mut self) {
        for runner in std::mem::take(&mut self.runners) {
            self.drop_fence(runner.unit, runner.fence);
        }
    }

    /// Tries again a little later.
    fn put_off(&mut self, place: usize) {
        let later = self.reactor.now() + RETRY;
        let retry = &mut self.runners[place].retry;
        *retry = later.max(*retry);
    }

    fn tell_all(&mut self, unit: u16, body: ChoreBody) {
        for core in 0..self.post.cores() {
            self.chore_send(core, ChoreMail { unit, body: body.clone() });
        }
    }

    /// The buffer with the pattern of this pass, and how much of it the pattern is.
    fn pattern(&mut self, place: usize) -> Option<(Buffer, u32)> {
        let runner = &mut self.runners[place];
        let (unit, pass) = (runner.unit, runner.background.pass());
        let (of, mut buffer, charge) = match runner.pattern.take() {
            Some((of, buffer, charge)) => (Some(of), buffer, charge),
            None => {
                let (buffer, charge) = self.take_buffer(unit, Class::Medium)?;
                (None, buffer, charge)
            }
        };
        let block = self.units[unit as usize].block_size();
        let length = buffer.len() as u32 / block * block;
        let runner = &mut self.runners[place];
        if of != Some(pass) {
            runner.background.pattern(block, &mut buffer[..length as usize]);
        }
        (runner.pass, runner.charge) = (pass, Some(charge));
        Some((buffer, length))
    }

    fn offer_chore(&mut self, place: usize, request: Request) {
        let unit = self.runners[place].unit;
        match self.units[unit as usize].queue.submit(&mut self.reactor, CHORE_TAG, request) {
            Submitted::Pending => self.runners[place].busy = true,
            Submitted::Done(done) => self.chore_stored(unit, done),
            Submitted::Full(request) => {
                self.keep_pattern(unit, request.into_buffer());
                self.put_off(place);
            }
        }
    }

    /// The store has done a chore.
    pub(crate) fn chore_stored(&mut self, unit: u16, done: backstore_api::Completion) {
        self.keep_pattern(unit, done.buffer);
        self.chore_done(unit, done.result.map(drop));
    }

    fn keep_pattern(&mut self, unit: u16, buffer: Option<Buffer>) {
        let Some(runner) = self.runners.iter_mut().find(|runner| runner.unit == unit) else { return };
        if let (Some(buffer), Some(charge)) = (buffer, runner.charge.take()) {
            runner.pattern = Some((runner.pass, buffer, charge));
        }
    }

    fn chore_done(&mut self, unit: u16, result: Result<(), StoreError>) {
        let Some(runner) = self.runners.iter_mut().find(|runner| runner.unit == unit) else { return };
        runner.busy = false;
        runner.background.done(self.units[unit as usize].logical(), result);
    }

    /// A fence has been granted: true if it is a runner's.
    pub(crate) fn claimed(&mut self, serial: u32) -> bool {
        let Some(runner) = self.runners.iter_mut().find(|runner| runner.fence == FenceState::Asked(serial)) else {
            return false;
        };
        runner.fence = FenceState::Held(serial);
        let unit = runner.unit;
        self.chore_done(unit, Ok(()));
        true
    }

    /// A job has claimed the unit: what runs there and isn't done is refused, as new commands are.
    pub(crate) fn refuse_running(&mut self, unit: u16) {
        let id = self.units[unit as usize].logical().id();
        let concerned = |work: &super::work::Work| {
            work.touches(unit, id)
                && work.stage == Stage::Running
                && work.transfer.motion != Motion::None
                && !work.saves()
        };
        let keys: Vec<TaskKey> =
            self.tasks.iter().filter(|(_, task)| concerned(&task.work)).map(|(key, _)| key).collect();
        for task_key in keys {
            if let Some(task) = self.tasks.get_mut(task_key) {
                task.work.transfer.failure.get_or_insert(Failure::Occupied(unit));
                self.drive(task_key);
            }
        }
    }

    fn save_for(&mut self, place: usize) {
        let index = self.runners[place].unit;
        let job = super::saving::job(&self.units[index as usize]);
        match self.reactor.offload(job, KIND_CHORE << super::KIND_SHIFT | u64::from(index)) {
            Ok(()) => self.runners[place].busy = true,
            Err(_) => self.put_off(place),
        }
    }

    /// A save for a job has ended.
    pub(crate) fn chore_saved(&mut self, completion: Completion) {
        let result = completion.result.map(drop).map_err(|errno| StoreError::Other(errno.0));
        self.chore_done(completion.token as u16, result);
    }
}
