//! Persistent reservations of the real program over kills and restarts.

use initiator::{Command, cdb};
use ringlun_tests::{Client, Setup, Target, client};
use std::fs;

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const PREEMPT: u8 = 4;
const EXCLUSIVE_ACCESS: u8 = 3;
const CONFLICT: u8 = 0x18;
const BLOCK: u32 = 512;

const VOLUMES: &str = "[[volume]]\nname = \"file\"\nstore = { kind = \"file\", path = \"$DIR/file.img\", size = \"4MiB\" }\n\
                       [[volume]]\nname = \"ram\"\nstore = { kind = \"ram\", size = \"4MiB\" }\n";

/// One of two hosts: the same initiator port after each login.
fn host(target: &Target, volume: &str, number: u8) -> Client {
    let name = format!("iqn.2026-01.io.ringlun:host{number}");
    let mut options = client::options(&target.name(volume));
    (options.initiator_name, options.isid) = (name, wire::Isid([0x80, 0, 0, 0, 0, number]));
    let mut client = target.log_in(options).unwrap_or_else(|error| panic!("login to {volume}: {error}"));
    client.settle();
    client
}

fn reserve_out(client: &mut Client, action: u8, key: u64, action_key: u64, aptpl: bool) -> u8 {
    let mut list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    list[20] = u8::from(aptpl);
    client.send(cdb::persistent_reserve_out(action, EXCLUSIVE_ACCESS, 24), &list).status
}

fn write(client: &mut Client) -> u8 {
    client.run(&Command::write(cdb::write_10(0, 1), BLOCK), &[7; BLOCK as usize]).status
}

fn keys(client: &mut Client) -> Vec<u8> {
    client.fetch(cdb::persistent_reserve_in(0, 64), 64).good()
}

#[test]
fn what_was_acknowledged_with_aptpl_holds_after_a_kill_on_every_kind_of_volume() {
    let mut target = Target::start(VOLUMES);
    for volume in ["file", "ram"] {
        let (mut one, mut two) = (host(&target, volume, 1), host(&target, volume, 2));
        assert_eq!(reserve_out(&mut one, REGISTER, 0, 0xA1, true), 0);
        assert_eq!(reserve_out(&mut two, REGISTER, 0, 0xA2, true), 0);
        assert_eq!(reserve_out(&mut one, RESERVE, 0xA1, 0, false), 0);
        assert_eq!(write(&mut two), CONFLICT);
    }
    target.kill();
    target.restart();
    for volume in ["file", "ram"] {
        let (mut one, mut two) = (host(&target, volume, 1), host(&target, volume, 2));
        assert_eq!((write(&mut one), write(&mut two)), (0, CONFLICT), "{volume}");
        assert_eq!(keys(&mut one), [0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xA1, 0, 0, 0, 0, 0, 0, 0, 0xA2]);
        assert_eq!(reserve_out(&mut two, PREEMPT, 0xA2, 0xA1, false), 0);
        assert_eq!(one.settle(), [(0x2A, 0x05)], "REGISTRATIONS PREEMPTED");
        assert_eq!((write(&mut one), write(&mut two)), (CONFLICT, 0), "{volume}");
    }
    target.kill();
    target.restart();
    for volume in ["file", "ram"] {
        let (mut one, mut two) = (host(&target, volume, 1), host(&target, volume, 2));
        assert_eq!((write(&mut one), write(&mut two)), (CONFLICT, 0), "{volume}");
        // Without APTPL it is gone after the next one.
        assert_eq!(reserve_out(&mut two, REGISTER, 0xA2, 0xA2, false), 0);
        assert_eq!(write(&mut one), CONFLICT);
    }
    target.kill();
    target.restart();
    for volume in ["file", "ram"] {
        let (mut one, mut two) = (host(&target, volume, 1), host(&target, volume, 2));
        assert_eq!((write(&mut one), write(&mut two)), (0, 0), "{volume}");
        assert_eq!(keys(&mut one), [0; 8]);
    }
    target.end();
}

#[test]
fn reservations_hold_between_sessions_on_different_cores() {
    let target = Setup::new(VOLUMES).server("cores = [0, 1]").start();
    let mut hosts: Vec<Client> = (1..=4).map(|number| host(&target, "ram", number)).collect();
    for (number, client) in hosts.iter_mut().enumerate() {
        assert_eq!(reserve_out(client, REGISTER, 0, 1 + number as u64, false), 0);
    }
    // Each takes it from the one before.
    assert_eq!(reserve_out(&mut hosts[0], RESERVE, 1, 0, false), 0);
    for holder in 1..4 {
        for (number, client) in hosts.iter_mut().enumerate() {
            client.settle();
            assert_eq!(write(client), if number == holder - 1 { 0 } else { CONFLICT }, "host {number}, {holder}");
        }
        assert_eq!(reserve_out(&mut hosts[holder], 5, holder as u64 + 1, holder as u64, false), 0);
    }
    target.end();
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_served() {
    let mut target = Target::start(VOLUMES);
    let mut one = host(&target, "file", 1);
    assert_eq!(reserve_out(&mut one, REGISTER, 0, 0xA1, true), 0);
    target.kill();
    let record = find_record(target.folder());
    let whole = fs::read(&record).expect("the record");
    fs::write(&record, &whole[..whole.len() / 2]).expect("half of it");
    let output = std::process::Command::new(ringlun_tests::programs::ringlun())
        .args(["serve", "--config"])
        .arg(target.folder().join("ringlun.toml"))
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("unit-") && said.contains("move it away"), "{said}");
    fs::write(&record, &whole).expect("all of it");
    target.restart();
    assert_eq!(keys(&mut host(&target, "file", 1))[8..], 0xA1u64.to_be_bytes());
    target.end();
}

fn find_record(folder: &std::path::Path) -> std::path::PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with("unit-")) {
                return entry;
            }
        }
    }
    panic!("no record of a unit");
}
