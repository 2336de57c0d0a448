//! Other people's programs, run under a time limit.

use crate::wait;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Seek},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

/// How a program has ended.
#[derive(Debug)]
pub struct Ended {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; None: it was killed, or took too long.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Its output, if it has succeeded.
    ///
    /// # Panics
    /// If not; with all that it has said.
    #[track_caller]
    pub fn success(self) -> String {
        // Indented: what another program says of its tests is not taken for ours.
        let shown = |text: &str| text.lines().map(|line| format!("  | {line}\n")).collect::<String>();
        let (out, err) = (shown(&self.out), shown(&self.err));
        assert!(self.code == Some(0), "{}: exit code {:?}\noutput\n{out}errors\n{err}", self.line, self.code);
        self.out
    }
}

/// Runs `program` with `arguments`, for two minutes at most.
#[track_caller]
pub fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, Duration::from_secs(120))
}

/// Runs a command until it ends, or kills it and its children when `bound` is over.
///
/// # Panics
/// When it can't be started.
#[track_caller]
pub fn finish(command: Command, bound: Duration) -> Ended {
    let line = format!("{command:?}");
    let mut command = ending_with_us(command);
    let capture = || tempfile::tempfile_in(scratch()).expect("a temporary file");
    let (mut out, mut err) = (capture(), capture());
    let stdio = |file: &File| Stdio::from(file.try_clone().expect("a second descriptor"));
    // A group of its own, so that a script's children end with it.
    command.stdin(Stdio::null()).stdout(stdio(&out)).stderr(stdio(&err)).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("{line} can't be run: {error}; `tests/run` installs what the tests need"),
    };
    let status = wait::within(bound, || child.try_wait().expect("our own child"));
    if status.is_none() {
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
    }
    let absent = status.and_then(|status| status.code()) == Some(NOT_FOUND);
    assert!(!absent, "{line} can't be run; `tests/run` installs what the tests need");
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("captured output");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut ended = Ended { line, code: status.and_then(|s| s.code()), out: read(&mut out), err: read(&mut err) };
    if status.is_none() {
        ended.err += &format!("\nkilled after {bound:?}\n");
    }
    ended
}

/// What setpriv(1) ends with when there is no such program.
const NOT_FOUND: i32 = 127;

/// The same command, killed when the thread that started it is gone: a group of its own doesn't hear of Ctrl-C. In the guest,
/// which ends as a whole, there is no program for that.
fn ending_with_us(command: Command) -> Command {
    static CAN: OnceLock<bool> = OnceLock::new();
    let words = ["--pdeathsig", "KILL", "--"];
    let works = || {
        let tried = Command::new("setpriv").args(words).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    if !CAN.get_or_init(works) {
        return command;
    }
    let mut ending = Command::new("setpriv");
    ending.args(words).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => ending.env(name, value),
            None => ending.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        ending.current_dir(folder);
    }
    ending
}

/// The folder of the built programs: `target/debug` or `target/release`.
pub fn build_folder() -> PathBuf {
    let mut folder = std::env::current_exe().expect("the path of this test");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

/// A folder for large temporary files on a real file system (`/tmp` may be memory, which has no O_DIRECT).
pub fn scratch() -> PathBuf {
    let folder = match std::env::var_os("RINGLUN_SCRATCH") {
        Some(folder) => PathBuf::from(folder),
        None => build_folder().join("../tmp"),
    };
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder.canonicalize().expect("it was just made")
}

/// The program under test: `$RINGLUN_BIN`, else the newest that was built beside this test.
pub fn ringlun() -> PathBuf {
    built("RINGLUN_BIN", "ringlun")
}

/// Our load generator: `$RINGLUN_LOAD_BIN`, else the newest that was built beside this test.
pub fn load() -> PathBuf {
    built("RINGLUN_LOAD_BIN", "ringlun-load")
}

fn built(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let target = build_folder().join("..");
    let built = ["release", "debug"].map(|profile| target.join(profile).join(name));
    let newest = built.into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
    match newest {
        Some((_, path)) => path.canonicalize().expect("it was just seen"),
        None => panic!("there is no {name} in {}: cargo build --release -p {name}", target.display()),
    }
}
