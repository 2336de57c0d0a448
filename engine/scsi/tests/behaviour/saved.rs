//! What commands change for good: saved mode pages, identifying information, access states that initiators set.

use crate::rig::*;
use backstore_api::{Geometry, StoreError};
use scsi::{AccessState, GroupAccess, Lasting, LogicalUnit, Nexus, Profile, SenseKey, Step};
use std::sync::Arc;

const FAILED: (SenseKey, u16) = (SenseKey::HardwareError, 0x4400);

fn page(rig: &mut Rig, page: u8, subpage: u8) -> Vec<u8> {
    rig.run(&[0x1A, 0x08, page, subpage, 255, 0], &[]).good()[4..].to_vec()
}

fn select(rig: &mut Rig, save: bool, pages: &[u8]) -> Answer {
    let list = [&[0; 4], pages].concat();
    rig.run(&[0x15, 0x10 | u8::from(save), 0, 0, list.len() as u8, 0], &list)
}

/// Puts the unit of the next life in its place; gives what it has of the last one.
fn restart(rig: &mut Rig, profile: Profile, geometry: Geometry) -> Lasting {
    let lasting = rig.unit.lasting().1;
    rig.unit = LogicalUnit::new(profile, geometry);
    rig.unit.restore(lasting.clone()).expect("a state that can be");
    rig.port.luns.insert(0, rig.unit.clone());
    rig.nexus = Nexus::new(&rig.unit, 1, path(1));
    assert_eq!(rig.run(&[0x00; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2900));
    lasting
}

#[test]
fn a_saved_page_holds_after_a_reset_and_at_the_next_start() {
    let mut rig = Rig::new();
    let (mut caching, mut control) = (page(&mut rig, 0x08, 0), page(&mut rig, 0x0A, 0));
    assert_eq!((caching[0], control[0]), (0x88, 0x8A), "PS");
    assert_eq!((page(&mut rig, 0x1A, 0)[0], page(&mut rig, 0x4A, 1)[0]), (0x1A, 0x4A), "nothing of them changes");
    // Not saved: gone with a reset.
    control[4] |= 0x08;
    select(&mut rig, false, &control).good();
    assert_eq!(rig.steps, [Step::Receive { length: 16 }]);
    assert_eq!(page(&mut rig, 0xCA, 0)[4], 0, "saved values");
    control[4] &= !0x08;
    select(&mut rig, false, &control).good();
    // Saved: the cache is empty before GOOD.
    caching[2] &= !0x04;
    select(&mut rig, true, &caching).good();
    assert_eq!(rig.steps[1..], [Step::Save, Step::Flush]);
    assert_eq!(page(&mut rig, 0xC8, 0), page(&mut rig, 0x08, 0));
    assert_eq!(page(&mut rig, 0x88, 0)[2], 0x04, "default values");
    caching[2] |= 0x04;
    select(&mut rig, false, &caching).good();
    rig.unit.reset();
    rig.run(&[0; 6], &[]);
    assert_eq!(page(&mut rig, 0x08, 0)[2], 0);
    let lasting = restart(&mut rig, profile(512), geometry());
    assert!(!rig.unit.write_cache());
    assert_eq!((page(&mut rig, 0x08, 0)[2], page(&mut rig, 0xC8, 0)[2]), (0, 0));
    assert_eq!(rig.unit.lasting().1, lasting);
    // A write is durable from the first on.
    rig.run(&cdb_10(0x2A, 0, 0, 1), &[0; BLOCK]).good();
    assert!(matches!(rig.steps[0], Step::Write { durable: true, .. }));
}

#[test]
fn sp_saves_all_pages_also_those_that_were_not_sent() {
    let mut rig = Rig::new();
    let mut control = page(&mut rig, 0x0A, 0);
    control[2] |= 0x04;
    select(&mut rig, false, &control).good();
    rig.run(&[0x15, 0x11, 0, 0, 0, 0], &[]).good();
    assert_eq!(rig.steps, [Step::Save]);
    restart(&mut rig, profile(512), geometry());
    assert!(rig.unit.descriptor_sense());
    assert_eq!(page(&mut rig, 0xCA, 0)[2], 0x26);
}

#[test]
fn what_cannot_be_saved_is_as_before_and_the_others_hear_of_both() {
    let mut rig = Rig::new();
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    let mut caching = page(&mut rig, 0x08, 0);
    caching[2] = 0;
    rig.fault = Some(StoreError::NoSpace);
    assert_eq!(select(&mut rig, true, &caching).refused(), FAILED);
    assert!(rig.unit.write_cache());
    assert_eq!((page(&mut rig, 0x08, 0)[2], page(&mut rig, 0xC8, 0)[2]), (4, 4));
    let information = [0xA4, 0x06, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0];
    rig.fault = Some(StoreError::NoSpace);
    assert_eq!(rig.run(&information, b"abc").refused(), FAILED);
    assert_eq!(rig.run(&[0xA3, 0x05, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[]).good(), [0; 4]);
    assert_eq!(rig.unit.lasting().1, Lasting::default());
    std::mem::swap(&mut rig.nexus, &mut other);
    let heard: Vec<u16> = (0..3).map(|_| rig.run(&[0; 6], &[]).refused().1).collect();
    assert_eq!(heard, [0x2900, 0x2A01, 0x3F05]);
}

#[test]
fn thresholds_are_saved_for_a_thin_unit_and_wait_for_it_while_it_is_full() {
    let mut rig = Rig::new();
    let mut thresholds = page(&mut rig, 0x1C, 2);
    thresholds[24] |= 0x80;
    thresholds[31] = 7;
    select(&mut rig, true, &thresholds).good();
    let full = Geometry { discard_granularity: 0, ..geometry() };
    restart(&mut rig, profile(512), full);
    assert_eq!(rig.unit.thresholds(), Default::default());
    assert_eq!(page(&mut rig, 0xC1, 0)[7], 0, "LBPERE");
    restart(&mut rig, profile(512), geometry());
    assert_eq!(rig.unit.thresholds().used, Some(7));
}

#[test]
fn identifying_information_outlives_the_process() {
    let mut rig = Rig::new();
    rig.run(&[0xA4, 0x06, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0], b"\xffrack").good();
    assert_eq!(rig.steps[1..], [Step::Save]);
    rig.run(&[0xA4, 0x06, 0, 0, 0, 0, 0, 0, 0, 4, 4, 0], "Öl\0".as_bytes()).good();
    restart(&mut rig, profile(512), geometry());
    assert_eq!(rig.run(&[0xA3, 0x05, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[]).good()[4..], *b"\xffrack");
    assert_eq!(rig.run(&[0xA3, 0x05, 0, 0, 0, 0, 0, 0, 0, 64, 4, 0], &[]).good()[4..], *"Öl\0".as_bytes());
    rig.run(&[0xA4, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    rig.run(&[0xA4, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0], &[]).good();
    assert_eq!(rig.unit.lasting().1, Lasting::default());
}

/// Two groups of these configured states.
fn grouped(states: [AccessState; 2], explicit_access: bool) -> Profile {
    let group =
        |(at, state): (usize, AccessState)| GroupAccess { portal_group: at as u16 + 1, state, preferred: false };
    Profile { access: states.into_iter().enumerate().map(group).collect(), explicit_access, ..profile(512) }
}

fn state(unit: &Arc<LogicalUnit>) -> [AccessState; 2] {
    [unit.access(1), unit.access(2)]
}

#[test]
fn a_state_that_an_initiator_has_set_holds_until_the_operator_says_something_else() {
    use AccessState::*;
    let configured = grouped([Optimized, NonOptimized], true);
    let mut rig = Rig::of(configured.clone(), geometry());
    let set = [0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    rig.fault = Some(StoreError::NoSpace);
    assert_eq!(rig.run(&set, &[0, 0, 0, 0, 3, 0, 0, 1]).refused(), (SenseKey::HardwareError, 0x670A));
    rig.run(&[0; 6], &[]).good();
    assert_eq!((state(&rig.unit), rig.unit.lasting().1), ([Optimized, NonOptimized], Lasting::default()));
    rig.run(&set, &[0, 0, 0, 0, 2, 0, 0, 2]).good();
    assert_eq!(rig.steps[1..], [Step::Save]);
    restart(&mut rig, configured.clone(), geometry());
    assert_eq!(state(&rig.unit), [Optimized, Standby]);
    let report = rig.run(&[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[]).good();
    assert_eq!(report[4 + 12 + 5], 1, "altered by SET TARGET PORT GROUPS");
    rig.port.portal_group = 2;
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::NotReady, 0x040B));
    rig.port.portal_group = 1;
    let lasting = rig.unit.lasting().1;
    for (profile, expected) in [
        (grouped([Unavailable, NonOptimized], true), [Unavailable, Standby]),
        (grouped([Optimized, Unavailable], true), [Optimized, Unavailable]),
        (grouped([Optimized, NonOptimized], false), [Optimized, NonOptimized]),
        (profile(512), [Optimized, Optimized]),
    ] {
        let unit = LogicalUnit::new(profile, geometry());
        unit.restore(lasting.clone()).unwrap();
        assert_eq!(state(&unit), expected);
    }
}
