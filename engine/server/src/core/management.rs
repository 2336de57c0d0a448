//! Task management, logout, and how sessions and tasks come to an end.

use super::{
    Core, Drain, Link, Receiving,
    input::attribute,
    work::{Leg, Motion, Phase, Slot, Stage, Work},
};
use crate::mail::{FromCore, ToControl, ToCore};
use backstore_api::{Request, StoreError, Submitted};
use memory::Key;
use protocol::{CloseReason, SendTargets, Task, TaskKey, TaskManagement, TmfResponse};
use reactor::{Descriptor, Reactor};
use scsi::Event;
use std::{sync::Arc, time::Duration};
use tracing::{debug, info, warn};

/// Tag of the drain's flushes: no task has it.
pub(crate) const DRAIN_TAG: u64 = u64::MAX;

/// A task management function whose tasks have not all ended.
pub(crate) struct Management {
    pub(super) number: u32,
    pub(super) reply: Reply,
    pub(super) scope: Scope,
    /// Other cores that have not answered.
    pub(super) cores_left: u16,
}

pub(super) enum Reply {
    Session {
        link: Key,
        key: u32,
    },
    Core {
        core: u16,
        management: u32,
    },
    /// A command that waits for it.
    Task(TaskKey),
}

/// Whose I/O in flight must end first.
pub(super) enum Scope {
    Task(TaskKey),
    LinkUnit(Key, u16),
    Units(Arc<[u16]>),
    /// Of these nexuses on a unit, and of sessions that are gone.
    Nexuses(u16, Arc<[scsi::Path]>),
}

impl Management {
    /// It waits for I/O of a unit.
    pub(crate) fn concerns(&self, unit: u16) -> bool {
        match &self.scope {
            Scope::Task(_) => false,
            Scope::LinkUnit(_, of) | Scope::Nexuses(of, _) => *of == unit,
            Scope::Units(units) => units.contains(&unit),
        }
    }
}

impl<R: Reactor> Core<R> {
    /// RFC 7143 11.5.
    pub(crate) fn task_management(&mut self, key: Key, request: TaskManagement) {
        let Some(link) = self.links.get(key) else { return };
        let place = scsi::lun_number(request.lun).and_then(|lun| link.place(lun));
        let unit = place.map(|p| link.places[p as usize].unit);
        let id = link.identity.id;
        debug!(session = id, function = request.function, "task management");
        match request.function {
            1 => {
                let Some(task) = request.referenced else {
                    return self.answer_management(key, request.key, TmfResponse::NoTask);
                };
                self.kill(task);
                self.manage(key, request.key, Scope::Task(task));
            }
            // TST is 001b: each nexus has its own task set, so that CLEAR TASK SET reaches no further.
            2 | 4 => match unit {
                Some(unit) => {
                    self.kill_where(|task| task.work.link == key && request.affects(task));
                    self.manage(key, request.key, Scope::LinkUnit(key, unit));
                }
                None => self.answer_management(key, request.key, TmfResponse::NoLun),
            },
            5 => match unit {
                Some(unit) => {
                    info!(session = id, "LOGICAL UNIT RESET");
                    self.reset(key, request.key, Arc::new([unit]), None);
                }
                None => self.answer_management(key, request.key, TmfResponse::NoLun),
            },
            6 | 7 => {
                info!(session = id, cold = request.function == 7, "TARGET RESET");
                let units: Arc<[u16]> = link.places.iter().map(|p| p.unit).collect();
                let close = (request.function == 7).then(|| link.identity.target.clone());
                self.reset(key, request.key, units, close);
            }
            _ => self.answer_management(key, request.key, TmfResponse::NotSupported),
        }
    }

    fn answer_management(&mut self, key: Key, management: u32, response: TmfResponse) {
        if let Some(link) = self.links.get_mut(key) {
            link.connection.task_management_response(&mut link.session, management, response, &mut link.outgoing);
            self.mark_dirty(key);
        }
    }

    /// Answers when the scope's I/O has ended.
    fn manage(&mut self, link: Key, key: u32, scope: Scope) {
        let number = self.next_management();
        self.managements.push(Management { number, reply: Reply::Session { link, key }, scope, cores_left: 0 });
        self.managements_drained();
    }

    pub(super) fn next_management(&mut self) -> u32 {
        self.next_management = self.next_management.wrapping_add(1);
        self.next_management
    }

    /// Aborts all tasks of units on every core, then answers.
    fn reset(&mut self, link: Key, key: u32, units: Arc<[u16]>, close: Option<Arc<str>>) {
        let number = self.next_management();
        let others = self.post.cores() - 1;
        for core in (0..self.post.cores()).filter(|&c| c != self.number) {
            let message =
                FromCore::Reset { core: self.number, management: number, units: units.clone(), close: close.clone() };
            self.post.send(core, ToCore::Core(message));
        }
        self.kill_where(|task| units.contains(&task.work.unit));
        for &unit in units.iter() {
            self.units[unit as usize].logical().reset();
        }
        if let Some(target) = close {
            self.cut_target(&target, Some(link));
        }
        let reply = Reply::Session { link, key };
        self.managements.push(Management { number, reply, scope: Scope::Units(units), cores_left: others });
        self.managements_drained();
    }

    pub(crate) fn remote_reset(&mut self, core: u16, management: u32, units: Arc<[u16]>, close: Option<Arc<str>>) {
        self.kill_where(|task| units.contains(&task.work.unit));
        if let Some(target) = close {
            self.cut_target(&target, None);
        }
        let number = self.next_management();
        let reply = Reply::Core { core, management };
        self.managements.push(Management { number, reply, scope: Scope::Units(units), cores_left: 0 });
        self.managements_drained();
    }

    pub(crate) fn remote_reset_done(&mut self, management: u32) {
        if let Some(record) = self.managements.iter_mut().find(|m| m.number == management) {
            record.cores_left = record.cores_left.saturating_sub(1);
        }
        self.managements_drained();
    }

    /// TARGET COLD RESET ends all sessions of the target; the one that asked, after its answer.
    fn cut_target(&mut self, target: &str, asker: Option<Key>) {
        let keys: Vec<Key> = self.links.iter().filter(|(_, l)| *l.identity.target == *target).map(|(k, _)| k).collect();
        for key in keys {
            if Some(key) == asker {
                self.close_after_management(key);
            } else {
                self.cut(key, CloseReason::Protocol("target cold reset"));
            }
        }
    }

    fn close_after_management(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key) {
            link.close_after_management = true;
        }
    }

    /// Answers those whose tasks have all ended.
    pub(crate) fn managements_drained(&mut self) {
        let mut i = 0;
        while i < self.managements.len() {
            let record = &self.managements[i];
            let dying = |wanted: &dyn Fn(&Work) -> bool| {
                self.tasks.iter().any(|(_, t)| t.work.stage == Stage::Dying && wanted(&t.work))
            };
            let pending = record.cores_left > 0
                || match &record.scope {
                    Scope::Task(key) => self.tasks.get(*key).is_some(),
                    Scope::LinkUnit(link, unit) => dying(&|w| w.link == *link && w.unit == *unit),
                    Scope::Units(units) => {
                        dying(&|w| w.place.is_some() && (units.contains(&w.unit) || units.contains(&w.sides[1])))
                    }
                    Scope::Nexuses(unit, nexuses) => dying(&|w| {
                        let link = self.links.get(w.link);
                        let id = self.units[*unit as usize].logical().id();
                        w.touches(*unit, id) && link.is_none_or(|link| link.is_of(nexuses))
                    }),
                };
            if pending {
                i += 1;
                continue;
            }
            let record = self.managements.remove(i);
            match record.reply {
                Reply::Session { link, key } => {
                    self.answer_management(link, key, TmfResponse::Complete);
                    if self.links.get(link).is_some_and(|l| l.close_after_management) {
                        self.close_gently(link, CloseReason::Protocol("target cold reset"));
                    }
                }
                Reply::Task(task) => self.go_on(task, Event::Aborted),
                Reply::Core { core, management } => {
                    self.post.send(core, ToCore::Core(FromCore::ResetDone { management }));
                }
            }
        }
    }

    fn kill_where(&mut self, wanted: impl Fn(&Task<Slot>) -> bool) {
        let keys: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, t)| t.work.stage != Stage::Dying && t.work.place.is_some() && wanted(t))
            .map(|(k, _)| k)
            .collect();
        self.kill_all(&keys);
    }

    /// Aborts tasks together: none of them starts because another one ends.
    pub(super) fn kill_all(&mut self, keys: &[TaskKey]) {
        let outer = std::mem::replace(&mut self.starting, true);
        for &key in keys {
            self.kill(key);
        }
        self.starting = outer;
        self.run_ready();
    }

    /// Aborts a task: it gets no response. I/O in flight keeps its buffers, and its range if it writes.
    pub(crate) fn kill(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        if task.work.stage == Stage::Dying {
            return;
        }
        let key = task.work.link;
        let code = task.attribute;
        let work = &mut *task.work;
        work.stage = Stage::Dying;
        work.outcome = None;
        let place = work.place.filter(|_| work.entered);
        // A direct receive has its buffer, which goes home when it ends; nobody waits for a peer that may be gone.
        if let Some(link) = self.links.get_mut(key)
            && let Receiving::Into(direct) = &mut link.receiving
            && direct.task == task_key
        {
            direct.task = Key::default();
            work.in_flight -= 1;
        }
        if work.in_flight > 0 && work.place.is_some() {
            let motion = work.transfer.motion;
            let unit = &mut self.units[work.sides[1] as usize];
            for i in work.transfer.order() {
                let w = &work.transfer.windows[i];
                if !matches!(w.phase, Phase::Storing | Phase::Verifying) {
                    continue;
                }
                match motion {
                    Motion::Write | Motion::Swap | Motion::Put | Motion::Merge => {
                        unit.dying.push((task_key.index, work.transfer.range(i)))
                    }
                    Motion::Copy if w.leg != Leg::Read => unit.dying.push((task_key.index, work.store_range(i))),
                    Motion::Plain if work.plain.writes() => unit.dying.push((task_key.index, work.plain.range())),
                    _ => {}
                }
            }
        }
        // What goes on by itself has no session any more.
        if let Some(link) = self.links.get_mut(key) {
            link.session.detach(&mut self.tasks, task_key);
            if let Some(place) = place {
                link.places[place as usize].tasks.leave(task_key.index, attribute(code), &mut self.ready);
            }
        }
        self.bury(task_key);
        self.run_ready();
    }

    /// Forgets an aborted task that has nothing in flight any more.
    pub(crate) fn bury(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get(task_key) else { return };
        if task.work.stage != Stage::Dying || task.work.in_flight > 0 {
            return;
        }
        let link = task.work.link;
        self.drop_windows(task_key);
        let slot = self.tasks.remove(task_key).map(|task| task.work);
        self.recycle(slot);
        // Nothing is sent for it that would let those go on that waited for what it had read.
        let stalled = self.links.get_mut(link).map(|link| std::mem::take(&mut link.stalled)).unwrap_or_default();
        for task in stalled {
            self.wait_for_buffer(task);
        }
        if !self.managements.is_empty() {
            self.managements_drained();
        }
    }

    fn kill_link_tasks(&mut self, key: Key) {
        let Some(link) = self.links.get(key) else { return };
        let keys: Vec<TaskKey> = link.session.tasks(&self.tasks).collect();
        self.kill_all(&keys);
    }

    /// RFC 7143 11.14: its tasks are terminated, the answer is sent, then the connection is closed.
    pub(crate) fn logout(&mut self, key: Key, reason: u8) {
        debug!(session = super::link_identity(&self.links, key), reason, "logout");
        self.kill_link_tasks(key);
        let Some(link) = self.links.get_mut(key) else { return };
        link.connection.logout_response(&mut link.session, &mut link.outgoing);
        self.close_gently(key, CloseReason::Logout);
    }

    /// SendTargets in a normal session: what it may know is its own target (RFC 7143 appendix C).
    pub(crate) fn send_targets(&mut self, key: Key, which: &SendTargets) {
        let Some(link) = self.links.get_mut(key) else { return };
        let own = match which {
            SendTargets::All | SendTargets::This => true,
            SendTargets::Named(name) => **name == *link.identity.target,
        };
        let text: Arc<[u8]> = if own { link.addresses.clone() } else { Arc::new([]) };
        link.connection.text_response(&mut link.session, &text, &mut link.outgoing);
        self.mark_dirty(key);
    }

    /// Nothing more is read; what is to be sent is sent; then it is closed.
    pub(crate) fn close_gently(&mut self, key: Key, reason: CloseReason) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.closing.is_none() {
            debug!(session = link.identity.id, ?reason, "closing");
            link.closing = Some(reason);
        }
        self.kill_link_tasks(key);
        self.mark_dirty(key);
    }

    /// Closes a connection at once.
    pub(crate) fn cut(&mut self, key: Key, reason: CloseReason) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.closing.is_none() {
            link.closing = Some(reason);
        }
        link.outgoing = Default::default();
        self.kill_link_tasks(key);
        // Nor is what it was sent to be read when it has lost the right to it.
        self.hang_up(key, R::abort);
    }

    /// Gives the descriptor back, by `close` or `abort`; operations in flight on it end with an error.
    pub(crate) fn hang_up(&mut self, key: Key, give_back: impl FnOnce(&mut R, Descriptor)) {
        let Some(link) = self.links.get_mut(key) else { return };
        if !link.closed {
            link.closed = true;
            give_back(&mut self.reactor, link.descriptor);
            self.take_all_back(key);
        }
        self.settle(key);
    }

    /// Forgets a closed link when the reactor has nothing of it any more.
    pub(crate) fn settle(&mut self, key: Key) {
        let Some(link) = self.links.get(key) else { return };
        if link.closing.is_some() && !link.closed && link.outgoing.is_empty() && !link.sending && link.held == 0 {
            return self.hang_up(key, R::close);
        }
        if !link.closed || link.operations > 0 {
            return;
        }
        let Some(link) = self.links.remove(key) else { return };
        let Link { places, identity, closing, .. } = link;
        for place in places {
            place.nexus.end(self.units[place.unit as usize].logical());
        }
        let reason = closing.unwrap_or(CloseReason::Protocol("closed"));
        info!(session = identity.id, initiator = %identity.initiator.name, target = %identity.target, %reason, "session ended");
        if self.links.is_empty() {
            // It may sleep until the next one comes.
            self.commands = 0;
            self.post.say_rate(self.number, 0);
            self.let_go();
        }
        self.report_ended(identity.id, reason);
    }

    /// Asks all initiators to log out (RFC 7143 11.9, event 1).
    pub(crate) fn begin_drain(&mut self, seconds: u16) {
        self.drain = Drain::Asked(self.reactor.now() + Duration::from_secs(u64::from(seconds)));
        let keys: Vec<Key> = self.links.iter().map(|(k, _)| k).collect();
        for key in keys {
            self.ask_to_log_out(key);
        }
    }

    pub(crate) fn ask_to_log_out(&mut self, key: Key) {
        let Drain::Asked(at) = self.drain else { return };
        let seconds = at.saturating_sub(self.reactor.now()).as_secs() as u16;
        if let Some(link) = self.links.get_mut(key) {
            link.connection.asynchronous(&mut link.session, 1, [0, 0, seconds], &mut link.outgoing);
            self.mark_dirty(key);
        }
    }

    pub(crate) fn continue_drain(&mut self) {
        match self.drain {
            Drain::No | Drain::Done => {}
            Drain::Asked(at) => {
                if self.links.is_empty()
                    && self.tasks.is_empty()
                    && self.roster.is_settled()
                    && !self.chores_in_flight()
                    && !self.units.iter().any(|unit| unit.measuring)
                {
                    self.drain = Drain::Flushing;
                    self.leave_chores();
                    for unit in &mut self.units {
                        unit.draining = true;
                    }
                    self.flush_units();
                } else if self.reactor.now() >= at {
                    self.kill_detached();
                    let keys: Vec<Key> = self.links.iter().filter(|(_, l)| !l.closed).map(|(k, _)| k).collect();
                    for key in keys {
                        self.cut += 1;
                        self.cut(key, CloseReason::Protocol("the target is shutting down"));
                    }
                }
            }
            Drain::Flushing => self.flush_units(),
        }
    }

    fn flush_units(&mut self) {
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            if !unit.draining || unit.flushing {
                continue;
            }
            match unit.queue.submit(&mut self.reactor, DRAIN_TAG, Request::Flush) {
                Submitted::Pending => unit.flushing = true,
                Submitted::Done(done) => self.drain_flushed(index as u16, done.result.map(drop)),
                Submitted::Full(_) => {}
            }
        }
        if self.units.iter().all(|u| !u.draining) {
            self.drain = Drain::Done;
            for unit in &mut self.units {
                unit.queue.close(&mut self.reactor);
            }
            let failures = std::mem::take(&mut self.failures);
            self.post.report(ToControl::Drained { core: self.number, cut: self.cut, failures });
        }
    }

    pub(crate) fn drain_flushed(&mut self, unit: u16, result: Result<(), StoreError>) {
        let unit = &mut self.units[unit as usize];
        unit.draining = false;
        unit.flushing = false;
        if let Err(error) = result {
            let name = &unit.logical().identity().name;
            warn!("volume {name}: {error}; what was written since its last flush may be lost");
            self.failures.push(format!("volume {name}: {error}"));
        }
    }
}
