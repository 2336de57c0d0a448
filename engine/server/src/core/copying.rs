//! Third-party copies: data from one unit to another through buffers, several windows at once, or by the store itself
//! where both are files of one file system.

use super::{
    Core,
    steps::Pumped,
    transfer::is_scarce,
    work::{Failure, Leg, Motion, Phase, Window},
};
use backstore_api::{Answer, Request, StoreError};
use memory::{Buffer, Class};
use protocol::TaskKey;
use reactor::Reactor;
use scsi::{Event, Span, Step, UnitId};

/// A third-party copy, as its command asks for it.
pub(crate) struct Copy {
    pub source: UnitId,
    pub from: u64,
    pub target: UnitId,
    pub to: u64,
    pub length: u32,
    pub durable: bool,
}

impl<R: Reactor> Core<R> {
    /// Where a unit is on this core.
    pub(crate) fn position(&self, id: UnitId) -> Option<u16> {
        self.units.iter().position(|unit| unit.logical().id() == id).map(|place| place as u16)
    }

    /// Sets a copy up; gives the command's next step when it can't be done.
    pub(crate) fn begin_copy(&mut self, task_key: TaskKey, copy: &Copy) -> Option<Step> {
        let (source, target) = (self.position(copy.source), self.position(copy.target));
        let (Some(source), Some(target)) = (source, target) else {
            let error = StoreError::Gone;
            return self.step(task_key, Event::CopyFailed { error, reading: source.is_none(), moved: 0 });
        };
        let task = self.tasks.get_mut(task_key)?;
        let span = Span { offset: copy.from, length: copy.length };
        // The parameter list is known by now.
        task.work.parameter = None;
        let transfer = task.work.begin(Motion::Copy, span, copy.length);
        (transfer.to, transfer.durable) = (copy.to, copy.durable);
        task.work.sides = [source, target];
        None
    }

    /// Moves a copy on.
    pub(crate) fn pump_copy(&mut self, task_key: TaskKey) -> Pumped {
        loop {
            let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
            let transfer = &mut task.work.transfer;
            while transfer.is_oldest_done() {
                transfer.close_oldest();
            }
            if let Some(failure) = transfer.failure {
                if task.work.in_flight > 0 {
                    return Pumped::Waiting;
                }
                self.drop_windows(task_key);
                return Pumped::Failed(failure);
            }
            if transfer.finished == transfer.length {
                return Pumped::Moved;
            }
            if !self.open_for_copy(task_key) {
                return Pumped::Waiting;
            }
        }
    }

    /// Opens one more window and gives it to the store. False: not now.
    fn open_for_copy(&mut self, task_key: TaskKey) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let work = &mut *task.work;
        let left = work.transfer.left();
        if left == 0 || work.transfer.is_full() {
            return false;
        }
        let [source, target] = work.sides;
        let (from, to) = work.copy_place(work.transfer.planned);
        let (read, written) = (&self.units[source as usize], &self.units[target as usize]);
        if work.transfer.used == 0
            && !work.by_hand
            && let Some(file) = read.queue.copy_source()
            && written.queue.can_copy(&file, from, to, left.into())
        {
            let window = work.transfer.open(left).expect("no window is in use");
            let w = &mut work.transfer.windows[window];
            (w.phase, w.leg) = (Phase::Ready, Leg::Both);
            self.store_window(task_key, window);
            return true;
        }
        // A copy can wait; what others want of the few large buffers goes first.
        if work.transfer.used > 0 && is_scarce(self.reactor.pool(), Class::Large) {
            return false;
        }
        let slack = read.read_slack(from, left);
        let length = left.min(Class::Large.bytes() as u32 - slack);
        let class = Class::fitting((length + slack) as usize);
        let full = source != target && written.is_at_share(class);
        let Some((buffer, charge)) = (!full).then(|| self.take_buffer(source, class)).flatten() else {
            self.wait_for_buffer(task_key);
            return false;
        };
        // It counts for both units: whichever stalls, it has no more than its share.
        let other_charge = (source != target).then(|| self.units[target as usize].charge(buffer.class()));
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let window = task.work.transfer.open(length).expect("a window is free");
        let w = &mut task.work.transfer.windows[window];
        (w.phase, w.leg) = (Phase::Ready, Leg::Read);
        (w.buffer, w.charge, w.other_charge) = (Some(buffer), Some(charge), other_charge);
        self.store_window(task_key, window);
        true
    }

    /// The request of a copy's window.
    pub(crate) fn copy_request(&mut self, task_key: TaskKey, window: usize) -> Option<Request> {
        let work = &mut *self.tasks.get_mut(task_key)?.work;
        let [source, target] = work.sides;
        let (from, to) = work.copy_place(work.transfer.windows[window].start);
        let durable = work.transfer.durable;
        if work.transfer.failure.is_some() {
            return None;
        }
        let w = &mut work.transfer.windows[window];
        Some(match w.leg {
            Leg::Read => Request::Read { offset: from, buffer: w.buffer.take()?, range: 0..w.length },
            Leg::Write => Request::Write { offset: to, buffer: w.buffer.take()?, range: w.data.clone(), durable },
            Leg::Both => {
                if self.units[source as usize].blocked(from..from + u64::from(w.length)) {
                    self.list_waiting(task_key, source);
                    return None;
                }
                let Some(file) = self.units[source as usize].queue.copy_source() else {
                    debug_assert!(false, "the file of unit {source} for {target} was there before");
                    return None;
                };
                Request::Copy { offset: to, length: w.length.into(), source: file, from, durable }
            }
        })
    }

    /// The store did a window's leg.
    pub(crate) fn copy_answered(&mut self, task_key: TaskKey, window: usize, answer: Answer, buffer: Option<Buffer>) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        let (from, _) = work.copy_place(work.transfer.windows[window].start);
        let w = &mut work.transfer.windows[window];
        w.buffer = buffer;
        if w.leg != Leg::Read {
            w.phase = Phase::Done;
            return self.window_at_rest(task_key, window);
        }
        let Answer::Data(data) = answer else {
            return self.copy_failed(task_key, window, StoreError::Other(0));
        };
        w.data = data;
        if let Some(error) = w.shortfall(from) {
            return self.copy_failed(task_key, window, error);
        }
        w.phase = Phase::Ready;
        self.window_at_rest(task_key, window);
        if let Some(task) = self.tasks.get_mut(task_key) {
            task.work.transfer.windows[window].leg = Leg::Write;
            self.store_window(task_key, window);
        }
    }

    /// The store did not. What it can't copy by itself goes through buffers.
    pub(crate) fn copy_failed(&mut self, task_key: TaskKey, window: usize, error: StoreError) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let w = &mut task.work.transfer.windows[window];
        let leg = w.leg;
        w.phase = Phase::Free;
        self.window_at_rest(task_key, window);
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        if leg == Leg::Both {
            // It is the only one.
            work.by_hand = true;
            work.transfer.windows[window] = Window::default();
            (work.transfer.used, work.transfer.planned) = (0, work.transfer.finished);
        } else {
            work.transfer.failure.get_or_insert(Failure::Copy { error, reading: leg == Leg::Read });
        }
    }
}
