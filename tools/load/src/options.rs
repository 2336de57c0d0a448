//! The command line.

use crate::size::{ByteRange, Cpus, parse_cpus, parse_positive_size, parse_range};
use crate::url::Url;
use clap::{Parser, ValueEnum};
use std::{num::NonZeroU32, path::PathBuf, time::Duration};

/// Puts load on iSCSI targets, measures it, and verifies what it reads.
///
/// Every session has one connection and keeps --depth commands in flight; sessions are dealt out to the URLs and to
/// the threads in turn. Latency counts from the moment an operation was built (with --rate: was due) to the return of
/// the receive that brought its end; the clock is read once per receive. Nothing of the warm-up is counted.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringlun-load", version, max_term_width = 120)]
pub struct Options {
    /// `iscsi://[user@]host[:port]/target-name/lun`
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<Url>,

    /// Sessions, over all URLs together
    #[arg(long, default_value = "1", value_name = "N")]
    pub sessions: NonZeroU32,

    /// Commands in flight per session
    #[arg(long, default_value = "32", value_name = "N")]
    pub depth: NonZeroU32,

    /// Threads
    #[arg(long, default_value = "1", value_name = "N")]
    pub threads: NonZeroU32,

    /// Processors to pin the threads to, in turn: 0,2-4
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<Cpus>,

    /// Bytes per operation; of a list (4k,64k,1M) each operation takes one at random
    #[arg(long, default_value = "4KiB", value_name = "SIZE,...", value_delimiter = ',', value_parser = parse_positive_size)]
    pub block_size: Vec<u64>,

    /// Where the operations go. Sequential: each session walks its own share of the range, again and again
    #[arg(long, value_enum, default_value = "random")]
    pub pattern: Pattern,

    /// How many of a hundred operations are reads [default: 100, with --verify 50]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: Option<u8>,

    /// Part of the logical unit to use, in bytes [default: all]
    #[arg(long, value_name = "OFFSET:LENGTH", value_parser = parse_range)]
    pub range: Option<ByteRange>,

    /// How long to measure
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Duration,

    /// Bytes to move instead, over all sessions together
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["duration", "idle"], value_parser = parse_positive_size)]
    pub amount: Option<u64>,

    /// Load before the measuring begins
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub warmup: Duration,

    /// Operations per second, over all sessions together. They are due at even distances; one that has to wait for a
    /// free place counts the wait into its latency
    #[arg(long, value_name = "OPS")]
    pub rate: Option<NonZeroU32>,

    /// Ask the sockets without end instead of sleeping
    #[arg(long)]
    pub spin: bool,

    /// Log in and send no command: what do idle sessions cost the server?
    #[arg(long, conflicts_with_all = ["rate", "spin"])]
    pub idle: bool,

    /// Insist on CRC32C of headers
    #[arg(long)]
    pub header_digest: bool,

    /// Insist on CRC32C of data
    #[arg(long)]
    pub data_digest: bool,

    /// CHAP name [default: the user of the URL]
    #[arg(long, value_name = "NAME", requires = "chap_secret_file")]
    pub chap_user: Option<String>,

    /// File with the CHAP secret in its first line
    #[arg(long, value_name = "PATH")]
    pub chap_secret_file: Option<PathBuf>,

    /// CHAP name of the target, which has to prove itself
    #[arg(long, value_name = "NAME", requires = "mutual_secret_file", requires = "chap_secret_file")]
    pub mutual_user: Option<String>,

    /// File with the target's CHAP secret in its first line
    #[arg(long, value_name = "PATH", requires = "mutual_user")]
    pub mutual_secret_file: Option<PathBuf>,

    /// Name of this initiator
    #[arg(long, value_name = "NAME", default_value = "iqn.2026-01.io.ringlun:load")]
    pub initiator_name: String,

    /// Stamp every block that is written, and hold every block that is read against its last write. The first mismatch
    /// ends the run. Takes about ten bytes of memory per logical block of the range
    #[arg(long, conflicts_with = "idle")]
    pub verify: bool,

    /// With --verify: keep what each block must hold in this file, so that a later run proves what this one has written
    #[arg(long, value_name = "PATH", requires = "verify")]
    pub verify_file: Option<PathBuf>,

    /// With --verify: write every block of the range once before all else
    #[arg(long, requires = "verify")]
    pub verify_fill: bool,

    /// Let pass what other targets get wrong without harm
    #[arg(long)]
    pub lenient: bool,

    /// Process of the server on this machine, to measure what it costs: the run time of all its tasks, kernel workers
    /// included, in nanoseconds from /proc/PID/task/*/schedstat, over exactly the measured time
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,

    /// Write the result as JSON too; `-`: to standard output, instead of the summary
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// No line per second
    #[arg(long)]
    pub quiet: bool,

    /// Seed of everything random [default: another each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl Options {
    /// How many of a hundred operations are reads.
    pub fn read_percent(&self) -> u8 {
        self.read_percent.unwrap_or(if self.verify { 50 } else { 100 })
    }
}

/// Where operations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// Anywhere in the range, aligned to the operation's size.
    Random,
    /// One behind the other.
    Sequential,
}

impl Pattern {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Random => "random",
            Pattern::Sequential => "sequential",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
