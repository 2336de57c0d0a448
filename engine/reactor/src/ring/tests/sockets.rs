//! Receives and sends, their cancellation, and what runs out.

use super::*;
use crate::Pdus;

#[test]
fn received_bytes_are_sent_back() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        for round in 0..20u8 {
            submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
            peer.write_all(&[round; 100]).unwrap();
            let received = one(&mut ring);
            assert_eq!((received.token, received.result), (1, Ok(100)));
            let buffer = buffer_of(received);
            assert_eq!(buffer[..100], [round; 100]);
            let part = Part::Buffer { index: 0, range: 10..60 };
            let message = Message { parts: vec![part], buffers: vec![buffer], ..Message::default() };
            submit(&mut ring, Operation::Send { socket, message }, 2);
            let sent = one(&mut ring);
            assert_eq!((sent.token, sent.result), (2, Ok(50)));
            assert!(matches!(sent.returned, Returned::Message(message) if message.buffers.len() == 1));
            let mut echo = [0; 50];
            peer.read_exact(&mut echo).unwrap();
            assert_eq!(echo, [round; 50]);
        }
        drop(peer);
        submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 3);
        let end = one(&mut ring);
        assert_eq!(end.result, Ok(0));
        assert!(matches!(end.returned, Returned::Nothing));
        assert_eq!(ring.in_flight(), 0);
        assert_eq!(ring.counters().stale, 0);
    });
}

#[test]
fn what_comes_while_nothing_is_asked_of_an_emptied_socket_is_received() {
    each(|mut ring| {
        let (socket, mut peer) = super::on_request::tcp_pair(&mut ring);
        for round in 1..20u8 {
            peer.write_all(&[round; 9]).unwrap();
            submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
            let received = one(&mut ring);
            assert_eq!(received.result, Ok(9));
            assert_eq!(buffer_of(received)[..9], [round; 9]);
        }
        // And the end of the stream.
        drop(peer);
        submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 2);
        assert_eq!(one(&mut ring).result, Ok(0));
    });
}

#[test]
fn what_a_receive_leaves_in_the_socket_is_known() {
    each(|mut ring| {
        let (socket, mut peer) = super::on_request::tcp_pair(&mut ring);
        for (bytes, more) in [(50, false), (51, true), (49, false)] {
            peer.write_all(&vec![7; bytes]).unwrap();
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..50, behind: 0 }, 1);
            assert_eq!(one(&mut ring).result, Ok(50));
            assert_eq!(ring.has_more(socket), more, "{bytes}");
        }
        ring.close(socket);
        assert!(!ring.has_more(socket));
    });
}

#[test]
fn a_receive_that_brought_nothing_says_nothing_of_what_is_in_the_socket() {
    each(|mut ring| {
        let (socket, mut peer) = super::on_request::tcp_pair(&mut ring);
        assert!(!ring.has_more(socket), "nothing was received so far");
        for bytes in [50, 60] {
            peer.write_all(&vec![7; bytes]).unwrap();
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..50, behind: 0 }, 1);
            assert_eq!(one(&mut ring).result, Ok(50));
        }
        assert!(ring.has_more(socket));
        let buffer = ring.pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..50, behind: 0 }, 1);
        assert_eq!(one(&mut ring).result, Ok(10));
        for stay in [false, true] {
            let id = submit(&mut ring, Operation::Receive { socket, stay, most: u32::MAX }, 2);
            ring.cancel(id);
            assert_eq!(one(&mut ring).result, Err(Errno::CANCELED));
            assert!(!ring.has_more(socket), "stays: {stay}");
        }
    });
}

#[test]
fn bytes_are_received_into_the_range_alone() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let mut buffer = ring.pool().take(Class::Small).unwrap();
        buffer.fill(9);
        peer.write_all(&[1; 50]).unwrap();
        submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 100..120, behind: 0 }, 5);
        let done = one(&mut ring);
        assert_eq!(done.result, Ok(20));
        let buffer = buffer_of(done);
        assert_eq!(buffer[100..120], [1; 20]);
        assert_eq!((buffer[99], buffer[120]), (9, 9));
    });
}

#[test]
fn what_comes_behind_a_range_is_in_the_headroom() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        for (bytes, behind, count) in [(20, 8, 20), (24, 8, 24), (5, 8, 5), (40, 8, 28), (12, 4096, 24), (0, 8, 0)] {
            let sent: Vec<u8> = (1..=bytes).collect();
            match bytes {
                0 => peer.shutdown(std::net::Shutdown::Write).unwrap(),
                _ => peer.write_all(&sent).unwrap(),
            }
            let mut buffer = ring.pool().take(Class::Small).unwrap();
            buffer.with_headroom().fill(99);
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 100..120, behind }, 5);
            let done = one(&mut ring);
            // The rest of the fourth is at the start of the fifth.
            let sent = if behind == 4096 { [(29..=40).collect(), sent].concat() } else { sent };
            assert_eq!(done.result, Ok(count));
            let buffer = buffer_of(done);
            let (first, second) = sent[..count as usize].split_at(sent.len().min(20));
            assert_eq!(buffer[100..100 + first.len()], *first);
            assert_eq!(buffer.headroom()[..second.len()], *second);
            assert!(buffer.headroom()[second.len()..].iter().chain(&buffer[..100]).all(|byte| *byte == 99));
            assert!(buffer[100 + first.len()..].iter().all(|byte| *byte == 99));
        }
    });
}

/// What came for alike PDUs, in its order.
fn bytes_of(pdus: &Pdus, count: usize) -> Vec<u8> {
    let piece = |place| {
        let (front, data) = pdus.lengths(place, count);
        [pdus.in_front(place, front), &pdus.buffers[place][..data]].concat()
    };
    (0..pdus.buffers.len()).flat_map(piece).collect()
}

#[test]
fn pdus_that_are_alike_lie_in_buffers_of_their_own() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let all: Vec<u8> = (0..30_000_u32).map(|n| (n / 7) as u8).collect();
        // Whole ones, with nothing in front of the first; and ever less.
        for (bytes, first) in [(12_000, 0), (12_000, 17), (9_001, 48), (4_100, 4096), (48, 48), (47, 48), (1, 1)] {
            peer.write_all(&all[..bytes]).unwrap();
            let buffers: Vec<Buffer> = std::iter::from_fn(|| ring.pool().take(Class::Small)).take(3).collect();
            let pdus = Pdus { buffers, first, between: 52, data: 4000 };
            let room = first as usize + 3 * 4000 + 2 * 52;
            submit(&mut ring, Operation::ReceivePdus { socket, pdus }, 5);
            let done = one(&mut ring);
            let Returned::Pdus(pdus) = done.returned else { panic!() };
            assert_eq!((done.result, pdus.buffers.len()), (Ok(bytes.min(room) as u32), 3));
            assert!(bytes_of(&pdus, bytes.min(room)) == all[..bytes.min(room)]);
            if bytes == 12_000 {
                assert_eq!(pdus.buffers[1][..10], all[first as usize + 4052..][..10]);
            }
        }
        drop(peer);
        let pdus = Pdus { buffers: ring.pool().take(Class::Small).into_iter().collect(), ..Pdus::default() };
        submit(&mut ring, Operation::ReceivePdus { socket, pdus: Pdus { first: 1, ..pdus } }, 5);
        assert_eq!(one(&mut ring).result, Ok(0));
    });
}

#[test]
fn no_more_is_received_than_was_asked_for() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        peer.write_all(&[7; 100]).unwrap();
        for (most, count) in [(48, 48), (1, 1), (u32::MAX, 51)] {
            submit(&mut ring, Operation::Receive { socket, stay: false, most }, 1);
            let done = one(&mut ring);
            assert_eq!(done.result, Ok(count));
            assert_eq!(buffer_of(done)[..count as usize], vec![7; count as usize]);
        }
    });
}

#[test]
#[should_panic(expected = "the headroom")]
fn more_than_the_headroom_holds_is_not_asked_for() {
    each(|mut ring| {
        let (socket, _peer) = pair(&mut ring);
        let buffer = ring.pool().take(Class::Small).unwrap();
        let behind = memory::HEADROOM as u32 + 1;
        submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10, behind }, 1);
    });
}

#[test]
fn a_cancelled_receive_ends() {
    each(|mut ring| {
        let (socket, _peer) = pair(&mut ring);
        let buffer = ring.pool().take(Class::Small).unwrap();
        let into = submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10, behind: 0 }, 1);
        let provided = submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 2);
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
        submit(&mut ring, Operation::Receive { socket: other, stay: false, most: u32::MAX }, 7);
        for token in 0..3 {
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10, behind: 0 }, token);
        }
        ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
        ring.close(socket);
        ring.close(socket);
        // A submission after the close is refused at once, with what it owned.
        let buffer = ring.pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..10, behind: 0 }, 9);
        let done = wait_for(&mut ring, 4);
        for completion in done {
            match completion.token {
                9 => assert_eq!(completion.result, Err(Errno(libc::EBADF))),
                _ => assert_eq!(completion.result, Err(Errno(libc::ECANCELED))),
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
        submit(&mut ring, Operation::Receive { socket: reused, stay: false, most: u32::MAX }, 11);
        assert_eq!(one(&mut ring).result, Ok(1));
    });
}

#[test]
fn closing_finds_every_operation_on_the_file() {
    each(|mut ring| {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let socket = ring.register_shared(&Arc::new(ours.into())).unwrap();
        let ids: Vec<OperationId> = (0..6)
            .map(|token| {
                let buffer = ring.pool().take(Class::Small).unwrap();
                submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..1, behind: 0 }, token)
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
        let parts = (0..400).map(|at| Part::Region { index: 0, length: 10_000, offset: at * 10_000 }).collect();
        let many = Message { parts, regions: vec![region], ..Message::default() };
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
        submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
        let mut out = Vec::new();
        ring.turn(Wait::Until(clock() + Duration::from_millis(5)), &mut out).unwrap();
        assert!(out.is_empty());
        theirs.write_all(b"x").unwrap();
        assert_eq!(one(&mut ring).result, Ok(1));
    });
}

#[test]
fn a_receive_without_a_buffer_fails_until_one_comes_home() {
    each(|mut ring| {
        let (socket, mut peer) = pair(&mut ring);
        let mut held = Vec::new();
        let starved = loop {
            peer.write_all(b"x").unwrap();
            submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 0);
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
        submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 0);
        let done = one(&mut ring);
        assert_eq!(done.result, Ok(1));
        assert_eq!(buffer_of(done)[0], b'x');
    });
}

#[test]
fn buffers_of_receives_come_home_to_receives() {
    for mask in ["none", "5.19"] {
        let mut ring = Ring::new(&settings(mask), &arena()).unwrap();
        let (socket, mut peer) = pair(&mut ring);
        // Commands that wait for data hold all that they can get, at any time.
        let mut greedy = Vec::new();
        for _ in 0..10 {
            let pool = ring.pool().clone();
            greedy.extend(std::iter::from_fn(|| pool.take(Class::Medium)));
            peer.write_all(b"x").unwrap();
            submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 0);
            let received = one(&mut ring);
            assert_eq!(received.result, Ok(1));
            greedy.extend(std::iter::from_fn(|| pool.take(Class::Medium)));
            drop(received);
        }
        assert_eq!(greedy.len(), 5);
        assert_eq!(ring.counters().starved, 0);
    }
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
            parts.push(Part::Region { index: 0, length, offset: u64::from(at) * 1400 });
            expected.extend_from_slice(&bytes[at as usize..at as usize + 3]);
            parts.push(Part::Bytes(at..at + 3));
        }
        let total = expected.len();
        let reader = thread::spawn(move || {
            let mut got = vec![0; total];
            peer.read_exact(&mut got).unwrap();
            (got, peer)
        });
        let many = Message { bytes: bytes[..4096].to_vec(), parts, regions: vec![region], ..Message::default() };
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
fn closing_spares_the_operations_of_other_files() {
    each(|mut ring| {
        let mut chance = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |bound: usize| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            (chance % bound as u64) as usize
        };
        for _ in 0..30 {
            let pairs: Vec<_> = (0..2).map(|_| UnixStream::pair().unwrap()).collect();
            let sockets: Vec<Descriptor> = pairs
                .iter()
                .map(|(ours, _)| ring.register_shared(&Arc::new(ours.try_clone().unwrap().into())).unwrap())
                .collect();
            let mut waiting: Vec<(usize, OperationId)> = Vec::new();
            for _ in 0..40 {
                if waiting.len() < 14 && below(3) > 0 {
                    let which = below(2);
                    let buffer = ring.pool().take(Class::Small).unwrap();
                    let operation = Operation::ReceiveInto { socket: sockets[which], buffer, range: 0..1, behind: 0 };
                    waiting.push((which, submit(&mut ring, operation, which as u64)));
                } else if !waiting.is_empty() {
                    let (which, id) = waiting.swap_remove(below(waiting.len()));
                    ring.cancel(id);
                    assert_eq!(one(&mut ring).token, which as u64);
                }
            }
            for (which, socket) in sockets.iter().enumerate() {
                ring.close(*socket);
                let count = waiting.iter().filter(|(other, _)| *other == which).count();
                let done = wait_for(&mut ring, count);
                assert!(done.iter().all(|done| done.token == which as u64));
                waiting.retain(|(other, _)| *other != which);
                assert_eq!(ring.in_flight() as usize, waiting.len());
            }
        }
    });
}

#[test]
fn received_bytes_stay_in_few_buffers_unless_many_come_at_once() {
    let mut ring = Ring::new(&RingSettings { receive_buffers: 8, ..settings("none") }, &arena()).unwrap();
    if ring.provided.is_none() {
        return;
    }
    let mut pairs: Vec<_> = (0..6).map(|_| pair(&mut ring)).collect();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let (socket, peer) = &mut pairs[0];
        peer.write_all(b"x").unwrap();
        submit(&mut ring, Operation::Receive { socket: *socket, stay: false, most: u32::MAX }, 0);
        seen.insert(buffer_of(one(&mut ring)).as_ptr().addr());
    }
    assert_eq!(seen.len(), 2);
    // Those that find none are told, and find one when they ask again.
    let mut asked = 0;
    for round in 0..10 {
        let before = ring.counters().starved;
        pairs.iter_mut().for_each(|(_, peer)| peer.write_all(b"x").unwrap());
        let mut waiting: Vec<usize> = (0..pairs.len()).collect();
        while !waiting.is_empty() {
            for &at in &waiting {
                submit(&mut ring, Operation::Receive { socket: pairs[at].0, stay: false, most: u32::MAX }, at as u64);
            }
            asked += 1;
            let done = wait_for(&mut ring, waiting.len());
            waiting = done.iter().filter(|done| done.result.is_err()).map(|done| done.token as usize).collect();
        }
        assert!(round < 3 || ring.counters().starved == before, "round {round}");
    }
    assert!(asked <= 13, "{asked}");
}

#[test]
fn a_send_that_finds_no_memory_goes_on_until_it_is_cancelled() {
    let mut ring = Ring::new(&settings("none"), &arena()).unwrap();
    let (socket, _peer) = pair(&mut ring);
    let operation = Operation::Send { socket, message: Message { bytes: vec![1; 100], ..Message::default() } };
    let mut slot = Slot::new(operation, None, 1, socket, Links { before: NONE, after: NONE });
    for _ in 0..1000 {
        assert!(matches!(slot.step(-libc::EAGAIN), Step::Again));
    }
    slot.cancelled = true;
    assert!(matches!(slot.step(-libc::EAGAIN), Step::Over(Err(_))));
}
