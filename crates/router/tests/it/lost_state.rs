//! A router whose state is lost, older than what the nodes know, or another cluster's: nothing that
//! it does not know of is dropped, and all of it is told.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use monofs_cluster::{Builder, Cluster, Ingest};
use monofs_control::state::{EmbeddedState, StateStore};
use monofs_fleet::settings::StaticMember;
use monofs_model::view::Role;
use monofs_model::{DisplayPath, NodeId, Oid};
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::node_client::NodeClient;
use monofs_router::Config;
use monofs_rpc::{Channel, ChannelPool};
use monofs_testkit::Repo;
use monofs_testkit::wait::{wait_for_async, wait_until_async};
use monofs_web::spawn_with;
use tokio::net::TcpListener;

use crate::SOON;
use crate::reconcile::on_disk;

fn repo() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1").file("d/g", vec![7u8; 100_000]);
    });
    repo
}

fn whole(repo: &Repo, path: &str) -> Ingest {
    Ingest::of(repo.url())
        .at("main")
        .shown_as(path)
        .strong()
        .hydrated()
}

fn channel(address: &str) -> Channel {
    ChannelPool::default().get(address).unwrap()
}

/// The commits that a node holds of the repository at `path`, asked of the node alone.
async fn commits_on(cluster: &Cluster, number: usize, path: &str) -> BTreeSet<Oid> {
    let mut node = NodeClient::new(channel(&cluster.node_address(number)));
    let storage_id = DisplayPath::new(path).unwrap().storage_id().to_string();
    let held = node.list_held(v1::ListHeldRequest { storage_id }).await;
    let Ok(held) = held else {
        return BTreeSet::new();
    };
    let held = held.into_inner().repositories;
    let snapshots = held.iter().flat_map(|held| &held.snapshots);
    snapshots
        .map(|snapshot| Oid::from_bytes(&snapshot.commit).unwrap())
        .collect()
}

async fn problems(admin: &mut AdminClient<Channel>) -> Vec<String> {
    let status = admin.status(v1::StatusRequest::default()).await.unwrap();
    status.into_inner().problems
}

/// Waits until the status says that a node holds this many copies that the catalogue does not name.
async fn wait_told(admin: &AdminClient<Channel>, node: &str, copies: &str) -> String {
    let begins = format!("{node} holds {copies} that the catalogue does not name");
    let told = || async {
        let lines = problems(&mut admin.clone()).await;
        lines.into_iter().find(|line| line.starts_with(&begins))
    };
    wait_for_async(&begins, SOON, told).await
}

async fn wait_nothing_told(cluster: &Cluster) {
    let nothing = || async {
        let lines = problems(&mut cluster.admin().unwrap()).await;
        !lines.iter().any(|line| line.contains("does not name"))
    };
    wait_until_async("no line about copies that nothing names", SOON, nothing).await;
}

async fn start_again(cluster: &mut Cluster) {
    cluster.start_router(0).await.unwrap();
    cluster.wait_members(2, 1).await.unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_lost_its_state_drops_nothing_and_an_ingest_takes_the_copies_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Builder::quick(dir.path()).start().await.unwrap();
    let repo = repo();
    let entry = cluster.ingest(whole(&repo, "h/r")).await.unwrap();
    assert_eq!(entry.holders.len(), 2);
    cluster.stop_router(0).await;
    std::fs::remove_dir_all(dir.path().join("router")).unwrap();
    start_again(&mut cluster).await;

    let admin = cluster.admin().unwrap();
    for node in ["node1", "node2"] {
        let line = wait_told(&admin, node, "1 copy").await;
        assert!(
            line.contains("h/r") && line.contains("node-files"),
            "{line}"
        );
    }
    let request = v1::NodeFilesRequest {
        node_id: "all".into(),
        path: String::new(),
    };
    let files = admin
        .clone()
        .node_files(request)
        .await
        .unwrap()
        .into_inner();
    for node in &files.nodes {
        let held = &node.repositories[0];
        assert_eq!((node.error.as_str(), held.path.as_str()), ("", "h/r"));
        let commits: Vec<_> = held.snapshots.iter().map(|s| s.commit.clone()).collect();
        assert_eq!(held.orphaned_commits, commits);
    }

    let again = cluster.ingest(whole(&repo, "h/r")).await.unwrap();
    assert_eq!(again.snapshot, entry.snapshot);
    assert_eq!(again.holders.len(), 2);
    wait_nothing_told(&cluster).await;
    for number in 0..2 {
        assert_eq!(
            on_disk(&cluster, number).await,
            BTreeSet::from(["h/r".into()])
        );
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_state_drops_neither_newer_commits_nor_repositories_that_came_later() {
    let dir = tempfile::tempdir().unwrap();
    let collects = |config: &mut Config| config.snapshot_grace = std::time::Duration::ZERO;
    let mut cluster = Builder::quick(dir.path()).start().await.unwrap();
    cluster.stop_router(0).await;
    cluster.change_router(collects);
    start_again(&mut cluster).await;
    let repo = repo();
    cluster.ingest(whole(&repo, "h/r")).await.unwrap();
    let state = dir.path().join("router");
    let older = dir.path().join("older");
    cluster.stop_router(0).await;
    copy_dir(&state, &older);
    start_again(&mut cluster).await;
    repo.commit(|c| {
        c.file("f", "2");
    });
    let newer = cluster.refresh("h/r").await.unwrap().snapshot.unwrap();
    cluster.ingest(whole(&repo, "h/later")).await.unwrap();
    for number in 0..2 {
        let one = || async { commits_on(&cluster, number, "h/r").await.len() == 1 };
        wait_until_async("the older commit is collected", SOON, one).await;
    }
    cluster.stop_router(0).await;
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&older, &state).unwrap();
    start_again(&mut cluster).await;

    let admin = cluster.admin().unwrap();
    for (number, node) in ["node1", "node2"].into_iter().enumerate() {
        wait_told(&admin, node, "2 copies").await;
        assert!(
            commits_on(&cluster, number, "h/r")
                .await
                .contains(&newer.commit)
        );
    }
    let shown = cluster.refresh("h/r").await.unwrap();
    assert_eq!(shown.snapshot.unwrap(), newer);
    cluster.ingest(whole(&repo, "h/later")).await.unwrap();
    wait_nothing_told(&cluster).await;
    for number in 0..2 {
        for path in ["h/r", "h/later"] {
            let only_newer = || async {
                commits_on(&cluster, number, path).await == BTreeSet::from([newer.commit])
            };
            wait_until_async("the newer commit stays", SOON, only_newer).await;
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_of_another_cluster_drops_nothing_on_a_node_that_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Builder::quick(dir.path()).start().await.unwrap();
    let repo = repo();
    let entry = cluster.ingest(whole(&repo, "h/r")).await.unwrap();
    let store = EmbeddedState::open(dir.path().join("foreign")).await;
    let store: Arc<dyn StateStore> = Arc::new(store.unwrap());
    let mut config = Config::new("unused".into());
    config.health_interval = std::time::Duration::from_millis(50);
    config.worker_interval = std::time::Duration::from_millis(50);
    config.members = vec![StaticMember {
        id: NodeId::new("node1").unwrap(),
        named: true,
        role: Role::Node,
        address: cluster.node_address(0),
        external_address: String::new(),
        weight: 1.0,
        zone: String::new(),
    }];
    let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let foreign = spawn_with(config, store, grpc, http).await.unwrap();
    let admin = AdminClient::new(channel(&foreign.address().to_string()));
    wait_told(&admin, "node1", "1 copy").await;
    let commit = entry.snapshot.unwrap().commit;
    assert_eq!(
        commits_on(&cluster, 0, "h/r").await,
        BTreeSet::from([commit])
    );
    foreign.shutdown(SOON).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_drops_only_commits_that_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Builder::quick(dir.path()).start().await.unwrap();
    let repo = repo();
    let first = cluster.ingest(whole(&repo, "h/r")).await.unwrap();
    let first = first.snapshot.unwrap().commit;
    repo.commit(|c| {
        c.file("f", "2");
    });
    let second = cluster.refresh("h/r").await.unwrap().snapshot.unwrap();
    let mut node = NodeClient::new(channel(&cluster.node_address(0)));
    let held = || commits_on(&cluster, 0, "h/r");
    let two = || async { held().await.len() == 2 };
    wait_until_async("the node holds both commits", SOON, two).await;
    let request = |commits: &[Oid], keep_others| v1::DropRequest {
        storage_id: DisplayPath::new("h/r").unwrap().storage_id().to_string(),
        only_commits: commits
            .iter()
            .map(monofs_proto::convert::oid_bytes)
            .collect(),
        keep_others,
    };
    node.drop(request(&[], false)).await.unwrap_err();
    node.drop(request(&[first], false)).await.unwrap_err();
    let keep = v1::RetainRequest {
        storage_id: request(&[], false).storage_id,
        commits: vec![monofs_proto::convert::oid_bytes(&first)],
    };
    node.retain(keep).await.unwrap_err();
    assert!(two().await, "nothing was dropped");
    let none = node.drop(request(&[], true)).await.unwrap().into_inner();
    assert!(!none.existed && two().await, "nothing was named");
    node.drop(request(&[first], true)).await.unwrap();
    assert_eq!(held().await, BTreeSet::from([second.commit]));
    node.drop(request(&[first, second.commit], true))
        .await
        .unwrap();
    assert_eq!(on_disk(&cluster, 0).await, BTreeSet::new());
    cluster.shutdown().await;
}
