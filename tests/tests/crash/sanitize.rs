//! SANITIZE (SBC-4 4.11): once it was accepted it goes on after a restart, nothing can be read before its end, and then
//! nothing old is left. One that was not accepted has either been begun or not.

use crate::{KILLS, kill_within, stamped};
use initiator::{Command, cdb};
use rand::{SeedableRng, rngs::SmallRng};
use ringlun_tests::{Client, Done, End, Target, client::options, wait};

/// How a disk is sanitized.
#[derive(Clone, Copy)]
enum How {
    /// OVERWRITE, with a pattern of so many bytes, in so many passes, of which every other one is inverted.
    Overwrite { length: usize, passes: u8 },
    /// BLOCK ERASE.
    Erase,
}

struct Disk {
    name: &'static str,
    /// Of its `[[volume]]`.
    lines: &'static str,
    block_size: u32,
    mib: u64,
    how: How,
}

/// The rates make each take about a fifth of a second; the store alone would be done too soon to be hit.
const DISKS: [Disk; 4] = [
    Disk {
        name: "buffered",
        lines: "background_rate = \"40MiB\"",
        block_size: 512,
        mib: 8,
        how: How::Overwrite { length: 512, passes: 1 },
    },
    Disk {
        name: "passes",
        lines: "provisioning = \"full\"\nbackground_rate = \"80MiB\"",
        block_size: 4096,
        mib: 8,
        how: How::Overwrite { length: 5, passes: 2 },
    },
    Disk {
        name: "protected",
        lines: "protection = 1\nbackground_rate = \"40MiB\"",
        block_size: 512,
        mib: 8,
        how: How::Overwrite { length: 1, passes: 1 },
    },
    Disk { name: "erased", lines: "background_rate = \"1280MiB\"", block_size: 512, mib: 256, how: How::Erase },
];
/// Microseconds within which it is killed; the shorter time is for its beginning.
const LONGEST: u64 = 300_000;
const SHORTEST: u64 = 8_000;

impl Disk {
    /// What is written before, and looked at afterwards: all of it, or a part of each of the stretches of a large disk.
    /// Protection information takes a little.
    fn stretches(&self) -> impl Iterator<Item = (u64, u32)> {
        let count = if self.lines.contains("protection") { 62 } else { 64 };
        let blocks = (self.mib << 20) / 64 / u64::from(self.block_size);
        let length = blocks.min((256 << 10) / u64::from(self.block_size));
        // The end of the disk is the end of one.
        (1..=count).map(move |number| (number * blocks - length, length as u32))
    }

    /// What it writes in round `round`.
    fn pattern(&self, round: u64) -> Vec<u8> {
        let (length, inverted) = match self.how {
            How::Erase => return vec![0; self.block_size as usize],
            How::Overwrite { length, passes } => (length, passes.is_multiple_of(2)),
        };
        let byte = |at: usize| (round as u8 ^ at as u8 | 0x80) ^ if inverted { 0xff } else { 0 };
        (0..self.block_size as usize).map(|at| byte(at % length)).collect()
    }

    /// SANITIZE (SBC-4 5.36). INVERT makes the last of an even number of passes write the complement.
    fn sanitize(&self, client: &mut Client, round: u64, immediate: bool) -> Result<Done, End> {
        let (action, mut list) = (if matches!(self.how, How::Erase) { 0x02 } else { 0x01 }, Vec::new());
        if let How::Overwrite { length, passes } = self.how {
            list.extend([0x80 | passes, 0]);
            list.extend((length as u16).to_be_bytes());
            let inverted = if passes.is_multiple_of(2) { 0xff } else { 0 };
            list.extend(self.pattern(round)[..length].iter().map(|byte| byte ^ inverted));
        }
        let mut cdb: cdb::Cdb = [0; 16];
        (cdb[0], cdb[1]) = (0x48, u8::from(immediate) << 7 | action);
        cdb[7..9].copy_from_slice(&(list.len() as u16).to_be_bytes());
        client.try_run(&Command::write(cdb, list.len() as u32), &list)
    }
}

/// Reads until the disk can be read. True: it was being sanitized before.
fn until_readable(target: &Target, disk: &Disk, about: &str) -> bool {
    let mut client = target.log_in(options(&target.name(disk.name))).unwrap_or_else(|error| panic!("login: {error}"));
    let mut busy = false;
    wait::until(wait::SOON, "the end of SANITIZE", || {
        let done = client.fetch(cdb::read_16(0, 1), disk.block_size);
        match (done.status, done.sense()) {
            (0, _) => return Some(()),
            (2, Some((0x06, ..))) => {}
            (2, Some((0x02, 0x04, 0x1b))) => busy = true,
            other => panic!("{about}: {other:x?}"),
        }
        None
    });
    busy
}

#[derive(Default, Debug)]
struct Seen {
    not_begun: u64,
    under_way: u64,
    done: u64,
}

#[test]
fn a_kill_amid_sanitize_never_shows_old_data_once_it_was_accepted() {
    let mut text = "[[volume]]\nname = \"bystander\"\n\
                    store = { kind = \"file\", path = \"$DIR/bystander.img\", size = \"1MiB\" }\n"
        .to_owned();
    for Disk { name, lines, block_size, mib, .. } in &DISKS {
        text += &format!(
            "[[volume]]\nname = \"{name}\"\nblock_size = {block_size}\n{lines}\n\
             store = {{ kind = \"file\", path = \"$DIR/{name}.img\", size = \"{mib}MiB\" }}\n"
        );
    }
    let mut target = Target::start(&text);
    let bystander = stamped(0, 2048, 1, 512);
    target.client("bystander").write(0, &bystander, 512);
    let mut dice = SmallRng::seed_from_u64(6);
    let (mut seen, mut kills) = (Seen::default(), 0);
    for round in 0.. {
        if kills >= KILLS {
            break;
        }
        let mut clients = Vec::new();
        for disk in &DISKS {
            let mut client = target.client(disk.name);
            for (lba, blocks) in disk.stretches() {
                client.write(lba, &stamped(lba, blocks, round + 1, disk.block_size as usize), disk.block_size);
            }
            clients.push(client);
        }
        // Half of them answer at once, the others at the end.
        let immediate = |number: usize| (round + number as u64).is_multiple_of(2);
        let answers: Vec<Result<Done, End>> = std::thread::scope(|scope| {
            let asks = clients.iter_mut().zip(&DISKS).enumerate();
            let asked: Vec<_> = asks
                .map(|(number, (client, disk))| scope.spawn(move || disk.sanitize(client, round, immediate(number))))
                .collect();
            kill_within(&mut target, &mut dice, if round % 3 == 0 { SHORTEST } else { LONGEST });
            asked.into_iter().map(|asked| asked.join().expect("a client")).collect()
        });
        kills += 1;
        target.restart();
        if round % 2 == 1 {
            // Once more, in what goes on by itself.
            kill_within(&mut target, &mut dice, LONGEST / 2);
            kills += 1;
            target.restart();
        }
        let about = |disk: &Disk| format!("{}, round {round}", disk.name);
        let busy: Vec<bool> = std::thread::scope(|scope| {
            let target = &target;
            let looks = DISKS.iter().map(|disk| scope.spawn(move || until_readable(target, disk, &about(disk))));
            let looks: Vec<_> = looks.collect();
            looks.into_iter().map(|look| look.join().expect("a client")).collect()
        });
        for (((number, disk), answer), busy) in DISKS.iter().enumerate().zip(&answers).zip(busy) {
            let about = format!("{}, answered {answer:?}", about(disk));
            let accepted = match answer {
                Ok(done) => {
                    assert_eq!(done.status, 0, "{about}");
                    true
                }
                Err(_) => false,
            };
            assert!(!(busy && accepted && !immediate(number)), "{about}: it said that it had ended");
            let (pattern, size) = (disk.pattern(round), disk.block_size as usize);
            let mut client = target.client(disk.name);
            let (mut old, mut new) = (0, 0);
            for (lba, blocks) in disk.stretches() {
                let data = client.read(lba, blocks, disk.block_size);
                if data == stamped(lba, blocks, round + 1, size) {
                    old += 1;
                } else if data.chunks(size).all(|block| block == pattern) {
                    new += 1;
                } else {
                    panic!("{about}, under way {busy}: blocks {lba} to {} are neither", lba + u64::from(blocks));
                }
            }
            assert!(old == 0 || new == 0 && !busy && !accepted, "{about}, under way {busy}: {old} old, {new} new");
            match (busy, old) {
                (true, _) => seen.under_way += 1,
                (_, 0) => seen.done += 1,
                _ => seen.not_begun += 1,
            }
        }
        assert!(target.client("bystander").read(0, 2048, 512) == bystander, "round {round}: another disk has changed");
    }
    println!("{kills} kills: {seen:?}");
    assert!(seen.under_way > 0 && seen.done > 0, "they were killed at the wrong time: {seen:?}");
    target.end();
}
