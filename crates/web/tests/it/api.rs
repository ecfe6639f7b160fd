//! The HTTP API over one router: what it reads from memory, what it refuses, and what its verbs
//! change.

use monofs_control::clock;
use monofs_model::view::Role;
use monofs_model::{NodeId, Repository};
use monofs_proto::v1;
use monofs_router::history::ClusterSample;
use serde_json::{Value, json};

use crate::site::{TestSite, actor, entry};
use crate::web::{ask, post};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_paged_and_one_is_told_in_full() {
    let site = TestSite::start().await;
    for id in ["n1", "n2", "n3"] {
        site.node(id).await;
    }
    site.repository("a/b", &["n1", "n2"], 10).await;
    let page = site.get("/api/v1/nodes?offset=1&limit=1").await.json();
    assert_eq!(page["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&page["total"], &page["nodes"][0]["id"]),
        (&json!(3), &json!("n2"))
    );
    let one = site.get("/api/v1/nodes/n1").await.json();
    assert_eq!(one["repositories"][0]["path"], "a/b");
    assert_eq!(one["node"]["repositories_recorded"], 1);
    assert!(
        one["node"]["error"].is_string(),
        "it cannot be asked: {one:#}"
    );
    assert_eq!(one["states"][0]["state"], "active");
    let fetcher = site.get("/api/v1/nodes/f9").await;
    assert_eq!(
        (fetcher.status, &fetcher.json()["error"]["kind"]),
        (404, &json!("not_found"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_are_filtered_and_a_wrong_question_is_refused() {
    let site = TestSite::start().await;
    // Two copies are wanted where there are two nodes.
    site.node("n1").await;
    site.node("n2").await;
    for (path, bytes) in [("a/small", 10), ("a/large", 200), ("b/other", 50)] {
        site.repository(path, &["n1"], bytes).await;
    }
    site.parts
        .control
        .entries
        .create(actor(), entry("a/new"))
        .await
        .unwrap();
    let paths = |answer: &Value| -> Vec<String> {
        let listed = answer["repositories"].as_array().unwrap();
        let paths = listed.iter().map(|one| one["path"].as_str().unwrap());
        paths.map(str::to_owned).collect()
    };
    let by_size = site
        .get("/api/v1/repos?state=ready&sort=bytes&order=desc")
        .await;
    assert_eq!(paths(&by_size.json()), ["a/large", "b/other", "a/small"]);
    let found = site.get("/api/v1/repos?q=A/LARGE").await.json();
    assert_eq!(paths(&found), ["a/large"]);
    let ingesting = site.get("/api/v1/repos?state=ingesting").await.json();
    assert_eq!(paths(&ingesting), ["a/new"]);
    let troubled = site.get("/api/v1/repos?troubled=true&limit=2").await.json();
    assert_eq!(
        (troubled["total"].as_u64(), paths(&troubled).len()),
        (Some(3), 2)
    );
    for wrong in [
        "/api/v1/repos?sort=colour",
        "/api/v1/repos?limit=-1",
        "/api/v1/repos?limit=100000",
        &format!("/api/v1/repos?q={}", "x".repeat(201)),
        &format!("/api/v1/repos?q={}", "x".repeat(20_000)),
        "/api/v1/tree?path=a&path=b",
        "/api/v1/tree?nonsense=1",
        "/api/v1/tree?limit=0",
        "/api/v1/tree?offset=x",
        "/api/v1/file",
    ] {
        let answer = site.get(wrong).await;
        let shown = &wrong[..wrong.len().min(60)];
        assert_eq!(answer.status, 400, "{shown}");
        assert_eq!(answer.json()["error"]["kind"], "invalid", "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_a_tree_and_a_directory_is_no_file() {
    let site = TestSite::start().await;
    site.repository("h/org/one", &["n1"], 1).await;
    site.repository("h/org/two", &["n1"], 2).await;
    let tree = site.get("/api/v1/tree?path=h/org&limit=1").await.json();
    assert_eq!(
        (&tree["kind"], &tree["entries"][0]["name"]),
        (&json!("namespace"), &json!("one"))
    );
    assert_eq!(tree["entries"][0]["kind"], "repository");
    let next = tree["next_after"].as_str().unwrap();
    let next = site
        .get(&format!("/api/v1/tree?path=h/org&after={next}"))
        .await
        .json();
    assert_eq!(next["entries"][0]["name"], "two");
    let directory = site.get("/api/v1/file?path=h/org").await;
    assert_eq!(directory.status, 400);
    let message = directory.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("is a directory, not a file"), "{message}");
    // Holders that are away are no reason to wait.
    let away = site.get("/api/v1/file?path=h/org/one/README").await;
    assert_eq!((away.status, away.header("retry-after")), (503, Some("2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_and_failovers_are_asked_for_told_and_ended() {
    let site = TestSite::start().await;
    for id in ["n1", "n2", "n3"] {
        site.node(id).await;
    }
    let drain = json!({ "node_id": "n1", "reason": "new disk" });
    let done = post(&site.at, "/api/v1/drain", &drain).await;
    assert_eq!(done.status, 200, "{:?}", done.json());
    let done = done.json();
    assert_eq!(done["unchanged"], false);
    let job = done["job_id"].as_str().unwrap().to_owned();
    let again = post(&site.at, "/api/v1/drain", &drain).await.json();
    assert_eq!(
        (&again["unchanged"], &again["job_id"]),
        (&json!(true), &json!(job))
    );
    let listed = site.get("/api/v1/jobs").await.json();
    assert!(
        listed["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["id"] == job.as_str())
    );
    // A job that follows from what is wanted of a node is not cancelled, and an unknown one is none.
    let cancel = format!("/api/v1/jobs/{job}/cancel");
    let refused = post(&site.at, &cancel, &json!({})).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["kind"]),
        (409, &json!("refused"))
    );
    let unknown = post(&site.at, "/api/v1/jobs/none/cancel", &json!({})).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(site.get("/api/v1/jobs/none").await.status, 404);
    let exclusive = json!({ "node_id": "n1", "reason": "" });
    let exclusive = post(&site.at, "/api/v1/failover", &exclusive).await;
    assert_eq!(exclusive.status, 409);
    let undrain = post(&site.at, "/api/v1/undrain", &json!({ "node_id": "n1" })).await;
    assert_eq!(undrain.json()["unchanged"], false);
    // The whole cluster is asked for by naming no node, not by an empty name.
    let empty = post(&site.at, "/api/v1/drain", &json!({ "node_id": "" })).await;
    assert_eq!(empty.status, 400);
    let whole = post(
        &site.at,
        "/api/v1/drain",
        &json!({ "reason": "new switch" }),
    )
    .await;
    assert_eq!(whole.json()["unchanged"], false);
    let overview = site.get("/api/v1/overview").await.json();
    assert_eq!(overview["maintenance"]["reason"], "new switch");
    let moving = post(&site.at, "/api/v1/rebalance", &json!({})).await;
    assert_eq!(moving.status, 409);
    let planned = post(&site.at, "/api/v1/rebalance", &json!({ "dry_run": true })).await;
    assert_eq!(planned.status, 200);
    let over = post(&site.at, "/api/v1/undrain", &json!({})).await;
    assert_eq!(over.json()["unchanged"], false);
    let failover = json!({ "node_id": "n2", "reason": "slow" });
    let moved = post(&site.at, "/api/v1/failover", &failover).await;
    assert_eq!(moved.json()["unchanged"], false);
    let cleared = post(
        &site.at,
        "/api/v1/failover/clear",
        &json!({ "node_id": "n2" }),
    )
    .await;
    assert_eq!(cleared.json()["unchanged"], false);
    let none = post(
        &site.at,
        "/api/v1/failover/clear",
        &json!({ "node_id": "n2" }),
    )
    .await;
    assert_eq!(none.json()["unchanged"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_worked_on_or_still_there_is_not_removed() {
    let site = TestSite::start().await;
    site.node("n1").await;
    site.repository("a/b", &["n1"], 1).await;
    let delete = |path: &'static str| ask(&site.at, "DELETE", path, &[], b"");
    let running = delete("/api/v1/members/n1").await;
    assert_eq!(running.status, 409);
    assert_eq!(delete("/api/v1/members/n9").await.status, 404);
    let lease = v1::PathClaim {
        path: "a/b".into(),
        router_id: "router2".into(),
        ..Default::default()
    };
    let claims = &site.parts.control.tables.claims;
    let set = claims.update(actor(), "a/b", |_| Ok(Some(lease.clone())));
    set.await.unwrap();
    let busy = delete("/api/v1/repos/a%2Fb").await;
    let message = busy.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        busy.status == 409 && message.contains("router2"),
        "{message}"
    );
    let free = claims.update(actor(), "a/b", |_| Ok(None));
    free.await.unwrap();
    // Slashes need not be encoded.
    let gone = delete("/api/v1/repos/a/b").await;
    assert_eq!((gone.status, site.parts.control.catalog.len()), (204, 0));
    assert_eq!(delete("/api/v1/repos/a/b").await.status, 404);
    let refresh = post(&site.at, "/api/v1/repos/a/b/refresh", &json!({})).await;
    assert_eq!(refresh.status, 404);
    let unknown_field = post(
        &site.at,
        "/api/v1/repos/a/b/refresh",
        &json!({ "now": true }),
    )
    .await;
    assert_eq!(unknown_field.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_cannot_run_is_accepted_and_its_failure_kept() {
    let site = TestSite::start().await;
    let source = json!({ "source": "https://example.com/org/repo", "ref": "main" });
    let begun = post(&site.at, "/api/v1/repos", &source).await;
    assert_eq!(begun.status, 202, "{:?}", begun.json());
    let location = begun.header("location").unwrap().to_owned();
    assert_eq!(location, "/api/v1/repos/example.com%2Forg%2Frepo");
    let is_failed = |entry: &Repository| entry.last_error.contains("no node is active");
    let catalog = &site.parts.control.catalog;
    monofs_testkit::wait::wait_until("its failure is recorded", crate::SOON, || {
        let entry = catalog.require("example.com/org/repo");
        entry.is_ok_and(|entry| is_failed(&entry))
    });
    let one = site.get(&location).await.json();
    assert_eq!(one["repository"]["state"], "failed");
    let mut events = crate::web::Events::of(&site.at, &format!("{location}/events")).await;
    let (name, failed) = events.next().await.unwrap();
    assert_eq!(name, "failed");
    let message = failed["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("no node is active"), "{message}");
    assert!(events.next().await.is_none(), "that was the last event");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_has_a_gap_where_nothing_was_known() {
    let site = TestSite::start().await;
    site.node("n1").await;
    let stat = |bytes| v1::StatResponse {
        incarnation: 1,
        disk_used_bytes: bytes,
        ..Default::default()
    };
    let now = clock::now() + 1000;
    for (at, told) in [(0, Some(stat(100))), (10, None), (20, Some(stat(300)))] {
        let sample = ClusterSample {
            nodes: [(NodeId::new("n1").unwrap(), told)].into(),
            ..Default::default()
        };
        site.parts.work.history.add(now + at, sample);
    }
    let history = site.get("/api/v1/history?range=1h&node=n1").await;
    assert_eq!(history.status, 200, "{:?}", history.json());
    let history = history.json();
    let used = history["series"]["disk_used_bytes"].as_array().unwrap();
    let last = &used[used.len() - 3..];
    assert_eq!(last, [json!(100.0), Value::Null, json!(300.0)]);
    let cluster = site.get("/api/v1/history").await.json();
    assert!(cluster["series"]["members_silent"].is_array());
    assert_eq!(site.get("/api/v1/history?node=n9").await.status, 404);
    assert_eq!(site.get("/api/v1/history?range=year").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_never_by_what_they_name() {
    let site = TestSite::start().await;
    site.member("f1", Role::Fetcher, |_| {}).await;
    site.get("/api/v1/nodes/secret-name").await;
    site.get("/nowhere/at/all").await;
    ask(&site.at, "BREW", "/health", &[], b"").await;
    let metrics = site.get("/metrics").await;
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "monofs_http_requests_total{route=\"/api/v1/nodes/{id}\",method=\"GET\",code=\"404\"} 1",
        "monofs_http_requests_total{route=\"other\",method=\"GET\",code=\"404\"} 1",
        "monofs_http_requests_total{route=\"/health\",method=\"other\",code=\"405\"} 1",
    ] {
        assert!(
            text.lines().any(|told| told == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(!text.contains("secret-name"), "labels are bounded");
    let fetchers = site.get("/api/fetchers").await.json();
    assert_eq!(fetchers["fetchers"].as_array().unwrap().len(), 1);
}
