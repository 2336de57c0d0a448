//! Lost power. Initiators write, with and without FUA, and now and then synchronize the cache; at a random moment the
//! power fails. What the disk holds then must not be older than what was promised.
//!
//! A write is promised when it was answered with FUA, or was answered before a SYNCHRONIZE CACHE was sent that was
//! answered. A sector may hold any version but one that was answered before a promised one was sent.

use crate::{
    client::{End, GOOD, Said, TASK_SET_FULL},
    dice::{Dice, mix, seeds},
    house::{Blueprint, House, Volume, random_conduct, random_parameters},
};
use initiator::{Command, Handle, cdb};
use std::{collections::HashMap, ops::Range, sync::atomic::Ordering};

const SECTOR: u64 = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Each sector says whose it is and where it belongs.
    Data,
    /// The same block everywhere.
    Same,
    Zero,
    /// Zeroes, or nothing.
    Unmap,
}

#[derive(Debug)]
struct Write {
    sectors: Range<u64>,
    kind: Kind,
    durable: bool,
    sent: u64,
    answered: Option<u64>,
}

struct Flush {
    sectors: Range<u64>,
    sent: u64,
    answered: Option<u64>,
}

enum Asked {
    Write(usize),
    Flush(usize),
}

/// What was asked and answered, in order.
struct History {
    clock: u64,
    block: u64,
    writes: Vec<Write>,
    flushes: Vec<Flush>,
    asked: HashMap<(usize, Handle), Asked>,
}

/// Fills a sector: `id` is not 0.
fn stamp(id: u64, place: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&place.to_le_bytes());
    let word = mix(id << 32 ^ place).to_le_bytes();
    (2..SECTOR / 8).for_each(|_| out.extend_from_slice(&word));
}

impl History {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn id(write: usize) -> u64 {
        write as u64 + 1
    }

    fn write(&mut self, sectors: Range<u64>, kind: Kind, durable: bool) -> usize {
        let sent = self.tick();
        self.writes.push(Write { sectors, kind, durable, sent, answered: None });
        self.writes.len() - 1
    }

    /// The bytes that a write sends.
    fn data(&self, write: usize) -> Vec<u8> {
        let Write { sectors, kind, .. } = &self.writes[write];
        let mut bytes = Vec::new();
        match kind {
            Kind::Data => sectors.clone().for_each(|sector| stamp(Self::id(write), sector, &mut bytes)),
            Kind::Same => (0..self.block).for_each(|at| stamp(Self::id(write), u64::MAX - at, &mut bytes)),
            Kind::Zero => bytes.resize((self.block * SECTOR) as usize, 0),
            Kind::Unmap => {
                let (lba, blocks) = (sectors.start / self.block, (sectors.end - sectors.start) / self.block);
                bytes = cdb::unmap_parameters(&[(lba, blocks as u32)]);
            }
        }
        bytes
    }

    /// What a sector holds after a write; None: zeroes.
    fn version(&self, write: usize, sector: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.writes[write].kind {
            Kind::Data => stamp(Self::id(write), sector, &mut bytes),
            Kind::Same => stamp(Self::id(write), u64::MAX - sector % self.block, &mut bytes),
            Kind::Zero | Kind::Unmap => return None,
        }
        Some(bytes)
    }

    fn ended(&mut self, client: usize, end: &End) {
        let now = self.tick();
        let Some(asked) = self.asked.remove(&(client, end.task)) else { return };
        match end.status {
            GOOD => match asked {
                Asked::Write(write) => self.writes[write].answered = Some(now),
                Asked::Flush(flush) => self.flushes[flush].answered = Some(now),
            },
            TASK_SET_FULL => {}
            _ => panic!("{end:?}"),
        }
    }

    /// The first sector that holds what it must not.
    fn check(&self, contents: &[u8]) -> Result<(), String> {
        let sectors = contents.len() as u64 / SECTOR;
        let mut touching = vec![Vec::new(); sectors as usize];
        for (number, write) in self.writes.iter().enumerate() {
            write.sectors.clone().for_each(|sector| touching[sector as usize].push(number));
        }
        for (sector, bytes) in contents.chunks(SECTOR as usize).enumerate() {
            let sector = sector as u64;
            let promised = |number: &usize| {
                let write = &self.writes[*number];
                write.kind != Kind::Unmap
                    && write.answered.is_some_and(|answered| {
                        write.durable
                            || self.flushes.iter().any(|flush| {
                                flush.answered.is_some() && flush.sent > answered && flush.sectors.contains(&sector)
                            })
                    })
            };
            let writes = &touching[sector as usize];
            let since = writes.iter().copied().filter(promised).map(|number| self.writes[number].sent).max();
            let allowed =
                |number: &usize| since.is_none_or(|since| self.writes[*number].answered.is_none_or(|a| a > since));
            let is_zero = bytes.iter().all(|byte| *byte == 0);
            let fits = (since.is_none() && is_zero)
                || writes.iter().filter(|number| allowed(number)).any(|number| match self.version(*number, sector) {
                    Some(version) => version == bytes,
                    None => is_zero,
                });
            if !fits {
                let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                let of = id.checked_sub(1).and_then(|number| self.writes.get(number as usize));
                let wanted = since.and_then(|since| self.writes.iter().find(|write| write.sent == since));
                return Err(format!("sector {sector} holds {of:?} (id {id}), but {wanted:?} was promised"));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    Fua,
    Flush,
}

/// One life and its end; Err: the checker saw a loss. Gives how many writes had been promised.
fn life(seed: u64, lie: Lie) -> Result<usize, String> {
    let mut dice = Dice::new(seed);
    let mut volume = Volume::new(dice.pick(&[128 << 10, 1 << 20, 2 << 20]));
    volume.alignment = dice.pick(&[1, 1, 512, 4096]);
    volume.block_size = dice.pick(&[512, 512, 512, 4096]);
    volume.depth = dice.pick(&[2, 8, 32]);
    let mut blueprint = Blueprint::new(vec![volume.clone()]);
    blueprint.conduct = random_conduct(&mut dice);
    let mut house = House::new(seed, &blueprint);
    let broken = house.stores[0].broken().expect("a file store");
    broken.ignore_fua.store(lie == Lie::Fua, Ordering::Relaxed);
    broken.ignore_flush.store(lie == Lie::Flush, Ordering::Relaxed);
    for _ in 0..dice.between(1, 3) {
        house.connect(0, random_parameters(&mut dice));
    }
    house.clear_attentions();

    let block = u64::from(volume.block_size) / SECTOR;
    let mut history = History { clock: 0, block, writes: Vec::new(), flushes: Vec::new(), asked: HashMap::new() };
    // Half of the runs write in one corner, so that writes meet.
    let all = volume.bytes / SECTOR / block;
    let room = if dice.once_in(2) { all } else { all.min(64) };
    let depth = dice.between(1, 8) as usize;
    let steps = dice.between(1, 250);
    for _ in 0..steps {
        let client = dice.below(house.clients.len() as u64) as usize;
        if house.clients[client].is_open() && house.clients[client].connection.in_flight() < depth {
            ask(&mut house, &mut history, &mut dice, client, room);
        }
        for (client, said) in house.step() {
            match said {
                Said::Ended(end) => history.ended(client, &end),
                other => panic!("{other:?}"),
            }
        }
        for client in &house.clients {
            assert_eq!(client.closed, None);
        }
    }
    house.world.power_cut();
    let contents = house.files[0].contents(0..volume.bytes);
    history.check(&contents)?;
    if dice.once_in(16) {
        let House { world, files, .. } = house;
        serves(House::on(world, files, seed, &blueprint), &contents);
    }
    Ok(history.writes.iter().filter(|write| write.answered.is_some()).count())
}

/// A new target on the file that the old one left serves what the file holds.
fn serves(mut house: House, contents: &[u8]) {
    house.connect(0, negotiation::Parameters::default());
    house.clear_attentions();
    let bytes = 64 << 10;
    let blocks = bytes / house.stores[0].geometry().physical_block.min(512);
    let mut read = Vec::new();
    let command = Command::read(cdb::read_10(0, blocks as u16), bytes);
    house.clients[0].submit(&command, Vec::new());
    let each = |_: &mut House, _: usize, said: Said| {
        if let Said::Ended(end) = said {
            read = end.data;
        }
    };
    house.until("READ after the restart", each, House::is_answered);
    let blocks = read.len();
    assert_eq!(read, contents[..blocks]);
    house.close();
}

fn ask(house: &mut House, history: &mut History, dice: &mut Dice, client: usize, room: u64) {
    let block = history.block;
    let block_bytes = (block * SECTOR) as u32;
    let longest = match dice.below(16) {
        0 => 2048 / block,
        1..4 => 128 / block,
        _ => 8,
    };
    let blocks = dice.between(1, longest.clamp(1, room));
    let lba = dice.below(room - blocks + 1);
    let sectors = lba * block..(lba + blocks) * block;
    let lba10 = lba as u32;
    let client_number = client;
    let client = &mut house.clients[client];
    let (asked, handle) = match dice.below(16) {
        0 | 1 => {
            let sent = history.tick();
            let all = dice.once_in(2);
            let end = house.files[0].bytes() / SECTOR;
            let (covered, cdb) = match all {
                true => (0..end, cdb::synchronize_cache_10(0, 0)),
                false => (sectors, cdb::synchronize_cache_16(lba, blocks as u32)),
            };
            history.flushes.push(Flush { sectors: covered, sent, answered: None });
            (Asked::Flush(history.flushes.len() - 1), client.submit(&Command::none(cdb), Vec::new()))
        }
        2 => {
            let write = history.write(sectors, dice.pick(&[Kind::Same, Kind::Zero]), false);
            let unmap = history.writes[write].kind == Kind::Zero && dice.once_in(2);
            let options = cdb::WriteSame { unmap, ..Default::default() };
            let command = Command::write(cdb::write_same_10(lba10, blocks as u16, options), block_bytes);
            (Asked::Write(write), client.submit(&command, history.data(write)))
        }
        3 => {
            let write = history.write(sectors, Kind::Unmap, false);
            (Asked::Write(write), client.submit(&Command::write(cdb::unmap(false, 24), 24), history.data(write)))
        }
        kind => {
            let durable = kind < 8;
            let write = history.write(sectors, Kind::Data, durable);
            let cdb = cdb::write_16(lba, blocks as u32);
            let cdb = if durable { cdb::with_fua(cdb) } else { cdb };
            let command = Command::write(cdb, blocks as u32 * block_bytes);
            (Asked::Write(write), client.submit(&command, history.data(write)))
        }
    };
    history.asked.insert((client_number, handle), asked);
}

#[test]
fn a_thousand_power_cuts_lose_nothing_that_was_promised() {
    let mut answered = 0;
    let all = seeds("a_thousand_power_cuts_lose_nothing_that_was_promised", 1000, |seed| {
        answered += life(seed, Lie::None).unwrap_or_else(|loss| panic!("seed {seed}: {loss}"));
    });
    println!("{answered} writes were answered before the power failed");
    assert!(!all || answered > 5_000, "too few: {answered}");
}

/// Lives of a hundred whose loss the checker sees.
fn caught(lie: Lie) -> usize {
    (0..100).filter(|seed| life(*seed, lie).is_err()).count()
}

#[test]
fn a_store_that_ignores_fua_is_caught() {
    let caught = caught(Lie::Fua);
    println!("{caught} of 100 losses were caught");
    assert!(caught >= 10, "{caught} of 100");
}

#[test]
fn a_store_that_ignores_synchronize_cache_is_caught() {
    let caught = caught(Lie::Flush);
    println!("{caught} of 100 losses were caught");
    assert!(caught >= 5, "{caught} of 100");
}
