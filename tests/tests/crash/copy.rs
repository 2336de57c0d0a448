//! EXTENDED COPY (SPC-4 6.4): what was acknowledged is there; what was not has left each block old or new; sources and
//! whatever else is on the disks have not changed.

use crate::{KILLS, kill_soon, stamped};
use initiator::{Command, cdb};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use ringlun_tests::{Client, End, Target};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

const SIZE: usize = 512;
/// The disks, by LUN. The third has protection information: what is copied there goes through buffers.
const DISKS: [(&str, bool, &str); 3] =
    [("buffered", false, ""), ("direct", true, ""), ("tuples", false, "protection = 1")];
/// Blocks at the beginning of each disk are copied from.
const SOURCE: u32 = 4096;
/// Of these, every fourth stretch was never written.
const PIECE: u32 = 128;
/// Blocks of a copy.
const STRETCH: u32 = 256;
/// What each copier copies to.
const STRETCHES: u64 = 16;
/// There are some more: tuples take a little of a disk.
const BLOCKS: u64 = (16 << 20) / SIZE as u64;
/// Who copies from where to where.
const ROUTES: [(usize, usize); 6] = [(0, 0), (0, 1), (1, 0), (2, 1), (0, 2), (2, 2)];

/// What the beginning of a disk holds.
fn source(disk: usize) -> Vec<u8> {
    let mut data = stamped(0, SOURCE, disk as u64 + 1, SIZE);
    for hole in data.chunks_mut(PIECE as usize * SIZE).step_by(4) {
        hole.fill(0);
    }
    data
}

/// One who copies to stretches of its own.
struct Copier {
    from: usize,
    to: usize,
    /// Its first block on the destination.
    base: u64,
    /// Where in the source a stretch was copied from, by what was acknowledged; None: it was never copied to.
    holds: [Option<u64>; STRETCHES as usize],
    /// Segments that were not answered: the stretch, and where from.
    open: BTreeMap<u64, u64>,
}

impl Copier {
    fn all() -> Vec<Copier> {
        let bases = (0..).map(|number| u64::from(SOURCE) + number * STRETCHES * u64::from(STRETCH));
        let copier = |(base, (from, to))| {
            let holds = [None; STRETCHES as usize];
            Copier { from, to, base, holds, open: BTreeMap::new() }
        };
        bases.zip(ROUTES).map(copier).collect()
    }

    fn lba(&self, stretch: u64) -> u64 {
        self.base + stretch * u64::from(STRETCH)
    }

    /// EXTENDED COPY(LID1) of the open segments.
    fn command(&self, names: &[Vec<u8>]) -> (cdb::Cdb, Vec<u8>) {
        let mut list = vec![0x01, 0, 0, 64, 0, 0, 0, 0];
        list.extend((self.open.len() as u32 * 28).to_be_bytes());
        list.extend([0; 4]);
        for disk in [self.from, self.to] {
            let at = list.len();
            list.extend([0xe4, 0, 0, 0]);
            list.extend(&names[disk]);
            list.resize(at + 28, 0);
            list.extend([0, 0, 2, 0]);
        }
        for (stretch, from) in &self.open {
            list.extend([0x02, 0, 0, 24, 0, 0, 0, 1, 0, 0]);
            list.extend((STRETCH as u16).to_be_bytes());
            list.extend(from.to_be_bytes());
            list.extend(self.lba(*stretch).to_be_bytes());
        }
        let mut cdb: cdb::Cdb = [0; 16];
        cdb[0] = 0x83;
        cdb[10..14].copy_from_slice(&(list.len() as u32).to_be_bytes());
        (cdb, list)
    }

    /// Sends the open segments; true: they are acknowledged.
    fn copy(&mut self, client: &mut Client, names: &[Vec<u8>]) -> bool {
        let (cdb, list) = self.command(names);
        match client.try_run(&Command::write(cdb, list.len() as u32).to_lun(client.lun), &list) {
            Ok(done) => assert_eq!(done.status, 0, "{:x?}", done.sense()),
            Err(End::Closed | End::Reason(_)) => return false,
            Err(end) => panic!("{end:?}"),
        }
        for (stretch, from) in std::mem::take(&mut self.open) {
            self.holds[stretch as usize] = Some(from);
        }
        true
    }

    /// Copies until the connection ends.
    fn run(&mut self, client: &mut Client, names: &[Vec<u8>], seed: u64, progress: &AtomicU64) {
        let mut dice = SmallRng::seed_from_u64(seed);
        loop {
            for _ in 0..dice.random_range(1..=4) {
                let from = dice.random_range(0..=u64::from(SOURCE - STRETCH));
                self.open.insert(dice.random_range(0..STRETCHES), from);
            }
            if !self.copy(client, names) {
                return;
            }
            progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every block of its stretches is as it may be. True: a copy was ended in the middle.
    fn check(&self, client: &mut Client, sources: &[Vec<u8>], about: &str) -> bool {
        let mut torn = false;
        for stretch in 0..STRETCHES {
            let at = |from: &u64| &sources[self.from][*from as usize * SIZE..][..STRETCH as usize * SIZE];
            let nothing = vec![0; STRETCH as usize * SIZE];
            let old = self.holds[stretch as usize].as_ref().map_or(&nothing[..], at);
            let new = self.open.get(&stretch).map_or(old, at);
            let lba = self.lba(stretch);
            let Some(data) = self.read(client, lba, STRETCH) else {
                // A block and its tuple are two writes: in between it is neither.
                let broken = (0..).zip(old.chunks(SIZE).zip(new.chunks(SIZE))).filter(|(number, (old, new))| {
                    let block = self.read(client, lba + number, 1);
                    assert!(
                        block.as_ref().is_none_or(|block| block == old || block == new),
                        "{about}: block {} is neither old nor new",
                        lba + number
                    );
                    block.is_none()
                });
                let broken = broken.count();
                assert!(broken > 0 && self.open.contains_key(&stretch), "{about}: what was acknowledged is broken");
                torn = true;
                continue;
            };
            let (mut olds, mut news) = (0, 0);
            for (number, (block, (old, new))) in
                (0..).zip(data.chunks(SIZE).zip(old.chunks(SIZE).zip(new.chunks(SIZE))))
            {
                assert!(
                    block == old || block == new,
                    "{about}: block {} is neither old nor new (the copy of it {})",
                    lba + number,
                    if self.open.contains_key(&stretch) { "was not answered" } else { "was acknowledged" }
                );
                olds += u64::from(block != new);
                news += u64::from(block != old);
            }
            torn |= olds > 0 && news > 0;
        }
        torn
    }

    /// Reads of the destination; None: a block there doesn't fit its tuple.
    fn read(&self, client: &mut Client, lba: u64, blocks: u32) -> Option<Vec<u8>> {
        let done = client.fetch(cdb::read_16(lba, blocks), blocks * SIZE as u32);
        let (.., lines) = DISKS[self.to];
        if done.sense() == Some((0x0b, 0x10, 0x01)) && !lines.is_empty() { None } else { Some(done.good()) }
    }
}

/// The designation descriptor with the unit's NAA name (SPC-4 7.8.6).
fn naa(client: &mut Client) -> Vec<u8> {
    let page = client.fetch(cdb::inquiry_vpd(0x83, 1024), 1024).good();
    let mut rest = &page[4..];
    while rest.len() >= 4 {
        let (designator, more) = rest.split_at(4 + usize::from(rest[3]));
        if designator[1] & 0x3f == 0x03 {
            return designator.to_vec();
        }
        rest = more;
    }
    panic!("no NAA name in {page:x?}");
}

#[test]
fn a_kill_amid_extended_copy_leaves_each_block_old_or_copied() {
    let (mut text, mut luns) = (String::new(), Vec::new());
    for (lun, (name, direct, lines)) in DISKS.into_iter().enumerate() {
        text += &format!(
            "[[volume]]\nname = \"{name}\"\n{lines}\n\
             store = {{ kind = \"file\", path = \"$DIR/{name}.img\", size = \"17MiB\", direct = {direct} }}\n"
        );
        luns.push(format!("{{ lun = {lun}, volume = \"{name}\" }}"));
    }
    text += &format!("[[target]]\nname = \"disks\"\nluns = [{}]\n", luns.join(", "));
    let mut target = Target::start(&text);
    let client = |target: &Target, lun: usize| {
        let mut client = target.client("disks").at_lun(lun as u16);
        client.settle();
        client
    };
    let sources: Vec<Vec<u8>> = (0..DISKS.len()).map(source).collect();
    let mut names = Vec::new();
    for (lun, source) in sources.iter().enumerate() {
        let mut client = client(&target, lun);
        for (piece, data) in source.chunks(PIECE as usize * SIZE).enumerate().filter(|(piece, _)| piece % 4 != 0) {
            client.write(piece as u64 * u64::from(PIECE), data, SIZE as u32);
        }
        names.push(naa(&mut client));
    }
    let mut copiers = Copier::all();
    let end = copiers.iter().map(|copier| copier.lba(STRETCHES)).max().expect("a copier");
    assert!(end < BLOCKS, "the disks are too small");
    let mut dice = SmallRng::seed_from_u64(7);
    let (mut copied, mut torn) = (0, 0);
    for round in 0..KILLS {
        let progress = AtomicU64::new(0);
        let mut clients: Vec<Client> = copiers.iter().map(|copier| client(&target, copier.from)).collect();
        std::thread::scope(|scope| {
            for (number, (copier, client)) in copiers.iter_mut().zip(&mut clients).enumerate() {
                let (seed, names, progress) = (round * 100 + number as u64, &names, &progress);
                scope.spawn(move || copier.run(client, names, seed, progress));
            }
            kill_soon(&mut target, &mut dice, 50_000, &progress);
        });
        copied += progress.load(Ordering::Relaxed);
        target.restart();
        for (lun, source) in sources.iter().enumerate() {
            let mut client = client(&target, lun);
            let (name, ..) = DISKS[lun];
            assert!(client.read(0, SOURCE, SIZE as u32) == *source, "kill {round}: the source on {name} has changed");
            let rest = client.read(end, (BLOCKS - end) as u32, SIZE as u32);
            assert!(rest.iter().all(|byte| *byte == 0), "kill {round}: what nobody wrote to on {name} has changed");
        }
        for copier in &mut copiers {
            let (from, to) = (DISKS[copier.from].0, DISKS[copier.to].0);
            let about = format!("kill {round}, from {from} to {to}");
            torn += u64::from(copier.check(&mut client(&target, copier.to), &sources, &about));
            // A copy that was not answered is done again: from then on it is there.
            assert!(copier.open.is_empty() || copier.copy(&mut client(&target, copier.from), &names), "{about}");
        }
    }
    println!("{copied} copies were acknowledged, {torn} were ended in the middle");
    assert!(copied > KILLS, "hardly anything was copied");
    target.end();
}
