//! Other programs: started on their processors, watched, and ended whatever happens.

use crate::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, OnceLock, atomic::AtomicBool, atomic::Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

/// How often a program that should end is looked at.
const LOOK: Duration = Duration::from_millis(20);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM end the run in good order; a second one ends it at once.
pub fn heed_signals() -> Outcome<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}

/// An error when a signal came.
pub fn go_on() -> Outcome<()> {
    if is_interrupted() { Err("interrupted".into()) } else { Ok(()) }
}

/// A signal came.
pub fn is_interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Relaxed))
}

/// Sleeps, unless a signal comes.
pub fn pause(time: Duration) -> Outcome<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        go_on()?;
        sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
    }
    go_on()
}

/// `program` on these processors (a list as taskset has it), killed by the kernel if this process ends without having
/// ended it.
pub fn pinned(cpus: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "taskset", "--cpu-list", cpus]).arg(program.as_ref());
    command
}

/// A program that runs until it is dropped.
pub struct Process(Child);

impl Process {
    /// Starts it; what it says goes to `log`.
    pub fn start(mut command: Command, log: &Path) -> Outcome<Process> {
        let output = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        Ok(Process(child.map_err(|error| format!("{}: {error}", command.get_program().display()))?))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until `ready` gives something.
    pub fn wait_for<T>(&mut self, log: &Path, mut ready: impl FnMut() -> Option<T>) -> Outcome<T> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            go_on()?;
            if let Some(found) = ready() {
                return Ok(found);
            }
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("it ended at once ({status}):\n{}", tail(log)).into());
            }
            if Instant::now() > end {
                return Err(format!("it did not come up:\n{}", tail(log)).into());
            }
            sleep(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id() as i32).expect("a process id is positive");
        let end = Instant::now() + Duration::from_secs(5);
        let _ = kill_process(pid, Signal::TERM);
        while Instant::now() < end {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            sleep(LOOK);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Runs a program to its end and gives its standard output. `meanwhile` is called with its process id again and again.
pub fn run(mut command: Command, limit: Duration, mut meanwhile: impl FnMut(u32)) -> Outcome<String> {
    let (mut output, mut messages) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(messages.try_clone()?).spawn();
    let mut process = Process(child.map_err(|error| format!("{}: {error}", command.get_program().display()))?);
    let end = Instant::now() + limit;
    let status: ExitStatus = loop {
        meanwhile(process.id());
        if let Some(status) = process.0.try_wait()? {
            break status;
        }
        go_on()?;
        if Instant::now() > end {
            return Err(format!("{command:?} did not end in {} s", limit.as_secs()).into());
        }
        sleep(LOOK);
    };
    go_on()?;
    let mut text = String::new();
    if status.success() {
        output.rewind()?;
        output.read_to_string(&mut text)?;
        return Ok(text);
    }
    messages.rewind()?;
    messages.read_to_string(&mut text)?;
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    // Without setpriv's and taskset's own.
    Err(format!("{}: {status}: {}", arguments.get(6..).unwrap_or(&[]).join(" "), text.trim()).into())
}

/// Runs a short command of administration.
pub fn administer(program: &str, arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {message}", arguments.join(" ")).into())
}

/// Run time of each task of a process so far, by its number and name: threads, and the kernel's io_uring workers.
pub fn run_times(pid: u32) -> Outcome<BTreeMap<(u32, String), Duration>> {
    let mut times = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        let text = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0);
        // A task may end while we look: then it has no more to say.
        let nanoseconds = text("schedstat").split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
        times.insert((number, text("comm").trim().to_owned()), Duration::from_nanos(nanoseconds));
    }
    Ok(times)
}

/// Run time of all tasks of a process so far.
pub fn run_time(pid: u32) -> Outcome<Duration> {
    Ok(run_times(pid)?.values().sum())
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
