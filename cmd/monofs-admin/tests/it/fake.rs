//! A router that answers from memory. Repositories whose path or source holds a certain word fail in a certain way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use monofs_model::tree::TreeRecord;
use monofs_model::{Error, ObjectFormat, ObjectKind, Oid};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use monofs_rpc::to_status;
use monofs_store::frame;
use monofs_testkit::hostile::{RawEntry, tree_bytes};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The path of the repository that has a tree.
pub const REPO: &str = "github.com/org/repo";
/// Bytes of the large file in it: three chunks.
pub const LARGE: usize = (2 << 20) + 77;

/// The router; stopped when dropped.
pub struct Fake {
    address: SocketAddr,
    world: Arc<World>,
    _runtime: tokio::runtime::Runtime,
}

/// What it knows and what was done to it.
#[derive(Default)]
pub struct World {
    repositories: Mutex<Vec<v1::Repository>>,
    pub ingests: Mutex<Vec<v1::IngestRequest>>,
    problems: Vec<String>,
    trees: HashMap<Oid, Bytes>,
    blobs: HashMap<Oid, Bytes>,
}

impl Fake {
    /// A router with repositories `github.com/org/repo` (with a tree), `gitlab.com/a/b/c` and `gitlab.com/new` (still being
    /// ingested).
    pub fn start() -> Self {
        Self::start_with(World::filled())
    }

    /// A router with nothing.
    pub fn start_empty() -> Self {
        Self::start_with(World::default())
    }

    fn start_with(world: World) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let world = Arc::new(world);
        let routes = Routes::new(v1::admin_server::AdminServer::from_arc(Arc::clone(&world)))
            .add_service(v1::catalog_server::CatalogServer::from_arc(Arc::clone(&world)))
            .add_service(v1::content_server::ContentServer::from_arc(Arc::clone(&world)));
        let address = runtime.block_on(async {
            let listener = monofs_rpc::server::bind("127.0.0.1:0").await.unwrap();
            monofs_rpc::serve(listener, routes, CancellationToken::new()).unwrap().address()
        });
        Self { address, world, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn world(&self) -> &World {
        &self.world
    }
}

fn ready(path: &str) -> v1::Repository {
    v1::Repository {
        path: path.into(),
        storage_id: "0123456789abcdef0123456789abcdef".into(),
        source: format!("https://{path}.git"),
        ref_name: "main".into(),
        state: v1::RepositoryState::Ready.into(),
        generation: 3,
        holders: vec!["node1".into(), "node2".into()],
        content: v1::ContentMode::Eager.into(),
        consistency: v1::Consistency::Eventual.into(),
        created_at: 1_700_000_000,
        refreshed_at: 1_700_000_060,
        snapshot: Some(v1::Snapshot {
            commit: Bytes::from(vec![0xab; 20]),
            root: Bytes::from(vec![0xcd; 20]),
            commit_time: 1_600_000_000,
            trees: 2,
            blobs: 5,
            bytes: 4096,
            submodules: Vec::new(),
        }),
        ..Default::default()
    }
}

impl World {
    fn filled() -> Self {
        let mut world = Self { problems: vec!["node2 is down: start it, or \u{1b}[31mwait".into()], ..Self::default() };
        let root = world.make_tree();
        let mut with_tree = ready(REPO);
        let snapshot = with_tree.snapshot.as_mut().unwrap();
        snapshot.root = Bytes::copy_from_slice(root.as_bytes());
        snapshot.submodules =
            vec![v1::Submodule { path: Bytes::from_static(b"ext"), url: "https://example.com/ext.git".into() }];
        let fresh = v1::Repository {
            state: v1::RepositoryState::Ingesting.into(),
            snapshot: None,
            holders: Vec::new(),
            ..ready("gitlab.com/new")
        };
        world.repositories = Mutex::new(vec![with_tree, ready("gitlab.com/a/b/c"), fresh]);
        world
    }

    fn blob(&mut self, bytes: &[u8]) -> Oid {
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, bytes);
        self.blobs.insert(oid, Bytes::copy_from_slice(bytes));
        oid
    }

    fn tree(&mut self, entries: &[RawEntry<'_>]) -> Oid {
        let raw = tree_bytes(entries);
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &raw);
        let sizes = |_: &[u8], _, oid: Oid| Ok(self.blobs.get(&oid).map_or(0, |bytes| bytes.len() as u64));
        let record = TreeRecord::encode(&raw, ObjectFormat::Sha1, sizes).unwrap();
        self.trees.insert(oid, record.bytes().clone());
        oid
    }

    fn make_tree(&mut self) -> Oid {
        let readme = self.blob(b"# hello\n");
        let empty = self.blob(b"");
        let large = self.blob(&monofs_testkit::repo::pattern(LARGE));
        let link = self.blob(b"README.md");
        let damaged = self.blob(b"what it should be");
        self.blobs.insert(damaged, Bytes::from_static(b"what it shouldnt "));
        let lost = Oid::from_bytes(&[9; 20]).unwrap();
        let inner = self.tree(&[RawEntry::file(b"main.rs", readme)]);
        let entry = |mode, name, oid| RawEntry { mode, name, oid };
        self.tree(&[
            entry("100644", b"README.md", readme),
            entry("100644", b"caf\xe9", empty),
            entry("100644", b"damaged", damaged),
            entry("100644", b"evil\x1b[31m", empty),
            entry("160000", b"ext", Oid::from_bytes(&[7; 20]).unwrap()),
            entry("100644", b"large.bin", large),
            entry("120000", b"link", link),
            entry("100644", b"lost", lost),
            entry("100755", b"run", empty),
            entry("40000", b"src", inner),
        ])
    }

    fn find(&self, path: &str) -> Result<v1::Repository, Status> {
        let repositories = self.repositories.lock().unwrap();
        let found = repositories.iter().find(|repository| repository.path == path).cloned();
        found.ok_or_else(|| to_status(Error::not_found(format!("no repository at {path}"))))
    }

    fn steps(done: v1::Repository, unchanged: bool) -> Vec<Result<v1::IngestProgress, Status>> {
        let step = |phase: Phase| v1::IngestProgress { phase: phase.into(), ..Default::default() };
        let fetch =
            v1::FetchProgress { phase: 2, objects_done: 10, objects_total: 20, bytes_done: 2048, snapshot: None };
        let replica = v1::ReplicaProgress {
            node_id: "node1".into(),
            trees_done: 2,
            trees_total: 2,
            durable: true,
            ..Default::default()
        };
        let last = v1::IngestProgress {
            repository: Some(done),
            unchanged,
            replicas: vec![replica.clone()],
            ..step(Phase::Done)
        };
        vec![
            Ok(step(Phase::Resolving)),
            Ok(v1::IngestProgress { fetch: Some(fetch), ..step(Phase::Fetching) }),
            Ok(v1::IngestProgress { replicas: vec![replica], ..step(Phase::Adopting) }),
            Ok(last),
        ]
    }
}

fn streamed<T: Send + 'static>(items: Vec<Result<T, Status>>) -> Response<Answers<T>> {
    Response::new(stream::iter(items).boxed())
}

#[tonic::async_trait]
impl v1::admin_server::Admin for World {
    type IngestStream = Answers<v1::IngestProgress>;
    type RefreshStream = Answers<v1::IngestProgress>;
    type VerifyStream = Answers<v1::AdminVerifyProgress>;

    async fn ingest(&self, request: Request<v1::IngestRequest>) -> Result<Response<Self::IngestStream>, Status> {
        let request = request.into_inner();
        self.ingests.lock().unwrap().push(request.clone());
        let source = request.source.as_str();
        if source.contains("taken") {
            return Err(to_status(Error::refused("path github.com/org/repo is taken by another source")));
        }
        let path = if request.path.is_empty() { "example.com/x".to_owned() } else { request.path };
        let mut steps = Self::steps(ready(&path), false);
        if source.contains("offline") {
            steps.truncate(2);
            steps.push(Err(to_status(Error::unavailable("fetch https://offline/x.git: connection refused"))));
        }
        if source.contains("slow") {
            let first = steps.swap_remove(0);
            return Ok(Response::new(stream::iter([first]).chain(stream::pending()).boxed()));
        }
        if source.contains("mute") {
            steps.truncate(2);
        }
        Ok(streamed(steps))
    }

    async fn list_repositories(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Result<Response<v1::ListRepositoriesResponse>, Status> {
        let request = request.into_inner();
        let all = self.repositories.lock().unwrap();
        let mut matching = all.iter().filter(|repository| repository.path.starts_with(&request.prefix)).cloned();
        // One on each page.
        let at: usize = request.page_token.parse().unwrap_or(0);
        let repositories: Vec<_> = matching.by_ref().skip(at).take(1).collect();
        let next_page_token = if matching.next().is_some() { (at + 1).to_string() } else { String::new() };
        Ok(Response::new(v1::ListRepositoriesResponse { repositories, next_page_token }))
    }

    async fn get_repository(
        &self,
        request: Request<v1::GetRepositoryRequest>,
    ) -> Result<Response<v1::GetRepositoryResponse>, Status> {
        let repository = self.find(&request.into_inner().path)?;
        let held = v1::HeldRepository { disk_bytes: 8192, hydrated_blobs: 1, total_blobs: 4, ..Default::default() };
        let replicas = vec![
            v1::ReplicaStatus { node_id: "node1".into(), holder: true, held: Some(held), error: String::new() },
            v1::ReplicaStatus { node_id: "node2".into(), holder: false, held: None, error: "no answer".into() },
        ];
        Ok(Response::new(v1::GetRepositoryResponse { repository: Some(repository), replicas }))
    }

    async fn refresh(&self, request: Request<v1::RefreshRequest>) -> Result<Response<Self::RefreshStream>, Status> {
        let repository = self.find(&request.into_inner().path)?;
        if repository.state() == v1::RepositoryState::Ingesting {
            return Err(to_status(Error::refused("gitlab.com/new is being ingested")));
        }
        let unchanged = repository.path == REPO;
        Ok(streamed(Self::steps(repository, unchanged)))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        let path = request.into_inner().path;
        self.find(&path)?;
        self.repositories.lock().unwrap().retain(|repository| repository.path != path);
        Ok(Response::new(v1::DeleteResponse {}))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let member = |id: &str, state: v1::MemberState| v1::Member {
            id: id.into(),
            state: state.into(),
            address: format!("{id}:9000"),
            weight: 1.0,
            version: "0.1.0".into(),
            ..Default::default()
        };
        let stat = v1::StatResponse { repositories: 2, disk_used_bytes: 4096, bytes_served: 77, ..Default::default() };
        let node = |id: &str, state, stat, error: &str| v1::NodeStatus {
            member: Some(member(id, state)),
            stat,
            error: error.into(),
        };
        let nodes = vec![
            node("node1", v1::MemberState::Active, Some(stat), ""),
            node("node2", v1::MemberState::Down, None, "connection refused"),
        ];
        let cache = v1::FetcherStatResponse {
            cache_bytes: 1024,
            cache_bytes_max: 2048,
            cache_hits: 3,
            cache_misses: 1,
            ..Default::default()
        };
        let fetcher = v1::FetcherStatus {
            member: Some(member("fetcher1", v1::MemberState::Active)),
            stat: Some(cache),
            error: String::new(),
        };
        let count = |state| self.repositories.lock().unwrap().iter().filter(|r| r.state() == state).count() as u64;
        Ok(Response::new(v1::StatusResponse {
            version: "0.1.0".into(),
            view_number: 12,
            position: Some(v1::Position { epoch: "e".into(), revision: 40 }),
            nodes: if self.trees.is_empty() { Vec::new() } else { nodes },
            fetchers: if self.trees.is_empty() { Vec::new() } else { vec![fetcher] },
            repositories_ready: count(v1::RepositoryState::Ready),
            repositories_ingesting: count(v1::RepositoryState::Ingesting),
            replication_factor: 2,
            problems: self.problems.clone(),
            started_at: 1_700_000_000,
            ..Default::default()
        }))
    }

    async fn node_files(
        &self,
        request: Request<v1::NodeFilesRequest>,
    ) -> Result<Response<v1::NodeFilesResponse>, Status> {
        let request = request.into_inner();
        if request.node_id == "node9" {
            return Err(to_status(Error::not_found("no node is called node9")));
        }
        let held = v1::HeldRepository { path: REPO.into(), disk_bytes: 8192, trees: 2, blobs: 5, ..Default::default() };
        let down = "connection refused".to_owned();
        let nodes = vec![
            v1::node_files_response::Entry { node_id: "node1".into(), repositories: vec![held], error: String::new() },
            v1::node_files_response::Entry { node_id: "node2".into(), repositories: Vec::new(), error: down },
        ];
        let wanted =
            |entry: &v1::node_files_response::Entry| request.node_id == "all" || entry.node_id == request.node_id;
        Ok(Response::new(v1::NodeFilesResponse { nodes: nodes.into_iter().filter(wanted).collect() }))
    }

    async fn verify(&self, request: Request<v1::AdminVerifyRequest>) -> Result<Response<Self::VerifyStream>, Status> {
        let step = |node: &str, objects, errors: &[&str], finished| {
            let errors = errors.iter().map(|error| (*error).to_owned()).collect();
            let progress = v1::VerifyProgress {
                objects_checked: objects,
                bytes_checked: 10 * objects,
                errors,
                finished,
                ..Default::default()
            };
            Ok(v1::AdminVerifyProgress {
                node_id: node.into(),
                path: REPO.into(),
                progress: Some(progress),
                error: String::new(),
            })
        };
        let damaged = request.into_inner().path == REPO;
        let errors: &[&str] = if damaged { &["blob ab12: the bytes do not match"] } else { &[] };
        Ok(streamed(vec![step("node1", 5, &[], false), step("node2", 3, errors, true), step("node1", 9, &[], true)]))
    }
}

#[tonic::async_trait]
impl v1::catalog_server::Catalog for World {
    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(&self, _: Request<Streaming<v1::WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(streamed(Vec::new()))
    }

    async fn resolve(&self, request: Request<v1::ResolveRequest>) -> Result<Response<v1::ResolveResponse>, Status> {
        let path = request.into_inner().path;
        let all = self.repositories.lock().unwrap();
        let inside = |repository: &&v1::Repository| {
            path.strip_prefix(&repository.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let found = all.iter().find(inside).cloned();
        let repository = found.ok_or_else(|| to_status(Error::not_found(format!("{path} is in no repository"))))?;
        let rest = path[repository.path.len()..].trim_start_matches('/').to_owned();
        Ok(Response::new(v1::ResolveResponse { repository: Some(repository), rest }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let prefix = request.into_inner().prefix;
        let mut entries: Vec<v1::ListEntry> = Vec::new();
        for repository in self.repositories.lock().unwrap().iter() {
            let rest = if prefix.is_empty() {
                Some(repository.path.as_str())
            } else {
                repository.path.strip_prefix(&format!("{prefix}/"))
            };
            let Some(rest) = rest else { continue };
            let (name, more) = rest.split_once('/').map_or((rest, false), |(name, _)| (name, true));
            if entries.iter().all(|entry| entry.name != name) {
                entries.push(v1::ListEntry { name: name.into(), repository: (!more).then(|| repository.clone()) });
            }
        }
        Ok(Response::new(v1::ListResponse { entries, next_page_token: String::new() }))
    }
}

#[tonic::async_trait]
impl v1::content_server::Content for World {
    type GetTreesStream = Answers<v1::GetTreesResponse>;
    type GetBlobsStream = Answers<v1::GetBlobsResponse>;

    async fn get_trees(&self, request: Request<v1::GetTreesRequest>) -> Result<Response<Self::GetTreesStream>, Status> {
        let request = request.into_inner();
        let mut answer = v1::GetTreesResponse::default();
        for oid in request.oids {
            match Oid::from_bytes(&oid).ok().and_then(|oid| self.trees.get(&oid)) {
                Some(record) => answer.trees.push(v1::TreeRecord { oid, record: record.clone() }),
                None => answer.missing.push(oid),
            }
        }
        Ok(streamed(vec![Ok(answer)]))
    }

    async fn get_blobs(&self, request: Request<v1::GetBlobsRequest>) -> Result<Response<Self::GetBlobsStream>, Status> {
        let mut answers = Vec::new();
        for span in request.into_inner().spans {
            let oid = Oid::from_bytes(&span.oid).map_err(to_status)?;
            let Some(bytes) = self.blobs.get(&oid) else {
                answers.push(Ok(v1::GetBlobsResponse { missing: vec![span.oid], ..Default::default() }));
                continue;
            };
            for index in 0..frame::chunk_count(span.size) {
                let start = (index as usize) << 20;
                let raw = &bytes[start..start + frame::chunk_len(span.size, index)];
                let chunk = v1::BlobChunk { oid: span.oid.clone(), index: index as u32, frame: frame::encode(raw) };
                answers.push(Ok(v1::GetBlobsResponse { chunks: vec![chunk], ..Default::default() }));
            }
        }
        Ok(streamed(answers))
    }
}
