//! LOG SENSE and LOG SELECT.

use crate::rig::*;
use scsi::{Nexus, Sense, SenseKey};

const GENERAL: (u8, u8) = (0x19, 0x00);
const CACHE: (u8, u8) = (0x19, 0x20);

fn sense(rig: &mut Rig, (page, subpage): (u8, u8), control: u8, pointer: u8) -> Answer {
    rig.run(&[0x4D, 0, control << 6 | page, subpage, 0, 0, pointer, 2, 0, 0], &[])
}

/// A page, whose header is right.
fn page(rig: &mut Rig, (code, subpage): (u8, u8)) -> Vec<u8> {
    let data = sense(rig, (code, subpage), 1, 0).good();
    assert_eq!(data[0] & 0x7F, u8::from(subpage != 0) << 6 | code);
    assert_eq!(data[1], subpage);
    assert_eq!(usize::from(u16::from_be_bytes([data[2], data[3]])), data.len() - 4);
    data[4..].to_vec()
}

/// The parameters of a page: code, and the numbers of eight bytes that it holds.
fn numbers(mut data: &[u8]) -> Vec<(u16, Vec<u64>)> {
    let mut found = Vec::new();
    while let [a, b, _, length, rest @ ..] = data {
        let (value, next) = rest.split_at(usize::from(*length));
        let numbers = value.chunks(8).map(|n| u64::from_be_bytes(n.try_into().unwrap())).collect();
        found.push((u16::from_be_bytes([*a, *b]), numbers));
        data = next;
    }
    found
}

/// Reads, writes, blocks written, blocks read.
fn general(rig: &mut Rig) -> Vec<u64> {
    numbers(&page(rig, GENERAL))[0].1[..4].to_vec()
}

#[test]
fn each_listed_page_is_there() {
    let mut rig = Rig::new();
    assert_eq!(page(&mut rig, (0, 0)), [0x00, 0x0C, 0x19, 0x2F]);
    let all = page(&mut rig, (0, 0xFF));
    assert_eq!(all, [0x00, 0x00, 0x00, 0xFF, 0x0C, 0x00, 0x19, 0x00, 0x19, 0x20, 0x19, 0xFF, 0x2F, 0x00]);
    for entry in all.chunks(2) {
        page(&mut rig, (entry[0], entry[1]));
    }
    assert_eq!(page(&mut rig, (0x19, 0xFF)), [0x19, 0x00, 0x19, 0x20, 0x19, 0xFF]);
    assert_eq!(sense(&mut rig, (0x0D, 0), 1, 0).sense(), Sense::field_in_cdb(2, Some(5)));
    assert_eq!(sense(&mut rig, (0x19, 1), 1, 0).sense(), Sense::field_in_cdb(3, None));
    assert_eq!(rig.run(&[0x4D, 1, 0x40, 0, 0, 0, 0, 2, 0, 0], &[]).sense(), Sense::field_in_cdb(1, Some(0)), "SP");
}

#[test]
fn commands_and_blocks_are_counted_over_all_nexuses_also_those_that_are_gone() {
    let mut rig = Rig::new();
    assert_eq!(general(&mut rig), [0; 4]);
    rig.run(&cdb_10(0x28, 0, 0, 3), &[]).good();
    rig.run(&cdb_10(0x2A, 0, 0, 2), &[0; 2 * BLOCK]).good();
    let other = Nexus::new(&rig.unit, 2, path(2));
    let first = std::mem::replace(&mut rig.nexus, other);
    rig.run(&[0; 6], &[]);
    rig.run(&cdb_16(0x88, 0, 0, 5), &[]).good();
    rig.run(&cdb_16(0x8A, 8, 0, 1), &[0; BLOCK]).good();
    assert_eq!(rig.run(&cdb_10(0x28, 0, u32::MAX, 1), &[]).refused(), (ILLEGAL, 0x2100));
    assert_eq!(general(&mut rig), [2, 2, 3, 8]);
    first.end(&rig.unit);
    assert_eq!(general(&mut rig), [2, 2, 3, 8]);
    rig.run(&cdb_10(0x35, 0, 0, 0), &[]).good();
    // The write with FUA didn't end in the cache.
    assert_eq!(numbers(&page(&mut rig, CACHE)), [(3, vec![1]), (4, vec![1])]);
}

#[test]
fn what_takes_the_short_way_is_counted_in_the_same_way() {
    let (mut long, mut short) = (Rig::new(), Rig::new());
    for (cdb, data) in
        [(cdb_10(0x28, 0, 0, 3), 0), (cdb_10(0x2A, 0, 0, 2), 2), (cdb_10(0x2A, 8, 0, 2), 2), (cdb_10(0x28, 8, 7, 1), 0)]
    {
        long.run(&cdb, &vec![0; data * BLOCK]).good();
        short.short(&cdb).unwrap().count(&short.unit, &short.nexus);
    }
    assert_eq!(general(&mut long), [2, 2, 4, 4]);
    assert_eq!(general(&mut short), [2, 2, 4, 4]);
    assert_eq!(numbers(&page(&mut short, CACHE)), numbers(&page(&mut long, CACHE)));
    // In six bytes, address bits lie where others have FUA.
    let [near, far] = [0, 8].map(|high| {
        let mut rig = Rig::with(backstore_api::Geometry { bytes: 1 << 30, ..geometry() }, 512);
        rig.short(&[0x0A, high, 0, 0, 1, 0]).unwrap().count(&rig.unit, &rig.nexus);
        numbers(&page(&mut rig, CACHE))
    });
    assert_eq!(near, far);
}

#[test]
fn a_parameter_pointer_and_the_allocation_length_cut() {
    let mut rig = Rig::new();
    let whole = sense(&mut rig, CACHE, 1, 0).good();
    assert_eq!(sense(&mut rig, CACHE, 1, 4).good().len(), whole.len() - 12);
    assert_eq!(sense(&mut rig, CACHE, 1, 5).sense(), Sense::field_in_cdb(5, None));
    for length in 0..40 {
        let data = rig.run(&[0x4D, 0, 0x40 | 0x19, 0x20, 0, 0, 0, 0, length, 0], &[]).good();
        assert_eq!(data, whole[..whole.len().min(length.into())]);
    }
}

#[test]
fn there_are_defaults_and_no_thresholds() {
    let mut rig = Rig::new();
    rig.run(&cdb_10(0x28, 0, 0, 3), &[]).good();
    // All counters are zero; the time interval is a millisecond.
    let interval = u64::from(-3i32 as u32) << 32 | 1;
    let expected = [(1, vec![0; 8]), (2, vec![0]), (3, vec![interval])];
    assert_eq!(numbers(&sense(&mut rig, GENERAL, 3, 0).good()[4..]), expected);
    for control in [0, 2] {
        assert_eq!(sense(&mut rig, GENERAL, control, 0).sense(), Sense::field_in_cdb(2, Some(7)));
        sense(&mut rig, (0, 0), control, 0).good();
    }
}

#[test]
fn counters_are_reset_by_page_or_all_and_the_others_hear_of_it() {
    let mut rig = Rig::new();
    let count = |rig: &mut Rig| {
        rig.run(&cdb_10(0x28, 0, 0, 3), &[]).good();
        rig.run(&cdb_10(0x35, 0, 0, 0), &[]).good();
    };
    count(&mut rig);
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    rig.run(&[0x4C, 2, 0x40 | 0x19, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    rig.run(&[0; 6], &[]).good();
    assert_eq!(general(&mut rig), [0; 4]);
    assert_eq!(numbers(&page(&mut rig, CACHE))[1], (4, vec![1]));
    count(&mut rig);
    assert_eq!(general(&mut rig), [1, 0, 0, 3]);
    rig.run(&[0x4C, 0, 0x40, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(general(&mut rig), [1, 0, 0, 3], "neither PCR nor default values");
    rig.run(&[0x4C, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(general(&mut rig), [0; 4]);
    assert_eq!(numbers(&page(&mut rig, CACHE)), [(3, vec![0]), (4, vec![0])]);
    std::mem::swap(&mut rig.nexus, &mut other);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2900));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2A02));
    assert_eq!(rig.run(&[0x4C, 2, 0x0D, 0, 0, 0, 0, 0, 0, 0], &[]).sense(), Sense::field_in_cdb(2, Some(5)));
    assert_eq!(rig.run(&[0x4C, 0, 0, 0, 0, 0, 0, 0, 4, 0], &[0; 4]).sense(), Sense::field_in_cdb(7, None));
    assert_eq!(rig.run(&[0x4C, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[]).sense(), Sense::field_in_cdb(1, Some(0)), "SP");
}

#[test]
fn a_tested_informational_exception_is_in_its_page() {
    let mut rig = Rig::new();
    assert_eq!(page(&mut rig, (0x2F, 0)), [0, 0, 3, 4, 0, 0, 0xFF, 0]);
    let mut list = rig.run(&[0x1A, 8, 0x1C, 0, 255, 0], &[]).good();
    list[0] = 0;
    list[6] = 0x04;
    rig.run(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list).good();
    assert_eq!(page(&mut rig, (0x2F, 0)), [0, 0, 3, 4, 0x5D, 0xFF, 0xFF, 0]);
}

#[test]
fn how_full_a_thin_unit_is_comes_in_threshold_sets_as_the_vpd_page_has_them() {
    const PROVISIONING: (u8, u8) = (0x0C, 0);
    for block_size in [512, 4096] {
        let mut rig = Rig::with(geometry(), block_size);
        // Two sets of the medium's 2 MiB are used, but for a few blocks.
        rig.mapped[..8].fill(false);
        let set = u64::from(block_size) << rig.run(&[0x12, 1, 0xB2, 0, 64, 0], &[]).good()[4];
        assert_eq!(set, 1 << 20);
        assert_eq!(rig.unit.threshold_exponent(), set.trailing_zeros() - block_size.trailing_zeros());
        let available = [0, 1, 3, 8, 0, 0, 0x14, 0, 0b10, 0, 0, 0];
        let used = [0, 2, 3, 8, 0, 0, 0, 1, 0b01, 0, 0, 0];
        assert_eq!(page(&mut rig, PROVISIONING), [available, used].concat());
        assert_eq!(sense(&mut rig, PROVISIONING, 1, 2).good()[4..], used);
        assert_eq!(sense(&mut rig, PROVISIONING, 1, 3).sense(), Sense::field_in_cdb(5, None));
        // More than a count holds; or nothing is known.
        rig.free = Some(u64::MAX);
        assert_eq!(page(&mut rig, PROVISIONING)[4..8], [0xFF; 4]);
        rig.free = None;
        assert_eq!(page(&mut rig, PROVISIONING), used);
        rig.fault = Some(backstore_api::StoreError::Gone);
        assert_eq!(sense(&mut rig, PROVISIONING, 1, 0).refused(), (SenseKey::NotReady, 0x0400));
    }
    let mut full = Rig::with(backstore_api::Geometry { discard_granularity: 0, ..geometry() }, 512);
    assert_eq!(sense(&mut full, PROVISIONING, 1, 0).sense(), Sense::field_in_cdb(2, Some(5)));
    assert_eq!(page(&mut full, (0, 0)), [0x00, 0x19, 0x2F]);
    assert_eq!(full.run(&[0x12, 1, 0xB2, 0, 64, 0], &[]).good()[4], 0);
}
