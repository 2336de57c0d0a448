//! Copies that others put an end to from the side of their target: PREEMPT AND ABORT there, and a SANITIZE of it.

use crate::{
    client::{CHECK_CONDITION, End, GOOD, Said},
    copying::parameter_list,
    dice::{Dice, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use initiator::{Command, Handle, cdb, lun};

const SECTOR: u64 = 512;
const SECTORS: u64 = 2048;
const BYTES: u64 = SECTORS * SECTOR;
const CONFLICT: u8 = 0x18;
/// Who copies, and who doesn't like it.
const COPIER: usize = 0;
const OTHER: usize = 1;

fn run(house: &mut House, client: usize, task: Handle) -> End {
    let mut patience = Patience::new(house);
    loop {
        assert!(patience.lasts(house), "a command has no end");
        let said = house.step();
        assert!(said.len() < 2, "{said:?}");
        if let Some((number, Said::Ended(end))) = said.into_iter().next() {
            assert_eq!((number, end.task), (client, task), "{end:?}");
            return end;
        }
    }
}

fn good(house: &mut House, client: usize, command: &Command<'_>, data: Vec<u8>) -> Vec<u8> {
    let task = house.clients[client].submit(command, data);
    let end = run(house, client, task);
    assert_eq!(end.status, GOOD, "{end:?}");
    end.data
}

fn reserve_out(action: u8, key: u64, action_key: u64) -> (Command<'static>, Vec<u8>) {
    let list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    (Command::write(cdb::persistent_reserve_out(action, 1, 24), 24).to_lun(lun(1)), list)
}

/// Two volumes, the first full of data, and two sessions.
fn house(seed: u64, dice: &mut Dice) -> House {
    let mut volume = || Volume { depth: dice.pick(&[2, 32]), ..Volume::new(BYTES) };
    let mut blueprint = Blueprint::new(vec![volume(), volume()]);
    blueprint.cores = dice.pick(&[1, 2, 3]);
    blueprint.conduct = random_conduct(dice);
    let mut house = House::new(seed, &blueprint);
    for _ in 0..2 {
        house.connect(dice.below(u64::from(blueprint.cores)) as u16, random_parameters(dice));
    }
    house.clear_attentions();
    house.files[0].fill(0, &[0xAB; BYTES as usize]);
    house
}

/// Has all of the first volume copied to the second, in the background or not. Gives a command that has no answer yet.
fn begin_copy(house: &mut House, background: bool) -> Option<Handle> {
    if background {
        let list = cdb::populate_token_parameters(600, &[(0, SECTORS as u32)]);
        let length = list.len() as u32;
        good(house, COPIER, &Command::write(cdb::populate_token(1, length), length), list);
        let data = good(house, COPIER, &Command::read(cdb::receive_rod_token_information(1, 1024), 1024), Vec::new());
        let token = data[38..].first_chunk().expect("a token");
        let list = cdb::write_using_token_parameters(true, 0, token, &[(0, SECTORS as u32)]);
        let length = list.len() as u32;
        good(house, COPIER, &Command::write(cdb::write_using_token(2, length), length).to_lun(lun(1)), list);
        return None;
    }
    let list = parameter_list(0, 1, SECTORS as u16, 0, 0);
    let mut cdb = [0; 16];
    (cdb[0], cdb[13]) = (0x83, list.len() as u8);
    Some(house.clients[COPIER].submit(&Command::write(cdb, list.len() as u32), list))
}

/// Gives whether the copy was under way.
fn preempted(seed: u64) -> bool {
    let mut dice = Dice::new(seed);
    let mut house = house(seed, &mut dice);
    for (client, key) in [(COPIER, 0xC0), (OTHER, 0xD0)] {
        let (command, list) = reserve_out(0, 0, key);
        good(&mut house, client, &command, list);
    }
    let (command, list) = reserve_out(1, 0xC0, 0);
    good(&mut house, COPIER, &command, list);

    let background = dice.once_in(2);
    let stalled = dice.pick(&[0, 1, 1]);
    let mut copy = if background { begin_copy(&mut house, true) } else { None };
    house.files[stalled].stall();
    if !background {
        copy = begin_copy(&mut house, false);
    }
    for _ in 0..dice.below(60) {
        for (_, said) in house.step() {
            assert!(matches!(&said, Said::Ended(end) if Some(end.task) == copy && end.status == GOOD), "{said:?}");
            copy = None;
        }
    }
    let under_way = house.files[stalled].held_up() > 0;
    let (command, list) = reserve_out(5, 0xD0, 0xC0);
    let preempt = house.clients[OTHER].submit(&command, list);
    let mut patience = Patience::new(&house);
    let (mut steps, mut answered) = (0, false);
    while !answered {
        assert!(patience.lasts(&house), "PREEMPT AND ABORT has no end");
        for (client, said) in house.step() {
            let Said::Ended(end) = said else { panic!("{said:?}") };
            if (client, end.task) == (OTHER, preempt) {
                assert_eq!(end.status, GOOD, "{end:?}");
                answered = true;
                assert_eq!(house.files[stalled].held_up(), 0, "I/O of the copy is under way");
            } else {
                // It had ended, or not begun.
                assert!((client, Some(end.task)) == (COPIER, copy) && end.status != GOOD || !under_way, "{end:?}");
                copy = None;
            }
        }
        steps += 1;
        if steps == 300 {
            assert!(!under_way || !answered);
            house.files[stalled].release();
        }
    }
    house.files[stalled].release();
    let is = house.files[1].contents(0..BYTES);
    for _ in 0..300 {
        for (_, said) in house.step() {
            let Said::Ended(end) = said else { panic!("{said:?}") };
            assert!(Some(end.task) == copy && end.status == CHECK_CONDITION, "{end:?}");
            copy = None;
        }
    }
    assert!(house.files[1].contents(0..BYTES) == is, "the copy went on");
    if let Some(copy) = copy {
        house.clients[COPIER].forget(copy);
    }
    // Who was preempted hears of it, and can't begin again.
    let list = cdb::write_using_token_parameters(false, 0, &zero_token(), &[(0, 8)]);
    let length = list.len() as u32;
    let zero = Command::write(cdb::write_using_token(3, length), length).to_lun(lun(1));
    loop {
        let task = house.clients[COPIER].submit(&zero, list.clone());
        let end = run(&mut house, COPIER, task);
        if !end.is_attention() {
            assert_eq!(end.status, CONFLICT, "{end:?}");
            break;
        }
    }
    house.close();
    under_way
}

fn zero_token() -> [u8; 512] {
    let mut token = [0; 512];
    token[..8].copy_from_slice(&[0xFF, 0xFF, 0, 1, 0, 0, 0x01, 0xF8]);
    token
}

#[test]
fn preempt_and_abort_ends_copies_to_its_unit_that_were_begun_at_another() {
    let mut ended = 0;
    let name = "preempt_and_abort_ends_copies_to_its_unit_that_were_begun_at_another";
    let all = seeds(name, 150, |seed| ended += usize::from(preempted(seed)));
    println!("{ended} copies were under way");
    assert!(!all || ended > 60, "hardly any copy was under way: {ended}");
}

/// Gives whether the copy was refused by what its target did.
fn sanitized(seed: u64) -> bool {
    let mut dice = Dice::new(seed);
    let mut house = house(seed, &mut dice);
    let stalled = dice.pick(&[0, 1]);
    house.files[stalled].stall();
    let copy = begin_copy(&mut house, false).expect("in the foreground");
    let mut end = None;
    let mut hear = |house: &mut House| {
        for (client, said) in house.step() {
            match said {
                Said::Ended(ended) if (client, ended.task) == (COPIER, copy) => end = Some(ended),
                Said::Ended(ended) => assert_eq!((client, ended.status), (OTHER, GOOD), "{ended:?}"),
                other => panic!("{other:?}"),
            }
        }
        end.is_some() && house.is_answered()
    };
    for _ in 0..dice.below(60) {
        hear(&mut house);
    }
    // OVERWRITE with one byte, answered at once.
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[8]) = (0x48, 0x81, 5);
    house.clients[OTHER].submit(&Command::write(cdb, 5).to_lun(lun(1)), vec![1, 0, 0, 1, 0x77]);
    for _ in 0..dice.below(200) {
        hear(&mut house);
    }
    house.files[stalled].release();
    let mut patience = Patience::new(&house);
    while !hear(&mut house) {
        assert!(patience.lasts(&house), "the copy has no end");
    }
    let done = || Command::none(cdb::test_unit_ready()).to_lun(lun(1));
    loop {
        assert!(patience.lasts(&house), "the sanitize has no end");
        let task = house.clients[OTHER].submit(&done(), Vec::new());
        if run(&mut house, OTHER, task).status == GOOD {
            break;
        }
    }
    assert!(house.files[1].contents(0..BYTES).iter().all(|byte| *byte == 0x77), "the copy came after it");
    let end = end.expect("it has ended");
    let refused = end.status != GOOD;
    if refused {
        // COPY ABORTED, THIRD PARTY DEVICE FAILURE.
        assert_eq!((end.status, end.sense), (CHECK_CONDITION, (0xA, 0x0D01)));
    }
    house.close();
    refused
}

#[test]
fn a_copy_to_a_unit_that_is_sanitized_is_refused_and_writes_nothing_afterwards() {
    let mut refused = 0;
    let name = "a_copy_to_a_unit_that_is_sanitized_is_refused_and_writes_nothing_afterwards";
    let all = seeds(name, 100, |seed| refused += usize::from(sanitized(seed)));
    println!("{refused} copies were refused");
    assert!(!all || refused > 50, "hardly any copy was refused: {refused}");
}
