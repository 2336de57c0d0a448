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

    /// Whole threshold sets of so many bytes.
    pub(crate) fn threshold_sets(&self, bytes: u64) -> u64 {
        bytes >> (self.threshold_exponent() + self.block_shift())
    }

    /// Initiators want to hear when space runs out.
    pub fn has_thresholds(&self) -> bool {
        let thresholds = self.thresholds();
        thresholds.available.is_some() || thresholds.used.is_some()
    }

    /// What the store says of its space: all initiators hear of a threshold, once, until it is passed the other way.
    pub fn measure(&self, space: Space) {
        let thresholds = self.thresholds();
        let sets = |bytes| self.threshold_sets(bytes);
        let now = [
            thresholds.available.zip(space.available).is_some_and(|(count, is)| sets(is) <= count.into()),
            thresholds.used.zip(space.used).is_some_and(|(count, is)| sets(is) >= count.into()),
        ];
        let mut state = self.lock();
        let old = state.reached;
        let news = now.iter().zip(old).any(|(now, old)| *now && !old);
        // SITUA: any one initiator is enough, and it is told when there is one.
        let one = state.nexuses.values().next().cloned().filter(|_| thresholds.single);
        match one {
            _ if !news => (),
            Some(one) => state.log.push_to(Attention::ThresholdReached, [one].into()),
            None if thresholds.single => return,
            None => state.attention(Attention::ThresholdReached, None),
        }
        state.reached = now;
        if news {
            self.changed();
        }
    }
}
