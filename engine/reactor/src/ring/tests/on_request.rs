//! What a ring does only when its settings ask for it.

use super::*;
use std::net::{Shutdown, TcpListener, TcpStream};

/// The kernel that runs the test has what came with this release.
pub(super) fn kernel_has(feature: Feature) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= feature.since()
}

/// A TCP connection over loopback, one end of it in the ring.
pub(super) fn tcp_pair(ring: &mut Ring) -> (Descriptor, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (ring.register(listener.accept().unwrap().0.into()).unwrap(), theirs)
}

#[test]
fn network_cards_are_polled_when_that_is_asked_for() {
    let asked = |mask| RingSettings { busy_poll: Duration::from_micros(20), ..settings(mask) };
    let use_of = |settings: &RingSettings| Ring::new(settings, &arena()).unwrap().features.get(Feature::BusyPoll);
    assert_eq!(use_of(&settings("none")), Use::Unasked);
    assert_eq!(use_of(&asked("6.8")), Use::Masked);
    let mut ring = Ring::new(&asked("none"), &arena()).unwrap();
    let has = kernel_has(Feature::BusyPoll);
    assert_eq!(ring.features.get(Feature::BusyPoll), if has { Use::Used } else { Use::Absent });
    // Sockets that no card serves work as ever.
    let (socket, mut peer) = tcp_pair(&mut ring);
    for round in 0..20u8 {
        submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 1);
        ring.turn(Wait::Until(clock() + Duration::from_millis(2)), &mut Vec::new()).unwrap();
        peer.write_all(&[round; 10]).unwrap();
        assert_eq!(buffer_of(one(&mut ring))[..10], [round; 10]);
    }
    if has {
        // What was in force comes back when it is taken away.
        let mut before = types::Napi::new();
        ring.ring.submitter().unregister_napi(&mut before).unwrap();
        assert_eq!((before.busy_poll_timeout(), before.prefer_busy_poll()), (20, true));
    }
}

/// A ring that sends pieces of 4 KiB and more without a copy; None where the kernel can't.
fn zero_copy_ring() -> Option<Ring> {
    let ring = Ring::new(&RingSettings { zero_copy: 4096, ..settings("none") }, &arena()).unwrap();
    let has = kernel_has(Feature::ZeroCopy);
    assert_eq!(ring.features.get(Feature::ZeroCopy), if has { Use::Used } else { Use::Absent });
    has.then_some(ring)
}

/// A connection whose peer takes little before it reads, and whose own end takes a message at once.
fn patient_pair(ring: &mut Ring) -> (Descriptor, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 32 << 10).unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 2 << 20).unwrap();
    let theirs = listener.accept().unwrap().0;
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (ring.register(ours.into()).unwrap(), theirs)
}

/// A part of two large buffers, with a few bytes before, between and behind; and what the peer is to read.
fn large_message(ring: &Ring) -> (Message, Vec<u8>) {
    let mut message = Message { bytes: b"head middle tail".to_vec(), ..Message::default() };
    let mut expected = Vec::new();
    for (index, words) in [(0, 0..5u32), (1, 5..12)] {
        let mut buffer = ring.pool().take(Class::Large).unwrap();
        for (at, byte) in buffer.iter_mut().enumerate() {
            *byte = (at / 7) as u8 ^ (index as u8 + 1);
        }
        expected.extend_from_slice(&message.bytes[words.start as usize..words.end as usize]);
        expected.extend_from_slice(&buffer[1000..100_000]);
        message.parts.extend([Part::Bytes(words), Part::Buffer { index, range: 1000..100_000 }]);
        message.buffers.push(buffer);
    }
    expected.extend_from_slice(&message.bytes[12..]);
    message.parts.push(Part::Bytes(12..16));
    assert_eq!(message.length(), expected.len());
    (message, expected)
}

fn read_all(mut peer: TcpStream, count: usize) -> (Vec<u8>, TcpStream) {
    let mut got = vec![0; count];
    peer.read_exact(&mut got).unwrap();
    (got, peer)
}

/// Sends a large message that the peer does not read yet; the kernel holds it.
fn held(ring: &mut Ring, socket: Descriptor, token: u64) -> Vec<u8> {
    let (message, expected) = large_message(ring);
    submit(ring, Operation::Send { socket, message }, token);
    let sent = one(ring);
    assert_eq!((sent.token, sent.result), (token, Ok(expected.len() as u32)));
    assert!(matches!(sent.returned, Returned::Held));
    expected
}

#[test]
fn a_message_sent_without_a_copy_comes_home_when_the_peer_has_all_of_it() {
    let Some(mut ring) = zero_copy_ring() else { return };
    let (socket, peer) = patient_pair(&mut ring);
    let mut expected = held(&mut ring, socket, 5);
    let mut out = Vec::new();
    ring.turn(Wait::Until(clock() + Duration::from_millis(30)), &mut out).unwrap();
    assert!(out.is_empty(), "the peer has not read anything");
    assert_eq!((ring.pool().available(Class::Large), ring.in_flight()), (2, 1));
    // The next one may follow meanwhile; it is small.
    submit(&mut ring, Operation::Send { socket, message: message(b"small") }, 6);
    let small = one(&mut ring);
    assert!(matches!(small.returned, Returned::Message(_)) && small.token == 6);
    expected.extend_from_slice(b"small");

    let count = expected.len();
    let reader = thread::spawn(move || read_all(peer, count));
    let late = one(&mut ring);
    assert_eq!((late.token, late.result), (5, Ok(count as u32 - 5)));
    let Returned::Late(mut message) = late.returned else { panic!("it is the message") };
    message.clear();
    assert_eq!((ring.pool().available(Class::Large), ring.in_flight()), (4, 0));
    assert!(reader.join().unwrap().0 == expected);
    assert_eq!((ring.counters().zero_copy, ring.counters().stale), (1, 0));
    assert_eq!(ring.counters().zero_copy_copied, 1, "loopback copies, and says so");
}

#[test]
fn a_close_takes_back_what_the_peer_has_not_read() {
    let Some(mut ring) = zero_copy_ring() else { return };
    let (socket, mut peer) = patient_pair(&mut ring);
    held(&mut ring, socket, 5);
    submit(&mut ring, Operation::Receive { socket, stay: false, most: u32::MAX }, 7);
    ring.close(socket);
    let ended = wait_for(&mut ring, 2);
    let receive = ended.iter().find(|done| done.token == 7).expect("the receive ends");
    assert_eq!(receive.result, Err(Errno(libc::ECANCELED)));
    assert!(ended.iter().any(|done| done.token == 5 && matches!(done.returned, Returned::Late(_))));
    drop(ended);
    assert_eq!((ring.pool().available(Class::Large), ring.in_flight()), (4, 0));
    let mut bytes = [0; 65536];
    let end = std::iter::repeat_with(|| peer.read(&mut bytes)).find(|read| !matches!(read, Ok(count) if *count > 0));
    assert_eq!(end.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // Its slot in the table is another one's now: what comes late from the old one must not count there.
    let (reused, _peer) = patient_pair(&mut ring);
    assert_eq!(reused.slot, socket.slot);
    assert_eq!(ring.files.get_mut(reused).unwrap().held, 0);
}

#[test]
fn a_cancelled_send_without_a_copy_still_waits_for_its_memory() {
    let Some(mut ring) = zero_copy_ring() else { return };
    let (socket, peer) = patient_pair(&mut ring);
    let region = Region::new(16 << 20).unwrap();
    let parts = (0..64).map(|at| Part::Region { index: 0, length: 256 << 10, offset: at * (256 << 10) }).collect();
    let message = Message { parts, regions: vec![region], ..Message::default() };
    let id = submit(&mut ring, Operation::Send { socket, message }, 1);
    let mut out = Vec::new();
    ring.turn(Wait::Until(clock() + Duration::from_millis(20)), &mut out).unwrap();
    assert!(out.is_empty(), "more than the socket takes");
    ring.cancel(id);
    let done = one(&mut ring);
    assert!(done.result.is_err() && matches!(done.returned, Returned::Held), "{:?}", done.result);
    ring.close(socket);
    let late = one(&mut ring);
    assert!(
        late.result == done.result && matches!(late.returned, Returned::Late(message) if message.parts.len() == 64)
    );
    drop(peer);
}

/// All completions of one send: two, perhaps in one turn, if what it sends is held.
fn sent(ring: &mut Ring) -> Vec<Completion> {
    let mut out = Vec::new();
    let end = clock() + PATIENCE;
    while out.last().is_none_or(|last: &Completion| matches!(last.returned, Returned::Held)) {
        assert!(clock() < end, "{} completions came", out.len());
        ring.turn(Wait::Until(end), &mut out).unwrap();
    }
    out
}

#[test]
fn long_messages_go_in_several_rounds_without_a_copy() {
    let Some(mut ring) = zero_copy_ring() else { return };
    let (socket, peer) = tcp_pair(&mut ring);
    let region = Region::new(4 << 20).unwrap();
    region.write(0, &(0..4u32 << 20).map(|n| (n / 5) as u8).collect::<Vec<u8>>());
    let mut expected = vec![0; 600 * 5000];
    let part = |at: u64| Part::Region { index: 0, length: 5000, offset: at * 4321 };
    for (at, piece) in expected.chunks_mut(5000).enumerate() {
        region.read(at as u64 * 4321, piece);
    }
    let message = Message { parts: (0..600).map(part).collect(), regions: vec![region], ..Message::default() };
    let count = expected.len();
    let reader = thread::spawn(move || read_all(peer, count));
    submit(&mut ring, Operation::Send { socket, message }, 1);
    let done = sent(&mut ring);
    if matches!(done[0].returned, Returned::Held) {
        assert!(matches!(done[1].returned, Returned::Late(_)));
    }
    assert!(done.iter().all(|done| done.result == Ok(count as u32)));
    assert!(reader.join().unwrap().0 == expected);
    assert!(ring.counters().zero_copy >= 3, "256 pieces are a round");
    assert_eq!((ring.in_flight(), ring.counters().stale), (0, 0));
}

#[test]
fn what_can_not_go_without_a_copy_is_copied() {
    let Some(mut ring) = zero_copy_ring() else { return };
    // A socket that can't do it.
    let (socket, mut peer) = pair(&mut ring);
    let (large, expected) = large_message(&ring);
    let count = expected.len();
    let reader = thread::spawn(move || {
        let mut got = vec![0; count];
        peer.read_exact(&mut got).unwrap();
        got
    });
    submit(&mut ring, Operation::Send { socket, message: large }, 1);
    // The refusal, too, may be noticed later than the end.
    let done = sent(&mut ring);
    assert_eq!(done[0].result, Ok(count as u32));
    assert!(reader.join().unwrap() == expected);
    assert!(ring.counters().zero_copy_refused >= 1);
    // Short pieces, and rings that are not asked.
    let (tcp, _peer) = tcp_pair(&mut ring);
    let noticed = ring.counters().zero_copy;
    submit(&mut ring, Operation::Send { socket: tcp, message: message(&[0; 4095]) }, 2);
    assert!(matches!(one(&mut ring).returned, Returned::Message(_)));
    assert_eq!(ring.counters().zero_copy, noticed);
    for (mask, found) in [("none", Use::Unasked), ("6.1", Use::Masked)] {
        let settings = RingSettings { zero_copy: u32::from(mask != "none") * 4096, ..settings(mask) };
        let mut ring = Ring::new(&settings, &arena()).unwrap();
        assert_eq!(ring.features.get(Feature::ZeroCopy), found);
        let (tcp, _peer) = tcp_pair(&mut ring);
        submit(&mut ring, Operation::Send { socket: tcp, message: message(&[0; 65536]) }, 2);
        assert!(matches!(one(&mut ring).returned, Returned::Message(_)));
    }
}

#[test]
fn the_end_of_a_ring_takes_back_what_peers_have_not_read() {
    let arena = arena();
    let Some(first) = zero_copy_ring() else { return };
    drop(first);
    let mut ring = Ring::new(&RingSettings { zero_copy: 4096, ..settings("none") }, &arena).unwrap();
    let (socket, peer) = patient_pair(&mut ring);
    held(&mut ring, socket, 5);
    let start = clock();
    drop(ring);
    assert!(clock() - start < Duration::from_secs(2), "it waits for nobody");
    assert_eq!(arena.pool().available(Class::Large), 4);
    let _ = peer.shutdown(Shutdown::Both);
}
