//! The refresh worker: looks upstream for new commits of every repository, once per refresh
//! interval.
//!
//! The catalogue says who is due, the longest waiting first, so a round costs what it starts. A
//! repository whose remote fails waits for its turn like any other. Without a fetcher or a node
//! nothing is tried.

use std::sync::Arc;
use std::time::Duration;

use monofs_rpc::context;
use tokio_util::sync::CancellationToken;

use crate::ingest;
use crate::parts::Parts;
use monofs_control::clock;
use monofs_members::membership;

/// Repositories looked at in one round whose hosts want to be left alone: they cost no request.
const PASSED_OVER_MAX: usize = 1024;
/// How often the worker looks who is due.
const TICK_MAX: Duration = Duration::from_secs(5);
/// How often it looks while more are due than may run.
const TICK_BEHIND: Duration = Duration::from_millis(100);
/// Refreshes running at a time.
const RUNNING_MAX: usize = 16;

/// Starts refreshes that are due, until `stop`.
pub(crate) async fn run(state: Arc<Parts>, stop: CancellationToken) {
    let interval = state.config.refresh_interval;
    if interval.is_zero() {
        return;
    }
    let mut behind = false;
    loop {
        let pause = if behind { TICK_BEHIND } else { TICK_MAX };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause.min(interval)) => {}
        }
        behind = membership::can_refresh(&state.fleet.members.view())
            && start_due(&state, interval).await;
    }
}

/// Starts what is due and may run. True: more is due.
async fn start_due(state: &Arc<Parts>, interval: Duration) -> bool {
    let before = clock::now() - interval.as_secs() as i64;
    let mut room = RUNNING_MAX.saturating_sub(state.work.ingests.working());
    let due = state
        .control
        .catalog
        .due(before, room + 1 + PASSED_OVER_MAX);
    for entry in &due {
        // One whose host wants to be left alone has its next turn then, or an interval later.
        if state.fleet.hosts.check(&entry.source).is_err() {
            state.control.catalog.looked(&entry.path);
            continue;
        }
        if room == 0 {
            return true;
        }
        room -= 1;
        state.control.catalog.looked(&entry.path);
        if let Err(error) = ingest::refresh_now(&context::actor(), state, entry).await {
            tracing::warn!(path = %entry.path, %error, "cannot refresh");
        }
    }
    due.len() > PASSED_OVER_MAX
}
