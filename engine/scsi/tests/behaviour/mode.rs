//! MODE SENSE and MODE SELECT.

use crate::rig::*;
use backstore_api::Geometry;
use scsi::{SenseKey, Specific, Step};

fn sense_6(rig: &mut Rig, byte_1: u8, page: u8, subpage: u8) -> Answer {
    rig.run(&[0x1A, byte_1, page, subpage, 255, 0], &[])
}

fn sense_10(rig: &mut Rig, byte_1: u8, page: u8, subpage: u8) -> Answer {
    rig.run(&[0x5A, byte_1, page, subpage, 0, 0, 0, 4, 0, 0], &[])
}

/// Selects by 6 bytes, with a header and without block descriptor.
fn select(rig: &mut Rig, pages: &[u8]) -> Answer {
    let list = [&[0; 4], pages].concat();
    rig.run(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list)
}

/// A page as it is now.
fn page(rig: &mut Rig, page: u8, subpage: u8) -> Vec<u8> {
    sense_6(rig, 0x08, page, subpage).good()[4..].to_vec()
}

/// The pages of an answer without block descriptors: (code, subpage).
fn listed(mut pages: &[u8]) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    while !pages.is_empty() {
        let long = pages[0] & 0x40 != 0;
        let (subpage, length) =
            if long { (pages[1], 4 + usize::from(pages[3])) } else { (0, 2 + usize::from(pages[1])) };
        found.push((pages[0] & 0x3F, subpage));
        pages = &pages[length..];
    }
    found
}

#[test]
fn all_pages_come_in_order_with_and_without_subpages() {
    let mut rig = Rig::new();
    let plain = [(0x01, 0), (0x08, 0), (0x0A, 0), (0x1A, 0), (0x1C, 0)];
    let with_subpages = [(0x01, 0), (0x08, 0), (0x0A, 0), (0x0A, 1), (0x1A, 0), (0x1C, 0), (0x1C, 2)];
    for control in [0x00, 0x40, 0x80, 0xC0] {
        assert_eq!(listed(&page(&mut rig, control | 0x3F, 0)), plain);
        assert_eq!(listed(&page(&mut rig, control | 0x3F, 0xFF)), with_subpages);
        assert_eq!(listed(&page(&mut rig, control | 0x0A, 0xFF)), [(0x0A, 0), (0x0A, 1)]);
        assert_eq!(listed(&page(&mut rig, control | 0x0A, 1)), [(0x0A, 1)]);
    }
}

#[test]
fn length_fields_count_what_is_there() {
    let mut rig = Rig::new();
    for (byte_1, descriptors) in [(0x00, 8), (0x08, 0)] {
        let data = sense_6(&mut rig, byte_1, 0x3F, 0xFF).good();
        assert_eq!(usize::from(data[0]) + 1, data.len());
        assert_eq!(data[3], descriptors);
    }
    for (byte_1, descriptors) in [(0x00, 8), (0x10, 16), (0x18, 0)] {
        let data = sense_10(&mut rig, byte_1, 0x3F, 0xFF).good();
        assert_eq!(usize::from(u16::from_be_bytes([data[0], data[1]])) + 2, data.len());
        assert_eq!(data[7], descriptors);
        assert_eq!(data[4], u8::from(descriptors == 16), "LONGLBA");
    }
}

#[test]
fn block_descriptors_give_blocks_and_length() {
    let mut rig = Rig::new();
    let short = [[0, 0, 16, 0], [0, 0, 2, 0]].concat();
    assert_eq!(sense_6(&mut rig, 0, 0x08, 0).good()[4..12], short);
    assert_eq!(sense_10(&mut rig, 0, 0x08, 0).good()[8..16], short);
    let long = sense_10(&mut rig, 0x10, 0x08, 0).good()[8..24].to_vec();
    assert_eq!(long[..8], BLOCKS.to_be_bytes());
    assert_eq!(long[8..], [0, 0, 0, 0, 0, 0, 2, 0]);
    let mut large = Rig::with(Geometry { bytes: 1 << 50, ..geometry() }, 512);
    assert_eq!(sense_6(&mut large, 0, 0x08, 0).good()[4..8], [0xFF; 4]);
}

#[test]
fn the_control_page_says_what_the_design_says() {
    let page = page(&mut Rig::new(), 0x0A, 0);
    assert_eq!(page[2] >> 5, 0b001, "TST");
    assert_eq!(page[3] >> 4, 1, "QUEUE ALGORITHM MODIFIER");
    assert_eq!(page[3] >> 1 & 3, 0, "QERR");
    assert_eq!(page[4] >> 4 & 3, 0, "UA_INTLCK_CTRL");
    assert_eq!(page[2] & 0x04, 0, "D_SENSE");
    assert_eq!(page[8..10], [0xFF, 0xFF], "BUSY TIMEOUT PERIOD");
}

#[test]
fn a_thick_unit_has_no_thresholds() {
    let mut rig = Rig::with(Geometry { discard_granularity: 0, ..geometry() }, 512);
    assert_eq!(sense_6(&mut rig, 8, 0x1C, 2).sense(), scsi::Sense::field_in_cdb(3, None));
    assert_eq!(page(&mut rig, 0x01, 0)[7], 0, "LBPERE");
    assert_eq!(rig.unit.thresholds(), Default::default());
}

#[test]
fn thresholds_of_provisioning_are_as_selected() {
    let mut rig = Rig::new();
    assert_eq!(rig.unit.thresholds(), Default::default());
    let mut thresholds = page(&mut rig, 0x1C, 2);
    assert_eq!(thresholds.len(), 4 + 12 + 16);
    assert_eq!(thresholds[16..20], [0x00, 1, 0, 0], "available resources, armed by a decrease");
    assert_eq!(thresholds[24..28], [0x01, 2, 0, 0], "used resources, armed by an increase");
    let before = rig.unit.generation();
    thresholds[24] |= 0x80;
    thresholds[28..32].copy_from_slice(&70_000u32.to_be_bytes());
    thresholds[4] = 1;
    select(&mut rig, &thresholds).good();
    let expected = scsi::Thresholds { available: None, used: Some(70_000), single: true };
    assert_eq!(rig.unit.thresholds(), expected);
    assert_ne!(rig.unit.generation(), before);
    let mut recovery = page(&mut rig, 0x01, 0);
    recovery[7] &= !0x80;
    select(&mut rig, &recovery).good();
    assert_eq!(rig.unit.thresholds().used, None, "LBPERE");
    thresholds[25] = 1;
    assert_eq!(select(&mut rig, &thresholds).refused(), (ILLEGAL, 0x2600), "another resource");
}

#[test]
fn a_tested_informational_exception_is_reported_as_asked() {
    let mut rig = Rig::new();
    let mut exceptions = page(&mut rig, 0x1C, 0);
    exceptions[2] = 0x04;
    exceptions[3] = 6;
    select(&mut rig, &exceptions).good();
    rig.run(&[0; 6], &[]).good();
    let sense = rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good();
    assert_eq!((sense[2], sense[12], sense[13]), (0, 0x5D, 0xFF));
    exceptions[3] = 2;
    select(&mut rig, &exceptions).good();
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x5DFF));
    rig.run(&[0; 6], &[]).good();
    exceptions[3] = 3;
    let sense = select(&mut rig, &exceptions).sense();
    assert_eq!(sense.specific, Specific::Field { cdb: false, byte: 4 + 3, bit: Some(3) });
    exceptions[2..4].copy_from_slice(&[0x0C, 2]);
    select(&mut rig, &exceptions).good();
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn three_bits_of_caching_and_control_are_changeable() {
    let mut rig = Rig::new();
    let changeable = page(&mut rig, 0x7F, 0xFF);
    let set: u32 =
        page(&mut rig, 0x48, 0)[2..].iter().chain(&page(&mut rig, 0x4A, 0)[2..]).map(|b| b.count_ones()).sum();
    assert_eq!(set, 3);
    assert_eq!(page(&mut rig, 0x48, 0)[2], 0x04, "WCE");
    assert_eq!(page(&mut rig, 0x4A, 0)[2], 0x04, "D_SENSE");
    assert_eq!(page(&mut rig, 0x4A, 0)[4], 0x08, "SWP");
    assert_eq!(changeable.len(), page(&mut rig, 0x3F, 0xFF).len());
}

#[test]
fn what_is_not_there_is_refused() {
    let mut rig = Rig::new();
    assert_eq!(sense_6(&mut rig, 0, 0x02, 0).sense(), scsi::Sense::field_in_cdb(2, Some(5)));
    assert_eq!(sense_6(&mut rig, 0, 0x08, 1).sense(), scsi::Sense::field_in_cdb(3, None));
    assert_eq!(sense_6(&mut rig, 0, 0x3F, 1).sense(), scsi::Sense::field_in_cdb(3, None));
    assert_eq!(rig.run(&[0x15, 0x00, 0, 0, 12, 0], &[0; 12]).sense(), scsi::Sense::field_in_cdb(1, Some(4)), "PF");
}

#[test]
fn turning_the_write_cache_off_flushes_it() {
    let mut rig = Rig::new();
    let mut caching = page(&mut rig, 0x08, 0);
    assert_eq!(caching[2], 0x04);
    caching[2] = 0;
    select(&mut rig, &caching).good();
    assert_eq!(rig.steps.last(), Some(&Step::Flush));
    assert_eq!(rig.flushes, 1);
    assert!(!rig.unit.write_cache());
    assert_eq!(page(&mut rig, 0x08, 0)[2], 0);
    assert_eq!(page(&mut rig, 0x88, 0)[2], 0x04, "default");
    caching[2] = 4;
    select(&mut rig, &caching).good();
    assert_eq!(rig.flushes, 1);
    assert!(rig.unit.write_cache());
}

#[test]
fn software_write_protection_refuses_writes_and_shows_in_the_header() {
    let mut rig = Rig::new();
    assert_eq!(sense_6(&mut rig, 0, 0x0A, 0).good()[2], 0x10, "DPOFUA");
    let mut control = page(&mut rig, 0x0A, 0);
    control[4] |= 0x08;
    select(&mut rig, &control).good();
    assert_eq!(sense_6(&mut rig, 0, 0x0A, 0).good()[2], 0x90, "WP");
    assert_eq!(sense_10(&mut rig, 0, 0x0A, 0).good()[3], 0x90);
    rig.run(&cdb_10(0x28, 0, 0, 1), &[]).good();
    assert_eq!(rig.run(&cdb_10(0x2A, 0, 0, 1), &[0; BLOCK]).refused(), (SenseKey::DataProtect, 0x2702));
    control[4] &= !0x08;
    select(&mut rig, &control).good();
    rig.run(&cdb_10(0x2A, 0, 0, 1), &[0; BLOCK]).good();
}

#[test]
fn d_sense_chooses_the_format() {
    let mut rig = Rig::new();
    assert!(!rig.unit.descriptor_sense());
    let mut control = page(&mut rig, 0x0A, 0);
    control[2] |= 0x04;
    select(&mut rig, &control).good();
    assert!(rig.unit.descriptor_sense());
    assert_eq!(page(&mut rig, 0x0A, 0), control);
}

#[test]
fn both_lengths_of_select_take_what_sense_gave() {
    let mut rig = Rig::new();
    for subpage in [0, 0xFF] {
        let mut list = sense_6(&mut rig, 0, 0x3F, subpage).good();
        list[0] = 0;
        rig.run(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list).good();
        for byte_1 in [0x00, 0x08, 0x10] {
            let mut list = sense_10(&mut rig, byte_1, 0x3F, subpage).good();
            list[..2].fill(0);
            let [high, low] = (list.len() as u16).to_be_bytes();
            rig.run(&[0x55, 0x10, 0, 0, 0, 0, 0, high, low, 0], &list).good();
        }
    }
    assert_eq!(rig.flushes, 0);
}

#[test]
fn bits_that_may_not_change_are_pointed_at_and_nothing_changes() {
    let mut rig = Rig::new();
    let mut pages = page(&mut rig, 0x08, 0);
    pages[2] = 0;
    let control_at = pages.len();
    pages.extend(page(&mut rig, 0x0A, 0));
    pages[control_at + 3] ^= 0x20;
    let sense = select(&mut rig, &pages).sense();
    assert_eq!((sense.key, sense.asc), (ILLEGAL, 0x2600));
    let byte = (4 + control_at + 3) as u16;
    assert_eq!(sense.specific, Specific::Field { cdb: false, byte, bit: Some(5) });
    assert!(rig.unit.write_cache(), "the page before it must not hold");
}

#[test]
fn truncated_and_unknown_pages_are_refused() {
    let mut rig = Rig::new();
    let caching = page(&mut rig, 0x08, 0);
    for length in 1..caching.len() {
        assert_eq!(select(&mut rig, &caching[..length]).refused(), (ILLEGAL, 0x1A00), "{length}");
    }
    assert_eq!(rig.run(&[0x15, 0x10, 0, 0, 3, 0], &[0; 3]).refused(), (ILLEGAL, 0x1A00));
    assert_eq!(select(&mut rig, &[0x02, 2, 0, 0]).refused(), (ILLEGAL, 0x2600));
    assert_eq!(select(&mut rig, &[0x08, 17, 0, 0]).refused(), (ILLEGAL, 0x2600), "wrong length");
    assert_eq!(select(&mut rig, &[0x48, 0, 0, 18]).refused(), (ILLEGAL, 0x2600), "SPF without a subpage");
    select(&mut rig, &[]).good();
    rig.run(&[0x15, 0x10, 0, 0, 0, 0], &[]).good();
}

#[test]
fn a_block_descriptor_may_not_format_the_unit() {
    let mut rig = Rig::new();
    let mut list = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0];
    let cdb = [0x15, 0x10, 0, 0, 12, 0];
    rig.run(&cdb, &list).good();
    list[6] = 1;
    assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2600), "fewer blocks");
    list[6] = 16;
    rig.run(&cdb, &list).good();
    list[10] = 16;
    assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2600), "other block length");
    list[3] = 7;
    assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2600), "odd descriptor length");
}
