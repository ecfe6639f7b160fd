//! Several routers on one etcd: they share one truth, one leads, and the loss of one or of etcd is
//! survived.

use std::time::{Duration, Instant};

use monofs_cluster::{Builder, Cluster, Ingest};
use monofs_control::state::{EtcdState, HeldKey, StateStore};
use monofs_model::{Error, ErrorKind, Repository, Result};
use monofs_proto::v1;
use monofs_proto::v1::path_claim::Purpose;
use monofs_testkit::wait::{wait_for_async, wait_until_async};
use monofs_testkit::{Etcd, Repo};
use prost::Message;

use crate::system::{self, SOON, System, can_mount};

/// Where the builder keeps the state in etcd.
const PREFIX: &str = "monofs";
/// What routers hold ends this long after they did.
const LEASE: Duration = Duration::from_secs(5);

fn two_routers(builder: Builder, etcd: &Etcd) -> Builder {
    builder.routers(2, vec![etcd.endpoint()])
}

async fn start(dir: &tempfile::TempDir, etcd: &Etcd) -> Cluster {
    let cluster = two_routers(system::builder(dir.path()), etcd)
        .start()
        .await
        .unwrap();
    wait_members_everywhere(&cluster).await;
    cluster
}

/// Waits until both routers know both nodes.
async fn wait_members_everywhere(cluster: &Cluster) {
    for router in 0..2 {
        let active = || async {
            let status = cluster.status_of(router).await.unwrap_or_default();
            let active = |member: &Option<v1::Member>| {
                member
                    .as_ref()
                    .is_some_and(|member| member.state() == v1::MemberState::Active)
            };
            status
                .nodes
                .iter()
                .filter(|node| active(&node.member))
                .count()
                == 2
                && status
                    .fetchers
                    .iter()
                    .filter(|fetcher| active(&fetcher.member))
                    .count()
                    == 1
        };
        wait_until_async("every router knows every member", SOON, active).await;
    }
}

async fn repository_at(cluster: &Cluster, router: usize, path: &str) -> Result<Repository> {
    let mut admin = cluster.admin_of(router)?;
    let answer = admin
        .get_repository(v1::GetRepositoryRequest {
            path: path.to_owned(),
        })
        .await;
    let entry = answer
        .map_err(monofs_rpc::from_status)?
        .into_inner()
        .repository;
    entry
        .ok_or_else(|| Error::internal("an answer without a repository"))?
        .try_into()
}

async fn delete_at(cluster: &Cluster, router: usize, path: &str) -> Result<()> {
    let mut admin = cluster.admin_of(router)?;
    let answer = admin
        .delete(v1::DeleteRequest {
            path: path.to_owned(),
        })
        .await;
    answer.map(drop).map_err(monofs_rpc::from_status)
}

/// The number of the router that leads, when all that run agree.
async fn leader(cluster: &Cluster, routers: &[usize]) -> Option<usize> {
    let mut leaders = Vec::new();
    for router in routers {
        let status = cluster.status_of(*router).await.ok()?;
        leaders.extend(
            status
                .routers
                .into_iter()
                .filter(|router| router.leader)
                .map(|router| router.router_id),
        );
    }
    leaders.dedup();
    let [leader] = &leaders[..] else { return None };
    Some(leader.strip_prefix("router")?.parse::<usize>().ok()? - 1)
}

fn small_repo() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1");
    });
    repo
}

/// Claims a path as another router would.
async fn claim(etcd: &Etcd, path: &str, purpose: Purpose, source: &str) -> (EtcdState, HeldKey) {
    let store = EtcdState::open(vec![etcd.endpoint()], PREFIX)
        .await
        .unwrap();
    let claim = v1::PathClaim {
        path: path.to_owned(),
        router_id: "router-elsewhere".to_owned(),
        purpose: purpose.into(),
        source: source.to_owned(),
        ref_name: "main".to_owned(),
        since: 0,
    };
    let value = [&[1], &claim.encode_to_vec()[..]].concat();
    let hold = store
        .hold(&format!("ingest/{path}"), value, LEASE)
        .await
        .unwrap()
        .expect("no router works on it");
    (store, hold)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_router_does_the_other_shows() {
    let (dir, etcd, repo) = (tempfile::tempdir().unwrap(), Etcd::start(), small_repo());
    let cluster = start(&dir, &etcd).await;
    let ingested = cluster
        .ingest_at(
            0,
            Ingest::of(repo.url()).at("main").shown_as("h/r").strong(),
        )
        .await
        .unwrap();
    let shown = wait_for_async(
        "the other router shows it",
        Duration::from_secs(2),
        || async { repository_at(&cluster, 1, "h/r").await.ok() },
    )
    .await;
    assert_eq!(
        (&shown.snapshot, &shown.holders),
        (&ingested.snapshot, &ingested.holders)
    );
    let status = cluster.status_of(1).await.unwrap();
    assert_eq!(status.router_id, "router2");
    let ids: Vec<&str> = status
        .routers
        .iter()
        .map(|router| router.router_id.as_str())
        .collect();
    assert_eq!(ids, ["router1", "router2"]);
    delete_at(&cluster, 1, "h/r").await.unwrap();
    let gone = || async {
        repository_at(&cluster, 0, "h/r")
            .await
            .is_err_and(|e| e.kind == ErrorKind::NotFound)
    };
    wait_until_async(
        "the first router knows that it was deleted",
        Duration::from_secs(2),
        gone,
    )
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_path_is_ingested_once_whichever_routers_are_asked() {
    let (dir, etcd, repo) = (tempfile::tempdir().unwrap(), Etcd::start(), small_repo());
    let cluster = start(&dir, &etcd).await;
    let what = || Ingest::of(repo.url()).at("main").shown_as("h/r").hydrated();
    let (one, two) = tokio::join!(cluster.ingest_at(0, what()), cluster.ingest_at(1, what()));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.generation, two.generation), (1, 1), "published once");
    assert_eq!(one.snapshot, two.snapshot);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_another_router_works_on_is_joined_or_refused_and_taken_over_when_that_is_gone()
{
    let (dir, etcd, repo) = (tempfile::tempdir().unwrap(), Etcd::start(), small_repo());
    let cluster = start(&dir, &etcd).await;
    let what = || Ingest::of(repo.url()).at("main").shown_as("h/r");
    let (store, hold) = claim(
        &etcd,
        "h/r",
        Purpose::Ingest,
        "https://forge.example/other.git",
    )
    .await;
    let refused = cluster.ingest_at(1, what()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused);
    assert!(
        refused.message.contains("other.git") && refused.message.contains("router-elsewhere"),
        "{refused}"
    );
    hold.release(SOON).await;
    let (_, hold) = claim(&etcd, "h/r", Purpose::Collect, "").await;
    let refused = cluster.ingest_at(0, what()).await.unwrap_err();
    assert!(refused.message.contains("cleaned up"), "{refused}");
    hold.release(SOON).await;
    drop(store);
    // Another one that runs the same is waited for, and when it ends without an outcome this router
    // goes on.
    let (_store, hold) = claim(&etcd, "h/r", Purpose::Ingest, &repo.url()).await;
    let mut joined = Box::pin(cluster.ingest_at(1, what()));
    let early = tokio::time::timeout(Duration::from_secs(2), &mut joined).await;
    assert!(
        early.is_err(),
        "it must wait for the other router: {early:?}"
    );
    drop(hold);
    assert_eq!(
        tokio::time::timeout(SOON, joined)
            .await
            .unwrap()
            .unwrap()
            .generation,
        1
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_is_replaced_at_once() {
    let (dir, etcd, repo) = (tempfile::tempdir().unwrap(), Etcd::start(), small_repo());
    let mut cluster = start(&dir, &etcd).await;
    let first = wait_for_async("one router leads", SOON, || leader(&cluster, &[0, 1])).await;
    let second = 1 - first;
    cluster.stop_router(first).await;
    let replaced = || async { leader(&cluster, &[second]).await == Some(second) };
    wait_until_async("the other one leads", LEASE / 2, replaced).await;
    cluster.wait_members(2, 1).await.unwrap();
    cluster
        .ingest_at(second, Ingest::of(repo.url()).at("main").shown_as("h/r"))
        .await
        .unwrap();
    cluster.start_router(first).await.unwrap();
    wait_members_everywhere(&cluster).await;
    assert_eq!(
        leader(&cluster, &[0, 1]).await,
        Some(second),
        "who comes back does not take it away"
    );
    assert_eq!(
        repository_at(&cluster, first, "h/r")
            .await
            .unwrap()
            .generation,
        1
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_reads_go_on_changes_are_refused_in_time_and_it_heals() {
    let (dir, mut etcd, repo) = (tempfile::tempdir().unwrap(), Etcd::start(), small_repo());
    let cluster = start(&dir, &etcd).await;
    cluster
        .ingest_at(
            0,
            Ingest::of(repo.url()).at("main").shown_as("h/r").strong(),
        )
        .await
        .unwrap();
    etcd.kill();
    for router in 0..2 {
        let told = || async {
            let status = cluster.status_of(router).await.unwrap_or_default();
            status
                .problems
                .iter()
                .any(|line| line.contains("state store cannot be reached"))
        };
        wait_until_async("the status says it", SOON, told).await;
        assert_eq!(
            repository_at(&cluster, router, "h/r")
                .await
                .unwrap()
                .generation,
            1
        );
        let from = Instant::now();
        let refused = cluster
            .ingest_at(router, Ingest::of(repo.url()).at("main").shown_as("h/s"))
            .await
            .unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(
            refused.message.contains("state store") && refused.message.contains("reads go on"),
            "{refused}"
        );
        assert!(
            from.elapsed() < Duration::from_secs(6),
            "{:?}",
            from.elapsed()
        );
        let refused = delete_at(&cluster, router, "h/r").await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
    }
    etcd.start_again();
    let leads = wait_for_async("one router leads again", SOON, || leader(&cluster, &[0, 1])).await;
    let other = Repo::new();
    other.commit(|c| {
        c.file("g", "2");
    });
    cluster
        .ingest_at(
            1 - leads,
            Ingest::of(other.url()).at("main").shown_as("h/s"),
        )
        .await
        .unwrap();
    let shown = || async { repository_at(&cluster, leads, "h/s").await.is_ok() };
    wait_until_async("the other router follows again", SOON, shown).await;
    assert_eq!(
        repository_at(&cluster, leads, "h/r")
            .await
            .unwrap()
            .generation,
        1
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_of_both_routers_survives_the_loss_of_either() {
    if !can_mount() {
        return;
    }
    let (etcd, repo) = (Etcd::start(), small_repo());
    let mut system = System::start_with(|builder| two_routers(builder, &etcd)).await;
    wait_members_everywhere(&system.cluster).await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").strong())
        .await
        .unwrap();
    system.assert_shows("h/r", &repo).await;
    for (round, lost) in [0, 1].into_iter().enumerate() {
        system.cluster.stop_router(lost).await;
        system.assert_follows("h/r", &repo).await;
        repo.commit(|c| {
            c.file("f", format!("{round} more"));
        });
        system.cluster.wait_members(2, 1).await.unwrap();
        system.cluster.refresh("h/r").await.unwrap();
        system.assert_follows("h/r", &repo).await;
        system.cluster.start_router(lost).await.unwrap();
        wait_members_everywhere(&system.cluster).await;
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_without_a_shared_state_are_refused_and_a_missing_one_is_told() {
    let (dir, etcd) = (tempfile::tempdir().unwrap(), Etcd::start());
    let peer = |config: &mut monofs_cluster::router::Config| {
        config.peer_routers = vec!["10.9.9.9:9090".to_owned()]
    };
    let alone = Builder::new(dir.path()).router(peer).start().await;
    let Err(refused) = alone else {
        panic!("two routers cannot share a directory")
    };
    assert!(refused.message.contains("--state etcd://"), "{refused}");
    let cluster = Builder::new(dir.path())
        .routers(1, vec![etcd.endpoint()])
        .router(peer)
        .start()
        .await
        .unwrap();
    let problems = cluster.status().await.unwrap().problems;
    assert!(
        problems.iter().any(|line| line.contains("10.9.9.9:9090")),
        "{problems:?}"
    );
    cluster.shutdown().await;
}
