//! COMPARE AND WRITE (SBC-3 5.2): each leaves all of its blocks old, or all of them new.

use crate::{KILLS, kill_soon, stamped};
use initiator::{Command, cdb};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use ringlun_tests::{
    Client, End, Target,
    stamps::{self, Found},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks that are only changed together, from one version to the next.
struct Counter {
    lba: u64,
    blocks: u32,
    /// The last version that was acknowledged, and the last that was sent.
    acknowledged: AtomicU64,
    sent: AtomicU64,
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
