//! What a logical unit's reservations are, by SPC-4 5.13 and SPC-2 5.5: a model, written from the standards' tables. A
//! nexus is a number.

use initiator::cdb;
use std::collections::BTreeMap;

/// RESERVATIONS PREEMPTED.
pub const RESERVATIONS_PREEMPTED: u16 = 0x2a03;
/// RESERVATIONS RELEASED.
pub const RESERVATIONS_RELEASED: u16 = 0x2a04;
/// REGISTRATIONS PREEMPTED.
pub const REGISTRATIONS_PREEMPTED: u16 = 0x2a05;

/// TYPE of a persistent reservation (SPC-4 table 61).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub u8);

impl Kind {
    /// Write Exclusive, Exclusive Access, the same for Registrants Only, the same for All Registrants.
    pub const ALL: [Kind; 6] = [Kind(1), Kind(3), Kind(5), Kind(6), Kind(7), Kind(8)];

    /// Others may not even read.
    fn excludes_readers(self) -> bool {
        matches!(self.0, 3 | 6 | 8)
    }

    /// Whoever is registered has access.
    fn admits_registrants(self) -> bool {
        self.0 >= 5
    }

    /// Whoever is registered holds it.
    fn is_held_by_all(self) -> bool {
        self.0 >= 7
    }
}

/// How a command stands to a reservation (SPC-4 table 66, SBC-3 table 14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Never in conflict.
    Free,
    /// In conflict with RESERVE(6) alone.
    Status,
    /// In conflict with who excludes readers.
    Read,
    /// In conflict with every reservation.
    Write,
}

/// PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// REGISTER, or REGISTER AND IGNORE EXISTING KEY; a new key of 0 unregisters.
    Register {
        /// RESERVATION KEY.
        key: u64,
        /// SERVICE ACTION RESERVATION KEY.
        new: u64,
        /// The key that is there doesn't matter.
        ignore: bool,
    },
    /// RESERVE.
    Reserve {
        /// RESERVATION KEY.
        key: u64,
        /// TYPE.
        kind: Kind,
    },
    /// RELEASE.
    Release {
        /// RESERVATION KEY.
        key: u64,
        /// TYPE.
        kind: Kind,
    },
    /// CLEAR.
    Clear {
        /// RESERVATION KEY.
        key: u64,
    },
    /// PREEMPT, or PREEMPT AND ABORT.
    Preempt {
        /// RESERVATION KEY.
        key: u64,
        /// SERVICE ACTION RESERVATION KEY.
        victim: u64,
        /// TYPE.
        kind: Kind,
        /// AND ABORT.
        abort: bool,
    },
}

impl Order {
    /// The CDB.
    pub fn cdb(&self) -> cdb::Cdb {
        let (action, kind) = match *self {
            Order::Register { ignore: false, .. } => (0, Kind(0)),
            Order::Reserve { kind, .. } => (1, kind),
            Order::Release { kind, .. } => (2, kind),
            Order::Clear { .. } => (3, Kind(0)),
            Order::Preempt { kind, abort: false, .. } => (4, kind),
            Order::Preempt { kind, .. } => (5, kind),
            Order::Register { .. } => (6, Kind(0)),
        };
        cdb::persistent_reserve_out(action, kind.0, 24)
    }

    /// The parameter list, with APTPL 0.
    pub fn parameters(&self) -> Vec<u8> {
        let (key, new) = match *self {
            Order::Register { key, new, .. } => (key, new),
            Order::Reserve { key, .. } | Order::Release { key, .. } | Order::Clear { key } => (key, 0),
            Order::Preempt { key, victim, .. } => (key, victim),
        };
        let mut list = key.to_be_bytes().to_vec();
        list.extend_from_slice(&new.to_be_bytes());
        list.resize(24, 0);
        list
    }
}

/// How an order ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// GOOD.
    Good,
    /// RESERVATION CONFLICT.
    Conflict,
    /// ILLEGAL REQUEST with this code.
    Illegal(u16),
}

/// Who has to be told, and what.
pub type Told = Vec<(usize, u16)>;

/// All reservations of a unit.
#[derive(Default, Clone, Debug)]
pub struct Reservations {
    /// Keys by nexus.
    keys: BTreeMap<usize, u64>,
    /// The reservation, and its holder (of several: anybody).
    held: Option<(Kind, usize)>,
    /// Times that the list of keys was changed, at least and at most: registering nothing may count.
    pub generation: (u32, u32),
    /// RESERVE(6).
    unit: Option<usize>,
}

impl Reservations {
    /// All registered keys.
    pub fn keys(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.keys.values().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// The key and type that READ RESERVATION shows.
    pub fn shown(&self) -> Option<(u64, u8)> {
        let (kind, holder) = self.held?;
        Some((if kind.is_held_by_all() { 0 } else { self.keys[&holder] }, kind.0))
    }

    /// The key that a nexus has registered.
    pub fn key_of(&self, nexus: usize) -> Option<u64> {
        self.keys.get(&nexus).copied()
    }

    fn holds(&self, nexus: usize) -> bool {
        let registered = self.keys.contains_key(&nexus);
        self.held.is_some_and(|(kind, holder)| if kind.is_held_by_all() { registered } else { holder == nexus })
    }

    /// Whether a command of this nexus is in conflict.
    pub fn forbid(&self, nexus: usize, access: Access) -> bool {
        if access == Access::Free {
            return false;
        }
        if self.unit.is_some_and(|holder| holder != nexus) {
            return true;
        }
        let Some((kind, _)) = self.held.filter(|_| access != Access::Status) else { return false };
        let excluded = access == Access::Write || kind.excludes_readers();
        let admitted = self.holds(nexus) || kind.admits_registrants() && self.keys.contains_key(&nexus);
        excluded && !admitted
    }

    /// A logical unit reset, which leaves persistent reservations alone.
    pub fn reset(&mut self) {
        self.unit = None;
    }

    /// RESERVE(6); gives GOOD or RESERVATION CONFLICT (SPC-2 5.5.1, SPC-3 5.6.3).
    pub fn reserve_unit(&mut self, nexus: usize) -> Verdict {
        if !self.keys.is_empty() {
            // CRH: those that are registered may, to no effect.
            return if self.keys.contains_key(&nexus) { Verdict::Good } else { Verdict::Conflict };
        }
        if self.unit.is_some_and(|holder| holder != nexus) {
            return Verdict::Conflict;
        }
        self.unit = Some(nexus);
        Verdict::Good
    }

    /// RELEASE(6): that of somebody else is left alone.
    pub fn release_unit(&mut self, nexus: usize) -> Verdict {
        if !self.keys.is_empty() && !self.keys.contains_key(&nexus) {
            return Verdict::Conflict;
        }
        if self.unit == Some(nexus) {
            self.unit = None;
        }
        Verdict::Good
    }

    /// Whether RESERVE(6) of somebody stands in the way of PERSISTENT RESERVE.
    pub fn has_unit_reservation(&self) -> bool {
        self.unit.is_some()
    }

    fn others(&self, nexus: usize) -> impl Iterator<Item = usize> {
        self.keys.keys().copied().filter(move |other| *other != nexus)
    }

    fn changed(&mut self) {
        self.generation = (self.generation.0 + 1, self.generation.1 + 1);
    }

    /// PERSISTENT RESERVE OUT (SPC-4 5.13.5 to 5.13.11).
    pub fn order(&mut self, nexus: usize, order: Order) -> (Verdict, Told) {
        let registered = self.keys.get(&nexus).copied();
        match order {
            Order::Register { key, new, ignore } => self.register(nexus, key, new, ignore),
            Order::Reserve { key, .. }
            | Order::Release { key, .. }
            | Order::Clear { key }
            | Order::Preempt { key, .. }
                if registered != Some(key) =>
            {
                (Verdict::Conflict, Vec::new())
            }
            Order::Reserve { kind, .. } => match self.held {
                None => {
                    self.held = Some((kind, nexus));
                    (Verdict::Good, Vec::new())
                }
                Some((of, _)) if of == kind && self.holds(nexus) => (Verdict::Good, Vec::new()),
                Some(_) => (Verdict::Conflict, Vec::new()),
            },
            Order::Release { kind, .. } => match self.held {
                Some((of, _)) if self.holds(nexus) && of != kind => (Verdict::Illegal(0x2604), Vec::new()),
                Some(_) if self.holds(nexus) => {
                    self.held = None;
                    let told = if kind.admits_registrants() { self.tell_others(nexus) } else { Vec::new() };
                    (Verdict::Good, told)
                }
                _ => (Verdict::Good, Vec::new()),
            },
            Order::Clear { .. } => {
                let told = self.others(nexus).map(|other| (other, RESERVATIONS_PREEMPTED)).collect();
                self.keys.clear();
                self.held = None;
                self.changed();
                (Verdict::Good, told)
            }
            Order::Preempt { victim, kind, .. } => self.preempt(nexus, victim, kind),
        }
    }

    fn tell_others(&self, nexus: usize) -> Told {
        self.others(nexus).map(|other| (other, RESERVATIONS_RELEASED)).collect()
    }

    fn register(&mut self, nexus: usize, key: u64, new: u64, ignore: bool) -> (Verdict, Told) {
        let registered = self.keys.get(&nexus).copied();
        if !ignore && registered.unwrap_or(0) != key {
            return (Verdict::Conflict, Vec::new());
        }
        let mut told = Vec::new();
        match (registered, new) {
            (None, 0) => {
                self.generation.1 += 1;
                return (Verdict::Good, told);
            }
            (Some(_), 0) => {
                let held = self.holds(nexus);
                self.keys.remove(&nexus);
                if let Some((kind, _)) = self.held.filter(|_| held) {
                    if !kind.is_held_by_all() {
                        self.held = None;
                        if kind.admits_registrants() {
                            told = self.tell_others(nexus);
                        }
                    } else if let Some(other) = self.keys.keys().next() {
                        self.held = Some((kind, *other));
                    } else {
                        self.held = None;
                    }
                }
            }
            _ => drop(self.keys.insert(nexus, new)),
        }
        self.changed();
        (Verdict::Good, told)
    }

    fn preempt(&mut self, nexus: usize, victim: u64, kind: Kind) -> (Verdict, Told) {
        let all = self.held.is_some_and(|(of, _)| of.is_held_by_all());
        let holder_key = self.held.filter(|_| !all).map(|(_, holder)| self.keys[&holder]);
        if victim == 0 && !all {
            return (Verdict::Illegal(0x2600), Vec::new());
        }
        let takes_over = all && victim == 0 || holder_key == Some(victim);
        let removed: Vec<usize> = self
            .keys
            .iter()
            .filter(|(other, key)| (**other != nexus || !takes_over) && (victim == 0 || **key == victim))
            .map(|(other, _)| *other)
            .collect();
        if removed.is_empty() && !takes_over {
            return (Verdict::Conflict, Vec::new());
        }
        for other in &removed {
            self.keys.remove(other);
        }
        let mut told: Told =
            removed.iter().filter(|o| **o != nexus).map(|other| (*other, REGISTRATIONS_PREEMPTED)).collect();
        let before = self.held.map(|(of, _)| of);
        if takes_over {
            self.held = Some((kind, nexus));
            if before.is_some_and(|of| of != kind && of.admits_registrants()) {
                told.extend(self.tell_others(nexus));
            }
        } else if let Some((of, holder)) = self.held
            && of.is_held_by_all()
            && !self.keys.contains_key(&holder)
        {
            self.held = self.keys.keys().next().map(|other| (of, *other));
        }
        self.changed();
        (Verdict::Good, told)
    }

    /// An order that this nexus may give, of `nexuses`, more often right than wrong. `below` gives a number below its
    /// argument.
    pub fn likely_order(&self, nexus: usize, nexuses: usize, below: &mut impl FnMut(u64) -> u64) -> Order {
        // A key: of some nexus, or of nobody.
        let key_of = |likely: usize, below: &mut dyn FnMut(u64) -> u64| {
            let whose = if below(4) == 0 { below(nexuses as u64) as usize } else { likely };
            if below(12) == 0 { 0xbad } else { self.key_of(whose).unwrap_or(0) }
        };
        let key = key_of(nexus, below);
        let kind = Kind::ALL[below(Kind::ALL.len() as u64) as usize];
        // The one that is there, more often than not.
        let there = self.shown().map_or(kind, |(_, of)| Kind(of));
        let likely = if below(3) == 0 { kind } else { there };
        match below(12) {
            0..4 => {
                let new = if below(4) == 0 { 0 } else { 1 + below(4) };
                Order::Register { key, new, ignore: below(3) == 0 }
            }
            4..7 => Order::Reserve { key, kind: likely },
            7 | 8 => Order::Release { key, kind: likely },
            9 => Order::Clear { key },
            _ => {
                let victim = below(nexuses as u64) as usize;
                let victim = key_of(victim, below);
                // What happens to who preempts its own key when it holds nothing is left alone.
                let victim = if self.key_of(nexus) == Some(victim) { 0xbad } else { victim };
                Order::Preempt { key, victim, kind, abort: below(2) == 0 }
            }
        }
    }
}
