//! QEMU's block layer over the target, and several cores at one device.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use ringlun_tests::{
    Client, Setup, Target,
    client::options,
    programs::{self, run, scratch},
    stamps::{Extent, Ledger, Manner},
};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicU64,
    time::Duration,
};

const GIB: u64 = 1 << 30;

/// Copies files below `from` into `folder`, until there are so many or so many bytes of them. Gives the bytes.
fn gather(from: &str, folder: &Path, most_files: usize, most_bytes: u64) -> u64 {
    fs::create_dir(folder).expect("a folder");
    let (mut bytes, mut files) = (0, 0);
    let mut waiting = vec![PathBuf::from(from)];
    while let Some(next) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(about) = path.symlink_metadata() else { continue };
            if about.is_dir() {
                waiting.push(path);
            } else if about.is_file() && about.len() < 32 << 20 {
                let name = path.file_name().unwrap_or_default().display();
                if fs::copy(&path, folder.join(format!("{files}-{name}"))).is_ok() {
                    files += 1;
                    bytes += about.len();
                }
            }
            if bytes >= most_bytes || files >= most_files {
                return bytes;
            }
        }
    }
    bytes
}

/// A file system image of 2 GiB with real files in it, small and large. No mount, no privilege.
fn file_system(folder: &Path) -> PathBuf {
    let (files, image) = (folder.join("files"), folder.join("ext4.img"));
    fs::create_dir(&files).expect("a folder");
    let bytes = gather("/usr/share", &files.join("share"), 1000, 32 << 20)
        + gather("/usr/bin", &files.join("bin"), 1000, 128 << 20);
    assert!(bytes > 16 << 20, "there are only {bytes} bytes of files to be had");
    let arguments = ["-q", "-F", "-b", "4096", "-d", files.to_str().unwrap(), image.to_str().unwrap(), "2G"];
    run("mkfs.ext4", arguments).success();
    fs::remove_dir_all(&files).expect("our own folder");
    image
}

/// A checksum of every MiB.
fn checksums(path: &Path) -> Vec<u32> {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut chunk = vec![0; 1 << 20];
    let sums = (0..(2 * GIB) >> 20).map(|at| {
        file.read_exact(&mut chunk).unwrap_or_else(|error| panic!("{} ends in MiB {at}: {error}", path.display()));
        wire::crc32c(&chunk)
    });
    let sums = sums.collect();
    assert_eq!(file.read(&mut chunk).expect("a readable file"), 0, "{} is longer than 2 GiB", path.display());
    sums
}

#[track_caller]
fn assert_same(found: &Path, expected: &[u32], what: &str) {
    let sums = checksums(found);
    let differ: Vec<usize> = (0..sums.len()).filter(|at| sums[*at] != expected[*at]).collect();
    assert!(differ.is_empty(), "{what}: {} MiB differ, the first at {} MiB", differ.len(), differ[0]);
}

fn convert(arguments: &[&str]) {
    let mut command = Command::new("qemu-img");
    command.arg("convert").args(arguments);
    programs::finish(command, Duration::from_secs(180)).success();
}

fn there_and_back(direct: bool) {
    let folder = tempfile::Builder::new().prefix("qemu-").tempdir_in(scratch()).expect("a folder");
    let image = file_system(folder.path());
    let expected = checksums(&image);
    for block_size in [512, 4096] {
        let mut target = Target::start(&format!(
            "[[volume]]\nname = \"disk\"\nblock_size = {block_size}\n\
             store = {{ kind = \"file\", path = \"$DIR/disk.img\", size = \"2GiB\", direct = {direct} }}\n"
        ));
        // Old bytes all over: what should be zero has to be made so.
        let mut client = target.client("disk");
        let mut garbage = vec![0; 64 << 10];
        SmallRng::seed_from_u64(1).fill_bytes(&mut garbage);
        for at in (0..2 * GIB).step_by(16 << 20) {
            client.write(at / u64::from(block_size), &garbage, block_size);
        }
        client.log_out().expect("a logout");

        let (uri, back) = (target.uri("disk", 0), folder.path().join("back.img"));
        convert(&["-n", "-f", "raw", "-O", "raw", image.to_str().unwrap(), &uri]);
        convert(&["-f", "raw", "-O", "raw", &uri, back.to_str().unwrap()]);
        let what = format!("direct = {direct}, block_size = {block_size}");
        assert_same(&back, &expected, &format!("{what}: read back over iSCSI"));
        run("e2fsck", ["-fn", back.to_str().unwrap()]).success();
        fs::remove_file(&back).expect("our own file");
        let (status, _) = target.terminate(Duration::from_secs(60));
        assert!(status.success(), "{status}");
        assert_same(&target.folder().join("disk.img"), &expected, &format!("{what}: the volume's file"));
    }
}

#[test]
fn a_file_system_goes_there_and_comes_back_equal_through_the_page_cache() {
    there_and_back(false);
}

#[test]
fn a_file_system_goes_there_and_comes_back_equal_with_direct_io() {
    there_and_back(true);
}

/// A loop device with 4096-byte sectors over a file; gone with this value.
struct Loop {
    device: String,
}

impl Loop {
    fn new(file: &Path) -> Loop {
        let ended = run("losetup", ["-b", "4096", "--show", "-f", file.to_str().unwrap()]);
        assert_eq!(
            ended.code,
            Some(0),
            "this test needs a loop device with 4096-byte sectors, and losetup can't make one here (root, and \
             /dev/loop-control, are needed): {}",
            ended.err
        );
        let device = ended.out.trim().to_owned();
        let made = Loop { device };
        let size = run("blockdev", ["--getss", &made.device]).success();
        assert_eq!(size.trim(), "4096", "the sector size of {}", made.device);
        made
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let ended = run("losetup", ["-d", &self.device]);
        if ended.code != Some(0) {
            eprintln!("{}: {}", ended.line, ended.err);
        }
    }
}

/// Every sector of the first `sectors` belongs to one of two writers: neighbours in one 4 KiB block, whole blocks next to
/// them, and runs that begin and end in the middle of a block.
fn shares(sectors: u64) -> [Vec<Extent>; 2] {
    let mut shares = [Vec::new(), Vec::new()];
    let lengths = [1u32, 1, 1, 1, 1, 1, 1, 1, 8, 8, 3, 5, 4, 4, 2, 12, 2, 20, 4, 1, 7];
    let (mut lba, mut turn) = (0, 0);
    for blocks in lengths.into_iter().cycle() {
        if lba + u64::from(blocks) > sectors {
            return shares;
        }
        shares[turn % 2].push(Extent { lba, blocks });
        lba += u64::from(blocks);
        turn += 1;
    }
    unreachable!("the lengths make no end")
}

#[test]
fn two_cores_write_adjacent_sectors_of_a_device_with_larger_ones() {
    let setup = Setup::new(
        "[[volume]]\nname = \"device\"\nblock_size = 512\nstore = { kind = \"block\", path = \"$DIR/loop\", direct = true }\n",
    )
    .server("cores = [0, 1]");
    let backing = setup.folder().join("backing.img");
    File::create(&backing).and_then(|file| file.set_len(64 << 20)).expect("a sparse file");
    let device = Loop::new(&backing);
    std::os::unix::fs::symlink(&device.device, setup.folder().join("loop")).expect("a link");
    let mut target = setup.start();

    let client = || {
        let mut client = target.log_in(options(&target.name("device"))).unwrap_or_else(|error| panic!("{error}"));
        client.settle();
        client
    };
    let clients: [Client; 2] = [client(), client()];
    let log = target.log();
    let on =
        |core: usize| log.lines().any(|line| line.contains("logged in") && has_word(line, &format!("core={core}")));
    assert!(on(0) && on(1), "the sessions are not on two cores:\n{log}");

    // Few sectors, so that the writers meet in the same blocks all the time.
    let done = AtomicU64::new(0);
    let ledgers: Vec<Ledger> = std::thread::scope(|scope| {
        let writers: Vec<_> = clients
            .into_iter()
            .zip(shares(1024))
            .zip(0..)
            .map(|((mut client, share), seed)| {
                let done = &done;
                scope.spawn(move || {
                    let mut ledger = Ledger::new(share, 512);
                    let manner = Manner { depth: 24, fua_every: 0, sync_every: 200, seed };
                    let written = ledger.write(&mut client, manner, 4000, done);
                    assert_eq!(written.expect("the connection stays"), 4000);
                    ledger
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    let mut reader = client();
    for ledger in &ledgers {
        ledger.verify(&mut reader);
    }
    reader.log_out().expect("a logout");
    let (status, _) = target.terminate(Duration::from_secs(30));
    assert!(status.success(), "{status}\n{}", target.log());
    // And under the target as well.
    drop(device);
    let bytes = fs::read(&backing).expect("the file behind the device");
    for ledger in &ledgers {
        let lost = ledger.lost(|lba, blocks| bytes[lba as usize * 512..][..blocks as usize * 512].to_vec());
        ringlun_tests::stamps::assert_nothing_lost(&lost);
    }
}

fn has_word(line: &str, word: &str) -> bool {
    line.split_whitespace().any(|found| found == word)
}
