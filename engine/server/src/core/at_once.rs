//! The short way of small reads and writes to stores that never block: no window, and mostly no buffer.

use super::{
    Core,
    lending::Terms,
    transfer::{COPY_LIMIT, is_scarce},
};
use memory::Class;
use protocol::{Finish, Sink, TaskKey};
use reactor::Reactor;
use scsi::Status;
use wire::Crc32c;

/// Longer reads of memory are cut into windows, which the peer's reading holds back.
const AT_ONCE_LIMIT: u32 = 64 << 10;
/// Bytes of a read that are fetched ahead; from there on the processor sees by itself what is read in order.
const PREFETCH: usize = 4 << 10;
/// From here on data under a digest is sent from where it lies, if it can stand still for that.
const IN_PLACE_FROM: u32 = 8 << 10;

impl<R: Reactor> Core<R> {
    /// Answers a read from a store that never blocks, without a window. False: take the long way.
    pub(crate) fn read_at_once(&mut self, task_key: TaskKey) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return true };
        let transfer = &task.work.transfer;
        let (base, length) = (transfer.base, transfer.length);
        if length > AT_ONCE_LIMIT || length == 0 {
            return false;
        }
        let Some(link) = self.links.get_mut(task.work.link) else { return true };
        let unit = &mut self.units[task.work.unit as usize];
        if link.is_behind() || unit.blocked(base..base + u64::from(length)) {
            return false;
        }
        let parameters = link.connection.parameters();
        let most = parameters.peer_max_recv_data_segment_length.min(parameters.max_burst_length);
        if length > most {
            return false;
        }
        let finish = Finish { status: 0, transfer: task.work.wanted };
        // What is not in memory is not read at once either, but perhaps sent.
        let Some((region, at)) = unit.queue.region(base, length) else {
            return self.read_pinned(task_key, finish);
        };
        let mut header = [0; 52];
        let key = task.work.link;
        let digest = link.connection.data_digest();
        let lends = || region.may_hold() && link.acknowledges() && self.loans.may_lend(unit);
        if !unit.still && (!digest || length >= IN_PLACE_FROM && lends()) {
            // It is sent from where it lies at the end of the turn, and is fetched meanwhile if it will be copied.
            if digest || !self.reactor.splices(region, length, link.last_bytes) {
                self.ahead.add(region, at, (length as usize).min(PREFETCH));
            }
            let stat_sn = link.connection.stat_sn();
            let cut = link.connection.data_in(&mut link.session, task, length, Some(finish), &mut header);
            if digest {
                let terms = Terms { unit: task.work.unit, range: base..base + u64::from(length), stat_sn };
                link.outgoing.in_place(&header[..cut.header], region, at, length, terms);
            } else {
                link.outgoing.put(&header[..cut.header]);
                link.outgoing.region(region, at, length);
                link.outgoing.put(&[0; 3][..wire::padding(length as usize)]);
            }
            self.answered(key, task_key, cut.finished);
            return true;
        }
        if length > COPY_LIMIT {
            return self.read_digested(task_key, finish);
        }
        if !unit.still {
            let cut = link.connection.data_in(&mut link.session, task, length, Some(finish), &mut header);
            self.ahead.add(region, at, length as usize);
            link.outgoing.digested(&header[..cut.header], region, at, length);
            self.answered(key, task_key, cut.finished);
            return true;
        }
        let head = if parameters.header_digest { 52 } else { 48 };
        let mark = link.outgoing.mark();
        let bytes = link.outgoing.reserve(head + length as usize);
        let (into, payload) = bytes.split_at_mut(head);
        if !matches!(unit.queue.read_now(base, payload), Some(Ok(()))) {
            // The long way finds out what is wrong, or waits.
            link.outgoing.truncate(mark);
            return false;
        }
        let cut = link.connection.data_in(&mut link.session, task, length, Some(finish), &mut header);
        debug_assert_eq!((cut.header, cut.payload), (head, length));
        into.copy_from_slice(&header[..head]);
        let mut trailer = [0; 8];
        let n = link.connection.data_trailer(payload, &mut trailer);
        if n > 0 {
            link.outgoing.put(&trailer[..n]);
        }
        self.answered(key, task_key, cut.finished);
        true
    }

    /// The same for a file of which pages are locked in memory: they are sent from there.
    fn read_pinned(&mut self, task_key: TaskKey, finish: Finish) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return true };
        let (key, base, length) = (task.work.link, task.work.transfer.base, task.work.transfer.length);
        let Some(link) = self.links.get_mut(key) else { return true };
        let unit = &self.units[task.work.unit as usize];
        if unit.still || link.connection.data_digest() {
            return false;
        }
        let reader = unit.queue.pages(base, length);
        let Some(lease) = reader.and_then(|reader| link.outgoing.lease(reader, base, length)) else { return false };
        self.ahead.add_pages(link.outgoing.leased(lease), base, length.min(PREFETCH as u32));
        let mut header = [0; 52];
        let cut = link.connection.data_in(&mut link.session, task, length, Some(finish), &mut header);
        link.outgoing.put(&header[..cut.header]);
        link.outgoing.pages(lease, base, length);
        link.outgoing.put(&[0; 3][..wire::padding(length as usize)]);
        self.answered(key, task_key, cut.finished);
        true
    }

    /// The same for data that must stand still and is too long for the message: it goes into a buffer, which the message
    /// holds.
    fn read_digested(&mut self, task_key: TaskKey, finish: Finish) -> bool {
        let Some(task) = self.tasks.get(task_key) else { return true };
        let (key, index) = (task.work.link, task.work.unit);
        let (base, length) = (task.work.transfer.base, task.work.transfer.length);
        let class = Class::fitting(length as usize);
        if is_scarce(self.reactor.pool(), class) {
            return false;
        }
        let Some((mut buffer, _charge)) = self.take_buffer(index, class) else { return false };
        let unit = &mut self.units[index as usize];
        let data = &mut buffer[..length as usize];
        if !matches!(unit.queue.read_now(base, data), Some(Ok(()))) {
            return false;
        }
        let mut crc = Crc32c::new();
        crc.update(data);
        let Some(link) = self.links.get_mut(key) else { return true };
        let Some(task) = self.tasks.get_mut(task_key) else { return true };
        let mut header = [0; 52];
        let cut = link.connection.data_in(&mut link.session, task, length, Some(finish), &mut header);
        link.outgoing.put(&header[..cut.header]);
        let held = link.outgoing.hold(buffer);
        link.outgoing.refer(held, 0..length);
        let mut trailer = [0; 8];
        let n = link.connection.data_trailer_of(length, crc, &mut trailer);
        link.outgoing.put(&trailer[..n]);
        self.answered(key, task_key, cut.finished);
        true
    }

    /// All data of a read was put into the outgoing message at once; `finished`: its status too. The command's only
    /// remaining step is GOOD.
    fn answered(&mut self, key: memory::Key, task_key: TaskKey, finished: bool) {
        self.mark_dirty(key);
        if finished {
            self.retire(task_key);
        } else {
            self.finish(task_key, scsi::Outcome { status: Status::Good, sense: None, data: 0 });
        }
    }

    /// Writes the whole data of a command straight from the bytes that were received, to a store that never blocks.
    /// False: it takes the way over a window.
    pub(crate) fn write_at_once(&mut self, task_key: TaskKey, bytes: &[u8]) -> bool {
        let Some(task) = self.tasks.get(task_key) else { return false };
        let (index, base, length) = (task.work.unit, task.work.transfer.base, task.work.transfer.length);
        if bytes.len() != length as usize || self.is_lent(index, &(base..base + u64::from(length))) {
            return false;
        }
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let transfer = &mut task.work.transfer;
        let done = self.units[index as usize].write_now(base, bytes);
        if done {
            (transfer.planned, transfer.finished) = (transfer.length, transfer.length);
            self.streamed = true;
        }
        done
    }
}
