//! Which router leads, and which routers there are: both are rows that a router holds in the state
//! store while it runs.
//!
//! ```text
//!  following --the row is free, and taken--> leading --lease lost, or router stops--> following
//! ```
//!
//! What must run once in a cluster runs through [`while_leading`]. Invariants: a router stops
//! leading before another can begin, by its own clock; a router that stops releases its rows at
//! once, one that was killed is replaced after the time of its lease. A process that was suspended
//! may believe for a moment that it leads: what workers write is compare-and-set.

use std::future::Future;
use std::time::Duration;

use monofs_rpc::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::state::StateStore;

/// Pauses between tries to take a row that another router holds, or while the state store is away.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// How long a release may take when the router stops; then the row goes with its lease.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A row that a router wants to hold all the time.
pub(crate) struct KeptRow {
    pub key: String,
    pub value: Vec<u8>,
    /// After how long of silence the row is free for others.
    pub lease: Duration,
    /// Wakes when the row may have become free.
    pub changed: watch::Receiver<()>,
}

/// Whether this router holds the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowHold {
    Held,
    NotHeld,
}

/// Holds a row whenever no other router does, until `stop`, and tells each change. Returns after
/// the row was released.
pub(crate) async fn keep(
    store: &dyn StateStore,
    mut row: KeptRow,
    tell: impl Fn(RowHold),
    stop: CancellationToken,
) {
    let mut retries = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    loop {
        row.changed.mark_unchanged();
        let take = store.hold(&row.key, row.value.clone(), row.lease);
        let Some(taken) = stop.run_until_cancelled(take).await else {
            return;
        };
        match taken {
            Ok(Some(held)) => {
                tell(RowHold::Held);
                retries.reset();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = held.lost.cancelled() => {}
                }
                // Told before others can have the row.
                tell(RowHold::NotHeld);
                if stop.is_cancelled() {
                    return held.release(RELEASE_TIMEOUT).await;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(key = row.key, %error, "cannot hold a row; trying again");
            }
        }
        // Another router holds the row, or the state store is away.
        tokio::select! {
            () = stop.cancelled() => return,
            _ = row.changed.changed() => {}
            () = tokio::time::sleep(retries.next_pause()) => {}
        }
    }
}

/// Runs `work` whenever this router leads, until `stop`. When it leads no longer, the token given
/// to `work` is cancelled and `work` is dropped where it waits.
pub async fn while_leading<W: Future<Output = ()>>(
    mut leading: watch::Receiver<bool>,
    stop: CancellationToken,
    work: impl Fn(CancellationToken) -> W,
) {
    while !stop.is_cancelled() && becomes(&mut leading, true, &stop).await {
        let term = stop.child_token();
        let _ends = term.clone().drop_guard();
        let work = async {
            work(term).await;
            // It has nothing more to do as long as this router leads.
            std::future::pending().await
        };
        tokio::select! {
            () = work => {}
            _ = becomes(&mut leading, false, &stop) => {}
        }
    }
}

/// Waits until [`crate::Control::leading`] has this value. False: the router stops.
async fn becomes(
    leading: &mut watch::Receiver<bool>,
    value: bool,
    stop: &CancellationToken,
) -> bool {
    let becomes = async { leading.wait_for(|leading| *leading == value).await.is_ok() };
    stop.run_until_cancelled(becomes).await.unwrap_or(false)
}
