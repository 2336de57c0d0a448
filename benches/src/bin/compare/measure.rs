//! One measurement: a client, the bare loopback or fio runs once, and says what it saw.

use crate::{
    Outcome,
    cases::Load,
    contenders::{Contender, Store, Way},
    processes::{self, pinned, run_time},
    results::Sample,
    servers::{SIZE, Servers},
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long each run takes.
#[derive(Clone, Copy)]
pub struct Times {
    pub measured: Duration,
    pub warmup: Duration,
}

impl Times {
    /// When a run is given up.
    fn limit(self) -> Duration {
        self.measured + self.warmup + Duration::from_secs(60)
    }
}

/// Measures `contender` under `load` once.
pub fn measure(
    servers: &mut Servers,
    contender: Contender,
    load: &Load,
    times: Times,
    fio: &[String],
) -> Outcome<Sample> {
    match contender.way() {
        Way::Client { server, digests } => {
            servers.get(server)?;
            client(servers, contender, load, digests, times)
        }
        Way::Bare { cold, spins, timed } => bare(servers, load, [cold, spins, timed], times),
        Way::Fio(store) => run_fio(servers, store, load, times, fio),
    }
}

fn client(servers: &mut Servers, contender: Contender, load: &Load, digests: bool, times: Times) -> Outcome<Sample> {
    let Way::Client { server, .. } = contender.way() else { unreachable!("the caller looked") };
    let (url, pid) = {
        let running = servers.get(server)?;
        (running.url.clone(), running.pid())
    };
    let mut command = servers.client();
    command.args(arguments(load, times)).arg(url).args(["--server-pid", &pid.to_string()]);
    command.args(["--json", "-", "--quiet", "--lenient"]);
    if digests {
        command.args(["--header-digest", "--data-digest"]);
    }
    let output = processes::run(command, times.limit(), |_| ())?;
    let result = parse(&output)?;
    if let Some(error) = result["errors"].as_array().and_then(|errors| errors.first()) {
        return Err(format!("the client met errors, first: {error}").into());
    }
    let total = &result["total"];
    Ok(Sample {
        iops: number(&total["iops"])?,
        mib_per_second: number(&total["bytes_per_second"])? / f64::from(1 << 20),
        p50_us: number(&total["latency_us"]["p50"]).ok(),
        p99_us: number(&total["latency_us"]["p99"]).ok(),
        cpu_us: number(&result["server"]["cpu_us_per_operation"])?,
        cpu_percent: number(&result["server"]["cpu_percent"])?,
        client_percent: number(&result["client"]["cpu_percent"]).ok(),
        ..Sample::default()
    })
}

/// The client's flags for a load.
pub fn arguments(load: &Load, times: Times) -> Vec<String> {
    let mut all: Vec<String> = [
        ("--sessions", load.sessions.to_string()),
        ("--depth", load.depth.to_string()),
        ("--block-size", load.block.to_string()),
        ("--pattern", if load.random { "random" } else { "sequential" }.to_owned()),
        ("--read-percent", load.read_percent.to_string()),
        ("--duration", format!("{}ms", times.measured.as_millis())),
        ("--warmup", format!("{}ms", times.warmup.as_millis())),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect();
    if let Some(rate) = load.rate {
        all.extend(["--rate".to_owned(), rate.to_string()]);
    }
    if load.spin {
        all.push("--spin".to_owned());
    }
    all
}

fn bare(servers: &Servers, load: &Load, [cold, spins, timed]: [bool; 3], times: Times) -> Outcome<Sample> {
    let setup = &servers.setup;
    // It pins its server by itself, so it has to be allowed on both.
    let mut command = pinned(&format!("{},{}", setup.client_cpu, setup.server_cpu), &setup.bare);
    let (out, back) = if load.read_percent == 0 { (load.block, 0) } else { (0, load.block) };
    let named = [
        ("--connections", load.sessions.to_string()),
        ("--depth", load.depth.to_string()),
        ("--out", out.to_string()),
        ("--in", back.to_string()),
        ("--seconds", times.measured.as_secs_f64().to_string()),
        ("--warmup", times.warmup.as_secs_f64().to_string()),
        ("--client-cpu", setup.client_cpu.to_string()),
        ("--server-cpu", setup.server_cpu.to_string()),
    ];
    for (name, value) in named {
        command.args([name, &value]);
    }
    let flags = [("--cold", cold), ("--spin", spins), ("--client-spin", load.spin && !spins), ("--latencies", timed)];
    for (flag, wanted) in flags {
        command.args(wanted.then_some(flag));
    }
    command.arg("--json");
    let output = processes::run(command, times.limit(), |_| ())?;
    let result = parse(&output)?;
    let iops = number(&result["iops"])?;
    Ok(Sample {
        iops,
        // Of payload alone, as the others say it.
        mib_per_second: iops * f64::from(load.block) / f64::from(1 << 20),
        p50_us: number(&result["latency_us"]["p50"]).ok(),
        p99_us: number(&result["latency_us"]["p99"]).ok(),
        cpu_us: number(&result["server_cpu_us_per_operation"])?,
        cpu_percent: number(&result["server_cpu_percent"])?,
        ..Sample::default()
    })
}

/// Ways to run fio, of which the best one counts.
pub const FIO_SETTINGS: [(&str, &[&str]); 3] = [
    ("plain", &[]),
    ("registered file and buffers", &["--registerfiles=1", "--fixedbufs=1"]),
    (
        "registered file and buffers, submission in batches of 16",
        &["--registerfiles=1", "--fixedbufs=1", "--iodepth_batch_submit=16", "--iodepth_batch_complete_max=32"],
    ),
];

/// fio on the file of a store, on the server's processor: it does what the server does there, without the network.
pub fn run_fio(servers: &mut Servers, store: Store, load: &Load, times: Times, settings: &[String]) -> Outcome<Sample> {
    let file = servers.file(store)?;
    let mut command = pinned(&servers.setup.server_cpu.to_string(), "fio");
    let kind = if load.read_percent == 0 { "randwrite" } else { "randread" };
    command.args(["--name=compare", "--ioengine=io_uring", "--thread", "--time_based", "--output-format=json"]);
    // Threads: one process has all of its time. The page cache is left as it is: what was written is in it.
    command.args(["--invalidate=0", "--norandommap", "--randrepeat=0", "--allow_file_create=0"]);
    command.arg(format!("--filename={}", file.display())).arg(format!("--rw={kind}"));
    command.arg(format!("--bs={}", load.block)).arg(format!("--iodepth={}", load.depth));
    command
        .arg(format!("--direct={}", u8::from(!matches!(store, Store::Buffered | Store::Pinned))))
        .arg(format!("--size={SIZE}"));
    command.arg(format!("--runtime={}ms", (times.measured + times.warmup).as_millis())).args(settings);
    let mut watch = Watch { began: Instant::now(), times, points: Vec::new() };
    let output = processes::run(command, times.limit(), |pid| watch.look(pid))?;
    let result = parse(&output)?;
    let job = &result["jobs"][0][if kind == "randread" { "read" } else { "write" }];
    let iops = number(&job["iops"])?;
    let busy = watch.busy().ok_or("fio ended too early to be watched")?;
    Ok(Sample {
        iops,
        mib_per_second: iops * f64::from(load.block) / f64::from(1 << 20),
        p50_us: number(&job["clat_ns"]["percentile"]["50.000000"]).ok().map(|ns| ns / 1e3),
        p99_us: number(&job["clat_ns"]["percentile"]["99.000000"]).ok().map(|ns| ns / 1e3),
        cpu_us: busy * 1e6 / iops,
        cpu_percent: busy * 100.0,
        ..Sample::default()
    })
}

/// Processor time of a running program, between its warm-up and its end.
struct Watch {
    began: Instant,
    times: Times,
    points: Vec<(Instant, Duration)>,
}

impl Watch {
    fn look(&mut self, pid: u32) {
        let time = self.began.elapsed();
        if time >= self.times.warmup
            && time < self.times.warmup + self.times.measured
            && let Ok(used) = run_time(pid)
        {
            self.points.truncate(1);
            self.points.push((Instant::now(), used));
        }
    }

    /// Processors used, 1.0 being one.
    fn busy(&self) -> Option<f64> {
        let [(began, before), (ended, after)] = self.points[..] else { return None };
        Some(after.checked_sub(before)?.as_secs_f64() / (ended - began).as_secs_f64())
    }
}

/// JSON at the end of what a program printed; remarks for people may come before it.
pub fn parse(output: &str) -> Outcome<Value> {
    let start = output.find('{').ok_or("the program printed no JSON")?;
    Ok(serde_json::from_str(&output[start..])?)
}

fn number(value: &Value) -> Outcome<f64> {
    value.as_f64().ok_or_else(|| format!("a number was expected, not {value}").into())
}
