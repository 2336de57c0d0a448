//! The bare TCP loopback under the same bytes as iSCSI reads or writes: no protocol, no storage.
//!
//! A request is 48 bytes and `--out` bytes of payload; its reply is 48 bytes and `--in` bytes. Both ends handle all that is
//! ready at once, on one thread each, so this is the ceiling of any target on this kernel. The server is a process of
//! its own, so that its processor time is its own, too.
#![forbid(unsafe_code)]

mod end;

use clap::{Args, Parser, Subcommand};
use end::{Behaviour, End, Latencies};
use rustix::{
    process::Signal,
    thread::{CpuSet, sched_setaffinity},
};
use serde_json::{Value, json};
use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// Bytes of a message before its payload: a basic header segment (RFC 7143 11.2.1).
const HEADER: usize = 48;

#[derive(Parser)]
#[command(
    about = "Measures the bare TCP loopback under the bytes of iSCSI reads or writes",
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    shape: Shape,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before, that are not.
    #[arg(long, default_value_t = 0.2)]
    warmup: f64,
    /// Both ends poll instead of sleeping.
    #[arg(long)]
    spin: bool,
    /// The client polls instead of sleeping.
    #[arg(long)]
    client_spin: bool,
    /// The client's processor.
    #[arg(long, default_value_t = 0)]
    client_cpu: usize,
    /// Is the client of a server that listens there already, one with the same messages.
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: Option<SocketAddr>,
    /// Measures the latency of each reply, which costs the client some time; at --depth 1 it always does.
    #[arg(long)]
    latencies: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Role {
    /// The server's process: prints its port, serves until the last connection is closed.
    #[command(hide = true)]
    Serve(Shape),
}

/// What both ends have to know.
#[derive(Args, Clone)]
struct Shape {
    /// TCP connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Requests in flight on each.
    #[arg(long, default_value_t = 32)]
    depth: usize,
    /// Bytes of payload in a request: a write's.
    #[arg(long = "out", value_name = "BYTES", default_value_t = 0)]
    out_bytes: usize,
    /// Bytes of payload in a reply: a read's.
    #[arg(long = "in", value_name = "BYTES", default_value_t = 4096)]
    in_bytes: usize,
    /// The server polls instead of sleeping.
    #[arg(long)]
    server_spin: bool,
    /// The server answers from random places of 1 GiB of huge pages, as a disk in memory has to.
    #[arg(long)]
    cold: bool,
    /// The server's processor.
    #[arg(long, default_value_t = 1)]
    server_cpu: usize,
}

impl Shape {
    fn flags(&self) -> Vec<String> {
        let named = [
            ("--connections", self.connections),
            ("--depth", self.depth),
            ("--out", self.out_bytes),
            ("--in", self.in_bytes),
            ("--server-cpu", self.server_cpu),
        ];
        let mut flags: Vec<_> =
            named.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect();
        flags.extend(self.server_spin.then(|| "--server-spin".to_owned()));
        flags.extend(self.cold.then(|| "--cold".to_owned()));
        flags
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.role {
        Some(Role::Serve(shape)) => serve(shape),
        None => run(&arguments),
    };
    outcome.map_or_else(
        |error| {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn serve(shape: &Shape) -> Result<(), Box<dyn Error>> {
    // Whatever becomes of the client, this process ends.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    pin(shape.server_cpu)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut server = End::new(Behaviour {
        expects: HEADER + shape.out_bytes,
        sends: HEADER + shape.in_bytes,
        spins: shape.server_spin,
        cold: shape.cold,
    })?;
    println!("{}", listener.local_addr()?.port());
    for _ in 0..shape.connections {
        server.add(listener.accept()?.0, 0)?;
    }
    while server.is_open() {
        server.turn(None)?;
    }
    Ok(())
}

/// The server's process; it ends when this goes.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut shape = arguments.shape.clone();
    if shape.connections == 0 || shape.depth == 0 {
        return Err("--connections and --depth have to be at least 1".into());
    }
    shape.server_spin |= arguments.spin;
    let (server, address) = match arguments.connect {
        Some(address) => (None, address),
        None => {
            let (server, port) = start(&shape)?;
            (Some(server), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
    };
    pin(arguments.client_cpu)?;
    let mut client = End::new(Behaviour {
        expects: HEADER + shape.in_bytes,
        sends: HEADER + shape.out_bytes,
        spins: arguments.spin || arguments.client_spin,
        cold: false,
    })?;
    for _ in 0..shape.connections {
        client.add(TcpStream::connect(address)?, shape.depth)?;
    }
    drive(&mut client, None, Duration::from_secs_f64(arguments.warmup))?;
    let timed = arguments.latencies || shape.depth == 1;
    let mut latencies = timed.then(|| Latencies::new(shape.connections, shape.depth));
    let pid = server.as_ref().map(|server| server.0.id());
    let (cpu_before, began) = (pid.map(cpu_seconds).transpose()?, Instant::now());
    let operations = drive(&mut client, latencies.as_mut(), Duration::from_secs_f64(arguments.seconds))?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = pid.map(cpu_seconds).transpose()?.zip(cpu_before).map(|(after, before)| after - before);
    drop(client);
    if operations == 0 {
        return Err("no reply came".into());
    }
    let result = report(&shape, operations, seconds, cpu, latencies.as_ref());
    if arguments.json {
        println!("{result:#}")
    } else {
        println!("{}", line(&result))
    }
    Ok(())
}

fn start(shape: &Shape) -> Result<(Server, u16), Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .args(shape.flags())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().expect("it was piped");
    let server = Server(child);
    let mut port = String::new();
    BufReader::new(output).read_line(&mut port)?;
    let port = port.trim().parse().map_err(|_| "the server did not come up")?;
    Ok((server, port))
}

/// Replies during `time`.
fn drive(client: &mut End, mut latencies: Option<&mut Latencies>, time: Duration) -> Result<u64, Box<dyn Error>> {
    let (began, mut operations) = (Instant::now(), 0);
    while began.elapsed() < time {
        operations += client.turn(latencies.as_deref_mut())?;
        if !client.is_open() {
            return Err("the server closed its connections".into());
        }
    }
    Ok(operations)
}

fn pin(cpu: usize) -> Result<(), Box<dyn Error>> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err(format!("there is no processor {cpu}").into());
    }
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| format!("processor {cpu}: {error}").into())
}

/// Processor time of a process of one thread so far.
fn cpu_seconds(pid: u32) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds: u64 = text.split(' ').next().unwrap_or("").parse()?;
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

fn report(shape: &Shape, operations: u64, seconds: f64, cpu: Option<f64>, latencies: Option<&Latencies>) -> Value {
    let count = operations as f64;
    let bytes = count * (2 * HEADER + shape.out_bytes + shape.in_bytes) as f64;
    json!({
        "connections": shape.connections,
        "depth": shape.depth,
        "out_bytes": shape.out_bytes,
        "in_bytes": shape.in_bytes,
        "seconds": seconds,
        "operations": operations,
        "iops": count / seconds,
        "mib_per_second": bytes / seconds / f64::from(1 << 20),
        "server_cpu_us_per_operation": cpu.map(|cpu| cpu * 1e6 / count),
        "server_cpu_percent": cpu.map(|cpu| cpu * 100.0 / seconds),
        "latency_us": latencies.map(Latencies::summary),
    })
}

fn line(result: &Value) -> String {
    let number = |name: &str| result[name].as_f64().unwrap_or(f64::NAN);
    let mut line = format!(
        "{} x {}, out {}, in {}: {:.0} operations/s, {:.0} MiB/s",
        result["connections"],
        result["depth"],
        result["out_bytes"],
        result["in_bytes"],
        number("iops"),
        number("mib_per_second")
    );
    if !result["server_cpu_percent"].is_null() {
        let (each, percent) = (number("server_cpu_us_per_operation"), number("server_cpu_percent"));
        line += &format!(", server {each:.2} us of CPU per operation, {percent:.0} % busy");
    }
    if !result["latency_us"].is_null() {
        let of = |name: &str| result["latency_us"][name].as_f64().unwrap_or(f64::NAN);
        line += &format!(", latency p50 {:.1} us, p99 {:.1} us", of("p50"), of("p99"));
    }
    line
}
