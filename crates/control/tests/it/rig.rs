//! Routers that share one state store, each with faults of its own.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use monofs_control::Control;
use monofs_control::state::{EmbeddedState, StateStore};
use monofs_model::{
    Actor, Consistency, ContentMode, DisplayPath, Door, NodeId, Oid, RefName, Repository,
    RepositoryState, RequestId, Snapshot, SourceUrl,
};
use monofs_proto::v1;
use monofs_store::state::Write;
use prost::Message;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::faulty::FaultyState;

pub const SOON: Duration = Duration::from_secs(20);
pub const LEASE: Duration = Duration::from_secs(1);

/// A state store that any number of routers of a test share.
pub struct SharedStore {
    _dir: tempfile::TempDir,
    pub raw: Arc<EmbeddedState>,
}

/// One router's control state.
pub struct TestRouter {
    pub control: Arc<Control>,
    pub faults: Arc<FaultyState>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl SharedStore {
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let raw = EmbeddedState::open(dir.path().to_owned()).await.unwrap();
        Self {
            _dir: dir,
            raw: Arc::new(raw),
        }
    }

    /// A router on it that follows, and takes no part yet.
    pub async fn router(&self, id: &str) -> TestRouter {
        let faults = FaultyState::new(self.raw.clone());
        let stop = CancellationToken::new();
        let own = status(id);
        let control = Control::start(faults.clone(), own, LEASE, &stop)
            .await
            .unwrap();
        TestRouter {
            control,
            faults,
            stop,
            tasks: Vec::new(),
        }
    }

    /// Writes past all routers.
    pub async fn put(&self, rows: &[(&str, &[u8])]) -> u64 {
        let writes = rows.iter().map(|(key, value)| Write::Put {
            key: key.as_bytes().to_vec(),
            value: value.to_vec(),
        });
        let outcome = self.raw.commit(Vec::new(), writes.collect()).await.unwrap();
        match outcome {
            monofs_store::state::CommitOutcome::Done { revision } => revision,
            monofs_store::state::CommitOutcome::Conflict => panic!("nothing was compared"),
        }
    }
}

impl TestRouter {
    /// Lets it be seen, and lead.
    pub fn take_part(&mut self) {
        self.tasks = self.control.take_part(&self.stop);
    }

    /// Stops it; returns when it released what it held.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            tokio::time::timeout(SOON, task)
                .await
                .expect("it ends")
                .unwrap();
        }
    }

    /// Returns when its memory has the commit of `revision`.
    pub async fn sees(&self, revision: u64) {
        let mut applied = self.control.shared.applied();
        tokio::time::timeout(SOON, applied.wait_for(|applied| *applied >= revision))
            .await
            .expect("the watch goes on")
            .unwrap();
    }

    /// Returns when its memory has everything that the store has.
    pub async fn catches_up(&self, store: &SharedStore) {
        self.sees(store.raw.scan("").await.unwrap().revision).await;
    }

    /// Returns when it leads, or does not.
    pub async fn leads(&self, leads: bool) {
        let mut leading = self.control.leading.clone();
        tokio::time::timeout(SOON, leading.wait_for(|leading| *leading == leads))
            .await
            .expect("leadership changes")
            .unwrap();
    }
}

/// On whose behalf these tests change the state.
pub fn actor() -> &'static Actor {
    static ACTOR: LazyLock<Actor> =
        LazyLock::new(|| Actor::anonymous(RequestId::from_number(1), Door::Worker));
    &ACTOR
}

pub fn status(id: &str) -> v1::RouterStatus {
    v1::RouterStatus {
        router_id: id.to_owned(),
        ..v1::RouterStatus::default()
    }
}

/// What the creations of a router of an older version compare. It knows no repository inside
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldRouter {
    ComparesDirectories,
    ComparesNames,
}

/// Writes what such a router says about itself while it runs.
pub async fn old_router(store: &dyn StateStore, old: OldRouter) {
    let old = v1::RouterStatus {
        compares_directories: old == OldRouter::ComparesDirectories,
        ..status("old")
    };
    let row = Write::Put {
        key: "router/old".into(),
        value: [&[1], &old.encode_to_vec()[..]].concat(),
    };
    store.commit(Vec::new(), vec![row]).await.unwrap();
}

pub fn path(text: &str) -> DisplayPath {
    DisplayPath::new(text).unwrap()
}

pub fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

/// An entry without a commit.
pub fn entry(at: &str) -> Repository {
    Repository {
        path: path(at),
        source: SourceUrl::new("https://forge.example/x.git").unwrap(),
        ref_name: RefName::new("main").unwrap(),
        state: RepositoryState::Ingesting,
        snapshot: None,
        generation: 0,
        generation_time: None,
        root_time: None,
        holders: Vec::new(),
        content: ContentMode::Eager,
        consistency: Consistency::Eventual,
        created_at: 0,
        refreshed_at: 0,
        last_error: String::new(),
        shadowed_by: None,
    }
}

/// The snapshot of a commit with this number.
pub fn snapshot(number: u64) -> Snapshot {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    let commit = Oid::from_bytes(&digest).unwrap();
    Snapshot {
        commit,
        root: commit,
        commit_time: number as i64,
        trees: 1,
        blobs: number,
        bytes: 100 * number,
        submodules: Vec::new(),
        generations: None,
    }
}
