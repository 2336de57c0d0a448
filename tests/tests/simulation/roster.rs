//! Units that come, go and change their size while several sessions on several cores use them: every command has the right
//! end, and what was acknowledged is there.

use crate::{
    client::{CHECK_CONDITION, End, GOOD, Said, TASK_SET_FULL},
    dice::{Dice, mix, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use backstore::Store;
use backstore_api::Geometry;
use initiator::{Command, Handle, cdb, lun};
use memory::ArenaConfig;
use reactor::twin::TwinFile;
use scsi::{Identity, LogicalUnit, Profile, TargetPort};
use server::mail::ToCore;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

const SECTOR: usize = 512;
/// Size at first; each file has room for twice as much.
const BYTES: u64 = 2 << 20;
const ILLEGAL_REQUEST: u8 = 5;
const NO_LUN: u16 = 0x2500;
const OUT_OF_RANGE: u16 = 0x2100;
const POWER_ON: u16 = 0x2900;
const CAPACITY_CHANGED: u16 = 0x2A09;
const LUNS_CHANGED: u16 = 0x3F0E;

struct Disk {
    file: TwinFile,
    store: Arc<Store>,
    unit: Arc<LogicalUnit>,
}

/// A command under way.
#[derive(Debug)]
struct Asked {
    lun: u16,
    disk: usize,
    sectors: Range<u64>,
    /// Number of its stamp, if it writes.
    stamp: Option<u64>,
    /// The smallest and the largest size of its unit since it was sent, sectors.
    sizes: Range<u64>,
    /// Its LUN was taken away meanwhile.
    removed: bool,
}

struct Game {
    house: House,
    dice: Dice,
    disks: Vec<Disk>,
    /// LUN to disk.
    shown: BTreeMap<u16, usize>,
    asked: HashMap<(usize, Handle), Asked>,
    /// Stamp of each sector, where it is known.
    written: HashMap<(usize, u64), u64>,
    stamps: u64,
    /// Clients that were told that the LUNs have changed, and that a size has.
    heard: HashSet<(usize, u16)>,
    /// Commands that ended well, out of range, at no LUN.
    ends: [usize; 3],
}

fn stamp(number: u64, sectors: u64) -> Vec<u8> {
    mix(number).to_le_bytes().repeat(SECTOR / 8 * sectors as usize)
}

impl Game {
    fn new(seed: u64) -> Game {
        let mut dice = Dice::new(seed);
        let mut blueprint = Blueprint::new(vec![Volume::new(BYTES), Volume::new(BYTES)]);
        blueprint.cores = dice.pick(&[1, 2, 3]);
        blueprint.arena = ArenaConfig { small: 64, medium: 64, large: 24 };
        blueprint.conduct = random_conduct(&mut dice);
        let mut house = House::new(seed, &blueprint);
        for client in 0..4 {
            house.connect(client % blueprint.cores, random_parameters(&mut dice));
        }
        house.clear_attentions();
        let mut disks = Vec::new();
        for (lun, unit) in &house.port.luns {
            let at = usize::from(*lun);
            disks.push(Disk { file: house.files[at].clone(), store: house.stores[at].clone(), unit: unit.clone() });
        }
        Game {
            house,
            dice,
            disks,
            shown: BTreeMap::from([(0, 0), (1, 1)]),
            asked: HashMap::new(),
            written: HashMap::new(),
            stamps: 0,
            heard: HashSet::new(),
            ends: [0; 3],
        }
    }

    /// Opens a disk that is not served yet.
    fn open(&mut self) -> usize {
        let number = self.disks.len();
        let file = self.house.world.file(2 * BYTES);
        let geometry = Geometry::new(BYTES);
        let descriptor = self.house.world.open(&file).expect("a descriptor");
        let identity = Identity::from_name(&format!("iqn.2026-01.io.ringlun:new{number}"));
        let unit = LogicalUnit::new(Profile::new(identity, 512), geometry.clone());
        let store = Store::adopt(descriptor, geometry, 8, &[]).expect("a legal alignment");
        self.disks.push(Disk { file, store, unit });
        number
    }

    fn tell(&self, message: impl Fn() -> ToCore) {
        for core in 0..self.house.cores.len() {
            self.house.post.send(core as u16, message());
        }
    }

    /// Gives all sessions the LUNs of `shown`.
    fn remap(&mut self) {
        let luns = self.shown.iter().map(|(lun, disk)| (*lun, self.disks[*disk].unit.clone())).collect();
        let old = &self.house.port;
        let (target_name, ports, copies) = (old.target_name.clone(), old.ports.clone(), old.copies.clone());
        let port = TargetPort { target_name, ports, luns, copies, ..*self.house.port };
        self.house.port = Arc::new(port);
        self.tell(|| ToCore::Remap(self.house.port.clone()));
        for asked in self.asked.values_mut() {
            asked.removed |= self.shown.get(&asked.lun) != Some(&asked.disk);
        }
    }

    fn resize(&mut self, disk: usize, bytes: u64) {
        let Disk { store, unit, .. } = &self.disks[disk];
        if bytes > store.bytes() {
            store.resize(bytes);
            unit.resize(bytes);
        } else {
            unit.resize(bytes);
            store.resize(bytes);
        }
        let sectors = bytes / SECTOR as u64;
        for asked in self.asked.values_mut().filter(|asked| asked.disk == disk) {
            asked.sizes = asked.sizes.start.min(sectors)..asked.sizes.end.max(sectors);
        }
    }

    /// Sends a random command to a LUN that is shown.
    fn ask(&mut self) {
        let client = self.dice.below(self.house.clients.len() as u64) as usize;
        let at = self.dice.below(self.shown.len() as u64) as usize;
        let (lun_number, disk) = self.shown.iter().nth(at).map(|(lun, disk)| (*lun, *disk)).expect("one of them");
        if !self.house.clients[client].is_open() {
            return;
        }
        // Bursts may be of one sector each: more takes a session minutes.
        let count = self.dice.pick(&[1, 8, 64, 600]);
        let start = self.dice.below(2 * BYTES / SECTOR as u64 - count);
        let sectors = start..start + count;
        let overlaps = |asked: &Asked| {
            asked.disk == disk && asked.sectors.start < sectors.end && sectors.start < asked.sectors.end
        };
        let bytes = count as u32 * SECTOR as u32;
        let mut data = Vec::new();
        let mut number = None;
        let command = if self.dice.once_in(2) || self.asked.values().any(overlaps) {
            Command::read(cdb::read_16(start, count as u32), bytes)
        } else {
            self.stamps += 1;
            number = Some(self.stamps);
            data = stamp(self.stamps, count);
            Command::write(cdb::write_16(start, count as u32), bytes)
        };
        let task = self.house.clients[client].submit(&command.to_lun(lun(lun_number)), data);
        let size = self.disks[disk].unit.blocks();
        let sizes = size..size;
        let asked = Asked { lun: lun_number, disk, sectors, stamp: number, sizes, removed: false };
        self.asked.insert((client, task), asked);
    }

    fn ended(&mut self, client: usize, end: &End) {
        let asked = self.asked.remove(&(client, end.task)).expect("a command that was sent");
        match (end.status, end.sense) {
            (GOOD, _) => {
                assert!(asked.sectors.end <= asked.sizes.end, "{:?} is outside of {:?}", asked.sectors, asked.sizes);
                self.ends[0] += 1;
                if let Some(number) = asked.stamp {
                    self.written.extend(asked.sectors.map(|sector| ((asked.disk, sector), number)));
                }
            }
            (CHECK_CONDITION, (ILLEGAL_REQUEST, OUT_OF_RANGE)) => {
                assert!(asked.sectors.end > asked.sizes.start, "{:?} is inside of {:?}", asked.sectors, asked.sizes);
                self.ends[1] += 1;
                // A part of it may have been written.
                if asked.stamp.is_some() {
                    for sector in asked.sectors {
                        self.written.remove(&(asked.disk, sector));
                    }
                }
            }
            (CHECK_CONDITION, (ILLEGAL_REQUEST, NO_LUN)) => {
                assert!(asked.removed, "LUN {} is there", asked.lun);
                self.ends[2] += 1;
            }
            (CHECK_CONDITION, (6, code @ (POWER_ON | CAPACITY_CHANGED | LUNS_CHANGED))) => {
                self.heard.insert((client, code));
            }
            (TASK_SET_FULL, _) => {}
            _ => panic!("{end:?}"),
        }
    }

    fn step(&mut self) {
        for (client, said) in self.house.step() {
            let Said::Ended(end) = said else { panic!("{said:?}") };
            self.ended(client, &end);
        }
        assert!(self.house.clients.iter().all(|client| client.closed.is_none()), "no session is cut");
    }

    /// Asks and steps until something is so, and `least` commands have been sent.
    fn play(&mut self, what: &str, least: usize, done: impl Fn(&Game) -> bool) {
        let mut patience = Patience::times(&self.house, 10);
        let mut sent = 0;
        while sent < least || !done(self) {
            assert!(patience.lasts(&self.house), "{what}: nothing comes of it: {:?}", self.asked);
            if self.asked.len() < 24 {
                self.ask();
                sent += 1;
            }
            self.step();
        }
    }

    /// Waits for all answers.
    fn rest(&mut self) {
        let mut patience = Patience::times(&self.house, 10);
        while !self.asked.is_empty() {
            assert!(patience.lasts(&self.house), "commands without an end: {:?}", self.asked);
            self.step();
        }
    }

    /// A disk comes to a position, and is shown as a LUN.
    fn add(&mut self, slot: u16, lun: u16) -> usize {
        let disk = self.open();
        let (store, unit) = (self.disks[disk].store.clone(), self.disks[disk].unit.clone());
        self.house.added.clear();
        self.tell(|| ToCore::Add { slot, store: store.clone(), unit: unit.clone(), keeper: None });
        self.play("a unit comes", 0, |game| game.house.added.len() == game.house.cores.len());
        assert!(self.house.added.iter().all(|(_, of, result)| *of == slot && result.is_ok()), "{:?}", self.house.added);
        self.shown.insert(lun, disk);
        self.remap();
        disk
    }

    /// Everything that is known to be written is in the file, but for what newer writes may be changing.
    fn check(&self, disk: usize) {
        for (&(_, sector), &number) in self.written.iter().filter(|((of, _), _)| *of == disk) {
            let newer = |asked: &Asked| asked.disk == disk && asked.stamp.is_some() && asked.sectors.contains(&sector);
            if self.asked.values().any(newer) {
                continue;
            }
            let at = sector * SECTOR as u64;
            let is = self.disks[disk].file.contents(at..at + SECTOR as u64);
            assert!(is == stamp(number, 1), "sector {sector} of disk {disk} is not what was acknowledged");
        }
    }
}

fn come_and_go(seed: u64) -> [usize; 3] {
    let mut game = Game::new(seed);
    game.play("at first", 20, |_| true);
    let third = game.add(2, 7);
    game.house.stores.push(game.disks[third].store.clone());
    game.play("with a third LUN", 30, |game| game.asked.values().any(|asked| asked.lun == 7));

    game.resize(third, 2 * BYTES);
    game.play("larger", 20, |_| true);
    game.resize(third, BYTES / 2);
    game.play("smaller", 20, |_| true);

    // A LUN goes amid commands.
    game.shown.remove(&1);
    game.remap();
    game.tell(|| ToCore::Remove { slot: 1 });
    game.play("a unit goes", 10, |game| game.house.removed.len() == game.house.cores.len());
    game.house.stores.remove(1);
    assert_eq!(Arc::strong_count(&game.disks[1].store), 1, "nobody holds the store any more");
    game.check(1);

    // Its place is free for another. What was sent to the LUN before is answered first: it would find the new one.
    game.rest();
    let fourth = game.add(1, 1);
    game.house.stores.push(game.disks[fourth].store.clone());
    game.play("with another unit at the same LUN", 30, |game| game.asked.values().any(|asked| asked.lun == 1));
    game.rest();
    for client in 0..game.house.clients.len() {
        for code in [LUNS_CHANGED, CAPACITY_CHANGED] {
            // Whoever sent too little to be told is asked now.
            for lun_number in [0, 7, 7, 7] {
                let ready = Command::none(cdb::test_unit_ready()).to_lun(lun(lun_number));
                let task = game.house.clients[client].submit(&ready, Vec::new());
                let asked = Asked { lun: lun_number, disk: 0, sectors: 0..0, stamp: None, sizes: 0..0, removed: false };
                game.asked.insert((client, task), asked);
                game.rest();
            }
            assert!(game.heard.contains(&(client, code)), "client {client} has not heard {code:04x}h");
        }
    }
    for disk in 0..game.disks.len() {
        game.check(disk);
    }
    let ends = game.ends;
    game.house.close();
    ends
}

#[test]
fn units_come_go_and_change_their_size_under_load() {
    let mut all = [0; 3];
    let ran = seeds("units_come_go_and_change_their_size_under_load", 60, |seed| {
        for (sum, count) in all.iter_mut().zip(come_and_go(seed)) {
            *sum += count;
        }
    });
    if ran {
        assert!(all.iter().all(|count| *count > 20), "not all ends were seen: {all:?}");
    }
}

#[test]
fn a_unit_without_room_for_its_buffers_is_refused_and_nothing_is_left_of_it() {
    let mut game = Game::new(1);
    let disk = game.open();
    let (store, unit) = (game.disks[disk].store.clone(), game.disks[disk].unit.clone());
    // Somebody holds every buffer.
    let held: Vec<_> = game
        .house
        .cores
        .iter_mut()
        .map(|core| {
            let pool = core.reactor();
            let pool = reactor::Reactor::pool(pool);
            std::iter::from_fn(|| pool.take(memory::Class::Medium)).collect::<Vec<_>>()
        })
        .collect();
    game.tell(|| ToCore::Add { slot: 2, store: store.clone(), unit: unit.clone(), keeper: None });
    let mut patience = Patience::new(&game.house);
    while game.house.added.len() < game.house.cores.len() {
        assert!(patience.lasts(&game.house), "no answer");
        game.step();
    }
    assert!(game.house.added.iter().all(|(_, _, result)| result.is_err()), "{:?}", game.house.added);
    drop(held);
    game.tell(|| ToCore::Remove { slot: 2 });
    game.play("it goes", 5, |game| game.house.removed.len() == game.house.cores.len());
    drop(store);
    assert_eq!(Arc::strong_count(&game.disks[disk].store), 1);
    game.rest();
    game.house.close();
}
