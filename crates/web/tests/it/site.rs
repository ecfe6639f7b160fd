//! A router in this process with both listeners, and members that are announcements only: its
//! catalogue, tables and history say what a test writes there.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use monofs_control::state::EmbeddedState;
use monofs_model::view::Role;
use monofs_model::{
    Actor, Consistency, ContentMode, DisplayPath, Door, Member, MemberState, NodeId, Oid, RefName,
    Repository, RepositoryState, RequestId, Snapshot, SourceUrl,
};
use monofs_proto::v1;
use monofs_router::Config;
use monofs_router::parts::Parts;
use monofs_testkit::wait::wait_until;
use monofs_web::RunningRouter;
use tokio::net::TcpListener;

use crate::SOON;
use crate::web::{Answer, ask, get};

pub struct TestSite {
    pub parts: Arc<Parts>,
    /// Where HTTP is served, `host:port`.
    pub at: String,
    /// Where gRPC is served.
    pub grpc: String,
    _running: RunningRouter,
    _dir: tempfile::TempDir,
}

impl TestSite {
    /// A router for two copies. Members stay what they are announced as, and no loop meddles.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedState::open(dir.path().to_owned()).await.unwrap();
        let mut config = Config::new(dir.path().to_owned());
        config.unhealthy_threshold = Duration::from_secs(3600);
        config.health_interval = Duration::from_secs(3600);
        config.worker_interval = Duration::from_secs(3600);
        config.refresh_interval = Duration::ZERO;
        config.call_timeout = Duration::from_secs(2);
        config.router_id = "router1".into();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let handle = monofs_router::start_with(
            config,
            Arc::new(store),
            grpc.local_addr().unwrap(),
            http.local_addr().unwrap(),
        )
        .await
        .unwrap();
        let parts = handle.parts.clone();
        let running = monofs_web::serve(handle, grpc, http).await.unwrap();
        Self {
            parts,
            at: running.http_address().to_string(),
            grpc: running.address().to_string(),
            _running: running,
            _dir: dir,
        }
    }

    /// Announces a member, changed from what it usually is, and waits until it is shown.
    pub async fn member(&self, id: &str, role: Role, change: impl FnOnce(&mut Member)) {
        let mut member = Member {
            id: NodeId::new(id).unwrap(),
            role,
            address: "127.0.0.1:9".into(),
            external_address: String::new(),
            weight: 1.0,
            zone: String::new(),
            state: MemberState::Active,
            version: "1.2.3".into(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: 1,
            share_percent: 100,
            failed_over: false,
        };
        change(&mut member);
        let members = &self.parts.fleet.members;
        members.announced(member).await.unwrap();
        wait_until("a member is shown", SOON, || {
            let view = members.view();
            let mut all = view.members.iter();
            all.any(|member| member.id.as_str() == id && member.state == MemberState::Active)
        });
    }

    pub async fn node(&self, id: &str) {
        self.member(id, Role::Node, |_| {}).await;
    }

    /// Records a repository of `bytes` that `holders` hold.
    pub async fn repository(&self, path: &str, holders: &[&str], bytes: u64) -> Arc<Repository> {
        let control = &self.parts.control;
        let new = entry(path);
        control.entries.create(actor(), new.clone()).await.unwrap();
        let commit = snapshot(bytes);
        let holders: Vec<NodeId> = holders.iter().map(|id| NodeId::new(id).unwrap()).collect();
        let flip = control.entries.flip(actor(), &new, &commit, &holders[0]);
        let flipped = flip.await.unwrap();
        for holder in &holders[1..] {
            let generation = flipped.generation;
            let add = control
                .entries
                .add_holder(actor(), &flipped.path, generation, holder);
            add.await.unwrap();
        }
        control.catalog.get(&flipped.path).unwrap()
    }

    /// Records a job as it is given.
    pub async fn job(&self, job: v1::Job) {
        let jobs = &self.parts.control.tables.jobs;
        let set = jobs.update(actor(), &job.id, |_| Ok(Some(job.clone())));
        set.await.unwrap();
    }

    /// The page at `path` as text, which must be there.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.page_or_error(path).await;
        let text = shown(&answer);
        assert_eq!(answer.status, 200, "{path}: {text}");
        text
    }

    /// What a browser is answered at `path`.
    pub async fn page_or_error(&self, path: &str) -> Answer {
        ask(&self.at, "GET", path, &[("accept", "text/html")], b"").await
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(&self.at, path).await
    }
}

/// On whose behalf these tests write past the doors.
pub fn actor() -> &'static Actor {
    static ACTOR: LazyLock<Actor> =
        LazyLock::new(|| Actor::anonymous(RequestId::from_number(1), Door::Worker));
    &ACTOR
}

/// A repository whose first ingest has not ended.
pub fn entry(path: &str) -> Repository {
    Repository {
        path: DisplayPath::new(path).unwrap(),
        source: SourceUrl::new("https://example.com/a/b").unwrap(),
        ref_name: RefName::new("main").unwrap(),
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

/// A commit of this size; sizes name commits.
pub fn snapshot(bytes: u64) -> Snapshot {
    let oid = Oid::from_bytes(&[bytes as u8; 20]).unwrap();
    Snapshot {
        commit: oid,
        root: oid,
        commit_time: 1_700_000_000,
        trees: 3,
        blobs: 12_345,
        bytes,
        submodules: Vec::new(),
        generations: None,
    }
}

/// The text of a page: without tags, entities resolved, runs of white space as one space.
pub fn shown(answer: &Answer) -> String {
    let html = String::from_utf8_lossy(&answer.body);
    let mut text = String::new();
    let mut is_tag = false;
    for c in html.chars() {
        match c {
            '<' => is_tag = true,
            '>' => {
                is_tag = false;
                text.push(' ');
            }
            c if !is_tag => text.push(c),
            _ => {}
        }
    }
    let text = text
        .replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#39;", "'")
        .replace("&#38;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
