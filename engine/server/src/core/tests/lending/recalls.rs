//! What one core has lent and another waits for.

use super::*;
use crate::core::fencing::{FenceBody, FenceMail};
use crate::mail::FromCore;
use backstore::{Fault, Filter, Kinds};
use backstore_api::{Request, StoreError, Submitted};
use scsi::fence::{Action, FenceId, FenceRequest};

#[test]
fn another_core_is_told_when_it_may_write() {
    let mut reader = Reader::beside(1);
    let told = |reader: &Reader| {
        let mail = reader.rig.post.receive(1);
        assert!(reader.rig.post.receive(1).is_none(), "one letter at most");
        mail.map(|mail| matches!(mail, ToCore::Core(FromCore::Returned { unit: 0 })))
    };
    let recall = |reader: &mut Reader| {
        reader.rig.post.send(0, ToCore::Core(FromCore::Recall { unit: 0, core: 1 }));
        reader.turns();
    };
    recall(&mut reader);
    assert_eq!(told(&reader), Some(true), "nothing is lent");
    reader.read(0);
    assert_eq!(reader.pdus().len(), 1);
    recall(&mut reader);
    assert_eq!(told(&reader), None);
    let ping = reader.pdus()[0].is_ping().expect("a ping");
    reader.rig.has = 3;
    reader.answer(ping);
    assert_eq!(told(&reader), Some(true));
    // Nor when its reader doesn't answer.
    reader.read(0);
    assert_eq!(reader.pdus().len(), 1);
    recall(&mut reader);
    while reader.lends() > 0 {
        reader.rig.core.turn().unwrap();
    }
    assert_eq!(told(&reader), Some(true));
}

#[test]
fn what_another_core_has_lent_is_asked_for() {
    for length in [512, LENT] {
        let mut reader = Reader::beside(2);
        let region = reader.region(0);
        std::thread::scope(|scope| {
            let (said, told) = std::sync::mpsc::channel();
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let region = &region;
            scope.spawn(move || {
                let loan = region.hold().unwrap().lend();
                said.send(()).unwrap();
                ends.recv().unwrap();
                drop(loan);
                said.send(()).unwrap();
            });
            told.recv().unwrap();
            reader.write(0, length, 7);
            assert_eq!((reader.pdus().len(), reader.medium(0)), (0, 0));
            for core in [1, 2] {
                let asked = reader.rig.post.receive(core);
                assert!(matches!(asked, Some(ToCore::Core(FromCore::Recall { unit: 0, core: 0 }))));
            }
            let answer = |reader: &mut Reader| {
                reader.rig.post.send(0, ToCore::Core(FromCore::Returned { unit: 0 }));
                reader.turns();
            };
            // This one has nothing.
            answer(&mut reader);
            assert!(reader.rig.post.receive(1).is_none() && reader.medium(0) == 0);
            end.send(()).unwrap();
            told.recv().unwrap();
            answer(&mut reader);
            assert_eq!((reader.pdus().len(), reader.medium(0)), (1, 7));
        });
    }
}

#[test]
fn a_core_without_sessions_lets_another_one_be_the_only_one_that_writes() {
    let mut reader = Reader::new();
    let region = reader.region(0);
    let elsewhere = || std::thread::scope(|scope| scope.spawn(|| region.may_hold()).join().unwrap());
    reader.write(0, LENT, 7);
    assert_eq!((reader.pdus().len(), reader.medium(0), elsewhere()), (1, 7, false));
    reader.rig.peer.close();
    reader.turns();
    assert_eq!(reader.rig.core.sessions(), 0);
    assert!(elsewhere());
}

#[test]
fn a_core_that_is_asked_answers_when_all_has_come_back_and_writes_meanwhile() {
    let mut reader = Reader::beside(1);
    reader.read(0);
    reader.read(LENT);
    let pdus = reader.pdus();
    assert_eq!((pdus.len(), reader.lends()), (2, 2));
    let region = reader.region(0);
    assert!(!std::thread::scope(|scope| scope.spawn(|| region.may_write()).join().unwrap()));
    reader.rig.post.send(0, ToCore::Core(FromCore::Recall { unit: 0, core: 1 }));
    let ping = reader.pdus()[0].is_ping().expect("a ping");
    for length in [512, LENT] {
        reader.write(2 * LENT, length, 7);
        assert_eq!((reader.pdus().len(), reader.medium(2 * LENT)), (1, 7));
    }
    reader.rig.has = pdus[0].stat_sn() + 1;
    reader.answer(ping);
    assert_eq!(reader.lends(), 1);
    assert!(reader.rig.post.receive(1).is_none(), "one is still lent");
    reader.rig.has = pdus[1].stat_sn() + 1;
    reader.answer(ping);
    let told = reader.rig.post.receive(1);
    assert!(matches!(told, Some(ToCore::Core(FromCore::Returned { unit: 0 }))));
}

#[test]
fn what_is_not_sent_yet_is_copied_if_another_core_may_write_to_it_by_then() {
    let mut reader = Reader::beside(1);
    reader.reads_one_behind_another();
    let id = FenceId { core: 1, serial: 7 };
    let range = Some(u64::from(LENT)..u64::from(2 * LENT));
    let mail = |body| ToCore::Core(FromCore::Fence(FenceMail { unit: 0, body }));
    reader.rig.post.send(0, mail(FenceBody::Request(FenceRequest { id, range })));
    reader.turns();
    let held = reader.rig.post.receive(1);
    let body = FenceBody::Acknowledged(id, 1);
    assert!(matches!(
        held,
        Some(ToCore::Core(FromCore::Fence(FenceMail { body: FenceBody::Action(Action::Hold { .. }), .. })))
    ));
    reader.rig.post.send(0, mail(body));
    reader.turns();
    let granted = reader.rig.post.receive(1);
    assert!(matches!(
        granted,
        Some(ToCore::Core(FromCore::Fence(FenceMail { body: FenceBody::Action(Action::Granted { .. }), .. })))
    ));
    // The first one leaves, and the second one is sealed, of which little leaves.
    reader.rig.peer.set_window(LENT as usize + 1000);
    reader.turns();
    let region = reader.region(0);
    std::thread::scope(|scope| scope.spawn(|| region.write(LENT.into(), &[9; LENT as usize])).join().unwrap());
    reader.rig.peer.set_window(4 << 20);
    let bytes: Vec<u8> = reader.pdus().iter().map(Pdu::byte).collect();
    assert_eq!((bytes, reader.lends()), (vec![0, 0], 1));
}

#[test]
fn cores_that_wait_for_several_units_are_told_of_each() {
    let mut reader = Reader::of(2, vec![ram(), ram()]);
    let mut stat_sn = Vec::new();
    for lun in [0, 1] {
        reader.rig.lun = lun;
        reader.read(0);
        stat_sn.push(reader.pdus()[0].stat_sn());
    }
    assert_eq!((reader.lends_of(0), reader.lends_of(1)), (1, 1));
    for (unit, core) in [(0, 1), (1, 1), (0, 2)] {
        reader.rig.post.send(0, ToCore::Core(FromCore::Recall { unit, core }));
    }
    let ping = reader.pdus()[0].is_ping().expect("a ping");
    let told = |reader: &Reader, core| {
        let mail = reader.rig.post.receive(core)?;
        let ToCore::Core(FromCore::Returned { unit }) = mail else { panic!("other mail") };
        Some(unit)
    };
    for (unit, cores) in [(0, &[1, 2][..]), (1, &[1])] {
        assert_eq!((told(&reader, 1), told(&reader, 2)), (None, None));
        reader.rig.has = stat_sn[unit as usize] + 1;
        reader.answer(ping);
        for core in cores {
            assert_eq!(told(&reader, *core), Some(unit));
        }
    }
    // Of one unit alone is something lent.
    reader.read(0);
    assert_eq!((reader.pdus().len(), reader.lends_of(0), reader.lends_of(1)), (1, 0, 1));
    reader.rig.post.send(0, ToCore::Core(FromCore::Recall { unit: 1, core: 1 }));
    reader.turns();
    assert_eq!((told(&reader, 1), told(&reader, 2)), (None, None));
}

/// What is lent of a region by a thread that is no more: a core that has gone on to other things.
fn lent_elsewhere(region: &Arc<memory::Region>) -> memory::Loan {
    std::thread::scope(|scope| scope.spawn(|| region.hold().unwrap().lend()).join().unwrap())
}

#[test]
fn writers_at_several_units_wait_for_their_own_alone() {
    let mut reader = Reader::of(1, vec![ram(), ram()]);
    let mut loans: Vec<_> = [0, 1].map(|unit| lent_elsewhere(&reader.region(unit))).into();
    for lun in [0, 1] {
        reader.rig.lun = lun;
        reader.write(0, 512, 7);
        assert_eq!(reader.pdus().len(), 0);
        let asked = reader.rig.post.receive(1);
        assert!(matches!(asked, Some(ToCore::Core(FromCore::Recall { unit, core: 0 })) if unit == u16::from(lun)));
    }
    let media = |reader: &mut Reader| [0, 1].map(|unit| reader.medium_of(unit, 0));
    for (unit, becomes) in [(1, [0, 7]), (0, [7, 7])] {
        drop(loans.pop());
        reader.rig.post.send(0, ToCore::Core(FromCore::Returned { unit }));
        assert_eq!((reader.pdus().len(), media(&mut reader)), (1, becomes));
    }
    assert!(reader.rig.post.receive(1).is_none(), "asked for once");
}

#[test]
fn a_core_that_may_still_read_faults_waits_for_what_another_one_has_lent() {
    let fault = Fault {
        kinds: Kinds { read: true, write: false, flush: false },
        range: None,
        per_million: 1_000_000,
        count: Some(1),
        error: StoreError::NoSpace,
        seed: 1,
    };
    let mut reader = Reader::of(1, vec![Settings { filters: vec![Filter::Fault(fault)], ..ram() }]);
    // The other one's queue has had its fault.
    let other = &mut reader.rig.core;
    let mut queue = reader.rig.stores[0].queue(other.reactor(), store_token_base(1)).unwrap();
    let buffer = other.reactor().pool().take(memory::Class::Small).unwrap();
    let read = Request::Read { offset: 0, buffer, range: 0..BLOCK };
    let Submitted::Done(faulty) = queue.submit(other.reactor(), 0, read) else { panic!("it waits") };
    assert!(faulty.result.is_err() && reader.rig.core.units[0].queue.region(0, LENT).is_none());
    let loan = lent_elsewhere(queue.region(0, LENT).unwrap().0);
    reader.write(0, LENT, 7);
    assert_eq!(reader.pdus().len(), 0);
    let asked = reader.rig.post.receive(1);
    assert!(matches!(asked, Some(ToCore::Core(FromCore::Recall { unit: 0, core: 0 }))));
    drop(loan);
    reader.rig.post.send(0, ToCore::Core(FromCore::Returned { unit: 0 }));
    assert_eq!(reader.pdus().len(), 1);
}
