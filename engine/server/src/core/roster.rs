//! Units and LUN maps that change while they are in use.
//!
//! A unit comes: the core makes a queue for it and says so; no LUN map shows it before all cores have. A LUN map changes:
//! the sessions of its port get new places, those of LUNs that stay keep their state, and those of LUNs that go live on
//! without a number until their last task has ended. A unit goes, which no map shows any more: after its last task it is
//! flushed, its queue closed, its place free for another one.

use super::{
    Core, Drain,
    link::{NO_LUN, Place},
    store_token_base,
    unit::Unit,
};
use crate::{lasting::Keeper, mail::ToControl};
use backstore::Store;
use backstore_api::{BlockQueue, Request, StoreError, Submitted};
use memory::{Class, Key, Pool};
use reactor::{Completion, Reactor};
use scsi::{Attention, LogicalUnit, TargetPort};
use std::{io, sync::Arc, time::Duration};
use tracing::{debug, warn};

/// Tag of the flush of a unit that goes: no task has it.
pub(crate) const LEAVE_TAG: u64 = u64::MAX - 1;
/// A new unit waits so long for the buffers that its queue keeps: those that are in use come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Units on their way in and out.
pub(crate) struct Roster {
    /// Buffers that one unit may hold: of all classes, and of each.
    share: u32,
    class_share: [u32; 3],
    arrivals: Vec<Arrival>,
    leavers: Vec<Leaver>,
}

struct Arrival {
    slot: u16,
    store: Arc<Store>,
    unit: Arc<LogicalUnit>,
    keeper: Option<Arc<dyn Keeper>>,
    until: Duration,
}

struct Leaver {
    slot: u16,
    flush: Flush,
}

/// The last flush of a unit.
enum Flush {
    NotYet,
    Asked,
    Done(Result<(), StoreError>),
}

impl Roster {
    /// Shares a pool as it is before any task: half of it for a unit.
    pub fn new(pool: &Pool) -> Roster {
        let all: u32 = Class::ALL.iter().map(|class| pool.capacity(*class)).sum();
        Roster {
            share: all / 2,
            class_share: Class::ALL.map(|class| (pool.available(class) / 2).max(1)),
            arrivals: Vec::new(),
            leavers: Vec::new(),
        }
    }

    /// Prepares a place in the list of units: every core takes part in its fences.
    pub fn admit<R: Reactor>(&self, unit: &mut Unit<R>, cores: u16) {
        unit.set_class_share(self.class_share);
        for core in 0..cores {
            unit.home.join(core, &mut Vec::new());
        }
    }

    /// Nothing comes or goes.
    pub fn is_settled(&self) -> bool {
        self.arrivals.is_empty() && self.leavers.is_empty()
    }
}

impl<R: Reactor> Core<R> {
    /// What sessions of a port see: LUN and position of its unit, in the order of LUNs.
    fn seats(&self, port: &TargetPort) -> Vec<(u16, u16)> {
        let present = self.units.iter().enumerate().filter(|(_, unit)| unit.present);
        let mut known: Vec<(*const LogicalUnit, u16)> =
            present.map(|(slot, unit)| (Arc::as_ptr(unit.logical()), slot as u16)).collect();
        known.sort_unstable();
        let seat = |unit: &Arc<LogicalUnit>| {
            let at = known.binary_search_by_key(&Arc::as_ptr(unit), |(unit, _)| *unit).ok()?;
            Some(known[at].1)
        };
        port.luns.iter().filter_map(|(&lun, unit)| Some((lun, seat(unit)?))).collect()
    }

    /// The places of a new session.
    pub(crate) fn places(&self, port: &TargetPort, id: u64, path: &scsi::Path) -> Vec<Place> {
        self.seats(port).into_iter().map(|(lun, unit)| self.place(lun, unit, id, path)).collect()
    }

    fn place(&self, lun: u16, unit: u16, id: u64, path: &scsi::Path) -> Place {
        Place {
            lun,
            unit,
            nexus: scsi::Nexus::new(self.units[unit as usize].logical(), id, path.clone()),
            tasks: scsi::TaskSet::new(),
            reading: Default::default(),
        }
    }

    /// A unit comes.
    pub(crate) fn add_unit(
        &mut self,
        slot: u16,
        store: Arc<Store>,
        unit: Arc<LogicalUnit>,
        keeper: Option<Arc<dyn Keeper>>,
    ) {
        let until = self.reactor.now() + PATIENCE;
        self.try_to_add(Arrival { slot, store, unit, keeper, until });
    }

    fn try_to_add(&mut self, arrival: Arrival) {
        let slot = arrival.slot;
        let result = if matches!(self.drain, Drain::Flushing | Drain::Done) {
            Err("the target is shutting down".to_owned())
        } else if self.units.get(slot as usize).is_some_and(|unit| unit.present) {
            Err(format!("place {slot} is taken"))
        } else {
            match arrival.store.queue(&mut self.reactor, store_token_base(slot)) {
                Ok(queue) => {
                    self.seat(arrival, queue);
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory && self.reactor.now() < arrival.until => {
                    return self.roster.arrivals.push(arrival);
                }
                Err(error) => Err(error.to_string()),
            }
        };
        self.post.report(ToControl::Added { core: self.number, slot, result });
    }

    fn seat(&mut self, arrival: Arrival, queue: Box<dyn BlockQueue<R, Completion>>) {
        let Arrival { slot, unit, keeper, .. } = arrival;
        while self.units.len() <= slot as usize {
            let mut vacant = Unit::vacant(unit.clone());
            self.roster.admit(&mut vacant, self.post.cores());
            self.units.push(vacant);
        }
        debug!(core = self.number, slot, volume = unit.identity().name, "unit added");
        self.units[slot as usize].fill(unit, keeper, queue, self.roster.share, self.roster.class_share);
        // What it had begun in an earlier life goes on.
        self.take_up(slot);
    }

    /// The LUN map of a port has changed: its sessions see the new one, and hear of it (SPC-4 6.33).
    pub(crate) fn remap(&mut self, port: &Arc<TargetPort>) {
        let seats = self.seats(port);
        let is_of = |of: &TargetPort| of.target_name == port.target_name && of.portal_group == port.portal_group;
        let keys: Vec<Key> = self.links.iter().filter(|(_, link)| is_of(&link.port)).map(|(key, _)| key).collect();
        for key in keys {
            if let Some(link) = self.links.get_mut(key) {
                link.port = port.clone();
            }
            self.arrange(key, &seats, Some(Attention::ReportedLunsChanged));
        }
    }

    /// Forgets the places of a session that have no LUN any more, as far as their tasks have ended.
    pub(crate) fn forget_places(&mut self, key: Key) {
        let Some(link) = self.links.get(key) else { return };
        let shown = link.places.iter().filter(|place| place.lun != NO_LUN);
        let seats: Vec<(u16, u16)> = shown.map(|place| (place.lun, place.unit)).collect();
        self.arrange(key, &seats, None);
    }

    /// Gives a session the places of `seats`. Those that it has had at the same LUN stay as they are; tasks of others keep
    /// theirs, behind all that have a number.
    fn arrange(&mut self, key: Key, seats: &[(u16, u16)], attention: Option<Attention>) {
        let Some(link) = self.links.get_mut(key) else { return };
        let mut old: Vec<Option<Place>> = std::mem::take(&mut link.places).into_iter().map(Some).collect();
        let luns: Vec<u16> = old.iter().flatten().map(|place| place.lun).collect();
        let (id, path) = (link.identity.id, link.path());
        let mut busy = vec![false; old.len()];
        for (_, task) in self.tasks.iter().filter(|(_, task)| task.work.link == key) {
            if let Some(place) = task.work.place {
                busy[place as usize] = true;
            }
        }
        let mut moved: Vec<Option<u16>> = vec![None; old.len()];
        let mut places = Vec::with_capacity(seats.len());
        for &(lun, unit) in seats {
            let known = luns.binary_search(&lun).ok();
            let known = known.filter(|&at| old[at].as_ref().is_some_and(|place| place.unit == unit));
            if let Some(at) = known
                && let Some(mut place) = old[at].take()
            {
                if let Some(attention) = attention {
                    place.nexus.attention(attention);
                }
                moved[at] = Some(places.len() as u16);
                places.push(place);
            } else {
                places.push(self.place(lun, unit, id, &path));
            }
        }
        for (at, place) in old.into_iter().enumerate() {
            let Some(mut place) = place else { continue };
            if busy[at] {
                place.lun = NO_LUN;
                moved[at] = Some(places.len() as u16);
                places.push(place);
            } else {
                place.nexus.end(self.units[place.unit as usize].logical());
            }
        }
        for (_, task) in self.tasks.iter_mut().filter(|(_, task)| task.work.link == key) {
            task.work.place = task.work.place.and_then(|place| moved[place as usize]);
        }
        if let Some(link) = self.links.get_mut(key) {
            link.places = places;
        }
    }

    /// A unit goes.
    pub(crate) fn remove_unit(&mut self, slot: u16) {
        self.roster.arrivals.retain(|arrival| arrival.slot != slot);
        let present = self.units.get(slot as usize).is_some_and(|unit| unit.present);
        if !present || matches!(self.drain, Drain::Done) {
            return self.post.report(ToControl::Removed { core: self.number, slot, failure: None });
        }
        self.roster.leavers.push(Leaver { slot, flush: Flush::NotYet });
    }

    /// Goes on with units that come and go.
    pub(crate) fn continue_roster(&mut self) {
        if self.roster.is_settled() {
            return;
        }
        for arrival in std::mem::take(&mut self.roster.arrivals) {
            self.try_to_add(arrival);
        }
        for mut leaver in std::mem::take(&mut self.roster.leavers) {
            if !self.leave(&mut leaver) {
                self.roster.leavers.push(leaver);
            }
        }
    }

    /// Whether a unit is gone.
    fn leave(&mut self, leaver: &mut Leaver) -> bool {
        let slot = leaver.slot;
        let id = self.units[slot as usize].logical().id();
        // Another unit in this place has nothing to do with what was lent of this one.
        let lends = self.loans.has_any(slot);
        if lends {
            self.want_blocks(slot, None);
        }
        let is_used = lends
            || self.units[slot as usize].queue.in_flight() > 0
            || self.tasks.iter().any(|(_, task)| task.work.touches(slot, id))
            || self.managements.iter().any(|management| management.concerns(slot));
        if is_used || !self.leave_chore(slot) {
            return false;
        }
        let unit = &mut self.units[slot as usize];
        if matches!(leaver.flush, Flush::NotYet) {
            match unit.queue.submit(&mut self.reactor, LEAVE_TAG, Request::Flush) {
                Submitted::Pending => leaver.flush = Flush::Asked,
                Submitted::Done(done) => leaver.flush = Flush::Done(done.result.map(drop)),
                Submitted::Full(_) => {}
            }
        }
        let Flush::Done(result) = &leaver.flush else { return false };
        let name = unit.logical().identity().name.clone();
        let failure = result.err().map(|error| {
            warn!("volume {name}: {error}; what was written since its last flush may be lost");
            format!("volume {name}: {error}")
        });
        let keys: Vec<Key> = self.links.iter().map(|(key, _)| key).collect();
        for key in keys {
            let left = |place: &Place| place.unit == slot;
            if self.links.get(key).is_some_and(|link| link.places.iter().any(left)) {
                self.forget_places(key);
            }
        }
        self.units[slot as usize].logical().revoke_tokens();
        self.units[slot as usize].leave(&mut self.reactor);
        debug!(core = self.number, slot, volume = name, "unit removed");
        self.post.report(ToControl::Removed { core: self.number, slot, failure });
        true
    }

    /// The last flush of a unit has ended.
    pub(crate) fn left_flushed(&mut self, slot: u16, result: Result<(), StoreError>) {
        if let Some(leaver) = self.roster.leavers.iter_mut().find(|leaver| leaver.slot == slot) {
            leaver.flush = Flush::Done(result);
        }
    }
}
