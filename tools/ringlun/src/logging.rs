//! Log lines on standard error: quiet unless asked.
use crate::arguments::Format;
use config::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Without a level: warnings of everything, and the few lines that the server has to say of its own.
const QUIET: &str = "warn,ringlun=info,server=info";

/// The command line's wish, else the file's, else quiet. Err: a filter that can't be read.
pub fn start(level: Option<&str>, format: Option<Format>, file: &LogSettings) -> Result<(), String> {
    let filter = level.or(file.level.as_deref()).unwrap_or(QUIET);
    let parsed = parse(filter)?;
    let json = match format {
        Some(format) => format == Format::Json,
        None => file.format == Some(LogFormat::Json),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|error| format!("logging can't be started: {error}"))
}

/// Reads a level or filter. Err: cause and cure. A bare word that is no level would be taken for a module's name and log
/// nothing that was meant.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    let wrong = |cause: &str| {
        format!(
            "`{filter}` is no log level or filter: {cause}; write error, warn, info, debug or trace, or a list such as warn,server=debug"
        )
    };
    let words = filter.split(',').map(str::trim);
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for word in words {
        if !word.contains(['=', '[', ':']) && !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(wrong(&format!("there is no level `{word}`")));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| wrong(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read_and_others_are_refused() {
        for good in ["warn", "INFO", QUIET, "warn,server::core=trace", "off"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "warn,server=loud", "info,"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
