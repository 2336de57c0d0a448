//! From the command line to threads with sessions.

use crate::login::{Geometry, Opened, Visitor};
use crate::measure::Counters;
use crate::options::Options;
use crate::session::{Common, Session};
use crate::size::ByteRange;
use crate::verify::Units;
use crate::worker::Manner;
use crate::workload::{Draw, Mix, Walk, share};
use std::{collections::BTreeMap, time::Instant};

/// Where bytes are received, per thread: in the second-level cache of most processors.
const SCRATCH: usize = 256 << 10;
/// Most bytes that are dropped at once.
const VOID: usize = 1 << 20;

/// What a thread begins with.
pub struct Thread {
    /// How it works.
    pub manner: Manner,
    /// Its sessions.
    pub sessions: Vec<Session>,
    /// What they share.
    pub common: Common,
}

/// Opens all sessions and deals them out to the threads; with `--verify` also gives what is known of the units.
pub fn threads(options: &Options, seed: u64) -> Result<(Vec<Thread>, Option<Units>), String> {
    let opened = Visitor::new(options)?.open_all()?;
    let parts = parts(options, &opened)?;
    let units = match options.verify {
        true => {
            let parts: Vec<_> = parts.iter().map(|part| (part.range, part.block_length)).collect();
            Some(Units::new(&options.urls, &parts, seed, options.verify_file.as_deref(), options.verify_fill)?)
        }
        false => None,
    };
    let threads = options.threads.get().min(options.sessions.get()) as usize;
    let epoch = Instant::now();
    let mut all = Vec::with_capacity(threads);
    for number in 0..threads {
        all.push(thread(options, units.as_ref(), seed, number, threads, epoch)?);
    }
    for (number, session) in opened.into_iter().enumerate() {
        let thread = &mut all[number % threads];
        let (url, unit) = (session.url, units.as_ref().map_or(0, |units| units.of_url(session.url)));
        let (range, index, of) = match &thread.common.checker {
            // Threads keep to their own part: then no two operations of different threads overlap.
            Some(checker) => {
                (checker.range(unit), number / threads, (options.sessions.get() as usize).div_ceil(threads))
            }
            None => (parts[url].range, number, options.sessions.get() as usize),
        };
        // Too small for a share each: all walk through all of it.
        let share = share(range, index as u64, of as u64, longest(options)).unwrap_or(range);
        let walk = Walk { range, share, cursor: share.offset };
        let name = format!("session {} with {}", number + 1, options.urls[url]);
        thread.sessions.push(Session::new(session, name, unit, walk, options.depth.get() as usize)?);
    }
    Ok((all, units))
}

fn thread(
    options: &Options,
    units: Option<&Units>,
    seed: u64,
    number: usize,
    threads: usize,
    epoch: Instant,
) -> Result<Thread, String> {
    let (this, of) = (number as u64, threads as u64);
    let manner = Manner {
        number,
        spin: options.spin,
        idle: options.idle,
        pace: options.rate.map(|rate| 1e9 * threads as f64 / f64::from(rate.get())),
        epoch,
        amount: options.amount.map(|amount| part_of_amount(amount, longest(options), this, of)),
    };
    let mix = Mix {
        sizes: options.block_size.iter().map(|size| *size as u32).collect(),
        pattern: options.pattern,
        read_percent: options.read_percent(),
    };
    let sessions = (options.sessions.get() as usize).div_ceil(threads);
    let in_flight = sessions * options.depth.get() as usize;
    let checker = units.map(|units| units.checker(this, of, longest(options), in_flight)).transpose()?;
    let common = Common {
        draw: Draw::new(mix, seed.wrapping_add(this)),
        counters: Counters::default(),
        scratch: vec![0; SCRATCH],
        errors: BTreeMap::new(),
        budget: u64::MAX,
        open: false,
        in_flight: 0,
        checker,
        starved: false,
        longest: longest(options) as u32,
        void: vec![0; VOID],
    };
    Ok(Thread { manner, sessions: Vec::new(), common })
}

fn longest(options: &Options) -> u64 {
    options.block_size.iter().copied().max().unwrap_or(1)
}

/// The amount of thread `this` of `of`: whole operations, and what is left over with the first.
fn part_of_amount(amount: u64, longest: u64, this: u64, of: u64) -> u64 {
    let (operations, rest) = (amount / longest, if this == 0 { amount % longest } else { 0 });
    (operations / of + u64::from(this < operations % of)) * longest + rest
}

/// What of a logical unit is used.
struct Part {
    range: ByteRange,
    block_length: u32,
}

/// For each URL; all its sessions see the same unit.
fn parts(options: &Options, opened: &[Opened]) -> Result<Vec<Part>, String> {
    let mut parts = Vec::with_capacity(options.urls.len());
    for (number, url) in options.urls.iter().enumerate() {
        let Some(first) = opened.iter().find(|session| session.url == number) else {
            return Err(format!("{url}: there are more URLs than sessions: use --sessions {}", options.urls.len()));
        };
        let range = part(options, first.geometry).map_err(|error| format!("{url}: {error}"))?;
        parts.push(Part { range, block_length: first.geometry.block_length });
    }
    Ok(parts)
}

fn part(options: &Options, geometry: Geometry) -> Result<ByteRange, String> {
    let block = u64::from(geometry.block_length);
    let whole = geometry.blocks.checked_mul(block).ok_or("more than 2^64 bytes")?;
    for size in &options.block_size {
        if !size.is_multiple_of(block) || *size > u64::from(u32::MAX) {
            return Err(format!("--block-size {size} is not a number of its blocks of {block} bytes below 4 GiB"));
        }
    }
    let range = options.range.unwrap_or(ByteRange { offset: 0, length: whole });
    let odd = !range.offset.is_multiple_of(block) || !range.length.is_multiple_of(block);
    if odd || range.offset + range.length > whole {
        return Err(format!("--range must begin and end at blocks of {block} bytes, and within its {whole} bytes"));
    }
    if range.length < longest(options) {
        return Err(format!("{} bytes are less than one operation of {}", range.length, longest(options)));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_amount_without_a_rest() {
        for (amount, longest, of) in [(128 * 65536, 65536, 3), (5000, 4096, 2), (100, 4096, 4), (7 * 512, 512, 8)] {
            let parts: Vec<u64> = (0..of).map(|this| part_of_amount(amount, longest, this, of)).collect();
            assert_eq!(parts.iter().sum::<u64>(), amount);
            assert!(parts[1..].iter().all(|part| part % longest == 0), "{parts:?}");
        }
    }
}
