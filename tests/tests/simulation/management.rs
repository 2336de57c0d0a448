//! Aborts, resets, logouts, cuts and new logins under random I/O: what a response says is true.
//!
//! Each client writes in a zone of its own. After ABORT TASK, ABORT TASK SET, or a reset that the client itself asked for,
//! none of the writes that this ended may reach the disk any more. Writes of a session that is over may, but never over
//! what its successor writes.

use crate::{
    client::{Client, End, GOOD, Said},
    dice::{Dice, mix, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use initiator::{Command, Handle, cdb, lun};
use protocol::CloseReason;
use server::mail::ToCore;
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};
use wire::{TaskAttribute, TaskManagementFunction as Function, TaskManagementResult as Outcome};

const SECTOR: usize = 512;
/// Sectors of a client's zone on each unit.
const ZONE: u64 = 64;
const UNITS: u16 = 2;
/// Reasons why a write has ended.
const RESPONSE: &str = "its response";
const NO_TASK: &str = "its task was gone";
const NO_SESSION: &str = "the end of its session";

struct Write {
    client: usize,
    unit: u16,
    sectors: Range<u64>,
    sent: u64,
    stamp: Vec<u8>,
}

/// A function under way.
struct Request {
    function: Function,
    unit: u16,
    sent: u64,
    task: Option<Handle>,
}

#[derive(Default)]
struct Record {
    clock: u64,
    writes: HashMap<(usize, Handle), Write>,
    /// Reads and flushes.
    others: HashMap<(usize, Handle), (u16, u64)>,
    requests: HashMap<(usize, Handle), Request>,
    /// What a sector must hold.
    settled: HashMap<(u16, u64), (Vec<u8>, &'static str)>,
    /// Where a write of a session that is over may still land, until somebody else writes there.
    haunted: HashSet<(u16, u64)>,
    /// Moments at which a reset of a unit was answered.
    resets: Vec<(u16, u64)>,
    ids: u64,
    done: [usize; 4],
}

impl Record {
    /// Nothing is without an answer.
    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.writes.is_empty() && self.others.is_empty()
    }
}

/// In an order that is the same in every run of a seed.
fn sorted(mut keys: Vec<(usize, Handle)>) -> Vec<(usize, Handle)> {
    keys.sort_unstable_by_key(|(client, task)| (*client, task.initiator_task_tag()));
    keys
}

fn stamp(id: u64) -> Vec<u8> {
    mix(id).to_le_bytes().repeat(SECTOR / 8)
}

struct Game {
    house: House,
    record: Record,
    dice: Dice,
    /// The client of each zone; a new session takes the zone over.
    owners: Vec<usize>,
}

impl Game {
    fn tick(&mut self) -> u64 {
        self.record.clock += 1;
        self.record.clock
    }

    /// No live command of the zone overlaps.
    fn is_free(&self, client: usize, unit: u16, sectors: &Range<u64>) -> bool {
        self.record.writes.values().all(|write| {
            write.client != client
                || write.unit != unit
                || write.sectors.end <= sectors.start
                || sectors.end <= write.sectors.start
        })
    }

    fn ask(&mut self, zone: usize) {
        let client = self.owners[zone];
        if !self.house.clients[client].is_open() || self.house.clients[client].connection.in_flight() >= 10 {
            return;
        }
        let unit = self.dice.below(u64::from(UNITS)) as u16;
        let blocks = self.dice.between(1, 16);
        let start = zone as u64 * ZONE + self.dice.below(ZONE - blocks + 1);
        let sectors = start..start + blocks;
        let bytes = blocks as u32 * SECTOR as u32;
        let mut command = match self.dice.below(8) {
            0 => Command::read(cdb::read_16(start, blocks as u32), bytes),
            1 => Command::none(cdb::synchronize_cache_10(0, 0)),
            kind => {
                let cdb = cdb::write_16(start, blocks as u32);
                Command::write(if kind == 2 { cdb::with_fua(cdb) } else { cdb }, bytes)
            }
        };
        if self.dice.once_in(6) {
            command.attribute = self.dice.pick(&[TaskAttribute::Ordered, TaskAttribute::HeadOfQueue]);
        }
        let writes = command.write_length > 0;
        if writes && !self.is_free(client, unit, &sectors) {
            return;
        }
        let mut data = Vec::new();
        if writes {
            self.record.ids += 1;
            data = stamp(self.record.ids).repeat(blocks as usize);
            for sector in sectors.clone() {
                self.record.settled.remove(&(unit, sector));
            }
        }
        let sent = self.tick();
        let handle = self.house.clients[client].submit(&command.to_lun(lun(unit)), data);
        if writes {
            self.record
                .writes
                .insert((client, handle), Write { client, unit, sectors, sent, stamp: stamp(self.record.ids) });
        } else {
            self.record.others.insert((client, handle), (unit, sent));
        }
    }

    fn manage(&mut self, zone: usize) {
        let client = self.owners[zone];
        if self.house.clients[client].closed.is_some() || self.record.requests.len() > 3 {
            return;
        }
        let unit = self.dice.below(u64::from(UNITS)) as u16;
        let function = match self.dice.below(12) {
            0 => Function::LogicalUnitReset,
            1 => Function::TargetWarmReset,
            2 | 3 => Function::AbortTaskSet,
            _ => Function::AbortTask,
        };
        let mut task = None;
        let mut of = unit;
        if function == Function::AbortTask {
            let mut tasks: Vec<(Handle, u16)> =
                self.record.writes.iter().filter(|((c, _), _)| *c == client).map(|((_, t), w)| (*t, w.unit)).collect();
            let others = self.record.others.iter().filter(|((c, _), _)| *c == client);
            tasks.extend(others.map(|((_, t), (unit, _))| (*t, *unit)));
            tasks.sort_unstable_by_key(|(task, _)| task.initiator_task_tag());
            if tasks.is_empty() {
                return;
            }
            let (chosen, on) = self.dice.pick(&tasks);
            (task, of) = (Some(chosen), on);
        }
        let sent = self.tick();
        let handle = self.house.clients[client].manage(function, lun(of), task);
        self.record.requests.insert((client, handle), Request { function, unit: of, sent, task });
    }

    /// Writes that can't change the disk any more: what lies there stays, unless something live overlaps.
    fn settle(&mut self, why: &'static str, ended: impl Fn(usize, Handle, u16, u64) -> bool) -> usize {
        let gone: Vec<(usize, Handle)> = self
            .record
            .writes
            .iter()
            .filter(|((client, task), write)| ended(*client, *task, write.unit, write.sent))
            .map(|(key, _)| *key)
            .collect();
        let gone = sorted(gone);
        for key in &gone {
            let write = self.record.writes.remove(key).expect("just seen");
            self.freeze(&write, why);
            self.house.clients[key.0].forget(key.1);
        }
        let others: Vec<(usize, Handle)> = self
            .record
            .others
            .iter()
            .filter(|((client, task), (unit, sent))| ended(*client, *task, *unit, *sent))
            .map(|(key, _)| *key)
            .collect();
        let others = sorted(others);
        for key in &others {
            self.record.others.remove(key);
            self.house.clients[key.0].forget(key.1);
        }
        gone.len() + others.len()
    }

    /// The sectors of a write that has ended hold now what they will hold. After NO TASK, and after the end of a session,
    /// the write may still be under way: whoever uses its range has to wait for it. So nothing is said of what is there,
    /// but what is written next stays.
    fn freeze(&mut self, write: &Write, why: &'static str) {
        let sectors = write.sectors.clone().map(|sector| (write.unit, sector));
        if why == NO_TASK || why == NO_SESSION {
            return self.record.haunted.extend(sectors);
        }
        if why == RESPONSE {
            sectors.for_each(|sector| {
                self.record.haunted.remove(&sector);
            });
        }
        for sector in write.sectors.clone() {
            let one = sector..sector + 1;
            let covered = |other: &Write| {
                other.unit == write.unit && other.sectors.start < one.end && one.start < other.sectors.end
            };
            let haunted = self.record.haunted.contains(&(write.unit, sector));
            if !haunted && !self.record.writes.values().any(covered) {
                let at = sector * SECTOR as u64;
                let bytes = self.house.files[write.unit as usize].contents(at..at + SECTOR as u64);
                self.record.settled.insert((write.unit, sector), (bytes, why));
            }
        }
    }

    fn check(&self, when: &str) {
        for ((unit, sector), (bytes, why)) in &self.record.settled {
            let at = sector * SECTOR as u64;
            let is = self.house.files[*unit as usize].contents(at..at + SECTOR as u64);
            assert!(
                is == *bytes,
                "{:x?} to {:x?}, {when}: sector {sector} of unit {unit} has changed after {why}",
                &bytes[..4],
                &is[..4]
            );
        }
    }

    fn hear(&mut self, client: usize, said: Said) {
        match said {
            Said::Ended(end) => self.ended(client, &end),
            Said::Management(request, outcome) => {
                let Some(request) = self.record.requests.remove(&(client, request)) else {
                    panic!("an answer to nothing")
                };
                self.managed(client, &request, outcome);
            }
            Said::LoggedOut => {}
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self, client: usize, end: &End) {
        self.tick();
        self.record.done[0] += 1;
        let key = (client, end.task);
        if self.record.others.remove(&key).is_some() {
            assert!(end.status == GOOD || end.is_attention(), "{end:?}");
            return;
        }
        let write = self.record.writes.remove(&key).expect("an answer to a command that was ended, or never sent");
        assert!(end.status == GOOD || end.is_attention(), "{end:?}");
        if end.status == GOOD {
            let bytes = write.sectors.start * SECTOR as u64..write.sectors.end * SECTOR as u64;
            let is = self.house.files[write.unit as usize].contents(bytes);
            let there = is.chunks(SECTOR).all(|sector| sector == write.stamp);
            assert!(there, "a write was answered, and is not there");
            self.freeze(&write, RESPONSE);
        }
    }

    fn managed(&mut self, client: usize, request: &Request, outcome: Outcome) {
        let now = self.tick();
        match (request.function, outcome) {
            (Function::AbortTask, Outcome::TaskDoesNotExist) => {
                // Answered already, or ended by somebody's reset.
                let task = request.task.expect("it names a task");
                let reset = self.record.resets.iter().any(|(_, at)| *at > 0);
                let there = self.settle(NO_TASK, |c, t, _, _| (c, t) == (client, task));
                let under_way =
                    self.record.requests.values().any(|r| r.function != Function::AbortTask || r.task == Some(task));
                assert!(there == 0 || reset || under_way, "no answer for a task that does not exist");
            }
            (Function::AbortTask, Outcome::Complete) => {
                let task = request.task.expect("it names a task");
                let there = self.settle("ABORT TASK", |c, t, _, _| (c, t) == (client, task));
                self.record.done[1] += there;
            }
            (Function::AbortTaskSet, Outcome::Complete) => {
                let (unit, sent) = (request.unit, request.sent);
                self.record.done[2] +=
                    self.settle("ABORT TASK SET", |c, _, u, at| c == client && u == unit && at < sent);
            }
            (Function::LogicalUnitReset | Function::TargetWarmReset, Outcome::Complete) => {
                let all = request.function == Function::TargetWarmReset;
                let (unit, sent) = (request.unit, request.sent);
                for reset in (0..UNITS).filter(|u| all || *u == unit) {
                    self.record.resets.push((reset, now));
                }
                self.record.done[3] +=
                    self.settle("a reset", |c, _, u, at| c == client && (all || u == unit) && at < sent);
            }
            (function, outcome) => panic!("{function:?}: {outcome:?}"),
        }
    }

    /// Ends a zone's session one way or another, and starts a new one when the end was reported.
    fn replace(&mut self, zone: usize) {
        let client = self.owners[zone];
        let (id, core) = self.house.sessions[client];
        match self.dice.below(4) {
            0 => self.house.clients[client].peer.reset(),
            1 => self.house.clients[client].peer.close(),
            2 => self.house.post.send(core, ToCore::Close(id, CloseReason::Reinstated)),
            _ if self.house.clients[client].closed.is_none() => self.house.clients[client].log_out(),
            _ => {}
        }
        let mut patience = Patience::new(&self.house);
        while !self.house.ended.contains(&id) {
            assert!(patience.lasts(&self.house), "the session does not end");
            self.step();
            if self.house.clients[client].peer.is_at_end() && self.house.clients[client].closed.is_some() {
                self.house.clients[client].peer.close();
            }
        }
        self.house.clients[client].closed.get_or_insert_with(|| "over".into());
        self.tick();
        self.settle(NO_SESSION, |c, _, _, _| c == client);
        // A reset that it had asked for has taken its tasks from others, though nobody hears of it.
        let now = self.tick();
        let resets = self.record.requests.iter().filter(|((c, _), _)| *c == client);
        let of = resets.map(|(_, request)| (request.function, request.unit)).collect::<Vec<_>>();
        for (function, unit) in of {
            let hit =
                |u: &u16| function == Function::TargetWarmReset || function == Function::LogicalUnitReset && *u == unit;
            self.record.resets.extend((0..UNITS).filter(hit).map(|unit| (unit, now)));
        }
        self.record.requests.retain(|(c, _), _| *c != client);
        // The same nexus comes back to its core: see the control thread's registry.
        let parameters = random_parameters(&mut self.dice);
        self.owners[zone] = self.house.connect(core, parameters);
    }

    fn step(&mut self) {
        if self.dice.once_in(40) {
            let file = self.dice.below(u64::from(UNITS)) as usize;
            self.house.files[file].stall();
        }
        if self.dice.once_in(10) {
            self.house.files.iter().for_each(|file| file.release());
        }
        for (client, said) in self.house.step() {
            self.hear(client, said);
        }
        self.check("under way");
    }
}

fn life(seed: u64) -> [usize; 4] {
    let mut dice = Dice::new(seed);
    let cores = dice.pick(&[1, 1, 2]);
    let mut volumes = vec![Volume::new(256 << 10); UNITS as usize];
    for volume in &mut volumes {
        volume.alignment = dice.pick(&[1, 512, 4096]);
        volume.depth = dice.pick(&[2, 8, 32]);
    }
    let mut blueprint = Blueprint::new(volumes);
    blueprint.cores = cores as u16;
    blueprint.conduct = random_conduct(&mut dice);
    let mut house = House::new(seed, &blueprint);
    let zones = dice.between(1, 3) as usize;
    let owners = (0..zones)
        .map(|_| {
            let parameters = random_parameters(&mut dice);
            house.connect(dice.below(cores) as u16, parameters)
        })
        .collect();
    let mut game = Game { house, record: Record::default(), dice, owners };
    for _ in 0..game.dice.between(50, 250) {
        let zone = game.dice.below(zones as u64) as usize;
        match game.dice.below(16) {
            0 | 1 => game.manage(zone),
            2 if game.dice.once_in(6) => game.replace(zone),
            _ => game.ask(zone),
        }
        game.step();
        for &client in &game.owners {
            assert_eq!(game.house.clients[client].closed, None);
        }
    }

    // Everything comes to its end; what somebody else's reset took away is found gone.
    let mut patience = Patience::new(&game.house);
    while !game.record.is_empty() {
        assert!(patience.lasts(&game.house), "no end: {}", game.left());
        game.house.files.iter().for_each(|file| file.release());
        for (client, said) in game.house.step() {
            game.hear(client, said);
        }
        game.check("at the end");
        if game.dice.once_in(50) && game.record.requests.is_empty() {
            game.look_for_lost();
        }
    }
    let Game { house, record, .. } = game;
    house.files.iter().for_each(|file| file.release());
    house.close();
    record.done
}

impl Game {
    fn left(&self) -> String {
        format!(
            "{} requests, {} writes, {} others",
            self.record.requests.len(),
            self.record.writes.len(),
            self.record.others.len()
        )
    }

    /// A command that was sent before a reset of its unit was answered may be gone without an answer: asks for it, as
    /// initiators do.
    fn look_for_lost(&mut self) {
        let lost = |unit: u16, sent: u64| self.record.resets.iter().any(|(of, at)| *of == unit && *at > sent);
        let writes = self.record.writes.iter().map(|(key, write)| (*key, write.unit, write.sent));
        let others = self.record.others.iter().map(|(key, (unit, sent))| (*key, *unit, *sent));
        let mut all: Vec<_> = writes.chain(others).filter(|(_, unit, sent)| lost(*unit, *sent)).collect();
        all.sort_unstable_by_key(|((client, task), _, _)| (*client, task.initiator_task_tag()));
        for ((client, task), unit, _) in all.into_iter().take(4) {
            let sent = self.tick();
            let client_at: &mut Client = &mut self.house.clients[client];
            let handle = client_at.manage(Function::AbortTask, lun(unit), Some(task));
            let request = Request { function: Function::AbortTask, unit, sent, task: Some(task) };
            self.record.requests.insert((client, handle), request);
        }
    }
}

#[test]
fn what_task_management_says_is_true() {
    let mut done = [0; 4];
    seeds("what_task_management_says_is_true", 300, |seed| {
        for (sum, count) in done.iter_mut().zip(life(seed)) {
            *sum += count;
        }
    });
    println!("answered, and ended by ABORT TASK, by ABORT TASK SET, by resets: {done:?}");
}

#[test]
fn head_of_queue_overtakes_and_ordered_waits() {
    seeds("head_of_queue_overtakes_and_ordered_waits", 20, |seed| {
        let mut dice = Dice::new(seed);
        let mut blueprint = Blueprint::new(vec![Volume::new(64 << 10)]);
        blueprint.conduct = random_conduct(&mut dice);
        let mut house = House::new(seed, &blueprint);
        house.connect(0, random_parameters(&mut dice));
        house.clear_attentions();
        house.files[0].stall();
        let client = &mut house.clients[0];
        let write = |id: u64, attribute| (Command { attribute, ..Command::write(cdb::write_10(0, 1), 512) }, stamp(id));
        let mut submit = |(command, data): (Command<'_>, Vec<u8>)| client.submit(&command, data);
        let first = submit(write(1, TaskAttribute::Simple));
        let second = submit(write(2, TaskAttribute::Ordered));
        let third = submit(write(3, TaskAttribute::Ordered));
        let fourth = submit((Command::read(cdb::read_10(0, 1), 512), Vec::new()));
        let urgent = Command { attribute: TaskAttribute::HeadOfQueue, ..Command::none(cdb::test_unit_ready()) };
        let urgent = submit((urgent, Vec::new()));
        let mut order = Vec::new();
        let mut last = Vec::new();
        let mut hear = |_: &mut House, _: usize, said: Said| {
            if let Said::Ended(end) = said {
                assert_eq!(end.status, GOOD);
                order.push(end.task);
                last = end.data;
            }
        };
        house.until("HEAD OF QUEUE", &mut hear, |house| house.clients[0].connection.in_flight() == 4);
        house.files[0].release();
        house.until("ORDERED", &mut hear, House::is_answered);
        assert_eq!(order, [urgent, first, second, third, fourth]);
        assert_eq!(last, stamp(3));
        house.close();
    });
}
