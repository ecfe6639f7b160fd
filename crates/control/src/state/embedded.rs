//! The state store of a single router: LMDB in its state directory.
//!
//! Watches are fed by the commits of this process, which are the only ones: the directory is
//! locked. The last ones are kept, so that a watch can begin where a scan ended although commits
//! went on. Held keys of a process that was killed are removed at the next start.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use monofs_model::{Error, Result};
use monofs_store::state::{CommitOutcome, Compare, Scan, StateEnv, Versioned, Write};
use tokio::sync::{Mutex, broadcast};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use super::store::{ASIDE, CommitBatch, HeldKey, KeyEvent, StateStore};

/// Commits that a slow watch may be behind; further back it must scan again.
const WATCH_BATCHES_MAX: usize = 4096;
/// Changes kept for watches that begin in the past.
const RECENT_EVENTS_MAX: usize = 10_000;
/// Names the keys that are held: their values are empty.
const HELD_PREFIX: &str = "held/";

/// [`StateStore`] over [`StateEnv`].
pub struct EmbeddedState {
    inner: Arc<EmbeddedStore>,
    epoch: String,
}

struct EmbeddedStore {
    env: Arc<StateEnv>,
    /// Held over a commit and its announcement, so that watches hear of commits in their order.
    commits: Mutex<CommitHistory>,
}

struct CommitHistory {
    sender: broadcast::Sender<CommitBatch>,
    /// The last ones, without gaps.
    recent: VecDeque<CommitBatch>,
    recent_events: usize,
    /// The history is known after this revision.
    known_after: u64,
}

impl CommitHistory {
    fn new(revision: u64) -> Self {
        let sender = broadcast::channel(WATCH_BATCHES_MAX).0;
        Self {
            sender,
            recent: VecDeque::new(),
            recent_events: 0,
            known_after: revision,
        }
    }

    fn announce(&mut self, batch: CommitBatch) {
        self.recent_events += batch.events.len();
        self.recent.push_back(batch.clone());
        while self.recent_events > RECENT_EVENTS_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_events -= oldest.events.len();
            self.known_after = oldest.revision;
        }
        // An error means that there is no watch.
        let _ = self.sender.send(batch);
    }
}

impl EmbeddedState {
    /// Opens or creates the state in `dir`. Errors: another process has it open.
    pub async fn open(dir: PathBuf) -> Result<Self> {
        let (env, revision) = blocking(move || {
            let env = StateEnv::open(&dir)?;
            let revision = env.revision()?;
            Ok((Arc::new(env), revision))
        })
        .await?;
        let epoch = env.epoch();
        let inner = Arc::new(EmbeddedStore {
            env,
            commits: Mutex::new(CommitHistory::new(revision)),
        });
        inner.release_all().await?;
        Ok(Self { inner, epoch })
    }
}

#[async_trait]
impl StateStore for EmbeddedState {
    async fn scan(&self, prefix: &str) -> Result<Scan> {
        self.inner.scan(prefix).await
    }

    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome> {
        self.inner.commit(compares, writes).await
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<CommitBatch>>> {
        let commits = self.inner.commits.lock().await;
        let env = self.inner.env.clone();
        let now = blocking(move || env.revision()).await?;
        if !(commits.known_after..=now).contains(&revision) {
            return Err(Error::not_held(format!(
                "the history does not reach back to revision {revision}"
            )));
        }
        let missed: Vec<_> = commits
            .recent
            .iter()
            .filter(|batch| batch.revision > revision)
            .cloned()
            .map(Ok)
            .collect();
        let next = BroadcastStream::new(commits.sender.subscribe())
            .map(|batch| batch.map_err(|_| Error::not_held("the watch fell too far behind")));
        Ok(stream::iter(missed).chain(next).boxed())
    }

    async fn hold(&self, key: &str, value: Vec<u8>, _ttl: Duration) -> Result<Option<HeldKey>> {
        // The key, and a mark by which the next start finds it if this process is killed.
        let mark = format!("{HELD_PREFIX}{key}").into_bytes();
        let key = key.as_bytes().to_vec();
        let compares = vec![Compare {
            key: key.clone(),
            revision: 0,
        }];
        let writes = vec![
            Write::Put {
                key: key.clone(),
                value,
            },
            Write::Put {
                key: mark.clone(),
                value: Vec::new(),
            },
        ];
        if self.inner.commit(compares, writes).await? == CommitOutcome::Conflict {
            return Ok(None);
        }
        // A task that removes both when the key is released.
        let released = CancellationToken::new();
        let dropped = released.clone();
        let gone = CancellationToken::new();
        let ended = gone.clone().drop_guard();
        let inner = self.inner.clone();
        tokio::spawn(async move {
            dropped.cancelled().await;
            let writes = vec![Write::Delete { key }, Write::Delete { key: mark }];
            if let Err(error) = inner.commit(Vec::new(), writes).await {
                tracing::warn!(%error, "cannot release a held key; the next start does");
            }
            // The directory is free for the next one before it is said to be.
            drop(inner);
            drop(ended);
        });
        Ok(Some(HeldKey {
            lost: CancellationToken::new(),
            guard: released.drop_guard(),
            gone,
        }))
    }

    async fn reach(&self) -> Result<()> {
        let env = self.inner.env.clone();
        blocking(move || env.revision()).await.map(drop)
    }

    fn epoch(&self) -> String {
        self.epoch.clone()
    }

    fn is_shared(&self) -> bool {
        false
    }
}

impl EmbeddedStore {
    async fn scan(&self, prefix: &str) -> Result<Scan> {
        let env = self.env.clone();
        let prefix = prefix.to_owned();
        blocking(move || match prefix.as_str() {
            "" => env.scan_without(ASIDE.as_bytes()),
            prefix => env.scan_at(prefix.as_bytes()),
        })
        .await
    }

    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome> {
        let mut commits = self.commits.lock().await;
        let env = self.env.clone();
        let (outcome, writes) =
            blocking(move || Ok((env.commit(&compares, &writes)?, writes))).await?;
        if let CommitOutcome::Done { revision } = outcome
            && !writes.is_empty()
        {
            let told = writes
                .into_iter()
                .filter(|write| !key_of(write).starts_with(ASIDE.as_bytes()));
            commits.announce(CommitBatch {
                revision,
                events: told.map(|write| event(write, revision)).collect(),
            });
        }
        Ok(outcome)
    }

    /// Removes what a process that was killed held.
    async fn release_all(&self) -> Result<()> {
        let marks = self.scan(HELD_PREFIX).await?.rows;
        if marks.is_empty() {
            return Ok(());
        }
        let keys = marks
            .into_iter()
            .flat_map(|(mark, _)| [mark[HELD_PREFIX.len()..].to_vec(), mark]);
        self.commit(Vec::new(), keys.map(|key| Write::Delete { key }).collect())
            .await
            .map(drop)
    }
}

fn key_of(write: &Write) -> &[u8] {
    match write {
        Write::Put { key, .. } | Write::Delete { key } => key,
    }
}

fn event(write: Write, revision: u64) -> KeyEvent {
    match write {
        Write::Put { key, value } => KeyEvent {
            key,
            value: Some(Versioned { value, revision }),
        },
        Write::Delete { key } => KeyEvent { key, value: None },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("state store: {e}")))?
}
