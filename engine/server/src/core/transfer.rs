//! Moves a transfer's windows: opens them, asks the initiator for data, sends what was read, in order.

use super::{
    Core,
    link::{Link, READ_AHEAD},
    steps::Pumped,
    unit::{Charge, Weight},
    work::{Failure, Motion, Parameter, Phase, Slot, Stage, WINDOWS},
};
use memory::{Buffer, Class, Pool};
use protocol::{Finish, Sink, Task, TaskKey};
use reactor::Reactor;
use scsi::{Event, Status, Step};
use std::ops::Range;

/// The outcome of a command whose data found no place.
pub(crate) const REFUSED: scsi::Outcome = scsi::Outcome { status: Status::TaskSetFull, sense: None, data: 0 };
/// Reads of memory up to this many bytes are copied into the outgoing message where they can't be sent from their place.
pub(crate) const COPY_LIMIT: u32 = 16 << 10;
/// Data of this many bytes is sent from its buffer; less is copied into the outgoing message.
const REFER_FROM: u32 = 2 << 10;

impl<R: Reactor> Core<R> {
    /// Moves the task's transfer on.
    pub(crate) fn pump(&mut self, task_key: TaskKey) -> Pumped {
        let Some(task) = self.tasks.get(task_key) else { return Pumped::Waiting };
        if task.work.starved {
            return self.starve(task_key);
        }
        match task.work.transfer.motion {
            Motion::None => Pumped::Waiting,
            Motion::Plain => self.pump_plain(task_key),
            Motion::Copy => self.pump_copy(task_key),
            Motion::Swap | Motion::Put => self.pump_swap(task_key),
            Motion::Read | Motion::Check => self.pump_out(task_key),
            Motion::Write | Motion::Merge | Motion::Compare | Motion::Receive => self.pump_in(task_key),
        }
    }

    /// Data came unasked and there was no buffer: TASK SET FULL (SAM-5 5.3.1), the initiator tries again.
    fn starve(&mut self, task_key: TaskKey) -> Pumped {
        self.finish(task_key, REFUSED);
        Pumped::Waiting
    }

    /// Drops what a failed transfer holds, once the store and the receives have given everything back.
    pub(crate) fn fail(&mut self, task_key: TaskKey, failure: Failure) -> Pumped {
        let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
        if task.work.in_flight > 0 || task.expects_data() {
            return Pumped::Waiting;
        }
        task.work.wanted = task.work.transfer.finished;
        self.drop_windows(task_key);
        Pumped::Failed(failure)
    }

    /// Store to initiator, or to nowhere.
    fn pump_out(&mut self, task_key: TaskKey) -> Pumped {
        loop {
            let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
            let work = &mut *task.work;
            if let Some(failure) = work.transfer.failure {
                return self.fail(task_key, failure);
            }
            let transfer = &work.transfer;
            if transfer.finished == transfer.length {
                return Pumped::Moved;
            }
            if transfer.is_oldest_done() {
                let last = transfer.finished + transfer.windows[transfer.first as usize].length == transfer.length;
                if transfer.motion == Motion::Check {
                    self.release_oldest(task_key);
                } else if last {
                    // Stepped before its last data is sent, so that a GOOD status travels with it.
                    match self.step(task_key, Event::Moved) {
                        Some(Step::Done(outcome)) if outcome.status == Status::Good && outcome.data == 0 => {
                            self.emit(task_key, true);
                            return Pumped::Waiting;
                        }
                        Some(step) => {
                            self.emit(task_key, false);
                            return Pumped::Stepped(step);
                        }
                        None => return Pumped::Waiting,
                    }
                } else {
                    self.emit(task_key, false);
                }
                continue;
            }
            if !self.open_for_read(task_key) {
                return Pumped::Waiting;
            }
        }
    }

    /// Opens one more window and gives it to the store. False: not now.
    fn open_for_read(&mut self, task_key: TaskKey) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let work = &mut *task.work;
        let left = work.transfer.left();
        if left == 0 || work.transfer.is_full() {
            return false;
        }
        let Some(link) = self.links.get_mut(work.link) else { return false };
        let reading = work.place.map(|place| link.places[place as usize].reading.clone()).unwrap_or_default();
        let scarce = is_scarce(self.reactor.pool(), Class::Large);
        let ahead = if scarce { READ_AHEAD / 8 } else { READ_AHEAD };
        if work.transfer.motion == Motion::Read && (link.is_behind() || reading.get() >= ahead) {
            if !link.stalled.contains(&task_key) {
                link.stalled.push(task_key);
            }
            return false;
        }
        let unit = &mut self.units[work.unit as usize];
        let planned = work.transfer.tuples.map_or(work.transfer.planned, |c| c.on_medium(work.transfer.planned));
        let base = work.transfer.base + u64::from(planned);
        // Large reads of memory are sent from where they lie, unless a digest needs them to stand still.
        if work.transfer.motion == Motion::Read && left > COPY_LIMIT && !link.connection.data_digest() {
            let length = left.min(REGION_WINDOW);
            if !unit.still
                && !unit.blocked(base..base + u64::from(length))
                && let Some((region, at)) = unit.queue.region(base, length)
            {
                let slice = region.slice(at, length);
                let window = work.transfer.open(length).expect("a window is free");
                let w = &mut work.transfer.windows[window];
                w.phase = Phase::Done;
                w.region = Some(slice);
                w.weight = Some(Weight::new(&reading, length as usize));
                return true;
            }
        }
        // Direct reads that aren't aligned need room for what lies around.
        let slack = unit.read_slack(base, left);
        let length = work.transfer.whole_blocks(left.min(Class::Large.bytes() as u32 - slack));
        let index = work.unit;
        let Some((buffer, charge)) = self.take_buffer(index, Class::fitting((length + slack) as usize)) else {
            self.wait_for_buffer(task_key);
            return false;
        };
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let length = task.work.transfer.whole_blocks(length.min(buffer.len() as u32 - slack));
        let window = task.work.transfer.open(length).expect("a window is free");
        let w = &mut task.work.transfer.windows[window];
        w.phase = Phase::Ready;
        w.buffer = Some(buffer);
        w.charge = Some(charge);
        w.weight = Some(Weight::new(&reading, length as usize));
        self.store_window(task_key, window);
        true
    }

    /// Sends the oldest window's data.
    fn emit(&mut self, task_key: TaskKey, finish: bool) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let window = task.work.transfer.close_oldest();
        let Some(link) = self.links.get_mut(task.work.link) else { return };
        let finish = finish.then_some(Finish { status: 0, transfer: task.work.wanted });
        let range = window.data.start..window.data.start + window.length;
        let finished = match (window.buffer, window.region) {
            (_, Some(slice)) => refer_data_in(link, task, &Source::Region(slice), range, finish),
            (Some(buffer), None) => {
                // Held until the peer has read it, which it may never do: a quarter at most, because a store that stands
                // still may have its half, and others need the rest.
                if window.length < REFER_FROM || is_scarce(self.reactor.pool(), buffer.class()) {
                    put_data_in(link, task, &buffer[range.start as usize..range.end as usize], finish)
                } else {
                    let source = Source::Held(link.outgoing.hold(buffer));
                    refer_data_in(link, task, &source, range, finish)
                }
            }
            (None, None) => return,
        };
        let key = task.work.link;
        self.mark_dirty(key);
        if finished {
            self.retire(task_key);
        } else if finish.is_some() {
            self.finish(task_key, scsi::Outcome { status: Status::Good, sense: None, data: 0 });
        }
    }

    /// Initiator to store, or to the command.
    fn pump_in(&mut self, task_key: TaskKey) -> Pumped {
        loop {
            let Some(task) = self.tasks.get_mut(task_key) else { return Pumped::Waiting };
            let work = &mut *task.work;
            if let Some(failure) = work.transfer.failure {
                return self.fail(task_key, failure);
            }
            if work.transfer.finished == work.transfer.length {
                work.parameter = None;
                let (unit, fence) = (work.unit, std::mem::take(&mut work.transfer.fence));
                self.drop_fence(unit, fence);
                // Who waited for the fence goes on; this task was perhaps among them.
                let over = |task: &Task<Slot>| task.work.transfer.motion == Motion::None;
                return if self.tasks.get(task_key).is_none_or(over) { Pumped::Waiting } else { Pumped::Moved };
            }
            let motion = work.transfer.motion;
            let mut filled = None;
            for i in work.transfer.order() {
                let w = &mut work.transfer.windows[i];
                if w.phase == Phase::Filling && w.filled == w.expected() && w.buffer.is_some() {
                    w.phase = Phase::Ready;
                    filled = Some(i);
                    break;
                }
            }
            if let Some(window) = filled {
                if motion == Motion::Receive {
                    let w = work.transfer.close_oldest();
                    work.parameter = w.buffer.map(|buffer| Parameter { buffer, length: w.length, charge: w.charge });
                    return Pumped::Received;
                }
                self.store_window(task_key, window);
                continue;
            }
            if work.transfer.is_oldest_done() {
                self.release_oldest(task_key);
                continue;
            }
            if !self.open_for_write(task_key) {
                self.solicit(task_key);
                return Pumped::Waiting;
            }
        }
    }

    /// Opens one more window for data from the initiator. False: not now.
    fn open_for_write(&mut self, task_key: TaskKey) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let work = &mut *task.work;
        let left = work.transfer.left();
        // The unsolicited data all fits the first window: no second before it is over.
        let repeat = work.transfer.repeat;
        let limit = if repeat { 1 } else { WINDOWS };
        if left == 0 || work.transfer.used as usize >= limit || (work.unsolicited && work.transfer.used > 0) {
            return false;
        }
        let block = self.units[work.unit as usize].block_size();
        let mut length = work.transfer.whole_blocks(left.min(Class::Large.bytes() as u32));
        if repeat {
            // One block comes; each window compares it with as much of the medium as a buffer holds.
            length = left.min(Class::Large.bytes() as u32 / 2 / block * block);
            if let Some(Parameter { buffer, charge, .. }) = work.parameter.take() {
                let window = work.transfer.open(length).expect("a window is free");
                let w = &mut work.transfer.windows[window];
                (w.buffer, w.charge, w.block, w.filled) = (Some(buffer), charge, block, block);
                w.phase = Phase::Ready;
                self.store_window(task_key, window);
                return true;
            }
        }
        let comes = if repeat { block } else { length };
        let kept = if work.transfer.motion == Motion::Merge { work.parameter.take() } else { None };
        let (buffer, filled, charge) = match (kept, work.early.take()) {
            (Some(kept), _) => {
                length = length.min(kept.buffer.len() as u32);
                (Some(kept.buffer), 0, kept.charge)
            }
            (None, Some(early)) => {
                if !repeat {
                    length = work.transfer.whole_blocks(length.min(early.capacity));
                }
                (early.buffer, early.filled.min(comes), early.charge)
            }
            (None, None) => {
                let unit = work.unit;
                let unasked = work.transfer.planned == 0 && (work.immediate > 0 || work.unsolicited);
                // What flows needs room for a block that comes in pieces.
                let flows = work.transfer.flows;
                match self.take_buffer(unit, Class::fitting(if flows { block } else { comes } as usize)) {
                    Some((buffer, charge)) => {
                        if !repeat && !flows {
                            length = length.min(buffer.len() as u32);
                        }
                        (Some(buffer), 0, Some(charge))
                    }
                    None if unasked => {
                        if let Some(task) = self.tasks.get_mut(task_key) {
                            task.work.starved = true;
                        }
                        self.starve(task_key);
                        return false;
                    }
                    None => {
                        self.wait_for_buffer(task_key);
                        return false;
                    }
                }
            }
        };
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let length = task.work.transfer.whole_blocks(length);
        let window = task.work.transfer.open(length).expect("a window is free");
        let w = &mut task.work.transfer.windows[window];
        w.phase = Phase::Filling;
        w.buffer = buffer;
        w.charge = charge;
        w.filled = filled;
        w.block = if repeat { block } else { 0 };
        true
    }

    /// Sends R2Ts for windows that have a buffer and nothing on its way.
    fn solicit(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        if task.work.unsolicited || task.work.stage != Stage::Running {
            return;
        }
        let key = task.work.link;
        let Some(link) = self.links.get_mut(key) else { return };
        let most = link.connection.parameters().max_burst_length;
        let windows = task.work.transfer.order();
        for i in windows {
            let Some(task) = self.tasks.get_mut(task_key) else { return };
            let immediate = task.work.immediate;
            let w = &task.work.transfer.windows[i];
            let expected = w.expected();
            if w.phase != Phase::Filling || w.filled >= expected || w.asked >= expected {
                continue;
            }
            // DataSequenceInOrder: nothing of a later window before all of this one has been asked for. Immediate data
            // is still to be reported by the protocol.
            // Blocks with tuples don't fill a buffer: what came unasked beyond the first window was thrown away.
            let kept = w.start == 0 || task.work.transfer.tuples.is_none();
            let immediate_left = kept && w.start < immediate && w.filled < expected.min(immediate - w.start);
            if w.buffer.is_none() || w.filled < w.asked || immediate_left || !link.connection.may_solicit(task) {
                break;
            }
            let (offset, length) = (w.start + w.filled, (expected - w.filled).min(most));
            let sent = link.connection.ready_to_transfer(
                &mut link.session,
                &mut self.tasks,
                task_key,
                offset,
                length,
                &mut link.outgoing,
            );
            if let Some(task) = self.tasks.get_mut(task_key)
                && sent
            {
                task.work.asked_at = self.reactor.now();
                let w = &mut task.work.transfer.windows[i];
                w.asked = w.filled + length;
                if w.asked < expected {
                    break;
                }
            }
        }
        self.mark_dirty(key);
    }

    /// A buffer of the class, or of a larger one, within the unit's share. The last large one is left for
    /// [`Core::take_second`].
    pub(crate) fn take_buffer(&mut self, unit: u16, class: Class) -> Option<(Buffer, Charge)> {
        let shared = self.units.len() > 1;
        let pool = self.reactor.pool();
        let unit = self.units.get(unit as usize)?;
        let spare = |c: &&Class| {
            (**c != Class::Large || pool.available(Class::Large) > 1) && !(shared && unit.is_at_share(**c))
        };
        let buffer = at_least(class).iter().filter(spare).find_map(|&c| pool.take(c))?;
        let charge = unit.charge(buffer.class());
        Some((buffer, charge))
    }

    /// A second buffer for a window that has one: what was written is read back, or compared. Tasks that hold a first
    /// one and wait for a second would wait for each other; this one always comes back from the store.
    pub(crate) fn take_second(&mut self, unit: u16, class: Class) -> Option<(Buffer, Charge)> {
        let pool = self.reactor.pool();
        let buffer = at_least(class).iter().find_map(|&c| pool.take(c))?;
        let charge = self.units.get(unit as usize)?.charge(buffer.class());
        Some((buffer, charge))
    }

    pub(crate) fn wait_for_buffer(&mut self, task_key: TaskKey) {
        if let Some(task) = self.tasks.get_mut(task_key)
            && !task.work.starving
        {
            task.work.starving = true;
            self.starving.push_back(task_key);
        }
    }

    /// Offers buffers that came home to those that wait, oldest first.
    pub(crate) fn feed_starving(&mut self) {
        for _ in 0..self.starving.len() {
            let Some(key) = self.starving.pop_front() else { return };
            if let Some(task) = self.tasks.get_mut(key) {
                task.work.starving = false;
                self.resume(key);
            }
        }
    }

    /// Goes on with a task that waited for something.
    pub(crate) fn resume(&mut self, task_key: TaskKey) {
        if self.tasks.get(task_key).is_some_and(|t| t.work.stage == Stage::Running) {
            self.retry_windows(task_key);
            self.drive(task_key);
        }
    }

    /// Takes the oldest window off and gives its buffers back.
    fn release_oldest(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let window = task.work.transfer.close_oldest();
        // ORWRITE holds others back by its fence, and they hold buffers: it goes on with the one that it has.
        let merges = task.work.transfer.motion == Motion::Merge;
        if (task.work.transfer.repeat || merges)
            && let Some(buffer) = window.buffer
        {
            task.work.parameter = Some(Parameter { buffer, length: window.block, charge: window.charge });
        }
    }

    /// Gives back all windows of a task that has nothing in flight.
    pub(crate) fn drop_windows(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        let unit = work.unit;
        work.parameter = None;
        work.early = None;
        let mut fences = [(0, super::work::FenceState::None); WINDOWS + 1];
        fences[WINDOWS] = (unit, std::mem::take(&mut work.transfer.fence));
        // A fence may wait for what was to be read back.
        let mut promised: [Option<std::ops::Range<u64>>; WINDOWS] = Default::default();
        for i in 0..WINDOWS {
            let window = &work.transfer.windows[i];
            if window.phase == Phase::Reading && !matches!(window.fence, super::work::FenceState::Held(_)) {
                promised[i] = Some(work.transfer.range(i));
            }
            fences[i] = (work.store_unit(i), std::mem::take(&mut work.transfer.windows[i].fence));
            work.transfer.windows[i] = super::work::Window::default();
        }
        work.transfer.used = 0;
        for (unit, fence) in fences {
            self.drop_fence(unit, fence);
        }
        for range in promised.into_iter().flatten() {
            self.io_ended(unit, range);
        }
    }
}

/// Copies data into Data-In PDUs of a link's outgoing message. True: the status went with the last one.
pub(crate) fn put_data_in(link: &mut Link, task: &mut Task<Slot>, data: &[u8], finish: Option<Finish>) -> bool {
    let mut at = 0;
    let mut finished = false;
    let mut header = [0; 52];
    while at < data.len() {
        let left = (data.len() - at) as u32;
        let cut = link.connection.data_in(&mut link.session, task, left, finish, &mut header);
        let payload = &data[at..at + cut.payload as usize];
        link.outgoing.put(&header[..cut.header]);
        link.outgoing.put(payload);
        let mut trailer = [0; 8];
        let n = link.connection.data_trailer(payload, &mut trailer);
        link.outgoing.put(&trailer[..n]);
        at += payload.len();
        finished = cut.finished;
    }
    finished
}

/// The same for data that is sent from where it lies.
fn refer_data_in(
    link: &mut Link,
    task: &mut Task<Slot>,
    source: &Source,
    range: Range<u32>,
    finish: Option<Finish>,
) -> bool {
    let mut at = range.start;
    let mut finished = false;
    let mut header = [0; 52];
    while at < range.end {
        let cut = link.connection.data_in(&mut link.session, task, range.end - at, finish, &mut header);
        link.outgoing.put(&header[..cut.header]);
        let mut trailer = [0; 8];
        let n = match source {
            Source::Held(index) => {
                link.outgoing.refer(*index, at..at + cut.payload);
                let payload = &link.outgoing.held(*index)[at as usize..(at + cut.payload) as usize];
                link.connection.data_trailer(payload, &mut trailer)
            }
            Source::Region(slice) => {
                link.outgoing.region(slice.region(), slice.offset() + u64::from(at), cut.payload);
                debug_assert!(!link.connection.data_digest());
                wire::padding(cut.payload as usize)
            }
        };
        link.outgoing.put(&trailer[..n]);
        at += cut.payload;
        finished = cut.finished;
    }
    finished
}

/// A quarter of a class is in use.
pub(crate) fn is_scarce(pool: &Pool, class: Class) -> bool {
    pool.available(class) <= pool.capacity(class) / 4 * 3
}

fn at_least(class: Class) -> &'static [Class] {
    match class {
        Class::Small => &[Class::Small, Class::Medium, Class::Large],
        Class::Medium => &[Class::Medium, Class::Large],
        Class::Large => &[Class::Large],
    }
}

/// A window of a region is this long at most: what a peer that reads slowly can pin.
const REGION_WINDOW: u32 = 1 << 20;

enum Source {
    Held(u32),
    Region(memory::RegionSlice),
}
