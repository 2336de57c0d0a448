//! A file volume that is sent from the page cache: bytes, what takes pages away, and a file that is cut from outside.

use initiator::{Command, DigestChoice, cdb};
use ringlun_tests::{Client, Setup, Target, client::options, wait};
use std::fs::OpenOptions;

const MIB: u64 = 1 << 20;
const BLOCKS: u64 = 16 * MIB / 512;

fn setup() -> Setup {
    Setup::new(
        "[[volume]]\nname = \"p\"\nstore = { kind = \"file\", path = \"$DIR/p.img\", size = \"16MiB\", pinned = \"16MiB\" }\n",
    )
    .server("cores = [0, 1]")
}

fn filled(target: Target) -> (Target, Client) {
    let mut client = target.client("p");
    for at in 0..64 {
        client.write(at * BLOCKS / 64, &vec![at as u8 + 1; 256 << 10], 512);
    }
    (target, client)
}

/// A target with a file that is all locked.
fn warmed(setup: Setup) -> (Target, Client) {
    let (target, mut client) = filled(setup.start());
    warm(&target, &mut client, 16 * MIB);
    (target, client)
}

/// Reads until the target has locked all of the file, or at least so many bytes.
fn warm(target: &Target, client: &mut Client, least: u64) {
    wait::until(wait::SOON, "locked", || {
        for at in 0..64 {
            client.read(at * BLOCKS / 64, 8, 512);
        }
        (target.memory("VmLck") >= least).then_some(())
    });
}

#[test]
fn what_is_sent_from_the_page_cache_is_what_was_written() {
    let (target, mut client) = warmed(setup());
    let mut other = target.client("p");
    for round in 0..50u64 {
        let (at, length) = (round * 613 % (BLOCKS - 256), 1 + round as u32 * 5 % 128);
        let data: Vec<u8> = (0..length as usize * 512).map(|n| (n as u64 * 7 + round) as u8).collect();
        client.write(at, &data, 512);
        assert!(other.read(at, length, 512) == data && client.read(at, length, 512) == data, "round {round}");
    }
    // Under a digest it has to stand still: it is read.
    let mut digests = options(&target.name("p"));
    digests.settings.data_digest = DigestChoice::Require;
    let mut digested = target.log_in(digests).expect("a login");
    digested.settle();
    client.write(100, &[0x5a; 4096], 512);
    assert_eq!(digested.read(100, 8, 512), [0x5a; 4096]);
    target.end();
}

#[test]
fn unmapped_blocks_are_zeroes_and_come_back_to_memory() {
    let (target, mut client) = warmed(setup());
    let parameters = cdb::unmap_parameters(&[(BLOCKS / 2, 8192)]);
    client.send(cdb::unmap(false, parameters.len() as u16), &parameters).good();
    assert!(target.memory("VmLck") <= 12 * MIB, "what is unmapped stays locked");
    assert!(client.read(BLOCKS / 2, 128, 512).iter().all(|byte| *byte == 0));
    assert_eq!(client.read(BLOCKS / 2 - 8, 16, 512), [[32; 4096], [0; 4096]].concat());
    warm(&target, &mut client, 16 * MIB);
    assert!(client.read(BLOCKS / 2, 128, 512).iter().all(|byte| *byte == 0));
    client.write(BLOCKS / 2, &[7; 4096], 512);
    assert_eq!(client.read(BLOCKS / 2, 8, 512), [7; 4096]);
    target.end();
}

#[test]
fn a_file_that_somebody_cuts_costs_a_connection_and_no_more() {
    for sends in ["zero_copy = 0", "zero_copy = \"4KiB\""] {
        let (target, mut client) = warmed(setup().server(sends));
        OpenOptions::new().write(true).open(target.folder().join("p.img")).unwrap().set_len(8 * MIB).unwrap();
        let read = |client: &mut Client, lba| client.try_run(&Command::read(cdb::read_16(lba, 8), 4096), &[]);
        assert!(read(&mut client, BLOCKS - 64).is_err(), "what the kernel can't read was sent");
        wait::until(wait::SOON, sends, || target.log().contains("a file was cut").then_some(()));
        let mut client = target.client("p");
        let done = read(&mut client, BLOCKS - 64).expect("the second time it is a plain error");
        assert_eq!(done.sense(), Some((3, 0x11, 0)));
        assert_eq!(read(&mut client, 0).expect("the rest is there").good(), [1; 4096]);
        target.end();
    }
}

/// Without the right to lock as much as it likes, if this has it.
fn bound(limit: &str) -> Setup {
    let mut words = vec!["prlimit", limit];
    if rustix::process::geteuid().is_root() {
        words.splice(0..0, ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]);
    }
    setup().under(&words)
}

#[test]
fn who_may_not_lock_so_much_is_told_the_limit_and_served_all_the_same() {
    const LIMIT: u64 = 5 * MIB;
    let (target, mut client) = filled(bound("--memlock=5242880").start());
    let told = |target: &Target| target.log().matches("5242880 bytes").count();
    assert_eq!(told(&target), 1, "at the start: {}", target.log());
    wait::until(wait::SOON, "told again", || {
        for at in 0..64 {
            assert_eq!(client.read(at * BLOCKS / 64, 8, 512), [at as u8 + 1; 4096]);
        }
        (told(&target) >= 2).then_some(())
    });
    let log = target.log();
    assert!(log.contains("RLIMIT_MEMLOCK") && log.contains("ulimit -l") && log.contains("p.img"), "{log}");
    assert!(target.memory("VmLck") <= LIMIT);
    client.write(8, &[0x77; 4096], 512);
    assert_eq!(client.read(8, 8, 512), [0x77; 4096]);
    target.end();
}

#[test]
fn a_low_soft_limit_is_raised() {
    // Less than one chunk.
    let (target, mut client) = filled(bound("--memlock=65536:").start());
    warm(&target, &mut client, 2 * MIB);
    target.end();
}
