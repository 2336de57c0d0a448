//! Third-party copies between volumes, on several cores, with writes beside them, stores that stall, and aborts in the
//! middle: the data is what a model says, and nothing stays behind.

use crate::{
    client::{GOOD, Said},
    dice::{Dice, mix, seeds},
    house::{House, Patience},
};
use initiator::{Command, Handle, cdb, lun};
use scsi::Identity;
use std::ops::Range;
use wire::{TaskManagementFunction, TaskManagementResult};

const SECTOR: usize = 512;
/// Bytes of each volume that belong to each client.
const OWN: u64 = 512 << 10;

/// What a client waits for.
enum Waits {
    Nothing,
    /// The end of a command that changes this range of a volume to these bytes.
    Command {
        task: Handle,
        to: u64,
        volume: usize,
        range: Range<u64>,
        becomes: Vec<u8>,
    },
    /// The end of an abort; the range may hold anything by then.
    Abort {
        task: Handle,
        ended: bool,
        volume: usize,
        range: Range<u64>,
    },
}

fn stamp(id: u64, length: usize) -> Vec<u8> {
    (0..length as u64 / 8).flat_map(|n| mix(id << 32 | n).to_le_bytes()).collect()
}

/// A LID1 parameter list with one segment, without identifier.
pub fn parameter_list(source: usize, target: usize, sectors: u16, from: u64, to: u64) -> Vec<u8> {
    let mut list = vec![0, 0x18, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    for volume in [source, target] {
        let mut descriptor = [0; 32];
        descriptor[0] = 0xe4;
        descriptor[4..8].copy_from_slice(&[1, 3, 0, 8]);
        let identity = Identity::from_name(&format!("iqn.2026-01.io.ringlun:v{volume}"));
        descriptor[8..16].copy_from_slice(&identity.naa.to_be_bytes());
        list.extend(descriptor);
    }
    list.extend([0x02, 0, 0, 0x18, 0, 0, 0, 1, 0, 0]);
    list.extend(sectors.to_be_bytes());
    list.extend(from.to_be_bytes());
    list.extend(to.to_be_bytes());
    list
}

fn copies(seed: u64) -> [usize; 2] {
    let mut dice = Dice::new(seed);
    let clients = dice.between(1, 4);
    let mut house = House::pair(seed, &mut dice, clients * OWN, clients);
    let mut model: Vec<Vec<u8>> = (0..2).map(|volume| stamp(seed ^ volume, (clients * OWN) as usize)).collect();
    for (file, bytes) in house.files.iter().zip(&model) {
        file.fill(0, bytes);
    }
    let mut waits: Vec<Waits> = (0..clients).map(|_| Waits::Nothing).collect();
    let (mut left, mut ids, mut done) = (60, 0, [0; 2]);
    let mut patience = Patience::new(&house);
    while left > 0 || waits.iter().any(|wait| !matches!(wait, Waits::Nothing)) {
        assert!(patience.lasts(&house), "something has no end");
        for (client, waits) in waits.iter_mut().enumerate() {
            let own = client as u64 * OWN;
            match waits {
                Waits::Nothing if left > 0 && house.clients[client].is_open() => {
                    left -= 1;
                    ids += 1;
                    let most = OWN / SECTOR as u64;
                    let sectors = if dice.once_in(3) { dice.between(1, 9) } else { dice.between(1, most) };
                    let place = |dice: &mut Dice| own / SECTOR as u64 + dice.below(most - sectors + 1);
                    let (from, to) = (place(&mut dice), place(&mut dice));
                    let (source, target) = (dice.below(2) as usize, dice.below(2) as usize);
                    let bytes = |lba: u64| lba * SECTOR as u64..(lba + sectors) * SECTOR as u64;
                    let range = bytes(to);
                    let of = |range: Range<u64>| range.start as usize..range.end as usize;
                    let unit = lun(if source == target { target } else { dice.below(2) as usize } as u16);
                    let (command, data, becomes) = if dice.once_in(3) {
                        let data = stamp(ids, sectors as usize * SECTOR);
                        let command = Command::write(cdb::write_16(to, sectors as u32), data.len() as u32);
                        (command, data.clone(), data)
                    } else {
                        let list = parameter_list(source, target, sectors as u16, from, to);
                        let mut cdb = [0; 16];
                        (cdb[0], cdb[13]) = (0x83, list.len() as u8);
                        let command = Command::write(cdb, list.len() as u32);
                        let becomes = model[source][of(bytes(from))].to_vec();
                        (command, list, becomes)
                    };
                    let write = command.cdb[0] == 0x8a;
                    let unit = if write { lun(target as u16) } else { unit };
                    let task = house.clients[client].submit(&command.to_lun(unit), data);
                    *waits = Waits::Command { task, to: unit, volume: target, range, becomes };
                }
                Waits::Command { task, to, volume, range, .. } if dice.once_in(60) => {
                    let (task, to, volume, range) = (*task, *to, *volume, range.clone());
                    let function = TaskManagementFunction::AbortTask;
                    house.clients[client].manage(function, to, Some(task));
                    *waits = Waits::Abort { task, ended: false, volume, range };
                }
                _ => {}
            }
        }
        if dice.once_in(30) {
            house.files[dice.below(2) as usize].stall();
        }
        if dice.once_in(6) || left == 0 {
            house.files.iter().for_each(|file| file.release());
        }
        for (client, said) in house.step() {
            let settled = match (said, std::mem::replace(&mut waits[client], Waits::Nothing)) {
                (Said::Ended(end), Waits::Command { task, volume, range, becomes, .. }) => {
                    assert_eq!((end.task, end.status), (task, GOOD), "{end:?}");
                    assert!(house.files[volume].contents(range.clone()) == becomes, "what was copied to {range:?}");
                    done[0] += 1;
                    (volume, range)
                }
                // It was faster than its abort.
                (Said::Ended(_), Waits::Abort { task, volume, range, .. }) => {
                    waits[client] = Waits::Abort { task, ended: true, volume, range };
                    continue;
                }
                (Said::Management(_, result), Waits::Abort { task, ended, volume, range }) => {
                    if !ended {
                        house.clients[client].forget(task);
                    }
                    let ended = [TaskManagementResult::Complete, TaskManagementResult::TaskDoesNotExist];
                    assert!(ended.contains(&result), "{result:?}");
                    done[1] += 1;
                    (volume, range)
                }
                (other, _) => panic!("{other:?}"),
            };
            let (volume, range) = settled;
            let is = house.files[volume].contents(range.clone());
            model[volume][range.start as usize..range.end as usize].copy_from_slice(&is);
        }
    }
    for (file, model) in house.files.iter().zip(&model) {
        assert!(file.contents(0..clients * OWN) == *model, "something else was changed");
    }
    house.close();
    done
}

#[test]
fn copies_between_volumes_are_exact_and_can_be_aborted() {
    let mut done = [0; 2];
    let all = seeds("copies_between_volumes_are_exact_and_can_be_aborted", 120, |seed| {
        let [copied, aborted] = copies(seed);
        done = [done[0] + copied, done[1] + aborted];
    });
    println!("{} ended, {} aborted", done[0], done[1]);
    assert!(!all || done[1] > 50, "hardly anything was aborted: {}", done[1]);
}
