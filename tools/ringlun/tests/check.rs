//! The real program on good and on broken configurations.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn ringlun(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringlun")).args(arguments).output().unwrap()
}

fn broken() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/tests/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn check_names_place_cause_and_cure_of_every_mistake_and_exits_with_2() {
    let files = broken();
    assert!(files.len() >= 20, "the table is gone: {files:?}");
    for file in files {
        let name = file.display().to_string();
        let output = ringlun(&["check", &name]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(output.stdout.is_empty(), "{name}: no plan for a broken file");
        let text = fs::read_to_string(&file).unwrap();
        for expected in text.lines().map_while(|line| line.strip_prefix("# expect ")) {
            let (location, parts) = expected.split_once(" | ").unwrap();
            assert!(message.contains(&format!("{name}:{location}: ")), "{location} is not in\n{message}");
            for part in parts.split(" | ") {
                assert!(message.contains(part), "{part:?} is not in\n{message}");
            }
        }
        assert!(!message.contains("alicesecret1") && !message.contains("tooshort"), "{message}");
    }
}

#[test]
fn check_prints_the_plan_of_a_good_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringlun.toml");
    let text = "[server]\nstate_dir = \"state\"\n[[portal]]\naddress = \"127.0.0.1:0\"\n[[volume]]\nname = \"db1\"\n\
                store = { kind = \"file\", path = \"db1.img\", size = \"10GiB\" }\n[[volume.access]]\n\
                chap = { user = \"alice\", secret = \"alicesecret1\" }\n";
    fs::write(&file, text).unwrap();
    let output = ringlun(&["check", file.to_str().unwrap()]);
    let plan = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for part in
        ["data cores", "large buffers, 256 KiB", "127.0.0.1:0", "iqn.2026-01.io.ringlun:db1", "10 GiB", "as \"alice\""]
    {
        assert!(plan.contains(part), "{part:?} is not in\n{plan}");
    }
    assert!(!plan.contains("alicesecret1"));
    assert!(!folder.path().join("db1.img").exists() && !folder.path().join("state").exists(), "check creates nothing");
}

#[test]
fn serve_refuses_a_broken_file_and_a_wrong_log_level() {
    let file = broken().remove(0);
    let output = ringlun(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let output = ringlun(&["serve", "--log", "loud"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no level `loud`"));
}
