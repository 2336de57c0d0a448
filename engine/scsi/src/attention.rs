//! Unit attention conditions, and a logical unit's log of them (SAM-5 5.14).
//!
//! A condition is established for every nexus at once by one entry in the log; each nexus reads on from its own cursor
//! when it sees that the unit's generation has moved. Nobody keeps a list of nexuses.

use crate::{
    port::Path,
    sense::{Sense, SenseKey, asc},
};
use std::{collections::VecDeque, sync::Arc};

/// Unit attention conditions, in the order in which they are reported.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attention {
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED: the nexus is new. The general code, as libiscsi expects of a login
    /// this one alone.
    PowerOn,
    /// BUS DEVICE RESET FUNCTION OCCURRED: LOGICAL UNIT RESET, TARGET WARM RESET.
    BusDeviceReset,
    /// I_T NEXUS LOSS OCCURRED.
    NexusLoss,
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    CommandsCleared,
    /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
    MediumMayHaveChanged,
    /// RESERVATIONS PREEMPTED.
    ReservationsPreempted,
    /// RESERVATIONS RELEASED.
    ReservationsReleased,
    /// REGISTRATIONS PREEMPTED.
    RegistrationsPreempted,
    /// MODE PARAMETERS CHANGED.
    ModeParametersChanged,
    /// LOG PARAMETERS CHANGED.
    LogParametersChanged,
    /// ASYMMETRIC ACCESS STATE CHANGED.
    AccessStateChanged,
    /// TIMESTAMP CHANGED.
    TimestampChanged,
    /// CAPACITY DATA HAS CHANGED.
    CapacityChanged,
    /// INQUIRY DATA HAS CHANGED.
    InquiryChanged,
    /// DEVICE IDENTIFIER CHANGED: identifying information was set.
    IdentifierChanged,
    /// REPORTED LUNS DATA HAS CHANGED.
    ReportedLunsChanged,
    /// THIN PROVISIONING SOFT THRESHOLD REACHED.
    ThresholdReached,
    /// FAILURE PREDICTION THRESHOLD EXCEEDED (FALSE): TEST of the informational exceptions mode page.
    FalseFailurePrediction,
}

impl Attention {
    const ALL: [Attention; 18] = [
        Attention::PowerOn,
        Attention::BusDeviceReset,
        Attention::NexusLoss,
        Attention::CommandsCleared,
        Attention::MediumMayHaveChanged,
        Attention::ReservationsPreempted,
        Attention::ReservationsReleased,
        Attention::RegistrationsPreempted,
        Attention::ModeParametersChanged,
        Attention::LogParametersChanged,
        Attention::AccessStateChanged,
        Attention::TimestampChanged,
        Attention::CapacityChanged,
        Attention::InquiryChanged,
        Attention::IdentifierChanged,
        Attention::ReportedLunsChanged,
        Attention::ThresholdReached,
        Attention::FalseFailurePrediction,
    ];

    /// Its sense data.
    pub fn sense(self) -> Sense {
        let code = match self {
            Attention::PowerOn => asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET,
            Attention::BusDeviceReset => asc::BUS_DEVICE_RESET,
            Attention::NexusLoss => asc::NEXUS_LOSS,
            Attention::CommandsCleared => asc::COMMANDS_CLEARED,
            Attention::MediumMayHaveChanged => asc::MEDIUM_MAY_HAVE_CHANGED,
            Attention::ReservationsPreempted => asc::RESERVATIONS_PREEMPTED,
            Attention::ReservationsReleased => asc::RESERVATIONS_RELEASED,
            Attention::RegistrationsPreempted => asc::REGISTRATIONS_PREEMPTED,
            Attention::ModeParametersChanged => asc::MODE_PARAMETERS_CHANGED,
            Attention::LogParametersChanged => asc::LOG_PARAMETERS_CHANGED,
            Attention::AccessStateChanged => asc::ASYMMETRIC_ACCESS_STATE_CHANGED,
            Attention::TimestampChanged => asc::TIMESTAMP_CHANGED,
            Attention::CapacityChanged => asc::CAPACITY_CHANGED,
            Attention::InquiryChanged => asc::INQUIRY_CHANGED,
            Attention::IdentifierChanged => asc::DEVICE_IDENTIFIER_CHANGED,
            Attention::FalseFailurePrediction => asc::FALSE_FAILURE_PREDICTION,
            Attention::ReportedLunsChanged => asc::REPORTED_LUNS_CHANGED,
            Attention::ThresholdReached => asc::THRESHOLD_REACHED,
        };
        Sense::new(SenseKey::UnitAttention, code)
    }
}

/// The conditions that a nexus has yet to report. The same condition twice is reported once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Pending(u32);

impl Pending {
    pub fn add(&mut self, attention: Attention) {
        // SAM-5 5.14.2: a reset covers what a lesser one, or changed parameters, would say.
        if matches!(attention, Attention::PowerOn | Attention::BusDeviceReset) {
            self.0 = 0;
        }
        self.0 |= 1 << attention as u8;
    }

    pub fn remove(&mut self, attention: Attention) {
        self.0 &= !(1 << attention as u8);
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Takes the first in order.
    pub fn take(&mut self) -> Option<Attention> {
        let attention = *Attention::ALL.get(self.0.trailing_zeros() as usize)?;
        self.remove(attention);
        Some(attention)
    }
}

/// Whom a condition is for.
enum Audience {
    AllBut(Option<u64>),
    Only(Arc<[Path]>),
}

/// The last conditions of a logical unit. Bounded: a nexus that slept through more of them hears of a reset.
#[derive(Default)]
pub(crate) struct Log {
    entries: VecDeque<(Attention, Audience)>,
    /// Number of the oldest entry in `entries`.
    first: u64,
}

const LOG_ENTRIES: usize = 64;

impl Log {
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// For every nexus but the session `except`.
    pub fn push(&mut self, attention: Attention, except: Option<u64>) {
        self.add(attention, Audience::AllBut(except));
    }

    /// For these nexuses.
    pub fn push_to(&mut self, attention: Attention, paths: Arc<[Path]>) {
        self.add(attention, Audience::Only(paths));
    }

    fn add(&mut self, attention: Attention, audience: Audience) {
        if self.entries.len() == LOG_ENTRIES {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back((attention, audience));
    }

    /// Brings a nexus with this session and path from `cursor` to the end.
    pub fn read(&self, cursor: &mut u64, nexus: u64, path: &Path, pending: &mut Pending) {
        if *cursor < self.first {
            pending.add(Attention::BusDeviceReset);
            *cursor = self.first;
        }
        let seen = (*cursor - self.first) as usize;
        for (attention, audience) in self.entries.iter().skip(seen) {
            let meant = match audience {
                Audience::AllBut(except) => *except != Some(nexus),
                Audience::Only(paths) => paths.contains(path),
            };
            if meant {
                pending.add(*attention);
            }
        }
        *cursor = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::InitiatorPort;

    fn path(host: u16) -> Path {
        let initiator = Arc::new(InitiatorPort { name: format!("iqn.x:{host}").into(), isid: [0; 6] });
        Path { initiator, relative_port: 1 }
    }

    #[test]
    fn those_who_are_meant_hear_and_nobody_else() {
        let mut log = Log::default();
        log.push_to(Attention::ReservationsReleased, [path(1), path(2)].into());
        for (host, hears) in [(1, true), (2, true), (3, false)] {
            let (mut cursor, mut pending) = (0, Pending::default());
            log.read(&mut cursor, 1, &path(host), &mut pending);
            assert_eq!(pending.take(), hears.then_some(Attention::ReservationsReleased));
        }
    }

    #[test]
    fn a_reset_covers_what_came_before_it_and_not_what_comes_after() {
        let mut pending = Pending::default();
        pending.add(Attention::ModeParametersChanged);
        pending.add(Attention::BusDeviceReset);
        pending.add(Attention::CapacityChanged);
        assert_eq!(pending.take(), Some(Attention::BusDeviceReset));
        assert_eq!(pending.take(), Some(Attention::CapacityChanged));
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn one_who_slept_through_the_log_hears_of_a_reset() {
        let mut log = Log::default();
        for _ in 0..LOG_ENTRIES + 1 {
            log.push(Attention::ModeParametersChanged, None);
        }
        let (mut cursor, mut pending) = (0, Pending::default());
        log.read(&mut cursor, 1, &path(1), &mut pending);
        assert_eq!(pending.take(), Some(Attention::BusDeviceReset));
        assert_eq!(pending.take(), Some(Attention::ModeParametersChanged));
        assert_eq!(pending.take(), None);
        assert_eq!(cursor, log.end());
    }

    #[test]
    fn the_excepted_nexus_hears_nothing() {
        let mut log = Log::default();
        log.push(Attention::ModeParametersChanged, Some(7));
        let (mut cursor, mut pending) = (0, Pending::default());
        log.read(&mut cursor, 7, &path(7), &mut pending);
        assert!(pending.is_empty());
        cursor = 0;
        log.read(&mut cursor, 8, &path(8), &mut pending);
        assert_eq!(pending.take(), Some(Attention::ModeParametersChanged));
    }
}
