//! Copies by tokens on several cores, with writes to what the tokens stand for: a token gives the data of one moment
//! between its command and the answer, the same each time, or none any more.

use crate::{
    client::{CHECK_CONDITION, End, GOOD, Said},
    dice::{Dice, seeds},
    house::{Blueprint, House, Patience, Volume, random_parameters},
};
use initiator::{Command, Handle, cdb, lun};
use std::ops::Range;

const SECTOR: usize = 512;
/// Sectors of each volume that anybody writes to, and that tokens are made of.
const SHARED: u64 = 2048;
/// Sectors of each volume that belong to each client: what it writes by tokens.
const OWN: u64 = 2048;
const POPULATE: u32 = 1;
const USE: u32 = 2;
const ILLEGAL: u8 = 5;
const TOKEN_UNKNOWN: u16 = 0x2304;
const TOKEN_CANCELLED: u16 = 0x2308;

/// A write to what is shared; times count what was sent and heard.
struct Write {
    volume: usize,
    sectors: Range<u64>,
    submitted: u64,
    ended: Option<u64>,
}

/// A token that somebody has.
#[derive(Clone)]
struct Token {
    bytes: [u8; 512],
    volume: usize,
    sectors: Vec<u64>,
    /// When it was asked for, and answered.
    asked: u64,
    answered: u64,
}

/// The use of a token.
#[derive(Clone)]
struct Use {
    token: usize,
    forged: bool,
    offset: u64,
    volume: usize,
    to: Range<u64>,
    immediate: bool,
    submitted: u64,
}

enum Waits {
    Nothing,
    Write(usize),
    Populated(Token),
    /// The token itself is being asked for.
    Told(Token),
    Used(Use),
    /// What a use in the background came to is being asked for.
    Polled(Use),
}

/// What is on a volume in one sector: the number of the write that brought it, 0 at first.
fn number(house: &House, volume: usize, sector: u64) -> u64 {
    let at = sector * SECTOR as u64;
    let bytes = house.files[volume].contents(at..at + SECTOR as u64);
    let first = u64::from_le_bytes(bytes[..8].try_into().expect("eight"));
    assert!(bytes.chunks(8).all(|word| word == first.to_le_bytes()), "sector {sector} is of two writes");
    first
}

struct World {
    house: House,
    writes: Vec<Write>,
    tokens: Vec<Token>,
    /// Of each token, what its sectors were found to be.
    found: Vec<Vec<Option<u64>>>,
    time: u64,
    /// Copies, and refusals for a change, that were seen.
    done: [usize; 2],
}

impl World {
    fn over(&self, token: &Token) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(|write| {
            write.volume == token.volume && token.sectors.iter().any(|sector| write.sectors.contains(sector))
        })
    }

    /// A sector of a token may have been what this write brought.
    fn may_be(&self, token: &Token, sector: u64, number: u64) -> bool {
        let of = |write: &&Write| write.volume == token.volume && write.sectors.contains(&sector);
        let ended = match number {
            0 => Some(0),
            _ => {
                let Some(write) = self.writes.get(number as usize - 1).filter(of) else { return false };
                if write.submitted > token.answered {
                    return false;
                }
                write.ended
            }
        };
        let Some(ended) = ended else { return true };
        !self
            .writes
            .iter()
            .filter(of)
            .any(|later| later.submitted > ended && later.ended.is_some_and(|ended| ended < token.asked))
    }

    /// A use has come to an end: `sense` unless it was good.
    fn judge(&mut self, done: &Use, sense: Option<(u8, u16)>) {
        let token = self.tokens[done.token].clone();
        let changed = self
            .over(&token)
            .any(|write| write.submitted > token.answered && write.ended.is_some_and(|ended| ended < done.submitted));
        let touched = self.over(&token).any(|write| write.ended.is_none_or(|ended| ended > token.asked));
        match sense {
            Some(sense) if done.forged => assert_eq!(sense, (ILLEGAL, TOKEN_UNKNOWN)),
            Some(sense) => {
                assert_eq!(sense, (ILLEGAL, TOKEN_CANCELLED));
                assert!(touched, "nobody has changed anything");
                self.done[1] += 1;
            }
            None => {
                assert!(!done.forged && !changed, "the data was changed before");
                for (place, at) in done.to.clone().enumerate() {
                    let place = place + done.offset as usize;
                    let is = number(&self.house, done.volume, at);
                    let sector = token.sectors[place];
                    assert!(self.may_be(&token, sector, is), "sector {sector} was never {is}");
                    let known = *self.found[done.token][place].get_or_insert(is);
                    assert_eq!(known, is, "sector {sector}: another use gave something else");
                }
                self.done[0] += 1;
            }
        }
    }
}

fn tokens(seed: u64) -> [usize; 2] {
    let mut dice = Dice::new(seed);
    let clients = dice.between(2, 4);
    let house = House::pair(seed, &mut dice, (SHARED + clients * OWN) * SECTOR as u64, clients);
    let (writes, tokens, found) = (Vec::new(), Vec::new(), Vec::new());
    let mut world = World { house, writes, tokens, found, time: 0, done: [0; 2] };
    let mut waits: Vec<(Waits, Option<Handle>)> = (0..clients).map(|_| (Waits::Nothing, None)).collect();
    let (mut left, calm) = (50, dice.pick(&[2, 4, 12]));
    let mut patience = Patience::times(&world.house, 4);
    while left > 0 || waits.iter().any(|(wait, _)| !matches!(wait, Waits::Nothing)) {
        assert!(patience.lasts(&world.house), "something has no end");
        for (client, (wait, task)) in waits.iter_mut().enumerate() {
            if left == 0 || !matches!(wait, Waits::Nothing) || !world.house.clients[client].is_open() {
                continue;
            }
            left -= 1;
            world.time += 1;
            let (place, send) = (dice.below(2) as usize, &mut world.house.clients[client]);
            if dice.once_in(calm) {
                let sectors = dice.between(1, 40);
                let from = dice.below(SHARED - sectors + 1);
                let id = world.writes.len() as u64 + 1;
                let data = id.to_le_bytes().repeat(sectors as usize * SECTOR / 8);
                let command = Command::write(cdb::write_16(from, sectors as u32), data.len() as u32);
                *task = Some(send.submit(&command.to_lun(lun(place as u16)), data));
                *wait = Waits::Write(world.writes.len());
                let sectors = from..from + sectors;
                world.writes.push(Write { volume: place, sectors, submitted: world.time, ended: None });
            } else if world.tokens.is_empty() || dice.once_in(3) {
                let half = SHARED / 2;
                let mut range = |base: u64| {
                    let count = dice.between(1, half);
                    (base + dice.below(half - count + 1), count as u32)
                };
                let mut ranges = vec![range(half), range(0)];
                ranges.truncate(dice.between(1, 2) as usize);
                let list = cdb::populate_token_parameters(3600, &ranges);
                let command = Command::write(cdb::populate_token(POPULATE, list.len() as u32), list.len() as u32);
                *task = Some(send.submit(&command.to_lun(lun(place as u16)), list));
                let sectors = ranges.iter().flat_map(|(lba, n)| *lba..lba + u64::from(*n)).collect();
                let asked = world.time;
                *wait = Waits::Populated(Token { bytes: [0; 512], volume: place, sectors, asked, answered: 0 });
            } else {
                let chosen = dice.below(world.tokens.len() as u64) as usize;
                let token = &world.tokens[chosen];
                let all = token.sectors.len() as u64;
                let offset = dice.below(all);
                let count = dice.between(1, all - offset);
                let own = SHARED + client as u64 * OWN;
                let to = own + dice.below(OWN - count + 1);
                let (forged, immediate) = (dice.once_in(10), dice.once_in(2));
                let mut bytes = token.bytes;
                bytes[256 + dice.below(32) as usize] ^= u8::from(forged) << dice.below(8);
                let ranges = match dice.below(2) {
                    0 if count > 1 => vec![(to, count as u32 / 2), (to + count / 2, (count - count / 2) as u32)],
                    _ => vec![(to, count as u32)],
                };
                let list = cdb::write_using_token_parameters(immediate, offset, &bytes, &ranges);
                let command = Command::write(cdb::write_using_token(USE, list.len() as u32), list.len() as u32);
                *task = Some(send.submit(&command.to_lun(lun(place as u16)), list));
                let (submitted, to) = (world.time, to..to + count);
                *wait = Waits::Used(Use { token: chosen, forged, offset, volume: place, to, immediate, submitted });
            }
        }
        if dice.once_in(40) {
            world.house.files[dice.below(2) as usize].stall();
        }
        if dice.once_in(6) || left == 0 {
            world.house.files.iter().for_each(|file| file.release());
        }
        for (client, said) in world.house.step() {
            let Said::Ended(end) = said else { panic!("{said:?}") };
            assert_eq!(Some(end.task), waits[client].1, "{end:?}");
            world.time += 1;
            let next = hear(&mut world, client, std::mem::replace(&mut waits[client].0, Waits::Nothing), end);
            waits[client] = next;
        }
    }
    let World { house, done, .. } = world;
    house.close();
    done
}

/// Takes an answer in; gives what the client waits for next.
fn hear(world: &mut World, client: usize, wait: Waits, end: End) -> (Waits, Option<Handle>) {
    let ask = |world: &mut World, id: u32, volume: usize| {
        let command = Command::read(cdb::receive_rod_token_information(id, 1024), 1024).to_lun(lun(volume as u16));
        Some(world.house.clients[client].submit(&command, Vec::new()))
    };
    let refused = (end.status == CHECK_CONDITION).then_some(end.sense);
    assert!(refused.is_some() || end.status == GOOD, "{end:?}");
    match wait {
        Waits::Nothing => panic!("{end:?}"),
        Waits::Write(number) => {
            assert_eq!(refused, None);
            world.writes[number].ended = Some(world.time);
        }
        Waits::Populated(mut token) => {
            assert_eq!(refused, None);
            token.answered = world.time;
            let volume = token.volume;
            return (Waits::Told(token), ask(world, POPULATE, volume));
        }
        Waits::Told(mut token) => {
            assert_eq!((refused, end.data[5], end.data.len()), (None, 0x01, 38 + 512));
            token.bytes.copy_from_slice(&end.data[38..]);
            world.found.push(vec![None; token.sectors.len()]);
            world.tokens.push(token);
        }
        Waits::Used(done) if refused.is_none() && done.immediate => {
            let volume = done.volume;
            return (Waits::Polled(done), ask(world, USE, volume));
        }
        Waits::Used(done) => world.judge(&done, refused),
        Waits::Polled(done) => match end.data[5] {
            0x12 => {
                let volume = done.volume;
                return (Waits::Polled(done), ask(world, USE, volume));
            }
            0x01 => {
                let count = done.to.end - done.to.start;
                assert_eq!(end.data[16..24], count.to_be_bytes());
                world.judge(&done, None);
            }
            0x02 => {
                let sense = &end.data[32..50];
                world.judge(&done, Some((sense[2], u16::from_be_bytes([sense[12], sense[13]]))));
            }
            other => panic!("{other:#x}"),
        },
    }
    (Waits::Nothing, None)
}

#[test]
fn a_token_gives_the_data_of_one_moment_or_nothing() {
    let mut done = [0; 2];
    let all = seeds("a_token_gives_the_data_of_one_moment_or_nothing", 100, |seed| {
        let [copied, cancelled] = tokens(seed);
        done = [done[0] + copied, done[1] + cancelled];
    });
    println!("{} copied, {} cancelled", done[0], done[1]);
    assert!(!all || (done[0] > 400 && done[1] > 100), "{done:?}");
}

#[test]
fn a_token_waits_for_the_writes_that_are_on_their_way_to_its_blocks() {
    for cores in [1, 2] {
        let mut blueprint = Blueprint::new(vec![Volume::new((SHARED + OWN) * SECTOR as u64)]);
        blueprint.cores = cores;
        let mut house = House::new(9, &blueprint);
        let writer = house.connect(0, random_parameters(&mut Dice::new(9)));
        let other = house.connect(cores - 1, random_parameters(&mut Dice::new(10)));
        house.clear_attentions();
        house.files[0].stall();
        house.clients[writer].submit(&Command::write(cdb::write_16(100, 8), 4096), vec![7; 4096]);
        let mut patience = Patience::new(&house);
        while house.files[0].held_up() == 0 {
            assert!(patience.lasts(&house), "the write doesn't get there");
            house.step();
        }
        let populate = |house: &mut House, lba: u64| {
            let list = cdb::populate_token_parameters(0, &[(lba, 4)]);
            let command = Command::write(cdb::populate_token(POPULATE, list.len() as u32), list.len() as u32);
            house.clients[other].submit(&command, list);
            (0..300).any(|_| house.step().iter().any(|(client, _)| *client == other))
        };
        assert!(populate(&mut house, 200), "nobody writes there");
        assert!(!populate(&mut house, 104), "the write may yet change it");
        house.files[0].release();
        house.until("POPULATE TOKEN", |_, _, _| (), House::is_answered);
        house.close();
    }
}

/// A copy in the background, whose source stands still until `release` is called.
fn in_background(cores: u16) -> (House, usize) {
    let volume = Volume::new((SHARED + OWN) * SECTOR as u64);
    let mut blueprint = Blueprint::new(vec![volume.clone(), volume]);
    blueprint.cores = cores;
    let mut house = House::new(7, &blueprint);
    let client = house.connect(cores - 1, random_parameters(&mut Dice::new(7)));
    house.clear_attentions();
    house.files[0].fill(0, &[0xAB; SHARED as usize * SECTOR]);
    let list = cdb::populate_token_parameters(3600, &[(0, SHARED as u32)]);
    let command = Command::write(cdb::populate_token(POPULATE, list.len() as u32), list.len() as u32);
    house.clients[client].submit(&command, list);
    house.until("POPULATE TOKEN", |_, _, _| (), House::is_answered);
    let command = Command::read(cdb::receive_rod_token_information(POPULATE, 1024), 1024);
    house.clients[client].submit(&command, Vec::new());
    let mut token = [0; 512];
    let hear = |_: &mut House, _: usize, said: Said| {
        let Said::Ended(end) = said else { panic!("{said:?}") };
        token.copy_from_slice(&end.data[38..]);
    };
    house.until("RECEIVE ROD TOKEN INFORMATION", hear, House::is_answered);
    house.files[0].stall();
    let list = cdb::write_using_token_parameters(true, 0, &token, &[(0, SHARED as u32)]);
    let command = Command::write(cdb::write_using_token(USE, list.len() as u32), list.len() as u32);
    house.clients[client].submit(&command.to_lun(lun(1)), list);
    let good = |_: &mut House, _: usize, said: Said| match said {
        Said::Ended(end) => assert_eq!(end.status, GOOD, "{end:?}"),
        other => panic!("{other:?}"),
    };
    house.until("WRITE USING TOKEN", good, House::is_answered);
    for _ in 0..100 {
        house.step();
    }
    assert!(house.files[0].held_up() > 0, "it is on its way");
    (house, client)
}

#[test]
fn a_copy_in_the_background_outlives_its_session_and_not_a_reset_of_its_unit() {
    for cores in [1, 2] {
        let (mut house, client) = in_background(cores);
        house.clients[client].peer.close();
        for _ in 0..100 {
            house.step();
        }
        house.files[0].release();
        for _ in 0..500 {
            house.step();
        }
        assert!(house.files[1].contents(0..SHARED * SECTOR as u64).iter().all(|byte| *byte == 0xAB));
        house.close();

        let (mut house, client) = in_background(cores);
        house.clients[client].manage(wire::TaskManagementFunction::LogicalUnitReset, lun(1), None);
        let mut answered = false;
        let mut patience = Patience::new(&house);
        let mut steps = 0;
        while !answered {
            assert!(patience.lasts(&house), "the reset has no end");
            answered = house.step().iter().any(|(_, said)| matches!(said, Said::Management(..)));
            steps += 1;
            if steps == 300 {
                assert!(!answered, "it waits for the copy's I/O");
                house.files[0].release();
            }
        }
        let is = house.files[1].contents(0..SHARED * SECTOR as u64);
        for _ in 0..500 {
            house.step();
        }
        assert!(house.files[1].contents(0..SHARED * SECTOR as u64) == is, "something was written after the reset");
        assert!(is.iter().all(|byte| *byte == 0));
        house.close();
    }
}

#[test]
fn a_target_that_stops_waits_for_copies_in_the_background_and_then_ends_them() {
    let (mut house, _) = in_background(2);
    // The store stands still for longer than the drain takes.
    for core in 0..2 {
        house.post.send(core, server::mail::ToCore::Drain { seconds: 2 });
    }
    let until = house.world.now() + std::time::Duration::from_secs(4);
    while house.world.now() < until {
        house.step();
    }
    assert!(house.drained < 2, "I/O is in flight");
    house.files[0].release();
    house.close();
}
