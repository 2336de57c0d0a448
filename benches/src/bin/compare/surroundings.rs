//! Where a run happens: machine, kernel, versions, the clock, and what the host took away.

use crate::{Outcome, contenders::Store, measure::FIO_SETTINGS, processes::administer, results::About, servers::Setup};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

/// A run, watched from its begin on.
pub struct Watch {
    about: About,
    began: Instant,
    /// Clock ticks of all processors so far: all of them, and those that the host took.
    ticks: (u64, u64),
}

impl Watch {
    /// Looks around.
    pub fn begin(setup: &Setup) -> Outcome<Watch> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let count = processors.lines().filter(|line| line.starts_with("processor")).count();
        let kind = if processors.contains(" hypervisor") { "virtual machine" } else { "machine" };
        let version = |program: &str, flag: &str| administer(program, &[flag]).unwrap_or_default();
        let about = About {
            date: administer("date", &["-u", "+%F"])?,
            machine: format!("{kind} with {count} cores of {}", model.map_or("an unknown processor", |(_, name)| name)),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            congestion: fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?.trim().to_owned(),
            ringlun: version(&setup.ringlun.to_string_lossy(), "--version"),
            tgt: format!("tgt {}", version("tgtd", "--version")),
            fio: version("fio", "--version"),
            ..About::default()
        };
        Ok(Watch { about, began: Instant::now(), ticks: ticks()? })
    }

    /// What there is to say when the run is over.
    pub fn end(self, rounds: usize, measured: Duration, fio: BTreeMap<Store, usize>) -> Outcome<About> {
        let Watch { mut about, began, ticks: (all_before, taken_before) } = self;
        let (all, taken) = ticks()?;
        about.rounds = rounds;
        about.seconds = measured.as_secs_f64();
        about.minutes = (began.elapsed().as_secs_f64() / 6.0).round() / 10.0;
        let share = (taken - taken_before) as f64 * 100.0 / (all - all_before).max(1) as f64;
        about.steal_percent = (share * 100.0).round() / 100.0;
        let named = |(store, at): (Store, usize)| (format!("{store:?}").to_lowercase(), FIO_SETTINGS[at].0.to_owned());
        about.fio_settings = fio.into_iter().map(named).collect();
        Ok(about)
    }
}

fn ticks() -> Outcome<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().ok_or("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // Guest time, behind the eighth field, is in user time already.
    Ok((fields.iter().take(8).sum(), fields.get(7).copied().unwrap_or(0)))
}
