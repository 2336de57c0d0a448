//! Too little memory for too many sessions, and one store that stands still: everybody else goes on.

use crate::{
    client::{GOOD, Said, TASK_SET_FULL},
    dice::{Dice, seeds},
    house::{Blueprint, House, Patience, Volume, random_parameters},
};
use initiator::{Command, Handle, cdb, lun};
use memory::ArenaConfig;
use reactor::twin::Conduct;
use std::{collections::HashMap, time::Duration};
use wire::{TaskManagementFunction, TaskManagementResult};

const SESSIONS: usize = 64;
const VOLUME: u64 = 4 << 20;
/// Commands on healthy units that must end well while one unit stands still.
const PROGRESS: usize = 300;

/// What was asked on which unit.
#[derive(Clone, Copy)]
struct Asked {
    unit: u16,
}

#[derive(Default)]
struct Count {
    full: usize,
    /// Ended well, by unit.
    good: [usize; 3],
    /// Of each kind on healthy units: reads, writes, flushes.
    kinds: [usize; 3],
    pongs: usize,
    aborted: usize,
}

struct Crowd {
    house: House,
    dice: Dice,
    asked: HashMap<(usize, Handle), (Asked, usize)>,
    /// Aborts: the task that each is for.
    aborts: HashMap<(usize, Handle), Handle>,
    count: Count,
}

impl Crowd {
    /// Sends a random command to a unit.
    fn ask(&mut self, client: usize, unit: u16) {
        let kind = self.dice.below(8);
        self.ask_for(client, unit, kind);
    }

    fn ask_for(&mut self, client: usize, unit: u16, kind: u64) {
        let dice = &mut self.dice;
        let sessions = &mut self.house.clients;
        if !sessions[client].is_open() {
            return;
        }
        let bytes = dice.pick(&[512, 4096, 4096, 65_536, 262_144, 1 << 20]);
        let blocks = bytes / 512;
        let lba = dice.below((VOLUME - u64::from(bytes)) / 512);
        let (kind, command) = match kind {
            0..3 => (0, Command::read(cdb::read_16(lba, blocks), bytes)),
            3..7 => (1, Command::write(cdb::write_16(lba, blocks), bytes)),
            _ => (2, Command::none(cdb::synchronize_cache_10(0, 0))),
        };
        let command = command.to_lun(lun(unit));
        let data = vec![0xa5; command.write_length as usize];
        let handle = sessions[client].submit(&command, data);
        self.asked.insert((client, handle), (Asked { unit }, kind));
    }

    fn step(&mut self) {
        for (client, said) in self.house.step() {
            match said {
                Said::Ended(end) => {
                    let (asked, kind) = self.asked.remove(&(client, end.task)).expect("a command that was sent");
                    match end.status {
                        GOOD => {
                            self.count.good[asked.unit as usize] += 1;
                            self.count.kinds[kind] += usize::from(asked.unit != 0);
                        }
                        TASK_SET_FULL => self.count.full += 1,
                        _ => panic!("{end:?}"),
                    }
                }
                Said::Pong => self.count.pongs += 1,
                Said::Management(request, response) => {
                    let task = self.aborts.remove(&(client, request)).expect("a request that was sent");
                    self.count.aborted += 1;
                    let there = self.asked.remove(&(client, task)).is_some();
                    match response {
                        TaskManagementResult::Complete => {
                            assert!(there, "a task that was answered can't be aborted");
                            self.house.clients[client].forget(task);
                        }
                        TaskManagementResult::TaskDoesNotExist => assert!(!there, "nobody has answered {task:?}"),
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        for client in &self.house.clients {
            assert_eq!(client.closed, None);
        }
    }

    fn until(&mut self, what: &str, mut each: impl FnMut(&mut Crowd), done: impl Fn(&Crowd) -> bool) {
        let mut patience = Patience::new(&self.house);
        while !done(self) {
            if !patience.lasts(&self.house) {
                let away = self.house.away(0);
                let waiting: Vec<usize> =
                    (0..3).map(|unit| self.asked.values().filter(|(asked, _)| asked.unit == unit).count()).collect();
                let (good, kinds) = (self.count.good, self.count.kinds);
                panic!(
                    "{what}: no progress; ended well {good:?} (kinds {kinds:?}), waiting {waiting:?}, buffers away {away:?}"
                );
            }
            each(self);
            self.step();
        }
    }
}

fn life(seed: u64) -> Count {
    let mut dice = Dice::new(seed);
    let mut volumes = vec![Volume::new(VOLUME); 3];
    for volume in &mut volumes {
        volume.depth = dice.pick(&[4, 8, 16]);
        volume.alignment = dice.pick(&[1, 512, 4096]);
    }
    let stalled_depth = volumes[0].depth as usize;
    let mut blueprint = Blueprint::new(volumes);
    blueprint.arena = ArenaConfig {
        small: dice.between(6, 40) as u32,
        medium: 8 + 3 * 8 + dice.between(2, 20) as u32,
        large: dice.between(7, 14) as u32,
    };
    blueprint.tasks = SESSIONS as u32 * 40;
    // Those that don't read are not to be found out.
    blueprint.nop_interval = Duration::from_secs(3600);
    blueprint.conduct = Conduct {
        delay: Duration::from_micros(1)..Duration::from_micros(dice.pick(&[50, 500])),
        fragment: dice.once_in(2),
        window: 64 << 10,
    };
    let mut house = House::new(seed, &blueprint);
    for _ in 0..SESSIONS {
        let parameters = negotiation::Parameters { data_digest: false, ..random_parameters(&mut dice) };
        house.connect(0, parameters);
    }
    house.clear_attentions();
    house.files[0].stall();
    let mut crowd = Crowd { house, dice, asked: HashMap::new(), aborts: HashMap::new(), count: Count::default() };

    // The first half fills the unit that stands still; a few of them read, and never take
    // what they are sent.
    let flooders = SESSIONS / 2;
    for client in 0..4 {
        crowd.house.clients[client].peer.set_window(4096);
        crowd.house.clients[client].deaf = true;
        (0..8).for_each(|_| crowd.ask_for(client, 1 + client as u16 % 2, 0));
    }
    for _ in 0..24 {
        for client in 0..flooders {
            let kind = if client < 4 { 0 } else { crowd.dice.below(8) };
            crowd.ask_for(client, 0, kind);
            if crowd.dice.once_in(8) {
                crowd.step();
            }
        }
    }

    // The others, and the flooders beside their flood, get on with their work.
    let busy = |crowd: &mut Crowd| {
        let client = crowd.dice.between(4, SESSIONS as u64 - 1) as usize;
        let limit = if client < flooders { 28 } else { 4 };
        if crowd.house.clients[client].connection.in_flight() < limit {
            let unit = 1 + crowd.dice.below(2) as u16;
            crowd.ask(client, unit);
        }
    };
    let enough = |crowd: &Crowd| {
        crowd.count.good[1..].iter().all(|good| *good > PROGRESS / 2)
            && crowd.count.kinds[0] > 50
            && crowd.count.kinds[1] > 50
            && crowd.count.kinds[2] > 10
    };
    crowd.until("work while a store stands still", busy, enough);
    let healthy = |crowd: &Crowd| {
        crowd.asked.iter().all(|((client, _), (asked, _))| asked.unit == 0 || crowd.house.clients[*client].deaf)
    };
    crowd.until("the rest of the work", |_| (), healthy);

    // Pings are answered, and so are aborts of what the store doesn't have.
    let readers: Vec<usize> = (4..flooders).collect();
    for client in &readers {
        crowd.house.clients[*client].ping();
    }
    let pings = readers.len();
    crowd.until("pings", |_| (), |crowd| crowd.count.pongs == pings);
    let mut sent = 0;
    for &client in &readers {
        let tasks: Vec<Handle> = crowd.asked.keys().filter(|(number, _)| *number == client).map(|(_, t)| *t).collect();
        let Some(task) = tasks.iter().copied().max_by_key(|task| task.initiator_task_tag()) else { continue };
        let request = crowd.house.clients[client].manage(TaskManagementFunction::AbortTask, lun(0), Some(task));
        crowd.aborts.insert((client, request), task);
        sent += 1;
    }
    let wanted = usize::saturating_sub(sent, stalled_depth);
    crowd.until("aborts", |_| (), |crowd| crowd.count.aborted >= wanted);
    assert_eq!(crowd.count.good[0], 0, "a store that stands still has answered nothing");

    // It goes on, and everything ends.
    crowd.house.files[0].release();
    crowd.until(
        "the end of the stall",
        |_| (),
        |crowd| crowd.aborts.is_empty() && crowd.asked.keys().all(|(client, _)| crowd.house.clients[*client].deaf),
    );
    // Those that never read begin to.
    for client in 0..4 {
        crowd.house.clients[client].deaf = false;
        crowd.house.clients[client].peer.set_window(64 << 10);
    }
    crowd.until("those that begin to read", |_| (), |crowd| crowd.asked.is_empty());
    for client in &crowd.house.clients {
        let (expected, most) = client.connection.command_window();
        assert_eq!(most.wrapping_sub(expected).wrapping_add(1), crate::client::WINDOW, "the whole window is open");
    }
    let Crowd { mut house, count, .. } = crowd;
    house.check_home();
    house.close();
    count
}

#[test]
fn a_store_that_stands_still_stops_nobody_else() {
    let (mut full, mut good, mut aborted) = (0, 0, 0);
    let all = seeds("a_store_that_stands_still_stops_nobody_else", 12, |seed| {
        let count = life(seed);
        full += count.full;
        good += count.good.iter().sum::<usize>();
        aborted += count.aborted;
    });
    println!("{good} commands ended well, {full} in TASK SET FULL, {aborted} aborts were answered");
    assert!(!all || full > 0, "data that came unasked always found a buffer: the pools are not small enough");
}
