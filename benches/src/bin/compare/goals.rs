//! The goals, and whether the results meet them.

use crate::{
    contenders::Contender::{self, *},
    results::{Cores, Digits, Results},
};

/// One line of the table of goals.
pub struct Goal {
    pub wanted: String,
    pub measured: String,
    /// None: not measured, or nothing that is met or missed.
    pub met: Option<bool>,
}

const READ_8X32: &str = "ram/4k-read/8x32";
const WRITE_8X32: &str = "ram/4k-write/8x32";
const READ_1X32: &str = "ram/4k-read/1x32";
const READ_SPIN: &str = "ram/4k-read/1x1-spin";
const READ_SLEEP: &str = "ram/4k-read/1x1-sleep";
const READ_1M: &str = "ram/1m-read/1x8";
const WRITE_1M: &str = "ram/1m-write/1x8";
const READ_64K: &str = "ram/64k-read/1x8";
const BUFFERED: &str = "buffered/4k-read/8x32";
const BUFFERED_ONE: &str = "buffered/4k-read/1x32";
const DIRECT: &str = "direct/4k-read/1x32";

/// Which way a number has to be.
#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
    Under(f64),
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtLeast(limit) => value >= limit,
            Limit::AtMost(limit) => value <= limit,
            Limit::Under(limit) => value < limit,
        }
    }
}

/// All of them, in their order.
pub fn all(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    throughput(results, &mut goals);
    latency(results, &mut goals);
    large(results, &mut goals);
    files(results, &mut goals);
    digests(results, &mut goals);
    sessions(results, &mut goals);
    cores(results, &mut goals);
    goals.push(Goal {
        wanted: "`ringlun-load --verify` for ten minutes over RAM, file and direct file: no mismatch".into(),
        measured: "a run of its own".into(),
        met: None,
    });
    goals
}

fn throughput(results: &Results, goals: &mut Vec<Goal>) {
    for (what, case) in [("read", READ_8X32), ("write", WRITE_8X32)] {
        let wanted = format!("4 KiB random {what}, 8×32: at least 16 times tgt's IOPS");
        goals.push(ratio(results, wanted, case, [Ringlun, Tgt], Limit::AtLeast(16.0)));
    }
    for (what, case, who, most) in [
        ("random read, 8×32", READ_8X32, Ringlun, 1.2),
        ("random write, 8×32", WRITE_8X32, Ringlun, 1.25),
        ("random read of a null volume, 8×32", READ_8X32, RinglunNull, 0.85),
        ("random write to a null volume, 8×32", WRITE_8X32, RinglunNull, 0.85),
    ] {
        goals.push(cpu(results, &format!("4 KiB {what}"), case, who, most));
    }
    let wanted = "4 KiB random read, 8×32: at least 0.9 of the cold bare loopback's IOPS".to_owned();
    goals.push(ratio(results, wanted, READ_8X32, [Ringlun, BareCold], Limit::AtLeast(0.9)));
    let far = results.iops(READ_8X32, Ringlun).zip(results.cpu(READ_8X32, Ringlun));
    goals.push(Goal {
        wanted: "how far 1,000,000 IOPS on one core is".into(),
        measured: far.map_or_else(unmeasured, |(iops, cpu)| {
            let reached = Digits(iops / 1e4);
            format!("{reached} % of it; {} us of CPU per operation where 1 us is there", Digits(cpu))
        }),
        met: None,
    });
    let wanted = "4 KiB random read, 1×32: at least 15 times tgt's IOPS".to_owned();
    goals.push(ratio(results, wanted, READ_1X32, [Ringlun, Tgt], Limit::AtLeast(15.0)));
    goals.push(cpu(results, "4 KiB random read, 1×32", READ_1X32, Ringlun, 1.5));
}

fn latency(results: &Results, goals: &mut Vec<Goal>) {
    for (wanted, case, pair, most) in [
        (
            "1×1, client spins: median latency at most 1.4 times that of the bare loopback whose ends both spin",
            READ_SPIN,
            [Ringlun, BareSpinning],
            1.4,
        ),
        ("1×1, client sleeps: median latency at most 0.3 of tgt's", READ_SLEEP, [Ringlun, Tgt], 0.3),
        (
            "1×1, client sleeps, ringlun's spinning off: median latency no worse than tgt's",
            READ_SLEEP,
            [RinglunAsleep, Tgt],
            1.0,
        ),
    ] {
        let values = pair.map(|contender| results.p50(case, contender));
        goals.push(compared(wanted.to_owned(), values, pair, "us", Limit::AtMost(most)));
    }
}

fn large(results: &Results, goals: &mut Vec<Goal>) {
    for (wanted, case, pair, least) in [
        ("1 MiB sequential read, 1×8: at least 5 times tgt's", READ_1M, [Ringlun, Tgt], 5.0),
        ("1 MiB sequential read, 1×8: at least 0.9 of the cold bare loopback's", READ_1M, [Ringlun, BareCold], 0.9),
        ("1 MiB sequential write, 1×8: at least 6 times tgt's", WRITE_1M, [Ringlun, Tgt], 6.0),
        ("1 MiB sequential write, 1×8: at least 0.9 of the bare loopback's", WRITE_1M, [Ringlun, Bare], 0.9),
        ("64 KiB sequential read, 1×8: at least 3.8 times tgt's", READ_64K, [Ringlun, Tgt], 3.8),
    ] {
        let rate = |contender| {
            results.spread(case, contender, |sample| Some(sample.mib_per_second)).map(|spread| spread.median)
        };
        goals.push(compared(wanted.to_owned(), pair.map(rate), pair, "MiB/s", Limit::AtLeast(least)));
    }
    let each = results.spread(WRITE_1M, Ringlun, |sample| Some(sample.cpu_us_per_mib()));
    let wanted = "1 MiB sequential write, 1×8: at most 185 us of server CPU per MiB".to_owned();
    goals.push(plain(wanted, each.map(|spread| spread.median), "us", Limit::AtMost(185.0)));
}

fn files(results: &Results, goals: &mut Vec<Goal>) {
    let wanted = "direct file, 4 KiB random read, depth 32: at least 0.95 of fio's own io_uring IOPS".to_owned();
    goals.push(ratio(results, wanted, DIRECT, [RinglunDirect, FioDirect], Limit::AtLeast(0.95)));
    let over = |case, contender| Some(results.cpu(case, contender)? - results.cpu(case, FioBuffered)?);
    let (measured, met) = match (results.cpu(BUFFERED, RinglunPinned), results.cpu(BUFFERED, FioBuffered)) {
        (Some(ours), Some(theirs)) => {
            let (ours_shown, theirs_shown) = (Digits(ours), Digits(theirs));
            let mut measured =
                format!("with `pinned` {ours_shown} us, fio {theirs_shown} us: {:+.2} us", ours - theirs);
            if let Some(over) = over(BUFFERED_ONE, RinglunPinned) {
                measured += &format!(" (1×32: {over:+.2} us)");
            }
            if let Some(over) = over(BUFFERED, RinglunBuffered) {
                measured += &format!("; without it {over:+.2} us");
            }
            if let Some(over) = over(BUFFERED_ONE, RinglunBuffered) {
                measured += &format!(" (1×32: {over:+.2} us)");
            }
            (measured, Some(ours <= theirs + 1.0))
        }
        _ => (unmeasured(), None),
    };
    let wanted = "buffered file in the page cache, 4 KiB random read, 8×32: CPU per operation at most fio's (depth 32) plus 1 us";
    goals.push(Goal { wanted: wanted.into(), measured, met });
}

fn digests(results: &Results, goals: &mut Vec<Goal>) {
    for (what, case) in [
        ("4 KiB random read, 8×32", READ_8X32),
        ("4 KiB random write, 8×32", WRITE_8X32),
        ("64 KiB sequential read, 1×8", READ_64K),
        ("64 KiB sequential write, 1×8", "ram/64k-write/1x8"),
    ] {
        let wanted = format!("CRC32C on header and data, {what}: at least 0.8 of the IOPS without");
        goals.push(ratio(results, wanted, case, [RinglunDigests, Ringlun], Limit::AtLeast(0.8)));
    }
}

fn sessions(results: &Results, goals: &mut Vec<Goal>) {
    let further = &results.further;
    let wanted = "100 idle sessions: under 0.5 % of a core".to_owned();
    goals.push(plain(wanted, further.idle_percent, "%", Limit::Under(0.5)));
    let wanted = "4,000 idle sessions: under 16 KiB of memory each beyond the fixed pools".to_owned();
    let kib = further.bytes_per_session.map(|bytes| bytes / 1024.0);
    goals.push(plain(wanted, kib, "KiB", Limit::Under(16.0)));
    let values = ["sessions/4k-read/1000x8", "sessions/4k-read/8x8"].map(|case| results.iops(case, RinglunMany));
    let wanted = "1,000 active sessions: at least 0.8 of the IOPS of 8 (each with 8 commands in flight)".to_owned();
    let measured = values[0].zip(values[1]);
    goals.push(Goal {
        wanted,
        measured: measured.map_or_else(unmeasured, |(many, few)| {
            format!("{:.2} ({} of {} IOPS)", many / few, Digits(many), Digits(few))
        }),
        met: measured.map(|(many, few)| many >= 0.8 * few),
    });
}

fn cores(results: &Results, goals: &mut Vec<Goal>) {
    let further = &results.further;
    for (how, cores) in [("", &further.cores), (", spinning off", &further.cores_asleep)] {
        let rate = cores.as_ref().map_or(String::new(), |cores| format!(" at {} IOPS", Digits(f64::from(cores.rate))));
        let wanted = format!("two data cores, 8 sessions on one target{rate}{how}: both work, at least 20 % each");
        goals.push(measured_cores(cores, wanted, |cores| {
            let shares: Vec<_> = cores.shares.iter().map(|share| format!("{:.0} %", share * 100.0)).collect();
            (shares.join(" and "), cores.shares.iter().all(|share| *share >= 0.2))
        }));
        let wanted = format!("the same{how}: CPU per operation within 10 % of that on one core");
        goals.push(measured_cores(cores, wanted, |cores| {
            let (one, two) = (cores.one_cpu_us, cores.two_cpu_us);
            let more = (two / one - 1.0) * 100.0;
            (format!("{} us, on one core {} us: {more:+.0} %", Digits(two), Digits(one)), more.abs() <= 10.0)
        }));
    }
}

fn measured_cores(cores: &Option<Cores>, wanted: String, look: impl FnOnce(&Cores) -> (String, bool)) -> Goal {
    match cores.as_ref().map(look) {
        Some((measured, met)) => Goal { wanted, measured, met: Some(met) },
        None => Goal { wanted, measured: unmeasured(), met: None },
    }
}

fn unmeasured() -> String {
    "not measured".to_owned()
}

fn ratio(results: &Results, wanted: String, case: &str, pair: [Contender; 2], limit: Limit) -> Goal {
    compared(wanted, pair.map(|contender| results.iops(case, contender)), pair, "IOPS", limit)
}

/// The first of two values, in parts of the second.
fn compared(wanted: String, values: [Option<f64>; 2], pair: [Contender; 2], unit: &str, limit: Limit) -> Goal {
    let [Some(ours), Some(theirs)] = values else { return Goal { wanted, measured: unmeasured(), met: None } };
    let ratio = ours / theirs;
    let measured = format!("{ratio:.2} ({} {unit}; {} {})", Digits(ours), pair[1], Digits(theirs));
    Goal { wanted, measured, met: Some(limit.holds(ratio)) }
}

fn cpu(results: &Results, what: &str, case: &str, contender: Contender, most: f64) -> Goal {
    let wanted = format!("{what}: at most {most} us of CPU per operation");
    plain(wanted, results.cpu(case, contender), "us", Limit::AtMost(most))
}

fn plain(wanted: String, value: Option<f64>, unit: &str, limit: Limit) -> Goal {
    match value {
        Some(value) => Goal { wanted, measured: format!("{} {unit}", Digits(value)), met: Some(limit.holds(value)) },
        None => Goal { wanted, measured: unmeasured(), met: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cases, results::Sample};

    #[test]
    fn every_goal_asks_for_what_is_measured() {
        let mut results = Results::default();
        for case in cases::all() {
            for contender in case.contenders {
                let sample = Sample { iops: 100.0, mib_per_second: 1.0, p50_us: Some(10.0), ..Sample::default() };
                results.add(&case.name, contender, sample);
            }
        }
        let cores = Cores { rate: 1, one_cpu_us: 1.0, two_cpu_us: 1.2, shares: vec![0.5, 0.5] };
        results.further.idle_percent = Some(0.1);
        results.further.bytes_per_session = Some(1024.0);
        results.further.cores = Some(cores.clone());
        results.further.cores_asleep = Some(cores);
        let goals = all(&results);
        let unmeasured: Vec<_> = goals.iter().filter(|goal| goal.measured == unmeasured()).map(|g| &g.wanted).collect();
        assert!(unmeasured.is_empty(), "{unmeasured:?}");
        assert!(goals.iter().any(|goal| goal.met == Some(true)) && goals.iter().any(|goal| goal.met == Some(false)));
    }

    #[test]
    fn nothing_measured_is_nothing_met() {
        assert!(all(&Results::default()).iter().all(|goal| goal.met.is_none()));
    }
}
