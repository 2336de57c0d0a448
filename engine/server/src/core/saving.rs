//! The lasting state of a unit on its way to stable storage: a job of the helper threads.

use super::{Core, KIND_SAVE, link_token, unit::Unit, work::Phase};
use backstore_api::{Answer, StoreError};
use protocol::TaskKey;
use reactor::{Completion, Job, Reactor};

impl<R: Reactor> Core<R> {
    /// Has the unit's lasting state saved; the window ends with it.
    pub(crate) fn save(&mut self, task_key: TaskKey, window: usize) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let job = job(&self.units[task.work.unit as usize]);
        match self.reactor.offload(job, link_token(KIND_SAVE, task_key)) {
            Ok(()) => {
                task.work.transfer.windows[window].phase = Phase::Storing;
                task.work.in_flight += 1;
            }
            Err(_) => {
                let unit = task.work.unit;
                self.list_waiting(task_key, unit);
            }
        }
    }

    /// A save has ended.
    pub(crate) fn saved(&mut self, task_key: TaskKey, completion: Completion) {
        let result = completion.result.map(|_| Answer::Done).map_err(|errno| StoreError::Other(errno.0));
        let window = match self.tasks.get(task_key) {
            Some(task) => task.work.transfer.first as usize,
            None => return,
        };
        let done = backstore_api::Completion { tag: 0, result, buffer: None };
        self.window_completed(task_key, window, done);
    }
}

/// What a helper thread does to keep the unit's lasting state.
pub(crate) fn job<R: Reactor>(unit: &Unit<R>) -> Job {
    let (keeper, logical) = (unit.keeper.clone(), unit.logical().clone());
    Box::new(move || match keeper {
        Some(keeper) => Ok(keeper.keep(&logical).map(|()| (0, Vec::new()))?),
        None => Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()),
    })
}
