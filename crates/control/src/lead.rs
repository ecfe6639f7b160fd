//! Which router leads, and which routers there are: both are rows that a router holds in the state
//! store while it runs.
//!
//! ```text
//!  following --the row is free, and taken--> leading --the lease is lost, or the router stops--> following
//! ```
//!
//! What must run once in a cluster runs through [`while_leading`]. Invariants: a router stops
//! leading before another can begin, by its own clock; a router that stops lets go at once, one
//! that was killed is replaced after [`Control::lease`]. A process that was suspended may believe for
//! a moment that it leads: what workers write is compare-and-set.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Control;

/// Pause between two tries to take a row that another router holds, or while the state store is
/// away.
const RETRY: Duration = Duration::from_secs(1);
/// How long letting go may take when the router stops; then the row goes with its lease.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(3);

/// Tries to be the leader until `stop`, and says in [`Control::leading`] when it is.
pub(crate) async fn lead(control: Arc<Control>, stop: CancellationToken) {
    let row = control.tables.leader.row("", &control.own);
    let changed = control.tables.leader.changed();
    let tell = |leading| {
        if control.leads.send_replace(leading) != leading {
            tracing::info!(router = control.own.router_id, leading, "leadership");
        }
    };
    keep(&control, row, changed, tell, stop).await;
}

/// Shows this router to the others until `stop`.
pub(crate) async fn present(control: Arc<Control>, stop: CancellationToken) {
    let row = control
        .tables
        .routers
        .row(&control.own.router_id, &control.own);
    let changed = control.tables.routers.changed();
    keep(&control, row, changed, |_| {}, stop).await;
}

/// Holds a row whenever nobody else does, until `stop`.
async fn keep(
    control: &Control,
    (key, value): (String, Vec<u8>),
    mut changed: watch::Receiver<()>,
    tell: impl Fn(bool),
    stop: CancellationToken,
) {
    loop {
        changed.mark_unchanged();
        let take = control
            .shared
            .store()
            .hold(&key, value.clone(), control.lease);
        let Some(taken) = stop.run_until_cancelled(take).await else {
            return;
        };
        match taken {
            Ok(Some(hold)) => {
                tell(true);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = hold.lost.cancelled() => {}
                }
                tell(false);
                if stop.is_cancelled() {
                    return hold.let_go(LET_GO_TIMEOUT).await;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(key, %error, "cannot hold a row; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            () = tokio::time::sleep(RETRY) => {}
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

/// Waits until this router leads, or does not. False: the router stops.
async fn becomes(
    leading: &mut watch::Receiver<bool>,
    value: bool,
    stop: &CancellationToken,
) -> bool {
    let becomes = async { leading.wait_for(|leading| *leading == value).await.is_ok() };
    stop.run_until_cancelled(becomes).await.unwrap_or(false)
}
