//! The one program that people run: `ringlun serve`, `ringlun check`, `ringlun reload`.
//!
//! Standard output carries what was asked for (the plan, the readiness line); standard error carries messages and logs.
//! Exit codes: 0 done, 1 failed while running, 2 a wrong command line or configuration.
#![forbid(unsafe_code)]

mod arguments;
mod check;
mod logging;
mod ready;
mod reload;
mod serve;

use arguments::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A wrong configuration or command line, as clap has it too.
const WRONG_INPUT: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(serve) => serve::run(&serve),
        Command::Check(check) => check::run(&check),
        Command::Reload(check) => reload::run(&check),
    }
}
