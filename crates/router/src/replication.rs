//! How far copies are behind what is wanted, and for how long: kept by each router for its own
//! metrics.
//!
//! The catalogue says who holds what, the view who serves. Since when an entry has been below its
//! copies nobody records, so each router remembers when it first saw that: after its start it may
//! know less. What placement wants on a node and the node lacks only the plan knows, which the
//! leader has. Invariant: at most one moment is remembered for each entry.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use monofs_model::NodeId;
use monofs_rpc::metrics::Samples;
use tokio_util::sync::CancellationToken;

use crate::RouterState;
use crate::catalog::{Copies, Key};

/// How often a router looks, besides when it is asked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(crate) struct Replication(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Since when each entry has been below its copies.
    below: HashMap<Key, Instant>,
    /// Copies that placement wants on each node and that it lacks, as the plan of this router says.
    behind: Vec<(NodeId, usize)>,
}

impl Replication {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan says so.
    pub fn planned(&self, behind: Vec<(NodeId, usize)>) {
        self.lock().behind = behind;
    }

    /// Takes in who is below now; gives since when the oldest of them is.
    fn look(&self, below: &[Key], now: Instant) -> Option<Instant> {
        let mut seen = self.lock();
        let before = std::mem::take(&mut seen.below);
        let since = |key: &Key| (key.clone(), before.get(key).copied().unwrap_or(now));
        seen.below = below.iter().map(since).collect();
        seen.below.values().min().copied()
    }
}

/// Looks until `stop`.
pub(crate) async fn run(state: Arc<RouterState>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
        .await
        .is_some()
    {
        let looked = state.clone();
        let look = move || {
            let copies = copies(&looked);
            looked.replication.look(&copies.below, Instant::now());
        };
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "counting copies broke off");
        }
    }
}

fn copies(state: &RouterState) -> Copies {
    let view = state.members.view();
    let wanted = view.copies_wanted();
    let serving: HashSet<NodeId> = view
        .nodes()
        .filter(|node| node.state.serves())
        .map(|node| node.id.clone())
        .collect();
    state.catalog.copies(wanted, &serving)
}

/// Adds what is known now. Blocks for as long as it takes to look at what nodes that are away hold.
pub(crate) fn samples(state: &RouterState, out: &mut Samples) {
    let copies = copies(state);
    let now = Instant::now();
    let lag = state
        .replication
        .look(&copies.below, now)
        .map_or(0.0, |since| (now - since).as_secs_f64());
    out.gauges_by(
        "monofs_router_copies",
        "Copies of ready repositories on nodes that serve, and those missing to the wanted number.",
        ["state"],
        [(["held"], copies.held), (["missing"], copies.missing)],
    );
    out.gauge(
        "monofs_router_repositories_below_copies",
        "Ready repositories with fewer copies on nodes that serve than wanted (nodes that are too \
         few want no more).",
        copies.below.len(),
    );
    out.gauge(
        "monofs_router_repositories_without_copy",
        "Ready repositories that no node that serves holds: they cannot be read.",
        copies.lost,
    );
    out.gauge(
        "monofs_router_replication_lag_seconds",
        "For how long the oldest repository has been below its copies, since this router first saw \
         it; 0 = none is.",
        lag,
    );
    if *state.leading.borrow() {
        let behind = state.replication.lock().behind.clone();
        out.gauges_by(
            "monofs_router_node_behind_repositories",
            "Copies that placement wants on a node and that it lacks; told by the router that \
             leads.",
            ["node"],
            behind
                .into_iter()
                .map(|(node, lacks)| ([node.to_string()], lacks)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_that_of_the_entry_that_waits_longest() {
        let (replication, start) = (Replication::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let keys: Vec<Key> = ["a", "b"].map(Key::from).to_vec();
        assert_eq!(replication.look(&keys[..1], at(0)), Some(at(0)));
        assert_eq!(replication.look(&keys, at(5)), Some(at(0)));
        assert_eq!(
            replication.look(&keys[1..], at(9)),
            Some(at(5)),
            "the older one has its copies again"
        );
        assert_eq!(replication.look(&[], at(10)), None);
        assert_eq!(
            replication.look(&keys, at(20)),
            Some(at(20)),
            "and later it is below anew"
        );
    }
}
