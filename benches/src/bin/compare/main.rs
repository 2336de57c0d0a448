//! Compares ringlun with tgt, with the bare loopback, and on files with fio: each load on all of them in turn, A B A B, several
//! rounds, the server on one processor and the client on another.
#![forbid(unsafe_code)]

mod calm;
mod cases;
mod contenders;
mod further;
mod goals;
mod measure;
mod plots;
mod processes;
mod results;
mod servers;
mod surroundings;
mod table;

use calm::Calm;
use cases::Case;
use clap::Parser;
use contenders::{Contender, Server, Store, Way};
use measure::{FIO_SETTINGS, Times};
use results::Results;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use servers::{Servers, Setup};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(
    name = "benches/compare",
    about = "Compares ringlun with tgt, the bare loopback and fio, and writes the tables and plots of benches/README.md",
    max_term_width = 120
)]
struct Arguments {
    /// A few cases in under 90 seconds; prints, and writes nothing.
    #[arg(long)]
    short: bool,
    /// Another ringlun instead of tgt, for before and after a change: its program, or a folder with
    /// target/release/ringlun. Implies --short.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Only cases whose names contain one of these, comma-separated: `ram/4k-read`, `direct`, `depth`, `further`... Prints,
    /// and writes nothing.
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    cases: Vec<String>,
    /// Names the cases.
    #[arg(long)]
    list: bool,
    /// Rounds, each through all contenders of a case.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a run that are measured [default: 3, in the short form 1.2].
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds before [default: 0.5, in the short form 0.2].
    #[arg(long)]
    warmup: Option<f64>,
    /// Seconds that a measurement may wait until nobody slows the two processors down, and be taken again if somebody
    /// did meanwhile [default: 5, in the short form 0].
    #[arg(long)]
    patience: Option<f64>,
    /// The server's processor.
    #[arg(long, default_value_t = 1)]
    server_cpu: usize,
    /// The client's processor.
    #[arg(long, default_value_t = 0)]
    client_cpu: usize,
    /// Folder on a disk, for the files that are served.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Writes README.md, plots/ and results.json there, even of a part, which takes the place of the same part of a
    /// run before.
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Measures nothing: tables and plots anew from results.json of --output.
    #[arg(long)]
    render: bool,
    /// Folder with ringlun, ringlun-load and bare [default: that of this program].
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

impl Arguments {
    fn is_short(&self) -> bool {
        self.short || self.against.is_some()
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every measurement came about.
fn run(arguments: &Arguments) -> Outcome<bool> {
    let cases = chosen(arguments);
    if arguments.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        println!("{}", FURTHER.join("\n"));
        return Ok(true);
    }
    let whole = arguments.cases.is_empty() && !arguments.is_short();
    let default = whole.then(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let output = arguments.output.clone().or(default);
    if arguments.render {
        let folder = output.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        return write(&folder, &Results::load(&folder.join("results.json"))?).map(|()| true);
    }
    processes::heed_signals()?;
    let setup = setup(arguments)?;
    let mut compare = Compare {
        calm: Calm::new([setup.server_cpu, setup.client_cpu], patience(arguments)),
        about: surroundings::Watch::begin(&setup)?,
        servers: Servers::new(setup)?,
        times: times(arguments),
        rounds: arguments.rounds.max(1),
        results: Results::default(),
        fio: BTreeMap::new(),
        failures: Vec::new(),
    };
    compare.cases(&cases)?;
    let wanted = |name: &str| whole || arguments.cases.iter().any(|part| name.contains(part.as_str()));
    compare.further(wanted)?;
    let Compare { mut results, about, calm, fio, failures, rounds, times, servers } = compare;
    drop(servers);
    results.about = about.end(rounds, times.measured, fio)?;
    results.about.again = calm.again;
    if let Some(folder) = output {
        if !whole && let Ok(mut before) = Results::load(&folder.join("results.json")) {
            before.overlay(results);
            results = before;
        }
        write(&folder, &results)?;
    }
    if !failures.is_empty() {
        eprintln!("compare: {} measurements failed, see above", failures.len());
    }
    Ok(failures.is_empty())
}

/// Names of what is no load.
const FURTHER: [&str; 4] = ["further/idle", "further/memory", "further/cores", "further/cores-no-spinning"];

fn write(folder: &Path, results: &Results) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    results.store(&folder.join("results.json"))?;
    plots::draw(&folder.join("plots"), results)?;
    table::put(&folder.join("README.md"), results)?;
    println!("{} is up to date", folder.join("README.md").display());
    Ok(())
}

/// The cases of the command line.
fn chosen(arguments: &Arguments) -> Vec<Case> {
    let short = arguments.is_short();
    let named = |case: &Case| {
        arguments.cases.is_empty() || arguments.cases.iter().any(|part| case.name.contains(part.as_str()))
    };
    let mut cases: Vec<_> = cases::all().into_iter().filter(|case| (case.short || !short) && named(case)).collect();
    if short {
        for case in &mut cases {
            case.contenders = match arguments.against {
                Some(_) => vec![Contender::Ringlun, Contender::Before],
                None => vec![Contender::Ringlun, Contender::Tgt],
            };
        }
    }
    cases
}

fn times(arguments: &Arguments) -> Times {
    let (measured, warmup) = if arguments.is_short() { (1.2, 0.2) } else { (3.0, 0.5) };
    Times {
        measured: Duration::from_secs_f64(arguments.seconds.unwrap_or(measured).max(0.1)),
        warmup: Duration::from_secs_f64(arguments.warmup.unwrap_or(warmup).max(0.0)),
    }
}

fn patience(arguments: &Arguments) -> Duration {
    Duration::from_secs_f64(arguments.patience.unwrap_or(if arguments.is_short() { 0.0 } else { 5.0 }).max(0.0))
}

/// Finds the programs, and keeps this one off the server's processor.
fn setup(arguments: &Arguments) -> Outcome<Setup> {
    if arguments.server_cpu == arguments.client_cpu {
        return Err("--server-cpu and --client-cpu have to differ".into());
    }
    let allowed = sched_getaffinity(None)?;
    for cpu in [arguments.server_cpu, arguments.client_cpu] {
        if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
            return Err(format!("this process may not use processor {cpu}: see --server-cpu and --client-cpu").into());
        }
    }
    let beside = std::env::current_exe()?;
    let programs = arguments.programs.as_deref().or(beside.parent()).ok_or("where are the programs?")?;
    let find = |name: &str| {
        let path = programs.join(name);
        if path.is_file() { Ok(path) } else { Err(format!("{} is not there: run benches/compare", path.display())) }
    };
    let setup = Setup {
        ringlun: find("ringlun")?,
        before: arguments.against.as_deref().map(other_program).transpose()?,
        load: find("ringlun-load")?,
        bare: find("bare")?,
        server_cpu: arguments.server_cpu,
        client_cpu: arguments.client_cpu,
        folder: arguments.folder.clone(),
    };
    let mut mine = CpuSet::new();
    mine.set(arguments.client_cpu);
    // The programs that are started need both: taskset narrows it again.
    let _ = sched_setaffinity(None, &mine);
    Ok(setup)
}

/// A ringlun by its path, or in a folder.
fn other_program(path: &Path) -> Outcome<PathBuf> {
    let places = ["", "ringlun", "release/ringlun", "target/release/ringlun"];
    let found = places.iter().map(|place| if place.is_empty() { path.into() } else { path.join(place) });
    let found = found.into_iter().find(|path: &PathBuf| path.is_file());
    found.ok_or_else(|| format!("{}: there is no release build of ringlun", path.display()).into())
}

/// A run.
struct Compare {
    servers: Servers,
    about: surroundings::Watch,
    calm: Calm,
    times: Times,
    rounds: usize,
    results: Results,
    /// The best way to run fio for each store, once it has been looked for.
    fio: BTreeMap<Store, usize>,
    failures: Vec<String>,
}

impl Compare {
    fn cases(&mut self, cases: &[Case]) -> Outcome<()> {
        let (began, runs) = (Instant::now(), cases.iter().map(|case| self.runs(case)).sum::<usize>());
        let mut done = 0;
        for (at, case) in cases.iter().enumerate() {
            println!(
                "{}  (case {} of {}, run {done} of {runs}, {:.0} s)",
                case.name,
                at + 1,
                cases.len(),
                began.elapsed().as_secs_f64()
            );
            self.case(case)?;
            done += self.runs(case);
            print!("{}", table::summary(&self.results, case));
            // A server that is not needed any more only takes memory and wakes now and then.
            self.stop_unneeded(&cases[at + 1..]);
        }
        Ok(())
    }

    fn runs(&self, case: &Case) -> usize {
        case.contenders.len() * self.rounds
    }

    fn case(&mut self, case: &Case) -> Outcome<()> {
        let mut out = Vec::new();
        for _ in 0..self.rounds {
            for contender in &case.contenders {
                if out.contains(contender) {
                    continue;
                }
                match self.once(*contender, case) {
                    Ok(sample) => self.results.add(&case.name, *contender, sample),
                    Err(_) if processes::is_interrupted() => return Err("interrupted".into()),
                    Err(error) => {
                        // The others go on: one that can't do something shall not cost the whole run.
                        let failure = format!("{}, {contender}: {error}", case.name);
                        println!("  {failure}");
                        self.failures.push(failure);
                        out.push(*contender);
                    }
                }
            }
        }
        Ok(())
    }

    fn once(&mut self, contender: Contender, case: &Case) -> Outcome<results::Sample> {
        let mut settings = Vec::new();
        if let Way::Fio(store) = contender.way() {
            let best = self.best_fio(store, case)?;
            settings = FIO_SETTINGS[best].1.iter().map(|flag| (*flag).to_owned()).collect();
        }
        let Compare { servers, calm, times, .. } = self;
        let (sample, speed) = calm.take(|| measure::measure(servers, contender, &case.load, *times, &settings))?;
        Ok(results::Sample { speed, ..sample }.rounded())
    }

    /// The way to run fio that gives most operations, of equal ones the cheapest.
    fn best_fio(&mut self, store: Store, case: &Case) -> Outcome<usize> {
        if let Some(best) = self.fio.get(&store) {
            return Ok(*best);
        }
        let mut best = (0, 0.0, f64::MAX);
        for (at, (name, flags)) in FIO_SETTINGS.iter().enumerate() {
            let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let sample = measure::run_fio(&mut self.servers, store, &case.load, self.times, &flags)?;
            println!("  fio, {name}: {:.0} IOPS, {:.2} us CPU", sample.iops, sample.cpu_us);
            let (better, equal) = (sample.iops > 1.02 * best.1, sample.iops > 0.98 * best.1);
            if better || (equal && sample.cpu_us < best.2) {
                best = (at, sample.iops, sample.cpu_us);
            }
        }
        self.fio.insert(store, best.0);
        Ok(best.0)
    }

    fn stop_unneeded(&mut self, rest: &[Case]) {
        let of = |contender: &Contender| match contender.way() {
            Way::Client { server, .. } => Some(server),
            _ => None,
        };
        let needed: Vec<Server> = rest.iter().flat_map(|case| case.contenders.iter().filter_map(of)).collect();
        self.servers.keep(&needed);
    }

    fn further(&mut self, wanted: impl Fn(&str) -> bool) -> Outcome<()> {
        let mut further = std::mem::take(&mut self.results.further);
        for name in FURTHER {
            if !wanted(name) {
                continue;
            }
            println!("{name}");
            let done = match name {
                "further/idle" => {
                    let time = (self.times.measured * 10 / 3).min(Duration::from_secs(10));
                    further::idle(&mut self.servers, time, &mut further)
                }
                "further/memory" => further::memory(&mut self.servers, &mut further),
                "further/cores" => further::cores(&mut self.servers, self.times, self.rounds, true)
                    .map(|cores| further.cores = Some(cores)),
                _ => further::cores(&mut self.servers, self.times, self.rounds, false)
                    .map(|cores| further.cores_asleep = Some(cores)),
            };
            if let Err(error) = done {
                processes::go_on()?;
                println!("  {error}");
                self.failures.push(format!("{name}: {error}"));
            }
        }
        if FURTHER.iter().any(|name| wanted(name)) {
            println!("  {further:?}");
        }
        self.results.further = further;
        Ok(())
    }
}
