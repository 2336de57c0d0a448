//! Unit attentions.

use crate::rig::*;
use scsi::{Attention, Command, Context, Nexus, Outcome, SenseKey, Step};

/// A TEST UNIT READY of another session.
fn test_unit_ready(rig: &mut Rig, nexus: &mut Nexus) -> Outcome {
    let mut context = Context {
        port: &rig.port,
        unit: Some(&rig.unit),
        nexus: Some(nexus),
        scratch: &mut rig.scratch,
        now: Default::default(),
    };
    let (_, Step::Done(outcome)) = Command::start(&[0; 6], &mut context) else { panic!() };
    outcome
}

#[test]
fn a_new_nexus_hears_of_power_on_once_and_not_by_exempt_commands() {
    let mut rig = Rig::fresh(geometry(), 512);
    rig.run(&[0x12, 0, 0, 0, 36, 0], &[]).good();
    rig.run(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[]).good();
    assert_eq!(rig.run(&cdb_10(0x28, 0, 0, 1), &[]).refused(), (SenseKey::UnitAttention, 0x2900));
    rig.run(&cdb_10(0x28, 0, 0, 1), &[]).good();
}

#[test]
fn request_sense_takes_the_attention() {
    let mut rig = Rig::fresh(geometry(), 512);
    let sense = rig.run(&[0x03, 0, 0, 0, 252, 0], &[]).good();
    assert_eq!((sense[2], sense[12], sense[13]), (6, 0x29, 0x00));
    rig.run(&[0; 6], &[]).good();
    rig.unit.attention(Attention::CapacityChanged, None);
    let sense = rig.run(&[0x03, 1, 0, 0, 252, 0], &[]).good();
    assert_eq!(sense[..4], [0x72, 6, 0x2A, 0x09]);
    assert_eq!(rig.run(&[0x03, 0, 0, 0, 252, 0], &[]).good()[2], 0);
}

#[test]
fn a_mode_select_is_heard_by_every_other_nexus() {
    let mut rig = Rig::new();
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    assert_eq!(test_unit_ready(&mut rig, &mut other).sense.unwrap().asc, 0x2900);
    let pages = [&[0; 4][..], &[0x08, 18], &[0; 18]].concat();
    let cdb = [0x15, 0x10, 0, 0, pages.len() as u8, 0];
    rig.run(&cdb, &pages).good();
    rig.run(&[0; 6], &[]).good();
    let sense = test_unit_ready(&mut rig, &mut other).sense.unwrap();
    assert_eq!((sense.key, sense.asc), (SenseKey::UnitAttention, 0x2A01));
    assert_eq!(test_unit_ready(&mut rig, &mut other).sense, None);
    // Nothing changes: nobody hears of it.
    rig.run(&cdb, &pages).good();
    assert_eq!(test_unit_ready(&mut rig, &mut other).sense, None);
}

#[test]
fn several_attentions_come_one_after_the_other() {
    let mut rig = Rig::new();
    for attention in [Attention::ReportedLunsChanged, Attention::CapacityChanged, Attention::CapacityChanged] {
        rig.unit.attention(attention, None);
    }
    rig.unit.attention(Attention::InquiryChanged, Some(rig.nexus.id()));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2A09));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x3F0E));
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn report_luns_clears_its_own_attention() {
    let mut rig = Rig::new();
    rig.unit.attention(Attention::ReportedLunsChanged, None);
    // A list that was not given says nothing.
    assert_eq!(rig.run(&[0xA0, 0, 9, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[]).refused(), (ILLEGAL, 0x2400));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x3F0E));
    rig.unit.attention(Attention::ReportedLunsChanged, None);
    rig.run(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[]).good();
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn a_reset_is_heard_by_who_asked_too() {
    let mut rig = Rig::new();
    let before = rig.unit.generation();
    rig.unit.reset();
    assert_ne!(rig.unit.generation(), before);
    assert_eq!(rig.run(&[0x28; 10], &[]).refused(), (SenseKey::UnitAttention, 0x2903));
    rig.run(&[0; 6], &[]).good();
}

#[test]
fn a_stop_by_one_nexus_is_seen_by_the_next_command_of_another() {
    let mut rig = Rig::new();
    let mut other = Nexus::new(&rig.unit, 2, path(1));
    test_unit_ready(&mut rig, &mut other);
    assert_eq!(test_unit_ready(&mut rig, &mut other).sense, None);
    rig.run(&[0x1B, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(test_unit_ready(&mut rig, &mut other).sense.unwrap().asc, 0x0402);
}

#[test]
fn a_change_on_one_core_is_seen_by_the_next_command_of_another() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    let rig = Rig::new();
    let (unit, port) = (&rig.unit, &rig.port);
    let (established, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watchers: Vec<_> = (2..4)
            .map(|id| {
                let (established, stop) = (&established, &stop);
                scope.spawn(move || {
                    let (mut nexus, mut scratch) = (Nexus::new(unit, id, path(id)), Vec::new());
                    let mut seen = 0;
                    let mut heard = 0;
                    loop {
                        let last = stop.load(Ordering::SeqCst);
                        let before = established.load(Ordering::SeqCst);
                        let nexus = Some(&mut nexus);
                        let mut context =
                            Context { port, unit: Some(unit), nexus, scratch: &mut scratch, now: Default::default() };
                        let (_, Step::Done(outcome)) = Command::start(&[0; 6], &mut context) else { panic!() };
                        if outcome.sense.is_some() {
                            heard += 1;
                            // It may have taken one that is not counted yet.
                            seen = established.load(Ordering::SeqCst) + 1;
                        } else {
                            assert!(before <= seen, "{before} is not heard of, {seen} was the last");
                        }
                        if last && outcome.sense.is_none() {
                            return heard;
                        }
                    }
                })
            })
            .collect();
        for count in 1..=2000 {
            unit.attention(Attention::CapacityChanged, None);
            established.store(count, Ordering::SeqCst);
        }
        stop.store(true, Ordering::SeqCst);
        for watcher in watchers {
            assert!(watcher.join().unwrap() > 0);
        }
    });
}

#[test]
fn another_size_is_told_to_every_nexus_and_holds_at_once() {
    let mut rig = Rig::new();
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    test_unit_ready(&mut rig, &mut other);
    let blocks = rig.unit.blocks();
    rig.unit.resize((blocks / 2) << 9);
    assert_eq!(rig.unit.geometry().bytes, (blocks / 2) << 9);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2A09));
    assert_eq!(test_unit_ready(&mut rig, &mut other).sense.unwrap().asc, 0x2A09);
    let answer = rig.run(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
    assert_eq!(answer[..4], (blocks as u32 / 2 - 1).to_be_bytes());
    assert_eq!(rig.run(&cdb_10(0x28, 0, blocks as u32 / 2, 1), &[]).refused(), (SenseKey::IllegalRequest, 0x2100));
    rig.run(&cdb_10(0x28, 0, blocks as u32 / 2 - 1, 1), &[]).good();
    // The same size again is no change.
    rig.unit.resize((blocks / 2) << 9);
    rig.run(&[0; 6], &[]).good();
}
