//! The program under test as a child process.

use crate::{Client, client, programs, wait};
use initiator::LoginOptions;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What every target's name begins with.
pub const PREFIX: &str = "iqn.2026-01.io.ringlun";

/// A configuration on its way. `$DIR` in it is the target's own temporary folder.
///
/// With `RINGLUN_MASK` in the environment (a list as `mask_features` takes it: `"5.19"`), every target runs with these
/// kernel features masked, unless its test has something to say about that itself.
pub struct Setup {
    server: String,
    portals: Vec<(String, u16)>,
    rest: String,
    folder: TempDir,
    /// Runs the program.
    under: Vec<String>,
}

impl Setup {
    /// `rest` are the `[[volume]]` and `[[target]]` sections.
    pub fn new(rest: &str) -> Setup {
        let folder = tempfile::Builder::new().prefix("ringlun-").tempdir_in(programs::scratch());
        Setup {
            server: String::new(),
            portals: Vec::new(),
            rest: rest.to_owned(),
            folder: folder.expect("a temporary folder"),
            under: Vec::new(),
        }
    }

    /// A program with its arguments that becomes ringlun: for limits and rights.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Setup {
        self.under.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// The target's folder, to put files into before it starts.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lines for `[server]`.
    #[must_use]
    pub fn server(mut self, lines: &str) -> Setup {
        self.server += lines;
        self.server.push('\n');
        self
    }

    /// A portal; without any it is 127.0.0.1 with a port that the kernel chooses.
    #[must_use]
    pub fn portal(mut self, address: &str, group: u16) -> Setup {
        self.portals.push((address.to_owned(), group));
        self
    }

    fn text(&self) -> String {
        let mut text = format!("[server]\nstate_dir = \"$DIR/state\"\n{}", self.server);
        if !self.server.contains("drain_timeout_s") {
            // Many a test leaves a session behind.
            text += "drain_timeout_s = 1\n";
        }
        if !self.server.contains("mask_features")
            && let Ok(mask) = std::env::var("RINGLUN_MASK")
        {
            text += &format!("mask_features = [{mask:?}]\n");
        }
        for (address, group) in &self.portals {
            text += &format!("\n[[portal]]\naddress = \"{address}\"\ngroup = {group}\n");
        }
        text += "\n";
        text += &self.rest;
        text.replace("$DIR", self.folder.path().to_str().expect("a plain path"))
    }

    /// Starts the program and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready; with what it has logged.
    #[track_caller]
    pub fn start(mut self) -> Target {
        if self.portals.is_empty() {
            self = self.portal("127.0.0.1:0", 1);
        }
        let mut target =
            Target { log: self.folder.path().join("log"), setup: self, process: None, portals: Vec::new() };
        target.launch();
        target
    }
}

/// A running target. Dropping it kills the process, and shows its log when the test has failed.
pub struct Target {
    setup: Setup,
    log: PathBuf,
    process: Option<Child>,
    portals: Vec<SocketAddr>,
}

impl Target {
    /// Starts a target with these sections and an ordinary portal.
    #[track_caller]
    pub fn start(rest: &str) -> Target {
        Setup::new(rest).start()
    }

    #[track_caller]
    fn launch(&mut self) {
        let config = self.folder().join("ringlun.toml");
        write_private(&config, &self.setup.text());
        let log = File::options().create(true).append(true).open(&self.log).expect("the log");
        let program = programs::ringlun();
        let program = program.to_str().expect("a plain path").to_owned();
        let mut words = self.setup.under.iter().chain([&program]);
        let mut child = Command::new(words.next().expect("at least the program"))
            .args(words)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} {program}: {error}", self.setup.under.join(" ")));
        let (lines, announced) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        self.process = Some(child);
        // Reads until the end, so that the program never writes into a full or closed pipe.
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line))));
        let ready = loop {
            match announced.recv_timeout(wait::SOON) {
                Ok(line) => match line.strip_prefix("ringlun ready portals=") {
                    Some(portals) => break portals.to_owned(),
                    None => continue,
                },
                Err(error) => panic!("ringlun did not get ready ({error}):\n{}", self.log()),
            }
        };
        let parse = |text: &str| text.parse().unwrap_or_else(|error| panic!("portal {text}: {error}"));
        self.portals = ready.split(',').map(parse).collect();
    }

    /// Starts it again after [`kill`](Self::kill) or [`terminate`](Self::terminate): the same configuration, folder and
    /// ports.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it still runs");
        let portals = self.portals.clone();
        for (portal, (address, _)) in portals.iter().zip(&mut self.setup.portals) {
            *address = portal.to_string();
        }
        self.launch();
        assert_eq!(self.portals, portals);
    }

    /// Gives it another configuration, with these sections instead of the first ones, and does not tell it.
    pub fn rewrite(&mut self, rest: &str) -> PathBuf {
        self.setup.rest = rest.to_owned();
        let config = self.folder().join("ringlun.toml");
        write_private(&config, &self.setup.text());
        config
    }

    /// Has it reload its configuration, with these sections instead of the first ones: how `ringlun reload` has ended.
    #[track_caller]
    pub fn reload(&mut self, rest: &str) -> programs::Ended {
        let config = self.rewrite(rest);
        programs::run(programs::ringlun(), [Path::new("reload"), &config])
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        kill_process(pid(self.process.as_ref().expect("it runs")), Signal::HUP).expect("our own child");
    }

    /// SIGTERM; gives how it has ended and how long that took.
    ///
    /// # Panics
    /// When it has not ended within `bound`.
    #[track_caller]
    pub fn terminate(&mut self, bound: Duration) -> (ExitStatus, Duration) {
        let mut process = self.process.take().expect("it runs");
        let started = Instant::now();
        kill_process(pid(&process), Signal::TERM).expect("our own child");
        let status = wait::within(bound, || process.try_wait().expect("our own child"));
        let took = started.elapsed();
        let Some(status) = status else {
            self.process = Some(process);
            panic!("no end within {bound:?} of SIGTERM");
        };
        (status, took)
    }

    /// SIGTERM, and all has to go well.
    #[track_caller]
    pub fn end(mut self) {
        let (status, _) = self.terminate(wait::SOON);
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// A field of `/proc/PID/status` in bytes, such as `VmRSS`.
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no {field} in /proc/PID/status")) * 1024
    }

    /// Its temporary folder, `$DIR` of the configuration.
    pub fn folder(&self) -> &Path {
        self.setup.folder.path()
    }

    /// Where it listens.
    pub fn portals(&self) -> &[SocketAddr] {
        &self.portals
    }

    /// The first of them.
    pub fn portal(&self) -> SocketAddr {
        self.portals[0]
    }

    /// The full name of a target.
    pub fn name(&self, short: &str) -> String {
        format!("{PREFIX}:{short}")
    }

    /// As libiscsi and QEMU write it.
    pub fn uri(&self, short: &str, lun: u16) -> String {
        format!("iscsi://{}/{PREFIX}:{short}/{lun}", self.portal())
    }

    /// Logs in to a target, as an initiator with a session of its own, and reads off the unit attentions.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn client(&self, short: &str) -> Client {
        match self.log_in(client::options(&self.name(short))) {
            Ok(mut client) => {
                client.settle();
                client
            }
            Err(error) => panic!("login to {short}: {error}"),
        }
    }

    /// Logs in with other options.
    ///
    /// # Errors
    /// What the target said.
    pub fn log_in(&self, options: LoginOptions) -> Result<Client, client::ConnectError> {
        Client::connect(self.portal(), options)
    }

    /// All that it has logged, over restarts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of the log that has all of `words`.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn logged(&self, words: &[&str]) -> String {
        let find = || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        };
        match wait::within(wait::SOON, find) {
            Some(line) => line,
            None => panic!("no line with {words:?} in the log:\n{}", self.log()),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
        self.kill();
        if std::thread::panicking() {
            match ended {
                Some(status) => eprintln!("--- ringlun has ended by itself: {status}; its log:"),
                None => eprintln!("--- the log of ringlun:"),
            }
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(100)..] {
                eprintln!("{line}");
            }
            eprintln!("---");
        }
    }
}

fn pid(process: &Child) -> Pid {
    i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process number")
}

/// Secrets may be in it: for nobody else.
fn write_private(path: &Path, text: &str) {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
