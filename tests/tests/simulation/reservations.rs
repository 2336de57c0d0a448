//! Persistent reservations on several cores: PREEMPT AND ABORT means what it says, and APTPL outlives a power cut.

use crate::{
    client::{CHECK_CONDITION, End, GOOD, Said, UNIT_ATTENTION},
    dice::{Dice, mix, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use initiator::{Command, Handle, cdb};
use std::sync::atomic::Ordering;

const SECTOR: u64 = 512;
const BYTES: u64 = 64 << 10;
const CONFLICT: u8 = 0x18;
const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const PREEMPT_AND_ABORT: u8 = 5;
const WRITE_EXCLUSIVE: u8 = 1;

fn reserve_out(house: &mut House, client: usize, action: u8, key: u64, action_key: u64, aptpl: bool) -> Handle {
    let mut list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    list[20] = u8::from(aptpl);
    let command = Command::write(cdb::persistent_reserve_out(action, WRITE_EXCLUSIVE, 24), 24);
    house.clients[client].submit(&command, list)
}

/// Carries out a command alone; gives its end.
fn run(house: &mut House, client: usize, task: Handle) -> End {
    let mut patience = Patience::new(house);
    loop {
        assert!(patience.lasts(house), "a command has no end");
        for (number, said) in house.step() {
            match said {
                Said::Ended(end) if number == client && end.task == task => return end,
                _ => (),
            }
        }
    }
}

fn ready(house: &mut House, client: usize) -> End {
    let task = house.clients[client].submit(&Command::none(cdb::test_unit_ready()), Vec::new());
    run(house, client, task)
}

fn write(house: &mut House, client: usize, sector: u64, sectors: u64, id: u64) -> Handle {
    let bytes = sectors * SECTOR;
    let data = mix(id).to_le_bytes().repeat(bytes as usize / 8);
    house.clients[client].submit(&Command::write(cdb::write_16(sector, sectors as u32), bytes as u32), data)
}

/// Hosts 0 and 1 are registered, and host 1 holds Write Exclusive.
fn reserved(seed: u64, dice: &mut Dice, blueprint: &Blueprint) -> House {
    let mut house = House::new(seed, blueprint);
    for _ in 0..2 {
        let core = dice.below(u64::from(blueprint.cores)) as u16;
        house.connect(core, random_parameters(dice));
    }
    house.clear_attentions();
    for client in 0..2 {
        let task = reserve_out(&mut house, client, REGISTER, 0, 0xA0 + client as u64, true);
        assert_eq!(run(&mut house, client, task).status, GOOD);
    }
    let task = reserve_out(&mut house, 1, RESERVE, 0xA1, 0, false);
    assert_eq!(run(&mut house, 1, task).status, GOOD);
    house
}

fn blueprint(dice: &mut Dice) -> Blueprint {
    let volume = Volume { alignment: dice.pick(&[1, 512, 4096]), depth: dice.pick(&[2, 32]), ..Volume::new(BYTES) };
    let mut blueprint = Blueprint::new(vec![volume]);
    blueprint.cores = dice.pick(&[1, 2, 2, 3]);
    blueprint.conduct = random_conduct(dice);
    blueprint
}

/// Gives whether tasks were aborted.
fn preemption(seed: u64) -> bool {
    let mut dice = Dice::new(seed);
    let blueprint = blueprint(&mut dice);
    let mut house = reserved(seed, &mut dice, &blueprint);
    let stalled = dice.once_in(2);
    if stalled {
        house.files[0].stall();
    }
    let mut open: Vec<Handle> = (0..dice.between(1, 12))
        .map(|id| {
            let sectors = dice.between(1, 24);
            let sector = dice.below(BYTES / SECTOR - sectors + 1);
            write(&mut house, 1, sector, sectors, id + 1)
        })
        .collect();
    let before = dice.below(40);
    let mut heard = Vec::new();
    let mut hear = |house: &mut House, open: &mut Vec<Handle>, preempt: Option<Handle>| {
        let mut done = false;
        for (client, said) in house.step() {
            let Said::Ended(end) = said else { continue };
            match client {
                0 => {
                    assert_eq!((Some(end.task), end.status), (preempt, GOOD), "{end:?}");
                    done = true;
                }
                _ => {
                    // What had not passed the check yet is refused.
                    assert!(end.status == GOOD || end.status == CONFLICT || end.is_attention(), "{end:?}");
                    open.retain(|task| *task != end.task);
                    heard.extend(end.is_attention().then_some(end.sense.1));
                }
            }
        }
        done
    };
    for _ in 0..before {
        hear(&mut house, &mut open, None);
    }
    let preempt = Some(reserve_out(&mut house, 0, PREEMPT_AND_ABORT, 0xA0, 0xA1, false));
    let mut patience = Patience::new(&house);
    let mut steps = 0;
    while !hear(&mut house, &mut open, preempt) {
        assert!(patience.lasts(&house), "PREEMPT AND ABORT has no end");
        steps += 1;
        if stalled && steps == 300 {
            house.files[0].release();
        }
    }
    assert!(house.files[0].held_up() == 0 || !stalled, "it was answered while I/O of the preempted host was under way");
    house.files[0].release();
    // Nothing of what was aborted comes to the disk any more, and nothing of it is answered; what had not begun is refused.
    let is = house.files[0].contents(0..BYTES);
    for _ in 0..300 {
        hear(&mut house, &mut open, None);
    }
    assert!(house.files[0].contents(0..BYTES) == is, "an aborted write came late");
    let aborted = !open.is_empty();
    for task in open {
        house.clients[1].forget(task);
    }
    loop {
        let end = ready(&mut house, 1);
        if end.status == GOOD {
            break;
        }
        assert!(end.status == CHECK_CONDITION && end.sense.0 == UNIT_ATTENTION, "{end:?}");
        heard.push(end.sense.1);
    }
    assert!(!aborted || heard.contains(&0x2F00), "COMMANDS CLEARED BY ANOTHER INITIATOR: {heard:04x?}");
    let task = write(&mut house, 1, 0, 1, 99);
    assert_eq!(run(&mut house, 1, task).status, CONFLICT);
    let task = write(&mut house, 0, 0, 1, 100);
    assert_eq!(run(&mut house, 0, task).status, GOOD);
    house.close();
    aborted
}

#[test]
fn preempt_and_abort_ends_the_tasks_of_the_preempted_on_every_core() {
    let mut aborted = 0;
    let all = seeds("preempt_and_abort_ends_the_tasks_of_the_preempted_on_every_core", 200, |seed| {
        aborted += u32::from(preemption(seed));
    });
    assert!(!all || aborted > 20, "hardly ever was anything aborted");
}

fn power_cut(seed: u64) {
    let mut dice = Dice::new(seed);
    let blueprint = blueprint(&mut dice);
    let mut house = reserved(seed, &mut dice, &blueprint);
    // What can't be saved is no more after it than before.
    blueprint.shelf.broken.store(true, Ordering::Relaxed);
    let task = reserve_out(&mut house, 0, PREEMPT_AND_ABORT, 0xA0, 0xA1, false);
    let end = run(&mut house, 0, task);
    assert_eq!((end.status, end.sense), (CHECK_CONDITION, (4, 0x4400)));
    blueprint.shelf.broken.store(false, Ordering::Relaxed);
    // One is under way when the power fails: it has happened, or not.
    let under_way = dice.once_in(2).then(|| reserve_out(&mut house, 0, PREEMPT_AND_ABORT, 0xA0, 0xA1, false));
    let mut answered = false;
    for _ in 0..dice.below(60) {
        for (client, said) in house.step() {
            answered |= client == 0 && matches!(said, Said::Ended(end) if Some(end.task) == under_way);
        }
    }
    house.world.power_cut();
    drop(house);
    let mut house = House::new(seed, &blueprint);
    for _ in 0..2 {
        let core = dice.below(u64::from(blueprint.cores)) as u16;
        house.connect(core, random_parameters(&mut dice));
    }
    house.clear_attentions();
    let writes: Vec<u8> = (0..2)
        .map(|client| {
            let task = write(&mut house, client, 0, 1, 1);
            run(&mut house, client, task).status
        })
        .collect();
    let possible: &[[u8; 2]] = match (under_way, answered) {
        (None, _) => &[[CONFLICT, GOOD]],
        (Some(_), true) => &[[GOOD, CONFLICT]],
        (Some(_), false) => &[[CONFLICT, GOOD], [GOOD, CONFLICT]],
    };
    assert!(possible.iter().any(|p| p[..] == writes), "{writes:02x?}");
    house.close();
}

#[test]
fn a_kept_reservation_outlives_a_power_cut() {
    seeds("a_kept_reservation_outlives_a_power_cut", 100, power_cut);
}
