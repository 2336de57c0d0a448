//! What a connection is asked for: receives into buffers of the reactor's choice, into large ones, up to the end of a header,
//! and straight into the windows of tasks.

use super::{Core, KIND_RECEIVE, link_identity, link_token, transfer::is_scarce, work::Stage};
use memory::{Buffer, Class, HEADROOM, Key};
use protocol::{CloseReason, TaskKey};
use reactor::{Completion, Errno, Operation, OperationId, Pdus, Reactor, Returned};
use tracing::debug;
use wire::{BHS_LEN, DIGEST_LEN};

/// Payload still to come that is worth a receive of its own, straight into the task's buffer.
pub(super) const DIRECT: u32 = 8 << 10;
/// Behind a data segment of so many bytes no more is received than the next header, so that the data behind that one can be
/// received where they belong. Of shorter ones it is better to have several at once, and to copy them.
const LONG: u32 = 128 << 10;
/// What may be behind the data of a segment up to the end of the next header: pad, digest, header, digest.
const MOST_BEHIND: usize = 3 + DIGEST_LEN + BHS_LEN + DIGEST_LEN;
/// PDUs with so much data are worth a buffer each, which becomes their window's.
pub(super) const ALIKE: usize = 8 << 10;
/// Bytes of a receive into a large buffer, or into several, about, while others of this core wait for their turn.
const AT_ONCE: usize = 128 << 10;
/// So many receives that left nothing behind let the next one stay.
const CALM: u8 = 8;
/// Stands for a window's index: the buffer of early data.
pub(super) const EARLY: u8 = u8::MAX;

/// What the socket's receiving side is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Receiving {
    /// Nothing is asked of the reactor.
    Idle,
    /// A receive into a buffer of the reactor's choice is out.
    Any(OperationId),
    /// The same, and it has said that it stays. It may have been asked to end.
    Staying { id: OperationId, ends: bool },
    /// The same for so much, up to the end of a header.
    Head(u32),
    /// A receive of so much into a large buffer is out: what comes goes on at once.
    Large(u32),
    /// A receive straight into a task's window is out.
    Into(Direct),
    /// A receive into buffers that may become windows is out.
    Pdus,
}

/// A receive straight into a task's window, and of the next header behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Direct {
    /// May be gone by the time that it ends.
    pub task: Key,
    window: u8,
    /// Bytes of the window.
    at: u32,
    length: u32,
    /// Bytes up to the end of the next header, if that is asked for, too.
    behind: u32,
}

impl Receiving {
    /// It was asked to end.
    pub fn ends(self) -> bool {
        matches!(self, Receiving::Staying { ends: true, .. })
    }
}

impl<R: Reactor> Core<R> {
    /// Submits a receive if none is out and the link may be read; if it may not, has one that stays end.
    pub(crate) fn arm(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.closing.is_some() || link.closed || link.is_flooded() {
            return self.stop_receiving(key);
        }
        if link.receiving != Receiving::Idle {
            return;
        }
        let (filled, heads) = (std::mem::take(&mut link.filled), std::mem::take(&mut link.heads));
        let (alike, more) = (link.alike, self.reactor.has_more(link.descriptor));
        // Buffers of the usual size would end in the middle of PDUs, of long ones nearly always, and those would be put together
        // from two.
        if !heads && more && (alike && self.receive_pdus(key) || filled && self.receive_large(key)) {
            return;
        }
        let Some(link) = self.links.get_mut(key) else { return };
        let head = heads.then(|| link.connection.to_header() as u32);
        let stay = link.calm >= CALM && head.is_none();
        let operation = Operation::Receive { socket: link.descriptor, stay, most: head.unwrap_or(u32::MAX) };
        match self.reactor.submit(operation, link_token(KIND_RECEIVE, key)) {
            Ok(id) => {
                link.receiving = head.map_or(Receiving::Any(id), Receiving::Head);
                link.operations += 1;
            }
            // No slot: tried again at the end of the next turn.
            Err(_) => {
                link.heads = heads;
                self.mark_dirty(key);
            }
        }
    }

    /// Has a receive that stays end. What comes until then is used like anything else that was received.
    pub(crate) fn stop_receiving(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key)
            && let Receiving::Staying { id, ends } = &mut link.receiving
            && !std::mem::replace(ends, true)
        {
            link.calm = 0;
            self.reactor.cancel(*id);
        }
    }

    /// Receives the rest of a data segment straight into its buffer, if there is such a place and slot.
    pub(super) fn receive_direct(&mut self, key: Key, task_key: TaskKey, offset: u32, length: u32) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        if link.receiving != Receiving::Idle {
            return self.stop_receiving(key);
        }
        if task.work.flows() {
            // Whatever comes behind it, too.
            self.receive_large(key);
            return;
        }
        let Some((slot, window, at, room)) = Self::destination(&mut task.work, offset) else { return };
        let Some(buffer) = slot.take() else { return };
        // With the next header it is known where the data behind it belong.
        let long = length <= room && link.connection.data_segment_length() >= LONG;
        let behind = if long { link.connection.to_header() as u32 - length } else { 0 };
        let length = length.min(room);
        let operation = Operation::ReceiveInto { socket: link.descriptor, buffer, range: at..at + length, behind };
        match self.reactor.submit(operation, link_token(KIND_RECEIVE, key)) {
            Ok(_) => {
                link.receiving = Receiving::Into(Direct { task: task_key, window, at, length, behind });
                link.calm = 0;
                link.operations += 1;
                task.work.in_flight += 1;
            }
            Err(Operation::ReceiveInto { buffer, .. }) => {
                *slot = Some(buffer);
            }
            Err(_) => unreachable!("a refused operation comes back as it was"),
        }
    }

    /// Receives some whole PDUs into a large buffer, if they are as long as the last one: false if it can't be had now.
    /// Of these a quarter at most is lent out so, for the peer may stand still.
    fn receive_large(&mut self, key: Key) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        if is_scarce(self.reactor.pool(), Class::Large) {
            return false;
        }
        let Some(buffer) = self.reactor.pool().take(Class::Large) else { return false };
        let most = if self.shared { AT_ONCE } else { buffer.len() };
        let length = link.connection.whole_pdus(most).min(buffer.len()) as u32;
        let operation = Operation::ReceiveInto { socket: link.descriptor, buffer, range: 0..length, behind: 0 };
        if self.reactor.submit(operation, link_token(KIND_RECEIVE, key)).is_err() {
            return false;
        }
        link.receiving = Receiving::Large(length);
        link.calm = 0;
        link.operations += 1;
        true
    }

    /// Receives some whole PDUs, if they are as long as the last one, so that the data of each lies in a buffer of its own: false
    /// if they can't be had now.
    fn receive_pdus(&mut self, key: Key) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        let pool = self.reactor.pool();
        let (first, data) = (link.connection.to_header(), link.connection.data_segment_length());
        let fits = (ALIKE..=Class::Medium.bytes()).contains(&(data as usize)) && first <= HEADROOM;
        if !fits || is_scarce(pool, Class::Medium) {
            return false;
        }
        let most = if self.shared { AT_ONCE } else { Class::Large.bytes() } / data as usize;
        // What comes wants buffers, too.
        let most = most.min(pool.capacity(Class::Medium) as usize / 8).max(1);
        let mut buffers = self.spare_buffers.pop().unwrap_or_default();
        buffers.extend(std::iter::from_fn(|| pool.take(Class::Medium)).take(most));
        let pdus = Pdus { buffers, first: first as u32, between: link.connection.between() as u32, data };
        let operation = Operation::ReceivePdus { socket: link.descriptor, pdus };
        if self.reactor.submit(operation, link_token(KIND_RECEIVE, key)).is_err() {
            return false;
        }
        link.receiving = Receiving::Pdus;
        link.calm = 0;
        link.operations += 1;
        true
    }

    /// So many bytes have come for such buffers.
    fn received_pdus(&mut self, key: Key, mut pdus: Pdus, count: usize) {
        if let Some(link) = self.links.get_mut(key) {
            // Nothing else is received while they are looked at.
            link.receiving = Receiving::Pdus;
            link.filled = false;
        }
        for place in 0..pdus.buffers.len() {
            let (front, data) = pdus.lengths(place, count);
            if front == 0 {
                break;
            }
            self.feed(key, pdus.in_front(place, front));
            if data == 0 || self.adopt(key, &mut pdus.buffers[place], data, pdus.data) {
                continue;
            }
            // They are not alike after all.
            if let Some(link) = self.links.get_mut(key) {
                link.alike = false;
            }
            self.feed(key, &pdus.buffers[place][..data]);
        }
        pdus.buffers.clear();
        self.spare_buffers.push(pdus.buffers);
        if let Some(link) = self.links.get_mut(key) {
            link.receiving = Receiving::Idle;
        }
        // What is missing of the last one may be received directly now.
        self.feed(key, &[]);
    }

    /// Has a buffer with the first `count` bytes of a data segment, if that has `all`, become its window's, whose own is left instead.
    fn adopt(&mut self, key: Key, buffer: &mut Buffer, count: usize, all: u32) -> bool {
        let Some(link) = self.links.get_mut(key).filter(|link| link.closing.is_none()) else { return true };
        let Some((task, offset, length)) = link.connection.awaited() else { return false };
        let Some(task) = self.tasks.get_mut(task).filter(|task| !task.work.flows()) else { return false };
        let Some((Some(window), _, at, room)) = Self::destination(&mut task.work, offset) else { return false };
        let fits = length == all && room >= all && may_become_window(window, at);
        if fits {
            std::mem::swap(window, buffer);
            link.connection.payload(&window[..count]);
        }
        fits
    }

    /// A receive has ended, or one that stays has brought bytes.
    pub(super) fn received(&mut self, key: Key, completion: Completion) {
        let Some(link) = self.links.get_mut(key) else { return };
        let mut receiving = link.receiving;
        if matches!(completion.returned, Returned::Part(_)) {
            if let Receiving::Any(id) = receiving {
                receiving = Receiving::Staying { id, ends: false };
            }
            link.receiving = receiving;
        } else {
            link.receiving = Receiving::Idle;
            link.operations -= 1;
        }
        let gone = link.closing.is_some();
        let count = match completion.result {
            Ok(count) if count > 0 => count,
            result => return self.receive_failed(key, receiving, result, completion.returned),
        };
        match (completion.returned, receiving) {
            (Returned::Buffer(buffer), Receiving::Into(direct)) => self.received_into(key, direct, count, buffer),
            _ if gone => {}
            (Returned::Pdus(pdus), _) => self.received_pdus(key, pdus, count as usize),
            (Returned::Buffer(buffer) | Returned::Part(buffer), _) => {
                self.received_bytes(key, receiving, buffer, count as usize);
            }
            // No reactor says so.
            _ => self.cut(key, CloseReason::Protocol("the connection broke")),
        }
        if gone {
            return self.settle(key);
        }
        self.prompt(key);
        self.mark_dirty(key);
    }

    /// A receive has ended without bytes.
    fn receive_failed(&mut self, key: Key, receiving: Receiving, result: Result<u32, Errno>, returned: Returned) {
        if let (Receiving::Into(direct), Returned::Buffer(buffer)) = (receiving, returned) {
            self.direct_ended(direct.task, buffer);
        }
        let Some(link) = self.links.get_mut(key) else { return };
        if link.closing.is_some() {
            return self.settle(key);
        }
        let chosen = matches!(receiving, Receiving::Any(_) | Receiving::Staying { .. } | Receiving::Head(_));
        match result {
            // As was asked. Data may wait that is received in another way.
            Err(Errno::CANCELED) if receiving.ends() => self.feed(key, &[]),
            // The reactor has no buffer now.
            Err(Errno::NO_BUFFERS) if chosen => {
                link.heads = matches!(receiving, Receiving::Head(_));
                self.mark_dirty(key);
            }
            result => {
                debug!(session = link_identity(&self.links, key), ?result, "nothing more can be received");
                let why = if result.is_ok() { "closed by the peer" } else { "the connection broke" };
                self.cut(key, CloseReason::Protocol(why));
            }
        }
    }

    /// Bytes have come in a buffer that belongs to no task.
    fn received_bytes(&mut self, key: Key, receiving: Receiving, buffer: Buffer, count: usize) {
        let Some(link) = self.links.get_mut(key) else { return };
        // Calm is a link whose receives are of the usual kind and leave nothing in the socket.
        let (room, calms) = match receiving {
            Receiving::Large(length) | Receiving::Head(length) => (length as usize, false),
            _ => (buffer.len(), true),
        };
        link.filled = count >= room;
        link.calm = if calms && !link.filled { link.calm.saturating_add(1) } else { 0 };
        let filled = link.filled;
        self.feed(key, &buffer[..count]);
        drop(buffer);
        if filled {
            // More is there than others should wait for.
            self.stop_receiving(key);
        }
    }

    /// A direct receive brought `n` bytes.
    fn received_into(&mut self, key: Key, direct: Direct, n: u32, buffer: Buffer) {
        let payload = n.min(direct.length);
        let behind = (n - payload) as usize;
        if let Some(link) = self.links.get_mut(key) {
            // Whether more is there isn't known. A large receive would wait with each session that rests now, and take the
            // next PDU off this way.
            link.filled = false;
            link.heads = direct.behind > 0;
            if link.closing.is_none() {
                link.connection.payload(&buffer[direct.at as usize..(direct.at + payload) as usize]);
            }
        }
        let mut rest = [0; MOST_BEHIND];
        rest[..behind].copy_from_slice(&buffer.headroom()[..behind]);
        self.direct_ended_in(direct.task, direct.window, buffer);
        // Whatever the payload completes comes out of the protocol without more input.
        self.feed(key, &rest[..behind]);
    }

    fn direct_ended_in(&mut self, task_key: TaskKey, window: u8, buffer: Buffer) {
        if let Some(task) = self.tasks.get_mut(task_key)
            && task.work.stage != Stage::Dying
        {
            task.work.in_flight -= 1;
            if window == EARLY {
                // The command may have started while its early data was still coming: then the window waits for it.
                match &mut task.work.early {
                    Some(early) => early.buffer = Some(buffer),
                    None => {
                        let first = task.work.transfer.first as usize;
                        task.work.transfer.windows[first].buffer = Some(buffer);
                    }
                }
            } else {
                task.work.transfer.windows[window as usize].buffer = Some(buffer);
            }
        } else {
            self.direct_ended(task_key, buffer);
        }
    }

    /// A direct receive ended for a task that needs no data any more.
    fn direct_ended(&mut self, task_key: TaskKey, buffer: Buffer) {
        drop(buffer);
        if let Some(task) = self.tasks.get_mut(task_key) {
            task.work.in_flight -= 1;
            self.bury(task_key);
        }
    }

    /// Lets a peer go on that holds back the rest of a PDU until its beginning is acknowledged.
    fn prompt(&mut self, key: Key) {
        let now = self.reactor.now();
        if let Some(link) = self.links.get_mut(key)
            && link.prompting.came(link.connection.is_amid_pdu(), now)
            && link.outgoing.is_empty()
        {
            self.reactor.acknowledge(link.descriptor);
        }
    }
}

/// Whether a buffer of its kind may take the place of a window's, for data that belongs to this place in it.
pub(super) fn may_become_window(window: &Buffer, at: u32) -> bool {
    window.class() == Class::Medium && at == 0
}
