//! The results as pictures: SVG, light background, readable without colour (order and labels say who is who).

use crate::{
    Outcome,
    cases::{DEPTH_OF_SESSIONS, DEPTHS, SESSIONS},
    contenders::Contender::{self, *},
    results::{Digits, Results, Sample},
};
use plotters::{
    coord::Shift,
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{fs, ops::Range, path::Path};

const SIZE: (u32, u32) = (960, 520);
const FONT: &str = "sans-serif";
const BARS: [(&str, &str); 6] = [
    ("read 8×32", "ram/4k-read/8x32"),
    ("write 8×32", "ram/4k-write/8x32"),
    ("mix 8×32", "ram/4k-mix/8x32"),
    ("read 1×32", "ram/4k-read/1x32"),
    ("read 64×8", "ram/4k-read/64x8"),
    ("read 8×1", "ram/4k-read/8x1"),
];

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes all pictures into a folder.
pub fn draw(folder: &Path, results: &Results) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    let iops = |sample: &Sample| Some(sample.iops / 1e3);
    let cpu = |sample: &Sample| Some(sample.cpu_us);
    bars(&folder.join("iops.svg"), results, "4 KiB on a RAM volume, one core: IOPS", "thousand IOPS", iops)?;
    bars(&folder.join("cpu.svg"), results, "4 KiB on a RAM volume: CPU per operation of the server", "us", cpu)?;
    curves(
        &folder.join("latency.svg"),
        results,
        &Curves {
            title: "4 KiB random read, one session: median latency over depth",
            x: "commands in flight",
            y: "us",
            points: DEPTHS.map(|depth| (depth, format!("depth/4k-read/1x{depth}"))).to_vec(),
            who: [Ringlun, Tgt, BareTimed],
            low: BareTimed,
        },
        |sample| sample.p50_us,
    )?;
    let case = |sessions| (sessions, format!("sessions/4k-read/{sessions}x{DEPTH_OF_SESSIONS}"));
    curves(
        &folder.join("sessions.svg"),
        results,
        &Curves {
            title: "4 KiB random read, 8 commands in flight per session: IOPS over sessions",
            x: "sessions",
            y: "thousand IOPS",
            points: SESSIONS.map(case).to_vec(),
            who: [RinglunMany, Tgt, Bare],
            low: RinglunMany,
        },
        iops,
    )
}

fn color(contender: Contender) -> RGBColor {
    match contender {
        Ringlun | RinglunMany => RGBColor(0, 90, 160),
        Tgt => RGBColor(213, 94, 0),
        _ => RGBColor(140, 140, 140),
    }
}

fn wrong(error: impl std::fmt::Display) -> Box<dyn std::error::Error> {
    format!("plot: {error}").into()
}

fn canvas<'a>(path: &'a Path, title: &str) -> Outcome<Canvas<'a>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(wrong)?;
    let style = (FONT, 20).into_text_style(&area).color(&BLACK);
    area.draw(&Text::new(title.to_owned(), (24, 16), style)).map_err(wrong)?;
    Ok(area)
}

/// Small squares with names, along the upper edge.
fn legend(area: &Canvas<'_>, who: &[Contender]) -> Outcome<()> {
    let style = (FONT, 15).into_text_style(area).color(&BLACK);
    for (at, contender) in who.iter().enumerate() {
        let x = 80 + at as i32 * 170;
        area.draw(&Rectangle::new([(x, 50), (x + 12, 62)], color(*contender).filled())).map_err(wrong)?;
        area.draw(&Text::new(contender.label(), (x + 18, 48), style.clone())).map_err(wrong)?;
    }
    Ok(())
}

/// Groups of bars, each with its number.
fn bars(
    path: &Path,
    results: &Results,
    title: &str,
    unit: &str,
    field: impl Fn(&Sample) -> Option<f64> + Copy,
) -> Outcome<()> {
    let who = [Ringlun, Tgt, Bare];
    let value = |case: &str, contender| results.spread(case, contender, field).map(|spread| spread.median);
    let all: Vec<f64> =
        BARS.iter().flat_map(|(_, case)| who.map(|contender| value(case, contender))).flatten().collect();
    let Some((_, most)) = extremes(&all) else { return Ok(()) };
    let area = canvas(path, title)?;
    legend(&area, &who)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .margin_top(72)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0f64..BARS.len() as f64, 0f64..most * 1.1)
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .y_desc(unit)
        .y_labels(8)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style((FONT, 14))
        .draw()
        .map_err(wrong)?;
    let middle = Pos::new(HPos::Center, VPos::Bottom);
    let number = (FONT, 13).into_text_style(&area).pos(middle);
    for (group, (name, case)) in BARS.iter().enumerate() {
        for (at, contender) in who.iter().enumerate() {
            let Some(height) = value(case, *contender) else { continue };
            let left = group as f64 + 0.08 + at as f64 * 0.28;
            let bar = Rectangle::new([(left, 0.0), (left + 0.26, height)], color(*contender).filled());
            chart.draw_series([bar]).map_err(wrong)?;
            let label = Text::new(Digits(height).to_string(), (left + 0.13, height + most * 0.012), number.clone());
            chart.draw_series([label]).map_err(wrong)?;
        }
        let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
        let style = (FONT, 15).into_text_style(&area).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(*name, (x, y + 10), style)).map_err(wrong)?;
    }
    area.present().map_err(wrong)
}

/// What a picture of curves shows.
struct Curves {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// Where on the x axis, and the case.
    points: Vec<(u32, String)>,
    who: [Contender; 3],
    /// The one whose numbers are below its curve.
    low: Contender,
}

fn curves(path: &Path, results: &Results, what: &Curves, field: impl Fn(&Sample) -> Option<f64> + Copy) -> Outcome<()> {
    let line = |contender: Contender| -> Vec<(f64, f64)> {
        let point = |(x, case): &(u32, String)| Some((f64::from(*x), results.spread(case, contender, field)?.median));
        what.points.iter().filter_map(point).collect()
    };
    let all: Vec<f64> = what.who.iter().flat_map(|contender| line(*contender)).map(|(_, y)| y).collect();
    let Some((least, most)) = extremes(&all) else { return Ok(()) };
    let area = canvas(path, what.title)?;
    legend(&area, &what.who)?;
    let steps: Vec<f64> = what.points.iter().map(|(x, _)| f64::from(*x)).collect();
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .margin_top(72)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(Steps(steps), (least / 2.0..most * 2.0).log_scale())
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(what.x)
        .y_desc(format!("{} (logarithmic)", what.y))
        .x_labels(what.points.len())
        .y_label_formatter(&|value| Digits(*value).to_string().trim_end_matches(".00").to_owned())
        .label_style((FONT, 14))
        .draw()
        .map_err(wrong)?;
    let number = (FONT, 12).into_text_style(&area).pos(Pos::new(HPos::Center, VPos::Bottom));
    for contender in what.who {
        let (points, color) = (line(contender), color(contender));
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2))).map_err(wrong)?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, color.filled()))).map_err(wrong)?;
        // The lowest curve has its numbers below: two of them come near each other.
        let (vertical, lift) = if contender == what.low { (VPos::Top, 0.93) } else { (VPos::Bottom, 1.06) };
        let number = number.color(&color).pos(Pos::new(HPos::Center, vertical));
        let label = |(x, y): &(f64, f64)| Text::new(Digits(*y).to_string(), (*x, y * lift), number.clone());
        chart.draw_series(points.iter().map(label)).map_err(wrong)?;
    }
    area.present().map_err(wrong)
}

fn extremes(values: &[f64]) -> Option<(f64, f64)> {
    let values = || values.iter().copied().filter(|value| *value > 0.0);
    Some((values().reduce(f64::min)?, values().reduce(f64::max)?))
}

/// A logarithmic axis with marks where the measurements are.
struct Steps(Vec<f64>);

impl Ranged for Steps {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let range = self.range();
        let part = (value / range.start).ln() / (range.end / range.start).ln();
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.clone()
    }

    fn range(&self) -> Range<f64> {
        let (first, last) = (self.0.first().copied().unwrap_or(1.0), self.0.last().copied().unwrap_or(2.0));
        first / 1.2..last * 1.2
    }
}

impl ValueFormatter<f64> for Steps {
    fn format(value: &f64) -> String {
        format!("{value:.0}")
    }
}
