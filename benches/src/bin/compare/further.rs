//! What sessions cost that do nothing, and what a second data core does.

use crate::{
    Outcome,
    cases::Load,
    contenders::Store,
    measure::{Times, arguments, parse},
    processes::{self, pause, resident, run_time, run_times},
    results::{Cores, Further},
    servers::{Running, Servers, Settings},
};
use std::time::{Duration, Instant};

/// Sessions of which the idle processor time is taken.
const IDLE: u32 = 100;
/// Sessions over which memory is divided.
const CROWD: u32 = 4000;
/// Operations per second that two processors do with the client on them; if a slow machine can't, the next lower rate is taken.
const RATES: [u32; 3] = [150_000, 100_000, 50_000];
/// A host that stands still for a moment keeps a rate from being reached, too: so often it is tried.
const TRIES: usize = 4;

/// Processor time of 100 sessions that do nothing, over `time`.
pub fn idle(servers: &mut Servers, time: Duration, further: &mut Further) -> Outcome<()> {
    let settings = servers.one_core();
    let server = servers.start_ringlun(false, Store::Ram, &settings)?;
    let percent = with_idle_sessions(servers, &server, IDLE, time, |pid| {
        let (before, began) = (run_time(pid)?, Instant::now());
        pause(time)?;
        Ok((run_time(pid)? - before).as_secs_f64() * 100.0 / began.elapsed().as_secs_f64())
    })?;
    further.idle_percent = Some(percent);
    Ok(())
}

/// Memory of 4,000 sessions that do nothing.
pub fn memory(servers: &mut Servers, further: &mut Further) -> Outcome<()> {
    let settings = Settings { many: true, ..servers.one_core() };
    let server = servers.start_ringlun(false, Store::Ram, &settings)?;
    let before = resident(server.pid())?;
    let after = with_idle_sessions(servers, &server, CROWD, Duration::from_secs(1), resident)?;
    further.resident_before = Some(before as f64);
    further.bytes_per_session = Some(after.saturating_sub(before) as f64 / f64::from(CROWD));
    Ok(())
}

/// Logs sessions in, calls `look` with the server's process id when all are there, and ends them.
fn with_idle_sessions<T>(
    servers: &Servers,
    server: &Running,
    sessions: u32,
    time: Duration,
    look: impl FnOnce(u32) -> Outcome<T>,
) -> Outcome<T> {
    let descriptors = |pid| Ok::<_, std::io::Error>(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count());
    let (pid, alone) = (server.pid(), descriptors(server.pid())?);
    let mut command = servers.client();
    let duration = format!("{}s", (time + Duration::from_secs(60)).as_secs());
    command.args(["--sessions", &sessions.to_string(), "--idle", "--duration", &duration, "--warmup", "0s", "--quiet"]);
    command.arg(&server.url);
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut client = processes::Process::start(command, &log)?;
    // A session is a socket of the server.
    client.wait_for(&log, || (descriptors(pid).ok()? >= alone + sessions as usize).then_some(()))?;
    // The last login has to end, and its traces have to settle.
    pause(Duration::from_secs(1))?;
    look(pid)
}

/// One target at the same rate on one data core and on two, in turn. The client has no processor to itself.
pub fn cores(servers: &mut Servers, times: Times, rounds: usize, spins: bool) -> Outcome<Cores> {
    let (server_cpu, client_cpu) = (servers.setup.server_cpu, servers.setup.client_cpu);
    let one = Settings { spins, ..servers.one_core() };
    let two = Settings { cores: vec![client_cpu, server_cpu], spins, many: false };
    let (one, two) = (servers.start_ringlun(false, Store::Ram, &one)?, servers.start_ringlun(false, Store::Ram, &two)?);
    for rate in RATES {
        if let Some(cores) = one_and_two(servers, [&one, &two], times, rounds, rate)? {
            return Ok(cores);
        }
    }
    Err("not even the lowest rate was reached".into())
}

/// None: the rate was not reached.
fn one_and_two(
    servers: &Servers,
    [one, two]: [&Running; 2],
    times: Times,
    rounds: usize,
    rate: u32,
) -> Outcome<Option<Cores>> {
    let (mut of_one, mut of_two, mut shares) = (Vec::new(), Vec::new(), vec![0.0; 2]);
    for _ in 0..rounds {
        let Some((each, _)) = tried(servers, one, times, rate)? else { return Ok(None) };
        of_one.push(each);
        let Some((each, threads)) = tried(servers, two, times, rate)? else { return Ok(None) };
        of_two.push(each);
        // The two that worked most are the data cores; the control thread sleeps.
        let all: f64 = threads.iter().take(2).sum();
        for (share, time) in shares.iter_mut().zip(&threads) {
            *share += time / all / rounds as f64;
        }
    }
    let median = |values: Vec<f64>| crate::results::Spread::of(values).map_or(0.0, |spread| spread.median);
    Ok(Some(Cores { rate, one_cpu_us: median(of_one), two_cpu_us: median(of_two), shares }))
}

/// Processor time per operation in microseconds, and of each thread in seconds, the busiest first.
type Used = (f64, Vec<f64>);

fn tried(servers: &Servers, server: &Running, times: Times, rate: u32) -> Outcome<Option<Used>> {
    for _ in 0..TRIES {
        if let Some(used) = at_rate(servers, server, times, rate)? {
            return Ok(Some(used));
        }
    }
    Ok(None)
}

/// None: the rate was not reached.
fn at_rate(servers: &Servers, server: &Running, times: Times, rate: u32) -> Outcome<Option<Used>> {
    let load =
        Load { sessions: 8, depth: 4, block: 4096, random: true, read_percent: 100, spin: false, rate: Some(rate) };
    let setup = &servers.setup;
    let mut command = processes::pinned(&format!("{},{}", setup.client_cpu, setup.server_cpu), &setup.load);
    command.args(arguments(&load, times)).arg(&server.url);
    command.args(["--threads", "1", "--server-pid", &server.pid().to_string(), "--json", "-", "--quiet"]);
    let before = run_times(server.pid())?;
    let output = processes::run(command, times.measured + times.warmup + Duration::from_secs(60), |_| ())?;
    let after = run_times(server.pid())?;
    let result = parse(&output)?;
    let each = result["server"]["cpu_us_per_operation"].as_f64().ok_or("no processor time came")?;
    let reached = result["total"]["iops"].as_f64().unwrap_or(0.0);
    if reached < 0.95 * f64::from(rate) {
        println!("  only {reached:.0} of {rate} operations per second were reached");
        return Ok(None);
    }
    let used = |(task, time): (&(u32, String), &Duration)| {
        (*time - before.get(task).copied().unwrap_or_default().min(*time)).as_secs_f64()
    };
    let mut threads: Vec<_> = after.iter().map(used).collect();
    threads.sort_by(|a, b| b.total_cmp(a));
    Ok(Some((each, threads)))
}
