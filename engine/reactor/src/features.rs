//! What the kernel may or may not have, and what of it a setting hides.

use std::{fmt, str::FromStr};

/// A kernel feature that the ring uses when it is there. Each has a fallback.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Feature {
    /// One thread alone submits.
    SingleIssuer,
    /// Task work runs when the ring asks for it.
    DeferTaskrun,
    /// Task work waits for the next system call instead of interrupting.
    CoopTaskrun,
    /// No index array between the submission queue and its entries.
    NoSqArray,
    /// Descriptors live in a table of the ring.
    RegisteredFiles,
    /// A file that leaves the table is released at once, whatever other operations wait for. Without it a closed socket
    /// would stay open until every receive that was waiting at that time has ended.
    PromptRelease,
    /// The arena is pinned once, not per operation.
    RegisteredBuffers,
    /// The kernel picks the buffer of a receive when data is there.
    ProvidedBuffers,
    /// A receive stays, for whatever comes next.
    Multishot,
    /// A ring wakes another with its own submissions.
    MessageRing,
    /// The number of worker threads of the kernel is bounded.
    WorkerLimits,
    /// The worker threads of the kernel stay on given processors.
    WorkerAffinity,
    /// A core that goes to sleep polls the network cards of its sockets first.
    BusyPoll,
    /// Large messages are sent from their own memory.
    ZeroCopy,
    /// Pages of RAM volumes go to the socket themselves.
    Splice,
    /// Completions of some disks are looked for, by a ring of their own.
    PolledDisks,
}

impl Feature {
    /// All of them, in the order that reports use.
    pub const ALL: [Feature; 16] = [
        Feature::SingleIssuer,
        Feature::DeferTaskrun,
        Feature::CoopTaskrun,
        Feature::NoSqArray,
        Feature::RegisteredFiles,
        Feature::PromptRelease,
        Feature::RegisteredBuffers,
        Feature::ProvidedBuffers,
        Feature::Multishot,
        Feature::MessageRing,
        Feature::WorkerLimits,
        Feature::WorkerAffinity,
        Feature::BusyPoll,
        Feature::ZeroCopy,
        Feature::Splice,
        Feature::PolledDisks,
    ];

    /// Its name in settings and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Feature::SingleIssuer => "single_issuer",
            Feature::DeferTaskrun => "defer_taskrun",
            Feature::CoopTaskrun => "coop_taskrun",
            Feature::NoSqArray => "no_sqarray",
            Feature::RegisteredFiles => "registered_files",
            Feature::PromptRelease => "prompt_release",
            Feature::RegisteredBuffers => "registered_buffers",
            Feature::ProvidedBuffers => "provided_buffers",
            Feature::Multishot => "multishot",
            Feature::MessageRing => "msg_ring",
            Feature::WorkerLimits => "worker_limits",
            Feature::WorkerAffinity => "worker_affinity",
            Feature::BusyPoll => "busy_poll",
            Feature::ZeroCopy => "zero_copy",
            Feature::Splice => "splice",
            Feature::PolledDisks => "polled_disks",
        }
    }

    /// The first kernel release that has it (in the form that is used here).
    pub const fn since(self) -> (u32, u32) {
        match self {
            Feature::PromptRelease => (6, 13),
            Feature::BusyPoll => (6, 9),
            Feature::Multishot => (6, 8),
            Feature::ZeroCopy => (6, 2),
            Feature::Splice => (6, 5),
            Feature::SingleIssuer => (6, 0),
            Feature::DeferTaskrun => (6, 1),
            Feature::NoSqArray => (6, 6),
            Feature::CoopTaskrun | Feature::RegisteredFiles | Feature::ProvidedBuffers => (5, 19),
            Feature::MessageRing => (5, 18),
            Feature::RegisteredBuffers | Feature::PolledDisks => (5, 1),
            Feature::WorkerLimits => (5, 15),
            Feature::WorkerAffinity => (5, 14),
        }
    }

    /// What stands in for it.
    pub const fn fallback(self) -> &'static str {
        match self {
            Feature::SingleIssuer | Feature::NoSqArray => "a little slower submission",
            Feature::DeferTaskrun => "task work at any system call",
            Feature::CoopTaskrun => "task work by interrupts",
            Feature::RegisteredFiles => "plain descriptors",
            Feature::PromptRelease => "sockets are plain descriptors",
            Feature::RegisteredBuffers => "pages are pinned per operation",
            Feature::ProvidedBuffers => "every waiting receive holds a buffer",
            Feature::Multishot => "a submission for every receive",
            Feature::MessageRing => "an eventfd wakes sleeping cores",
            Feature::WorkerLimits => "the kernel's own limit of workers",
            Feature::WorkerAffinity => "workers run on the core's own processor",
            Feature::BusyPoll => "network cards interrupt",
            Feature::ZeroCopy => "sends are copied",
            Feature::Splice => "answers of RAM volumes are copied",
            Feature::PolledDisks => "disks interrupt",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Features that are not to be used even if the kernel has them.
///
/// Written as a list of names and presets, separated by commas or spaces: `defer_taskrun, msg_ring`; `5.19` hides
/// what that release lacks, `all` hides everything, `none` nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureMask(u32);

impl FeatureMask {
    /// Hides nothing.
    pub const NONE: FeatureMask = FeatureMask(0);

    /// Hides every feature.
    pub fn all() -> FeatureMask {
        Feature::ALL.into_iter().fold(FeatureMask::NONE, FeatureMask::with)
    }

    /// Hides what a kernel release lacks.
    pub fn of_kernel(major: u32, minor: u32) -> FeatureMask {
        let lacking = Feature::ALL.into_iter().filter(|feature| feature.since() > (major, minor));
        lacking.fold(FeatureMask::NONE, FeatureMask::with)
    }

    /// Hides one more.
    pub const fn with(self, feature: Feature) -> FeatureMask {
        FeatureMask(self.0 | feature.bit())
    }

    /// The feature is hidden.
    pub const fn hides(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }
}

/// Neither a feature nor a preset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no kernel feature; known are {}, a kernel release such as 5.19, \"all\" and \"none\"", known())]
pub struct UnknownFeature {
    /// The word.
    pub name: String,
}

fn known() -> String {
    Feature::ALL.map(Feature::name).join(", ")
}

impl FromStr for FeatureMask {
    type Err = UnknownFeature;

    fn from_str(text: &str) -> Result<FeatureMask, UnknownFeature> {
        let mut mask = FeatureMask::NONE;
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            let release = || {
                let (major, minor) = word.split_once('.')?;
                Some(FeatureMask::of_kernel(major.parse().ok()?, minor.parse().ok()?))
            };
            let named = Feature::ALL.into_iter().find(|feature| feature.name() == word);
            let more = match (word, named) {
                ("none", _) => FeatureMask::NONE,
                ("all", _) => FeatureMask::all(),
                (_, Some(feature)) => FeatureMask::NONE.with(feature),
                _ => release().ok_or_else(|| UnknownFeature { name: word.into() })?,
            };
            mask.0 |= more.0;
        }
        Ok(mask)
    }
}

impl fmt::Display for FeatureMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            Feature::ALL.into_iter().filter(|feature| self.hides(*feature)).map(Feature::name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for FeatureMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeatureMask({self})")
    }
}

/// What became of a feature on a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// In use.
    Used,
    /// The kernel lacks it, or refused it (a limit, a right): the ring runs on its fallback.
    Absent,
    /// Hidden by a setting.
    Masked,
    /// The settings don't ask for it.
    Unasked,
}

/// What a ring found and uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features([Use; Feature::ALL.len()]);

impl Features {
    /// Nothing probed yet: what isn't masked counts as absent.
    pub(crate) fn new(mask: FeatureMask) -> Features {
        Features(Feature::ALL.map(|feature| if mask.hides(feature) { Use::Masked } else { Use::Absent }))
    }

    pub(crate) fn set(&mut self, feature: Feature, found: Use) {
        self.0[feature as usize] = found;
    }

    /// Not masked: worth a try.
    pub(crate) fn wanted(&self, feature: Feature) -> bool {
        self.0[feature as usize] != Use::Masked
    }

    /// What became of a feature.
    pub fn get(&self, feature: Feature) -> Use {
        self.0[feature as usize]
    }

    /// The ring uses it.
    pub fn uses(&self, feature: Feature) -> bool {
        self.get(feature) == Use::Used
    }

    /// All features by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Use)> + '_ {
        Feature::ALL.into_iter().map(|feature| (feature.name(), self.get(feature)))
    }
}

impl fmt::Display for Features {
    /// `single_issuer used, defer_taskrun masked (task work at any system call), ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, feature) in Feature::ALL.into_iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { "" })?;
            match self.get(feature) {
                Use::Used => write!(f, "{} used", feature.name())?,
                Use::Absent => write!(f, "{} absent ({})", feature.name(), feature.fallback())?,
                Use::Masked => write!(f, "{} masked ({})", feature.name(), feature.fallback())?,
                Use::Unasked => write!(f, "{} not asked for", feature.name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_reads_names_presets_and_what_it_prints() {
        let mask: FeatureMask = "defer_taskrun, msg_ring".parse().unwrap();
        assert!(mask.hides(Feature::DeferTaskrun) && mask.hides(Feature::MessageRing));
        assert!(!mask.hides(Feature::SingleIssuer));
        assert_eq!(mask.to_string().parse(), Ok(mask));
        assert_eq!("all".parse(), Ok(FeatureMask::all()));
        assert_eq!("none".parse(), Ok(FeatureMask::NONE));
        assert_eq!("".parse(), Ok(FeatureMask::NONE));
        assert_eq!(FeatureMask::NONE.to_string(), "none");
        let error = "defer_taksrun".parse::<FeatureMask>().unwrap_err();
        assert!(error.to_string().contains("defer_taksrun") && error.to_string().contains("defer_taskrun"));
    }

    #[test]
    fn release_5_19_lacks_what_came_later() {
        let mask: FeatureMask = "5.19".parse().unwrap();
        let hidden: Vec<Feature> = Feature::ALL.into_iter().filter(|feature| mask.hides(*feature)).collect();
        let newer = [Feature::SingleIssuer, Feature::DeferTaskrun, Feature::NoSqArray, Feature::PromptRelease];
        assert_eq!(
            hidden,
            [&newer[..], &[Feature::Multishot, Feature::BusyPoll, Feature::ZeroCopy, Feature::Splice]].concat()
        );
        assert_eq!("6.13".parse(), Ok(FeatureMask::NONE));
    }
}
