//! The twin keeps the promises of a reactor, and its world the threats.

use super::*;
use crate::Pdus;
use crate::{Message, Part};
use memory::ArenaConfig;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn arena() -> Arena {
    Arena::new(ArenaConfig { small: 64, medium: 8, large: 4 }).unwrap()
}

fn twin(world: &World) -> Twin {
    Twin::new(world, &arena(), TwinSettings { slots: 64, files: 8, receive_buffers: 4 })
}

fn submit(twin: &mut Twin, operation: Operation, token: u64) -> OperationId {
    twin.submit(operation, token).ok().expect("a free slot")
}

/// Turns one twin until `count` completions came.
fn wait_for(twin: &mut Twin, count: usize) -> Vec<Completion> {
    let mut out = Vec::new();
    while out.len() < count {
        assert!(!twin.world.is_quiet() || twin.in_flight() > 0 && !out.is_empty(), "{} of {count} came", out.len());
        twin.turn(Wait::Forever, &mut out).unwrap();
    }
    assert_eq!(out.len(), count);
    out
}

fn one(twin: &mut Twin) -> Completion {
    wait_for(twin, 1).pop().unwrap()
}

fn write(twin: &mut Twin, file: Descriptor, offset: u64, bytes: &[u8], durable: bool, token: u64) {
    let mut buffer = twin.pool().take(Class::fitting(bytes.len())).unwrap();
    buffer[..bytes.len()].copy_from_slice(bytes);
    submit(twin, Operation::Write { file, offset, buffer, range: 0..bytes.len() as u32, durable }, token);
}

fn read(twin: &mut Twin, file: Descriptor, offset: u64, length: u32) -> Result<Vec<u8>, Errno> {
    let buffer = twin.pool().take(Class::Small).unwrap();
    submit(twin, Operation::Read { file, offset, buffer, range: 8..8 + length }, 0);
    let done = one(twin);
    let Returned::Buffer(buffer) = done.returned else { panic!("no buffer came back") };
    done.result.map(|count| buffer[8..8 + count as usize].to_vec())
}

#[test]
fn streams_keep_bytes_in_order_however_they_are_cut() {
    for seed in 0..50 {
        let world = World::new(seed);
        let mut twin = twin(&world);
        let (fd, peer) = world.connect().unwrap();
        let socket = twin.register(fd).unwrap();
        let sent: Vec<u8> = (0..5000u32).map(|n| (n / 11) as u8).collect();
        peer.write(&sent);
        peer.finish();
        let mut echo = Vec::new();
        loop {
            submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
            let done = one(&mut twin);
            let count = done.result.unwrap();
            let Returned::Buffer(buffer) = done.returned else {
                assert_eq!(count, 0);
                break;
            };
            let parts = vec![
                Part::Buffer { index: 0, range: 0..count / 2 },
                Part::Buffer { index: 0, range: count / 2..count },
            ];
            let message = Message { parts, buffers: vec![buffer], ..Message::default() };
            submit(&mut twin, Operation::Send { socket, message }, 2);
            assert_eq!(one(&mut twin).result, Ok(count));
            echo.extend(peer.read(usize::MAX));
        }
        assert_eq!(echo, sent);
        assert_eq!(twin.in_flight(), 0);
    }
}

#[test]
fn what_receives_that_stay_bring_and_leave_behind_is_in_order() {
    let (mut stayed, mut left, mut sudden) = (0, 0, 0);
    for seed in 0..50 {
        let world = World::new(seed);
        let mut twin = twin(&world);
        let (fd, peer) = world.connect().unwrap();
        let socket = twin.register(fd).unwrap();
        let sent: Vec<u8> = (0..5000u32).map(|n| (n / 7) as u8).collect();
        let mut got: Vec<u8> = Vec::new();
        let mut pieces = sent.chunks(500);
        let mut out = Vec::new();
        'stream: loop {
            let id = submit(&mut twin, Operation::Receive { socket, stay: true, most: u32::MAX }, 1);
            let mut parts = 0;
            loop {
                pieces.next().into_iter().for_each(|piece| peer.write(piece));
                if pieces.len() == 0 {
                    peer.finish();
                }
                twin.turn(Wait::Forever, &mut out).unwrap();
                for done in out.drain(..) {
                    let goes_on = matches!(done.returned, Returned::Part(_));
                    parts += u32::from(goes_on);
                    match (done.result, done.returned) {
                        (Ok(count), Returned::Part(buffer) | Returned::Buffer(buffer)) => {
                            got.extend(&buffer[..count as usize]);
                            sudden += u32::from(!goes_on && parts < 3);
                        }
                        (Ok(0), _) => break 'stream,
                        (Err(Errno::CANCELED), _) => left += u32::from(got.len() < sent.len()),
                        (result, _) => assert_eq!(result, Err(Errno::NO_BUFFERS)),
                    }
                    if !goes_on {
                        continue 'stream;
                    }
                }
                if parts > 2 {
                    twin.cancel(id);
                }
                stayed += parts;
            }
        }
        assert!(got == sent);
        assert_eq!(twin.in_flight(), 0);
    }
    assert!(stayed > 100 && left > 10 && sudden > 10, "{stayed} {left} {sudden}");
}

#[test]
fn a_send_stalls_while_the_window_is_full() {
    let world = World::new(1);
    let mut twin = twin(&world);
    let (fd, peer) = world.connect().unwrap();
    let socket = twin.register(fd).unwrap();
    peer.set_window(10);
    let message = Message { bytes: (0..25).collect(), ..Message::default() };
    submit(&mut twin, Operation::Send { socket, message }, 1);
    let mut out = Vec::new();
    let mut got = Vec::new();
    while got.len() < 25 {
        for _ in 0..100 {
            twin.turn(Wait::Forever, &mut out).unwrap();
        }
        assert!(peer.unread() <= 10);
        assert_eq!(peer.unread(), (25 - got.len()).min(10));
        got.extend(peer.read(7));
    }
    assert_eq!(out.len() + wait_for_rest(&mut twin, out.len()), 1);
    assert_eq!(got, (0..25).collect::<Vec<u8>>());
}

fn wait_for_rest(twin: &mut Twin, have: usize) -> usize {
    if have == 0 { wait_for(twin, 1).len() } else { 0 }
}

#[test]
fn the_ends_of_a_stream_are_seen() {
    let world = World::new(2);
    let mut twin = twin(&world);
    let (fd, peer) = world.connect().unwrap();
    let socket = twin.register(fd).unwrap();
    peer.write(b"xy");
    peer.close();
    let mut got = 0;
    while got < 2 {
        submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
        got += one(&mut twin).result.unwrap();
    }
    submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
    let end = one(&mut twin);
    assert!(end.result == Ok(0) && matches!(end.returned, Returned::Nothing));
    submit(&mut twin, Operation::Send { socket, message: Message { bytes: vec![1], ..Message::default() } }, 1);
    assert_eq!(one(&mut twin).result, Err(Errno(libc::EPIPE)));

    let (fd, peer) = world.connect().unwrap();
    let socket = twin.register(fd).unwrap();
    peer.write(b"xy");
    peer.reset();
    submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
    assert_eq!(one(&mut twin).result, Err(Errno(libc::ECONNRESET)));

    let (fd, peer) = world.connect().unwrap();
    let socket = twin.register(fd).unwrap();
    assert!(!peer.is_at_end());
    submit(&mut twin, Operation::Shutdown { socket }, 1);
    assert_eq!(one(&mut twin).result, Ok(0));
    assert!(peer.is_at_end());
}

#[test]
fn receives_are_of_what_was_asked_for_and_what_is_behind_goes_to_the_headroom() {
    let world = World::new(7);
    let mut twin = twin(&world);
    let (fd, peer) = world.connect().unwrap();
    let socket = twin.register(fd).unwrap();
    for (range, behind) in [(10..30, 8), (0..4096, 0), (5..6, 100)] {
        let sent: Vec<u8> = (0..range.end - range.start + behind).map(|n| n as u8).collect();
        peer.write(&sent);
        let (length, mut got) = (range.len(), Vec::<u8>::new());
        while got.len() < sent.len() {
            let mut buffer = twin.pool().take(Class::Small).unwrap();
            buffer.with_headroom().fill(99);
            let at = got.len().min(length - 1) as u32;
            submit(&mut twin, Operation::ReceiveInto { socket, buffer, range: range.start + at..range.end, behind }, 1);
            let done = one(&mut twin);
            let count = done.result.unwrap() as usize;
            let Returned::Buffer(buffer) = done.returned else { panic!() };
            let (start, end) = ((range.start + at) as usize, range.end as usize);
            let direct = count.min(end - start);
            got.extend(&buffer[start..start + direct]);
            got.extend(&buffer.headroom()[..count - direct]);
            assert!(buffer[..start].iter().chain(&buffer[end..]).all(|byte| *byte == 99));
        }
        assert_eq!(got, sent);
    }
    let sent: Vec<u8> = (0..20_000_u32).map(|n| (n / 7) as u8).collect();
    peer.write(&sent);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let buffers = std::iter::from_fn(|| twin.pool().take(Class::Small)).take(3).collect();
        submit(
            &mut twin,
            Operation::ReceivePdus { socket, pdus: Pdus { buffers, first: 7, between: 48, data: 1000 } },
            1,
        );
        let done = one(&mut twin);
        let Returned::Pdus(pdus) = done.returned else { panic!() };
        for place in 0..3 {
            let (front, data) = pdus.lengths(place, done.result.unwrap() as usize);
            got.extend([pdus.in_front(place, front), &pdus.buffers[place][..data]].concat());
        }
    }
    assert!(got == sent);
    peer.write(&[7; 100]);
    let mut left = 100;
    while left > 0 {
        submit(&mut twin, Operation::Receive { socket, stay: false, most: 9 }, 1);
        let count = one(&mut twin).result.unwrap();
        assert!((1..=9).contains(&count));
        left -= count;
    }
}

#[test]
fn waiting_operations_end_by_cancel_and_close() {
    let world = World::new(3);
    let mut twin = twin(&world);
    let (fd, peer) = world.connect().unwrap();
    let socket = twin.register(fd).unwrap();
    let id = submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
    let mut out = Vec::new();
    for _ in 0..10 {
        twin.turn(Wait::Forever, &mut out).unwrap();
    }
    assert!(out.is_empty() && world.is_quiet());
    twin.cancel(id);
    assert_eq!(one(&mut twin).result, Err(Errno(libc::ECANCELED)));
    let buffer = twin.pool().take(Class::Small).unwrap();
    submit(&mut twin, Operation::ReceiveInto { socket, buffer, range: 0..9, behind: 0 }, 2);
    twin.close(socket);
    submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 3);
    for done in wait_for(&mut twin, 2) {
        match done.token {
            2 => {
                assert!(matches!(done.result, Err(Errno(libc::ECANCELED)) | Ok(0)));
                assert!(matches!(done.returned, Returned::Buffer(_)));
            }
            _ => assert_eq!(done.result, Err(Errno(libc::EBADF))),
        }
    }
    assert!(peer.is_at_end());
    assert!(twin.handles.is_empty());
}

#[test]
fn without_a_slot_or_a_buffer_nothing_is_lost() {
    let world = World::new(4);
    let mut twin = twin(&world);
    let (fd, peer) = world.connect().unwrap();
    let socket = twin.register(fd).unwrap();
    peer.write(&[7; 100]);
    let all: Vec<Buffer> = std::iter::from_fn(|| twin.pool().take(Class::Medium)).collect();
    twin.reserve.clear();
    let taken: Vec<Buffer> = std::iter::from_fn(|| twin.pool().take(Class::Medium)).collect();
    submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
    assert_eq!(one(&mut twin).result, Err(Errno::NO_BUFFERS));
    drop((all, taken));
    submit(&mut twin, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
    assert!(one(&mut twin).result.unwrap() > 0);
    for token in 0..64 {
        submit(&mut twin, Operation::Shutdown { socket }, token);
    }
    assert!(twin.submit(Operation::Shutdown { socket }, 0).is_err());
    wait_for(&mut twin, 64);
}

#[test]
fn a_job_runs_and_answers_later() {
    let world = World::new(5);
    let mut twin = twin(&world);
    twin.offload(Box::new(|| Ok((7, vec![1]))), 9).ok().unwrap();
    let done = one(&mut twin);
    assert!(done.token == 9 && done.result == Ok(7));
    assert!(matches!(done.returned, Returned::Job(7, bytes) if bytes == [1]));
}

#[test]
fn one_seed_has_one_history() {
    let history = |seed| {
        let world = World::new(seed);
        let mut twin = twin(&world);
        let file = world.file(1 << 20);
        let descriptor = twin.open(&file).unwrap();
        let mut out = Vec::new();
        for token in 0..50 {
            write(&mut twin, descriptor, token * 100, &[token as u8; 300], token % 3 == 0, token);
        }
        while twin.in_flight() > 0 {
            twin.turn(Wait::Forever, &mut out).unwrap();
        }
        world.power_cut();
        let order: Vec<u64> = out.iter().map(|done| done.token).collect();
        (order, world.now(), file.contents(0..10_000))
    };
    assert_eq!(history(11), history(11));
    assert_ne!(history(11).0, history(12).0);
}

#[test]
fn time_passes_when_all_sleep_and_no_further_than_the_first_who_wakes() {
    let world = World::new(6);
    let (mut a, mut b) = (twin(&world), twin(&world));
    let start = world.now();
    let mut out = Vec::new();
    let hour = Duration::from_secs(3600);
    a.turn(Wait::Until(start + 2 * hour), &mut out).unwrap();
    assert_eq!(world.now(), start, "the other one has not said that it sleeps");
    b.turn(Wait::Until(start + hour), &mut out).unwrap();
    assert_eq!(world.now(), start + hour);
    a.turn(Wait::Until(start + 2 * hour), &mut out).unwrap();
    assert_eq!(world.now(), start + hour, "it is the other one's turn");
    b.waker().wake();
    b.turn(Wait::Forever, &mut out).unwrap();
    assert_eq!(world.now(), start + hour, "a wake ends the turn");
    b.turn(Wait::Forever, &mut out).unwrap();
    assert_eq!(world.now(), start + 2 * hour);
    a.turn(Wait::Forever, &mut out).unwrap();
    assert!(world.is_quiet());
    let before = a.now();
    a.turn(Wait::Poll, &mut out).unwrap();
    assert!(a.now() > before, "a poll takes time");
    assert!(out.is_empty());
}

#[test]
fn twins_talk_over_a_pair_of_sockets() {
    let world = World::new(7);
    let (mut a, mut b) = (twin(&world), twin(&world));
    let (left, right) = world.socket_pair().unwrap();
    let (left, right) = (a.register(left).unwrap(), b.register(right).unwrap());
    let mut got = 0;
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    submit(&mut b, Operation::Receive { socket: right, stay: false, most: u32::MAX }, 1);
    submit(
        &mut a,
        Operation::Send { socket: left, message: Message { bytes: vec![3; 1000], ..Message::default() } },
        2,
    );
    while got < 1000 {
        a.turn(Wait::Forever, &mut from_a).unwrap();
        b.turn(Wait::Forever, &mut from_b).unwrap();
        for done in from_b.drain(..) {
            got += done.result.unwrap();
            if got < 1000 {
                submit(&mut b, Operation::Receive { socket: right, stay: false, most: u32::MAX }, 1);
            }
        }
    }
    assert_eq!(from_a.len(), 1);
    drop(a);
    submit(&mut b, Operation::Receive { socket: right, stay: false, most: u32::MAX }, 1);
    assert_eq!(one(&mut b).result, Ok(0), "a twin that goes closes its sockets");
}

#[test]
fn a_file_reads_what_was_written_and_short_at_its_end() {
    let world = World::new(8);
    let mut twin = twin(&world);
    let file = world.file(1000);
    let shared = world.open(&file).unwrap();
    let descriptor = twin.register_shared(&shared).unwrap();
    write(&mut twin, descriptor, 100, b"hello", false, 1);
    assert_eq!(one(&mut twin).result, Ok(5));
    assert_eq!(read(&mut twin, descriptor, 99, 7).unwrap(), b"\0hello\0");
    assert_eq!(read(&mut twin, descriptor, 990, 100).unwrap(), [0; 10]);
    assert_eq!(read(&mut twin, descriptor, 5000, 100).unwrap(), []);
    write(&mut twin, descriptor, 1990, &[1; 20], false, 1);
    one(&mut twin);
    assert_eq!(file.bytes(), 2010);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    submit(&mut twin, Operation::Allocate { file: descriptor, mode, offset: 102, length: 5000 }, 1);
    assert_eq!(one(&mut twin).result, Ok(0));
    assert_eq!((file.bytes(), file.contents(100..104)), (2010, b"he\0\0".to_vec()));
    submit(&mut twin, Operation::Allocate { file: descriptor, mode: 0, offset: 0, length: 4000 }, 1);
    assert_eq!(one(&mut twin).result, Ok(0));
    assert_eq!(file.bytes(), 4000);
    submit(&mut twin, Operation::Allocate { file: descriptor, mode: 0, offset: 0, length: 0 }, 1);
    assert_eq!(one(&mut twin).result, Err(Errno(libc::EINVAL)));
    file.require_alignment(512);
    assert_eq!(read(&mut twin, descriptor, 512, 512), Err(Errno(libc::EINVAL)), "the memory is not aligned");
    submit(&mut twin, Operation::Shutdown { socket: descriptor }, 1);
    assert_eq!(one(&mut twin).result, Err(Errno(libc::ENOTSOCK)));
}

#[test]
fn faults_hit_their_range_and_a_stall_its_file_alone() {
    let world = World::new(9);
    let mut twin = twin(&world);
    let (bad, good) = (world.file(1 << 20), world.file(1 << 20));
    let (on_bad, on_good) = (twin.open(&bad).unwrap(), twin.open(&good).unwrap());
    bad.fail_reads(1000..1001, Errno(libc::EIO), None);
    bad.fail_writes(5000..6000, Errno(libc::ENOSPC), Some(1));
    assert_eq!(read(&mut twin, on_bad, 900, 200), Err(Errno(libc::EIO)));
    assert!(read(&mut twin, on_bad, 1001, 200).is_ok());
    for result in [Err(Errno(libc::ENOSPC)), Ok(100)] {
        write(&mut twin, on_bad, 5950, &[1; 100], true, 1);
        assert_eq!(one(&mut twin).result, result);
    }
    bad.limit_space(Some(150));
    for result in [Ok(100), Err(Errno(libc::ENOSPC))] {
        write(&mut twin, on_bad, 0, &[1; 100], true, 1);
        assert_eq!(one(&mut twin).result, result);
    }
    bad.heal();
    assert!(read(&mut twin, on_bad, 900, 200).is_ok());

    bad.stall();
    write(&mut twin, on_bad, 0, &[2; 100], true, 77);
    submit(&mut twin, Operation::Sync { file: on_bad, data_only: true }, 78);
    for _ in 0..10 {
        assert!(read(&mut twin, on_good, 0, 100).is_ok());
    }
    let mut out = Vec::new();
    while bad.held_up() < 2 {
        twin.turn(Wait::Forever, &mut out).unwrap();
    }
    twin.turn(Wait::Forever, &mut out).unwrap();
    assert!(out.is_empty() && world.is_quiet());
    bad.release();
    assert_eq!(wait_for(&mut twin, 2).len(), 2);
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next() {
    let lost = (0..20).filter(|seed| {
        let world = World::new(*seed);
        let mut twin = twin(&world);
        let file = world.file(4096);
        let descriptor = twin.open(&file).unwrap();
        write(&mut twin, descriptor, 0, &[1; 4096], false, 1);
        one(&mut twin);
        file.fail_sync(Errno(libc::EIO));
        for result in [Err(Errno(libc::EIO)), Ok(0)] {
            submit(&mut twin, Operation::Sync { file: descriptor, data_only: false }, 2);
            assert_eq!(one(&mut twin).result, result);
        }
        assert_eq!(read(&mut twin, descriptor, 0, 4000).unwrap(), [1; 4000], "the cache still has it");
        world.power_cut();
        file.contents(0..4096) != [1; 4096]
    });
    assert!(lost.count() > 15);
}

#[test]
fn a_power_cut_tears_what_is_volatile_at_sectors() {
    let (mut old, mut new, mut torn) = (0, 0, 0);
    for seed in 0..100 {
        let world = World::new(seed);
        let mut twin = twin(&world);
        let file = world.file(4096);
        file.fill(0, &[9; 4096]);
        let descriptor = twin.open(&file).unwrap();
        write(&mut twin, descriptor, 0, &[1; 1024], false, 1);
        one(&mut twin);
        assert_eq!(file.stable_contents(0..1024), [9; 1024]);
        world.power_cut();
        let sectors = file.contents(0..1024);
        assert!(sectors.chunks(512).all(|sector| sector == [1; 512] || sector == [9; 512]));
        match (sectors[0], sectors[512]) {
            (9, 9) => old += 1,
            (1, 1) => new += 1,
            _ => torn += 1,
        }
        assert!(twin.is_dead());
        assert_eq!(twin.turn(Wait::Poll, &mut Vec::new()).unwrap_err().raw_os_error(), Some(libc::ESHUTDOWN));
        submit(&mut twin, Operation::Sync { file: descriptor, data_only: true }, 1);
        let mut next = self::twin(&world);
        let descriptor = next.open(&file).unwrap();
        assert_eq!(read(&mut next, descriptor, 0, 1024).unwrap(), sectors);
    }
    assert!(old > 10 && new > 10 && torn > 10, "{old} {new} {torn}");
}

/// What may be in a sector: its versions in the order in which they came, and the last one that is safe.
#[derive(Default)]
struct History {
    versions: Vec<u8>,
    safe: usize,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Random writes, durable ones among them, zeroing and syncs, several at once, then a cut at a random moment: every
    /// sector holds its last safe version or a later one.
    #[test]
    fn a_power_cut_never_takes_what_was_made_stable(
        seed: u64,
        steps in prop::collection::vec((0u8..10, 0u64..16, 1u64..6, any::<bool>()), 1..40),
        cut_early in 0usize..6,
    ) {
        const SECTOR: u64 = 512;
        let world = World::new(seed);
        let mut twin = twin(&world);
        let file = world.file(24 * SECTOR);
        let descriptor = twin.open(&file).unwrap();
        let mut sectors: Vec<History> = (0..24).map(|_| History { versions: vec![0], safe: 0 }).collect();
        // By token: the sectors and value of a change in flight, or what a sync will make safe.
        let mut changes: BTreeMap<u64, (std::ops::Range<usize>, u8, bool)> = BTreeMap::new();
        let mut syncs: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut out = Vec::new();
        for (token, (what, first, count, wait)) in steps.into_iter().enumerate() {
            let token = token as u64;
            let value = token as u8 + 1;
            match what {
                0..=6 => {
                    let durable = what < 2;
                    write(&mut twin, descriptor, first * SECTOR, &vec![value; (count * SECTOR) as usize], durable, token);
                    changes.insert(token, (first as usize..(first + count) as usize, value, durable));
                }
                7 => {
                    let mode = libc::FALLOC_FL_ZERO_RANGE;
                    let (offset, length) = (first * SECTOR, count * SECTOR);
                    submit(&mut twin, Operation::Allocate { file: descriptor, mode, offset, length }, token);
                    changes.insert(token, (first as usize..(first + count) as usize, 0, false));
                }
                _ => {
                    let now = sectors.iter().map(|sector| sector.versions.len() - 1).collect();
                    syncs.insert(token, now);
                    submit(&mut twin, Operation::Sync { file: descriptor, data_only: false }, token);
                }
            }
            let left = if wait { 0 } else { 6 };
            while twin.in_flight() > left {
                twin.turn(Wait::Forever, &mut out).unwrap();
                for done in out.drain(..) {
                    prop_assert!(done.result.is_ok());
                    if let Some((range, value, durable)) = changes.remove(&done.token) {
                        for sector in &mut sectors[range] {
                            sector.versions.push(value);
                            if durable {
                                sector.safe = sector.versions.len() - 1;
                            }
                        }
                    }
                    for (sector, safe) in sectors.iter_mut().zip(syncs.remove(&done.token).unwrap_or_default()) {
                        sector.safe = sector.safe.max(safe);
                    }
                }
            }
            if cut_early == 0 && token == 20 {
                break;
            }
        }
        for (at, sector) in sectors.iter().enumerate() {
            let stable = file.stable_contents(at as u64 * SECTOR..(at as u64 + 1) * SECTOR);
            prop_assert!(sector.versions[sector.safe..].contains(&stable[0]));
            let current = file.contents(at as u64 * SECTOR..(at as u64 + 1) * SECTOR);
            prop_assert_eq!(current[0], *sector.versions.last().unwrap());
        }
        world.power_cut();
        for (range, value, _) in changes.into_values() {
            for sector in &mut sectors[range] {
                sector.versions.push(value);
            }
        }
        for (at, sector) in sectors.iter().enumerate() {
            let found = file.contents(at as u64 * SECTOR..(at as u64 + 1) * SECTOR);
            prop_assert!(found.iter().all(|byte| *byte == found[0]), "sector {} is torn inside", at);
            prop_assert!(sector.versions[sector.safe..].contains(&found[0]),
                "sector {} holds {}, safe was {} of {:?}", at, found[0], sector.safe, sector.versions);
        }
    }
}
