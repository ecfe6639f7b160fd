//! A router without listeners for the tests of this crate: its loops run. Members are announcements
//! only, at whose addresses nothing listens, or [`peers`] that speak the protocol.

pub mod peers;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use monofs_control::state::EmbeddedState;
use monofs_model::view::Role;
use monofs_model::{
    Actor, Consistency, ContentMode, DisplayPath, Door, Member, MemberState, NodeId, Oid, RefName,
    Repository, RepositoryState, RequestId, Snapshot, SourceUrl,
};
use monofs_rpc::Channel;
use monofs_testkit::wait::wait_until;
use tokio_util::sync::DropGuard;

use crate::parts::Parts;
use crate::{Config, RouterHandle, start_with};
use peers::{FakeFetcher, FakeNode, serve_anywhere};

/// How long a change may take to be seen.
pub const SOON: Duration = Duration::from_secs(20);

pub struct TestRouter {
    pub handle: RouterHandle,
    _dir: tempfile::TempDir,
}

impl TestRouter {
    /// A router for two copies, on a state of its own.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// [`TestRouter::start`], with other settings.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = EmbeddedState::open(dir.path().to_owned()).await;
        let mut config = Config::new(dir.path().to_owned());
        // Members that are announced stay what they were announced as, and no loop meddles.
        config.unhealthy_threshold = Duration::from_secs(3600);
        config.health_interval = Duration::from_secs(3600);
        config.worker_interval = Duration::from_secs(3600);
        config.refresh_interval = Duration::ZERO;
        config.router_id = "router1".into();
        change(&mut config);
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let handle = start_with(
            config,
            Arc::new(store.expect("a state")),
            anywhere,
            anywhere,
        )
        .await
        .expect("a router");
        Self { handle, _dir: dir }
    }

    /// Serves its gRPC services until the guard is dropped; gives a channel to them.
    pub async fn serve(&self) -> (Channel, DropGuard) {
        let (address, stop) = serve_anywhere(self.handle.routes.clone()).await;
        let channel = self.parts().fleet.channels.get(&address);
        (channel.expect("an address"), stop)
    }

    pub fn parts(&self) -> &Arc<Parts> {
        &self.handle.parts
    }

    /// Announces a node that readers may use, and waits until it is shown.
    pub async fn node(&self, id: &str) {
        self.node_at(id, "127.0.0.1:9").await;
    }

    /// [`TestRouter::node`] at an address.
    pub async fn node_at(&self, id: &str, address: &str) {
        let members = &self.parts().fleet.members;
        let announced = members.announced(member(id, Role::Node, address)).await;
        announced.expect("admitted");
        wait_until("a node is shown as active", SOON, || {
            let view = members.view();
            let mut nodes = view.nodes();
            nodes.any(|node| node.id.as_str() == id && node.state == MemberState::Active)
        });
    }

    /// Starts a node that speaks the protocol, announces it, and waits until it is shown.
    pub async fn fake_node(&self, id: &str) -> FakeNode {
        let node = FakeNode::start(id).await;
        self.node_at(id, &node.address).await;
        node
    }

    /// Starts a fetcher whose remote is at `snapshot`, and announces it.
    pub async fn fake_fetcher(&self, snapshot: Snapshot) -> FakeFetcher {
        let fetcher = FakeFetcher::start(snapshot).await;
        let member = member("f1", Role::Fetcher, &fetcher.address);
        let announced = self.parts().fleet.members.announced(member).await;
        announced.expect("admitted");
        wait_until("a fetcher is shown", SOON, || {
            let view = self.parts().fleet.members.view();
            view.fetchers().any(|fetcher| fetcher.id.as_str() == "f1")
        });
        fetcher
    }

    /// The nodes that are recorded to hold what `path` shows.
    pub fn holders(&self, path: &str) -> Vec<String> {
        let entry = self.parts().control.catalog.require(path);
        let holders = entry.expect("it is there").holders.clone();
        holders.into_iter().map(String::from).collect()
    }

    /// Records a repository that `holders` hold at a commit made of `byte`.
    pub async fn repository(&self, path: &str, holders: &[&str], byte: u8) -> Arc<Repository> {
        let control = &self.parts().control;
        let entries = &control.entries;
        let new = entry(path);
        entries.create(actor(), new.clone()).await.expect("created");
        let (first, more) = holders.split_first().expect("a holder");
        let flipped = entries
            .flip(actor(), &new, &snapshot(byte), &node_id(first))
            .await;
        let flipped = flipped.expect("published");
        for holder in more {
            let id = node_id(holder);
            let added = entries.add_holder(actor(), &flipped.path, flipped.generation, &id);
            added.await.expect("added");
        }
        control.catalog.get(&flipped.path).expect("it is there")
    }
}

/// On whose behalf these tests change something.
pub fn actor() -> &'static Actor {
    static ACTOR: LazyLock<Actor> =
        LazyLock::new(|| Actor::anonymous(RequestId::from_number(1), Door::Worker));
    &ACTOR
}

pub fn node_id(id: &str) -> NodeId {
    NodeId::new(id).expect("an id")
}

pub fn path(text: &str) -> DisplayPath {
    DisplayPath::new(text).expect("a path")
}

pub fn member(id: &str, role: Role, address: &str) -> Member {
    Member {
        id: node_id(id),
        role,
        address: address.to_owned(),
        external_address: String::new(),
        weight: 1.0,
        zone: String::new(),
        state: MemberState::Active,
        version: "1".into(),
        capacity_bytes: 0,
        used_bytes: 0,
        incarnation: 1,
        share_percent: 100,
        failed_over: false,
    }
}

/// A repository whose first ingest has not ended.
pub fn entry(at: &str) -> Repository {
    Repository {
        path: path(at),
        source: SourceUrl::new("https://example.com/a/b").expect("a source"),
        ref_name: RefName::new("main").expect("a ref"),
        state: RepositoryState::Ingesting,
        snapshot: None,
        generation: 0,
        generation_time: None,
        root_time: None,
        holders: Vec::new(),
        content: ContentMode::Eager,
        consistency: Consistency::Eventual,
        created_at: 1,
        refreshed_at: 0,
        last_error: String::new(),
        shadowed_by: None,
    }
}

pub fn snapshot(byte: u8) -> Snapshot {
    let oid = Oid::from_bytes(&[byte; 20]).expect("twenty bytes");
    Snapshot {
        commit: oid,
        root: oid,
        commit_time: 1,
        trees: 1,
        blobs: 1,
        bytes: 1,
        submodules: Vec::new(),
        generations: None,
    }
}
