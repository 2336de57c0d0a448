//! Answers under a digest that refer to blocks where they lie: nobody writes to these before the initiator has them.
//!
//! The initiator says so by its ExpStatSN (RFC 7143 4.2.2.4), in every PDU that it sends: what carries the status of the
//! command, or comes before it, has arrived and was checked. The socket can't tell: its acknowledgements come from a peer's kernel,
//! which on the same machine may still refer to the very pages. Who waits for blocks that are lent has their reader pinged; a
//! reader that doesn't answer in time is lent nothing any more, and if it reads so late, finds the digest wrong and begins a new session.

use super::{Core, Unit, unit::overlap};
use crate::mail::{FromCore, ToCore};
use memory::{Key, Loan};
use reactor::Reactor;
use scsi::InitiatorPort;
use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};
use tracing::debug;

/// Answers that a core lends blocks for; those beyond are copied.
const LOANS: usize = 256;
/// A reader has so much time to say that it has what somebody waits for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who has said nothing for so long about blocks that nobody waits for is asked all the same: others are to have room, too.
const OLD: Duration = Duration::from_secs(1);
/// Initiators that a core remembers to be late.
const LATE: usize = 64;

/// Blocks that an answer refers to.
struct Lent {
    unit: u16,
    /// Bytes of the medium.
    range: Range<u64>,
    link: Key,
    /// The initiator has them when it has acknowledged this one.
    stat_sn: u32,
    since: Duration,
    /// Since when somebody waits for it.
    wanted: Option<Duration>,
    _loan: Loan,
}

impl Lent {
    fn is_among(&self, unit: u16, range: &Range<u64>) -> bool {
        self.unit == unit && overlap(&self.range, range)
    }
}

/// What the answers of a core refer to and their readers haven't acknowledged.
#[derive(Default)]
pub(crate) struct Loans {
    all: Vec<Lent>,
    /// Those of them that somebody waits for.
    wanted: usize,
    /// What is coming back.
    back: Vec<(u16, Range<u64>)>,
    /// Initiators that were late: a new session of theirs is sent copies from the start.
    late: VecDeque<Arc<InitiatorPort>>,
    /// Cores that wait until nothing of a unit is lent.
    awaiting: Vec<(u16, u16)>,
    /// Some have come back, and those who wait for blocks haven't been told.
    pub came_back: bool,
}

/// Blocks that are to be lent.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The unit, by its position.
    pub unit: u16,
    /// Bytes of the medium.
    pub range: Range<u64>,
    /// Of the answer's status.
    pub stat_sn: u32,
}

impl Loans {
    /// Whether an answer more may be lent for.
    fn has_room(&self) -> bool {
        self.all.len() < LOANS
    }

    /// Whether blocks of a unit may be lent: nobody waits to write there, be it at the store, or wants them to stand still.
    pub fn may_lend<R: Reactor>(&self, unit: &Unit<R>) -> bool {
        !unit.still && unit.waiting.is_empty() && unit.queue.in_flight() == 0 && self.has_room()
    }

    /// Notes what an answer on this link refers to.
    pub fn lend(&mut self, link: Key, terms: Terms, loan: Loan, now: Duration) {
        let Terms { unit, range, stat_sn } = terms;
        self.all.push(Lent { unit, range, link, stat_sn, since: now, wanted: None, _loan: loan });
    }

    /// Whether this initiator has not said in time what it has, in this session or another.
    pub fn was_late(&self, initiator: &InitiatorPort) -> bool {
        self.late.iter().any(|late| late.name == initiator.name)
    }

    fn note_late(&mut self, initiator: &Arc<InitiatorPort>) {
        if !self.was_late(initiator) {
            self.late.truncate(LATE - 1);
            self.late.push_front(initiator.clone());
        }
    }

    /// Whether some of these blocks are lent.
    #[inline]
    pub fn has(&self, unit: u16, range: &Range<u64>) -> bool {
        self.all.iter().any(|lent| lent.is_among(unit, range))
    }

    /// Whether anything of a unit is lent.
    pub fn has_any(&self, unit: u16) -> bool {
        self.all.iter().any(|lent| lent.unit == unit)
    }

    /// What is lent of a unit.
    pub fn ranges(&self, unit: u16) -> impl Iterator<Item = Range<u64>> {
        self.all.iter().filter(move |lent| lent.unit == unit).map(|lent| lent.range.clone())
    }

    /// Somebody waits for blocks (`None`: for all of a unit). Gives the readers that are to be asked for them.
    fn want(&mut self, unit: u16, range: Option<&Range<u64>>, now: Duration) -> Vec<Key> {
        self.want_those(now, |lent| match range {
            Some(range) => lent.is_among(unit, range),
            None => lent.unit == unit,
        })
    }

    fn want_those(&mut self, now: Duration, those: impl Fn(&Lent) -> bool) -> Vec<Key> {
        let mut readers = Vec::new();
        for lent in self.all.iter_mut().filter(|lent| lent.wanted.is_none() && those(lent)) {
            lent.wanted = Some(now);
            self.wanted += 1;
            if !readers.contains(&lent.link) {
                readers.push(lent.link);
            }
        }
        readers
    }

    /// Who reads some of these blocks.
    fn readers(&self, unit: u16, range: &Range<u64>) -> Vec<Key> {
        self.all.iter().filter(|lent| lent.is_among(unit, range)).map(|lent| lent.link).collect()
    }

    /// Takes back what `over` says: units and ranges, in a list that is to be given back to `back`.
    fn take_back(&mut self, over: impl Fn(&Lent) -> bool) -> Vec<(u16, Range<u64>)> {
        let mut back = std::mem::take(&mut self.back);
        for lent in self.all.extract_if(.., |lent| over(lent)) {
            self.wanted -= usize::from(lent.wanted.is_some());
            back.push((lent.unit, lent.range));
        }
        back
    }

    /// When the patience with the first reader ends.
    fn deadline(&self) -> Option<Duration> {
        if self.wanted == 0 {
            return None;
        }
        self.all.iter().filter_map(|lent| lent.wanted).min().map(|since| since + PATIENCE)
    }

    /// Readers with which patience is over.
    fn overdue(&self, now: Duration) -> Vec<Key> {
        let overdue = |lent: &&Lent| lent.wanted.is_some_and(|since| now >= since + PATIENCE);
        self.all.iter().filter(overdue).map(|lent| lent.link).collect()
    }
}

impl<R: Reactor> Core<R> {
    /// Somebody on this core waits to write to blocks that this core has lent.
    pub(crate) fn want_blocks(&mut self, unit: u16, range: Option<&Range<u64>>) {
        let readers = self.loans.want(unit, range, self.reactor.now());
        self.ask_readers(readers);
    }

    /// Asks for what is lent for long: a reader that has said nothing since may have nothing to say.
    pub(crate) fn want_old_blocks(&mut self, now: Duration) {
        let readers = self.loans.want_those(now, |lent| now >= lent.since + OLD);
        self.ask_readers(readers);
    }

    fn ask_readers(&mut self, readers: Vec<Key>) {
        for key in readers {
            // From one that is closing nothing more is heard, and the last that it hears is that.
            let Some(link) = self.links.get_mut(key).filter(|link| link.closing.is_none()) else { continue };
            link.connection.ask_what_came(&mut link.session, &mut link.outgoing);
            self.mark_dirty(key);
        }
    }

    /// Whether some of these blocks are lent, and their readers haven't said by now that they have them.
    pub(crate) fn is_lent(&mut self, unit: u16, range: &Range<u64>) -> bool {
        if !self.loans.has(unit, range) {
            return false;
        }
        for key in self.loans.readers(unit, range) {
            self.take_acknowledged(key);
        }
        self.loans.has(unit, range)
    }

    /// Takes back what this link's initiator says that it has.
    pub(crate) fn take_acknowledged(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let has = link.connection.exp_stat_sn();
        if link.lent == 0 || has == std::mem::replace(&mut link.acknowledged, has) {
            return;
        }
        let over = |lent: &Lent| lent.link == key && (has.wrapping_sub(lent.stat_sn) as i32) > 0;
        let back = self.loans.take_back(over);
        link.lent -= back.len() as u32;
        self.came_back(back);
    }

    /// Takes back all that a link was lent.
    pub(crate) fn take_all_back(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.lent > 0 {
            link.lent = 0;
            let back = self.loans.take_back(|lent| lent.link == key);
            self.came_back(back);
        }
    }

    fn came_back(&mut self, mut back: Vec<(u16, Range<u64>)>) {
        self.loans.came_back |= !back.is_empty();
        for (unit, range) in back.drain(..) {
            self.io_ended(unit, range);
            if !self.loans.awaiting.is_empty() && !self.loans.has_any(unit) {
                self.answer_recalls(unit);
            }
        }
        self.loans.back = back;
    }

    fn answer_recalls(&mut self, unit: u16) {
        for (_, core) in self.loans.awaiting.extract_if(.., |(of, _)| *of == unit) {
            self.post.send(core, ToCore::Core(FromCore::Returned { unit }));
        }
    }

    /// Whether no other core has lent anything of a unit.
    pub(crate) fn may_write(&self, unit: u16) -> bool {
        let region = self.units[unit as usize].queue.region(0, 0);
        region.is_none_or(|(region, _)| region.may_write() || self.loans.has_any(unit))
    }

    /// Asks the other cores for what they have lent of a unit: they lend nothing more. Each answers when it has it all back.
    pub(crate) fn recall_elsewhere(&mut self, unit: u16) {
        let others = (0..self.post.cores()).filter(|core| *core != self.number);
        let answers = &mut self.units[unit as usize].recalls;
        if *answers > 0 {
            return;
        }
        for core in others {
            *answers += 1;
            self.post.send(core, ToCore::Core(FromCore::Recall { unit, core: self.number }));
        }
    }

    /// Another core waits until nothing of a unit is lent here.
    pub(crate) fn recall(&mut self, unit: u16, core: u16) {
        self.loans.awaiting.push((unit, core));
        if self.loans.has_any(unit) {
            self.want_blocks(unit, None);
        } else {
            self.answer_recalls(unit);
        }
    }

    /// Another core has nothing of a unit lent any more.
    pub(crate) fn returned(&mut self, unit: u16) {
        let answers = &mut self.units[unit as usize].recalls;
        *answers = answers.saturating_sub(1);
        if *answers == 0 {
            self.retry_unit(unit);
        }
    }

    /// Sessions may have gone to another core, which is the only one that writes from now on. Not while a write of this core
    /// is still to come: the other one may lend.
    pub(crate) fn let_go(&self) {
        for unit in self.units.iter().filter(|unit| unit.queue.in_flight() == 0) {
            if let Some((region, _)) = unit.queue.region(0, 0) {
                region.let_go();
            }
        }
    }

    pub(crate) fn loans_deadline(&self) -> Option<Duration> {
        self.loans.deadline()
    }

    /// Ends the patience with readers that haven't said in time that they have what somebody waits for.
    pub(crate) fn write_loans_off(&mut self) {
        if self.loans.deadline().is_none_or(|deadline| self.reactor.now() < deadline) {
            return;
        }
        for key in self.loans.overdue(self.reactor.now()) {
            if let Some(link) = self.links.get_mut(key).filter(|link| link.lent > 0) {
                debug!(
                    session = link.identity.id,
                    "the initiator doesn't acknowledge what it was sent; it is sent copies now"
                );
                link.gets_copies = true;
                self.loans.note_late(&link.identity.initiator);
                self.take_all_back(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Region;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    #[test]
    fn knows_what_is_lent_to_whom() {
        let region = Region::new(1 << 20).unwrap();
        let mut loans = Loans::default();
        let at = Duration::from_millis;
        for (unit, start, link, stat_sn) in [(0, 0, 1, 7), (0, 4096, 2, u32::MAX), (1, 0, 1, 8), (0, 8192, 1, 9)] {
            let loan = region.hold().unwrap().lend();
            let terms = Terms { unit, range: start..start + 4096, stat_sn };
            loans.lend(key(link), terms, loan, at(start / 4096));
        }
        assert!(loans.has(0, &(4095..4096)) && loans.has(0, &(12287..20000)) && loans.has(1, &(0..1)));
        assert!(!loans.has(0, &(12288..20000)) && !loans.has(1, &(4096..4097)) && !loans.has(2, &(0..1)));
        assert!(loans.has_any(1) && !loans.has_any(2));
        assert_eq!(loans.ranges(0).collect::<Vec<_>>(), [0..4096, 4096..8192, 8192..12288]);
        assert_eq!(loans.deadline(), None);
        assert_eq!(loans.want(0, Some(&(0..4097)), at(5)), [key(1), key(2)]);
        assert_eq!(loans.want(0, Some(&(0..4097)), at(6)), [], "they were asked");
        assert_eq!(loans.want(0, None, at(7)), [key(1)], "for what was not wanted before");
        assert_eq!(loans.deadline(), Some(at(2005)));
        assert_eq!(loans.overdue(at(2004)), []);
        assert_eq!(loans.overdue(at(2005)), [key(1), key(2)]);
        let back = loans.take_back(|lent| lent.link == key(1) && lent.stat_sn < 9);
        assert_eq!(back, [(0, 0..4096), (1, 0..4096)]);
        assert!(!loans.has_any(1) && loans.has_any(0));
        loans.take_back(|_| true);
        assert!(!loans.has_any(0) && loans.deadline().is_none());
        region.let_go();
        assert!(std::thread::scope(|scope| scope.spawn(|| region.may_hold()).join().unwrap()), "all loans are over");
    }

    #[test]
    fn some_of_those_who_were_late_are_remembered() {
        let named = |n: usize| {
            Arc::new(InitiatorPort { name: format!("iqn.2026-01.io.ringlun:{n}").as_str().into(), isid: [n as u8; 6] })
        };
        let mut loans = Loans::default();
        for n in 0..LATE + 2 {
            assert!(!loans.was_late(&named(n)));
            loans.note_late(&named(n));
            loans.note_late(&named(n));
        }
        assert!(loans.late.len() == LATE && !loans.was_late(&named(1)) && loans.was_late(&named(2)));
    }

    #[test]
    fn room_is_bounded() {
        let region = Region::new(4096).unwrap();
        let mut loans = Loans::default();
        while loans.has_room() {
            let loan = region.hold().unwrap().lend();
            loans.lend(key(0), Terms { unit: 0, range: 0..1, stat_sn: 0 }, loan, Duration::ZERO);
        }
        assert_eq!(loans.ranges(0).count(), LOANS);
    }
}
