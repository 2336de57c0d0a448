//! RAM and null disks.

use crate::harness::Core;
use crate::plain::{Done, Plain};
use backstore::{Kind, Settings, Store};
use backstore_api::{Answer, Completion, Request, Space, StoreError, Submitted};
use reactor::Errno;
use rustix::io::Errno as Os;
use std::sync::Arc;

#[test]
fn ram_is_shared_by_all_cores_and_answers_at_once() {
    let store = Store::open(&Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false })).unwrap();
    let mut one = Core::new(Plain::new(), &store);
    let mut two = Core::new(Plain::new(), &store);
    let request = one.write_request(512, &[7; 1024], true);
    assert!(matches!(one.offer(request).1, Submitted::Done(_)));
    let mut found = [0; 1024];
    two.queue.read_now(512, &mut found).unwrap().unwrap();
    assert_eq!(found, [7; 1024]);
    let (region, at) = two.queue.region(512, 1024).unwrap();
    region.read(at, &mut found);
    assert_eq!(found, [7; 1024]);
    one.queue.write_now(1024, &[8; 512]).unwrap().unwrap();
    two.queue.read_now(512, &mut found).unwrap().unwrap();
    assert_eq!((found[511], found[512]), (7, 8));
    assert!(one.queue.write_now((1 << 20) - 256, &[8; 512]).unwrap().is_err());
    assert!(two.queue.region((1 << 20) - 512, 1024).is_none());
    assert!(two.queue.read_now(1 << 20, &mut found).unwrap().is_err());
}

#[test]
fn ram_tells_what_was_written_and_forgets_what_was_discarded() {
    let bytes = 4 << 20;
    let store = Store::open(&Settings::new(Kind::Ram { bytes, preallocate: false })).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    assert_eq!(core.status(0, bytes, 9), [(0, bytes, false)]);
    core.write(4096 * 63, &[1; 8192], false).unwrap();
    let mapped = (4096 * 63, 8192, true);
    assert_eq!(core.status(0, bytes, 9)[1], mapped);
    assert_eq!(core.status(0, bytes, 9).len(), 3);
    // Half a granule stays, whole ones go.
    core.simple(Request::Discard { offset: 4096 * 63 + 512, length: 8192 }).unwrap();
    assert_eq!(core.status(4096 * 63, 8192, 9), [(4096 * 63, 4096, true), (4096 * 64, 4096, false)]);
    assert_eq!(core.read(4096 * 63, 4096).unwrap(), [1; 4096]);
    assert_eq!(core.read(4096 * 64, 4096).unwrap(), [0; 4096]);
    // Zeroes that are to stay mapped are.
    core.simple(Request::Zero { offset: 0, length: 4096, unmap: false, durable: false }).unwrap();
    assert_eq!(core.status(512, 512, 9), [(512, 512, true)]);
    core.simple(Request::Zero { offset: 0, length: bytes, unmap: true, durable: false }).unwrap();
    assert_eq!(core.status(0, bytes, 9), [(0, bytes, false)]);
    assert_eq!(core.status(0, bytes, 0), []);
}

#[test]
fn ram_that_was_preallocated_keeps_its_memory() {
    let bytes = 4 << 20;
    let store = Store::open(&Settings::new(Kind::Ram { bytes, preallocate: true })).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    let geometry = core.queue.geometry();
    assert_eq!((geometry.discard_granularity, geometry.discard_zeroes), (0, false));
    assert_eq!(core.read(0, 8192).unwrap(), [0; 8192]);
    core.write(4096, &[1; 8192], false).unwrap();
    core.simple(Request::Discard { offset: 0, length: bytes }).unwrap();
    assert_eq!(core.read(4096, 8192).unwrap(), [1; 8192], "a discard is no more than a hint");
    core.simple(Request::Zero { offset: 4096, length: 4096, unmap: true, durable: false }).unwrap();
    assert_eq!((core.read(4096, 4096).unwrap(), core.read(8192, 4096).unwrap()), (vec![0; 4096], vec![1; 4096]));
    assert_eq!(core.status(0, bytes, 9), [(0, 8192, false), (8192, 4096, true), (12288, bytes - 12288, false)]);
}

const HUGE: u64 = 2 << 20;

fn ram(bytes: u64) -> Arc<Store> {
    Store::open(&Settings::new(Kind::Ram { bytes, preallocate: false })).unwrap()
}

/// Offers a write of 512 bytes; whether it waits.
fn waits(core: &mut Core<Plain>, offset: u64) -> bool {
    let request = core.write_request(offset, &[7; 512], false);
    match core.offer(request).1 {
        Submitted::Done(done) => {
            assert_eq!(done.result, Ok(Answer::Done));
            false
        }
        Submitted::Pending => true,
        Submitted::Full(request) => panic!("no room for {request:?}"),
    }
}

/// The results of what ends.
fn ends(core: &mut Core<Plain>) -> Vec<Result<Answer, StoreError>> {
    let ended = core.drain();
    assert!(ended.iter().all(|done: &Completion| done.buffer.is_some()), "the buffers come back");
    ended.into_iter().map(|done| done.result).collect()
}

#[test]
fn the_first_write_to_a_huge_page_waits_for_its_memory() {
    let store = ram(8 * HUGE);
    let mut core = Core::new(Plain::new(), &store);
    // What is only read gets none.
    assert_eq!(core.read(HUGE, 512).unwrap(), [0; 512]);
    for (first, second) in [(HUGE + 4096, 2 * HUGE - 512), (5 * HUGE, 5 * HUGE + 512)] {
        assert!(!core.queue.writes_now(first, 512));
        assert!(core.queue.write_now(first, &[1; 512]).is_none());
        assert!(waits(&mut core, first) && core.queue.in_flight() == 1);
        assert_eq!(core.read(first, 512).unwrap(), [0; 512], "nothing of it yet");
        assert_eq!(ends(&mut core), [Ok(Answer::Done)]);
        assert_eq!(core.read(first, 512).unwrap(), [7; 512]);
        assert!(core.queue.writes_now(second, 512));
        core.queue.write_now(second, &[1; 512]).unwrap().unwrap();
        assert!(!waits(&mut core, second));
    }
    let jobs = |core: &Core<Plain>| core.reactor.log.iter().filter(|done| **done == Done::Job).count();
    assert_eq!(jobs(&core), 2);
    // Other cores find it, and small volumes and the small rest of large ones have nothing to wait for.
    assert!(!waits(&mut Core::new(Plain::new(), &store), HUGE));
    for bytes in [4096, HUGE - 512, HUGE + 4096] {
        assert!(!waits(&mut Core::new(Plain::new(), &ram(bytes)), bytes - 512), "{bytes}");
    }
    let kind = Kind::Ram { bytes: 2 * HUGE, preallocate: true };
    assert!(!waits(&mut Core::new(Plain::new(), &Store::open(&Settings::new(kind)).unwrap()), 0));
}

#[test]
fn all_requests_that_write_wait_for_memory_and_share_it() {
    let store = ram(8 * HUGE);
    let mut core = Core::new(Plain::new(), &store);
    let mut pattern = core.buffer(512);
    pattern[..512].fill(3);
    let fill = Request::Fill { offset: 0, length: 4096, buffer: pattern, pattern: 512, durable: false, tuple: None };
    let across = core.write_request(3 * HUGE - 512, &[5; 1024], true);
    let zero = |unmap| Request::Zero { offset: 6 * HUGE - 512, length: HUGE, unmap, durable: false };
    let pending = |core: &mut Core<Plain>, request| matches!(core.offer(request).1, Submitted::Pending);
    for request in [fill, across] {
        assert!(pending(&mut core, request));
    }
    assert!(waits(&mut core, 4096) && waits(&mut core, 2 * HUGE));
    assert_eq!(ends(&mut core), [const { Ok(Answer::Done) }; 4]);
    assert_eq!(core.reactor.log, [const { Done::Job }; 3], "one for each range, and one for what comes behind");
    assert_eq!(core.read(3584, 1024).unwrap(), [[3; 512], [7; 512]].concat());
    assert_eq!(core.read(3 * HUGE - 512, 1024).unwrap(), [5; 1024]);
    // Nothing has to be had to be nothing.
    assert!(!pending(&mut core, zero(true)));
    assert!(pending(&mut core, zero(false)));
    assert_eq!(core.drain().len(), 1);
    assert_eq!(core.status(5 * HUGE, 3 * HUGE, 9)[1], (6 * HUGE - 4096, HUGE + 4096, true));
}

#[test]
fn a_discard_of_a_huge_page_gives_its_memory_back() {
    let store = ram(4 * HUGE);
    let mut core = Core::new(Plain::new(), &store);
    core.write(HUGE, &[1; 8192], false).unwrap();
    core.simple(Request::Discard { offset: HUGE, length: HUGE - 4096 }).unwrap();
    assert!(!waits(&mut core, HUGE), "its page is small");
    for unmap in [
        Request::Discard { offset: 4096, length: 2 * HUGE },
        Request::Zero { offset: HUGE - 512, length: HUGE + 1024, unmap: true, durable: false },
    ] {
        core.simple(unmap).unwrap();
        assert!(waits(&mut core, HUGE));
        ends(&mut core);
        assert_eq!(core.read(HUGE, 1024).unwrap(), [[7; 512], [0; 512]].concat());
    }
    // In time, and too late: the write that waits gets its memory all the same.
    assert!(waits(&mut core, 0));
    core.simple(Request::Discard { offset: 0, length: HUGE }).unwrap();
    assert_eq!(ends(&mut core), [Ok(Answer::Done)]);
    assert_eq!(core.status(0, HUGE, 9), [(0, 4096, true), (4096, HUGE - 4096, false)]);
}

#[test]
fn who_writes_one_block_after_the_other_finds_memory_ahead() {
    let pages = 24;
    let store = ram(pages * HUGE + 4096);
    let mut core = Core::new(Plain::new(), &store);
    let mut waited = Vec::new();
    for page in 0..pages {
        for offset in [page * HUGE, (page + 1) * HUGE - 512] {
            if waits(&mut core, offset) {
                waited.push(offset / HUGE);
            }
            core.drain();
        }
        // Only what was written is mapped, and counts.
        let rest = core.status(page * HUGE, (pages - page) * HUGE, 9);
        assert_eq!(rest.iter().filter(|extent| extent.2).count(), 2, "{rest:?}");
        let space = core.run(Request::Space).result;
        let used = (page + 1) * 8192;
        let available = pages * HUGE + 4096 - used;
        assert_eq!(space, Ok(Answer::Space(Space { used: Some(used), available: Some(available) })));
    }
    assert_eq!(waited, [0, 1]);
    // Each page was got once, and nothing behind the end.
    assert_eq!(core.reactor.log.len() as u64, pages);
    // No more than was written before, and 16 MiB at most.
    let store = ram(64 * HUGE);
    let mut core = Core::new(Plain::new(), &store);
    let there = |core: &mut Core<Plain>| {
        (0..64).filter(|page| core.queue.writes_now(page * HUGE + 4096, 512)).collect::<Vec<u64>>()
    };
    for (page, ahead) in [(30, vec![30]), (31, vec![30, 31, 32]), (32, (30..35).collect())] {
        for offset in [page * HUGE, (page + 1) * HUGE - 512] {
            waits(&mut core, offset);
            core.drain();
        }
        assert_eq!(there(&mut core), ahead);
    }
    for page in 33..45 {
        for offset in [page * HUGE, (page + 1) * HUGE - 512] {
            waits(&mut core, offset);
            core.drain();
        }
        assert!(there(&mut core).len() as u64 <= page - 30 + 1 + 8);
    }
}

#[test]
fn what_finds_no_memory_fails_and_what_has_some_does_not() {
    let store = ram(8 * HUGE);
    let mut core = Core::new(Plain::new(), &store);
    for (errno, error) in [(Os::NOMEM, StoreError::NoSpace), (Os::FAULT, StoreError::Other(Os::FAULT.raw_os_error()))] {
        core.reactor.fails_jobs = Some(Errno(errno.raw_os_error()));
        assert!(waits(&mut core, 0) && waits(&mut core, 3 * HUGE) && waits(&mut core, 512));
        assert_eq!(ends(&mut core), [const { 0 }; 3].map(|_| Err(error)));
        assert_eq!(core.status(0, 8 * HUGE, 9), [(0, 8 * HUGE, false)]);
    }
    core.reactor.fails_jobs = None;
    for offset in [HUGE - 512, HUGE + 4096] {
        assert!(waits(&mut core, offset));
        core.drain();
    }
    // That there is none ahead is nobody's affair, until it is needed.
    core.reactor.fails_jobs = Some(Errno(Os::NOMEM.raw_os_error()));
    let jobs = core.reactor.log.len();
    assert!(!waits(&mut core, HUGE));
    assert_eq!(ends(&mut core), []);
    assert_eq!(core.reactor.log.len(), jobs + 1);
    assert!(waits(&mut core, 2 * HUGE));
    assert_eq!(ends(&mut core), [Err(StoreError::NoSpace)]);
    core.reactor.fails_jobs = None;
    assert!(waits(&mut core, 2 * HUGE));
    assert_eq!(ends(&mut core), [Ok(Answer::Done)], "when there is memory again");
}

#[test]
fn writes_that_wait_are_bounded_and_need_no_room_in_the_reactor() {
    let settings = Settings { depth: 6, ..Settings::new(Kind::Ram { bytes: 16 * HUGE, preallocate: false }) };
    let store = Store::open(&settings).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    core.reactor.slots = 1;
    // One behind the other, and two that wait for the same.
    for page in [9, 0, 3, 3, 12, 5] {
        assert!(waits(&mut core, page * HUGE + 4096));
    }
    let request = core.write_request(7 * HUGE, &[7; 512], false);
    assert!(matches!(core.offer(request).1, Submitted::Full(_)));
    assert_eq!(core.queue.in_flight(), 6);
    assert_eq!(ends(&mut core), [const { Ok(Answer::Done) }; 6]);
    assert!(waits(&mut core, 7 * HUGE) && !waits(&mut core, 9 * HUGE));
}

#[test]
fn a_write_that_waits_is_refused_when_the_volume_has_become_smaller() {
    let store = ram(8 * HUGE);
    let mut core = Core::new(Plain::new(), &store);
    assert!(waits(&mut core, 6 * HUGE));
    let settings = |bytes| Settings::new(Kind::Ram { bytes, preallocate: false });
    store.resize(4 * HUGE);
    store.measure(&settings(8 * HUGE)).unwrap();
    assert_eq!(ends(&mut core), [Err(StoreError::OutOfRange { bytes: 4 * HUGE })]);
    store.resize(8 * HUGE);
    assert_eq!(core.read(6 * HUGE, 512).unwrap(), [0; 512]);
}

#[test]
fn null_reads_zeroes_and_keeps_nothing() {
    let store = Store::open(&Settings::new(Kind::Null { bytes: 1 << 40 })).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    core.write(1 << 30, &[1; 4096], true).unwrap();
    assert_eq!(core.read(1 << 30, 4096).unwrap(), [0; 4096]);
    let mut found = [9; 512];
    core.queue.read_now(0, &mut found).unwrap().unwrap();
    assert_eq!(found, [0; 512]);
    core.queue.write_now(1 << 39, &[1; 512]).unwrap().unwrap();
    let (zeroes, at) = core.queue.region(1 << 39, 512).unwrap();
    found.fill(9);
    zeroes.read(at, &mut found);
    assert_eq!(found, [0; 512]);
    let outside = (1 << 40) - 256;
    assert!(core.queue.read_now(outside, &mut found).unwrap().is_err());
    assert!(core.queue.write_now(outside, &found).unwrap().is_err());
    assert!(core.queue.region(outside, 512).is_none());
    assert_eq!(core.status(0, 1 << 40, 5), [(0, 1 << 40, false)]);
    core.simple(Request::Flush).unwrap();
}
