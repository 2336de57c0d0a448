//! The stores on the real ring.

use crate::harness::Core;
use crate::model::{Act, Model, act, file_settings};
use backstore::{Kind, Settings, Store};
use backstore_api::{Answer, Request, StoreError, Submitted};
use memory::{Arena, ArenaConfig};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use reactor::{FeatureMask, Ring, RingSettings};

pub fn ring(features: FeatureMask) -> Ring {
    let arena = Arena::new(ArenaConfig { small: 32, medium: 64, large: 16 }).unwrap();
    let settings = RingSettings {
        entries: 32,
        slots: 64,
        files: 16,
        receive_buffers: 2,
        helper_threads: 1,
        features,
        ..RingSettings::default()
    };
    Ring::new(&settings, &arena).expect("io_uring is needed for this test")
}

/// A fixed long sequence of random acts: the property itself is tested elsewhere.
pub fn long_sequence() -> Vec<Act> {
    let strategy = proptest::collection::vec(act(), 300);
    strategy.new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

pub fn follow(settings: &Settings, features: FeatureMask) {
    let store = Store::open(settings).unwrap();
    let mut model = Model::new(Core::new(ring(features), &store));
    for act in &long_sequence() {
        model.act(act);
    }
    model.compare();
    let Core { mut reactor, mut queue, .. } = model.core;
    queue.close(&mut reactor);
}

#[test]
fn a_write_to_memory_gets_it_from_a_helper_thread() {
    const HUGE: u64 = 2 << 20;
    let store = Store::open(&Settings::new(Kind::Ram { bytes: 4 * HUGE, preallocate: false })).unwrap();
    let mut core = Core::new(ring(FeatureMask::NONE), &store);
    let request = core.write_request(HUGE, &[7; 4096], false);
    assert!(matches!(core.offer(request).1, Submitted::Pending));
    let ended = core.drain();
    assert_eq!((ended.len(), &ended[0].result), (1, &Ok(Answer::Done)));
    assert_eq!(core.read(HUGE, 4096).unwrap(), [7; 4096]);
    core.queue.write_now(2 * HUGE - 512, &[7; 512]).unwrap().unwrap();
}

#[test]
fn a_buffered_file_keeps_its_bytes() {
    let (_folder, settings) = file_settings(false, 1);
    follow(&settings, FeatureMask::NONE);
}

#[test]
fn a_direct_file_keeps_its_bytes() {
    let (_folder, settings) = file_settings(true, 1);
    follow(&settings, FeatureMask::NONE);
}

#[test]
fn a_direct_file_with_large_blocks_keeps_its_bytes() {
    let (_folder, settings) = file_settings(true, 4096);
    follow(&settings, FeatureMask::NONE);
}

#[test]
fn a_file_keeps_its_bytes_with_what_an_old_kernel_has() {
    let (_folder, settings) = file_settings(true, 4096);
    follow(&settings, FeatureMask::of_kernel(5, 19));
}

/// tmpfs punches holes and does not zero ranges: the second is written.
#[test]
fn a_file_in_memory_keeps_its_bytes() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("not tested: there is no /dev/shm");
        return;
    };
    let file = backstore::FileSettings::new(folder.path().join("disk"), Some(crate::model::BYTES));
    follow(&Settings::new(backstore::Kind::File(file)), FeatureMask::NONE);
}

#[test]
fn two_cores_write_neighbouring_blocks() {
    let (_folder, settings) = file_settings(true, 1);
    let store = Store::open(&settings).unwrap();
    let threads: Vec<_> = (0..2u64)
        .map(|core| {
            let store = std::sync::Arc::clone(&store);
            std::thread::spawn(move || {
                let mut one = Core::new(ring(FeatureMask::NONE), &store);
                let a = u64::from(one.queue.geometry().alignment);
                for round in 1..20u8 {
                    for at in 0..8 {
                        let offset = (at * 2 + core) * a;
                        one.write(offset, &vec![round + core as u8 * 100; a as usize], true).unwrap();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let mut core = Core::new(ring(FeatureMask::NONE), &store);
    let a = core.queue.geometry().alignment;
    let found = core.read(0, a * 16).unwrap();
    for (at, block) in found.chunks(a as usize).enumerate() {
        assert!(block.iter().all(|byte| *byte == 19 + (at % 2) as u8 * 100), "block {at}");
    }
}

#[test]
fn a_full_store_does_not_stop_another_one() {
    let (_one, mut settings) = file_settings(true, 4096);
    settings.depth = 2;
    let stalled = Store::open(&settings).unwrap();
    let (_two, settings) = file_settings(false, 1);
    let other = Store::open(&settings).unwrap();
    let mut core = Core::new(ring(FeatureMask::NONE), &stalled);
    let mut queue = other.queue(&mut core.reactor, 8 << 24).unwrap();
    for at in 0..2 {
        let request = core.write_request(at * 4096 + 512, &[1; 512], true);
        assert!(matches!(core.offer(request).1, Submitted::Pending));
    }
    assert!(matches!(core.offer(Request::Flush).1, Submitted::Full(_)));
    // Nobody looks after the first queue; the second one runs.
    assert!(matches!(queue.submit(&mut core.reactor, 1, Request::Flush), Submitted::Pending));
    let mut out = Vec::new();
    let flushed = (0..1000).find_map(|_| {
        let wait = reactor::Wait::Until(reactor::Reactor::now(&core.reactor) + std::time::Duration::from_millis(5));
        reactor::Reactor::turn(&mut core.reactor, wait, &mut out).unwrap();
        out.drain(..)
            .filter(|completion| completion.token >> 24 == 8)
            .find_map(|completion| queue.complete(&mut core.reactor, completion))
    });
    assert_eq!(flushed.expect("a flush that ends").result, Ok(Answer::Done));
}

#[test]
fn a_read_past_the_end_gives_an_error_and_no_old_bytes() {
    let (folder, settings) = file_settings(true, 1);
    let store = Store::open(&settings).unwrap();
    let mut core = Core::new(ring(FeatureMask::NONE), &store);
    std::fs::OpenOptions::new().write(true).open(folder.path().join("disk")).unwrap().set_len(4096).unwrap();
    assert_eq!(core.read(0, 8192), Err(StoreError::Medium { offset: 4096 }));
}
