//! Copy operations that a logical unit's copy manager knows: running ones, and those whose results are held (SPC-4
//! 5.17.4). They are found by the session that asked for them and by LIST IDENTIFIER.

use super::token::Token;
use crate::{sense::Sense, status::Status};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
};

/// TOTAL CONCURRENT COPIES and MAXIMUM IDENTIFIED CONCURRENT COPIES: operations of one unit that run or whose results
/// are held.
pub(crate) const MOST: usize = 128;

/// What an operation came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Not yet; `background`: its command has been answered.
    Running { background: bool },
    /// It ended by itself.
    Ended { status: Status, sense: Option<Sense> },
    /// Aborted.
    Terminated,
}

/// A copy operation, shared by the command that carries it out and those that ask for it.
pub(crate) struct Operation {
    nexus: u64,
    pub list_id: u32,
    /// SERVICE ACTION of the command that began it.
    pub action: u8,
    /// TRANSFER COUNT, in bytes.
    bytes: AtomicU64,
    /// SEGMENTS PROCESSED.
    segments: AtomicU16,
    /// OPERATION COUNTER.
    steps: AtomicU16,
    stop: AtomicBool,
    results: Mutex<Results>,
}

struct Results {
    ending: Ending,
    /// RECEIVE COPY STATUS (LID1) was answered after the end: it is not again.
    status_taken: bool,
    /// The same of RECEIVE COPY FAILURE DETAILS.
    details_taken: bool,
    /// A ROD token that was made.
    token: Option<Box<Token>>,
}

impl Operation {
    /// Which command asked for it, for one that is not in any list.
    pub fn unlisted(nexus: u64, list_id: u32, action: u8) -> Arc<Operation> {
        Arc::new(Operation {
            nexus,
            list_id,
            action,
            bytes: AtomicU64::new(0),
            segments: AtomicU16::new(0),
            steps: AtomicU16::new(0),
            stop: AtomicBool::new(false),
            results: Mutex::new(Results {
                ending: Ending::Running { background: false },
                status_taken: false,
                details_taken: false,
                token: None,
            }),
        })
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ending(&self) -> Ending {
        self.results().ending
    }

    pub fn is_running(&self) -> bool {
        matches!(self.ending(), Ending::Running { .. })
    }

    /// More was written, all of it in order from the beginning.
    pub fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// A segment is being processed.
    pub fn segment(&self, number: u16) {
        self.segments.store(number.saturating_add(1), Ordering::Relaxed);
    }

    /// Bytes, segments and commands so far.
    pub fn progress(&self) -> (u64, u16, u16) {
        let (bytes, segments) = (self.bytes.load(Ordering::Relaxed), self.segments.load(Ordering::Relaxed));
        (bytes, segments, self.steps.load(Ordering::Relaxed))
    }

    /// COPY OPERATION ABORT, or a reset of the unit: whoever carries it out sees it at its next step.
    pub fn abort(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub fn is_aborted(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// It has ended; the first who says so is right.
    pub fn end(&self, ending: Ending) {
        let mut results = self.results();
        if matches!(results.ending, Ending::Running { .. }) {
            results.ending = ending;
        }
    }

    /// Its command has been answered.
    pub fn detach(&self) {
        self.results().ending = Ending::Running { background: true };
    }

    /// It made a ROD token.
    pub fn give(&self, token: Box<Token>) {
        self.results().token = Some(token);
    }

    /// Looks at its ROD token.
    pub fn token<T>(&self, look: impl FnOnce(Option<&Token>) -> T) -> T {
        look(self.results().token.as_deref())
    }

    /// The results are told by RECEIVE COPY STATUS (LID1), once. False: they were.
    pub fn take_status(&self) -> bool {
        let mut results = self.results();
        let ended = !matches!(results.ending, Ending::Running { .. });
        !std::mem::replace(&mut results.status_taken, ended)
    }

    /// The same of RECEIVE COPY FAILURE DETAILS.
    pub fn take_details(&self) -> bool {
        !std::mem::replace(&mut self.results().details_taken, true)
    }
}

/// Why no operation begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The session has one with this identifier.
    Duplicate,
    /// Too many run.
    Full,
}

/// The operations of one logical unit.
#[derive(Default)]
pub(crate) struct Operations(Mutex<Vec<Arc<Operation>>>);

impl Operations {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Operation>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one. Results of an earlier one with the same identifier are discarded.
    pub fn begin(&self, nexus: u64, list_id: u32, action: u8) -> Result<Arc<Operation>, Refusal> {
        let mut list = self.list();
        if let Some(place) = list.iter().position(|known| (known.nexus, known.list_id) == (nexus, list_id)) {
            if list[place].is_running() {
                return Err(Refusal::Duplicate);
            }
            list.remove(place);
        }
        if list.len() >= MOST {
            let oldest = list.iter().position(|known| !known.is_running()).ok_or(Refusal::Full)?;
            list.remove(oldest);
        }
        let operation = Operation::unlisted(nexus, list_id, action);
        list.push(operation.clone());
        Ok(operation)
    }

    /// The operation of a session with this identifier.
    pub fn find(&self, nexus: u64, list_id: u32) -> Option<Arc<Operation>> {
        self.list().iter().find(|known| (known.nexus, known.list_id) == (nexus, list_id)).cloned()
    }

    /// I_T nexus loss: results are discarded; what runs goes on (SPC-4 5.17.5).
    pub fn forget(&self, nexus: u64) {
        self.list().retain(|known| known.nexus != nexus);
    }

    /// Logical unit reset: everything is aborted and discarded.
    pub fn reset(&self) {
        for operation in self.list().drain(..) {
            operation.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Ending = Ending::Ended { status: Status::Good, sense: None };

    #[test]
    fn an_identifier_is_free_again_when_its_operation_has_ended() {
        let operations = Operations::default();
        let first = operations.begin(1, 7, 0).ok().unwrap();
        assert_eq!(operations.begin(1, 7, 0).err(), Some(Refusal::Duplicate));
        assert!(operations.begin(2, 7, 0).is_ok(), "another session's identifiers are its own");
        first.end(GOOD);
        let second = operations.begin(1, 7, 1).ok().unwrap();
        assert!(Arc::ptr_eq(&operations.find(1, 7).unwrap(), &second));
    }

    #[test]
    fn the_oldest_results_make_room_and_what_runs_does_not() {
        let operations = Operations::default();
        let all: Vec<_> = (0..MOST as u32).map(|id| operations.begin(1, id, 0).ok().unwrap()).collect();
        assert_eq!(operations.begin(1, 1000, 0).err(), Some(Refusal::Full));
        all[5].end(GOOD);
        all[3].end(GOOD);
        assert!(operations.begin(1, 1000, 0).is_ok());
        assert!(operations.find(1, 3).is_none());
        assert!(operations.find(1, 5).is_some());
    }

    #[test]
    fn the_first_end_counts() {
        let operation = Operation::unlisted(1, 1, 0);
        operation.end(Ending::Terminated);
        operation.end(GOOD);
        assert_eq!(operation.ending(), Ending::Terminated);
    }

    #[test]
    fn a_reset_aborts_and_a_lost_nexus_only_forgets() {
        let operations = Operations::default();
        let (one, two) = (operations.begin(1, 1, 0).ok().unwrap(), operations.begin(2, 1, 0).ok().unwrap());
        operations.forget(1);
        assert!(!one.is_aborted() && operations.find(1, 1).is_none());
        operations.reset();
        assert!(two.is_aborted() && operations.find(2, 1).is_none());
    }
}
