//! The refresh worker: looks upstream for new commits of every repository, evenly spread over the refresh interval.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{DisplayPath, RepositoryState};
use tokio_util::sync::CancellationToken;

use crate::{RouterState, clock, ingest};

/// How often the worker looks who is due.
const TICK_MAX: Duration = Duration::from_secs(5);
/// Refreshes started in one tick and running at a time.
const BATCH_MAX: usize = 16;

/// Starts refreshes that are due, until `stop`.
pub(crate) async fn run(state: Arc<RouterState>, stop: CancellationToken) {
    let interval = state.config.refresh_interval;
    if interval.is_zero() {
        return;
    }
    // When each repository was last tried: one whose remote fails waits for its turn like any other.
    let mut tried: HashMap<DisplayPath, i64> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK_MAX.min(interval)) => {}
        }
        let due = clock::now() - interval.as_secs() as i64;
        let mut waiting: Vec<_> = state
            .catalog
            .page("", "", usize::MAX)
            .into_iter()
            .filter(|entry| entry.state == RepositoryState::Ready && entry.refreshed_at <= due)
            .filter(|entry| !is_pinned(entry) && tried.get(&entry.path).is_none_or(|at| *at <= due))
            .collect();
        tried.retain(|_, at| *at > due);
        waiting.sort_by_key(|entry| entry.refreshed_at);
        let room = BATCH_MAX.saturating_sub(state.ingests.len());
        for entry in waiting.iter().take(room) {
            tried.insert(entry.path.clone(), clock::now());
            if let Err(error) = ingest::refresh(&state, entry) {
                tracing::warn!(path = %entry.path, %error, "cannot refresh");
            }
        }
    }
}

/// A repository that follows a full commit id never moves.
fn is_pinned(entry: &monofs_model::Repository) -> bool {
    matches!(entry.ref_name.as_str().len(), 40 | 64) && entry.ref_name.may_be_commit()
}
