//! A catalogue of many repositories: what a request costs does not depend on how many there are.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use monofs_control::seed_catalogue;
use monofs_control::state::{CommitBatch, EmbeddedState, HeldKey, StateStore};
use monofs_model::{
    Consistency, ContentMode, DisplayPath, NodeId, Oid, RefName, Repository, RepositoryState,
    Result, Snapshot, SourceUrl,
};
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_proto::v1::watch_request::Message as Say;
use monofs_proto::v1::watch_response::Message as Hear;
use monofs_router::Config;
use monofs_store::state::{CommitOutcome, Compare, Scan, Write};
use monofs_web::{RunningRouter, spawn_with};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const MANY: usize = 20_000;
const ORGANISATIONS: usize = 100;

/// Counts what is asked of the state store.
pub struct Counting {
    store: EmbeddedState,
    pub scans: AtomicUsize,
    pub writes: AtomicUsize,
}

impl Counting {
    pub async fn open(dir: &Path) -> Arc<Self> {
        let store = EmbeddedState::open(dir.to_owned()).await.unwrap();
        Arc::new(Self {
            store,
            scans: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl StateStore for Counting {
    async fn scan(&self, prefix: &str) -> Result<Scan> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.store.scan(prefix).await
    }

    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome> {
        self.writes.fetch_add(writes.len(), Ordering::Relaxed);
        self.store.commit(compares, writes).await
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<CommitBatch>>> {
        self.store.watch(revision).await
    }

    async fn hold(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<Option<HeldKey>> {
        self.store.hold(key, value, ttl).await
    }

    async fn reach(&self) -> Result<()> {
        self.store.reach().await
    }

    fn epoch(&self) -> String {
        self.store.epoch()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }
}

/// A router without members.
pub struct Router {
    running: RunningRouter,
}

impl Router {
    pub async fn start(store: Arc<Counting>) -> Self {
        let (grpc, http) = (
            TcpListener::bind("127.0.0.1:0").await,
            TcpListener::bind("127.0.0.1:0").await,
        );
        let config = Config {
            worker_interval: Duration::from_millis(5),
            ..Config::new("unused".into())
        };
        Self {
            running: spawn_with(config, store, grpc.unwrap(), http.unwrap())
                .await
                .unwrap(),
        }
    }

    async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.running.address());
        Channel::from_shared(address)
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    async fn watch(&self, resume: Option<v1::Position>, pages: bool) -> Watch {
        let (say, said) = mpsc::channel(4);
        let hello = v1::WatchHello {
            client_id: "test".into(),
            resume,
            pages,
            ..Default::default()
        };
        say.send(v1::WatchRequest {
            message: Some(Say::Hello(hello)),
        })
        .await
        .unwrap();
        let mut client = CatalogClient::new(self.channel().await);
        Watch {
            heard: client
                .watch(ReceiverStream::new(said))
                .await
                .unwrap()
                .into_inner(),
            _say: say,
        }
    }
}

struct Watch {
    heard: Streaming<v1::WatchResponse>,
    _say: mpsc::Sender<v1::WatchRequest>,
}

impl Watch {
    /// The next delta.
    async fn delta(&mut self) -> v1::CatalogDelta {
        loop {
            if let Some(Hear::Delta(delta)) = self.heard.message().await.unwrap().unwrap().message {
                return delta;
            }
        }
    }

    /// The deltas up to the one that completes.
    async fn run(&mut self) -> Vec<v1::CatalogDelta> {
        let mut deltas = Vec::new();
        loop {
            deltas.push(self.delta().await);
            if deltas.last().unwrap().complete {
                return deltas;
            }
        }
    }
}

fn path(number: usize) -> String {
    format!(
        "forge.example/org-{:03}/project-{number:05}",
        number % ORGANISATIONS
    )
}

fn entry(path: &str) -> Repository {
    let oid = |byte| Oid::from_bytes(&[byte; 20]).unwrap();
    let snapshot = Snapshot {
        commit: oid(1),
        root: oid(2),
        commit_time: 5,
        trees: 1,
        blobs: 1,
        bytes: 1,
        submodules: vec![],
        generations: None,
    };
    Repository {
        path: DisplayPath::new(path).unwrap(),
        source: SourceUrl::new(&format!("https://{path}.git")).unwrap(),
        ref_name: RefName::new("main").unwrap(),
        state: RepositoryState::Ready,
        snapshot: Some(snapshot),
        generation: 1,
        generation_time: None,
        root_time: None,
        holders: vec![NodeId::new("n1").unwrap()],
        content: ContentMode::Eager,
        consistency: Consistency::Eventual,
        created_at: 1,
        refreshed_at: 1,
        last_error: String::new(),
        shadowed_by: None,
    }
}

async fn seeded(dir: &Path) -> Arc<Counting> {
    let mut paths: Vec<String> = (0..MANY).map(path).collect();
    paths.sort();
    let store = Counting::open(dir).await;
    assert_eq!(
        seed_catalogue(store.clone(), paths.iter().map(|path| entry(path)))
            .await
            .unwrap(),
        MANY
    );
    store
}

pub async fn all_repositories(
    admin: &mut AdminClient<Channel>,
    prefix: &str,
    page_size: u32,
) -> Vec<String> {
    let mut paths = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRepositoriesRequest {
            prefix: prefix.to_owned(),
            page_token,
            page_size,
        };
        let page = admin.list_repositories(request).await.unwrap().into_inner();
        assert!(page.repositories.len() <= page_size as usize);
        paths.extend(
            page.repositories
                .into_iter()
                .map(|repository| repository.path),
        );
        if page.next_page_token.is_empty() {
            return paths;
        }
        page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_first_load_is_bounded_messages_and_a_resumption_only_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let router = Router::start(seeded(dir.path()).await).await;
    let mut first = router.watch(None, true).await;
    let load = first.run().await;
    assert!(load[0].reset && load[1..].iter().all(|delta| !delta.reset));
    let sizes: Vec<usize> = load.iter().map(Message::encoded_len).collect();
    assert!(sizes.iter().all(|size| *size < 66 << 10), "{sizes:?}");
    let total: usize = sizes.iter().sum();
    assert!(total / MANY < 250, "{total} bytes for {MANY} repositories");
    assert!(
        sizes.len() <= total / (64 << 10) + 2,
        "{} messages for {total} bytes",
        sizes.len()
    );
    let paths: BTreeSet<String> = load
        .iter()
        .flat_map(entries)
        .map(|repository| repository.path)
        .collect();
    assert_eq!(paths, (0..MANY).map(path).collect());

    // Who is connected hears the change alone, and so does who resumes.
    let position = load.last().unwrap().position.clone();
    let mut admin = router.admin().await;
    admin
        .delete(v1::DeleteRequest { path: path(7) })
        .await
        .unwrap();
    let told = first.run().await;
    let resumed = router.watch(position.clone(), true).await.run().await;
    for deltas in [&told, &resumed] {
        assert_eq!(deltas.len(), 1);
        assert_eq!(
            (deltas[0].removed_paths.clone(), entries(&deltas[0]).len()),
            (vec![path(7)], 0)
        );
        let revision = |position: &Option<v1::Position>| position.as_ref().unwrap().revision;
        assert!(!deltas[0].reset && revision(&deltas[0].position) > revision(&position));
    }
    // A new client is sent the listing that was made before, and then the change: the same bytes,
    // once more.
    let again = router.watch(None, true).await.run().await;
    assert_eq!(
        again[..again.len() - 1]
            .iter()
            .map(|delta| &delta.page)
            .collect::<Vec<_>>(),
        pages(&load)
    );
    assert_eq!(again.last().unwrap().removed_paths, [path(7)]);
    assert_eq!(again.last().unwrap().position, resumed[0].position);
    // Who missed nothing is told so.
    let current = resumed[0].position.clone();
    let nothing = router.watch(current.clone(), true).await.run().await;
    assert_eq!(
        (
            nothing.len(),
            &nothing[0].position,
            entries(&nothing[0]).len()
        ),
        (1, &current, 0)
    );
    // From another history everything is sent.
    let stranger = v1::Position {
        epoch: "another".into(),
        revision: 1,
    };
    assert!(router.watch(Some(stranger), true).await.delta().await.reset);
}

fn entries(delta: &v1::CatalogDelta) -> Vec<v1::Repository> {
    let page = v1::CatalogPage::decode(delta.page.clone()).unwrap();
    page.upserts
        .into_iter()
        .chain(delta.upserts.clone())
        .collect()
}

fn pages(load: &[v1::CatalogDelta]) -> Vec<&bytes::Bytes> {
    load.iter()
        .map(|delta| &delta.page)
        .filter(|page| !page.is_empty())
        .collect()
}

#[tokio::test]
async fn a_client_that_knows_no_pages_gets_the_same_entries() {
    let dir = tempfile::tempdir().unwrap();
    let router = Router::start(seeded(dir.path()).await).await;
    let mut watch = router.watch(None, false).await;
    let load = watch.run().await;
    assert!(
        load.iter()
            .all(|delta| delta.page.is_empty() && delta.removed_paths.is_empty())
    );
    assert_eq!(
        load.iter().map(|delta| delta.upserts.len()).sum::<usize>(),
        MANY
    );
    router
        .admin()
        .await
        .delete(v1::DeleteRequest { path: path(0) })
        .await
        .unwrap();
    assert_eq!(watch.delta().await.removed_paths, [path(0)]);
}

#[tokio::test]
async fn listings_are_paged_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    let router = Router::start(seeded(dir.path()).await).await;
    let mut admin = router.admin().await;
    let mut expected: Vec<String> = (0..MANY).map(path).collect();
    expected.sort();
    assert_eq!(all_repositories(&mut admin, "", 999).await, expected);
    let inside = all_repositories(&mut admin, "forge.example/org-042", 7).await;
    assert_eq!(inside.len(), MANY / ORGANISATIONS);
    assert!(
        inside
            .iter()
            .all(|path| path.starts_with("forge.example/org-042/"))
    );
    assert_eq!(all_repositories(&mut admin, &path(42), 1).await, [path(42)]);
    // Names directly below, with pages smaller than what is below one name.
    let mut catalog = CatalogClient::new(router.channel().await);
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListRequest {
            prefix: "forge.example".into(),
            page_token,
            page_size: 7,
        };
        let page = catalog.list(request).await.unwrap().into_inner();
        names.extend(
            page.entries
                .into_iter()
                .map(|entry| (entry.name, entry.repository.is_some())),
        );
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(
        names,
        (0..ORGANISATIONS)
            .map(|n| (format!("org-{n:03}"), false))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn requests_and_idle_workers_leave_the_state_store_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path()).await;
    let router = Router::start(store.clone()).await;
    let mut admin = router.admin().await;
    let scans = || store.scans.load(Ordering::Relaxed);
    let writes = store.writes.load(Ordering::Relaxed);
    for number in 0..100 {
        let request = v1::GetRepositoryRequest { path: path(number) };
        assert!(
            admin
                .get_repository(request)
                .await
                .unwrap()
                .into_inner()
                .repository
                .is_some()
        );
    }
    let status = admin
        .status(v1::StatusRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.repositories_ready, status.repositories_failed),
        (MANY as u64, 0)
    );
    assert_eq!(store.writes.load(Ordering::Relaxed), writes);
    // One entry, its retained snapshot, the commits that it showed, and its last generation.
    admin
        .delete(v1::DeleteRequest { path: path(3) })
        .await
        .unwrap();
    assert_eq!(store.writes.load(Ordering::Relaxed), writes + 4);
    // The load reads entries and names, the seeding looked for entries, the collector looks at
    // what is retained when the router starts, and a deletion at the last generation; what was deleted now is not due for the grace.
    assert!(scans() <= 6, "{} scans", scans());
}
