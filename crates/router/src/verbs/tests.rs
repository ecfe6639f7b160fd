//! The verbs over nodes that speak the protocol, as both doors call them.

use futures::StreamExt;
use monofs_model::{ContentMode, DisplayPath, ErrorKind, Repository};
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::ingest_progress::Phase;
use monofs_proto::v1::job;
use monofs_testkit::wait::wait_until;

use super::jobs::JobSelection;
use super::progress::ProgressEnd;
use super::{failovers, ingests, jobs, members, reports, repositories, verification};
use crate::fixture::{SOON, TestRouter, actor, entry, path, snapshot};

#[tokio::test(flavor = "multi_thread")]
async fn every_holder_checks_its_copy_and_one_that_cannot_be_asked_is_told() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    for (name, byte) in [("a/good", 1), ("a/bad", 2)] {
        node.put(name, &snapshot(byte));
        router.repository(name, &["n1"], byte).await;
    }
    node.damage("a/bad");
    let told = verification::verify(actor(), router.parts(), "").expect("begun");
    let told: Vec<_> = told.map(|message| message.expect("told")).collect().await;
    let ended = |name: &str| {
        let mut of = told.iter().filter(|message| message.path == name);
        of.find_map(|message| message.progress.clone().filter(|told| told.finished))
    };
    assert!(ended("a/good").is_some_and(|told| told.errors.is_empty()));
    assert!(ended("a/bad").is_some_and(|told| !told.errors.is_empty()));
    // One repository alone, at a holder that is not there.
    router.repository("a/away", &["n2"], 3).await;
    router.node("n2").await;
    let told = verification::verify(actor(), router.parts(), "a/away").expect("begun");
    let told: Vec<_> = told.map(|message| message.expect("told")).collect().await;
    assert_eq!((told.len(), told[0].node_id.as_str()), (1, "n2"));
    assert!(told[0].progress.is_none() && !told[0].error.is_empty());
    let unknown = verification::verify(actor(), router.parts(), "a/none").err();
    assert_eq!(unknown.expect("not there").kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_nodes_name_the_commits_that_the_catalogue_does_not() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    node.put("a/b", &snapshot(1));
    node.put("a/b", &snapshot(7));
    node.put("x/y", &snapshot(9));
    router.repository("a/b", &["n1"], 1).await;
    router.node("n2").await;
    let parts = router.parts();
    let files = |node_id: &str, path: &str| v1::NodeFilesRequest {
        node_id: node_id.into(),
        path: path.into(),
    };
    let all = files("all", "");
    let told = reports::node_files(actor(), &parts.control, &parts.fleet, &all).await;
    let told = told.expect("asked").nodes;
    let of = |id: &str| told.iter().find(|node| node.node_id == id).expect("asked");
    assert!(!of("n2").error.is_empty() && of("n2").repositories.is_empty());
    let held = &of("n1").repositories;
    let orphaned = |at: &str| {
        let mut held = held.iter();
        let found = held.find(|held| held.path == at).expect("it is held");
        found.orphaned_commits.clone()
    };
    assert_eq!(orphaned("a/b"), [snapshot(7).commit.as_bytes().to_vec()]);
    assert_eq!(orphaned("x/y"), [snapshot(9).commit.as_bytes().to_vec()]);
    // One path on one node; a node that holds nothing of it is no error.
    let one = files("n1", "c/d");
    let told = reports::node_files(actor(), &parts.control, &parts.fleet, &one).await;
    let told = told.expect("asked").nodes;
    assert_eq!((told.len(), told[0].error.as_str()), (1, ""));
    assert!(told[0].repositories.is_empty());
    for (node, at, kind) in [
        ("n9", "", ErrorKind::NotFound),
        ("n1", "../up", ErrorKind::Invalid),
    ] {
        let wrong = files(node, at);
        let refused = reports::node_files(actor(), &parts.control, &parts.fleet, &wrong).await;
        assert_eq!(refused.expect_err("wrong").kind, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_says_where_reads_go_and_why() {
    let router = TestRouter::start().await;
    for id in ["n1", "n2", "n3"] {
        router.node(id).await;
    }
    for byte in 1..20 {
        router
            .repository(&format!("a/r{byte}"), &["n1", "n2"], byte)
            .await;
    }
    let parts = router.parts();
    let none = failovers::list_failovers(actor(), parts).await;
    assert!(none.expect("listed").failovers.is_empty());
    let request = v1::TriggerFailoverRequest {
        node_id: "n1".into(),
        reason: "new switch".into(),
        force: false,
    };
    let moved = members::trigger_failover(actor(), &parts.control, &parts.fleet, request).await;
    moved.expect("failed over");
    wait_until("the view shows it", SOON, || {
        parts
            .fleet
            .members
            .view()
            .nodes()
            .any(|node| node.failed_over)
    });
    let listed = failovers::list_failovers(actor(), parts).await;
    let listed = listed.expect("listed").failovers;
    assert_eq!((listed.len(), listed[0].node_id.as_str()), (1, "n1"));
    assert_eq!(listed[0].reason, "failed over by an operator: new switch");
    let targets = &listed[0].targets;
    assert_eq!((targets.len(), targets[0].node_id.as_str()), (1, "n2"));
    assert_eq!(targets[0].repositories, listed[0].repositories);
    assert!(
        (1..19).contains(&listed[0].repositories),
        "those that n1 was first for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_watched_until_it_has_ended() {
    let router = TestRouter::start().await;
    let parts = router.parts();
    let missing = jobs::watch(actor(), parts, "nope".into()).err();
    assert_eq!(missing.expect("unknown").kind, ErrorKind::NotFound);
    let unknown = jobs::get(actor(), &parts.control, "nope").err();
    assert_eq!(unknown.expect("unknown").kind, ErrorKind::NotFound);
    let opened =
        crate::reconcile::jobs::open(actor(), &parts.control, job::Kind::Rebalance, "a/b", "why");
    let id = opened.await.expect("opened").id;
    let mut watched = jobs::watch(actor(), parts, id.clone()).expect("it runs");
    let first = watched.next().await.expect("told").expect("a row");
    assert_eq!(first.state(), job::State::Running);
    let cancelled = jobs::cancel(actor(), &parts.control, &id).await;
    cancelled.expect("cancelled");
    let mut last = first;
    while let Some(told) = watched.next().await {
        last = told.expect("a row");
    }
    assert_eq!(last.state(), job::State::Cancelled);
    let open = jobs::list(actor(), &parts.control, JobSelection::Open);
    assert!(open.iter().all(|job| job.id != id));
    let all = jobs::list(actor(), &parts.control, JobSelection::All);
    assert!(all.iter().any(|job| job.id == id));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_of_an_ingest_goes_on_until_its_contents_are_everywhere() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    let _fetcher = router.fake_fetcher(snapshot(1)).await;
    let parts = router.parts();
    let nothing = ingests::watch(actor(), parts, path("a/b"), ProgressEnd::Published).err();
    assert_eq!(nothing.expect("not there").kind, ErrorKind::NotFound);
    let request = v1::IngestRequest {
        source: entry("a/b").source.to_string(),
        path: "a/b".into(),
        ref_name: "main".into(),
        ..Default::default()
    };
    let spec = repositories::spec(&request).expect("well formed");
    assert_eq!(
        spec.content,
        ContentMode::Eager,
        "else there is nothing to wait for"
    );
    let job = repositories::ingest(actor(), parts, spec)
        .await
        .expect("it begins");
    let mut seen = job.follow();
    let end = seen.wait_for(|state| state.outcome.is_some()).await;
    end.expect("the job lives")
        .outcome
        .clone()
        .expect("it ended")
        .expect("ingested");
    node.hydrate("a/b", 0, "");
    let mut told =
        ingests::watch(actor(), parts, path("a/b"), ProgressEnd::Hydrated).expect("it is there");
    let first = told.next().await.expect("told").expect("progress");
    assert_eq!(first.phase(), Phase::Hydrating);
    assert_eq!(
        (first.replicas[0].blobs_done, first.replicas[0].blobs_total),
        (0, 1)
    );
    node.hydrate("a/b", 1, "");
    let mut last = first;
    while let Some(message) = told.next().await {
        last = message.expect("progress");
    }
    assert_eq!(
        (last.phase(), last.replicas[0].blobs_done),
        (Phase::Done, 1)
    );
    // Whoever looks later hears at once that nothing runs.
    let again = ingests::watch(actor(), parts, path("a/b"), ProgressEnd::Published);
    let again: Vec<_> = again.expect("there").collect().await;
    assert_eq!(again.len(), 1);
    // The last failure is told, too.
    let failed = |entry: &Repository| {
        Ok(Some(Repository {
            last_error: "the remote is away".into(),
            ..entry.clone()
        }))
    };
    let noted = parts
        .control
        .entries
        .update(actor(), &path("a/b"), failed)
        .await;
    noted.expect("noted");
    let failed = ingests::watch(actor(), parts, path("a/b"), ProgressEnd::Published);
    let failed: Vec<_> = failed.expect("there").collect().await;
    let error = failed[0].as_ref().expect_err("it failed last");
    assert!(error.message().contains("the remote is away"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_service_pages_and_answers_in_the_words_of_the_verbs() {
    let router = TestRouter::start().await;
    for number in 0..5 {
        router.repository(&format!("a/r{number}"), &["n1"], 1).await;
    }
    router.repository("b/other", &["n1"], 1).await;
    let (channel, _serving) = router.serve().await;
    let mut admin = AdminClient::new(channel);
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRepositoriesRequest {
            prefix: "a".into(),
            page_size: 2,
            page_token,
        };
        let page = admin
            .list_repositories(request)
            .await
            .expect("listed")
            .into_inner();
        seen.extend(page.repositories.into_iter().map(|entry| entry.path));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["a/r0", "a/r1", "a/r2", "a/r3", "a/r4"]);
    let get = |path: &str| v1::GetRepositoryRequest { path: path.into() };
    let missing = admin.get_repository(get("a/none")).await;
    assert_eq!(
        missing.expect_err("not there").code(),
        tonic::Code::NotFound
    );
    let refresh = v1::RefreshRequest {
        path: "a/r0".into(),
        follow: true,
    };
    let nothing = admin.refresh(refresh).await.expect_err("nothing runs");
    assert!(nothing.message().contains("by this router"), "{nothing}");
    let own = admin.status(v1::StatusRequest { own: true }).await;
    let own = own.expect("answered").into_inner();
    assert_eq!(
        (own.repositories_ready, own.router_id.as_str()),
        (6, "router1")
    );
    let delete = v1::DeleteRequest {
        path: "a/r0".into(),
    };
    admin.delete(delete.clone()).await.expect("deleted");
    let gone = admin.delete(delete).await.expect_err("gone");
    assert_eq!(gone.code(), tonic::Code::NotFound);
    assert!(
        DisplayPath::new("a/r0").is_ok_and(|at| router.parts().control.catalog.get(&at).is_none())
    );
}
