//! PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE, and who is refused what.

use crate::rig::*;
use scsi::{InitiatorPort, Nexus, Path, SenseKey, Status, Step};
use std::sync::Arc;

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const IGNORE: u8 = 6;
const MOVE: u8 = 7;
const TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];
const UNIT_ATTENTION: SenseKey = SenseKey::UnitAttention;
const RESERVATIONS_PREEMPTED: (SenseKey, u16) = (UNIT_ATTENTION, 0x2A03);
const RESERVATIONS_RELEASED: (SenseKey, u16) = (UNIT_ATTENTION, 0x2A04);
const REGISTRATIONS_PREEMPTED: (SenseKey, u16) = (UNIT_ATTENTION, 0x2A05);
const BAD_CDB: (SenseKey, u16) = (ILLEGAL, 0x2400);
const BAD_LIST: (SenseKey, u16) = (ILLEGAL, 0x2600);
const BAD_LENGTH: (SenseKey, u16) = (ILLEGAL, 0x1A00);

/// A unit with three hosts that have heard of their power-on, and somebody who only looks.
struct Hosts {
    rig: Rig,
    nexuses: Vec<Nexus>,
}

impl Hosts {
    fn new() -> Hosts {
        Hosts::on(Rig::new())
    }

    fn on(rig: Rig) -> Hosts {
        let nexuses = (1..=4).map(|id| Nexus::new(&rig.unit, id, path(id))).collect();
        let mut hosts = Hosts { rig, nexuses };
        for host in 0..4 {
            assert_eq!(hosts.run(host, &[0; 6], &[]).refused(), (UNIT_ATTENTION, 0x2900));
        }
        hosts
    }

    /// The unit after a restart, with what it has kept.
    fn restarted(&self) -> Hosts {
        let rig = Rig::new();
        rig.unit.restore(self.rig.unit.lasting().1).unwrap();
        Hosts::on(rig)
    }

    fn run(&mut self, host: usize, cdb: &[u8], data: &[u8]) -> Answer {
        std::mem::swap(&mut self.rig.nexus, &mut self.nexuses[host]);
        let answer = self.rig.run(cdb, data);
        std::mem::swap(&mut self.rig.nexus, &mut self.nexuses[host]);
        answer
    }

    fn out_list(&mut self, host: usize, action: u8, kind: u8, list: &[u8]) -> Answer {
        let [a, b, c, d] = (list.len() as u32).to_be_bytes();
        self.run(host, &[0x5F, action, kind, 0, 0, a, b, c, d, 0], list)
    }

    /// PERSISTENT RESERVE OUT; `flags`: SPEC_I_PT 8, ALL_TG_PT 4, APTPL 1.
    fn out_with(&mut self, host: usize, action: u8, kind: u8, key: u64, action_key: u64, flags: u8) -> Answer {
        self.out_list(host, action, kind, &list(key, action_key, flags))
    }

    fn out(&mut self, host: usize, action: u8, kind: u8, key: u64, action_key: u64) -> Answer {
        self.out_with(host, action, kind, key, action_key, 0)
    }

    fn register(&mut self, host: usize, key: u64) {
        self.out(host, IGNORE, 0, 0, key).good();
    }

    /// Hosts 0 and 1 are registered with keys A0h and A1h, and host 0 holds a reservation.
    fn reserved(kind: u8) -> Hosts {
        let mut hosts = Hosts::new();
        hosts.register(0, 0xA0);
        hosts.register(1, 0xA1);
        hosts.out(0, RESERVE, kind, 0xA0, 0).good();
        hosts
    }

    fn inward(&mut self, action: u8) -> Vec<u8> {
        // It may have heard of a reset.
        self.ready(3);
        self.run(3, &[0x5E, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], &[]).good()
    }

    /// PRGENERATION and the keys.
    fn keys(&mut self) -> (u32, Vec<u64>) {
        let data = self.inward(0);
        assert_eq!(data.len() - 8, be(&data[4..8]) as usize);
        (be(&data[..4]) as u32, data[8..].chunks(8).map(be).collect())
    }

    /// Key and type of the reservation.
    fn reservation(&mut self) -> Option<(u64, u8)> {
        let data = self.inward(1);
        assert_eq!(data.len() - 8, be(&data[4..8]) as usize);
        (data.len() > 8).then(|| (be(&data[8..16]), data[21]))
    }

    fn ready(&mut self, host: usize) -> Answer {
        self.run(host, &[0; 6], &[])
    }

    /// The one attention that a host has.
    #[track_caller]
    fn hears(&mut self, host: usize, attention: (SenseKey, u16)) {
        assert_eq!(self.ready(host).refused(), attention);
        self.ready(host).good();
    }
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

fn list(key: u64, action_key: u64, flags: u8) -> Vec<u8> {
    let mut list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    list[20] = flags;
    list
}

/// The TransportID of a host's port.
fn transport_id(host: u64) -> Vec<u8> {
    padded(0x45, &format!("{},i,0x800000000001", path(host).initiator.name))
}

fn padded(first: u8, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize((bytes.len() + 4) / 4 * 4, 0);
    [&[first, 0, 0, bytes.len() as u8][..], &bytes].concat()
}

fn conflicts(answer: &Answer) -> bool {
    assert!(answer.status == Status::ReservationConflict || answer.status == Status::Good, "{answer:?}");
    assert!(answer.sense.is_none());
    answer.status == Status::ReservationConflict
}

#[test]
fn a_registration_is_made_changed_and_taken_back_by_its_key() {
    let mut hosts = Hosts::new();
    assert_eq!(hosts.keys(), (0, vec![]));
    assert!(conflicts(&hosts.out(0, REGISTER, 0, 0xA0, 0xA1)), "who is not registered has no key");
    hosts.out(0, REGISTER, 0, 0, 0xA0).good();
    assert!(conflicts(&hosts.out(0, REGISTER, 0, 0, 0xA1)), "it is registered already");
    assert_eq!(hosts.keys(), (1, vec![0xA0]));
    hosts.out(0, REGISTER, 0, 0xA0, 0xA1).good();
    hosts.out(1, IGNORE, 0, 0xBAD, 0xB0).good();
    assert_eq!(hosts.keys(), (3, vec![0xA1, 0xB0]));
    hosts.out(0, IGNORE, 0, 0xBAD, 0xA2).good();
    hosts.out(0, REGISTER, 0, 0xA2, 0).good();
    hosts.out(1, IGNORE, 0, 0, 0).good();
    assert_eq!(hosts.keys(), (6, vec![]));
}

#[test]
fn only_who_is_registered_may_reserve_release_clear_preempt_and_move() {
    for action in [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
        let mut hosts = Hosts::reserved(5);
        assert!(conflicts(&hosts.out(2, action, 5, 0, 0xA0)), "action {action}");
        assert!(conflicts(&hosts.out(1, action, 5, 0xBAD, 0xA0)), "action {action} with a wrong key");
        assert_eq!(hosts.keys(), (2, vec![0xA0, 0xA1]));
    }
}

#[test]
fn each_type_lets_through_what_the_standard_says() {
    // Read, write, and what is allowed under every persistent reservation.
    let read = cdb_10(0x28, 0, 0, 1);
    let write = cdb_10(0x2A, 0, 0, 1);
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        let exclusive = matches!(kind, 3 | 6 | 8);
        let registrants = kind > 3;
        for host in 0..3 {
            let free = host == 0 || host == 1 && registrants;
            let case = format!("type {kind}, host {host}");
            assert_eq!(conflicts(&hosts.run(host, &write, &[0; 512])), !free, "write: {case}");
            assert_eq!(conflicts(&hosts.run(host, &read, &[])), !free && exclusive, "read: {case}");
            assert_eq!(conflicts(&hosts.run(host, &[0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 64, 0], &[])), !free && exclusive);
            assert_eq!(conflicts(&hosts.run(host, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[])), !free, "flush: {case}");
            // START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL: stopping and preventing only.
            assert!(!conflicts(&hosts.run(host, &[0x1B, 0, 0, 0, 1, 0], &[])), "start: {case}");
            assert_eq!(conflicts(&hosts.run(host, &[0x1E, 0, 0, 0, 1, 0], &[])), !free, "prevent: {case}");
            assert!(!conflicts(&hosts.run(host, &[0x1E, 0, 0, 0, 0, 0], &[])), "allow: {case}");
            for harmless in [&[0; 6][..], &[0x12, 0, 0, 0, 36, 0], &[3, 0, 0, 0, 18, 0], &[0x25; 1]] {
                let mut cdb = harmless.to_vec();
                cdb.resize(cdb.len().max(10), 0);
                assert!(!conflicts(&hosts.run(host, &cdb, &[])), "{:02x}h: {case}", cdb[0]);
            }
        }
    }
}

#[test]
fn a_reservation_is_the_holders_and_may_be_made_again_but_not_otherwise() {
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        hosts.out(0, RESERVE, kind, 0xA0, 0).good();
        let other = if kind == 1 { 3 } else { 1 };
        assert!(conflicts(&hosts.out(0, RESERVE, other, 0xA0, 0)));
        // All registrants hold types 7 and 8.
        assert_eq!(conflicts(&hosts.out(1, RESERVE, kind, 0xA1, 0)), kind < 7);
        assert_eq!(hosts.reservation(), Some((if kind < 7 { 0xA0 } else { 0 }, kind)));
        assert_eq!(hosts.keys().0, 2, "PRGENERATION stands still");
    }
    let mut hosts = Hosts::new();
    hosts.register(0, 0xA0);
    for kind in [0, 2, 4, 9, 15] {
        assert_eq!(hosts.out(0, RESERVE, kind, 0xA0, 0).refused(), BAD_CDB);
    }
    assert_eq!(hosts.out(0, RESERVE, 0x11, 0xA0, 0).refused(), BAD_CDB, "scope 1");
    assert_eq!(hosts.reservation(), None);
}

#[test]
fn a_release_tells_the_other_registrants_where_they_had_a_part() {
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        assert_eq!(hosts.out(0, RELEASE, kind ^ 2, 0xA0, 0).refused(), (ILLEGAL, 0x2604));
        if kind < 7 {
            hosts.out(1, RELEASE, kind, 0xA1, 0).good();
            assert!(hosts.reservation().is_some(), "it is not host 1's to release");
        }
        hosts.out(0, RELEASE, kind, 0xA0, 0).good();
        assert_eq!(hosts.reservation(), None);
        match kind {
            1 | 3 => drop(hosts.ready(1).good()),
            _ => hosts.hears(1, RESERVATIONS_RELEASED),
        }
        hosts.ready(0).good();
        hosts.ready(2).good();
        hosts.out(0, RELEASE, kind, 0xA0, 0).good();
        assert_eq!(hosts.keys(), (2, vec![0xA0, 0xA1]));
    }
}

#[test]
fn a_holder_that_unregisters_gives_its_reservation_up() {
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        hosts.out(0, REGISTER, 0, 0xA0, 0).good();
        assert_eq!(hosts.reservation(), (kind > 6).then_some((0, kind)), "type {kind}");
        match kind {
            5 | 6 => hosts.hears(1, RESERVATIONS_RELEASED),
            _ => drop(hosts.ready(1).good()),
        }
        hosts.out(1, REGISTER, 0, 0xA1, 0).good();
        assert_eq!(hosts.reservation(), None, "nobody is registered any more");
    }
}

#[test]
fn clear_leaves_nothing_and_tells_all_others() {
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        hosts.out(1, CLEAR, 0, 0xA1, 0).good();
        assert_eq!(hosts.reservation(), None);
        hosts.hears(0, RESERVATIONS_PREEMPTED);
        hosts.ready(1).good();
        assert_eq!(hosts.keys(), (3, vec![]));
    }
}

#[test]
fn a_preemption_of_the_holder_takes_its_place() {
    for kind in [1, 3, 5, 6] {
        for new in TYPES {
            let mut hosts = Hosts::reserved(kind);
            hosts.register(2, 0xA0);
            hosts.out(1, PREEMPT, new, 0xA1, 0xA0).good();
            assert_eq!(hosts.reservation(), Some((if new < 7 { 0xA1 } else { 0 }, new)));
            assert_eq!(hosts.keys(), (4, vec![0xA1]), "both with that key are gone");
            hosts.hears(0, REGISTRATIONS_PREEMPTED);
            hosts.hears(2, REGISTRATIONS_PREEMPTED);
            hosts.ready(1).good();
            assert!(conflicts(&hosts.out(0, RESERVE, new, 0xA0, 0)), "it is not registered any more");
        }
    }
}

#[test]
fn a_preemption_that_changes_the_type_tells_those_who_stay() {
    let mut hosts = Hosts::reserved(5);
    hosts.register(2, 0xA2);
    hosts.out(1, PREEMPT, 6, 0xA1, 0xA0).good();
    hosts.hears(2, RESERVATIONS_RELEASED);
    hosts.hears(0, REGISTRATIONS_PREEMPTED);
    // The holder preempts itself, to change the type.
    hosts.out(1, PREEMPT, 1, 0xA1, 0xA1).good();
    assert_eq!(hosts.reservation(), Some((0xA1, 1)));
    assert_eq!(hosts.keys().1, [0xA1, 0xA2]);
    hosts.hears(2, RESERVATIONS_RELEASED);
}

#[test]
fn a_preemption_of_registrants_leaves_the_reservation() {
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        hosts.register(2, 0xA2);
        hosts.out(0, PREEMPT, 15, 0xA0, 0xA2).good();
        assert_eq!(hosts.reservation().map(|(_, kind)| kind), Some(kind), "SCOPE and TYPE are not looked at");
        assert_eq!(hosts.keys(), (4, vec![0xA0, 0xA1]));
        hosts.hears(2, REGISTRATIONS_PREEMPTED);
        hosts.ready(1).good();
        assert!(conflicts(&hosts.out(0, PREEMPT, kind, 0xA0, 0xA2)), "nobody has that key any more");
    }
}

#[test]
fn zero_preempts_all_registrants_and_nobody_else() {
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        let answer = hosts.out(1, PREEMPT, 5, 0xA1, 0);
        if kind < 7 {
            assert_eq!(answer.refused(), BAD_LIST);
            continue;
        }
        answer.good();
        assert_eq!(hosts.reservation(), Some((0xA1, 5)));
        assert_eq!(hosts.keys().1, [0xA1]);
        hosts.hears(0, REGISTRATIONS_PREEMPTED);
    }
}

#[test]
fn preempt_and_abort_names_those_whose_tasks_end() {
    let mut hosts = Hosts::reserved(1);
    hosts.register(2, 0xA2);
    hosts.out(1, PREEMPT, 1, 0xA1, 0xA0).good();
    assert!(hosts.rig.aborted.is_empty(), "PREEMPT aborts nothing");
    hosts.out_with(2, PREEMPT_AND_ABORT, 1, 0xA2, 0xA1, 0).good();
    assert_eq!(hosts.rig.aborted, [path(2)]);
    hosts.rig.aborted.clear();
    // Itself: its own tasks go on.
    hosts.out(2, PREEMPT_AND_ABORT, 3, 0xA2, 0xA2).good();
    assert!(hosts.rig.aborted.is_empty());
    assert_eq!(hosts.reservation(), Some((0xA2, 3)));
}

#[test]
fn a_reservation_moves_to_another_host() {
    let moved = |hosts: &mut Hosts, host: usize, key: u64, to: u64, flags: u8, port: u16, id: &[u8]| {
        let mut list = [key.to_be_bytes(), to.to_be_bytes(), [0; 8]].concat();
        list[17] = flags;
        list[18..20].copy_from_slice(&port.to_be_bytes());
        list[20..24].copy_from_slice(&(id.len() as u32).to_be_bytes());
        list.extend_from_slice(id);
        hosts.out_list(host, MOVE, 0, &list)
    };
    let mut hosts = Hosts::reserved(1);
    assert!(conflicts(&moved(&mut hosts, 1, 0xA1, 0xA9, 0, 7, &transport_id(3))), "it has none");
    assert_eq!(moved(&mut hosts, 0, 0xA0, 0, 0, 7, &transport_id(3)).refused(), BAD_LIST, "key 0");
    assert_eq!(moved(&mut hosts, 0, 0xA0, 0xA9, 0, 9, &transport_id(3)).refused(), BAD_LIST, "no such port");
    assert_eq!(moved(&mut hosts, 0, 0xA0, 0xA9, 0, 7, &transport_id(1)).refused(), BAD_LIST, "itself");
    assert_eq!(moved(&mut hosts, 0, 0xA0, 0xA9, 0, 7, &padded(0x05, "iqn.x:nobody.known")).refused(), BAD_LIST);
    moved(&mut hosts, 0, 0xA0, 0xA9, 0, 7, &transport_id(3)).good();
    assert_eq!(hosts.reservation(), Some((0xA9, 1)));
    assert_eq!(hosts.keys(), (3, vec![0xA0, 0xA1, 0xA9]));
    assert!(conflicts(&hosts.run(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512])));
    assert!(!conflicts(&hosts.run(2, &cdb_10(0x2A, 0, 0, 1), &[0; 512])));
    // Back, by the name alone, and unregistered with it.
    let name = padded(0x05, &path(1).initiator.name);
    moved(&mut hosts, 2, 0xA9, 0xA8, 2, 7, &name).good();
    assert_eq!(hosts.reservation(), Some((0xA8, 1)));
    assert_eq!(hosts.keys().1, [0xA8, 0xA1]);
    let mut all = Hosts::reserved(7);
    assert!(conflicts(&moved(&mut all, 0, 0xA0, 0xA9, 0, 7, &transport_id(3))), "all registrants hold it");
}

#[test]
fn registrations_for_others_and_for_all_ports_are_all_made_or_none() {
    let with = |ids: &[Vec<u8>], flags: u8| {
        let ids = ids.concat();
        [&list(0, 0xA0, flags)[..], &(ids.len() as u32).to_be_bytes(), &ids].concat()
    };
    let mut hosts = Hosts::new();
    // Host 2 by its port, host 3 by its name, and one that was never here.
    let name = padded(0x05, &path(3).initiator.name.to_uppercase());
    let stranger = padded(0x45, "iqn.2026-01.io.ringlun:stranger,i,0x00023d000007");
    hosts.out_list(0, REGISTER, 0, &with(&[transport_id(2), name, stranger.clone()], 8 | 4)).good();
    assert_eq!(hosts.keys(), (1, vec![0xA0; 8]), "each at both ports");
    let full = hosts.inward(3);
    assert_eq!(full.len() - 8, be(&full[4..8]) as usize);
    let mut found = Vec::new();
    let mut at = 8;
    while at < full.len() {
        let length = be(&full[at + 20..at + 24]) as usize;
        assert_eq!(be(&full[at..at + 8]), 0xA0);
        assert_eq!(full[at + 12], 0, "no holder, no registration for all ports");
        found.push((be(&full[at + 18..at + 20]), full[at + 24..at + 24 + length].to_vec()));
        at += 24 + length;
    }
    for id in [transport_id(1), transport_id(2), transport_id(3), stranger] {
        assert!(found.contains(&(7, id.clone())) && found.contains(&(300, id)));
    }
    // Who is registered can't register others; a list must be whole; only REGISTER has one.
    assert_eq!(hosts.out_list(1, REGISTER, 0, &with(&[transport_id(3)], 8)).status, Status::ReservationConflict);
    hosts.out(0, CLEAR, 0, 0xA0, 0).good();
    for host in 1..3 {
        hosts.hears(host, RESERVATIONS_PREEMPTED);
    }
    let mut cut = with(&[transport_id(2)], 8);
    cut.truncate(cut.len() - 4);
    assert_eq!(hosts.out_list(0, REGISTER, 0, &cut).refused(), BAD_LIST);
    let nobody = padded(0x05, "iqn.2026-01.io.ringlun:nobody");
    assert_eq!(hosts.out_list(0, REGISTER, 0, &with(&[transport_id(2), nobody], 8)).refused(), BAD_LIST);
    assert_eq!(hosts.out_with(0, IGNORE, 0, 0, 0xA0, 8).refused(), BAD_LIST);
    assert_eq!(hosts.out_list(0, REGISTER, 0, &with(&[transport_id(2)], 0)).refused(), BAD_LENGTH);
    assert_eq!(hosts.keys().1, []);
    // All ports again, and away from all of them.
    hosts.out_with(0, REGISTER, 0, 0, 0xA1, 4).good();
    assert_eq!(hosts.keys().1, [0xA1, 0xA1]);
    hosts.out_with(0, REGISTER, 0, 0xA1, 0, 4).good();
    assert_eq!(hosts.keys().1, []);
}

#[test]
fn parameter_lists_of_a_wrong_length_are_refused() {
    let mut hosts = Hosts::reserved(1);
    for action in [REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE, MOVE] {
        for length in [0, 8, 23, 25] {
            let answer = hosts.out_list(0, action, 1, &vec![0; length]);
            assert_eq!(answer.status, Status::CheckCondition, "action {action}, {length} bytes");
        }
        let huge = [0x5F, action, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0];
        assert_eq!(hosts.run(0, &huge, &[]).refused(), BAD_LENGTH);
    }
    for action in 8..32 {
        assert_eq!(hosts.out(0, action, 1, 0xA0, 0).refused(), BAD_CDB, "action {action}");
        if action > 3 {
            assert_eq!(hosts.run(0, &[0x5E, action, 0, 0, 0, 0, 0, 0, 8, 0], &[]).refused(), BAD_CDB);
        }
    }
    assert_eq!(hosts.keys(), (2, vec![0xA0, 0xA1]));
}

#[test]
fn registrations_are_bounded() {
    let mut hosts = Hosts::new();
    let id = |n: u64| padded(0x45, &format!("iqn.2026-01.io.ringlun:a.host.with.a.long.name,i,0x{n:012x}"));
    let mut registered = 1;
    hosts.register(0, 0xA0);
    // Some hundred at a time: one list has at most 64 KiB.
    while registered < 1024 {
        let fresh = (1024 - registered - 1).min(400);
        let ids: Vec<u8> = (registered..registered + fresh).flat_map(id).collect();
        let list = [&list(0, 0xB0, 8)[..], &(ids.len() as u32).to_be_bytes(), &ids].concat();
        hosts.out_list(1, REGISTER, 0, &list).good();
        registered += fresh + 1;
        if registered < 1024 {
            hosts.out(1, REGISTER, 0, 0xB0, 0).good();
            registered -= 1;
        }
    }
    assert_eq!(hosts.keys().1.len(), 1024);
    assert_eq!(hosts.out(2, REGISTER, 0, 0, 0xC0).refused(), (ILLEGAL, 0x5504));
    assert_eq!(hosts.out(2, IGNORE, 0, 0, 0xC0).refused(), (ILLEGAL, 0x5504));
    hosts.out(0, REGISTER, 0, 0xA0, 0xA1).good();
    let full = hosts.run(0, &[0x5E, 3, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], &[]).good();
    assert_eq!(full.len(), 0xFFFF);
    assert!(be(&full[4..8]) > 0xFFFF, "ADDITIONAL LENGTH says how much there is");
}

#[test]
fn capabilities_say_what_there_is() {
    let mut hosts = Hosts::new();
    assert_eq!(hosts.inward(2), [0, 8, 0x1D, 0x80, 0xEA, 0x01, 0, 0]);
    hosts.out_with(0, REGISTER, 0, 0, 0xA0, 1).good();
    assert_eq!(hosts.inward(2)[3], 0x81, "PTPL_A");
}

#[test]
fn what_is_activated_outlives_a_restart_and_nothing_else_does() {
    for kind in TYPES {
        let mut hosts = Hosts::new();
        hosts.out_with(0, REGISTER, 0, 0, 0xA0, 0).good();
        assert_eq!(hosts.rig.steps.len(), 1, "no save");
        assert_eq!(hosts.restarted().keys(), (0, vec![]));
        hosts.out_with(1, REGISTER, 0, 0, 0xA1, 1).good();
        assert_eq!(hosts.rig.steps.last(), Some(&Step::Save));
        hosts.out(1, RESERVE, kind, 0xA1, 0).good();
        assert_eq!(hosts.rig.steps.last(), Some(&Step::Save));
        let mut again = hosts.restarted();
        assert_eq!(again.keys(), (0, vec![0xA0, 0xA1]), "PRGENERATION begins anew");
        assert_eq!(again.reservation(), hosts.reservation());
        assert!(conflicts(&again.run(2, &cdb_10(0x2A, 0, 0, 1), &[0; 512])));
        assert!(!conflicts(&again.run(1, &cdb_10(0x2A, 0, 0, 1), &[0; 512])));
        assert_eq!(again.inward(2)[3], 0x81);
        // Deactivated: that is saved, too.
        again.out_with(0, REGISTER, 0, 0xA0, 0xA0, 0).good();
        assert_eq!(again.rig.steps.last(), Some(&Step::Save));
        assert_eq!(again.restarted().keys(), (0, vec![]));
    }
}

#[test]
fn what_cannot_be_saved_is_taken_back() {
    let mut hosts = Hosts::new();
    hosts.register(0, 0xA0);
    hosts.out_with(1, REGISTER, 0, 0, 0xA1, 1).good();
    for (action, kind, key, action_key) in
        [(RESERVE, 1, 0xA0, 0), (REGISTER, 0, 0xA0, 0xA9), (CLEAR, 0, 0xA0, 0), (PREEMPT_AND_ABORT, 1, 0xA0, 0xA1)]
    {
        hosts.rig.fault = Some(backstore_api::StoreError::Other(28));
        let answer = hosts.out(0, action, kind, key, action_key);
        assert_eq!(answer.refused(), (SenseKey::HardwareError, 0x4400), "action {action}");
        assert_eq!(hosts.keys().1, [0xA0, 0xA1], "action {action}");
        assert_eq!(hosts.reservation(), None);
        assert!(hosts.rig.aborted.is_empty());
    }
}

#[test]
fn a_registration_is_the_nexuses_and_outlives_its_session() {
    let mut hosts = Hosts::reserved(3);
    let ended = std::mem::replace(&mut hosts.nexuses[0], Nexus::new(&hosts.rig.unit, 9, path(1)));
    ended.end(&hosts.rig.unit);
    hosts.ready(0).refused();
    assert!(!conflicts(&hosts.run(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512])));
    // Another ISID, or another port of the target, is somebody else.
    let initiator = Arc::new(InitiatorPort { isid: [0x80, 0, 0, 0, 0, 2], ..(*path(1).initiator).clone() });
    hosts.nexuses[0] = Nexus::new(&hosts.rig.unit, 10, Path { initiator, relative_port: 7 });
    hosts.ready(0).refused();
    assert!(conflicts(&hosts.run(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512])));
    hosts.nexuses[0] = Nexus::new(&hosts.rig.unit, 11, Path { relative_port: 8, ..path(1) });
    hosts.ready(0).refused();
    assert!(conflicts(&hosts.run(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512])));
    hosts.rig.unit.reset();
    assert_eq!(hosts.ready(2).refused(), (UNIT_ATTENTION, 0x2903));
    assert_eq!(hosts.reservation(), Some((0xA0, 3)), "a reset changes nothing");
}

#[test]
fn reserve_holds_for_one_session_until_it_releases_ends_or_is_reset() {
    for (reserve, release) in [(0x16, 0x17), (0x56, 0x57)] {
        let cdb = |opcode: u8| vec![opcode; 1].into_iter().chain([0; 9]).collect::<Vec<u8>>();
        let mut hosts = Hosts::new();
        hosts.run(0, &cdb(reserve), &[]).good();
        hosts.run(0, &cdb(reserve), &[]).good();
        for (conflict, other) in [
            (true, cdb_10(0x28, 0, 0, 1).to_vec()),
            (true, cdb(0x00)),
            (true, cdb(reserve)),
            (true, vec![0x1A, 0, 0x3F, 0, 64, 0]),
            (true, vec![0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0]),
            (false, vec![0x12, 0, 0, 0, 36, 0]),
            (false, cdb(0x03)),
            (false, cdb(0x25)),
            (false, vec![0x1E, 0, 0, 0, 0, 0]),
            (false, cdb(release)),
        ] {
            assert_eq!(conflicts(&hosts.run(1, &other, &[])), conflict, "{other:02x?}");
        }
        assert!(conflicts(&hosts.out(0, REGISTER, 0, 0, 0xA0)), "nor may its holder register");
        hosts.run(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512]).good();
        hosts.run(0, &cdb(release), &[]).good();
        hosts.ready(1).good();
        // A reset, and the end of its session.
        hosts.run(0, &cdb(reserve), &[]).good();
        hosts.rig.unit.reset();
        assert_eq!(hosts.ready(1).refused(), (UNIT_ATTENTION, 0x2903));
        hosts.run(1, &cdb(reserve), &[]).good();
        let ended = std::mem::replace(&mut hosts.nexuses[1], Nexus::new(&hosts.rig.unit, 9, path(2)));
        ended.end(&hosts.rig.unit);
        hosts.ready(0).refused();
        hosts.ready(0).good();
    }
    // Third parties and extents.
    let mut hosts = Hosts::new();
    for cdb in [[0x16, 0x10, 0, 0, 0, 0], [0x16, 1, 0, 0, 0, 0], [0x17, 0x12, 0, 0, 0, 0]] {
        assert_eq!(hosts.run(0, &cdb, &[]).refused(), BAD_CDB);
    }
}

#[test]
fn reserve_and_release_of_who_has_a_persistent_reservation_are_good_and_change_nothing() {
    for kind in TYPES {
        let mut hosts = Hosts::reserved(kind);
        for opcode in [0x16, 0x17] {
            let cdb = [opcode, 0, 0, 0, 0, 0];
            hosts.run(0, &cdb, &[]).good();
            assert_eq!(conflicts(&hosts.run(1, &cdb, &[])), kind < 5, "type {kind}");
            assert!(conflicts(&hosts.run(2, &cdb, &[])));
        }
        assert_eq!(hosts.reservation().map(|(_, kind)| kind), Some(kind));
        assert!(!conflicts(&hosts.ready(2)), "nobody has it by RESERVE");
    }
    let mut hosts = Hosts::new();
    hosts.register(0, 0xA0);
    assert!(conflicts(&hosts.run(0, &[0x16, 0, 0, 0, 0, 0], &[])), "registrations alone exclude it");
}
