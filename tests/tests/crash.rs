//! The program is killed in the midst of commands that change more than a range of blocks: afterwards everything is as
//! the standard allows, and nothing acknowledged is lost.

use initiator::{Command, LoginOptions, cdb};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use ringlun_tests::{
    Client, Done, End, Target,
    client::INITIATOR,
    reservations::{Order, Reservations, Verdict},
    stamps::{self, Found, stamp},
    wait,
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Kills of each test.
const KILLS: u64 = 25;

/// Kills the program a random while after `progress` has begun to count.
fn kill_soon(target: &mut Target, dice: &mut SmallRng, longest_us: u64, progress: &AtomicU64) {
    wait::until(wait::SOON, "the first of it", || (progress.load(Ordering::Relaxed) > 0).then_some(()));
    std::thread::sleep(Duration::from_micros(dice.random_range(0..longest_us)));
    target.kill();
}

/// Blocks that are only changed together, from one version to the next.
struct Counter {
    lba: u64,
    blocks: u32,
    /// The last version that was acknowledged, and the last that was sent.
    acknowledged: AtomicU64,
    sent: AtomicU64,
}

fn stamped(lba: u64, blocks: u32, version: u64, block_size: usize) -> Vec<u8> {
    let mut data = vec![0; blocks as usize * block_size];
    for (lba, block) in (lba..).zip(data.chunks_mut(block_size)) {
        stamp(lba, version, block);
    }
    data
}

const SWAPPED: [(&str, bool, u32); 3] = [("buffered", false, 512), ("wide", false, 4096), ("direct", true, 512)];

impl Counter {
    fn all() -> Vec<Counter> {
        let lengths = [1u32, 8, 1, 5, 16, 1];
        let mut lba = 3;
        let counter = |blocks: &u32| {
            let counter = Counter { lba, blocks: *blocks, acknowledged: AtomicU64::new(0), sent: AtomicU64::new(0) };
            lba += u64::from(*blocks);
            counter
        };
        lengths.iter().map(counter).collect()
    }

    /// What the blocks hold: the versions, which all have to be whole.
    fn versions(&self, client: &mut Client, block_size: u32) -> Vec<u64> {
        let data = client.read(self.lba, self.blocks, block_size);
        let version = |(lba, block): (u64, &[u8])| match stamps::read(block) {
            Found::Stamp { lba: of, version } if of == lba => version,
            other => panic!("block {lba} holds {other:?}"),
        };
        (self.lba..).zip(data.chunks(block_size as usize)).map(version).collect()
    }

    /// All of its blocks get one version; 1 at the beginning.
    fn begin(&self, client: &mut Client, version: u64, block_size: u32) {
        client.write(self.lba, &stamped(self.lba, self.blocks, version, block_size as usize), block_size);
        self.acknowledged.store(version, Ordering::Relaxed);
        self.sent.store(version, Ordering::Relaxed);
    }
}

/// Adds to counters with COMPARE AND WRITE until the connection ends. Others add to the same ones.
fn add(client: &mut Client, counters: &[Counter], block_size: u32, seed: u64, progress: &AtomicU64) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let size = block_size as usize;
    loop {
        let counter = &counters[dice.random_range(0..counters.len())];
        let from = counter.acknowledged.load(Ordering::Relaxed);
        counter.sent.fetch_max(from + 1, Ordering::Relaxed);
        let mut data = stamped(counter.lba, counter.blocks, from, size);
        data.extend(stamped(counter.lba, counter.blocks, from + 1, size));
        let command = Command::write(cdb::compare_and_write(counter.lba, counter.blocks as u8), data.len() as u32);
        match client.try_run(&command, &data) {
            Ok(done) if done.status == 0 => {
                counter.acknowledged.fetch_max(from + 1, Ordering::Relaxed);
                progress.fetch_add(1, Ordering::Relaxed);
            }
            // Somebody else was faster, and it will be seen when that one is answered.
            Ok(done) => assert_eq!(done.sense(), Some((0x0e, 0x1d, 0)), "status {:#x}", done.status),
            Err(End::Closed | End::Reason(_)) => return,
            Err(end) => panic!("{end:?}"),
        }
    }
}

#[test]
fn a_kill_amid_compare_and_write_leaves_the_old_or_the_new_blocks() {
    let mut text = String::new();
    for (name, direct, block_size) in SWAPPED {
        text += &format!(
            "[[volume]]\nname = \"{name}\"\nblock_size = {block_size}\n\
             store = {{ kind = \"file\", path = \"$DIR/{name}.img\", size = \"1MiB\", direct = {direct} }}\n"
        );
    }
    let mut target = Target::start(&text);
    let mut dice = SmallRng::seed_from_u64(4);
    let counters = SWAPPED.map(|_| Counter::all());
    for (counters, (name, _, block_size)) in counters.iter().zip(SWAPPED) {
        let mut client = target.client(name);
        counters.iter().for_each(|counter| counter.begin(&mut client, 1, block_size));
    }
    let mut swapped = 0;
    for round in 0..KILLS {
        let progress = AtomicU64::new(0);
        let mut clients = Vec::new();
        for (counters, (name, _, block_size)) in counters.iter().zip(SWAPPED) {
            for _ in 0..2 {
                clients.push((target.client(name), counters, block_size));
            }
        }
        std::thread::scope(|scope| {
            for (number, (mut client, counters, block_size)) in clients.into_iter().enumerate() {
                let (seed, progress) = (round * 100 + number as u64, &progress);
                scope.spawn(move || add(&mut client, counters, block_size, seed, progress));
            }
            kill_soon(&mut target, &mut dice, 50_000, &progress);
        });
        swapped += progress.load(Ordering::Relaxed);
        target.restart();
        for (counters, (name, _, block_size)) in counters.iter().zip(SWAPPED) {
            let mut client = target.client(name);
            for counter in counters {
                let versions = counter.versions(&mut client, block_size);
                let allowed = counter.acknowledged.load(Ordering::Relaxed)..=counter.sent.load(Ordering::Relaxed);
                assert!(
                    versions.iter().all(|version| allowed.contains(version)),
                    "{name}, kill {round}, block {}: versions {versions:?} of {allowed:?}",
                    counter.lba
                );
                counter.begin(&mut client, *allowed.end(), block_size);
            }
        }
    }
    println!("{swapped} swaps were acknowledged");
    assert!(swapped > KILLS, "hardly anything was swapped");
    target.end();
}

const INITIATORS: usize = 3;

fn name(nexus: usize) -> String {
    format!("{INITIATOR}-{nexus}")
}

/// A session of the same I_T nexus each time.
fn nexus(target: &Target, number: usize) -> Client {
    let options = LoginOptions::normal(name(number), target.name("disk"));
    let mut client = target.log_in(options).unwrap_or_else(|error| panic!("login: {error}"));
    client.settle();
    client
}

/// Runs a command until nothing else has to be said first.
fn run(client: &mut Client, command: &Command<'_>, data: &[u8]) -> Result<Done, End> {
    loop {
        let done = client.try_run(command, data)?;
        if !matches!(done.sense(), Some((0x06, ..))) {
            return Ok(done);
        }
    }
}

/// Reservations, and whether they outlive the program (APTPL of the last registration).
#[derive(Clone, Debug, Default)]
struct Kept {
    reservations: Reservations,
    persistent: bool,
}

impl Kept {
    /// After the loss of power.
    fn after_power_loss(&self) -> Reservations {
        if self.persistent { self.reservations.clone() } else { Reservations::default() }
    }
}

/// Keys by initiator, and the reservation's key and type, as the target shows them.
fn shown(target: &Target) -> (BTreeMap<usize, u64>, Option<(u64, u8)>) {
    let mut client = target.client("disk");
    let mut read = |action: u8| client.fetch(cdb::persistent_reserve_in(action, 4096), 4096).good();
    let full = read(3);
    let mut keys = BTreeMap::new();
    let mut rest = &full[8..];
    while !rest.is_empty() {
        let key = u64::from_be_bytes(rest[..8].try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(rest[20..24].try_into().expect("four bytes")) as usize;
        let transport = String::from_utf8_lossy(&rest[28..24 + length]).into_owned();
        let of = (0..INITIATORS).find(|nexus| transport.starts_with(&format!("{},", name(*nexus))));
        keys.insert(of.unwrap_or_else(|| panic!("a registration of {transport}")), key);
        rest = &rest[24 + length..];
    }
    let reservation = read(1);
    let held = (reservation.len() > 8)
        .then(|| (u64::from_be_bytes(reservation[8..16].try_into().expect("eight bytes")), reservation[21]));
    (keys, held)
}

/// Gives orders until the connection ends. Gives what holds, and what may hold instead.
fn order(clients: &mut [Client], kept: Kept, seed: u64, progress: &AtomicU64) -> (Kept, Kept) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut kept = kept;
    loop {
        let nexus = dice.random_range(0..clients.len());
        let order = kept.reservations.likely_order(nexus, clients.len(), &mut |below| dice.random_range(0..below));
        let mut after = kept.clone();
        let (verdict, _) = after.reservations.order(nexus, order);
        let mut parameters = order.parameters();
        if let Order::Register { new, .. } = order {
            let persistent = !dice.random_ratio(1, 8);
            parameters[20] = u8::from(persistent);
            // Who isn't registered and brings no key does nothing (SPC-4 table 69), not even to APTPL.
            let nothing = new == 0 && kept.reservations.key_of(nexus).is_none();
            if verdict == Verdict::Good && !nothing {
                after.persistent = persistent;
            }
        }
        let command = Command::write(order.cdb(), parameters.len() as u32);
        let done = match run(&mut clients[nexus], &command, &parameters) {
            Ok(done) => done,
            Err(End::Closed | End::Reason(_)) => return (kept, after),
            Err(end) => panic!("{end:?}"),
        };
        let expected = match verdict {
            Verdict::Good => 0,
            Verdict::Conflict => 0x18,
            Verdict::Illegal(_) => 0x02,
        };
        assert_eq!(done.status, expected, "{order:x?} of {nexus} with {kept:x?}: {:x?}", done.sense());
        kept = after;
        progress.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_kill_amid_persistent_reserve_out_leaves_the_state_before_or_after() {
    let mut target = Target::start("[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"1MiB\" }\n");
    let mut dice = SmallRng::seed_from_u64(5);
    let mut kept = Kept::default();
    let (mut orders, mut held) = (0, 0);
    for round in 0..KILLS {
        let mut clients: Vec<Client> = (0..INITIATORS).map(|number| nexus(&target, number)).collect();
        let progress = AtomicU64::new(0);
        let (before, after) = std::thread::scope(|scope| {
            let ordering = scope.spawn(|| order(&mut clients, kept.clone(), round, &progress));
            kill_soon(&mut target, &mut dice, 60_000, &progress);
            ordering.join().expect("the orders")
        });
        orders += progress.load(Ordering::Relaxed);
        target.restart();
        let is = shown(&target);
        let find = |state: &Kept| {
            let left = state.after_power_loss();
            let keys = (0..INITIATORS).filter_map(|nexus| Some((nexus, left.key_of(nexus)?))).collect();
            ((keys, left.shown()) == is).then_some(Kept { reservations: left, persistent: state.persistent })
        };
        let found = [&before, &after].into_iter().find_map(find);
        kept = found.unwrap_or_else(|| panic!("kill {round}: {is:x?} after {before:x?}, or {after:x?}"));
        held += u64::from(is.1.is_some());
    }
    println!("{orders} orders were answered, {held} times a reservation was kept");
    assert!(orders > KILLS, "hardly anything was tried");
    target.end();
}
