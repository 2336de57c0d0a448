//! Several cores with sessions on the same units: read-modify-write next to each other, locks with COMPARE AND WRITE,
//! resets from one core while others work.

use crate::{
    client::{End, GOOD, Said},
    dice::{Dice, mix, seeds},
    house::{House, Patience, Volume},
};
use initiator::{Command, Handle, cdb, lun};
use std::collections::{BTreeSet, HashMap};
use wire::{TaskManagementFunction, TaskManagementResult};

const SECTOR: usize = 512;

fn stamp(id: u64, length: usize) -> Vec<u8> {
    mix(id).to_le_bytes().repeat(length / 8)
}

/// Ranges of sectors of one owner each: single ones next to each other, and whole blocks of 4 KiB.
fn adjacent(seed: u64) {
    let mut dice = Dice::new(seed);
    let volume = Volume { alignment: 4096, depth: dice.pick(&[2, 32]), ..Volume::new(64 << 10) };
    let clients = dice.between(2, 6);
    let mut house = House::inhabited(seed, &mut dice, vec![volume], &[2, 2, 3], clients);
    // The first blocks belong to many, sector by sector; of the others each belongs to one.
    let shared = 2 * 8;
    let mut owned: Vec<(usize, u64, u64)> =
        (0..shared).map(|sector| ((sector % clients) as usize, sector, 1)).collect();
    owned.extend((0..4).map(|n| ((n % clients) as usize, shared + n * 8, 8)));
    // Some span three blocks and end amid them.
    owned.push((0, shared + 4 * 8, 4));
    owned.push((1, shared + 4 * 8 + 4, 13));
    owned.push((0, shared + 4 * 8 + 17, 3));
    let mut last = vec![0u64; owned.len()];
    let mut busy: HashMap<(usize, Handle), usize> = HashMap::new();
    let mut ids = 0;
    let mut left = 120;
    let mut patience = Patience::new(&house);
    while left > 0 || !busy.is_empty() {
        assert!(patience.lasts(&house), "{} writes have no end", busy.len());
        for _ in 0..3 {
            let piece = dice.below(owned.len() as u64) as usize;
            let (client, start, sectors) = owned[piece];
            if left == 0 || busy.values().any(|p| *p == piece) || !house.clients[client].is_open() {
                continue;
            }
            left -= 1;
            ids += 1;
            last[piece] = ids;
            let bytes = sectors as u32 * SECTOR as u32;
            let data = stamp(ids, bytes as usize);
            let handle =
                house.clients[client].submit(&Command::write(cdb::write_16(start, sectors as u32), bytes), data);
            busy.insert((client, handle), piece);
        }
        for (client, said) in house.step() {
            let Said::Ended(end) = said else { panic!("{said:?}") };
            assert_eq!(end.status, GOOD, "{end:?}");
            let piece = busy.remove(&(client, end.task)).expect("a write that was sent");
            let (_, start, sectors) = owned[piece];
            let bytes = start * SECTOR as u64..(start + sectors) * SECTOR as u64;
            let length = (bytes.end - bytes.start) as usize;
            let is = house.files[0].contents(bytes);
            assert!(is == stamp(last[piece], length), "sectors from {start} are not what was written last");
        }
    }
    for (piece, (_, start, sectors)) in owned.iter().enumerate() {
        let length = *sectors as usize * SECTOR;
        let is = house.files[0].contents(start * SECTOR as u64..(start + sectors) * SECTOR as u64);
        let should = if last[piece] == 0 { vec![0; length] } else { stamp(last[piece], length) };
        assert!(is == should, "sectors from {start} were changed by a neighbour");
    }
    house.close();
}

#[test]
fn neighbours_within_one_aligned_block_lose_nothing() {
    seeds("neighbours_within_one_aligned_block_lose_nothing", 200, adjacent);
}

/// What a client is doing to the counter.
enum Step {
    Rest,
    Reading,
    Adding(u64),
}

fn block(value: u64, owner: u64, size: usize) -> Vec<u8> {
    let mut block = value.to_le_bytes().to_vec();
    block.extend_from_slice(&owner.to_le_bytes());
    block.resize(size, value as u8);
    block
}

/// Every client adds to a counter with COMPARE AND WRITE.
fn counter(seed: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut volume = Volume { alignment: dice.pick(&[1, 512, 4096]), ..Volume::new(64 << 10) };
    volume.block_size = dice.pick(&[512, 4096]);
    volume.memory = seed.is_multiple_of(3);
    let size = volume.block_size as usize;
    let clients = dice.between(2, 5);
    let mut house = House::inhabited(seed, &mut dice, vec![volume], &[2, 2, 3], clients);
    let lba = dice.below(4);
    house.files[0].fill(lba * size as u64, &block(0, 0, size));
    let mut steps: Vec<Step> = (0..clients).map(|_| Step::Rest).collect();
    let mut seen: Vec<Vec<u8>> = vec![Vec::new(); clients as usize];
    let (mut added, mut missed) = (0, 0);
    let mut values = BTreeSet::new();
    let mut patience = Patience::new(&house);
    while added < 40 || steps.iter().any(|step| !matches!(step, Step::Rest)) {
        assert!(patience.lasts(&house), "{added} added, {missed} missed");
        for (client, step) in steps.iter_mut().enumerate() {
            if matches!(step, Step::Rest) && added < 40 && house.clients[client].is_open() {
                house.clients[client].submit(&Command::read(cdb::read_16(lba, 1), size as u32), Vec::new());
                *step = Step::Reading;
            }
        }
        for (client, said) in house.step() {
            let Said::Ended(End { status, sense, data, .. }) = said else { panic!("{said:?}") };
            match steps[client] {
                Step::Rest => panic!("an answer to nothing"),
                Step::Reading => {
                    assert_eq!(status, GOOD);
                    let value = u64::from_le_bytes(data[..8].try_into().unwrap());
                    let mut both = data.clone();
                    both.extend(block(value + 1, client as u64, size));
                    seen[client] = data;
                    let command = Command::write(cdb::compare_and_write(lba, 1), 2 * size as u32);
                    house.clients[client].submit(&command, both);
                    steps[client] = Step::Adding(value + 1);
                }
                Step::Adding(value) => {
                    if status == GOOD {
                        added += 1;
                        // Answers may be heard in another order than that of the additions.
                        assert!(values.insert(value), "two clients have made it {value}");
                    } else {
                        assert_eq!(sense.0, 0x0e, "MISCOMPARE");
                        missed += 1;
                    }
                    steps[client] = Step::Rest;
                }
            }
        }
    }
    let range = lba * size as u64..lba * size as u64 + 8;
    let is = house.contents(0, range);
    assert_eq!(u64::from_le_bytes(is.try_into().unwrap()), added);
    house.close();
    missed
}

#[test]
fn compare_and_write_from_several_cores_loses_no_increment() {
    let mut missed = 0;
    let all = seeds("compare_and_write_from_several_cores_loses_no_increment", 150, |seed| missed += counter(seed));
    println!("{missed} times another was faster");
    assert!(!all || missed > 100, "nobody met anybody: {missed}");
}

/// The same in every run of a seed.
fn order((client, task): &(usize, Handle)) -> (usize, u32) {
    (*client, task.initiator_task_tag())
}

/// One core resets the unit again and again while sessions on all cores write misaligned sectors under the fence.
fn resets(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let volume = Volume { alignment: 4096, depth: dice.pick(&[2, 8]), ..Volume::new(64 << 10) };
    let clients = dice.between(2, 5);
    let mut house = House::inhabited(seed, &mut dice, vec![volume], &[2, 2, 3], clients);
    let mut busy: HashMap<(usize, Handle), (u64, bool)> = HashMap::new();
    let mut requests: HashMap<(usize, Handle), Option<Handle>> = HashMap::new();
    let mut ids = 0;
    let mut answered = 0;
    let mut turns = 0;
    let mut patience = Patience::new(&house);
    loop {
        turns += 1;
        assert!(patience.lasts(&house), "{} commands and {} requests have no end", busy.len(), requests.len());
        let working = turns < 400;
        let client = dice.below(clients) as usize;
        // Each client writes one sector of each block, one write at a time.
        let sector = client as u64 + 8 * dice.below(6);
        let free = !busy.iter().any(|((c, _), (s, _))| *c == client && *s == sector);
        if working && free && house.clients[client].is_open() {
            ids += 1;
            let command = Command::write(cdb::write_16(sector, 1), SECTOR as u32);
            let handle = house.clients[client].submit(&command, stamp(ids, SECTOR));
            busy.insert((client, handle), (sector, false));
        }
        if working && requests.is_empty() && dice.once_in(60) {
            let handle = house.clients[0].manage(TaskManagementFunction::LogicalUnitReset, lun(0), None);
            requests.insert((0, handle), None);
            busy.values_mut().for_each(|(_, doubtful)| *doubtful = true);
        }
        if dice.once_in(30) {
            house.files[0].stall();
        }
        if dice.once_in(8) || !working {
            house.files[0].release();
        }
        for (client, said) in house.step() {
            match said {
                Said::Ended(end) => {
                    busy.remove(&(client, end.task)).expect("a command that was sent and not ended");
                    assert!(end.status == GOOD || end.is_attention(), "{end:?}");
                    answered += usize::from(end.status == GOOD);
                }
                Said::Management(request, outcome) => match requests.remove(&(client, request)).expect("asked") {
                    None => {
                        assert_eq!(outcome, TaskManagementResult::Complete);
                        // Its own are gone; those of others may be.
                        let mut gone: Vec<(usize, Handle)> =
                            busy.iter().filter(|((c, _), (_, old))| *c == 0 && *old).map(|(key, _)| *key).collect();
                        gone.sort_unstable_by_key(order);
                        for key in gone {
                            busy.remove(&key);
                            house.clients[0].forget(key.1);
                        }
                        busy.values_mut().for_each(|(_, doubtful)| *doubtful = true);
                    }
                    Some(task) => {
                        if busy.remove(&(client, task)).is_some() {
                            house.clients[client].forget(task);
                        }
                    }
                },
                other => panic!("{other:?}"),
            }
        }
        if !working && requests.is_empty() {
            if busy.is_empty() {
                break;
            }
            if turns % 100 == 0 {
                let mut doubtful: Vec<(usize, Handle)> =
                    busy.iter().filter(|(_, (_, doubtful))| *doubtful).map(|(key, _)| *key).collect();
                doubtful.sort_unstable_by_key(order);
                for (client, task) in doubtful.into_iter().take(4) {
                    let function = TaskManagementFunction::AbortTask;
                    let request = house.clients[client].manage(function, lun(0), Some(task));
                    requests.insert((client, request), Some(task));
                }
            }
        }
    }
    // Nothing is blocked for good: each can still write everywhere.
    for client in 0..clients as usize {
        for sector in (0..48).step_by(5) {
            ids += 1;
            let each = |_: &mut House, _: usize, _: Said| ();
            for _ in 0..2 {
                // The first one may hear of the reset.
                let command = Command::write(cdb::write_16(sector, 1), SECTOR as u32);
                house.clients[client].submit(&command, stamp(ids, SECTOR));
                house.until("a write after the resets", each, House::is_answered);
            }
            let at = sector * SECTOR as u64;
            assert!(house.files[0].contents(at..at + SECTOR as u64) == stamp(ids, SECTOR));
        }
    }
    house.close();
    answered
}

#[test]
fn resets_of_one_core_leave_nothing_behind_on_others() {
    let mut answered = 0;
    seeds("resets_of_one_core_leave_nothing_behind_on_others", 150, |seed| answered += resets(seed));
    println!("{answered} writes were answered");
}
