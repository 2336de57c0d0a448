//! TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, SYNCHRONIZE CACHE, SEND DIAGNOSTIC.

use crate::rig::*;
use scsi::{Nexus, Sense, SenseKey, Step};

const START: [u8; 6] = [0x1B, 0, 0, 0, 1, 0];
const STOP: [u8; 6] = [0x1B, 0, 0, 0, 0, 0];
const NOT_READY: (SenseKey, u16) = (SenseKey::NotReady, 0x0402);

#[test]
fn a_stopped_unit_gives_no_medium_access_until_it_is_started() {
    let mut rig = Rig::new();
    rig.run(&STOP, &[]).good();
    assert_eq!(rig.steps, [Step::Flush]);
    let medium: [&[u8]; 5] =
        [&[0; 6], &cdb_10(0x28, 0, 0, 1), &cdb_10(0x2A, 0, 0, 1), &cdb_10(0x35, 0, 0, 0), &cdb_16(0x9E, 0x12, 0, 24)];
    for cdb in medium {
        assert_eq!(rig.run(cdb, &[0; BLOCK]).refused(), NOT_READY, "{cdb:02x?}");
    }
    let sense = rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good();
    assert_eq!((sense[2], sense[12], sense[13]), (2, 4, 2));
    rig.run(&[0x12, 0, 0, 0, 36, 0], &[]).good();
    rig.run(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    rig.run(&[0x1A, 0, 0x3F, 0, 255, 0], &[]).good();
    rig.run(&START, &[]).good();
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn a_unit_that_others_use_rests_instead_of_stopping() {
    let mut rig = Rig::new();
    // A second session of the same initiator is nobody else.
    let second = Nexus::new(&rig.unit, 2, path(1));
    rig.run(&STOP, &[]).good();
    assert_eq!(rig.run(&[0; 6], &[]).refused(), NOT_READY);
    rig.run(&START, &[]).good();
    let mut other = Nexus::new(&rig.unit, 3, path(3));
    rig.run(&STOP, &[]).good();
    assert_eq!(rig.steps, [Step::Flush]);
    let sense = rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good();
    assert_eq!((sense[2], sense[12], sense[13]), (0, 0x5E, 0x04), "standby, by command");
    std::mem::swap(&mut rig.nexus, &mut other);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2900));
    rig.run(&cdb_10(0x28, 0, 0, 1), &[]).good();
    std::mem::swap(&mut rig.nexus, &mut other);
    other.end(&rig.unit);
    second.end(&rig.unit);
    rig.run(&STOP, &[]).good();
    assert_eq!(rig.run(&[0; 6], &[]).refused(), NOT_READY);
}

#[test]
fn no_flush_stops_without_a_flush_and_a_failed_flush_does_not_stop() {
    let mut rig = Rig::new();
    rig.run(&[0x1B, 1, 0, 0, 4, 0], &[]).good();
    assert_eq!(rig.steps, []);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), NOT_READY);
    rig.run(&START, &[]).good();
    rig.fault = Some(backstore_api::StoreError::Latched);
    assert_eq!(rig.run(&STOP, &[]).refused(), (SenseKey::MediumError, 0x0C00));
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn a_fixed_medium_is_not_ejected() {
    let mut rig = Rig::new();
    for start in [2, 3] {
        let sense = rig.run(&[0x1B, 1, 0, 0, start, 0], &[]).sense();
        assert_eq!(sense, Sense::field_in_cdb(4, Some(1)));
    }
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn removal_stays_prevented_until_every_nexus_allows_it_or_is_gone() {
    let mut rig = Rig::new();
    let other = Nexus::new(&rig.unit, 2, path(2));
    let prevent = |rig: &mut Rig, value: u8| rig.run(&[0x1E, 0, 0, 0, value, 0], &[]).good();
    prevent(&mut rig, 1);
    assert!(rig.unit.removal_prevented());
    other.end(&rig.unit);
    assert!(rig.unit.removal_prevented());
    prevent(&mut rig, 0);
    assert!(!rig.unit.removal_prevented());
    prevent(&mut rig, 1);
    prevent(&mut rig, 1);
    let ended = std::mem::replace(&mut rig.nexus, Nexus::new(&rig.unit, 3, path(3)));
    ended.end(&rig.unit);
    assert!(!rig.unit.removal_prevented());
    for value in [2, 3] {
        assert_eq!(rig.run(&[0x03, 0, 0, 0, 0, 0], &[]).good(), [], "clears the attention");
        assert_eq!(rig.run(&[0x1E, 0, 0, 0, value, 0], &[]).refused(), (ILLEGAL, 0x2400));
    }
}

#[test]
fn synchronize_cache_flushes_and_checks_its_range() {
    let mut rig = Rig::new();
    for byte_1 in [0, 2] {
        for (lba, blocks) in [(0, 0), (BLOCKS as u32 - 1, 0), (0, BLOCKS as u16)] {
            rig.run(&cdb_10(0x35, byte_1, lba, blocks), &[]).good();
            rig.run(&cdb_16(0x91, byte_1, lba.into(), blocks.into()), &[]).good();
            assert_eq!(rig.steps, [Step::Flush]);
        }
    }
    assert_eq!(rig.flushes, 12);
    for (lba, blocks) in [(BLOCKS as u32, 0), (1, BLOCKS as u16)] {
        assert_eq!(rig.run(&cdb_10(0x35, 0, lba, blocks), &[]).refused(), (ILLEGAL, 0x2100));
        assert_eq!(rig.run(&cdb_16(0x91, 0, lba.into(), blocks.into()), &[]).refused(), (ILLEGAL, 0x2100));
    }
    rig.fault = Some(backstore_api::StoreError::Medium { offset: 0 });
    assert_eq!(rig.run(&cdb_10(0x35, 0, 0, 0), &[]).refused(), (SenseKey::MediumError, 0x0C00));
}

#[test]
fn a_reset_restores_the_defaults() {
    let mut rig = Rig::new();
    let pages = [&[0; 4][..], &[0x08, 18], &[0; 18]].concat();
    rig.run(&[0x15, 0x10, 0, 0, pages.len() as u8, 0], &pages).good();
    rig.run(&[0x1E, 0, 0, 0, 1, 0], &[]).good();
    rig.run(&STOP, &[]).good();
    rig.unit.reset();
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2903));
    rig.run(&[0; 6], &[]).good();
    assert!(rig.unit.write_cache());
    assert!(!rig.unit.removal_prevented());
}

#[test]
fn a_write_protected_volume_takes_no_writes_whatever_its_store() {
    let mut profile = profile(512);
    profile.write_protected = true;
    let mut rig = Rig::of(profile, geometry());
    let protected = (SenseKey::DataProtect, 0x2700);
    assert_eq!(rig.run(&cdb_10(0x2A, 0, 0, 1), &[0; BLOCK]).refused(), protected);
    assert_eq!(rig.run(&cdb_16(0x93, 1, 0, 1), &[]).refused(), protected);
    rig.run(&cdb_10(0x28, 0, 0, 1), &[]).good();
    assert_eq!(rig.run(&[0x1A, 8, 0x08, 0, 255, 0], &[]).good()[2] & 0x80, 0x80, "WP");
    rig.unit.reset();
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2903));
    assert_eq!(rig.run(&cdb_10(0x2A, 0, 0, 1), &[0; BLOCK]).refused(), protected);
}
