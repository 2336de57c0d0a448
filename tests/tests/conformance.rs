//! libiscsi's conformance tests, `iscsi-test-cu -d --test ALL`: none may fail, and what is skipped stands in
//! `tests/README.md` with its reason. `RINGLUN_BLESS=1` writes that table anew.

use ringlun_tests::{Setup, Target, programs};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    time::Duration,
};

/// What libiscsi says when it skips (the beginning of it), and why that is right. A reason that is not here fails the
/// test: somebody has to look at it.
const REASONS: &[(&str, &str)] = &[
    (
        "--allow-sanitize flag is not set",
        "The command line allows destructive tests (`-d`), not SANITIZE, which is not served yet.",
    ),
    ("COMPAREANDWRITE is not implemented", "Not served yet."),
    ("EXTENDEDCOPY is not implemented", "Not served yet: third-party copy."),
    ("LBPPB < 2", "The volume's physical blocks are as long as its logical ones: nothing can be unaligned."),
    ("Logical unit is not removable", "A volume is a fixed disk."),
    (
        "Logical unit is not write-protected",
        "Wants a read-only unit: `the_read_only_suite_passes_on_a_read_only_volume` runs it on one.",
    ),
    ("Media is not removable", "A volume is a fixed disk."),
    ("Multipath unavailable", "Wants a second path: `the_multipath_suite_passes_over_two_portals` gives it one."),
    ("ORWRITE is not implemented", "Not served yet."),
    ("PERSISTENT RESERVE IN is not implemented", "Not served yet: persistent reservations."),
    ("PREFETCH10 is not implemented", "Not served yet: optional."),
    ("PREFETCH16 is not implemented", "Not served yet: optional."),
    ("PROUT Not Supported", "Not served yet: persistent reservations."),
    ("READDEFECTDATA10 is not implemented", "Optional, and no volume has a list of defects."),
    ("READDEFECTDATA12 is not implemented", "Optional, and no volume has a list of defects."),
    ("RECEIVECOPYRESULT is not implemented", "Not served yet: third-party copy."),
    ("RECEIVE_COPY_RESULTS is not implemented", "Not served yet: third-party copy."),
    ("RESERVE6 is not implemented", "Obsolete since SPC-3; not served."),
    ("WRITEATOMIC16 is not implemented", "Not served yet."),
    ("WRITESAME10 does not support 0-blocks", "WSNZ is set: a count of zero does not mean the rest of the medium."),
    ("WRITESAME16 does not support 0-blocks", "WSNZ is set: a count of zero does not mean the rest of the medium."),
];

/// What one run has shown.
#[derive(Default, Debug)]
struct Report {
    passed: usize,
    /// Suite and test, with what was printed.
    failed: Vec<String>,
    /// Suite and test, with what was printed.
    skipped: BTreeMap<String, BTreeSet<String>>,
    /// As the summary has it.
    total: usize,
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
            report.passed += 1;
        } else {
            report.failed.push(format!("{name}: {}", said.join("; ")));
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

/// Runs tests; nothing may fail.
#[track_caller]
fn conform(tests: &str, uris: &[String]) -> Report {
    let mut command = Command::new("iscsi-test-cu");
    command.args(["-d", "--test", tests]).args(uris);
    let ended = programs::finish(command, Duration::from_secs(300));
    let report = parse(&ended.out);
    assert!(
        report.failed.is_empty(),
        "{} of {} tests fail on {}:\n{}",
        report.failed.len(),
        report.total,
        uris[0],
        report.failed.join("\n")
    );
    assert!(
        report.total > 0 && report.passed == report.total && ended.code.is_some(),
        "{} of {} tests were seen to pass\n{}\n{}",
        report.passed,
        report.total,
        ended.out,
        ended.err
    );
    println!(
        "{tests} on {}: {} passed, {} of them skipped (part of) themselves",
        uris[0],
        report.passed,
        report.skipped.len()
    );
    report
}

fn volumes(block_size: u32) -> Target {
    let common = format!("block_size = {block_size}");
    Target::start(&format!(
        "[[volume]]\nname = \"ram\"\n{common}\nstore = {{ kind = \"ram\", size = \"1GiB\" }}\n\
         [[volume]]\nname = \"file\"\n{common}\nstore = {{ kind = \"file\", path = \"$DIR/file.img\", size = \"1GiB\" }}\n"
    ))
}

/// The table: why libiscsi skips, which tests, on which volumes.
fn table(ram: &Report, file: &Report) -> String {
    let mut rows: BTreeMap<(&str, &str), BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    let nothing = BTreeSet::new();
    let tests: BTreeSet<&String> = ram.skipped.keys().chain(file.skipped.keys()).collect();
    for test in tests {
        let (on_ram, on_file) = (ram.skipped.get(test).unwrap_or(&nothing), file.skipped.get(test).unwrap_or(&nothing));
        for printed in on_ram.union(on_file) {
            let volumes = match (on_ram.contains(printed), on_file.contains(printed)) {
                (true, true) => "both",
                (true, false) => "RAM",
                _ => "file",
            };
            let Some((begins, why)) = REASONS.iter().find(|(begins, _)| printed.starts_with(begins)) else {
                panic!("{test} is skipped for a reason that nobody has looked at: {printed:?}");
            };
            let tests = rows.entry((begins, why)).or_default().entry(volumes).or_default();
            if !tests.contains(&test.as_str()) {
                tests.push(test);
            }
        }
    }
    let mut text = String::from("| libiscsi says | volumes | tests | why |\n|---|---|---|---|\n");
    for ((printed, why), volumes) in rows {
        for (volumes, tests) in volumes {
            text += &format!("| {printed} | {volumes} | {} | {why} |\n", tests.join(", "));
        }
    }
    text
}

const BEGIN: &str = "<!-- generated: skips of iscsi-test-cu -->\n";
const END: &str = "<!-- end of generated part -->";

/// Compares the table with the one in the README.
fn compare(table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let Some((before, (old, after))) = parts else { panic!("{} has no generated part", path.display()) };
    let kept = programs::scratch().join("skipped-by-libiscsi.md");
    fs::write(&kept, table).expect("a writable build folder");
    if old == table {
        return;
    }
    if std::env::var_os("RINGLUN_BLESS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("a writable README");
        return;
    }
    let differences: Vec<String> = old
        .lines()
        .filter(|line| !table.contains(line))
        .map(|line| format!("- {line}"))
        .chain(table.lines().filter(|line| !old.contains(line)).map(|line| format!("+ {line}")))
        .collect();
    panic!(
        "libiscsi skips other tests than tests/README.md says; RINGLUN_BLESS=1 writes the table of {}:\n{}",
        kept.display(),
        differences.join("\n")
    );
}

#[test]
fn all_tests_of_libiscsi_pass_on_a_memory_and_a_file_volume_and_its_skips_are_known() {
    let target = volumes(512);
    let ram = conform("ALL", &[target.uri("ram", 0)]);
    let file = conform("ALL", &[target.uri("file", 0)]);
    assert!(ram.total > 200, "libiscsi 1.19 has 230 tests, and {} ran", ram.total);
    target.end();
    compare(&table(&ram, &file));
}

#[test]
fn all_tests_of_libiscsi_pass_with_blocks_of_4096_bytes() {
    let target = volumes(4096);
    conform("ALL", &[target.uri("ram", 0)]);
    conform("ALL", &[target.uri("file", 0)]);
    target.end();
}

#[test]
fn the_multipath_suite_passes_over_two_portals() {
    let target = Setup::new("[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"256MiB\" }\n")
        .portal("127.0.0.1:0", 1)
        .portal("127.0.0.1:0", 2)
        .start();
    let paths: Vec<String> =
        target.portals().iter().map(|portal| format!("iscsi://{portal}/{}/0", target.name("disk"))).collect();
    let report = conform("ALL.MultipathIO", &paths);
    let skipped: Vec<&String> = report.skipped.keys().filter(|test| !test.contains("CompareAndWrite")).collect();
    assert!(skipped.is_empty(), "{skipped:?} are skipped although there are two paths");
    target.end();
}

#[test]
fn the_read_only_suite_passes_on_a_read_only_volume() {
    let setup = Setup::new(
        "[[volume]]\nname = \"disk\"\nstore = { kind = \"file\", path = \"$DIR/disk.img\", read_only = true }\n",
    );
    let file = fs::File::create(setup.folder().join("disk.img")).expect("a file");
    file.set_len(64 << 20).expect("a sparse file");
    let target = setup.start();
    let report = conform("ALL.ReadOnly", &[target.uri("disk", 0)]);
    // It goes through many commands; some of them are not there to be refused.
    let whole = report.skipped.values().flatten().find(|reason| reason.contains("not write-protected"));
    assert_eq!(whole, None, "the volume is not seen to be read-only");
    target.end();
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
    assert_eq!((report.passed, report.total), (3, 5));
    assert_eq!(report.failed, ["One.Bad: [FAILED] status 2", "Two.Worse: "]);
    assert_eq!(report.skipped, BTreeMap::from([("One.Skips".to_owned(), BTreeSet::from(["No reason.".to_owned()]))]));
}
