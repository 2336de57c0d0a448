//! SANITIZE while others work: what they wrote before is gone, what they ask for meanwhile is refused, and neither aborts,
//! resets nor a restart stop it.

use crate::{
    client::{End, GOOD, Said, TASK_SET_FULL},
    dice::{Dice, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use initiator::{
    Command, Handle,
    cdb::{self, Cdb},
    lun,
};
use std::collections::HashMap;
use wire::TaskManagementFunction;

const SECTOR: usize = 512;
const NOT_READY: u8 = 2;
const SANITIZE_IN_PROGRESS: u16 = 0x041B;
/// Of a write that was under way when the job began, and ended behind it.
const CAME_AT_A_BAD_TIME: (u8, u16) = (0xB, 0);

fn overwrite(immediate: bool, passes: u8, pattern: u8) -> (Cdb, Vec<u8>) {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[8]) = (0x48, 0x01 | u8::from(immediate) << 7, 5);
    (cdb, vec![passes, 0, 0, 1, pattern])
}

fn is_refused(end: &End) -> bool {
    end.sense == (NOT_READY, SANITIZE_IN_PROGRESS)
}

/// A house with clients on all of its cores.
fn inhabited(mut house: House, dice: &mut Dice, clients: u64, cores: u16) -> House {
    for client in 0..clients {
        house.connect((client % u64::from(cores)) as u16, random_parameters(dice));
    }
    house.clear_attentions();
    house
}

/// Tests the unit until it is ready.
fn wait_for_the_end(house: &mut House) -> usize {
    let mut patience = Patience::new(house);
    let mut refused = 0;
    loop {
        assert!(patience.lasts(house), "it has no end");
        let client = (0..house.clients.len()).find(|client| house.clients[*client].is_open()).expect("a session");
        let test = house.clients[client].submit(&Command::none(cdb::test_unit_ready()), Vec::new());
        let end = loop {
            assert!(patience.lasts(house), "no answer");
            let found = house.step().into_iter().find_map(|said| match said {
                (from, Said::Ended(end)) if (from, end.task) == (client, test) => Some(end),
                _ => None,
            });
            if let Some(end) = found {
                break end;
            }
        };
        if end.status == GOOD {
            return refused;
        }
        refused += usize::from(is_refused(&end));
        assert!(is_refused(&end) || end.is_attention(), "{end:?}");
    }
}

fn sanitize(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let bytes = dice.pick(&[1 << 20, 5 << 20, (3 << 20) + 512]);
    let volume = Volume { alignment: dice.pick(&[1, 512]), depth: dice.pick(&[1, 2, 16]), ..Volume::new(bytes) };
    let mut blueprint = Blueprint::new(vec![volume]);
    blueprint.cores = dice.pick(&[1, 2, 3]);
    blueprint.conduct = random_conduct(&mut dice);
    let clients = dice.between(1, 4);
    let house = House::new(seed, &blueprint);
    let mut house = inhabited(house, &mut dice, clients, blueprint.cores);

    let (immediate, passes, pattern) = (dice.once_in(2), dice.between(1, 3) as u8, dice.below(255) as u8 + 1);
    let (cdb, list) = overwrite(immediate, passes, pattern);
    let mut busy: HashMap<(usize, Handle), ()> = HashMap::new();
    let mut asked: Option<(usize, Handle)> = None;
    let (mut accepted, mut over) = (false, false);
    let mut refused = 0;
    let mut disturbances = 0;
    let before = dice.below(60);
    let restarts = dice.once_in(2);
    let steps = before + dice.between(1, 200);
    for step in 0..steps {
        let client = dice.below(clients) as usize;
        if house.clients[client].is_open() && busy.len() < 12 {
            let sectors = dice.pick(&[1, 8, 300, 1200]);
            let start = dice.below(bytes / SECTOR as u64 - sectors + 1);
            let length = sectors as usize * SECTOR;
            let command = Command::write(cdb::write_16(start, sectors as u32), length as u32);
            let task = house.clients[client].submit(&command, vec![0; length]);
            busy.insert((client, task), ());
        }
        if step == before && house.clients[client].is_open() {
            let command = Command::write(cdb, list.len() as u32);
            asked = Some((client, house.clients[client].submit(&command, list.clone())));
        }
        if accepted && disturbances < 2 && dice.once_in(20) {
            disturbances += 1;
            // None of it has to do with what the unit does by itself.
            let function = if dice.once_in(2) {
                TaskManagementFunction::LogicalUnitReset
            } else {
                TaskManagementFunction::AbortTaskSet
            };
            if house.clients[client].is_open() {
                house.clients[client].manage(function, lun(0), None);
                busy.retain(|(of, _), ()| *of != client && function == TaskManagementFunction::AbortTaskSet);
                if asked.is_some_and(|(of, _)| of == client || function == TaskManagementFunction::LogicalUnitReset) {
                    asked = None;
                }
            }
        }
        for (client, said) in house.step() {
            match said {
                Said::Ended(end) => {
                    busy.remove(&(client, end.task));
                    if asked == Some((client, end.task)) {
                        if end.status == GOOD {
                            (accepted, over, asked) = (true, !immediate, None);
                        } else {
                            assert!(end.is_attention() || end.status == TASK_SET_FULL, "{end:?}");
                            asked = None;
                        }
                    } else if is_refused(&end) {
                        // Somebody was told: it has begun.
                        (accepted, refused) = (true, refused + 1);
                    } else if end.sense == CAME_AT_A_BAD_TIME {
                        accepted = true;
                    } else {
                        assert!(matches!(end.status, GOOD | TASK_SET_FULL) || end.is_attention(), "{end:?}");
                    }
                }
                Said::Management(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    if !accepted || over {
        // It has ended, and zeroes may have come after it; or was never heard of.
        return refused;
    }
    if dice.once_in(4) {
        // What isn't done rests when the cores are drained.
        house.close();
        return refused;
    }
    if restarts && immediate {
        house.world.power_cut();
        let House { world, files, .. } = house;
        house = inhabited(House::on(world, files, seed, &blueprint), &mut dice, clients, blueprint.cores);
    }
    let heard = wait_for_the_end(&mut house);
    refused += heard;
    // Nobody has written since the restart.
    if restarts && immediate && heard > 0 {
        let is = house.files[0].contents(0..bytes);
        let wrong = is.iter().filter(|byte| **byte != pattern).count();
        assert_eq!(wrong, 0, "of {bytes} bytes");
    }
    house.close();
    refused
}

#[test]
fn a_sanitize_goes_on_whatever_happens_around_it() {
    let mut refused = 0;
    let all = seeds("a_sanitize_goes_on_whatever_happens_around_it", 150, |seed| refused += sanitize(seed));
    println!("{refused} commands were refused meanwhile");
    assert!(!all || refused > 100, "hardly anybody noticed: {refused}");
}
