//! The overview, made once for everybody who listens: from memory alone, so that it costs little
//! and is never late.

use std::time::Duration;

use futures::{Stream, stream};
use monofs_api::members::RouterDocument;
use monofs_api::overview::{
    MaintenanceDocument, MemberCounts, Overview, OverviewRates, OverviewReplaced, RepositoryCounts,
};
use monofs_api::reads::ReadRates;
use monofs_api::{Finding, Health, Time, said};
use monofs_model::view::Role;
use monofs_model::{ClusterView, Error};

use super::sse::Event;
use crate::site::Site;
use monofs_router::history::HistorySeries;
use monofs_router::parts::Parts;
use monofs_router::reconcile::jobs::has_ended;
use monofs_router::status;

/// How often it is made anew while somebody listens.
const EVERY: Duration = Duration::from_secs(2);
/// Listeners hear of it at least this often, in turns of [`EVERY`].
const TURNS_SILENT_MAX: u32 = 5;
/// Jobs that are shown.
const JOBS_MAX: usize = 100;

/// The state of the cluster now. Looks at memory alone.
pub(crate) fn overview(state: &Parts) -> Overview {
    let view = state.fleet.members.view();
    let want = view.copies_wanted();
    let summary = state.control.catalog.summary(want);
    let mut jobs = state.control.tables.jobs.list();
    jobs.retain(|job| !has_ended(job));
    let jobs_running = jobs.len();
    jobs.truncate(JOBS_MAX);
    let (health, findings) = health(state);
    let position = state.control.catalog.position();
    let maintenance = state.control.tables.maintenance.get("");
    let own = &state.control.own;
    let routers = state.control.routers();
    let routers: Vec<RouterDocument> = routers
        .iter()
        .map(|router| RouterDocument::new(router, &own.router_id))
        .collect();
    Overview {
        replaced: OverviewReplaced::new(&findings, &own.router_id, &routers, view.number),
        health,
        findings,
        router_id: own.router_id.clone(),
        version: own.version.clone(),
        started_at: Time::new(state.work.started_at),
        routers_known: routers,
        maintenance: maintenance.map(|row| MaintenanceDocument {
            reason: said(&row.reason),
            since: Time::known(row.since),
        }),
        nodes: counts(&view, Role::Node),
        fetchers: counts(&view, Role::Fetcher),
        repositories: RepositoryCounts {
            total: state.control.catalog.len(),
            ready: summary.ready,
            ingesting: summary.ingesting,
            failed: summary.failed.count,
            below_copies: summary.few.count,
            refresh_failing: summary.stale.count,
        },
        replication_factor: view.replication_factor,
        clients: state.work.watchers.len(),
        rates: rates(state),
        jobs: jobs.iter().map(Into::into).collect(),
        jobs_running,
        ingests_running: state.work.ingests.len(),
        view_number: view.number,
        revision: position.revision,
        hosts_paused: state.fleet.hosts.list().iter().map(Into::into).collect(),
    }
}

/// What is wrong, with the full disks that the last sample showed.
pub(crate) fn health(state: &Parts) -> (Health, Vec<Finding>) {
    let problems = status::problems(state);
    let full = state.work.history.sampled(|sample| {
        let stats = sample.nodes.values().flatten();
        stats
            .filter_map(status::full_disk)
            .map(|line| finding(&line, false))
            .collect::<Vec<_>>()
    });
    let told = problems
        .into_iter()
        .map(|problem| finding(&problem.line, problem.critical));
    let findings: Vec<Finding> = told.chain(full.into_iter().flatten()).collect();
    let health = match (
        findings
            .iter()
            .any(|finding| finding.critical == Some(true)),
        findings.is_empty(),
    ) {
        (true, _) => Health::Unhealthy,
        (false, true) => Health::Healthy,
        (false, false) => Health::Degraded,
    };
    (health, findings)
}

/// A problem that this router found.
fn finding(line: &str, critical: bool) -> Finding {
    Finding {
        critical: Some(critical),
        ..Finding::said(line)
    }
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

fn rates(state: &Parts) -> OverviewRates {
    let Some(latest) = state.work.history.latest() else {
        return OverviewRates::default();
    };
    let reads = ReadRates {
        requests_per_second: latest.value(HistorySeries::Reads),
        failed_per_second: latest.value(HistorySeries::Errors),
        bytes_per_second: latest.value(HistorySeries::Bytes),
        p50_seconds: latest.value(HistorySeries::LatencyP50),
        p99_seconds: latest.value(HistorySeries::LatencyP99),
    };
    OverviewRates {
        at: Some(Time::new(latest.at)),
        replaced: (&reads).into(),
        reads,
        node_hit_ratio: latest.value(HistorySeries::NodeHitRatio),
        fetcher_hit_ratio: latest.value(HistorySeries::FetcherHitRatio),
        client_hit_ratio: latest.value(HistorySeries::ClientHitRatio),
        disk_used_bytes: latest.value(HistorySeries::DiskUsed),
    }
}

/// Makes the overview for all listeners while there are any, until the router stops.
pub(crate) async fn announce(site: Site) {
    let sender = &site.announced;
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
            let Ok(text) = serde_json::to_string(&overview(&site.router)) else {
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
    site.router.work.stop.run_until_cancelled(work).await;
}

/// An overview now, and whenever one was made for all listeners. Who is slow gets the newest one.
pub(super) fn events(
    site: &Site,
) -> impl Stream<Item = Result<Event, Error>> + Send + 'static + use<> {
    let mut receiver = site.announced.subscribe();
    let first = receiver.borrow_and_update().clone();
    let first = match first {
        Some(text) => Ok(Event::of_text("overview", text)),
        None => Event::new("overview", &overview(&site.router)),
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
