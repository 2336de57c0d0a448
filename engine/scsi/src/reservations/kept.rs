//! What a unit keeps of its persistent reservations when it loses power (APTPL, SPC-4 5.12.5). PRGENERATION begins anew.

use super::{
    Kind,
    state::{MOST, Registration, Reservation, Reservations},
};
use crate::port::{InitiatorPort, Path};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Registrations and the persistent reservation, as they are recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    registrations: Vec<KeptRegistration>,
    #[serde(default)]
    reservation: Option<KeptReservation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptRegistration {
    initiator: String,
    isid: [u8; 6],
    relative_port: u16,
    key: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptReservation {
    /// TYPE.
    kind: u8,
    /// Position in `registrations`; none: all registrants.
    #[serde(default)]
    holder: Option<usize>,
}

impl Reservations {
    /// What outlives the process; None: nothing.
    pub fn keep(&self) -> Option<Kept> {
        if !self.activated {
            return None;
        }
        let registrations = self.registrations.iter().map(|r| KeptRegistration {
            initiator: r.path.initiator.name.as_ref().into(),
            isid: r.path.initiator.isid,
            relative_port: r.path.relative_port,
            key: r.key,
        });
        let place = |path: &Path| self.registrations.iter().position(|r| r.path == *path);
        Some(Kept {
            registrations: registrations.collect(),
            reservation: self.reservation.as_ref().map(|reservation| KeptReservation {
                kind: reservation.kind as u8,
                holder: reservation.holder.as_ref().and_then(place),
            }),
        })
    }

    /// Reservations of an earlier life.
    pub fn of(kept: Kept) -> Result<Reservations, String> {
        let mut registrations: Vec<Registration> = Vec::new();
        for r in kept.registrations {
            let initiator = Arc::new(InitiatorPort { name: r.initiator.into(), isid: r.isid });
            let path = Path { initiator, relative_port: r.relative_port };
            if r.key == 0 || registrations.iter().any(|other| other.path == path) {
                return Err(format!("{} is registered twice, or with key 0", path.initiator.name));
            }
            registrations.push(Registration { path, key: r.key });
        }
        if registrations.len() > MOST {
            return Err(format!("{} registrations are too many", registrations.len()));
        }
        let mut reservation = None;
        if let Some(kept) = kept.reservation {
            let kind = Kind::of(kept.kind).ok_or_else(|| format!("{} is no type of a reservation", kept.kind))?;
            let holder = kept.holder.and_then(|place| registrations.get(place)).map(|r| r.path.clone());
            if holder.is_none() != kind.all_registrants() || registrations.is_empty() {
                return Err("nobody who is registered holds the reservation".into());
            }
            reservation = Some(Reservation { kind, holder });
        }
        Ok(Reservations { registrations, reservation, activated: true, ..Reservations::default() })
    }
}
