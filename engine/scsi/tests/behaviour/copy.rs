//! Third-party copy: what is copied, what is refused and how, and what the copy manager tells afterwards.

use crate::rig::*;
use backstore_api::{Geometry, StoreError};
use proptest::prelude::*;
use scsi::{Identity, LogicalUnit, Nexus, Profile, Sense, SenseKey, Specific, Step};
use std::sync::Arc;

const ABORTED: SenseKey = SenseKey::CopyAborted;

/// EXTENDED COPY with a parameter list.
fn extended_copy(rig: &mut Rig, action: u8, list: &[u8]) -> Answer {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, action);
    cdb[10..14].copy_from_slice(&(list.len() as u32).to_be_bytes());
    rig.run(&cdb, list)
}

/// RECEIVE COPY RESULTS, with a list identifier of one byte (LID1) or four.
fn results(rig: &mut Rig, action: u8, id: u32) -> Answer {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x84, action);
    match action {
        0x05 => cdb[2..6].copy_from_slice(&id.to_be_bytes()),
        _ => cdb[2] = id as u8,
    }
    cdb[10..14].copy_from_slice(&1024u32.to_be_bytes());
    rig.run(&cdb, &[])
}

/// An Identification Descriptor CSCD descriptor with the unit's NAA.
fn cscd(unit: &LogicalUnit) -> [u8; 32] {
    let mut descriptor = [0; 32];
    descriptor[0] = 0xE4;
    descriptor[4..8].copy_from_slice(&[1, 3, 0, 8]);
    descriptor[8..16].copy_from_slice(&unit.identity().naa.to_be_bytes());
    descriptor[29..32].copy_from_slice(&unit.block_size().to_be_bytes()[1..]);
    descriptor
}

/// A block to block segment.
fn blocks(source: u16, target: u16, count: u16, from: u64, to: u64) -> Vec<u8> {
    let mut segment = vec![0x02, 0, 0, 0x18];
    segment.extend(source.to_be_bytes());
    segment.extend(target.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(count.to_be_bytes());
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment
}

/// A LID1 parameter list; `usage`: LIST ID USAGE.
fn list(id: u8, usage: u8, cscds: &[[u8; 32]], segments: &[Vec<u8>]) -> Vec<u8> {
    let (cscds, segments) = (cscds.concat(), segments.concat());
    let mut list = vec![id, usage << 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    list[2..4].copy_from_slice(&(cscds.len() as u16).to_be_bytes());
    list[8..12].copy_from_slice(&(segments.len() as u32).to_be_bytes());
    list.extend(cscds);
    list.extend(segments);
    list
}

/// A rig with a second unit behind LUN 1, and different data in every block of both.
fn pair(block_size: u32) -> (Rig, Arc<LogicalUnit>) {
    let mut rig = Rig::new();
    let profile = Profile::new(Identity::from_name("iqn.2026-01.io.ringlun:db2"), block_size);
    let other = LogicalUnit::new(profile, geometry());
    rig.port.luns.insert(1, other.clone());
    rig.others.push((other.clone(), vec![0xEE; rig.medium.len()]));
    for (number, block) in rig.medium.chunks_mut(BLOCK).enumerate() {
        block.fill((number % 251) as u8);
    }
    (rig, other)
}

fn in_segment(byte: u16) -> Specific {
    Specific::Segment { descriptor: true, byte }
}

fn in_list(byte: u16) -> Specific {
    Specific::Segment { descriptor: false, byte }
}

#[test]
fn blocks_are_copied_within_a_unit_and_to_another_one_in_the_order_of_the_segments() {
    let (mut rig, other) = pair(512);
    let before = rig.medium.clone();
    let cscds = [cscd(&rig.unit), cscd(&other)];
    let segments = [blocks(0, 0, 10, 0, 2000), blocks(0, 1, 3, 2001, 7), blocks(1, 0xFFFF, 1, 8, 100)];
    extended_copy(&mut rig, 0, &list(1, 0, &cscds, &segments)).good();
    assert_eq!(rig.medium[2000 * BLOCK..2010 * BLOCK], before[..10 * BLOCK]);
    assert_eq!(rig.others[0].1[7 * BLOCK..10 * BLOCK], before[BLOCK..4 * BLOCK]);
    assert_eq!(rig.medium[100 * BLOCK..101 * BLOCK], before[2 * BLOCK..3 * BLOCK]);
    assert!(rig.others[0].1[10 * BLOCK..].iter().all(|byte| *byte == 0xEE));
}

#[test]
fn a_range_that_moves_within_itself_arrives_as_it_was() {
    for (from, to) in [(0u64, 300u64), (300, 0), (10, 11), (11, 10)] {
        let (mut rig, _) = pair(512);
        let before = rig.medium.clone();
        let segments = [blocks(0xFFFF, 0xFFFF, 1000, from, to)];
        extended_copy(&mut rig, 0, &list(0, 3, &[], &segments)).good();
        let at = |block: u64| block as usize * BLOCK..(block as usize + 1000) * BLOCK;
        assert!(rig.medium[at(to)] == before[at(from)], "{from} to {to}");
    }
}

#[test]
fn holes_are_not_read_and_arrive_as_zeroes() {
    let (mut rig, other) = pair(512);
    rig.mapped[128..1024].fill(false);
    rig.medium[128 * BLOCK..1024 * BLOCK].fill(0);
    let segments = [blocks(0, 1, 2000, 0, 0)];
    let cscds = [cscd(&rig.unit), cscd(&other)];
    extended_copy(&mut rig, 0, &list(1, 0, &cscds, &segments)).good();
    assert!(rig.others[0].1[..2000 * BLOCK] == rig.medium[..2000 * BLOCK]);
    let read: u32 = rig.steps.iter().map(|step| if let Step::Copy { length, .. } = step { *length } else { 0 }).sum();
    assert_eq!(read as usize, (2000 - (1024 - 128)) * BLOCK);
}

#[test]
fn byte_ranges_are_copied_where_they_are_whole_blocks() {
    let (mut rig, _) = pair(512);
    let segment = |length: u32, from: u16, to: u16| {
        let mut segment = vec![0x0A, 0, 0, 0x1C, 0xFF, 0xFF, 0xFF, 0xFF];
        segment.extend(length.to_be_bytes());
        segment.extend(3u64.to_be_bytes());
        segment.extend(50u64.to_be_bytes());
        segment.extend(from.to_be_bytes());
        segment.extend(to.to_be_bytes());
        list(1, 0, &[], &[segment])
    };
    let before = rig.medium.clone();
    extended_copy(&mut rig, 0, &segment(1024, 512, 1024)).good();
    assert_eq!(rig.medium[52 * BLOCK..54 * BLOCK], before[4 * BLOCK..6 * BLOCK]);
    for (list, byte) in [(segment(1000, 0, 0), 8), (segment(512, 1, 0), 28), (segment(512, 0, 511), 30)] {
        let sense = extended_copy(&mut rig, 0, &list).sense();
        assert_eq!((sense.key, sense.asc, sense.specific), (ABORTED, 0x260D, in_segment(byte)));
    }
}

#[test]
fn units_with_other_blocks_take_whole_blocks_of_both() {
    let (mut rig, other) = pair(4096);
    let cscds = [cscd(&rig.unit), cscd(&other)];
    extended_copy(&mut rig, 0, &list(1, 0, &cscds, &[blocks(0, 1, 16, 5, 3)])).good();
    assert!(rig.others[0].1[3 * 4096..5 * 4096] == rig.medium[5 * BLOCK..21 * BLOCK]);
    // DC: two blocks of the destination.
    let mut segment = blocks(0, 1, 2, 0, 0);
    segment[1] = 2;
    extended_copy(&mut rig, 0, &list(1, 0, &cscds, &[segment])).good();
    assert!(rig.others[0].1[..2 * 4096] == rig.medium[..16 * BLOCK]);
    let sense = extended_copy(&mut rig, 0, &list(1, 0, &cscds, &[blocks(0, 1, 7, 0, 0)])).sense();
    assert_eq!((sense.key, sense.asc, sense.specific), (ABORTED, 0x260A, in_segment(10)));
}

#[test]
fn what_is_wrong_with_the_list_is_found_before_anything_is_copied() {
    let (mut rig, _) = pair(512);
    let own = cscd(&rig.unit);
    let good = blocks(0, 0, 1, 0, 1);
    let change = |at: usize, value: u8| {
        let mut list = list(1, 0, &[own], &[blocks(0, 0, 1, 0, 100)]);
        list[at] = value;
        list
    };
    let before = rig.medium.clone();
    let many = |cscds, segments| list(1, 0, &vec![own; cscds], &vec![good.clone(); segments]);
    for (list, code) in [
        (change(0, 1)[..20].to_vec(), 0x1A00),
        (change(0, 1)[..75].to_vec(), 0x1A00),
        (change(16, 0xE0), 0x2607),
        (change(16, 0xFF), 0x2607),
        (change(48, 0x03), 0x2609),
        (change(51, 0xFF), 0x1A00),
        (change(1, 0x08), 0x2600),
        (change(1, 0x18), 0x2600),
        (change(15, 1), 0x2600),
        (many(65, 1), 0x2606),
        (many(1, 257), 0x2608),
        (many(65, 257), 0x1A00),
    ] {
        assert_eq!(extended_copy(&mut rig, 0, &list).refused(), (ILLEGAL, code), "{:02x?}", &list[..20]);
    }
    assert!(rig.medium == before);
    assert_eq!(results(&mut rig, 0, 1).refused(), (ILLEGAL, 0x2400), "no operation began");
    assert_eq!(extended_copy(&mut rig, 0, &[]).good(), []);
}

#[test]
fn what_is_wrong_with_a_segment_ends_the_copy_there() {
    let (mut rig, other) = pair(512);
    let strange = LogicalUnit::new(Profile::new(Identity::from_name("iqn.2026-01.io.ringlun:x"), 512), geometry());
    let mut null = cscd(&other);
    null[1] = 0x20;
    let mut tape = cscd(&other);
    tape[1] = 0x01;
    let mut large = cscd(&other);
    large[30] = 0x10;
    let cscds = [cscd(&rig.unit), cscd(&strange), null, tape, large];
    for (segment, code, specific) in [
        (blocks(0, 9, 1, 0, 0), 0x0804, in_segment(6)),
        (blocks(9, 0, 1, 0, 0), 0x0804, in_segment(4)),
        (blocks(0xC000, 0, 1, 0, 0), 0x0D02, in_segment(4)),
        (blocks(0, 1, 1, 0, 0), 0x0D02, in_list(16 + 32)),
        (blocks(0, 2, 1, 0, 0), 0x0D02, in_list(16 + 64)),
        (blocks(0, 3, 1, 0, 0), 0x0D03, in_list(16 + 96)),
        (blocks(0, 4, 1, 0, 0), 0x2600, in_list(16 + 128 + 29)),
        (blocks(0, 0, 2, BLOCKS - 1, 0), 0x0000, in_segment(12)),
        (blocks(0, 0, 2, 0, BLOCKS - 1), 0x0000, in_segment(20)),
        (blocks(0, 0, 1, u64::MAX, 0), 0x0000, in_segment(12)),
    ] {
        let list = list(1, 0, &cscds, &[blocks(0, 0, 1, 3, 500), segment, blocks(0, 0, 1, 3, 501)]);
        let sense = extended_copy(&mut rig, 0, &list).sense();
        assert_eq!((sense.key, sense.asc, sense.specific), (ABORTED, code, specific));
        assert_eq!((sense.command, sense.information), (Some(1), None), "the second segment");
        assert_eq!(rig.medium[500 * BLOCK], 3, "what came before it is done");
        assert_ne!(rig.medium[501 * BLOCK], 3, "what comes after it is not");
    }
}

#[test]
fn a_destination_that_fails_is_named_with_what_is_left() {
    let (mut rig, other) = pair(512);
    let list = list(9, 0, &[cscd(&rig.unit), cscd(&other)], &[blocks(0, 1, 10, 0, 0)]);
    rig.unit = {
        let full = Geometry { discard_granularity: 0, ..geometry() };
        let unit = LogicalUnit::new(profile(512), full);
        rig.port.luns.insert(0, unit.clone());
        rig.nexus = Nexus::new(&unit, 1, path(1));
        unit
    };
    rig.run(&[0; 6], &[]);
    rig.fault = Some(StoreError::Medium { offset: 512 });
    let sense = extended_copy(&mut rig, 0, &list).sense();
    let expected = Sense { key: ABORTED, asc: 0x0D01, information: Some(9), command: Some(0), specific: in_list(48) };
    assert_eq!(sense, expected);
    let details = results(&mut rig, 0x04, 9).good();
    assert_eq!((details.len(), details[56]), (60 + 18, 2));
    assert_eq!(details[60 + 2] & 0x0F, 0x0A);
    assert_eq!(results(&mut rig, 0x04, 9).refused(), (ILLEGAL, 0x2400), "they are told once");
    let status = results(&mut rig, 0x00, 9).good();
    assert_eq!(status, [0, 0, 0, 8, 2, 0, 1, 0, 0, 0, 2, 0]);
}

#[test]
fn a_unit_that_is_stopped_or_protected_takes_no_part() {
    let (mut rig, other) = pair(512);
    let cscds = [cscd(&rig.unit), cscd(&other)];
    let copy = list(1, 0, &cscds, &[blocks(0, 1, 1, 0, 0)]);
    let mut swp = rig.run(&[0x1A, 8, 0x0A, 0, 64, 0], &[]).good();
    swp[..4].fill(0);
    swp[4] &= 0x3F;
    swp[8] |= 0x08;
    rig.run(&[0x15, 0x10, 0, 0, 16, 0], &swp).good();
    extended_copy(&mut rig, 0, &copy).good();
    let back = list(1, 0, &cscds, &[blocks(1, 0, 1, 0, 0)]);
    let sense = extended_copy(&mut rig, 0, &back).sense();
    assert_eq!((sense.key, sense.asc, sense.specific), (ABORTED, 0x0D01, in_list(16)));
    rig.run(&[0x1B, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(extended_copy(&mut rig, 0, &copy).refused(), (ABORTED, 0x0D01));
    let verify = |tur| list(1, 0, &cscds, &[vec![0x07, 0, 0, 8, 0, 0, 0, 0, tur, 0, 0, 0]]);
    extended_copy(&mut rig, 0, &verify(0)).good();
    assert_eq!(extended_copy(&mut rig, 0, &verify(1)).refused(), (ABORTED, 0x0D01));
}

/// A command of session 5, another host's, to a unit.
fn by_another(rig: &mut Rig, unit: &Arc<LogicalUnit>, nexus: &mut Nexus, cdb: &[u8], data: &[u8]) -> Answer {
    let own = std::mem::replace(&mut rig.unit, unit.clone());
    std::mem::swap(&mut rig.nexus, nexus);
    let answer = rig.run(cdb, data);
    std::mem::swap(&mut rig.nexus, nexus);
    rig.unit = own;
    answer
}

#[test]
fn a_unit_that_others_have_reserved_takes_no_part() {
    // RESERVE, Write Exclusive, Exclusive Access; whether it may still be read.
    for (kind, reads) in [(0, false), (1, true), (3, false)] {
        let (mut rig, other) = pair(512);
        let cscds = [cscd(&rig.unit), cscd(&other)];
        let to = list(1, 0, &cscds, &[blocks(0, 1, 1, 0, 0)]);
        let from = list(1, 0, &cscds, &[blocks(1, 0, 1, 0, 0)]);
        let mut nexus = Nexus::new(&other, 5, path(5));
        by_another(&mut rig, &other, &mut nexus, &[0; 6], &[]).refused();
        if kind == 0 {
            by_another(&mut rig, &other, &mut nexus, &[0x16, 0, 0, 0, 0, 0], &[]).good();
        } else {
            let mut keys = [0; 24];
            keys[15] = 9;
            let register = [0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0];
            by_another(&mut rig, &other, &mut nexus, &register, &keys).good();
            (keys[7], keys[15]) = (9, 0);
            let reserve = [0x5F, 1, kind, 0, 0, 0, 0, 0, 24, 0];
            by_another(&mut rig, &other, &mut nexus, &reserve, &keys).good();
        }
        let sense = extended_copy(&mut rig, 0, &to).sense();
        assert_eq!((sense.key, sense.asc, sense.specific), (ABORTED, 0x0D01, in_list(48)), "{kind}");
        assert!(rig.others[0].1.iter().all(|byte| *byte == 0xEE));
        match extended_copy(&mut rig, 0, &from) {
            answer if reads => drop(answer.good()),
            answer => assert_eq!(answer.refused(), (ABORTED, 0x0D01), "{kind}"),
        }
    }
}

#[test]
fn results_are_told_to_the_session_that_asked_and_are_gone_with_it() {
    let (mut rig, _) = pair(512);
    extended_copy(&mut rig, 0, &list(7, 0, &[], &[blocks(0xFFFF, 0xFFFF, 4, 0, 9)])).good();
    assert_eq!(results(&mut rig, 0x00, 8).refused(), (ILLEGAL, 0x2400));
    let status = results(&mut rig, 0x05, 7).good();
    assert_eq!(status[..6], [0, 0, 0, 28, 0, 1]);
    assert_eq!((status[15], &status[16..26]), (0, &[0, 0, 0, 0, 0, 0, 8, 0, 0, 1][..]));
    assert_eq!(results(&mut rig, 0x00, 7).good(), [0, 0, 0, 8, 1, 0, 1, 0, 0, 0, 8, 0]);
    assert_eq!(results(&mut rig, 0x00, 7).refused(), (ILLEGAL, 0x2400), "it is told once");
    assert_eq!(results(&mut rig, 0x04, 7).good(), [0; 4], "nothing failed");
    assert_eq!(results(&mut rig, 0x05, 7).good()[5], 1, "this one may be asked again");
    let unit = rig.unit.clone();
    std::mem::replace(&mut rig.nexus, Nexus::new(&unit, 2, path(2))).end(&unit);
    rig.run(&[0; 6], &[]);
    assert_eq!(results(&mut rig, 0x05, 7).refused(), (ILLEGAL, 0x2400));
    extended_copy(&mut rig, 0, &list(0, 3, &[], &[blocks(0xFFFF, 0xFFFF, 4, 0, 9)])).good();
    assert_eq!(results(&mut rig, 0x05, 0).refused(), (ILLEGAL, 0x2400), "it had no identifier");
}

/// A LID4 parameter list; `flags`: G_SENSE and IMMED.
fn list_4(id: u32, usage: u8, flags: u8, cscds: &[[u8; 32]], segments: &[Vec<u8>]) -> Vec<u8> {
    let (cscds, segments) = (cscds.concat(), segments.concat());
    let mut list = vec![0; 48];
    (list[0], list[1], list[3], list[15], list[16]) = (1, usage << 3, 32, flags, 0xFF);
    list[20..24].copy_from_slice(&id.to_be_bytes());
    list[42..44].copy_from_slice(&(cscds.len() as u16).to_be_bytes());
    list[44..46].copy_from_slice(&(segments.len() as u16).to_be_bytes());
    list.extend(cscds);
    list.extend(segments);
    list
}

#[test]
fn the_long_form_counts_its_descriptors_from_one_and_can_tell_more() {
    let (mut rig, other) = pair(512);
    let cscds = [cscd(&rig.unit), cscd(&other)];
    let segments = [blocks(1, 2, 4, 20, 30), blocks(1, 2, 1, 25, 35)];
    let answer = extended_copy(&mut rig, 1, &list_4(0x1234_5678, 0, 2, &cscds, &segments));
    let sense = answer.sense.expect("G_SENSE");
    assert_eq!((sense.key, sense.asc, sense.command), (SenseKey::Completed, 0x0020, Some(2)));
    assert!(rig.others[0].1[30 * BLOCK..34 * BLOCK] == rig.medium[20 * BLOCK..24 * BLOCK]);
    assert_eq!(results(&mut rig, 0x05, 0x1234_5678).good()[4..6], [1, 1]);
    let sense = extended_copy(&mut rig, 1, &list_4(1, 0, 0, &cscds, &[blocks(0, 1, 4, 20, 30)])).sense();
    assert_eq!((sense.key, sense.asc, sense.specific), (ABORTED, 0x0804, in_segment(4)), "there is no descriptor 0");
    for (at, value) in [(0, 0), (3, 31), (16, 0xE4)] {
        let mut list = list_4(1, 0, 0, &cscds, &segments);
        list[at] = value;
        assert_eq!(extended_copy(&mut rig, 1, &list).refused(), (ILLEGAL, 0x2600));
    }
    assert_eq!(extended_copy(&mut rig, 1, &list_4(1, 0, 3, &cscds, &segments)).refused(), (ILLEGAL, 0x2400));
}

#[test]
fn the_long_form_can_be_answered_before_it_copies() {
    let (mut rig, _) = pair(512);
    let before = rig.medium.clone();
    let segments = [blocks(0xFFFF, 0xFFFF, 4, 20, 30)];
    extended_copy(&mut rig, 1, &list_4(9, 0, 1, &[], &segments)).good();
    assert_eq!(rig.steps[1], Step::Detach);
    assert_eq!(rig.medium[30 * BLOCK..34 * BLOCK], before[20 * BLOCK..24 * BLOCK]);
    let told = results(&mut rig, 0x05, 9).good();
    assert_eq!((told[5], &told[16..24]), (0x01, &(4 * BLOCK as u64).to_be_bytes()[..]));
    // What can be seen from the list is refused at once, and not on the way.
    let sense = extended_copy(&mut rig, 1, &list_4(9, 0, 1, &[], &[blocks(0xFFFF, 5, 4, 20, 30)])).sense();
    assert_eq!((sense.key, rig.steps.len()), (ABORTED, 2));
    assert_eq!(results(&mut rig, 0x05, 9).good()[5], 0x02);
}

#[test]
fn what_is_not_running_can_not_be_aborted() {
    let (mut rig, _) = pair(512);
    let abort = [0x83, 0x1C, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(rig.run(&abort, &[]).refused(), (ILLEGAL, 0x2400));
    extended_copy(&mut rig, 0, &list(7, 0, &[], &[blocks(0xFFFF, 0xFFFF, 4, 0, 9)])).good();
    assert_eq!(rig.run(&abort, &[]).refused(), (ILLEGAL, 0x2400));
}

#[test]
fn the_page_and_the_operating_parameters_say_the_same_and_what_is_true() {
    let mut rig = Rig::new();
    let page = rig.run(&[0x12, 1, 0x8F, 4, 0, 0], &[]).good();
    let parameters = results(&mut rig, 0x03, 0).good();
    assert_eq!(parameters.len(), 4 + parameters[3] as usize);
    assert_eq!(parameters[4], 1, "SNLID");
    let mut codes = Vec::new();
    let mut at = 4;
    while at < page.len() {
        let number = |at: usize| usize::from(page[at]) << 8 | usize::from(page[at + 1]);
        let (code, length) = (number(at), number(at + 2));
        assert_eq!(length % 4, 0);
        let body = &page[at + 4..at + 4 + length];
        match code {
            0x0001 => assert!(body.windows(3).any(|w| w[0] == 0x83 && w[1] as usize <= body.len() && w[2] == 0)),
            0x0004 => assert_eq!(body[4..12], parameters[8..16], "descriptors and their length"),
            0x0008 => assert_eq!(body[1..=usize::from(body[0])], parameters[44..]),
            0x000C => assert_eq!(body, [0, 2, 0xFF, 0xFF]),
            0x8001 => assert_eq!(body.len(), 32),
            _ => {}
        }
        codes.push(code);
        at += 4 + length;
    }
    assert_eq!(at, page.len());
    assert!(codes.is_sorted() && [1, 4, 8, 12, 0x8001].iter().all(|code| codes.contains(code)), "{codes:04x?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_hostile_list_copies_within_the_units_or_nothing(
        action in 0..2u8,
        mut bytes in prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], 0..300),
        changes in prop::collection::vec((0..400usize, any::<u8>()), 0..6),
        like in any::<bool>(),
    ) {
        let (mut rig, other) = pair(512);
        if like {
            let segments = [blocks(1, 2, 700, 5, 90), blocks(2, 1, 9, 0, 4000), blocks(0xFFFF, 1, 100, 0, 50)];
            let cscds = [cscd(&rig.unit), cscd(&other), cscd(&rig.unit)];
            bytes = if action == 0 { list(3, 0, &cscds, &segments) } else { list_4(3, 0, 0, &cscds, &segments) };
        }
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        // The rig itself minds what lies outside of a medium.
        let answer = extended_copy(&mut rig, action, &bytes);
        prop_assert!(answer.data.is_empty());
    }
}
