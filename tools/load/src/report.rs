//! The result: for people, and as JSON.

use crate::measure::Counter;
use crate::verify::Checks;
use serde::Serialize;
use std::fmt::Write;

/// The result of a run. Field names are a promise to those who read the JSON.
#[derive(Serialize)]
pub struct Report {
    /// Sessions.
    pub sessions: u32,
    /// Commands in flight per session.
    pub depth: u32,
    /// Bytes per operation: a number, or a list of them.
    pub block_size: BlockSize,
    /// `random` or `sequential`.
    pub pattern: &'static str,
    /// Of a hundred operations.
    pub read_percent: u8,
    /// What was measured, without the warm-up.
    pub seconds: f64,
    /// Reads.
    pub read: Direction,
    /// Writes.
    pub write: Direction,
    /// Both.
    pub total: Direction,
    /// With `--server-pid`.
    pub server: Option<Server>,
    /// This program.
    pub client: Client,
    /// With `--verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Checks>,
    /// What went wrong, with how often.
    pub errors: Vec<ErrorCount>,
}

/// One size, or the list.
#[derive(Serialize)]
#[serde(untagged)]
pub enum BlockSize {
    /// All operations have it.
    One(u64),
    /// Each operation has one of them.
    Mixed(Vec<u64>),
}

/// What one direction has done.
#[derive(Serialize)]
pub struct Direction {
    /// Ended well.
    pub operations: u64,
    /// Per second.
    pub iops: f64,
    /// Payload.
    pub bytes_per_second: f64,
    /// Microseconds.
    pub latency_us: Latency,
}

/// Percentiles in microseconds.
#[derive(Serialize, Default)]
pub struct Latency {
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

/// What the server's process has cost.
#[derive(Serialize)]
pub struct Server {
    /// Run time of all its tasks over all operations.
    pub cpu_us_per_operation: Option<f64>,
    /// Of one processor.
    pub cpu_percent: f64,
    /// At the end of the measured time.
    pub resident_kib: Option<u64>,
    /// Run time over payload.
    pub cpu_us_per_mib: Option<f64>,
}

/// What this program has cost.
#[derive(Serialize)]
pub struct Client {
    /// Of one processor.
    pub cpu_percent: f64,
    /// Run time over all operations.
    pub cpu_us_per_operation: Option<f64>,
}

/// An error.
#[derive(Serialize)]
pub struct ErrorCount {
    /// What.
    pub message: String,
    /// How often.
    pub count: u64,
}

impl Direction {
    /// From what was counted in so many seconds.
    pub fn new(counter: &Counter, seconds: f64) -> Direction {
        Direction {
            operations: counter.operations,
            iops: counter.operations as f64 / seconds,
            bytes_per_second: counter.bytes as f64 / seconds,
            latency_us: Latency::new(counter),
        }
    }
}

impl Latency {
    fn new(counter: &Counter) -> Latency {
        let histogram = &counter.latency;
        if histogram.is_empty() {
            return Latency::default();
        }
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Latency {
            min: us(histogram.min()),
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: us(histogram.max()),
        }
    }
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} sessions, depth {}, {}, {} % reads, {:.3} s\n",
            self.sessions, self.depth, self.pattern, self.read_percent, self.seconds
        );
        let directions = [("read", &self.read), ("write", &self.write), ("total", &self.total)];
        let mixed = self.read.operations != 0 && self.write.operations != 0;
        for (name, direction) in directions {
            if direction.operations == 0 || (name == "total" && !mixed) {
                continue;
            }
            let latency = &direction.latency_us;
            let _ = writeln!(
                text,
                "{name:>6}  {:>10.0} IOPS  {:>8.1} MB/s  latency us: min {:.1} mean {:.1} p50 {:.1} p90 {:.1} p99 {:.1} \
                 p99.9 {:.1} p99.99 {:.1} max {:.1}",
                direction.iops,
                direction.bytes_per_second / 1e6,
                latency.min,
                latency.mean,
                latency.p50,
                latency.p90,
                latency.p99,
                latency.p99_9,
                latency.p99_99,
                latency.max
            );
        }
        if let Some(server) = &self.server {
            let _ = write!(text, "server  {:.1} % CPU", server.cpu_percent);
            if let (Some(operation), Some(mib)) = (server.cpu_us_per_operation, server.cpu_us_per_mib) {
                let _ = write!(text, ", {operation:.3} us per operation, {mib:.1} us per MiB");
            }
            if let Some(resident) = server.resident_kib {
                let _ = write!(text, ", {:.1} MiB resident", resident as f64 / 1024.0);
            }
            text.push('\n');
        }
        let _ = write!(text, "client  {:.1} % CPU", self.client.cpu_percent);
        if let Some(operation) = self.client.cpu_us_per_operation {
            let _ = write!(text, ", {operation:.3} us per operation");
        }
        text.push('\n');
        if let Some(checks) = &self.verify {
            let (checked, unknown) = (checks.blocks_checked, checks.blocks_unknown);
            let _ = writeln!(text, "verify  {checked} blocks read were right, {unknown} were never stamped");
        }
        for error in &self.errors {
            let _ = writeln!(text, "error   {} times: {}", error.count, error.message);
        }
        text
    }
}
