//! Registrations and the persistent reservation of a unit, and how PERSISTENT RESERVE OUT changes them (SPC-4 5.12).
//!
//! Each action checks everything before it changes anything.

use crate::{
    attention::Attention,
    port::Path,
    sense::{Sense, asc},
};
use std::{collections::BTreeMap, sync::Arc};

/// Registrations that a unit has at most: several hundred hosts with a few ports each.
pub(crate) const MOST: usize = 1024;

/// The live nexuses of a unit, by session.
pub(crate) type Known = BTreeMap<u64, Path>;

/// TYPE of a persistent reservation (SPC-4 table 217).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    WriteExclusive = 1,
    ExclusiveAccess = 3,
    WriteExclusiveRegistrantsOnly = 5,
    ExclusiveAccessRegistrantsOnly = 6,
    WriteExclusiveAllRegistrants = 7,
    ExclusiveAccessAllRegistrants = 8,
}

impl Kind {
    pub fn of(code: u8) -> Option<Kind> {
        Some(match code {
            1 => Kind::WriteExclusive,
            3 => Kind::ExclusiveAccess,
            5 => Kind::WriteExclusiveRegistrantsOnly,
            6 => Kind::ExclusiveAccessRegistrantsOnly,
            7 => Kind::WriteExclusiveAllRegistrants,
            8 => Kind::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }

    pub fn excludes_reads(self) -> bool {
        use Kind::{ExclusiveAccess, ExclusiveAccessAllRegistrants, ExclusiveAccessRegistrantsOnly};
        matches!(self, ExclusiveAccess | ExclusiveAccessRegistrantsOnly | ExclusiveAccessAllRegistrants)
    }

    /// Registrants only.
    fn registrants_only(self) -> bool {
        matches!(self, Kind::WriteExclusiveRegistrantsOnly | Kind::ExclusiveAccessRegistrantsOnly)
    }

    /// Every registrant is a holder.
    pub fn all_registrants(self) -> bool {
        matches!(self, Kind::WriteExclusiveAllRegistrants | Kind::ExclusiveAccessAllRegistrants)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Registration {
    pub path: Path,
    pub key: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reservation {
    pub kind: Kind,
    /// None: all registrants.
    pub holder: Option<Path>,
}

/// Why an action was not done.
#[derive(Debug)]
pub(crate) enum Refused {
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION.
    Sense(Sense),
}

impl From<Sense> for Refused {
    fn from(sense: Sense) -> Refused {
        Refused::Sense(sense)
    }
}

/// What others have to be told of a change.
pub(crate) struct Change {
    pub attentions: Vec<(Attention, Arc<[Path]>)>,
    pub preempted: Arc<[Path]>,
}

impl Change {
    fn none() -> Change {
        Change { attentions: Vec::new(), preempted: Arc::new([]) }
    }

    fn tell(&mut self, attention: Attention, paths: Vec<Path>) {
        if !paths.is_empty() {
            self.attentions.push((attention, paths.into()));
        }
    }
}

/// REGISTER, REGISTER AND IGNORE EXISTING KEY.
pub(crate) struct Register {
    /// RESERVATION KEY.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub new_key: u64,
    /// IGNORE EXISTING KEY.
    pub ignore: bool,
    pub aptpl: bool,
    /// ALL_TG_PT: the other ports of the target.
    pub further_ports: Vec<u16>,
    /// SPEC_I_PT: the nexuses of the initiator ports in the list, at the port that the command came to.
    pub specified: Option<Vec<Path>>,
}

/// PREEMPT, PREEMPT AND ABORT.
pub(crate) struct Preempt {
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY: whom.
    pub victim: u64,
    pub scope: u8,
    pub kind: u8,
}

/// REGISTER AND MOVE.
pub(crate) struct Move {
    pub key: u64,
    pub new_key: u64,
    pub unregister: bool,
    pub aptpl: bool,
    /// Whom the parameter list names, if it is right.
    pub to: Result<Path, Sense>,
}

/// Reservations of a unit.
#[derive(Clone, Default, Debug)]
pub(crate) struct Reservations {
    /// PRGENERATION.
    pub(super) generation: u32,
    /// In the order in which they were made.
    pub(super) registrations: Vec<Registration>,
    pub(super) reservation: Option<Reservation>,
    /// APTPL of the last registration: all of it outlives the process.
    pub(super) activated: bool,
    /// The session that has the unit by RESERVE.
    pub reserved: Option<u64>,
}

impl Reservations {
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// It outlives a loss of power.
    pub fn is_kept(&self) -> bool {
        self.activated
    }

    pub fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// The type of the persistent reservation, if there is one.
    pub fn kind(&self) -> Option<Kind> {
        self.reservation.as_ref().map(|reservation| reservation.kind)
    }

    /// The key with which a nexus is registered.
    pub fn key(&self, path: &Path) -> Option<u64> {
        self.registrations.iter().find(|r| r.path == *path).map(|r| r.key)
    }

    /// The nexus is a holder of the persistent reservation.
    pub fn holds(&self, path: &Path) -> bool {
        match &self.reservation {
            None => false,
            Some(Reservation { holder: Some(holder), .. }) => holder == path,
            Some(Reservation { holder: None, .. }) => self.key(path).is_some(),
        }
    }

    /// The key of the holder; 0 when all registrants hold it.
    pub fn holders_key(&self) -> u64 {
        let holder = self.reservation.as_ref().and_then(|reservation| reservation.holder.as_ref());
        holder.and_then(|path| self.key(path)).unwrap_or(0)
    }

    /// SPC-4 5.12.7.
    pub fn register(&mut self, path: &Path, request: &Register) -> Result<Change, Refused> {
        let mut change = Change::none();
        let registered = self.key(path);
        if !request.ignore && registered.unwrap_or(0) != request.key {
            return Err(Refused::Conflict);
        }
        // Who is registered can't register others (SPC-4 table 69).
        if registered.is_some() && request.specified.is_some() {
            return Err(Sense::field_in_parameters(20, Some(3)).into());
        }
        if registered.is_none() && request.new_key == 0 {
            self.generation = self.generation.wrapping_add(1);
            return Ok(change);
        }
        let mut all = vec![path.clone()];
        for initiator in request.specified.iter().flatten().chain([path]) {
            for port in request.further_ports.iter().copied().chain([initiator.relative_port]) {
                let nexus = Path { initiator: initiator.initiator.clone(), relative_port: port };
                if !all.contains(&nexus) {
                    all.push(nexus);
                }
            }
        }
        if request.new_key == 0 {
            for nexus in &all {
                // As if it had come over each of them: with another key it would have been a conflict there.
                if request.ignore || self.key(nexus) == registered {
                    self.unregister(nexus, path, &mut change);
                }
            }
        } else {
            let fresh = all.iter().filter(|nexus| self.key(nexus).is_none()).count();
            if self.registrations.len() + fresh > MOST {
                return Err(Sense::illegal(asc::INSUFFICIENT_REGISTRATION_RESOURCES).into());
            }
            for nexus in all {
                let own = nexus.initiator == path.initiator;
                match self.registrations.iter_mut().find(|r| r.path == nexus) {
                    // Another initiator port that is registered keeps its key.
                    Some(old) if own && (request.ignore || Some(old.key) == registered) => old.key = request.new_key,
                    Some(_) => {}
                    None => self.registrations.push(Registration { path: nexus, key: request.new_key }),
                }
            }
        }
        self.activated = request.aptpl;
        self.generation = self.generation.wrapping_add(1);
        Ok(change)
    }

    /// SPC-4 5.12.11.3. `by`: whose command it is; it isn't told.
    fn unregister(&mut self, path: &Path, by: &Path, change: &mut Change) {
        self.registrations.retain(|r| r.path != *path);
        let Some(reservation) = &self.reservation else { return };
        match &reservation.holder {
            Some(holder) if holder == path => {
                if reservation.kind.registrants_only() {
                    change.tell(Attention::ReservationsReleased, self.all_but(by));
                }
                self.reservation = None;
            }
            None if self.registrations.is_empty() => self.reservation = None,
            _ => {}
        }
    }

    /// The nexus is registered with this key.
    fn check(&self, path: &Path, key: u64) -> Result<(), Refused> {
        if self.key(path) == Some(key) { Ok(()) } else { Err(Refused::Conflict) }
    }

    fn all_but(&self, path: &Path) -> Vec<Path> {
        self.registrations.iter().filter(|r| r.path != *path).map(|r| r.path.clone()).collect()
    }

    fn made(kind: Kind, path: &Path) -> Option<Reservation> {
        Some(Reservation { kind, holder: (!kind.all_registrants()).then(|| path.clone()) })
    }

    /// SPC-4 5.12.9.
    pub fn reserve(&mut self, path: &Path, key: u64, scope: u8, kind: u8) -> Result<Change, Refused> {
        self.check(path, key)?;
        let kind = valid(scope, kind)?;
        match &self.reservation {
            None => self.reservation = Self::made(kind, path),
            Some(reservation) if self.holds(path) && reservation.kind == kind => {}
            Some(_) => return Err(Refused::Conflict),
        }
        Ok(Change::none())
    }

    /// SPC-4 5.12.11.2.
    pub fn release(&mut self, path: &Path, key: u64, scope: u8, kind: u8) -> Result<Change, Refused> {
        self.check(path, key)?;
        let mut change = Change::none();
        if let Some(current) = self.kind()
            && self.holds(path)
        {
            if scope != 0 || kind != current as u8 {
                return Err(Sense::illegal(asc::INVALID_RELEASE_OF_PERSISTENT_RESERVATION).into());
            }
            if current.registrants_only() || current.all_registrants() {
                change.tell(Attention::ReservationsReleased, self.all_but(path));
            }
            self.reservation = None;
        }
        Ok(change)
    }

    /// SPC-4 5.12.11.6.
    pub fn clear(&mut self, path: &Path, key: u64) -> Result<Change, Refused> {
        self.check(path, key)?;
        let mut change = Change::none();
        change.tell(Attention::ReservationsPreempted, self.all_but(path));
        self.registrations.clear();
        self.reservation = None;
        self.generation = self.generation.wrapping_add(1);
        Ok(change)
    }

    /// SPC-4 5.12.11.4.
    pub fn preempt(&mut self, path: &Path, request: &Preempt) -> Result<Change, Refused> {
        self.check(path, request.key)?;
        let mut change = Change::none();
        let current = self.kind();
        let all = current.is_some_and(Kind::all_registrants);
        // The reservation itself is preempted: by the key of its holder, or 0 for those whom all registrants hold.
        let takes = match request.victim {
            0 if all => true,
            0 => return Err(Sense::field_in_parameters(8, None).into()),
            victim => current.is_some() && !all && self.holders_key() == victim,
        };
        let lost: Vec<Path> = if takes {
            let kind = valid(request.scope, request.kind)?;
            let lost = self.registrations.iter().filter(|r| r.path != *path && (all || r.key == request.victim));
            let lost: Vec<Path> = lost.map(|r| r.path.clone()).collect();
            self.registrations.retain(|r| !lost.contains(&r.path));
            self.reservation = Self::made(kind, path);
            change.tell(Attention::RegistrationsPreempted, lost.clone());
            if current != Some(kind) {
                change.tell(Attention::ReservationsReleased, self.all_but(path));
            }
            lost
        } else {
            let (lost, left): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.registrations).into_iter().partition(|r| r.key == request.victim);
            self.registrations = left;
            if lost.is_empty() {
                return Err(Refused::Conflict);
            }
            if self.registrations.is_empty() && all {
                self.reservation = None;
            }
            // Its own registration may be among them; its own tasks go on, and it knows what it did.
            let lost: Vec<Path> = lost.into_iter().map(|r| r.path).filter(|other| other != path).collect();
            change.tell(Attention::RegistrationsPreempted, lost.clone());
            lost
        };
        change.preempted = lost.into();
        self.generation = self.generation.wrapping_add(1);
        Ok(change)
    }

    /// SPC-4 5.12.8.
    ///
    /// `to` is looked at once it is known that there is something to move.
    pub fn move_to(&mut self, path: &Path, request: Move) -> Result<Change, Refused> {
        self.check(path, request.key)?;
        let movable = self.holds(path) && !self.kind().is_some_and(Kind::all_registrants);
        if !movable {
            return Err(Refused::Conflict);
        }
        if request.new_key == 0 {
            return Err(Sense::field_in_parameters(8, None).into());
        }
        let to = request.to?;
        if to == *path {
            return Err(Sense::field_in_parameters(24, None).into());
        }
        let room = MOST + usize::from(request.unregister);
        let full = self.registrations.len() >= room;
        match self.registrations.iter_mut().find(|r| r.path == to) {
            Some(there) => there.key = request.new_key,
            None if full => return Err(Sense::illegal(asc::INSUFFICIENT_REGISTRATION_RESOURCES).into()),
            None => self.registrations.push(Registration { path: to.clone(), key: request.new_key }),
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.holder = Some(to);
        }
        if request.unregister {
            self.registrations.retain(|r| r.path != *path);
        }
        self.activated = request.aptpl;
        self.generation = self.generation.wrapping_add(1);
        Ok(Change::none())
    }
}

/// SCOPE has to be that of the logical unit, TYPE one that exists.
fn valid(scope: u8, kind: u8) -> Result<Kind, Refused> {
    if scope != 0 {
        return Err(Sense::field_in_cdb(2, Some(7)).into());
    }
    Kind::of(kind).ok_or_else(|| Sense::field_in_cdb(2, Some(3)).into())
}
