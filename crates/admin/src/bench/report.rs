//! What one run measured: summed up, judged, and as tables for people.

use std::time::Duration;

use monofs_api::bench::{LatencyOctave, LoadReport, LoadSetting, OperationReport};
use monofs_launch::exit::{Code, Failure};

use super::load::LoadPlan;
use super::tally::{LoadTally, OperationFigures};
use crate::output::{TextTable, fields};
use crate::text::{clean, count, size};

/// A share of delayed requests above which the figures describe the bound on requests under way.
const DELAYED_SHARE_MAX: f64 = 0.01;
/// A share of its threads' time above which the generator measures itself.
const BUSY_SHARE_MAX: f64 = 0.85;

/// What a run left.
pub struct MeasuredLoad {
    pub tally: LoadTally,
    /// From the end of the warm-up to the last answer.
    pub elapsed: Duration,
    /// Processor time of this process since the end of the warm-up.
    pub cpu: Duration,
}

/// Sums up.
pub fn report(setting: LoadSetting, plan: &LoadPlan, measured: &MeasuredLoad) -> LoadReport {
    let tally = &measured.tally;
    let elapsed = measured.elapsed.max(plan.duration);
    let figures = tally.total();
    let total = row("total", &figures, elapsed);
    let done = total.ok + total.errors;
    let cpu_s = measured.cpu.as_secs_f64();

    // Only a schedule can be missed.
    let lag = plan.rate.map(|_| &tally.lag);
    let operations = tally.operations.iter();
    let octaves = figures.latencies.octaves().into_iter();
    let mut report = LoadReport {
        setting,
        elapsed_s: elapsed.as_secs_f64(),
        operations: operations
            .map(|(name, figures)| row(name.as_str(), figures, elapsed))
            .collect(),
        delayed: tally.delayed,
        unsent: tally.unsent,
        failovers: tally.failovers,
        send_lag_p50_us: lag.map(|lag| lag.quantile(0.5)),
        send_lag_p99_us: lag.map(|lag| lag.quantile(0.99)),
        send_lag_max_us: lag.map(|lag| lag.max()),
        generator_cpu_s: cpu_s,
        generator_cpu_us_per_operation: (done > 0).then(|| cpu_s * 1e6 / done as f64),
        histogram: octaves
            .map(|(below_us, count)| LatencyOctave { below_us, count })
            .collect(),
        warnings: Vec::new(),
        total,
    };
    report.warnings = warnings(&report);
    report
}

fn row(operation: &'static str, figures: &OperationFigures, elapsed: Duration) -> OperationReport {
    let latencies = &figures.latencies;
    OperationReport {
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

/// What makes the figures say something else than how fast the cluster is.
fn warnings(report: &LoadReport) -> Vec<String> {
    let mut warnings = Vec::new();
    let done = report.total.ok + report.total.errors;
    // The schedule was not kept.
    if report.unsent > 0 {
        warnings.push(format!(
            "{} never sent: the rate is too high for these clients or this cluster; lower --rate \
             (--rate=max finds the capacity)",
            count(report.unsent, "request")
        ));
    }
    if report.delayed as f64 > done as f64 * DELAYED_SHARE_MAX {
        warnings.push(format!(
            "{} had to wait for one of the {} places under way: raise --in-flight or --clients, \
             or lower --rate",
            count(report.delayed, "request"),
            report.setting.in_flight_max.unwrap_or_default()
        ));
    }
    // The generator was the bottleneck.
    let threads_s = report.elapsed_s * report.setting.threads as f64;
    if report.generator_cpu_s > threads_s * BUSY_SHARE_MAX {
        warnings.push(
            "the generator's threads were busy most of the time, so that latencies and rate are \
             partly its own: raise --threads or lower --rate"
                .to_owned(),
        );
    }
    // The cluster did not answer everything, or not at the first server.
    if report.total.errors > 0 {
        let share = 100.0 * report.total.errors as f64 / done as f64;
        let said = first_error(report).unwrap_or_default();
        let errors = count(report.total.errors, "error");
        warnings.push(format!("{errors} ({share:.2} %); the first: {said}"));
    }
    if report.failovers > 0 {
        let requests = count(report.failovers, "request");
        warnings.push(format!("{requests} went on to another server"));
    }
    warnings
}

fn first_error(report: &LoadReport) -> Option<&str> {
    let mut operations = report.operations.iter();
    operations.find_map(|row| row.first_error.as_deref())
}

/// Errors: nothing succeeded.
pub fn check(report: &LoadReport) -> Result<(), Failure> {
    if report.total.ok > 0 {
        return Ok(());
    }
    let failure = match first_error(report) {
        Some(said) => Failure::new(
            Code::Unreachable,
            format!("no operation succeeded: {}", clean(said)),
        ),
        None => Failure::new(
            Code::Usage,
            "no operation was due: the rate times the duration is too small",
        ),
    };
    Err(failure.hint(
        "`monofs-admin status` shows which members are down; raise --rate or --duration when \
         nothing was due",
    ))
}

/// The report for people.
pub fn text(report: &LoadReport) -> String {
    format!("{}\n{}\n{}", heading(report), table(report), rest(report))
}

fn table(report: &LoadReport) -> String {
    let mut rows = TextTable::new(&[
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
    // The sum of one operation would only repeat it.
    let total = Some(&report.total).filter(|_| report.operations.len() != 1);
    for row in report.operations.iter().chain(total) {
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
    rows.render()
}

/// How late requests were sent, and what the generator itself took.
fn rest(report: &LoadReport) -> String {
    let mut pairs = Vec::new();
    // Without a schedule nothing is late.
    if report.setting.offered_rate_per_s.is_some() {
        let late = format!(
            "p50 {}, p99 {}, max {}",
            millis_or_dash(report.send_lag_p50_us),
            millis_or_dash(report.send_lag_p99_us),
            millis_or_dash(report.send_lag_max_us)
        );
        let delayed = format!(
            "{} of the schedule, {} never sent",
            report.delayed, report.unsent
        );
        pairs.push(("sent late by", late));
        pairs.push(("delayed", delayed));
    }
    let per = report
        .generator_cpu_us_per_operation
        .map_or(String::new(), |us| format!(", {us:.0} us an operation"));
    let cpu = format!("{:.2} s{per}", report.generator_cpu_s);
    pairs.push(("generator CPU", cpu));
    fields(&pairs)
}

/// What was measured, in three lines.
fn heading(report: &LoadReport) -> String {
    // The setting as it was asked for.
    let LoadSetting {
        workload,
        target,
        clients,
        threads,
        repositories,
        directories,
        small_files,
        large_files,
        warmup_s,
        duration_s,
        zipf,
        seed,
        ..
    } = &report.setting;
    // A schedule, or as fast as answers come.
    let kind = match (
        report.setting.offered_rate_per_s,
        report.setting.in_flight_max,
    ) {
        (Some(rate), Some(most)) => format!(
            "open loop, {rate} requests/s offered (Poisson), at most {most} under way; latency \
             from the scheduled time"
        ),
        _ => "CLOSED LOOP (capacity; its latencies hide waiting): each client waits for its \
              answer"
            .to_owned(),
    };
    let sampled = if report.setting.sampled {
        " (a sample)"
    } else {
        ""
    };
    let clients = count(*clients as u64, "client");
    let threads = count(*threads as u64, "thread");
    format!(
        "{workload} on {target}: {kind}\n\
         {duration_s} s after {warmup_s} s of warm-up, {clients}, {threads}, Zipf {zipf}, seed \
         {seed}\n\
         {repositories} repositories, {directories} directories, {small_files} small and \
         {large_files} large files{sampled}\n"
    )
}

fn millis(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

fn millis_or_dash(us: Option<u64>) -> String {
    us.map_or_else(|| "-".to_owned(), millis)
}

#[cfg(test)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;
    use crate::bench::operation::LoadOperation;

    fn plan(rate: Option<f64>) -> LoadPlan {
        LoadPlan {
            rate,
            clients: 2,
            threads: 1,
            in_flight: 4,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            seed: 1,
        }
    }

    fn setting(plan: &LoadPlan) -> LoadSetting {
        LoadSetting {
            workload: "list",
            loop_kind: if plan.rate.is_some() {
                "open"
            } else {
                "closed"
            },
            target: "nodes".to_owned(),
            clients: plan.clients,
            threads: plan.threads,
            in_flight_max: plan.rate.map(|_| plan.in_flight),
            offered_rate_per_s: plan.rate,
            warmup_s: 0.0,
            duration_s: 10.0,
            zipf: 0.0,
            seed: 1,
            repositories: 1,
            directories: 2,
            small_files: 3,
            large_files: 4,
            sampled: true,
        }
    }

    fn report_of(rate: Option<f64>, tally: LoadTally, cpu: Duration) -> LoadReport {
        let plan = plan(rate);
        let measured = MeasuredLoad {
            tally,
            elapsed: Duration::from_secs(9),
            cpu,
        };
        report(setting(&plan), &plan, &measured)
    }

    #[test]
    fn a_rate_is_over_the_whole_time_that_was_planned() {
        let mut tally = LoadTally::default();
        for _ in 0..100 {
            tally.succeeded(LoadOperation::List, Duration::from_millis(2), 10);
        }
        let report = report_of(None, tally, Duration::from_secs(1));
        assert_eq!((report.elapsed_s, report.total.rate_per_s), (10.0, 10.0));
        assert_eq!(report.total.bytes_per_s, 100.0);
        assert_eq!(report.generator_cpu_us_per_operation, Some(10_000.0));
        assert_eq!(report.send_lag_p50_us, None, "no schedule, no lag");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        assert!(check(&report).is_ok());
        let text = text(&report);
        assert!(
            text.contains("CLOSED LOOP") && text.contains("(a sample)"),
            "{text}"
        );
        assert!(
            !text.contains("total"),
            "one operation is its own sum: {text}"
        );
    }

    #[test]
    fn what_spoils_the_figures_is_said() {
        let mut tally = LoadTally::default();
        tally.succeeded(LoadOperation::List, Duration::from_millis(2), 10);
        tally.failed(LoadOperation::Lookup, ErrorKind::Unavailable, "gone");
        tally.delayed = 1;
        tally.unsent = 7;
        tally.failovers = 2;
        let report = report_of(Some(100.0), tally, Duration::from_secs(9));
        let said = report.warnings.join("\n");
        for part in [
            "7 requests never sent",
            "1 request had to wait for one of the 4 places",
            "busy most of the time",
            "1 error (50.00 %); the first: gone",
            "2 requests went on",
        ] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }
        let text = text(&report);
        assert!(
            text.contains("total") && text.contains("7 never sent"),
            "{text}"
        );
    }

    #[test]
    fn a_run_without_a_success_is_a_failure() {
        let mut tally = LoadTally::default();
        let none = check(&report_of(Some(0.1), tally.clone(), Duration::ZERO));
        assert!(none.is_err_and(|failure| failure.code == Code::Usage));
        tally.failed(LoadOperation::List, ErrorKind::Unavailable, "gone");
        let failed = check(&report_of(Some(0.1), tally, Duration::ZERO));
        assert!(failed.is_err_and(|failure| failure.message.contains("gone")));
    }
}
