//! All sessions of the process: who they are, on which core, and what a new login means for them. Sans-IO.

use crate::mail::SessionId;
use std::{collections::HashMap, sync::Arc};

/// What names a session to its initiator: InitiatorName, ISID, TargetName and portal group (RFC 7143 4.4.1, 6.3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nexus {
    /// InitiatorName.
    pub initiator: Arc<str>,
    /// ISID.
    pub isid: [u8; 6],
    /// TargetName.
    pub target: Arc<str>,
    /// Target portal group tag.
    pub group: u16,
}

/// A login that asks for admission.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// Who.
    pub nexus: Nexus,
    /// TSIH of the login request: 0 asks for a new session.
    pub tsih: u16,
    /// CID of the login request.
    pub cid: u16,
    /// Sessions that its target allows.
    pub max_sessions: u32,
}

/// What becomes of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is session `id` with this TSIH, on `core`.
    Accept {
        /// The session.
        id: SessionId,
        /// Its TSIH.
        tsih: u16,
        /// Where it lives.
        core: u16,
    },
    /// The old session must end first (RFC 7143 6.3.5): close it on `core` if `close` is set (nobody has yet), and ask
    /// again when it has ended.
    Reinstate {
        /// The old session.
        old: SessionId,
        /// Where it lives.
        core: u16,
        /// It has to be told.
        close: bool,
    },
    /// Refused.
    Refuse(Refusal),
}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No session has that TSIH (status 020Ah).
    NoSession,
    /// The session has all the connections that it may have (status 0206h).
    TooManyConnections,
    /// The process, the target or all cores are full (status 0302h).
    OutOfResources,
}

#[derive(Debug)]
struct Entry {
    nexus: Nexus,
    tsih: u16,
    cid: u16,
    core: u16,
    closing: bool,
}

/// The sessions, and how many each core and target has.
#[derive(Debug)]
pub struct Registry {
    next_id: SessionId,
    next_tsih: u16,
    most: u32,
    most_per_core: u32,
    of_core: Vec<u32>,
    sessions: HashMap<SessionId, Entry>,
    by_nexus: HashMap<Nexus, SessionId>,
    /// Where a nexus was last that left late writes there: it goes there again.
    last_core: HashMap<Nexus, u16>,
    /// Commands per second of each core, as it has said last, and sessions that were placed there since.
    rates: Vec<(u32, u32)>,
}

/// Commands a second that are nothing to a core.
const NOTHING: u64 = 2000;

impl Registry {
    /// `most` sessions in all, `most_per_core` on each of `cores`.
    pub fn new(cores: u16, most: u32, most_per_core: u32) -> Self {
        Self {
            next_id: 1,
            next_tsih: 1,
            most,
            most_per_core,
            of_core: vec![0; cores.max(1) as usize],
            sessions: HashMap::new(),
            by_nexus: HashMap::new(),
            last_core: HashMap::new(),
            rates: vec![(0, 0); cores.max(1) as usize],
        }
    }

    /// Decides on a login (RFC 7143 6.3.1, 6.3.5). Accepted ones count at once.
    pub fn apply(&mut self, applicant: &Applicant) -> Decision {
        let old = self.by_nexus.get(&applicant.nexus).copied();
        if applicant.tsih != 0 {
            // A further connection, or the reinstatement of one. With one connection a session, the same CID is a
            // reinstatement of the connection: at error recovery level 0 its tasks end, as the session's do.
            let Some(id) = old.filter(|id| self.sessions[id].tsih == applicant.tsih) else {
                return Decision::Refuse(Refusal::NoSession);
            };
            if self.sessions[&id].cid != applicant.cid {
                return Decision::Refuse(Refusal::TooManyConnections);
            }
        }
        if let Some(id) = old {
            let entry = self.sessions.get_mut(&id).expect("by_nexus and sessions agree");
            let close = !std::mem::replace(&mut entry.closing, true);
            return Decision::Reinstate { old: id, core: entry.core, close };
        }
        let of_target = self.sessions.values().filter(|e| e.nexus.target == applicant.nexus.target).count();
        if self.sessions.len() >= self.most as usize || of_target >= applicant.max_sessions as usize {
            return Decision::Refuse(Refusal::OutOfResources);
        }
        let Some(core) = self.place(&applicant.nexus) else { return Decision::Refuse(Refusal::OutOfResources) };
        let Some(tsih) = self.free_tsih() else { return Decision::Refuse(Refusal::OutOfResources) };
        let id = self.next_id;
        self.next_id += 1;
        self.of_core[core as usize] += 1;
        self.rates[core as usize].1 += 1;
        let nexus = applicant.nexus.clone();
        self.by_nexus.insert(nexus.clone(), id);
        self.sessions.insert(id, Entry { nexus, tsih, cid: applicant.cid, core, closing: false });
        Decision::Accept { id, tsih, core }
    }

    /// The reinstated session's successor keeps its TSIH when its login asked for one (RFC 7143 6.3.1): to be called
    /// instead of [`Registry::apply`] once the old session has ended, with the login's TSIH as it came.
    pub fn apply_successor(&mut self, applicant: &Applicant) -> Decision {
        let fresh = Applicant { tsih: 0, ..applicant.clone() };
        let decision = self.apply(&fresh);
        if let Decision::Accept { id, core, .. } = decision
            && applicant.tsih != 0
            && !self.sessions.values().any(|e| e.tsih == applicant.tsih)
        {
            self.sessions.get_mut(&id).expect("just accepted").tsih = applicant.tsih;
            return Decision::Accept { id, tsih: applicant.tsih, core };
        }
        decision
    }

    /// Takes note of how many commands a second each core has.
    pub fn note_rates(&mut self, rates: impl Iterator<Item = u32>) {
        for (known, now) in self.rates.iter_mut().zip(rates) {
            if known.0 != now {
                // The new rate has only a part of those that came while it was counted.
                *known = (now, known.1 / 2);
            }
        }
    }

    /// The core that has least to do, and of those that are alike the one with fewest sessions. Sessions that came
    /// since a core has said its rate count as average ones. For a nexus with late writes, its old core: they are waited
    /// for there.
    fn place(&mut self, nexus: &Nexus) -> Option<u16> {
        if self.last_core.len() > 4096 {
            self.last_core.clear();
        }
        if let Some(&core) = self.last_core.get(nexus)
            && self.of_core[core as usize] < self.most_per_core
        {
            return Some(core);
        }
        let total: u64 = self.rates.iter().map(|(rate, _)| u64::from(*rate)).sum();
        let average = total / (self.sessions.len() as u64).max(1);
        let loads = self.rates.iter().map(|&(rate, placed)| u64::from(rate) + average * u64::from(placed));
        // Below an eighth of all, and below what is nothing to a core, differences mean nothing.
        let step = (total / 8).max(NOTHING);
        let free = loads.zip(&self.of_core).enumerate().filter(|(_, (_, sessions))| **sessions < self.most_per_core);
        free.min_by_key(|(_, (load, sessions))| (load / step, **sessions)).map(|(core, _)| core as u16)
    }

    fn free_tsih(&mut self) -> Option<u16> {
        if self.sessions.len() >= usize::from(u16::MAX) - 1 {
            return None;
        }
        loop {
            let tsih = self.next_tsih;
            self.next_tsih = self.next_tsih.checked_add(1).unwrap_or(1);
            if tsih != 0 && !self.sessions.values().any(|e| e.tsih == tsih) {
                return Some(tsih);
            }
        }
    }

    /// An accepted session never came to its core: what is known of its nexus stays.
    pub fn withdraw(&mut self, id: SessionId) {
        self.forget(id);
    }

    fn forget(&mut self, id: SessionId) -> Option<Entry> {
        let entry = self.sessions.remove(&id)?;
        self.of_core[entry.core as usize] -= 1;
        self.by_nexus.remove(&entry.nexus);
        Some(entry)
    }

    /// A session has ended on its core; `late`: with writes that the store still has.
    pub fn ended(&mut self, id: SessionId, late: bool) {
        let Some(entry) = self.forget(id) else { return };
        if late {
            self.last_core.insert(entry.nexus, entry.core);
        } else {
            self.last_core.remove(&entry.nexus);
        }
    }

    /// Sessions of a target and their cores: they are to be closed, and who logs in for one of them waits for that.
    pub fn close_target(&mut self, name: &str) -> Vec<(SessionId, u16)> {
        let of_target = self.sessions.iter_mut().filter(|(_, entry)| entry.nexus.target.eq_ignore_ascii_case(name));
        let close = |(id, entry): (&SessionId, &mut Entry)| {
            entry.closing = true;
            (*id, entry.core)
        };
        of_target.map(close).collect()
    }

    /// Sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicant(initiator: &str, isid: u8, target: &str) -> Applicant {
        let nexus = Nexus { initiator: initiator.into(), isid: [isid; 6], target: target.into(), group: 1 };
        Applicant { nexus, tsih: 0, cid: 0, max_sessions: 100 }
    }

    fn accepted(decision: Decision) -> (SessionId, u16, u16) {
        match decision {
            Decision::Accept { id, tsih, core } => (id, tsih, core),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sessions_of_one_target_spread_over_the_cores() {
        let mut registry = Registry::new(2, 100, 100);
        let cores: Vec<u16> = (0..4).map(|i| accepted(registry.apply(&applicant("i", i, "t"))).2).collect();
        assert_eq!(cores, [0, 1, 0, 1]);
    }

    #[test]
    fn the_same_nexus_again_waits_for_the_old_session_and_takes_its_core() {
        let mut registry = Registry::new(2, 100, 100);
        accepted(registry.apply(&applicant("other", 1, "t")));
        let (old, _, core) = accepted(registry.apply(&applicant("i", 1, "t")));
        let again = applicant("i", 1, "t");
        assert_eq!(registry.apply(&again), Decision::Reinstate { old, core, close: true });
        assert_eq!(registry.apply(&again), Decision::Reinstate { old, core, close: false });
        // Its core has more to do than the other by now, but also its late writes.
        registry.note_rates([1000, 500_000].into_iter());
        registry.ended(old, true);
        let (new, _, new_core) = accepted(registry.apply_successor(&again));
        assert_ne!(new, old);
        assert_eq!((core, new_core), (1, 1));
        registry.withdraw(new);
        let (new, _, core) = accepted(registry.apply(&again));
        assert_eq!(core, 1, "one that never came there changes nothing");
        registry.ended(new, true);
        let (new, _, core) = accepted(registry.apply(&again));
        assert_eq!(core, 1, "the late writes of the first one are still there");
        registry.ended(new, false);
        assert_eq!(accepted(registry.apply(&again)).2, 0, "without late writes it goes where there is less to do");
    }

    #[test]
    fn logins_go_where_there_is_less_to_do_and_not_all_to_the_same_core() {
        let mut registry = Registry::new(3, 100, 100);
        let core = |registry: &mut Registry, n| accepted(registry.apply(&applicant("i", n, "t"))).2;
        let first: Vec<u16> = (0..6).map(|n| core(&mut registry, n)).collect();
        assert_eq!(first, [0, 1, 2, 0, 1, 2]);
        registry.note_rates([600_000, 10_000, 300_000].into_iter());
        // An average session has 150,000 commands a second.
        let next: Vec<u16> = (6..10).map(|n| core(&mut registry, n)).collect();
        assert_eq!(next[..2], [1, 1]);
        assert!(next.contains(&2) && !next.contains(&0), "{next:?}");
        registry.note_rates([0, 0, 0].into_iter());
        assert_eq!(core(&mut registry, 10), 0, "all idle: the one with fewest sessions");
    }

    #[test]
    fn a_tsih_that_no_session_has_is_refused() {
        let mut registry = Registry::new(1, 100, 100);
        let (_, tsih, _) = accepted(registry.apply(&applicant("i", 1, "t")));
        let stranger = Applicant { tsih: tsih + 1, ..applicant("i", 1, "t") };
        assert_eq!(registry.apply(&stranger), Decision::Refuse(Refusal::NoSession));
        let other_isid = Applicant { tsih, ..applicant("i", 2, "t") };
        assert_eq!(registry.apply(&other_isid), Decision::Refuse(Refusal::NoSession));
    }

    #[test]
    fn a_second_connection_is_one_too_many_but_the_same_one_is_reinstated() {
        let mut registry = Registry::new(1, 100, 100);
        let (id, tsih, core) = accepted(registry.apply(&applicant("i", 1, "t")));
        let second = Applicant { tsih, cid: 1, ..applicant("i", 1, "t") };
        assert_eq!(registry.apply(&second), Decision::Refuse(Refusal::TooManyConnections));
        let same = Applicant { tsih, cid: 0, ..applicant("i", 1, "t") };
        assert_eq!(registry.apply(&same), Decision::Reinstate { old: id, core, close: true });
        registry.ended(id, false);
        assert_eq!(accepted(registry.apply_successor(&same)).1, tsih, "the session keeps its TSIH");
    }

    #[test]
    fn bounds_in_all_per_core_and_per_target_hold() {
        let mut registry = Registry::new(1, 3, 2);
        accepted(registry.apply(&applicant("i", 1, "t")));
        let full = Applicant { max_sessions: 1, ..applicant("i", 2, "t") };
        assert_eq!(registry.apply(&full), Decision::Refuse(Refusal::OutOfResources));
        let (second, ..) = accepted(registry.apply(&applicant("i", 2, "t")));
        assert_eq!(registry.apply(&applicant("i", 3, "u")), Decision::Refuse(Refusal::OutOfResources));
        registry.ended(second, false);
        accepted(registry.apply(&applicant("i", 3, "u")));
    }
}
