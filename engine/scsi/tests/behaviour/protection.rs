//! Protection information: what the unit says of it, and what commands ask for.

use crate::rig::*;
use backstore_api::{Checks, Protection, Repeated, StoreError, Tag};
use scsi::{Identity, LogicalUnit, Moving, Nexus, Profile, Sense, SenseKey, Span, Step};

fn formatted(protection: Option<Protection>) -> Rig {
    let mut rig = Rig::new();
    let profile = Profile { protection, ..Profile::new(Identity::from_name("iqn.2026-01.io.ringlun:p"), 512) };
    rig.unit = LogicalUnit::new(profile, geometry());
    rig.nexus = Nexus::new(&rig.unit, 1, path(1));
    rig.run(&[0; 6], &[]).refused();
    rig
}

const TYPES: [Protection; 3] = [Protection::Type1, Protection::Type2, Protection::Type3];

fn all(application: Option<(u16, u16)>, reference: Option<u32>) -> Checks {
    Checks { block_size: 512, guard: true, application, reference }
}

/// A CDB of 32 bytes.
fn long(action: u16, flags: u8, lba: u64, tags: (u32, u16, u16), blocks: u32) -> [u8; 32] {
    let mut cdb = [0; 32];
    (cdb[0], cdb[7], cdb[10]) = (0x7F, 0x18, flags);
    cdb[8..10].copy_from_slice(&action.to_be_bytes());
    cdb[12..20].copy_from_slice(&lba.to_be_bytes());
    cdb[20..24].copy_from_slice(&tags.0.to_be_bytes());
    cdb[24..26].copy_from_slice(&tags.1.to_be_bytes());
    cdb[26..28].copy_from_slice(&tags.2.to_be_bytes());
    cdb[28..].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

#[test]
fn the_unit_says_how_it_is_formatted() {
    let shown = |rig: &mut Rig| {
        let inquiry = rig.run(&[0x12, 0, 0, 0, 96, 0], &[]).good();
        let extended = rig.run(&[0x12, 1, 0x86, 0, 64, 0], &[]).good();
        let capacity = rig.run(&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], &[]).good();
        (inquiry[5] & 1, extended[4] >> 3 & 7, extended[4] & 7, capacity[12])
    };
    assert_eq!(shown(&mut Rig::new()), (0, 0, 0, 0));
    let [one, two, three] = TYPES.map(|kind| shown(&mut formatted(Some(kind))));
    assert_eq!(one, (1, 0b000, 0b101, 0b0001));
    assert_eq!(two, (1, 0b010, 0b111, 0b0011));
    assert_eq!(three, (1, 0b100, 0b100, 0b0101));
}

#[test]
fn the_field_chooses_what_is_checked() {
    let checks = [
        (1, all(None, Some(40))),
        (2, Checks { guard: false, ..all(None, Some(40)) }),
        (3, Checks::none(512)),
        (4, all(None, None)),
        (5, all(None, Some(40))),
    ];
    let span = Span { offset: 40 * 512, length: 3 * 512 };
    let mut rig = formatted(Some(Protection::Type1));
    for (field, checks) in checks {
        let moved = |rig: &mut Rig, cdb: &[u8], moving| {
            rig.run(cdb, &[]).good();
            assert_eq!(rig.steps, [Step::MoveTuples { span, moving, checks }]);
        };
        let lazy = Moving::Write { durable: false, verify: false };
        let strict = Moving::Write { durable: true, verify: true };
        moved(&mut rig, &cdb_10(0x28, field << 5, 40, 3), Moving::Read);
        moved(&mut rig, &cdb_12(0xA8, field << 5, 40, 3), Moving::Read);
        moved(&mut rig, &cdb_16(0x88, field << 5 | 0x18, 40, 3), Moving::Read);
        moved(&mut rig, &cdb_10(0x2A, field << 5, 40, 3), lazy);
        moved(&mut rig, &cdb_12(0xAA, field << 5, 40, 3), lazy);
        moved(&mut rig, &cdb_16(0x8A, field << 5 | 8, 40, 3), Moving::Write { durable: true, verify: false });
        moved(&mut rig, &cdb_10(0x2E, field << 5, 40, 3), strict);
        moved(&mut rig, &cdb_16(0x8F, field << 5, 40, 3), Moving::Check);
        moved(&mut rig, &cdb_16(0x8F, field << 5 | 2, 40, 3), Moving::Compare);
        assert_eq!(rig.run(&cdb_16(0x8F, field << 5 | 6, 40, 3), &[]).refused(), (ILLEGAL, 0x2400));
    }
    for field in [6, 7] {
        assert_eq!(rig.run(&cdb_10(0x28, field << 5, 40, 3), &[]).refused(), (ILLEGAL, 0x2400));
    }
    let mut third = formatted(Some(Protection::Type3));
    third.run(&cdb_10(0x28, 1 << 5, 40, 3), &[]).good();
    assert_eq!(third.steps, [Step::MoveTuples { span, moving: Moving::Read, checks: all(None, None) }]);
    // Nothing asked for: the blocks move alone.
    rig.run(&cdb_10(0x28, 0, 40, 3), &[]).good();
    assert_eq!(rig.steps, [Step::Read { span }]);
}

#[test]
fn an_unprotected_medium_has_no_tuples_to_move() {
    let mut rig = formatted(None);
    for cdb in [cdb_16(0x88, 0x20, 0, 1), cdb_16(0x8A, 0x60, 0, 1), cdb_16(0x8F, 0x80, 0, 1)] {
        assert_eq!(rig.run(&cdb, &[0; 520]).refused(), (ILLEGAL, 0x2400));
    }
    assert_eq!(rig.run(&long(9, 0x20, 0, (0, 0, 0), 1), &[]).refused(), (ILLEGAL, 0x2000));
    let report = |rig: &mut Rig| rig.run(&[0xA3, 0x0C, 1, 0x28, 0, 0, 0, 0, 1, 0, 0, 0], &[]).good()[5];
    assert_eq!(report(&mut rig), 0x18);
    assert_eq!(report(&mut formatted(Some(Protection::Type1))), 0xF8);
    assert_eq!(report(&mut formatted(Some(Protection::Type2))), 0x18);
}

#[test]
fn type_2_takes_its_tags_from_commands_of_32_bytes() {
    let mut rig = formatted(Some(Protection::Type2));
    assert_eq!(rig.run(&cdb_10(0x28, 0x20, 0, 1), &[]).refused(), (ILLEGAL, 0x2000));
    rig.run(&cdb_10(0x28, 0, 0, 1), &[]).good();
    let (span, tags) = (Span { offset: 9 * 512, length: 1024 }, (0xDEAD_BEEF, 0x1234, 0xFF00));
    let checks = all(Some((0x1234, 0xFF00)), Some(0xDEAD_BEEF));
    let lazy = Moving::Write { durable: false, verify: false };
    for (action, flags, moving) in [
        (9, 0x20, Moving::Read),
        (0xA, 0x20, Moving::Check),
        (0xA, 0x22, Moving::Compare),
        (0xB, 0x20, lazy),
        (0xB, 0x28, Moving::Write { durable: true, verify: false }),
        (0xC, 0x20, Moving::Write { durable: true, verify: true }),
    ] {
        rig.run(&long(action, flags, 9, tags, 2), &[]).good();
        assert_eq!(rig.steps, [Step::MoveTuples { span, moving, checks }]);
    }
    rig.run(&long(9, 0, 9, tags, 2), &[]).good();
    assert_eq!(rig.steps, [Step::Read { span }]);
    rig.run(&long(0xB, 0, 9, tags, 2), &[0; 1024]).good();
    assert_eq!(rig.steps, [Step::Write { span, durable: false, verify: false }]);
    // Beyond the medium; reserved bits; an unknown service action; too short; another type.
    assert_eq!(rig.run(&long(9, 0x20, BLOCKS, tags, 1), &[]).refused(), (ILLEGAL, 0x2100));
    let mut reserved = long(9, 0x20, 9, tags, 2);
    reserved[11] = 1;
    assert_eq!(rig.run(&reserved, &[]).refused(), (ILLEGAL, 0x2400));
    assert_eq!(rig.run(&long(0x77, 0x20, 9, tags, 2), &[]).refused(), (ILLEGAL, 0x2400));
    assert_eq!(rig.run(&long(9, 0x20, 9, tags, 2)[..16], &[]).refused(), (ILLEGAL, 0x2400));
    let mut first = formatted(Some(Protection::Type1));
    assert_eq!(first.run(&long(9, 0x20, 9, tags, 2), &[]).refused(), (ILLEGAL, 0x2000));
}

#[test]
fn a_failed_check_is_told_with_its_tag_and_block() {
    let mut rig = formatted(Some(Protection::Type1));
    for (tag, code) in [(Tag::Guard, 0x1001), (Tag::Application, 0x1002), (Tag::Reference, 0x1003)] {
        for cdb in [cdb_10(0x28, 0x20, 40, 3), cdb_10(0x28, 0, 40, 3), cdb_10(0x2A, 0x20, 40, 3)] {
            rig.fault = Some(StoreError::Protection { tag, offset: 41 * 512 });
            let sense = rig.run(&cdb, &[0; 1560]).sense();
            assert_eq!((sense.key, sense.asc), (SenseKey::AbortedCommand, code));
            assert_eq!(sense.information, Some(41));
        }
    }
}

#[test]
fn format_unit_takes_the_type_that_is_configured_and_no_other() {
    // FMTPINFO and PROTECTION FIELD USAGE.
    let kinds = [None, Some(TYPES[0]), Some(TYPES[1]), Some(TYPES[2])];
    let asked = [(0b00, 0), (0b10, 0), (0b11, 0), (0b11, 1)];
    for (at, kind) in kinds.into_iter().enumerate() {
        let mut rig = formatted(kind);
        for (other, (information, usage)) in asked.into_iter().enumerate() {
            let answer = rig.run(&[0x04, information << 6 | 0x10, 0, 0, 0, 0], &[usage, 0, 0, 0]);
            match (at == other, asked[at].0 == information) {
                (true, _) => drop(answer.good()),
                (_, true) => assert_eq!(answer.sense(), Sense::field_in_parameters(0, Some(2)), "{kind:?} to {other}"),
                (_, false) => assert_eq!(answer.sense(), Sense::field_in_cdb(1, Some(7)), "{kind:?} to {other}"),
            }
            // Without a list the usage is 000b.
            let answer = rig.run(&[0x04, information << 6, 0, 0, 0, 0], &[]);
            match at == other && usage == 0 {
                true => drop(answer.good()),
                false if (information, at) == (0b11, 2) => drop(answer.good()),
                false => assert_eq!(answer.sense(), Sense::field_in_cdb(1, Some(7)), "{kind:?} to {other}"),
            }
        }
        assert_eq!(rig.run(&[0x04, 0x40, 0, 0, 0, 0], &[]).sense(), Sense::field_in_cdb(1, Some(7)), "01b");
    }
}

#[test]
fn write_same_and_compare_and_write_take_tuples_as_their_type_has_them() {
    for kind in TYPES {
        let mut rig = formatted(Some(kind));
        let reference = (kind == Protection::Type1).then_some(7);
        let (same_10, same_16) = (cdb_10(0x41, 0x20, 7, 4), cdb_16(0x93, 0x20, 7, 4));
        let mut swap = cdb_16(0x89, 0x20, 7, 0);
        swap[13] = 2;
        for (cdb, data) in [(&same_10[..], 520), (&same_16, 520), (&swap, 4 * 520)] {
            let answer = rig.run(cdb, &vec![0; data]);
            if kind == Protection::Type2 {
                assert_eq!(answer.refused(), (ILLEGAL, 0x2000), "they have no field for the tags");
                continue;
            }
            answer.good();
            let checks = all(None, reference);
            match *rig.steps.last().expect("it is done") {
                Step::Fill { offset, length, tuple, .. } => {
                    assert_eq!((offset, length), (7 * 512, 4 * 512));
                    assert_eq!(tuple, Some(Repeated { checks, from: 7 * 512 }));
                }
                Step::Swap { span, checks: is, .. } => {
                    assert_eq!((span, is), (Span { offset: 7 * 512, length: 1024 }, Some(checks)));
                }
                step => panic!("{step:?}"),
            }
        }
        // NDOB: no block comes, and no tuple.
        let zeroes = rig.run(&cdb_16(0x93, 0x01, 7, 4), &[]);
        zeroes.good();
        let mut same_32 = long(0x0D, 0x20, 7, (500, 0x1234, 0xFFFF), 4);
        let answer = rig.run(&same_32, &[0; 520]);
        if kind != Protection::Type2 {
            assert_eq!(answer.refused().0, ILLEGAL);
            continue;
        }
        answer.good();
        let checks = all(Some((0x1234, 0xFFFF)), Some(500));
        let tuple = Some(Repeated { checks, from: 7 * 512 });
        assert!(matches!(rig.steps.last(), Some(Step::Fill { tuple: is, .. }) if *is == tuple));
        // UNMAP of zeroes without a tuple; ANCHOR where there is none.
        same_32[10] = 0x08;
        rig.run(&same_32, &[0; 512]).good();
        assert!(matches!(rig.steps.last(), Some(Step::Zero { unmap: true, .. })));
        same_32[10] = 0x18;
        assert_eq!(rig.run(&same_32, &[0; 512]).sense(), Sense::field_in_cdb(10, Some(4)));
    }
    let mut bare = formatted(None);
    assert_eq!(bare.run(&cdb_16(0x93, 0x20, 7, 4), &[0; 520]).sense(), Sense::field_in_cdb(1, Some(5)));
    assert_eq!(bare.run(&cdb_16(0x89, 0x60, 7, 0), &[]).sense(), Sense::field_in_cdb(1, Some(6)));
    let most = |rig: &mut Rig| rig.run(&[0x12, 1, 0xB0, 0, 64, 0], &[]).good()[5];
    assert_eq!((most(&mut bare), most(&mut formatted(Some(TYPES[0])))), (255, 252));
}
