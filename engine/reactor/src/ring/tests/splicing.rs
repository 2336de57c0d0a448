//! Pages of regions that go to the socket themselves.

use super::*;
use std::{
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Instant,
};

fn splicing(mask: &str) -> Ring {
    let ring = Ring::new(&RingSettings { splice: 512, ..settings(mask) }, &arena()).unwrap();
    assert!(ring.features().uses(Feature::Splice));
    ring
}

fn tcp(ring: &mut Ring) -> (Descriptor, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_nodelay(true).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (ring.register(ours.into()).unwrap(), theirs)
}

fn region() -> Arc<Region> {
    let region = Region::new(4 << 20).unwrap();
    let bytes: Vec<u8> = (0..2 << 20).map(|n: u32| (n / 5 * 7 + n) as u8).collect();
    // The second half is never written to.
    region.write(0, &bytes);
    region
}

/// Headers with pieces of a region between them, and the bytes that they make.
fn answers(region: &Arc<Region>, seed: u64, count: u64, length: u32) -> (Message, Vec<u8>) {
    let mut message = Message { regions: vec![region.clone()], ..Message::default() };
    let mut expected = Vec::new();
    for n in seed..seed + count {
        let start = message.bytes.len() as u32;
        message.bytes.extend([n as u8; 48]);
        message.parts.push(Part::Bytes(start..start + 48));
        let offset = (n * 7_919_111) % (region.len() - u64::from(length));
        message.parts.push(Part::Region { index: 0, length, offset });
        expected.extend([n as u8; 48]);
        let at = expected.len();
        expected.resize(at + length as usize, 0);
        region.read(offset, &mut expected[at..]);
    }
    (message, expected)
}

fn returned(completion: Completion) -> Result<u32, Errno> {
    assert!(matches!(completion.returned, Returned::Message(_)));
    completion.result
}

fn by_both(test: impl Fn(Ring, bool)) {
    for (mask, inet) in [("none", true), ("none", false), ("defer_taskrun,registered_files", true)] {
        test(splicing(mask), inet);
    }
}

fn connect(ring: &mut Ring, inet: bool) -> (Descriptor, Box<dyn Read + Send>) {
    if inet {
        let (socket, peer) = tcp(ring);
        (socket, Box::new(peer))
    } else {
        let (socket, peer) = pair(ring);
        (socket, Box::new(peer))
    }
}

/// Reads so many bytes in a thread of its own, and gives the peer back with them.
fn read_all<P: Read + Send + 'static>(mut peer: P, total: usize) -> thread::JoinHandle<(P, Vec<u8>)> {
    thread::spawn(move || {
        let mut got = vec![0; total];
        peer.read_exact(&mut got).unwrap();
        (peer, got)
    })
}

#[test]
fn all_arrives_in_order() {
    by_both(|mut ring, inet| {
        let region = region();
        let (socket, mut peer) = connect(&mut ring, inet);
        for (round, length) in [4096, 512, 8192, 100_000, 1, 4095, 600_000].into_iter().enumerate() {
            let (message, expected) = answers(&region, round as u64 * 31, 16, length);
            let total = expected.len();
            let reader = read_all(peer, total);
            submit(&mut ring, Operation::Send { socket, message }, 1);
            assert_eq!(returned(one(&mut ring)), Ok(expected.len() as u32));
            let (back, got) = reader.join().unwrap();
            assert!(got == expected, "16 pieces of {length}");
            peer = back;
        }
        assert!(ring.counters().spliced > 16 * 4096);
        assert_eq!((ring.in_flight(), ring.counters().stale), (0, 0));
    });
}

#[test]
fn headers_stand_still_until_a_late_peer_reads_them() {
    by_both(|mut ring, inet| {
        let region = region();
        let mut late = Vec::new();
        // More of them than there is room for at once.
        for n in 0..6 {
            let (socket, peer) = connect(&mut ring, inet);
            let mut all = Vec::new();
            for round in 0..if inet { 20 } else { 2 } {
                let (message, expected) = answers(&region, n * 100 + round * 1000, 64, 512);
                submit(&mut ring, Operation::Send { socket, message }, 1);
                assert_eq!(returned(one(&mut ring)), Ok(expected.len() as u32));
                all.extend(expected);
            }
            late.push((peer, all));
        }
        for (mut peer, expected) in late {
            let mut got = vec![0; expected.len()];
            peer.read_exact(&mut got).unwrap();
            assert!(got == expected);
        }
        assert!(ring.counters().spliced > 100_000);
    });
}

#[test]
fn a_peer_that_reads_slowly_gets_all() {
    by_both(|mut ring, inet| {
        let region = region();
        let (socket, peer) = connect(&mut ring, inet);
        let (message, expected) = answers(&region, 5, 12, 1 << 20);
        submit(&mut ring, Operation::Send { socket, message }, 1);
        let mut out = Vec::new();
        for _ in 0..10 {
            ring.turn(Wait::Poll, &mut out).unwrap();
        }
        // No socket takes 12 MiB; it waits without a system call that would hold the core.
        assert!(out.is_empty() && ring.in_flight() == 1);
        let total = expected.len();
        let reader = read_all(peer, total);
        assert_eq!(returned(one(&mut ring)), Ok(total as u32));
        assert!(reader.join().unwrap().1 == expected);
        assert!(ring.counters().spliced > total as u64 / 8);
    });
}

#[test]
fn what_one_peer_left_behind_reaches_no_other() {
    by_both(|mut ring, inet| {
        let region = region();
        for n in 0..20 {
            let (gone, peer) = connect(&mut ring, inet);
            let (message, _) = answers(&region, n, 16, 100_000);
            if n % 2 == 0 {
                drop(peer);
                submit(&mut ring, Operation::Send { socket: gone, message }, 1);
                // The first write to a connection that ends may still be taken.
                let _ = returned(one(&mut ring));
                let (message, _) = answers(&region, n, 16, 100_000);
                submit(&mut ring, Operation::Send { socket: gone, message }, 1);
                assert!(returned(one(&mut ring)).is_err());
            } else {
                // Closed while it waits for room.
                let (message, _) = (answers(&region, n, 12, 1 << 20).0, message);
                submit(&mut ring, Operation::Send { socket: gone, message }, 1);
                ring.close(gone);
                assert_eq!(returned(one(&mut ring)), Err(Errno(libc::ECANCELED)));
            }
            let (socket, mut peer) = connect(&mut ring, inet);
            let (message, expected) = answers(&region, n, 16, 4096);
            submit(&mut ring, Operation::Send { socket, message }, 1);
            assert_eq!(returned(one(&mut ring)), Ok(expected.len() as u32));
            let mut got = vec![0; expected.len()];
            peer.read_exact(&mut got).unwrap();
            assert!(got == expected);
            ring.close(socket);
            ring.close(gone);
        }
        assert_eq!((ring.in_flight(), ring.counters().stale), (0, 0));
    });
}

#[test]
fn small_messages_and_those_with_buffers_are_copied() {
    let mut ring = splicing("none");
    let region = region();
    let (socket, mut peer) = tcp(&mut ring);
    let (small, _) = answers(&region, 1, 7, 512);
    let (talkative, _) = answers(&region, 1, 600, 64);
    let (mut mixed, _) = answers(&region, 1, 16, 4096);
    mixed.buffers.push(ring.pool().take(Class::Small).unwrap());
    mixed.parts.push(Part::Buffer { index: 0, range: 0..100 });
    let mut nothing = [0; 1 << 20];
    for message in [small, talkative, mixed] {
        let length = message.length();
        submit(&mut ring, Operation::Send { socket, message }, 1);
        assert_eq!(returned(one(&mut ring)), Ok(length as u32));
        peer.read_exact(&mut nothing[..length]).unwrap();
    }
    assert_eq!(ring.counters().spliced, 0);
}

#[test]
fn pages_that_are_released_meanwhile_are_read_as_they_were() {
    let mut ring = splicing("none");
    let region = region();
    let (socket, mut peer) = tcp(&mut ring);
    let mut message = Message { regions: vec![region.clone()], ..Message::default() };
    message.parts.push(Part::Region { index: 0, length: 65536, offset: 65536 });
    let mut expected = vec![0; 65536];
    region.read(65536, &mut expected);
    submit(&mut ring, Operation::Send { socket, message }, 1);
    assert_eq!(returned(one(&mut ring)), Ok(65536));
    region.zero(0, 1 << 20, true);
    region.write(65536, &[0xff; 4096]);
    let mut got = vec![0; 65536];
    peer.read_exact(&mut got).unwrap();
    // What goes back to the system is not given to anybody else before the peer has read it.
    assert!(got == expected);
}

#[test]
fn what_waits_for_room_is_sent_when_splicing_was_given_up() {
    let mut ring = splicing("none");
    let region = region();
    let (socket, peer) = tcp(&mut ring);
    let (message, expected) = answers(&region, 5, 12, 1 << 20);
    submit(&mut ring, Operation::Send { socket, message }, 1);
    ring.splicer = None;
    let total = expected.len();
    let reader = read_all(peer, total);
    assert_eq!(returned(one(&mut ring)), Ok(total as u32));
    assert!(reader.join().unwrap().1 == expected);
}

/// The limit of bytes that are not sent yet.
fn not_sent_limit(socket: &TcpStream, set: Option<u32>) -> u32 {
    let mut limit = set.unwrap_or(0);
    let mut length = size_of_val(&limit) as libc::socklen_t;
    let (fd, name) = (socket.as_raw_fd(), libc::TCP_NOTSENT_LOWAT);
    // SAFETY: both calls are given a number and its length.
    let result = unsafe {
        match set {
            Some(_) => libc::setsockopt(fd, libc::IPPROTO_TCP, name, (&raw const limit).cast(), length),
            None => libc::getsockopt(fd, libc::IPPROTO_TCP, name, (&raw mut limit).cast(), &raw mut length),
        }
    };
    assert_eq!(result, 0);
    limit
}

#[test]
fn a_socket_that_made_it_wait_has_it_rest() {
    let mut ring = splicing("none");
    let region = region();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_peer, _) = listener.accept().unwrap();
    let same = ours.try_clone().unwrap();
    not_sent_limit(&same, Some(1));
    let slow = ring.register(ours.into()).unwrap();
    assert_eq!(not_sent_limit(&same, None), u32::MAX, "the system's limit would make it wait");
    not_sent_limit(&same, Some(1));
    let (message, _) = answers(&region, 5, 12, 1 << 20);
    submit(&mut ring, Operation::Send { socket: slow, message }, 1);
    let before = ring.counters().spliced;
    let (socket, mut peer) = tcp(&mut ring);
    let begin = Instant::now();
    for round in 0.. {
        let (message, expected) = answers(&region, round, 16, 4096);
        submit(&mut ring, Operation::Send { socket, message }, 2);
        assert_eq!(returned(one(&mut ring)), Ok(expected.len() as u32));
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
        if ring.counters().spliced > before {
            assert!(round > 0, "it goes on as if nothing had been");
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "it never comes back");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_an_aborted_connection_was_given_and_has_not_got_is_taken_back() {
    for (aborts, spliced) in [(true, true), (true, false), (false, true)] {
        let mut ring = splicing("none");
        let region = region();
        let (socket, mut peer) = tcp(&mut ring);
        let (mut message, expected) = answers(&region, 3, 12, 1 << 20);
        if !spliced {
            message.parts = Vec::new();
            message.bytes = expected;
        }
        submit(&mut ring, Operation::Send { socket, message }, 1);
        let mut out = Vec::new();
        for _ in 0..10 {
            ring.turn(Wait::Poll, &mut out).unwrap();
        }
        assert!(out.is_empty() && (ring.counters().spliced > 0) == spliced);
        if aborts {
            ring.abort(socket);
        } else {
            ring.close(socket);
        }
        assert!(returned(one(&mut ring)).is_err());
        let end = std::io::copy(&mut peer, &mut std::io::sink());
        match end {
            Err(error) => assert!(aborts && spliced && error.kind() == std::io::ErrorKind::ConnectionReset, "{error}"),
            Ok(came) => assert!(!(aborts && spliced) && came > 0, "{came} bytes and an end"),
        }
    }
}

#[test]
fn short_pieces_are_tried_both_ways_and_arrive_whole() {
    let mut ring = splicing("none");
    let region = region();
    let (socket, mut peer) = tcp(&mut ring);
    let (mut sent, mut got) = (0, vec![0; 64 * (48 + 4096)]);
    // So much goes by the page before anything else is tried.
    while sent < ring.counters().spliced + (8 << 20) {
        let (message, expected) = answers(&region, sent / 4096, 64, 4096);
        sent += expected.len() as u64;
        assert!(sent < 1 << 30, "all of it went by the page");
        submit(&mut ring, Operation::Send { socket, message }, 1);
        let mut out = Vec::new();
        let end = Instant::now() + PATIENCE;
        // A core that sleeps learns nothing.
        while out.is_empty() {
            ring.turn(Wait::Poll, &mut out).unwrap();
            assert!(Instant::now() < end);
        }
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
        assert_eq!(returned(out.pop().unwrap()), Ok(expected.len() as u32));
    }
    assert!(ring.counters().spliced >= 16 << 20);
}
