//! `bench`: puts load on a live cluster and reports percentiles.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::builder::RangedU64ValueParser;
use monofs_api::bench::LoadSetting;
use monofs_launch::args;
use monofs_launch::exit::{Code, Failure};
use monofs_model::Error;
use rustix::time::{ClockId, clock_gettime};

use crate::bench::corpus::{Corpus, LoadTarget, REPOSITORIES_MAX};
use crate::bench::load::{self, LoadPlan, LoadRun};
use crate::bench::mix::{LoadMix, ZIPF_MIXED};
use crate::bench::operation::Workload;
use crate::bench::report::{MeasuredLoad, check, report, text};
use crate::bench::rng::SeededRng;
use crate::bench::survey::{probe, survey};
use crate::display_path::display_path;
use crate::output::{emit, emit_json, note};
use crate::progress::{ProgressDisplay, ProgressStep};
use crate::session::CommandSession;
use crate::text::{clean, count};

/// Most clients.
const CLIENTS_MAX: u64 = 4096;
/// Most threads.
const THREADS_MAX: u64 = 256;
/// Most requests under way.
const IN_FLIGHT_MAX: u64 = 65_536;
/// Requests under way for each client unless told otherwise.
const IN_FLIGHT_PER_CLIENT: usize = 64;
/// What one client (a connection) can carry at most, in requests per second.
const CLIENT_RATE_MAX: f64 = 20_000.0;
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(500);

const AFTER_HELP: &str = "\
Examples:
  monofs-admin bench --workload=mixed --rate=1000 --duration=30s
  monofs-admin bench --workload=list --rate=max --target=node1 --path=github.com/org/repo
  monofs-admin bench --workload=read-small --rate=5000 --clients=16 --format=json

With a rate, requests follow a Poisson schedule fixed in advance, and a latency counts from the
scheduled time: a server that stalls is charged for all that was due meanwhile. With --rate=max each
client waits for its answer before it asks again (a closed loop): that finds the capacity, but its
latencies hide waiting.";

/// Put load on the cluster and report percentiles of its latency
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct BenchArgs {
    /// What is asked for
    #[arg(long, default_value = "mixed")]
    workload: Workload,
    /// Requests per second of all clients together; `max` (or 0) = as fast as answers come
    #[arg(long, value_name = "PER_SECOND|max", value_parser = rate)]
    rate: RequestRate,
    /// Clients, each with connections of its own
    #[arg(long, value_name = "N", default_value = "8", value_parser = up_to(CLIENTS_MAX))]
    clients: u64,
    /// Threads that the clients share [default: half of the processors]
    #[arg(long, value_name = "N", value_parser = up_to(THREADS_MAX))]
    threads: Option<u64>,
    /// Most requests under way; what is due beyond waits and is counted as delayed [default: 64 for
    /// each client]
    #[arg(long, value_name = "N", value_parser = up_to(IN_FLIGHT_MAX))]
    in_flight: Option<u64>,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    duration: Duration,
    /// Load before that which does not count
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = args::duration)]
    warmup: Duration,
    /// Popularity: the k-th most popular has the weight k^-S; 0 = all alike [default: 0.99 for
    /// mixed, else 0]
    #[arg(long, value_name = "S", value_parser = zipf)]
    zipf: Option<f64>,
    /// Decides the schedule and what is asked for
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// Only repositories at or below this path (repeatable)
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// Servers to ask: `nodes` (the holders, as clients do), `router` (through its proxy) or the id
    /// of one node
    #[arg(long, value_name = "nodes|router|NODE", default_value = "nodes")]
    target: LoadTarget,
}

/// A number from 1 to `most`.
fn up_to(most: u64) -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=most)
}

/// Requests per second; `None` = as many as possible.
#[derive(Debug, Clone, Copy)]
struct RequestRate(Option<f64>);

fn rate(text: &str) -> Result<RequestRate, Error> {
    if text == "max" {
        return Ok(RequestRate(None));
    }
    match text.parse::<f64>() {
        Ok(0.0) => Ok(RequestRate(None)),
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(RequestRate(Some(rate))),
        _ => Err(Error::invalid(
            "write a number of requests per second, such as 1000, or max",
        )),
    }
}

fn zipf(text: &str) -> Result<f64, Error> {
    let exponent = text
        .parse::<f64>()
        .ok()
        .filter(|exponent| (0.0..=10.0).contains(exponent));
    exponent.ok_or_else(|| Error::invalid("write a number from 0 (all alike) to 10"))
}

pub async fn run(args: BenchArgs, session: &CommandSession) -> Result<()> {
    // What is there, and what of it is asked for how often.
    let plan = args.plan(session)?;
    let mut progress = ProgressDisplay::new("bench");
    let corpus = look_around(&args, session, &mut progress).await?;
    let zipf = args.zipf.unwrap_or(if args.workload == Workload::Mixed {
        ZIPF_MIXED
    } else {
        0.0
    });
    let mix = LoadMix::new(args.workload, &corpus, zipf, args.seed)?;
    let setting = args.setting(&plan, &corpus, zipf);
    for operation in mix.operations() {
        probe(&corpus, plan.timeout, operation).await?;
    }
    // The load itself.
    let running = load::start(&plan, corpus, mix)?;
    let measured = watch(running, &plan, &mut progress).await?;
    drop(progress);
    let report = report(setting, &plan, &measured);
    // The report is told even of a run that failed.
    if session.json() {
        emit_json(&report)?;
    } else {
        emit(&text(&report))?;
    }
    for warning in &report.warnings {
        note(&format!("warning: {}", clean(warning)));
    }
    Ok(check(&report)?)
}

impl BenchArgs {
    fn plan(&self, session: &CommandSession) -> Result<LoadPlan> {
        let clients = self.clients as usize;
        // What cannot be measured is refused before anything is asked.
        if self.duration.is_zero() {
            return Err(
                Error::invalid("--duration=0 measures nothing; write a time such as 10s").into(),
            );
        }
        if let Some(rate) = self.rate.0
            && rate > CLIENT_RATE_MAX * clients as f64
        {
            let needed = (rate / CLIENT_RATE_MAX).ceil();
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "a rate of {rate}/s is too high for {}: one carries at most \
                     {CLIENT_RATE_MAX}/s",
                    count(self.clients, "client")
                ),
            )
            .hint(format!("use --clients={needed} or more, or a lower --rate"))
            .into());
        }
        // Half of the processors are left to the rest of the machine.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(LoadPlan {
            rate: self.rate.0,
            clients,
            threads: self
                .threads
                .map_or((cores / 2).max(1), |threads| threads as usize)
                .min(clients),
            in_flight: self
                .in_flight
                .map_or(clients * IN_FLIGHT_PER_CLIENT, |most| most as usize),
            warmup: self.warmup,
            duration: self.duration,
            timeout: session.cluster.timeout(),
            seed: self.seed,
        })
    }

    fn setting(&self, plan: &LoadPlan, corpus: &Corpus, zipf: f64) -> LoadSetting {
        // The report repeats what was asked for, with all defaults filled in.
        LoadSetting {
            workload: self.workload.as_str(),
            loop_kind: if plan.rate.is_some() {
                "open"
            } else {
                "closed"
            },
            target: self.target.to_string(),
            clients: plan.clients,
            threads: plan.threads,
            in_flight_max: plan.rate.map(|_| plan.in_flight),
            offered_rate_per_s: plan.rate,
            warmup_s: plan.warmup.as_secs_f64(),
            duration_s: plan.duration.as_secs_f64(),
            zipf,
            seed: plan.seed,
            repositories: corpus.repositories.len(),
            directories: corpus.directories.len(),
            small_files: corpus.small.len(),
            large_files: corpus.large.len(),
            sampled: corpus.sampled,
        }
    }
}

/// What there is to ask for.
async fn look_around(
    args: &BenchArgs,
    session: &CommandSession,
    progress: &mut ProgressDisplay,
) -> Result<Corpus> {
    let step = ProgressStep::of("looking around");
    progress.show(step.clone());
    // The repositories that are named, or all.
    let mut repositories = Vec::new();
    if args.path.is_empty() {
        repositories = session.repositories_up_to("", REPOSITORIES_MAX).await?;
    }
    for path in &args.path {
        let path = display_path(path)?;
        let found = session.repositories_up_to(&path, REPOSITORIES_MAX).await?;
        if found.is_empty() {
            let what = format!("there is no repository at or below {}", clean(&path));
            return Err(Failure::new(Code::Failed, what)
                .hint("`monofs-admin repos` lists the repositories")
                .into());
        }
        repositories.extend(found);
    }
    repositories.sort_by(|a, b| a.path.cmp(&b.path));
    repositories.dedup_by(|a, b| a.path == b.path);
    repositories.truncate(REPOSITORIES_MAX);
    // The servers that hold them, and their trees.
    let status = session.status().await?;
    let mut corpus = Corpus::new(
        &repositories,
        status,
        session.cluster.routers(),
        &args.target,
    )?;
    if args.workload.wants_trees() {
        let mut rng = SeededRng::new(args.seed, u64::MAX - 1);
        let tell = |corpus: &Corpus| {
            progress.show(ProgressStep {
                detail: format!(
                    "{} directories, {} files",
                    corpus.directories.len(),
                    corpus.small.len()
                ),
                ..step.clone()
            });
        };
        survey(&mut corpus, session.cluster.timeout(), &mut rng, tell).await?;
    }
    Ok(corpus)
}

/// Shows where the load is until it ends.
async fn watch(
    running: LoadRun,
    plan: &LoadPlan,
    progress: &mut ProgressDisplay,
) -> Result<MeasuredLoad> {
    // The warm-up does not count.
    let start = running.start;
    let begin = start + plan.warmup;
    while Instant::now() < begin {
        progress.show(timed_step("warming up", start, plan.warmup));
        tokio::time::sleep_until(begin.min(Instant::now() + TICK).into()).await;
    }
    // The time that is measured.
    let before = cpu_time()?;
    let finish = running.finish();
    tokio::pin!(finish);
    let tally = loop {
        progress.show(timed_step("measuring", begin, plan.duration));
        tokio::select! {
            tally = &mut finish => break tally?,
            () = tokio::time::sleep(TICK) => {}
        }
    };
    let elapsed = tally
        .last
        .map_or(plan.duration, |last| last.saturating_duration_since(begin));
    Ok(MeasuredLoad {
        tally,
        elapsed,
        cpu: cpu_time()?.saturating_sub(before),
    })
}

/// A step that takes `whole` from `from` on.
fn timed_step(phase: &'static str, from: Instant, whole: Duration) -> ProgressStep {
    let passed = from.elapsed().as_secs();
    ProgressStep {
        phase,
        done: passed,
        total: whole.as_secs().max(1),
        detail: format!("{passed}/{} s", whole.as_secs_f64()),
    }
}

/// Processor time of all threads of this process.
fn cpu_time() -> Result<Duration> {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))
        .context("the processor time of this process")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_or_max() {
        assert!(
            matches!(rate("max"), Ok(RequestRate(None)))
                && matches!(rate("0"), Ok(RequestRate(None)))
        );
        assert!(matches!(rate("2.5"), Ok(RequestRate(Some(2.5)))));
        for bad in ["", "-1", "inf", "NaN", "many"] {
            assert!(rate(bad).is_err(), "{bad:?}");
        }
        assert!(
            zipf("0.99").is_ok()
                && zipf("-1").is_err()
                && zipf("NaN").is_err()
                && zipf("11").is_err()
        );
    }
}
