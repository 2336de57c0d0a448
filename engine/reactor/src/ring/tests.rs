//! The ring against real sockets and files, with all features, as on 5.19, and with every feature masked.

mod files;
mod on_request;
mod polled;
mod sockets;
mod splicing;
mod staying;
mod turns;

use super::*;
use crate::{Message, Part, Returned, Wake};
use memory::{ArenaConfig, Buffer, Region};
use std::{
    fs::File,
    io::{Read, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
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
