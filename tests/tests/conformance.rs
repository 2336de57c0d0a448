//! libiscsi's conformance tests, `iscsi-test-cu -d --allow-sanitize --test ALL` with two paths, on every kind of volume:
//! none may fail. `tests/README.md` records which test truly runs on which volume; one that is recorded as run and
//! skips itself now is an error, and so is any other difference. `RINGLUN_BLESS=1` writes that record anew.

use ringlun_tests::{Setup, Target, programs};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A column of the record.
struct Volume {
    name: &'static str,
    /// Lines of its `[[volume]]`.
    lines: &'static str,
    /// Tests as `--test` takes them, without the family.
    tests: &'static [&'static str],
    /// Why the others are not run.
    but: &'static str,
    /// The size of a file that has to be there before; 0: none.
    file: u64,
    /// Its target sends no pings: a test sleeps for a minute, and libiscsi answers none meanwhile.
    unpinged: bool,
}

/// All but `Sanitize.Reset`.
const ALL: &[&str] = &["[!S]*", "StartStopUnit", "Sanitize.[!R]*", "Sanitize.Readonly", "Sanitize.Reservations"];
const SLOW: &str =
    "Sanitize.Reset: it wants a unit that takes longer than four seconds to sanitize, and is `ram-slow`'s.";

/// Those that don't write, or expect to be refused.
const READING: &[&str] = &[
    "GetLBAStatus.[!U]*",
    "Inquiry",
    "Mandatory",
    "ModeSense6",
    "NoMedia",
    "Prefetch*",
    "PreventAllow",
    "Prin*",
    "Re[!c]*",
    "ReceiveCopyResults.OpParams",
    "StartStopUnit",
    "TestUnitReady",
    "Verify*",
    "iSCSIcmdsn",
    "iSCSIResiduals.Read*",
    "MultipathIO.Reset",
];

const VOLUMES: &[Volume] = &[
    volume("ram", r#"store = { kind = "ram", size = "64MiB" }"#),
    volume("ram-4096", "block_size = 4096\nstore = { kind = \"ram\", size = \"64MiB\" }"),
    volume("ram-full", "provisioning = \"full\"\nstore = { kind = \"ram\", size = \"64MiB\" }"),
    Volume {
        tests: &[
            "[!GS]*",
            "GetLBAStatus.[!U]*",
            "StartStopUnit",
            "Sanitize.[!R]*",
            "Sanitize.Readonly",
            "Sanitize.Reservations",
        ],
        but: "It asks for the status of one block and wants that of the next physical block.",
        ..volume("ram-wide", "physical_block_size = 4096\nstore = { kind = \"ram\", size = \"64MiB\" }")
    },
    volume("ram-removable", "removable = true\nstore = { kind = \"ram\", size = \"64MiB\" }"),
    Volume {
        tests: READING,
        but: "They write, and the medium is protected.",
        ..volume("ram-protected", "write_protected = true\nstore = { kind = \"ram\", size = \"64MiB\" }")
    },
    volume("ram-type1", "protection = 1\nstore = { kind = \"ram\", size = \"64MiB\" }"),
    Volume {
        tests: &[
            "[!RS]*",
            "Re[!p]*",
            "ReportSupportedOpcodes.[!O]*",
            "StartStopUnit",
            "Sanitize.[!R]*",
            "Sanitize.Readonly",
            "Sanitize.Reservations",
        ],
        but: "It keeps 16 bytes of the usage data of a command, and some commands of this volume have 32.",
        ..volume("ram-type2", "protection = 2\nstore = { kind = \"ram\", size = \"64MiB\" }")
    },
    volume("file", r#"store = { kind = "file", path = "$DIR/file.img", size = "64MiB" }"#),
    volume("file-4096", "block_size = 4096\nstore = { kind = \"file\", path = \"$DIR/4096.img\", size = \"64MiB\" }"),
    volume(
        "file-full",
        "provisioning = \"full\"\nstore = { kind = \"file\", path = \"$DIR/full.img\", size = \"64MiB\" }",
    ),
    volume(
        "file-zeroing",
        "provisioning = \"zeroing\"\nstore = { kind = \"file\", path = \"$DIR/zeroing.img\", size = \"64MiB\" }",
    ),
    volume(
        "file-removable",
        "removable = true\nstore = { kind = \"file\", path = \"$DIR/removable.img\", size = \"64MiB\" }",
    ),
    volume("file-type3", "protection = 3\nstore = { kind = \"file\", path = \"$DIR/type3.img\", size = \"64MiB\" }"),
    Volume {
        tests: READING,
        but: "They write, and the store is read-only.",
        file: 64 << 20,
        ..volume("file-read-only", r#"store = { kind = "file", path = "$DIR/file-read-only.img", read_only = true }"#)
    },
    Volume {
        tests: &["Sanitize.Reset"],
        but: "Slow on purpose: the others are run everywhere else.",
        unpinged: true,
        ..volume("ram-slow", "background_rate = \"8MiB\"\nstore = { kind = \"ram\", size = \"64MiB\" }")
    },
];

const fn volume(name: &'static str, lines: &'static str) -> Volume {
    Volume { name, lines, tests: ALL, but: SLOW, file: 0, unpinged: false }
}

/// What libiscsi says when it skips (the beginning of it), and why that is right. A reason that is not here fails the
/// test: somebody has to look at it.
const REASONS: &[(&str, &str)] = &[
    ("LBPPB < 2", "The volume's physical blocks are as long as its logical ones: nothing can be unaligned."),
    ("LUN is not removable", "The volume is a fixed disk."),
    ("Logical unit is fully provisioned", "Nothing can be unmapped."),
    ("Logical unit is not removable", "The volume is a fixed disk."),
    ("Logical unit is not write-protected", "Wants a protected medium."),
    ("Media is not removable", "The volume is a fixed disk."),
    (
        "No alignment restrictions",
        "The volume's physical blocks are as long as its logical ones: atomic writes may lie anywhere.",
    ),
    ("No granularity restrictions", "The same: atomic writes may have any length."),
    ("SANITIZE BLOCK_ERASE is not implemented", "The store gives no space back."),
    ("SANITIZE CRYPTO_ERASE is not implemented", "No store can erase by forgetting a key."),
    ("SANITIZE EXIT FAILURE MODE is not implemented", "The medium can't be written."),
    ("SANITIZE OVERWRITE is not implemented", "The medium can't be written."),
    ("SANITIZE is not implemented", "The medium can't be written."),
    ("UNMAP is not implemented", "Nothing can be unmapped."),
    ("WRITESAME10 does not support 0-blocks", "WSNZ is set where blocks can be unmapped: a count of zero is refused."),
    ("WRITESAME16 does not support 0-blocks", "The same."),
    ("WRITEATOMIC16 is not implemented", "The store can't promise that a write is whole or not there."),
];

/// Where a test leaves out a part for that reason, and has run the rest of it.
const PARTS: [(&str, &str); 2] = [
    ("Sanitize.Readonly", "SANITIZE CRYPTO_ERASE is not implemented"),
    ("Sanitize.Reservations", "SANITIZE CRYPTO_ERASE is not implemented"),
];

/// What the record says of a test that is not run on a volume at all.
const NOT_ASKED: &str = "not run";
/// What the cell of one that has passed begins with.
const PASS: &str = "pass";

/// What a run has shown.
#[derive(Default, Debug)]
struct Report {
    /// Suite and test, in the order in which they ran.
    passed: Vec<String>,
    /// Suite and test, with what was printed.
    failed: Vec<String>,
    /// Suite and test that skipped itself or a part of it, with what was printed.
    skipped: BTreeMap<String, BTreeSet<String>>,
    /// As the summary has it.
    total: usize,
}

impl Report {
    fn add(&mut self, other: Report) {
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.total += other.total;
    }
}

/// Reads the output of CUnit: `Suite:` and `Test:` lines, text of the test, and a verdict. What stands behind a verdict
/// belongs to the end of the suite.
fn parse(out: &str) -> Report {
    let mut report = Report::default();
    let (mut suite, mut test, mut said) = (String::new(), None::<String>, Vec::new());
    for line in out.lines() {
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name.trim().to_owned();
            continue;
        }
        let mut text = line;
        if let Some((name, rest)) = line.strip_prefix("  Test: ").and_then(|rest| rest.split_once(" ...")) {
            assert!(test.is_none(), "{test:?} has no verdict");
            test = Some(format!("{suite}.{}", name.trim()));
            text = rest;
        }
        if let Some(total) = line.trim().strip_prefix("tests ") {
            report.total = total.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
        let Some(name) = &test else { continue };
        let passed = text.starts_with("passed");
        if !passed && !text.starts_with("FAILED") {
            said.push(text.trim().to_owned());
            continue;
        }
        if passed {
            report.passed.push(name.clone());
        } else {
            let failures: BTreeSet<&String> = said.iter().filter(|text| text.starts_with("[FAILED]")).collect();
            let failures: Vec<&str> = failures.into_iter().take(4).map(String::as_str).collect();
            report.failed.push(format!("{name}: {}", failures.join("; ")));
        }
        let skips: BTreeSet<String> =
            said.iter().filter_map(|text| text.strip_prefix("[SKIPPED] ")).map(|text| text.trim().to_owned()).collect();
        if !skips.is_empty() {
            report.skipped.insert(name.clone(), skips);
        }
        (test, said) = (None, Vec::new());
    }
    report
}

/// Runs tests over two paths.
#[track_caller]
fn conform(tests: &str, uris: &[String]) -> Report {
    let mut command = Command::new("iscsi-test-cu");
    // Verbose: some skips are not told otherwise.
    command.args(["-d", "--allow-sanitize", "--Verbose-scsi", "--test", &format!("ALL.{tests}")]).args(uris);
    let ended = programs::finish(command, Duration::from_secs(300));
    let report = parse(&ended.out);
    assert!(
        report.total > 0 && report.passed.len() + report.failed.len() == report.total && ended.code.is_some(),
        "{tests} on {}: {} of {} tests were seen to end\n{}\n{}",
        uris[0],
        report.passed.len() + report.failed.len(),
        report.total,
        ended.out,
        ended.err
    );
    report
}

/// Runs a volume's tests.
fn try_volume(target: &Target, volume: &Volume) -> Report {
    let name = target.name(volume.name);
    let paths: Vec<String> = target.portals().iter().map(|portal| format!("iscsi://{portal}/{name}/0")).collect();
    let mut report = Report::default();
    for tests in volume.tests {
        report.add(conform(tests, &paths));
    }
    println!("{}: {} passed, {} of them skipped (part of) themselves", volume.name, report.total, report.skipped.len());
    report
}

/// Why a test that said this has skipped: its place in [`REASONS`].
fn reason(test: &str, printed: &str) -> usize {
    let known = REASONS.iter().position(|(begins, _)| printed.starts_with(begins));
    known.unwrap_or_else(|| panic!("{test} is skipped for a reason that nobody has looked at: {printed:?}"))
}

/// `a` to `z`, `aa` and so on.
fn letters(mut n: usize) -> String {
    let mut text = String::new();
    loop {
        text.insert(0, char::from(b'a' + (n % 26) as u8));
        match n / 26 {
            0 => return text,
            rest => n = rest - 1,
        }
    }
}

/// What a test has done on a volume.
enum Ran {
    /// It was not asked to.
    Not,
    /// It has left out what these of [`REASONS`] say.
    Partly(BTreeSet<usize>),
    /// It has skipped itself.
    Skipped(BTreeSet<usize>),
    Whole,
}

fn ran(test: &str, report: &Report) -> Ran {
    if !report.passed.iter().any(|passed| passed == test) {
        return Ran::Not;
    }
    let Some(printed) = report.skipped.get(test) else { return Ran::Whole };
    let reasons = printed.iter().map(|said| reason(test, said)).collect();
    let part = |said: &String| PARTS.iter().any(|(of, begins)| *of == test && said.starts_with(begins));
    if printed.iter().all(part) { Ran::Partly(reasons) } else { Ran::Skipped(reasons) }
}

/// The record: tests and volumes, why some skip, and which never run.
fn record(tests: &[String], reports: &[Report]) -> String {
    let mut used: Vec<usize> = Vec::new();
    let mut marks = |reasons: &BTreeSet<usize>| {
        let letter = |reason: &usize| {
            let place = used.iter().position(|known| known == reason);
            letters(place.unwrap_or_else(|| {
                used.push(*reason);
                used.len() - 1
            }))
        };
        reasons.iter().map(letter).collect::<Vec<_>>().join(" ")
    };
    let mut rows = String::new();
    let mut never: BTreeMap<BTreeSet<&str>, Vec<&str>> = BTreeMap::new();
    let mut partly = Vec::new();
    for test in tests {
        let (mut whole, mut part) = (false, None);
        let (mut why, mut but) = (BTreeSet::new(), BTreeSet::new());
        rows += &format!("| {test} |");
        for (report, volume) in reports.iter().zip(VOLUMES) {
            let cell = match ran(test, report) {
                Ran::Not => {
                    but.insert(volume.but);
                    NOT_ASKED.to_owned()
                }
                Ran::Whole => {
                    whole = true;
                    PASS.to_owned()
                }
                Ran::Partly(reasons) => {
                    let cell = format!("{PASS} but {}", marks(&reasons));
                    part = Some(reasons);
                    cell
                }
                Ran::Skipped(reasons) => {
                    why.extend(reasons.iter().map(|at| REASONS[*at].1));
                    marks(&reasons)
                }
            };
            rows += &format!(" {cell} |");
        }
        rows += "\n";
        match part {
            _ if whole => {}
            Some(reasons) => partly.push((test, reasons)),
            None => never.entry(if why.is_empty() { but } else { why }).or_default().push(test),
        }
    }
    let names: Vec<&str> = VOLUMES.iter().map(|volume| volume.name).collect();
    let mut text = format!("| test | {} |\n|---|{}\n{rows}\n", names.join(" | "), "---|".repeat(names.len()));
    text += "| | libiscsi says | why |\n|---|---|---|\n";
    let mut left_out: Vec<(&str, Vec<String>)> = Vec::new();
    for Volume { name, but, .. } in VOLUMES {
        let name = format!("`{name}`");
        match left_out.iter_mut().find(|(why, _)| why == but) {
            Some((_, names)) => names.push(name),
            None => left_out.push((but, vec![name])),
        }
    }
    for (why, names) in left_out {
        text += &format!("| {NOT_ASKED} | ({}) | {why} |\n", names.join(", "));
    }
    for (place, at) in used.into_iter().enumerate() {
        let (printed, why) = REASONS[at];
        text += &format!("| {} | {printed} | {why} |\n", letters(place));
    }
    let count: usize = never.values().map(Vec::len).sum();
    text += &format!("\nOf {} tests, {} run on at least one volume.", tests.len(), tests.len() - count);
    if !never.is_empty() || !partly.is_empty() {
        text += " Never run:\n\n| tests | why |\n|---|---|\n";
        for (reasons, tests) in never {
            let reasons: Vec<&str> = reasons.into_iter().collect();
            text += &format!("| {} | {} |\n", tests.join(", "), reasons.join(" "));
        }
        for (test, reasons) in partly {
            for (printed, why) in reasons.into_iter().map(|at| REASONS[at]) {
                text += &format!("| a part of {test} ({printed}) | {why} |\n");
            }
        }
    } else {
        text += "\n";
    }
    text
}

/// Test and volume of every cell of a record that says `pass`, or that for a part.
fn passes(record: &str) -> BTreeSet<(String, String)> {
    let mut passes = BTreeSet::new();
    let rows = record.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let mut volumes = Vec::new();
    for row in rows {
        match row[0] {
            "test" => volumes = row,
            test => {
                let cells = row.iter().zip(&volumes).filter(|(cell, _)| cell.starts_with(PASS));
                passes.extend(cells.map(|(_, volume)| (test.to_owned(), (*volume).to_owned())));
            }
        }
    }
    passes
}

const BEGIN: &str = "<!-- generated: tests of iscsi-test-cu -->\n";
const END: &str = "<!-- end of generated part -->";

/// Compares the record with the one in the README.
fn compare(record: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let Some((before, (old, after))) = parts else { panic!("{} has no generated part", path.display()) };
    let kept = programs::scratch().join("iscsi-test-cu.md");
    fs::write(&kept, record).expect("a writable build folder");
    if old == record {
        return;
    }
    if std::env::var_os("RINGLUN_BLESS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{record}{END}{after}")).expect("a writable README");
        return;
    }
    let (then, now) = (passes(old), passes(record));
    let lost: Vec<String> = then.difference(&now).map(|(test, volume)| format!("  {test} on {volume}")).collect();
    assert!(
        lost.is_empty(),
        "tests that ran, says tests/README.md, skip themselves now (see {}); RINGLUN_BLESS=1 accepts that:\n{}",
        kept.display(),
        lost.join("\n")
    );
    let gained: Vec<String> = now.difference(&then).map(|(test, volume)| format!("  {test} on {volume}")).collect();
    panic!(
        "tests/README.md is not what this run shows (see {}), and these have run beyond it; RINGLUN_BLESS=1 writes it \
         anew:\n{}",
        kept.display(),
        gained.join("\n")
    );
}

/// All tests of libiscsi, without their family, in its order.
fn listed() -> Vec<String> {
    let list = programs::run("iscsi-test-cu", ["--list"]);
    let names = list.out.lines().filter_map(|line| line.trim().split_once('.')).filter(|(_, rest)| rest.contains('.'));
    let (mut all, mut families) = (Vec::new(), BTreeSet::new());
    for (family, test) in names {
        match family {
            "ALL" => all.push(test.to_owned()),
            "SCSI" | "iSCSI" => drop(families.insert(test.to_owned())),
            _ => {}
        }
    }
    assert_eq!(all.iter().cloned().collect::<BTreeSet<_>>(), families, "ALL is not SCSI with iSCSI");
    assert!(all.len() > 200, "libiscsi 1.19 has 230 tests, and {} are listed", all.len());
    all
}

fn files(folder: &Path) {
    for volume in VOLUMES.iter().filter(|volume| volume.file > 0) {
        let file = fs::File::create(folder.join(format!("{}.img", volume.name)));
        file.and_then(|file| file.set_len(volume.file)).expect("a sparse file");
    }
}

/// Serves the volumes whose initiators are pinged, or the others.
fn start(unpinged: bool) -> Target {
    let volumes = VOLUMES.iter().filter(|volume| volume.unpinged == unpinged);
    let section = |Volume { name, lines, .. }: &Volume| format!("[[volume]]\nname = \"{name}\"\n{lines}\n");
    let mut setup = Setup::new(&volumes.map(section).collect::<String>());
    if unpinged {
        setup = setup.server("nop_interval_s = 0");
    }
    let setup = setup.portal("127.0.0.1:0", 1).portal("127.0.0.1:0", 2);
    files(setup.folder());
    setup.start()
}

#[test]
fn all_tests_of_libiscsi_pass_on_every_kind_of_volume_and_what_ran_still_runs() {
    let tests = listed();
    let (pinged, unpinged) = (start(false), start(true));
    // They wait most of the time.
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let run = |volume: &'static Volume| {
            let target = if volume.unpinged { &unpinged } else { &pinged };
            scope.spawn(|| try_volume(target, volume))
        };
        let runs: Vec<_> = VOLUMES.iter().map(run).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect()
    });
    let failed = VOLUMES.iter().zip(&reports).flat_map(|(volume, report)| {
        report.failed.iter().map(|failed| format!("{}: {failed}", volume.name)).collect::<Vec<_>>()
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{} tests fail:\n{}", failed.len(), failed.join("\n"));
    for (volume, report) in VOLUMES.iter().zip(&reports).filter(|(volume, _)| volume.tests == ALL) {
        assert_eq!(report.total, tests.len() - 1, "{}: not all tests have run", volume.name);
    }
    pinged.end();
    unpinged.end();
    compare(&record(&tests, &reports));
}

#[test]
fn the_output_of_the_conformance_tests_is_understood() {
    let out = "\
Suite: One
  Test: Good ...passed
  Test: Skips ...    [SKIPPED] No reason.
    [SKIPPED] No reason.
passed    [SKIPPED] of the end of the suite
  Test: Bad ...    [FAILED] status 2
FAILED
    1. one.c:1  - CU_ASSERT_EQUAL(_r,0)
Suite: Two
  Test: Worse ...FAILED
  Test: Expects ...    [FAILED] as it should
passed
Run Summary:    Type  Total    Ran Passed Failed Inactive
               tests      5      5      3      2        0
";
    let report = parse(out);
    assert_eq!((report.passed.len(), report.total), (3, 5));
    assert_eq!(report.failed, ["One.Bad: [FAILED] status 2", "Two.Worse: "]);
    assert_eq!(report.skipped, BTreeMap::from([("One.Skips".to_owned(), BTreeSet::from(["No reason.".to_owned()]))]));
}

#[test]
fn a_record_tells_what_ran_where() {
    let of = |passed: &[&str], skipped: &[(&str, &str)]| Report {
        passed: passed.iter().map(|test| (*test).to_owned()).collect(),
        skipped: skipped.iter().map(|(test, said)| ((*test).to_owned(), [(*said).to_owned()].into())).collect(),
        ..Report::default()
    };
    let tests = ["One.A".to_owned(), "One.B".to_owned(), "Two.C".to_owned()];
    let aligned = "LBPPB < 2. Skipping test";
    let mut reports = vec![of(&["One.A", "One.B", "Two.C"], &[("One.B", aligned), ("Two.C", aligned)])];
    reports.resize_with(VOLUMES.len(), || of(&["One.A", "One.B"], &[("One.A", aligned)]));
    let text = record(&tests, &reports);
    assert!(text.contains("\n| One.A | pass | a |") && text.contains("\n| Two.C | a | not run |"), "{text}");
    assert!(text.contains("Of 3 tests, 2 run on at least one volume. Never run:\n\n| tests"), "{text}");
    let passes = passes(&text);
    assert!(passes.contains(&("One.A".into(), VOLUMES[0].name.into())), "{passes:?}");
    assert!(passes.contains(&("One.B".into(), VOLUMES[1].name.into())), "{passes:?}");
    assert_eq!(passes.len(), VOLUMES.len());
    let (test, said) = PARTS[0];
    let mut reports: Vec<Report> = VOLUMES.iter().map(|_| of(&[], &[])).collect();
    reports[1] = of(&[test], &[(test, said)]);
    let text = record(&[test.to_owned()], &reports);
    assert!(text.contains(&format!("\n| {test} | not run | pass but a | not run |")), "{text}");
    assert!(text.contains("Of 1 tests, 1 run on at least one volume. Never run:"), "{text}");
    assert!(text.contains(&format!("\n| a part of {test} ({said}) | No store")), "{text}");
    assert_eq!([0, 25, 26, 27].map(letters), ["a", "z", "aa", "ab"]);
}
