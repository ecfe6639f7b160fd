//! Forgetting a member that does not come back.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use monofs_model::view::Role;
use monofs_model::{Error, ErrorKind, Member, MemberState, NodeId, Repository, Result};
use monofs_proto::v1;

use crate::config::Config;
use crate::parts::Parts;
use crate::status::ago;
use monofs_control::Control;

/// Entries that are changed at the same time.
const CHANGES_MAX: usize = 16;

/// Forgets a member that does not come back. Errors: `NotFound`; `Refused` while it may come back
/// by itself, or is the only holder of something. What was done before an error stays done: ask
/// again.
pub async fn remove_member(
    state: &Arc<Parts>,
    request: v1::RemoveMemberRequest,
) -> Result<v1::RemoveMemberResponse> {
    let id = NodeId::new(&request.member_id)?;
    let view = state.fleet.members.view();
    let member = view
        .members
        .iter()
        .find(|member| member.id == id)
        .ok_or_else(|| {
            Error::not_found(format!(
                "no member '{id}'; `monofs-admin nodes` and `monofs-admin fetchers` list them"
            ))
        })?;
    if state
        .config
        .members
        .iter()
        .any(|fixed| fixed.id == id || fixed.address == member.address)
    {
        return Err(Error::refused(format!(
            "{id} is named by --nodes or --fetcher-addrs of this router: take it out there and \
             start the router again first"
        )));
    }
    removable(&state.config, &state.control, member)?;
    let held = state.control.catalog.held_by(&id);
    let only: Vec<_> = held
        .iter()
        .filter(|entry| entry.holders.len() == 1)
        .map(|entry| &entry.path)
        .collect();
    if let Some(first) = only.iter().min() {
        return Err(Error::refused(format!(
            "{id} is the only holder of {} repositories, first {first}: start it again, or delete \
             them first",
            only.len()
        )));
    }
    let without = |entry: Arc<Repository>| {
        let id = &id;
        async move { no_holder(&state.control, &entry, id).await }
    };
    futures::stream::iter(held)
        .map(without)
        .buffer_unordered(CHANGES_MAX)
        .try_collect::<()>()
        .await?;
    state
        .control
        .tables
        .intents
        .update(id.as_str(), |_| Ok(None))
        .await?;
    state
        .control
        .tables
        .audits
        .update(id.as_str(), |_| Ok(None))
        .await?;
    // Last, so that what fails before can be asked for again.
    state
        .control
        .tables
        .members
        .update(id.as_str(), |_| Ok(None))
        .await?;
    tracing::info!(member = %id, "member removed");
    Ok(v1::RemoveMemberResponse {})
}

/// Errors: `Refused` while the member is there, or maintenance keeps it from being judged.
fn removable(config: &Config, control: &Control, member: &Member) -> Result<()> {
    let id = &member.id;
    let refused = |why: String| Err(Error::refused(why));
    match member.state {
        MemberState::Down => Ok(()),
        MemberState::Drained => refused(format!(
            "{id} is drained but runs, so it would register again: stop it first"
        )),
        _ if control.tables.maintenance.get("").is_some() => refused(format!(
            "{id} is {}, and while the cluster is drained nobody is declared down: `monofs-admin \
             undrain` first",
            member.state.as_str()
        )),
        MemberState::Suspect | MemberState::Joining => refused(format!(
            "{id} is {}: when it is stopped it will be down in {}, then remove it",
            member.state.as_str(),
            ago(config.unhealthy_threshold.max(Duration::from_secs(1)))
        )),
        _ if member.role == Role::Fetcher => {
            refused(format!("{id} is {}: stop it first", member.state.as_str()))
        }
        other => refused(format!(
            "{id} is {}: `monofs-admin drain --node={id}`, stop it when it is drained, then remove \
             it",
            other.as_str()
        )),
    }
}

/// Takes a node off the holders of an entry. Errors: `Refused` when nobody else is one.
async fn no_holder(control: &Control, entry: &Repository, id: &NodeId) -> Result<()> {
    let without = |entry: &Repository| {
        if !entry.holders.contains(id) {
            return Ok(None);
        }
        let mut shrunk = entry.clone();
        shrunk.holders.retain(|holder| holder != id);
        if shrunk.holders.is_empty() {
            return Err(Error::refused(format!(
                "{id} became the only holder of {}: start it again",
                entry.path
            )));
        }
        Ok(Some(shrunk))
    };
    match control.entries.update(&entry.path, without).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile.
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
