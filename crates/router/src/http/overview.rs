//! The overview, made once for everybody who listens: from memory alone, so that it costs little
//! and is never late.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use monofs_model::view::Role;
use monofs_model::{ClusterView, Error};
use tokio::sync::watch;

use super::shapes::jobs::Job;
use super::shapes::members::Router;
use super::shapes::overview::{
    Health, Maintenance, MemberCounts, Overview, Rates, Reason, RepositoryCounts,
};
use super::shapes::said;
use super::sse::Event;
use crate::history::Series;
use crate::reconcile::jobs::has_ended;
use crate::{RouterState, leader, status};

/// How often it is made anew while somebody listens.
const EVERY: Duration = Duration::from_secs(2);
/// Listeners hear of it at least this often, in turns of [`EVERY`].
const TURNS_SILENT_MAX: u32 = 5;
/// Jobs that are shown.
const JOBS_MAX: usize = 100;

/// The last overview that was made for listeners; `None` = nobody listened yet.
pub(crate) struct Announced(watch::Sender<Option<Arc<str>>>);

impl Default for Announced {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

/// The state of the cluster now. Looks at memory alone.
pub(crate) fn overview(state: &RouterState) -> Overview {
    let view = state.members.view();
    let want = view.copies_wanted();
    let summary = state.catalog.summary(want);
    let mut jobs = state.tables.jobs.list();
    jobs.retain(|job| !has_ended(job));
    let jobs_running = jobs.len();
    jobs.truncate(JOBS_MAX);
    let (health, reasons) = health(state);
    let position = state.catalog.position();
    let maintenance = state.tables.maintenance.get("");
    Overview {
        health,
        reasons,
        router: state.own.router_id.clone(),
        version: state.own.version.clone(),
        started_at: state.started_at,
        routers: leader::routers(state)
            .iter()
            .map(|router| Router::new(router, &state.own.router_id))
            .collect(),
        maintenance: maintenance.map(|row| Maintenance {
            reason: said(&row.reason),
            since: row.since,
        }),
        nodes: counts(&view, Role::Node),
        fetchers: counts(&view, Role::Fetcher),
        repositories: RepositoryCounts {
            total: state.catalog.len(),
            ready: summary.ready,
            ingesting: summary.ingesting,
            failed: summary.failed.count,
            below_copies: summary.few.count,
            refresh_failing: summary.stale.count,
        },
        replication_factor: view.replication_factor,
        clients: state.watchers.len(),
        rates: rates(state),
        jobs: jobs.into_iter().map(Job::from).collect(),
        jobs_running,
        ingests_running: state.ingests.len(),
        view: view.number,
        revision: position.revision,
    }
}

/// What is wrong, with the full disks that the last sample showed.
pub(crate) fn health(state: &RouterState) -> (Health, Vec<Reason>) {
    let problems = status::problems(state);
    let full = state.history.sampled(|sample| {
        let stats = sample.nodes.values().flatten();
        stats
            .filter_map(status::full_disk)
            .map(|message| Reason {
                critical: false,
                message,
            })
            .collect::<Vec<_>>()
    });
    let told = problems.into_iter().map(|problem| Reason {
        critical: problem.critical,
        message: problem.line,
    });
    let reasons: Vec<Reason> = told.chain(full.into_iter().flatten()).collect();
    let health = match (
        reasons.iter().any(|reason| reason.critical),
        reasons.is_empty(),
    ) {
        (true, _) => Health::Unhealthy,
        (false, true) => Health::Healthy,
        (false, false) => Health::Degraded,
    };
    (health, reasons)
}

fn counts(view: &ClusterView, role: Role) -> MemberCounts {
    let mut counts = MemberCounts {
        total: 0,
        by_state: Default::default(),
    };
    for member in view.members.iter().filter(|member| member.role == role) {
        counts.total += 1;
        *counts.by_state.entry(member.state.into()).or_insert(0) += 1;
    }
    counts
}

fn rates(state: &RouterState) -> Rates {
    let Some(latest) = state.history.latest() else {
        return Rates::default();
    };
    let value = |series| latest.value(series);
    Rates {
        at: Some(latest.at),
        reads_per_second: value(Series::Reads),
        bytes_per_second: value(Series::Bytes),
        errors_per_second: value(Series::Errors),
        latency_p50_seconds: value(Series::LatencyP50),
        latency_p99_seconds: value(Series::LatencyP99),
        node_hit_ratio: value(Series::NodeHitRatio),
        fetcher_hit_ratio: value(Series::FetcherHitRatio),
        client_hit_ratio: value(Series::ClientHitRatio),
        disk_used_bytes: value(Series::DiskUsed),
    }
}

/// Makes the overview for all listeners while there are any, until the router stops.
pub(crate) async fn announce(state: Arc<RouterState>) {
    let sender = &state.announced.0;
    let work = async {
        let mut ticker = tokio::time::interval(EVERY);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut silent = 0;
        loop {
            ticker.tick().await;
            if sender.receiver_count() == 0 {
                // Whoever comes next gets a new one at once.
                sender.send_replace(None);
                continue;
            }
            let Ok(text) = serde_json::to_string(&overview(&state)) else {
                continue;
            };
            silent += 1;
            let always = silent >= TURNS_SILENT_MAX;
            let told = sender.send_if_modified(|last| {
                let tell = always || last.as_deref() != Some(text.as_str());
                if tell {
                    *last = Some(text.as_str().into());
                }
                tell
            });
            if told {
                silent = 0;
            }
        }
    };
    state.stop.run_until_cancelled(work).await;
}

/// An overview now, and whenever one was made for all listeners. Who is slow gets the newest one.
pub(super) fn events(
    state: &Arc<RouterState>,
) -> impl Stream<Item = Result<Event, Error>> + Send + 'static + use<> {
    let mut receiver = state.announced.0.subscribe();
    let first = receiver.borrow_and_update().clone();
    let first = match first {
        Some(text) => Ok(Event::of_text("overview", text)),
        None => Event::new("overview", &overview(state)),
    };
    let later = stream::unfold(receiver, |mut receiver| async move {
        loop {
            receiver.changed().await.ok()?;
            let text = receiver.borrow_and_update().clone();
            if let Some(text) = text {
                return Some((Ok(Event::of_text("overview", text)), receiver));
            }
        }
    });
    futures::StreamExt::chain(stream::once(async { first }), later)
}
