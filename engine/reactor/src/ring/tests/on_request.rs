//! What a ring does only when its settings ask for it.

use super::*;
use std::net::{TcpListener, TcpStream};

/// The kernel that runs the test has what came with this release.
fn kernel_has(feature: Feature) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= feature.since()
}

/// A TCP connection over loopback, one end of it in the ring.
fn tcp_pair(ring: &mut Ring) -> (Descriptor, TcpStream) {
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
        submit(&mut ring, Operation::Receive { socket }, 1);
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
