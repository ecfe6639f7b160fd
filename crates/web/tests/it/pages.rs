//! What each page says of the state behind it.

use monofs_control::clock;
use monofs_model::view::Role;
use monofs_model::{DisplayPath, NodeId, Repository, RepositoryState};
use monofs_proto::v1;
use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_proto::v1::watch_request::Message;
use monofs_router::history::ClusterSample;
use monofs_router::verbs::members;
use monofs_testkit::wait::wait_until;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::SOON;
use crate::site::{TestSite, actor, entry, shown, snapshot};

/// Panics unless the text has all of `parts`, in this order.
fn assert_says(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} of {parts:?} is not in its place in: {text}"));
        rest = &rest[at + part.len()..];
    }
}

fn node_stat(id: &str, bytes: u64) -> v1::StatResponse {
    v1::StatResponse {
        node_id: id.into(),
        incarnation: 1,
        repositories: 1234,
        disk_used_bytes: bytes,
        disk_free_bytes: bytes,
        hydrations_running: 2,
        hydrations_queued: 7,
        chunks_held: 3,
        chunks_missed: 1,
        bytes_served: bytes,
        ..Default::default()
    }
}

fn job(id: &str, kind: v1::job::Kind, state: v1::job::State, subject: &str) -> v1::Job {
    v1::Job {
        id: id.into(),
        kind: kind.into(),
        state: state.into(),
        subject: subject.into(),
        steps_done: 1,
        steps_total: 4,
        started_at: clock::now(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_cluster_is_told_what_to_type() {
    let site = TestSite::start().await;
    let overview = site.page("/").await;
    assert_says(
        &overview,
        &[
            "Unhealthy",
            "no node is active",
            "To begin",
            "monofs-node --node-id=node1",
            "monofs-fetcher",
            "monofs-client --mount=/mnt/monofs",
            "none known",
        ],
    );
    assert_says(
        &site.page("/nodes").await,
        &["No node is known. Start one:"],
    );
    assert_says(&site.page("/fetchers").await, &["No fetcher is known"]);
    assert_says(&site.page("/clients").await, &["No client is connected."]);
    assert_says(&site.page("/placement").await, &["No node is known."]);
    let jobs = "No job is open: every copy is where it should be.";
    assert_says(&site.page("/jobs").await, &[jobs]);
    let lacks = "no node can take a copy now, and no fetcher is active";
    assert_says(
        &site.page("/add").await,
        &["could not be ingested now:", lacks],
    );
    // With a node, a fetcher and a repository there is nothing to begin with.
    site.node("n1").await;
    site.member("f1", Role::Fetcher, |_| {}).await;
    site.repository("a/b", &["n1"], 1).await;
    let overview = site.page("/").await;
    assert!(!overview.contains("To begin"), "{overview}");
    let lacking = site.page("/add").await;
    assert!(!lacking.contains("could not be ingested"), "{lacking}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_listed_with_their_figures_and_those_that_need_a_look_first() {
    let site = TestSite::start().await;
    for (id, zone, weight) in [("n1", "east", 2.0), ("n2", "", 0.5), ("n3", "", 1.0)] {
        let change = |member: &mut monofs_model::Member| {
            member.zone = zone.to_owned();
            member.weight = weight;
        };
        site.member(id, Role::Node, change).await;
    }
    site.repository("a/b", &["n1", "n2"], 5 << 20).await;
    let sample = ClusterSample {
        nodes: [
            (NodeId::new("n1").unwrap(), Some(node_stat("n1", 3 << 30))),
            (NodeId::new("n2").unwrap(), None),
        ]
        .into(),
        ..Default::default()
    };
    site.parts.work.history.add(clock::now() + 100, sample);
    let (control, fleet) = (&site.parts.control, &site.parts.fleet);
    let request = v1::TriggerFailoverRequest {
        node_id: "n2".into(),
        reason: "it answers <slowly>".into(),
        force: false,
    };
    members::trigger_failover(actor(), control, fleet, request)
        .await
        .unwrap();
    wait_until("the view shows it", SOON, || {
        fleet.members.view().nodes().any(|node| node.failed_over)
    });
    let list = site.page("/nodes").await;
    assert_says(
        &list,
        &[
            "n2 failed over",
            "n1 active east 2 1,234",
            "n3 active – 1 –",
        ],
    );
    assert_says(&list, &["3.0 GiB of 6.0 GiB (50 %)", "2, 7 wait"]);
    // One that is failed over, with why, and what is on it.
    let one = site.page("/nodes/n2").await;
    assert_says(
        &one,
        &[
            "Clear failover…",
            "Reads left it, and its copies are made elsewhere: it answers <slowly>",
            "failed over",
            "It did not answer when it was asked last",
            "1 recorded on it",
            "a/b 5.0 MiB 2",
            "it announced itself",
        ],
    );
    let first = site.page("/nodes/n1?range=24h").await;
    assert_says(
        &first,
        &[
            "Drain…",
            "east",
            "1,234 on its disk",
            "75 % of what was asked for",
            "The last 24 hours",
        ],
    );
    // Reads left one of the two others, so one is left.
    assert_says(&first, &["Drain n1?", "Go on although fewer active nodes"]);
    let unknown = site.page_or_error("/nodes/n9").await;
    assert_eq!(unknown.status, 404);
    assert_says(&shown(&unknown), &["Not found", "no node 'n9'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_is_shown_with_its_cache_and_is_no_node() {
    let site = TestSite::start().await;
    site.member("f1", Role::Fetcher, |_| {}).await;
    let silent = "It did not answer when it was asked last, or was not asked yet";
    assert_says(&site.page("/fetchers").await, &["f1", "active", silent]);
    let stat = v1::FetcherStatResponse {
        fetcher_id: "f1".into(),
        cache_bytes: 1 << 30,
        cache_bytes_max: 2 << 30,
        cached_repositories: 17,
        cache_hits: 9,
        cache_misses: 1,
        fetches_running: 5,
        fetches_waiting: 2,
        fetches_done: 40,
        fetches_failed: 3,
        bytes_fetched: 5 << 20,
        ..Default::default()
    };
    let sample = ClusterSample {
        fetchers: [(NodeId::new("f1").unwrap(), Some(stat))].into(),
        ..Default::default()
    };
    site.parts.work.history.add(clock::now() + 100, sample);
    let page = site.page("/fetchers").await;
    let figures = [
        "1.0 GiB of 2.0 GiB (50 %)",
        "17",
        "90 %",
        "3 run, 2 wait",
        "40 done",
        "3 failed",
        "5.0 MiB",
    ];
    assert_says(&page, &figures);
    let no_node = site.page_or_error("/nodes/f1").await;
    assert_eq!(no_node.status, 409);
    assert_says(&shown(&no_node), &["Not now", "'f1' is a fetcher"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_say_what_they_do_and_which_of_them_can_be_cancelled() {
    use v1::job::{Kind, State};
    let site = TestSite::start().await;
    let waiting = v1::Job {
        message: "waiting for `node2`".into(),
        last_error: "no room".into(),
        bytes_done: 1 << 20,
        bytes_total: 4 << 20,
        ..job("rebalance-1", Kind::Rebalance, State::Waiting, "")
    };
    // Without what it is for, the leader ends a job.
    let intent = v1::NodeIntent {
        node_id: "n1".into(),
        kind: v1::node_intent::Kind::Drain.into(),
        since: clock::now(),
        ..Default::default()
    };
    let intents = &site.parts.control.tables.intents;
    let set = intents.update(actor(), "n1", |_| Ok(Some(intent.clone())));
    set.await.unwrap();
    site.job(job("drain-n1-1", Kind::Drain, State::Running, "n1"))
        .await;
    for number in 0..12 {
        let ended = v1::Job {
            ended_at: 1000 + number,
            message: format!("message {number}"),
            ..job(
                &format!("repair-n2-{number}"),
                Kind::Repair,
                State::Done,
                "n2",
            )
        };
        site.job(ended).await;
    }
    let maintenance = v1::Maintenance {
        reason: "new switch".into(),
        since: clock::now(),
    };
    let table = &site.parts.control.tables.maintenance;
    let set = table.update(actor(), "", |_| Ok(Some(maintenance.clone())));
    set.await.unwrap();
    site.job(waiting).await;
    let page = site.page("/jobs").await;
    assert_says(&page, &["End maintenance…", "rebalance-1"]);
    assert_says(
        &page,
        &[
            "waiting",
            "everything",
            "1 of 4 steps, 1.0 MiB of 4.0 MiB",
            "waiting for node2",
            "last error: no room",
            "Cancel…",
        ],
    );
    assert_says(&page, &["drain-n1-1", "Undrain the node to end it"]);
    assert_says(&page, &["Show all", "message 11", "message 2"]);
    assert!(!page.contains("message 1 "), "only the last ten: {page}");
    let all = site.page("/jobs?ended=all").await;
    assert_says(&all, &["message 11", "message 0"]);
    assert!(!all.contains("Show all"));
    // The overview has the open ones, and says why nothing moves.
    assert_says(
        &site.page("/").await,
        &["What it is doing", "rebalance-1", "waiting"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_shows_its_copies_its_past_and_its_last_failure() {
    let site = TestSite::start().await;
    site.node("n1").await;
    site.node("n2").await;
    let entries = &site.parts.control.entries;
    site.repository("a/b", &["n1", "gone"], 1 << 20).await;
    let failed = |entry: &Repository| {
        Ok(Some(Repository {
            last_error: "the remote said `no`".into(),
            ..entry.clone()
        }))
    };
    let at = DisplayPath::new("a/b").unwrap();
    entries.update(actor(), &at, failed).await.unwrap();
    let page = site.page("/repos/a/b").await;
    assert_says(
        &page,
        &[
            "The last look upstream failed; readers keep what they have.",
            "the remote said no",
            "refresh fails",
            "1.0 MiB in 12,345 files and 3 directories",
            "number 1",
            "main",
            "copied to the nodes at once",
            "2 wanted",
        ],
    );
    // A holder that is no member any more, one that does not answer, and one that should be one.
    assert_says(
        &page,
        &[
            "gone down yes wants it elsewhere",
            "it is no member any more",
        ],
    );
    assert_says(&page, &["n1 active yes wants it there"]);
    assert_says(&page, &["n2 active not yet wants it there"]);
    assert_says(
        &page,
        &[
            "History of this entry",
            "by router1",
            "added to the catalogue",
        ],
    );
    let list = site.page("/repos?state=troubled").await;
    assert_says(&list, &["a/b", "refresh fails", "2 of 2", "1 to 1 of 1"]);
    for (path, status, title) in [
        ("/repos/a/none", 404, "Not found"),
        ("/repos/%ff", 400, "Not understood"),
        ("/repos/..", 400, "Not understood"),
    ] {
        let answer = site.page_or_error(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_says(&shown(&answer), &[title]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_failed_elsewhere_is_shown_at_its_phase() {
    let site = TestSite::start().await;
    let control = &site.parts.control;
    let failed = Repository {
        state: RepositoryState::Failed,
        last_error: "the source has no ref 'main'".into(),
        ..entry("a/failed")
    };
    control.entries.create(actor(), failed).await.unwrap();
    let page = site.page("/add/a/failed").await;
    assert_says(
        &page,
        &["Try again", "failed", "the source has no ref 'main'"],
    );
    // One that another router runs.
    control
        .entries
        .create(actor(), entry("a/runs"))
        .await
        .unwrap();
    let lease = v1::PathClaim {
        path: "a/runs".into(),
        router_id: "router2".into(),
        ..Default::default()
    };
    let claims = &control.tables.claims;
    let set = claims.update(actor(), "a/runs", |_| Ok(Some(lease.clone())));
    set.await.unwrap();
    let page = site.page("/add/a/runs").await;
    assert_says(&page, &["Router router2 runs it", "runs"]);
    assert_says(
        &site.page("/repos/a/runs").await,
        &["Router router2 is bringing in a commit"],
    );
    // One that is published, whose only holder does not answer.
    site.node("n1").await;
    site.repository("a/done", &["n1"], 7).await;
    let page = site.page("/add/a/done").await;
    assert_says(
        &page,
        &[
            "Browse files",
            "Publish: readers see it",
            "done",
            "7 B in 12,345 files",
        ],
    );
    let nothing = site.page_or_error("/add/a/none").await;
    assert_eq!(nothing.status, 404);
    assert_says(&shown(&nothing), &["nothing is being ingested at 'a/none'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn placement_shows_shares_zones_and_what_a_loss_would_do() {
    let site = TestSite::start().await;
    for (id, zone) in [("n1", "east"), ("n2", "west"), ("n3", "west")] {
        site.member(id, Role::Node, |member| member.zone = zone.into())
            .await;
    }
    site.repository("a/one", &["n1", "n2"], 4 << 20).await;
    site.repository("a/two", &["n1"], 2 << 20).await;
    let page = site.page("/placement").await;
    assert_says(&page, &["3 copies of 2 repositories, 10.0 MiB"]);
    assert_says(
        &page,
        &["zone east", "1 node, 6.0 MiB in 2 copies", "zone west"],
    );
    assert_says(
        &page,
        &["n1", "6.0 MiB in 2 copies", "n3", "0 B in 0 copies"],
    );
    let lost = site.page("/placement?without=n1").await;
    assert_says(
        &lost,
        &[
            "If n1 were lost now",
            "It holds 2 copies",
            "2 repositories would have fewer than are wanted",
            "1 repository would have no copy that serves",
            "Would be added",
            "lost",
        ],
    );
    assert_eq!(
        site.page_or_error("/placement?without=n9").await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_listed_by_how_far_behind_they_are_and_can_be_filtered() {
    let site = TestSite::start().await;
    site.repository("a/b", &["n1"], 1).await;
    let mut catalog = CatalogClient::connect(format!("http://{}", site.grpc))
        .await
        .unwrap();
    let position = site.parts.control.catalog.position();
    let mut streams = Vec::new();
    for (id, revision) in [("laptop", position.revision), ("build-7", 0)] {
        let (say, said) = mpsc::channel(4);
        let hello = v1::WatchHello {
            client_id: id.into(),
            mount: format!("/mnt/{id}"),
            version: "9.9".into(),
            applied: (revision > 0).then(|| v1::Position {
                epoch: position.epoch.clone(),
                revision,
            }),
            ..Default::default()
        };
        let report = v1::ClientReport {
            cache_hits: 3,
            cache_misses: 1,
            failed: 2,
            ..Default::default()
        };
        for message in [Message::Hello(hello), Message::Report(report)] {
            let message = Some(message);
            say.send(v1::WatchRequest { message }).await.unwrap();
        }
        let hears = catalog.watch(ReceiverStream::new(said)).await.unwrap();
        streams.push((say, hears));
    }
    wait_until("both have reported", SOON, || {
        let clients = site.parts.work.watchers.list();
        clients.len() == 2 && clients.iter().all(|client| client.report.is_some())
    });
    let page = site.page("/clients").await;
    assert_says(
        &page,
        &[
            "build-7",
            "behind",
            "75 %",
            "2 failed",
            "laptop",
            "up to date",
        ],
    );
    assert_says(&page, &["1 to 2 of 2"]);
    let filtered = site.page("/clients?q=LAPTOP").await;
    assert!(
        filtered.contains("/mnt/laptop") && !filtered.contains("build-7"),
        "{filtered}"
    );
    assert_says(&site.page("/clients?q=nothing").await, &["Nothing fits."]);
    assert_says(
        &site.page("/").await,
        &["Clients of this router 2 connected"],
    );
    // Beyond the last page there is an empty one.
    assert_says(
        &site.page("/clients?page=9").await,
        &["No client is connected"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn browsing_above_repositories_and_into_what_cannot_be_reached() {
    let site = TestSite::start().await;
    assert_says(&site.page("/browse/").await, &["Browse"]);
    site.repository("h/org/one", &["n1"], 3 << 20).await;
    site.parts
        .control
        .entries
        .create(actor(), entry("h/org/two"))
        .await
        .unwrap();
    let page = site.page("/browse/h/org").await;
    assert_says(&page, &["one", "ready", "3.0 MiB"]);
    // A repository whose holders are away, one that has no commit, and nothing at all.
    let away = site.page_or_error("/browse/h/org/one").await;
    assert_eq!(away.status, 503);
    assert_says(&shown(&away), &["Not available now", "Try again"]);
    let none_yet = site.page_or_error("/browse/h/org/two").await;
    assert_eq!(none_yet.status, 409);
    assert_says(&shown(&none_yet), &["has no commit to show yet"]);
    for (path, status) in [("/browse/h/none", 404), ("/browse/a/%00b", 400)] {
        assert_eq!(site.page_or_error(path).await.status, status, "{path}");
    }
    let moved = site.page_or_error("/browse").await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("/browse/"))
    );
    assert_eq!(snapshot(1).blobs, 12_345);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_page_is_told_to_people_and_to_programs_in_their_way() {
    let site = TestSite::start().await;
    let person = site.page_or_error("/no/such/page").await;
    assert_eq!(person.status, 404);
    assert_says(&shown(&person), &["There is no page at /no/such/page."]);
    let program = site.get("/no/such/page").await;
    assert_eq!(program.status, 404);
    assert_eq!(program.json()["error"]["kind"], "not_found");
    // Below the API even people get its document.
    let api = site.page_or_error("/api/v1/nothing").await;
    assert_eq!(api.json()["error"]["kind"], "not_found");
    for answer in [&person, &site.page_or_error("/").await] {
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{policy}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    }
}
