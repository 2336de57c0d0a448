//! Commands that are answered first and carried out then (IMMED of third-party copies): the task leaves its session and
//! its task set, and keeps its place in the core's slab until it has ended. A reset of its unit ends it, or an abort that
//! its copy manager is asked for; the end of its session does not.

use super::{
    Core,
    input::attribute,
    work::{Motion, Stage},
};
use memory::Key;
use protocol::{Finish, TaskKey};
use reactor::Reactor;

/// Tasks of a core that may go on so at a time: each has a place that a session's could have.
const MOST: usize = 32;

impl<R: Reactor> Core<R> {
    /// Answers a task with GOOD, and lets it go on without its session. False: too many do, or its initiator is still
    /// sending, and would use the tag again.
    pub(crate) fn detach(&mut self, task_key: TaskKey) -> bool {
        let detached = self.tasks.iter().filter(|(_, task)| task.work.detached.is_some()).count();
        let Some(task) = self.tasks.get_mut(task_key).filter(|task| detached < MOST && !task.expects_data()) else {
            return false;
        };
        let (key, code) = (task.work.link, task.attribute);
        let Some(link) = self.links.get_mut(key) else { return false };
        let finish = Finish { status: 0, transfer: task.work.wanted };
        link.connection.response(&mut link.session, task, finish, &[], &mut link.outgoing);
        let work = &mut *task.work;
        work.parameter = None;
        work.detached = Some(link.port.clone());
        work.link = Key::default();
        let place = work.place.filter(|_| std::mem::take(&mut work.entered));
        link.session.detach(&mut self.tasks, task_key);
        if let Some(place) = place {
            link.places[place as usize].tasks.leave(task_key.index, attribute(code), &mut self.ready);
        }
        self.mark_dirty(key);
        self.run_ready();
        true
    }

    /// Forgets a task that went on by itself and has ended.
    pub(crate) fn vanish(&mut self, task_key: TaskKey) {
        if let Some(task) = self.tasks.get_mut(task_key) {
            task.work.transfer.motion = Motion::None;
        }
        self.drop_windows(task_key);
        let slot = self.tasks.remove(task_key).map(|task| task.work);
        self.recycle(slot);
        if !self.managements.is_empty() {
            self.managements_drained();
        }
    }

    /// Ends what goes on by itself: the core stops.
    pub(crate) fn kill_detached(&mut self) {
        let detached = self.tasks.iter().filter(|(_, task)| task.work.detached.is_some());
        let keys: Vec<TaskKey> =
            detached.filter(|(_, task)| task.work.stage != Stage::Dying).map(|(key, _)| key).collect();
        self.kill_all(&keys);
    }
}
