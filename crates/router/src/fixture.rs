//! A router without listeners and with members that are announcements only, for the tests of this
//! crate: its loops run, nothing listens at the members' addresses.

mod fake_fetcher;
mod fake_node;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use monofs_control::state::EmbeddedState;
use monofs_model::view::Role;
use monofs_model::{
    Actor, Consistency, ContentMode, DisplayPath, Door, Member, MemberState, NodeId, Oid, RefName,
    Repository, RepositoryState, RequestId, Snapshot, SourceUrl,
};
use monofs_testkit::wait::wait_until;

pub use fake_fetcher::FakeFetcher;
pub use fake_node::{FakeAdoption, FakeNode};

use crate::parts::Parts;
use crate::{Config, RouterHandle, start_with};

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

    /// Announces a fetcher at an address, and waits until it is shown.
    pub async fn fetcher_at(&self, id: &str, address: &str) {
        let members = &self.parts().fleet.members;
        let announced = members.announced(member(id, Role::Fetcher, address)).await;
        announced.expect("admitted");
        wait_until("a fetcher is shown", SOON, || {
            let view = members.view();
            view.fetchers().any(|fetcher| fetcher.id.as_str() == id)
        });
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
        holders: Vec::new(),
        content: ContentMode::Eager,
        consistency: Consistency::Eventual,
        created_at: 1,
        refreshed_at: 0,
        last_error: String::new(),
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
    }
}
