//! Bytes from a connection: what the protocol makes of them becomes tasks, data in windows, and answers.

use super::{
    Core,
    receiving::{ALIKE, DIRECT, EARLY, may_become_window},
    work::{Early, Failure, Phase, Stage, Work},
};
use memory::{Buffer, Class, Key};
use protocol::{Advance, Event, TaskKey};
use reactor::Reactor;
use scsi::Attribute;

impl<R: Reactor> Core<R> {
    /// Uses up bytes that came for a link.
    pub(crate) fn feed(&mut self, key: Key, mut input: &[u8]) {
        let now = self.reactor.now();
        while let Some(link) = self.links.get(key) {
            if link.closing.is_some() {
                break;
            }
            if let Some(rest) = self.answer_at_once(key, input) {
                input = rest;
                continue;
            }
            let Some(link) = self.links.get_mut(key) else { break };
            let advance =
                link.connection.advance(&mut link.session, &mut self.tasks, &mut input, &mut link.outgoing, now);
            match advance {
                Advance::Idle => break,
                Advance::Event(event) => self.event(key, event),
                Advance::Payload { task, offset, length } => {
                    if input.is_empty() {
                        if length >= DIRECT
                            && let Some(task) = task
                        {
                            self.receive_direct(key, task, offset, length);
                        }
                        break;
                    }
                    let n = (length as usize).min(input.len());
                    let (bytes, rest) = input.split_at(n);
                    if let Some(task) = task {
                        self.place_data(task, offset, bytes);
                    }
                    if let Some(link) = self.links.get_mut(key) {
                        link.connection.payload(bytes);
                    }
                    input = rest;
                }
                Advance::Close(reason) => {
                    self.close_gently(key, reason);
                    break;
                }
            }
        }
        self.take_acknowledged(key);
        if std::mem::take(&mut self.streamed) {
            memory::settle();
        }
        self.mark_dirty(key);
    }

    /// Where a piece of a task's data belongs: the buffer, and the place in it. `None`: it is thrown away.
    pub(super) fn destination(work: &mut Work, offset: u32) -> Option<(&mut Option<Buffer>, u8, u32, u32)> {
        match work.stage {
            Stage::New | Stage::Held | Stage::Queued => {
                let early = work.early.as_mut()?;
                let room = early.capacity;
                (offset < room && early.buffer.is_some()).then_some((&mut early.buffer, EARLY, offset, room - offset))
            }
            Stage::Running => {
                let window = work.transfer.window_at(offset)?;
                let w = &mut work.transfer.windows[window];
                if w.phase != Phase::Filling || w.buffer.is_none() {
                    return None;
                }
                // Of a block that is compared with many, no more is wanted than the block, and its buffer has no more room.
                let at = offset - w.start;
                let room = w.expected().checked_sub(at).filter(|&room| room > 0)?;
                Some((&mut w.buffer, window as u8, at, room))
            }
            Stage::Ending | Stage::Dying => None,
        }
    }

    /// Copies bytes that came with a header to where they belong.
    fn place_data(&mut self, task_key: TaskKey, mut offset: u32, mut bytes: &[u8]) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        if task.work.flows() {
            return self.flow(task_key, offset, bytes);
        }
        let (key, unit) = (task.work.link, task.work.unit as usize);
        while !bytes.is_empty() {
            let Some((buffer, _, at, room)) = Self::destination(&mut task.work, offset) else { return };
            let Some(buffer) = buffer.as_mut() else { return };
            let n = bytes.len().min(room as usize);
            // Where data is written at once, one buffer for all of it stays warm.
            if n >= ALIKE
                && may_become_window(buffer, at)
                && self.units.get(unit).is_some_and(|unit| !unit.writes_now)
                && let Some(link) = self.links.get_mut(key)
            {
                link.alike = true;
            }
            buffer[at as usize..at as usize + n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            offset += n as u32;
        }
    }

    fn event(&mut self, key: Key, event: Event) {
        match event {
            Event::Command { task, cdb, immediate, held, unsolicited } => {
                self.command(key, task, cdb, immediate, held, unsolicited);
            }
            Event::Released { task } => self.released(key, task),
            Event::Data { task, offset, length, sequence_end } => self.data(task, offset, length, sequence_end),
            Event::DataError { task, asc, ascq } => self.data_error(task, asc, ascq),
            Event::TaskManagement(request) => self.task_management(key, request),
            Event::SendTargets(which) => self.send_targets(key, &which),
            Event::Logout { reason } => self.logout(key, reason),
        }
    }

    fn command(&mut self, key: Key, task_key: TaskKey, cdb: [u8; 16], immediate: u32, held: bool, unsolicited: bool) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        self.commands = self.commands.saturating_add(1);
        task.work.fill(self.spare_work.pop().unwrap_or_default());
        let place = scsi::lun_number(task.lun).and_then(|lun| link.place(lun));
        let work = &mut *task.work;
        work.cdb[..16].copy_from_slice(&cdb);
        work.cdb_length = 16;
        if cdb[0] == VARIABLE_LENGTH {
            // The longest that is known has 32 bytes; a longer one is none of them.
            let more = link.connection.extended_cdb();
            let length = more.len().min(16);
            work.cdb[16..16 + length].copy_from_slice(&more[..length]);
            work.cdb_length += length as u8;
        }
        work.place = place;
        work.unit = place.map_or(0, |p| link.places[p as usize].unit);
        work.unsolicited = unsolicited;
        work.immediate = immediate;
        work.asked_at = self.reactor.now();
        work.link = key;
        if held {
            work.stage = Stage::Held;
            self.take_early(task_key);
            return;
        }
        self.enter(key, task_key);
    }

    fn released(&mut self, key: Key, task_key: TaskKey) {
        if self.tasks.get(task_key).is_some_and(|t| t.work.stage == Stage::Held) {
            self.enter(key, task_key);
        }
    }

    /// The command takes its place in its task set, and runs if it may.
    fn enter(&mut self, key: Key, task_key: TaskKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let attribute = attribute(task.attribute);
        let admit = match (task.work.place, attribute) {
            (Some(place), attribute) => {
                task.work.entered = true;
                if attribute == Attribute::Ordered {
                    self.units[task.work.unit as usize].still = true;
                }
                link.places[place as usize].tasks.enter(task_key.index, attribute)
            }
            (None, _) => scsi::Admit::Run,
        };
        match admit {
            scsi::Admit::Run => self.start(task_key),
            scsi::Admit::Wait => {
                let fresh = task.work.stage == Stage::New;
                task.work.stage = Stage::Queued;
                if fresh {
                    self.take_early(task_key);
                }
            }
        }
    }

    /// A buffer for data that comes before its command may start.
    fn take_early(&mut self, task_key: TaskKey) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        if task.work.immediate == 0 && !task.work.unsolicited {
            return;
        }
        let Some(link) = self.links.get(task.work.link) else { return };
        // Parameter data is wanted whole, in one buffer; blocks with tuples don't fill one.
        let with_tuples = self.units[task.work.unit as usize].logical().protection().is_some();
        let most = if with_tuples {
            Class::Large.bytes() as u32
        } else if task.write_length as usize <= Class::Large.bytes() {
            task.write_length
        } else if task.work.unsolicited {
            task.write_length.min(link.connection.parameters().first_burst_length)
        } else {
            task.work.immediate
        };
        let unit = task.work.unit;
        match self.take_buffer(unit, Class::fitting(most as usize)) {
            Some((buffer, charge)) => {
                let Some(task) = self.tasks.get_mut(task_key) else { return };
                let capacity = buffer.len() as u32;
                task.work.early = Some(Early { buffer: Some(buffer), capacity, filled: 0, charge: Some(charge) });
            }
            None => {
                if let Some(task) = self.tasks.get_mut(task_key) {
                    task.work.starved = true;
                }
            }
        }
    }

    fn data(&mut self, task_key: TaskKey, offset: u32, length: u32, sequence_end: bool) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        work.asked_at = self.reactor.now();
        // The target asked for it, or it came unasked: only the latter ends the unsolicited phase.
        if sequence_end {
            work.unsolicited = false;
        }
        match work.stage {
            Stage::New | Stage::Held | Stage::Queued => {
                if let Some(early) = &mut work.early {
                    early.filled = early.filled.max(offset.saturating_add(length)).min(early.capacity);
                }
            }
            Stage::Running => {
                let end = offset.saturating_add(length);
                for window in work.transfer.order() {
                    let w = &mut work.transfer.windows[window];
                    if w.phase != Phase::Filling {
                        continue;
                    }
                    let from = offset.max(w.start);
                    let to = end.min(w.start + w.expected());
                    if from < to {
                        w.filled += to - from;
                    }
                }
                self.drive(task_key);
            }
            Stage::Ending => {
                if !task.expects_data()
                    && let Some(outcome) = task.work.outcome.take()
                {
                    self.respond(task_key, outcome);
                }
            }
            Stage::Dying => {}
        }
    }

    fn data_error(&mut self, task_key: TaskKey, asc: u8, ascq: u8) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        // ERL 0: what is still to come of an unsolicited sequence is thrown away by the protocol.
        work.unsolicited = false;
        match work.stage {
            Stage::Running => {
                work.transfer.failure.get_or_insert(Failure::Data(asc, ascq));
                self.drive(task_key);
            }
            Stage::New | Stage::Held | Stage::Queued => work.early_error = Some((asc, ascq)),
            Stage::Ending => {
                if let Some(outcome) = work.outcome.take() {
                    self.respond(task_key, outcome);
                }
            }
            Stage::Dying => {}
        }
    }
}

/// The opcode of CDBs that are longer than 16 bytes.
const VARIABLE_LENGTH: u8 = 0x7F;

/// RFC 7143 11.3.1: ATTR.
pub(crate) fn attribute(code: u8) -> Attribute {
    match code {
        0 => Attribute::Untagged,
        2 => Attribute::Ordered,
        3 => Attribute::HeadOfQueue,
        4 => Attribute::Aca,
        _ => Attribute::Simple,
    }
}
