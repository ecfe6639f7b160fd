//! What is wrong or held back now, one line each that ends with what to do about it.

use std::time::Duration;

use monofs_model::{Member, MemberState};
use monofs_proto::v1;

use crate::fleet::Fleet;
use crate::parts::Parts;
use monofs_control::Control;
use monofs_control::catalog::Summary;

/// Something wrong, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub line: String,
    /// The router cannot do its work.
    pub critical: bool,
}

/// What is wrong now, most important first.
pub fn problems(state: &Parts) -> Vec<Problem> {
    let view = state.fleet.members.view();
    let mut problems = Vec::new();
    let mut add = |critical, line: String| problems.push(Problem { line, critical });
    for line in of_routers(state) {
        add(false, line);
    }
    let serving = view
        .nodes()
        .filter(|node| node.state.serves() && node.state != MemberState::Suspect)
        .count();
    let taking = view.nodes().filter(|node| node.state.accepts()).count();
    if serving == 0 {
        add(
            true,
            "no node is active: start monofs-node with --router, then look at `monofs-admin nodes`"
                .into(),
        );
    } else if taking < view.replication_factor as usize {
        add(
            false,
            format!(
                "{taking} of {} nodes needed for every copy are active: start more; `monofs-admin \
                 nodes` shows who is there",
                view.replication_factor
            ),
        );
    }
    if !view
        .fetchers()
        .any(|fetcher| fetcher.state == MemberState::Active)
    {
        let line = "no fetcher is active: ingest and refresh wait; start one with `monofs-fetcher \
         --router=HOST:9090`";
        add(false, line.into());
    }
    if let Some(maintenance) = state.control.tables.maintenance.get("") {
        let (since, why) = (ago(since(maintenance.since)), because(&maintenance.reason));
        add(
            false,
            format!(
                "the cluster is drained since {since}{why}: nobody fails over and nothing is \
                 copied; `monofs-admin undrain` ends it"
            ),
        );
    }
    for member in &view.members {
        if let Some(line) = of_member(&state.control, &state.fleet, member) {
            add(false, line);
        }
    }
    for job in state
        .control
        .tables
        .jobs
        .list()
        .iter()
        .filter(|job| job.held_back)
    {
        add(false, held_back(job));
    }
    let want = view.copies_wanted();
    let Summary {
        failed, few, stale, ..
    } = state.control.catalog.summary(want);
    for (trouble, what) in [
        (failed, "failed to ingest"),
        (few, "below the wanted number of copies"),
        (stale, "failed to refresh"),
    ] {
        if let Some(first) = trouble.first {
            let number = count(trouble.count, "repository", "repositories");
            add(
                false,
                format!("{number} {what}, first {first}: `monofs-admin repo {first}`"),
            );
        }
    }
    problems.sort_by_key(|problem| !problem.critical);
    problems
}

/// What is wrong with the routers and their state store.
fn of_routers(state: &Parts) -> Vec<String> {
    if !*state.control.shared.reachable().borrow() {
        let line = "the state store cannot be reached: reads go on, changes are refused; look at \
         etcd (`etcdctl endpoint health`) and at the network between";
        return vec![line.to_owned()];
    }
    let mut lines = Vec::new();
    if state.control.tables.leader.get("").is_none() {
        lines.push(
            "no router leads: refreshes, copies and collection wait; one should within \
         seconds, else look at the routers' logs and `monofs-admin status`"
                .to_owned(),
        );
    }
    let routers = state.control.tables.routers.list();
    let missing = |peer: &&String| !routers.iter().any(|router| router.address == **peer);
    lines.extend(state.config.peer_routers.iter().filter(missing).map(|peer| {
        format!(
            "router {peer} of --peer-routers is not there: look at its log, its --state and \
             --advertise, and `monofs-admin status --router={peer}`"
        )
    }));
    lines.extend(
        routers
            .iter()
            .filter(|router| router.router_id == state.control.own.router_id)
            .filter_map(|router| {
                let (id, other) = (&router.router_id, &router.address);
                let twice = router.address != state.control.own.address;
                twice.then(|| {
                    format!(
                        "{other} is router '{id}' too: give each router a --router-id of its own"
                    )
                })
            }),
    );
    lines
}

/// What a cancelled job left, which nobody does until it is asked for.
fn held_back(job: &v1::Job) -> String {
    let id = &job.id;
    let left = job.steps_total.saturating_sub(job.steps_done);
    let steps = if left == 1 { "step" } else { "steps" };
    format!(
        "job {id} was cancelled and what it left is held back ({left} {steps}): `monofs-admin \
         rebalance` lets it go on"
    )
}

/// What is to be said about one member, if anything.
fn of_member(control: &Control, fleet: &Fleet, member: &Member) -> Option<String> {
    let (id, address) = (&member.id, &member.address);
    let held_for = ago(fleet.members.standing_for(id).unwrap_or_default());
    let intent = control.tables.intents.get(id.as_str());
    let why = intent
        .as_ref()
        .map_or(String::new(), |intent| because(&intent.reason));
    let failed_over = || {
        format!(
            "{id} is failed over{why}: readers ask it last and its copies move off; `monofs-admin \
             clear-failover --node-id={id}` lets it back"
        )
    };
    Some(match member.state {
        MemberState::Suspect => {
            format!(
                "{id} ({address}) is suspect, nothing was heard of it for a while: look at its log \
                 and at `monofs-admin nodes`"
            )
        }
        MemberState::Down => match fleet.members.copies_stay_for(id) {
            Some(left) => format!(
                "{id} ({address}) is down since {held_for}: look at its log and start it; in {} \
                 its copies are made elsewhere; `monofs-admin failover` shows who is read instead",
                ago(left)
            ),
            None => format!(
                "{id} ({address}) is down since {held_for}: start it, or if it will not come back \
                 `monofs-admin remove-member --member={id}`"
            ),
        },
        _ if member.failed_over => failed_over(),
        MemberState::Recovering => {
            format!(
                "{id} is recovering since {held_for}: it gets what it missed, `monofs-admin jobs` \
                 says how far it is"
            )
        }
        MemberState::Draining => format!(
            "{id} is draining{why}: its copies move off, `monofs-admin jobs` says how far; \
             `monofs-admin undrain --node={id}` keeps it"
        ),
        MemberState::Drained => format!(
            "{id} is drained{why}: stop it and `monofs-admin remove-member --member={id}`, or \
             `monofs-admin undrain --node={id}`"
        ),
        MemberState::Joining | MemberState::Active => return None,
    })
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

/// How long ago this was, in seconds since the epoch.
fn since(at: i64) -> Duration {
    Duration::from_secs(u64::try_from(monofs_control::clock::now() - at).unwrap_or(0))
}

/// A time for people: `9 s`, `9 m`, `9 h`, `9 d`.
pub fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} m", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
