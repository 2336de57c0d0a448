//! `ringlun serve`: reads the plan, runs the server, says when it is ready.
use crate::{WRONG_INPUT, arguments::Serve, check::print_diagnostic, logging, ready};
use config::{Host, Loaded, Plan, System};
use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

/// Runs until it is told to end and everything has been drained.
pub fn run(arguments: &Serve) -> ExitCode {
    let loaded = match &arguments.config {
        Some(file) => match config::load(file) {
            Ok(loaded) => loaded,
            Err(report) => {
                print_diagnostic(&report);
                return ExitCode::from(WRONG_INPUT);
            }
        },
        None => Loaded { plan: Plan::demo(&System.allowed_cores()), warnings: Vec::new() },
    };
    let Loaded { plan, warnings } = loaded;
    if let Err(message) = logging::start(arguments.log.as_deref(), arguments.log_format, &plan.log) {
        let _ = writeln!(stderr(), "ringlun: {message}");
        return ExitCode::from(WRONG_INPUT);
    }
    for warning in &warnings {
        tracing::warn!(cure = warning.cure(), "{warning}");
    }
    let shown = plan.clone();
    let announce = move |now: &server::Ready| {
        let text = ready::announcement(&now.portals, &now.targets, &shown);
        let mut out = stdout().lock();
        // Whoever started this may have closed its end; serving goes on.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    };
    match server::run(plan, arguments.config.clone(), announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
