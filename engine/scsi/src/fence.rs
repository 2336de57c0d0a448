//! The fence: exclusion against I/O that other cores have submitted already. Sans-IO: messages are values, the server
//! carries them (in order between each two cores).
//!
//! One [`FenceHome`] per logical unit, on its home core; one [`FenceGate`] per logical unit on every core with sessions
//! there, the home core included.
//!
//! 1. A command that needs a range for itself asks: its core sends a [`FenceRequest`] to the home core.
//! 2. The home sends [`Action::Hold`] to every core. From then on that core's gate blocks new I/O that overlaps, and
//!    acknowledges once its own overlapping I/O has ended; at once when there is none.
//! 3. With all acknowledgements the home sends [`Action::Granted`]. The requester does its I/O without asking its gate.
//! 4. It says that it is through ([`FenceHome::released`]); the home sends [`Action::Release`] to every core.
//!
//! Fences that don't overlap go on side by side; those that do are served in the order in which they came. I/O in flight
//! never waits for a fence and a fence holds no I/O while it waits, so there is no deadlock.

use std::ops::Range;

/// A data core, by its index.
pub type Core = u16;

/// Names a fence. Made by the core that asks; unique per logical unit while the fence exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FenceId {
    /// Who asks, and hears [`Action::Granted`].
    pub core: Core,
    /// Counted by that core. Not used again soon: a late acknowledgement may still name it.
    pub serial: u32,
}

/// Asks for a range of a logical unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FenceRequest {
    /// Its name.
    pub id: FenceId,
    /// Bytes of the medium; None: all of the unit, with every command (LUN reset, resize, removal).
    pub range: Option<Range<u64>>,
}

/// A message that the home core sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// To this core's gate: [`FenceGate::hold`].
    Hold {
        /// Whose gate.
        core: Core,
        /// What to hold.
        request: FenceRequest,
    },
    /// To the requester: the range is its own.
    Granted {
        /// The fence; its core is the requester.
        id: FenceId,
    },
    /// To this core's gate: [`FenceGate::released`].
    Release {
        /// Whose gate.
        core: Core,
        /// The fence that is over.
        id: FenceId,
    },
    /// To this core: it may begin with I/O on the unit, with a new gate ([`FenceGate::joined`]). Holds and releases that
    /// reached it before are void: they are from an earlier stay.
    Joined {
        /// Who joined.
        core: Core,
        /// What is held at this moment.
        held: Vec<FenceRequest>,
    },
}

/// Whether two ranges share a byte; None is everything.
fn overlap(a: &Option<Range<u64>>, b: &Option<Range<u64>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
        _ => true,
    }
}

/// A fence that the home core knows.
#[derive(Debug)]
struct Fence {
    request: FenceRequest,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Overlaps one that came before.
    Queued,
    /// These cores have not acknowledged yet.
    Collecting(Vec<Core>),
    Granted,
}

/// Serialises the fences of one logical unit. Lives on its home core.
#[derive(Debug, Default)]
pub struct FenceHome {
    cores: Vec<Core>,
    /// In the order in which they came.
    fences: Vec<Fence>,
}

impl FenceHome {
    /// Without cores; each joins when its first session has the unit.
    pub fn new() -> FenceHome {
        FenceHome::default()
    }

    /// No fence exists or waits.
    pub fn is_idle(&self) -> bool {
        self.fences.is_empty()
    }

    /// A core gets its first session with the unit. It may not start I/O there before [`Action::Joined`] reaches it.
    ///
    /// It has nothing in flight, so nobody waits for its acknowledgement; this holds for one that is there already and
    /// starts anew, too.
    pub fn join(&mut self, core: Core, actions: &mut Vec<Action>) {
        if !self.cores.contains(&core) {
            self.cores.push(core);
        }
        let known = self.fences.iter().filter(|fence| fence.phase != Phase::Queued);
        let held = known.map(|fence| fence.request.clone()).collect();
        actions.push(Action::Joined { core, held });
        self.acknowledged_all(core, actions);
    }

    /// A core has no session with the unit any more, no I/O in flight, and no fence that it uses: it acknowledges all,
    /// and its own requests are cancelled.
    pub fn core_gone(&mut self, core: Core, actions: &mut Vec<Action>) {
        self.cores.retain(|other| *other != core);
        while let Some(id) = self.fences.iter().map(|fence| fence.request.id).find(|id| id.core == core) {
            self.released(id, actions);
        }
        self.acknowledged_all(core, actions);
    }

    /// A command asks for a fence. A name that exists already is ignored.
    pub fn request(&mut self, request: FenceRequest, actions: &mut Vec<Action>) {
        if self.fences.iter().any(|fence| fence.request.id == request.id) {
            return;
        }
        self.fences.push(Fence { request, phase: Phase::Queued });
        self.start(actions);
    }

    /// A gate has nothing overlapping in flight any more. Late and repeated ones are ignored.
    pub fn acknowledged(&mut self, id: FenceId, core: Core, actions: &mut Vec<Action>) {
        let Some(fence) = self.fences.iter_mut().find(|fence| fence.request.id == id) else {
            return;
        };
        let Phase::Collecting(missing) = &mut fence.phase else {
            return;
        };
        missing.retain(|other| *other != core);
        if missing.is_empty() {
            fence.phase = Phase::Granted;
            actions.push(Action::Granted { id });
        }
    }

    fn acknowledged_all(&mut self, core: Core, actions: &mut Vec<Action>) {
        let ids: Vec<FenceId> = self.fences.iter().map(|fence| fence.request.id).collect();
        for id in ids {
            self.acknowledged(id, core, actions);
        }
    }

    /// The requester is through, or gives up before it was granted (its command was aborted).
    pub fn released(&mut self, id: FenceId, actions: &mut Vec<Action>) {
        let Some(place) = self.fences.iter().position(|fence| fence.request.id == id) else {
            return;
        };
        if self.fences.remove(place).phase != Phase::Queued {
            actions.extend(self.cores.iter().map(|core| Action::Release { core: *core, id }));
        }
        self.start(actions);
    }

    /// Starts what overlaps nothing that came before it.
    fn start(&mut self, actions: &mut Vec<Action>) {
        for place in 0..self.fences.len() {
            let (before, rest) = self.fences.split_at_mut(place);
            let Some(fence) = rest.first_mut().filter(|fence| fence.phase == Phase::Queued) else {
                continue;
            };
            if before.iter().any(|other| overlap(&other.request.range, &fence.request.range)) {
                continue;
            }
            let request = &fence.request;
            actions.extend(self.cores.iter().map(|core| Action::Hold { core: *core, request: request.clone() }));
            if self.cores.is_empty() {
                actions.push(Action::Granted { id: request.id });
                fence.phase = Phase::Granted;
            } else {
                fence.phase = Phase::Collecting(self.cores.clone());
            }
        }
    }
}

/// A hold that a core's gate keeps.
#[derive(Debug)]
struct Held {
    request: FenceRequest,
    /// Own I/O that overlaps and has not ended.
    left: u32,
}

/// Holds back one core's commands on one logical unit. While no fence is about, each question is one branch.
#[derive(Debug, Default)]
pub struct FenceGate {
    held: Vec<Held>,
}

impl FenceGate {
    /// Without holds.
    pub fn new() -> FenceGate {
        FenceGate::default()
    }

    /// The gate of a core that has [`Action::Joined`]. It has nothing in flight, so nothing is to be acknowledged.
    pub fn joined(held: Vec<FenceRequest>) -> FenceGate {
        let held = held.into_iter().map(|request| Held { request, left: 0 }).collect();
        FenceGate { held }
    }

    /// Nothing is held.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.held.is_empty()
    }

    /// [`Action::Hold`] arrived. `in_flight`: the ranges of this core's I/O on the unit that is submitted or promised,
    /// each as it will be given to [`FenceGate::ended`]. True: acknowledge now.
    pub fn hold(&mut self, request: FenceRequest, in_flight: impl Iterator<Item = Range<u64>>) -> bool {
        let left = in_flight.filter(|range| overlap(&request.range, &Some(range.clone()))).count() as u32;
        self.held.push(Held { request, left });
        left == 0
    }

    /// I/O of this core has ended. Appends the fences that are to be acknowledged now.
    ///
    /// Not for I/O under a grant, nor for I/O that started after the hold (there is none that overlaps).
    #[inline]
    pub fn ended(&mut self, range: Range<u64>, acknowledge: &mut Vec<FenceId>) {
        if self.held.is_empty() {
            return;
        }
        let range = Some(range);
        for held in &mut self.held {
            if held.left > 0 && overlap(&held.request.range, &range) {
                held.left -= 1;
                if held.left == 0 {
                    acknowledge.push(held.request.id);
                }
            }
        }
    }

    /// [`Action::Release`] arrived: blocked commands may ask again.
    pub fn released(&mut self, id: FenceId) {
        self.held.retain(|held| held.request.id != id);
    }

    /// New I/O over this range has to wait until a release.
    #[inline]
    pub fn blocks(&self, range: &Range<u64>) -> bool {
        !self.held.is_empty() && self.overlaps(range)
    }

    /// Every command has to wait (a fence over the whole unit), also one without a range.
    pub fn blocks_all(&self) -> bool {
        self.held.iter().any(|held| held.request.range.is_none())
    }

    fn overlaps(&self, range: &Range<u64>) -> bool {
        let range = Some(range.clone());
        self.held.iter().any(|held| overlap(&held.request.range, &range))
    }
}
