//! ORWRITE and WRITE ATOMIC.

use crate::rig::*;
use backstore_api::Geometry;
use scsi::{Sense, SenseKey, Span, Step};

#[test]
fn orwrite_sets_bits_and_clears_none() {
    let mut rig = Rig::new();
    rig.run(&cdb_16(0x8B, 0, 3, 2), &[0x81; 2 * BLOCK]).good();
    assert_eq!(rig.medium[3 * BLOCK..5 * BLOCK], [0x5A | 0x81; 2 * BLOCK]);
    assert_eq!(rig.medium[5 * BLOCK], 0x5A);
    let span = Span { offset: 3 * 512, length: 1024 };
    assert_eq!(rig.steps, [Step::Merge { span, durable: false }]);
    rig.run(&cdb_16(0x8B, 0x18, 3, 2), &[0; 2 * BLOCK]).good();
    assert_eq!(rig.steps, [Step::Merge { span, durable: true }]);
    rig.run(&cdb_16(0x8B, 0, 3, 0), &[]).good();
}

#[test]
fn orwrite_is_checked_as_a_write() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(&cdb_16(0x8B, 0, BLOCKS, 1), &[0; BLOCK]).refused(), (ILLEGAL, 0x2100));
    for protect in [0x20, 0x40, 0x80] {
        assert_eq!(rig.run(&cdb_16(0x8B, protect, 0, 1), &[0; BLOCK]).refused(), (ILLEGAL, 0x2400));
    }
    let mut rig = Rig::with(Geometry { read_only: true, ..geometry() }, 512);
    assert_eq!(rig.run(&cdb_16(0x8B, 0, 0, 1), &[0; BLOCK]).refused(), (SenseKey::DataProtect, 0x2700));
}

fn write_atomic(flags: u8, lba: u64, blocks: u16) -> [u8; 16] {
    let mut cdb = cdb_16(0x9C, flags, lba, 0);
    cdb[12..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

#[test]
fn an_atomic_write_is_collected_whole_and_written_at_once() {
    let mut rig = Rig::with(Geometry { physical_block: 512, ..geometry() }, 512);
    rig.run(&write_atomic(0, 9, 3), &[7; 3 * BLOCK]).good();
    let span = Span { offset: 9 * 512, length: 3 * 512 };
    assert_eq!(rig.steps.last(), Some(&Step::Put { span, durable: false }));
    assert_eq!(rig.medium[9 * BLOCK..12 * BLOCK], [7; 3 * BLOCK]);
    rig.run(&write_atomic(0x08, 9, 3), &[7; 3 * BLOCK]).good();
    assert_eq!(rig.steps.last(), Some(&Step::Put { span, durable: true }));
    assert_eq!(rig.run(&write_atomic(0, 9, 3), &[8; 2 * BLOCK]).refused(), (ILLEGAL, 0x0E03), "a part of the data");
    assert_eq!(rig.medium[9 * BLOCK], 7);
    rig.run(&write_atomic(0, 0, 0), &[]).good();
    assert_eq!(rig.run(&write_atomic(0, BLOCKS, 1), &[0; BLOCK]).refused(), (ILLEGAL, 0x2100));
    assert_eq!(rig.run(&write_atomic(0, 0, 513), &[]).sense(), Sense::field_in_cdb(12, None));
    let mut boundary = write_atomic(0, 0, 1);
    boundary[11] = 1;
    assert_eq!(rig.run(&boundary, &[0; BLOCK]).refused(), (ILLEGAL, 0x2400), "ATOMIC BOUNDARY");
}

#[test]
fn an_atomic_write_is_of_whole_physical_blocks() {
    let mut rig = Rig::new();
    rig.run(&write_atomic(0, 8, 16), &[7; 16 * BLOCK]).good();
    assert_eq!(rig.medium[8 * BLOCK..24 * BLOCK], [7; 16 * BLOCK]);
    assert_eq!(rig.run(&write_atomic(0, 1, 8), &[]).sense(), Sense::field_in_cdb(2, None));
    assert_eq!(rig.run(&write_atomic(0, 8, 9), &[]).sense(), Sense::field_in_cdb(12, None));
    rig.run(&write_atomic(0, 8, 0), &[]).good();
    assert_eq!(rig.run(&write_atomic(0, BLOCKS + 1, 1), &[]).refused(), (ILLEGAL, 0x2100));
    assert_eq!(rig.medium[24 * BLOCK], 0x5A);
}

#[test]
fn atomic_writes_are_there_only_when_the_store_promises_them() {
    let limits = |rig: &mut Rig| {
        let page = rig.run(&[0x12, 1, 0xB0, 0, 64, 0], &[]).good();
        u32::from_be_bytes(page[44..48].try_into().unwrap())
    };
    assert_eq!(limits(&mut Rig::new()), 512);
    let mut rig = Rig::with(Geometry { atomic_write: 0, ..geometry() }, 512);
    assert_eq!(limits(&mut rig), 0);
    assert_eq!(rig.run(&write_atomic(0, 0, 1), &[0; BLOCK]).refused(), (ILLEGAL, 0x2000));
    let report = [0xA3, 0x0C, 1, 0x9C, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0];
    assert_eq!(rig.run(&report, &[]).good(), [0, 1, 0, 0]);
}
