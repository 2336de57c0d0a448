//! What the kernel says when something is wrong, and what the store makes of it.

use crate::harness::Core;
use crate::plain::{Done, Plain};
use backstore::{FileSettings, Kind, Settings, Store};
use backstore_api::{Answer, Request, StoreError, Submitted};
use reactor::Errno;
use rustix::io::Errno as Os;
use std::{path::PathBuf, sync::Arc, time::Duration};

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: Arc<Store>,
    core: Core<Plain>,
}

fn bench(tweak: impl FnOnce(&mut FileSettings)) -> Bench {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    let mut file = FileSettings::new(&path, Some(1 << 20));
    tweak(&mut file);
    let store = Store::open(&Settings::new(Kind::File(file))).unwrap();
    let core = Core::new(Plain::new(), &store);
    Bench { _folder: folder, path, store, core }
}

fn errno(os: Os) -> Option<Result<u32, Errno>> {
    Some(Err(Errno(os.raw_os_error())))
}

#[test]
fn each_errno_has_its_meaning() {
    let medium = StoreError::Medium { offset: 8192 };
    for (os, meaning) in [
        (Os::IO, medium),
        (Os::NOSPC, StoreError::NoSpace),
        (Os::DQUOT, StoreError::NoSpace),
        (Os::ROFS, StoreError::ReadOnly),
        (Os::NOMEM, StoreError::Other(Os::NOMEM.raw_os_error())),
        (Os::NODEV, StoreError::Gone),
        (Os::NXIO, StoreError::Gone),
        (Os::STALE, StoreError::Gone),
    ] {
        let mut bench = bench(|_| {});
        bench.core.reactor.fail_with(move |_| errno(os));
        assert_eq!(bench.core.write(8192, &[1; 4096], false), Err(meaning), "{os:?}");
        bench.core.reactor.fault = None;
        // What is gone stays gone; the others may be better next time.
        let next = bench.core.read(0, 512).map(|_| ());
        assert_eq!(next, if meaning == StoreError::Gone { Err(meaning) } else { Ok(()) }, "{os:?}");
    }
}

#[test]
fn a_failed_flush_latches_all_cores_until_it_is_cleared() {
    let mut bench = bench(|_| {});
    let mut other = Core::new(Plain::new(), &bench.store);
    bench.core.write(0, &[1; 512], false).unwrap();
    bench.core.reactor.fail_with(|done| if *done == Done::Sync { errno(Os::IO) } else { None });
    assert_eq!(bench.core.simple(Request::Flush), Err(StoreError::Latched));
    bench.core.reactor.fault = None;
    for core in [&mut bench.core, &mut other] {
        assert_eq!(core.simple(Request::Flush), Err(StoreError::Latched));
        assert_eq!(core.write(0, &[1; 512], false), Err(StoreError::Latched));
        assert_eq!(core.read(0, 512), Err(StoreError::Latched));
    }
    assert_eq!(bench.store.state(), Err(StoreError::Latched));
    bench.store.clear_latch();
    assert_eq!(other.simple(Request::Flush), Ok(()));
    assert_eq!(bench.core.read(0, 512).unwrap(), [1; 512]);
}

#[test]
fn a_flush_that_was_under_way_when_another_failed_fails_too() {
    let mut bench = bench(|_| {});
    let mut other = Core::new(Plain::new(), &bench.store);
    let (_, submitted) = other.offer(Request::Flush);
    assert!(matches!(submitted, Submitted::Pending));
    bench.core.reactor.fail_with(|_| errno(Os::IO));
    assert_eq!(bench.core.simple(Request::Flush), Err(StoreError::Latched));
    // The kernel tells of lost pages once: its Ok to the second one means nothing.
    let ended = other.drain();
    assert_eq!(ended[0].result, Err(StoreError::Latched));
}

#[test]
fn flushes_that_come_during_one_share_the_next() {
    let mut bench = bench(|_| {});
    for _ in 0..5 {
        assert!(matches!(bench.core.offer(Request::Flush).1, Submitted::Pending));
    }
    let ended = bench.core.drain();
    assert_eq!(ended.len(), 5);
    assert!(ended.iter().all(|completion| completion.result == Ok(Answer::Done)));
    // The first one began before the others came; it may not cover what they do.
    assert_eq!(bench.core.reactor.log.iter().filter(|done| **done == Done::Sync).count(), 2);

    let mut count = 0;
    bench.core.reactor.fail_with(move |done| {
        count += u32::from(*done == Done::Sync);
        match (done, count) {
            (Done::Sync, 2) => errno(Os::INTR),
            (Done::Sync, 3) => errno(Os::IO),
            _ => None,
        }
    });
    for _ in 0..5 {
        assert!(matches!(bench.core.offer(Request::Flush).1, Submitted::Pending));
    }
    let ended = bench.core.drain();
    assert_eq!(ended.len(), 5);
    let good = ended.iter().filter(|completion| completion.result == Ok(Answer::Done)).count();
    let bad = ended.iter().filter(|completion| completion.result == Err(StoreError::Latched)).count();
    assert_eq!((good, bad), (1, 4));
}

#[test]
fn a_cancelled_flush_does_not_latch() {
    let mut bench = bench(|_| {});
    bench.core.reactor.fail_with(|_| errno(Os::CANCELED));
    assert!(bench.core.simple(Request::Flush).is_err());
    assert_eq!(bench.store.state(), Ok(()));
}

#[test]
fn a_failed_durable_write_latches_only_where_the_page_cache_may_have_lost_more() {
    for (direct, state) in [(true, Ok(())), (false, Err(StoreError::Latched))] {
        let mut bench = bench(|file| file.direct = direct);
        bench.core.reactor.fail_with(|_| errno(Os::IO));
        let failed = bench.core.write(4096, &[1; 512], true);
        assert_eq!(failed, Err(StoreError::Medium { offset: 4096 }));
        assert_eq!(bench.store.state(), state);
    }
}

#[test]
fn a_failed_sync_of_durable_zeroes_latches() {
    let mut bench = bench(|_| {});
    bench.core.reactor.fail_with(|done| if *done == Done::Sync { errno(Os::IO) } else { None });
    let zero = Request::Zero { offset: 0, length: 8192, unmap: true, durable: true };
    assert_eq!(bench.core.simple(zero), Err(StoreError::Latched));
    assert_eq!(bench.store.state(), Err(StoreError::Latched));
}

#[test]
fn interrupted_operations_are_tried_again() {
    let mut bench = bench(|_| {});
    let mut count = 0;
    bench.core.reactor.fail_with(move |_| {
        count += 1;
        if count % 3 != 0 { errno(if count % 2 == 0 { Os::INTR } else { Os::AGAIN }) } else { None }
    });
    bench.core.write(512, &[4; 1024], true).unwrap();
    assert_eq!(bench.core.read(512, 1024).unwrap(), [4; 1024]);
    bench.core.reactor.fail_with(|_| errno(Os::AGAIN));
    assert_eq!(bench.core.read(0, 512), Err(StoreError::Other(Os::AGAIN.raw_os_error())));
}

#[test]
fn a_short_write_is_continued_and_a_full_disk_ends_it() {
    let mut bench = bench(|file| file.direct = true);
    bench.core.reactor.fail_with(|done| match done {
        Done::Write { length, .. } if *length > 1024 => Some(Ok(1024 + 100)),
        _ => None,
    });
    let bytes: Vec<u8> = (0..8192u32).map(|at| (at / 512) as u8 + 1).collect();
    bench.core.write(0, &bytes, false).unwrap();
    bench.core.reactor.fault = None;
    assert_eq!(bench.core.read(0, 8192).unwrap(), bytes);
    let mut first = true;
    bench.core.reactor.fail_with(move |_| {
        let again = !std::mem::replace(&mut first, false);
        if again { errno(Os::NOSPC) } else { Some(Ok(512)) }
    });
    assert_eq!(bench.core.write(0, &bytes, false), Err(StoreError::NoSpace));
}

#[test]
fn a_file_that_was_cut_short_gives_an_error_and_no_old_bytes() {
    for (direct, least) in [(false, 1), (true, 4096)] {
        let mut bench = bench(|file| {
            file.direct = direct;
            file.least_alignment = least;
        });
        let file = std::fs::OpenOptions::new().write(true).open(&bench.path).unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(bench.core.read(0, 8192), Err(StoreError::Medium { offset: 4096 }));
        let found = bench.core.read(512 << 10, 512);
        assert!(matches!(found, Err(StoreError::Medium { .. })), "{found:?}");
    }
}

#[test]
fn a_deleted_file_is_gone_by_the_next_flush() {
    let mut bench = bench(|_| {});
    bench.core.simple(Request::Flush).unwrap();
    std::fs::remove_file(&bench.path).unwrap();
    // It was looked at less than a second ago.
    bench.core.simple(Request::Flush).unwrap();
    bench.core.reactor.now += Duration::from_secs(2);
    assert_eq!(bench.core.simple(Request::Flush), Err(StoreError::Gone));
    assert_eq!(bench.core.read(0, 512), Err(StoreError::Gone));
    assert_eq!(bench.store.state(), Err(StoreError::Gone));
}

#[test]
fn a_medium_error_makes_it_look_whether_the_file_is_there() {
    let mut bench = bench(|_| {});
    std::fs::remove_file(&bench.path).unwrap();
    bench.core.reactor.fail_with(|_| errno(Os::IO));
    let buffer = bench.core.buffer(512);
    bench.core.offer(Request::Read { offset: 0, buffer, range: 0..512 });
    let ended = bench.core.drain();
    assert_eq!(ended[0].result, Err(StoreError::Medium { offset: 0 }));
    assert_eq!(bench.store.state(), Err(StoreError::Gone));
}

#[test]
fn a_renamed_file_stays() {
    let bench = bench(|_| {});
    std::fs::rename(&bench.path, bench.path.with_extension("new")).unwrap();
    assert_eq!(bench.store.probe(), Ok(()));
    std::fs::remove_file(bench.path.with_extension("new")).unwrap();
    assert_eq!(bench.store.probe(), Err(StoreError::Gone));
}

#[test]
fn requests_outside_the_medium_or_the_buffer_are_refused() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = FileSettings::new(folder.path().join("disk"), Some(1 << 20));
    for kind in [Kind::Ram { bytes: 1 << 20, preallocate: false }, Kind::Null { bytes: 1 << 20 }, Kind::File(file)] {
        let store = Store::open(&Settings::new(kind)).unwrap();
        let mut core = Core::new(Plain::new(), &store);
        let invalid = Err(StoreError::Other(Os::INVAL.raw_os_error()));
        let outside = Err(StoreError::OutOfRange { bytes: 1 << 20 });
        for (offset, length) in [(1 << 20, 512), ((1 << 20) - 512, 1024), (u64::MAX - 100, 512)] {
            let buffer = core.buffer(4096);
            let read = core.run(Request::Read { offset, buffer, range: 0..length as u32 });
            assert_eq!(read.result, outside.map(|()| Answer::Done));
            assert!(read.buffer.is_some(), "the buffer comes back");
            assert_eq!(core.simple(Request::Discard { offset, length }), outside);
            let zero = Request::Zero { offset, length, unmap: true, durable: true };
            assert_eq!(core.simple(zero), outside);
        }
        #[allow(clippy::reversed_empty_ranges)]
        for range in [0..8192u32, 4000..5000, 10..5] {
            let buffer = core.buffer(4096);
            assert_eq!(core.simple(Request::Write { offset: 0, buffer, range, durable: false }), invalid);
        }
        for pattern in [0, 4097] {
            let buffer = core.buffer(4096);
            let fill = Request::Fill { offset: 0, length: 4096, buffer, pattern, durable: false, tuple: None };
            assert_eq!(core.simple(fill), invalid);
        }
    }
}

#[test]
fn durable_means_synced_and_plain_means_not() {
    let mut bench = bench(|file| file.least_alignment = 4096);
    bench.core.write(512, &[1; 8192], true).unwrap();
    bench.core.write(512, &[2; 512], false).unwrap();
    let syncs: Vec<bool> = bench
        .core
        .reactor
        .log
        .iter()
        .filter_map(|done| match done {
            Done::Write { durable, .. } => Some(*durable),
            _ => None,
        })
        .collect();
    assert_eq!(syncs, [true, true, true, false], "head, middle and tail, then one block");
    bench.core.reactor.log.clear();
    let zero = Request::Zero { offset: 0, length: 8192, unmap: false, durable: true };
    bench.core.simple(zero).unwrap();
    assert_eq!(bench.core.reactor.log.last(), Some(&Done::Sync));
    // The durable write of the last block says nothing of the range before it.
    let zero = Request::Zero { offset: 0, length: 8192 + 512, unmap: true, durable: true };
    bench.core.simple(zero).unwrap();
    assert_eq!(bench.core.reactor.log.last(), Some(&Done::Sync));
    bench.core.reactor.log.clear();
    bench.core.simple(Request::Flush).unwrap();
    assert_eq!(bench.core.reactor.log[0], Done::Sync);
}

#[test]
fn an_aligned_request_is_one_operation() {
    let mut bench = bench(|file| {
        file.direct = true;
        file.least_alignment = 4096;
    });
    bench.core.write(8192, &[1; 65536], false).unwrap();
    bench.core.read(8192, 65536).unwrap();
    // A misaligned read covers whole blocks in one operation.
    bench.core.read(512, 512).unwrap();
    let log = &bench.core.reactor.log;
    assert_eq!(log.len(), 3);
    assert_eq!(log[2], Done::Read { offset: 0, length: 4096 });
}

#[test]
fn the_queue_is_full_at_its_depth_and_takes_more_after_a_completion() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = FileSettings::new(folder.path().join("disk"), Some(1 << 20));
    let mut settings = Settings::new(Kind::File(file));
    settings.depth = 4;
    let store = Store::open(&settings).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    for at in 0..4 {
        let request = core.write_request(at * 4096, &[1; 512], false);
        assert!(matches!(core.offer(request).1, Submitted::Pending));
    }
    let request = core.write_request(0, &[2; 512], false);
    let (_, Submitted::Full(request)) = core.offer(request) else { panic!("a fifth request") };
    assert_eq!(core.turn().len(), 1);
    assert!(matches!(core.offer(request).1, Submitted::Pending));
    assert_eq!(core.drain().len(), 4);
    assert_eq!(core.queue.in_flight(), 0);
}

#[test]
fn a_completion_that_comes_twice_is_dropped() {
    let mut bench = bench(|_| {});
    bench.core.read(0, 512).unwrap();
    for token in 0..=0x3ff {
        let stale = reactor::Completion {
            token: crate::harness::BASE | token << 8,
            result: Ok(512),
            returned: reactor::Returned::Nothing,
        };
        assert!(bench.core.queue.complete(&mut bench.core.reactor, stale).is_none());
    }
    bench.core.read(0, 512).unwrap();
}

#[test]
fn holes_are_told_from_data() {
    let mut bench = bench(|_| {});
    assert_eq!(bench.core.status(0, 1 << 20, 8), [(0, 1 << 20, false)]);
    bench.core.write(64 << 10, &[1; 4096], false).unwrap();
    let found = bench.core.status(0, 1 << 20, 8);
    assert_eq!(found, [(0, 65536, false), (65536, 4096, true), (69632, (1 << 20) - 69632, false)]);
    assert_eq!(bench.core.status(0, 1 << 20, 2), found[..2]);
    bench.core.simple(Request::Discard { offset: 65536, length: 4096 }).unwrap();
    assert_eq!(bench.core.status(512, 4096, 8), [(512, 4096, false)]);
}

#[cfg(feature = "broken-durability")]
#[test]
fn the_broken_variants_are_broken() {
    use std::sync::atomic::Ordering;
    let mut bench = bench(|_| {});
    let broken = bench.store.broken().unwrap();
    broken.ignore_fua.store(true, Ordering::Relaxed);
    broken.ignore_flush.store(true, Ordering::Relaxed);
    bench.core.write(0, &[1; 512], true).unwrap();
    bench.core.simple(Request::Flush).unwrap();
    assert_eq!(bench.core.reactor.log, [Done::Write { offset: 0, length: 512, durable: false }]);
}
