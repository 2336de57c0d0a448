//! The program is killed in the midst of commands that change more than a range of blocks, at least 120 times in
//! all: afterwards everything is as the standard allows, and nothing acknowledged is lost.

mod compare_and_write;
mod copy;
mod reservations;
mod sanitize;

use rand::{RngExt, rngs::SmallRng};
use ringlun_tests::{Target, stamps::stamp, wait};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Kills of each test, at least.
const KILLS: u64 = 30;

/// Kills the program a random while after `progress` has begun to count.
fn kill_soon(target: &mut Target, dice: &mut SmallRng, longest_us: u64, progress: &AtomicU64) {
    wait::until(wait::SOON, "the first of it", || (progress.load(Ordering::Relaxed) > 0).then_some(()));
    kill_within(target, dice, longest_us);
}

/// Kills the program a random while from now.
fn kill_within(target: &mut Target, dice: &mut SmallRng, longest_us: u64) {
    std::thread::sleep(Duration::from_micros(dice.random_range(0..longest_us)));
    target.kill();
}

/// Blocks with their stamps.
fn stamped(lba: u64, blocks: u32, version: u64, block_size: usize) -> Vec<u8> {
    let mut data = vec![0; blocks as usize * block_size];
    for (lba, block) in (lba..).zip(data.chunks_mut(block_size)) {
        stamp(lba, version, block);
    }
    data
}
