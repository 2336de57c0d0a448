//! REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS.

use crate::rig::*;
use backstore_api::Geometry;

fn report(rig: &mut Rig, options: u8, opcode: u8, action: u16) -> Answer {
    let [high, low] = action.to_be_bytes();
    rig.run(&[0xA3, 0x0C, options, opcode, high, low, 0, 0, 0xFF, 0xFF, 0, 0], &[])
}

/// All commands: (opcode, service action).
fn commands(rig: &mut Rig) -> Vec<(u8, Option<u16>)> {
    let data = report(rig, 0, 0, 0).good();
    assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, data.len() - 4);
    data[4..].chunks(8).map(|d| (d[0], (d[5] & 1 != 0).then_some(u16::from_be_bytes([d[2], d[3]])))).collect()
}

#[test]
fn each_listed_command_is_found_alone_and_only_in_its_form() {
    let mut rig = Rig::new();
    let commands = commands(&mut rig);
    assert_eq!(commands.len(), 82);
    for (opcode, action) in commands {
        let (right, wrong) = if action.is_some() { (2, 1) } else { (1, 2) };
        let number = action.unwrap_or(0);
        assert_eq!(report(&mut rig, wrong, opcode, number).refused(), (ILLEGAL, 0x2400));
        for options in [right, 3] {
            let data = report(&mut rig, options, opcode, number).good();
            assert_eq!(data[1], 3, "{opcode:02x}h");
            let length = usize::from(u16::from_be_bytes([data[2], data[3]]));
            assert_eq!(data.len(), 4 + length);
            assert_eq!(data[4], opcode);
        }
        let data = report(&mut rig, 0x80 | right, opcode, number).good();
        assert_eq!(data[1], 0x83);
        assert_eq!(data[data.len() - 12..][..2], [0, 10], "timeouts");
        assert_ne!(data[data.len() - 4..], [0; 4]);
    }
}

#[test]
fn timeouts_follow_each_command_when_asked_for() {
    let mut rig = Rig::new();
    let count = commands(&mut rig).len();
    let data = report(&mut rig, 0x80, 0, 0).good();
    assert_eq!(data.len(), 4 + count * 20);
    for descriptor in data[4..].chunks(20) {
        assert_eq!(descriptor[5] & 2, 2, "CTDP");
        assert_eq!(descriptor[8..10], [0, 10]);
    }
}

#[test]
fn what_is_not_supported_is_said_so() {
    let mut rig = Rig::new();
    for (options, opcode, action) in [(1, 0x3E, 0), (3, 0x3E, 0), (2, 0x9E, 0x1F), (2, 0x3F, 0), (3, 0x28, 1)] {
        assert_eq!(report(&mut rig, options, opcode, action).good(), [0, 1, 0, 0]);
    }
    for options in 4..8 {
        assert_eq!(report(&mut rig, options, 0x28, 0).refused(), (ILLEGAL, 0x2400));
    }
}

#[test]
fn a_thick_unit_lists_no_unmap() {
    let mut rig = Rig::with(Geometry { discard_granularity: 0, ..geometry() }, 512);
    assert!(!commands(&mut rig).contains(&(0x42, None)));
    assert_eq!(report(&mut rig, 1, 0x42, 0).good(), [0, 1, 0, 0]);
    assert!(commands(&mut Rig::new()).contains(&(0x42, None)));
}

#[test]
fn dispatch_and_report_agree_on_every_opcode() {
    let mut rig = Rig::new();
    let commands = commands(&mut rig);
    for opcode in 0..=255u8 {
        let mut cdb = [0u8; 16];
        cdb[0] = opcode;
        cdb[1] = commands.iter().find(|(o, _)| *o == opcode).and_then(|(_, action)| *action).unwrap_or(0) as u8;
        let answer = rig.run(&cdb, &[0; BLOCK]);
        let unknown = answer.sense.is_some_and(|s| (s.key, s.asc) == (ILLEGAL, 0x2000));
        let listed = commands.iter().any(|(listed, _)| *listed == opcode);
        assert_eq!(unknown, !listed, "{opcode:02x}h");
        // START STOP UNIT was among them.
        rig.run(&[0x1B, 0, 0, 0, 1, 0], &[]).good();
    }
}

#[test]
fn bits_outside_the_usage_data_are_refused_bits_inside_are_looked_at() {
    let mut rig = Rig::new();
    for (opcode, action) in commands(&mut rig) {
        let form = if action.is_some() { 2 } else { 1 };
        let usage = report(&mut rig, form, opcode, action.unwrap_or(0)).good()[4..].to_vec();
        let first = if action.is_some() { 16 } else { 8 };
        for bit in first..usage.len() * 8 {
            let (byte, mask) = (bit / 8, 0x80u8 >> (bit % 8));
            if usage[byte] & mask != 0 || (byte == 1 && action.is_some() && mask < 0x20) {
                continue;
            }
            let mut cdb = [0u8; 16];
            cdb[0] = opcode;
            cdb[1] = action.unwrap_or(0) as u8;
            cdb[byte] |= mask;
            let sense = rig.run(&cdb, &[]).sense();
            let expected = scsi::Sense::field_in_cdb(byte as u16, Some(7 - (bit % 8) as u8));
            assert_eq!(sense, expected, "{opcode:02x}h byte {byte} bit {bit}");
        }
    }
}

#[test]
fn task_management_functions_are_reported() {
    let mut rig = Rig::new();
    let cdb = |repd| [0xA3, 0x0D, repd, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    assert_eq!(rig.run(&cdb(0), &[]).good(), [0xDA, 0, 0, 0]);
    let data = rig.run(&cdb(0x80), &[]).good();
    assert_eq!((data.len(), data[3]), (16, 12));
}

#[test]
fn what_is_not_there_is_refused_as_it_is_reported() {
    let mut rig = Rig::new();
    // READ LONG and WRITE LONG of 10 bytes; WRITE LONG of 16, with COR_DIS, WR_UNCOR and PBLOCK too.
    for (opcode, byte_1) in [(0x3E, 0), (0x3F, 0), (0x9F, 0x11), (0x3F, 0x80), (0x3F, 0x40), (0x9F, 0x51), (0x9F, 0xF1)]
    {
        let mut cdb = [0u8; 16];
        (cdb[0], cdb[1]) = (opcode, byte_1);
        assert_eq!(rig.run(&cdb, &[]).sense(), scsi::Sense::illegal(0x2000), "{opcode:02x}h");
        assert_eq!(report(&mut rig, 1, opcode, 0).good()[1] & 7, 1, "{opcode:02x}h is not supported");
    }
    // READ LONG of 16 bytes; REPORT and SET PRIORITY: other service actions of the opcode are there.
    for (opcode, action) in [(0x9E, 0x11), (0xA3, 0x0E), (0xA4, 0x0E)] {
        let mut cdb = [0u8; 16];
        (cdb[0], cdb[1]) = (opcode, action);
        assert_eq!(rig.run(&cdb, &[]).sense(), scsi::Sense::field_in_cdb(1, Some(4)), "{opcode:02x}h/{action:02x}h");
        assert_eq!(report(&mut rig, 3, opcode, action.into()).good()[1] & 7, 1, "{opcode:02x}h/{action:02x}h");
    }
}
