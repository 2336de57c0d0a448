//! READ CAPACITY.

use crate::rig::*;
use backstore_api::Geometry;

fn capacity_16(rig: &mut Rig, length: u32) -> Vec<u8> {
    let mut cdb = [0u8; 16];
    cdb[..2].copy_from_slice(&[0x9E, 0x10]);
    cdb[10..14].copy_from_slice(&length.to_be_bytes());
    rig.run(&cdb, &[]).good()
}

#[test]
fn both_give_the_last_block_and_its_size() {
    let mut rig = Rig::new();
    let last = (BLOCKS - 1).to_be_bytes();
    let data = rig.run(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(data, [&last[4..], &512u32.to_be_bytes()].concat());
    let data = capacity_16(&mut rig, 32);
    assert_eq!(data.len(), 32);
    assert_eq!(data[..8], last);
    assert_eq!(data[8..12], 512u32.to_be_bytes());
    assert_eq!(data[12..16], [0, 3, 0xC0, 0], "8 blocks per physical block, LBPME, LBPRZ");
}

#[test]
fn ten_bytes_send_large_units_to_sixteen() {
    let mut rig = Rig::with(Geometry { bytes: 1 << 50, ..geometry() }, 4096);
    let data = rig.run(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(data[..4], [0xFF; 4]);
    let data = capacity_16(&mut rig, 32);
    assert_eq!(data[..8], ((1u64 << 38) - 1).to_be_bytes());
    assert_eq!(data[13], 0);
}

#[test]
fn every_allocation_length_is_good() {
    let mut rig = Rig::new();
    for length in 0..40 {
        assert_eq!(capacity_16(&mut rig, length).len(), length.min(32) as usize);
    }
}

#[test]
fn a_thick_store_has_no_provisioning_bits() {
    let thick = Geometry { discard_granularity: 0, ..geometry() };
    assert_eq!(capacity_16(&mut Rig::with(thick, 512), 32)[14], 0);
    let unsure = Geometry { discard_zeroes: false, ..geometry() };
    assert_eq!(capacity_16(&mut Rig::with(unsure, 512), 32)[14], 0x80);
}

#[test]
fn an_unknown_service_action_is_an_invalid_field() {
    let mut rig = Rig::new();
    let mut cdb = [0u8; 16];
    cdb[..2].copy_from_slice(&[0x9E, 0x1F]);
    assert_eq!(rig.run(&cdb, &[]).sense(), scsi::Sense::field_in_cdb(1, Some(4)));
}
