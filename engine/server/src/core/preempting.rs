//! PREEMPT AND ABORT (SPC-4 5.12.11.5): the tasks of preempted nexuses end on all cores before it answers.
//!
//! Who was preempted has lost its rights already, so that nothing new of it passes the check; what had passed it is
//! aborted here, and its I/O waited for. PREEMPT without ABORT lets it run to its end, as the standard allows.

use super::{
    Core,
    management::{Management, Reply, Scope},
    work::{Stage, Work},
};
use crate::mail::{FromCore, ToCore};
use memory::Key;
use protocol::TaskKey;
use reactor::Reactor;
use scsi::{Attention, Command, Path};
use std::sync::Arc;

impl<R: Reactor> Core<R> {
    /// A command waits until the tasks of those whom it has preempted are gone, everywhere.
    pub(crate) fn abort_preempted(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get(task_key) else { return };
        let unit = task.work.unit;
        let nexuses = task.work.command.as_ref().and_then(Command::preempted).cloned().unwrap_or_default();
        let number = self.next_management();
        let cores = self.post.cores();
        for core in (0..cores).filter(|&core| core != self.number) {
            let nexuses = nexuses.clone();
            let message = FromCore::Abort { core: self.number, management: number, unit, nexuses };
            self.post.send(core, ToCore::Core(message));
        }
        self.abort_nexuses(unit, &nexuses);
        let (reply, scope) = (Reply::Task(task_key), Scope::Nexuses(unit, nexuses));
        self.managements.push(Management { number, reply, scope, cores_left: cores - 1 });
        self.managements_drained();
    }

    /// The same for a command on another core.
    pub(crate) fn remote_abort(&mut self, core: u16, management: u32, unit: u16, nexuses: Arc<[Path]>) {
        self.abort_nexuses(unit, &nexuses);
        let number = self.next_management();
        let (reply, scope) = (Reply::Core { core, management }, Scope::Nexuses(unit, nexuses));
        self.managements.push(Management { number, reply, scope, cores_left: 0 });
        self.managements_drained();
    }

    /// TAS is 0: no status is sent, and each nexus that had a task hears of it (SAM-5 5.6). What they copy to or from the
    /// unit ends, too, whichever unit was asked for that.
    fn abort_nexuses(&mut self, unit: u16, nexuses: &[Path]) {
        let id = self.units[unit as usize].logical().id();
        let alive = |work: &Work| work.stage != Stage::Dying && work.touches(unit, id);
        let links: Vec<Key> = self.links.iter().filter(|(_, link)| link.is_of(nexuses)).map(|(key, _)| key).collect();
        for key in links {
            let of_it = self.tasks.iter().filter(|(_, task)| task.work.link == key && alive(&task.work));
            let (tasks, mut asked): (Vec<TaskKey>, Vec<u16>) = of_it.map(|(task, t)| (task, t.work.unit)).unzip();
            if tasks.is_empty() {
                continue;
            }
            self.kill_all(&tasks);
            asked.push(unit);
            let Some(link) = self.links.get_mut(key) else { continue };
            for place in link.places.iter_mut().filter(|place| asked.contains(&place.unit)) {
                place.nexus.attention(Attention::CommandsCleared);
            }
        }
        let theirs = |work: &Work| {
            let path = work.command.as_ref().and_then(Command::copies_for);
            work.detached.is_some() && path.is_some_and(|path| nexuses.contains(path))
        };
        let alone = self.tasks.iter().filter(|(_, task)| theirs(&task.work) && alive(&task.work));
        let tasks: Vec<TaskKey> = alone.map(|(key, _)| key).collect();
        self.kill_all(&tasks);
    }
}
