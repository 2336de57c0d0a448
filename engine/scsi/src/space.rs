//! Thresholds of a thin unit's space (SBC-4 4.7.3.7).

use crate::{attention::Attention, spc::mode_pages::Thresholds, unit::LogicalUnit};
use backstore_api::Space;

impl LogicalUnit {
    /// The thresholds of provisioning that initiators want to hear of. Changes with [`generation`](Self::generation).
    pub fn thresholds(&self) -> Thresholds {
        match self.thin() {
            true => self.modes(|modes| modes.current.thresholds()),
            false => Thresholds::default(),
        }
    }

    /// Binary logarithm of the blocks of a threshold set (VPD B2h): 1 MiB.
    pub fn threshold_exponent(&self) -> u32 {
        20 - self.block_shift()
    }

    /// Initiators want to hear when space runs out.
    pub fn has_thresholds(&self) -> bool {
        let thresholds = self.thresholds();
        thresholds.available.is_some() || thresholds.used.is_some()
    }

    /// What the store says of its space: all initiators hear of a threshold, once, until it is passed the other way.
    pub fn measure(&self, space: Space) {
        let thresholds = self.thresholds();
        let sets = |bytes: u64| bytes >> (self.threshold_exponent() + self.block_shift());
        let now = [
            thresholds.available.is_some_and(|count| sets(space.available) <= count.into()),
            thresholds.used.is_some_and(|count| sets(space.used) >= count.into()),
        ];
        let old = std::mem::replace(&mut self.lock().reached, now);
        if now.iter().zip(old).any(|(now, old)| *now && !old) {
            self.attention(Attention::ThresholdReached, None);
        }
    }
}
