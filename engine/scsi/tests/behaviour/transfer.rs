//! READ and WRITE.

use crate::rig::*;
use backstore_api::StoreError;
use scsi::{Sense, SenseKey, Span, Specific, Step};

/// A read of this opcode, with byte 1, LBA and number of blocks.
fn cdb(opcode: u8, byte_1: u8, lba: u64, blocks: u32) -> Vec<u8> {
    match opcode >> 5 {
        0 => {
            let [_, a, b, c] = (lba as u32).to_be_bytes();
            vec![opcode, a & 0x1F, b, c, blocks as u8, 0]
        }
        1 => cdb_10(opcode, byte_1, lba as u32, blocks as u16).to_vec(),
        5 => cdb_12(opcode, byte_1, lba as u32, blocks).to_vec(),
        _ => cdb_16(opcode, byte_1, lba, blocks).to_vec(),
    }
}

const READS: [u8; 4] = [0x08, 0x28, 0xA8, 0x88];
const WRITES: [u8; 4] = [0x0A, 0x2A, 0xAA, 0x8A];
const LONG_READS: [u8; 3] = [0x28, 0xA8, 0x88];
const LONG_WRITES: [u8; 3] = [0x2A, 0xAA, 0x8A];

#[test]
fn what_is_written_is_read_by_every_length_of_cdb() {
    for (write, read) in WRITES.into_iter().zip(READS) {
        let mut rig = Rig::new();
        let data: Vec<u8> = (0..3 * BLOCK).map(|i| (i / 7) as u8).collect();
        rig.run(&cdb(write, 0, 5, 3), &data).good();
        assert_eq!(rig.run(&cdb(read, 0, 5, 3), &[]).good(), data, "{read:02x}h");
        assert_eq!(rig.medium[4 * BLOCK..5 * BLOCK], [0x5A; BLOCK]);
        assert_eq!(rig.medium[8 * BLOCK..9 * BLOCK], [0x5A; BLOCK]);
    }
}

#[test]
fn a_length_of_zero_is_256_blocks_in_six_bytes_and_nothing_in_more() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(&cdb(0x08, 0, 0, 0), &[]).good().len(), 256 * BLOCK);
    for opcode in LONG_READS.into_iter().chain(LONG_WRITES) {
        assert_eq!(rig.run(&cdb(opcode, 0, BLOCKS - 1, 0), &[]).good(), []);
        assert_eq!(rig.steps, []);
    }
}

#[test]
fn beyond_the_end_is_lba_out_of_range_even_without_blocks() {
    let mut rig = Rig::new();
    for opcode in LONG_READS.into_iter().chain(LONG_WRITES) {
        for (lba, blocks) in [(BLOCKS, 0), (BLOCKS, 1), (BLOCKS - 1, 2), (0x8000_0000, 0), (0xFFFF_FFFF, 1)] {
            let refused = rig.run(&cdb(opcode, 0, lba, blocks), &[]).refused();
            assert_eq!(refused, (ILLEGAL, 0x2100), "{opcode:02x}h {lba} {blocks}");
        }
        rig.run(&cdb(opcode, 0, BLOCKS - 1, 1), &[0; BLOCK]).good();
    }
    assert_eq!(rig.run(&cdb_16(0x88, 0, u64::MAX, u32::MAX), &[]).refused(), (ILLEGAL, 0x2100));
    assert_eq!(rig.run(&cdb(0x08, 0, BLOCKS - 1, 2), &[]).refused(), (ILLEGAL, 0x2100));
}

#[test]
fn more_than_the_maximum_transfer_is_refused_at_the_length_field() {
    let mut rig = Rig::with(backstore_api::Geometry { bytes: 1 << 30, ..geometry() }, 512);
    let most = rig.unit.max_transfer() / 512;
    let sense = rig.run(&cdb_16(0x88, 0, 0, most + 1), &[]).sense();
    assert_eq!(sense, Sense::field_in_cdb(10, None));
    let sense = rig.run(&cdb_12(0xAA, 0, 0, u32::MAX >> 12), &[]).sense();
    assert_eq!(sense, Sense::field_in_cdb(6, None));
    assert_eq!(rig.run(&cdb_16(0x88, 0, 0, most), &[]).good().len(), most as usize * 512);
}

#[test]
fn protection_information_and_reserved_bits_are_refused_where_they_are() {
    let mut rig = Rig::new();
    for opcode in LONG_READS.into_iter().chain(LONG_WRITES) {
        for protect in 1..8u8 {
            let sense = rig.run(&cdb(opcode, protect << 5, 0, 1), &[0; BLOCK]).sense();
            assert_eq!((sense.key, sense.asc), (ILLEGAL, 0x2400));
            let bit = 7 - protect.leading_zeros() as u8 + 5;
            assert_eq!(sense.specific, Specific::Field { cdb: true, byte: 1, bit: Some(bit) });
        }
    }
    let mut naca = cdb_10(0x28, 0, 0, 1);
    naca[9] = 0x04;
    assert_eq!(rig.run(&naca, &[]).sense(), Sense::field_in_cdb(9, Some(2)));
}

#[test]
fn force_unit_access_and_a_disabled_cache_make_a_write_durable() {
    let span = Span { offset: 0, length: 512 };
    let mut rig = Rig::new();
    for opcode in LONG_WRITES {
        rig.run(&cdb(opcode, 0x10, 0, 1), &[0; BLOCK]).good();
        assert_eq!(rig.steps, [Step::Write { span, durable: false, verify: false }], "DPO");
        rig.run(&cdb(opcode, 0x18, 0, 1), &[0; BLOCK]).good();
        assert_eq!(rig.steps, [Step::Write { span, durable: true, verify: false }], "DPO, FUA");
    }
    let caching_off = [[0u8; 4].as_slice(), &[0x08, 18], &[0; 18]].concat();
    rig.run(&[0x15, 0x10, 0, 0, caching_off.len() as u8, 0], &caching_off).good();
    for opcode in WRITES {
        rig.run(&cdb(opcode, 0, 0, 1), &[0; BLOCK]).good();
        assert_eq!(rig.steps, [Step::Write { span, durable: true, verify: false }], "WCE 0");
    }
    for opcode in LONG_READS {
        rig.run(&cdb(opcode, 0x18, 0, 1), &[]).good();
    }
}

#[test]
fn a_read_only_unit_reads_and_refuses_every_write() {
    let mut rig = Rig::with(backstore_api::Geometry { read_only: true, ..geometry() }, 512);
    rig.run(&cdb(0x28, 0, 0, 1), &[]).good();
    let mut unmap = cdb_10(0x42, 0, 0, 24);
    unmap[2..6].fill(0);
    let others = [cdb_10(0x41, 0, 0, 1), cdb_10(0x41, 8, 0, 1), cdb_10(0x2E, 0, 0, 1), unmap];
    for cdb in WRITES.map(|opcode| cdb(opcode, 0, 0, 1)).into_iter().chain(others.map(Vec::from)) {
        let refused = rig.run(&cdb, &[0; BLOCK]).refused();
        assert_eq!(refused, (SenseKey::DataProtect, 0x2700), "{cdb:02x?}");
    }
}

#[test]
fn store_errors_become_sense() {
    let cases = [
        (StoreError::Medium { offset: 1536 }, SenseKey::MediumError, 0x1100, 0x0C00),
        (StoreError::NoSpace, SenseKey::DataProtect, 0x2707, 0x2707),
        (StoreError::Gone, SenseKey::NotReady, 0x0400, 0x0400),
        (StoreError::Latched, SenseKey::MediumError, 0x0C00, 0x0C00),
        (StoreError::ReadOnly, SenseKey::DataProtect, 0x2700, 0x2700),
        (StoreError::OutOfRange { bytes: 1536 }, SenseKey::IllegalRequest, 0x2100, 0x2100),
        (StoreError::Other(22), SenseKey::HardwareError, 0x4400, 0x4400),
    ];
    let mut rig = Rig::new();
    for (error, key, reading, writing) in cases {
        let information = matches!(error, StoreError::Medium { .. } | StoreError::OutOfRange { .. }).then_some(3);
        for (opcode, asc) in [(0x28, reading), (0x2A, writing)] {
            rig.fault = Some(error);
            let sense = rig.run(&cdb(opcode, 0, 3, 1), &[0; BLOCK]).sense();
            assert_eq!((sense.key, sense.asc, sense.information), (key, asc, information), "{error}");
        }
    }
}

#[test]
fn blocks_of_4096_bytes_are_counted_as_such() {
    let mut rig = Rig::with(geometry(), 4096);
    rig.run(&cdb(0x28, 0, 511, 1), &[]).good();
    assert_eq!(rig.steps, [Step::Read { span: Span { offset: 511 * 4096, length: 4096 } }]);
    assert_eq!(rig.run(&cdb(0x28, 0, 512, 1), &[]).refused(), (ILLEGAL, 0x2100));
}

#[test]
fn data_out_that_ends_too_early_aborts_the_write() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(&cdb(0x2A, 0, 0, 2), &[0; BLOCK]).refused(), (SenseKey::AbortedCommand, 0x0C0D));
}

#[test]
fn plain_transfers_may_take_the_short_way() {
    let rig = Rig::with(backstore_api::Geometry { bytes: 1 << 30, ..geometry() }, 512);
    let span = Span { offset: 5 * BLOCK as u64, length: 3 * BLOCK as u32 };
    for (opcodes, writes) in [(READS, false), (WRITES, true)] {
        for opcode in opcodes {
            let short = rig.short(&cdb(opcode, 0, 5, 3)).expect("nothing stands in its way");
            assert_eq!((short.span, short.writes()), (span, writes), "{opcode:02x}h");
        }
    }
    // In six bytes, address bits lie where others have FUA.
    assert_eq!(rig.short(&[0x0A, 8, 0, 0, 1, 0]).map(|short| short.span.offset), Some(0x8_0000 * BLOCK as u64));
    let most = rig.unit.max_transfer() / 512;
    let last = (rig.unit.blocks() - 1) as u32;
    for (why, cdb) in [
        ("protection information", cdb_10(0x28, 0x20, 0, 1)),
        ("a reserved bit", cdb_10(0x28, 1, 0, 1)),
        ("nothing to move", cdb_10(0x2A, 0, 0, 0)),
        ("beyond the end", cdb_10(0x28, 0, last, 2)),
        ("another command", cdb_10(0x2E, 0, 0, 1)),
    ] {
        assert!(rig.short(&cdb).is_none(), "{why}");
    }
    assert!(rig.short(&cdb_16(0x88, 0, 0, most)).is_some() && rig.short(&cdb_16(0x88, 0, 0, most + 1)).is_none());
}

#[test]
fn what_is_to_be_said_first_takes_the_long_way() {
    let (read, write) = (cdb_10(0x28, 0, 0, 1), cdb_10(0x2A, 0, 0, 1));
    let mut rig = Rig::fresh(geometry(), 512);
    assert!(rig.short(&read).is_none(), "power on");
    rig.run(&[0; 6], &[]).refused();
    assert!(rig.short(&read).is_some());
    // What others have changed is not known before the long way has looked.
    rig.unit.reset();
    assert!(rig.short(&read).is_none(), "a reset");
    rig.run(&[0; 6], &[]).refused();
    assert!(rig.short(&read).is_some());
    let protected = Rig::with(backstore_api::Geometry { read_only: true, ..geometry() }, 512);
    assert!(protected.short(&read).is_some() && protected.short(&write).is_none());
    // Stopped.
    rig.run(&[0x1B, 0, 0, 0, 0, 0], &[]).good();
    rig.run(&read, &[]).refused();
    assert!(rig.short(&read).is_none());
    // In a low power condition, which the long way ends.
    rig.run(&[0x1B, 0, 0, 0, 1, 0], &[]).good();
    rig.run(&[0x1B, 0, 0, 0, 0x20, 0], &[]).good();
    rig.run(&[0; 6], &[]).good();
    assert!(rig.short(&read).is_none());
    rig.run(&read, &[]).good();
    rig.run(&[0; 6], &[]).good();
    assert!(rig.short(&read).is_some());
}
