//! Asymmetric logical unit access (SPC-4 5.15): the state of each target port group, and what it allows.
//!
//! States are atomics: a command to a unit none of whose groups is in standby or unavailable doesn't look at them.

use crate::{
    attention::Attention,
    sense::{Sense, SenseKey, asc},
    table::Entry,
    unit::{Flags, LogicalUnit},
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU8, Ordering};

/// ASYMMETRIC ACCESS STATE (SPC-4 table 249).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessState {
    /// Active/optimized.
    Optimized = 0,
    /// Active/non-optimized: everything works, over a longer way.
    NonOptimized = 1,
    /// Standby: names and states alone.
    Standby = 2,
    /// Unavailable: fewer still.
    Unavailable = 3,
}

impl AccessState {
    pub(crate) fn of(code: u8) -> Option<AccessState> {
        use AccessState::*;
        [Optimized, NonOptimized, Standby, Unavailable].into_iter().find(|state| *state as u8 == code)
    }

    fn is_restricted(self) -> bool {
        matches!(self, AccessState::Standby | AccessState::Unavailable)
    }
}

/// A target port group as the config has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupAccess {
    /// Target portal group tag.
    pub portal_group: u16,
    /// Its state.
    pub state: AccessState,
    /// PREF.
    pub preferred: bool,
}

/// The state of a group that an initiator has set, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptAccess {
    portal_group: u16,
    state: u8,
    /// What the config said then: if it says something else now, the operator's word is the newer one.
    configured: u8,
}

/// STATUS CODE: nothing was reported; by SET TARGET PORT GROUPS; implicitly.
const NOTHING: u8 = 0;
const EXPLICITLY: u8 = 1;
const IMPLICITLY: u8 = 2;

/// A target port group of a unit.
#[derive(Debug)]
pub(crate) struct Group {
    pub configured: GroupAccess,
    state: AtomicU8,
    cause: AtomicU8,
}

impl Group {
    pub fn new(configured: GroupAccess) -> Group {
        Group { configured, state: AtomicU8::new(configured.state as u8), cause: AtomicU8::new(NOTHING) }
    }

    pub fn state(&self) -> AccessState {
        AccessState::of(self.state.load(Ordering::Acquire)).unwrap_or(AccessState::Optimized)
    }

    /// STATUS CODE.
    pub fn cause(&self) -> u8 {
        self.cause.load(Ordering::Relaxed)
    }
}

impl LogicalUnit {
    /// The group of this tag; None: it was not configured, and is active/optimized.
    pub(crate) fn group(&self, portal_group: u16) -> Option<&Group> {
        self.groups().iter().find(|group| group.configured.portal_group == portal_group)
    }

    /// The state of a port group as this unit is reached through it.
    pub fn access(&self, portal_group: u16) -> AccessState {
        self.group(portal_group).map_or(AccessState::Optimized, Group::state)
    }

    /// Changes states of groups that are configured; others are left out. `explicitly`: by SET TARGET PORT GROUPS of this
    /// nexus, which hears nothing of it.
    pub(crate) fn set_access(&self, states: &[(u16, AccessState)], explicitly: Option<u64>) {
        let mut changed = false;
        for (portal_group, state) in states {
            let Some(group) = self.group(*portal_group) else { continue };
            changed |= group.state.swap(*state as u8, Ordering::AcqRel) != *state as u8;
            let cause = if explicitly.is_some() { EXPLICITLY } else { IMPLICITLY };
            group.cause.store(cause, Ordering::Relaxed);
        }
        if changed {
            self.change(Some(Attention::AccessStateChanged), explicitly, |flags| self.restrict(flags));
        }
    }

    /// SET TARGET PORT GROUPS: states that last. Gives the number of the lasting state, which is to be saved.
    pub(crate) fn set_access_for_good(&self, states: &[(u16, AccessState)], nexus: u64) -> u64 {
        let before: Vec<(u8, u8)> = self.groups().iter().map(|group| (group.state() as u8, group.cause())).collect();
        self.set_access(states, Some(nexus));
        self.lock().changed_for_good(Box::new(move |unit, state| {
            for (group, (state, cause)) in unit.groups().iter().zip(&before) {
                group.state.store(*state, Ordering::Release);
                group.cause.store(*cause, Ordering::Relaxed);
            }
            state.attention(Attention::AccessStateChanged, Some(nexus));
            unit.set_flags(|flags| unit.restrict(flags));
        }))
    }

    fn restrict(&self, flags: &mut Flags) {
        flags.set(Flags::RESTRICTED, self.groups().iter().any(|group| group.state().is_restricted()));
    }

    /// What is recorded of them.
    pub(crate) fn keep_access(&self) -> Vec<KeptAccess> {
        let kept = |group: &Group| KeptAccess {
            portal_group: group.configured.portal_group,
            state: group.state() as u8,
            configured: group.configured.state as u8,
        };
        self.groups().iter().filter(|group| group.cause() == EXPLICITLY).map(kept).collect()
    }

    /// Before the first command. Groups that are not configured, or not as they were then, are passed over.
    pub(crate) fn restore_access(&self, kept: Vec<KeptAccess>) -> Result<(), String> {
        for KeptAccess { portal_group, state, configured } in kept {
            let state = AccessState::of(state).ok_or_else(|| format!("{state} is no access state"))?;
            let group = self.group(portal_group).filter(|group| group.configured.state as u8 == configured);
            if let Some(group) = group.filter(|_| self.explicit_access()) {
                group.state.store(state as u8, Ordering::Release);
                group.cause.store(EXPLICITLY, Ordering::Relaxed);
            }
        }
        self.set_flags(|flags| self.restrict(flags));
        Ok(())
    }

    /// The same by the operator: every nexus hears of it.
    pub fn set_access_implicitly(&self, portal_group: u16, state: AccessState) {
        self.set_access(&[(portal_group, state)], None);
    }
}

/// Whether groups need [`Flags::RESTRICTED`].
pub(crate) fn any_restricted(groups: &[GroupAccess]) -> bool {
    groups.iter().any(|group| group.state.is_restricted())
}

/// Refuses what the state of the command's port group doesn't allow (SPC-4 5.15.2.4.4, 5.15.2.4.5).
#[cold]
pub(crate) fn check(unit: &LogicalUnit, entry: &Entry, portal_group: u16) -> Result<(), Sense> {
    let state = unit.access(portal_group);
    let allowed = match state {
        AccessState::Optimized | AccessState::NonOptimized => true,
        AccessState::Standby => in_standby(entry) || in_unavailable(entry),
        AccessState::Unavailable => in_unavailable(entry),
    };
    if allowed { Ok(()) } else { Err(sense(state)) }
}

/// Why a port group gives no access to the medium.
pub(crate) fn closed(unit: &LogicalUnit, portal_group: u16) -> Option<Sense> {
    let state = unit.access(portal_group);
    state.is_restricted().then(|| sense(state))
}

/// What REQUEST SENSE says of a restricted port group.
pub(crate) fn sense(state: AccessState) -> Sense {
    match state {
        AccessState::Standby => Sense::new(SenseKey::NotReady, asc::PORT_IN_STANDBY),
        AccessState::Unavailable => Sense::new(SenseKey::NotReady, asc::PORT_UNAVAILABLE),
        _ => Sense::new(SenseKey::NoSense, asc::NONE),
    }
}

/// INQUIRY, REPORT LUNS, REQUEST SENSE, REPORT and SET TARGET PORT GROUPS, READ and WRITE BUFFER.
fn in_unavailable(entry: &Entry) -> bool {
    matches!(entry.opcode, 0x12 | 0xA0 | 0x03 | 0x3B | 0x3C)
        || matches!((entry.opcode, entry.service_action), (0xA3 | 0xA4, Some(0x0A)))
}

/// Mode and log pages, diagnostics, persistent reservations, reports; the capacity too, as other targets have it: Linux
/// asks for it while it looks at a path.
fn in_standby(entry: &Entry) -> bool {
    matches!(entry.opcode, 0x15 | 0x1A | 0x1C | 0x1D | 0x25 | 0x4C | 0x4D | 0x55 | 0x5A | 0x5E | 0x5F | 0xA3)
        || matches!((entry.opcode, entry.service_action), (0x9E, Some(0x10)))
}
