//! Charts of the history as SVG, drawn here so that the page needs no script for them. Pure.
//!
//! Invariants: a value that is not known is a gap, never a zero; colours and fonts come from the
//! style sheet; every chart says in words what it shows.

use std::fmt::Write as _;

use askama::Template;
use askama::filters::HtmlSafe;

use super::text::{latency, number, percent, size, time_of_day};
use monofs_router::history::HistoryTable;

/// Of the area that curves are drawn in; the whole is 640 by 170.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 632.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 146.0;
/// Of a small curve without axes.
const SPARK: (f64, f64) = (120.0, 30.0);
/// Lines across, without the lowest.
const GRID_LINES: u32 = 3;
const TIMES: i64 = 4;

/// What the values count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    BytesPerSecond,
    Bytes,
    Seconds,
    /// Of 1.
    Ratio,
    Count,
}

impl Unit {
    /// A value as people read it.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 100.0 => format!("{}/s", number(value.round() as u64)),
            Self::PerSecond if value == 0.0 => "0/s".to_owned(),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::BytesPerSecond => format!("{}/s", size(value.round() as u64)),
            Self::Bytes => size(value.round() as u64),
            Self::Seconds => latency(value),
            Self::Ratio => percent((value * 1e6).round() as u64, 1_000_000).unwrap_or_default(),
            Self::Count if value.fract() > 0.05 => format!("{value:.1}"),
            Self::Count => number(value.round() as u64),
        }
    }

    /// The end of an axis that reaches `max`.
    fn axis_end(self, max: f64) -> f64 {
        let base: f64 = match self {
            Self::Ratio => return 1.0,
            Self::Bytes | Self::BytesPerSecond => {
                1024.0_f64.powf((max.max(1.0)).log(1024.0).floor())
            }
            Self::Count => return nice(max.max(3.0)).ceil(),
            Self::Seconds | Self::PerSecond => 1.0,
        };
        if max <= 0.0 {
            base
        } else {
            nice(max / base) * base
        }
    }
}

/// The next of 1, 1.5, 3, 6 and their tens at or above `value`: divisible by the lines across.
fn nice(value: f64) -> f64 {
    let ten = 10.0_f64.powf(value.log10().floor());
    [1.0, 1.5, 3.0, 6.0, 10.0]
        .into_iter()
        .map(|step| step * ten)
        .find(|step| *step >= value * 0.999)
        .unwrap_or(10.0 * ten)
}

/// A curve of a chart.
struct Curve {
    name: &'static str,
    class: &'static str,
    path: String,
    /// Closed at the ground; of the first curve only.
    area: String,
}

impl Curve {
    /// `is_first`: with the area below it.
    fn new(name: &'static str, is_first: bool, runs: &[Run]) -> Self {
        let area = if is_first {
            runs.iter().map(|run| closed(run, BOTTOM)).collect()
        } else {
            String::new()
        };
        Self {
            name,
            class: if is_first { "series" } else { "series second" },
            path: runs.iter().map(open).collect(),
            area,
        }
    }
}

/// A mark at an axis.
struct Tick {
    at: String,
    text_at: String,
    text: String,
}

/// Where moments and values are drawn.
struct Plane {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// The moment at the left, seconds since the epoch, and the time from there to the right.
    start: i64,
    seconds: i64,
    /// The value at the top; nothing is drawn above it.
    end: f64,
}

impl Plane {
    fn x(&self, at: i64) -> f64 {
        let share = (at - self.start) as f64 / self.seconds as f64;
        (self.left + share * (self.right - self.left)).clamp(self.left, self.right)
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.end > 0.0 {
            (value / self.end).clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.bottom - share * (self.bottom - self.top)
    }

    /// The mark at line `n` across, counted from the ground.
    fn level(&self, n: u32, unit: Unit) -> Tick {
        let value = self.end * f64::from(n) / f64::from(GRID_LINES);
        let y = self.y(value);
        Tick {
            at: format!("{y:.1}"),
            text_at: format!("{:.1}", y + 4.0),
            text: unit.show(value),
        }
    }

    /// The mark after `n` of the parts of the time.
    fn time(&self, n: i64) -> Tick {
        let at = self.start + self.seconds * n / TIMES;
        let x = self.x(at);
        Tick {
            at: format!("{x:.1}"),
            text_at: format!("{x:.1}"),
            text: time_of_day(at),
        }
    }
}

/// A chart with its axes.
#[derive(Template)]
#[template(path = "chart.html")]
pub(super) struct Chart {
    title: &'static str,
    /// What it shows, in words.
    words: String,
    curves: Vec<Curve>,
    levels: Vec<Tick>,
    times: Vec<Tick>,
    /// Nothing is known yet.
    empty: bool,
}

impl HtmlSafe for Chart {}

impl Chart {
    /// `series`: the names in the table, with what they are called. `now`, `seconds`: the end and
    /// length of the time shown.
    pub fn new(
        title: &'static str,
        unit: Unit,
        table: &HistoryTable,
        series: &[(&'static str, &'static str)],
        now: i64,
        seconds: i64,
    ) -> Self {
        let rows: Vec<(&str, &[Option<f64>])> = series
            .iter()
            .map(|(name, called)| (*called, values(table, name)))
            .collect();
        let max = rows
            .iter()
            .flat_map(|(_, row)| row.iter().flatten())
            .copied()
            .fold(0.0, f64::max);
        // The plane that all curves share, and each curve on it.
        let plane = Plane {
            left: LEFT,
            right: RIGHT,
            top: TOP,
            bottom: BOTTOM,
            start: now - seconds,
            seconds,
            end: unit.axis_end(max),
        };
        let curves = rows.iter().enumerate();
        let curves = curves.map(|(number, (name, row))| {
            let runs = runs(&table.at, row, table.step_seconds, &plane);
            Curve::new(name, number == 0, &runs)
        });
        Self {
            title,
            words: rows
                .iter()
                .map(|(name, row)| words(name, row, unit))
                .collect::<Vec<_>>()
                .join("; "),
            empty: rows.iter().all(|(_, row)| row.iter().all(Option::is_none)),
            curves: curves.collect(),
            levels: (0..=GRID_LINES).map(|n| plane.level(n, unit)).collect(),
            times: (0..=TIMES).map(|n| plane.time(n)).collect(),
        }
    }
}

/// A small curve beside a figure that is said in words.
#[derive(Debug, Clone, Template)]
#[template(
    source = r#"<svg class="spark" viewBox="0 0 120 30" preserveAspectRatio="none" aria-hidden="true" focusable="false"><path class="area" d="{{ area }}"/><path class="series" d="{{ path }}"/></svg>"#,
    ext = "html"
)]
pub(super) struct Spark {
    path: String,
    area: String,
}

impl HtmlSafe for Spark {}

impl Spark {
    /// `None`: nothing is known.
    pub fn new(
        unit: Unit,
        table: &HistoryTable,
        series: &str,
        now: i64,
        seconds: i64,
    ) -> Option<Self> {
        let row = values(table, series);
        let max = row.iter().flatten().copied().reduce(f64::max)?;
        let plane = Plane {
            left: 0.0,
            right: SPARK.0,
            top: 1.0,
            bottom: SPARK.1 - 1.0,
            start: now - seconds,
            seconds,
            end: if unit == Unit::Ratio { 1.0 } else { max * 1.05 },
        };
        let runs = runs(&table.at, row, table.step_seconds, &plane);
        let area = runs.iter().map(|run| closed(run, SPARK.1)).collect();
        Some(Self {
            path: runs.iter().map(open).collect(),
            area,
        })
    }
}

/// The values of a series; none when the table does not have it.
pub(super) fn values<'a>(table: &'a HistoryTable, series: &str) -> &'a [Option<f64>] {
    table
        .series
        .iter()
        .find(|(name, _)| *name == series)
        .map_or(&[], |(_, row)| row.as_slice())
}

type Run = Vec<(f64, f64)>;

/// Runs of known values without a gap.
fn runs(at: &[i64], row: &[Option<f64>], step: i64, plane: &Plane) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut before = None;
    for (at, value) in at.iter().zip(row) {
        let Some(value) = value else { continue };
        if before.is_none_or(|before| at - before > step) {
            runs.push(Vec::new());
        }
        if let Some(run) = runs.last_mut() {
            run.push((plane.x(*at), plane.y(*value)));
        }
        before = Some(*at);
    }
    runs
}

fn open(run: &Run) -> String {
    let mut path = String::new();
    for (number, (x, y)) in run.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if number == 0 { 'M' } else { 'L' });
    }
    if run.len() == 1 {
        path.push_str("h1.5");
    }
    path
}

fn closed(run: &Run, ground: f64) -> String {
    match (run.first(), run.last()) {
        (Some(first), Some(last)) if run.len() > 1 => {
            format!(
                "{}L{:.1} {ground}L{:.1} {ground}Z",
                open(run),
                last.0,
                first.0
            )
        }
        _ => String::new(),
    }
}

/// A curve in words: now, lowest, highest.
fn words(name: &str, row: &[Option<f64>], unit: Unit) -> String {
    let known: Vec<f64> = row.iter().flatten().copied().collect();
    let Some(low) = known.iter().copied().reduce(f64::min) else {
        return format!("{name}: not known yet");
    };
    let high = known.iter().copied().fold(low, f64::max);
    let now = row
        .last()
        .copied()
        .flatten()
        .map_or("not known now".to_owned(), |now| {
            format!("{} now", unit.show(now))
        });
    format!("{name}: {now}, {} to {}", unit.show(low), unit.show(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: &[Option<f64>]) -> HistoryTable {
        let at = (0..values.len() as i64).map(|n| 1000 + n * 10).collect();
        HistoryTable {
            step_seconds: 10,
            at,
            series: vec![("s", values.to_vec())],
        }
    }

    fn draw(unit: Unit, values: &[Option<f64>]) -> String {
        Chart::new("Reads", unit, &table(values), &[("s", "reads")], 1100, 100).to_string()
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let shown = draw(
            Unit::PerSecond,
            &[Some(1.0), Some(2.0), None, Some(3.0), Some(1.0)],
        );
        let path = shown
            .split("class=\"series\" d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        assert_eq!(
            path.map(|path| path.matches('M').count()),
            Some(2),
            "{shown}"
        );
        assert!(
            shown.contains("reads: 1.0/s now, 1.0/s to 3.0/s"),
            "{shown}"
        );
    }

    #[test]
    fn nothing_known_is_said_and_draws_nothing() {
        let shown = draw(Unit::Ratio, &[None, None]);
        assert!(
            shown.contains("not known yet") && !shown.contains("NaN"),
            "{shown}"
        );
        assert!(Spark::new(Unit::Ratio, &table(&[None]), "s", 1100, 100).is_none());
        assert!(Spark::new(Unit::Ratio, &table(&[Some(1.0)]), "other", 1100, 100).is_none());
    }

    #[test]
    fn axes_end_at_round_figures() {
        let ends = [
            (Unit::PerSecond, 41.0),
            (Unit::PerSecond, 0.0),
            (Unit::Count, 2.0),
            (Unit::Ratio, 0.4),
        ];
        assert_eq!(
            ends.map(|(unit, max)| unit.axis_end(max)),
            [60.0, 1.0, 3.0, 1.0]
        );
        assert_eq!(Unit::Bytes.axis_end(700.0 * 1024.0), 1000.0 * 1024.0);
        assert_eq!(Unit::Seconds.axis_end(0.004), 0.006);
    }

    #[test]
    fn values_are_read_with_their_units() {
        let shown = [
            Unit::PerSecond.show(12.34),
            Unit::BytesPerSecond.show(2048.0),
            Unit::Seconds.show(0.0041),
            Unit::Ratio.show(0.985),
            Unit::Count.show(2.5),
        ];
        assert_eq!(shown, ["12.3/s", "2.0 KiB/s", "4.1 ms", "98 %", "2.5"]);
    }
}
