//! The short way of small reads and writes to stores that never block: no task, no window, and mostly no buffer.
//!
//! A command takes it if all of it is in the input and nothing has to be waited for or said. That is looked at before anything
//! is changed: every other command takes the long way, which finds out anew what to do with it.

use super::{
    Core,
    lending::Terms,
    transfer::{COPY_LIMIT, is_scarce},
};
use memory::{Class, Key};
use protocol::{Sink, WholeCommand};
use reactor::Reactor;
use scsi::Transfer;
use wire::Crc32c;

/// Longer reads of memory are cut into windows, which the peer's reading holds back.
const AT_ONCE_LIMIT: u32 = 64 << 10;
/// Bytes of a read that are fetched ahead; from there on the processor sees by itself what is read in order.
const PREFETCH: usize = 4 << 10;
/// From here on data under a digest is sent from where it lies, if it can stand still for that.
const IN_PLACE_FROM: u32 = 8 << 10;

/// A command on the short way.
#[derive(Clone, Copy)]
struct Short<'a> {
    key: Key,
    command: WholeCommand<'a>,
    /// The unit, by its position.
    unit: u16,
    /// Where its blocks begin, in bytes of the medium.
    base: u64,
}

impl<R: Reactor> Core<R> {
    /// Answers the command that comes first in the input, if it may take the short way; gives the input behind it.
    #[inline]
    pub(crate) fn answer_at_once<'a>(&mut self, key: Key, input: &'a [u8]) -> Option<&'a [u8]> {
        let link = self.links.get(key)?;
        let command = link.connection.whole_command(&link.session, &self.tasks, input)?;
        let place_index = link.place(scsi::lun_number(command.lun)?)?;
        let place = &link.places[place_index as usize];
        let unit = &self.units[place.unit as usize];
        if !place.tasks.runs_simple() {
            return None;
        }
        let transfer = Transfer::find(&command.cdb, unit.logical(), &place.nexus, &link.port)?;
        let base = transfer.span.offset;
        let fits = transfer.span.length == command.length && transfer.writes() != command.data.is_empty();
        if transfer.writes() && !unit.takes_now(base, transfer.span.length) {
            return None;
        }
        if !fits || unit.blocked(base..base + u64::from(command.length)) || !command.is_intact() {
            return None;
        }
        let short = Short { key, command, unit: place.unit, base };
        let done = if transfer.writes() { self.write_at_once(&short) } else { self.read_at_once(&short) };
        done?;
        self.commands = self.commands.saturating_add(1);
        let link = self.links.get(key)?;
        transfer.count(self.units[short.unit as usize].logical(), &link.places[place_index as usize].nexus);
        Some(command.rest)
    }

    #[inline]
    fn read_at_once(&mut self, short: &Short<'_>) -> Option<()> {
        let &Short { key, ref command, unit: index, base } = short;
        let length = command.length;
        let link = self.links.get_mut(key)?;
        let unit = &mut self.units[index as usize];
        if length > AT_ONCE_LIMIT || link.is_behind() {
            return None;
        }
        // What is not in memory is not read at once either, but perhaps sent.
        let Some((region, at)) = unit.queue.region(base, length) else { return self.read_pinned(short) };
        let mut header = [0; 52];
        let digest = link.connection.data_digest();
        let lends = || region.may_hold() && link.acknowledges() && self.loans.may_lend(unit);
        if !unit.still && (!digest || length >= IN_PLACE_FROM && lends()) {
            // It is sent from where it lies at the end of the turn, and is fetched meanwhile if it will be copied.
            if digest || !self.reactor.splices(region, length, link.last_bytes) {
                self.ahead.add(region, at, (length as usize).min(PREFETCH));
            }
            let stat_sn = link.connection.stat_sn();
            let n = link.connection.answer_read(&mut link.session, command, &mut header);
            if digest {
                let terms = Terms { unit: index, range: base..base + u64::from(length), stat_sn };
                link.outgoing.in_place(&header[..n], region, at, length, terms);
            } else {
                link.outgoing.put(&header[..n]);
                link.outgoing.region(region, at, length);
                link.outgoing.pad(length);
            }
            return Some(());
        }
        if length > COPY_LIMIT {
            return self.read_into_buffer(short);
        }
        if !unit.still {
            self.ahead.add(region, at, length as usize);
            let n = link.connection.answer_read(&mut link.session, command, &mut header);
            link.outgoing.digested(&header[..n], region, at, length);
            return Some(());
        }
        let head = if link.connection.parameters().header_digest { 52 } else { 48 };
        let mark = link.outgoing.mark();
        let bytes = link.outgoing.reserve(head + length as usize);
        let (into, payload) = bytes.split_at_mut(head);
        if !matches!(unit.queue.read_now(base, payload), Some(Ok(()))) {
            // The long way finds out what is wrong, or waits.
            link.outgoing.truncate(mark);
            return None;
        }
        link.connection.answer_read(&mut link.session, command, &mut header);
        into.copy_from_slice(&header[..head]);
        let mut trailer = [0; 8];
        let n = link.connection.data_trailer(payload, &mut trailer);
        if n > 0 {
            link.outgoing.put(&trailer[..n]);
        }
        Some(())
    }

    /// The same for a file of which pages are locked in memory: they are sent from there.
    fn read_pinned(&mut self, short: &Short<'_>) -> Option<()> {
        let &Short { key, ref command, unit: index, base } = short;
        let length = command.length;
        let link = self.links.get_mut(key)?;
        let unit = &self.units[index as usize];
        if unit.still || link.connection.data_digest() {
            return None;
        }
        let lease = link.outgoing.lease(unit.queue.pages(base, length)?, base, length)?;
        self.ahead.add_pages(link.outgoing.leased(lease), base, length.min(PREFETCH as u32));
        let mut header = [0; 52];
        let n = link.connection.answer_read(&mut link.session, command, &mut header);
        link.outgoing.put(&header[..n]);
        link.outgoing.pages(lease, base, length);
        link.outgoing.pad(length);
        Some(())
    }

    /// The same for data that must stand still and is too long for the message: it goes into a buffer, which the message
    /// holds.
    fn read_into_buffer(&mut self, short: &Short<'_>) -> Option<()> {
        let &Short { key, ref command, unit: index, base } = short;
        let length = command.length;
        let class = Class::fitting(length as usize);
        if is_scarce(self.reactor.pool(), class) {
            return None;
        }
        let (mut buffer, _charge) = self.take_buffer(index, class)?;
        let unit = &mut self.units[index as usize];
        let data = &mut buffer[..length as usize];
        if !matches!(unit.queue.read_now(base, data), Some(Ok(()))) {
            return None;
        }
        let link = self.links.get_mut(key)?;
        let mut crc = Crc32c::new();
        if link.connection.data_digest() {
            crc.update(data);
        }
        let mut header = [0; 52];
        let n = link.connection.answer_read(&mut link.session, command, &mut header);
        link.outgoing.put(&header[..n]);
        let held = link.outgoing.hold(buffer);
        link.outgoing.refer(held, 0..length);
        let mut trailer = [0; 8];
        let n = link.connection.data_trailer_of(length, crc, &mut trailer);
        link.outgoing.put(&trailer[..n]);
        Some(())
    }

    /// Writes the whole data of a command straight from the bytes that were received.
    #[inline]
    fn write_at_once(&mut self, short: &Short<'_>) -> Option<()> {
        let &Short { key, ref command, unit: index, base } = short;
        let range = base..base + u64::from(command.length);
        if self.loans.has(index, &range) {
            // Who writes what it has read says by this very command that it has it.
            self.links.get_mut(key)?.connection.take_exp_stat_sn(command);
            if self.is_lent(index, &range) {
                return None;
            }
        }
        if !self.units[index as usize].write_now(base, command.data) {
            return None;
        }
        self.streamed = true;
        let link = self.links.get_mut(key)?;
        link.connection.answer_write(&mut link.session, command, &mut link.outgoing);
        Some(())
    }
}
