//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long anything may take that should be quick: generous, for busy machines.
pub const SOON: Duration = Duration::from_secs(30);

/// Calls `ask` until it gives something.
///
/// # Panics
/// When `bound` is over; `what` says what was waited for.
#[track_caller]
pub fn until<T>(bound: Duration, what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(bound, ask).unwrap_or_else(|| panic!("{what}: not within {bound:?}"))
}

/// Calls `ask` until it gives something or `bound` is over.
pub fn within<T>(bound: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + bound;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
