//! How far copies are behind what is wanted, and for how long: kept by each router for its own
//! metrics.
//!
//! The catalogue says who holds what, the view who serves. Since when an entry has been below its
//! copies nobody records, so each router remembers when it first saw that: after its start it may
//! know less. What placement wants on a node and the node lacks only the plan knows, which the
//! leader has. Invariant: at most one moment is remembered for each entry.

pub mod figures;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_model::NodeId;
use monofs_rpc::metrics::Samples;
use tokio_util::sync::CancellationToken;

use crate::parts::Parts;
use monofs_control::Control;
use monofs_control::catalog::CopyCounts;
use monofs_members::fleet::Fleet;

/// How often a router looks, besides when it is asked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks until `stop`.
pub(crate) async fn run(state: Arc<Parts>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
        .await
        .is_some()
    {
        let looked = state.clone();
        let look = move || {
            let copies = copies(&looked.control, &looked.fleet);
            looked.work.replication.look(&copies.below, Instant::now());
        };
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "counting copies broke off");
        }
    }
}

fn copies(control: &Control, fleet: &Fleet) -> CopyCounts {
    let view = fleet.members.view();
    let wanted = view.copies_wanted();
    let serving: HashSet<NodeId> = view
        .nodes()
        .filter(|node| node.state.serves())
        .map(|node| node.id.clone())
        .collect();
    control.catalog.copies(wanted, &serving)
}

/// Adds what is known now. Blocks for as long as it takes to look at what nodes that are away hold.
pub(crate) fn samples(state: &Parts, out: &mut Samples) {
    let copies = copies(&state.control, &state.fleet);
    let now = Instant::now();
    let lag = state
        .work
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
    if *state.control.leading.borrow() {
        let behind = state.work.replication.lock().behind.clone();
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
