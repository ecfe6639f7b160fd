//! The state store of any number of routers: etcd.
//!
//! Keys below the prefix: `<prefix>/state/<key>` (the state), `<prefix>/epoch` (a random name of
//! the history, made once) and `<prefix>/touch` (written with commits that only delete, which etcd
//! would not number if they found nothing). What is kept aside is beside it, at
//! `<prefix>.aside/<key>`. Revisions are etcd's. The epoch is the cluster's id and the random name;
//! a history that goes backwards (a restored backup) gets a new name by the first router
//! that notices.

mod calls;
mod held;
mod session;
mod watch;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use monofs_model::{Error, ErrorKind, Result};
use monofs_proto::etcd::{
    KeyValue, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use monofs_rpc::{Backoff, Channel};
use monofs_store::state::{CommitOutcome, Compare, Scan, Versioned, Write};
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::store::{CommitBatch, HeldKey, StateStore};
use calls::{Endpoints, Repeat};
use held::EtcdHeldKey;
use session::EtcdSessions;
use wire::{EtcdKeys, PAGE_KEYS, check, delete, equal, kv, put, range_of};

/// Most tries of a scan that compactions overtake.
const SCANS_MAX: usize = 5;
/// How long etcd may take to come up while a router starts.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Pauses between tries to open.
const OPEN_PAUSE_FIRST: Duration = Duration::from_millis(100);
const OPEN_PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// [`StateStore`] over etcd.
pub struct EtcdState {
    endpoints: Arc<Endpoints>,
    keys: EtcdKeys,
    sessions: EtcdSessions,
    /// What this process holds, or may hold because an answer did not come.
    holding: Arc<Mutex<HashSet<String>>>,
    history: RwLock<EtcdHistory>,
    /// The highest revision that was seen.
    seen: AtomicU64,
}

#[derive(Default, Clone, PartialEq, Eq)]
struct EtcdHistory {
    cluster: u64,
    epoch: String,
}

impl EtcdState {
    /// Connects to the cluster at `endpoints` (`host:port`), with all keys below `prefix`; waits
    /// for it for a while. Errors: `Invalid`, `Unavailable`.
    pub async fn open(endpoints: Vec<String>, prefix: &str) -> Result<Self> {
        let prefix = prefix.trim_matches('/');
        if prefix.is_empty() {
            return Err(Error::invalid(
                "--state etcd://: no prefix; write etcd://HOST:PORT/PREFIX",
            ));
        }
        let endpoints = Arc::new(Endpoints::new(endpoints)?);
        let store = Self {
            sessions: EtcdSessions::new(endpoints.clone()),
            endpoints,
            keys: EtcdKeys {
                prefix: prefix.to_owned(),
            },
            holding: Arc::default(),
            history: RwLock::default(),
            seen: AtomicU64::new(0),
        };
        // It may come up at the same time as this router.
        let give_up = tokio::time::Instant::now() + OPEN_TIMEOUT;
        let mut retries = Backoff::new(OPEN_PAUSE_FIRST, OPEN_PAUSE_LONGEST);
        while let Err(error) = store.name_history(None).await {
            if error.kind != ErrorKind::Unavailable || tokio::time::Instant::now() >= give_up {
                return Err(error.context("the state store; check --state and that etcd runs"));
            }
            tracing::warn!(%error, "waiting for etcd");
            tokio::time::sleep(retries.next_pause()).await;
        }
        Ok(store)
    }

    /// Learns the epoch; makes one if there is none or it is still `outdated`.
    async fn name_history(&self, outdated: Option<&KeyValue>) -> Result<()> {
        let compare = equal(
            self.keys.epoch(),
            outdated.map_or(0, |row| row.mod_revision),
        );
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![put(self.keys.epoch(), random_name()?.into(), 0)],
            failure: Vec::new(),
        };
        self.txn("name the history", Repeat::Always, txn).await?;
        let answer = self.range(self.epoch_row()).await?;
        let row = answer
            .kvs
            .first()
            .ok_or_else(|| Error::corrupt("etcd: the epoch vanished while it was read"))?;
        self.set_history(&answer.header.unwrap_or_default(), row);
        Ok(())
    }

    /// Whether `rows`, which are all there are, belong to a history that has a name and did not go
    /// backwards; otherwise it gets a name, and they are to be read again.
    async fn knows_history(&self, rows: &[KeyValue], header: &ResponseHeader) -> Result<bool> {
        let revision = header.revision as u64;
        let epoch = rows.iter().find(|row| self.keys.is_epoch(&row.key));
        let goes_back = header.cluster_id == self.history().cluster
            && revision < self.seen.load(Ordering::Acquire);
        if let Some(epoch) = epoch.filter(|_| !goes_back) {
            self.set_history(header, epoch);
            return Ok(true);
        }
        tracing::warn!(
            revision,
            "etcd was emptied or restored: its history gets a new name"
        );
        self.seen.store(0, Ordering::Release);
        self.name_history(epoch).await?;
        Ok(false)
    }

    fn set_history(&self, header: &ResponseHeader, epoch: &KeyValue) {
        let name = String::from_utf8_lossy(&epoch.value);
        let now = EtcdHistory {
            cluster: header.cluster_id,
            epoch: format!("{:x}-{name}", header.cluster_id),
        };
        let mut history = self.history.write();
        if *history != now {
            tracing::info!(epoch = now.epoch, "the history of the state store");
            *history = now;
            self.seen.store(header.revision as u64, Ordering::Release);
        }
    }

    /// The request for the name of the history.
    fn epoch_row(&self) -> RangeRequest {
        RangeRequest {
            key: self.keys.epoch(),
            range_end: Bytes::new(),
            limit: 0,
            revision: 0,
        }
    }

    fn history(&self) -> EtcdHistory {
        self.history.read().clone()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.endpoints
            .call("read", Repeat::Always, |channel: Channel| {
                let request = request.clone();
                async move { kv(channel).range(request).await }
            })
            .await
    }

    async fn txn(&self, doing: &str, repeat: Repeat, txn: TxnRequest) -> Result<TxnResponse> {
        self.endpoints
            .call(doing, repeat, |channel: Channel| {
                let txn = txn.clone();
                async move { kv(channel).txn(txn).await }
            })
            .await
    }

    /// All rows of a range at one revision, page by page.
    async fn pages(&self, range: (Bytes, Bytes)) -> Result<(Vec<KeyValue>, ResponseHeader)> {
        let (mut key, range_end) = range;
        let mut rows: Vec<KeyValue> = Vec::new();
        let mut at: Option<ResponseHeader> = None;
        loop {
            let revision = at.as_ref().map_or(0, |header| header.revision);
            let request = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE_KEYS,
                revision,
            };
            let answer = self.range(request).await?;
            let header = *at.get_or_insert(answer.header.unwrap_or_default());
            rows.extend(answer.kvs);
            match rows.last() {
                Some(last) if answer.more => key = [&last.key[..], b"\0"].concat().into(),
                _ => return Ok((rows, header)),
            }
        }
    }
}

#[async_trait]
impl StateStore for EtcdState {
    async fn scan(&self, prefix: &str) -> Result<Scan> {
        let whole = prefix.is_empty();
        let range = if whole {
            self.keys.everything()
        } else {
            range_of(self.keys.state(prefix.as_bytes()))
        };
        for _ in 0..SCANS_MAX {
            let (rows, header) = match self.pages(range.clone()).await {
                // Compacted while it was read.
                Err(error) if error.kind == ErrorKind::NotHeld => continue,
                other => other?,
            };
            let revision = header.revision as u64;
            if whole && !self.knows_history(&rows, &header).await? {
                continue;
            }
            self.seen.fetch_max(revision, Ordering::AcqRel);
            let own = rows.into_iter().filter_map(|row| {
                let key = self.keys.own(&row.key)?.to_vec();
                let versioned = Versioned {
                    value: row.value.into(),
                    revision: row.mod_revision as u64,
                };
                Some((key, versioned))
            });
            return Ok(Scan {
                rows: own.collect(),
                revision,
            });
        }
        Err(Error::unavailable(
            "etcd is compacted faster than it can be read; compact it less often",
        ))
    }

    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome> {
        let only_deletes = !writes.is_empty()
            && writes
                .iter()
                .all(|write| matches!(write, Write::Delete { .. }));
        check(&compares, &writes, usize::from(only_deletes))?;
        let compare = compares
            .iter()
            .map(|c| equal(self.keys.state(&c.key), c.revision as i64))
            .collect();
        let writes = writes.into_iter().map(|write| match write {
            Write::Put { key, value } => put(self.keys.state(&key), value.into(), 0),
            Write::Delete { key } => delete(self.keys.state(&key)),
        });
        let mut success: Vec<RequestOp> = writes.collect();
        // Deletions that find nothing would get no revision of their own.
        success.extend(only_deletes.then(|| put(self.keys.touch(), Bytes::new(), 0)));
        let txn = TxnRequest {
            compare,
            success,
            failure: Vec::new(),
        };
        let answer = self.txn("commit", Repeat::IfNotSent, txn).await?;
        if !answer.succeeded {
            return Ok(CommitOutcome::Conflict);
        }
        let revision = answer.header.unwrap_or_default().revision as u64;
        self.seen.fetch_max(revision, Ordering::AcqRel);
        Ok(CommitOutcome::Done { revision })
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<CommitBatch>>> {
        watch::watch(
            &self.endpoints,
            &self.keys,
            self.history().cluster,
            revision,
        )
        .await
    }

    async fn hold(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<Option<HeldKey>> {
        let row = Write::Put {
            key: key.into(),
            value,
        };
        check(&[], std::slice::from_ref(&row), 0)?;
        let Write::Put { value, .. } = row else {
            return Err(Error::internal("a put is a put"));
        };
        let session = self.sessions.get(ttl).await?;
        if !self.holding.lock().insert(key.to_owned()) {
            return Ok(None);
        }
        // From here on the key is released by this task, also if no answer comes or the caller
        // waits no longer.
        let released = CancellationToken::new();
        let release = released.clone().drop_guard();
        let gone = CancellationToken::new();
        let held = EtcdHeldKey {
            endpoints: self.endpoints.clone(),
            session: session.clone(),
            holding: self.holding.clone(),
            key: key.to_owned(),
            wire: self.keys.state(key.as_bytes()),
        };
        tokio::spawn(held.until(released, gone.clone()));
        let wire = self.keys.state(key.as_bytes());
        let txn = TxnRequest {
            compare: vec![equal(wire.clone(), 0)],
            success: vec![put(wire, value.into(), session.lease)],
            failure: Vec::new(),
        };
        let answer = self.txn("hold a key", Repeat::IfNotSent, txn).await;
        if let Err(error) = &answer
            && error.kind == ErrorKind::NotFound
        {
            // The lease is gone before its keep-alive heard of it.
            session.lost.cancel();
            return Err(Error::unavailable(
                "etcd ended this router's lease; try again",
            ));
        }
        Ok(answer?.succeeded.then(|| HeldKey {
            lost: session.lost.clone(),
            guard: release,
            gone,
        }))
    }

    async fn reach(&self) -> Result<()> {
        self.range(self.epoch_row()).await.map(drop)
    }

    fn epoch(&self) -> String {
        self.history().epoch
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// 32 random hexadecimal digits.
fn random_name() -> Result<String> {
    use std::io::Read;
    let mut raw = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut raw));
    read.map_err(|e| Error::internal(format!("/dev/urandom: {e}")))?;
    Ok(raw.iter().map(|byte| format!("{byte:02x}")).collect())
}
