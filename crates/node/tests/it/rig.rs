//! A real node over loopback, repositories made by the real git, and the calls that tests make.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use monofs_model::{DisplayPath, ErrorKind, NodeId, Oid, Result, StorageId};
use monofs_node::{Config, RunningNode};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_proto::v1::content_client::ContentClient;
use monofs_proto::v1::node_client::NodeClient;
use monofs_rpc::server::bind;
use monofs_rpc::{Channel, ChannelPool, from_status};
use monofs_store::frame;
use monofs_testkit::Repo;
use monofs_testkit::wait::wait_until_async;
use tempfile::TempDir;
use tonic::Streaming;

use crate::fake::{FakeMode, FakeObjects, FakeServer};

/// Within this everything that a test waits for happens, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// Tests that wait for a deadline of the node set this one.
pub const SHORT: Duration = Duration::from_secs(1);

/// A repository with commits, and all its objects.
pub struct Source {
    pub repo: Repo,
    pub path: String,
    pub objects: Arc<FakeObjects>,
}

impl Source {
    /// Takes over a repository; what is committed later is not in its objects.
    pub fn new(repo: Repo) -> Self {
        Self {
            objects: Arc::new(FakeObjects::of(&repo)),
            path: "h/r".to_owned(),
            repo,
        }
    }

    /// Some directories with some small files.
    pub fn small() -> Self {
        let repo = Repo::new();
        repo.commit(|c| {
            for n in 0..40 {
                c.file(
                    format!("d{}/e{}/f{n}", n % 4, n % 3),
                    format!("contents {n}"),
                );
            }
        });
        Self::new(repo)
    }

    /// The same at another path.
    pub fn at(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    pub fn id(&self) -> StorageId {
        DisplayPath::new(&self.path).unwrap().storage_id()
    }

    pub async fn server(&self, mode: FakeMode) -> FakeServer {
        FakeServer::start(&self.objects, mode).await
    }

    /// The root tree of `main`.
    pub fn root(&self) -> Oid {
        self.repo.rev("main^{tree}")
    }

    /// What is at a path of `main`.
    pub fn at_path(&self, path: &str) -> Oid {
        let line = self.repo.git(["rev-parse", &format!("main:{path}")]);
        String::from_utf8(line).unwrap().trim().parse().unwrap()
    }

    /// The snapshot of a revision, counted by git.
    pub fn snapshot(&self, revision: &str) -> v1::Snapshot {
        let listed = String::from_utf8(self.repo.git(["ls-tree", "-r", "-t", "-l", revision]));
        let mut trees = std::collections::HashSet::new();
        let mut blobs = std::collections::HashMap::new();
        for line in listed.unwrap().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[1] {
                "tree" => drop(trees.insert(words[2].to_owned())),
                "blob" => drop(blobs.insert(words[2].to_owned(), words[3].parse::<u64>().unwrap())),
                _ => {}
            }
        }
        let time = String::from_utf8(self.repo.git(["show", "-s", "--format=%ct", revision]));
        v1::Snapshot {
            commit: oid_bytes(&self.repo.rev(&format!("{revision}^{{commit}}"))),
            root: oid_bytes(&self.repo.rev(&format!("{revision}^{{tree}}"))),
            commit_time: time.unwrap().trim().parse().unwrap(),
            trees: trees.len() as u64 + 1,
            blobs: blobs.len() as u64,
            bytes: blobs.values().sum(),
            submodules: Vec::new(),
            generations: Bytes::new(),
        }
    }

    /// A request to adopt `main`, eagerly, from nowhere.
    pub fn adoption(&self) -> v1::AdoptRequest {
        self.adoption_of("main")
    }

    /// A request to adopt a revision, eagerly, from nowhere.
    pub fn adoption_of(&self, revision: &str) -> v1::AdoptRequest {
        v1::AdoptRequest {
            storage_id: self.id().to_string(),
            path: self.path.clone(),
            origin: Some(v1::Origin {
                source: "https://example.org/org/repo.git".to_owned(),
                ref_name: "main".to_owned(),
                commit: Bytes::new(),
            }),
            snapshot: Some(self.snapshot(revision)),
            content: v1::ContentMode::Eager.into(),
            peers: Vec::new(),
            fetchers: Vec::new(),
            bytes_per_second_max: 0,
            generation: 0,
        }
    }

    /// A request for all of a blob.
    pub fn span(&self, oid: &Oid) -> v1::BlobSpan {
        v1::BlobSpan {
            oid: oid_bytes(oid),
            first_chunk: 0,
            chunk_count: 0,
            size: self.objects.blob(oid).len() as u64,
        }
    }

    /// Requests for all blobs.
    pub fn spans(&self) -> Vec<v1::BlobSpan> {
        let ids = self.objects.blob_ids();
        ids.iter().map(|oid| self.span(oid)).collect()
    }
}

/// Ways to change a request.
pub trait AdoptionExt {
    fn lazy(self) -> Self;
    fn with_peer(self, peer: &FakeServer) -> Self;
    fn with_fetcher(self, fetcher: &FakeServer) -> Self;
}

impl AdoptionExt for v1::AdoptRequest {
    fn lazy(mut self) -> Self {
        self.content = v1::ContentMode::Lazy.into();
        self
    }

    fn with_peer(mut self, peer: &FakeServer) -> Self {
        self.peers.push(peer.address());
        self
    }

    fn with_fetcher(mut self, fetcher: &FakeServer) -> Self {
        self.fetchers.push(fetcher.address());
        self
    }
}

/// What a request for contents brought.
#[derive(Debug, Default)]
pub struct ReadBlobs {
    pub chunks: Vec<v1::BlobChunk>,
    pub missing: Vec<Oid>,
}

impl ReadBlobs {
    /// The bytes of one blob, in the order in which its chunks came.
    pub fn bytes(&self, oid: &Oid) -> Vec<u8> {
        let raw = oid_bytes(oid);
        decoded(self.chunks.iter().filter(|chunk| chunk.oid == raw))
    }
}

/// The bytes of these chunks, one after the other.
pub fn decoded<'a>(chunks: impl IntoIterator<Item = &'a v1::BlobChunk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks {
        bytes.extend_from_slice(&frame::decode(&chunk.frame).unwrap());
    }
    bytes
}

/// A node, and where it keeps its stores.
pub struct Rig {
    pub dir: TempDir,
    node: Option<RunningNode>,
    channel: Option<Channel>,
    tweak: Box<dyn Fn(&mut Config) + Send + Sync>,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A node with other settings, also after a restart.
    pub async fn start_with(tweak: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let mut rig = Self {
            dir: tempfile::Builder::new()
                .prefix("monofs-node-")
                .tempdir()
                .unwrap(),
            node: None,
            channel: None,
            tweak: Box::new(tweak),
        };
        rig.start_again().await.unwrap();
        rig
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new(NodeId::new("node1").unwrap(), self.dir.path().join("db"));
        config.upstream_timeout = SOON;
        (self.tweak)(&mut config);
        config
    }

    /// Starts a node that was stopped.
    pub async fn start_again(&mut self) -> Result<()> {
        let listener = bind("127.0.0.1:0").await?;
        let node = monofs_node::spawn(self.config(), listener).await?;
        self.channel = Some(ChannelPool::default().get(&node.address().to_string())?);
        self.node = Some(node);
        Ok(())
    }

    pub async fn stop(&mut self, limit: Duration) {
        self.channel = None;
        self.node.take().unwrap().shutdown(limit).await;
    }

    pub async fn restart(&mut self) {
        self.stop(SOON).await;
        self.start_again().await.unwrap();
    }

    pub fn running(&self) -> &RunningNode {
        self.node.as_ref().unwrap()
    }

    pub fn address(&self) -> String {
        self.running().address().to_string()
    }

    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone().unwrap())
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(usize::MAX)
    }

    pub fn content(&self) -> ContentClient<Channel> {
        monofs_rpc::content::client(self.channel.clone().unwrap())
    }

    /// On a connection of its own.
    pub fn own_content(&self) -> ContentClient<Channel> {
        let channel = ChannelPool::default().get(&self.address());
        monofs_rpc::content::client(channel.unwrap())
    }

    /// Adopts; gives all progress messages.
    pub async fn adopt(&self, request: v1::AdoptRequest) -> Result<Vec<v1::AdoptProgress>> {
        let answer = self.node().adopt(request).await.map_err(from_status)?;
        answer.into_inner().try_collect().await.map_err(from_status)
    }

    pub async fn cover(&self, request: v1::CoverRequest) -> Result<Vec<v1::CoverProgress>> {
        let answer = self.node().cover(request).await.map_err(from_status)?;
        answer.into_inner().try_collect().await.map_err(from_status)
    }

    pub async fn drop_repository(&self, request: v1::DropRequest) -> Result<bool> {
        let answer = self.node().drop(request).await.map_err(from_status)?;
        Ok(answer.into_inner().existed)
    }

    /// Drops all commits that are held but these, one by one.
    pub async fn drop_others(&self, id: &StorageId, kept: &[Oid]) -> Result<v1::DropResponse> {
        let held = self.held(id).await?.snapshots;
        let commits = held.into_iter().map(|snapshot| snapshot.commit);
        let kept: Vec<_> = kept.iter().map(oid_bytes).collect();
        let request = v1::DropRequest {
            storage_id: id.to_string(),
            only_commits: commits.filter(|commit| !kept.contains(commit)).collect(),
            keep_others: true,
        };
        let answer = self.node().drop(request).await.map_err(from_status)?;
        Ok(answer.into_inner())
    }

    /// The request of older routers to keep these commits alone.
    pub async fn retain(&self, id: &StorageId, commits: &[Oid]) -> Result<v1::RetainResponse> {
        let request = v1::RetainRequest {
            storage_id: id.to_string(),
            commits: commits.iter().map(oid_bytes).collect(),
        };
        let answer = self.node().retain(request).await.map_err(from_status)?;
        Ok(answer.into_inner())
    }

    pub async fn list_held(&self) -> Vec<v1::HeldRepository> {
        let request = v1::ListHeldRequest::default();
        let answer = self.node().list_held(request).await.unwrap();
        answer.into_inner().repositories
    }

    /// What the node says of one repository.
    pub async fn held(&self, id: &StorageId) -> Result<v1::HeldRepository> {
        let request = v1::ListHeldRequest {
            storage_id: id.to_string(),
        };
        let answer = self.node().list_held(request).await.map_err(from_status)?;
        Ok(answer.into_inner().repositories.remove(0))
    }

    pub async fn stat(&self) -> v1::StatResponse {
        let answer = self.node().stat(v1::StatRequest::default()).await.unwrap();
        answer.into_inner()
    }

    pub async fn trees(&self, request: v1::GetTreesRequest) -> Result<Vec<v1::GetTreesResponse>> {
        let answer = self.content().get_trees(request).await;
        let stream = answer.map_err(from_status)?.into_inner();
        stream.try_collect().await.map_err(from_status)
    }

    pub async fn blobs(&self, request: v1::GetBlobsRequest) -> Result<ReadBlobs> {
        let answer = self.content().get_blobs(request).await;
        let mut stream = answer.map_err(from_status)?.into_inner();
        let mut read = ReadBlobs::default();
        while let Some(message) = stream.message().await.map_err(from_status)? {
            read.chunks.extend(message.chunks);
            let missing = message.missing.iter().map(|raw| Oid::from_bytes(raw));
            read.missing.extend(missing.map(Result::unwrap));
        }
        Ok(read)
    }

    /// Begins to read blobs as a client does.
    pub async fn open(
        &self,
        source: &Source,
        spans: Vec<v1::BlobSpan>,
    ) -> Streaming<v1::GetBlobsResponse> {
        let request = v1::GetBlobsRequest {
            storage_id: source.id().to_string(),
            spans,
            ..Default::default()
        };
        self.content()
            .get_blobs(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Reads blobs as a client does, from wherever they are.
    pub async fn read(&self, source: &Source, spans: Vec<v1::BlobSpan>) -> Result<ReadBlobs> {
        self.blobs(v1::GetBlobsRequest {
            storage_id: source.id().to_string(),
            spans,
            ..Default::default()
        })
        .await
    }

    /// Reads blobs as a peer does: only what is held.
    pub async fn read_held(&self, source: &Source, spans: Vec<v1::BlobSpan>) -> Result<ReadBlobs> {
        self.blobs(v1::GetBlobsRequest {
            storage_id: source.id().to_string(),
            spans,
            held_only: true,
            ..Default::default()
        })
        .await
    }

    /// Waits until all contents of a repository are here.
    pub async fn wait_hydrated(&self, id: &StorageId) {
        wait_until_async("all contents are here", SOON, || async {
            let held = self.held(id).await.unwrap();
            held.hydrated_blobs == held.total_blobs
        })
        .await;
    }

    /// Waits until no hydration is left to do.
    pub async fn wait_idle(&self) {
        wait_until_async("no hydration is left", SOON, || async {
            self.stat().await.hydrations_queued == 0
        })
        .await;
    }

    /// Checks every stored object; gives what is wrong.
    pub async fn verify(&self) -> Vec<String> {
        let request = v1::VerifyRequest::default();
        let answer = self.node().verify(request).await.unwrap();
        let messages: Vec<v1::VerifyProgress> = answer.into_inner().try_collect().await.unwrap();
        messages.into_iter().flat_map(|m| m.errors).collect()
    }
}

/// The kind of an error.
#[track_caller]
pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind
}
