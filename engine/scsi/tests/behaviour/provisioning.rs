//! UNMAP, WRITE SAME, GET LBA STATUS.

use crate::rig::*;
use backstore_api::{Geometry, Space, StoreError};
use proptest::prelude::*;
use scsi::{LogicalUnit, Nexus, Provisioning, Sense, SenseKey, Specific, Step};

fn thick() -> Geometry {
    Geometry { discard_granularity: 0, discard_zeroes: false, ..geometry() }
}

/// An UNMAP with the parameter list of these ranges.
fn unmap(ranges: &[(u64, u32)]) -> ([u8; 10], Vec<u8>) {
    let mut list = vec![0u8; 8];
    for (lba, count) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(count.to_be_bytes());
        list.extend([0; 4]);
    }
    let length = list.len() as u16;
    list[..2].copy_from_slice(&(length - 2).to_be_bytes());
    list[2..4].copy_from_slice(&(length - 8).to_be_bytes());
    let [high, low] = length.to_be_bytes();
    ([0x42, 0, 0, 0, 0, 0, 0, high, low, 0], list)
}

fn lba_status(rig: &mut Rig, lba: u64) -> Vec<(u64, u32, u8)> {
    let mut cdb = cdb_16(0x9E, 0x12, lba, 0);
    cdb[10..14].copy_from_slice(&4096u32.to_be_bytes());
    let data = rig.run(&cdb, &[]).good();
    let length = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
    assert_eq!(length + 4, data.len());
    data[8..]
        .chunks(16)
        .map(|d| {
            let lba = u64::from_be_bytes(d[..8].try_into().unwrap());
            (lba, u32::from_be_bytes(d[8..12].try_into().unwrap()), d[12])
        })
        .collect()
}

#[test]
fn unmapped_ranges_read_as_zeroes_and_show_in_the_lba_status() {
    let mut rig = Rig::new();
    let (cdb, list) = unmap(&[(8, 8), (100, 1), (0, 0)]);
    rig.run(&cdb, &list).good();
    assert_eq!(rig.medium[8 * BLOCK..16 * BLOCK], [0; 8 * BLOCK]);
    assert_eq!(rig.medium[100 * BLOCK..101 * BLOCK], [0; BLOCK]);
    assert_eq!(rig.medium.iter().filter(|byte| **byte == 0).count(), 9 * BLOCK);
    let rest = (101, BLOCKS as u32 - 101, 0);
    assert_eq!(lba_status(&mut rig, 0), [(0, 8, 0), (8, 8, 1), (16, 84, 0), (100, 1, 1), rest]);
    assert_eq!(lba_status(&mut rig, 9)[0], (9, 7, 1));
}

#[test]
fn nothing_is_unmapped_when_one_range_is_wrong() {
    let mut rig = Rig::new();
    for wrong in [(BLOCKS, 1), (BLOCKS - 1, 2), (BLOCKS + 1, 0), (u64::MAX, u32::MAX)] {
        let (cdb, list) = unmap(&[(0, 8), wrong]);
        assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2100), "{wrong:?}");
    }
    assert!(rig.medium.iter().all(|byte| *byte == 0x5A));
}

#[test]
fn unmap_of_nothing_is_good() {
    let mut rig = Rig::new();
    for ranges in [&[][..], &[(5, 0)], &[(BLOCKS, 0)], &[(1, 0); 256]] {
        let (cdb, list) = unmap(ranges);
        rig.run(&cdb, &list).good();
        assert_eq!(rig.steps.len(), 1, "{ranges:?}");
    }
    rig.run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
}

#[test]
fn unmap_parameter_lengths_are_checked() {
    let mut rig = Rig::new();
    let (mut cdb, list) = unmap(&[(0, 8), (16, 8)]);
    for length in 1..8 {
        cdb[8] = length;
        assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x1A00));
    }
    cdb[8] = 40;
    assert_eq!(rig.run(&cdb, &list[..39]).refused(), (ILLEGAL, 0x1A00), "short data-out");
    // A descriptor that is cut off is ignored.
    cdb[8] = 39;
    rig.run(&cdb, &list).good();
    assert_eq!(*rig.steps.last().unwrap(), Step::Zero { offset: 0, length: 4096, unmap: true, durable: false });
}

#[test]
fn more_than_the_block_limits_page_allows_is_refused() {
    let mut rig = Rig::with(Geometry { bytes: 4 << 30, ..geometry() }, 512);
    let (cdb, list) = unmap(&[(0, 0); 257]);
    assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2600));
    let (cdb, list) = unmap(&[(0, 0); 256]);
    rig.run(&cdb, &list).good();
    let (cdb, list) = unmap(&[(0, 1 << 19), (1 << 20, (1 << 19) + 1)]);
    let sense = rig.run(&cdb, &list).sense();
    assert_eq!(sense.specific, Specific::Field { cdb: false, byte: 32, bit: None });
}

#[test]
fn as_much_as_the_block_limits_page_allows_is_unmapped_in_pieces() {
    let blocks = 1u64 << 20;
    let mut rig = Rig::with(Geometry { bytes: 4096 << 20, discard_zeroes: false, ..geometry() }, 4096);
    rig.medium = Vec::new();
    let (cdb, list) = unmap(&[(0, blocks as u32)]);
    let mut context = rig.context();
    let mut padded = [0; 16];
    padded[..10].copy_from_slice(&cdb);
    let (mut command, _) = scsi::Command::start(&padded, &mut context);
    let mut step = command.step(scsi::Event::Received(&list), &mut context);
    let mut next = 0;
    while let Step::Discard { offset, length } = step {
        assert_eq!(offset, next);
        next += length;
        step = command.step(scsi::Event::Stored, &mut context);
    }
    assert_eq!(next, blocks * 4096);
    assert!(matches!(step, Step::Done(outcome) if outcome.status == scsi::Status::Good));
}

#[test]
fn anchors_are_refused() {
    let mut rig = Rig::new();
    let (mut cdb, list) = unmap(&[(0, 1)]);
    cdb[1] = 1;
    assert_eq!(rig.run(&cdb, &list).sense(), Sense::field_in_cdb(1, Some(0)));
    for bits in [0x10, 0x18] {
        let expected = Sense::field_in_cdb(1, Some(4));
        assert_eq!(rig.run(&cdb_10(0x41, bits, 0, 1), &[0; BLOCK]).sense(), expected);
        assert_eq!(rig.run(&cdb_16(0x93, bits, 0, 1), &[0; BLOCK]).sense(), expected);
    }
}

#[test]
fn a_thick_unit_knows_no_unmap() {
    let mut rig = Rig::with(thick(), 512);
    let (cdb, list) = unmap(&[(0, 1)]);
    assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2000));
    assert_eq!(rig.run(&cdb_16(0x93, 0x08, 0, 1), &[0; BLOCK]).sense(), Sense::field_in_cdb(1, Some(3)));
    rig.run(&cdb_16(0x93, 0, 0, 1), &[0; BLOCK]).good();
}

#[test]
fn write_same_repeats_its_block() {
    let mut rig = Rig::new();
    let pattern: Vec<u8> = (0..BLOCK).map(|i| i as u8).collect();
    for (cdb, lba) in [(cdb_10(0x41, 0, 3, 2).to_vec(), 3), (cdb_16(0x93, 0, 9, 2).to_vec(), 9)] {
        rig.run(&cdb, &pattern).good();
        assert_eq!(rig.medium[lba * BLOCK..(lba + 2) * BLOCK], [&pattern[..], &pattern].concat());
        assert_eq!(rig.medium[(lba + 2) * BLOCK], 0x5A);
    }
    // Not unmapped: it would not read back as what was sent.
    rig.run(&cdb_16(0x93, 0x08, 20, 1), &pattern).good();
    assert_eq!(rig.medium[20 * BLOCK..21 * BLOCK], pattern);
}

#[test]
fn write_same_of_zeroes_does_not_write_a_pattern() {
    let mut rig = Rig::new();
    let zero = |unmap| Step::Zero { offset: 512, length: 1024, unmap, durable: false };
    rig.run(&cdb_16(0x93, 0x00, 1, 2), &[0; BLOCK]).good();
    assert_eq!(rig.steps[1..], [zero(false)]);
    rig.run(&cdb_16(0x93, 0x08, 1, 2), &[0; BLOCK]).good();
    assert_eq!(rig.steps[1..], [zero(true)]);
    rig.run(&cdb_10(0x41, 0x08, 1, 2), &[0; BLOCK]).good();
    assert_eq!(rig.steps[1..], [zero(true)]);
    rig.run(&cdb_16(0x93, 0x09, 1, 2), &[]).good();
    assert_eq!(rig.steps, [zero(true)], "NDOB takes no data");
    rig.run(&cdb_16(0x93, 0x01, 1, 2), &[]).good();
    assert_eq!(rig.steps, [zero(false)]);
    assert_eq!(rig.run(&cdb_10(0x41, 0x01, 1, 2), &[]).refused(), (ILLEGAL, 0x2400), "no NDOB in 10 bytes");
}

#[test]
fn write_same_checks_range_before_length() {
    let mut rig = Rig::new();
    let refused = |rig: &mut Rig, lba: u64, blocks| rig.run(&cdb_16(0x93, 0, lba, blocks), &[0; BLOCK]).refused();
    assert_eq!(refused(&mut rig, BLOCKS, 0), (ILLEGAL, 0x2100));
    assert_eq!(refused(&mut rig, BLOCKS + 1, 0), (ILLEGAL, 0x2100));
    assert_eq!(refused(&mut rig, BLOCKS - 1, 2), (ILLEGAL, 0x2100));
    let mut rig = Rig::with(Geometry { bytes: 64 << 20, ..geometry() }, 512);
    assert_eq!(refused(&mut rig, 0, 65536), (ILLEGAL, 0x2400));
    rig.run(&cdb_16(0x93, 0, 0, 65535), &[1; BLOCK]).good();
    assert_eq!(rig.medium[..65535 * BLOCK].iter().position(|b| *b != 1), None);
    assert_eq!(rig.medium[65535 * BLOCK], 0x5A);
}

#[test]
fn a_write_same_of_no_number_goes_to_the_last_block_of_a_full_volume() {
    let full = |bytes| Rig::with(Geometry { discard_granularity: 0, bytes, ..geometry() }, 512);
    for (number, cdb) in [cdb_10(0x41, 0, 7, 0).to_vec(), cdb_16(0x93, 0, 7, 0).to_vec()].into_iter().enumerate() {
        let mut rig = full(geometry().bytes);
        let value = 1 + number as u8;
        rig.run(&cdb, &[value; BLOCK]).good();
        assert!(rig.medium[..7 * BLOCK].iter().all(|byte| *byte == 0x5A));
        assert!(rig.medium[7 * BLOCK..].iter().all(|byte| *byte == value));
        assert_eq!(rig.medium.len(), BLOCKS as usize * BLOCK);
        assert_eq!(rig.run(&cdb_16(0x93, 0, BLOCKS, 0), &[0; BLOCK]).refused(), (ILLEGAL, 0x2100));
        assert_eq!(Rig::new().run(&cdb, &[value; BLOCK]).refused(), (ILLEGAL, 0x2400), "WSNZ of a thin one");
    }
    // The longest that there may be.
    let mut rig = full(64 << 20);
    let last = (64 << 20) / 512 - 65535;
    assert_eq!(rig.run(&cdb_16(0x93, 0x01, last - 1, 0), &[]).refused(), (ILLEGAL, 0x2400));
    rig.run(&cdb_16(0x93, 0x01, last, 0), &[]).good();
    assert!(rig.medium[last as usize * BLOCK..].iter().all(|byte| *byte == 0));
    assert_eq!(rig.medium[last as usize * BLOCK - 1], 0x5A);
}

#[test]
fn data_out_of_write_same_is_exactly_one_block() {
    use scsi::{Command, Event};
    let mut rig = Rig::new();
    assert!(matches!(rig.run(&cdb_10(0x41, 8, 0, 1), &[0; BLOCK / 2]).refused(), (ILLEGAL, _)));
    let mut context = rig.context();
    let (mut command, step) = Command::start(&cdb_16(0x93, 8, 0, 1), &mut context);
    assert_eq!(step, Step::Receive { length: 512 });
    let Step::Done(outcome) = command.step(Event::Long, &mut context) else { panic!() };
    assert_eq!(outcome.sense.unwrap().key, ILLEGAL);
    // Others leave the rest as a residual.
    let (mut command, step) = Command::start(&[0x15, 0x10, 0, 0, 12, 0], &mut context);
    assert_eq!(step, Step::Receive { length: 12 });
    assert_eq!(command.step(Event::Long, &mut context), step);
}

#[test]
fn a_full_store_stops_a_write_same() {
    let mut rig = Rig::new();
    rig.fault = Some(StoreError::NoSpace);
    let answer = rig.run(&cdb_10(0x41, 0, 0, 9), &[1; BLOCK]);
    assert_eq!(answer.refused(), (SenseKey::DataProtect, 0x2707));
}

#[test]
fn lba_status_is_cut_to_its_allocation_length() {
    let mut rig = Rig::new();
    let (cdb, list) = unmap(&[(8, 8)]);
    rig.run(&cdb, &list).good();
    for allocation in [0u32, 4, 8, 23, 24, 40, 50, 1 << 20] {
        let mut cdb = cdb_16(0x9E, 0x12, 0, 0);
        cdb[10..14].copy_from_slice(&allocation.to_be_bytes());
        let data = rig.run(&cdb, &[]).good();
        assert!(data.len() <= allocation as usize);
        if allocation == 24 {
            assert_eq!(rig.steps, [Step::Status { offset: 0, length: BLOCKS * 512, limit: 1 }]);
            assert_eq!(data[16..20], 8u32.to_be_bytes());
        }
    }
    assert_eq!(rig.run(&cdb_16(0x9E, 0x12, BLOCKS, 24), &[]).refused(), (ILLEGAL, 0x2100));
}

#[test]
fn a_block_that_is_mapped_in_part_is_mapped() {
    // The store speaks of 512 bytes, the unit of 4096.
    let mut rig = Rig::with(geometry(), 4096);
    rig.mapped.fill(false);
    rig.mapped[11] = true;
    assert_eq!(lba_status(&mut rig, 0), [(0, 1, 1), (1, 1, 0), (2, 510, 1)]);
    rig.mapped.fill(true);
    rig.mapped[4..20].fill(false);
    assert_eq!(lba_status(&mut rig, 0), [(0, 1, 0), (1, 1, 1), (2, 510, 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn write_same_changes_exactly_its_range(lba in 0..BLOCKS, count in 1..BLOCKS as u32, byte: u8, bits in 0..4u8) {
        let count = count.min((BLOCKS - lba) as u32);
        let mut rig = Rig::new();
        let bits = [0x00, 0x08, 0x01, 0x09][usize::from(bits)];
        let byte = if bits & 1 != 0 { 0 } else { byte };
        rig.run(&cdb_16(0x93, bits, lba, count), &[byte; BLOCK]).good();
        let (start, end) = (lba as usize * BLOCK, (lba as usize + count as usize) * BLOCK);
        prop_assert!(rig.medium[..start].iter().chain(&rig.medium[end..]).all(|b| *b == 0x5A));
        prop_assert!(rig.medium[start..end].iter().all(|b| *b == byte));
    }
}

/// A unit of a store that gives nothing back, with this provisioning.
fn provisioned(provisioning: Provisioning) -> Rig {
    let mut profile = profile(512);
    profile.provisioning = Some(provisioning);
    Rig::of(profile, thick())
}

#[test]
fn a_zeroing_volume_anchors_what_is_unmapped() {
    let mut rig = provisioned(Provisioning::Resource);
    let page = rig.run(&[0x12, 1, 0xB2, 0, 64, 0], &[]).good();
    assert_eq!((page[5], page[6]), (0xE6, 0x01), "LBPU, LBPWS, LBPWS10, LBPRZ, ANC_SUP; resource provisioned");
    let capacity = rig.run(&cdb_16(0x9E, 0x10, 0, 32), &[]).good();
    assert_eq!(capacity[14], 0xC0, "LBPME, LBPRZ");
    for anchor in [0, 1] {
        let (mut cdb, list) = unmap(&[(8, 8)]);
        cdb[1] = anchor;
        rig.run(&cdb, &list).good();
        assert_eq!(lba_status(&mut rig, 8)[0], (8, 8, 2));
    }
    rig.run(&cdb_16(0x93, 0x19, 32, 8), &[]).good();
    assert_eq!(lba_status(&mut rig, 32)[0], (32, 8, 2));
    assert_eq!(rig.run(&cdb_16(0x93, 0x11, 32, 8), &[]).sense(), Sense::field_in_cdb(1, Some(4)), "ANCHOR alone");
}

#[test]
fn a_thin_volume_has_no_anchors_and_a_full_one_nothing_unmapped() {
    let mut rig = Rig::new();
    let (mut cdb, list) = unmap(&[(8, 8)]);
    cdb[1] = 1;
    assert_eq!(rig.run(&cdb, &list).sense(), Sense::field_in_cdb(1, Some(0)));
    assert_eq!(rig.run(&cdb_16(0x93, 0x19, 32, 8), &[]).sense(), Sense::field_in_cdb(1, Some(4)));

    let mut rig = {
        let mut profile = profile(512);
        profile.provisioning = Some(Provisioning::Full);
        Rig::of(profile, geometry())
    };
    assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2000));
    rig.mapped.fill(false);
    assert_eq!(lba_status(&mut rig, 0), [(0, BLOCKS as u32, 0)]);
    let page = rig.run(&[0x12, 1, 0xB2, 0, 64, 0], &[]).good();
    assert_eq!((page[5], page[6]), (0, 0));
}

#[test]
fn a_threshold_that_is_reached_is_told_once_until_it_is_passed_again() {
    let mut rig = Rig::new();
    let space = |used: u64, available: u64| Space { used: Some(used << 20), available: Some(available << 20) };
    rig.unit.measure(space(100, 0));
    rig.run(&[0; 6], &[]).good();
    assert!(!rig.unit.has_thresholds());
    // Both thresholds of the logical block provisioning page: 10 MiB available, 50 MiB used.
    let mut list = rig.run(&[0x5A, 0x08, 0x1C, 2, 0, 0, 0, 0, 255, 0], &[]).good();
    list[..2].fill(0);
    let page = 8;
    for (descriptor, count) in [(page + 16, 10u32), (page + 24, 50)] {
        list[descriptor] |= 0x80;
        list[descriptor + 4..descriptor + 8].copy_from_slice(&count.to_be_bytes());
    }
    let [high, low] = (list.len() as u16).to_be_bytes();
    rig.run(&[0x55, 0x10, 0, 0, 0, 0, 0, high, low, 0], &list).good();
    assert!(rig.unit.has_thresholds());
    const REACHED: (SenseKey, u16) = (SenseKey::UnitAttention, 0x3807);
    for (used, available, told) in [
        (49, 11, false),
        (49, 10, true),
        (49, 9, false),
        (50, 9, true),
        (60, 8, false),
        (49, 20, false),
        (50, 20, true),
    ] {
        rig.unit.measure(space(used, available));
        let answer = rig.run(&[0; 6], &[]);
        match told {
            true => assert_eq!(answer.refused(), REACHED, "{used} {available}"),
            false => assert_eq!(answer.good(), [], "{used} {available}"),
        }
    }
}

#[test]
fn with_situa_one_initiator_is_told_of_a_threshold_as_soon_as_there_is_one() {
    let mut rig = Rig::new();
    let mut list = rig.run(&[0x5A, 0x08, 0x1C, 2, 0, 0, 0, 0, 255, 0], &[]).good();
    list[..2].fill(0);
    let page = 8;
    list[page + 4] = 1;
    list[page + 24] |= 0x80;
    list[page + 31] = 50;
    let [high, low] = (list.len() as u16).to_be_bytes();
    rig.run(&[0x55, 0x10, 0, 0, 0, 0, 0, high, low, 0], &list).good();
    let full = Space { used: Some(50 << 20), available: None };
    let gone = std::mem::replace(&mut rig.nexus, Nexus::new(&rig.unit.clone(), 9, path(9)));
    gone.end(&rig.unit);
    let last = std::mem::replace(&mut rig.nexus, Nexus::new(&LogicalUnit::new(profile(512), geometry()), 1, path(1)));
    last.end(&rig.unit);
    rig.unit.measure(full);
    let mut hosts: Vec<Nexus> = (1..=2).map(|session| Nexus::new(&rig.unit, session, path(session))).collect();
    rig.unit.measure(full);
    let mut told = 0;
    for host in &mut hosts {
        std::mem::swap(&mut rig.nexus, host);
        rig.run(&[0; 6], &[]);
        told += u32::from(rig.run(&[0; 6], &[]).sense.is_some_and(|sense| sense.asc == 0x3807));
        std::mem::swap(&mut rig.nexus, host);
    }
    assert_eq!(told, 1);
}

#[test]
fn without_a_write_cache_an_unmap_is_stable_before_its_end() {
    let mut rig = Rig::new();
    let (cdb, list) = unmap(&[(8, 8), (64, 0), (128, 8)]);
    rig.run(&cdb, &list).good();
    assert_eq!(rig.flushes, 0);
    let caching = [&[0; 4][..], &[0x08, 18], &[0; 18]].concat();
    rig.run(&[0x15, 0x10, 0, 0, caching.len() as u8, 0], &caching).good();
    rig.flushes = 0;
    rig.run(&cdb, &list).good();
    assert_eq!((rig.flushes, rig.steps.last()), (1, Some(&Step::Flush)));
    let (cdb, list) = unmap(&[(64, 0)]);
    rig.run(&cdb, &list).good();
    assert_eq!(rig.flushes, 1, "nothing was unmapped");
}
