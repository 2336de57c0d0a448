//! Copies by tokens: what a token stands for, who may use it and for how long, and what is refused and how.

use crate::rig::*;
use backstore_api::{Geometry, StoreError};
use proptest::prelude::*;
use scsi::{Background, Chore, Identity, InitiatorPort, LogicalUnit, Nexus, Path, Profile, SenseKey, Status, Step};
use std::{ops::Range, sync::Arc, time::Duration};

const POPULATE: u8 = 0x10;
const WRITE_USING: u8 = 0x11;

/// A service action with a parameter list, as the operation `id`.
fn out(rig: &mut Rig, action: u8, id: u32, list: &[u8]) -> Answer {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, action);
    cdb[6..10].copy_from_slice(&id.to_be_bytes());
    cdb[10..14].copy_from_slice(&(list.len() as u32).to_be_bytes());
    rig.run(&cdb, list)
}

/// RECEIVE ROD TOKEN INFORMATION.
fn information(rig: &mut Rig, id: u32) -> Answer {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x84, 0x07);
    cdb[2..6].copy_from_slice(&id.to_be_bytes());
    cdb[10..14].copy_from_slice(&1024u32.to_be_bytes());
    rig.run(&cdb, &[])
}

/// Block device range descriptors behind their length.
fn ranges(ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut bytes = (16 * ranges.len() as u16).to_be_bytes().to_vec();
    for (lba, blocks) in ranges {
        bytes.extend(lba.to_be_bytes());
        bytes.extend(blocks.to_be_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}

fn with_length(mut list: Vec<u8>) -> Vec<u8> {
    let length = list.len() as u16 - 2;
    list[..2].copy_from_slice(&length.to_be_bytes());
    list
}

/// A parameter list of POPULATE TOKEN.
fn populate_list(flags: u8, timeout_s: u32, rod_type: u32, of: &[(u64, u32)]) -> Vec<u8> {
    let mut list = vec![0, 0, flags, 0];
    list.extend(timeout_s.to_be_bytes());
    list.extend(rod_type.to_be_bytes());
    list.extend([0, 0]);
    list.extend(ranges(of));
    with_length(list)
}

/// A parameter list of WRITE USING TOKEN.
fn write_list(flags: u8, offset: u64, token: &[u8], to: &[(u64, u32)]) -> Vec<u8> {
    let mut list = vec![0, 0, flags, 0, 0, 0, 0, 0];
    list.extend(offset.to_be_bytes());
    list.extend(token);
    list.extend([0; 6]);
    list.extend(ranges(to));
    with_length(list)
}

/// The token of ranges.
fn token(rig: &mut Rig, of: &[(u64, u32)]) -> Vec<u8> {
    out(rig, POPULATE, 1, &populate_list(0, 0, 0, of)).good();
    let told = information(rig, 1).good();
    assert_eq!(told.len(), 32 + 4 + 2 + 512);
    told[38..].to_vec()
}

/// Writes what a token stands for.
fn write_using(rig: &mut Rig, offset: u64, token: &[u8], to: &[(u64, u32)]) -> Answer {
    out(rig, WRITE_USING, 2, &write_list(0, offset, token, to))
}

fn zero_token() -> Vec<u8> {
    let mut token = vec![0xFF, 0xFF, 0, 1, 0, 0, 0x01, 0xF8];
    token.resize(512, 0);
    token
}

/// A rig with different data in every block.
fn stamped() -> Rig {
    let mut rig = Rig::new();
    for (number, block) in rig.medium.chunks_mut(BLOCK).enumerate() {
        block.fill((number % 251) as u8);
    }
    rig
}

/// Another unit of the same host, which an initiator reaches by another target.
fn beside(rig: &Rig, block_size: u32) -> Rig {
    let profile = Profile::new(Identity::from_name("iqn.2026-01.io.ringlun:db2"), block_size);
    let mut other = Rig::of(profile, geometry());
    other.port.copies = rig.port.copies.clone();
    (other.port.target_name, other.port.relative_port) = ("iqn.2026-01.io.ringlun:other".into(), 9);
    other.others.push((rig.unit.clone(), rig.medium.clone()));
    other
}

fn blocks(range: Range<usize>) -> Range<usize> {
    range.start * BLOCK..range.end * BLOCK
}

#[test]
fn a_token_brings_its_data_to_the_same_and_to_other_units_by_any_port() {
    let mut rig = stamped();
    let before = rig.medium.clone();
    let token = token(&mut rig, &[(100, 8), (50, 4)]);
    write_using(&mut rig, 0, &token, &[(3000, 2), (2000, 10)]).good();
    assert_eq!(rig.medium[blocks(3000..3002)], before[blocks(100..102)]);
    assert_eq!(rig.medium[blocks(2000..2006)], before[blocks(102..108)]);
    assert_eq!(rig.medium[blocks(2006..2010)], before[blocks(50..54)]);
    assert_eq!(rig.medium[..blocks(0..2000).end], before[..blocks(0..2000).end]);

    let mut other = beside(&rig, 512);
    write_using(&mut other, 7, &token, &[(0, 5)]).good();
    assert_eq!(other.medium[blocks(0..1)], before[blocks(107..108)]);
    assert_eq!(other.medium[blocks(1..5)], before[blocks(50..54)]);
    assert!(other.medium[blocks(5..9)].iter().all(|byte| *byte == 0x5A));
}

#[test]
fn a_token_says_what_it_is_and_for_how_much_data_it_stands() {
    let mut rig = stamped();
    out(&mut rig, POPULATE, 0xABCD_EF01, &populate_list(2, 30, 0x0080_FFFF, &[(8, 3), (0, 2)])).good();
    let told = information(&mut rig, 0xABCD_EF01).good();
    assert_eq!(told[..4], (told.len() as u32 - 4).to_be_bytes());
    assert_eq!(told[4..6], [POPULATE, 0x01], "of this action, ended without errors");
    assert_eq!((told[12], told[15]), (0, 0xF1), "GOOD; blocks are counted");
    assert_eq!(told[16..24], 5u64.to_be_bytes());
    assert_eq!(told[32..38], [0, 0, 0x02, 0x02, 0, 0]);
    let token = &told[38..];
    assert_eq!(token[..8], [0x00, 0x80, 0x00, 0x01, 0, 0, 0x01, 0xF8]);
    assert_eq!(token[16], 0xE4);
    assert_eq!(token[24..32], rig.unit.identity().naa.to_be_bytes());
    assert_eq!(token[48..64], (5 * 512u128).to_be_bytes());
    assert!(information(&mut rig, 0xABCD_EF01).good() == told, "an answer may get lost");
    assert_eq!(information(&mut rig, 5).sense().asc, 0x2400);
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    std::mem::swap(&mut rig.nexus, &mut other);
    rig.run(&[0; 6], &[]);
    assert_eq!(information(&mut rig, 0xABCD_EF01).sense().asc, 0x2400, "another session's");
}

#[test]
fn what_a_write_came_to_can_be_asked() {
    let mut rig = stamped();
    let token = token(&mut rig, &[(0, 100)]);
    write_using(&mut rig, 0, &token, &[(1000, 100)]).good();
    let told = information(&mut rig, 2).good();
    assert_eq!((told.len(), told[4], told[5]), (36, WRITE_USING, 0x01));
    assert_eq!((&told[16..24], &told[32..36]), (&100u64.to_be_bytes()[..], &[0; 4][..]));
    rig.fault = Some(StoreError::NoSpace);
    assert_eq!(write_using(&mut rig, 0, &zero_token(), &[(1000, 100)]).refused(), (SenseKey::DataProtect, 0x2707));
    let told = information(&mut rig, 2).good();
    assert_eq!((told[5], told[12], told[13]), (0x02, Status::CheckCondition as u8, 20));
    assert_eq!(told[32 + 2], SenseKey::DataProtect as u8);
}

#[test]
fn the_zero_token_needs_no_source() {
    let mut rig = stamped();
    let before = rig.medium.clone();
    write_using(&mut rig, 0, &zero_token(), &[(10, 20), (2000, 1)]).good();
    assert!(rig.medium[blocks(10..30)].iter().all(|byte| *byte == 0));
    assert!(rig.medium[blocks(2000..2001)].iter().all(|byte| *byte == 0));
    assert_eq!(rig.medium[blocks(30..2000)], before[blocks(30..2000)]);
    assert!(rig.steps.iter().all(|step| !matches!(step, Step::Copy { .. } | Step::Survey { .. })));
}

#[test]
fn what_was_forged_changed_deleted_or_forgotten_is_refused_with_its_reason() {
    let mut rig = stamped();
    let good = token(&mut rig, &[(0, 8)]);
    let before = rig.medium.clone();
    for (place, code) in
        [(1, 0x2301), (3, 0x2301), (7, 0x230A), (15, 0x2304), (60, 0x2304), (260, 0x2304), (511, 0x2304)]
    {
        let mut forged = good.clone();
        forged[place] ^= 1;
        assert_eq!(write_using(&mut rig, 0, &forged, &[(100, 8)]).refused(), (ILLEGAL, code), "byte {place}");
    }
    // Not even by those who know another one.
    let second = token(&mut rig, &[(8, 8)]);
    let mixed = [&good[..16], &second[16..]].concat();
    assert_eq!(write_using(&mut rig, 0, &mixed, &[(100, 8)]).refused(), (ILLEGAL, 0x2304));
    assert_eq!(rig.medium, before);

    rig.unit.written(&(7 * 512..8 * 512));
    assert_eq!(write_using(&mut rig, 0, &good, &[(100, 8)]).refused(), (ILLEGAL, 0x2308));
    out(&mut rig, WRITE_USING, 2, &write_list(2, 0, &second, &[(100, 8)])).good();
    assert_eq!(write_using(&mut rig, 0, &second, &[(100, 8)]).refused(), (ILLEGAL, 0x2309));
    let short = {
        out(&mut rig, POPULATE, 1, &populate_list(0, 5, 0, &[(0, 8)])).good();
        information(&mut rig, 1).good()[38..].to_vec()
    };
    rig.now += Duration::from_secs(5);
    write_using(&mut rig, 0, &short, &[(100, 8)]).good();
    rig.now += Duration::from_secs(5);
    write_using(&mut rig, 0, &short, &[(100, 8)]).good();
    rig.now += Duration::from_secs(6);
    assert_eq!(write_using(&mut rig, 0, &short, &[(100, 8)]).refused(), (ILLEGAL, 0x2307));
}

#[test]
fn a_token_that_stands_for_less_is_written_as_far_as_it_goes() {
    let mut rig = stamped();
    let before = rig.medium.clone();
    let token = token(&mut rig, &[(0, 8)]);
    let sense = write_using(&mut rig, 3, &token, &[(100, 2), (200, 9)]).sense();
    assert_eq!((sense.key, sense.asc, sense.information), (SenseKey::CopyAborted, 0x0D04, Some(5)));
    assert_eq!(rig.medium[blocks(200..203)], before[blocks(5..8)]);
    assert_eq!(rig.medium[blocks(203..209)], before[blocks(203..209)]);
    let sense = write_using(&mut rig, 8, &token, &[(100, 2)]).sense();
    assert_eq!((sense.key, sense.asc), (ILLEGAL, 0x2600), "it ends before");
}

#[test]
fn wrong_parameter_lists_are_refused() {
    let mut rig = stamped();
    let good = populate_list(0, 0, 0, &[(0, 8)]);
    let change = |at: usize, to: &[u8]| {
        let mut list = good.clone();
        list[at..at + to.len()].copy_from_slice(to);
        list
    };
    for (list, code) in [
        (good[..15].to_vec(), 0x1A00),
        (change(0, &[0, 29]), 0x2600),
        (change(0, &[0, 31]), 0x2600),
        (change(14, &[0, 15]), 0x2600),
        (populate_list(0, 3601, 0, &[(0, 8)]), 0x2600),
        (populate_list(2, 0, 0x0080_0000, &[(0, 8)]), 0x2600),
        (populate_list(2, 0, 0xFFFF_0001, &[(0, 8)]), 0x2600),
        (populate_list(0, 0, 0, &[(BLOCKS - 1, 2)]), 0x2100),
        (populate_list(0, 0, 0, &[(u64::MAX, 1)]), 0x2100),
        (populate_list(0, 0, 0, &[(0, 8), (7, 1)]), 0x2600),
        (populate_list(0, 0, 0, &(0..129).map(|n| (n, 1)).collect::<Vec<_>>()), 0x1A00),
    ] {
        assert_eq!(out(&mut rig, POPULATE, 1, &list).refused(), (ILLEGAL, code), "{list:?}");
    }
    out(&mut rig, POPULATE, 1, &populate_list(0, 0, 0, &(0..128).map(|n| (n, 1)).collect::<Vec<_>>())).good();
    // Nothing is asked for, or for nothing.
    out(&mut rig, POPULATE, 3, &[]).good();
    out(&mut rig, POPULATE, 3, &populate_list(0, 0, 0, &[(5, 0)])).good();
    assert_eq!(information(&mut rig, 3).good().len(), 36, "there is no token");
    let large = Rig::with(Geometry { bytes: 1 << 30, ..geometry() }, 512);
    let mut large = large;
    let most = 256 << 20 >> 9;
    out(&mut large, POPULATE, 1, &populate_list(0, 0, 0, &[(8, most)])).good();
    let sense = out(&mut large, POPULATE, 1, &populate_list(0, 0, 0, &[(8, most), (0, 1)])).sense();
    assert_eq!((sense.key, sense.asc), (ILLEGAL, 0x2600));
}

#[test]
fn units_with_other_blocks_take_what_fits_theirs() {
    let mut rig = stamped();
    let (whole, odd) = (token(&mut rig, &[(16, 16)]), token(&mut rig, &[(0, 9), (100, 7)]));
    let mut other = beside(&rig, 4096);
    write_using(&mut other, 1, &whole, &[(3, 1)]).good();
    assert!(other.medium[3 * 4096..4 * 4096] == rig.medium[blocks(24..32)]);
    assert_eq!(write_using(&mut other, 0, &odd, &[(3, 2)]).refused(), (SenseKey::CopyAborted, 0x260A));
}

#[test]
fn the_state_of_both_units_is_heeded() {
    let mut rig = stamped();
    let token = token(&mut rig, &[(0, 8)]);
    let mut other = beside(&rig, 512);
    let swp = |rig: &mut Rig, on: u8| {
        let mut list = rig.run(&[0x1A, 8, 0x0A, 0, 255, 0], &[]).good();
        list[..4].fill(0);
        list[8] = list[8] & !8 | on << 3;
        rig.run(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list).good();
    };
    swp(&mut other, 1);
    assert_eq!(write_using(&mut other, 0, &token, &[(0, 8)]).refused(), (SenseKey::DataProtect, 0x2702));
    swp(&mut other, 0);
    // The source is stopped.
    rig.run(&[0x1B, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(write_using(&mut other, 0, &token, &[(0, 8)]).refused(), (SenseKey::CopyAborted, 0x0D01));
    rig.run(&[0x1B, 0, 0, 0, 1, 0], &[]).good();
    write_using(&mut other, 0, &token, &[(0, 8)]).good();
    // Somebody has the source for himself alone.
    let reserve = |rig: &mut Rig, action: u8, kind: u8, key: u8, new: u8| {
        let mut list = [0; 24];
        (list[7], list[15]) = (key, new);
        rig.run(&[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], &list).good();
    };
    reserve(&mut rig, 0, 0, 0, 7);
    reserve(&mut rig, 1, 1, 7, 0);
    let who = InitiatorPort { name: "iqn.2026-01.io.ringlun:else".into(), isid: [0; 6] };
    other.nexus = Nexus::new(&other.unit, 5, Path { initiator: Arc::new(who), relative_port: 9 });
    other.run(&[0; 6], &[]);
    write_using(&mut other, 0, &token, &[(0, 8)]).good();
    reserve(&mut rig, 2, 1, 7, 0);
    reserve(&mut rig, 1, 3, 7, 0);
    assert_eq!(write_using(&mut other, 0, &token, &[(0, 8)]).refused(), (SenseKey::CopyAborted, 0x0D01));
}

#[test]
fn work_over_the_whole_medium_ends_its_tokens() {
    let mut rig = stamped();
    let token = token(&mut rig, &[(0, 8)]);
    rig.idle = true;
    rig.run(&[0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    let mut other = beside(&rig, 512);
    // It has not begun to write, and the unit is closed to readers.
    assert_eq!(write_using(&mut other, 0, &token, &[(0, 8)]).refused(), (SenseKey::CopyAborted, 0x0D01));
    let mut background = Background::take_up(&rig.unit).unwrap();
    while rig.chore(&mut background) != Chore::End {}
    assert_eq!(write_using(&mut other, 0, &token, &[(0, 8)]).refused(), (ILLEGAL, 0x2308));
}

#[test]
fn with_immed_the_command_is_answered_first() {
    let mut rig = stamped();
    let before = rig.medium.clone();
    let token = token(&mut rig, &[(0, 8)]);
    out(&mut rig, WRITE_USING, 4, &write_list(1, 0, &token, &[(100, 8)])).good();
    assert_eq!(rig.steps[1], Step::Detach);
    assert_eq!(rig.medium[blocks(100..108)], before[blocks(0..8)]);
    assert_eq!(information(&mut rig, 4).good()[5], 0x01);
    // What is wrong with the list is said at once.
    let refused = out(&mut rig, WRITE_USING, 4, &write_list(1, 8, &token, &[(100, 8)])).refused();
    assert_eq!((refused, rig.steps.len()), ((ILLEGAL, 0x2600), 1));
}

#[test]
fn the_vpd_page_tells_the_limits_and_the_types() {
    let mut rig = Rig::new();
    let page = rig.run(&[0x12, 1, 0x8F, 4, 0, 0], &[]).good();
    let mut descriptors = std::collections::BTreeMap::new();
    let mut at = 4;
    while at < page.len() {
        let length = usize::from(page[at + 2]) << 8 | usize::from(page[at + 3]);
        descriptors.insert(u16::from_be_bytes([page[at], page[at + 1]]), page[at + 4..at + 4 + length].to_vec());
        at += 4 + length;
    }
    let limits = &descriptors[&0x0000];
    assert_eq!((limits.len(), &limits[6..8], &limits[8..12]), (32, &[0, 128][..], &3600u32.to_be_bytes()[..]));
    assert_eq!(limits[16..24], (256u64 << 20 >> 9).to_be_bytes());
    let commands = &descriptors[&0x0001];
    assert!(commands.windows(2).any(|pair| pair == [POPULATE, WRITE_USING]));
    let types = &descriptors[&0x0108];
    let of = |n: usize| (u32::from_be_bytes(types[4 + n * 64..][..4].try_into().unwrap()), types[8 + n * 64]);
    assert_eq!([of(0), of(1), of(2)], [(0x0080_0001, 3), (0x0080_FFFF, 1), (0xFFFF_0001, 2)]);
    assert_eq!(descriptors[&0x0106].len(), 92);
}

/// The unit as a simple model has it: blocks, and what a token stood for when it was made.
#[derive(Clone, Debug)]
enum Deed {
    Populate(usize, Vec<(u64, u32)>),
    Write(u64, u8),
    Use(usize, u64, Vec<(u64, u32)>),
}

/// A token, the blocks that it stands for, and their data; none, once some of it was changed.
type Known = (Vec<u8>, Vec<u64>, Vec<u8>);

fn some_ranges() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((0u64..60, 1u32..9), 1..4)
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        (0usize..3, some_ranges()).prop_map(|(name, ranges)| Deed::Populate(name, ranges)),
        (0u64..64, any::<u8>()).prop_map(|(lba, byte)| Deed::Write(lba, byte)),
        (0usize..3, 0u64..12, some_ranges()).prop_map(|(name, offset, ranges)| Deed::Use(name, offset, ranges)),
    ];
    prop::collection::vec(deed, 1..40)
}

fn disjoint(ranges: &[(u64, u32)]) -> bool {
    let of = |(lba, count): (u64, u32)| lba..lba + u64::from(count);
    ranges
        .iter()
        .enumerate()
        .all(|(n, a)| ranges[..n].iter().all(|b| of(*a).end <= of(*b).start || of(*b).end <= of(*a).start))
}

proptest! {
    /// A token gives the data as it was when it was made, or nothing, once any of it was changed.
    #[test]
    fn a_token_never_gives_other_data(deeds in deeds()) {
        let mut rig = stamped();
        let mut model: Vec<u8> = (0..80).collect();
        let mut tokens: [Option<Known>; 3] = Default::default();
        for deed in deeds {
            match deed {
                Deed::Populate(name, of) => {
                    let answer = out(&mut rig, POPULATE, 1, &populate_list(0, 0, 0, &of));
                    if !disjoint(&of) {
                        prop_assert_eq!(answer.sense().asc, 0x2600);
                        continue;
                    }
                    answer.good();
                    let token = information(&mut rig, 1).good()[38..].to_vec();
                    let lbas: Vec<u64> = of.iter().flat_map(|(lba, n)| *lba..lba + u64::from(*n)).collect();
                    let data = lbas.iter().map(|lba| model[*lba as usize]).collect();
                    tokens[name] = Some((token, lbas, data));
                }
                Deed::Write(lba, byte) => {
                    // The server says so of every write.
                    rig.unit.written(&(lba * 512..lba * 512 + 512));
                    rig.run(&cdb_16(0x8A, 0, lba, 1), &[byte; BLOCK]).good();
                    model[lba as usize] = byte;
                    for token in &mut tokens {
                        let hit = token.as_ref().is_some_and(|token| token.1.contains(&lba));
                        if hit {
                            token.as_mut().unwrap().2.clear();
                        }
                    }
                }
                Deed::Use(name, offset, to) => {
                    let Some((token, lbas, data)) = tokens[name].clone() else { continue };
                    let to: Vec<_> = to.into_iter().map(|(lba, n)| (lba + 1000, n)).collect();
                    let answer = write_using(&mut rig, offset, &token, &to);
                    let targets: Vec<u64> = to.iter().flat_map(|(lba, n)| *lba..lba + u64::from(*n)).collect();
                    if !disjoint(&to) {
                        prop_assert_eq!(answer.sense().asc, 0x2600);
                    } else if data.is_empty() {
                        prop_assert_eq!(answer.sense().asc, 0x2308);
                    } else if offset as usize >= lbas.len() {
                        prop_assert_eq!(answer.sense().asc, 0x2600);
                    } else {
                        let there = &data[offset as usize..];
                        match there.len() < targets.len() {
                            true => prop_assert_eq!(answer.sense().asc, 0x0D04),
                            false => prop_assert!(answer.good().is_empty()),
                        }
                        for (lba, byte) in targets.iter().zip(there) {
                            let is = &rig.medium[*lba as usize * BLOCK..][..BLOCK];
                            prop_assert!(is.iter().all(|b| b == byte), "block {}", lba);
                        }
                    }
                }
            }
        }
    }
}

/// Of the unit alone: no other is reached by a name in a token.
#[test]
fn a_unit_that_is_gone_takes_its_tokens_along() {
    let rig = stamped();
    let mut other = beside(&rig, 512);
    let token = {
        let profile = Profile::new(Identity::from_name("iqn.2026-01.io.ringlun:db3"), 512);
        let mut gone = Rig::of(profile, geometry());
        gone.port.copies = rig.port.copies.clone();
        let token = token(&mut gone, &[(0, 8)]);
        LogicalUnit::revoke_tokens(&gone.unit);
        token
    };
    assert_eq!(write_using(&mut other, 0, &token, &[(0, 8)]).refused(), (ILLEGAL, 0x2308));
}
