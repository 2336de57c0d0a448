//! SANITIZE and FORMAT UNIT, and what a unit answers while it works for itself.

use crate::rig::*;
use backstore_api::{Geometry, StoreError};
use scsi::{Background, Chore, LogicalUnit, Sense, SenseKey, Specific};

const SANITIZING: (SenseKey, u16) = (SenseKey::NotReady, 0x041B);
const SANITIZE_FAILED: (SenseKey, u16) = (SenseKey::MediumError, 0x3103);
const FORMATTING: (SenseKey, u16) = (SenseKey::NotReady, 0x0404);
const IMMED: u8 = 0x80;
const AUSE: u8 = 0x20;
const BLOCK_ERASE: [u8; 10] = [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0];
const EXIT_FAILURE_MODE: [u8; 10] = [0x48, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0];
const FORMAT: [u8; 6] = [0x04, 0, 0, 0, 0, 0];

/// OVERWRITE with its parameter list.
fn overwrite(flags: u8, control: u8, pattern: &[u8]) -> ([u8; 10], Vec<u8>) {
    let [a, b] = (pattern.len() as u16).to_be_bytes();
    let list = [&[control, 0, a, b], pattern].concat();
    let [high, low] = (list.len() as u16).to_be_bytes();
    ([0x48, flags | 0x01, 0, 0, 0, 0, 0, high, low, 0], list)
}

/// A unit that begins jobs and leaves them to the test.
fn idle() -> Rig {
    let mut rig = Rig::new();
    rig.idle = true;
    rig
}

/// Works a job off; gives its chores.
fn finish(rig: &mut Rig, background: &mut Background) -> Vec<Chore> {
    let mut chores = Vec::new();
    while chores.last() != Some(&Chore::End) {
        chores.push(rig.chore(background));
        assert!(chores.len() < 1000);
    }
    chores
}

fn begun(rig: &Rig) -> Background {
    Background::take_up(&rig.unit).expect("it has a job")
}

#[test]
fn overwrite_repeats_its_pattern_in_every_block() {
    for pattern in [&[0xAA; BLOCK][..], &[1, 2, 3], &[9]] {
        let mut rig = Rig::new();
        let (cdb, list) = overwrite(0, 1, pattern);
        rig.run(&cdb, &list).good();
        for block in rig.medium.chunks(BLOCK) {
            assert!(block.iter().zip(pattern.iter().cycle()).all(|(a, b)| a == b));
        }
        assert_eq!(rig.flushes, 1, "it is on the medium");
        rig.run(&[0; 6], &[]).good();
    }
}

#[test]
fn inverting_passes_write_the_complement_every_other_time() {
    for (control, last) in [(0x83, 0x0F), (0x82, 0xF0), (0x02, 0x0F)] {
        let mut rig = idle();
        let (cdb, list) = overwrite(0, control, &[0x0F]);
        rig.run(&cdb, &list).good();
        let mut background = begun(&rig);
        let chores = finish(&mut rig, &mut background);
        let passes = usize::from(control & 0x1F);
        assert_eq!(chores.iter().filter(|chore| matches!(chore, Chore::Fill { .. })).count(), passes * 2);
        assert!(rig.medium.iter().all(|byte| *byte == last), "{control:x}");
    }
}

#[test]
fn parameters_of_an_overwrite_are_checked() {
    let mut rig = Rig::new();
    for length in [0, 1, 4, 517, 600] {
        let mut cdb = overwrite(0, 1, &[1]).0;
        cdb[7..9].copy_from_slice(&u16::to_be_bytes(length));
        assert_eq!(rig.run(&cdb, &[1; 600]).sense(), Sense::field_in_cdb(7, None), "{length}");
    }
    let (cdb, mut list) = overwrite(0, 0, &[1; 8]);
    assert_eq!(rig.run(&cdb, &list).sense(), Sense::field_in_parameters(0, Some(4)), "OVERWRITE COUNT");
    list[0] = 0x21;
    assert_eq!(rig.run(&cdb, &list).sense(), Sense::field_in_parameters(0, Some(6)), "TEST");
    for length in [0u16, 9, 513] {
        list[0] = 1;
        list[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(rig.run(&cdb, &list).sense(), Sense::field_in_parameters(2, None), "{length}");
    }
    for (byte, value) in [(1, 0x41), (2, 1), (6, 1)] {
        let (mut cdb, list) = overwrite(0, 1, &[1]);
        cdb[byte] = value;
        assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2400), "ZNR, reserved");
    }
    assert_eq!(rig.run(&[0x48, 0x03, 0, 0, 0, 0, 0, 0, 0, 0], &[]).refused(), (ILLEGAL, 0x2400), "CRYPTOGRAPHIC ERASE");
    let mut erase = BLOCK_ERASE;
    erase[8] = 8;
    assert_eq!(rig.run(&erase, &[0; 8]).sense(), Sense::field_in_cdb(7, None));
    assert!(rig.medium.iter().all(|byte| *byte == 0x5A));
}

#[test]
fn block_erase_leaves_nothing_mapped_and_is_there_only_with_unmap() {
    let mut rig = Rig::new();
    rig.run(&BLOCK_ERASE, &[]).good();
    assert!(rig.medium.iter().all(|byte| *byte == 0) && rig.mapped.iter().all(|mapped| !mapped));
    assert_eq!(rig.run(&[0x12, 1, 0xB1, 0, 64, 0], &[]).good()[7], 0x40, "WABEREQ");
    let mut rig = Rig::with(Geometry { discard_granularity: 0, ..geometry() }, 512);
    assert_eq!(rig.run(&BLOCK_ERASE, &[]).refused(), (ILLEGAL, 0x2400), "no such service action");
    assert_eq!(rig.run(&[0x12, 1, 0xB1, 0, 64, 0], &[]).good()[7], 0);
}

#[test]
fn commands_hear_how_far_it_is_and_a_reset_does_not_stop_it() {
    let mut rig = idle();
    let (cdb, list) = overwrite(IMMED, 1, &[7]);
    rig.run(&cdb, &list).good();
    let mut background = begun(&rig);
    let chores: Vec<Chore> = (0..4).map(|_| rig.chore(&mut background)).collect();
    let first = Chore::Fill { offset: 0, length: 1 << 20 };
    assert_eq!(chores, [Chore::Save, Chore::Began(Ok(())), Chore::Claim, first]);
    rig.unit.reset();
    let half = Sense { specific: Specific::Progress(0x8000), ..Sense::new(SenseKey::NotReady, 0x041B) };
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2903));
    let refused: [&[u8]; 6] =
        [&[0; 6], &cdb_10(0x28, 0, 0, 1), &[0x1B, 1, 0, 0, 1, 0], &cdb, &FORMAT, &[0x1A, 0, 0x3F, 0, 255, 0]];
    for cdb in refused {
        assert_eq!(rig.run(cdb, &list).sense(), half, "{cdb:02x?}");
    }
    let sense = rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good();
    assert_eq!((sense[2], sense[12], sense[13], &sense[15..18]), (2, 4, 0x1B, &[0x80, 0x80, 0][..]));
    rig.run(&[0x12, 0, 0, 0, 36, 0], &[]).good();
    rig.run(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[]).good();
    rig.run(&[0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0], &[]).good();
    finish(&mut rig, &mut background);
    rig.run(&[0; 6], &[]).good();
    assert!(rig.medium.iter().all(|byte| *byte == 7));
    assert!(Background::take_up(&rig.unit).is_none());
}

#[test]
fn a_job_goes_on_in_the_next_life() {
    let mut rig = idle();
    let (cdb, list) = overwrite(IMMED | AUSE, 0x82, &[0x11]);
    rig.run(&cdb, &list).good();
    let mut background = begun(&rig);
    for _ in 0..5 {
        rig.chore(&mut background);
    }
    let (_, lasting) = rig.unit.lasting();
    let again = LogicalUnit::new(profile(512), geometry());
    again.restore(lasting.clone()).unwrap();
    let mut second = Rig::new();
    second.unit = again;
    second.idle = true;
    assert_eq!(second.run(&cdb_10(0x28, 0, 0, 1), &[]).refused(), SANITIZING);
    let mut background = begun(&second);
    let chores = finish(&mut second, &mut background);
    assert_eq!(chores[0], Chore::Claim, "it is recorded already");
    assert!(second.medium.iter().all(|byte| *byte == 0xEE));
    second.run(&[0; 6], &[]).good();
    assert_eq!(second.unit.lasting().1, LogicalUnit::new(profile(512), geometry()).lasting().1, "and forgotten");
    let other = LogicalUnit::new(profile(512), Geometry { bytes: 512, ..geometry() });
    other.restore(lasting).unwrap();
}

#[test]
fn long_jobs_note_how_far_they_are() {
    let mut rig = Rig::with(Geometry { bytes: 40 << 30, ..geometry() }, 512);
    rig.idle = true;
    rig.run(&[0x48, IMMED | 0x02, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    let mut background = begun(&rig);
    let mut chores = Vec::new();
    while chores.last() != Some(&Chore::End) {
        chores.push(background.next());
        background.done(&rig.unit, Ok(()));
    }
    let flushes = chores.windows(2).filter(|pair| *pair == [Chore::Flush, Chore::Save]).count();
    assert_eq!(flushes, 3, "after 16 and 32 GiB, and at the end");
}

#[test]
fn what_can_not_be_recorded_does_not_begin() {
    let mut rig = idle();
    rig.run(&[0x48, IMMED | 0x02, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    let mut background = begun(&rig);
    assert_eq!(background.next(), Chore::Save);
    background.done(&rig.unit, Err(StoreError::Other(5)));
    assert_eq!(finish(&mut rig, &mut background), [Chore::Began(Err(StoreError::Other(5))), Chore::End]);
    rig.run(&[0; 6], &[]).good();
    assert!(rig.medium.iter().all(|byte| *byte == 0x5A));
}

/// A unit whose SANITIZE has failed.
fn failed(flags: u8) -> Rig {
    let mut rig = Rig::new();
    rig.fault = Some(StoreError::Medium { offset: 0 });
    let (cdb, list) = overwrite(flags, 1, &[7]);
    assert_eq!(rig.run(&cdb, &list).refused(), SANITIZE_FAILED);
    rig
}

#[test]
fn a_failure_stays_until_it_is_left_in_the_way_that_was_agreed() {
    let mut rig = failed(AUSE);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), SANITIZE_FAILED);
    assert_eq!(rig.run(&FORMAT, &[]).refused(), SANITIZE_FAILED);
    rig.run(&[0x12, 0, 0, 0, 36, 0], &[]).good();
    rig.run(&EXIT_FAILURE_MODE, &[]).good();
    rig.run(&[0; 6], &[]).good();

    let mut rig = failed(0);
    assert_eq!(rig.run(&EXIT_FAILURE_MODE, &[]).refused(), SANITIZE_FAILED, "restricted");
    let (cdb, list) = overwrite(AUSE, 1, &[7]);
    assert_eq!(rig.run(&cdb, &list).refused(), (ILLEGAL, 0x2400));
    let (cdb, list) = overwrite(0, 1, &[7]);
    rig.run(&cdb, &list).good();
    rig.run(&[0; 6], &[]).good();
    rig.run(&EXIT_FAILURE_MODE, &[]).good();
}

#[test]
fn a_failure_is_remembered() {
    let rig = failed(AUSE);
    let again = LogicalUnit::new(profile(512), geometry());
    again.restore(rig.unit.lasting().1).unwrap();
    assert!(Background::take_up(&again).is_none(), "it isn't tried again by itself");
    assert_eq!(again.occupied().map(|sense| (sense.key, sense.asc)), Some(SANITIZE_FAILED));
}

#[test]
fn format_unit_makes_zeroes() {
    let mut rig = Rig::new();
    rig.run(&FORMAT, &[]).good();
    assert!(rig.medium.iter().all(|byte| *byte == 0) && rig.mapped.iter().all(|mapped| !mapped));
    let mut rig = idle();
    rig.run(&[0x04, 0x18, 0, 0, 0, 0], &[0, 0x02, 0, 0]).good();
    assert_eq!(rig.run(&[0; 6], &[]).refused(), FORMATTING);
    let mut background = begun(&rig);
    finish(&mut rig, &mut background);
    rig.run(&[0; 6], &[]).good();
    let mut rig = Rig::new();
    rig.run(&[0x04, 0x30, 0, 0, 0, 0], &[0, 0xF0, 0, 0, 0, 0, 0, 0]).good();
}

#[test]
fn format_unit_refuses_what_it_can_not_do() {
    let mut rig = Rig::new();
    for byte in [0x40, 0x80, 0xC0] {
        assert_eq!(rig.run(&[0x04, byte, 0, 0, 0, 0], &[]).sense(), Sense::field_in_cdb(1, Some(7)), "FMTPINFO");
    }
    for byte in [0x20, 0x08, 0x01] {
        assert_eq!(rig.run(&[0x04, byte, 0, 0, 0, 0], &[]).refused(), (ILLEGAL, 0x2400), "of a list that doesn't come");
    }
    let short = |rig: &mut Rig, list: [u8; 4]| rig.run(&[0x04, 0x10, 0, 0, 0, 0], &list).refused();
    for list in [[1, 0, 0, 0], [0, 0x10, 0, 0], [0, 0x88, 0, 0], [0, 0, 0, 8], [0, 0, 8, 0]] {
        assert_eq!(short(&mut rig, list), (ILLEGAL, 0x2600), "{list:02x?}");
    }
    for at in [3, 4, 7] {
        let mut list = [0; 8];
        list[at] = 1;
        assert_eq!(rig.run(&[0x04, 0x30, 0, 0, 0, 0], &list).refused(), (ILLEGAL, 0x2600), "{at}");
    }
    assert!(rig.medium.iter().all(|byte| *byte == 0x5A));
    rig.fault = Some(StoreError::Medium { offset: 0 });
    assert_eq!(rig.run(&FORMAT, &[]).refused(), (SenseKey::MediumError, 0x3101));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::MediumError, 0x3101));
    rig.run(&[0x1A, 0, 0x3F, 0, 255, 0], &[]).good();
    rig.run(&FORMAT, &[]).good();
    rig.run(&[0; 6], &[]).good();
}
