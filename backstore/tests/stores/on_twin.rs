//! The stores in a simulated world: any order of completions, stalls, and lost power.

use crate::harness::Core;
use crate::model::{Model, act};
use backstore::Store;
use backstore_api::{Answer, Geometry, Request, StoreError, Submitted};
use memory::{Arena, ArenaConfig};
use proptest::prelude::*;
use reactor::{
    Errno,
    twin::{Conduct, Twin, TwinFile, TwinSettings, World},
};
use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

const BYTES: u64 = crate::model::BYTES.next_multiple_of(4096);
const SECTOR: u64 = 512;

fn twin(world: &World, slots: u32) -> Twin {
    let arena = Arena::new(ArenaConfig { small: 32, medium: 32, large: 16 }).unwrap();
    Twin::new(world, &arena, TwinSettings { slots, files: 8, receive_buffers: 0 })
}

fn store(world: &World, file: &TwinFile, alignment: u32, depth: u32) -> Arc<Store> {
    file.require_alignment(alignment);
    let granule = 4096;
    let geometry =
        Geometry { alignment, discard_granularity: granule, discard_zeroes: true, ..Geometry::new(file.bytes()) };
    Store::adopt(world.open(file).unwrap(), geometry, depth, &[]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_completions_keeps_what_a_vector_keeps(
        seed: u64,
        alignment in prop_oneof![Just(1u32), Just(512), Just(4096)],
        slots in 2..40u32,
        acts in prop::collection::vec(act(), 1..40),
    ) {
        let world = World::new(seed);
        let file = world.file(BYTES);
        let store = store(&world, &file, alignment, 16);
        let mut model = Model::new(Core::new(twin(&world, slots), &store));
        for act in &acts {
            model.act(act);
        }
        model.compare();
    }
}

/// What a sector may hold after a power cut: any value from the last one that is promised on.
#[derive(Clone, Default)]
struct History {
    values: Vec<u32>,
    /// Values that were acknowledged, and promised to be there.
    acknowledged: usize,
    promised: usize,
}

enum Running {
    Change {
        sectors: Range<usize>,
        durable: bool,
    },
    /// What was acknowledged of each sector when it started.
    Flush(Vec<usize>),
}

/// A small random source of the test's own, so that the world's isn't disturbed.
struct Dice(u64);
impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

const SECTORS: usize = 64;

/// Random writes, zeroes and flushes; then the power fails. Err: what was promised and is not there.
fn power_cut(seed: u64, alignment: u32, tweak: impl Fn(&Store)) -> Result<(), String> {
    let world = World::new(seed);
    let file = world.file(SECTORS as u64 * SECTOR);
    let first = store(&world, &file, alignment, 8);
    tweak(&first);
    let mut core = Core::new(twin(&world, 64), &first);
    let mut dice = Dice(seed);
    let mut histories = vec![History { values: vec![0], ..History::default() }; SECTORS];
    let mut running: HashMap<u64, Running> = HashMap::new();
    let rounds = 10 + dice.below(60);
    for round in 0..rounds {
        let request = next_request(&core, &mut dice, round as u32 + 1);
        let started = match request.span() {
            None => Running::Flush(histories.iter().map(|history| history.acknowledged).collect()),
            Some(span) => {
                // Whole blocks of 4096 bytes are claimed, as the server's fence does.
                let sectors = (span.start / SECTOR) as usize..(span.end / SECTOR) as usize;
                let block = |sectors: &Range<usize>| sectors.start / 8..sectors.end.div_ceil(8);
                let claim = block(&sectors);
                let meets = |running: &Running| match running {
                    Running::Change { sectors, .. } => {
                        block(sectors).start < claim.end && claim.start < block(sectors).end
                    }
                    Running::Flush(_) => false,
                };
                if running.values().any(meets) {
                    continue;
                }
                let value = if matches!(request, Request::Zero { .. }) { 0 } else { round as u32 + 1 };
                histories[sectors.clone()].iter_mut().for_each(|history| history.values.push(value));
                let durable = matches!(
                    request,
                    Request::Write { durable: true, .. }
                        | Request::Zero { durable: true, .. }
                        | Request::Fill { durable: true, .. }
                );
                Running::Change { sectors, durable }
            }
        };
        let (tag, submitted) = core.offer(request);
        match submitted {
            Submitted::Pending => {
                running.insert(tag, started);
            }
            Submitted::Done(completion) => {
                assert!(completion.result.is_ok());
                promise(&mut histories, started);
            }
            Submitted::Full(_) => {
                if let Running::Change { sectors, .. } = started {
                    histories[sectors].iter_mut().for_each(|history| history.values.truncate(history.values.len() - 1));
                }
            }
        }
        for _ in 0..dice.below(3) {
            for completion in core.turn() {
                assert!(completion.result.is_ok(), "{completion:?}");
                let started = running.remove(&completion.tag).expect("a tag in flight");
                promise(&mut histories, started);
            }
        }
    }
    world.power_cut();
    drop(core);
    let second = store(&world, &file, alignment, 8);
    let mut core = Core::new(twin(&world, 64), &second);
    let found = core.read(0, (SECTORS as u64 * SECTOR) as u32).unwrap();
    for (sector, bytes) in found.chunks(SECTOR as usize).enumerate() {
        let History { values, promised, .. } = &histories[sector];
        let value = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        assert!(bytes.chunks(4).all(|word| word == &bytes[..4]), "a sector is written as a whole");
        if !values[*promised..].contains(&value) {
            return Err(format!("seed {seed}: sector {sector} holds {value}, promised was {}", values[*promised]));
        }
    }
    Ok(())
}

fn next_request(core: &Core<Twin>, dice: &mut Dice, value: u32) -> Request {
    let at = dice.below(SECTORS as u64);
    let sectors = (1 + dice.below(12)).min(SECTORS as u64 - at);
    let (offset, length, durable) = (at * SECTOR, sectors * SECTOR, dice.below(2) == 0);
    match dice.below(8) {
        0 => Request::Flush,
        1 => Request::Zero { offset, length, unmap: dice.below(2) == 0, durable },
        2 => {
            let mut buffer = core.buffer(512);
            buffer[..512].copy_from_slice(&value.to_le_bytes().repeat(128));
            Request::Fill { offset, length, buffer, pattern: 512, durable, tuple: None }
        }
        _ => core.write_request(offset, &value.to_le_bytes().repeat(length as usize / 4), durable),
    }
}

/// A request was acknowledged.
fn promise(histories: &mut [History], started: Running) {
    match started {
        Running::Change { sectors, durable } => {
            for history in &mut histories[sectors] {
                history.acknowledged = history.values.len() - 1;
                if durable {
                    history.promised = history.acknowledged;
                }
            }
        }
        Running::Flush(acknowledged) => {
            for (history, acknowledged) in histories.iter_mut().zip(acknowledged) {
                history.promised = history.promised.max(acknowledged);
            }
        }
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_promised() {
    for seed in 0..300 {
        let alignment = [1, 512, 4096][seed as usize % 3];
        if let Err(lost) = power_cut(seed, alignment, |_| {}) {
            panic!("alignment {alignment}, {lost}");
        }
    }
}

#[cfg(feature = "broken-durability")]
#[test]
fn a_power_cut_finds_stores_that_lie_about_durability() {
    use std::sync::atomic::Ordering::Relaxed;
    let lost = |tweak: fn(&Store)| (0..60).filter(|seed| power_cut(*seed, 512, tweak).is_err()).count();
    let fua = lost(|store| store.broken().unwrap().ignore_fua.store(true, Relaxed));
    let flush = lost(|store| store.broken().unwrap().ignore_flush.store(true, Relaxed));
    assert!(fua > 0 && flush > 0, "found {fua} and {flush} of 60");
}

#[test]
fn a_failed_sync_latches_so_that_no_later_one_can_lie() {
    let world = World::new(1);
    let file = world.file(BYTES);
    let store = store(&world, &file, 512, 8);
    let mut core = Core::new(twin(&world, 64), &store);
    core.write(0, &[1; 65536], false).unwrap();
    file.fail_sync(Errno(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(core.simple(Request::Flush), Err(StoreError::Latched));
    assert_eq!(core.simple(Request::Flush), Err(StoreError::Latched));
    assert!(file.stable_contents(0..65536).contains(&0), "the twin has lost some of it, as a kernel would");
    store.clear_latch();
    core.write(0, &[2; 512], false).unwrap();
    core.simple(Request::Flush).unwrap();
    assert_eq!(file.stable_contents(0..512), [2; 512]);
}

#[test]
fn a_bad_sector_and_a_full_disk_are_told_apart() {
    let world = World::new(2);
    let file = world.file(BYTES);
    let store = store(&world, &file, 512, 8);
    let mut core = Core::new(twin(&world, 64), &store);
    file.fail_reads(8192..8704, Errno(rustix::io::Errno::IO.raw_os_error()), Some(1));
    assert_eq!(core.read(8192, 512), Err(StoreError::Medium { offset: 8192 }));
    core.read(8192, 512).unwrap();
    file.limit_space(Some(0));
    assert_eq!(core.write(0, &[1; 512], false), Err(StoreError::NoSpace));
    file.heal();
    core.write(0, &[1; 512], false).unwrap();
}

#[test]
fn a_stalled_full_store_does_not_stop_another_one() {
    let world = World::new(3);
    let (file, healthy) = (world.file(BYTES), world.file(BYTES));
    let stalled = store(&world, &file, 4096, 4);
    let other = store(&world, &healthy, 1, 4);
    let mut core = Core::new(twin(&world, 64), &stalled);
    let mut queue = other.queue(&mut core.reactor, 9 << 24).unwrap();
    file.stall();
    for at in 0..4 {
        let request = core.write_request(at * 4096 + 512, &[7; 512], true);
        assert!(matches!(core.offer(request).1, Submitted::Pending));
    }
    assert!(matches!(core.offer(Request::Flush).1, Submitted::Full(_)));
    let buffer = core.buffer(512);
    let requests =
        [core.write_request(512, &[8; 512], true), Request::Read { offset: 0, buffer, range: 0..512 }, Request::Flush];
    for (tag, request) in requests.into_iter().enumerate() {
        assert!(matches!(queue.submit(&mut core.reactor, tag as u64, request), Submitted::Pending));
    }
    let mut ended = 0;
    for _ in 0..100 {
        let mut out = Vec::new();
        let wait = reactor::Wait::Until(world.now() + std::time::Duration::from_millis(5));
        reactor::Reactor::turn(&mut core.reactor, wait, &mut out).unwrap();
        for completion in out {
            assert_eq!(completion.token >> 24, 9, "the other one is stalled");
            ended += usize::from(queue.complete(&mut core.reactor, completion).is_some_and(|done| done.result.is_ok()));
        }
    }
    assert_eq!(ended, 3);
    file.release();
    let late = core.drain();
    assert!(late.len() == 4 && late.iter().all(|completion| completion.result == Ok(Answer::Done)));
    assert_eq!(file.stable_contents(512..1024), [7; 512]);
}

/// All operations take the same time.
fn always(time: Duration) -> Conduct {
    Conduct { delay: time..time + Duration::from_nanos(1), ..Conduct::default() }
}

/// Offers a read of 4 KiB, which runs; its tag.
fn read(core: &mut Core<Twin>, offset: u64) -> u64 {
    let buffer = core.buffer(4096);
    let (tag, submitted) = core.offer(Request::Read { offset, buffer, range: 0..4096 });
    assert!(matches!(submitted, Submitted::Pending));
    tag
}

/// Rounds of 32 reads, of which each takes `time`: how many are told in each turn, and how long after the first of its round.
fn rounds_of_reads(alignment: u32, time: Duration, rounds: usize) -> Vec<Vec<(usize, Duration)>> {
    let world = World::new(7);
    world.set_conduct(always(time));
    let file = world.file(BYTES);
    let store = store(&world, &file, alignment, 64);
    let mut core = Core::new(twin(&world, 64), &store);
    let round = |_| {
        let asked: Vec<_> = (0..32).map(|n| read(&mut core, n % 2 * 4096)).collect();
        let (mut ended, mut turns, mut first) = (Vec::new(), Vec::new(), None);
        while core.queue.in_flight() > 0 {
            let told = core.turn();
            if !told.is_empty() {
                turns.push((told.len(), world.now() - *first.get_or_insert(world.now())));
            }
            ended.extend(told.iter().map(|completion| completion.tag));
        }
        ended.sort_unstable();
        assert_eq!(ended, asked);
        turns
    };
    (0..rounds).map(round).collect()
}

fn counts(turns: &[(usize, Duration)]) -> Vec<usize> {
    turns.iter().map(|(count, _)| *count).collect()
}

#[test]
fn what_a_disk_ends_all_at_once_is_told_in_parts() {
    let (long, short) = (Duration::from_micros(500), Duration::from_micros(50));
    // A buffered file is no disk, and nobody waits for a fast one.
    for (alignment, time, told) in [(4096, long, vec![8; 4]), (1, long, vec![32]), (4096, short, vec![32])] {
        for turns in rounds_of_reads(alignment, time, 3) {
            assert_eq!(counts(&turns), told, "alignment {alignment}, {time:?}");
            assert!(turns.iter().all(|(_, late)| *late < short), "{turns:?}");
        }
    }
}

#[test]
fn such_a_disk_has_more_to_do_while_that_is_told() {
    let time = Duration::from_micros(500);
    let mut rounds = rounds_of_reads(4096, time, 18);
    let last = rounds.pop().unwrap();
    assert!(rounds.iter().flatten().all(|(_, late)| *late < time), "{rounds:?}");
    // It is known now: a quarter goes to the disk when the others have ended.
    let (at_once, later): (Vec<_>, Vec<_>) = last.into_iter().partition(|(_, late)| *late < time);
    assert_eq!((counts(&at_once), counts(&later)), (vec![8; 3], vec![8]));
    // Neither of these is one.
    for (alignment, time) in [(1, time), (4096, Duration::from_micros(50))] {
        let rounds = rounds_of_reads(alignment, time, 18);
        assert!(rounds.iter().all(|turns| counts(turns) == [32]), "{rounds:?}");
    }
}

/// Six reads of 500 us beside 26 requests that take 2 s, at a queue that keeps some back.
fn reads_beside(slow: impl Fn(&Core<Twin>, u64) -> Request) {
    let world = World::new(7);
    world.set_conduct(always(Duration::from_micros(500)));
    let file = world.file(BYTES);
    let store = store(&world, &file, 4096, 64);
    let mut core = Core::new(twin(&world, 128), &store);
    for _ in 0..17 {
        (0..32).for_each(|_| _ = read(&mut core, 0));
        core.drain();
    }
    world.set_conduct(always(Duration::from_secs(2)));
    for n in 0..26 {
        let request = slow(&core, n);
        assert!(matches!(core.offer(request).1, Submitted::Pending));
    }
    core.turn();
    world.set_conduct(always(Duration::from_micros(500)));
    let began = world.now();
    let reads: Vec<_> = (0..6).map(|_| read(&mut core, 0)).collect();
    let mut late = Vec::new();
    while core.queue.in_flight() > 0 {
        let told = core.turn();
        late.extend(told.iter().filter(|told| reads.contains(&told.tag)).map(|_| world.now() - began));
    }
    assert_eq!(late.len(), 6);
    assert!(late.iter().all(|late| *late < Duration::from_millis(12)), "{late:?}");
}

#[test]
fn reads_do_not_wait_for_what_is_slow() {
    reads_beside(|_, _| Request::Flush);
    reads_beside(|_, n| Request::Discard { offset: n % 8 * 4096, length: 4096 });
    reads_beside(|core, n| core.write_request(n % 8 * 4096 + 512, &[1; 512], false));
}
