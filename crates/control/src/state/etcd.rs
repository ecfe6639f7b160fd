//! The state store of any number of routers: etcd.
//!
//! Keys below the prefix: `<prefix>/state/<key>` (the state), `<prefix>/epoch` (a random name of
//! the history, made once) and `<prefix>/touch` (written with commits that only delete, which etcd
//! would not number if they found nothing). What is kept aside is beside it, at
//! `<prefix>.aside/<key>`. Revisions are etcd's. The epoch is the cluster's id and the random name;
//! a history that goes backwards (a restored backup) gets a new name by whoever notices.

mod calls;
mod session;
mod watch;
mod wire;

use parking_lot::{Mutex, RwLock};
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
use monofs_rpc::Channel;
use monofs_store::state::{CommitOutcome, Compare, Scan, Versioned, Write};
use tokio_util::sync::CancellationToken;

use super::{Batch, Hold, StateStore};
use calls::{Endpoints, Repeat};
use session::{Session, Sessions};
use wire::{Keys, PAGE_KEYS, check, delete, equal, kv, leased, put, range_of};

/// Most tries of a scan that compactions overtake.
const SCANS_MAX: usize = 5;
/// How long etcd may take to come up while a router starts.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two tries to open, and to let go of a key.
const PAUSE: Duration = Duration::from_millis(500);

/// [`StateStore`] over etcd.
pub struct EtcdState {
    endpoints: Arc<Endpoints>,
    keys: Keys,
    sessions: Sessions,
    /// What this process holds, or may hold because an answer did not come.
    holding: Arc<Mutex<HashSet<String>>>,
    history: RwLock<History>,
    /// The highest revision that was seen.
    seen: AtomicU64,
}

#[derive(Default, Clone, PartialEq, Eq)]
struct History {
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
            sessions: Sessions::new(endpoints.clone()),
            endpoints,
            keys: Keys {
                prefix: prefix.to_owned(),
            },
            holding: Arc::default(),
            history: RwLock::default(),
            seen: AtomicU64::new(0),
        };
        let give_up = tokio::time::Instant::now() + OPEN_TIMEOUT;
        while let Err(error) = store.name_history(None).await {
            if error.kind != ErrorKind::Unavailable || tokio::time::Instant::now() >= give_up {
                return Err(error.context("the state store; check --state and that etcd runs"));
            }
            tracing::warn!(%error, "waiting for etcd");
            tokio::time::sleep(PAUSE).await;
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
        let (key, range_end) = (self.keys.epoch(), Bytes::new());
        let answer = self
            .range(RangeRequest {
                key,
                range_end,
                limit: 0,
                revision: 0,
            })
            .await?;
        let row = answer
            .kvs
            .first()
            .ok_or_else(|| Error::corrupt("etcd: the epoch vanished while it was read"))?;
        self.set_history(&answer.header.unwrap_or_default(), row);
        Ok(())
    }

    fn set_history(&self, header: &ResponseHeader, epoch: &KeyValue) {
        let name = String::from_utf8_lossy(&epoch.value);
        let now = History {
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

    fn history(&self) -> History {
        self.history.read().clone()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        let call = |channel: Channel| {
            let (mut client, request) = (kv(channel), request.clone());
            async move { client.range(request).await }
        };
        self.endpoints.call("read", Repeat::Always, call).await
    }

    async fn txn(&self, doing: &str, repeat: Repeat, txn: TxnRequest) -> Result<TxnResponse> {
        let call = |channel: Channel| {
            let (mut client, txn) = (kv(channel), txn.clone());
            async move { client.txn(txn).await }
        };
        self.endpoints.call(doing, repeat, call).await
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
            if whole {
                let epoch = rows.iter().find(|row| self.keys.is_epoch(&row.key));
                let goes_back = header.cluster_id == self.history().cluster
                    && revision < self.seen.load(Ordering::Acquire);
                let Some(epoch) = epoch.filter(|_| !goes_back) else {
                    tracing::warn!(
                        revision,
                        "etcd was emptied or restored: its history gets a new name"
                    );
                    self.seen.store(0, Ordering::Release);
                    self.name_history(epoch).await?;
                    continue;
                };
                self.set_history(&header, epoch);
            }
            self.seen.fetch_max(revision, Ordering::AcqRel);
            let own = |row: KeyValue| {
                let key = self.keys.own(&row.key)?.to_vec();
                Some((
                    key,
                    Versioned {
                        value: row.value.into(),
                        revision: row.mod_revision as u64,
                    },
                ))
            };
            return Ok(Scan {
                rows: rows.into_iter().filter_map(own).collect(),
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
        let write = |write: Write| match write {
            Write::Put { key, value } => put(self.keys.state(&key), value.into(), 0),
            Write::Delete { key } => delete(self.keys.state(&key)),
        };
        let mut success: Vec<RequestOp> = writes.into_iter().map(write).collect();
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

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<Batch>>> {
        watch::watch(
            &self.endpoints,
            &self.keys,
            self.history().cluster,
            revision,
        )
        .await
    }

    async fn hold(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<Option<Hold>> {
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
        // From here on the key is let go by this, also if no answer comes or nobody waits for it
        // any more.
        let released = CancellationToken::new();
        let release = released.clone().drop_guard();
        let gone = CancellationToken::new();
        let held = HeldKey {
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
                "etcd let go of this router's lease; try again",
            ));
        }
        Ok(answer?.succeeded.then(|| Hold {
            lost: session.lost.clone(),
            release,
            gone,
        }))
    }

    async fn reach(&self) -> Result<()> {
        let (key, range_end) = (self.keys.epoch(), Bytes::new());
        self.range(RangeRequest {
            key,
            range_end,
            limit: 0,
            revision: 0,
        })
        .await
        .map(drop)
    }

    fn epoch(&self) -> String {
        self.history().epoch
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// A key that this process holds, or tried to.
struct HeldKey {
    endpoints: Arc<Endpoints>,
    session: Arc<Session>,
    holding: Arc<Mutex<HashSet<String>>>,
    key: String,
    wire: Bytes,
}

impl HeldKey {
    /// Lets go when `released` is cancelled; then cancels `gone`.
    async fn until(self, released: CancellationToken, gone: CancellationToken) {
        tokio::select! {
            () = released.cancelled() => {}
            () = self.session.lost.cancelled() => {}
        }
        while !self.session.lost.is_cancelled()
            && let Err(error) = self.let_go().await
        {
            tracing::debug!(key = self.key, %error, "cannot let go of a key; trying again until \
             its lease ends");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.session.lost.cancelled() => {}
            }
        }
        self.holding.lock().remove(&self.key);
        gone.cancel();
    }

    /// Deletes the key if it is this session's.
    async fn let_go(&self) -> Result<()> {
        let mine = leased(self.wire.clone(), self.session.lease);
        let txn = TxnRequest {
            compare: vec![mine],
            success: vec![delete(self.wire.clone())],
            failure: Vec::new(),
        };
        let call = |channel: Channel| {
            let (mut client, txn) = (kv(channel), txn.clone());
            async move { client.txn(txn).await }
        };
        self.endpoints
            .call("let go of a key", Repeat::Always, call)
            .await
            .map(drop)
    }
}

/// 32 hexadecimal digits that nobody had before.
fn random_name() -> Result<String> {
    use std::io::Read;
    let mut raw = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut raw));
    read.map_err(|e| Error::internal(format!("/dev/urandom: {e}")))?;
    Ok(raw.iter().map(|byte| format!("{byte:02x}")).collect())
}
