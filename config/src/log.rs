//! What may be said of the log: a level, or a filter.

use tracing_subscriber::EnvFilter;

/// Reads a level (`warn`) or a filter (`warn,server=debug`). A bare word that is no level would be taken for a module's
/// name and log nothing that was meant.
///
/// # Errors
/// Cause and cure.
pub fn log_filter(text: &str) -> Result<EnvFilter, (String, &'static str)> {
    let wrong = |cause: String| {
        let cure = "write error, warn, info, debug or trace, or a list such as warn,server=debug";
        (format!("`{text}` is no log level or filter: {cause}"), cure)
    };
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for word in text.split(',').map(str::trim) {
        if !word.contains(['=', '[', ':']) && !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(wrong(format!("there is no level `{word}`")));
        }
    }
    EnvFilter::try_new(text).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read_and_others_are_refused() {
        for good in ["warn", "INFO", "warn,ringlun=info,server=info", "warn,server::core=trace", "off"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "warn,server=loud", "info,"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }
}
