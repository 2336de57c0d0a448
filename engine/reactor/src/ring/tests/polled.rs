//! Disks that are polled. The holes of a sparse file can be read so on any file system with direct I/O; its data can't, where
//! the device has no queue for it.

use super::*;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// A sparse file with a block of nines at 1 MiB, open for direct I/O; None where the file system has none.
fn sparse() -> Option<Arc<OwnedFd>> {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.as_file().set_len(2 << 20).unwrap();
    file.as_file().write_at(&[9; 4096], 1 << 20).unwrap();
    file.as_file().sync_all().unwrap();
    let direct = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(file.path()).ok()?;
    Some(Arc::new(direct.into()))
}

fn read(ring: &mut Ring, file: Descriptor, offset: u64, token: u64) {
    let mut buffer = ring.pool().take(Class::Small).unwrap();
    buffer.fill(5);
    submit(ring, Operation::Read { file, offset, buffer, range: 0..4096 }, token);
}

#[test]
fn a_polled_file_is_looked_at_only_while_something_is_in_flight() {
    let Some(shared) = sparse() else { return };
    let mut ring = Ring::new(&settings("none"), &arena()).unwrap();
    assert_eq!(ring.features.get(Feature::PolledDisks), Use::Unasked);
    let file = ring.register_polled(&shared).unwrap();
    assert_eq!(ring.features.get(Feature::PolledDisks), Use::Used);
    assert!(!ring.polls());
    for round in 0..20 {
        for token in 0..8 {
            read(&mut ring, file, (round * 8 + token) * 4096, token);
        }
        assert!(ring.polls());
        let done = wait_for(&mut ring, 8);
        assert!(done.iter().all(|done| done.result == Ok(4096)));
        assert!(done.into_iter().map(buffer_of).all(|buffer| buffer[..4096] == [0; 4096]));
    }
    // With nothing in flight the core sleeps.
    let sleeps = ring.counters().sleeps;
    ring.turn(Wait::Until(clock() + Duration::from_millis(5)), &mut Vec::new()).unwrap();
    assert_eq!((ring.counters().sleeps, ring.polls(), ring.counters().stale), (sleeps + 1, false, 0));
    // A flush goes another way.
    submit(&mut ring, Operation::Sync { file, data_only: true }, 30);
    assert!(!ring.polls());
    assert_eq!(one(&mut ring).result, Ok(0));
    // It closes behind what is in flight.
    read(&mut ring, file, 0, 40);
    ring.close(file);
    assert_eq!(one(&mut ring).token, 40);
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[test]
fn a_file_that_can_not_be_polled_after_all_is_read_as_others_are() {
    let Some(shared) = sparse() else { return };
    let mut ring = Ring::new(&settings("none"), &arena()).unwrap();
    let file = ring.register_polled(&shared).unwrap();
    for token in 0..4 {
        read(&mut ring, file, 1 << 20, token);
    }
    for done in wait_for(&mut ring, 4) {
        assert_eq!(done.result, Ok(4096));
        assert!(buffer_of(done)[..4096] == [9; 4096]);
    }
    let buffer = ring.pool().take(Class::Small).unwrap();
    submit(&mut ring, Operation::Write { file, offset: 0, buffer, range: 0..4096, durable: true }, 9);
    assert_eq!(one(&mut ring).result, Ok(4096));
    assert_eq!((ring.in_flight(), ring.polls(), ring.counters().stale), (0, false, 0));
}

#[test]
fn a_file_without_direct_io_and_a_masked_feature_are_read_as_ever() {
    let file = tempfile::tempfile().unwrap();
    file.write_at(&[7; 4096], 0).unwrap();
    let shared: Arc<OwnedFd> = Arc::new(file.into());
    for (mask, found) in [("none", Use::Absent), ("polled_disks", Use::Masked)] {
        let mut ring = Ring::new(&settings(mask), &arena()).unwrap();
        let file = ring.register_polled(&shared).unwrap();
        assert_eq!(ring.features.get(Feature::PolledDisks), found);
        read(&mut ring, file, 0, 1);
        assert!(!ring.polls());
        assert!(buffer_of(one(&mut ring))[..4096] == [7; 4096]);
    }
}

#[test]
fn the_end_of_a_ring_waits_for_polled_reads() {
    let Some(shared) = sparse() else { return };
    let arena = arena();
    let mut ring = Ring::new(&settings("none"), &arena).unwrap();
    let file = ring.register_polled(&shared).unwrap();
    for token in 0..8 {
        read(&mut ring, file, token * 4096, token);
    }
    drop(ring);
    assert_eq!(arena.pool().available(Class::Small), 16);
}
