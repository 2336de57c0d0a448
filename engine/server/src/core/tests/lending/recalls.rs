//! What one core has lent and another waits for.

use super::*;
use crate::mail::FromCore;

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
        let region = reader.rig.core.units[0].queue.region(0, 0).unwrap().0.clone();
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
    let region = reader.rig.core.units[0].queue.region(0, 0).unwrap().0.clone();
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
    let region = reader.rig.core.units[0].queue.region(0, 0).unwrap().0.clone();
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
