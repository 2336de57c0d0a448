//! `ringlun check`: what a file means, or what is wrong with it.
use crate::{WRONG_INPUT, arguments::Check};
use miette::{GraphicalReportHandler, GraphicalTheme};
use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _, stderr, stdout},
    process::ExitCode,
};

/// Prints the plan, or the mistakes.
pub fn run(arguments: &Check) -> ExitCode {
    match config::load(&arguments.file) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                print_diagnostic(warning);
            }
            // A reader that went away (`| head`) is no failure of the check.
            let _ = write!(stdout().lock(), "{}", loaded.plan);
            ExitCode::SUCCESS
        }
        Err(report) => {
            print_diagnostic(&report);
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// To standard error; in colour on a terminal. Lines are broken for terminals only, so that programs find whole messages.
pub fn print_diagnostic(diagnostic: &dyn miette::Diagnostic) {
    let terminal = stderr().is_terminal();
    let handler = if terminal && std::env::var_os("NO_COLOR").is_none() {
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode())
    } else {
        GraphicalReportHandler::new_themed(GraphicalTheme::none())
    };
    let handler = if terminal { handler } else { handler.with_wrap_lines(false) };
    let mut text = String::new();
    if handler.render_report(&mut text, diagnostic).is_err() {
        text.clear();
        let _ = writeln!(text, "{diagnostic}");
    }
    let _ = stderr().lock().write_all(text.as_bytes());
}
