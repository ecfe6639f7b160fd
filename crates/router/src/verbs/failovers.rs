//! Where reads go instead of where placement wants them, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use monofs_model::{Actor, ClusterView, Error, Member, MemberState, Repository, Result};
use monofs_proto::v1;

use monofs_control::clock;

use super::asked::asked;
use crate::parts::Parts;
use monofs_control::Control;
use monofs_members::fleet::Fleet;

/// Whose reads go elsewhere, how many of what it holds, and where to.
pub async fn list_failovers(
    actor: &Actor,
    state: &Arc<Parts>,
) -> Result<v1::ListFailoversResponse> {
    asked(actor, "list failovers", "");
    let state = state.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let view = state.fleet.members.view();
        let mut well = view.clone();
        for member in &mut well.members {
            (member.state, member.share_percent, member.failed_over) =
                (MemberState::Active, 100, false);
        }
        let cause = |node| Some((node, cause(&state.control, &state.fleet, node)?));
        let failovers = view
            .nodes()
            .filter_map(cause)
            .map(|(node, (reason, since))| {
                let entries = state.control.catalog.held_by(&node.id);
                let targets = targets(&view, &well, node, &entries);
                v1::Failover {
                    node_id: node.id.to_string(),
                    state: v1::MemberState::from(node.state).into(),
                    reason,
                    since,
                    repositories: targets.values().sum(),
                    targets: targets
                        .into_iter()
                        .filter(|(id, _)| !id.is_empty())
                        .map(|(node_id, repositories)| v1::FailoverTarget {
                            node_id,
                            repositories,
                        })
                        .collect(),
                }
            });
        failovers.collect()
    });
    let failovers = listed
        .await
        .map_err(|e| Error::internal(format!("list failovers: {e}")))?;
    Ok(v1::ListFailoversResponse { failovers })
}

/// Why readers do not ask this node first about all that it is first for, and since when.
fn cause(control: &Control, fleet: &Fleet, node: &Member) -> Option<(String, i64)> {
    let held_for = fleet.members.standing_for(&node.id).unwrap_or_default();
    let since = clock::now() - held_for.as_secs() as i64;
    let judged = |reason: &str| Some((reason.to_owned(), since));
    match node.state {
        MemberState::Down => judged("it is down"),
        MemberState::Suspect => judged("nothing was heard of it for a while"),
        _ if node.failed_over => {
            let intent = control
                .tables
                .intents
                .get(node.id.as_str())
                .unwrap_or_default();
            let said = if intent.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", intent.reason)
            };
            Some((format!("failed over by an operator{said}"), intent.since))
        }
        MemberState::Recovering => judged("it is recovering"),
        _ if node.share_percent < 100 => judged(&format!(
            "it has recovered; {} % of its reads have returned",
            node.share_percent
        )),
        _ => None,
    }
}

/// Who is asked first about the entries that `node` would be asked about if all were well, and
/// about how many; "" = nobody can be.
fn targets(
    view: &ClusterView,
    well: &ClusterView,
    node: &Member,
    entries: &[Arc<Repository>],
) -> BTreeMap<String, u64> {
    let mut targets = BTreeMap::new();
    for entry in entries {
        let id = entry.storage_id();
        let first = |view: &ClusterView| {
            view.readers(&id, &entry.holders)
                .first()
                .map(|member| member.id.clone())
        };
        if first(well).as_ref() != Some(&node.id) {
            continue;
        }
        let target = first(view);
        if target.as_ref() != Some(&node.id) {
            *targets
                .entry(target.map_or(String::new(), String::from))
                .or_insert(0) += 1;
        }
    }
    targets
}
