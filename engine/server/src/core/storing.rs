//! Windows at the store: submission with its exclusions, completion, verification.

use super::{
    Core,
    steps::{Plain, Pumped},
    work::{Failure, FenceState, Leg, Motion, Parameter, Phase, Stage, WHOLE, Window},
};
use backstore_api::{Answer, Checks, Request, StoreError, Submitted};
use memory::{Buffer, Class};
use protocol::TaskKey;
use reactor::{Completion, Reactor};

/// A store request's tag: task index and window.
fn tag(task: TaskKey, window: usize) -> u64 {
    u64::from(task.index) << 8 | window as u64
}

impl<R: Reactor> Core<R> {
    /// Gives a ready window to the store, or lists its task with those that wait.
    pub(crate) fn store_window(&mut self, task_key: TaskKey, window: usize) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        let unit_index = work.store_unit(window);
        let unit = &mut self.units[unit_index as usize];
        let range = work.store_range(window);
        let checks = work.transfer.checks(window);
        let motion = work.transfer.motion;
        let whole = work.transfer.whole();
        let barrier = motion == Motion::Plain && matches!(work.plain, Plain::Barrier { .. });
        let w = &mut work.transfer.windows[window];
        let writes = match motion {
            Motion::Write | Motion::Swap | Motion::Put | Motion::Merge => true,
            Motion::Plain => work.plain.writes() || barrier,
            Motion::Copy => w.leg != Leg::Read,
            _ => false,
        };
        // A window that holds its fence passes its own hold.
        let of_all = work.transfer.fence;
        let fenced = work.transfer.is_fenced(window);
        // Under their one fence, neighbours would meet in the block of the store that they share.
        let busy = |w: &Window| matches!(w.phase, Phase::Storing | Phase::Verifying);
        if motion == Motion::Merge && work.transfer.windows.iter().any(busy) {
            return self.list_waiting(task_key, unit_index);
        }
        let w = &mut work.transfer.windows[window];
        if !fenced && !range.is_empty() && unit.blocked(range.clone()) {
            return self.list_waiting(task_key, unit_index);
        }
        if writes && !fenced && !range.is_empty() {
            if let (FenceState::Asked(_), _) | (_, FenceState::Asked(_)) = (w.fence, of_all) {
                return self.list_waiting(task_key, unit_index);
            }
            let (window, range) = if motion == Motion::Merge { (WHOLE, whole) } else { (window, range.clone()) };
            let exclusive = match unit.queue.exclusive(range.clone()) {
                None if matches!(motion, Motion::Swap | Motion::Put | Motion::Merge) || barrier => Some(range),
                exclusive => exclusive,
            };
            if let Some(exclusive) = exclusive {
                self.ask_fence(task_key, window, exclusive);
                return self.list_waiting(task_key, unit_index);
            }
        }
        if barrier {
            w.phase = Phase::Done;
            return;
        }
        if writes && !fenced && !range.is_empty() {
            if self.is_lent(unit_index, &range) {
                self.want_blocks(unit_index, Some(&range));
                return self.list_waiting(task_key, unit_index);
            }
            if !self.may_write(unit_index) {
                self.recall_elsewhere(unit_index);
                return self.list_waiting(task_key, unit_index);
            }
        }
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        let unit = &mut self.units[unit_index as usize];
        let w = &mut work.transfer.windows[window];
        if writes {
            unit.logical().written(&range);
        }
        let request = match motion {
            Motion::Read | Motion::Check => {
                let Some(buffer) = w.buffer.take() else { return };
                read(range.start, buffer, w.length, checks)
            }
            Motion::Write => {
                let Some(buffer) = w.buffer.take() else { return };
                write(range.start, buffer, w.length, work.transfer.durable, checks)
            }
            Motion::Put => {
                let Some(Parameter { buffer, length, charge }) = work.parameter.take() else { return };
                w.charge = charge;
                Request::Write { offset: range.start, buffer, range: 0..length, durable: work.transfer.durable }
            }
            Motion::Compare | Motion::Swap | Motion::Merge => {
                let slack = unit.read_slack(range.start, w.length);
                let class = Class::fitting((w.length + slack) as usize);
                let Some((buffer, charge)) = self.take_second(unit_index, class) else {
                    return self.wait_for_buffer(task_key);
                };
                let Some(task) = self.tasks.get_mut(task_key) else { return };
                let w = &mut task.work.transfer.windows[window];
                w.other_charge = Some(charge);
                read(range.start, buffer, w.length, checks)
            }
            Motion::Plain => match work.plain {
                Plain::Flush => Request::Flush,
                Plain::Space => Request::Space,
                Plain::Save => return self.save(task_key, window),
                Plain::Discard { offset, length } => Request::Discard { offset, length },
                Plain::Zero { offset, length, unmap, durable } => Request::Zero { offset, length, unmap, durable },
                Plain::Fill { offset, length, durable, tuple } => {
                    let Some(Parameter { buffer, length: pattern, charge }) = work.parameter.take() else { return };
                    w.charge = charge;
                    Request::Fill { offset, length, buffer, pattern, durable, tuple }
                }
                Plain::Barrier { .. } => return,
                Plain::Prefetch { offset, length } => Request::Prefetch { offset, length },
                Plain::Status { offset, length, limit } => Request::Status { offset, length, limit },
            },
            Motion::Copy => match self.copy_request(task_key, window) {
                Some(request) => request,
                None => return,
            },
            Motion::None | Motion::Receive => return,
        };
        self.offer(task_key, window, Phase::Storing, request);
    }

    /// Submits a request for a window; the window is `phase` from then on.
    pub(crate) fn offer(&mut self, task_key: TaskKey, window: usize, phase: Phase, request: Request) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let unit_index = task.work.store_unit(window);
        let unit = &mut self.units[unit_index as usize];
        match unit.queue.submit(&mut self.reactor, tag(task_key, window), request) {
            Submitted::Pending => {
                task.work.transfer.windows[window].phase = phase;
                task.work.in_flight += 1;
            }
            Submitted::Done(completion) => {
                task.work.transfer.windows[window].phase = phase;
                task.work.in_flight += 1;
                // Whoever offers a window drives the task: from here, each window would be a deeper stack.
                self.window_ended(task_key, window, completion);
            }
            Submitted::Full(request) => {
                match request {
                    Request::Read { buffer, .. } | Request::ReadTuples { buffer, .. } => {
                        match task.work.transfer.motion {
                            Motion::Read | Motion::Check | Motion::Copy => {
                                task.work.transfer.windows[window].buffer = Some(buffer)
                            }
                            _ => {
                                // The second buffer of a compare is asked for again.
                                drop(buffer);
                                task.work.transfer.windows[window].other_charge = None;
                            }
                        }
                    }
                    Request::Write { buffer, range, .. } if task.work.transfer.motion == Motion::Put => {
                        let charge = task.work.transfer.windows[window].charge.take();
                        task.work.parameter = Some(Parameter { buffer, length: range.end, charge });
                    }
                    Request::Write { buffer, .. } | Request::WriteTuples { buffer, .. }
                        if matches!(task.work.transfer.motion, Motion::Swap | Motion::Merge) =>
                    {
                        // It begins again with the read: still under its fence.
                        drop(buffer);
                        let w = &mut task.work.transfer.windows[window];
                        w.other_charge = None;
                        w.phase = Phase::Ready;
                    }
                    Request::Write { buffer, .. } | Request::WriteTuples { buffer, .. } => {
                        task.work.transfer.windows[window].buffer = Some(buffer);
                    }
                    Request::Fill { buffer, pattern, .. } => {
                        let charge = task.work.transfer.windows[window].charge.take();
                        task.work.parameter = Some(Parameter { buffer, length: pattern, charge });
                    }
                    Request::Flush
                    | Request::Space
                    | Request::Discard { .. }
                    | Request::Zero { .. }
                    | Request::Prefetch { .. }
                    | Request::Copy { .. }
                    | Request::Status { .. } => {}
                }
                self.list_waiting(task_key, unit_index);
            }
        }
    }

    /// Lists a task with those that wait for something at a unit.
    pub(crate) fn list_waiting(&mut self, task_key: TaskKey, unit: u16) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let waiting = &mut self.units[unit as usize].waiting;
        // A copy may wait at two.
        let listed = task.work.listed && (task.work.transfer.motion != Motion::Copy || waiting.contains(&task_key));
        if !listed {
            task.work.listed = true;
            waiting.push_back(task_key);
        }
    }

    /// Offers a task's ready windows again.
    pub(crate) fn retry_windows(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get(task_key) else { return };
        for window in task.work.transfer.order() {
            let Some(task) = self.tasks.get_mut(task_key) else { return };
            if task.work.stage != Stage::Running {
                return;
            }
            match task.work.transfer.windows[window].phase {
                // Of what has failed nothing more is done: the unit may have been worked on since. Others need not wait.
                Phase::Ready if task.work.transfer.failure.is_some() => {
                    let fence = std::mem::take(&mut task.work.transfer.windows[window].fence);
                    let unit = task.work.store_unit(window);
                    self.drop_fence(unit, fence);
                }
                Phase::Ready => self.store_window(task_key, window),
                Phase::Reading => self.verify_window(task_key, window),
                _ => {}
            }
        }
    }

    /// Something may have become possible at a unit: offers what waits there, oldest first.
    pub(crate) fn retry_unit(&mut self, unit: u16) {
        for _ in 0..self.units[unit as usize].waiting.len() {
            let Some(key) = self.units[unit as usize].waiting.pop_front() else { return };
            if let Some(task) = self.tasks.get_mut(key) {
                task.work.listed = false;
                self.resume(key);
            }
        }
    }

    /// A completion of the reactor for a unit's queue.
    pub(crate) fn store_completed(&mut self, unit: u16, completion: Completion) {
        let Some(seat) = self.units.get_mut(unit as usize) else { return };
        if let Some(done) = seat.queue.complete(&mut self.reactor, completion) {
            self.request_ended(unit, done);
        }
    }

    /// What ended without a completion of its own: shared flushes, and what a filter held back.
    pub(crate) fn poll_stores(&mut self) {
        self.loans.came_back = false;
        for unit in 0..self.units.len() {
            while self.units[unit].queue.in_flight() > 0 {
                let Some(done) = self.units[unit].queue.poll(&mut self.reactor) else { break };
                self.request_ended(unit as u16, done);
            }
            // Nothing will end there that could wake those who wait.
            if !self.units[unit].waiting.is_empty() && self.units[unit].queue.in_flight() == 0 {
                self.retry_unit(unit as u16);
            }
        }
    }

    /// When a store has to be polled at the latest.
    pub(crate) fn store_deadline(&self) -> Option<std::time::Duration> {
        self.units.iter().filter_map(|unit| unit.queue.deadline()).min()
    }

    fn request_ended(&mut self, unit: u16, done: backstore_api::Completion) {
        let (index, window) = ((done.tag >> 8) as u32, (done.tag & 0xff) as usize);
        if done.tag == super::chores::CHORE_TAG {
            self.chore_stored(unit, done);
        } else if done.tag == super::measuring::SPACE_TAG {
            self.measured(unit, done);
        } else if done.tag == super::management::DRAIN_TAG {
            self.drain_flushed(unit, done.result.map(drop));
        } else if done.tag == super::roster::LEAVE_TAG {
            self.left_flushed(unit, done.result.map(drop));
        } else if let Some(key) = self.tasks.key_at(index) {
            self.window_completed(key, window, done);
        }
        if !self.units[unit as usize].waiting.is_empty() {
            self.retry_unit(unit);
        }
    }

    pub(crate) fn window_completed(&mut self, task_key: TaskKey, window: usize, done: backstore_api::Completion) {
        self.window_ended(task_key, window, done);
        self.drive(task_key);
    }

    pub(crate) fn window_ended(&mut self, task_key: TaskKey, window: usize, done: backstore_api::Completion) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        work.in_flight -= 1;
        let sides = work.sides;
        if work.stage == Stage::Dying {
            drop(done);
            work.transfer.windows[window].phase = Phase::Done;
            self.window_at_rest(task_key, window);
            let buried = self.tasks.get(task_key).is_some_and(|t| t.work.in_flight == 0);
            if buried {
                self.units[sides[1] as usize].dying.retain(|(index, _)| *index != task_key.index);
            }
            self.bury(task_key);
            self.retry_unit(sides[1]);
            if sides[0] != sides[1] {
                self.retry_unit(sides[0]);
            }
            return;
        }
        if work.transfer.motion == Motion::Copy {
            return match done.result {
                Ok(answer) => self.copy_answered(task_key, window, answer, done.buffer),
                Err(error) => self.copy_failed(task_key, window, error),
            };
        }
        match done.result {
            Err(error) => {
                let motion = work.transfer.motion;
                let w = &mut work.transfer.windows[window];
                match motion {
                    Motion::Plain => drop(done.buffer),
                    _ if w.phase == Phase::Verifying || motion != Motion::Write && motion != Motion::Read => {
                        w.other = done.buffer;
                    }
                    _ => w.buffer = done.buffer,
                }
                w.phase = Phase::Done;
                work.transfer.failure.get_or_insert(Failure::Store(error));
                self.window_at_rest(task_key, window);
            }
            Ok(answer) => self.window_answered(task_key, window, answer, done.buffer),
        }
    }

    fn window_answered(&mut self, task_key: TaskKey, window: usize, answer: Answer, buffer: Option<Buffer>) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        let motion = work.transfer.motion;
        let start = work.transfer.range(window).start;
        let w = &mut work.transfer.windows[window];
        let verifying = w.phase == Phase::Verifying;
        w.phase = Phase::Done;
        match (motion, answer) {
            (Motion::Read | Motion::Check, Answer::Data(data)) => {
                w.buffer = buffer;
                w.data = data;
                if let Some(error) = w.shortfall(start) {
                    work.transfer.failure.get_or_insert(Failure::Store(error));
                }
            }
            (Motion::Compare, Answer::Data(data)) => {
                w.other = buffer;
                w.data = data;
                self.compare_window(task_key, window);
            }
            (Motion::Swap, Answer::Data(data)) => {
                w.other = buffer;
                w.data = data;
                if self.swap_window(task_key, window) {
                    return;
                }
            }
            (Motion::Merge, Answer::Data(data)) => {
                w.other = buffer;
                w.data = data;
                if self.merge_window(task_key, window) {
                    return;
                }
            }
            (Motion::Swap | Motion::Put | Motion::Merge, _) => w.other = buffer,
            (Motion::Write, Answer::Data(data)) if verifying => {
                w.other = buffer;
                w.data = data;
                self.compare_window(task_key, window);
            }
            (Motion::Write, _) => {
                w.buffer = buffer;
                if work.transfer.verify {
                    w.phase = Phase::Reading;
                    return self.verify_window(task_key, window);
                }
            }
            (Motion::Plain, answer) => {
                if let Some(buffer) = buffer {
                    // A long WRITE SAME fills its range in several operations of the same block.
                    let (charge, length) = (w.charge.take(), work.wanted);
                    work.parameter = Some(Parameter { buffer, length, charge });
                }
                work.answer = Some(answer);
            }
            _ => {
                work.transfer.failure.get_or_insert(Failure::Store(StoreError::Other(0)));
            }
        }
        self.window_at_rest(task_key, window);
    }

    /// The store is through with a window: its exclusion ends.
    pub(crate) fn window_at_rest(&mut self, task_key: TaskKey, window: usize) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let unit = task.work.store_unit(window);
        let range = task.work.store_range(window);
        let second = task.work.second_range(window);
        // Its fence goes on to the end of the transfer.
        if matches!(task.work.transfer.fence, FenceState::Held(_)) {
            return;
        }
        match std::mem::take(&mut task.work.transfer.windows[window].fence) {
            FenceState::Held(serial) => self.drop_fence(unit, FenceState::Held(serial)),
            other => {
                self.drop_fence(unit, other);
                self.io_ended(unit, range);
            }
        }
        if let Some((source, range)) = second {
            self.io_ended(source, range);
        }
    }

    /// Reads a written window back.
    fn verify_window(&mut self, task_key: TaskKey, window: usize) {
        let Some(task) = self.tasks.get(task_key) else { return };
        let unit = task.work.unit;
        let range = task.work.transfer.range(window);
        let checks = task.work.transfer.checks(window);
        let length = task.work.transfer.windows[window].length;
        let slack = self.units[unit as usize].read_slack(range.start, length);
        match self.take_second(unit, Class::fitting((length + slack) as usize)) {
            Some((buffer, charge)) => {
                if let Some(task) = self.tasks.get_mut(task_key) {
                    task.work.transfer.windows[window].other_charge = Some(charge);
                }
                let request = read(range.start, buffer, length, checks);
                self.offer(task_key, window, Phase::Verifying, request);
            }
            None => self.wait_for_buffer(task_key),
        }
    }

    /// COMPARE AND WRITE, WRITE ATOMIC.
    pub(crate) fn pump_swap(&mut self, task_key: TaskKey) -> Pumped {
        let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
        let work = &mut *task.work;
        if let Some(failure) = work.transfer.failure {
            return self.fail(task_key, failure);
        }
        if work.transfer.used == 0 && work.transfer.planned == 0 {
            let length = work.transfer.length;
            let window = work.transfer.open(length).expect("no window is in use");
            work.transfer.windows[window].phase = Phase::Ready;
            self.store_window(task_key, window);
        }
        let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
        let work = &mut *task.work;
        if let Some(failure) = work.transfer.failure {
            return self.fail(task_key, failure);
        }
        let transfer = &mut work.transfer;
        if transfer.is_oldest_done() {
            transfer.close_oldest();
            return Pumped::Moved;
        }
        Pumped::Waiting
    }

    /// A plain store operation.
    pub(crate) fn pump_plain(&mut self, task_key: TaskKey) -> Pumped {
        let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
        let work = &mut *task.work;
        if let Some(failure) = work.transfer.failure {
            if work.in_flight > 0 {
                return Pumped::Waiting;
            }
            self.drop_windows(task_key);
            return Pumped::Failed(failure);
        }
        if work.transfer.used == 0 {
            let window = work.transfer.open(1).expect("no window is in use");
            work.transfer.windows[window].phase = Phase::Ready;
            self.store_window(task_key, window);
        }
        let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
        let work = &mut *task.work;
        if work.transfer.is_oldest_done() && work.transfer.failure.is_none() {
            if matches!(work.plain, Plain::Barrier { .. }) {
                return self.step_under_fence(task_key);
            }
            work.transfer.close_oldest();
            work.transfer.motion = Motion::None;
            return match work.answer.take() {
                Some(Answer::Extents(extents)) => Pumped::Extents(extents),
                Some(Answer::Space(space)) => Pumped::Space(space),
                _ => Pumped::Stored,
            };
        }
        if work.transfer.failure.is_some() && work.in_flight == 0 {
            return self.pump_plain(task_key);
        }
        Pumped::Waiting
    }
}

/// A write of so many bytes of a buffer, with tuples if there is something to check of them.
pub(super) fn write(offset: u64, buffer: Buffer, length: u32, durable: bool, checks: Option<Checks>) -> Request {
    let range = 0..length;
    match checks {
        Some(checks) => Request::WriteTuples { offset, buffer, range, durable, checks },
        None => Request::Write { offset, buffer, range, durable },
    }
}

/// A read of the medium, with tuples if there is something to check of them.
fn read(offset: u64, buffer: Buffer, length: u32, checks: Option<Checks>) -> Request {
    match checks {
        Some(checks) => Request::ReadTuples { offset, buffer, range: 0..length, checks },
        None => Request::Read { offset, buffer, range: 0..length },
    }
}
