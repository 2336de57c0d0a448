//! VERIFY and WRITE AND VERIFY.

use crate::rig::*;
use backstore_api::Geometry;
use scsi::{Sense, SenseKey, Span, Step};

fn verifies(byte_1: u8, lba: u32, blocks: u16) -> [Vec<u8>; 3] {
    [
        cdb_10(0x2F, byte_1, lba, blocks).to_vec(),
        cdb_12(0xAF, byte_1, lba, blocks.into()).to_vec(),
        cdb_16(0x8F, byte_1, lba.into(), blocks.into()).to_vec(),
    ]
}

fn write_and_verifies(byte_1: u8, lba: u32, blocks: u16) -> [Vec<u8>; 3] {
    [
        cdb_10(0x2E, byte_1, lba, blocks).to_vec(),
        cdb_12(0xAE, byte_1, lba, blocks.into()).to_vec(),
        cdb_16(0x8E, byte_1, lba.into(), blocks.into()).to_vec(),
    ]
}

#[test]
fn without_bytchk_the_medium_is_read_and_nothing_compared() {
    let mut rig = Rig::new();
    for cdb in verifies(0x10, 8, 2) {
        rig.run(&cdb, &[0; 2 * BLOCK]).good();
        assert_eq!(rig.steps, [Step::Check { span: Span { offset: 4096, length: 1024 } }]);
    }
}

#[test]
fn a_miscompare_tells_the_offset_in_the_data_out() {
    let mut rig = Rig::new();
    let mut data = vec![0x5A; 2 * BLOCK];
    for cdb in verifies(0x02, 8, 2) {
        rig.run(&cdb, &data).good();
    }
    data[700] ^= 1;
    for cdb in verifies(0x02, 8, 2) {
        let sense = rig.run(&cdb, &data).sense();
        assert_eq!(sense, Sense::new(SenseKey::Miscompare, 0x1D00).with_information(700));
    }
}

#[test]
fn bytchk_11b_compares_one_block_with_all() {
    let mut rig = Rig::new();
    for cdb in verifies(0x06, 0, 100) {
        rig.run(&cdb, &[0x5A; BLOCK]).good();
        assert_eq!(rig.steps, [Step::Compare { span: Span { offset: 0, length: 51200 }, repeat: true }]);
    }
    rig.medium[30000] = 0;
    for cdb in verifies(0x06, 0, 100) {
        assert_eq!(rig.run(&cdb, &[0x5A; BLOCK]).sense().information, Some(30000));
    }
}

#[test]
fn reserved_bytchk_and_protection_are_refused() {
    let mut rig = Rig::new();
    let wrong = [0x04, 0x20, 0x40, 0x80, 0xE0].into_iter().flat_map(|bits| verifies(bits, 0, 1));
    let wrong = wrong.chain([0x04, 0x06, 0x20, 0xE0].into_iter().flat_map(|bits| write_and_verifies(bits, 0, 1)));
    for cdb in wrong {
        assert_eq!(rig.run(&cdb, &[0x5A; BLOCK]).refused(), (ILLEGAL, 0x2400), "{cdb:02x?}");
    }
}

#[test]
fn zero_blocks_are_good_inside_and_out_of_range_outside() {
    let mut rig = Rig::new();
    for bits in [0x00, 0x02, 0x06] {
        for cdb in verifies(bits, 0, 0) {
            rig.run(&cdb, &[]).good();
            assert_eq!(rig.steps, []);
        }
        for cdb in verifies(bits, BLOCKS as u32 + 1, 0).into_iter().chain(verifies(bits, BLOCKS as u32 - 1, 2)) {
            assert_eq!(rig.run(&cdb, &[]).refused(), (ILLEGAL, 0x2100));
        }
    }
    for cdb in write_and_verifies(0, BLOCKS as u32, 1) {
        assert_eq!(rig.run(&cdb, &[]).refused(), (ILLEGAL, 0x2100));
    }
}

#[test]
fn a_large_check_goes_in_pieces_that_cover_it() {
    let mut rig = Rig::with(Geometry { bytes: 64 << 20, ..geometry() }, 512);
    rig.run(&cdb_16(0x8F, 0, 3, 100_000), &[]).good();
    let mut next = 3 * 512;
    for step in &rig.steps {
        let Step::Check { span } = step else { panic!("{step:?}") };
        assert_eq!(span.offset, next);
        assert!(span.length <= rig.unit.max_transfer());
        next += u64::from(span.length);
    }
    assert_eq!(next, 100_003 * 512);
    assert!(rig.steps.len() > 1);
}

#[test]
fn write_and_verify_is_durable_and_read_back() {
    let mut rig = Rig::new();
    for bits in [0x00, 0x02, 0x10, 0x12] {
        for cdb in write_and_verifies(bits, 1, 1) {
            rig.run(&cdb, &[7; BLOCK]).good();
            let span = Span { offset: 512, length: 512 };
            assert_eq!(rig.steps, [Step::Write { span, durable: true, verify: true }]);
        }
    }
    assert_eq!(rig.medium[512..1024], [7; 512]);
}
