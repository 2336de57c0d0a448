//! Sleeping, waking, counting, and the end of a ring.

use super::*;

#[test]
fn sleeps_until_the_time_given() {
    each(|mut ring| {
        let start = clock();
        let mut out = Vec::new();
        while clock() < start + Duration::from_millis(30) {
            ring.turn(Wait::Until(start + Duration::from_millis(30)), &mut out).unwrap();
        }
        assert!(ring.now() >= start + Duration::from_millis(30));
        assert!(ring.counters().sleeps >= 1 && ring.counters().sleeps < 5);
        let sleeps = ring.counters().sleeps;
        ring.turn(Wait::Until(start), &mut out).unwrap();
        ring.turn(Wait::Poll, &mut out).unwrap();
        assert_eq!(ring.counters().sleeps, sleeps);
    });
}

#[test]
fn does_not_sleep_on_what_found_no_room_in_the_queue() {
    each(|mut ring| {
        // As after a submission that the kernel had no memory for: more than the queue of 8 holds.
        let nop = || opcode::Nop::new().build().user_data(user_data(Kind::Cancel, NO_KEY));
        let (socket, mut peer) = pair(&mut ring);
        ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
        for _ in 0..8 {
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..1, behind: 0 }, 0);
        }
        ring.backlog.push_back(nop());
        submit(&mut ring, Operation::Send { socket, message: message(b"x") }, 1);
        let mut out = Vec::new();
        let end = clock() + Duration::from_secs(1);
        while out.is_empty() {
            assert!(clock() < end, "it slept with submissions left");
            ring.turn(Wait::Until(end), &mut out).unwrap();
        }
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 1);
    });
}

#[test]
fn an_idle_poll_makes_no_system_call() {
    each(|mut ring| {
        ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
        let enters = ring.counters().enters;
        for _ in 0..10 {
            ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
        }
        assert_eq!(ring.counters().enters, enters);
    });
}

#[test]
fn a_wake_from_another_thread_ends_the_sleep() {
    each(|mut ring| {
        let waker = ring.waker();
        // While awake: the next turn does not sleep.
        waker.wake();
        ring.turn(Wait::Forever, &mut Vec::new()).unwrap();
        let (sender, mailbox) = crate::mailbox(4, waker);
        let (go, wait) = mpsc::channel();
        let thread = thread::spawn(move || {
            for number in wait {
                thread::sleep(Duration::from_millis(number % 3));
                sender.send(number).unwrap();
            }
        });
        let mut out = Vec::new();
        for number in 0..200u64 {
            go.send(number).unwrap();
            let got = loop {
                if let Some(got) = mailbox.take() {
                    break got;
                }
                let start = clock();
                ring.turn(Wait::Until(start + PATIENCE), &mut out).unwrap();
                assert!(clock() < start + PATIENCE, "the wake was lost");
            };
            assert_eq!(got, number);
        }
        drop(go);
        thread.join().unwrap();
        assert!(out.is_empty());
    });
}

#[test]
fn rings_wake_one_another() {
    for (ours, theirs) in [("none", "none"), ("all", "none"), ("none", "all"), ("5.19", "5.19"), ("none", "5.19")] {
        let mut ring = Ring::new(&settings(ours), &arena()).unwrap();
        let (ping, mine) = crate::mailbox::<u32, _>(4, ring.waker());
        let (hand_over, handed) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut ring = Ring::new(&settings(theirs), &arena()).unwrap();
            let (pong, mine) = crate::mailbox::<u32, _>(4, ring.waker());
            hand_over.send(pong).unwrap();
            let mut out = Vec::new();
            loop {
                match mine.take() {
                    Some(u32::MAX) => return ring.counters(),
                    Some(number) => ping.send(number + 1).unwrap(),
                    None => ring.turn(Wait::Until(clock() + PATIENCE), &mut out).unwrap(),
                }
            }
        });
        let pong = handed.recv().unwrap();
        let mut out = Vec::new();
        let start = clock();
        for number in 0..300 {
            pong.send(number).unwrap();
            let got = loop {
                if let Some(got) = mine.take() {
                    break got;
                }
                ring.turn(Wait::Until(clock() + PATIENCE), &mut out).unwrap();
            };
            assert_eq!(got, number + 1);
        }
        assert!(clock() - start < PATIENCE, "a wake was lost");
        pong.send(u32::MAX).unwrap();
        // The last message may wait for this ring's next turn.
        ring.turn(Wait::Poll, &mut out).unwrap();
        assert_eq!(thread.join().unwrap().stale, 0);
        assert_eq!(ring.counters().stale, 0);
        assert!(out.is_empty());
    }
}

#[test]
fn wakes_of_a_ring_that_goes_are_not_lost() {
    let (hand_over, handed) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let mut ring = Ring::new(&settings("none"), &arena()).unwrap();
        hand_over.send(ring.waker()).unwrap();
        let start = clock();
        ring.turn(Wait::Until(start + PATIENCE), &mut Vec::new()).unwrap();
        assert!(clock() < start + PATIENCE, "the wake was lost");
    });
    let waker = handed.recv().unwrap();
    let ring = Ring::new(&settings("none"), &arena()).unwrap();
    thread::sleep(Duration::from_millis(50));
    waker.wake();
    drop(ring);
    sleeper.join().unwrap();
    // A waker outlives its ring.
    waker.wake();
}

#[test]
fn a_blocking_call_runs_elsewhere_and_wakes() {
    each(|mut ring| {
        let core = thread::current().id();
        let job = move || {
            thread::sleep(Duration::from_millis(5));
            assert_ne!(thread::current().id(), core);
            Ok((1 << 40 | 7, vec![1, 2, 3]))
        };
        ring.offload(Box::new(job), 5).ok().unwrap();
        ring.offload(Box::new(|| Err(Errno(libc::ENOENT))), 6).ok().unwrap();
        assert_eq!(ring.in_flight(), 2);
        let mut done = wait_for(&mut ring, 2);
        done.sort_by_key(|completion| completion.token);
        assert_eq!(done[0].result, Ok(7));
        assert!(
            matches!(&done[0].returned, Returned::Job(number, bytes) if *number == 1 << 40 | 7 && bytes == &[1, 2, 3])
        );
        assert_eq!(done[1].result, Err(Errno(libc::ENOENT)));
        assert_eq!(ring.in_flight(), 0);
    });
}

#[test]
fn a_ring_is_dropped_with_operations_in_flight() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let pool = ring.pool().clone();
        for _ in 0..4 {
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10, behind: 0 }, 0);
            submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 0);
        }
        ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
        let start = clock();
        drop(ring);
        assert!(clock() - start < Duration::from_secs(1));
        assert_eq!((pool.available(Class::Small), pool.available(Class::Medium)), (16, 8));
        assert_eq!(peer.read(&mut [0; 1]).unwrap_or(0), 0);
    });
}

#[test]
fn more_completions_than_the_queue_holds_all_arrive() {
    for mask in ["none", "5.19", "all"] {
        let many = RingSettings { slots: 4000, entries: 8, ..settings(mask) };
        let mut ring = Ring::new(&many, &arena()).unwrap();
        let (socket, _peer) = pair(&mut ring);
        for token in 0..4000 {
            submit(&mut ring, Operation::Shutdown { socket }, token);
        }
        let mut tokens: Vec<u64> = wait_for(&mut ring, 4000).iter().map(|completion| completion.token).collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq(0..4000));
        assert_eq!(ring.counters().stale, 0);
    }
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    for mask in ["none", "5.19", "all"] {
        let mut ring = Ring::new(&settings(mask), &arena()).unwrap();
        // 128 completions fit; these are not counted by slots.
        for _ in 0..1000 {
            ring.push(opcode::Nop::new().build().user_data(user_data(Kind::Cancel, NO_KEY)));
        }
        let (socket, mut peer) = pair(&mut ring);
        submit(&mut ring, Operation::Send { socket, message: message(b"last") }, 1);
        assert_eq!(one(&mut ring).result, Ok(4));
        assert!(ring.counters().overflows > 0);
        let mut bytes = [0; 4];
        peer.read_exact(&mut bytes).unwrap();
    }
}

#[test]
fn a_stale_completion_is_counted_and_dropped() {
    let mut ring = Ring::new(&settings("none"), &arena()).unwrap();
    let stale = Key { index: 3, generation: 77 };
    ring.push(opcode::Nop::new().build().user_data(user_data(Kind::Operation, stale)));
    ring.push(opcode::Nop::new().build().user_data(0));
    let mut out = Vec::new();
    ring.turn(Wait::Poll, &mut out).unwrap();
    assert!(out.is_empty());
    assert_eq!(ring.counters().stale, 2);
}

#[test]
fn user_data_carries_kind_and_key() {
    for key in [Key { index: 0, generation: 1 }, Key { index: (1 << 28) - 1, generation: u32::MAX }] {
        let data = user_data(Kind::Operation, key);
        assert_eq!((data >> 60, user_key(data)), (1, key));
    }
}

#[test]
fn a_ring_looks_for_work_while_it_comes_soon_and_not_when_it_is_idle() {
    for mask in ["none", "5.19", "all"] {
        let spin = Duration::from_millis(20);
        let mut ring = Ring::new(&RingSettings { spin, ..settings(mask) }, &arena()).unwrap();
        let (socket, mut peer) = pair(&mut ring);
        peer.write_all(&[0]).unwrap();
        let echo = thread::spawn(move || {
            let mut byte = [0];
            while peer.read_exact(&mut byte).is_ok() && byte != [9] {
                peer.write_all(&byte).unwrap();
            }
            peer
        });
        let mut rounds = 0;
        while ring.counters().spins < 10 {
            rounds += 1;
            assert!(rounds < 10_000, "all gaps were longer than {spin:?}");
            submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
            let received = one(&mut ring);
            let byte = buffer_of(received)[0];
            submit(&mut ring, Operation::Send { socket, message: message(&[byte]) }, 2);
            one(&mut ring);
        }
        submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
        one(&mut ring);
        submit(&mut ring, Operation::Send { socket, message: message(&[9]) }, 2);
        one(&mut ring);
        let _peer = echo.join().unwrap();
        // One look finds nothing, and that was the last.
        submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
        let looked = |ring: &mut Ring| {
            let end = clock() + 2 * spin;
            while clock() < end {
                ring.turn(Wait::Until(end), &mut Vec::new()).unwrap();
            }
            ring.counters().spins
        };
        let before = looked(&mut ring);
        assert_eq!(looked(&mut ring), before);
    }
}

#[test]
fn a_disk_begins_before_a_send() {
    each(|mut ring| {
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let open = |flags| File::options().read(true).custom_flags(flags).open(&path);
        let (socket, mut peer) = pair(&mut ring);
        // A file system in memory may have no direct I/O.
        let files = [(open(0), 0), (open(libc::O_DIRECT), 1)];
        for (file, calls) in files.into_iter().filter_map(|(file, calls)| Some((file.ok()?, calls))) {
            let file = ring.register_shared(&Arc::new(file.into())).unwrap();
            let buffer = ring.pool().take(Class::Small).unwrap();
            ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
            let before = ring.counters().enters;
            submit(&mut ring, Operation::Read { file, offset: 0, buffer, range: 0..4096 }, 1);
            assert_eq!(ring.counters().enters, before);
            submit(&mut ring, Operation::Send { socket, message: message(b"x") }, 2);
            assert_eq!(ring.counters().enters - before, calls, "for a disk a call of its own");
            submit(&mut ring, Operation::Send { socket, message: message(b"y") }, 3);
            assert_eq!(ring.counters().enters - before, calls, "the second send finds nothing to start");
            let ended = wait_for(&mut ring, 3);
            assert!(ended.iter().all(|ended| ended.result.is_ok()));
            peer.read_exact(&mut [0; 2]).unwrap();
            ring.close(file);
        }
    });
}

#[test]
fn a_disk_is_started_though_the_queue_was_full() {
    let mut ring = Ring::new(&settings("none"), &arena()).unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    // A file system in memory may have no direct I/O.
    let Ok(file) = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path) else { return };
    let file = ring.register_shared(&Arc::new(file.into())).unwrap();
    for n in 0..14 {
        let buffer = ring.pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::Read { file, offset: 0, buffer, range: 0..4096 }, n);
        assert!(ring.for_disks, "after {n}");
    }
    ring.start_disks();
    assert!(ring.ring.submission().is_empty());
    wait_for(&mut ring, 14);
}
