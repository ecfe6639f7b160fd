//! Takes all directory records of a commit, verified, and makes the snapshot durable.
//!
//! A first adoption asks for the whole closure in one stream; a refresh goes level by level and
//! asks only for the trees that the store lacks, so it costs what changed. The snapshot row is
//! written last: a crash before it leaves records that no snapshot reaches (collected later), never
//! a snapshot with holes.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use monofs_model::limits::{CONTENT_REQUEST_ITEMS_MAX, TREE_DEPTH_MAX};
use monofs_model::{EntryKind, Error, ErrorKind, Oid, Result, Snapshot, TreeRecord};
use monofs_proto::{convert, v1};
use monofs_rpc::Context;
use monofs_store::repo::{RepoMeta, RepoStore};
use tokio::sync::mpsc;

use crate::state::{NodeState, blocking};
use crate::upstream::{Asked, Server, origin};

/// Records are written in batches of about this many bytes.
const WRITE_BATCH_BYTES: usize = 8 << 20;

/// Sends progress; a caller that went away does not stop the work.
pub(crate) type Progress = mpsc::Sender<Result<v1::AdoptProgress, tonic::Status>>;

/// Adopts `snapshot` of the repository `meta` from the first of `servers` that can give it.
pub(crate) async fn adopt(
    state: &Arc<NodeState>,
    meta: RepoMeta,
    snapshot: Snapshot,
    servers: Vec<Server>,
    progress: &Progress,
) -> Result<()> {
    let lock = state.writer(&meta.storage_id);
    let _writer = lock.lock().await;
    let store = open(state, &meta).await?;
    let held = store.clone();
    let commit = snapshot.commit;
    if !blocking(move || held.has_snapshot(&commit)).await? {
        gather_from_any(state, &store, &meta, &snapshot, &servers, progress).await?;
        let (held, row) = (store.clone(), snapshot.clone());
        blocking(move || held.put_snapshot(&row)).await?;
        tracing::info!(repository = %meta.path, commit = %snapshot.commit, trees = snapshot.trees, "adopted");
    }
    let done = v1::AdoptProgress {
        trees_done: snapshot.trees,
        trees_total: snapshot.trees,
        bytes_done: 0,
        durable: true,
    };
    let _ = progress.send(Ok(done)).await;
    Ok(())
}

async fn open(state: &Arc<NodeState>, meta: &RepoMeta) -> Result<Arc<RepoStore>> {
    match state.store(&meta.storage_id).await {
        Err(error) if error.kind == ErrorKind::NotHeld => {}
        other => {
            let (store, meta) = (other?, meta.clone());
            return blocking(move || {
                if store.meta()? != meta {
                    store.set_meta(&meta)?;
                }
                Ok(store)
            })
            .await;
        }
    }
    let (stores, meta) = (state.stores.clone(), meta.clone());
    blocking(move || stores.get_or_create(&meta)).await
}

async fn gather_from_any(
    state: &Arc<NodeState>,
    store: &Arc<RepoStore>,
    meta: &RepoMeta,
    snapshot: &Snapshot,
    servers: &[Server],
    progress: &Progress,
) -> Result<()> {
    let mut failure = Error::unavailable(format!("no fetcher or peer to take {} from", meta.path));
    for asked in Asked::each(servers) {
        let server = asked.server;
        let mut gather = Gather {
            state,
            store,
            meta,
            snapshot,
            progress,
            done: 0,
            bytes: 0,
        };
        match gather.run(asked).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                if error.kind == ErrorKind::Corrupt {
                    state.served.corrupt.one();
                }
                if error.kind != ErrorKind::NotHeld {
                    tracing::warn!(server = %server.address, repository = %meta.path, %error, "cannot adopt from this server");
                }
                // Another server may have room where this one had none; if the full disk is ours,
                // that is what to tell.
                if failure.kind != ErrorKind::Full {
                    failure = error.context(format!("adopt from {}", server.address));
                }
            }
        }
    }
    Err(failure)
}

struct Gather<'a> {
    state: &'a Arc<NodeState>,
    store: &'a Arc<RepoStore>,
    meta: &'a RepoMeta,
    snapshot: &'a Snapshot,
    progress: &'a Progress,
    done: u64,
    bytes: u64,
}

impl Gather<'_> {
    /// Takes trees until none is missing below the root.
    async fn run(&mut self, asked: Asked<'_>) -> Result<()> {
        let store = self.store.clone();
        let fresh = blocking(move || Ok(store.counts()?.trees == 0)).await?;
        let mut seen = HashSet::from([self.snapshot.root]);
        let mut level = vec![self.snapshot.root];
        let mut depth = 0;
        while !level.is_empty() {
            depth += 1;
            if depth > TREE_DEPTH_MAX {
                return Err(Error::invalid(format!(
                    "{}: directories nest deeper than {TREE_DEPTH_MAX}",
                    self.meta.path
                )));
            }
            let (missing, held) = self.split(level).await?;
            for part in missing.chunks(CONTENT_REQUEST_ITEMS_MAX) {
                self.take(asked, part, fresh).await?;
            }
            // What arrived beyond the asked level is in the store now: going down finds it there
            // and asks no more.
            level = self
                .children(missing.into_iter().chain(held).collect(), &mut seen)
                .await?;
        }
        Ok(())
    }

    async fn split(&self, oids: Vec<Oid>) -> Result<(Vec<Oid>, Vec<Oid>)> {
        let store = self.store.clone();
        blocking(move || {
            let reader = store.read()?;
            let (mut missing, mut held) = (Vec::new(), Vec::new());
            for oid in oids {
                if reader.has_tree(&oid) {
                    held.push(oid)
                } else {
                    missing.push(oid)
                }
            }
            Ok((missing, held))
        })
        .await
    }

    async fn children(&self, oids: Vec<Oid>, seen: &mut HashSet<Oid>) -> Result<Vec<Oid>> {
        let (store, mut known) = (self.store.clone(), std::mem::take(seen));
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

    /// Takes the records of `oids`, and with `closure` as much below them as the server gives.
    async fn take(&mut self, asked: Asked<'_>, oids: &[Oid], closure: bool) -> Result<()> {
        let (state, server) = (self.state, asked.server);
        let context = Context::new(state.config.upstream_timeout);
        let request = v1::GetTreesRequest {
            storage_id: self.meta.storage_id.to_string(),
            oids: oids.iter().map(convert::oid_bytes).collect(),
            byte_budget: if closure { u64::MAX } else { 0 },
            depth: if closure { 0 } else { 1 },
            origin: (!server.peer).then(|| origin(self.meta, Some(self.snapshot.commit))),
            held_only: server.peer,
        };
        let call =
            monofs_rpc::content::get_trees(state.channels.get(&server.address)?, &context, request);
        let mut answers = asked.wait(state, call).await?;
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while let Some(answer) = asked
            .wait(state, async { answers.next().await.transpose() })
            .await?
        {
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
        }
        self.write(batch).await
    }

    /// Verifies and stores records.
    async fn write(&mut self, batch: Vec<(Oid, Bytes)>) -> Result<()> {
        self.done += batch.len() as u64;
        self.bytes += batch
            .iter()
            .map(|(_, record)| record.len() as u64)
            .sum::<u64>();
        let store = self.store.clone();
        blocking(move || {
            for (oid, record) in &batch {
                TreeRecord::parse_verified(record.clone(), oid)?;
            }
            store.put_trees(&batch)
        })
        .await?;
        let progress = v1::AdoptProgress {
            trees_done: self.done,
            trees_total: self.snapshot.trees,
            bytes_done: self.bytes,
            durable: false,
        };
        let _ = self.progress.try_send(Ok(progress));
        Ok(())
    }
}
