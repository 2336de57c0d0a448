//! Log lines on standard error: quiet unless asked.
use crate::arguments::Format;
use config::{LogFormat, LogSettings};
use std::io::IsTerminal;

/// Without a level: warnings of everything, and the few lines that the server has to say of its own.
const QUIET: &str = "warn,ringlun=info,server=info";

/// The command line's wish, else the file's, else quiet. Err: a filter that can't be read.
pub fn start(level: Option<&str>, format: Option<Format>, file: &LogSettings) -> Result<(), String> {
    let filter = level.or(file.level.as_deref()).unwrap_or(QUIET);
    let parsed = config::log_filter(filter).map_err(|(cause, cure)| format!("{cause}; {cure}"))?;
    let json = match format {
        Some(format) => format == Format::Json,
        None => file.format == Some(LogFormat::Json),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let started = if json {
        // `target` is the iSCSI target of a line, not the module that wrote it.
        builder.json().flatten_event(true).with_target(false).with_current_span(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|error| format!("logging can't be started: {error}"))
}
