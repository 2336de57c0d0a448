//! A run from the first login to the result.

use crate::measure::Counters;
use crate::options::Options;
use crate::process::{Process, RunTime, own_run_time};
use crate::progress::Progress;
use crate::report::{BlockSize, Client, Direction, ErrorCount, Report, Server};
use crate::setup::{self, Thread};
use crate::verify::{Checker, Checks};
use crate::worker::{Control, Outcome, Phase, Said, Worker};
use rand::Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How often signals are looked for.
const GLANCE: Duration = Duration::from_millis(50);

/// Runs; true when nothing went wrong. An error: nothing has run.
pub fn run(options: &Options) -> Result<bool, String> {
    let server = options.server_pid.map(Process);
    if let Some(server) = server {
        RunTime::of(server).map_err(|error| format!("--server-pid: {error}"))?;
    }
    raise_file_limit(options)?;
    let interrupted = listen_to_signals()?;
    let seed = options.seed.unwrap_or_else(|| rand::rng().next_u64());
    let (threads, units) = setup::threads(options, seed)?;
    let mut run = Run { options, server, interrupted, total: Counters::default(), lost: false };
    let (report, checkers) = run.measure(threads)?;
    let mut good = report.errors.is_empty() && !run.lost;
    let silent = options.json.as_deref() == Some(Path::new("-"));
    if !silent {
        print!("{}", report.text());
    }
    if report.verify.as_ref().is_some_and(|checks| checks.blocks_checked == 0) {
        eprintln!("ringlun-load: --verify has checked nothing: read blocks that were stamped before (--verify-fill)");
        good &= report.read.operations == 0;
    }
    if let (Some(units), Some(path)) = (units, &options.verify_file)
        && let Err(reason) = units.save(path, &checkers)
    {
        eprintln!("ringlun-load: {reason}");
        good = false;
    }
    if let Some(path) = &options.json
        && let Err(reason) = write_json(&report, path)
    {
        eprintln!("ringlun-load: {reason}");
        good = false;
    }
    Ok(good)
}

/// Two descriptors for each session while it logs in, and some to spare.
fn raise_file_limit(options: &Options) -> Result<(), String> {
    let need = u64::from(options.sessions.get()) + 100;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(need));
    // Raising the hard limit is for root alone: then the soft one up to it may do.
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum })
        .or_else(|_| match limit.maximum {
            Some(maximum) if maximum < need => Err(()),
            maximum => setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum }).map_err(|_| ()),
        })
        .map_err(|()| format!("{} sessions need {need} open files: raise it with `ulimit -n`", options.sessions))
}

/// The first SIGINT or SIGTERM ends the run with its result, the second at once.
fn listen_to_signals() -> Result<Arc<AtomicBool>, String> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(|error| format!("signals: {error}"))?;
    }
    Ok(flag)
}

struct Run<'a> {
    options: &'a Options,
    server: Option<Process>,
    interrupted: Arc<AtomicBool>,
    total: Counters,
    lost: bool,
}

impl Run<'_> {
    fn measure(&mut self, workers: Vec<Thread>) -> Result<(Report, Vec<Checker>), String> {
        let control = Control::default();
        let threads = workers.len();
        let (said, heard) = mpsc::channel();
        let pinned = self.options.cpus.clone().map(|cpus| cpus.0).unwrap_or_default();
        thread::scope(|scope| {
            let mut running = Vec::new();
            for Thread { manner, sessions, common } in workers {
                let cpu = pinned.get(manner.number % pinned.len().max(1)).copied();
                let said = said.clone();
                let control = &control;
                running.push(scope.spawn(move || -> Outcome {
                    let result = pin(cpu).and_then(|()| Worker::new(manner, control, said.clone(), sessions, common));
                    match result {
                        Ok(worker) => worker.run(),
                        Err(reason) => {
                            let _ = said.send(Said::Lost(reason.clone()));
                            Outcome { errors: BTreeMap::from([(reason, 1)]), checker: None }
                        }
                    }
                }));
            }
            drop(said);
            let mut progress = Progress::new(self.options.quiet, threads);
            self.listen(&heard, &mut progress, Instant::now() + self.options.warmup, threads);
            let mut server = self.server.and_then(|server| RunTime::of(server).ok());
            let client = own_run_time();
            let start = Instant::now();
            control.set(Phase::Measure, 0);
            progress.begin();
            let end = start + if self.options.amount.is_some() { Duration::MAX / 4 } else { self.options.duration };
            let mut interval = 0;
            while !self.over() && Instant::now() < end && !progress.all_finished() {
                let next = end.min(start + Duration::from_secs(u64::from(interval) + 1));
                self.listen(&heard, &mut progress, next, threads);
                interval += 1;
                server.as_mut().map(RunTime::look);
                control.set(Phase::Measure, interval);
            }
            control.set(Phase::Stop, 0);
            let seconds = start.elapsed();
            let (client, server) = (own_run_time() - client, server.as_mut().map(RunTime::look));
            let resident = self.server.and_then(Process::resident_kib);
            let (mut errors, mut checkers) = (BTreeMap::new(), Vec::new());
            for thread in running {
                let outcome = thread.join().map_err(|_| "a thread has panicked".to_owned())?;
                for (error, count) in outcome.errors {
                    *errors.entry(error).or_default() += count;
                }
                checkers.extend(outcome.checker);
            }
            for said in heard.try_iter() {
                self.hear(said, &mut progress);
            }
            if self.server.is_some() && resident.is_none() {
                errors.insert("the server's process has ended during the run".to_owned(), 1);
            }
            let mut report = self.report(seconds, client, server, resident, errors);
            if self.options.verify {
                report.verify = Some(checkers.iter().fold(Checks::default(), |sum, checker| sum + checker.checks));
            }
            Ok((report, checkers))
        })
    }

    fn over(&self) -> bool {
        self.lost || self.interrupted.load(Relaxed)
    }

    /// Takes what threads say until it is time for something else.
    fn listen(&mut self, heard: &Receiver<Said>, progress: &mut Progress, until: Instant, threads: usize) {
        while !self.over() && progress.finished < threads {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match heard.recv_timeout(left.min(GLANCE)) {
                Ok(said) => self.hear(said, progress),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn hear(&mut self, said: Said, progress: &mut Progress) {
        match said {
            Said::Interval(Phase::Measure, counters) => {
                self.total.add(&counters);
                progress.add(&counters);
            }
            Said::Interval(..) => {}
            Said::Finished => progress.finished += 1,
            Said::Lost(reason) => {
                if !self.lost {
                    eprintln!("ringlun-load: {reason}");
                }
                self.lost = true;
            }
        }
    }

    fn report(
        &self,
        elapsed: Duration,
        client: Duration,
        server: Option<Duration>,
        resident_kib: Option<u64>,
        errors: BTreeMap<String, u64>,
    ) -> Report {
        let options = self.options;
        let seconds = elapsed.as_secs_f64();
        let total = self.total.total();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let per = |time: Duration, count: f64| (count > 0.0).then(|| us(time) / count);
        let percent = |time: Duration| 100.0 * time.as_secs_f64() / seconds;
        Report {
            sessions: options.sessions.get(),
            depth: options.depth.get(),
            block_size: match options.block_size[..] {
                [only] => BlockSize::One(only),
                _ => BlockSize::Mixed(options.block_size.clone()),
            },
            pattern: options.pattern.name(),
            read_percent: options.read_percent(),
            seconds,
            read: Direction::new(&self.total.read, seconds),
            write: Direction::new(&self.total.write, seconds),
            total: Direction::new(&total, seconds),
            server: server.map(|time| Server {
                cpu_us_per_operation: per(time, total.operations as f64),
                cpu_percent: percent(time),
                resident_kib,
                cpu_us_per_mib: per(time, total.bytes as f64 / f64::from(1 << 20)),
            }),
            client: Client { cpu_percent: percent(client), cpu_us_per_operation: per(client, total.operations as f64) },
            verify: None,
            errors: errors.into_iter().map(|(message, count)| ErrorCount { message, count }).collect(),
        }
    }
}

fn pin(cpu: Option<usize>) -> Result<(), String> {
    let Some(cpu) = cpu else {
        return Ok(());
    };
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| format!("--cpus: processor {cpu}: {error}"))
}

fn write_json(report: &Report, path: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())? + "\n";
    if path == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    fs::write(path, text).map_err(|error| format!("--json {}: {error}", path.display()))
}
