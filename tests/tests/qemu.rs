//! QEMU's block layer over the target, and several cores at one device.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use ringlun_tests::{
    Client, Setup, Target,
    client::options,
    programs::{self, run, scratch},
    stamps::{Extent, Ledger, Manner},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicU64,
    time::Duration,
};

const GIB: u64 = 1 << 30;

/// Copies files of this system into `folder` until there are about `bytes` of them.
fn gather(folder: &Path, bytes: u64) -> u64 {
    let mut copied = 0;
    let mut count = 0;
    let mut waiting: Vec<PathBuf> = ["/usr/bin", "/usr/lib", "/usr/share"].map(PathBuf::from).to_vec();
    while let Some(next) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(about) = path.symlink_metadata() else { continue };
            if about.is_dir() {
                waiting.push(path);
            } else if about.is_file() && about.len() < 32 << 20 {
                let to = folder.join(format!("{count}-{}", path.file_name().unwrap_or_default().display()));
                if fs::copy(&path, to).is_ok() {
                    count += 1;
                    copied += about.len();
                }
            }
            if copied >= bytes || count >= 20_000 {
                return copied;
            }
        }
    }
    copied
}

/// A file system image of 2 GiB with real files in it. No mount, no privilege.
fn file_system(folder: &Path) -> PathBuf {
    let (files, image) = (folder.join("files"), folder.join("ext4.img"));
    fs::create_dir(&files).expect("a folder");
    let bytes = gather(&files, 256 << 20);
    assert!(bytes > 16 << 20, "there are only {bytes} bytes of files to be had");
    let arguments = ["-q", "-F", "-b", "4096", "-d", files.to_str().unwrap(), image.to_str().unwrap(), "2G"];
    run("mkfs.ext4", arguments).success();
    fs::remove_dir_all(&files).expect("our own folder");
    image
}

fn checksum(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut hash, mut chunk, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let n = file.read(&mut chunk).expect("a readable file");
        if n == 0 {
            break;
        }
        hash.update(&chunk[..n]);
        bytes += n as u64;
    }
    assert_eq!(bytes, 2 * GIB, "{}", path.display());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn convert(arguments: &[&str]) {
    let mut command = Command::new("qemu-img");
    command.arg("convert").args(arguments);
    programs::finish(command, Duration::from_secs(180)).success();
}

#[test]
fn a_file_system_goes_there_and_comes_back_equal() {
    let folder = tempfile::Builder::new().prefix("qemu-").tempdir_in(scratch()).expect("a folder");
    let image = file_system(folder.path());
    let expected = checksum(&image);
    for direct in [false, true] {
        for block_size in [512, 4096] {
            let target = Target::start(&format!(
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
            assert_eq!(checksum(&back), expected, "read back over iSCSI, {what}");
            run("e2fsck", ["-fn", back.to_str().unwrap()]).success();
            fs::remove_file(&back).expect("our own file");
            let file = target.folder().join("disk.img");
            let mut target = target;
            let (status, _) = target.terminate(Duration::from_secs(60));
            assert!(status.success(), "{status}");
            assert_eq!(checksum(&file), expected, "the volume's file, {what}");
        }
    }
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
    let on = |core: usize| log.lines().any(|line| line.contains("logged in") && has_word(line, &format!("core={core}")));
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
