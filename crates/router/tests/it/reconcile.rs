//! Copies go where placement wants them, and nothing is deleted before that.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use monofs_cluster::{Builder, Cluster, Ingest};
use monofs_model::{DisplayPath, Repository};
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::random::Rng;
use monofs_testkit::wait::wait_until_async;

use crate::SOON;

const REPOSITORIES: usize = 6;

fn builder(dir: &std::path::Path) -> Builder {
    monofs_cluster::Builder::quick(dir).router(|config| {
        config.health_interval = Duration::from_millis(200);
        config.unhealthy_threshold = Duration::from_millis(1500);
        config.rebalance_delay = Duration::from_millis(500);
        config.recovery_time = Duration::ZERO;
        config.worker_interval = Duration::from_millis(200);
        config.refresh_interval = Duration::ZERO;
    })
}

fn repo(bytes: usize) -> Repo {
    let mut rng = Rng::new(bytes as u64);
    let repo = Repo::new();
    repo.commit(|c| {
        for n in 0..8 {
            c.file(
                format!("d{}/f{n}", n % 3),
                (0..bytes / 8)
                    .map(|_| rng.bits() as u8)
                    .collect::<Vec<u8>>(),
            );
        }
    });
    repo
}

fn path(n: usize) -> String {
    format!("h/r{n}")
}

async fn ingest_all(cluster: &Cluster, repo: &Repo) {
    for n in 0..REPOSITORIES {
        let ingest = Ingest::of(repo.url())
            .at("main")
            .shown_as(path(n))
            .strong()
            .hydrated();
        cluster.ingest(ingest).await.unwrap();
    }
}

async fn entries(cluster: &Cluster) -> Vec<Repository> {
    let mut all = Vec::new();
    for n in 0..REPOSITORIES {
        all.push(cluster.repository(&path(n)).await.unwrap());
    }
    all
}

/// What a node has on its disk, asked itself.
pub async fn on_disk(cluster: &Cluster, number: usize) -> BTreeSet<String> {
    let channel = monofs_rpc::ChannelPool::default()
        .get(&cluster.node_address(number))
        .unwrap();
    let mut node = v1::node_client::NodeClient::new(channel);
    let held = node
        .list_held(v1::ListHeldRequest::default())
        .await
        .unwrap()
        .into_inner();
    held.repositories
        .into_iter()
        .map(|held| held.path)
        .collect()
}

/// All contents of a repository that a node has, asked of the node alone.
async fn blobs_held(cluster: &Cluster, number: usize, path: &str) -> u64 {
    let channel = monofs_rpc::ChannelPool::default()
        .get(&cluster.node_address(number))
        .unwrap();
    let mut node = v1::node_client::NodeClient::new(channel);
    let storage_id = DisplayPath::new(path).unwrap().storage_id().to_string();
    let held = node
        .list_held(v1::ListHeldRequest { storage_id })
        .await
        .unwrap()
        .into_inner();
    held.repositories
        .first()
        .map_or(0, |held| held.hydrated_blobs)
}

async fn jobs(cluster: &Cluster) -> Vec<v1::Job> {
    let mut admin = cluster.admin().unwrap();
    admin
        .list_jobs(v1::ListJobsRequest { all: true })
        .await
        .unwrap()
        .into_inner()
        .jobs
}

async fn plan(cluster: &Cluster) -> v1::RebalanceResponse {
    let mut admin = cluster.admin().unwrap();
    let request = v1::RebalanceRequest {
        dry_run: true,
        ..Default::default()
    };
    admin.rebalance(request).await.unwrap().into_inner()
}

async fn wait_placed(cluster: &Cluster) {
    let placed = || async {
        let plan = plan(cluster).await;
        plan.copies_total + plan.deletes_total == 0
    };
    wait_until_async("everything is where placement wants it", SOON, placed).await;
}

/// What is recorded is what the disks have, two copies each.
async fn assert_two_copies(cluster: &Cluster, nodes: &[usize]) {
    for entry in entries(cluster).await {
        assert_eq!(entry.holders.len(), 2, "{entry:?}");
    }
    for number in nodes {
        let name = format!("node{}", number + 1);
        let recorded: BTreeSet<String> = entries(cluster)
            .await
            .into_iter()
            .filter(|entry| entry.holders.iter().any(|holder| holder.as_str() == name))
            .map(|entry| entry.path.to_string())
            .collect();
        assert_eq!(on_disk(cluster, *number).await, recorded, "{name}");
        for path in &recorded {
            assert_eq!(
                blobs_held(cluster, *number, path).await,
                8,
                "{path} on {name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_gets_its_share_and_then_the_extra_copies_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = builder(dir.path()).start().await.unwrap();
    let repo = repo(64 << 10);
    ingest_all(&cluster, &repo).await;
    wait_placed(&cluster).await;
    cluster.add_node().await.unwrap();
    let moved = || async { !on_disk(&cluster, 2).await.is_empty() };
    wait_until_async("the new node has something", SOON, moved).await;
    wait_placed(&cluster).await;
    assert_two_copies(&cluster, &[0, 1, 2]).await;
    let ended = || async {
        jobs(&cluster).await.iter().any(|job| {
            job.kind() == v1::job::Kind::Rebalance
                && job.state() == v1::job::State::Done
                && job.steps_done >= 2
        })
    };
    wait_until_async("the rebalance is shown as done", SOON, ended).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_is_empty_in_the_end_and_gets_its_share_back() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).nodes(3).start().await.unwrap();
    let repo = repo(64 << 10);
    ingest_all(&cluster, &repo).await;
    wait_placed(&cluster).await;
    let before = on_disk(&cluster, 0).await;
    let mut admin = cluster.admin().unwrap();
    let drain = v1::DrainRequest {
        node_id: "node1".into(),
        reason: "test".into(),
        force: false,
    };
    let drained = admin.drain(drain.clone()).await.unwrap().into_inner();
    let refused = admin
        .cancel_job(v1::CancelJobRequest {
            id: drained.job_id.clone(),
        })
        .await
        .expect_err("not like this");
    assert!(refused.message().contains("undrain"), "{refused}");
    let mut watched = admin
        .watch_job(v1::WatchJobRequest {
            id: drained.job_id.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    let mut last = v1::Job::default();
    while let Some(job) = watched.message().await.unwrap() {
        last = job;
    }
    assert_eq!(last.state(), v1::job::State::Done, "{last:?}");
    assert_eq!(on_disk(&cluster, 0).await, BTreeSet::new());
    assert_two_copies(&cluster, &[1, 2]).await;
    assert!(admin.drain(drain).await.unwrap().into_inner().unchanged);
    admin
        .undrain(v1::UndrainRequest {
            node_id: "node1".into(),
        })
        .await
        .unwrap();
    let back = || async { on_disk(&cluster, 0).await == before };
    wait_until_async("it holds what it held", SOON, back).await;
    wait_placed(&cluster).await;
    assert_two_copies(&cluster, &[0, 1, 2]).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_replaced_and_recognised_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = builder(dir.path()).nodes(3).start().await.unwrap();
    let repo = repo(64 << 10);
    ingest_all(&cluster, &repo).await;
    wait_placed(&cluster).await;
    let before = on_disk(&cluster, 0).await;
    cluster.stop_node(0).await;
    let whole = || async {
        let alive = |entry: &Repository| {
            entry
                .holders
                .iter()
                .filter(|holder| holder.as_str() != "node1")
                .count()
                == 2
        };
        entries(&cluster).await.iter().all(alive)
    };
    wait_until_async("two copies of everything live", SOON, whole).await;
    cluster.stop_fetcher(0).await;
    cluster.start_node(0).await.unwrap();
    cluster.wait_members(3, 0).await.unwrap();
    wait_placed(&cluster).await;
    assert_eq!(on_disk(&cluster, 0).await, before);
    assert_two_copies(&cluster, &[0, 1, 2]).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_goes_on_with_a_restarted_router() {
    let dir = tempfile::tempdir().unwrap();
    let slow = |config: &mut monofs_cluster::router::Config| config.rebalance_bandwidth = 256 << 10;
    let mut cluster = builder(dir.path()).start().await.unwrap();
    let repo = repo(256 << 10);
    ingest_all(&cluster, &repo).await;
    wait_placed(&cluster).await;
    cluster.stop_router(0).await;
    cluster.change_router(slow);
    cluster.start_router(0).await.unwrap();
    cluster.wait_members(2, 1).await.unwrap();
    cluster.add_node().await.unwrap();
    let running = || async {
        jobs(&cluster)
            .await
            .iter()
            .any(|job| job.state() == v1::job::State::Running)
    };
    wait_until_async("a rebalance runs", SOON, running).await;
    let id = jobs(&cluster).await[0].id.clone();
    cluster.stop_router(0).await;
    cluster.change_router(|_| {});
    cluster.start_router(0).await.unwrap();
    cluster.wait_members(3, 1).await.unwrap();
    wait_placed(&cluster).await;
    assert_two_copies(&cluster, &[0, 1, 2]).await;
    let ended = || async {
        jobs(&cluster)
            .await
            .iter()
            .any(|job| job.id == id && job.state() == v1::job::State::Done)
    };
    wait_until_async("the same job is done", SOON, ended).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lazy_repository_moves_with_the_contents_it_had_although_upstream_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = builder(dir.path()).nodes(3).start().await.unwrap();
    let repo = repo(64 << 10);
    let entry = cluster
        .ingest(
            Ingest::of(repo.url())
                .at("main")
                .shown_as("h/r")
                .lazy()
                .strong(),
        )
        .await
        .unwrap();
    let first: usize = entry.holders[0].as_str()[4..].parse().unwrap();
    // One copy has three of eight contents, the other has none.
    let listed = String::from_utf8(repo.git(["ls-tree", "-r", "-l", "main"])).unwrap();
    let span = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let oid: monofs_model::Oid = words[2].parse().unwrap();
        let size = words[3].parse().unwrap();
        v1::BlobSpan {
            oid: monofs_proto::convert::oid_bytes(&oid),
            size,
            ..Default::default()
        }
    };
    let spans: Vec<v1::BlobSpan> = listed.lines().take(3).map(span).collect();
    let channel = monofs_rpc::ChannelPool::default()
        .get(&cluster.node_address(first - 1))
        .unwrap();
    let request = v1::GetBlobsRequest {
        storage_id: entry.storage_id().to_string(),
        spans,
        ..Default::default()
    };
    let mut answers = monofs_rpc::content::client(channel)
        .get_blobs(request)
        .await
        .unwrap()
        .into_inner();
    while answers.message().await.unwrap().is_some() {}
    assert_eq!(blobs_held(&cluster, first - 1, "h/r").await, 3);
    cluster.stop_fetcher(0).await;
    let mut admin = cluster.admin().unwrap();
    let drain = v1::DrainRequest {
        node_id: format!("node{first}"),
        reason: "test".into(),
        force: false,
    };
    admin.drain(drain).await.unwrap();
    let moved = || async {
        let entry = cluster.repository("h/r").await.unwrap();
        entry.holders.len() == 2
            && !entry
                .holders
                .iter()
                .any(|holder| *holder.as_str() == format!("node{first}"))
    };
    wait_until_async("it moved off", SOON, moved).await;
    for holder in &cluster.repository("h/r").await.unwrap().holders {
        let number: usize = holder.as_str()[4..].parse().unwrap();
        assert_eq!(
            blobs_held(&cluster, number - 1, "h/r").await,
            3,
            "{holder} has what the leaving copy had"
        );
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_rebalance_stops_until_it_is_asked_for_and_keeps_to_its_bandwidth() {
    const LIMIT: u64 = 128 << 10;
    const SIZE: usize = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = builder(dir.path()).start().await.unwrap();
    let repo = repo(SIZE);
    ingest_all(&cluster, &repo).await;
    wait_placed(&cluster).await;
    cluster.stop_router(0).await;
    cluster.change_router(|config| config.rebalance_bandwidth = LIMIT);
    cluster.start_router(0).await.unwrap();
    cluster.wait_members(2, 1).await.unwrap();
    cluster.add_node().await.unwrap();
    let running = || async {
        jobs(&cluster)
            .await
            .iter()
            .any(|job| job.state() == v1::job::State::Running)
    };
    wait_until_async("a rebalance runs", SOON, running).await;
    let mut admin = cluster.admin().unwrap();
    let id = jobs(&cluster).await[0].id.clone();
    let job = admin
        .cancel_job(v1::CancelJobRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert!(
        job.state() == v1::job::State::Cancelled && job.held_back,
        "{job:?}"
    );
    let again = admin
        .cancel_job(v1::CancelJobRequest { id })
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(again.state(), v1::job::State::Cancelled, "idempotent");
    let stopped = || async {
        let left = plan(&cluster).await;
        let holders: BTreeSet<String> = entries(&cluster)
            .await
            .iter()
            .flat_map(|e| e.holders.clone())
            .map(|id| id.to_string())
            .collect();
        left.copies_total > 0 && on_disk(&cluster, 2).await.is_empty() != holders.contains("node3")
    };
    wait_until_async("what was broken off is taken back", SOON, stopped).await;
    let told = || async {
        cluster
            .status()
            .await
            .unwrap()
            .problems
            .into_iter()
            .find(|line| line.contains("held back"))
    };
    let problem = told().await.expect("what nobody goes on with is a problem");
    assert!(problem.contains("`monofs-admin rebalance`"), "{problem}");
    let left = plan(&cluster).await;
    let from = Instant::now();
    let asked = admin
        .rebalance(v1::RebalanceRequest::default())
        .await
        .unwrap()
        .into_inner();
    let same = admin
        .rebalance(v1::RebalanceRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (asked.job_id.is_empty(), &asked.job_id),
        (false, &same.job_id)
    );
    assert_eq!(told().await, None, "it goes on");
    let placed = || async { plan(&cluster).await.copies_total == 0 };
    wait_until_async("all copies are made", SOON * 3, placed).await;
    // Random bytes do not compress: all but the first piece of each copy had to be paid for.
    let least = (left.bytes_total as f64 * 0.5) / LIMIT as f64;
    assert!(
        from.elapsed().as_secs_f64() >= least,
        "{} bytes in {:?}",
        left.bytes_total,
        from.elapsed()
    );
    wait_placed(&cluster).await;
    assert_two_copies(&cluster, &[0, 1, 2]).await;
    cluster.shutdown().await;
}
