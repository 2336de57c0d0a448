//! The command line.
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ringlun serve                            a RAM disk of 1 GiB on 127.0.0.1:3260, to try it
  ringlun check /etc/ringlun.toml          what a file means, or what is wrong with it
  ringlun serve --config /etc/ringlun.toml
  ringlun reload /etc/ringlun.toml         apply what has changed in it, while it serves

A small configuration:
  [[portal]]
  address = \"0.0.0.0:3260\"

  [[volume]]                               # target iqn.2026-01.io.ringlun:db1, LUN 0
  name = \"db1\"
  store = { kind = \"file\", path = \"/srv/db1.img\", size = \"10GiB\" }

  [[volume.access]]                        # no entry: anyone
  initiator = \"iqn.1994-05.com.redhat:8e89b27b5b8\"
  chap = { user = \"alice\", secret_file = \"alice.secret\" }";

const SERVE_EXAMPLES: &str = "\
Standard output says when everything is ready; its first line is for programs:
  ringlun ready portals=127.0.0.1:3260
SIGHUP: the file is read again, see ringlun reload --help.
SIGTERM or SIGINT: no new connections, initiators are asked to log out, everything is flushed.
Exit code 0: it was told to end. 1: it failed. 2: the command line or the file has mistakes.

Examples:
  ringlun serve
  ringlun serve --config /etc/ringlun.toml --log debug
  ringlun serve --config /etc/ringlun.toml --log warn,server=trace --log-format json";

const CHECK_EXAMPLES: &str = "\
Nothing is created or changed. Exit code 0: the plan is on standard output. 2: every mistake is on
standard error with line, column, cause and cure.";

const RELOAD_EXAMPLES: &str = "\
The file is checked first; then the target that uses its `state_dir` is sent SIGHUP. It reads the
file that it was started with. Volumes, targets, LUNs, sizes and access rules change while sessions
go on; what can't change is named. Run it as the user that runs the target.
Exit code 0: done. 1: it was not done, and why. 2: the file has mistakes.";

/// An iSCSI target on io_uring, one thread per core.
#[derive(Parser, Debug)]
#[command(name = "ringlun", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve disks; without a file, a RAM disk to try it with
    Serve(Serve),
    /// Read a configuration, say what it means or what is wrong with it
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Have the running target read its configuration again
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload(Check),
}

/// `ringlun serve`
#[derive(Args, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct Serve {
    /// Configuration in TOML [default: a RAM disk of 1 GiB for this machine]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Level (error, warn, info, debug, trace) or a tracing filter [default: the file's, or quiet]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Form of log lines [default: the file's, or text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<Format>,
}

/// `ringlun check`, `ringlun reload`
#[derive(Args, Debug)]
pub struct Check {
    /// Configuration in TOML
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Form of log lines.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people
    Text,
    /// One object per line
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serve_needs_nothing() {
        let arguments = Arguments::try_parse_from(["ringlun", "serve"]).unwrap();
        assert!(matches!(arguments.command, Command::Serve(Serve { config: None, log: None, log_format: None })));
    }

    #[test]
    fn the_configuration_in_the_help_is_a_good_one() {
        let text = EXAMPLES.split("A small configuration:\n").nth(1).unwrap();
        let text =
            text.replace("secret_file = \"alice.secret\"", "secret = \"alicesecret1\"").replace("/srv/", "/tmp/");
        let loaded = config::parse(std::path::Path::new("help.toml"), text, &config::System).unwrap();
        assert_eq!(loaded.plan.targets[0].name, "iqn.2026-01.io.ringlun:db1");
    }
}
