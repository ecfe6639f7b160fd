//! What a router tells Prometheus. Sums since the start count what this router did; what all of
//! them share (the catalogue, members, jobs) each tells as it sees it.

use std::collections::BTreeMap;

use monofs_model::MemberState;
use monofs_model::view::Role;
use monofs_proto::v1;
use monofs_proto::v1::job::{Kind, State};
use monofs_rpc::metrics::Samples;

use super::problems;
use crate::parts::Parts;
use crate::parts::Work;
use crate::reconcile::jobs::has_ended;
use crate::replication;
use monofs_control::Control;
use monofs_control::clock;

const STATES: [MemberState; 7] = [
    MemberState::Joining,
    MemberState::Active,
    MemberState::Suspect,
    MemberState::Down,
    MemberState::Recovering,
    MemberState::Draining,
    MemberState::Drained,
];

/// Adds everything. Blocks.
pub fn metrics(state: &Parts, out: &mut Samples) {
    state.work.requests.served(out);
    state.fleet.channels.calls().made(out);
    state.control.durations.samples(out);
    members(state, out);
    catalogue(state, out);
    replication::samples(state, out);
    jobs(state, out);
    state.work.ingests.samples(out);
    router(state, out);
    clients(&state.control, &state.work, out);
}

fn members(state: &Parts, out: &mut Samples) {
    let view = state.fleet.members.view();
    let count = |role, in_state| {
        view.members
            .iter()
            .filter(|m| m.role == role && m.state == in_state)
            .count()
    };
    let all = [Role::Node, Role::Fetcher]
        .into_iter()
        .flat_map(|role| STATES.map(|in_state| (role, in_state)));
    out.gauges_by(
        "monofs_router_members",
        "Nodes and fetchers, by state.",
        ["role", "state"],
        all.map(|(role, in_state)| ([role.as_str(), in_state.as_str()], count(role, in_state))),
    );
    out.gauge(
        "monofs_router_view_number",
        "Number of the cluster view; numbers of routers do not compare.",
        view.number,
    );
    let audits = &state.control.tables.audits;
    let audited = view.nodes().map(|node| {
        let row = audits.get(node.id.as_str()).unwrap_or_default();
        (node.id.to_string(), row)
    });
    let audited: Vec<(String, v1::NodeAudit)> = audited.collect();
    out.gauges_by(
        "monofs_router_node_orphans",
        "Repositories of which a node holds commits that the catalogue does not name.",
        ["node"],
        audited
            .iter()
            .map(|(node, row)| ([node.clone()], row.orphans)),
    );
    out.gauges_by(
        "monofs_router_node_orphan_bytes",
        "Bytes on a node of repositories of which the catalogue names no commit.",
        ["node"],
        audited
            .iter()
            .map(|(node, row)| ([node.clone()], row.orphan_bytes)),
    );
    let wanted = u64::from(view.replication_factor);
    out.gauge(
        "monofs_router_replication_factor",
        "Copies wanted of each repository.",
        wanted,
    );
}

fn catalogue(state: &Parts, out: &mut Samples) {
    let summary = state.control.catalog.summary(0);
    out.gauges_by(
        "monofs_router_repositories",
        "Entries of the catalogue, by state.",
        ["state"],
        [
            (["ready"], summary.ready),
            (["ingesting"], summary.ingesting),
            (["failed"], summary.failed.count),
        ],
    );
    let failing = "Ready repositories whose last refresh failed.";
    out.gauge(
        "monofs_router_repositories_refresh_failing",
        failing,
        summary.stale.count,
    );
    let revision = state.control.catalog.position().revision;
    out.gauge(
        "monofs_router_catalog_revision",
        "Revision of the catalogue.",
        revision,
    );
    let interval = state.config.refresh_interval.as_secs_f64();
    let help = "How often the source of each repository is to be looked at; 0 = never.";
    out.gauge("monofs_router_refresh_interval_seconds", help, interval);
    if let Some(looked_at) = state.control.catalog.oldest_look() {
        let age = u64::try_from(clock::now().saturating_sub(looked_at)).unwrap_or(0);
        let help = "Time since the source was looked at of the repository that waits longest. \
         Absent when all are pinned.";
        out.gauge("monofs_router_oldest_refresh_age_seconds", help, age);
    }
}

/// Jobs of the reconciler: the rows that all routers share.
fn jobs(state: &Parts, out: &mut Samples) {
    let rows = state.control.tables.jobs.list();
    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts
            .entry((row.kind() as i32, row.state() as i32))
            .or_insert(0_u64) += 1;
    }
    let all = Kind::ALL
        .into_iter()
        .flat_map(|kind| State::ALL.map(|in_state| (kind, in_state)));
    out.gauges_by(
        "monofs_router_jobs",
        "Jobs of the reconciler, by state; of those that ended only the last are kept.",
        ["kind", "state"],
        all.map(|(kind, in_state)| {
            (
                [kind.word(), in_state.word()],
                counts
                    .get(&(kind as i32, in_state as i32))
                    .copied()
                    .unwrap_or(0),
            )
        }),
    );
    for kind in Kind::ALL {
        let name = kind.word();
        let live = || {
            rows.iter()
                .filter(|row| row.kind() == kind && !has_ended(row))
        };
        let (steps, steps_all) = live().fold((0, 0), |(d, t), row| {
            (d + row.steps_done, t + row.steps_total)
        });
        let (bytes, bytes_all) = live().fold((0, 0), |(d, t), row| {
            (d + row.bytes_done, t + row.bytes_total)
        });
        let progress = |done: u64, total: u64| {
            [
                ([name, "done"], done),
                ([name, "left"], total.saturating_sub(done)),
            ]
        };
        let help = "Copies and deletions of jobs that have not ended.";
        out.gauges_by(
            "monofs_router_job_steps",
            help,
            ["kind", "state"],
            progress(steps, steps_all),
        );
        let help = "Bytes of jobs that have not ended, as far as they are known.";
        out.gauges_by(
            "monofs_router_job_bytes",
            help,
            ["kind", "state"],
            progress(bytes, bytes_all),
        );
    }
}

fn router(state: &Parts, out: &mut Samples) {
    let reachable = *state.control.shared.reachable().borrow();
    out.gauge(
        "monofs_router_leading",
        "1: this router leads.",
        *state.control.leading.borrow(),
    );
    let known = reachable && state.control.tables.leader.get("").is_some();
    out.gauge("monofs_router_leader_known", "1: some router leads.", known);
    let help = "1: the state store can be reached, so changes can be made.";
    out.gauge("monofs_router_state_reachable", help, reachable);
    out.counter(
        "monofs_router_generations_lost_total",
        "Updates and copies for which no holder could tell when names last changed.",
        state.fleet.generations_lost.count(),
    );
    let problems = problems(state);
    let critical = problems.iter().filter(|problem| problem.critical).count();
    out.gauges_by(
        "monofs_router_problems",
        "Lines of what is wrong, as `monofs-admin status` and /health show them.",
        ["severity"],
        [
            (["critical"], critical),
            (["warning"], problems.len() - critical),
        ],
    );
}

fn clients(control: &Control, work: &Work, out: &mut Samples) {
    out.gauge(
        "monofs_router_clients",
        "Clients connected to this router.",
        work.watchers.len(),
    );
    let newest = *control.catalog.changed().borrow();
    let behind = work
        .watchers
        .acknowledged_by_all()
        .map_or(0, |acked| newest.saturating_sub(acked));
    let help = "Revisions that the client of this router that is furthest behind has not applied.";
    out.gauge("monofs_router_client_lag_revisions", help, behind);
    let kept = work.kept.list();
    let help = "Replaced snapshots that are kept beyond the grace because clients may still read \
     them; told by the leader only.";
    out.gauge("monofs_router_kept_snapshots", help, kept.total);
    let since = kept.oldest.first().map(|oldest| oldest.replaced_at);
    let age = since.map_or(0, |since| clock::now().saturating_sub(since).max(0));
    let help = "Time since the oldest of those was replaced; 0 = there is none.";
    out.gauge("monofs_router_kept_snapshot_age_seconds", help, age as u64);
}
