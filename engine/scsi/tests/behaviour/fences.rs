//! The fence, in a simulation of cores whose messages are delayed and whose actions interleave at random.

use proptest::prelude::*;
use scsi::fence::{Action, Core, FenceGate, FenceHome, FenceId, FenceRequest};
use std::{collections::VecDeque, ops::Range};

const CORES: usize = 4;

/// From a core to the home.
enum ToHome {
    Join,
    Gone,
    Request(FenceRequest),
    Acknowledged(FenceId),
    Released(FenceId),
}

#[derive(PartialEq)]
enum Stay {
    Absent,
    Joining,
    Present,
}

struct CoreState {
    stay: Stay,
    gate: FenceGate,
    in_flight: Vec<Range<u64>>,
    /// Asked for and not released: granted or not.
    fences: Vec<(FenceRequest, bool)>,
    serial: u32,
    inbox: VecDeque<Action>,
    outbox: VecDeque<ToHome>,
}

struct World {
    home: FenceHome,
    cores: Vec<CoreState>,
    grants: u32,
}

#[derive(Clone, Debug)]
enum Act {
    Start(usize, Range<u64>),
    End(usize, usize),
    Fence(usize, Option<Range<u64>>),
    /// Release or cancel.
    Release(usize, usize),
    DeliverToHome(usize),
    DeliverToCore(usize),
    Join(usize),
    Leave(usize),
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (0..16u64, 1..5u64).prop_map(|(start, length)| start..start + length)
}

fn act() -> impl Strategy<Value = Act> {
    let core = 0..CORES;
    prop_oneof![
        6 => (core.clone(), range()).prop_map(|(c, r)| Act::Start(c, r)),
        4 => (core.clone(), any::<usize>()).prop_map(|(c, i)| Act::End(c, i)),
        3 => (core.clone(), prop::option::weighted(0.8, range())).prop_map(|(c, r)| Act::Fence(c, r)),
        2 => (core.clone(), any::<usize>()).prop_map(|(c, i)| Act::Release(c, i)),
        9 => core.clone().prop_map(Act::DeliverToHome),
        9 => core.clone().prop_map(Act::DeliverToCore),
        1 => core.clone().prop_map(Act::Join),
        1 => core.prop_map(Act::Leave),
    ]
}

fn overlap(a: &Option<Range<u64>>, b: &Option<Range<u64>>) -> bool {
    let all = 0..u64::MAX;
    let (a, b) = (a.as_ref().unwrap_or(&all), b.as_ref().unwrap_or(&all));
    a.start < b.end && b.start < a.end
}

impl World {
    fn new() -> World {
        let core = |_| CoreState {
            stay: Stay::Absent,
            gate: FenceGate::new(),
            in_flight: Vec::new(),
            fences: Vec::new(),
            serial: 0,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
        };
        let mut world = World { home: FenceHome::new(), cores: (0..CORES).map(core).collect(), grants: 0 };
        for core in 0..CORES - 1 {
            world.act(Act::Join(core));
            world.act(Act::DeliverToHome(core));
            world.act(Act::DeliverToCore(core));
        }
        world
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start(c, range) => {
                let core = &mut self.cores[c];
                if core.stay == Stay::Present && !core.gate.blocks(&range) {
                    core.in_flight.push(range);
                }
            }
            Act::End(c, which) => {
                let core = &mut self.cores[c];
                if !core.in_flight.is_empty() {
                    let range = core.in_flight.remove(which % core.in_flight.len());
                    let mut acknowledge = Vec::new();
                    core.gate.ended(range, &mut acknowledge);
                    core.outbox.extend(acknowledge.into_iter().map(ToHome::Acknowledged));
                }
            }
            Act::Fence(c, range) => {
                let core = &mut self.cores[c];
                if core.stay == Stay::Present {
                    core.serial += 1;
                    let id = FenceId { core: c as Core, serial: core.serial };
                    let request = FenceRequest { id, range };
                    core.fences.push((request.clone(), false));
                    core.outbox.push_back(ToHome::Request(request));
                }
            }
            Act::Release(c, which) => {
                let core = &mut self.cores[c];
                if !core.fences.is_empty() {
                    let (request, _) = core.fences.remove(which % core.fences.len());
                    core.outbox.push_back(ToHome::Released(request.id));
                }
            }
            Act::DeliverToHome(c) => self.deliver_to_home(c),
            Act::DeliverToCore(c) => self.deliver_to_core(c),
            Act::Join(c) => {
                let core = &mut self.cores[c];
                if core.stay == Stay::Absent {
                    core.stay = Stay::Joining;
                    core.outbox.push_back(ToHome::Join);
                }
            }
            Act::Leave(c) => {
                let core = &mut self.cores[c];
                let uses_one = core.fences.iter().any(|(_, granted)| *granted);
                if core.stay == Stay::Present && core.in_flight.is_empty() && !uses_one {
                    core.stay = Stay::Absent;
                    core.fences.clear();
                    core.outbox.push_back(ToHome::Gone);
                }
            }
        }
        self.check();
    }

    fn deliver_to_home(&mut self, c: usize) {
        let (core, mut actions) = (c as Core, Vec::new());
        match self.cores[c].outbox.pop_front() {
            None => return,
            Some(ToHome::Join) => self.home.join(core, &mut actions),
            Some(ToHome::Gone) => self.home.core_gone(core, &mut actions),
            Some(ToHome::Request(request)) => self.home.request(request, &mut actions),
            Some(ToHome::Acknowledged(id)) => self.home.acknowledged(id, core, &mut actions),
            Some(ToHome::Released(id)) => self.home.released(id, &mut actions),
        }
        for action in actions {
            let to = match &action {
                Action::Hold { core, .. } | Action::Release { core, .. } | Action::Joined { core, .. } => *core,
                Action::Granted { id } => id.core,
            };
            self.cores[usize::from(to)].inbox.push_back(action);
        }
    }

    fn deliver_to_core(&mut self, c: usize) {
        let core = &mut self.cores[c];
        let present = core.stay == Stay::Present;
        match core.inbox.pop_front() {
            None => (),
            Some(Action::Hold { request, .. }) if present => {
                let id = request.id;
                if core.gate.hold(request, core.in_flight.iter().cloned()) {
                    core.outbox.push_back(ToHome::Acknowledged(id));
                }
            }
            Some(Action::Release { id, .. }) if present => core.gate.released(id),
            Some(Action::Joined { held, .. }) => {
                core.stay = Stay::Present;
                core.gate = FenceGate::joined(held);
            }
            Some(Action::Granted { id }) => {
                if let Some((_, granted)) = core.fences.iter_mut().find(|(request, _)| request.id == id) {
                    *granted = true;
                    self.grants += 1;
                }
            }
            Some(_) => (),
        }
    }

    /// No granted fence overlaps another one, nor I/O in flight on any core.
    fn check(&self) {
        let granted: Vec<_> = self.cores.iter().flat_map(|core| &core.fences).filter(|(_, granted)| *granted).collect();
        for (place, (fence, _)) in granted.iter().enumerate() {
            for (other, _) in &granted[place + 1..] {
                assert!(!overlap(&fence.range, &other.range), "{fence:?} and {other:?} at once");
            }
            for range in self.cores.iter().flat_map(|core| &core.in_flight) {
                assert!(!overlap(&fence.range, &Some(range.clone())), "{range:?} under {fence:?}");
            }
        }
    }

    /// I/O ends, messages arrive, granted fences are released; nothing new comes. Everything must come to rest.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            for c in 0..CORES {
                self.act(Act::End(c, 0));
                self.act(Act::DeliverToHome(c));
                self.act(Act::DeliverToCore(c));
                if let Some(place) = self.cores[c].fences.iter().position(|(_, granted)| *granted) {
                    self.act(Act::Release(c, place));
                }
            }
            let quiet = |core: &CoreState| core.inbox.is_empty() && core.outbox.is_empty() && core.in_flight.is_empty();
            if self.cores.iter().all(quiet) {
                break;
            }
        }
        assert!(self.cores.iter().all(|core| core.fences.is_empty()), "a fence was never granted");
        assert!(self.home.is_idle());
        for core in self.cores.iter().filter(|core| core.stay == Stay::Present) {
            assert!(core.gate.is_open(), "a gate stays shut");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_granted_fence_is_alone_and_every_fence_comes_to_its_end(acts in prop::collection::vec(act(), 0..300)) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.settle();
    }
}

fn request(core: Core, serial: u32, range: Option<Range<u64>>) -> FenceRequest {
    FenceRequest { id: FenceId { core, serial }, range }
}

#[test]
fn one_core_alone_is_granted_after_its_own_acknowledgement() {
    let (mut home, mut gate, mut actions) = (FenceHome::new(), FenceGate::new(), Vec::new());
    home.join(0, &mut actions);
    assert_eq!(actions, [Action::Joined { core: 0, held: vec![] }]);
    actions.clear();
    let asked = request(0, 1, Some(0..8));
    home.request(asked.clone(), &mut actions);
    assert_eq!(actions, [Action::Hold { core: 0, request: asked.clone() }]);
    actions.clear();
    assert!(gate.hold(asked.clone(), std::iter::once(8..16)));
    assert!(gate.blocks(&(7..9)));
    assert!(!gate.blocks(&(8..9)));
    home.acknowledged(asked.id, 0, &mut actions);
    assert_eq!(actions, [Action::Granted { id: asked.id }]);
    actions.clear();
    home.released(asked.id, &mut actions);
    assert_eq!(actions, [Action::Release { core: 0, id: asked.id }]);
    gate.released(asked.id);
    assert!(gate.is_open() && home.is_idle());
}

#[test]
fn io_in_flight_delays_the_acknowledgement() {
    let mut gate = FenceGate::new();
    let (whole, part) = (request(1, 1, None), request(1, 2, Some(4..8)));
    let in_flight = [0..4, 4..6];
    assert!(!gate.hold(whole.clone(), in_flight.iter().cloned()));
    assert!(!gate.hold(part.clone(), in_flight.iter().cloned()));
    assert!(gate.blocks_all());
    let mut acknowledge = Vec::new();
    gate.ended(4..6, &mut acknowledge);
    assert_eq!(acknowledge, [part.id]);
    gate.ended(0..4, &mut acknowledge);
    assert_eq!(acknowledge, [part.id, whole.id]);
}

#[test]
fn fences_side_by_side_do_not_wait_and_overlapping_ones_queue() {
    let (mut home, mut actions) = (FenceHome::new(), Vec::new());
    home.request(request(0, 1, Some(0..4)), &mut actions);
    home.request(request(1, 1, Some(4..8)), &mut actions);
    home.request(request(2, 1, None), &mut actions);
    // Would fit now, but may not overtake the whole fence before it.
    home.request(request(3, 1, Some(20..24)), &mut actions);
    let granted = |actions: &[Action]| -> Vec<Core> {
        actions.iter().filter_map(|a| if let Action::Granted { id } = a { Some(id.core) } else { None }).collect()
    };
    assert_eq!(granted(&actions), [0, 1]);
    home.released(FenceId { core: 0, serial: 1 }, &mut actions);
    home.released(FenceId { core: 1, serial: 1 }, &mut actions);
    assert_eq!(granted(&actions), [0, 1, 2]);
    home.released(FenceId { core: 2, serial: 1 }, &mut actions);
    assert_eq!(granted(&actions), [0, 1, 2, 3]);
}

#[test]
fn a_core_that_starts_anew_holds_what_is_held_and_delays_nobody() {
    let (mut home, mut actions) = (FenceHome::new(), Vec::new());
    home.join(0, &mut actions);
    home.join(1, &mut actions);
    let asked = request(0, 1, Some(0..8));
    home.request(asked.clone(), &mut actions);
    home.acknowledged(asked.id, 0, &mut actions);
    assert!(!actions.contains(&Action::Granted { id: asked.id }));
    actions.clear();
    home.join(1, &mut actions);
    let joined = Action::Joined { core: 1, held: vec![asked.clone()] };
    assert_eq!(actions, [joined, Action::Granted { id: asked.id }]);
    assert!(FenceGate::joined(vec![asked]).blocks(&(7..8)));
}
