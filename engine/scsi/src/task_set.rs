//! The task set of one nexus and LUN (SAM-5 chapter 8). TST is 001b, so it is local to a core.
//!
//! HEAD OF QUEUE runs at once. ORDERED runs when everything older has ended. SIMPLE runs when no HEAD OF QUEUE is in the
//! set and every older ORDERED has ended; SIMPLE tasks may overtake each other (QUEUE ALGORITHM MODIFIER 1).

use std::collections::VecDeque;

/// Task attribute (SAM-5 8.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// None given; treated as SIMPLE.
    Untagged,
    /// SIMPLE.
    Simple,
    /// ORDERED.
    Ordered,
    /// HEAD OF QUEUE.
    HeadOfQueue,
    /// ACA: the server refuses it, as NormACA is 0. Treated as SIMPLE here.
    Aca,
}

/// Whether a task may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admit {
    /// Start it.
    Run,
    /// [`TaskSet::leave`] of another task will give it.
    Wait,
}

/// Which tasks of a nexus and LUN may run.
#[derive(Debug, Default)]
pub struct TaskSet {
    running: u32,
    heads: u32,
    ordered_running: bool,
    /// Task, and whether it is ORDERED; oldest first.
    waiting: VecDeque<(u32, bool)>,
}

impl TaskSet {
    /// An empty one.
    pub fn new() -> TaskSet {
        TaskSet::default()
    }

    /// No task is in it.
    pub fn is_empty(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// A SIMPLE task that arrived now would run.
    #[inline]
    pub fn runs_simple(&self) -> bool {
        self.waiting.is_empty() && self.heads == 0 && !self.ordered_running
    }

    /// A task arrives. SIMPLE is O(1) when nothing ORDERED is about. `task`: the server's index.
    #[inline]
    pub fn enter(&mut self, task: u32, attribute: Attribute) -> Admit {
        let run = match attribute {
            Attribute::HeadOfQueue => {
                self.heads += 1;
                true
            }
            Attribute::Ordered => self.running == 0 && self.waiting.is_empty(),
            _ => self.runs_simple(),
        };
        let ordered = attribute == Attribute::Ordered;
        if !run {
            self.waiting.push_back((task, ordered));
            return Admit::Wait;
        }
        self.running += 1;
        self.ordered_running |= ordered;
        Admit::Run
    }

    /// A task ended or was aborted, running or waiting: appends those that may run now.
    #[inline]
    pub fn leave(&mut self, task: u32, attribute: Attribute, ready: &mut Vec<u32>) {
        if self.waiting.is_empty() && attribute != Attribute::Ordered {
            self.running = self.running.saturating_sub(1);
            if attribute == Attribute::HeadOfQueue {
                self.heads = self.heads.saturating_sub(1);
            }
            return;
        }
        self.leave_slow(task, attribute, ready);
    }

    fn leave_slow(&mut self, task: u32, attribute: Attribute, ready: &mut Vec<u32>) {
        // HEAD OF QUEUE never waits, so its index can't be that of a waiting task.
        if let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == task) {
            self.waiting.remove(place);
        } else {
            self.running = self.running.saturating_sub(1);
            match attribute {
                Attribute::HeadOfQueue => self.heads = self.heads.saturating_sub(1),
                Attribute::Ordered => self.ordered_running = false,
                _ => (),
            }
        }
        while let Some((task, ordered)) = self.waiting.front().copied() {
            let run = self.heads == 0 && if ordered { self.running == 0 } else { !self.ordered_running };
            if !run {
                break;
            }
            self.waiting.pop_front();
            self.running += 1;
            self.ordered_running |= ordered;
            ready.push(task);
        }
    }
}
