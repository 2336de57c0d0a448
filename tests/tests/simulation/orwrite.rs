//! ORWRITE from several cores at once: bits are added up, and none is lost.

use crate::{
    client::{GOOD, Said, TASK_SET_FULL},
    dice::{Dice, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use initiator::{Command, Handle, cdb, lun};
use std::collections::HashMap;
use wire::TaskManagementFunction;

const SECTOR: usize = 512;
const SECTORS: u64 = 4096;

fn bits(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let bytes = SECTORS * SECTOR as u64;
    let volume = Volume { alignment: dice.pick(&[1, 512, 4096]), depth: dice.pick(&[2, 8, 32]), ..Volume::new(bytes) };
    let clients = dice.between(2, 5);
    let mut blueprint = Blueprint::new(vec![volume]);
    blueprint.cores = dice.pick(&[1, 2, 3]);
    blueprint.conduct = random_conduct(&mut dice);
    // Some have so few buffers that long transfers take them from each other.
    blueprint.arena.large = dice.pick(&[6, 24]);
    let mut house = House::new(seed, &blueprint);
    for client in 0..clients {
        house.connect((client % u64::from(blueprint.cores)) as u16, random_parameters(&mut dice));
    }
    house.clear_attentions();

    // Answered ones are there; aborted ones may be.
    let mut certain = vec![0u8; bytes as usize];
    let mut possible = certain.clone();
    let mut busy: HashMap<(usize, Handle), (usize, Vec<u8>)> = HashMap::new();
    let mut aborts: HashMap<(usize, Handle), Handle> = HashMap::new();
    let (mut left, mut answered) = (40, 0);
    let mut patience = Patience::new(&house);
    while left > 0 || !busy.is_empty() {
        assert!(patience.lasts(&house), "{} have no end", busy.len());
        let client = dice.below(clients) as usize;
        if left > 0 && house.clients[client].is_open() && busy.len() < 8 {
            left -= 1;
            let sectors = match dice.below(4) {
                0 => dice.between(500, 2048),
                1 => dice.between(100, 700),
                _ => dice.between(1, 32),
            };
            let start = dice.below(SECTORS - sectors + 1);
            let mask = 1u8 << dice.below(8);
            let data: Vec<u8> = dice.bytes(sectors as usize * SECTOR).iter().map(|byte| byte & mask).collect();
            let command = Command::write(cdb::orwrite_16(start, sectors as u32), data.len() as u32);
            let handle = house.clients[client].submit(&command, data.clone());
            let at = start as usize * SECTOR;
            possible[at..at + data.len()].iter_mut().zip(&data).for_each(|(all, set)| *all |= set);
            busy.insert((client, handle), (at, data));
        }
        if dice.once_in(100) && blueprint.cores > 1 {
            let mut own: Vec<Handle> = busy.keys().filter(|(c, _)| *c == client).map(|(_, task)| *task).collect();
            own.sort_unstable_by_key(|task| task.initiator_task_tag());
            if let Some(task) = own.first() {
                let request = house.clients[client].manage(TaskManagementFunction::AbortTask, lun(0), Some(*task));
                aborts.insert((client, request), *task);
                busy.remove(&(client, *task));
            }
        }
        for (client, said) in house.step() {
            match said {
                Said::Ended(end) => {
                    // Data came unasked, and there was no buffer for it.
                    if end.status == TASK_SET_FULL {
                        busy.remove(&(client, end.task));
                        continue;
                    }
                    assert_eq!(end.status, GOOD, "{end:?}");
                    // Not one that was to be aborted, and ended before.
                    let Some((at, data)) = busy.remove(&(client, end.task)) else { continue };
                    certain[at..at + data.len()].iter_mut().zip(&data).for_each(|(all, set)| *all |= set);
                    answered += 1;
                }
                Said::Management(request, _) => {
                    if let Some(task) = aborts.remove(&(client, request)) {
                        house.clients[client].forget(task);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let is = house.files[0].contents(0..bytes);
    for (at, is) in is.iter().enumerate() {
        assert_eq!(is & certain[at], certain[at], "a bit of byte {at} was lost");
        assert_eq!(is & !possible[at], 0, "nobody has set that bit of byte {at}");
    }
    house.close();
    answered
}

#[test]
fn bits_from_several_cores_add_up() {
    let mut answered = 0;
    seeds("bits_from_several_cores_add_up", 100, |seed| answered += bits(seed));
    println!("{answered} were answered");
}
