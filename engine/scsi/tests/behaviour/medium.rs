//! Removable media, power conditions, PRE-FETCH.

use crate::rig::*;
use backstore_api::Geometry;
use scsi::{Nexus, Sense, SenseKey, Step};

const EJECT: [u8; 6] = [0x1B, 0, 0, 0, 2, 0];
const LOAD: [u8; 6] = [0x1B, 0, 0, 0, 3, 0];
const NO_MEDIUM: (SenseKey, u16) = (SenseKey::NotReady, 0x3A00);
const PREVENTED: (SenseKey, u16) = (ILLEGAL, 0x5302);

fn removable() -> Rig {
    let mut profile = profile(512);
    profile.removable = true;
    Rig::of(profile, geometry())
}

fn prevent(rig: &mut Rig, value: u8) {
    rig.run(&[0x1E, 0, 0, 0, value, 0], &[]).good();
}

#[test]
fn inquiry_says_whether_the_medium_is_removable() {
    assert_eq!(removable().run(&[0x12, 0, 0, 0, 36, 0], &[]).good()[1], 0x80);
    assert_eq!(Rig::new().run(&[0x12, 0, 0, 0, 36, 0], &[]).good()[1], 0);
}

#[test]
fn an_ejected_medium_is_not_there_until_it_is_loaded() {
    let mut rig = removable();
    rig.run(&EJECT, &[]).good();
    assert_eq!(rig.steps, [Step::Flush]);
    let medium: [&[u8]; 7] = [
        &[0; 6],
        &cdb_10(0x28, 0, 0, 1),
        &cdb_10(0x2A, 0, 0, 1),
        &cdb_10(0x25, 0, 0, 0),
        &cdb_16(0x9E, 0x10, 0, 32),
        &[0x1B, 0, 0, 0, 1, 0],
        &[0x35, 0x06, 0, 0, 0, 0, 0, 0, 1, 0],
    ];
    for cdb in medium {
        assert_eq!(rig.run(cdb, &[0; BLOCK]).refused(), NO_MEDIUM, "{cdb:02x?}");
    }
    let sense = rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good();
    assert_eq!((sense[2], sense[12], sense[13]), (2, 0x3A, 0));
    rig.run(&[0x12, 0, 0, 0, 36, 0], &[]).good();
    rig.run(&EJECT, &[]).good();
    rig.unit.reset();
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2903));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), NO_MEDIUM, "a reset loads nothing");
    rig.run(&LOAD, &[]).good();
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn the_others_hear_that_the_medium_may_have_changed() {
    let mut rig = removable();
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    std::mem::swap(&mut rig.nexus, &mut other);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2900));
    std::mem::swap(&mut rig.nexus, &mut other);
    rig.run(&LOAD, &[]).good();
    rig.run(&EJECT, &[]).good();
    rig.run(&LOAD, &[]).good();
    rig.run(&[0; 6], &[]).good();
    std::mem::swap(&mut rig.nexus, &mut other);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2800));
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn a_medium_that_somebody_needs_stays_where_it_is() {
    let mut rig = removable();
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    prevent(&mut rig, 1);
    std::mem::swap(&mut rig.nexus, &mut other);
    rig.run(&[0; 6], &[]);
    prevent(&mut rig, 1);
    prevent(&mut rig, 0);
    assert_eq!(rig.run(&EJECT, &[]).refused(), PREVENTED, "the first one's word holds");
    rig.run(&LOAD, &[]).good();
    rig.run(&[0; 6], &[]).good();
    other.end(&rig.unit);
    rig.run(&EJECT, &[]).good();
    prevent(&mut rig, 1);
    assert_eq!(rig.run(&LOAD, &[]).refused(), PREVENTED);
    rig.unit.reset();
    rig.run(&[0; 6], &[]);
    rig.run(&LOAD, &[]).good();
}

#[test]
fn a_drive_that_stops_does_not_eject_and_starts_by_itself() {
    let mut rig = removable();
    rig.run(&[0x1B, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(rig.steps, [Step::Flush]);
    rig.run(&[0; 6], &[]).good();
    assert_eq!(rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good()[12..14], [0x5E, 0x04]);
    rig.run(&cdb_10(0x28, 0, 0, 1), &[]).good();
    assert_eq!(rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good()[12..14], [0, 0]);
    for condition in 1..16 {
        rig.run(&[0x1B, 1, 0, 0, condition << 4 | 2, 0], &[]).good();
        rig.run(&[0; 6], &[]).good();
    }
}

#[test]
fn a_power_condition_lasts_until_the_medium_is_used() {
    let mut rig = Rig::new();
    let sense = |rig: &mut Rig| {
        let data = rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good();
        u16::from_be_bytes([data[12], data[13]])
    };
    let all =
        [(0x2, 0, 0x5E03), (0x2, 1, 0x5E06), (0x3, 0, 0x5E04), (0x3, 1, 0x5E0A), (0xA, 0, 0x5E01), (0xB, 0, 0x5E02)];
    for (condition, modifier, code) in all {
        rig.run(&[0x1B, 1, 0, modifier, condition << 4, 0], &[]).good();
        assert_eq!(rig.steps, [Step::Flush]);
        rig.run(&[0; 6], &[]).good();
        assert_eq!(sense(&mut rig), code);
        rig.run(&cdb_10(0x28, 0, 0, 1), &[]).good();
        assert_eq!(sense(&mut rig), 0);
    }
    rig.run(&[0x1B, 1, 0, 0, 0x24, 0], &[]).good();
    assert_eq!(rig.steps, [], "NO_FLUSH");
    rig.run(&[0x1B, 1, 0, 0, 0x70, 0], &[]).good();
    assert_eq!(sense(&mut rig), 0x5E03, "no timer runs: LU_CONTROL changes nothing");
    rig.run(&[0x1B, 1, 0, 0, 0x10, 0], &[]).good();
    assert_eq!(sense(&mut rig), 0, "ACTIVE");
    for condition in [4, 5, 6, 8, 9, 0xC, 0xD, 0xE, 0xF] {
        assert_eq!(rig.run(&[0x1B, 1, 0, 0, condition << 4, 0], &[]).sense(), Sense::field_in_cdb(4, Some(7)));
    }
    for (condition, modifier) in [(0, 1), (1, 1), (2, 3), (3, 2), (7, 1), (0xA, 3), (0xB, 2)] {
        let sense = rig.run(&[0x1B, 1, 0, modifier, condition << 4, 0], &[]).sense();
        assert_eq!(sense, Sense::field_in_cdb(3, Some(3)), "{condition:x} {modifier}");
    }
}

#[test]
fn prefetch_meets_its_condition_where_there_is_a_cache() {
    let mut rig = Rig::new();
    for immediate in [0, 2] {
        rig.run(&cdb_10(0x34, immediate, 8, 16), &[]).condition_met();
        assert_eq!(rig.steps, [Step::Prefetch { offset: 8 * 512, length: 16 * 512 }]);
        rig.run(&cdb_16(0x90, immediate, BLOCKS - 4, 0), &[]).condition_met();
        assert_eq!(rig.steps, [Step::Prefetch { offset: (BLOCKS - 4) * 512, length: 4 * 512 }], "0: to the end");
    }
    assert_eq!(rig.run(&cdb_10(0x34, 0, BLOCKS as u32, 0), &[]).refused(), (ILLEGAL, 0x2100));
    assert_eq!(rig.run(&cdb_16(0x90, 0, BLOCKS - 1, 2), &[]).refused(), (ILLEGAL, 0x2100));
    let mut rig = Rig::with(Geometry { cached: false, ..geometry() }, 512);
    rig.run(&cdb_10(0x34, 0, 8, 16), &[]).good();
    assert_eq!(rig.steps, []);
}
