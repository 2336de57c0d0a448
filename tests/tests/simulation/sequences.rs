//! Random sequences of block commands from several initiators on several cores equal the model: what is read, who is
//! refused, who is told what.

use crate::{
    client::{End, GOOD, Said},
    dice::{Dice, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
    model::{Abilities, Ask, CACHING, CONTROL, How, Model},
};
use initiator::{Command, Handle, cdb, lun};
use memory::ArenaConfig;
use ringlun_tests::reservations::Order;
use std::collections::HashMap;
use wire::{TaskManagementFunction, TaskManagementResult};

const COMMANDS: usize = 60;

struct Sequence {
    house: House,
    model: Model,
    dice: Dice,
    abilities: Abilities,
}

impl Sequence {
    /// Sends commands, each of another initiator, and waits for all of them.
    fn run(&mut self, asked: &[(usize, Ask)]) -> Vec<End> {
        let mut waiting: HashMap<(usize, Handle), usize> = HashMap::new();
        for (at, (client, ask)) in asked.iter().enumerate() {
            let (command, data) = self.model.command(ask);
            let handle = self.house.clients[*client].submit(&command.to_lun(lun(0)), data);
            waiting.insert((*client, handle), at);
        }
        let mut ends: Vec<Option<End>> = vec![None; asked.len()];
        let mut patience = Patience::new(&self.house);
        while !waiting.is_empty() {
            assert!(patience.lasts(&self.house), "no answer: {asked:x?}");
            for (client, said) in self.house.step() {
                let Said::Ended(end) = said else { panic!("{said:?}") };
                let at = waiting.remove(&(client, end.task)).expect("a command that was sent");
                ends[at] = Some(end);
            }
        }
        ends.into_iter().map(|end| end.expect("its answer")).collect()
    }

    fn reset(&mut self, client: usize) {
        let function = if self.dice.once_in(3) {
            TaskManagementFunction::TargetWarmReset
        } else {
            TaskManagementFunction::LogicalUnitReset
        };
        self.house.clients[client].manage(function, lun(0), None);
        let mut patience = Patience::new(&self.house);
        loop {
            assert!(patience.lasts(&self.house), "no answer to {function}");
            if let Some((of, said)) = self.house.step().pop() {
                let Said::Management(_, result) = said else { panic!("{said:?}") };
                assert_eq!((of, result), (client, TaskManagementResult::Complete));
                break;
            }
        }
        self.model.reset();
    }

    /// A range; now and then one that ends behind the last block.
    fn range(&mut self, most: u64) -> (u64, u32) {
        let all = self.model.blocks();
        let blocks = self.dice.between(1, most.min(all));
        let beyond = if self.dice.once_in(20) { blocks } else { 0 };
        let lba = self.dice.below(all - blocks + 1 + beyond);
        (lba, blocks as u32)
    }

    fn data(&mut self, blocks: u32) -> Vec<u8> {
        let block = self.model.block;
        // Few values, so that comparisons are often right.
        let mut data = Vec::new();
        for _ in 0..blocks {
            let value = self.dice.pick(&[0u8, 0, 0x11, 0x22, 0x5a]);
            data.resize(data.len() + block, value);
        }
        data
    }

    /// What lies there, often; else something else.
    fn present(&mut self, lba: u64, blocks: u32) -> Vec<u8> {
        if lba + u64::from(blocks) > self.model.blocks() || self.dice.once_in(3) {
            return self.data(blocks);
        }
        self.model.at(lba, u64::from(blocks)).to_vec()
    }

    /// A command that moves data.
    fn block_command(&mut self) -> Ask {
        let (lba, blocks) = self.range(16);
        match self.dice.below(16) {
            0..4 => Ask::Read { lba, blocks },
            4..8 => {
                let how = self.dice.pick(&[How::Ten, How::Sixteen, How::Durable, How::Verified]);
                Ask::Write { lba, data: self.data(blocks), how }
            }
            8 => {
                let data = self.data(1);
                let unmap = self.dice.once_in(2);
                Ask::Same { lba, blocks, data, unmap, ten: self.dice.once_in(2) }
            }
            9 => Ask::Zero { lba, blocks, unmap: self.dice.once_in(2) },
            10 | 11 => {
                let (lba, blocks) = self.range(4);
                let expected = self.present(lba, blocks);
                Ask::Swap { lba, expected, new: self.data(blocks) }
            }
            12 if self.abilities.orwrite => Ask::Or { lba, data: self.data(blocks) },
            13 => Ask::Check { lba, blocks },
            _ => Ask::Verify { lba, data: self.present(lba, blocks) },
        }
    }

    fn order(&mut self, client: usize) -> Order {
        let nexuses = self.house.clients.len();
        self.model.reservations.likely_order(client, nexuses, &mut |below| self.dice.below(below))
    }

    /// Any command.
    fn any_command(&mut self, client: usize) -> Ask {
        match self.dice.below(24) {
            0 => Ask::Ready,
            1 => Ask::Sense,
            2 => Ask::Inquiry,
            3 => Ask::Flush,
            4 => Ask::Status { lba: self.range(1).0 },
            // Started more often than stopped.
            5 => Ask::Start(!self.dice.once_in(4)),
            6 => Ask::Prevent(self.dice.once_in(2)),
            7 => Ask::ModeSense { page: self.dice.pick(&[CACHING, CONTROL]) },
            8 => match self.dice.once_in(2) {
                true => Ask::ModeSelect { page: CONTROL, on: self.dice.once_in(4) },
                false => Ask::ModeSelect { page: CACHING, on: self.dice.once_in(2) },
            },
            9 => Ask::Unmap { ranges: (0..1 + self.dice.below(3)).map(|_| self.range(8)).collect() },
            10 if self.abilities.unit_reservations && !self.is_persistent() => {
                if self.dice.once_in(2) {
                    Ask::ReserveUnit
                } else {
                    Ask::ReleaseUnit
                }
            }
            11..16 if self.abilities.persistent_reservations && !self.model.reservations.has_unit_reservation() => {
                match self.dice.below(8) {
                    0 => Ask::ReadKeys,
                    1 => Ask::ReadReservation,
                    _ => Ask::Reserve(self.order(client)),
                }
            }
            _ => self.block_command(),
        }
    }

    /// Somebody is registered: RESERVE(6) keeps out.
    fn is_persistent(&self) -> bool {
        !self.model.reservations.keys().is_empty()
    }

    /// Block commands that leave each other alone, of several initiators at a time.
    fn several(&mut self) -> Vec<(usize, Ask)> {
        let mut asked: Vec<(usize, Ask)> = Vec::new();
        for client in 0..self.house.clients.len() {
            let ask = self.block_command();
            let (lba, blocks, writes) = self.model.touches(&ask).expect("a range");
            let apart = asked.iter().all(|(_, other)| {
                let (from, count, changes) = self.model.touches(other).expect("a range");
                !(writes || changes) || lba + blocks <= from || from + count <= lba
            });
            if apart {
                asked.push((client, ask));
            }
        }
        asked
    }

    fn next(&mut self) {
        let client = self.dice.below(self.house.clients.len() as u64) as usize;
        if self.dice.once_in(30) {
            return self.reset(client);
        }
        let asked = match self.dice.once_in(4) {
            true => self.several(),
            false => vec![(client, self.any_command(client))],
        };
        let ends = self.run(&asked);
        for ((client, ask), end) in asked.iter().zip(&ends) {
            self.model.ended(*client, ask, end);
        }
    }
}

/// Asks the unit what it can do, and for its mode pages; unit attentions are read off on the way.
fn prepare(house: &mut House, model: &mut Model) -> Abilities {
    let mut ask = |command: Command<'static>| {
        let handle = house.clients[0].submit(&command.to_lun(lun(0)), Vec::new());
        let mut answer = None;
        let each = |_: &mut House, _: usize, said: Said| {
            if let Said::Ended(end) = said {
                assert_eq!(end.task, handle);
                answer = Some(end);
            }
        };
        house.until("a question", each, House::is_answered);
        answer.expect("an answer")
    };
    let end = ask(Command::none(cdb::test_unit_ready()));
    model.ended(0, &Ask::Ready, &end);
    for (page, kept) in [CACHING, CONTROL].into_iter().zip(&mut model.pages) {
        let end = ask(Command::read(cdb::with_dbd(cdb::mode_sense_10(0, page, 0, 252)), 252));
        assert_eq!(end.status, GOOD);
        *kept = end.data[8..].to_vec();
    }
    let mut has = |opcode: u8| {
        let end = ask(Command::read(cdb::report_supported_operation_codes(false, 1, opcode, 0, 64), 64));
        // An opcode with service actions is refused in this form: it is there.
        end.status != GOOD || end.data[1] & 0x07 == 3
    };
    Abilities { persistent_reservations: has(0x5f), unit_reservations: has(0x16), orwrite: has(0x8b) }
}

fn sequence(seed: u64) -> Abilities {
    let mut dice = Dice::new(seed);
    let block_size = dice.pick(&[512, 512, 4096]);
    let mut volume = Volume::new(u64::from(block_size) * dice.pick(&[32, 100]));
    volume.block_size = block_size;
    volume.alignment = dice.pick(&[1, 512, 4096]);
    let bytes = volume.bytes as usize / 4096 * 4096;
    volume.bytes = bytes as u64;
    volume.memory = seed.is_multiple_of(3);
    let mut blueprint = Blueprint::new(vec![volume]);
    blueprint.cores = dice.pick(&[1, 2, 2, 3]);
    blueprint.conduct = random_conduct(&mut dice);
    blueprint.arena = ArenaConfig { small: 40, medium: 40, large: 8 };
    let mut house = House::new(seed, &blueprint);
    let clients = dice.between(1, 4);
    for client in 0..clients {
        house.connect((client % u64::from(blueprint.cores)) as u16, random_parameters(&mut dice));
    }
    let mut model = Model::new(bytes, block_size as usize, clients as usize);
    let abilities = prepare(&mut house, &mut model);
    let mut sequence = Sequence { house, model, dice, abilities };
    for _ in 0..COMMANDS {
        sequence.next();
    }
    let Sequence { mut house, model, .. } = sequence;
    let all = 0..model.bytes.len() as u64;
    assert!(house.contents(0, all) == model.bytes, "the medium is not as the model");
    house.close();
    abilities
}

#[test]
fn sequences_of_several_initiators_equal_the_model() {
    let mut abilities = Abilities::default();
    seeds("sequences_of_several_initiators_equal_the_model", 2000, |seed| abilities = sequence(seed));
    println!("{abilities:?}");
}
