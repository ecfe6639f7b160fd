//! What operators read about the cluster: its status, and what nodes hold.

use std::sync::Arc;

use futures::future::join_all;
use monofs_control::Control;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{Actor, DisplayPath, ErrorKind, Member, Result, StorageId};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_proto::v1::node_files_response::Entry;
use monofs_rpc::{Context, from_status, within};

use super::asked::asked;
use crate::parts::Parts;
use crate::reconcile::leftovers::orphaned_commits;
use crate::status;
use monofs_members::fleet::Fleet;
use monofs_members::membership;

/// Everything about the cluster, or only what this router knows of itself.
pub async fn status(
    actor: &Actor,
    state: &Arc<Parts>,
    request: &v1::StatusRequest,
) -> v1::StatusResponse {
    asked(actor, "status", "");
    if request.own {
        status::own(state)
    } else {
        status::status(state).await
    }
}

/// What a node, or every node, holds of a path, or of everything, with the commits that nothing
/// names. A node that does not say so is told with why. Errors: `Invalid`, `NotFound`.
pub async fn node_files(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    request: &v1::NodeFilesRequest,
) -> Result<v1::NodeFilesResponse> {
    asked(actor, "node files", &request.path);
    let storage_id = match request.path.as_str() {
        "" => None,
        path => Some(DisplayPath::new(path)?.storage_id()),
    };
    let asked = nodes_named(fleet, &request.node_id)?;
    let files = asked
        .iter()
        .map(|node| files_on(fleet, node, storage_id.as_ref()));
    let mut nodes = join_all(files).await;
    if let Err(error) = mark_orphans(control, storage_id.as_ref(), &mut nodes).await {
        for node in &mut nodes {
            node.error = format!("cannot say what the catalogue does not name: {error}");
        }
    }
    Ok(v1::NodeFilesResponse { nodes })
}

/// The node called `id`; empty or `all` = every one. Errors: `NotFound`; `Refused` for a fetcher.
fn nodes_named(fleet: &Fleet, id: &str) -> Result<Vec<Member>> {
    let view = fleet.members.view();
    if id.is_empty() || id == "all" {
        return Ok(view.nodes().cloned().collect());
    }
    membership::node(&view, id).map(|node| vec![node.clone()])
}

async fn files_on(fleet: &Fleet, node: &Member, storage_id: Option<&StorageId>) -> Entry {
    let ask = async {
        let mut client = fleet
            .node_client(node)?
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = v1::ListHeldRequest {
            storage_id: storage_id.map_or(String::new(), ToString::to_string),
        };
        client
            .list_held(Context::new(fleet.call_timeout).request(request))
            .await
            .map_err(from_status)
    };
    let (repositories, error) = match within(fleet.call_timeout, "list held", ask).await {
        Ok(answer) => (answer.into_inner().repositories, String::new()),
        Err(error) if error.kind == ErrorKind::NotHeld => (Vec::new(), String::new()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    Entry {
        node_id: node.id.to_string(),
        repositories,
        error,
    }
}

/// Says of each repository that nodes hold which commits nothing names. `storage_id`: of the one
/// that was asked for; `None` = all. Errors: the state store's.
async fn mark_orphans(
    control: &Control,
    storage_id: Option<&StorageId>,
    nodes: &mut [Entry],
) -> Result<()> {
    let retained = control.retained.of(storage_id).await?;
    for held in nodes.iter_mut().flat_map(|node| &mut node.repositories) {
        let orphaned = orphaned_commits(control, &retained, held).await?;
        held.orphaned_commits = orphaned.iter().map(oid_bytes).collect();
    }
    Ok(())
}
