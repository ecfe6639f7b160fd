//! A peer or fetcher that serves repositories from memory, with faults on demand.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::view::Role;
use monofs_model::{EntryKind, Error, ObjectFormat, Oid, TreeRecord};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_proto::v1::cluster_server::{Cluster, ClusterServer};
use monofs_proto::v1::content_server::{Content, ContentServer};
use monofs_proto::v1::node_server::{Node, NodeServer};
use monofs_rpc::server::{RunningServer, bind, serve};
use monofs_rpc::to_status;
use monofs_store::frame;
use monofs_testkit::Repo;
use monofs_testkit::wait::wait_until_async;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeMode {
    Serve,
    /// Holds nothing.
    Empty,
    /// Fails every request.
    Fail,
    /// Takes requests and never answers.
    Hang,
    /// Answers with bytes that do not match their ids.
    Corrupt,
    /// Answers with objects that were not asked for.
    Unasked,
    /// Leaves out all but the first object and does not say so.
    LeaveOut,
    /// Waits for a permit before each message ([`FakeServer::admit`]).
    Gated,
    /// Waits for a permit before each message and fails then.
    GatedFailure,
    /// Breaks off after this many messages of an answer.
    BreakAfter(usize),
}

/// All objects of some repositories.
#[derive(Default)]
pub struct FakeObjects {
    records: HashMap<Oid, TreeRecord>,
    blobs: HashMap<Oid, Bytes>,
}

impl FakeObjects {
    /// All objects that a repository has now.
    pub fn of(repo: &Repo) -> Self {
        let mut objects = Self::default();
        let mut trees = Vec::new();
        let dump =
            Bytes::from(repo.git(["cat-file", "--batch-all-objects", "--unordered", "--batch"]));
        let mut at = 0;
        while at < dump.len() {
            let end = at + dump[at..].iter().position(|&byte| byte == b'\n').unwrap();
            let header = String::from_utf8(dump[at..end].to_vec()).unwrap();
            let fields: Vec<&str> = header.split(' ').collect();
            let oid: Oid = fields[0].parse().unwrap();
            let size: usize = fields[2].parse().unwrap();
            let bytes = dump.slice(end + 1..end + 1 + size);
            match fields[1] {
                "blob" => drop(objects.blobs.insert(oid, bytes)),
                "tree" => trees.push((oid, bytes)),
                _ => {}
            }
            at = end + 1 + size + 1;
        }
        for (oid, tree) in trees {
            let record = objects.encode(&tree, repo.format());
            objects.records.insert(oid, record);
        }
        objects
    }

    fn encode(&self, tree: &[u8], format: ObjectFormat) -> TreeRecord {
        TreeRecord::encode(tree, format, |_, _, oid| {
            Ok(self.blobs.get(&oid).map_or(0, |blob| blob.len() as u64))
        })
        .unwrap()
    }

    /// The bytes of a directory record.
    pub fn record(&self, oid: &Oid) -> &Bytes {
        self.records[oid].bytes()
    }

    /// The bytes of a blob.
    pub fn blob(&self, oid: &Oid) -> &Bytes {
        &self.blobs[oid]
    }

    /// All blobs, in the order of their ids.
    pub fn blob_ids(&self) -> Vec<Oid> {
        let mut ids: Vec<Oid> = self.blobs.keys().copied().collect();
        ids.sort();
        ids
    }
}

/// What a server was asked.
#[derive(Default)]
pub struct AskedOf {
    pub tree_requests: AtomicU64,
    pub blob_requests: AtomicU64,
    /// Ids of requests for directory records.
    pub trees: Mutex<Vec<Oid>>,
    /// Ids of requests for contents.
    pub blobs: Mutex<Vec<Oid>>,
    /// Of the last request.
    pub held_only: Mutex<Option<bool>>,
    pub origin: Mutex<Option<v1::Origin>>,
}

#[derive(Clone)]
struct FakeService {
    objects: Arc<FakeObjects>,
    mode: Arc<Mutex<FakeMode>>,
    asked: Arc<AskedOf>,
    gate: Arc<Semaphore>,
}

impl FakeService {
    async fn enter(&self) -> Result<FakeMode, Status> {
        let mode = *self.mode.lock();
        match mode {
            FakeMode::Fail => Err(to_status(Error::unavailable("told to fail"))),
            FakeMode::Hang => std::future::pending().await,
            _ => Ok(mode),
        }
    }

    /// The messages as the mode lets them out.
    fn paced<T: Send + 'static>(&self, mode: FakeMode, messages: Vec<T>) -> Replies<T> {
        let gate = self.gate.clone();
        let until = match mode {
            FakeMode::BreakAfter(messages) => messages,
            FakeMode::GatedFailure => 0,
            _ => usize::MAX,
        };
        let replies = futures::stream::iter(messages.into_iter().enumerate());
        Box::pin(replies.then(move |(index, message)| {
            let gate = gate.clone();
            async move {
                if matches!(mode, FakeMode::Gated | FakeMode::GatedFailure) {
                    match gate.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_) => return Err(broken_off()),
                    }
                }
                match index < until {
                    true => Ok(message),
                    false => Err(broken_off()),
                }
            }
        }))
    }

    fn tree(&self, mode: FakeMode, oid: &Oid) -> v1::TreeRecord {
        let record = match mode {
            FakeMode::Unasked => self.objects.records.values().next().unwrap(),
            _ => &self.objects.records[oid],
        };
        let mut bytes = record.bytes().to_vec();
        if mode == FakeMode::Corrupt {
            bytes[20] ^= 1;
        }
        v1::TreeRecord {
            oid: oid_bytes(oid),
            record: bytes.into(),
        }
    }

    fn chunks(&self, mode: FakeMode, span: &v1::BlobSpan) -> Vec<v1::BlobChunk> {
        let oid = Oid::from_bytes(&span.oid).unwrap();
        let blob = self.objects.blob(&oid);
        let sent = match mode {
            FakeMode::Unasked => oid_bytes(&Oid::from_bytes(&[7; 20]).unwrap()),
            _ => span.oid.clone(),
        };
        let chunks = frame::chunk_count(blob.len() as u64) as usize;
        (0..chunks)
            .map(|index| {
                let start = index * CHUNK_BYTES;
                let mut raw = blob[start..blob.len().min(start + CHUNK_BYTES)].to_vec();
                if mode == FakeMode::Corrupt
                    && let Some(last) = raw.last_mut()
                {
                    *last ^= 1;
                }
                v1::BlobChunk {
                    oid: sent.clone(),
                    index: index as u32,
                    frame: frame::encode(&raw),
                }
            })
            .collect()
    }
}

fn broken_off() -> Status {
    to_status(Error::unavailable("told to break off"))
}

#[tonic::async_trait]
impl Content for FakeService {
    type GetTreesStream = Replies<v1::GetTreesResponse>;
    type GetBlobsStream = Replies<v1::GetBlobsResponse>;

    async fn get_trees(
        &self,
        request: Request<v1::GetTreesRequest>,
    ) -> Result<Response<Self::GetTreesStream>, Status> {
        let request = request.into_inner();
        self.asked.tree_requests.fetch_add(1, Ordering::SeqCst);
        *self.asked.held_only.lock() = Some(request.held_only);
        *self.asked.origin.lock() = request.origin.clone();
        let requested: Vec<Oid> = request
            .oids
            .iter()
            .map(|raw| Oid::from_bytes(raw).unwrap())
            .collect();
        self.asked.trees.lock().extend(&requested);
        let mode = self.enter().await?;

        // One record a message: the node meets every boundary between messages.
        let mut messages = Vec::new();
        let mut seen: HashSet<Oid> = requested.iter().copied().collect();
        let mut queue: VecDeque<Oid> = requested.into();
        while let Some(oid) = queue.pop_front() {
            let mut message = v1::GetTreesResponse::default();
            match self.objects.records.get(&oid) {
                Some(record) if mode != FakeMode::Empty => {
                    message.trees.push(self.tree(mode, &oid));
                    let below = record
                        .iter()
                        .filter(|e| e.kind == EntryKind::Directory && request.byte_budget > 0)
                        .map(|e| e.oid);
                    queue.extend(below.filter(|oid| seen.insert(*oid)));
                }
                _ => message.missing.push(oid_bytes(&oid)),
            }
            messages.push(message);
        }
        if mode == FakeMode::LeaveOut {
            messages.truncate(1);
        }
        Ok(Response::new(self.paced(mode, messages)))
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> Result<Response<Self::GetBlobsStream>, Status> {
        let request = request.into_inner();
        self.asked.blob_requests.fetch_add(1, Ordering::SeqCst);
        *self.asked.held_only.lock() = Some(request.held_only);
        *self.asked.origin.lock() = request.origin.clone();
        let requested = request
            .spans
            .iter()
            .map(|span| Oid::from_bytes(&span.oid).unwrap());
        self.asked.blobs.lock().extend(requested);
        let mode = self.enter().await?;
        let mut messages = Vec::new();
        for span in &request.spans {
            let oid = Oid::from_bytes(&span.oid).unwrap();
            if mode == FakeMode::Empty || !self.objects.blobs.contains_key(&oid) {
                messages.push(v1::GetBlobsResponse {
                    missing: vec![span.oid.clone()],
                    ..Default::default()
                });
                continue;
            }
            let chunks = self.chunks(mode, span);
            messages.extend(chunks.into_iter().map(|chunk| v1::GetBlobsResponse {
                chunks: vec![chunk],
                ..Default::default()
            }));
        }
        if mode == FakeMode::LeaveOut {
            messages.truncate(1);
        }
        Ok(Response::new(self.paced(mode, messages)))
    }
}

#[tonic::async_trait]
impl Node for FakeService {
    type AdoptStream = Replies<v1::AdoptProgress>;
    type CoverStream = Replies<v1::CoverProgress>;
    type ListBlobsStream = Replies<v1::ListBlobsResponse>;
    type VerifyStream = Replies<v1::VerifyProgress>;

    async fn list_blobs(
        &self,
        _: Request<v1::ListBlobsRequest>,
    ) -> Result<Response<Self::ListBlobsStream>, Status> {
        let mode = self.enter().await?;
        if mode == FakeMode::Empty {
            return Err(to_status(Error::not_held("told to hold nothing")));
        }
        let listed = self.objects.blob_ids().into_iter().map(|oid| v1::HeldBlob {
            oid: oid_bytes(&oid),
            size: self.objects.blob(&oid).len() as u64,
        });
        let message = v1::ListBlobsResponse {
            blobs: listed.collect(),
        };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(
            message,
        )]))))
    }

    async fn adopt(
        &self,
        _: Request<v1::AdoptRequest>,
    ) -> Result<Response<Self::AdoptStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn make_generations(
        &self,
        _: Request<v1::MakeGenerationsRequest>,
    ) -> Result<Response<v1::MakeGenerationsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn cover(
        &self,
        _: Request<v1::CoverRequest>,
    ) -> Result<Response<Self::CoverStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn keep(
        &self,
        _: Request<v1::KeepRequest>,
    ) -> Result<Response<v1::KeepResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn drop(
        &self,
        _: Request<v1::DropRequest>,
    ) -> Result<Response<v1::DropResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn retain(
        &self,
        _: Request<v1::RetainRequest>,
    ) -> Result<Response<v1::RetainResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn stat(
        &self,
        _: Request<v1::StatRequest>,
    ) -> Result<Response<v1::StatResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_held(
        &self,
        _: Request<v1::ListHeldRequest>,
    ) -> Result<Response<v1::ListHeldResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn verify(
        &self,
        _: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

/// A server that runs until it is dropped.
pub struct FakeServer {
    running: Option<RunningServer>,
    address: SocketAddr,
    mode: Arc<Mutex<FakeMode>>,
    gate: Arc<Semaphore>,
    stop: CancellationToken,
    pub asked: Arc<AskedOf>,
}

impl FakeServer {
    /// Serves `objects`.
    pub async fn start(objects: &Arc<FakeObjects>, mode: FakeMode) -> Self {
        let service = FakeService {
            objects: objects.clone(),
            mode: Arc::new(Mutex::new(mode)),
            asked: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        };
        let mode = service.mode.clone();
        let gate = service.gate.clone();
        let asked = service.asked.clone();
        let routes =
            Routes::new(ContentServer::new(service.clone())).add_service(NodeServer::new(service));
        let stop = CancellationToken::new();
        let listener = bind("127.0.0.1:0").await.unwrap();
        let running = serve(listener, routes, stop.clone()).unwrap();
        running.announce_ready().await;
        Self {
            address: running.address(),
            running: Some(running),
            mode,
            gate,
            stop,
            asked,
        }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Answers otherwise from the next request on.
    pub fn set(&self, mode: FakeMode) {
        *self.mode.lock() = mode;
    }

    /// Lets out so many messages of gated answers.
    pub fn admit(&self, messages: usize) {
        self.gate.add_permits(messages);
    }

    /// Takes back what was admitted and not used.
    pub fn shut_gate(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    /// Breaks off all gated answers, now and later.
    pub fn break_gate(&self) {
        self.gate.close();
    }

    /// How often it was asked for contents.
    pub fn blob_requests(&self) -> u64 {
        self.asked.blob_requests.load(Ordering::SeqCst)
    }

    /// How often it was asked for directory records.
    pub fn tree_requests(&self) -> u64 {
        self.asked.tree_requests.load(Ordering::SeqCst)
    }

    /// Ends it.
    pub async fn stop(&mut self) {
        self.set(FakeMode::Fail);
        if let Some(running) = self.running.take() {
            running.shutdown(Duration::ZERO).await;
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A member that is active.
pub fn member(id: &str, role: Role, address: &str) -> v1::Member {
    v1::Member {
        id: id.to_owned(),
        role: match role {
            Role::Node => v1::Role::Node.into(),
            Role::Fetcher => v1::Role::Fetcher.into(),
        },
        address: address.to_owned(),
        weight: 1.0,
        state: v1::MemberState::Active.into(),
        ..Default::default()
    }
}

#[derive(Clone)]
struct FakeCluster {
    view: Arc<Mutex<v1::ClusterView>>,
    seen: Arc<Mutex<Vec<v1::Member>>>,
    refuses: Arc<Mutex<bool>>,
}

#[tonic::async_trait]
impl Cluster for FakeCluster {
    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        if *self.refuses.lock() {
            return Err(to_status(Error::unavailable("told to refuse")));
        }
        self.seen.lock().push(request.into_inner().member.unwrap());
        Ok(Response::new(v1::HeartbeatResponse {
            view: Some(self.view.lock().clone()),
            interval_ms: 100,
        }))
    }

    async fn report_failure(
        &self,
        _: Request<v1::ReportFailureRequest>,
    ) -> Result<Response<v1::ReportFailureResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn acknowledged(
        &self,
        _: Request<v1::AcknowledgedRequest>,
    ) -> Result<Response<v1::AcknowledgedResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

/// A router that nodes register with; it runs until it is dropped.
pub struct FakeRouter {
    cluster: FakeCluster,
    address: SocketAddr,
    stop: CancellationToken,
}

impl FakeRouter {
    /// Shows these members.
    pub async fn start(members: Vec<v1::Member>) -> Self {
        let cluster = FakeCluster {
            view: Arc::new(Mutex::new(v1::ClusterView {
                number: 1,
                members,
                replication_factor: 3,
            })),
            seen: Arc::default(),
            refuses: Arc::default(),
        };
        let routes = Routes::new(ClusterServer::new(cluster.clone()));
        let stop = CancellationToken::new();
        let listener = bind("127.0.0.1:0").await.unwrap();
        let running = serve(listener, routes, stop.clone()).unwrap();
        Self {
            cluster,
            address: running.address(),
            stop,
        }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Shows these members from now on.
    pub fn show(&self, members: Vec<v1::Member>) {
        let mut view = self.cluster.view.lock();
        view.number += 1;
        view.members = members;
    }

    /// Fails heartbeats, or answers them again.
    pub fn refuse(&self, refuses: bool) {
        *self.cluster.refuses.lock() = refuses;
    }

    /// What nodes announced, the last one last.
    pub fn seen(&self) -> Vec<v1::Member> {
        self.cluster.seen.lock().clone()
    }

    /// Waits for so many heartbeats from now on: the node has what was shown by then.
    pub async fn wait_seen(&self, heartbeats: usize) {
        let before = self.seen().len();
        wait_until_async("the node registers", Duration::from_secs(30), || async {
            self.seen().len() >= before + heartbeats
        })
        .await;
    }
}

impl Drop for FakeRouter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
