//! Copies by tokens through the real program: between volumes of different targets and kinds, on several cores.

use initiator::{Command, cdb};
use ringlun_tests::{Client, Setup, Target};
use std::{thread, time::Duration};

const BLOCK: u32 = 512;
const ILLEGAL: u8 = 5;
const TOKEN: (u8, u8) = (0x23, 0x04);

const VOLUMES: &str = "[[volume]]\nname = \"file\"\nstore = { kind = \"file\", path = \"$DIR/file.img\", size = \"16MiB\" }\n\
                       [[volume]]\nname = \"ram\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n";

fn start() -> Target {
    Setup::new(VOLUMES).server("cores = [0, 1]").start()
}

/// Different bytes in every block.
fn data(id: u64, blocks: u32) -> Vec<u8> {
    (0..u64::from(blocks) * 64).flat_map(|word| (id << 32 | word).to_le_bytes()).collect()
}

fn write(client: &mut Client, lba: u64, id: u64, blocks: u32) {
    let data = data(id, blocks);
    client.run(&Command::write(cdb::write_16(lba, blocks), data.len() as u32), &data).good();
}

fn read(client: &mut Client, lba: u64, blocks: u32) -> Vec<u8> {
    client.fetch(cdb::read_16(lba, blocks), blocks * BLOCK).good()
}

fn token(client: &mut Client, ranges: &[(u64, u32)]) -> [u8; 512] {
    let list = cdb::populate_token_parameters(0, ranges);
    client.send(cdb::populate_token(1, list.len() as u32), &list).good();
    let told = client.fetch(cdb::receive_rod_token_information(1, 1024), 1024).good();
    told[38..].try_into().expect("a token")
}

fn write_using(client: &mut Client, immediate: bool, token: &[u8; 512], ranges: &[(u64, u32)]) -> Option<(u8, u8, u8)> {
    let list = cdb::write_using_token_parameters(immediate, 0, token, ranges);
    let done = client.send(cdb::write_using_token(2, list.len() as u32), &list);
    if done.status == 0 { None } else { Some(done.sense().expect("sense")) }
}

#[test]
fn tokens_are_good_at_every_target_and_core_until_their_blocks_change_or_the_program_ends() {
    let mut target = start();
    // Sessions are spread over the cores.
    let mut files: Vec<Client> = (0..2).map(|_| target.client("file")).collect();
    let mut rams: Vec<Client> = (0..2).map(|_| target.client("ram")).collect();
    write(&mut files[0], 1000, 1, 4096);
    let mut kept = [0; 512];
    for maker in &mut files {
        kept = token(maker, &[(1000, 4096)]);
        for user in 0..2 {
            assert_eq!(write_using(&mut rams[user], false, &kept, &[(64, 4096)]), None);
            assert!(read(&mut rams[1 - user], 64, 4096) == data(1, 4096));
            write(&mut rams[0], 64, 9, 4096);
            assert_eq!(write_using(&mut rams[user], true, &kept, &[(64, 4096)]), None);
            loop {
                let told = rams[user].fetch(cdb::receive_rod_token_information(2, 1024), 1024).good();
                match told[5] {
                    0x12 => thread::sleep(Duration::from_millis(1)),
                    done => break assert_eq!((done, &told[16..24]), (0x01, &4096u64.to_be_bytes()[..])),
                }
            }
            assert!(read(&mut rams[0], 64, 4096) == data(1, 4096));
        }
    }
    let mut forged = kept;
    forged[270] ^= 1;
    let unknown = Some((ILLEGAL, TOKEN.0, TOKEN.1));
    assert_eq!(write_using(&mut rams[0], false, &forged, &[(0, 8)]), unknown);
    // A block beside it changes nothing, one of its own does, whoever writes it.
    write(&mut files[0], 1000 + 4096, 2, 1);
    assert_eq!(write_using(&mut rams[0], false, &kept, &[(0, 8)]), None);
    let fresh = token(&mut rams[0], &[(0, 8)]);
    assert_eq!(write_using(&mut files[1], false, &fresh, &[(1000, 8)]), None);
    assert!(read(&mut files[0], 1000, 8) == data(1, 8));
    assert_eq!(write_using(&mut rams[1], false, &kept, &[(0, 8)]), Some((ILLEGAL, 0x23, 0x08)));
    // Another life has another secret.
    let kept = token(&mut files[0], &[(1000, 8)]);
    target.kill();
    target.restart();
    assert_eq!(write_using(&mut target.client("ram"), false, &kept, &[(0, 8)]), unknown);
    target.end();
}
