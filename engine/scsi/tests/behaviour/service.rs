//! Buffers, diagnostics, identifying information, the clock, lists of defects.

use crate::rig::*;
use backstore_api::{Geometry, StoreError};
use scsi::{Nexus, Sense, SenseKey, Span, Step};
use std::time::Duration;

fn write_buffer(rig: &mut Rig, mode: u8, id: u8, offset: u16, data: &[u8]) -> Answer {
    let ([a, b], [c, d]) = (offset.to_be_bytes(), (data.len() as u16).to_be_bytes());
    rig.run(&[0x3B, mode, id, 0, a, b, 0, c, d, 0], data)
}

fn read_buffer(rig: &mut Rig, mode: u8, offset: u16, length: u16) -> Answer {
    let ([a, b], [c, d]) = (offset.to_be_bytes(), length.to_be_bytes());
    rig.run(&[0x3C, mode, 0, 0, a, b, 0, c, d, 0], &[])
}

#[test]
fn the_echo_buffer_gives_back_what_its_own_nexus_wrote() {
    let mut rig = Rig::new();
    assert_eq!(read_buffer(&mut rig, 0x0B, 0, 4).good(), [1, 0, 0x10, 0], "EBOS, 4096 bytes");
    assert_eq!(read_buffer(&mut rig, 0x0A, 0, 64).refused(), (ILLEGAL, 0x2C00), "nothing was written");
    write_buffer(&mut rig, 0x0A, 0, 0, b"echo").good();
    assert_eq!(read_buffer(&mut rig, 0x0A, 0, 64).good(), b"echo");
    assert_eq!(read_buffer(&mut rig, 0x0A, 0, 2).good(), b"ec");
    let other = Nexus::new(&rig.unit, 2, path(2));
    let first = std::mem::replace(&mut rig.nexus, other);
    rig.run(&[0; 6], &[]);
    assert_eq!(read_buffer(&mut rig, 0x0A, 0, 64).refused(), (ILLEGAL, 0x2C00));
    rig.nexus = first;
    assert_eq!(read_buffer(&mut rig, 0x0A, 0, 64).good(), b"echo");
    write_buffer(&mut rig, 0x0A, 0, 0, &[7; 4096]).good();
    assert_eq!(read_buffer(&mut rig, 0x0A, 0, 5000).good(), [7; 4096]);
    assert_eq!(write_buffer(&mut rig, 0x0A, 0, 0, &[7; 4097]).sense(), Sense::field_in_cdb(6, None));
}

#[test]
fn the_data_buffer_holds_what_was_written_where_it_was_written() {
    let mut rig = Rig::new();
    assert_eq!(read_buffer(&mut rig, 0x03, 0, 4).good(), [2, 1, 0, 0], "offsets of four, 65536 bytes");
    assert_eq!(rig.run(&[0x3C, 3, 1, 0, 0, 0, 0, 0, 4, 0], &[]).good(), [0; 4], "no such buffer");
    assert_eq!(read_buffer(&mut rig, 0x02, 0xFFF0, 100).good(), [0; 16], "empty at first, and not longer than it is");
    write_buffer(&mut rig, 0x02, 0, 0x100, b"data").good();
    assert_eq!(read_buffer(&mut rig, 0x02, 0xFC, 12).good(), b"\0\0\0\0data\0\0\0\0");
    assert_eq!(write_buffer(&mut rig, 0x02, 1, 0, b"x").sense(), Sense::field_in_cdb(2, None));
    assert_eq!(write_buffer(&mut rig, 0x02, 0, 2, b"x").sense(), Sense::field_in_cdb(3, None));
    assert_eq!(write_buffer(&mut rig, 0x02, 0, 0xFFFC, &[0; 5]).sense(), Sense::field_in_cdb(6, None));
    assert_eq!(rig.run(&[0x3B, 2, 0, 2, 0, 0, 0, 0, 4, 0], &[0; 4]).sense(), Sense::field_in_cdb(3, None));
    write_buffer(&mut rig, 0x02, 0, 0, &[]).good();
}

#[test]
fn microcode_and_other_modes_are_refused() {
    let mut rig = Rig::new();
    for mode in (0..0x20).filter(|mode| ![0x02, 0x0A].contains(mode)) {
        assert_eq!(write_buffer(&mut rig, mode, 0, 0, b"code").sense(), Sense::field_in_cdb(1, Some(4)));
    }
    for mode in (0..0x20).filter(|mode| ![0x02, 0x03, 0x0A, 0x0B].contains(mode)) {
        assert_eq!(read_buffer(&mut rig, mode, 0, 4).sense(), Sense::field_in_cdb(1, Some(4)));
    }
}

#[test]
fn self_tests_read_the_medium() {
    let mut rig = Rig::new();
    rig.run(&[0x1D, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(rig.steps, [], "nothing was asked for");
    for byte_1 in [0x04, 0xA0] {
        rig.run(&[0x1D, byte_1, 0, 0, 0, 0], &[]).good();
        assert_eq!(rig.steps, [Step::Check { span: Span { offset: 0, length: 1 << 20 } }]);
    }
    rig.run(&[0x1D, 0xC0, 0, 0, 0, 0], &[]).good();
    let read: u64 =
        rig.steps.iter().map(|step| if let Step::Check { span } = step { span.length.into() } else { 0 }).sum();
    assert_eq!(read, BLOCKS * BLOCK as u64, "the extended one reads all");
    rig.fault = Some(StoreError::Medium { offset: 0 });
    assert_eq!(rig.run(&[0x1D, 0x04, 0, 0, 0, 0], &[]).refused(), (SenseKey::HardwareError, 0x3E03));
    for code in [0x20, 0x40, 0x60, 0x80, 0xE0] {
        assert_eq!(rig.run(&[0x1D, code, 0, 0, 0, 0], &[]).sense(), Sense::field_in_cdb(1, Some(7)));
    }
    assert_eq!(rig.run(&[0x1D, 0x24, 0, 0, 0, 0], &[]).sense(), Sense::field_in_cdb(1, Some(2)));
    let mut small = Rig::with(Geometry { bytes: 4096, ..geometry() }, 512);
    small.run(&[0x1D, 0x04, 0, 0, 0, 0], &[]).good();
    assert_eq!(small.steps, [Step::Check { span: Span { offset: 0, length: 4096 } }]);
}

#[test]
fn the_one_diagnostic_page_lists_itself() {
    let mut rig = Rig::new();
    let page = [0, 0, 0, 1, 0];
    rig.run(&[0x1D, 0x10, 0, 0, 4, 0], &[0; 4]).good();
    assert_eq!(rig.run(&[0x1C, 0, 0, 0, 64, 0], &[]).good(), page);
    assert_eq!(rig.run(&[0x1C, 1, 0, 0, 64, 0], &[]).good(), page);
    assert_eq!(rig.run(&[0x1C, 1, 0x40, 0, 64, 0], &[]).sense(), Sense::field_in_cdb(2, None));
    assert_eq!(rig.run(&[0x1D, 0x10, 0, 0, 4, 0], &[0x40, 0, 0, 0]).sense(), Sense::field_in_parameters(0, None));
    assert_eq!(rig.run(&[0x1D, 0x10, 0, 0, 4, 0], &[0, 0, 0, 4]).sense(), Sense::field_in_parameters(2, None));
    assert_eq!(rig.run(&[0x1D, 0x10, 0, 0, 3, 0], &[0; 3]).refused(), (ILLEGAL, 0x1A00));
    assert_eq!(rig.run(&[0x1D, 0x00, 0, 0, 4, 0], &[0; 4]).sense(), Sense::field_in_cdb(1, Some(4)), "PF");
    assert_eq!(rig.run(&[0x1D, 0x14, 0, 0, 4, 0], &[0; 4]).sense(), Sense::field_in_cdb(3, None), "SELFTEST");
}

fn set_information(rig: &mut Rig, kind: u8, data: &[u8]) -> Answer {
    let [high, low] = (data.len() as u16).to_be_bytes();
    rig.run(&[0xA4, 0x06, 0, 0, 0, 0, 0, 0, high, low, kind << 1, 0], data)
}

fn information(rig: &mut Rig, kind: u8) -> Answer {
    rig.run(&[0xA3, 0x05, 0, 0, 0, 0, 0, 0, 2, 0, kind << 1, 0], &[])
}

#[test]
fn identifying_information_is_kept_and_the_others_hear_of_it() {
    let mut rig = Rig::new();
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    assert_eq!(information(&mut rig, 0x7F).good(), [0, 0, 0, 8, 0, 0, 0, 64, 4, 0, 1, 0]);
    for kind in [0, 2] {
        assert_eq!(information(&mut rig, kind).good(), [0; 4]);
    }
    set_information(&mut rig, 0, b"\xff\x00shelf 3").good();
    set_information(&mut rig, 2, "Datenbank für Köln\0".as_bytes()).good();
    assert_eq!(information(&mut rig, 0).good(), b"\x00\x00\x00\x09\xff\x00shelf 3");
    assert_eq!(information(&mut rig, 2).good()[4..], *"Datenbank für Köln\0".as_bytes());
    rig.run(&[0; 6], &[]).good();
    std::mem::swap(&mut rig.nexus, &mut other);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2900));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x3F05));
    set_information(&mut rig, 0, b"").good();
    assert_eq!(information(&mut rig, 0).good(), [0; 4]);
    assert_eq!(set_information(&mut rig, 0, &[1; 65]).sense(), Sense::field_in_cdb(6, None));
    assert_eq!(set_information(&mut rig, 2, b"no end").sense(), Sense::field_in_parameters(0, None));
    assert_eq!(set_information(&mut rig, 2, b"\xff\0").sense(), Sense::field_in_parameters(0, None));
    assert_eq!(set_information(&mut rig, 1, b"x").sense(), Sense::field_in_cdb(10, Some(7)));
    assert_eq!(information(&mut rig, 1).sense(), Sense::field_in_cdb(10, Some(7)));
}

/// TIMESTAMP ORIGIN and TIMESTAMP.
fn timestamp(rig: &mut Rig) -> (u8, u64) {
    let data = rig.run(&[0xA3, 0x0F, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], &[]).good();
    assert_eq!(data[..2], [0, 10]);
    (data[2], u64::from_be_bytes([&[0; 2], &data[4..10]].concat().try_into().unwrap()))
}

#[test]
fn the_clock_runs_from_what_it_was_set_to() {
    let mut rig = Rig::new();
    rig.now = Duration::from_secs(5);
    assert_eq!(timestamp(&mut rig), (0, 5000), "since start");
    let set = [0xA4, 0x0F, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0];
    rig.run(&set, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).good();
    rig.now = Duration::from_millis(7500);
    assert_eq!(timestamp(&mut rig), (2, 65536 + 2500));
    let other = Nexus::new(&rig.unit, 2, path(2));
    let mut first = std::mem::replace(&mut rig.nexus, other);
    rig.run(&[0; 6], &[]);
    rig.run(&set, &[0; 12]).good();
    std::mem::swap(&mut rig.nexus, &mut first);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2A10));
    assert_eq!(rig.run(&[0xA4, 0x0F, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0], &[0; 11]).refused(), (ILLEGAL, 0x1A00));
    rig.run(&[0xA4, 0x0F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
}

#[test]
fn a_clock_that_the_host_knows_tells_the_time() {
    let mut rig = Rig::new();
    let identity = rig.unit.identity().clone();
    let clock_zero = Duration::from_secs(1_700_000_000);
    rig.unit = scsi::LogicalUnit::new(scsi::Profile { clock_zero, ..scsi::Profile::new(identity, 512) }, geometry());
    rig.now = Duration::from_secs(1);
    assert_eq!(timestamp(&mut rig), (3, 1_700_000_001_000));
}

#[test]
fn there_are_no_defects() {
    let mut rig = Rig::new();
    for lists in [0x00, 0x08, 0x18, 0x1D] {
        assert_eq!(rig.run(&[0x37, 0, lists, 0, 0, 0, 0, 0, 64, 0], &[]).good(), [0, lists, 0, 0]);
        let cdb = [0xB7, lists, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
        assert_eq!(rig.run(&cdb, &[]).good(), [0, lists, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(rig.run(&[0x37, 0, 0x18, 0, 0, 0, 0, 0, 2, 0], &[]).good().len(), 2);
}
