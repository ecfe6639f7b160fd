//! Forgetting a member that does not come back.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use monofs_model::view::Role;
use monofs_model::{Actor, Error, ErrorKind, Member, MemberState, NodeId, Repository, Result};
use monofs_proto::v1;

use super::asked::asked;
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
    actor: &Actor,
    state: &Arc<Parts>,
    request: v1::RemoveMemberRequest,
) -> Result<v1::RemoveMemberResponse> {
    asked(actor, "remove a member", &request.member_id);
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
    let held = held_elsewhere_too(&state.control, &id)?;

    // What names it goes entry by entry, and itself last, so that what fails can be asked again.
    let without = |entry: Arc<Repository>| {
        let id = &id;
        async move { no_holder(actor, &state.control, &entry, id).await }
    };
    futures::stream::iter(held)
        .map(without)
        .buffer_unordered(CHANGES_MAX)
        .try_collect::<()>()
        .await?;
    let tables = &state.control.tables;
    let row = id.as_str();
    tables.intents.update(actor, row, |_| Ok(None)).await?;
    tables.audits.update(actor, row, |_| Ok(None)).await?;
    tables.members.update(actor, row, |_| Ok(None)).await?;
    tracing::info!(member = %id, "member removed");
    Ok(v1::RemoveMemberResponse {})
}

/// The entries that a node holds. Errors: `Refused` when it is the only holder of one.
fn held_elsewhere_too(control: &Control, id: &NodeId) -> Result<Vec<Arc<Repository>>> {
    let held = control.catalog.held_by(id);
    let only = held.iter().filter(|entry| entry.holders.len() == 1);
    let only: Vec<_> = only.map(|entry| &entry.path).collect();
    if let Some(first) = only.iter().min() {
        return Err(Error::refused(format!(
            "{id} is the only holder of {} repositories, first {first}: start it again, or delete \
             them first",
            only.len()
        )));
    }
    Ok(held)
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
async fn no_holder(
    actor: &Actor,
    control: &Control,
    entry: &Repository,
    id: &NodeId,
) -> Result<()> {
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
    match control.entries.update(actor, &entry.path, without).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile.
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{TestRouter, actor, member, path};

    fn named(id: &str) -> v1::RemoveMemberRequest {
        v1::RemoveMemberRequest {
            member_id: id.into(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_that_is_there_or_unknown_cannot_be_removed() {
        let router = TestRouter::start().await;
        router.node("n1").await;
        let unknown = remove_member(actor(), router.parts(), named("n9")).await;
        assert_eq!(unknown.expect_err("unknown").kind, ErrorKind::NotFound);
        let invalid = remove_member(actor(), router.parts(), named("")).await;
        assert_eq!(invalid.expect_err("no id").kind, ErrorKind::Invalid);
        let active = remove_member(actor(), router.parts(), named("n1")).await;
        let active = active.expect_err("it runs");
        assert!(active.message.contains("monofs-admin drain"), "{active}");
        let fetcher = member("f1", Role::Fetcher, "127.0.0.1:9");
        let members = &router.parts().fleet.members;
        members.announced(fetcher).await.expect("admitted");
        let fetcher = remove_member(actor(), router.parts(), named("f1")).await;
        let fetcher = fetcher.expect_err("it runs");
        assert!(fetcher.message.ends_with("stop it first"), "{fetcher}");
    }

    #[test]
    fn every_state_says_what_to_do_first() {
        let config = Config::new("unused".into());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let router = TestRouter::start().await;
            let control = &router.parts().control;
            let of = |state| {
                let node = Member {
                    state,
                    ..member("n1", Role::Node, "127.0.0.1:9")
                };
                removable(&config, control, &node)
            };
            assert!(of(MemberState::Down).is_ok());
            for state in [
                MemberState::Drained,
                MemberState::Suspect,
                MemberState::Joining,
                MemberState::Active,
                MemberState::Recovering,
                MemberState::Draining,
            ] {
                let refused = of(state).expect_err("it may come back");
                assert_eq!(refused.kind, ErrorKind::Refused, "{state:?}");
            }
            let drained = |_: Option<&v1::Maintenance>| Ok(Some(v1::Maintenance::default()));
            let set = control
                .tables
                .maintenance
                .update(actor(), "", drained)
                .await;
            set.expect("the cluster is drained");
            let refused = of(MemberState::Suspect).expect_err("nobody is declared down");
            assert!(refused.message.contains("undrain"), "{refused}");
        });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_only_holder_stays_one_and_others_are_taken_off() {
        let router = TestRouter::start().await;
        let control = &router.parts().control;
        let only = router.repository("a/only", &["n1"], 1).await;
        let n1 = NodeId::new("n1").expect("an id");
        let refused = no_holder(actor(), control, &only, &n1).await;
        assert_eq!(refused.expect_err("the last one").kind, ErrorKind::Refused);
        let two = router.repository("a/two", &["n1", "n2"], 2).await;
        no_holder(actor(), control, &two, &n1)
            .await
            .expect("n2 is left");
        let left = control.catalog.get(&path("a/two")).expect("it is there");
        assert_eq!(left.holders, [NodeId::new("n2").expect("an id")]);
        // Asked again, or for what is deleted, it is done already.
        no_holder(actor(), control, &two, &n1)
            .await
            .expect("done already");
        control
            .entries
            .remove(actor(), &two.path)
            .await
            .expect("deleted");
        no_holder(actor(), control, &two, &n1)
            .await
            .expect("deleted");
    }
}
