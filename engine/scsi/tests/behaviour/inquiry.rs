//! INQUIRY, its vital product data, REPORT LUNS and REQUEST SENSE.

use crate::rig::*;
use backstore_api::Geometry;
use scsi::{Identity, LogicalUnit, Profile, Sense};

fn vpd(rig: &mut Rig, page: u8) -> Vec<u8> {
    let data = rig.run(&[0x12, 1, page, 0xFF, 0xFF, 0], &[]).good();
    assert_eq!(data[1], page);
    assert_eq!(usize::from(u16::from_be_bytes([data[2], data[3]])), data.len() - 4);
    data
}

#[test]
fn standard_data_says_what_it_is() {
    let data = Rig::new().run(&[0x12, 0, 0, 1, 4, 0], &[]).good();
    assert_eq!(data.len(), usize::from(data[4]) + 5);
    assert_eq!(data[..3], [0x00, 0x00, 0x06]);
    assert_eq!(data[3] & 0xCF, 0x02, "response data format 2");
    assert_eq!(data[7] & 0x02, 0x02, "CMDQUE");
    assert_eq!(&data[8..36], b"RINGLUN DISK            0001");
    let versions: Vec<u16> = data[58..74].chunks(2).map(|v| u16::from_be_bytes([v[0], v[1]])).collect();
    assert_eq!(versions, [0x00A0, 0x0960, 0x0460, 0x04C0, 0, 0, 0, 0]);
}

#[test]
fn identity_strings_are_padded_cut_and_printable() {
    let identity = Identity {
        vendor: "A\u{7f}C".into(),
        product: "a product name that is too long".into(),
        revision: String::new(),
        serial: "x".repeat(400),
        name: "not an iqn".into(),
        naa: 0x6123_4567_89AB_CDEF,
        naa_extension: Some(0x42),
    };
    let mut rig = Rig::new();
    rig.unit = LogicalUnit::new(Profile::new(identity, 512), geometry());
    let data = rig.run(&[0x12, 0, 0, 1, 4, 0], &[]).good();
    assert_eq!(&data[8..36], b"A C     a product name t    ");
    assert_eq!(vpd(&mut rig, 0x80).len(), 256);
    let designators = vpd(&mut rig, 0x83);
    assert!(designators.windows(36).any(|w| w == b"naa.6123456789ABCDEF0000000000000042"));
    let naa = [&0x6123_4567_89AB_CDEFu64.to_be_bytes()[..], &0x42u64.to_be_bytes()].concat();
    assert_eq!(designators[4..24], [&[0x01, 0x03, 0, 16][..], &naa].concat());
}

#[test]
fn every_allocation_length_cuts_the_same_answer() {
    let mut rig = Rig::new();
    for page in [
        None,
        Some(0x00),
        Some(0x80),
        Some(0x83),
        Some(0x86),
        Some(0x87),
        Some(0x88),
        Some(0x8F),
        Some(0xB0),
        Some(0xB1),
        Some(0xB2),
    ] {
        let cdb = |length: u16| {
            let [high, low] = length.to_be_bytes();
            [0x12, u8::from(page.is_some()), page.unwrap_or(0), high, low, 0]
        };
        let whole = rig.run(&cdb(u16::MAX), &[]).good();
        for length in 0..300u16 {
            let data = rig.run(&cdb(length), &[]).good();
            assert_eq!(data, whole[..whole.len().min(length.into())]);
        }
    }
}

#[test]
fn a_page_code_without_evpd_and_an_unknown_page_are_refused() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(&[0x12, 0, 1, 1, 0, 0], &[]).sense(), Sense::field_in_cdb(2, None));
    assert_eq!(rig.run(&[0x12, 1, 0xC0, 1, 0, 0], &[]).sense(), Sense::field_in_cdb(2, None));
    assert_eq!(rig.run(&[0x12, 2, 0, 1, 0, 0], &[]).sense(), Sense::field_in_cdb(1, Some(1)));
}

#[test]
fn page_00h_lists_the_pages_that_there_are() {
    let mut rig = Rig::new();
    let listed = vpd(&mut rig, 0)[4..].to_vec();
    assert_eq!(listed, [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8F, 0xB0, 0xB1, 0xB2]);
    for page in 0..=255u8 {
        let answer = rig.run(&[0x12, 1, page, 1, 0, 0], &[]);
        assert_eq!(answer.sense.is_none(), listed.contains(&page), "{page:02x}h");
    }
}

/// Designators of page 83h: (byte 0, byte 1, value).
fn designators(page: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let (mut rest, mut found) = (&page[4..], Vec::new());
    while let [first, second, 0, length, tail @ ..] = rest {
        let (value, next) = tail.split_at(usize::from(*length));
        found.push((*first, *second, value.to_vec()));
        rest = next;
    }
    assert!(rest.is_empty());
    found
}

#[test]
fn device_identification_names_unit_port_and_target() {
    let mut rig = Rig::new();
    let found = designators(&vpd(&mut rig, 0x83));
    let naa = Identity::from_name("iqn.2026-01.io.ringlun:db1").naa;
    assert_eq!(naa >> 60, 3);
    assert!(found.contains(&(0x01, 0x03, naa.to_be_bytes().to_vec())));
    assert!(found.contains(&(0x51, 0x94, vec![0, 0, 0, 7])), "relative target port");
    assert!(found.contains(&(0x51, 0x95, vec![0, 0, 0, 1])), "target port group");
    let t10 = found.iter().find(|(_, second, _)| *second == 0x01).unwrap();
    assert!(t10.2.starts_with(b"RINGLUN DISK            "));
    let names: Vec<_> = found.iter().filter(|(_, second, _)| second & 0xF == 8).collect();
    for (.., value) in &names {
        assert_eq!(value.len() % 4, 0);
        assert_eq!(value.last(), Some(&0));
    }
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap().trim_end_matches('\0').to_string();
    let names: Vec<_> = names.iter().map(|(first, second, value)| (*first, *second, text(value))).collect();
    assert_eq!(
        names,
        [
            (0x03, 0x08, "iqn.2026-01.io.ringlun:db1,L,0x0000000000000000".into()),
            (0x53, 0x98, "iqn.2026-01.io.ringlun:db1,t,0x0001".into()),
            (0x53, 0xA8, "iqn.2026-01.io.ringlun:db1".into()),
        ]
    );
}

#[test]
fn the_identity_follows_from_the_name_alone() {
    let (a, b) = (Identity::from_name("iqn.x:a"), Identity::from_name("iqn.x:b"));
    assert_eq!(a, Identity::from_name("iqn.x:a"));
    assert_ne!(a.naa, b.naa);
    assert_ne!(a.serial, b.serial);
    // SHA-256("abc") begins with ba7816bf 8f01cfea.
    assert_eq!(Identity::from_name("abc").naa, 0x3BA7_816B_F8F0_1CFE);
    let mut rig = Rig::new();
    let serial = vpd(&mut rig, 0x80)[4..].to_vec();
    assert_eq!(serial, rig.unit.identity().serial.as_bytes());
}

#[test]
fn block_limits_follow_the_store() {
    let be = |page: &[u8], at: usize| u32::from_be_bytes(page[at..at + 4].try_into().unwrap());
    let mut rig = Rig::new();
    let page = vpd(&mut rig, 0xB0);
    assert_eq!(page.len(), 64);
    assert_eq!(page[4], 1, "WSNZ");
    assert_eq!((be(&page, 44), be(&page, 48), be(&page, 52)), (512, 8, 8), "atomic writes of physical blocks");
    assert_eq!(page[5], 255, "COMPARE AND WRITE");
    assert_eq!(page[6..8], [0, 8], "4096 / 512");
    assert_eq!(be(&page, 8), rig.unit.max_transfer() / 512);
    assert_eq!(be(&page, 12), 2048);
    assert_eq!(be(&page, 20), 1 << 20);
    assert_eq!(be(&page, 24), 256);
    assert_eq!(be(&page, 28), 8);
    assert_eq!(be(&page, 32), 0x8000_0000);
    assert_eq!(page[36..44], 65535u64.to_be_bytes());

    let mut rig = Rig::with(Geometry { discard_granularity: 0, ..geometry() }, 4096);
    let page = vpd(&mut rig, 0xB0);
    assert_eq!(page[4], 0, "no WSNZ");
    assert_eq!(page[48..56], [0; 8], "no atomic writes, or anywhere");
    assert_eq!(page[6..8], [0, 1]);
    assert_eq!(page[20..36], [0; 16], "no UNMAP");
    assert_eq!(be(&page, 8), rig.unit.max_transfer() / 4096);
}

#[test]
fn provisioning_and_characteristics_follow_the_store() {
    let mut rig = Rig::new();
    assert_eq!(vpd(&mut rig, 0xB2)[4..], [11, 0xE4, 0x02, 0]);
    assert_eq!(vpd(&mut rig, 0xB1)[4..6], [0, 1]);
    let thick = Geometry { discard_granularity: 0, rotational: true, ..geometry() };
    let mut rig = Rig::with(thick, 512);
    assert_eq!(vpd(&mut rig, 0xB2)[4..], [0, 0, 0, 0]);
    assert_eq!(vpd(&mut rig, 0xB1)[4..6], 7200u16.to_be_bytes());
}

#[test]
fn a_lun_that_is_not_there_answers_as_such() {
    let mut rig = Rig::new();
    let data = rig.run_absent(&[0x12, 0, 0, 0, 96, 0]).good();
    assert_eq!((data[0], data.len()), (0x7F, 96));
    assert_eq!(rig.run_absent(&[0x12, 1, 0, 0, 96, 0]).refused(), (ILLEGAL, 0x2400));
    let sense = rig.run_absent(&[0x03, 0, 0, 0, 18, 0]).good();
    assert_eq!((sense[2], sense[12], sense[13]), (5, 0x25, 0));
    assert_eq!(rig.run_absent(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]).good().len(), 16);
    for cdb in [vec![0; 6], cdb_10(0x28, 0, 0, 1).to_vec(), vec![0xFF; 10]] {
        assert_eq!(rig.run_absent(&cdb).refused(), (ILLEGAL, 0x2500));
    }
}

#[test]
fn report_luns_lists_the_map_of_the_port() {
    let mut rig = Rig::new();
    for lun in [3, 300] {
        rig.port.luns.insert(lun, rig.unit.clone());
    }
    let report =
        |rig: &mut Rig, select: u8, length: u8| rig.run(&[0xA0, 0, select, 0, 0, 0, 0, 0, 0, length, 0, 0], &[]);
    let all = [0, 3, 300, scsi::WELL_KNOWN_REPORT_LUNS];
    for (select, luns) in
        [(0x00, &all[..3]), (0x01, &all[3..]), (0x02, &all[..]), (0x10, &[]), (0x11, &all[..3]), (0x12, &[])]
    {
        let data = report(&mut rig, select, 255).good();
        assert_eq!(data[..8], [0, 0, 0, luns.len() as u8 * 8, 0, 0, 0, 0]);
        let found: Vec<_> =
            data[8..].chunks(8).filter_map(|r| scsi::lun_number(u64::from_be_bytes(r.try_into().unwrap()))).collect();
        assert_eq!(found, luns, "select report {select:02x}h");
        assert_eq!(report(&mut rig, select, 20).good(), data[..data.len().min(20)]);
    }
    assert_eq!(report(&mut rig, 3, 255).sense(), Sense::field_in_cdb(2, None));
    assert_eq!(report(&mut rig, 0, 15).sense(), Sense::field_in_cdb(6, None));
}

#[test]
fn every_lun_of_a_full_map_is_reported() {
    let mut rig = Rig::new();
    for lun in 0..16384 {
        rig.port.luns.insert(lun, rig.unit.clone());
    }
    let data = rig.run(&[0xA0, 0, 0, 0, 0, 0, 0, 2, 0, 8, 0, 0], &[]).good();
    assert_eq!(data.len(), 8 + 16384 * 8);
    assert_eq!(data[data.len() - 8..], [0x7F, 0xFF, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn pages_87h_and_88h_give_the_policy_and_all_ports() {
    let mut rig = Rig::new();
    assert_eq!(vpd(&mut rig, 0x87)[4..], [0x3F, 0xFF, 0, 0]);
    let ports = vpd(&mut rig, 0x88);
    let mut rest = &ports[4..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        assert_eq!(rest[4..8], [0; 4], "no initiator port");
        let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        assert_eq!(rest[12..14], [0x53, 0x98], "a SCSI name of a target port");
        let name = String::from_utf8(rest[16..12 + length].to_vec()).unwrap();
        found.push((u16::from_be_bytes([rest[2], rest[3]]), name.trim_end_matches('\0').to_owned()));
        rest = &rest[12 + length..];
    }
    let name = |group: u16| format!("iqn.2026-01.io.ringlun:db1,t,0x{group:04x}");
    assert_eq!(found, [(7, name(1)), (300, name(2))]);
}

#[test]
fn the_well_known_unit_answers_what_it_must() {
    let mut rig = Rig::new();
    let data = rig.run_well_known(&[0x12, 0, 0, 0, 96, 0]).good();
    assert_eq!((data[0], data.len()), (0x1E, 96));
    assert_eq!(&data[8..36], b"RINGLUN DISK            0001");
    assert_eq!(rig.run_well_known(&[0x12, 1, 0, 0, 96, 0]).good(), [0x1E, 0, 0, 2, 0x00, 0x83]);
    let page = rig.run_well_known(&[0x12, 1, 0x83, 1, 0, 0]).good();
    assert!(designators(&page).iter().all(|(_, second, _)| second & 0x30 != 0), "no name of a logical unit");
    assert_eq!(rig.run_well_known(&[0x12, 1, 0x80, 1, 0, 0]).sense(), Sense::field_in_cdb(2, None));
    rig.run_well_known(&[0; 6]).good();
    assert_eq!(rig.run_well_known(&[0x03, 0, 0, 0, 18, 0]).good()[2], 0);
    assert_eq!(rig.run_well_known(&[0xA0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0]).good()[8..10], [0xC1, 0x01]);
    assert_eq!(rig.run_well_known(&[0x12, 2, 0, 0, 96, 0]).sense(), Sense::field_in_cdb(1, Some(1)));
    for cdb in [cdb_10(0x28, 0, 0, 1).to_vec(), vec![0xFF; 10], vec![0x1A, 0, 0x3F, 0, 255, 0]] {
        assert_eq!(rig.run_well_known(&cdb).refused(), (ILLEGAL, 0x2000));
    }
}

#[test]
fn request_sense_has_both_formats_and_is_cut() {
    let mut rig = Rig::new();
    let fixed = rig.run(&[0x03, 0, 0, 0, 252, 0], &[]).good();
    assert_eq!((fixed.len(), fixed[0], fixed[2], fixed[7]), (18, 0x70, 0, 10));
    let descriptor = rig.run(&[0x03, 1, 0, 0, 252, 0], &[]).good();
    assert_eq!(descriptor, [0x72, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.run(&[0x03, 0, 0, 0, 4, 0], &[]).good().len(), 4);
}
