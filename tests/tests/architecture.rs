//! The shape of the code: who imports whom, where `unsafe` may be, how long files are. `ARCHITECTURE.md` says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Who may import whom, of ours. A new edge is a decision: change `ARCHITECTURE.md` with it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("engine/wire", &["memory"]),
    ("engine/memory", &[]),
    ("config", &[]),
    ("engine/negotiation", &["wire"]),
    ("engine/protocol", &["wire", "negotiation", "memory"]),
    ("engine/initiator", &["wire", "negotiation", "memory"]),
    ("backstore/api", &["memory"]),
    ("engine/reactor", &["memory"]),
    ("engine/scsi", &["backstore-api", "memory"]),
    ("backstore", &["backstore-api", "reactor", "memory"]),
    (
        "engine/server",
        &["wire", "negotiation", "protocol", "scsi", "memory", "reactor", "backstore-api", "backstore", "config"],
    ),
    ("tools/ringlun", &["server", "config"]),
    ("tools/load", &["wire", "memory", "reactor", "initiator"]),
];

/// These may import anything.
const FREE: &[&str] = &["tests", "benches"];

/// Who may use these crates of others directly.
const KEPT: &[(&str, &[&str])] = &[("io-uring", &["engine/reactor"]), ("tokio-uring", &["engine/server"])];

/// The members that may say `unsafe`.
const UNSAFE: &[&str] = &["engine/memory", "engine/reactor"];

const LONGEST: usize = 600;

/// Files that are longer all the same, and why.
const LONGER: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn manifest(path: &Path) -> toml::Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn workspace() -> toml::Table {
    let all = manifest(&root().join("Cargo.toml"));
    all["workspace"].as_table().expect("a workspace").clone()
}

fn members() -> Vec<String> {
    let workspace = workspace();
    let members = workspace["members"].as_array().expect("members");
    members.iter().map(|member| member.as_str().expect("a path").to_owned()).collect()
}

/// The names by which our own crates are imported, with their folders.
fn ours() -> BTreeMap<String, String> {
    let workspace = workspace();
    let dependencies = workspace["dependencies"].as_table().expect("dependencies").clone();
    let path = |value: &toml::Value| Some(value.get("path")?.as_str()?.to_owned());
    dependencies.iter().filter_map(|(name, value)| Some((name.clone(), path(value)?))).collect()
}

/// What a member's program or library needs (not its tests), build scripts and platform sections included.
fn dependencies(member: &str) -> BTreeSet<String> {
    fn collect(table: &toml::Table, found: &mut BTreeSet<String>) {
        for (key, value) in table {
            match (key.as_str(), value.as_table()) {
                ("dependencies" | "build-dependencies", Some(named)) => found.extend(named.keys().cloned()),
                ("target", Some(platforms)) => {
                    platforms.values().filter_map(toml::Value::as_table).for_each(|table| collect(table, found));
                }
                _ => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(&manifest(&root().join(member).join("Cargo.toml")), &mut found);
    found
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let ours = ours();
    let mut wrong = Vec::new();
    for member in members() {
        if FREE.contains(&member.as_str()) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == member) else {
            wrong.push(format!("{member} is in no row of the table"));
            continue;
        };
        for name in dependencies(&member) {
            if ours.contains_key(&name) && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{member} imports {name}"));
            }
            let keepers = KEPT.iter().find(|(kept, _)| *kept == name).map(|(_, keepers)| *keepers);
            if keepers.is_some_and(|keepers| !keepers.contains(&member.as_str())) {
                wrong.push(format!("{member} uses {name} directly"));
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed:\n{}", wrong.join("\n"));
}

#[test]
fn dependencies_of_ours_go_by_the_names_of_the_workspace() {
    // Otherwise a renamed import would get past the test above.
    let mut wrong = Vec::new();
    for member in members() {
        let all = manifest(&root().join(&member).join("Cargo.toml"));
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (name, value) in all.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                if value.get("path").is_some() || value.get("package").is_some() {
                    wrong.push(format!("{member}: {name} has a path or package of its own"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every Rust file of the project, by its path from the root.
fn sources() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root, &mut found);
    let mut names: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(&root).expect("below the root").to_str().expect("a plain path").to_owned())
        .collect();
    names.sort();
    assert!(names.len() > 50, "the sources were not found");
    names
}

/// The code of a line: without text in quotes, and without a comment behind it.
fn code(line: &str) -> String {
    let line = line.replace("\\\"", "");
    let outside: String = line.split('"').step_by(2).collect();
    outside.split("//").next().unwrap_or_default().to_owned()
}

fn says_unsafe(line: &str) -> bool {
    code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn unsafe_code_is_in_memory_and_reactor_alone() {
    let mut wrong = Vec::new();
    for file in sources() {
        if UNSAFE.iter().any(|member| file.starts_with(&format!("{member}/")))
            || file.ends_with("tests/architecture.rs")
        {
            continue;
        }
        let text = fs::read_to_string(root().join(&file)).expect("a readable file");
        for (number, line) in (1..).zip(text.lines()) {
            if says_unsafe(line) {
                wrong.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe code:\n{}", wrong.join("\n"));
    // And the compiler holds the rest to it.
    for member in members().iter().filter(|member| !UNSAFE.contains(&member.as_str()) && *member != "benches") {
        let src = root().join(member).join("src");
        let head = ["lib.rs", "main.rs"].iter().find_map(|name| fs::read_to_string(src.join(name)).ok());
        assert!(head.is_some_and(|text| text.contains("#![forbid(unsafe_code)]")), "{member} does not forbid it");
    }
}

#[test]
fn files_have_one_screenful_of_reasons() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(root().join(&file)).expect("a readable file");
        let lines = text.lines().count();
        let listed = LONGER.iter().any(|(name, _)| *name == file);
        if lines > LONGEST && !listed {
            wrong.push(format!("{file} has {lines} lines: split it, or say in this test why not"));
        }
        if lines <= LONGEST && listed {
            wrong.push(format!("{file} has only {lines} lines now: take it off the list"));
        }
        if !text.trim_start().starts_with("//!") && !file.contains("/fuzz/") {
            wrong.push(format!("{file} does not say what it is in its first line"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_told_from_words_like_it() {
    assert!(says_unsafe("    unsafe { f() }") && says_unsafe("pub unsafe fn f();"));
    assert!(!says_unsafe("#![forbid(unsafe_code)]") && !says_unsafe("x(); // unsafe here?"));
    assert!(!says_unsafe("f(\"cache=unsafe\")") && says_unsafe("f(\"x\", unsafe { y })"));
}
