//! The ring against real sockets and files, with all features, as on 5.19, and with every feature masked.

use super::*;
use crate::{Message, Part, Wake};
use memory::{ArenaConfig, Buffer, Region};
use std::{
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn arena() -> Arena {
    Arena::new(ArenaConfig { small: 16, medium: 8, large: 4 }).unwrap()
}

fn settings(mask: &str) -> RingSettings {
    RingSettings {
        entries: 8,
        slots: 16,
        files: 8,
        receive_buffers: 3,
        features: mask.parse().unwrap(),
        ..RingSettings::default()
    }
}

/// Runs a test with each mask.
fn each(test: impl Fn(Ring)) {
    for mask in ["none", "5.19", "all", "registered_files", "provided_buffers,msg_ring"] {
        let ring = Ring::new(&settings(mask), &arena()).unwrap();
        for feature in Feature::ALL {
            assert!(!ring.features.wanted(feature) || !settings(mask).features.hides(feature));
        }
        test(ring);
    }
}

/// Turns until `count` completions came.
fn wait_for(ring: &mut Ring, count: usize) -> Vec<Completion> {
    let mut out = Vec::new();
    let end = clock() + PATIENCE;
    while out.len() < count {
        assert!(clock() < end, "{} of {count} completions came", out.len());
        ring.turn(Wait::Until(end), &mut out).unwrap();
    }
    assert_eq!(out.len(), count);
    out
}

fn one(ring: &mut Ring) -> Completion {
    wait_for(ring, 1).pop().unwrap()
}

fn submit(ring: &mut Ring, operation: Operation, token: u64) -> OperationId {
    ring.submit(operation, token).ok().expect("a free slot")
}

fn buffer_of(completion: Completion) -> Buffer {
    match completion.returned {
        Returned::Buffer(buffer) => buffer,
        _ => panic!("no buffer came back"),
    }
}

fn pair(ring: &mut Ring) -> (Descriptor, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (ring.register(ours.into()).unwrap(), theirs)
}

fn message(bytes: &[u8]) -> Message {
    Message { bytes: bytes.to_vec(), ..Message::default() }
}

#[test]
fn received_bytes_are_sent_back() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        for round in 0..20u8 {
            submit(&mut ring, Operation::Receive { socket }, 1);
            peer.write_all(&[round; 100]).unwrap();
            let received = one(&mut ring);
            assert_eq!((received.token, received.result), (1, Ok(100)));
            let buffer = buffer_of(received);
            assert_eq!(buffer[..100], [round; 100]);
            let part = Part::Buffer { index: 0, range: 10..60 };
            let message = Message { bytes: Vec::new(), parts: vec![part], buffers: vec![buffer] };
            submit(&mut ring, Operation::Send { socket, message }, 2);
            let sent = one(&mut ring);
            assert_eq!((sent.token, sent.result), (2, Ok(50)));
            assert!(matches!(sent.returned, Returned::Message(message) if message.buffers.len() == 1));
            let mut echo = [0; 50];
            peer.read_exact(&mut echo).unwrap();
            assert_eq!(echo, [round; 50]);
        }
        drop(peer);
        submit(&mut ring, Operation::Receive { socket }, 3);
        let end = one(&mut ring);
        assert_eq!(end.result, Ok(0));
        assert!(matches!(end.returned, Returned::Nothing));
        assert_eq!(ring.in_flight(), 0);
        assert_eq!(ring.counters().stale, 0);
    });
}

#[test]
fn bytes_are_received_into_the_range_alone() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let mut buffer = ring.pool().take(Class::Small).unwrap();
        buffer.fill(9);
        peer.write_all(&[1; 50]).unwrap();
        submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 100..120 }, 5);
        let done = one(&mut ring);
        assert_eq!(done.result, Ok(20));
        let buffer = buffer_of(done);
        assert_eq!(buffer[100..120], [1; 20]);
        assert_eq!((buffer[99], buffer[120]), (9, 9));
    });
}

#[test]
fn a_file_keeps_what_is_written() {
    each(|mut ring| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let shared = Arc::new(OwnedFd::from(file));
        let file = ring.register_shared(&shared).unwrap();
        for (class, durable) in [(Class::Small, true), (Class::Large, false)] {
            let mut buffer = ring.pool().take(class).unwrap();
            for (at, byte) in buffer.iter_mut().enumerate() {
                *byte = (at / 7) as u8;
            }
            let range = 8..buffer.len() as u32;
            let bytes = buffer[8..].to_vec();
            submit(&mut ring, Operation::Write { file, offset: 1000, buffer, range: range.clone(), durable }, 1);
            let written = one(&mut ring);
            assert_eq!(written.result, Ok(bytes.len() as u32));
            let mut buffer = buffer_of(written);
            buffer.fill(0);
            submit(&mut ring, Operation::Read { file, offset: 1000, buffer, range: range.clone() }, 2);
            let read = one(&mut ring);
            assert_eq!(read.result, Ok(bytes.len() as u32));
            assert_eq!(buffer_of(read)[8..], bytes);
            assert_eq!(std::fs::read(&path).unwrap()[1000..], bytes);
        }
        // Beyond the pool: plain memory of another arena.
        let other = arena().pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::Read { file, offset: 1000 + 262_144 - 8 - 100, buffer: other, range: 0..4096 }, 3);
        assert_eq!(one(&mut ring).result, Ok(100), "short at the end of the file");
        for data_only in [false, true] {
            submit(&mut ring, Operation::Sync { file, data_only }, 4);
            assert_eq!(one(&mut ring).result, Ok(0));
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        submit(&mut ring, Operation::Allocate { file, mode, offset: 4096, length: 8192 }, 5);
        assert_eq!(one(&mut ring).result, Ok(0));
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[4096..4096 + 8192].iter().all(|byte| *byte == 0));
        assert_eq!(bytes.len(), 1000 + 262_144 - 8);
        ring.close(file);
        drop(ring);
        assert_eq!(Arc::strong_count(&shared), 1);
    });
}

#[test]
fn an_error_of_the_kernel_comes_with_the_buffer() {
    each(|mut ring| {
        let file = ring.register(File::open("/dev/null").unwrap().into()).unwrap();
        let buffer = ring.pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::Write { file, offset: 0, buffer, range: 0..4096, durable: false }, 1);
        let done = one(&mut ring);
        assert_eq!(done.result, Err(Errno(libc::EBADF)));
        assert_eq!(buffer_of(done).len(), 4096);
    });
}

#[test]
fn a_cancelled_receive_ends() {
    each(|mut ring| {
        let (socket, _peer) = pair(&mut ring);
        let buffer = ring.pool().take(Class::Small).unwrap();
        let into = submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10 }, 1);
        let provided = submit(&mut ring, Operation::Receive { socket }, 2);
        let mut out = Vec::new();
        ring.turn(Wait::Poll, &mut out).unwrap();
        assert!(out.is_empty());
        ring.cancel(into);
        let first = one(&mut ring);
        assert_eq!((first.token, first.result), (1, Err(Errno(libc::ECANCELED))));
        ring.cancel(into);
        ring.cancel(provided);
        let second = one(&mut ring);
        assert_eq!((second.token, second.result), (2, Err(Errno(libc::ECANCELED))));
        assert_eq!(ring.in_flight(), 0);
        // All buffers are home, or wait for received data.
        drop(first);
        assert_eq!(ring.pool().available(Class::Small), 16);
        assert!(ring.pool().available(Class::Medium) >= 5);
    });
}

#[test]
fn closing_ends_what_is_in_flight_and_the_descriptor_is_stale() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let (other, _other_peer) = pair(&mut ring);
        submit(&mut ring, Operation::Receive { socket: other }, 7);
        for token in 0..3 {
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10 }, token);
        }
        ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
        ring.close(socket);
        ring.close(socket);
        // A submission after the close is refused at once, with what it owned.
        let buffer = ring.pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10 }, 9);
        let done = wait_for(&mut ring, 4);
        for completion in done {
            match completion.token {
                9 => assert_eq!(completion.result, Err(Errno(libc::EBADF))),
                // The shutdown of the socket may come first: the end of the stream.
                _ => assert!(matches!(completion.result, Err(Errno(libc::ECANCELED)) | Ok(0))),
            }
            buffer_of(completion);
        }
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "the peer sees the end although another receive waits");
        assert_eq!(ring.in_flight(), 1);
        let (reused, mut new_peer) = pair(&mut ring);
        assert_eq!(reused.slot, socket.slot);
        submit(&mut ring, Operation::Shutdown { socket }, 10);
        assert_eq!(one(&mut ring).result, Err(Errno(libc::EBADF)));
        new_peer.write_all(b"x").unwrap();
        submit(&mut ring, Operation::Receive { socket: reused }, 11);
        assert_eq!(one(&mut ring).result, Ok(1));
    });
}

#[test]
fn closing_finds_every_operation_on_the_file() {
    each(|mut ring| {
        // Shared, so that no shutdown ends what was forgotten.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let socket = ring.register_shared(&Arc::new(ours.into())).unwrap();
        let ids: Vec<OperationId> = (0..6)
            .map(|token| {
                let buffer = ring.pool().take(Class::Small).unwrap();
                submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..1 }, token)
            })
            .collect();
        for gone in [3, 5, 0] {
            ring.cancel(ids[gone]);
            assert_eq!(one(&mut ring).token, gone as u64);
        }
        ring.close(socket);
        let mut tokens: Vec<u64> = wait_for(&mut ring, 3).iter().map(|done| done.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [1, 2, 4]);
        assert_eq!(ring.in_flight(), 0);
    });
}

#[test]
fn a_cancelled_send_does_not_go_on() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let region = Region::new(4 << 20).unwrap();
        let parts = (0..400).map(|at| Part::Region(region.slice(at * 10_000, 10_000))).collect();
        let many = Message { parts, ..Message::default() };
        for message in [message(&vec![0; 4 << 20]), many] {
            let id = submit(&mut ring, Operation::Send { socket, message }, 1);
            let mut out = Vec::new();
            ring.turn(Wait::Until(clock() + Duration::from_millis(5)), &mut out).unwrap();
            assert!(out.is_empty());
            ring.cancel(id);
            assert_eq!(one(&mut ring).result, Err(Errno(libc::ECANCELED)));
            peer.set_nonblocking(true).unwrap();
            while peer.read(&mut [0; 65536]).is_ok_and(|count| count > 0) {}
        }
    });
}

#[test]
fn a_non_blocking_socket_is_waited_for() {
    each(|mut ring| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let socket = ring.register(ours.into()).unwrap();
        submit(&mut ring, Operation::Receive { socket }, 1);
        let mut out = Vec::new();
        ring.turn(Wait::Until(clock() + Duration::from_millis(5)), &mut out).unwrap();
        assert!(out.is_empty());
        theirs.write_all(b"x").unwrap();
        assert_eq!(one(&mut ring).result, Ok(1));
    });
}

#[test]
fn the_table_of_files_is_bounded() {
    each(|mut ring| {
        let pairs: Vec<_> = (0..8).map(|_| pair(&mut ring)).collect();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = Arc::new(OwnedFd::from(ours));
        assert_eq!(ring.register_shared(&file).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        ring.close(pairs[3].0);
        ring.register_shared(&file).unwrap();
    });
}

#[test]
fn a_receive_without_a_buffer_fails_until_one_comes_home() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let mut held = Vec::new();
        let starved = loop {
            peer.write_all(b"x").unwrap();
            submit(&mut ring, Operation::Receive { socket }, 0);
            let done = one(&mut ring);
            match done.result {
                Ok(1) => held.push(buffer_of(done)),
                result => break result,
            }
        };
        assert_eq!(starved, Err(Errno(libc::ENOBUFS)));
        assert_eq!(held.len(), 8);
        assert_eq!(ring.counters().starved, 1);
        held.pop();
        ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
        submit(&mut ring, Operation::Receive { socket }, 0);
        let done = one(&mut ring);
        assert_eq!(done.result, Ok(1));
        assert_eq!(buffer_of(done)[0], b'x');
    });
}

#[test]
fn without_a_slot_the_operation_comes_back() {
    each(|mut ring| {
        let (socket, _peer) = pair(&mut ring);
        for token in 0..16 {
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..1 }, token);
        }
        let refused = ring.submit(Operation::Send { socket, message: message(b"x") }, 99);
        assert!(matches!(refused, Err(Operation::Send { message, .. }) if message.bytes == b"x"));
        assert_eq!(ring.in_flight(), 16);
        ring.close(socket);
        wait_for(&mut ring, 16);
        // Refused ones count too: they wait for the next turn.
        for _ in 0..16 {
            submit(&mut ring, Operation::Shutdown { socket }, 0);
        }
        assert!(ring.submit(Operation::Shutdown { socket }, 0).is_err());
        wait_for(&mut ring, 16);
    });
}

#[test]
fn short_sends_go_on_until_all_is_sent() {
    each(|mut ring| {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
        let socket = ring.register(ours.into()).unwrap();
        let region = Region::new(1 << 20).unwrap();
        let bytes: Vec<u8> = (0..1u32 << 20).map(|n| (n / 3) as u8).collect();
        region.write(0, &bytes);
        let mut expected = Vec::new();
        let mut parts = Vec::new();
        // More pieces than one system call takes, empty ones among them.
        for at in 0..700u32 {
            let length = (at * 37) % 1500;
            expected.extend_from_slice(&bytes[at as usize * 1400..(at * 1400 + length) as usize]);
            parts.push(Part::Region(region.slice(u64::from(at) * 1400, length)));
            expected.extend_from_slice(&bytes[at as usize..at as usize + 3]);
            parts.push(Part::Bytes(at..at + 3));
        }
        let total = expected.len();
        let reader = thread::spawn(move || {
            let mut got = vec![0; total];
            peer.read_exact(&mut got).unwrap();
            (got, peer)
        });
        let many = Message { bytes: bytes[..4096].to_vec(), parts, buffers: Vec::new() };
        submit(&mut ring, Operation::Send { socket, message: many }, 1);
        let done = one(&mut ring);
        assert_eq!(done.result, Ok(total as u32));
        assert!(matches!(done.returned, Returned::Message(message) if message.parts.len() == 1400));
        let (got, mut peer) = reader.join().unwrap();
        assert!(got == expected);

        let reader = thread::spawn(move || {
            let mut got = vec![0; 1 << 20];
            peer.read_exact(&mut got).unwrap();
            got
        });
        submit(&mut ring, Operation::Send { socket, message: message(&bytes) }, 2);
        assert_eq!(one(&mut ring).result, Ok(1 << 20));
        assert!(reader.join().unwrap() == bytes);
        assert_eq!(ring.vectors.len(), 1, "the vector is kept for the next send");
    });
}

#[test]
fn an_empty_message_is_sent_at_once() {
    each(|mut ring| {
        let (socket, _peer) = pair(&mut ring);
        submit(&mut ring, Operation::Send { socket, message: Message::default() }, 1);
        assert_eq!(ring.in_flight(), 1);
        let done = one(&mut ring);
        assert_eq!(done.result, Ok(0));
        assert!(matches!(done.returned, Returned::Message(_)));
    });
}

#[test]
fn a_send_to_a_closed_peer_fails_without_a_signal() {
    each(|mut ring| {
        let (socket, peer) = pair(&mut ring);
        drop(peer);
        submit(&mut ring, Operation::Send { socket, message: message(&[0; 100]) }, 1);
        assert_eq!(one(&mut ring).result, Err(Errno(libc::EPIPE)));
    });
}

#[test]
fn a_stalled_send_ends_when_its_socket_is_closed() {
    each(|mut ring| {
        let (socket, _peer) = pair(&mut ring);
        submit(&mut ring, Operation::Send { socket, message: message(&vec![0; 4 << 20]) }, 1);
        let mut out = Vec::new();
        ring.turn(Wait::Until(clock() + Duration::from_millis(20)), &mut out).unwrap();
        assert!(out.is_empty());
        ring.close(socket);
        let done = one(&mut ring);
        assert!(done.result.is_err());
        assert!(matches!(done.returned, Returned::Message(message) if message.bytes.len() == 4 << 20));
    });
}

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
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10 }, 0);
            submit(&mut ring, Operation::Receive { socket }, 0);
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
    each(|_| ());
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
