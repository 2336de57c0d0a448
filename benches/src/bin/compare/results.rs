//! What was measured: kept as JSON, and asked by tables, goals and plots.

use crate::{Outcome, calm::CALM, contenders::Contender};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, fs, path::Path};

/// One run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub iops: f64,
    /// Of payload.
    pub mib_per_second: f64,
    /// Of the reply, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p99_us: Option<f64>,
    /// Processor time of the server per operation: all of its threads, the kernel's for it among them.
    pub cpu_us: f64,
    /// Of one processor.
    pub cpu_percent: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_percent: Option<f64>,
    /// Of the slower one of both processors, of its best.
    #[serde(default)]
    pub speed: f64,
}

impl Sample {
    /// Without digits that say nothing.
    pub fn rounded(self) -> Sample {
        let round = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
        Sample {
            iops: round(self.iops, 1),
            mib_per_second: round(self.mib_per_second, 1),
            p50_us: self.p50_us.map(|us| round(us, 2)),
            p99_us: self.p99_us.map(|us| round(us, 2)),
            cpu_us: round(self.cpu_us, 4),
            cpu_percent: round(self.cpu_percent, 2),
            client_percent: self.client_percent.map(|percent| round(percent, 2)),
            speed: round(self.speed, 2),
        }
    }

    /// Processor time of the server per MiB of payload.
    pub fn cpu_us_per_mib(&self) -> f64 {
        if self.mib_per_second > 0.0 { self.cpu_us * self.iops / self.mib_per_second } else { 0.0 }
    }
}

/// Median, least and greatest of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

/// The same load on one data core and on two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cores {
    pub rate: u32,
    pub one_cpu_us: f64,
    pub two_cpu_us: f64,
    /// Parts of the data cores' time that each of the two had.
    pub shares: Vec<f64>,
}

/// What is no load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Further {
    /// Of one processor, with 100 sessions that do nothing.
    pub idle_percent: Option<f64>,
    /// Resident memory that 4,000 sessions add, for each.
    pub bytes_per_session: Option<f64>,
    /// Resident memory without any session, of a ringlun set up for 4,096.
    pub resident_before: Option<f64>,
    /// As the program comes, and with spinning off.
    pub cores: Option<Cores>,
    pub cores_asleep: Option<Cores>,
}

/// Where and how it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub date: String,
    pub machine: String,
    pub kernel: String,
    /// TCP's congestion control.
    #[serde(default)]
    pub congestion: String,
    pub ringlun: String,
    pub tgt: String,
    pub fio: String,
    /// The way to run fio that was best, for each store.
    pub fio_settings: BTreeMap<String, String>,
    pub rounds: usize,
    pub seconds: f64,
    pub minutes: f64,
    /// Processor time that the machine's host took away, in percent of all.
    pub steal_percent: f64,
    /// Measurements that were taken again, because somebody slowed the processors down.
    #[serde(default)]
    pub again: usize,
    /// Put together from several runs.
    #[serde(default)]
    pub in_parts: bool,
}

/// All of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub about: About,
    /// By name of the case and contender, the rounds in their order.
    pub cases: BTreeMap<String, BTreeMap<Contender, Vec<Sample>>>,
    pub further: Further,
}

impl Results {
    /// Adds a run.
    pub fn add(&mut self, case: &str, contender: Contender, sample: Sample) {
        self.cases.entry(case.to_owned()).or_default().entry(contender).or_default().push(sample);
    }

    /// Median and spread of what `field` takes out of the runs.
    pub fn spread(&self, case: &str, contender: Contender, field: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.cases.get(case)?.get(&contender)?.iter().filter_map(field))
    }

    /// Median of the operations per second.
    pub fn iops(&self, case: &str, contender: Contender) -> Option<f64> {
        self.spread(case, contender, |sample| Some(sample.iops)).map(|spread| spread.median)
    }

    /// Median of the server's processor time per operation.
    pub fn cpu(&self, case: &str, contender: Contender) -> Option<f64> {
        self.spread(case, contender, |sample| Some(sample.cpu_us)).map(|spread| spread.median)
    }

    /// Median of the median latencies.
    pub fn p50(&self, case: &str, contender: Contender) -> Option<f64> {
        self.spread(case, contender, |sample| sample.p50_us).map(|spread| spread.median)
    }

    /// Measurements, and how many of them were taken on processors that nobody slowed down.
    pub fn calm(&self) -> (usize, usize) {
        let samples = || self.cases.values().flat_map(BTreeMap::values).flatten();
        (samples().count(), samples().filter(|sample| sample.speed >= CALM).count())
    }

    /// Takes what a run of some cases has measured in place of what was there.
    pub fn overlay(&mut self, part: Results) {
        let settings = std::mem::take(&mut self.about.fio_settings);
        self.about = part.about;
        self.about.in_parts = true;
        for (store, how) in settings {
            self.about.fio_settings.entry(store).or_insert(how);
        }
        self.cases.extend(part.cases);
        let (old, new) = (&mut self.further, part.further);
        old.idle_percent = new.idle_percent.or(old.idle_percent);
        old.bytes_per_session = new.bytes_per_session.or(old.bytes_per_session);
        old.resident_before = new.resident_before.or(old.resident_before);
        old.cores = new.cores.or(old.cores.take());
        old.cores_asleep = new.cores_asleep.or(old.cores_asleep.take());
    }

    /// From a file.
    pub fn load(path: &Path) -> Outcome<Results> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    /// Into a file, one line for each case and contender.
    pub fn store(&self, path: &Path) -> Outcome<()> {
        let mut text = String::from("{\n");
        text += &format!("\"about\": {},\n", serde_json::to_string(&self.about)?);
        text += &format!("\"further\": {},\n\"cases\": {{\n", serde_json::to_string(&self.further)?);
        let mut cases = Vec::new();
        for (name, contenders) in &self.cases {
            let mut lines = Vec::new();
            for (contender, samples) in contenders {
                let (key, value) = (serde_json::to_string(contender)?, serde_json::to_string(samples)?);
                lines.push(format!("  {key}: {value}"));
            }
            cases.push(format!("{}: {{\n{}\n}}", serde_json::to_string(name)?, lines.join(",\n")));
        }
        text += &cases.join(",\n");
        text += "\n}\n}\n";
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

/// A number with as many digits as it is worth.
pub struct Digits(pub f64);

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.abs() < 9.995 {
            return write!(f, "{value:.2}");
        }
        if value.abs() < 99.95 {
            return write!(f, "{value:.1}");
        }
        let digits = format!("{:.0}", value.abs());
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        write!(f, "{}{text}", if value < 0.0 { "-" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([5.0, 1.0, 3.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn digits_are_grouped() {
        let shown = |value: f64| Digits(value).to_string();
        assert_eq!(shown(1_234_567.0), "1,234,567");
        assert_eq!(shown(999.6), "1,000");
        assert_eq!(shown(123.4), "123");
        assert_eq!(shown(12.34), "12.3");
        assert_eq!(shown(1.234), "1.23");
    }

    #[test]
    fn results_come_back_from_their_file() {
        let mut results = Results::default();
        let sample = Sample { iops: 1.5, p50_us: Some(2.0), ..Sample::default() };
        results.add("ram/4k-read/8x32", Contender::Ringlun, sample);
        results.add("ram/4k-read/8x32", Contender::BareCold, Sample::default());
        results.add("loop/4k-read/1x32", Contender::FioLoop, Sample::default());
        results.further.idle_percent = Some(0.1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        results.store(&path).unwrap();
        assert_eq!(Results::load(&path).unwrap(), results);
    }
}
