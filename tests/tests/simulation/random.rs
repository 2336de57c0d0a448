//! Random commands of one session after another, each with its own parameters, against a plain array of bytes.

use crate::{
    client::{CHECK_CONDITION, End, GOOD, Said},
    dice::{Dice, seeds},
    house::{Blueprint, House, Patience, Volume, random_conduct, random_parameters},
};
use initiator::{Command, Handle, Residual, cdb};
use std::{collections::HashMap, ops::Range};

/// What a command's answer must be.
enum Expected {
    /// These bytes.
    Read(Vec<u8>, Residual),
    /// Done; the model knows it already.
    Done(Residual),
    /// MISCOMPARE.
    Different,
}

struct Asked {
    bytes: Range<u64>,
    writes: bool,
    expected: Expected,
    what: String,
}

struct Model {
    bytes: Vec<u8>,
    block: u64,
    asked: HashMap<Handle, Asked>,
    answered: usize,
}

impl Model {
    /// A range of blocks that nothing in flight forbids.
    fn range(&self, dice: &mut Dice, writes: bool) -> Option<(u64, u64, Range<u64>)> {
        let all = self.bytes.len() as u64 / self.block;
        let most = match dice.below(12) {
            0 => all,
            1..4 => (128 << 10) / self.block,
            _ => 16,
        };
        let blocks = dice.between(1, most.min(all));
        let lba = dice.below(all - blocks + 1);
        let bytes = lba * self.block..(lba + blocks) * self.block;
        let free = |asked: &Asked| {
            !(writes || asked.writes) || bytes.end <= asked.bytes.start || asked.bytes.end <= bytes.start
        };
        self.asked.values().all(free).then_some((lba, blocks, bytes))
    }

    fn put(&mut self, bytes: &Range<u64>, data: &[u8]) {
        let at = bytes.start as usize;
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    fn at(&self, bytes: &Range<u64>) -> &[u8] {
        &self.bytes[bytes.start as usize..bytes.end as usize]
    }

    /// Commands without an answer.
    fn waiting(&self) -> Vec<&str> {
        self.asked.values().map(|asked| asked.what.as_str()).collect()
    }

    fn ended(&mut self, end: &End) {
        let asked = self.asked.remove(&end.task).expect("a command that was sent");
        let what = &asked.what;
        match asked.expected {
            Expected::Read(data, residual) => {
                assert_eq!((end.status, end.residual), (GOOD, residual), "{what}: {:x?}", end.sense);
                assert_eq!(end.data.len(), data.len(), "{what}");
                if let Some(at) = end.data.iter().zip(&data).position(|(is, should)| is != should) {
                    panic!("{what}: byte {at} is {:#x} and should be {:#x}", end.data[at], data[at]);
                }
            }
            Expected::Done(residual) => {
                assert_eq!((end.status, end.residual), (GOOD, residual), "{what}: {:x?}", end.sense);
            }
            Expected::Different => assert_eq!((end.status, end.sense.0), (CHECK_CONDITION, 0x0e), "{what}"),
        }
        self.answered += 1;
    }
}

fn read_cdb(dice: &mut Dice, lba: u64, blocks: u64) -> cdb::Cdb {
    match dice.below(4) {
        0 if blocks <= 256 => cdb::read_6(lba as u32, blocks as u8),
        1 => cdb::read_10(lba as u32, blocks as u16),
        2 => cdb::read_12(lba as u32, blocks as u32),
        _ => cdb::read_16(lba, blocks as u32),
    }
}

fn write_cdb(dice: &mut Dice, lba: u64, blocks: u64) -> cdb::Cdb {
    let plain = match dice.below(6) {
        0 if blocks <= 256 => return cdb::write_6(lba as u32, blocks as u8),
        1 => cdb::write_10(lba as u32, blocks as u16),
        2 => cdb::write_12(lba as u32, blocks as u32),
        3 => return cdb::write_and_verify_16(lba, blocks as u32, dice.pick(&[0, 1])),
        _ => cdb::write_16(lba, blocks as u32),
    };
    if dice.once_in(3) { cdb::with_fua(plain) } else { plain }
}

/// Sends one random command, if its range is free.
fn ask(house: &mut House, model: &mut Model, dice: &mut Dice, compare: bool) {
    let kind = dice.below(20);
    let Some((lba, mut blocks, mut bytes)) = model.range(dice, kind >= 8) else { return };
    let length = bytes.end - bytes.start;
    let block = model.block;
    let client = house.clients.last_mut().expect("a client");
    let (command, data, writes, expected) = match kind {
        0..6 => {
            let cdb = read_cdb(dice, lba, blocks);
            // Sometimes the initiator expects more or less than the command gives.
            let (wanted, residual) = match dice.below(8) {
                0 if length > block => {
                    let wanted = dice.between(1, length - 1);
                    (wanted, Residual::Overflow((length - wanted) as u32))
                }
                1 => (length + 100, Residual::Underflow(100)),
                _ => (length, Residual::None),
            };
            let mut data = model.at(&bytes).to_vec();
            data.truncate(wanted as usize);
            (Command::read(cdb, wanted as u32), Vec::new(), false, Expected::Read(data, residual))
        }
        6 => {
            let data = model.at(&bytes).to_vec();
            let cdb = cdb::verify_16(lba, blocks as u32, 1);
            (Command::write(cdb, length as u32), data, false, Expected::Done(Residual::None))
        }
        7 => {
            let mut data = model.at(&bytes).to_vec();
            let at = dice.below(length) as usize;
            data[at] ^= 1;
            let cdb = cdb::verify_10(lba as u32, blocks as u16, 1);
            (Command::write(cdb, length as u32), data, false, Expected::Different)
        }
        8 => {
            let zero = dice.once_in(2);
            let data = if zero { vec![0; block as usize] } else { dice.bytes(block as usize) };
            let options = cdb::WriteSame { unmap: zero && dice.once_in(2), ..Default::default() };
            let whole = data.repeat(blocks as usize);
            model.put(&bytes, &whole);
            let cdb = cdb::write_same_10(lba as u32, blocks as u16, options);
            (Command::write(cdb, block as u32), data, true, Expected::Done(Residual::None))
        }
        9 => {
            model.put(&bytes, &vec![0; length as usize]);
            let data = cdb::unmap_parameters(&[(lba, blocks as u32)]);
            (Command::write(cdb::unmap(false, 24), 24), data, true, Expected::Done(Residual::None))
        }
        10 if compare => {
            // COMPARE AND WRITE of a few blocks, half of them in vain.
            blocks = blocks.min(dice.between(1, 4));
            bytes.end = bytes.start + blocks * block;
            let size = (blocks * block) as usize;
            let mut data = model.at(&bytes).to_vec();
            data.extend(dice.bytes(size));
            let expected = if dice.once_in(2) {
                data[dice.below(size as u64) as usize] ^= 0x10;
                Expected::Different
            } else {
                let new = data[size..].to_vec();
                model.put(&bytes, &new);
                Expected::Done(Residual::None)
            };
            (Command::write(cdb::compare_and_write(lba, blocks as u8), 2 * size as u32), data, true, expected)
        }
        11 => (Command::none(cdb::synchronize_cache_10(0, 0)), Vec::new(), false, Expected::Done(Residual::None)),
        kind => {
            let cdb = write_cdb(dice, lba, blocks);
            let data = dice.bytes(length as usize);
            let (sent, residual) = match kind {
                12 if length > block => {
                    let sent = dice.between(1, blocks - 1) * block;
                    (sent, Residual::Overflow((length - sent) as u32))
                }
                13 => (length + block, Residual::Underflow(block as u32)),
                _ => (length, Residual::None),
            };
            let taken = sent.min(length) as usize;
            model.put(&bytes, &data[..taken]);
            (Command::write(cdb, sent as u32), data, true, Expected::Done(residual))
        }
    };
    let what = format!("{:02x?} of {} and {} bytes", command.cdb, command.read_length, command.write_length);
    let handle = client.submit(&command, data);
    model.asked.insert(handle, Asked { bytes, writes, expected, what });
}

fn life(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let mut volume = Volume::new(512 << 10);
    volume.alignment = dice.pick(&[1, 512, 4096]);
    volume.block_size = dice.pick(&[512, 512, 4096]);
    volume.depth = dice.pick(&[1, 4, 32]);
    volume.memory = seed.is_multiple_of(3);
    let mut blueprint = Blueprint::new(vec![volume.clone()]);
    blueprint.conduct = random_conduct(&mut dice);
    let mut house = House::new(seed, &blueprint);
    let first = if volume.memory { vec![0; volume.bytes as usize] } else { dice.bytes(volume.bytes as usize) };
    house.files[0].fill(0, &first);
    let block = u64::from(volume.block_size);
    let mut model = Model { bytes: first, block, asked: HashMap::new(), answered: 0 };
    for _ in 0..3 {
        let parameters = random_parameters(&mut dice);
        let client = house.connect(0, parameters);
        house.clear_attentions();
        let compare = supports_compare_and_write(&mut house, block);
        let depth = dice.between(1, 12) as usize;
        for _ in 0..dice.between(10, 40) {
            while house.clients[client].connection.in_flight() < depth && house.clients[client].is_open() {
                let before = model.asked.len();
                ask(&mut house, &mut model, &mut dice, compare);
                if model.asked.len() == before {
                    break;
                }
            }
            let mut patience = Patience::new(&house);
            let before = model.answered;
            while model.answered == before && !model.asked.is_empty() {
                assert!(patience.lasts(&house), "no answer to {:?} with {parameters:?}", model.waiting());
                listen(&mut house, &mut model);
            }
        }
        while !model.asked.is_empty() {
            listen(&mut house, &mut model);
        }
        assert_eq!(house.clients[client].closed, None, "{parameters:?}");
        if dice.once_in(2) {
            house.clients[client].log_out();
            house.until("logout", |_, _, _| (), |house| house.clients[client].closed.is_some());
        } else {
            house.clients[client].peer.close();
            house.clients[client].closed = Some("closed by the test".into());
        }
    }
    let all = 0..volume.bytes;
    assert!(house.contents(0, all) == model.bytes, "the file is not what the model is");
    house.close();
    model.answered
}

fn listen(house: &mut House, model: &mut Model) {
    for (_, said) in house.step() {
        match said {
            Said::Ended(end) => model.ended(&end),
            other => panic!("{other:?}"),
        }
    }
}

/// Asks with a command that changes nothing: 0 blocks.
fn supports_compare_and_write(house: &mut House, _block: u64) -> bool {
    let client = house.clients.len() - 1;
    house.clients[client].submit(&Command::none(cdb::compare_and_write(0, 0)), Vec::new());
    let mut good = false;
    let each = |_: &mut House, _: usize, said: Said| {
        if let Said::Ended(end) = said {
            good = end.status == GOOD;
        }
    };
    house.until("COMPARE AND WRITE of nothing", each, House::is_answered);
    good
}

#[test]
fn what_is_read_is_what_was_written_whatever_was_negotiated() {
    let mut answered = 0;
    seeds("what_is_read_is_what_was_written_whatever_was_negotiated", 150, |seed| answered += life(seed));
    println!("{answered} commands");
}
