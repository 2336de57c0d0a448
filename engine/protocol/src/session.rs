//! What the connections of a session share: the CmdSN window, the order of commands, and the index of its tasks.

use crate::hold::{Held, Hold};
use crate::task::{MAX_OUTSTANDING_R2T, NONE, Task, TaskKey, Tasks};
use negotiation::Parameters;

/// SCSI commands for immediate delivery that a session may have in progress.
pub const MAX_IMMEDIATE: u32 = 8;

/// The largest command window.
pub const MAX_WINDOW: u32 = 65536;

/// Tags of one bucket that don't come by chance: the index changes its hash.
const FLOOD: u32 = 32;

/// Session index of a task that belongs to no session any more.
const DETACHED: u32 = u32::MAX;

/// What is the same for all connections of a session: CmdSN window, order, held commands. A plain value.
#[derive(Debug)]
pub struct Session {
    index: u32,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    window: u32,
    /// Tasks delivered in order whose status was not sent.
    queued: u32,
    /// Tasks for immediate delivery.
    immediate: u32,
    /// All tasks.
    tasks: u32,
    /// Heads of the chains of tasks, by hash of the Initiator Task Tag.
    buckets: Box<[u32]>,
    /// Odd. One, as long as nobody has picked his tags to meet in a bucket.
    salt: u32,
    hold: Option<Box<Hold>>,
    pub(crate) initial_r2t: bool,
    pub(crate) immediate_data: bool,
    pub(crate) first_burst_length: u32,
    pub(crate) max_burst_length: u32,
    pub(crate) max_outstanding_r2t: u32,
    pub(crate) default_time2wait: u16,
    pub(crate) default_time2retain: u16,
}

/// Where a CmdSN stands in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// It is the next one, or the command is immediate.
    Now,
    /// In the window, but others are missing before it.
    Ahead,
    /// Outside the window, or there already: to be ignored silently (RFC 7143 4.2.2.1).
    Ignore,
}

impl Session {
    /// `index`: copied into its tasks. `window`: how many commands it may have queued (MaxCmdSN - ExpCmdSN + 1);
    /// taken as 1 to [`MAX_WINDOW`].
    pub fn new(index: u32, parameters: &Parameters, exp_cmd_sn: u32, window: u32) -> Session {
        let window = window.clamp(1, MAX_WINDOW);
        let buckets = (window + MAX_IMMEDIATE).next_power_of_two();
        Session {
            index,
            exp_cmd_sn,
            max_cmd_sn: exp_cmd_sn.wrapping_add(window - 1),
            window,
            queued: 0,
            immediate: 0,
            tasks: 0,
            buckets: vec![NONE; buckets as usize].into_boxed_slice(),
            salt: 1,
            hold: None,
            initial_r2t: parameters.initial_r2t,
            immediate_data: parameters.immediate_data,
            first_burst_length: parameters.first_burst_length,
            max_burst_length: parameters.max_burst_length,
            max_outstanding_r2t: u32::from(parameters.max_outstanding_r2t).clamp(1, MAX_OUTSTANDING_R2T as u32),
            default_time2wait: parameters.default_time2wait,
            default_time2retain: parameters.default_time2retain,
        }
    }

    /// The server's index, as given to `new`.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Gives the session another index (it moved to another core). It must not have tasks.
    pub fn set_index(&mut self, index: u32) {
        debug_assert_eq!(self.tasks, 0);
        self.index = index;
    }

    /// CmdSN of the next command in order.
    pub fn exp_cmd_sn(&self) -> u32 {
        self.exp_cmd_sn
    }

    /// The last CmdSN that the initiator may send now.
    pub fn max_cmd_sn(&self) -> u32 {
        self.max_cmd_sn
    }

    /// How many tasks it has, held ones included.
    pub fn task_count(&self) -> u32 {
        self.tasks
    }

    /// MaxBurstLength, the most that one R2T may ask for, in bytes.
    pub fn max_burst_length(&self) -> u32 {
        self.max_burst_length
    }

    /// Asks the processor to fetch what tells the tasks with this Initiator Task Tag, and ones near to it.
    #[inline]
    pub fn fetch(&self, initiator_task_tag: u32) {
        memory::fetch(&self.buckets[self.bucket(initiator_task_tag)]);
    }

    /// The task with this Initiator Task Tag.
    pub fn find<T>(&self, tasks: &Tasks<T>, initiator_task_tag: u32) -> Option<TaskKey> {
        let mut index = self.buckets[self.bucket(initiator_task_tag)];
        // A chain holds each task once, so this many steps are enough whatever the caller did to the slab.
        for _ in 0..self.tasks {
            let task = tasks.at(index)?;
            if task.initiator_task_tag == initiator_task_tag && task.session == self.index {
                return tasks.key_at(index);
            }
            index = task.chain;
        }
        None
    }

    /// All its tasks, in no particular order; held and finished ones included.
    pub fn tasks<'a, T>(&'a self, tasks: &'a Tasks<T>) -> impl Iterator<Item = TaskKey> + 'a {
        let mut bucket = 0;
        let mut next = NONE;
        let mut left = self.tasks;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            while next == NONE {
                next = *self.buckets.get(bucket)?;
                bucket += 1;
            }
            let index = next;
            left -= 1;
            next = tasks.at(index)?.chain;
            tasks.key_at(index)
        })
    }

    /// Its tasks for one logical unit.
    pub fn tasks_of_lun<'a, T>(&'a self, tasks: &'a Tasks<T>, lun: u64) -> impl Iterator<Item = TaskKey> + 'a {
        self.tasks(tasks).filter(move |&key| tasks.get(key).is_some_and(|task| task.lun == lun))
    }

    /// Forgets a task and opens the window. `None`: the key is stale or another session's.
    #[inline]
    pub fn retire<T>(&mut self, tasks: &mut Tasks<T>, key: TaskKey) -> Option<T> {
        if !self.detach(tasks, key) {
            return None;
        }
        Some(tasks.remove(key)?.work)
    }

    /// Takes an aborted task out of the session, as [`retire`](Self::retire) does, but leaves it in the slab: I/O in
    /// flight still names its slot. The server removes it from the slab. False: the key is stale or another session's.
    #[inline]
    pub fn detach<T>(&mut self, tasks: &mut Tasks<T>, key: TaskKey) -> bool {
        let Some(task) = tasks.get_mut(key).filter(|task| task.session == self.index) else {
            return false;
        };
        self.settle(task);
        if task.immediate {
            self.immediate = self.immediate.saturating_sub(1);
        } else if task.held
            && let Some(hold) = &mut self.hold
        {
            hold.abandon(task.cmd_sn);
        }
        task.session = DETACHED;
        task.held = false;
        task.outstanding = 0;
        task.unsolicited_open = false;
        let (tag, chain) = (task.initiator_task_tag, std::mem::replace(&mut task.chain, NONE));
        self.unlink(tasks, key.index, tag, chain);
        self.tasks = self.tasks.saturating_sub(1);
        true
    }

    /// The task's status is on its way: it does not count any more.
    #[inline]
    pub(crate) fn settle<T>(&mut self, task: &mut Task<T>) {
        task.finished = true;
        if task.queued {
            task.queued = false;
            self.queued -= 1;
            self.open_window();
        }
    }

    /// Adds a task to the slab and to the index; `task` gets the rest of its chain. `None`: no slot is free.
    #[inline]
    pub(crate) fn admit<T>(
        &mut self,
        tasks: &mut Tasks<T>,
        initiator_task_tag: u32,
        task: impl FnOnce(u32) -> Task<T>,
    ) -> Option<TaskKey> {
        let mut bucket = self.bucket(initiator_task_tag);
        if self.buckets[bucket] != NONE && self.is_flooded(tasks, bucket) {
            self.scatter(tasks);
            bucket = self.bucket(initiator_task_tag);
        }
        let key = tasks.insert(task(self.buckets[bucket])).ok()?;
        if key.index >= crate::task::MAX_TASKS {
            tasks.remove(key);
            return None;
        }
        self.buckets[bucket] = key.index;
        self.tasks += 1;
        Some(key)
    }

    /// Counts an admitted task.
    #[inline]
    pub(crate) fn count(&mut self, immediate: bool, queued: bool) {
        self.immediate += u32::from(immediate);
        self.queued += u32::from(queued);
    }

    #[inline]
    fn unlink<T>(&mut self, tasks: &mut Tasks<T>, index: u32, initiator_task_tag: u32, chain: u32) {
        let bucket = self.bucket(initiator_task_tag);
        if self.buckets[bucket] == index {
            self.buckets[bucket] = chain;
            return;
        }
        let mut at = self.buckets[bucket];
        for _ in 0..self.tasks {
            let Some(other) = tasks.at_mut(at) else {
                return;
            };
            if other.chain == index {
                other.chain = chain;
                return;
            }
            at = other.chain;
        }
    }

    /// The chain of a bucket is longer than it would be by chance.
    fn is_flooded<T>(&self, tasks: &Tasks<T>, bucket: usize) -> bool {
        let mut at = self.buckets[bucket];
        for _ in 0..FLOOD {
            let Some(task) = tasks.at(at) else { return false };
            at = task.chain;
        }
        true
    }

    /// Somebody has picked tags that meet in one bucket: each command would look at all others of the session, which the
    /// core's other sessions would wait for. Where they meet from now on can't be foreseen.
    #[cold]
    fn scatter<T>(&mut self, tasks: &mut Tasks<T>) {
        self.salt = rand::random::<u32>() | 1;
        let buckets = vec![NONE; self.buckets.len()].into_boxed_slice();
        let mut left = self.tasks;
        for head in std::mem::replace(&mut self.buckets, buckets) {
            let mut at = head;
            while left > 0
                && let Some(task) = tasks.at_mut(at).filter(|task| task.session == self.index)
            {
                left -= 1;
                let bucket = self.bucket(task.initiator_task_tag);
                let next = std::mem::replace(&mut task.chain, self.buckets[bucket]);
                self.buckets[bucket] = at;
                at = next;
            }
        }
    }

    #[inline]
    fn bucket(&self, initiator_task_tag: u32) -> usize {
        // Initiators count their tags up, in whatever byte, or use a few again and again: neighbours share a cache line.
        let tag = initiator_task_tag.wrapping_mul(self.salt);
        (tag ^ tag >> 8 ^ tag >> 16 ^ tag >> 24) as usize & (self.buckets.len() - 1)
    }

    /// Tasks of the fullest bucket.
    #[cfg(test)]
    pub(crate) fn longest_chain<T>(&self, tasks: &Tasks<T>) -> usize {
        let chain = |head: &u32| std::iter::successors(tasks.at(*head), |task| tasks.at(task.chain)).count();
        self.buckets.iter().map(chain).max().unwrap_or(0)
    }

    /// Room for one more task for immediate delivery.
    pub(crate) fn may_admit_immediate(&self) -> bool {
        self.immediate < MAX_IMMEDIATE
    }

    /// Where a command stands.
    #[inline]
    pub(crate) fn order(&self, cmd_sn: u32, immediate: bool) -> Order {
        if immediate {
            return Order::Now;
        }
        let ahead = cmd_sn.wrapping_sub(self.exp_cmd_sn);
        let open = self.max_cmd_sn.wrapping_sub(self.exp_cmd_sn).wrapping_add(1);
        if ahead >= open {
            Order::Ignore
        } else if ahead == 0 {
            Order::Now
        } else if self.hold.as_ref().is_some_and(|hold| hold.holds(cmd_sn)) {
            Order::Ignore
        } else {
            Order::Ahead
        }
    }

    /// This CmdSN is the next one, and in the window.
    #[inline]
    pub(crate) fn is_next(&self, cmd_sn: u32) -> bool {
        self.order(cmd_sn, false) == Order::Now
    }

    /// Something waits for its turn in the order.
    #[inline]
    pub(crate) fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// The command with CmdSN = ExpCmdSN was taken. Call it after the task was admitted, so that the window counts it.
    #[inline]
    pub(crate) fn consume(&mut self) {
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        self.open_window();
    }

    /// MaxCmdSN = ExpCmdSN + window - 1 - queued, but never back.
    #[inline]
    fn open_window(&mut self) {
        // Task states bound `queued` by the window; one that grew otherwise must close the window, not wrap it.
        let room = self.window.saturating_sub(self.queued);
        let max = self.exp_cmd_sn.wrapping_add(room).wrapping_sub(1);
        if max.wrapping_sub(self.max_cmd_sn) as i32 > 0 {
            self.max_cmd_sn = max;
        }
    }

    /// Keeps something that is ahead of its turn ([`Order::Ahead`] was given for it).
    pub(crate) fn hold(&mut self, cmd_sn: u32, held: Held) {
        let window = self.window;
        self.hold.get_or_insert_with(|| Box::new(Hold::new(window))).keep(cmd_sn, held);
    }

    /// Bytes of data segments that can be held with PDUs that are ahead.
    pub(crate) fn hold_room(&self) -> usize {
        self.hold.as_ref().map_or(crate::hold::MAX_HELD_BYTES, |hold| hold.room())
    }

    /// What is next in order after others arrived.
    #[inline]
    pub(crate) fn release<T>(&mut self, tasks: &mut Tasks<T>) -> Option<Held> {
        self.hold.as_ref()?;
        self.release_held(tasks)
    }

    #[cold]
    fn release_held<T>(&mut self, tasks: &mut Tasks<T>) -> Option<Held> {
        while let Some(hold) = &mut self.hold {
            if hold.is_empty() {
                self.hold = None;
                return None;
            }
            let held = hold.take(self.exp_cmd_sn)?;
            if let Held::Task(key) = held {
                if let Some(task) = tasks.get_mut(key) {
                    task.held = false;
                    task.queued = true;
                    self.queued += 1;
                    self.consume();
                    return Some(held);
                }
                self.consume();
                continue;
            }
            self.consume();
            if !matches!(held, Held::Gone) {
                return Some(held);
            }
        }
        None
    }

    /// `cmd_sn` lies in the window [ExpCmdSN, MaxCmdSN].
    pub(crate) fn in_window(&self, cmd_sn: u32) -> bool {
        let open = self.max_cmd_sn.wrapping_sub(self.exp_cmd_sn).wrapping_add(1);
        cmd_sn.wrapping_sub(self.exp_cmd_sn) < open
    }

    /// Takes a missing command as received: nothing waits for it any more.
    pub(crate) fn plug(&mut self, cmd_sn: u32) {
        if self.in_window(cmd_sn) && !self.hold.as_ref().is_some_and(|hold| hold.holds(cmd_sn)) {
            self.hold(cmd_sn, Held::Gone);
        }
    }

    /// Takes all missing commands before `cmd_sn` as received.
    pub(crate) fn plug_before(&mut self, cmd_sn: u32) {
        let mut at = self.exp_cmd_sn;
        while at != cmd_sn && self.in_window(at) {
            self.plug(at);
            at = at.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tags_that_count_up_share_no_bucket_whatever_byte_counts() {
        let session = Session::new(0, &Parameters::default(), 1, 128);
        for start in [0, 0x1234_5678, u32::MAX - 100] {
            for turn in [0, 8, 16, 24] {
                let tag = |n: u32| start ^ n << turn;
                let buckets: HashSet<usize> = (0..128).map(|n| session.bucket(tag(n))).collect();
                assert_eq!(buckets.len(), 128, "from {start:#x}, shifted by {turn}");
            }
        }
    }

    #[test]
    fn a_few_tags_in_use_again_and_again_lie_side_by_side() {
        let session = Session::new(0, &Parameters::default(), 1, 128);
        for upper in [0, 0x5000_0000, 0x0307_0000] {
            let lines: HashSet<usize> = (0..8).map(|n| session.bucket(upper | n) / 16).collect();
            assert_eq!(lines.len(), 1, "{upper:#x}");
        }
    }

    #[test]
    fn every_tag_has_a_bucket_in_the_smallest_index() {
        let session = Session::new(0, &Parameters::default(), 1, 1);
        for tag in [0, 1, 0xff, 0xff00, 0x00ff_0000, u32::MAX] {
            assert!(session.bucket(tag) < session.buckets.len());
            session.fetch(tag);
        }
    }
}
