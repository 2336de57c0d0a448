//! The configuration read again while the target serves: what comes, goes and changes does so under load, and a file that
//! can't be applied changes nothing.

use initiator::cdb;
use ringlun_tests::{Client, ConnectError, Setup, Target, client::options, programs, wait};
use std::{
    fs::{self, File},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};
use wire::LoginStatus;

const MIB: u64 = 1 << 20;

fn volume(name: &str, more: &str) -> String {
    format!(
        "[[volume]]\nname = \"{name}\"\nexport = false\nstore = {{ kind = \"file\", path = \"$DIR/{name}.img\"{more} }}\n"
    )
}

fn disks(luns: &str) -> String {
    format!("[[target]]\nname = \"disks\"\nluns = [{luns}]\n")
}

fn two() -> String {
    volume("a", ", size = \"8MiB\"") + &volume("b", ", size = \"8MiB\"")
}

const PAIR: &str = "{ lun = 0, volume = \"a\" }, { lun = 1, volume = \"b\" }";
const THREE: &str = "{ lun = 0, volume = \"a\" }, { lun = 1, volume = \"b\" }, { lun = 5, volume = \"c\" }";

/// A session that writes and reads back all the time, and takes nothing but unit attentions.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    fn on(mut client: Client) -> Load {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), rounds.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let round = count.load(Ordering::Relaxed);
                let data = vec![round as u8; 64 << 10];
                let lba = round % 100 * 128;
                loop {
                    let done = client.send(cdb::write_16(lba, 128), &data);
                    match done.sense() {
                        _ if done.status == 0 => break,
                        Some((6, 0x3f, 0x0e) | (6, 0x2a, 0x09)) => {}
                        other => panic!("a write ended with {other:x?}"),
                    }
                }
                loop {
                    let done = client.fetch(cdb::read_16(lba, 128), 64 << 10);
                    match done.sense() {
                        _ if done.status == 0 => break assert!(done.data == data, "not what was written"),
                        Some((6, 0x3f, 0x0e) | (6, 0x2a, 0x09)) => {}
                        other => panic!("a read ended with {other:x?}"),
                    }
                }
                count.store(round + 1, Ordering::Relaxed);
            }
            client.log_out().expect("a logout");
        });
        Load { stop, rounds, thread }
    }

    /// It goes on.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait::until(wait::SOON, "the load goes on", || {
            assert!(!self.thread.is_finished(), "the load has ended");
            (self.rounds.load(Ordering::Relaxed) > before + 3).then_some(())
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load ran well");
    }
}

fn set_length(path: &Path, bytes: u64) {
    File::options().write(true).open(path).and_then(|file| file.set_len(bytes)).expect("the file is there");
}

fn is_locked(path: &Path) -> bool {
    let file = File::open(path).expect("the file is there");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}

fn luns(client: &mut Client) -> Vec<u8> {
    let data = client.fetch(cdb::report_luns(0, 512), 512).good();
    data[8..].as_chunks::<8>().0.iter().map(|lun| lun[1]).collect()
}

#[test]
fn luns_come_grow_and_go_under_load() {
    let mut target = Setup::new(&(two() + &disks(PAIR))).server("cores = [0, 1]").start();
    let load = Load::on(target.client("disks"));
    let mut client = target.client("disks");
    assert_eq!(luns(&mut client), [0, 1]);
    load.goes_on();

    let three = two() + &volume("c", ", size = \"8MiB\"") + &disks(THREE);
    let said = target.reload(&three).success();
    assert!(said.contains("volume `c` added") && said.contains(":disks has other LUNs"), "{said}");
    assert_eq!(client.settle(), [(0x3f, 0x0e)]);
    assert_eq!(luns(&mut client), [0, 1, 5]);
    client = client.at_lun(5);
    client.settle();
    client.write(7, &[0xcc; 512], 512);
    let listed = programs::run("iscsi-ls", ["-s", &format!("iscsi://{}", target.portal())]).success();
    assert!(listed.contains("Lun:5"), "{listed}");
    programs::run("iscsi-inq", [target.uri("disks", 5)]).success();
    load.goes_on();

    // Larger: the file first, then the word in the configuration.
    let file = target.folder().join("c.img");
    set_length(&file, 16 * MIB);
    let larger = three.replace("c.img\", size = \"8MiB\"", "c.img\"");
    let said = target.reload(&larger).success();
    assert!(said.contains("volume `c`: 16 MiB instead of 8 MiB"), "{said}");
    assert_eq!(client.settle(), [(0x2a, 0x09)]);
    assert_eq!(client.capacity(), (16 * MIB / 512, 512));
    client.write(16 * MIB / 512 - 1, &[0xdd; 512], 512);
    assert_eq!(client.read(7, 1, 512), [0xcc; 512]);

    // Smaller: what is beyond is out of range, and the file keeps it.
    let said = target.reload(&three.replace("c.img\", size = \"8MiB\"", "c.img\", size = \"4MiB\"")).success();
    assert!(said.contains("volume `c`: 4 MiB instead of 16 MiB"), "{said}");
    assert_eq!(client.settle(), [(0x2a, 0x09)]);
    let refused = client.fetch(cdb::read_16(4 * MIB / 512, 1), 512);
    assert_eq!(refused.sense(), Some((5, 0x21, 0)));
    assert_eq!(fs::metadata(&file).expect("it is there").len(), 16 * MIB);
    load.goes_on();

    // A LUN and its volume go: the lock too.
    assert!(is_locked(&file));
    let said = target.reload(&(two() + &disks(PAIR))).success();
    assert!(said.contains("volume `c` removed"), "{said}");
    assert!(!is_locked(&file), "nobody holds the file any more");
    let gone = client.fetch(cdb::read_16(0, 1), 512);
    assert_eq!(gone.sense(), Some((5, 0x25, 0)));
    client.lun = 0;
    assert_eq!(client.settle(), [(0x3f, 0x0e)]);
    assert_eq!(luns(&mut client), [0, 1]);
    assert_eq!(target.reload(&(two() + &disks(PAIR))).success(), "done: all is as the file says already\n");
    load.goes_on();

    // It comes again, with what was in it.
    target.reload(&three.replace("c.img\", size = \"8MiB\"", "c.img\"")).success();
    let mut again = target.client("disks").at_lun(5);
    again.settle();
    assert_eq!(again.read(16 * MIB / 512 - 1, 1, 512), [0xdd; 512]);
    load.goes_on();
    load.end();
    target.end();
}

#[test]
fn a_file_that_cannot_be_applied_changes_nothing() {
    let good = two() + &disks(PAIR);
    let mut target = Target::start(&good);
    let mut client = target.client("disks");

    // A mistake: the caller sees it as `ringlun check` shows it, and the log names it when it is asked all the same.
    let broken = good.replace("\"8MiB\"", "\"8MB\"");
    let ended = target.reload(&broken);
    assert!(ended.code == Some(2) && ended.err.contains("8MB"), "{ended:?}");
    target.hang_up();
    target.logged(&["reload", "ringlun.toml:", "size"]);
    target.logged(&["nothing has changed"]);

    // One volume could be opened, another one can't.
    let taken = target.folder().join("taken.img");
    File::create(&taken).and_then(|file| file.set_len(MIB)).expect("a file");
    let lock = File::open(&taken).expect("it is there");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).expect("a lock");
    let more = volume("new", ", size = \"1MiB\"") + &volume("taken", "") + &good;
    let ended = target.reload(&more);
    assert!(ended.code == Some(1) && ended.err.contains("taken.img") && ended.err.contains("in use"), "{ended:?}");
    assert!(!is_locked(&target.folder().join("new.img")), "the one that was opened is closed again");

    // More than there is room for.
    let many: String = (0..20).map(|n| volume(&format!("v{n}"), ", size = \"1MiB\"")).collect();
    let ended = target.reload(&(good.clone() + &many));
    assert!(ended.code == Some(1) && ended.err.contains("max_volumes"), "{ended:?}");

    assert_eq!(client.settle(), [], "nobody was told of anything");
    assert_eq!(luns(&mut client), [0, 1]);
    client.write(0, &[1; 512], 512);
    let log = target.log();
    assert!(!log.contains("panicked"), "{log}");
    target.end();
}

#[test]
fn targets_and_access_rules_change_for_those_who_come() {
    let disk = "[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"1MiB\" }\n";
    let mut target = Target::start(disk);
    let mut old = target.client("disk");
    let rule = "[[volume.access]]\ninitiator = \"iqn.2026-01.io.ringlun:nobody\"\n";
    let other = "[[volume]]\nname = \"other\"\nstore = { kind = \"ram\", size = \"1MiB\" }\n";

    let said = target.reload(&(disk.to_owned() + rule + other)).success();
    assert!(said.contains(":disk has other access rules"), "{said}");
    old.write(1, &[1; 512], 512);
    let refused = target.log_in(options(&target.name("disk")));
    assert!(matches!(status(refused), LoginStatus::AuthorizationFailure));
    let mut new = target.client("other");
    new.write(1, &[2; 512], 512);

    // The target goes, and its sessions with it; others stay.
    let said = target.reload(other).success();
    assert!(said.contains("volume `disk` removed") && said.contains(":disk removed"), "{said}");
    old.until_end();
    assert!(matches!(status(target.log_in(options(&target.name("disk")))), LoginStatus::NotFound));
    assert_eq!(new.read(1, 1, 512), [2; 512]);
    assert_eq!(new.settle(), []);

    // What is settled at start is named.
    let prefix = format!("[[portal]]\naddress = \"127.0.0.2:0\"\n{other}");
    let said = target.reload(&prefix).success();
    assert!(said.contains("[[portal]]") && said.contains("after a restart"), "{said}");
    new.log_out().expect("a logout");
    target.end();
}

#[track_caller]
fn status(result: Result<Client, ConnectError>) -> LoginStatus {
    match result {
        Err(ConnectError::Login(initiator::LoginError::Refused(status))) => status,
        Err(other) => panic!("not refused, but {other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[test]
fn who_reads_the_new_list_of_luns_hears_of_the_change_at_none_of_them() {
    let mut target = Target::start(&(two() + &disks(PAIR)));
    let mut session = target.client("disks").at_lun(1);
    session.settle();
    let three = two() + &volume("c", ", size = \"8MiB\"");
    target.reload(&(three.clone() + &disks(THREE))).success();
    assert_eq!(session.fetch(cdb::report_luns(0, 64), 64).good().len(), 8 + 3 * 8);
    assert_eq!(session.settle(), []);
    let mut session = session.at_lun(0);
    assert_eq!(session.settle(), []);
    // The other way round: it is told at each, until it has read the list.
    target.reload(&(three + &disks(PAIR))).success();
    assert_eq!(session.settle(), [(0x3F, 0x0E)]);
    let mut session = session.at_lun(1);
    assert_eq!(session.settle(), [(0x3F, 0x0E)]);
    target.end();
}

#[test]
fn memory_grows_while_it_is_read_and_written() {
    let memory = |size: &str, more: &str| {
        format!("[[volume]]\nname = \"m\"\nexport = false\nstore = {{ kind = \"ram\", size = \"{size}\"{more} }}\n")
            + &disks("{ lun = 0, volume = \"m\" }")
    };
    for more in ["", ", preallocate = true"] {
        let mut target = Setup::new(&memory("8MiB", more)).server("cores = [0, 1]").start();
        let load = Load::on(target.client("disks"));
        let mut client = target.client("disks");
        client.write(8 * MIB / 512 - 1, &[0xaa; 512], 512);
        let said = target.reload(&memory("40MiB", more)).success();
        assert!(said.contains("volume `m`: 40 MiB instead of 8 MiB"), "{said}");
        assert_eq!(client.settle(), [(0x2a, 0x09)]);
        assert_eq!(client.capacity(), (40 * MIB / 512, 512));
        client.write(40 * MIB / 512 - 1, &[0xbb; 512], 512);
        let around = client.read(8 * MIB / 512 - 1, 2, 512);
        assert_eq!(around, [[0xaa; 512], [0; 512]].concat());
        assert_eq!(client.read(40 * MIB / 512 - 2, 2, 512), [[0; 512], [0xbb; 512]].concat());
        load.goes_on();
        // What no address is kept for is refused, and nothing changes.
        let ended = target.reload(&memory("100TiB", more));
        assert!(ended.code != Some(0), "{}", ended.out);
        let said = format!("{}{}", ended.out, ended.err);
        assert!(said.contains("volume `m`") && said.contains("can't grow beyond"), "{said}");
        assert_eq!(client.capacity(), (40 * MIB / 512, 512));
        load.goes_on();
        load.end();
        target.end();
    }
}

#[test]
fn a_protected_file_keeps_its_size_over_a_reload_and_a_start() {
    let protected = |size: &str| {
        format!(
            "[[volume]]\nname = \"p\"\nprotection = 1\nstore = {{ kind = \"file\", path = \"$DIR/p.img\", size = \"{size}\" }}\n"
        )
    };
    let mut target = Target::start(&protected("8MiB"));
    let mut client = target.client("p");
    client.write(100, &[0x77; 512], 512);
    let capacity = client.capacity();
    set_length(&target.folder().join("p.img"), 16 * MIB);
    let ended = target.reload(&protected("16MiB"));
    let said = format!("{}{}", ended.out, ended.err);
    assert!(said.contains("volume `p`") && said.contains("a new volume"), "{said}");
    assert_eq!((client.capacity(), client.read(100, 1, 512)), (capacity, vec![0x77; 512]));
    target.terminate(wait::SOON);
    let output = std::process::Command::new(programs::ringlun())
        .args(["serve", "--config"])
        .arg(target.folder().join("ringlun.toml"))
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!output.status.success() && said.contains("protection information") && said.contains("old size"), "{said}");
    target.rewrite(&protected("8MiB"));
    target.restart();
    let mut client = target.client("p");
    assert_eq!((client.capacity(), client.read(100, 1, 512)), (capacity, vec![0x77; 512]));
    target.end();
}
