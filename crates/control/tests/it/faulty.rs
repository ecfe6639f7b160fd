//! The view that one router has of a state store which several share, with faults on demand.
//!
//! Below is the real embedded store; this decorator says that it is shared, and can be away, hold
//! watches up, end them, and take what the router holds. Each router of a test has one of its own
//! over the same store, so that faults hit one of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, unfold};
use monofs_control::state::{CommitBatch, EmbeddedState, HeldKey, StateStore};
use monofs_model::{Error, ErrorKind, Result};
use monofs_store::state::{CommitOutcome, Compare, Scan, Write};
use monofs_testkit::wait::wait_until_async;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::rig::SOON;

pub struct FaultyState {
    store: Arc<EmbeddedState>,
    away: watch::Sender<bool>,
    watches_wait: watch::Sender<bool>,
    watches_end: broadcast::Sender<ErrorKind>,
    held: Mutex<HashMap<String, HeldRow>>,
    scans: AtomicUsize,
}

impl FaultyState {
    pub fn new(store: Arc<EmbeddedState>) -> Arc<Self> {
        Arc::new(Self {
            store,
            away: watch::channel(false).0,
            watches_wait: watch::channel(false).0,
            watches_end: broadcast::channel(16).0,
            held: Mutex::default(),
            scans: AtomicUsize::new(0),
        })
    }

    /// Nothing can be asked or changed, or it can be again. Watches go on.
    pub fn set_away(&self, away: bool) {
        self.away.send_replace(away);
    }

    /// Watches tell nothing until this is set to false.
    pub fn hold_watches_up(&self, wait: bool) {
        self.watches_wait.send_replace(wait);
    }

    /// Ends the router's watch with an error of this kind, as soon as it has one.
    pub async fn end_watch(&self, kind: ErrorKind) {
        wait_until_async("it watches", SOON, || async {
            self.watches_end.send(kind).is_ok()
        })
        .await;
    }

    /// Takes a key that the router holds, after it told it so.
    pub async fn lose(&self, key: &str) {
        let held = self.held.lock().remove(key);
        let held = held.expect("the key is held");
        held.lost.cancel();
        delete(&self.store, key, held.revision).await.unwrap();
    }

    /// Takes a key that the router holds without telling it: its process is suspended.
    pub async fn expire(&self, key: &str) {
        let revision = self.held.lock()[key].revision;
        delete(&self.store, key, revision).await.unwrap();
    }

    /// How often it was scanned.
    pub fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<()> {
        if *self.away.borrow() {
            return Err(Error::unavailable("away"));
        }
        Ok(())
    }
}

#[async_trait]
impl StateStore for FaultyState {
    async fn scan(&self, prefix: &str) -> Result<Scan> {
        self.check()?;
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.store.scan(prefix).await
    }

    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome> {
        self.check()?;
        self.store.commit(compares, writes).await
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<CommitBatch>>> {
        self.check()?;
        let watch = FaultyWatch {
            batches: self.store.watch(revision).await?,
            wait: self.watches_wait.subscribe(),
            end: self.watches_end.subscribe(),
        };
        Ok(unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(batch) => Some((Ok(batch), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }

    async fn hold(&self, key: &str, value: Vec<u8>, _ttl: Duration) -> Result<Option<HeldKey>> {
        self.check()?;
        let compares = vec![Compare {
            key: key.into(),
            revision: 0,
        }];
        let writes = vec![Write::Put {
            key: key.into(),
            value,
        }];
        let CommitOutcome::Done { revision } = self.store.commit(compares, writes).await? else {
            return Ok(None);
        };
        let lost = CancellationToken::new();
        let row = HeldRow {
            revision,
            lost: lost.clone(),
        };
        self.held.lock().insert(key.to_owned(), row);
        // A release deletes what this router put there, and nothing that came after it.
        let released = CancellationToken::new();
        let dropped = released.clone();
        let gone = CancellationToken::new();
        let ended = gone.clone().drop_guard();
        let store = self.store.clone();
        let key = key.to_owned();
        tokio::spawn(async move {
            dropped.cancelled().await;
            delete(&store, &key, revision).await.unwrap();
            drop(ended);
        });
        Ok(Some(HeldKey {
            lost,
            guard: released.drop_guard(),
            gone,
        }))
    }

    async fn reach(&self) -> Result<()> {
        self.check()
    }

    fn epoch(&self) -> String {
        self.store.epoch()
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// A key that the router holds, or held before it was lost.
struct HeldRow {
    revision: u64,
    lost: CancellationToken,
}

/// Deletes `key` if it is as it was written at `revision`.
async fn delete(store: &EmbeddedState, key: &str, revision: u64) -> Result<()> {
    let compare = Compare {
        key: key.into(),
        revision,
    };
    let delete = Write::Delete { key: key.into() };
    store.commit(vec![compare], vec![delete]).await.map(drop)
}

struct FaultyWatch {
    batches: BoxStream<'static, Result<CommitBatch>>,
    wait: watch::Receiver<bool>,
    end: broadcast::Receiver<ErrorKind>,
}

impl FaultyWatch {
    async fn next(&mut self) -> Result<CommitBatch> {
        tokio::select! {
            kind = self.end.recv() => Err(Error::new(kind.unwrap(), "the watch was ended")),
            batch = async {
                self.wait.wait_for(|wait| !*wait).await.unwrap();
                let batch = self.batches.next().await.unwrap();
                self.wait.wait_for(|wait| !*wait).await.unwrap();
                batch
            } => batch,
        }
    }
}
