//! The results as text: Markdown between two markers of a page, and short lines on the terminal.

use crate::{
    Outcome,
    calm::CALM,
    cases::{self, Case},
    contenders::Contender::{self, *},
    goals,
    results::{Digits, Results, Sample, Spread},
};
use std::{fs, path::Path};

const BEGIN: &str = "<!-- compare: begin (written by benches/compare) -->";
const END: &str = "<!-- compare: end -->";

/// Puts the tables between the markers of a page; without a page, or without markers, they are added.
pub fn put(page: &Path, results: &Results) -> Outcome<()> {
    let old = fs::read_to_string(page).unwrap_or_default();
    let tables = whole(results);
    let new = match (old.find("<!-- compare: begin"), old.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{BEGIN}\n\n{tables}\n{}", &old[..begin], &old[end..])
        }
        _ => format!("{old}\n{BEGIN}\n\n{tables}\n{END}\n"),
    };
    fs::write(page, new).map_err(|error| format!("{}: {error}", page.display()).into())
}

/// All tables.
pub fn whole(results: &Results) -> String {
    let mut text = about(results);
    text += "\n### Goals\n\n| wanted | measured | met |\n|---|---|---|\n";
    for goal in goals::all(results) {
        let met = goal.met.map_or("", |met| if met { "yes" } else { "**no**" });
        text += &format!("| {} | {} | {met} |\n", goal.wanted, goal.measured);
    }
    text += "\n![IOPS](plots/iops.svg)\n![CPU per operation](plots/cpu.svg)\n";
    text += "![Latency over depth](plots/latency.svg)\n![Throughput over sessions](plots/sessions.svg)\n";
    text += "\n### Numbers\n\nMedians, in brackets the least and the greatest of the rounds. CPU is the server's, of all of its \
             threads and of the kernel's work for it. All rounds are in [results.json](results.json).\n";
    for section in sections() {
        text += &section_table(results, &section);
    }
    text
}

fn about(results: &Results) -> String {
    let about = &results.about;
    let settings: Vec<_> = about.fio_settings.iter().map(|(store, how)| format!("{store}: {how}")).collect();
    let parts = if about.in_parts { " Put together from several runs, this is said of the last one." } else { "" };
    let congestion = match about.congestion.as_str() {
        "" => String::new(),
        name => format!(", TCP {name}"),
    };
    let mut text = format!(
        "{}: {}, Linux {}{congestion}. {}, {}, {}. {} rounds of {} s, each in turn with its rivals, in {:.0} minutes; the host took {:.1} % of the \
         processors' time away.{parts}\n",
        about.date,
        about.machine,
        about.kernel,
        about.ringlun,
        about.tgt,
        about.fio,
        about.rounds,
        about.seconds,
        about.minutes,
        about.steal_percent
    );
    let (all, calm) = results.calm();
    text += &format!(
        "{calm} of {all} measurements were taken while nobody slowed the two processors down (before and behind, a loop of arithmetic \
         ran at {:.0} % or more of its best); {} had been taken before at a worse moment.\n",
        100.0 * CALM,
        about.again
    );
    if !settings.is_empty() {
        text += &format!("The best way to run fio ({}) is the one it is compared with.\n", settings.join("; "));
    }
    text += "\nSPDK is not in this run. Measured before on this kind of machine, one core, huge pages, spinning without end: 4 KiB \
             random read 8×32 680,000 IOPS at 1.47 us; 1 MiB sequential read 4 GB/s, write 4.2 to 5.4 GB/s; median latency 1×1 \
             12.3 us with a spinning client, 24.6 us with a sleeping one.\n";
    text
}

/// Cases side by side, each contender of the list with a column.
struct Section {
    title: &'static str,
    group: &'static str,
    contenders: Vec<Contender>,
    shows: Shows,
}

#[derive(Clone, Copy)]
enum Shows {
    Iops,
    Bytes,
    Latency,
}

fn sections() -> Vec<Section> {
    let section = |title, group, contenders: &[Contender], shows| Section {
        title,
        group,
        contenders: contenders.to_vec(),
        shows,
    };
    vec![
        section("4 KiB at random, RAM volume", "ram/4k", &[Ringlun, Tgt, Bare, BareCold], Shows::Iops),
        section(
            "4 KiB at random, null volume and digests",
            "ram/4k",
            &[RinglunNull, RinglunDigests, TgtDigests],
            Shows::Iops,
        ),
        section(
            "One command at a time, RAM volume",
            "ram/4k",
            &[Ringlun, RinglunAsleep, Tgt, Bare, BareSpinning],
            Shows::Latency,
        ),
        section(
            "64 KiB and 1 MiB in sequence, RAM volume",
            "ram/",
            &[Ringlun, Tgt, Bare, BareCold, RinglunDigests, TgtDigests],
            Shows::Bytes,
        ),
        section(
            "Buffered file, in the page cache",
            "buffered/",
            &[RinglunBuffered, RinglunPinned, FioBuffered],
            Shows::Iops,
        ),
        section("Direct file", "direct/", &[RinglunDirect, FioDirect], Shows::Iops),
        section("Loop device over a file", "loop/", &[RinglunLoop, FioLoop], Shows::Iops),
        section("Over the depth, one session, 4 KiB random read", "depth/", &[Ringlun, Tgt, BareTimed], Shows::Iops),
        section("Over sessions, each 8 deep, 4 KiB random read", "sessions/", &[RinglunMany, Tgt, Bare], Shows::Iops),
    ]
}

fn belongs(section: &Section, case: &Case) -> bool {
    let single = case.name.contains("/1x1-");
    case.name.starts_with(section.group)
        && match section.shows {
            Shows::Latency => single,
            Shows::Bytes => case.load.block > 4096,
            Shows::Iops => case.load.block == 4096 && !single,
        }
}

fn section_table(results: &Results, section: &Section) -> String {
    let cases: Vec<_> = cases::all().into_iter().filter(|case| belongs(section, case)).collect();
    let there = |contender: &Contender| cases.iter().any(|case| results.iops(&case.name, *contender).is_some());
    let contenders: Vec<_> = section.contenders.iter().copied().filter(there).collect();
    if contenders.is_empty() {
        return String::new();
    }
    let (unit, tail) = match section.shows {
        Shows::Iops => ("IOPS", "CPU us"),
        Shows::Bytes => ("MiB/s", "CPU us/MiB"),
        Shows::Latency => ("p50 us", "p99 us"),
    };
    let mut text = format!("\n**{}**\n\n| case |", section.title);
    for contender in &contenders {
        text += &format!(" {contender}, {unit} | {tail} |");
    }
    let rivals: Vec<_> = rivals(&contenders).collect();
    for (ours, theirs) in &rivals {
        text += &format!(" {ours} / {theirs} |");
    }
    text += &format!("\n|---|{}\n", "---:|".repeat(2 * contenders.len() + rivals.len()));
    for case in cases {
        let value =
            |contender: Contender| results.spread(&case.name, contender, |sample| main_value(section.shows, sample));
        if contenders.iter().all(|contender| value(*contender).is_none()) {
            continue;
        }
        text += &format!("| {} |", title(&case));
        for contender in &contenders {
            let second = results.spread(&case.name, *contender, |sample| second_value(section.shows, sample));
            let second = second.map_or(String::new(), |spread| Digits(spread.median).to_string());
            text += &format!(" {} | {second} |", value(*contender).map_or(String::new(), spread_text));
        }
        for (ours, theirs) in &rivals {
            let ratio = value(*ours).zip(value(*theirs)).map(|(ours, theirs)| ours.median / theirs.median);
            text += &format!(" {} |", ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")));
        }
        text += "\n";
    }
    text
}

/// The first contender against each of the others, where that says something.
fn rivals(contenders: &[Contender]) -> impl Iterator<Item = (Contender, Contender)> {
    let first = contenders[0];
    let fair = move |other: &Contender| match first {
        RinglunNull => false,
        _ => !matches!(other, RinglunDigests | TgtDigests | RinglunAsleep),
    };
    contenders[1..].iter().copied().filter(fair).map(move |other| (first, other))
}

fn main_value(shows: Shows, sample: &Sample) -> Option<f64> {
    match shows {
        Shows::Iops => Some(sample.iops),
        Shows::Bytes => Some(sample.mib_per_second),
        Shows::Latency => sample.p50_us,
    }
}

fn second_value(shows: Shows, sample: &Sample) -> Option<f64> {
    match shows {
        Shows::Iops => Some(sample.cpu_us),
        Shows::Bytes => Some(sample.cpu_us_per_mib()),
        Shows::Latency => sample.p99_us,
    }
}

fn spread_text(spread: Spread) -> String {
    let (median, min, max) = (Digits(spread.median), Digits(spread.min), Digits(spread.max));
    if spread.min == spread.max { median.to_string() } else { format!("{median} ({min}..{max})") }
}

/// A case as people read it.
fn title(case: &Case) -> String {
    let load = &case.load;
    let size =
        if load.block >= 1 << 20 { format!("{} MiB", load.block >> 20) } else { format!("{} KiB", load.block >> 10) };
    let kind = if load.read_percent.is_multiple_of(100) {
        load.kind().to_owned()
    } else {
        format!("{} % read", load.read_percent)
    };
    let client = match (load.sessions * load.depth, load.spin) {
        (1, true) => ", client spins",
        (1, false) => ", client sleeps",
        _ => "",
    };
    format!("{size} {kind} {}×{}{client}", load.sessions, load.depth)
}

/// What is printed of a case when its rounds are done: each contender, and how it stands to the first.
pub fn summary(results: &Results, case: &Case) -> String {
    let mut text = String::new();
    let first = case.contenders[0];
    for contender in &case.contenders {
        let Some(iops) = results.spread(&case.name, *contender, |sample| Some(sample.iops)) else { continue };
        let cpu = results.cpu(&case.name, *contender).unwrap_or_default();
        text += &format!("  {contender:<30} {:>28} IOPS  {:>7} us CPU", spread_text(iops), Digits(cpu).to_string());
        let p50 = results.p50(&case.name, *contender);
        text += &p50.map_or(String::new(), |us| format!("  p50 {:>6} us", Digits(us).to_string()));
        if *contender != first
            && let Some(ours) = results.spread(&case.name, first, |sample| Some(sample.iops))
        {
            text += &format!("   {first} is {:.2} times that", ours.median / iops.median);
            let cpus = results.cpu(&case.name, first).filter(|_| cpu > 0.0);
            text += &cpus.map_or(String::new(), |ours| format!(", its CPU {:.2}", ours / cpu));
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_page_stays() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("README.md");
        fs::write(&page, format!("before\n{BEGIN}\nyesterday\n{END}\nafter\n")).unwrap();
        let mut results = Results::default();
        results.add("ram/4k-read/8x32", Ringlun, Sample { iops: 1_234_567.0, ..Sample::default() });
        for _ in 0..2 {
            put(&page, &results).unwrap();
            let text = fs::read_to_string(&page).unwrap();
            assert!(
                text.starts_with("before\n") && text.ends_with("-->\nafter\n") && !text.contains("yesterday"),
                "{text}"
            );
            assert!(text.contains("1,234,567"), "{text}");
            assert_eq!(text.matches("compare: begin").count(), 1);
        }
    }
}
