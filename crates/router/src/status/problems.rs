//! What is wrong or held back now, one line each that ends with what to do about it.

use std::time::{Duration, UNIX_EPOCH};

use monofs_model::{ClusterView, Member, MemberState};
use monofs_proto::v1;

use crate::config::Config;
use crate::kept::KeptList;
use crate::parts::Parts;
use monofs_control::Control;
use monofs_control::catalog::CatalogSummary;
use monofs_control::clock;
use monofs_members::fleet::Fleet;

/// Replaced snapshots that clients have kept for longer than this are a problem.
const KEPT_TOLD_AFTER: Duration = Duration::from_secs(6 * 3600);

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
    let critical = no_node(&view).map(|line| Problem {
        line,
        critical: true,
    });
    // What the router can work in spite of, from the control plane down to single repositories.
    let mut lines = of_routers(&state.config, &state.control);
    lines.extend(state.config.notices.iter().cloned());
    lines.extend(of_other_catalogs(&state.fleet));
    lines.extend(too_few_nodes(&view));
    lines.extend(no_fetcher(&view));
    lines.extend(state.control.tables.maintenance.get("").map(maintenance));
    let members = view.members.iter();
    lines.extend(members.filter_map(|member| of_member(&state.control, &state.fleet, member)));
    let audits = state.control.tables.audits.list();
    lines.extend(audits.iter().filter_map(orphans));
    let jobs = state.control.tables.jobs.list();
    lines.extend(jobs.iter().filter(|job| job.held_back).map(held_back));
    lines.extend(state.fleet.hosts.list().iter().map(paused_host));
    lines.extend(kept(&state.work.kept.list(), clock::now()));
    lines.extend(generations_lost(&state.fleet, clock::now()));
    lines.extend(of_repositories(
        state.control.catalog.summary(view.copies_wanted()),
    ));
    let degraded = lines.into_iter().map(|line| Problem {
        line,
        critical: false,
    });
    critical.into_iter().chain(degraded).collect()
}

fn no_node(view: &ClusterView) -> Option<String> {
    let serves = view
        .nodes()
        .any(|node| node.state.serves() && node.state != MemberState::Suspect);
    (!serves).then(|| {
        "no node is active: start monofs-node with --router, then look at `monofs-admin nodes`"
            .to_owned()
    })
}

/// Too few nodes for every copy; not said where there is none at all.
fn too_few_nodes(view: &ClusterView) -> Option<String> {
    let taking = view.nodes().filter(|node| node.state.accepts()).count();
    let wanted = view.replication_factor;
    (no_node(view).is_none() && taking < wanted as usize).then(|| {
        format!(
            "{taking} of {wanted} nodes needed for every copy are active: start more; \
             `monofs-admin nodes` shows who is there"
        )
    })
}

/// One line for each router that has another catalogue and uses members of this one.
fn of_other_catalogs(fleet: &Fleet) -> Vec<String> {
    let others = fleet.members.other_routers().into_iter();
    let lines = others.filter_map(|(router, members)| {
        let first = members.first()?;
        let number = count(members.len(), "member", "members");
        Some(format!(
            "router {router} has another catalogue and uses {number} of this one, first {first}: \
             what is ingested through one is not seen through the other; give both routers the \
             same --state etcd://HOST:PORT,.../PREFIX, or stop one"
        ))
    });
    lines.collect()
}

fn no_fetcher(view: &ClusterView) -> Option<String> {
    let is_there = view
        .fetchers()
        .any(|fetcher| fetcher.state == MemberState::Active);
    (!is_there).then(|| {
        "no fetcher is active: ingest and refresh wait; start one with `monofs-fetcher \
         --router=HOST:9090`"
            .to_owned()
    })
}

/// The line about a remote host that is left alone.
pub fn paused_host(row: &v1::HostPause) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(row.next_try_at).unwrap_or(0));
    format!(
        "{} says not now ({}): its repositories are not refreshed and ingests of it wait; it is \
         asked again at {}; a login for it in the fetchers' --credentials may have a higher limit",
        row.host,
        row.cause,
        humantime::format_rfc3339_seconds(at)
    )
}

/// Whether `line` is a [`paused_host`] of the host of `row`, with whatever time.
pub fn is_about_host(line: &str, row: &v1::HostPause) -> bool {
    let rest = line.strip_prefix(row.host.as_str());
    rest.is_some_and(|rest| rest.starts_with(" says not now ("))
}

fn maintenance(row: v1::Maintenance) -> String {
    format!(
        "the cluster is drained since {}{}: nobody fails over and nothing is copied; \
         `monofs-admin undrain` ends it",
        ago(since(row.since)),
        because(&row.reason)
    )
}

/// The line about copies that a node holds and that neither the catalogue nor its history names.
fn orphans(row: &v1::NodeAudit) -> Option<String> {
    let first = row.orphan_paths.first()?;
    let id = &row.node_id;
    let copies = count(row.orphans as usize, "copy", "copies");
    Some(format!(
        "{id} holds {copies} that the catalogue does not name ({} bytes or more), first {}: nothing \
         drops them. If the state was lost or is an older one, restore it, or `monofs-admin ingest` \
         their paths again (`monofs-admin refresh` those that are listed); `monofs-admin node-files \
         --node-id={id}` shows them",
        row.orphan_bytes,
        first.escape_debug()
    ))
}

/// The line about replaced snapshots that clients have kept for long.
fn kept(kept: &KeptList, now: i64) -> Option<String> {
    let oldest = kept.oldest.first()?;
    let age = now.saturating_sub(oldest.replaced_at);
    if age < KEPT_TOLD_AFTER.as_secs() as i64 {
        return None;
    }
    let left = u64::try_from(oldest.until.saturating_sub(now)).unwrap_or(0);
    let why = match oldest.not_applied {
        true => "has not taken over what replaced it",
        false => "holds files of it open",
    };
    Some(format!(
        "{} kept for readers, first {} since {}: client {} {why}; close them or restart it, in {} it \
         goes anyway; `monofs-admin status --format=json` lists them",
        count(kept.total, "replaced commit is", "replaced commits are"),
        oldest.path,
        ago(since(oldest.replaced_at)),
        oldest.client_id.escape_debug(),
        ago(Duration::from_secs(left)),
    ))
}

fn generations_lost(fleet: &Fleet, now: i64) -> Option<String> {
    let (path, at) = fleet.generations_lost.told(now)?;
    Some(format!(
        "no holder could tell when the files of {path} last changed, {}: all of them show the time \
         of then, and builds over them are made anew; look for nodes that lost their disks",
        ago(since(at))
    ))
}

/// One line for each kind of trouble that repositories are in, with the first of them.
fn of_repositories(summary: CatalogSummary) -> impl Iterator<Item = String> {
    let troubles = [
        (summary.failed, "failed to ingest"),
        (summary.few, "below the wanted number of copies"),
        (summary.stale, "failed to refresh"),
        (
            summary.shadowed,
            "shadowed: kept but not shown, as the repository around has the name",
        ),
    ];
    troubles.into_iter().filter_map(|(trouble, what)| {
        let first = trouble.first?;
        let number = count(trouble.count, "repository", "repositories");
        Some(format!(
            "{number} {what}, first {first}: `monofs-admin repo {first}`"
        ))
    })
}

/// What is wrong with the routers and their state store.
fn of_routers(config: &Config, control: &Control) -> Vec<String> {
    if !*control.shared.reachable().borrow() {
        let line = "the state store cannot be reached: reads go on, changes are refused; look at \
         etcd (`etcdctl endpoint health`) and at the network between";
        return vec![line.to_owned()];
    }
    let mut lines = Vec::new();
    if control.tables.leader.get("").is_none() {
        lines.push(
            "no router leads: refreshes, copies and collection wait; one should within \
         seconds, else look at the routers' logs and `monofs-admin status`"
                .to_owned(),
        );
    }
    let routers = control.tables.routers.list();
    let missing = |peer: &&String| !routers.iter().any(|router| router.address == **peer);
    lines.extend(config.peer_routers.iter().filter(missing).map(|peer| {
        format!(
            "router {peer} of --peer-routers is not there: look at its log, its --state and \
             --advertise, and `monofs-admin status --router={peer}`"
        )
    }));
    lines.extend(
        routers
            .iter()
            .filter(|router| router.router_id == control.own.router_id)
            .filter_map(|router| {
                let id = &router.router_id;
                let other = &router.address;
                let twice = router.address != control.own.address;
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
    let id = &member.id;
    let address = &member.address;
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

#[cfg(test)]
mod tests {
    use monofs_model::view::Role;
    use monofs_model::{Repository, RepositoryState};

    use super::*;
    use crate::fixture::{TestRouter, actor, entry, member, path};

    fn lines(router: &TestRouter) -> Vec<String> {
        let problems = problems(router.parts());
        problems.into_iter().map(|problem| problem.line).collect()
    }

    fn is_told(router: &TestRouter, what: &str) -> bool {
        lines(router).iter().any(|line| line.contains(what))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_node_the_router_cannot_work_and_says_that_first() {
        let router = TestRouter::start().await;
        let told = problems(router.parts());
        assert!(told[0].critical && told[0].line.starts_with("no node is active"));
        assert!(told[1..].iter().all(|problem| !problem.critical));
        assert!(is_told(&router, "no fetcher is active"));
        router.node("n1").await;
        assert!(
            problems(router.parts())
                .iter()
                .all(|problem| !problem.critical)
        );
        assert!(is_told(&router, "1 of 2 nodes needed for every copy"));
        router.node("n2").await;
        assert!(!is_told(&router, "needed for every copy"));
        let fetcher = member("f1", Role::Fetcher, "127.0.0.1:9");
        let members = &router.parts().fleet.members;
        members.announced(fetcher).await.expect("admitted");
        assert!(!is_told(&router, "no fetcher"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_operators_hold_back_is_told_with_its_reason() {
        let router = TestRouter::start().await;
        let tables = &router.parts().control.tables;
        let row = v1::Maintenance {
            reason: "new switch".into(),
            since: monofs_control::clock::now(),
        };
        let set = tables
            .maintenance
            .update(actor(), "", |_| Ok(Some(row.clone())))
            .await;
        set.expect("drained");
        assert!(is_told(&router, "(new switch): nobody fails over"));
        let job = v1::Job {
            id: "rebalance-1".into(),
            held_back: true,
            steps_total: 3,
            steps_done: 2,
            ..Default::default()
        };
        let set = tables
            .jobs
            .update(actor(), "rebalance-1", |_| Ok(Some(job.clone())))
            .await;
        set.expect("held back");
        assert!(is_told(&router, "is held back (1 step)"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn repositories_in_trouble_are_counted_with_the_first_of_them() {
        let router = TestRouter::start().await;
        router.node("n1").await;
        router.node("n2").await;
        router.repository("a/few", &["n1"], 1).await;
        assert!(is_told(
            &router,
            "1 repository below the wanted number of copies, first a/few"
        ));
        let entries = &router.parts().control.entries;
        for name in ["b/two", "b/one"] {
            entries.create(actor(), entry(name)).await.expect("created");
            let failed = |entry: &Repository| {
                Ok(Some(Repository {
                    state: RepositoryState::Failed,
                    last_error: "no".into(),
                    ..entry.clone()
                }))
            };
            entries
                .update(actor(), &path(name), failed)
                .await
                .expect("noted");
        }
        assert!(is_told(
            &router,
            "2 repositories failed to ingest, first b/one"
        ));
        let stale = |entry: &Repository| {
            Ok(Some(Repository {
                last_error: "the remote is away".into(),
                ..entry.clone()
            }))
        };
        entries
            .update(actor(), &path("a/few"), stale)
            .await
            .expect("noted");
        assert!(is_told(
            &router,
            "1 repository failed to refresh, first a/few"
        ));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_router_that_is_missing_is_named() {
        let router = TestRouter::start().await;
        let config = Config {
            peer_routers: vec!["router9:9090".into()],
            ..router.parts().config.clone()
        };
        let lines = of_routers(&config, &router.parts().control);
        let named = lines
            .iter()
            .any(|line| line.contains("router router9:9090"));
        assert!(named, "{lines:?}");
    }

    #[test]
    fn a_snapshot_that_a_client_has_kept_for_long_is_told_with_the_client() {
        let now = clock::now();
        let since = |age: i64| v1::KeptSnapshot {
            path: "h/r".into(),
            replaced_at: now - age,
            until: now - age + 24 * 3600,
            client_id: "build7:42:/mnt".into(),
            ..Default::default()
        };
        let list = |age| KeptList {
            oldest: vec![since(age)],
            total: 3,
        };
        assert_eq!(kept(&KeptList::default(), now), None);
        assert_eq!(
            kept(&list(3600), now),
            None,
            "files may be open for an hour"
        );
        let line = kept(&list(7 * 3600), now).expect("told");
        let begins = "3 replaced commits are kept for readers, first h/r since 7 h: client \
                      build7:42:/mnt holds files of it open";
        assert!(line.starts_with(begins), "{line}");
        assert!(line.contains("in 17 h it goes anyway"), "{line}");
    }

    #[test]
    fn times_are_for_people() {
        let told = [0, 119, 120, 7199, 7200, 172_799, 172_800];
        let told = told.map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "119 s", "2 m", "119 m", "2 h", "47 h", "2 d"]);
    }
}
