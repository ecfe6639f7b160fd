//! A fetcher on a free port with a cache of its own, and what a node would ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use monofs_fetcher::git::GitSource;
use monofs_fetcher::{Config, RunningFetcher};
use monofs_model::{DisplayPath, EntryKind, Error, Oid, Result, Snapshot, StorageId, TreeRecord};
use monofs_proto::v1;
use monofs_proto::v1::content_client::ContentClient;
use monofs_proto::v1::fetcher_client::FetcherClient;
use monofs_rpc::{Channel, from_status};
use monofs_store::frame;
use tokio::net::TcpListener;

pub const NO_LIMIT: u64 = u64::MAX;

pub struct Rig {
    pub fetcher: RunningFetcher,
    pub cache: tempfile::TempDir,
    pub config: Config,
    pub source: Arc<GitSource>,
    channel: Channel,
}

/// What one fetch brought, as a node sees it.
pub struct Fetched {
    pub snapshot: Snapshot,
    pub progress: Vec<v1::FetchProgress>,
    pub origin: v1::Origin,
    pub id: StorageId,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let mut config = Config {
            cache_dir: cache.path().to_owned(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(20),
            ..Config::default()
        };
        change(&mut config);
        let (fetcher, source, channel) = start(&config).await;
        Self {
            fetcher,
            cache,
            config,
            source,
            channel,
        }
    }

    /// Stops the fetcher and starts another one on the same cache.
    pub async fn restart(self, between: impl FnOnce(&std::path::Path)) -> Self {
        self.fetcher.shutdown(Duration::from_secs(5)).await;
        between(self.cache.path());
        let (fetcher, source, channel) = start(&self.config).await;
        Self {
            fetcher,
            cache: self.cache,
            config: self.config,
            source,
            channel,
        }
    }

    pub fn fetcher_client(&self) -> FetcherClient<Channel> {
        FetcherClient::new(self.channel.clone())
    }

    pub fn content_client(&self) -> ContentClient<Channel> {
        monofs_rpc::content::client(self.channel.clone())
    }

    pub async fn stat(&self) -> v1::FetcherStatResponse {
        self.fetcher_client()
            .stat(v1::FetcherStatRequest::default())
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn resolve(&self, source: &str, ref_name: &str) -> Result<v1::ResolveRefResponse> {
        let request = v1::ResolveRefRequest {
            storage_id: id_of(source).to_string(),
            source: source.to_owned(),
            ref_name: ref_name.to_owned(),
        };
        self.fetcher_client()
            .resolve(request)
            .await
            .map(|r| r.into_inner())
            .map_err(from_status)
    }

    /// Resolves and fetches.
    pub async fn ingest(&self, source: &str, ref_name: &str) -> Result<Fetched> {
        let commit = self.resolve(source, ref_name).await?.commit;
        self.fetch(source, ref_name, commit).await
    }

    pub async fn fetch(&self, source: &str, ref_name: &str, commit: Bytes) -> Result<Fetched> {
        self.fetch_id(id_of(source), source, ref_name, commit).await
    }

    /// Fetches under an id of the test's choice.
    pub async fn fetch_as(
        &self,
        id: &StorageId,
        source: &str,
        ref_name: &str,
        commit: Oid,
    ) -> Result<Fetched> {
        self.fetch_id(
            id.clone(),
            source,
            ref_name,
            Bytes::copy_from_slice(commit.as_bytes()),
        )
        .await
    }

    async fn fetch_id(
        &self,
        id: StorageId,
        source: &str,
        ref_name: &str,
        commit: Bytes,
    ) -> Result<Fetched> {
        let origin = v1::Origin {
            source: source.to_owned(),
            ref_name: ref_name.to_owned(),
            commit,
        };
        let request = v1::FetchRequest {
            storage_id: id.to_string(),
            origin: Some(origin.clone()),
        };
        let mut stream = self
            .fetcher_client()
            .fetch(request)
            .await
            .map_err(from_status)?
            .into_inner();
        let mut progress = Vec::new();
        while let Some(message) = stream.message().await.map_err(from_status)? {
            progress.push(message);
        }
        let last = progress.last().expect("a fetch ends with a message");
        let snapshot = last
            .snapshot
            .clone()
            .expect("the last message carries the snapshot")
            .try_into()?;
        Ok(Fetched {
            snapshot,
            progress,
            origin,
            id,
        })
    }

    pub async fn trees(
        &self,
        id: &StorageId,
        oids: &[Oid],
        byte_budget: u64,
        depth: u32,
        origin: Option<v1::Origin>,
    ) -> Result<(Vec<(Oid, TreeRecord)>, Vec<Oid>)> {
        let request = v1::GetTreesRequest {
            storage_id: id.to_string(),
            oids: oids
                .iter()
                .map(|oid| Bytes::copy_from_slice(oid.as_bytes()))
                .collect(),
            byte_budget,
            depth,
            origin,
            held_only: false,
            generations: Vec::new(),
        };
        let mut stream = self
            .content_client()
            .get_trees(request)
            .await
            .map_err(from_status)?
            .into_inner();
        let (mut trees, mut missing) = (Vec::new(), Vec::new());
        while let Some(message) = stream.message().await.map_err(from_status)? {
            for tree in message.trees {
                let oid = Oid::from_bytes(&tree.oid)?;
                trees.push((oid, TreeRecord::parse_verified(tree.record, &oid)?));
            }
            missing.extend(
                message
                    .missing
                    .iter()
                    .map(|oid| Oid::from_bytes(oid).unwrap()),
            );
        }
        Ok((trees, missing))
    }

    /// Blobs by oid, put together from their chunks, which must come in order.
    pub async fn blobs(
        &self,
        id: &StorageId,
        oids: &[Oid],
        origin: Option<v1::Origin>,
    ) -> Result<(BTreeMap<Oid, Vec<u8>>, Vec<Oid>)> {
        let span = |oid: &Oid| v1::BlobSpan {
            oid: Bytes::copy_from_slice(oid.as_bytes()),
            first_chunk: 0,
            chunk_count: 0,
            size: 0,
        };
        self.spans(id, oids.iter().map(span).collect(), origin)
            .await
    }

    pub async fn spans(
        &self,
        id: &StorageId,
        spans: Vec<v1::BlobSpan>,
        origin: Option<v1::Origin>,
    ) -> Result<(BTreeMap<Oid, Vec<u8>>, Vec<Oid>)> {
        let first: BTreeMap<Oid, u32> = spans
            .iter()
            .map(|s| (Oid::from_bytes(&s.oid).unwrap(), s.first_chunk))
            .collect();
        let request = v1::GetBlobsRequest {
            storage_id: id.to_string(),
            spans,
            origin,
            held_only: false,
        };
        let mut stream = self
            .content_client()
            .get_blobs(request)
            .await
            .map_err(from_status)?
            .into_inner();
        let (mut blobs, mut next, mut missing) =
            (BTreeMap::<Oid, Vec<u8>>::new(), first, Vec::new());
        while let Some(message) = stream.message().await.map_err(from_status)? {
            for chunk in message.chunks {
                let oid = Oid::from_bytes(&chunk.oid)?;
                let expected = next.get_mut(&oid).expect("only what was asked for");
                assert_eq!(chunk.index, *expected, "the chunks of {oid} come in order");
                *expected += 1;
                frame::decode_into(&chunk.frame, blobs.entry(oid).or_default())?;
            }
            missing.extend(
                message
                    .missing
                    .iter()
                    .map(|oid| Oid::from_bytes(oid).unwrap()),
            );
        }
        Ok((blobs, missing))
    }

    /// Everything below a snapshot's root: path -> (kind, oid, size, contents of blobs).
    pub async fn everything(&self, fetched: &Fetched) -> Result<BTreeMap<Vec<u8>, Seen>> {
        let root = fetched.snapshot.root;
        let (trees, missing) = self.trees(&fetched.id, &[root], NO_LIMIT, 0, None).await?;
        assert!(missing.is_empty(), "missing trees: {missing:?}");
        assert_eq!(trees.len() as u64, fetched.snapshot.trees);
        let trees: BTreeMap<Oid, TreeRecord> = trees.into_iter().collect();
        let mut seen = BTreeMap::new();
        let mut open = vec![(Vec::new(), root)];
        while let Some((prefix, oid)) = open.pop() {
            for entry in trees[&oid].iter() {
                let mut path = prefix.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(entry.name);
                if entry.kind == EntryKind::Directory {
                    open.push((path.clone(), entry.oid));
                }
                seen.insert(
                    path,
                    Seen {
                        kind: entry.kind,
                        oid: entry.oid,
                        size: entry.size,
                        contents: Vec::new(),
                    },
                );
            }
        }
        let mut wanted: Vec<Oid> = seen
            .values()
            .filter(|s| s.kind.is_blob())
            .map(|s| s.oid)
            .collect();
        wanted.sort();
        wanted.dedup();
        assert_eq!(wanted.len() as u64, fetched.snapshot.blobs);
        let (blobs, missing) = self.blobs(&fetched.id, &wanted, None).await?;
        assert!(missing.is_empty(), "missing blobs: {missing:?}");
        for entry in seen.values_mut().filter(|s| s.kind.is_blob()) {
            entry.contents.clone_from(&blobs[&entry.oid]);
            entry
                .oid
                .verify(monofs_model::ObjectKind::Blob, &entry.contents)?;
            assert_eq!(entry.size, entry.contents.len() as u64);
        }
        Ok(seen)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: EntryKind,
    pub oid: Oid,
    pub size: u64,
    pub contents: Vec<u8>,
}

/// The object at a path of a revision, such as `main:dir/file`.
pub fn object(repo: &monofs_testkit::Repo, spec: &str) -> Oid {
    String::from_utf8(repo.git(["rev-parse", "--verify", spec]))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// A repository of one commit with `bytes` that do not compress.
pub fn noisy(seed: usize, bytes: usize) -> monofs_testkit::Repo {
    let repo = monofs_testkit::Repo::new();
    let mut state = seed as u64 + 1;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 3) as u8
    })
    .take(bytes)
    .collect();
    repo.commit(|c| {
        c.file("noise", noise).file("seed", format!("{seed}"));
    });
    repo
}

/// A storage id that belongs to a source.
pub fn id_of(source: &str) -> StorageId {
    let hash = xxhash_rust::xxh3::xxh3_64(source.as_bytes());
    DisplayPath::new(&format!("test/{hash:x}"))
        .unwrap()
        .storage_id()
}

/// The entries of `git ls-tree -r -t -l -z` in the same form, without contents.
pub fn listed(
    repo: &monofs_testkit::Repo,
    revision: &str,
) -> BTreeMap<Vec<u8>, (EntryKind, Oid, u64)> {
    let out = repo.git(["ls-tree", "-r", "-t", "-l", "-z", revision]);
    let mut entries = BTreeMap::new();
    for line in out.split(|&b| b == 0).filter(|line| !line.is_empty()) {
        let tab = line.iter().position(|&b| b == b'\t').unwrap();
        let words: Vec<&str> = std::str::from_utf8(&line[..tab])
            .unwrap()
            .split_whitespace()
            .collect();
        let kind = EntryKind::from_git_mode(u32::from_str_radix(words[0], 8).unwrap()).unwrap();
        entries.insert(
            line[tab + 1..].to_vec(),
            (
                kind,
                words[2].parse().unwrap(),
                words[3].parse().unwrap_or(0),
            ),
        );
    }
    entries
}

/// Asserts that what the fetcher serves is what git lists.
pub async fn assert_same(
    rig: &Rig,
    fetched: &Fetched,
    repo: &monofs_testkit::Repo,
    revision: &str,
) {
    let served = rig.everything(fetched).await.unwrap();
    let served: BTreeMap<_, _> = served
        .into_iter()
        .map(|(path, s)| (path, (s.kind, s.oid, s.size)))
        .collect();
    assert_eq!(served, listed(repo, revision));
}

pub fn error_of<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => {
            assert!(!error.message.contains('\n'), "one line: {error}");
            eprintln!("{}: {error}", error.kind);
            error
        }
    }
}

async fn start(config: &Config) -> (RunningFetcher, Arc<GitSource>, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = Arc::new(GitSource::new(
        config.credentials.clone(),
        config.local_files(),
    ));
    let fetcher = monofs_fetcher::spawn_with(config.clone(), listener, source.clone())
        .await
        .unwrap();
    let channel = monofs_rpc::ChannelPool::default()
        .get(&fetcher.address().to_string())
        .unwrap();
    (fetcher, source, channel)
}
