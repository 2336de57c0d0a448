//! `ringlun-load` against the real target: what it reports is true, and what is wrong it finds.

use ringlun_tests::{
    Setup, Target,
    programs::{self, Ended},
    wait,
};
use serde_json::Value;
use std::{fs, path::Path, process::Command, time::Duration};

const SECRET: &str = "alice's very own secret";
const MUTUAL: &str = "what the target proves";
/// The name that `ringlun-load` gives.
const LOAD: &str = "iqn.2026-01.io.ringlun:load";

fn target() -> Target {
    Target::start(&format!(
        "[[volume]]\nname = \"disk\"\nstore = {{ kind = \"ram\", size = \"64MiB\" }}\n\
         [[volume]]\nname = \"wide\"\nblock_size = 4096\nstore = {{ kind = \"ram\", size = \"16MiB\" }}\n\
         [[volume]]\nname = \"chap\"\nstore = {{ kind = \"ram\", size = \"16MiB\" }}\n\
         [[volume.access]]\ninitiator = \"{LOAD}\"\n\
         chap = {{ user = \"alice\", secret = \"{SECRET}\", mutual_user = \"ringlun\", mutual_secret = \"{MUTUAL}\" }}\n"
    ))
}

/// Runs it; `more` are words.
#[track_caller]
fn load(url: &str, more: &str) -> Ended {
    let mut command = Command::new(programs::load());
    command.arg("--quiet").args(more.split_whitespace()).arg(url);
    programs::finish(command, Duration::from_secs(60))
}

/// Runs it for a moment and gives its JSON; it has to succeed.
#[track_caller]
fn measure(target: &Target, volume: &str, more: &str) -> Value {
    let json = target.folder().join("result.json");
    let timing = if more.contains("--amount") || more.contains("--duration") { "" } else { "--duration 300ms" };
    let always = format!("{timing} --warmup 50ms --json {}", json.display());
    load(&target.uri(volume, 0), &format!("{always} {more}")).success();
    serde_json::from_slice(&fs::read(json).expect("the result")).expect("JSON")
}

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} in {value:#}"))
}

#[test]
fn the_result_says_what_was_done_and_what_it_cost() {
    let target = target();
    let more = format!("--sessions 3 --threads 2 --depth 4 --read-percent 70 --seed 1 --server-pid {}", target.pid());
    let result = measure(&target, "disk", &more);
    assert_eq!((&result["sessions"], &result["depth"], &result["block_size"]), (&3.into(), &4.into(), &4096.into()));
    assert_eq!((&result["pattern"], &result["read_percent"]), (&"random".into(), &70.into()));
    assert_eq!(result["errors"], Value::Array(Vec::new()));
    let seconds = number(&result, "/seconds");
    assert!(seconds >= 0.3, "{seconds}");
    let operations = ["read", "write", "total"].map(|way| number(&result, &format!("/{way}/operations")));
    assert!(operations[0] > 0.0 && operations[0] + operations[1] == operations[2], "{operations:?}");
    let share = operations[0] / operations[2];
    assert!((0.6..0.8).contains(&share), "{share} of the operations were reads");
    for way in ["read", "write", "total"] {
        let of = |name: &str| number(&result, &format!("/{way}/{name}"));
        assert!((of("iops") * seconds / of("operations") - 1.0).abs() < 1e-6);
        assert!((of("bytes_per_second") / of("iops") / 4096.0 - 1.0).abs() < 1e-6);
        let rising =
            ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"].map(|name| of(&format!("latency_us/{name}")));
        assert!(rising.is_sorted() && rising[0] > 0.0, "{way}: {rising:?}");
        assert!((rising[0]..=rising[6]).contains(&of("latency_us/mean")));
    }
    // Twelve places are always taken: Little's law holds the latencies to the throughput.
    let in_flight = number(&result, "/total/iops") * number(&result, "/total/latency_us/mean") / 1e6;
    assert!((6.0..14.0).contains(&in_flight), "{in_flight} in flight on average");
    let server = ["cpu_us_per_operation", "cpu_percent", "resident_kib", "cpu_us_per_mib"];
    let server = server.map(|name| number(&result, &format!("/server/{name}")));
    assert!((0.05..10_000.0).contains(&server[0]) && server[1] > 0.1 && server[2] > 1000.0, "{server:?}");
    assert!((server[3] / server[0] / 256.0 - 1.0).abs() < 1e-6, "{server:?}");
    assert!(number(&result, "/client/cpu_percent") > 0.1);
}

#[test]
fn digests_sizes_and_patterns_are_obeyed() {
    let target = target();
    let with = "--header-digest --data-digest --verify --read-percent 50 --sessions 2";
    for (volume, more) in [
        // More than the volume holds: the filling comes first, however long it takes.
        ("disk", format!("{with} --block-size 512,4k,256k --verify-fill --amount 80M")),
        ("disk", format!("{with} --block-size 1M --depth 2 --pattern sequential")),
        ("wide", format!("{with} --block-size 4k,64k --spin")),
        ("disk", "--block-size 1M --depth 4 --sessions 2 --read-percent 60".to_owned()),
        ("disk", "--block-size 64k --depth 2 --data-digest --read-percent 0".to_owned()),
    ] {
        let result = measure(&target, volume, &more);
        assert!(number(&result, "/total/operations") > 0.0, "{more}");
        if more.contains("--verify-fill") {
            assert!(number(&result, "/verify/blocks_checked") > 0.0, "{more}");
        }
    }
    let wrong = load(&target.uri("wide", 0), "--block-size 512");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("blocks of 4096 bytes"), "{}", wrong.err);
}

#[test]
fn amounts_rates_and_silence_are_kept() {
    let target = target();
    let result = measure(&target, "disk", "--amount 8M --block-size 64k --sessions 3 --threads 3 --read-percent 50");
    assert_eq!(number(&result, "/total/operations"), 128.0);
    let result = measure(&target, "disk", "--rate 500 --sessions 2 --duration 1s");
    let iops = number(&result, "/total/iops");
    assert!((400.0..520.0).contains(&iops), "{iops} instead of 500");
    let idle = format!("--idle --sessions 20 --server-pid {}", target.pid());
    let result = measure(&target, "disk", &idle);
    assert_eq!(number(&result, "/total/operations"), 0.0);
    assert!(number(&result, "/server/resident_kib") > 1000.0);
    assert!(result.pointer("/server/cpu_us_per_operation").is_some_and(Value::is_null));
}

#[test]
fn a_client_that_spins_notices_that_a_full_socket_takes_more() {
    let target = target();
    let result = measure(&target, "disk", "--depth 8 --block-size 1MiB --read-percent 0 --spin --amount 256MiB");
    assert_eq!(number(&result, "/write/operations"), 256.0);
    assert_eq!(result["errors"], Value::Array(Vec::new()));
}

#[test]
fn chap_is_spoken_both_ways() {
    let target = target();
    let write = |name: &str, text: &str| {
        let path = target.folder().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    };
    let (secret, mutual) = (write("secret", &format!("{SECRET}\n")), write("mutual", MUTUAL));
    let both =
        format!("--chap-user alice --chap-secret-file {secret} --mutual-user ringlun --mutual-secret-file {mutual}");
    let result = measure(&target, "chap", &format!("--sessions 2 {both}"));
    assert!(number(&result, "/read/operations") > 0.0);
    let named = target.uri("chap", 0).replace("iscsi://", "iscsi://alice@");
    load(&named, &format!("--duration 50ms --warmup 0s --chap-secret-file {secret}")).success();

    let wrong = write("wrong", "a guess, and a wrong one");
    for (more, words) in [
        (format!("--chap-user alice --chap-secret-file {wrong}"), "login refused"),
        (String::new(), "login refused"),
        (both.replace(&mutual, &wrong), "CHAP"),
        ("--chap-user alice --chap-secret-file /nonexistent".to_owned(), "/nonexistent"),
    ] {
        let ended = load(&target.uri("chap", 0), &more);
        assert_eq!(ended.code, Some(1), "{more}");
        assert!(ended.err.contains(words), "{more}: {}", ended.err);
    }
}

#[test]
fn a_wrong_place_is_named() {
    let target = target();
    for (url, words) in [
        (target.uri("nobody", 0), "not found"),
        (target.uri("disk", 7), "LUN"),
        ("iscsi://127.0.0.1:1/iqn.2026-01.io.ringlun:disk/0".to_owned(), "is the target up"),
        ("127.0.0.1:3260".to_owned(), "iscsi://"),
    ] {
        let ended = load(&url, "--duration 50ms");
        assert_eq!(ended.code, Some(1), "{url}");
        let said = ended.err.to_lowercase();
        assert!(said.contains(&words.to_lowercase()), "{url}: {}", ended.err);
    }
}

fn file(folder: &Path) -> String {
    folder.join("known").to_str().expect("a plain path").to_owned()
}

#[test]
fn a_later_run_proves_what_an_earlier_one_has_written() {
    let target = target();
    let verify = format!("--verify --verify-file {} --range 1M:32M", file(target.folder()));
    let result = measure(
        &target,
        "disk",
        &format!("{verify} --verify-fill --sessions 4 --threads 2 --block-size 4k,64k --amount 64M"),
    );
    assert!(number(&result, "/total/operations") >= 1024.0);
    // Other threads, sizes and digests; reads alone.
    let reads = format!("{verify} --read-percent 100 --sessions 3 --threads 3 --block-size 512,128k --data-digest");
    let result = measure(&target, "disk", &reads);
    assert!(number(&result, "/verify/blocks_checked") > 0.0);
    assert_eq!(number(&result, "/verify/blocks_unknown"), 0.0);
    let other = load(&target.uri("disk", 0), &verify.replace("32M", "16M"));
    assert_eq!(other.code, Some(1));
    assert!(other.err.contains("use the same --range"), "{}", other.err);
}

#[test]
fn a_block_that_another_has_overwritten_is_found() {
    let target = target();
    let verify = format!("--verify --verify-file {} --range 0:4M", file(target.folder()));
    measure(&target, "disk", &format!("{verify} --verify-fill --amount 8M --pattern sequential"));
    let blocks = "--amount 64k --range 2M:64k --pattern sequential --read-percent 0 --warmup 0s";
    load(&target.uri("disk", 0), blocks).success();
    let read = format!("{verify} --amount 4M --pattern sequential --read-percent 100 --depth 1 --warmup 0s");
    let ended = load(&target.uri("disk", 0), &read);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("MISMATCH at LBA 4096 (byte 2097152): expected generation"), "{}", ended.err);
}

#[test]
fn a_write_that_was_lost_is_found() {
    // The disk as it was some writes ago, with a file that knows of them.
    let mut target =
        Setup::new("[[volume]]\nname = \"disk\"\nstore = { kind = \"file\", path = \"$DIR/disk\", size = \"4MiB\" }\n")
            .start();
    let verify = format!("--verify --verify-file {}", file(target.folder()));
    let disk = target.folder().join("disk");
    measure(&target, "disk", &format!("{verify} --verify-fill --amount 4M"));
    target.terminate(wait::SOON);
    let before = fs::read(&disk).expect("the disk");
    target.restart();
    measure(&target, "disk", &format!("{verify} --amount 1M --read-percent 0"));
    target.terminate(wait::SOON);
    fs::write(&disk, before).expect("the disk");
    target.restart();
    let ended = load(&target.uri("disk", 0), &format!("{verify} --read-percent 100 --duration 5s --warmup 0s"));
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("found generation"), "{}", ended.err);
}

#[test]
fn a_target_that_goes_away_is_an_error_of_the_run() {
    let mut target = target();
    let mut command = Command::new(programs::load());
    command.args(["--quiet", "--duration", "30s", "--warmup", "0s"]).arg(target.uri("disk", 0));
    let ended = std::thread::scope(|scope| {
        let run = scope.spawn(|| programs::finish(command, Duration::from_secs(60)));
        // It is at work, or a little before.
        target.logged(&["logged in"]);
        std::thread::sleep(Duration::from_millis(700));
        target.kill();
        run.join().expect("it ends")
    });
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("session 1 with iscsi://"), "{}", ended.err);
    assert!(ended.out.contains("IOPS"), "the summary comes all the same: {}", ended.out);
}
