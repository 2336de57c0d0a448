//! What was acknowledged is there: after SIGKILL under load, and after SIGTERM under load.

use initiator::cdb;
use ringlun_tests::{
    Client, End, Seen, Setup, Target,
    stamps::{Extent, Ledger, Manner},
    wait,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use wire::AsyncEvent;

const DRAIN_S: u64 = 4;

/// A file volume in each of the four shapes.
fn target() -> Target {
    let mut text = String::new();
    for (name, direct, block_size) in SHAPES {
        text += &format!(
            "[[volume]]\nname = \"{name}\"\nblock_size = {block_size}\n\
             store = {{ kind = \"file\", path = \"$DIR/{name}.img\", size = \"64MiB\", direct = {direct} }}\n"
        );
    }
    Setup::new(&text).server(&format!("drain_timeout_s = {DRAIN_S}")).start()
}

const SHAPES: [(&str, bool, u32); 4] =
    [("buffered512", false, 512), ("buffered4096", false, 4096), ("direct512", true, 512), ("direct4096", true, 4096)];

/// Extents of many lengths, aligned and not, with gaps between some.
fn extents(block_size: u32) -> Vec<Extent> {
    let blocks = (32 << 20) / u64::from(block_size);
    let lengths = [1u32, 8, 3, 16, 1, 64, 5, 8, 128, 2];
    let mut extents = Vec::new();
    let mut lba = 0;
    for blocks_of_it in lengths.into_iter().cycle() {
        if lba + u64::from(blocks_of_it) > blocks || extents.len() == 400 {
            return extents;
        }
        extents.push(Extent { lba, blocks: blocks_of_it });
        lba += u64::from(blocks_of_it) + u64::from(extents.len() % 3 == 0);
    }
    unreachable!("the lengths make no end")
}

/// Loads every volume from a thread of its own, calls `meanwhile` once `enough` writes are acknowledged on each, and
/// gives what each thread has written when its connection has ended.
fn under_load(target: &mut Target, seed: u64, enough: u64, meanwhile: impl FnOnce(&mut Target)) -> Vec<Ledger> {
    let progress: Vec<AtomicU64> = SHAPES.iter().map(|_| AtomicU64::new(0)).collect();
    let clients: Vec<Client> = SHAPES.iter().map(|(name, ..)| target.client(name)).collect();
    std::thread::scope(|scope| {
        let mut loads = Vec::new();
        for ((client, progress), (name, _, block_size)) in clients.into_iter().zip(&progress).zip(SHAPES) {
            loads.push(scope.spawn(move || {
                let mut client = client;
                let mut ledger = Ledger::new(extents(block_size), block_size);
                let manner = Manner { depth: 16, fua_every: 7, sync_every: 50, seed };
                match ledger.write(&mut client, manner, u64::MAX, progress) {
                    Err(End::Closed | End::Reason(_)) => ledger,
                    other => panic!("{name}: the load ended with {other:?}"),
                }
            }));
        }
        wait::until(Duration::from_secs(60), "writes on every volume", || {
            progress.iter().all(|count| count.load(Ordering::Relaxed) >= enough).then_some(())
        });
        meanwhile(target);
        loads.into_iter().map(|load| load.join().expect("a load")).collect()
    })
}

fn verify(target: &Target, ledgers: &[Ledger]) {
    for (ledger, (name, ..)) in ledgers.iter().zip(SHAPES) {
        assert!(ledger.written() > 50, "{name}: hardly anything was written");
        ledger.verify(&mut target.client(name));
    }
}

#[test]
fn after_a_kill_under_load_every_acknowledged_block_is_there() {
    for (round, enough) in [(1, 300), (2, 1000)] {
        let mut target = target();
        let ledgers = under_load(&mut target, round, enough, Target::kill);
        target.restart();
        verify(&target, &ledgers);
        target.end();
    }
}

#[test]
fn a_termination_under_load_ends_well_in_time_and_loses_nothing() {
    let mut target = target();
    let mut ended = None;
    let ledgers = under_load(&mut target, 3, 500, |target| {
        ended = Some(target.terminate(Duration::from_secs(3 * DRAIN_S)));
    });
    let (status, took) = ended.expect("it was told to end");
    assert!(status.success(), "{status}\n{}", target.log());
    assert!(took < Duration::from_secs(2 * DRAIN_S), "it took {took:?}");
    target.restart();
    verify(&target, &ledgers);
    target.end();
}

#[test]
fn a_termination_asks_initiators_to_log_out_and_does_not_wait_longer_than_they_do() {
    let mut target = target();
    let portal = target.portal();
    let mut client = target.client("buffered512");
    let block = vec![0x5a; 512];
    client.send(cdb::write_16(77, 1), &block).good();
    let waiter = std::thread::spawn(move || {
        let parameters = client.wait(|seen| match seen {
            Seen::Asynchronous(AsyncEvent::LogoutRequest, parameters) => Some(*parameters),
            _ => None,
        });
        let parameters = parameters.expect("a request to log out");
        // The session still works until it has logged out.
        assert_eq!(client.read(77, 1, 512), vec![0x5a; 512]);
        client.log_out().expect("the logout");
        parameters
    });
    let (status, took) = target.terminate(Duration::from_secs(3 * DRAIN_S));
    let parameters = waiter.join().expect("the client");
    assert!(status.success(), "{status}\n{}", target.log());
    assert!(took < Duration::from_secs(DRAIN_S), "nobody was left, and it took {took:?}");
    assert!(u64::from(parameters[2]) <= DRAIN_S, "{parameters:?}: more time than there is");
    assert!(std::net::TcpStream::connect(portal).is_err(), "the portal is still open");
    target.restart();
    assert_eq!(target.client("buffered512").read(77, 1, 512), block);
    target.end();
}
