//! A key that this process holds in etcd, and the task that releases it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use monofs_model::Result;
use monofs_proto::etcd::TxnRequest;
use monofs_rpc::{Backoff, Channel};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::calls::{Endpoints, Repeat};
use super::session::EtcdSession;
use super::wire::{delete, kv, leased};

/// Pauses between tries to release a key.
const RELEASE_PAUSE_FIRST: Duration = Duration::from_millis(100);
const RELEASE_PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// A key that this process holds, or may hold because an answer did not come.
pub(super) struct EtcdHeldKey {
    pub endpoints: Arc<Endpoints>,
    pub session: Arc<EtcdSession>,
    /// All such keys of this process; this one leaves it when it was released or lost.
    pub holding: Arc<Mutex<HashSet<String>>>,
    pub key: String,
    /// As the key is called in etcd.
    pub wire: Bytes,
}

impl EtcdHeldKey {
    /// Releases the key when `released` is cancelled; then cancels `gone`.
    pub async fn until(self, released: CancellationToken, gone: CancellationToken) {
        tokio::select! {
            () = released.cancelled() => {}
            () = self.session.lost.cancelled() => {}
        }
        let mut retries = Backoff::new(RELEASE_PAUSE_FIRST, RELEASE_PAUSE_LONGEST);
        while !self.session.lost.is_cancelled()
            && let Err(error) = self.release().await
        {
            tracing::debug!(key = self.key, %error, "cannot release a key; trying again until its \
             lease ends");
            tokio::select! {
                () = tokio::time::sleep(retries.next_pause()) => {}
                () = self.session.lost.cancelled() => {}
            }
        }
        self.holding.lock().remove(&self.key);
        gone.cancel();
    }

    /// Deletes the key if it is this session's.
    async fn release(&self) -> Result<()> {
        let txn = TxnRequest {
            compare: vec![leased(self.wire.clone(), self.session.lease)],
            success: vec![delete(self.wire.clone())],
            failure: Vec::new(),
        };
        self.endpoints
            .call("release a key", Repeat::Always, |channel: Channel| {
                let txn = txn.clone();
                async move { kv(channel).txn(txn).await }
            })
            .await
            .map(drop)
    }
}
