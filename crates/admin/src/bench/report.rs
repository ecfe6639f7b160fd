//! The figures as one JSON document with stable keys, or as tables. Units stand in the names.

use std::collections::BTreeMap;
use std::time::Duration;

use monofs_launch::exit::{Code, Failure};
use serde::Serialize;

use super::load::Plan;
use super::tally::{Figures, Tally};
use crate::output::{Rows, fields};
use crate::text::{clean, count, size};

/// A share of delayed requests above which the figures describe the bound on requests under way.
const DELAYED_SHARE_MAX: f64 = 0.01;
/// A share of its threads' time above which the generator measures itself.
const BUSY_SHARE_MAX: f64 = 0.85;

/// What was asked for and of whom.
#[derive(Debug, Serialize)]
pub struct Setting {
    pub workload: &'static str,
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub loop_kind: &'static str,
    pub target: String,
    pub clients: usize,
    pub threads: usize,
    /// Open loop only.
    pub in_flight_max: Option<usize>,
    /// Open loop only.
    pub offered_rate_per_s: Option<f64>,
    pub warmup_s: f64,
    pub duration_s: f64,
    pub zipf: f64,
    pub seed: u64,
    pub repositories: usize,
    pub directories: usize,
    pub small_files: usize,
    pub large_files: usize,
    /// Not everything that is there was known to the generator.
    pub sampled: bool,
}

/// One operation's figures. Latencies are of those that succeeded.
#[derive(Debug, Serialize)]
pub struct Row {
    pub operation: &'static str,
    pub ok: u64,
    pub errors: u64,
    pub errors_by_kind: BTreeMap<&'static str, u64>,
    pub first_error: Option<String>,
    pub rate_per_s: f64,
    pub bytes_per_s: f64,
    pub mean_us: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

/// Latencies between a power of two and the next.
#[derive(Debug, Serialize)]
pub struct Octave {
    pub below_us: u64,
    pub count: u64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub setting: Setting,
    /// From the end of the warm-up to the last answer.
    pub elapsed_s: f64,
    pub total: Row,
    pub operations: Vec<Row>,
    pub delayed: u64,
    pub unsent: u64,
    pub failovers: u64,
    /// From when a request was due to when it was sent; part of its latency. Open loop only.
    pub send_lag_p50_us: Option<u64>,
    pub send_lag_p99_us: Option<u64>,
    pub send_lag_max_us: Option<u64>,
    /// Of this process, since the end of the warm-up.
    pub generator_cpu_s: f64,
    pub generator_cpu_us_per_operation: Option<f64>,
    pub histogram: Vec<Octave>,
    pub warnings: Vec<String>,
}

impl Report {
    /// Sums up. `elapsed`: from the end of the warm-up to the last answer.
    pub fn new(
        setting: Setting,
        plan: &Plan,
        tally: &Tally,
        elapsed: Duration,
        cpu: Duration,
    ) -> Self {
        let elapsed = elapsed.max(plan.duration);
        let figures = tally.total();
        let total = row("total", &figures, elapsed);
        let open = plan.rate.is_some();
        let done = total.ok + total.errors;
        let mut report = Self {
            setting,
            elapsed_s: elapsed.as_secs_f64(),
            operations: tally
                .operations
                .iter()
                .map(|(name, figures)| row(name.as_str(), figures, elapsed))
                .collect(),
            delayed: tally.delayed,
            unsent: tally.unsent,
            failovers: tally.failovers,
            send_lag_p50_us: open.then(|| tally.lag.quantile(0.5)),
            send_lag_p99_us: open.then(|| tally.lag.quantile(0.99)),
            send_lag_max_us: open.then(|| tally.lag.max()),
            generator_cpu_s: cpu.as_secs_f64(),
            generator_cpu_us_per_operation: (done > 0)
                .then(|| cpu.as_secs_f64() * 1e6 / done as f64),
            histogram: figures
                .latencies
                .octaves()
                .into_iter()
                .map(|(below_us, count)| Octave { below_us, count })
                .collect(),
            warnings: Vec::new(),
            total,
        };
        report.warnings = report.warn();
        report
    }

    fn warn(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let done = self.total.ok + self.total.errors;
        if self.unsent > 0 {
            warnings.push(format!(
                "{} never sent: the rate is too high for these clients or this cluster; lower \
                 --rate (--rate=max finds \
                 the capacity)",
                count(self.unsent, "request")
            ));
        }
        if self.delayed as f64 > done as f64 * DELAYED_SHARE_MAX {
            warnings.push(format!(
                "{} had to wait for one of the {} places under way: raise --in-flight or \
                 --clients, or lower --rate",
                count(self.delayed, "request"),
                self.setting.in_flight_max.unwrap_or_default()
            ));
        }
        if self.generator_cpu_s > self.elapsed_s * self.setting.threads as f64 * BUSY_SHARE_MAX {
            warnings.push(
                "the generator's threads were busy most of the time, so that latencies and rate \
                 are partly its own: raise \
                 --threads or lower --rate"
                    .to_owned(),
            );
        }
        if self.total.errors > 0 {
            let share = 100.0 * self.total.errors as f64 / done as f64;
            let said = self
                .operations
                .iter()
                .find_map(|row| row.first_error.as_deref())
                .unwrap_or_default();
            warnings.push(format!(
                "{} ({share:.2} %); the first: {said}",
                count(self.total.errors, "error")
            ));
        }
        if self.failovers > 0 {
            warnings.push(format!(
                "{} went on to another server",
                count(self.failovers, "request")
            ));
        }
        warnings
    }

    /// Errors: nothing succeeded.
    pub fn check(&self) -> Result<(), Failure> {
        if self.total.ok > 0 {
            return Ok(());
        }
        let said = self
            .operations
            .iter()
            .find_map(|row| row.first_error.as_deref());
        let (code, what) = match said {
            Some(said) => (
                Code::Unreachable,
                format!("no operation succeeded: {}", clean(said)),
            ),
            None => (
                Code::Usage,
                "no operation was due: the rate times the duration is too small".to_owned(),
            ),
        };
        Err(Failure::new(code, what).hint(
            "`monofs-admin status` shows which members are down; raise --rate or --duration when \
             nothing was due",
        ))
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.heading();
        text.push('\n');
        let mut rows = Rows::new(&[
            "OPERATION",
            ">OK",
            ">ERRORS",
            ">RATE/S",
            ">BYTES/S",
            ">MEAN",
            ">P50",
            ">P90",
            ">P99",
            ">P99.9",
            ">MAX",
        ]);
        let single = self.operations.len() == 1;
        for row in self
            .operations
            .iter()
            .chain(Some(&self.total).filter(|_| !single))
        {
            let latencies = [
                row.mean_us,
                row.p50_us,
                row.p90_us,
                row.p99_us,
                row.p999_us,
                row.max_us,
            ];
            let figures = [
                row.operation.to_owned(),
                row.ok.to_string(),
                row.errors.to_string(),
                format!("{:.0}", row.rate_per_s),
                size(row.bytes_per_s as u64),
            ];
            rows.row(figures.into_iter().chain(latencies.map(millis)));
        }
        text.push_str(&rows.render());
        text.push('\n');
        let lag = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), millis);
        let mut pairs = Vec::new();
        if self.setting.offered_rate_per_s.is_some() {
            let (p50, p99, max) = (
                self.send_lag_p50_us,
                self.send_lag_p99_us,
                self.send_lag_max_us,
            );
            pairs.push((
                "sent late by",
                format!("p50 {}, p99 {}, max {}", lag(p50), lag(p99), lag(max)),
            ));
            pairs.push((
                "delayed",
                format!(
                    "{} of the schedule, {} never sent",
                    self.delayed, self.unsent
                ),
            ));
        }
        let per = self
            .generator_cpu_us_per_operation
            .map_or(String::new(), |us| format!(", {us:.0} us an operation"));
        pairs.push((
            "generator CPU",
            format!("{:.2} s{per}", self.generator_cpu_s),
        ));
        text + &fields(&pairs)
    }

    fn heading(&self) -> String {
        let Setting {
            workload,
            target,
            clients,
            threads,
            repositories,
            directories,
            ..
        } = &self.setting;
        let kind = match (self.setting.offered_rate_per_s, self.setting.in_flight_max) {
            (Some(rate), Some(most)) => format!(
                "open loop, {rate} requests/s offered (Poisson), at most {most} under way; latency \
                 from the scheduled time"
            ),
            _ => "CLOSED LOOP (capacity; its latencies hide waiting): each client waits for its \
             answer"
                .to_owned(),
        };
        let Setting {
            small_files,
            large_files,
            warmup_s,
            duration_s,
            ..
        } = &self.setting;
        let sampled = if self.setting.sampled {
            " (a sample)"
        } else {
            ""
        };
        format!(
            "{workload} on {target}: {kind}\n{duration_s} s after {warmup_s} s of warm-up, {}, {}, \
             Zipf {}, seed {}\n\
             {repositories} repositories, {directories} directories, {small_files} small and {large_files} large \
             files{sampled}\n",
            count(*clients as u64, "client"),
            count(*threads as u64, "thread"),
            self.setting.zipf,
            self.setting.seed,
        )
    }
}

fn row(operation: &'static str, figures: &Figures, elapsed: Duration) -> Row {
    let latencies = &figures.latencies;
    Row {
        operation,
        ok: latencies.count(),
        errors: figures.errors.values().sum(),
        errors_by_kind: figures.errors.clone(),
        first_error: figures.first_error.clone(),
        rate_per_s: latencies.count() as f64 / elapsed.as_secs_f64(),
        bytes_per_s: figures.bytes as f64 / elapsed.as_secs_f64(),
        mean_us: latencies.mean().round() as u64,
        p50_us: latencies.quantile(0.5),
        p90_us: latencies.quantile(0.9),
        p99_us: latencies.quantile(0.99),
        p999_us: latencies.quantile(0.999),
        max_us: latencies.max(),
    }
}

fn millis(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}
