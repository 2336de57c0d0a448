//! The end of a task: its response, what it leaves behind, who may run next.

use super::{
    Core,
    input::attribute,
    transfer::put_data_in,
    work::{Motion, Slot, Stage},
};
use protocol::{Finish, TaskKey};
use reactor::Reactor;
use scsi::{Outcome, Status};

impl<R: Reactor> Core<R> {
    /// The command's outcome is known.
    pub(crate) fn finish(&mut self, task_key: TaskKey, outcome: Outcome) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        if task.work.detached.is_some() {
            return self.vanish(task_key);
        }
        task.work.transfer.motion = Motion::None;
        self.drop_windows(task_key);
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        if task.expects_data() && outcome.data == 0 {
            // Its initiator is still sending: the response would let it use the tag again.
            task.work.stage = Stage::Ending;
            task.work.outcome = Some(outcome);
            return;
        }
        self.respond(task_key, outcome);
    }

    /// Sends data in, if there is any, and the response; the task is gone afterwards.
    pub(crate) fn respond(&mut self, task_key: TaskKey, outcome: Outcome) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let key = task.work.link;
        let Some(link) = self.links.get_mut(key) else { return };
        let mut sent = false;
        if outcome.data > 0 && outcome.status == Status::Good {
            task.work.wanted = outcome.data;
            let finish = Finish { status: 0, transfer: outcome.data };
            let length = outcome.data.min(task.read_length) as usize;
            sent = put_data_in(link, task, &self.scratch[..length], Some(finish));
        }
        if !sent {
            let mut sense = [0; 252];
            let length = match &outcome.sense {
                Some(sense_data) => {
                    let descriptor = task
                        .work
                        .place
                        .is_some_and(|_| self.units[task.work.unit as usize].logical().descriptor_sense());
                    sense_data.emit(descriptor, &mut sense)
                }
                None => 0,
            };
            let finish = Finish { status: outcome.status as u8, transfer: task.work.wanted };
            link.connection.response(&mut link.session, task, finish, &sense[..length], &mut link.outgoing);
        }
        self.mark_dirty(key);
        self.retire(task_key);
    }

    /// Forgets an answered task and lets others of its task set run.
    pub(crate) fn retire(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get(task_key) else { return };
        let (key, code) = (task.work.link, task.attribute);
        let place = task.work.place.filter(|_| task.work.entered);
        let Some(link) = self.links.get_mut(key) else { return };
        let slot = link.connection.retire(&mut link.session, &mut self.tasks, task_key);
        self.recycle(slot);
        let Some(link) = self.links.get_mut(key) else { return };
        if let Some(place) = place {
            link.places[place as usize].tasks.leave(task_key.index, attribute(code), &mut self.ready);
            if !self.ready.is_empty() {
                self.run_ready();
            }
        }
        if !self.managements.is_empty() {
            self.managements_drained();
        }
    }

    /// Keeps a task's memory for another one.
    pub(crate) fn recycle(&mut self, slot: Option<Slot>) {
        if let Some(mut work) = slot.and_then(Slot::empty) {
            work.reset();
            self.spare_work.push(work);
        }
    }

    /// Starts tasks whose turn in their task set has come. A task that ends at once leaves the next one to the loop that
    /// started it: a long queue of them must not become as deep a stack.
    pub(crate) fn run_ready(&mut self) {
        if std::mem::replace(&mut self.starting, true) {
            return;
        }
        while let Some(index) = self.ready.pop() {
            if let Some(key) = self.tasks.key_at(index)
                && self.tasks.get(key).is_some_and(|t| t.work.stage == Stage::Queued)
            {
                self.start(key);
            }
        }
        self.starting = false;
    }
}
