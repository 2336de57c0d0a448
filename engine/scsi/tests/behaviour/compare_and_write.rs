//! COMPARE AND WRITE.

use crate::rig::{ILLEGAL, Rig, geometry};
use scsi::{SenseKey, Step};

const BLOCK: usize = 512;

fn cdb(flags: u8, lba: u64, blocks: u8) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x89, flags, blocks);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb
}

fn halves(expected: u8, new: u8, blocks: usize) -> Vec<u8> {
    [vec![expected; blocks * BLOCK], vec![new; blocks * BLOCK]].concat()
}

fn rig() -> Rig {
    let mut rig = Rig::fresh(geometry(), BLOCK as u32);
    rig.run(&[0; 6], &[]);
    rig.medium.fill(0);
    rig
}

#[test]
fn equal_blocks_are_replaced() {
    let mut rig = rig();
    rig.run(&cdb(0, 3, 2), &halves(0, 7, 2)).good();
    assert_eq!(rig.medium[3 * BLOCK..5 * BLOCK], [7; 2 * BLOCK]);
    assert!(rig.medium[5 * BLOCK..6 * BLOCK].iter().all(|b| *b == 0));
}

#[test]
fn a_difference_is_a_miscompare_with_its_offset_and_writes_nothing() {
    let mut rig = rig();
    rig.medium[4 * BLOCK + 5] = 1;
    let answer = rig.run(&cdb(0, 3, 2), &halves(0, 7, 2));
    let sense = answer.sense.unwrap();
    assert_eq!((sense.key, sense.asc), (SenseKey::Miscompare, 0x1D00));
    assert_eq!(sense.information, Some((BLOCK + 5) as u64));
    assert!(rig.medium[3 * BLOCK..4 * BLOCK].iter().all(|b| *b == 0));
}

#[test]
fn data_of_another_length_is_refused() {
    let mut rig = rig();
    assert_eq!(rig.run(&cdb(0, 0, 2), &halves(0, 7, 1)).refused(), (ILLEGAL, 0x0E03));
    assert_eq!(rig.run(&cdb(0, 0, 1), &halves(0, 7, 2)).refused(), (ILLEGAL, 0x0E03));
    assert!(rig.medium.iter().all(|b| *b == 0));
}

#[test]
fn no_blocks_are_no_error_but_data_for_them_is() {
    let mut rig = rig();
    rig.run(&cdb(0, 0, 0), &[]).good();
    assert_eq!(rig.run(&cdb(0, 0, 0), &halves(0, 7, 1)).refused(), (ILLEGAL, 0x2400));
}

#[test]
fn fua_makes_it_durable() {
    let mut rig = rig();
    rig.run(&cdb(0x08, 0, 1), &halves(0, 7, 1)).good();
    assert!(rig.steps.iter().any(|s| matches!(s, Step::Swap { durable: true, .. })));
    rig.run(&cdb(0, 0, 1), &halves(7, 8, 1)).good();
    assert!(rig.steps.iter().any(|s| matches!(s, Step::Swap { durable: false, .. })));
}

#[test]
fn beyond_the_end_and_above_the_limit_are_refused() {
    let mut rig = rig();
    let blocks = rig.unit.blocks();
    assert_eq!(rig.run(&cdb(0, blocks, 1), &halves(0, 1, 1)).refused(), (ILLEGAL, 0x2100));
    assert_eq!(rig.run(&cdb(0, blocks - 1, 2), &halves(0, 1, 2)).refused(), (ILLEGAL, 0x2100));
}
