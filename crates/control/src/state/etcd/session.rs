//! Leases: what this process holds in etcd goes when it ends or is cut off.
//!
//! One lease per time to live, kept alive by a task; all keys that are held for that long share it.
//!
//! ```text
//!  granted --kept every third of the ttl--> granted --no answer for four fifths of it--> lost
//!     \--------------------------------------- dropped: revoked
//! ```
//!
//! Invariant: a session is lost before etcd can let others have its keys, by this process's clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{ErrorKind, Result};
use monofs_proto::etcd::lease_client::LeaseClient;
use monofs_proto::etcd::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
};
use monofs_rpc::{Backoff, Channel};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Response, Status};

use super::calls::{Endpoints, Repeat};

/// Pause after a lease could not be kept, as a part of its time to live: what counts is how many
/// tries fit into the rest of that time.
const RETRY_PART: u32 = 10;
/// Pauses between tries to revoke a lease that was lost while etcd was away, and most tries.
const REVOKE_PAUSE_FIRST: Duration = Duration::from_millis(250);
const REVOKE_PAUSE_LONGEST: Duration = Duration::from_secs(1);
const REVOKE_TRIES_MAX: usize = 800;

/// The leases of this process, one per time to live.
pub(super) struct EtcdSessions {
    endpoints: Arc<Endpoints>,
    /// By seconds; there are as many as there are times to live in use.
    by_ttl: Mutex<HashMap<u64, Arc<EtcdSession>>>,
}

/// A lease that is kept alive as long as it is used.
pub(super) struct EtcdSession {
    pub lease: i64,
    /// Cancelled when the lease is over.
    pub lost: CancellationToken,
    _stop: DropGuard,
}

impl EtcdSessions {
    pub fn new(endpoints: Arc<Endpoints>) -> Self {
        Self {
            endpoints,
            by_ttl: Mutex::default(),
        }
    }

    /// The lease for `ttl` (whole seconds, one at least), granted if there is none. Errors: those
    /// of a call.
    pub async fn get(&self, ttl: Duration) -> Result<Arc<EtcdSession>> {
        let seconds = ttl.as_secs().max(1);
        let mut by_ttl = self.by_ttl.lock().await;
        if let Some(session) = by_ttl
            .get(&seconds)
            .filter(|session| !session.lost.is_cancelled())
        {
            return Ok(session.clone());
        }
        let asked = Instant::now();
        let request = LeaseGrantRequest {
            ttl: seconds as i64,
            id: 0,
        };
        // A lease that was granted in an answer that did not come ends by itself.
        let granting = self.endpoints.call(
            "get a lease",
            Repeat::Always,
            |channel: Channel| async move { LeaseClient::new(channel).lease_grant(request).await },
        );
        let lease = granting.await?.id;
        // A task keeps it alive until the last user drops it.
        let lost = CancellationToken::new();
        let stop = CancellationToken::new();
        let kept = KeptLease {
            endpoints: self.endpoints.clone(),
            lease,
            ttl: Duration::from_secs(seconds),
            renewed: asked,
        };
        tokio::spawn(kept.run(lost.clone(), stop.clone()));
        let session = Arc::new(EtcdSession {
            lease,
            lost,
            _stop: stop.drop_guard(),
        });
        by_ttl.insert(seconds, session.clone());
        Ok(session)
    }
}

/// The task that keeps a lease alive.
struct KeptLease {
    endpoints: Arc<Endpoints>,
    lease: i64,
    ttl: Duration,
    /// When the last keep-alive that was answered had been sent.
    renewed: Instant,
}

impl KeptLease {
    async fn run(mut self, lost: CancellationToken, stop: CancellationToken) {
        let mut pause = self.ttl / 3;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    if let Err(error) = self.revoke().await {
                        tracing::debug!(lease = self.lease, %error, "cannot revoke the lease; it \
                         ends by itself");
                    }
                    return;
                }
                () = tokio::time::sleep(pause) => {}
            }
            // Counted from before the keep-alive was sent, so etcd's time ends later than ours.
            let asked = Instant::now();
            match tokio::time::timeout_at(self.ends(), self.keep()).await {
                Ok(Ok(answer)) if answer.ttl > 0 => {
                    self.renewed = asked;
                    pause = self.ttl / 3;
                }
                Ok(Ok(_)) => {
                    tracing::warn!(lease = self.lease, "etcd says that the lease is over");
                    return self.lose(&lost).await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(lease = self.lease, %error, "cannot keep the lease; trying \
                     again");
                    pause = self.ttl / RETRY_PART;
                }
                Err(_) => {}
            }
            if Instant::now() >= self.ends() {
                tracing::warn!(lease = self.lease, ttl = ?self.ttl, "cannot keep the lease: what \
                 it held is lost");
                return self.lose(&lost).await;
            }
        }
    }

    /// When the lease counts as lost unless it is renewed before.
    fn ends(&self) -> Instant {
        self.renewed + self.ttl * 4 / 5
    }

    async fn keep(&self) -> Result<LeaseKeepAliveResponse> {
        let request = LeaseKeepAliveRequest { id: self.lease };
        self.endpoints
            .call(
                "keep a lease",
                Repeat::Always,
                |channel: Channel| async move {
                    let one = futures::stream::once(async move { request });
                    let mut answers = LeaseClient::new(channel)
                        .lease_keep_alive(one)
                        .await?
                        .into_inner();
                    let answer = answers.message().await?;
                    answer
                        .map(Response::new)
                        .ok_or_else(|| Status::unavailable("etcd ended the keep-alive"))
                },
            )
            .await
    }

    /// What it held is lost. An etcd that was away gives leases their whole time again: as soon as
    /// it is back it is told that this one is over, so that others need not wait.
    async fn lose(&self, lost: &CancellationToken) {
        lost.cancel();
        let mut retries = Backoff::new(REVOKE_PAUSE_FIRST, REVOKE_PAUSE_LONGEST);
        for _ in 0..REVOKE_TRIES_MAX {
            match self.revoke().await {
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    tokio::time::sleep(retries.next_pause()).await
                }
                _ => return,
            }
        }
    }

    async fn revoke(&self) -> Result<()> {
        let request = LeaseRevokeRequest { id: self.lease };
        self.endpoints
            .call("revoke a lease", Repeat::Always, |channel: Channel| async move {
                LeaseClient::new(channel).lease_revoke(request).await
            })
            .await
            .map(drop)
    }
}
