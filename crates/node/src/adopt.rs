//! Takes all directory records of a commit, verified, and makes the snapshot durable; then the
//! generation tree of its names, if it has one.
//!
//! A first adoption asks for the whole closure in one stream; a refresh goes level by level and
//! asks only for the trees that the store lacks, so it costs what changed.
//!
//! Invariant: the snapshot row is written last: a crash before it leaves records that no snapshot
//! reaches (collected later), never a snapshot with holes.
//!
//! Callers: `service::node`.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use monofs_model::limits::{CONTENT_REQUEST_ITEMS_MAX, TREE_DEPTH_MAX};
use monofs_model::{EntryKind, Error, ErrorKind, Oid, Result, Snapshot, TreeRecord};
use monofs_proto::v1::GenerationTreeState;
use monofs_proto::{convert, v1};
use monofs_store::repo::{RepoMeta, RepoStore};

use crate::answer::AnswerSink;
use crate::blocking::blocking;
use crate::generations::{Generations, HeldGenerations};
use crate::served::ServedCounters;
use crate::stores::NodeStores;
use crate::upstream::servers::{ServerAttempt, UpstreamServer, Upstreams};

/// Records are written in batches of about this many bytes.
const WRITE_BATCH_BYTES: usize = 8 << 20;

/// Gets progress; a caller that went away does not stop the work.
pub(crate) type AdoptReports = AnswerSink<v1::AdoptProgress>;

/// What an adoption needs of the node.
pub(crate) struct Adopter {
    stores: Arc<NodeStores>,
    upstreams: Arc<Upstreams>,
    served: Arc<ServedCounters>,
    generations: Arc<Generations>,
}

/// What is to be adopted.
pub(crate) struct AdoptedSnapshot {
    pub snapshot: Snapshot,
    /// The generation that shows it; 0 = none yet.
    pub shown_in: u64,
}

impl Adopter {
    /// Adopts into `stores` from servers that are asked through `upstreams`.
    pub fn new(
        stores: Arc<NodeStores>,
        upstreams: Arc<Upstreams>,
        served: Arc<ServedCounters>,
        generations: Arc<Generations>,
    ) -> Self {
        Self {
            stores,
            upstreams,
            served,
            generations,
        }
    }

    /// Adopts a snapshot of the repository `meta` from the first of `servers` that can give it, and
    /// its generation tree from the first peer among them that has it. The last report says whether
    /// one had it.
    pub async fn adopt(
        &self,
        meta: &RepoMeta,
        adopted: &AdoptedSnapshot,
        servers: &[UpstreamServer],
        reports: &AdoptReports,
    ) -> Result<()> {
        let snapshot = &adopted.snapshot;
        let _writer = self.stores.lock_writer(&meta.storage_id).await;
        let store = self.stores.get_or_create(meta).await?;

        // A commit that is held already costs nothing.
        let looked = store.clone();
        let commit = snapshot.commit;
        if !blocking(move || looked.has_snapshot(&commit)).await? {
            let gathering = RecordGathering {
                upstreams: &self.upstreams,
                store: &store,
                meta,
                snapshot,
                reports,
                trees_done: 0,
                bytes_done: 0,
            };
            self.gather_from_any(gathering, servers).await?;
            let row = snapshot.clone();
            let written = store.clone();
            blocking(move || written.put_snapshot(&row)).await?;
            tracing::info!(
                repository = %meta.path,
                commit = %snapshot.commit,
                trees = snapshot.trees,
                "adopted"
            );
        }

        let mut tree = GenerationTreeState::Held;
        if let Some(generations) = snapshot.generations {
            let held = HeldGenerations {
                commit,
                shown_in: adopted.shown_in,
                generations,
            };
            let id = &meta.storage_id;
            match self.generations.take(&store, id, held, servers).await {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::NotHeld => {
                    tracing::warn!(repository = %meta.path, %commit, %error, "no peer has the \
                     generation tree");
                    tree = GenerationTreeState::Lost;
                }
                Err(error) => return Err(error),
            }
        }

        let durable = v1::AdoptProgress {
            trees_done: snapshot.trees,
            trees_total: snapshot.trees,
            bytes_done: 0,
            durable: true,
            generation_tree: tree.into(),
        };
        let _ = reports.send(Ok(durable)).await;
        Ok(())
    }

    async fn gather_from_any(
        &self,
        mut gathering: RecordGathering<'_>,
        servers: &[UpstreamServer],
    ) -> Result<()> {
        let path = &gathering.meta.path;
        let mut failure = Error::unavailable(format!("no fetcher or peer to take {path} from"));
        for attempt in ServerAttempt::each(servers) {
            let Err(error) = gathering.run(attempt).await else {
                return Ok(());
            };
            let server = &attempt.server.address;
            if error.kind == ErrorKind::Corrupt {
                self.served.corrupt.one();
            }
            if error.kind != ErrorKind::NotHeld {
                tracing::warn!(%server, repository = %path, %error, "cannot adopt from it");
            }
            // Another server may have room where this one had none; if the full disk is this
            // node's, that is what to tell.
            if failure.kind != ErrorKind::Full {
                failure = error.context(format!("adopt from {server}"));
            }
        }
        Err(failure)
    }
}

/// Taking the records of one snapshot.
struct RecordGathering<'a> {
    upstreams: &'a Upstreams,
    store: &'a Arc<RepoStore>,
    meta: &'a RepoMeta,
    snapshot: &'a Snapshot,
    reports: &'a AdoptReports,
    /// From the server that is being asked.
    trees_done: u64,
    bytes_done: u64,
}

/// How much one request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TakeDepth {
    /// The requested records and as much below them as the server gives.
    Closure,
    /// The requested records alone.
    Level,
}

/// The trees of one level.
#[derive(Default)]
struct TreeLevel {
    missing: Vec<Oid>,
    held: Vec<Oid>,
}

impl RecordGathering<'_> {
    /// Takes trees until none is missing below the root.
    async fn run(&mut self, attempt: ServerAttempt<'_>) -> Result<()> {
        self.trees_done = 0;
        self.bytes_done = 0;
        let store = self.store.clone();
        let depth = match blocking(move || Ok(store.counts()?.trees)).await? {
            0 => TakeDepth::Closure,
            _ => TakeDepth::Level,
        };

        let mut seen = HashSet::from([self.snapshot.root]);
        let mut oids = vec![self.snapshot.root];
        for _ in 0..TREE_DEPTH_MAX {
            if oids.is_empty() {
                return Ok(());
            }
            let level = self.split(oids).await?;
            for part in level.missing.chunks(CONTENT_REQUEST_ITEMS_MAX) {
                self.take(attempt, part, depth).await?;
            }
            // What arrived beyond the requested level is in the store now: going down finds it
            // there and asks no more.
            let taken = level.missing.into_iter().chain(level.held).collect();
            oids = self.children(taken, &mut seen).await?;
        }
        if oids.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{}: directories nest deeper than {TREE_DEPTH_MAX}",
            self.meta.path
        )))
    }

    async fn split(&self, oids: Vec<Oid>) -> Result<TreeLevel> {
        let store = self.store.clone();
        blocking(move || {
            let reader = store.read()?;
            let mut level = TreeLevel::default();
            for oid in oids {
                if reader.has_tree(&oid) {
                    level.held.push(oid)
                } else {
                    level.missing.push(oid)
                }
            }
            Ok(level)
        })
        .await
    }

    /// The directories that these trees name and that are not in `seen`, which gets them.
    async fn children(&self, oids: Vec<Oid>, seen: &mut HashSet<Oid>) -> Result<Vec<Oid>> {
        // The set goes to the thread that reads and comes back with what is new.
        let store = self.store.clone();
        let mut known = std::mem::take(seen);
        let (known, below) = blocking(move || {
            let reader = store.read()?;
            let mut below = Vec::new();
            for oid in oids {
                let bytes = reader
                    .tree(&oid)?
                    .ok_or_else(|| Error::corrupt(format!("tree {oid} did not arrive")))?;
                let record = TreeRecord::parse(Bytes::copy_from_slice(bytes))?;
                below.extend(
                    record
                        .iter()
                        .filter(|e| e.kind == EntryKind::Directory && known.insert(e.oid))
                        .map(|e| e.oid),
                );
            }
            Ok((known, below))
        })
        .await?;
        *seen = known;
        Ok(below)
    }

    /// Takes the records of `oids` from one server.
    async fn take(
        &mut self,
        attempt: ServerAttempt<'_>,
        oids: &[Oid],
        depth: TakeDepth,
    ) -> Result<()> {
        let server = attempt.server;
        let upstreams = self.upstreams;
        let request = v1::GetTreesRequest {
            storage_id: self.meta.storage_id.to_string(),
            oids: oids.iter().map(convert::oid_bytes).collect(),
            byte_budget: match depth {
                TakeDepth::Closure => u64::MAX,
                TakeDepth::Level => 0,
            },
            depth: match depth {
                TakeDepth::Closure => 0,
                TakeDepth::Level => 1,
            },
            origin: server.origin(self.meta, Some(self.snapshot.commit)),
            held_only: server.held_only(),
            generations: Vec::new(),
        };
        let context = upstreams.context();
        let call = monofs_rpc::content::get_trees(upstreams.channel(server)?, &context, request);
        let mut answers = upstreams.wait(attempt, call).await?;

        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        let outcome = loop {
            let answer = match upstreams
                .wait(attempt, async { answers.next().await.transpose() })
                .await
            {
                Ok(Some(answer)) => answer,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            // One that is missing makes the rest useless.
            if let Some(oid) = answer.missing.first() {
                let oid = Oid::from_bytes(oid)?;
                return Err(Error::not_held(format!(
                    "{} does not hold tree {oid}",
                    server.address
                )));
            }
            for tree in answer.trees {
                let oid = Oid::from_bytes(&tree.oid)?;
                batch_bytes += tree.record.len();
                batch.push((oid, tree.record));
            }
            if batch_bytes >= WRITE_BATCH_BYTES {
                self.write(std::mem::take(&mut batch)).await?;
                batch_bytes = 0;
            }
        };
        // What came before a failure need not come again.
        self.write(batch).await?;
        outcome
    }

    /// Verifies and stores records.
    async fn write(&mut self, batch: Vec<(Oid, Bytes)>) -> Result<()> {
        self.trees_done += batch.len() as u64;
        self.bytes_done += batch
            .iter()
            .map(|(_, record)| record.len() as u64)
            .sum::<u64>();
        // Nothing of a batch is stored before all of it proved itself.
        let store = self.store.clone();
        blocking(move || {
            for (oid, record) in &batch {
                TreeRecord::parse_verified(record.clone(), oid)?;
            }
            store.put_trees(&batch)
        })
        .await?;
        let progress = v1::AdoptProgress {
            trees_done: self.trees_done,
            trees_total: self.snapshot.trees,
            bytes_done: self.bytes_done,
            durable: false,
            generation_tree: GenerationTreeState::Unspecified.into(),
        };
        let _ = self.reports.try_send(Ok(progress));
        Ok(())
    }
}
