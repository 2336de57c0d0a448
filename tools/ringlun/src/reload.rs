//! `ringlun reload`: has the running target read its configuration again, and says what came of it.
use crate::{WRONG_INPUT, arguments::Check, check::print_diagnostic};
use rustix::process::{Pid, Signal, kill_process};
use server::state::{Told, last_reload, process};
use std::{
    io::{Write, stderr, stdout},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Opening and allocating large files takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

const UNCHANGED: &str = "done: all is as the file says already\n";

/// Checks the file here, too: its mistakes are shown as `ringlun check` does.
pub fn run(arguments: &Check) -> ExitCode {
    let loaded = match config::load(&arguments.file) {
        Ok(loaded) => loaded,
        Err(report) => {
            print_diagnostic(&report);
            return ExitCode::from(WRONG_INPUT);
        }
    };
    for warning in &loaded.warnings {
        print_diagnostic(warning);
    }
    match ask(&loaded.plan.server.state_dir) {
        Ok(told) => {
            let text: String = told.lines.iter().map(|line| format!("{line}\n")).collect();
            // Whoever reads this may have gone: what was done is done.
            if told.done {
                let text = if text.is_empty() { UNCHANGED.to_owned() } else { text };
                let _ = stdout().lock().write_all(text.as_bytes());
                return ExitCode::SUCCESS;
            }
            let _ = stderr().lock().write_all(format!("{text}ringlun: nothing has changed\n").as_bytes());
            ExitCode::FAILURE
        }
        Err(message) => {
            let _ = writeln!(stderr(), "ringlun: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Sends the signal and waits for what comes of it.
fn ask(folder: &Path) -> Result<Told, String> {
    let shown = folder.display();
    let number = process(folder).map_err(|error| format!("{shown}: {error}"))?;
    let pid = number.and_then(|number| Pid::from_raw(i32::try_from(number).ok()?));
    let pid =
        pid.ok_or_else(|| format!("no ringlun is running on the state folder {shown}; start it: ringlun serve"))?;
    let before = last_reload(folder).map_or(0, |told| told.number);
    kill_process(pid, Signal::HUP).map_err(|error| {
        format!("process {} can't be told: {error}; run this as the user that runs the target", pid.as_raw_nonzero())
    })?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match last_reload(folder) {
            Some(told) if told.number > before => return Ok(told),
            _ => thread::sleep(Duration::from_millis(20)),
        }
        if !matches!(process(folder), Ok(Some(_))) {
            return Err("the target has ended".to_owned());
        }
    }
    Err(format!("no word from the target within {} seconds; see its log", PATIENCE.as_secs()))
}
