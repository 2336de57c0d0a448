//! Receives that stay: in order, however they end.

use super::{on_request::tcp_pair, *};

fn stay(ring: &mut Ring, socket: Descriptor, token: u64) -> OperationId {
    submit(ring, Operation::Receive { socket, stay: true, most: u32::MAX }, token)
}

/// What one completion of a receive means.
enum Came {
    /// Bytes, and it stays or not.
    Bytes(Vec<u8>, bool),
    End,
    Failed(i32),
}

fn came(completion: Completion) -> Came {
    match (completion.result, completion.returned) {
        (Ok(count), Returned::Part(buffer)) => Came::Bytes(buffer[..count as usize].to_vec(), true),
        (Ok(count), Returned::Buffer(buffer)) => Came::Bytes(buffer[..count as usize].to_vec(), false),
        (Ok(0), Returned::Nothing) => Came::End,
        (Err(errno), Returned::Nothing) => Came::Failed(errno.0),
        _ => panic!("no completion of a receive"),
    }
}

/// A ring whose receives stay; None where the kernel can't do that.
fn staying_ring(settings: &RingSettings) -> Option<Ring> {
    let ring = Ring::new(settings, &arena()).unwrap();
    let has = super::on_request::kernel_has(Feature::Multishot);
    assert_eq!(ring.features.get(Feature::Multishot), if has { Use::Used } else { Use::Absent });
    has.then_some(ring)
}

#[test]
fn one_that_stays_brings_everything_in_order_and_then_the_end() {
    each(|mut ring| {
        let stays = ring.features.uses(Feature::Multishot);
        assert!(!stays || ring.provided.is_some());
        let (socket, mut peer) = tcp_pair(&mut ring);
        stay(&mut ring, socket, 7);
        for round in 0..50u8 {
            peer.write_all(&[round; 48]).unwrap();
            let done = one(&mut ring);
            assert_eq!(done.token, 7);
            let Came::Bytes(bytes, more) = came(done) else { panic!("it ended") };
            assert_eq!((bytes, more), (vec![round; 48], stays));
            assert_eq!(ring.in_flight(), u32::from(stays));
            if !more {
                stay(&mut ring, socket, 7);
            }
        }
        drop(peer);
        assert!(matches!(came(one(&mut ring)), Came::End));
        assert_eq!((ring.in_flight(), ring.counters().stale), (0, 0));
    });
}

#[test]
fn however_it_is_stopped_and_taken_up_again_no_byte_is_lost_or_changes_its_place() {
    each(|mut ring| {
        const BYTES: usize = 3 << 20;
        let (socket, mut peer) = tcp_pair(&mut ring);
        let sent = |at: usize| (at ^ at >> 8 ^ at >> 16) as u8;
        let writer = thread::spawn(move || {
            let all: Vec<u8> = (0..BYTES).map(sent).collect();
            let mut rest = &all[..];
            let mut size = 1;
            while !rest.is_empty() {
                size = (size * 7 + 13) % 90_000;
                let (now, later) = rest.split_at((size + 1).min(rest.len()));
                peer.write_all(now).unwrap();
                rest = later;
            }
            peer
        });
        let (mut at, mut round, mut out) = (0, 0u32, Vec::new());
        while at < BYTES {
            round += 1;
            if round.is_multiple_of(3) {
                let buffer = ring.pool().take(Class::Large).unwrap();
                submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 5..20_005, behind: 0 }, 1);
                let done = one(&mut ring);
                let count = done.result.unwrap() as usize;
                let buffer = buffer_of(done);
                assert!(buffer[5..5 + count].iter().enumerate().all(|(n, byte)| *byte == sent(at + n)));
                at += count;
                continue;
            }
            let id = stay(&mut ring, socket, 2);
            let mut over = false;
            let mut turns = 0;
            while !over {
                turns += 1;
                ring.turn(Wait::Until(clock() + Duration::from_millis(1)), &mut out).unwrap();
                for done in out.drain(..) {
                    assert!(!over, "something came behind the end");
                    match came(done) {
                        Came::Bytes(bytes, more) => {
                            assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == sent(at + n)), "at {at}");
                            at += bytes.len();
                            over = !more;
                        }
                        Came::Failed(libc::ECANCELED | libc::ENOBUFS) => over = true,
                        Came::Failed(errno) => panic!("{:?}", Errno(errno)),
                        Came::End => panic!("an early end"),
                    }
                }
                if turns > round % 5 {
                    ring.cancel(id);
                }
            }
            assert_eq!(ring.in_flight(), 0);
        }
        drop(writer.join().unwrap());
        stay(&mut ring, socket, 3);
        assert!(matches!(came(one(&mut ring)), Came::End));
        assert_eq!(ring.counters().stale, 0);
        assert!(ring.pool().available(Class::Medium) >= 5);
    });
}

#[test]
fn a_cancel_leaves_what_came_later_to_the_next_receive() {
    let Some(mut ring) = staying_ring(&settings("none")) else { return };
    let (socket, mut peer) = tcp_pair(&mut ring);
    let id = stay(&mut ring, socket, 1);
    peer.write_all(b"before").unwrap();
    assert!(matches!(came(one(&mut ring)), Came::Bytes(bytes, true) if bytes == b"before"));
    ring.cancel(id);
    ring.cancel(id);
    peer.write_all(b"after").unwrap();
    assert!(matches!(came(one(&mut ring)), Came::Failed(libc::ECANCELED)));
    assert_eq!(ring.in_flight(), 0);
    let buffer = ring.pool().take(Class::Small).unwrap();
    submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..100, behind: 0 }, 2);
    assert_eq!(buffer_of(one(&mut ring))[..5], *b"after");
    // Nothing is in flight under that name any more.
    ring.cancel(id);
    stay(&mut ring, socket, 3);
    peer.write_all(b"again").unwrap();
    assert!(matches!(came(one(&mut ring)), Came::Bytes(bytes, true) if bytes == b"again"));
}

#[test]
fn a_cancel_that_did_not_find_it_is_repeated() {
    let Some(mut ring) = staying_ring(&settings("none")) else { return };
    let (socket, mut peer) = tcp_pair(&mut ring);
    let id = stay(&mut ring, socket, 1);
    peer.write_all(b"x").unwrap();
    assert!(matches!(came(one(&mut ring)), Came::Bytes(_, true)));
    ring.cancel_answered(id.0, -libc::ENOENT);
    assert!(matches!(came(one(&mut ring)), Came::Failed(libc::ECANCELED)));
    // It has ended; others and successes are left alone.
    let other = submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 2);
    let again = [(id, -libc::ENOENT), (other, -libc::ENOENT), (other, 0)];
    again.into_iter().for_each(|(id, result)| ring.cancel_answered(id.0, result));
    peer.write_all(b"y").unwrap();
    assert_eq!(one(&mut ring).result, Ok(1));
}

#[test]
fn without_buffers_it_ends_and_is_taken_up_again() {
    let Some(mut ring) = staying_ring(&settings("none")) else { return };
    let (socket, mut peer) = tcp_pair(&mut ring);
    let mut held: Vec<Buffer> = Vec::new();
    let mut submitted = 1;
    stay(&mut ring, socket, 0);
    let errno = loop {
        peer.write_all(b"x").unwrap();
        let done = one(&mut ring);
        match done.returned {
            Returned::Part(buffer) => held.push(buffer),
            Returned::Buffer(buffer) => {
                held.push(buffer);
                stay(&mut ring, socket, 0);
                submitted += 1;
            }
            _ => break done.result.unwrap_err(),
        }
    };
    assert_eq!((errno.0, held.len(), submitted), (libc::ENOBUFS, 8, 1));
    assert_eq!((ring.counters().starved, ring.in_flight()), (1, 0));
    // Asking again doesn't spin: one answer for each time.
    stay(&mut ring, socket, 0);
    assert!(matches!(came(one(&mut ring)), Came::Failed(libc::ENOBUFS)));
    held.clear();
    ring.turn(Wait::Poll, &mut Vec::new()).unwrap();
    stay(&mut ring, socket, 0);
    assert!(matches!(came(one(&mut ring)), Came::Bytes(bytes, true) if bytes == b"x"));
}

#[test]
fn a_close_ends_it_once_and_gives_its_buffers_back() {
    each(|mut ring| {
        for round in 0..10 {
            let (socket, mut peer) = tcp_pair(&mut ring);
            let (other, mut other_peer) = tcp_pair(&mut ring);
            stay(&mut ring, socket, 1);
            stay(&mut ring, other, 2);
            if round % 2 == 0 {
                peer.write_all(b"x").unwrap();
                let done = one(&mut ring);
                if matches!(done.returned, Returned::Buffer(_)) {
                    stay(&mut ring, socket, 1);
                }
            }
            if round % 3 == 0 {
                peer.write_all(&[0; 1000]).unwrap();
            }
            ring.close(socket);
            let mut ends = 0;
            let mut out = Vec::new();
            for _ in 0..5 {
                ring.turn(Wait::Until(clock() + Duration::from_millis(2)), &mut out).unwrap();
                for done in out.drain(..) {
                    assert_eq!(done.token, 1);
                    ends += u32::from(!matches!(done.returned, Returned::Part(_)));
                }
            }
            assert_eq!((ends, ring.in_flight()), (1, 1));
            let mut end = [0; 1];
            assert!(!matches!(peer.read(&mut end), Ok(1)), "the peer sees the end");
            other_peer.write_all(b"y").unwrap();
            let done = one(&mut ring);
            assert_eq!(done.token, 2);
            let stays = matches!(done.returned, Returned::Part(_));
            drop(done);
            ring.close(other);
            if stays {
                assert!(matches!(came(one(&mut ring)), Came::Failed(libc::ECANCELED)));
            }
            assert_eq!((ring.in_flight(), ring.counters().stale), (0, 0));
        }
        assert!(ring.pool().available(Class::Medium) >= 5);
    });
}

#[test]
fn many_that_come_at_once_find_no_buffers_and_lose_nothing() {
    let many = RingSettings { slots: 80, files: 80, receive_buffers: 64, ..settings("none") };
    let big = Arena::new(ArenaConfig { small: 1, medium: 80, large: 1 }).unwrap();
    let mut ring = Ring::new(&many, &big).unwrap();
    if !ring.features.uses(Feature::Multishot) {
        return;
    }
    let mut pairs: Vec<_> = (0..64).map(|_| pair(&mut ring)).collect();
    for (at, (socket, _)) in pairs.iter().enumerate() {
        stay(&mut ring, *socket, at as u64);
    }
    let mut got = vec![Vec::new(); pairs.len()];
    let mut out = Vec::new();
    for round in 0..20u8 {
        pairs.iter_mut().for_each(|(_, peer)| peer.write_all(&[round; 3]).unwrap());
        while got.iter().any(|bytes: &Vec<u8>| bytes.len() < 3 * (usize::from(round) + 1)) {
            ring.turn(Wait::Until(clock() + PATIENCE), &mut out).unwrap();
            for done in out.drain(..) {
                let at = done.token as usize;
                match came(done) {
                    Came::Bytes(bytes, more) => {
                        got[at].extend(bytes);
                        if !more {
                            stay(&mut ring, pairs[at].0, at as u64);
                        }
                    }
                    Came::Failed(libc::ENOBUFS) => drop(stay(&mut ring, pairs[at].0, at as u64)),
                    _ => panic!("an early end"),
                }
            }
        }
    }
    let expected: Vec<u8> = (0..20u8).flat_map(|round| [round; 3]).collect();
    assert!(got.iter().all(|bytes| *bytes == expected));
    let counters = ring.counters();
    assert!(counters.stale == 0 && (1..500).contains(&counters.starved), "{counters:?}");
}
