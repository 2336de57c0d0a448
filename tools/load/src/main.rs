//! `ringlun-load`: puts load on iSCSI targets, measures it, and verifies what it reads.
//!
//! Standard output carries the result, standard error the progress and what went wrong. Exit codes: 0 good, 1 a wrong
//! command line or a failed login, 2 errors or mismatches during the run.
#![forbid(unsafe_code)]

mod login;
mod measure;
mod operation;
mod options;
mod process;
mod progress;
mod report;
mod run;
mod session;
mod setup;
mod size;
mod url;
mod verify;
mod worker;
mod workload;

use clap::{Parser, error::ErrorKind};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line or a login was wrong: nothing has run.
const NOT_RUN: u8 = 1;
/// Errors or mismatches.
const WENT_WRONG: u8 = 2;

fn main() -> ExitCode {
    let options = match options::Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(NOT_RUN),
            };
        }
    };
    match run::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WENT_WRONG),
        Err(reason) => {
            eprintln!("ringlun-load: {reason}");
            ExitCode::from(NOT_RUN)
        }
    }
}
