//! The Linux initiator, in a guest with Debian's kernel: over the network of the guest to a target on this machine's
//! loopback, and to a target inside of the guest, on its own older kernel.

use ringlun_tests::{
    Setup, Target,
    programs::{self, build_folder, ringlun, run, scratch},
    wait,
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// A guest boots in ten to twenty seconds without hardware help. Seconds; generous, for busy machines.
const LIMIT: u64 = 300;
/// What is on top of that: the first one also builds the guest.
const BESIDE: Duration = Duration::from_secs(100);

const DIGESTS: &str = "node.conn[0].iscsi.HeaderDigest=CRC32C node.conn[0].iscsi.DataDigest=CRC32C";

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("guest")
}

/// Runs a scenario; gives what it has printed.
#[track_caller]
fn scenario(name: &str, variables: &[(&str, &str)]) -> String {
    scenario_within(LIMIT, name, variables)
}

#[track_caller]
fn scenario_within(limit: u64, name: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(here().join("run"));
    command.arg(here().join("scenarios").join(name)).arg(limit.to_string()).envs(variables.iter().copied());
    let out = programs::finish(command, Duration::from_secs(limit) + BESIDE).success();
    let passed = format!("== {}: passed", name.trim_end_matches(".sh"));
    assert!(out.contains(&passed), "no line {passed:?} in\n{out}");
    out
}

/// The address at which the guest sees a port of this machine's loopback.
fn from_guest(target: &Target) -> String {
    format!("10.0.2.2:{}", target.portal().port())
}

/// One disk: with two, Linux does not promise the order of their names.
fn disk(store: &str, block_size: u32, settings: &str) {
    let target = Target::start(&format!(
        "[[volume]]\nname = \"disk\"\nblock_size = {block_size}\nstore = {{ {store}, size = \"256MiB\" }}\n"
    ));
    let out = scenario("disk.sh", &[("G_PORTAL", &from_guest(&target)), ("G_SET", settings)]);
    assert!(out.contains(&format!("Logical block length={block_size} bytes")), "{out}");
    assert_eq!(target.log().matches("logged in").count(), 2, "{}", target.log());
    target.end();
}

#[test]
fn linux_makes_a_file_system_and_finds_it_again() {
    disk("kind = \"file\", path = \"$DIR/disk.img\", direct = true", 512, "");
}

#[test]
fn linux_makes_a_file_system_and_finds_it_again_with_digests() {
    disk("kind = \"file\", path = \"$DIR/disk.img\"", 4096, DIGESTS);
}

fn chap(settings: &str) {
    let target = Target::start(
        "[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"64MiB\" }\n\
         [[volume.access]]\ninitiator = \"iqn.1993-08.org.debian:01:guest\"\n\
         chap = { user = \"guest\", secret = \"the guest's secret\", \
         mutual_user = \"host\", mutual_secret = \"the target's secret\" }\n",
    );
    let variables = [
        ("G_PORTAL", &*from_guest(&target)),
        ("G_USER", "guest"),
        ("G_SECRET", "the guest's secret"),
        ("G_USER_IN", "host"),
        ("G_SECRET_IN", "the target's secret"),
        ("G_SET", settings),
    ];
    scenario("chap.sh", &variables);
    target.logged(&["logged in", "mutual CHAP"]);
    let log = target.log();
    assert!(!log.contains("guest's secret") && !log.contains("target's secret"), "a secret is in the log:\n{log}");
    target.end();
}

#[test]
fn linux_proves_itself_and_wants_proof() {
    chap("");
}

#[test]
fn linux_proves_itself_and_wants_proof_with_digests() {
    chap(DIGESTS);
}

#[test]
fn what_sg3_utils_ask_for_is_done() {
    let parts = [
        "vpd",
        "opcodes",
        "unmap",
        "lba_status",
        "write_same",
        "compare_and_write",
        "verify",
        "persist",
        "logs",
        "rtpg",
        "stpg",
        "identifying",
        "buffers",
        "xcopy",
        "token",
        "sanitize",
        "format",
    ];
    let target = Target::start(
        "[[volume]]\nname = \"disk\"\nstore = { kind = \"file\", path = \"$DIR/disk.img\", size = \"64MiB\" }\n\
         [[volume]]\nname = \"other\"\nstore = { kind = \"file\", path = \"$DIR/other.img\", size = \"64MiB\" }\n\
         [[target]]\nname = \"disks\"\nluns = [{ volume = \"disk\" }, { volume = \"other\" }]\n",
    );
    let out = scenario("sg3.sh", &[("G_PORTAL", &from_guest(&target)), ("G_PARTS", &parts.join(" "))]);
    for part in parts {
        assert!(out.contains(&format!("== {part}")), "{part} was not run:\n{out}");
    }
    target.end();
}

#[test]
fn the_loss_of_either_of_two_paths_is_survived_under_load() {
    let target = Setup::new(
        "[[portal_group]]\ngroup = 2\naccess_state = \"active/non-optimized\"\n\
         [[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"64MiB\" }\n",
    )
    .portal("127.0.0.1:0", 1)
    .portal("127.0.0.1:0", 2)
    .start();
    let [first, second] = target.portals() else { panic!("two portals") };
    let (first, second) = (format!("10.0.2.2:{}", first.port()), format!("10.0.3.2:{}", second.port()));
    scenario("multipath.sh", &[("GUEST_NICS", "2"), ("G_PORTAL", &first), ("G_PORTAL2", &second)]);
    target.end();
}

#[test]
fn two_initiators_fence_each_other() {
    let target = Target::start("[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n");
    scenario("reservations.sh", &[("G_PORTAL", &from_guest(&target))]);
    target.end();
}

#[test]
fn a_file_system_grows_with_its_volume() {
    let volumes = |size: &str| {
        let disk = |kind| {
            format!(
                "[[volume]]\nname = \"{kind}\"\n\
                 store = {{ kind = \"file\", path = \"$DIR/{kind}.img\", size = \"{size}\" }}\n"
            )
        };
        disk("ext4") + &disk("xfs") + "[[volume]]\nname = \"ready\"\nstore = { kind = \"null\", size = \"1MiB\" }\n"
    };
    let mut target = Target::start(&volumes("320MiB"));
    let portal = from_guest(&target);
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| scenario("resize.sh", &[("G_PORTAL", &portal), ("G_SIZE", &(640 << 20).to_string())]));
        let ready =
            || target.log().lines().any(|line| line.contains("logged in") && line.contains(":ready")).then_some(());
        wait::within(Duration::from_secs(LIMIT) + BESIDE, || ran.is_finished().then_some(()).or_else(ready));
        if !ran.is_finished() {
            for kind in ["ext4", "xfs"] {
                let file = fs::File::options().write(true).open(target.folder().join(format!("{kind}.img")));
                file.and_then(|file| file.set_len(640 << 20)).expect("a larger file");
            }
            let said = target.reload(&volumes("640MiB")).success();
            assert!(said.contains("volume `ext4`: 640 MiB instead of 320 MiB"), "{said}");
        }
        ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    target.end();
}

/// Bytes that a file takes.
fn allocated(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.blocks() * 512)
}

#[test]
fn fstrim_makes_the_file_of_the_volume_smaller() {
    const WRITTEN_MIB: u64 = 48;
    let mut volumes = String::new();
    for name in ["ext4", "xfs"] {
        volumes += &format!(
            "[[volume]]\nname = \"{name}\"\n\
             store = {{ kind = \"file\", path = \"$DIR/{name}.img\", size = \"320MiB\" }}\n"
        );
    }
    let target = Target::start(&volumes);
    let files = ["ext4", "xfs"].map(|name| target.folder().join(format!("{name}.img")));
    let ended = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = [0; 2];
            while !ended.load(Ordering::Relaxed) {
                for (most, file) in most.iter_mut().zip(&files) {
                    *most = allocated(file).max(*most);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let variables = [("G_PORTAL", from_guest(&target)), ("G_MIB", WRITTEN_MIB.to_string())];
        let ran =
            std::panic::catch_unwind(|| scenario("trim.sh", &variables.each_ref().map(|(k, v)| (*k, v.as_str()))));
        ended.store(true, Ordering::Relaxed);
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        watch.join().expect("the watch")
    });
    for (most, file) in most.into_iter().zip(&files) {
        let now = allocated(file);
        let shrunk = most.saturating_sub(now) >> 20;
        assert!(shrunk > WRITTEN_MIB * 3 / 4, "{}: {most} bytes before fstrim, {now} after", file.display());
    }
    target.end();
}

/// Puts a program with its libraries into `folder`, with a script that runs it with them: the guest's own may be older.
fn pack(program: &Path, name: &str, folder: &Path) {
    let libraries = folder.join("lib");
    fs::create_dir_all(&libraries).expect("a folder");
    let real = folder.join(format!("{name}.real"));
    fs::copy(program, &real).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    // Smaller, if this machine can; all of it has to fit into the guest's memory.
    let mut strip = Command::new("sh");
    strip.arg("-c").arg("command -v strip >/dev/null && strip \"$0\" || :").arg(&real);
    programs::finish(strip, Duration::from_secs(60)).success();
    let listed = run("ldd", [program]).success();
    for path in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let path = Path::new(path);
        let to = libraries.join(path.file_name().expect("a file"));
        fs::copy(path, to).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let script = format!(
        "#!/bin/bash\nlib=/guest/files/lib\nexec $lib/ld-linux-x86-64.so.2 --library-path $lib /guest/files/{name}.real \"$@\"\n"
    );
    let to = folder.join(name);
    fs::write(&to, script).expect("a script");
    run("chmod", ["755", to.to_str().expect("a plain path")]).success();
}

fn files() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("guest-").tempdir_in(scratch()).expect("a folder")
}

#[test]
fn the_target_serves_on_the_kernel_of_the_guest() {
    let folder = files();
    pack(&ringlun(), "ringlun", folder.path());
    fs::copy(here().join("scenarios/disk.sh"), folder.path().join("disk.sh")).expect("the scenario");
    let out = scenario("inside.sh", &[("GUEST_FILES", folder.path().to_str().unwrap()), ("G_MIB", "24")]);
    assert!(out.contains("== disk: passed"), "{out}");
}

/// The newest built test of that name beside this one.
fn built_test(name: &str) -> PathBuf {
    let folder = build_folder().join("deps");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let ours = entries.flatten().filter(|entry| {
        let file = entry.file_name();
        let rest = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
        rest.is_some_and(|rest| !rest.contains('.'))
    });
    let newest = ours.max_by_key(|entry| entry.metadata().and_then(|about| about.modified()).ok());
    newest.unwrap_or_else(|| panic!("no test `{name}` is built: cargo test --workspace")).path()
}

#[test]
fn the_tests_pass_on_the_kernel_of_the_guest() {
    let folder = files();
    let packed = folder.path().join("files");
    pack(&ringlun(), "ringlun", &packed);
    // The exercise takes a minute without hardware help; this kernel's own set of features is what is new there.
    let tests = ["features:every_feature", "isolation", "durability", "refusals"];
    for name in tests {
        let name = name.split(':').next().expect("a name");
        pack(&built_test(name), name, &packed);
    }
    let scratch = folder.path().join("scratch");
    fs::File::create(&scratch).and_then(|file| file.set_len(4 << 30)).expect("a sparse file");
    let drive = format!("-drive file={},if=none,id=scratch,format=raw,cache=unsafe", scratch.display());
    let variables = [
        ("GUEST_FILES", packed.to_str().unwrap()),
        ("GUEST_ARGS", &format!("{drive} -device virtio-blk-pci,romfile=,drive=scratch")),
        ("GUEST_MEM", "3072"),
        ("GUEST_CPUS", "2"),
        ("G_TESTS", &tests.join(" ")),
    ];
    // Two minutes on an idle machine.
    let out = scenario_within(LIMIT * 2, "tests.sh", &variables);
    assert_eq!(out.matches("test result: ok").count(), tests.len(), "{out}");
}
