//! Saved mode pages over lost power: what was acknowledged holds in the next life, from its first write on.

use crate::{
    client::{CHECK_CONDITION, End, GOOD, Said},
    dice::{Dice, mix, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use initiator::{Command, Handle, cdb};
use std::sync::atomic::Ordering;

const SECTOR: u64 = 512;
const BYTES: u64 = 64 << 10;

fn run(house: &mut House, task: Handle) -> End {
    let mut patience = Patience::new(house);
    loop {
        assert!(patience.lasts(house), "a command has no end");
        for (_, said) in house.step() {
            if let Said::Ended(end) = said
                && end.task == task
            {
                return end;
            }
        }
    }
}

/// MODE SELECT with SP: no write cache.
fn select(house: &mut House) -> Handle {
    let list = [&[0; 4][..], &[0x08, 18], &[0; 18]].concat();
    let command = Command::write(cdb::mode_select_6(true, list.len() as u8), list.len() as u32);
    house.clients[0].submit(&command, list)
}

/// WCE, of current or saved values.
fn write_cache(house: &mut House, saved: bool) -> bool {
    let command = Command::read(cdb::mode_sense_6(if saved { 3 } else { 0 }, 0x08, 0, 255), 255);
    let task = house.clients[0].submit(&command, Vec::new());
    let end = run(house, task);
    assert_eq!(end.status, GOOD, "{:?}", end.sense);
    end.data[12 + 2] & 0x04 != 0
}

fn connect(house: &mut House, dice: &mut Dice, cores: u16) {
    house.connect(dice.below(u64::from(cores)) as u16, random_parameters(dice));
    house.clear_attentions();
}

/// Gives whether the page was saved.
fn power_cut(seed: u64) -> bool {
    let mut dice = Dice::new(seed);
    let volume = Volume { alignment: dice.pick(&[1, 512, 4096]), depth: dice.pick(&[2, 32]), ..Volume::new(BYTES) };
    let mut blueprint = Blueprint::new(vec![volume]);
    blueprint.cores = dice.pick(&[1, 2, 3]);
    blueprint.conduct = random_conduct(&mut dice);
    let mut house = House::new(seed, &blueprint);
    connect(&mut house, &mut dice, blueprint.cores);
    // What can't be saved is no more after it than before.
    blueprint.shelf.broken.store(true, Ordering::Relaxed);
    let task = select(&mut house);
    let end = run(&mut house, task);
    assert_eq!((end.status, end.sense), (CHECK_CONDITION, (4, 0x4400)));
    assert!(write_cache(&mut house, false) && write_cache(&mut house, true));
    blueprint.shelf.broken.store(false, Ordering::Relaxed);
    // One is under way when the power fails: it has happened, or not.
    let task = select(&mut house);
    let mut answered = false;
    for _ in 0..dice.below(60) {
        for (_, said) in house.step() {
            answered |= matches!(said, Said::Ended(end) if end.task == task && end.status == GOOD);
        }
    }
    house.world.power_cut();
    let House { world, files, .. } = house;
    let mut house = House::on(world, files, seed, &blueprint);
    connect(&mut house, &mut dice, blueprint.cores);
    let cached = write_cache(&mut house, false);
    assert_eq!(cached, write_cache(&mut house, true));
    assert!(!(answered && cached), "it was acknowledged");
    // Without a cache an answered write is on the disk.
    let data = mix(seed).to_le_bytes().repeat(SECTOR as usize / 8);
    let task = house.clients[0].submit(&Command::write(cdb::write_16(5, 1), SECTOR as u32), data.clone());
    assert_eq!(run(&mut house, task).status, GOOD);
    house.world.power_cut();
    assert!(cached || house.files[0].contents(5 * SECTOR..6 * SECTOR) == data, "an answered write is lost");
    !cached
}

#[test]
fn a_saved_page_outlives_a_power_cut() {
    let mut saved = 0;
    let all = seeds("a_saved_page_outlives_a_power_cut", 200, |seed| saved += u32::from(power_cut(seed)));
    assert!(!all || (20..200).contains(&saved), "{saved} of 200 were saved");
}
