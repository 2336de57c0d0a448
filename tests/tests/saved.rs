//! What commands change for good, over kills and restarts of the real program: saved mode pages, identifying information,
//! access states of target port groups.

use initiator::cdb;
use ringlun_tests::{Client, Setup};
use std::fs;

const VOLUMES: &str = "[[volume]]\nname = \"file\"\nstore = { kind = \"file\", path = \"$DIR/file.img\", size = \"4MiB\" }\n\
                       [[volume]]\nname = \"ram\"\nstore = { kind = \"ram\", size = \"4MiB\" }\n\
                       [[portal_group]]\ngroup = 1\naccess_state = \"active/optimized\"\n\
                       [[portal_group]]\ngroup = 2\naccess_state = \"active/non-optimized\"\n";
const CHECK_CONDITION: u8 = 2;

fn bytes(parts: &[u8]) -> cdb::Cdb {
    let mut cdb = [0; 16];
    cdb[..parts.len()].copy_from_slice(parts);
    cdb
}

fn page(client: &mut Client, control: u8, page: u8) -> Vec<u8> {
    client.fetch(cdb::mode_sense_6(control, page, 0, 255), 255).good()[12..].to_vec()
}

fn select(client: &mut Client, save: bool, page: &[u8]) -> u8 {
    let list = [&[0; 4], page].concat();
    client.send(cdb::mode_select_6(save, list.len() as u8), &list).status
}

fn information(client: &mut Client) -> Vec<u8> {
    client.fetch(bytes(&[0xA3, 0x05, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), 256).good()[4..].to_vec()
}

/// States of both groups.
fn states(client: &mut Client) -> [u8; 2] {
    let report = client.fetch(cdb::report_target_port_groups(256), 256).good();
    [report[4] & 0x0F, report[4 + 12] & 0x0F]
}

#[test]
fn what_was_acknowledged_holds_after_a_kill_on_every_kind_of_volume() {
    let mut target = Setup::new(VOLUMES).portal("127.0.0.1:0", 1).portal("127.0.0.1:0", 2).start();
    for volume in ["file", "ram"] {
        let mut client = target.client(volume);
        let mut caching = page(&mut client, 0, 0x08);
        assert_eq!((caching[0], caching[2]), (0x88, 4));
        caching[2] = 0;
        assert_eq!(select(&mut client, true, &caching), 0);
        // The control page is changed, and not saved.
        let mut control = page(&mut client, 0, 0x0A);
        control[4] = 8;
        assert_eq!(select(&mut client, false, &control), 0);
        let set = bytes(&[0xA4, 0x06, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
        assert_eq!(client.send(set, b"too").status, CHECK_CONDITION, "too short");
        assert_eq!(client.send(set, b"left").status, 0);
        let set = bytes(&[0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
        assert_eq!(client.send(set, &[0, 0, 0, 0, 2, 0, 0, 2]).status, 0);
        assert_eq!(states(&mut client), [0, 2]);
    }
    for _ in 0..2 {
        target.kill();
        target.restart();
        for volume in ["file", "ram"] {
            let mut client = target.client(volume);
            assert_eq!(page(&mut client, 0, 0x08)[2], 0, "{volume}");
            assert_eq!(page(&mut client, 3, 0x08)[2], 0, "{volume}");
            assert_eq!(page(&mut client, 2, 0x08)[2], 4, "{volume}");
            assert_eq!(page(&mut client, 0, 0x0A)[4], 0, "{volume}");
            assert_eq!(information(&mut client), b"left", "{volume}");
            assert_eq!(states(&mut client), [0, 2], "{volume}");
        }
    }
    target.end();
}

#[test]
fn how_full_a_thin_volume_is_stands_in_its_log_page() {
    let target = Setup::new(VOLUMES).portal("127.0.0.1:0", 1).portal("127.0.0.1:0", 2).start();
    for volume in ["file", "ram"] {
        let mut client = target.client(volume);
        let used = |client: &mut Client| {
            let page = client.fetch(bytes(&[0x4D, 0, 0x4C, 0, 0, 0, 0, 1, 0, 0]), 256).good();
            assert_eq!((page[0], page.len()), (0x8C, 4 + 2 * 12), "{volume}");
            assert_eq!((&page[4..8], &page[16..20]), (&[0, 1, 3, 8][..], &[0, 2, 3, 8][..]));
            u32::from_be_bytes(page[20..24].try_into().expect("a count"))
        };
        let empty = used(&mut client);
        client.write(0, &vec![7; 3 << 20], 512);
        // A file's space is allocated when its data goes to the disk.
        assert_eq!(client.command(cdb::synchronize_cache_10(0, 0)).status, 0);
        assert_eq!(used(&mut client), empty + 3, "{volume}");
    }
    target.end();
}

#[test]
fn a_folder_that_takes_no_file_refuses_the_command_and_nothing_changes() {
    let target = Setup::new(VOLUMES).portal("127.0.0.1:0", 1).portal("127.0.0.1:0", 2).start();
    let mut client = target.client("ram");
    let mut caching = page(&mut client, 0, 0x08);
    caching[2] = 0;
    // Root may write anywhere: so the folder is elsewhere.
    let state = target.folder().join("state");
    let away = target.folder().join("away");
    fs::rename(&state, &away).expect("the state folder");
    assert_eq!(select(&mut client, true, &caching), CHECK_CONDITION);
    assert_eq!((page(&mut client, 0, 0x08)[2], page(&mut client, 3, 0x08)[2]), (4, 4));
    fs::rename(&away, &state).expect("the state folder");
    assert_eq!(select(&mut client, true, &caching), 0);
    assert_eq!((page(&mut client, 0, 0x08)[2], page(&mut client, 3, 0x08)[2]), (0, 0));
    target.end();
}
