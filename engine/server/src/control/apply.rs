//! Carries a reload out: what [`super::reload`] has decided, step by step.
//!
//! First all that can fail: the file is read and checked, stores are opened and measured on a helper thread, each core makes
//! its queues. Until then nothing that runs has changed. Then, at once: sizes, LUN maps, targets, access rules. Then what
//! goes: sessions of targets that are gone are closed, and units leave when their last commands have ended.

use super::{
    Control,
    directory::Targets,
    reload::{self, Changes},
};
use crate::{
    boot::{Ports, Seat, make_seat, open_store, store_settings},
    mail::ToCore,
};
use backstore::Store;
use config::{Plan, Size};
use protocol::CloseReason;
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use tracing::{error, info, warn};

/// Every core has answered for a new unit by then, or something is wrong.
const ANSWERED: Duration = Duration::from_secs(15);
/// A reload waits so long for the units that go; after that they go on going.
const GONE: Duration = Duration::from_secs(10);

/// What the cores have yet to say of units that come or go.
pub(crate) struct Roll {
    cores: u16,
    coming: RefCell<HashMap<u16, Tally>>,
    going: RefCell<HashMap<u16, Tally>>,
    heard: Notify,
}

#[derive(Default)]
struct Tally {
    heard: u16,
    failures: Vec<String>,
}

impl Tally {
    fn note(&mut self, failure: Option<String>) {
        self.heard += 1;
        self.failures.extend(failure);
    }
}

impl Roll {
    pub fn new(cores: u16) -> Roll {
        Roll { cores, coming: RefCell::default(), going: RefCell::default(), heard: Notify::new() }
    }

    /// A core has spoken of a unit that comes.
    pub fn added(&self, slot: u16, result: Result<(), String>) {
        if let Some(tally) = self.coming.borrow_mut().get_mut(&slot) {
            tally.note(result.err());
        }
        self.heard.notify_one();
    }

    /// A core has nothing of a unit any more. What went wrong, if it was the last one.
    fn removed(&self, slot: u16, failure: Option<String>) -> Option<Vec<String>> {
        let mut going = self.going.borrow_mut();
        let tally = going.get_mut(&slot)?;
        tally.note(failure);
        if tally.heard < self.cores {
            return None;
        }
        let failures = std::mem::take(&mut tally.failures);
        going.remove(&slot);
        self.heard.notify_one();
        Some(failures)
    }
}

/// What became of a reload, in words.
pub(crate) struct Report {
    pub done: bool,
    pub lines: Vec<String>,
}

impl Report {
    fn failed(lines: Vec<String>) -> Report {
        Report { done: false, lines }
    }
}

/// Reloads each time that the bell rings; what rings meanwhile is one more reload.
pub(super) async fn reload_when_told(control: Rc<Control>, bell: Rc<Notify>) {
    let mut number = 0;
    loop {
        bell.notified().await;
        if control.draining.get() {
            return;
        }
        let report = control.reload().await;
        number += 1;
        for line in &report.lines {
            match report.done {
                true => info!("reload: {line}"),
                false => error!("reload: {line}"),
            }
        }
        match report.done {
            true => info!("reload: done"),
            false => error!("reload: nothing has changed"),
        }
        let written = control.house.borrow().state.tell_reload(number, report.done, &report.lines);
        if let Err(error) = written {
            warn!("{error}");
        }
    }
}

/// What a helper thread has opened and measured.
struct Prepared {
    /// Of `Changes::added`, in its order.
    stores: Vec<Arc<Store>>,
    /// Of `Changes::measured`, in its order: bytes.
    sizes: Vec<u64>,
}

impl Control {
    async fn reload(self: &Rc<Self>) -> Report {
        let changes = match self.read().await {
            Ok(changes) => changes,
            Err(lines) => return Report::failed(lines),
        };
        let prepared = match self.prepare(&changes).await {
            Ok(prepared) => prepared,
            Err(line) => return Report::failed(vec![line]),
        };
        let came = match self.seat(&changes, prepared.stores).await {
            Ok(came) => came,
            Err(lines) => return Report::failed(lines),
        };
        let mut lines = changes.later.iter().map(|line| format!("warning: {line}")).collect();
        // Nothing is waited for from here on, until all has changed.
        if let Err(line) = self.commit(changes, &came, &prepared.sizes, &mut lines) {
            self.withdraw(&came).await;
            return Report::failed(vec![line]);
        }
        if !self.all_gone().await {
            lines.push(
                "the last commands of a volume that was removed have not ended yet: it goes when they have".into(),
            );
        }
        Report { done: true, lines }
    }

    /// Reads and checks the file, and compares it with what runs.
    async fn read(&self) -> Result<Changes, Vec<String>> {
        let file = self.targets().source().cloned().unwrap_or_default();
        let loaded = tokio::task::spawn_blocking(move || config::load(&file)).await;
        let loaded = loaded.map_err(|error| vec![error.to_string()])?;
        let loaded = loaded.map_err(|report| {
            let line = |problem: &config::Problem| match problem.cure() {
                "" => problem.to_string(),
                cure => format!("{problem}; {cure}"),
            };
            report.problems().iter().map(line).collect::<Vec<_>>()
        })?;
        for warning in &loaded.warnings {
            warn!(cure = warning.cure(), "{warning}");
        }
        let changes = reload::compare(self.targets().plan(), loaded.plan);
        let taken = self.house.borrow().seats.iter().flatten().count() + changes.added.len();
        let room = changes.plan.limits.max_volumes as usize;
        if taken > room {
            return Err(vec![format!(
                "{taken} volumes would be open at a time, and there is room for {room}; set `max_volumes` in [server] and \
                 restart, or add fewer"
            )]);
        }
        Ok(changes)
    }

    /// Opens and measures on a helper thread: both may block for long.
    async fn prepare(&self, changes: &Changes) -> Result<Prepared, String> {
        let depth = changes.plan.limits.store_depth;
        let volume = |at: &usize| changes.plan.volumes[*at].clone();
        let added: Vec<config::Volume> = changes.added.iter().map(volume).collect();
        let store = |at: &usize| {
            let house = self.house.borrow();
            house.seats[house.slots[changes.kept[at]] as usize].as_ref().map(|seat| seat.store.clone())
        };
        let measured: Vec<(config::Volume, Arc<Store>)> =
            changes.measured.iter().filter_map(|at| Some((volume(at), store(at)?))).collect();
        let work = move || {
            let sizes = measured.into_iter().map(|(volume, store)| {
                let size = store.measure(&store_settings(&volume, depth));
                size.map_err(|error| format!("volume `{}`: {error}", volume.name))
            });
            let sizes = sizes.collect::<Result<Vec<u64>, String>>()?;
            let stores = added.iter().map(|volume| open_store(volume, depth).map_err(|error| error.to_string()));
            Ok(Prepared { sizes, stores: stores.collect::<Result<Vec<_>, String>>()? })
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
    }

    /// Has all cores make queues for new volumes. Gives their positions, in the order of `Changes::added`.
    async fn seat(&self, changes: &Changes, stores: Vec<Arc<Store>>) -> Result<Vec<u16>, Vec<String>> {
        let (mut came, mut refused) = (Vec::new(), Vec::new());
        for (&at, store) in changes.added.iter().zip(stores) {
            let house = &mut *self.house.borrow_mut();
            let seat = match make_seat(&changes.plan, &changes.plan.volumes[at], store, &mut house.state, &house.seats)
            {
                Ok(seat) => seat,
                Err(error) => {
                    refused.push(error.to_string());
                    break;
                }
            };
            let slot = house.seats.iter().position(Option::is_none).unwrap_or_else(|| {
                house.seats.push(None);
                house.seats.len() - 1
            });
            house.seats[slot] = Some(seat.clone());
            let slot = slot as u16;
            self.roll.coming.borrow_mut().insert(slot, Tally::default());
            for core in 0..self.post.cores() {
                let Seat { store, unit, keeper } = seat.clone();
                self.post.send(core, ToCore::Add { slot, store, unit, keeper: Some(keeper) });
            }
            came.push(slot);
        }
        let all = || came.iter().all(|slot| self.roll.coming.borrow()[slot].heard == self.post.cores());
        let answered = tokio::time::timeout(ANSWERED, async {
            while !all() {
                self.roll.heard.notified().await;
            }
        });
        let in_time = answered.await.is_ok();
        let mut failures = refused;
        for (slot, &at) in came.iter().zip(&changes.added) {
            let tally = self.roll.coming.borrow_mut().remove(slot).unwrap_or_default();
            if let Some(failure) = tally.failures.first() {
                failures.push(format!("volume `{}`: {failure}", changes.plan.volumes[at].name));
            }
        }
        if !in_time {
            failures.push("a data core has not answered".into());
        }
        if failures.is_empty() {
            return Ok(came);
        }
        self.withdraw(&came).await;
        Err(failures)
    }

    /// New units go again: nobody has seen them.
    async fn withdraw(&self, came: &[u16]) {
        came.iter().for_each(|slot| self.send_off(*slot));
        self.all_gone().await;
    }

    /// Has all cores let go of a unit.
    fn send_off(&self, slot: u16) {
        self.roll.going.borrow_mut().insert(slot, Tally::default());
        for core in 0..self.post.cores() {
            self.post.send(core, ToCore::Remove { slot });
        }
    }

    /// A core has let go of a unit. After the last one, its store is closed and its place is free.
    pub(super) fn removed(&self, slot: u16, failure: Option<String>) {
        let Some(failures) = self.roll.removed(slot, failure) else { return };
        let seat = self.house.borrow_mut().seats.get_mut(slot as usize).and_then(Option::take);
        if let Some(seat) = seat {
            let volume = &seat.unit.identity().name;
            match failures.first() {
                Some(failure) => warn!("{failure}; the volume is removed"),
                None => info!(volume, "removed: nothing of it is held any more"),
            }
        }
    }

    /// Whether all units that go are gone before long.
    async fn all_gone(&self) -> bool {
        let gone = tokio::time::timeout(GONE, async {
            while !self.roll.going.borrow().is_empty() {
                self.roll.heard.notified().await;
            }
        });
        gone.await.is_ok()
    }

    /// Changes everything that runs, at once. Errors: nothing has changed.
    fn commit(&self, changes: Changes, came: &[u16], sizes: &[u64], lines: &mut Vec<String>) -> Result<(), String> {
        if self.draining.get() {
            return Err("the target is shutting down".into());
        }
        let before = self.targets();
        let house = &mut *self.house.borrow_mut();
        let mut new_slots: BTreeMap<usize, u16> =
            changes.kept.iter().map(|(at, old)| (*at, house.slots[*old])).collect();
        new_slots.extend(changes.added.iter().copied().zip(came.iter().copied()));
        let slots: Vec<u16> = new_slots.into_values().collect();
        let mut ports = Ports::new();
        let changed = changes.new_targets.iter().chain(&changes.remapped);
        for &at in changed {
            let target = &changes.plan.targets[at];
            ports.extend(house.ports_of(target, &slots).map_err(|error| error.to_string())?);
        }
        house.state.save().map_err(|error| error.to_string())?;
        let targets = Targets::new(changes.plan.clone(), before.source().cloned(), before.portals().to_vec())
            .map_err(|error| error.to_string())?;

        describe(&changes, before.plan(), lines);
        for (at, bytes) in changes.measured.iter().zip(sizes) {
            if let Some(seat) = &house.seats[slots[*at] as usize] {
                resize(seat, *bytes, &changes.plan.volumes[*at].name, lines);
            }
        }
        for name in &changes.old_targets {
            house.ports.retain(|(of, _), _| of != name);
        }
        let is_remapped = |name: &str| changes.remapped.iter().any(|at| changes.plan.targets[*at].name == name);
        for (key, port) in ports {
            if is_remapped(&key.0) {
                for core in 0..self.post.cores() {
                    self.post.send(core, ToCore::Remap(port.clone()));
                }
            }
            house.ports.insert(key, port);
        }
        for name in &changes.old_targets {
            for (session, core) in self.registry.borrow_mut().close_target(name) {
                self.post.send(core, ToCore::Close(session, CloseReason::Protocol("its target was removed")));
            }
        }
        let left: Vec<u16> = changes.removed.iter().map(|at| house.slots[*at]).collect();
        house.slots = slots;
        *self.targets.borrow_mut() = Rc::new(targets);
        left.into_iter().for_each(|slot| self.send_off(slot));
        Ok(())
    }
}

/// Another size, in the order in which no command finds less than it was promised without being told so.
fn resize(seat: &Seat, bytes: u64, name: &str, lines: &mut Vec<String>) {
    let before = seat.store.bytes();
    if bytes == before {
        return;
    }
    if bytes > before {
        seat.store.resize(bytes);
        seat.unit.resize(bytes);
    } else {
        seat.unit.resize(bytes);
        seat.store.resize(bytes);
    }
    lines.push(format!("volume `{name}`: {} instead of {}", Size(bytes), Size(before)));
}

/// What changes, in words.
fn describe(changes: &Changes, before: &Plan, lines: &mut Vec<String>) {
    let targets = |of: &[usize]| of.iter().map(|at| changes.plan.targets[*at].name.clone()).collect::<Vec<_>>();
    let mut say = |lines_of: Vec<String>, what: &str| {
        lines.extend(lines_of.into_iter().map(|name| format!("{name} {what}")));
    };
    let volumes =
        |plan: &Plan, of: &[usize]| of.iter().map(|at| format!("volume `{}`", plan.volumes[*at].name)).collect();
    say(volumes(&changes.plan, &changes.added), "added");
    say(volumes(before, &changes.removed), "removed");
    say(targets(&changes.new_targets), "added");
    say(targets(&changes.remapped), "has other LUNs");
    say(targets(&changes.regulated), "has other access rules or bounds, for new logins");
    say(changes.old_targets.clone(), "removed");
    say(changes.general.iter().map(|key| format!("`{key}` in [server]")).collect(), "holds from now on");
}
