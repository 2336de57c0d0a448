//! Random requests against a vector of bytes.

use crate::harness::{Core, data};
use crate::plain::Plain;
use backstore::{FileSettings, Kind, Settings, Store};
use backstore_api::{Answer, Completion, Protection, Request, Submitted};
use proptest::prelude::*;
use reactor::Reactor;
use std::{collections::HashMap, ops::Range};

/// Not a multiple of 4096, so that the last block is a partial one.
pub const BYTES: u64 = (600 << 10) + 512;
const SECTOR: u64 = 512;
/// For protection information.
const ROOM: u64 = 16 << 10;

#[derive(Clone, Debug)]
pub enum Act {
    Read { at: u64, sectors: u64, place: u32 },
    Write { at: u64, sectors: u64, place: u32, seed: u8, durable: bool },
    Fill { at: u64, sectors: u64, seed: u8 },
    Zero { at: u64, sectors: u64, unmap: bool, durable: bool },
    Discard { at: u64, sectors: u64 },
    Status { at: u64, sectors: u64, limit: u32 },
    Flush,
}

fn place() -> impl Strategy<Value = (u64, u64)> {
    let total = BYTES / SECTOR;
    // Small and large ones, many at the edges of 4096-byte blocks.
    let length = prop_oneof![1..20u64, Just(8), Just(512), 100..=512u64];
    (0..total, length).prop_map(move |(at, length)| (at, length.min(total - at)))
}

pub fn act() -> impl Strategy<Value = Act> {
    let sub = prop_oneof![Just(0u32), 0..16u32];
    prop_oneof![
        4 => (place(), sub.clone()).prop_map(|((at, sectors), place)| Act::Read { at, sectors, place }),
        4 => (place(), sub, any::<u8>(), any::<bool>()).prop_map(
            |((at, sectors), place, seed, durable)| Act::Write { at, sectors, place, seed, durable }),
        2 => (place(), any::<u8>()).prop_map(|((at, sectors), seed)| Act::Fill { at, sectors, seed }),
        2 => (place(), any::<bool>(), any::<bool>()).prop_map(
            |((at, sectors), unmap, durable)| Act::Zero { at, sectors, unmap, durable }),
        2 => place().prop_map(|(at, sectors)| Act::Discard { at, sectors }),
        1 => (place(), 0..5u32).prop_map(|((at, sectors), limit)| Act::Status { at, sectors, limit }),
        1 => Just(Act::Flush),
    ]
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed | 1).collect()
}

/// What is expected of a request in flight.
enum Expected {
    Data(Vec<u8>),
    Done,
    Extents { at: u64, end: u64, limit: u32, medium: Vec<u8> },
}

/// Runs the acts; those that don't touch each other's blocks run side by side.
pub struct Model<R> {
    pub core: Core<R>,
    medium: Vec<u8>,
    granule: u64,
    running: HashMap<u64, Expected>,
    busy: Vec<(Range<u64>, bool)>,
}

impl<R: Reactor + 'static> Model<R> {
    pub fn new(core: Core<R>) -> Model<R> {
        let geometry = core.queue.geometry().clone();
        assert!(geometry.discard_granularity == 0 || geometry.discard_zeroes);
        Model {
            medium: vec![0; geometry.bytes as usize],
            granule: u64::from(geometry.discard_granularity),
            core,
            running: HashMap::new(),
            busy: Vec::new(),
        }
    }

    fn check(&mut self, completion: Completion) {
        let expected = self.running.remove(&completion.tag).expect("a tag that is in flight");
        match expected {
            Expected::Data(bytes) => {
                let found = data(completion, bytes.len() as u32).unwrap();
                assert!(found == bytes, "read other bytes than were written");
            }
            Expected::Done => assert_eq!(completion.result, Ok(Answer::Done)),
            Expected::Extents { at, end, limit, medium } => {
                let Ok(Answer::Extents(extents)) = completion.result else { panic!("no extents") };
                assert!(extents.len() <= limit as usize);
                let mut next = at;
                for extent in extents {
                    assert_eq!(extent.offset, next, "extents are adjacent");
                    assert!(extent.length > 0 && extent.length % SECTOR == 0);
                    next += extent.length;
                    assert!(next <= end);
                    let part = &medium[extent.offset as usize..next as usize];
                    assert!(extent.mapped || part.iter().all(|byte| *byte == 0), "data in a hole");
                }
                assert!(limit == 0 || at == end || next > at, "no extent at all");
            }
        }
    }

    fn settle(&mut self) {
        for completion in self.core.drain() {
            self.check(completion);
        }
        assert!(self.running.is_empty(), "a request got lost");
        self.busy.clear();
    }

    /// Waits if the range meets one that is in flight.
    fn claim(&mut self, span: Range<u64>, write: bool) {
        let whole = if write { self.core.queue.exclusive(span.clone()).unwrap_or(span) } else { span };
        let meets =
            |(busy, other): &(Range<u64>, bool)| (write || *other) && busy.start < whole.end && whole.start < busy.end;
        if self.busy.iter().any(meets) || self.running.len() >= 6 {
            self.settle();
        }
        self.busy.push((whole, write));
    }

    fn offer(&mut self, request: Request, expected: Expected) {
        let (tag, submitted) = self.core.offer(request);
        self.running.insert(tag, expected);
        match submitted {
            Submitted::Done(completion) => self.check(completion),
            Submitted::Pending => {}
            Submitted::Full(request) => {
                let expected = self.running.remove(&tag).expect("just inserted");
                // Its own claim was the last, and stands.
                let claim = self.busy.pop();
                self.settle();
                self.busy.extend(claim);
                let (tag, submitted) = self.core.offer(request);
                assert!(matches!(submitted, Submitted::Pending));
                self.running.insert(tag, expected);
            }
        }
    }

    pub fn act(&mut self, act: &Act) {
        let span = |at: &u64, sectors: &u64| at * SECTOR..(at + sectors) * SECTOR;
        match act {
            Act::Read { at, sectors, place } => {
                let span = span(at, sectors);
                self.claim(span.clone(), false);
                let length = (span.end - span.start) as usize;
                let buffer = self.core.buffer(length);
                let start = (*place as usize * 512).min(buffer.len() - length) as u32;
                let expected = self.medium[span.start as usize..span.end as usize].to_vec();
                let range = start..start + length as u32;
                self.offer(Request::Read { offset: span.start, buffer, range }, Expected::Data(expected));
            }
            Act::Write { at, sectors, place, seed, durable } => {
                let span = span(at, sectors);
                self.claim(span.clone(), true);
                let bytes = noise(*seed, (span.end - span.start) as usize);
                let mut buffer = self.core.buffer(bytes.len());
                let start = (*place as usize * 512).min(buffer.len() - bytes.len());
                buffer[start..start + bytes.len()].copy_from_slice(&bytes);
                self.medium[span.start as usize..span.end as usize].copy_from_slice(&bytes);
                let range = start as u32..(start + bytes.len()) as u32;
                let request = Request::Write { offset: span.start, buffer, range, durable: *durable };
                self.offer(request, Expected::Done);
            }
            Act::Fill { at, sectors, seed } => {
                let span = span(at, sectors);
                self.claim(span.clone(), true);
                let pattern = noise(*seed, SECTOR as usize);
                for chunk in self.medium[span.start as usize..span.end as usize].chunks_mut(512) {
                    chunk.copy_from_slice(&pattern);
                }
                let mut buffer = self.core.buffer(512);
                buffer[..512].copy_from_slice(&pattern);
                let (offset, length) = (span.start, span.end - span.start);
                let request =
                    Request::Fill { offset, length, buffer, pattern: 512, durable: *seed & 1 == 0, tuple: None };
                self.offer(request, Expected::Done);
            }
            Act::Zero { at, sectors, unmap, durable } => {
                let span = span(at, sectors);
                self.claim(span.clone(), true);
                self.medium[span.start as usize..span.end as usize].fill(0);
                let (offset, length) = (span.start, span.end - span.start);
                let request = Request::Zero { offset, length, unmap: *unmap, durable: *durable };
                self.offer(request, Expected::Done);
            }
            Act::Discard { at, sectors } => {
                let span = span(at, sectors);
                self.claim(span.clone(), true);
                if self.granule > 0 {
                    let start = span.start.next_multiple_of(self.granule);
                    let end = span.end / self.granule * self.granule;
                    if start < end {
                        self.medium[start as usize..end as usize].fill(0);
                    }
                }
                let (offset, length) = (span.start, span.end - span.start);
                self.offer(Request::Discard { offset, length }, Expected::Done);
            }
            Act::Status { at, sectors, limit } => {
                self.settle();
                let span = span(at, sectors);
                let medium = self.medium.clone();
                let expected = Expected::Extents { at: span.start, end: span.end, limit: *limit, medium };
                let (offset, length) = (span.start, span.end - span.start);
                self.offer(Request::Status { offset, length, limit: *limit }, expected);
                self.settle();
            }
            Act::Flush => self.offer(Request::Flush, Expected::Done),
        }
    }

    /// Reads all of it back.
    pub fn compare(&mut self) {
        self.settle();
        let sectors = 256;
        for at in (0..BYTES / SECTOR).step_by(sectors as usize) {
            let sectors = sectors.min(BYTES / SECTOR - at);
            self.act(&Act::Read { at, sectors, place: 0 });
        }
        self.settle();
    }
}

pub fn file_settings(direct: bool, least_alignment: u32) -> (tempfile::TempDir, Settings) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut file = FileSettings::new(folder.path().join("disk"), Some(BYTES));
    file.direct = direct;
    file.least_alignment = least_alignment;
    (folder, Settings::new(Kind::File(file)))
}

/// The acts on a store, then on a new core of the same store, then after opening it again.
fn follow(settings: &Settings, acts: &[Act], tweak: impl Fn(&mut Plain)) {
    let mut plain = Plain::new();
    tweak(&mut plain);
    let store = Store::open(settings).unwrap();
    let mut model = Model::new(Core::new(plain, &store));
    for act in acts {
        model.act(act);
    }
    model.compare();
    let persistent = store.geometry().persistent;
    let medium = model.medium.clone();
    drop((model, store));
    if persistent {
        let store = Store::open(settings).unwrap();
        let mut model = Model::new(Core::new(Plain::new(), &store));
        model.medium = medium;
        model.compare();
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn ram_keeps_what_a_vector_keeps(acts in acts()) {
        follow(&Settings::new(Kind::Ram { bytes: BYTES, preallocate: false }), &acts, |_| {});
    }

    #[test]
    fn a_buffered_file_keeps_what_a_vector_keeps(acts in acts(), backwards: bool) {
        let (_folder, settings) = file_settings(false, 1);
        follow(&settings, &acts, |plain| plain.backwards = backwards);
    }

    #[test]
    fn a_direct_file_keeps_what_a_vector_keeps(acts in acts(), backwards: bool) {
        let (_folder, settings) = file_settings(true, 1);
        follow(&settings, &acts, |plain| plain.backwards = backwards);
    }

    #[test]
    fn a_direct_file_with_large_blocks_keeps_what_a_vector_keeps(acts in acts(), backwards: bool) {
        let (_folder, settings) = file_settings(true, 4096);
        follow(&settings, &acts, |plain| plain.backwards = backwards);
    }

    #[test]
    fn ram_with_protection_information_keeps_what_a_vector_keeps(acts in acts()) {
        let kind = Kind::Ram { bytes: BYTES + ROOM, preallocate: false };
        let protection = Some(Protection::Type1);
        follow(&Settings { protection, ..Settings::new(kind) }, &acts, |_| {});
    }

    #[test]
    fn a_direct_file_with_protection_information_keeps_what_a_vector_keeps(
        acts in acts(), backwards: bool, crowded: bool, large: bool,
    ) {
        let (_folder, mut settings) = file_settings(true, if large { 4096 } else { 1 });
        if let Kind::File(file) = &mut settings.kind {
            file.bytes = Some(BYTES + ROOM);
        }
        settings.protection = Some(Protection::Type1);
        settings.depth = if crowded { 8 } else { 128 };
        follow(&settings, &acts, |plain| {
            plain.backwards = backwards;
            plain.slots = if crowded { 1 } else { usize::MAX };
        });
    }

    /// One slot in the reactor, and room for two requests: everything is held and tried again.
    #[test]
    fn a_crowded_reactor_loses_nothing(acts in acts()) {
        let (_folder, mut settings) = file_settings(true, 4096);
        settings.depth = 8;
        follow(&settings, &acts, |plain| plain.slots = 1);
    }

    /// No hole punching, no zeroing: zeroes are written.
    #[test]
    fn a_file_system_without_fallocate_keeps_what_a_vector_keeps(acts in acts()) {
        let acts: Vec<Act> = acts.into_iter().filter(|act| !matches!(act, Act::Discard { .. })).collect();
        let (_folder, settings) = file_settings(true, 4096);
        follow(&settings, &acts, |plain| plain.fail_with(|done| {
            let missing = rustix::io::Errno::OPNOTSUPP.raw_os_error();
            matches!(done, crate::plain::Done::Allocate { .. }).then_some(Err(reactor::Errno(missing)))
        }));
    }
}
