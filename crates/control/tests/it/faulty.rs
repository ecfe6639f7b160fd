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
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Where the embedded store marks the keys that are held.
const HELD_PREFIX: &str = "held/";

pub struct FaultyState {
    store: Arc<EmbeddedState>,
    away: watch::Sender<bool>,
    watches_wait: watch::Sender<bool>,
    watches_end: broadcast::Sender<ErrorKind>,
    held: Mutex<HashMap<String, CancellationToken>>,
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

    /// Ends all watches with an error of this kind.
    pub fn end_watches(&self, kind: ErrorKind) {
        self.watches_end.send(kind).unwrap();
    }

    /// Takes a key that the router holds, and tells it so at once.
    pub async fn lose(&self, key: &str) {
        self.expire(key).await;
        let lost = self.held.lock().remove(key);
        lost.expect("the key is held").cancel();
    }

    /// Takes a key that the router holds without telling it: its process is suspended.
    pub async fn expire(&self, key: &str) {
        let gone = [key.to_owned(), format!("{HELD_PREFIX}{key}")];
        let deletions = gone.map(|key| Write::Delete { key: key.into() });
        self.store
            .commit(Vec::new(), deletions.to_vec())
            .await
            .unwrap();
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

    async fn hold(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<Option<HeldKey>> {
        self.check()?;
        let held = self.store.hold(key, value, ttl).await?;
        if let Some(held) = &held {
            self.held.lock().insert(key.to_owned(), held.lost.clone());
        }
        Ok(held)
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

struct FaultyWatch {
    batches: BoxStream<'static, Result<CommitBatch>>,
    wait: watch::Receiver<bool>,
    end: broadcast::Receiver<ErrorKind>,
}

impl FaultyWatch {
    async fn next(&mut self) -> Result<CommitBatch> {
        tokio::select! {
            kind = self.end.recv() => Err(Error {
                kind: kind.unwrap(),
                message: "the watch was ended".to_owned(),
            }),
            batch = async {
                self.wait.wait_for(|wait| !*wait).await.unwrap();
                let batch = self.batches.next().await.unwrap();
                self.wait.wait_for(|wait| !*wait).await.unwrap();
                batch
            } => batch,
        }
    }
}
