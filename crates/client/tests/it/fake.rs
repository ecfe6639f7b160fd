//! A router and nodes that serve repositories from memory, with faults on demand.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use monofs_client::{Config, Mounted, mount};
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{DisplayPath, EntryKind, Error, ObjectFormat, Oid, TreeRecord};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_proto::v1::catalog_server::{Catalog, CatalogServer};
use monofs_proto::v1::content_server::{Content, ContentServer};
use monofs_rpc::server::{RunningServer, bind, serve};
use monofs_rpc::status::to_status;
use monofs_store::frame;
use monofs_testkit::Repo;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

type Replies<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Serve,
    /// Fails every request.
    Fail,
    /// Answers, but this much later.
    Slow(Duration),
    /// Never answers.
    Silent,
    /// Holds nothing.
    Empty,
    /// Answers with bytes that do not match.
    Corrupt,
}

/// All objects of all repositories.
#[derive(Default)]
pub struct Objects {
    records: HashMap<Oid, TreeRecord>,
    blobs: HashMap<Oid, Bytes>,
}

/// What one content server was asked.
#[derive(Default)]
pub struct Asked {
    pub trees: AtomicU64,
    pub blobs: AtomicU64,
    /// Chunks by blob, in the order in which they were asked for.
    pub spans: Mutex<Vec<(Oid, u32, u32)>>,
    /// The commit of each request for contents.
    pub commits: Mutex<Vec<Oid>>,
}

#[derive(Clone)]
struct Peer {
    objects: Arc<Mutex<Objects>>,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<Asked>,
}

impl Peer {
    async fn enter(&self) -> Result<Mode, Status> {
        let mode = *self.mode.lock();
        match mode {
            Mode::Fail => Err(to_status(Error::unavailable("told to fail"))),
            Mode::Silent => std::future::pending().await,
            Mode::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(mode)
            }
            _ => Ok(mode),
        }
    }

    /// The answers for one span, each made when it is sent.
    fn chunks(
        &self,
        mode: Mode,
        span: &v1::BlobSpan,
    ) -> Box<dyn Iterator<Item = v1::GetBlobsResponse> + Send> {
        let oid = Oid::from_bytes(&span.oid).unwrap();
        self.asked
            .spans
            .lock()
            .push((oid, span.first_chunk, span.chunk_count));
        let blob = self.objects.lock().blobs.get(&oid).cloned();
        let Some(blob) = blob.filter(|_| mode != Mode::Empty) else {
            let missing = v1::GetBlobsResponse {
                chunks: vec![],
                missing: vec![span.oid.clone()],
            };
            return Box::new(std::iter::once(missing));
        };
        let all = frame::chunk_count(blob.len() as u64) as u32;
        let count = if span.chunk_count == 0 {
            all - span.first_chunk
        } else {
            span.chunk_count
        };
        let raw_oid = span.oid.clone();
        Box::new(
            (span.first_chunk..span.first_chunk + count).map(move |index| {
                let start = index as usize * CHUNK_BYTES;
                let raw = &blob[start..blob.len().min(start + CHUNK_BYTES)];
                let frame = if mode == Mode::Corrupt {
                    frame::encode(b"something else")
                } else {
                    frame::encode(raw)
                };
                let chunk = v1::BlobChunk {
                    oid: raw_oid.clone(),
                    index,
                    frame,
                };
                v1::GetBlobsResponse {
                    chunks: vec![chunk],
                    missing: vec![],
                }
            }),
        )
    }
}

#[tonic::async_trait]
impl Content for Peer {
    type GetTreesStream = Replies<v1::GetTreesResponse>;
    type GetBlobsStream = Replies<v1::GetBlobsResponse>;

    async fn get_trees(
        &self,
        request: Request<v1::GetTreesRequest>,
    ) -> Result<Response<Self::GetTreesStream>, Status> {
        let mode = self.enter().await?;
        let request = request.into_inner();
        self.asked.trees.fetch_add(1, Ordering::Relaxed);
        let objects = self.objects.lock();
        let mut queue: std::collections::VecDeque<(Oid, bool)> = request
            .oids
            .iter()
            .map(|raw| (Oid::from_bytes(raw).unwrap(), true))
            .collect();
        let (mut answer, mut budget) = (v1::GetTreesResponse::default(), request.byte_budget);
        while let Some((oid, wanted)) = queue.pop_front() {
            let record = objects.records.get(&oid).filter(|_| mode != Mode::Empty);
            let Some(record) = record else {
                if wanted {
                    answer.missing.push(oid_bytes(&oid));
                }
                continue;
            };
            let size = record.bytes().len() as u64;
            if !wanted && size > budget {
                break;
            }
            budget -= if wanted { 0 } else { size };
            let mut bytes = record.bytes().to_vec();
            if mode == Mode::Corrupt {
                bytes[20] ^= 1;
            }
            answer.trees.push(v1::TreeRecord {
                oid: oid_bytes(&oid),
                record: bytes.into(),
            });
            if request.byte_budget > 0 {
                queue.extend(
                    record
                        .iter()
                        .filter(|e| e.kind == EntryKind::Directory)
                        .map(|e| (e.oid, false)),
                );
            }
        }
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(answer)]))))
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> Result<Response<Self::GetBlobsStream>, Status> {
        let mode = self.enter().await?;
        let request = request.into_inner();
        self.asked.blobs.fetch_add(1, Ordering::Relaxed);
        let commit = request.origin.map(|origin| origin.commit);
        let commit = Oid::from_bytes(&commit.unwrap_or_default());
        self.asked.commits.lock().extend(commit);
        let peer = self.clone();
        let answers = request
            .spans
            .into_iter()
            .flat_map(move |span| peer.chunks(mode, &span))
            .map(Ok);
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }
}

#[derive(Default)]
struct CatalogState {
    revision: u64,
    repositories: BTreeMap<String, v1::Repository>,
    /// Changes by revision: an upsert or a removed path.
    changes: Vec<(u64, String)>,
    view: v1::ClusterView,
}

#[derive(Clone)]
struct FakeRouter {
    state: Arc<Mutex<CatalogState>>,
    revisions: Arc<watch::Sender<u64>>,
    acked: Arc<watch::Sender<u64>>,
    hellos: Arc<Mutex<Vec<v1::WatchHello>>>,
    /// What clients said besides.
    said: Arc<Mutex<Vec<v1::watch_request::Message>>>,
    /// What the router says that it understands; `None`: one of before there was a welcome.
    welcome: Option<v1::WatchWelcome>,
    /// Ends the streams of a router that is stopped: its connections are tasks of their own.
    down: CancellationToken,
}

const EPOCH: &str = "epoch-1";

#[tonic::async_trait]
impl Catalog for FakeRouter {
    type WatchStream = Replies<v1::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<v1::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if self.down.is_cancelled() {
            return Err(to_status(Error::unavailable("stopped")));
        }
        let mut said = request.into_inner();
        let hello = match said.message().await?.and_then(|m| m.message) {
            Some(v1::watch_request::Message::Hello(hello)) => hello,
            other => return Err(Status::invalid_argument(format!("no hello but {other:?}"))),
        };
        self.hellos.lock().push(hello.clone());
        let (say, replies) = mpsc::channel(16);
        let router = self.clone();
        tokio::spawn(async move {
            let mut revisions = router.revisions.subscribe();
            if let Some(welcome) = router.welcome {
                let message = Some(v1::watch_response::Message::Welcome(welcome));
                let sent = say
                    .send(Ok(v1::WatchResponse {
                        message,
                        ..Default::default()
                    }))
                    .await;
                if sent.is_err() {
                    return;
                }
            }
            let view = v1::watch_response::Message::View(router.state.lock().view.clone());
            if say
                .send(Ok(v1::WatchResponse {
                    message: Some(view),
                    ..Default::default()
                }))
                .await
                .is_err()
            {
                return;
            }
            let mut at = hello
                .resume
                .filter(|position| position.epoch == EPOCH)
                .map(|position| position.revision);
            loop {
                for message in router.messages(&mut at) {
                    if say.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = router.down.cancelled() => return,
                    heard = said.message() => match heard {
                        Ok(Some(v1::WatchRequest { message: Some(message) })) => {
                            router.said.lock().push(message.clone());
                            if let v1::watch_request::Message::Ack(position) = message {
                                router.acked.send_replace(position.revision);
                            }
                        }
                        Ok(Some(_)) => {}
                        _ => return,
                    },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn resolve(
        &self,
        _: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn get_times(
        &self,
        _: Request<v1::GetTimesRequest>,
    ) -> Result<Response<v1::GetTimesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

impl FakeRouter {
    /// What a client that is at `at` has to hear.
    fn messages(&self, at: &mut Option<u64>) -> Vec<v1::WatchResponse> {
        use v1::watch_response::Message;
        let state = self.state.lock();
        if *at == Some(state.revision) {
            return vec![];
        }
        let mut delta = v1::CatalogDelta {
            position: Some(v1::Position {
                epoch: EPOCH.into(),
                revision: state.revision,
            }),
            complete: true,
            ..Default::default()
        };
        match at.filter(|at| *at < state.revision) {
            Some(at) => {
                for (_, path) in state.changes.iter().filter(|(revision, _)| *revision > at) {
                    match state.repositories.get(path) {
                        Some(repository) => delta.upserts.push(repository.clone()),
                        None => delta.removed_paths.push(path.clone()),
                    }
                }
            }
            None => {
                delta.reset = true;
                delta.upserts = state.repositories.values().cloned().collect();
            }
        }
        *at = Some(state.revision);
        vec![v1::WatchResponse {
            message: Some(Message::Delta(delta)),
            ..Default::default()
        }]
    }
}

/// One server: a node, or the router.
pub struct Server {
    running: Option<RunningServer>,
    address: SocketAddr,
    down: CancellationToken,
    pub mode: Arc<Mutex<Mode>>,
    pub asked: Arc<Asked>,
}

impl Server {
    pub fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    pub async fn stop(&mut self) {
        // What is left of its connections fails.
        self.set(Mode::Fail);
        self.down.cancel();
        if let Some(running) = self.running.take() {
            running.shutdown(Duration::ZERO).await;
        }
    }
}

/// A cluster of one router and some nodes.
pub struct FakeCluster {
    objects: Arc<Mutex<Objects>>,
    catalog: FakeRouter,
    pub router: Server,
    pub nodes: Vec<Server>,
    pub dir: tempfile::TempDir,
}

/// All tests of this binary mount. Where the kernel cannot, they are skipped as a whole, except in
/// CI.
fn require_fuse() {
    if std::path::Path::new("/dev/fuse").exists() {
        return;
    }
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "/dev/fuse is missing: load the module (modprobe fuse)"
    );
    eprintln!("SKIPPED: /dev/fuse is missing, and these tests mount");
    std::process::exit(0);
}

impl FakeCluster {
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, None).await
    }

    /// [`FakeCluster::start`], with a router that understands what is in use.
    pub async fn start_with_exceptions(nodes: usize) -> Self {
        let welcome = v1::WatchWelcome { exceptions: true };
        Self::start_with(nodes, Some(welcome)).await
    }

    async fn start_with(nodes: usize, welcome: Option<v1::WatchWelcome>) -> Self {
        require_fuse();
        let objects = Arc::new(Mutex::new(Objects::default()));
        let catalog = FakeRouter {
            state: Arc::default(),
            revisions: Arc::new(watch::channel(0).0),
            acked: Arc::new(watch::channel(0).0),
            hellos: Arc::default(),
            said: Arc::default(),
            welcome,
            down: CancellationToken::new(),
        };
        let mut servers = Vec::new();
        for _ in 0..nodes {
            servers.push(start(&objects, None, "127.0.0.1:0").await);
        }
        let router = start(&objects, Some(catalog.clone()), "127.0.0.1:0").await;
        let members = servers.iter().enumerate().map(|(n, server)| v1::Member {
            id: format!("node{n}"),
            role: v1::Role::Node.into(),
            address: server.address.to_string(),
            weight: 1.0,
            state: v1::MemberState::Active.into(),
            ..Default::default()
        });
        catalog.state.lock().view = v1::ClusterView {
            number: 1,
            members: members.collect(),
            replication_factor: 2,
        };
        let dir = tempfile::Builder::new()
            .prefix("monofs-client-")
            .tempdir()
            .unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let cluster = Self {
            objects,
            catalog,
            router,
            nodes: servers,
            dir,
        };
        cluster.change(|_| {});
        cluster
    }

    /// Loads all objects of a repository.
    pub fn load(&self, repo: &Repo) {
        let mut objects = self.objects.lock();
        let mut trees = Vec::new();
        for (oid, kind, bytes) in all_objects(repo) {
            match kind.as_str() {
                "blob" => drop(objects.blobs.insert(oid, bytes)),
                "tree" => trees.push((oid, bytes)),
                _ => {}
            }
        }
        for (oid, tree) in trees {
            if let Some(record) = encode(&objects, &tree, repo.format()) {
                objects.records.insert(oid, record);
            }
        }
    }

    /// Shows `repo` at the commit that `revision` names.
    pub fn publish(&self, path: &str, repo: &Repo, revision: &str) {
        self.load(repo);
        let commit = repo.rev(&format!("{revision}^{{commit}}"));
        let root = repo.rev(&format!("{revision}^{{tree}}"));
        let time = String::from_utf8(repo.git(["show", "-s", "--format=%ct", revision])).unwrap();
        let nodes = self.nodes.len();
        self.change(|state| {
            let generation = state.repositories.get(path).map_or(0, |old| old.generation) + 1;
            let repository = v1::Repository {
                path: path.into(),
                storage_id: DisplayPath::new(path).unwrap().storage_id().to_string(),
                source: "https://example.org/org/repo.git".into(),
                ref_name: "main".into(),
                state: v1::RepositoryState::Ready.into(),
                snapshot: Some(v1::Snapshot {
                    commit: oid_bytes(&commit),
                    root: oid_bytes(&root),
                    commit_time: time.trim().parse().unwrap(),
                    trees: 1,
                    blobs: 1,
                    bytes: 4096,
                    submodules: submodules(repo, revision),
                    generations: Bytes::new(),
                }),
                generation,
                holders: (0..nodes).map(|n| format!("node{n}")).collect(),
                content: v1::ContentMode::Eager.into(),
                consistency: v1::Consistency::Eventual.into(),
                ..Default::default()
            };
            state.repositories.insert(path.into(), repository);
            state.changes.push((state.revision, path.into()));
        });
    }

    pub fn remove(&self, path: &str) {
        self.change(|state| {
            state.repositories.remove(path);
            state.changes.push((state.revision, path.into()));
        });
    }

    /// Forgets a tree, as if its replicas had collected it.
    pub fn lose_tree(&self, oid: &Oid) {
        self.objects.lock().records.remove(oid);
    }

    fn change(&self, change: impl FnOnce(&mut CatalogState)) {
        let mut state = self.catalog.state.lock();
        state.revision += 1;
        change(&mut state);
        let revision = state.revision;
        drop(state);
        self.catalog.revisions.send_replace(revision);
    }

    pub fn revision(&self) -> u64 {
        self.catalog.state.lock().revision
    }

    pub fn hellos(&self) -> Vec<v1::WatchHello> {
        self.catalog.hellos.lock().clone()
    }

    /// What a client said is in use, last: the greeting's, or what was said since.
    pub fn in_use(&self) -> Vec<v1::SnapshotInUse> {
        let said = self.catalog.said.lock();
        let named = said.iter().rev().find_map(|message| match message {
            v1::watch_request::Message::InUse(in_use) => Some(in_use.snapshots.clone()),
            _ => None,
        });
        let greeted = || self.hellos().pop().map(|hello| hello.in_use);
        named.or_else(greeted).unwrap_or_default()
    }

    /// What was in use at each acknowledgement, with its revision.
    pub fn in_use_when_acknowledged(&self) -> Vec<(u64, Vec<v1::SnapshotInUse>)> {
        let mut in_use = Vec::new();
        let mut acknowledged = Vec::new();
        for message in self.catalog.said.lock().iter() {
            match message {
                v1::watch_request::Message::InUse(said) => in_use.clone_from(&said.snapshots),
                v1::watch_request::Message::Ack(at) => {
                    acknowledged.push((at.revision, in_use.clone()));
                }
                _ => {}
            }
        }
        acknowledged
    }

    /// The commits that contents were asked for.
    pub fn commits_asked(&self) -> Vec<Oid> {
        self.servers()
            .flat_map(|server| server.asked.commits.lock().clone())
            .collect()
    }

    /// Waits until a client has said that it applied everything.
    pub async fn applied(&self) {
        let revision = self.revision();
        let mut acked = self.catalog.acked.subscribe();
        let wait = acked.wait_for(|acked| *acked >= revision);
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .expect("the client acknowledges")
            .unwrap();
    }

    pub fn config(&self) -> Config {
        Config {
            mount: self.dir.path().join("mnt"),
            routers: vec![self.router.address.to_string()],
            cache_dir: self.dir.path().join("cache"),
            max_cache_bytes: 1 << 30,
            rpc_timeout: Duration::from_secs(5),
            ..Config::default()
        }
    }

    pub async fn mount(&self) -> Mounted {
        mount(self.config()).await.unwrap()
    }

    /// Starts a stopped router again at its address.
    pub async fn restart_router(&mut self) {
        let address = self.router.address.to_string();
        self.router = start(&self.objects, Some(self.catalog.clone()), &address).await;
    }

    /// Stops everything.
    pub async fn stop(&mut self) {
        self.router.stop().await;
        for node in &mut self.nodes {
            node.stop().await;
        }
    }

    pub fn blobs_asked(&self) -> u64 {
        self.servers()
            .map(|server| server.asked.blobs.load(Ordering::Relaxed))
            .sum()
    }

    pub fn trees_asked(&self) -> u64 {
        self.servers()
            .map(|server| server.asked.trees.load(Ordering::Relaxed))
            .sum()
    }

    pub fn spans_asked(&self) -> Vec<(Oid, u32, u32)> {
        self.servers()
            .flat_map(|server| server.asked.spans.lock().clone())
            .collect()
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().chain([&self.router])
    }
}

async fn start(
    objects: &Arc<Mutex<Objects>>,
    catalog: Option<FakeRouter>,
    address: &str,
) -> Server {
    let (mode, asked) = (
        Arc::new(Mutex::new(Mode::Serve)),
        Arc::new(Asked::default()),
    );
    let peer = Peer {
        objects: objects.clone(),
        mode: mode.clone(),
        asked: asked.clone(),
    };
    let mut routes = Routes::new(ContentServer::new(peer));
    let down = CancellationToken::new();
    if let Some(catalog) = catalog {
        routes = routes.add_service(CatalogServer::new(FakeRouter {
            down: down.clone(),
            ..catalog
        }));
    }
    let listener = bind(address).await.unwrap();
    let running = serve(listener, routes, CancellationToken::new()).unwrap();
    Server {
        address: running.address(),
        running: Some(running),
        down,
        mode,
        asked,
    }
}

fn encode(objects: &Objects, tree: &[u8], format: ObjectFormat) -> Option<TreeRecord> {
    TreeRecord::encode(tree, format, |_, _, oid| {
        objects
            .blobs
            .get(&oid)
            .map(|blob| blob.len() as u64)
            .ok_or_else(|| Error::not_found("no such blob"))
    })
    .ok()
}

/// All objects of a repository: id, kind, bytes.
fn all_objects(repo: &Repo) -> Vec<(Oid, String, Bytes)> {
    let dump = Bytes::from(repo.git(["cat-file", "--batch-all-objects", "--unordered", "--batch"]));
    let mut objects = Vec::new();
    let mut at = 0;
    while at < dump.len() {
        let end = at + dump[at..].iter().position(|&byte| byte == b'\n').unwrap();
        let header = String::from_utf8(dump[at..end].to_vec()).unwrap();
        let fields: Vec<&str> = header.split(' ').collect();
        let size: usize = fields[2].parse().unwrap();
        objects.push((
            fields[0].parse().unwrap(),
            fields[1].to_owned(),
            dump.slice(end + 1..end + 1 + size),
        ));
        at = end + 1 + size + 1;
    }
    objects
}

fn submodules(repo: &Repo, revision: &str) -> Vec<v1::Submodule> {
    let list = repo.git(["ls-tree", "-r", "-z", revision]);
    let modules = list
        .split(|&byte| byte == 0)
        .filter(|line| line.starts_with(b"160000"));
    let path =
        |line: &[u8]| line[line.iter().position(|&byte| byte == b'\t').unwrap() + 1..].to_vec();
    modules
        .map(|line| v1::Submodule {
            path: path(line).into(),
            url: "https://example.org/module.git".into(),
        })
        .collect()
}
