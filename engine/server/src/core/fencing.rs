//! The fence between cores: carries the messages of [`scsi::fence`] and remembers which window asked.
//!
//! Unit `u` has core `u mod cores` as its home. All cores take part from the start.

use super::{
    Core,
    steps::Pumped,
    unit::overlap,
    work::{FenceState, Motion, Phase, Work},
};
use crate::mail::{FromCore, ToCore};
use protocol::TaskKey;
use reactor::Reactor;
use scsi::{
    Event,
    fence::{Action, FenceId, FenceRequest},
};
use std::ops::Range;

/// A message about a unit's fences.
#[derive(Clone, Debug)]
pub struct FenceMail {
    /// The unit, by position.
    pub unit: u16,
    /// What about it.
    pub body: FenceBody,
}

/// What a fence message says.
#[derive(Clone, Debug)]
pub enum FenceBody {
    /// To the home core: a window wants a range for itself.
    Request(FenceRequest),
    /// To the home core: nothing overlaps on this core any more.
    Acknowledged(FenceId, u16),
    /// To the home core: the range is free again.
    Released(FenceId),
    /// From the home core.
    Action(Action),
}

/// A window that has asked for a fence, or holds one; or a whole transfer.
pub(crate) struct FenceRecord {
    serial: u32,
    task: TaskKey,
    window: usize,
}

impl<R: Reactor> Core<R> {
    /// Asks for a range. The window goes on when it is granted.
    pub(crate) fn ask_fence(&mut self, task_key: TaskKey, window: usize, range: Range<u64>) {
        let serial = self.next_fence();
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        *task.work.transfer.fence(window) = FenceState::Asked(serial);
        let unit = task.work.store_unit(window);
        self.fences.push(FenceRecord { serial, task: task_key, window });
        self.claim(unit, serial, Some(range));
    }

    /// A number for a fence of this core.
    pub(crate) fn next_fence(&mut self) -> u32 {
        self.last_fence = self.last_fence.wrapping_add(1);
        self.last_fence
    }

    /// Asks for a range, or all. Who asks has noted the number before: the grant may come at once.
    pub(crate) fn claim(&mut self, unit: u16, serial: u32, range: Option<Range<u64>>) {
        let id = FenceId { core: self.number, serial };
        self.tell_home(unit, FenceBody::Request(FenceRequest { id, range }));
    }

    /// Gives a fence back, or withdraws the request.
    pub(crate) fn drop_fence(&mut self, unit: u16, fence: FenceState) {
        let (FenceState::Asked(serial) | FenceState::Held(serial)) = fence else { return };
        self.fences.retain(|record| record.serial != serial);
        self.tell_home(unit, FenceBody::Released(FenceId { core: self.number, serial }));
    }

    /// I/O of this core has ended on a range, and was not under a fence of its own.
    pub(crate) fn io_ended(&mut self, unit: u16, range: Range<u64>) {
        let gate = &mut self.units[unit as usize].gate;
        if gate.is_open() {
            return;
        }
        let mut acknowledge = Vec::new();
        gate.ended(range, &mut acknowledge);
        for id in acknowledge {
            self.tell_home(unit, FenceBody::Acknowledged(id, self.number));
        }
    }

    /// The core where a unit's fences are granted and its chores run.
    pub(crate) fn home(&self, unit: u16) -> u16 {
        unit % self.post.cores()
    }

    fn tell_home(&mut self, unit: u16, body: FenceBody) {
        self.fence_send(self.home(unit), FenceMail { unit, body });
    }

    fn fence_send(&mut self, core: u16, mail: FenceMail) {
        if core == self.number {
            self.fence_mail(mail);
        } else {
            self.post.send(core, ToCore::Core(FromCore::Fence(mail)));
        }
    }

    pub(crate) fn fence_mail(&mut self, FenceMail { unit, body }: FenceMail) {
        let mut actions = Vec::new();
        let home = &mut self.units[unit as usize].home;
        match body {
            FenceBody::Request(request) => home.request(request, &mut actions),
            FenceBody::Acknowledged(id, core) => home.acknowledged(id, core, &mut actions),
            FenceBody::Released(id) => home.released(id, &mut actions),
            FenceBody::Action(action) => self.fence_action(unit, action),
        }
        for action in actions {
            let core = match &action {
                Action::Hold { core, .. } | Action::Release { core, .. } | Action::Joined { core, .. } => *core,
                Action::Granted { id } => id.core,
            };
            self.fence_send(core, FenceMail { unit, body: FenceBody::Action(action) });
        }
    }

    /// A barrier holds its fence: the command is stepped, and the fence given back.
    pub(crate) fn step_under_fence(&mut self, task_key: TaskKey) -> Pumped {
        let step = self.step(task_key, Event::Stored);
        let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
        let unit = task.work.unit;
        let mut window = task.work.transfer.close_oldest();
        task.work.transfer.motion = Motion::None;
        self.drop_fence(unit, std::mem::take(&mut window.fence));
        step.map_or(Pumped::Waiting, Pumped::Stepped)
    }

    /// Goes on with a task that has its fence. What it does may grant the next one, and so on: of many that wait for each
    /// other one goes on after another, or the stack would not do.
    fn resume_granted(&mut self, task_key: TaskKey) {
        self.granted.push_back(task_key);
        if std::mem::replace(&mut self.resumes_granted, true) {
            return;
        }
        while let Some(task_key) = self.granted.pop_front() {
            self.resume(task_key);
        }
        self.resumes_granted = false;
    }

    fn fence_action(&mut self, unit: u16, action: Action) {
        match action {
            Action::Hold { request, .. } => {
                let (id, all) = (request.id, request.range.is_none());
                self.units[unit as usize].still = true;
                let mut ranges: Vec<_> = self.loans.ranges(unit).collect();
                for (_, task) in self.tasks.iter() {
                    ranges_in_flight(&task.work, unit, &mut ranges);
                }
                self.want_blocks(unit, request.range.as_ref());
                if self.units[unit as usize].gate.hold(request, ranges.into_iter()) {
                    self.tell_home(unit, FenceBody::Acknowledged(id, self.number));
                }
                if all {
                    self.refuse_running(unit);
                }
            }
            Action::Release { id, .. } => {
                self.units[unit as usize].gate.released(id);
                self.retry_unit(unit);
            }
            Action::Granted { id } if self.claimed(id.serial) => {}
            Action::Granted { id } => {
                let record = self.fences.iter().find(|r| r.serial == id.serial);
                let granted = record.map(|r| (r.task, r.window));
                if let Some((task_key, window)) = granted
                    && let Some(task) = self.tasks.get_mut(task_key)
                    && *task.work.transfer.fence(window) == FenceState::Asked(id.serial)
                {
                    *task.work.transfer.fence(window) = FenceState::Held(id.serial);
                    self.resume_granted(task_key);
                } else {
                    self.drop_fence(unit, FenceState::Held(id.serial));
                }
            }
            Action::Joined { .. } => {}
        }
    }
}

/// Ranges of a task's windows that the store has, but for those under a fence of their own.
fn ranges_in_flight(work: &Work, unit: u16, ranges: &mut Vec<Range<u64>>) {
    // A window that waits to be read back counts, whether anything is in flight or not: its end will be told.
    if !work.sides.contains(&unit) || work.place.is_none() || work.transfer.used == 0 {
        return;
    }
    for i in work.transfer.order() {
        let w = &work.transfer.windows[i];
        if matches!(w.phase, Phase::Storing | Phase::Verifying | Phase::Reading) && !work.transfer.is_fenced(i) {
            let range = work.store_range(i);
            debug_assert!(!overlap(&range, &(0..0)));
            if work.store_unit(i) == unit {
                ranges.push(range);
            }
        }
        if w.phase == Phase::Storing
            && let Some((_, range)) = work.second_range(i).filter(|(source, _)| *source == unit)
        {
            ranges.push(range);
        }
    }
}
