//! Whatever comes, in whatever order: no panic, and answers that are well-formed.

use crate::rig::*;
use backstore_api::{Extent, Geometry, StoreError};
use proptest::prelude::*;
use scsi::{Command, Context, Event, LogicalUnit, Profile, Sense, SenseKey, Specific, Status, Step};

/// A CDB that often is of an existing command.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    const KNOWN: [(u8, u8); 52] = [
        (0x00, 0),
        (0x03, 0),
        (0x08, 0),
        (0x0A, 0),
        (0x12, 0),
        (0x12, 1),
        (0x15, 0x10),
        (0x1A, 0),
        (0x1A, 8),
        (0x1B, 0),
        (0x1D, 4),
        (0x1E, 0),
        (0x25, 0),
        (0x28, 0),
        (0x28, 0x18),
        (0x2A, 0),
        (0x2A, 8),
        (0x2E, 0),
        (0x2E, 2),
        (0x2F, 0),
        (0x2F, 2),
        (0x2F, 6),
        (0x35, 0),
        (0x41, 0),
        (0x41, 8),
        (0x42, 0),
        (0x55, 0x10),
        (0x5A, 0),
        (0x5A, 0x10),
        (0x83, 0),
        (0x83, 1),
        (0x83, 0x10),
        (0x83, 0x11),
        (0x84, 0),
        (0x84, 5),
        (0x84, 7),
        (0x88, 0),
        (0x8A, 0),
        (0x8E, 0),
        (0x8F, 0),
        (0x8F, 2),
        (0x91, 0),
        (0x93, 0),
        (0x93, 8),
        (0x93, 9),
        (0x9E, 0x10),
        (0x9E, 0x12),
        (0xA0, 0),
        (0xA3, 0x0C),
        (0xA3, 0x0D),
        (0xA8, 0),
        (0xAF, 0),
    ];
    let number = prop_oneof![Just(0u8), Just(0xFF), 0..16u8, any::<u8>()];
    let bytes = prop::collection::vec(number, 16);
    let zeroes = prop::collection::vec(any::<bool>(), 16);
    let known = (prop::sample::select(&KNOWN[..]), bytes, zeroes).prop_map(|((opcode, byte_1), mut cdb, keep)| {
        for (byte, keep) in cdb.iter_mut().zip(keep) {
            *byte = if keep { *byte } else { 0 };
        }
        cdb[..2].copy_from_slice(&[opcode, byte_1]);
        let length = [6, 10, 10, 16, 16, 12, 16, 16][usize::from(opcode >> 5)];
        cdb[length - 1..].fill(0);
        cdb
    });
    prop_oneof![5 => known, 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

#[derive(Clone, Debug)]
enum Happening {
    Moved,
    Miscompare(u64),
    Received(Vec<u8>),
    Stored,
    Extents(Vec<Extent>),
    Failed(StoreError),
    CopyFailed(u64, bool, u32),
    Short,
    Long,
}

impl Happening {
    fn event(&self) -> Event<'_> {
        match self {
            Happening::Moved => Event::Moved,
            Happening::Miscompare(offset) => Event::Miscompare { offset: *offset },
            Happening::Received(data) => Event::Received(data),
            Happening::Stored => Event::Stored,
            Happening::Extents(extents) => Event::Extents(extents),
            Happening::Failed(error) => Event::Failed(*error),
            Happening::CopyFailed(offset, reading, moved) => {
                Event::CopyFailed { error: StoreError::Medium { offset: *offset }, reading: *reading, moved: *moved }
            }
            Happening::Short => Event::Short,
            Happening::Long => Event::Long,
        }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    let extent = (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(offset, length, mapped)| Extent {
        offset,
        length,
        mapped,
    });
    prop_oneof![
        Just(Happening::Moved),
        any::<u64>().prop_map(Happening::Miscompare),
        prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..600).prop_map(Happening::Received),
        Just(Happening::Stored),
        prop::collection::vec(extent, 0..4).prop_map(Happening::Extents),
        any::<u64>().prop_map(|offset| Happening::Failed(StoreError::Medium { offset })),
        any::<(u64, bool, u32)>().prop_map(|(offset, reading, moved)| Happening::CopyFailed(offset, reading, moved)),
        Just(Happening::Short),
        Just(Happening::Long),
    ]
}

/// What holds for every step.
fn check(step: &Step, unit: &LogicalUnit, scratch: &[u8]) {
    let bytes = unit.blocks() * u64::from(unit.block_size());
    let inside = |offset: u64, length: u64| {
        assert!(length > 0 && offset < bytes && length <= bytes - offset, "{step:?}");
        assert_eq!((offset | length) % u64::from(unit.block_size()), 0, "{step:?}");
    };
    match step {
        Step::Read { span }
        | Step::Write { span, .. }
        | Step::Compare { span, .. }
        | Step::Check { span }
        | Step::MoveTuples { span, .. } => {
            inside(span.offset, span.length.into());
            assert!(span.length <= unit.max_transfer());
        }
        Step::Merge { span, .. } => {
            inside(span.offset, span.length.into());
            assert!(span.length <= 8 << 20);
        }
        Step::Put { span, .. } => {
            inside(span.offset, span.length.into());
            assert!(span.length <= 256 << 10);
        }
        Step::Prefetch { offset, length } => inside(*offset, *length),
        Step::Swap { span, .. } => {
            inside(span.offset, span.length.into());
            assert!(span.length <= 128 << 10);
        }
        Step::Receive { length } => assert!(*length <= 256 << 10),
        Step::Discard { offset, length } | Step::Zero { offset, length, .. } => inside(*offset, *length),
        Step::Fill { offset, length, .. } => {
            inside(*offset, *length);
            assert!(*length <= 1 << 20);
        }
        Step::Status { offset, length, limit } => {
            inside(*offset, *length);
            assert!(*limit > 0);
        }
        Step::Copy { source, from, target, to, length, .. } => {
            assert!(*source == unit.id() && *target == unit.id(), "nothing else is there");
            inside(*from, (*length).into());
            inside(*to, (*length).into());
            assert!(*length <= 16 << 20 && (from.abs_diff(*to) >= (*length).into() || *length <= 64 << 10));
        }
        Step::Survey { offset, length, .. } | Step::Blank { offset, length, .. } | Step::Barrier { offset, length } => {
            inside(*offset, *length)
        }
        Step::Flush | Step::Save | Step::Space | Step::Abort | Step::Detach | Step::Work { .. } => (),
        Step::Done(outcome) => {
            assert!(outcome.data as usize <= scratch.len());
            // EXTENDED COPY may be asked to have something to say with GOOD.
            assert!(outcome.sense.is_some() || outcome.status != Status::CheckCondition);
            let good = outcome.sense.is_none_or(|sense| sense.key == SenseKey::Completed);
            assert!(good || outcome.status == Status::CheckCondition);
            assert!(outcome.sense.is_none() || outcome.data == 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn random_commands_and_events_never_panic(
        cdb in cdb(),
        happenings in prop::collection::vec(happening(), 0..6),
        bytes in prop_oneof![Just(0u64), Just(4096), Just(BLOCKS * 512), Just(1 << 40), Just((1 << 63) - 4096)],
        large_blocks: bool,
        present in prop::bool::weighted(0.9),
        with_nexus: bool,
    ) {
        let mut rig = Rig::fresh(Geometry { bytes: 4096, ..geometry() }, 512);
        let block_size = if large_blocks { 4096 } else { 512 };
        rig.unit = {
            let profile = Profile::new(rig.unit.identity().clone(), block_size);
            LogicalUnit::new(profile, Geometry { bytes, ..geometry() })
        };
        rig.run(&[0; 6], &[]);
        let unit = rig.unit.clone();
        let mut context = Context {
            port: &rig.port,
            unit: present.then_some(&unit),
            nexus: with_nexus.then_some(&mut rig.nexus),
            scratch: &mut rig.scratch,
            now: Default::default(),
        };
        let (mut command, step) = Command::start(&cdb, &mut context);
        check(&step, &unit, context.scratch);
        for happening in happenings {
            let step = command.step(happening.event(), &mut context);
            check(&step, &unit, context.scratch);
        }
    }

    #[test]
    fn commands_carried_out_end_and_stay_within_what_was_asked(cdb in cdb(), data in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut rig = Rig::new();
        let mut padded = cdb;
        padded.resize(16, 0);
        let answer = rig.run(&padded, &data);
        let allocation = match padded[0] {
            0x03 | 0x1A => Some(u32::from(padded[4])),
            0x12 => Some(u32::from(u16::from_be_bytes([padded[3], padded[4]]))),
            0x5A => Some(u32::from(u16::from_be_bytes([padded[7], padded[8]]))),
            0xA0 | 0xA3 => Some(u32::from_be_bytes(padded[6..10].try_into().unwrap())),
            0x9E => Some(u32::from_be_bytes(padded[10..14].try_into().unwrap())),
            _ => None,
        };
        if let Some(allocation) = allocation {
            prop_assert!(answer.data.len() <= allocation as usize);
        }
    }

    #[test]
    fn sense_in_both_formats_says_the_same(
        key in prop::sample::select(vec![SenseKey::NoSense, SenseKey::MediumError, SenseKey::IllegalRequest, SenseKey::Miscompare]),
        asc: u16,
        information in prop::option::of(prop_oneof![any::<u32>().prop_map(u64::from), any::<u64>()]),
        byte: u16,
        bit in prop::option::of(0..8u8),
        in_cdb: bool,
        with_field: bool,
    ) {
        let specific = if with_field { Specific::Field { cdb: in_cdb, byte, bit } } else { Specific::None };
        let command = with_field.then_some(u32::from(byte));
        let sense = Sense { key, asc, information, command, specific };
        let mut fixed = [0xEE; 252];
        prop_assert_eq!(sense.emit(false, &mut fixed), 18);
        prop_assert_eq!(fixed[0] & 0x7F, 0x70);
        prop_assert_eq!((fixed[2], u16::from_be_bytes([fixed[12], fixed[13]])), (key as u8, asc));
        let small = information.and_then(|i| u32::try_from(i).ok());
        prop_assert_eq!(fixed[0] & 0x80 != 0, small.is_some());
        prop_assert_eq!(u32::from_be_bytes([fixed[3], fixed[4], fixed[5], fixed[6]]), small.unwrap_or(0));

        let mut out = [0xEE; 252];
        let length = sense.emit(true, &mut out);
        prop_assert_eq!(length, 8 + usize::from(out[7]));
        prop_assert_eq!((out[0], out[1], u16::from_be_bytes([out[2], out[3]])), (0x72, key as u8, asc));
        let mut at = 8;
        let mut found = (None, None);
        while at < length {
            match out[at] {
                1 => prop_assert_eq!(&out[at + 8..at + 12], &u32::from(byte).to_be_bytes()),
                0 => found.0 = Some(u64::from_be_bytes(out[at + 4..at + 12].try_into().unwrap())),
                2 => found.1 = Some(out[at + 4..at + 7].to_vec()),
                other => prop_assert!(false, "descriptor {}", other),
            }
            at += 2 + usize::from(out[at + 1]);
        }
        prop_assert_eq!(at, length);
        prop_assert_eq!(u32::from_be_bytes(fixed[8..12].try_into().unwrap()), command.unwrap_or(0));
        prop_assert_eq!(found.0, information);
        let expected = with_field.then(|| fixed[15..18].to_vec());
        prop_assert_eq!(&found.1, &expected);
        if let Some(field) = expected {
            prop_assert_eq!(field[0] & 0xC0, 0x80 | u8::from(in_cdb) << 6);
            prop_assert_eq!(field[0] & 0x0F, bit.map_or(0, |bit| 8 | bit));
            prop_assert_eq!(u16::from_be_bytes([field[1], field[2]]), byte);
        }
    }
}

#[test]
fn a_cdb_that_is_too_short_is_refused() {
    let mut rig = Rig::new();
    for length in 0..10 {
        let mut context = rig.context();
        let (_, step) = Command::start(&cdb_10(0x28, 0, 0, 1)[..length], &mut context);
        let Step::Done(outcome) = step else { panic!("{length}: {step:?}") };
        assert_eq!(outcome.status, Status::CheckCondition);
    }
}

#[test]
fn a_command_is_small() {
    assert!(size_of::<Command>() <= 96, "{}", size_of::<Command>());
}

#[test]
fn a_lun_that_goes_away_ends_its_commands() {
    let mut rig = Rig::new();
    let mut context = rig.context();
    let (mut command, _) = Command::start(&cdb_10(0x28, 0, 0, 1), &mut context);
    context.unit = None;
    let Step::Done(outcome) = command.step(Event::Moved, &mut context) else { panic!() };
    assert_eq!(outcome.sense, Some(Sense::illegal(0x2500)));
}
