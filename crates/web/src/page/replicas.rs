//! The copies of one repository as its holders tell: who has it, who should, how far its contents
//! are.

use futures::future::join_all;
use monofs_model::{ErrorKind, Member, MemberState, NodeId, Repository, placement};
use monofs_proto::v1;

use super::answer::ASK_TIMEOUT;
use super::parts::{Bar, State};
use super::text::{clean, encode_path, number, size};
use monofs_members::fleet::Fleet;

/// One copy, or a place where one should be.
pub(super) struct Replica {
    pub id: String,
    pub href: String,
    pub state: State,
    /// Recorded to hold the published commit.
    pub holder: bool,
    /// Placement wants a copy there.
    pub wanted: bool,
    /// Distinct files that are there and in all; `None` = not known.
    pub contents: Option<(u64, u64)>,
    pub bar: Option<Bar>,
    pub disk: Option<String>,
    pub problem: String,
}

/// Everybody who holds, or should hold, `entry`; each is asked within [`ASK_TIMEOUT`].
pub(super) async fn of(fleet: &Fleet, entry: &Repository) -> Vec<Replica> {
    let view = fleet.members.view();
    let id = entry.storage_id();
    let wanted = placement::replicas(
        &id,
        &fleet.members.placement_nodes(),
        view.replication_factor as usize,
    );
    let concerned = |node: &&Member| entry.holders.contains(&node.id) || wanted.contains(&node.id);
    let asked = view.nodes().filter(concerned).map(|node| {
        let id = &id;
        let wanted = wanted.contains(&node.id);
        async move {
            let holder = entry.holders.contains(&node.id);
            if node.state == MemberState::Down {
                return replica(
                    node,
                    holder,
                    wanted,
                    None,
                    "it is down, so it was not asked".to_owned(),
                );
            }
            match tokio::time::timeout(ASK_TIMEOUT, fleet.held(node, id)).await {
                Ok(Ok(held)) => replica(node, holder, wanted, Some(held), String::new()),
                Ok(Err(error)) if error.kind == ErrorKind::NotHeld && !holder => {
                    replica(node, holder, wanted, None, String::new())
                }
                Ok(Err(error)) => replica(node, holder, wanted, None, error.message),
                Err(_) => replica(
                    node,
                    holder,
                    wanted,
                    None,
                    format!("no answer within {} s", ASK_TIMEOUT.as_secs()),
                ),
            }
        }
    });
    let mut replicas = join_all(asked).await;
    let known = |id: &NodeId| view.nodes().any(|node| node.id == *id);
    replicas.extend(entry.holders.iter().filter(|id| !known(id)).map(gone));
    replicas.sort_by(|a, b| (!a.holder, &a.id).cmp(&(!b.holder, &b.id)));
    replicas
}

fn replica(
    node: &Member,
    holder: bool,
    wanted: bool,
    held: Option<v1::HeldRepository>,
    problem: String,
) -> Replica {
    let told = held
        .as_ref()
        .map(|held| held.last_error.clone())
        .unwrap_or_default();
    let contents = held
        .as_ref()
        .map(|held| (held.hydrated_blobs, held.total_blobs));
    Replica {
        id: clean(node.id.as_str()),
        href: format!("/nodes/{}", encode_path(node.id.as_str())),
        state: State::of_member(node),
        holder,
        wanted,
        contents,
        bar: contents.map(|(done, total)| {
            Bar::progress(
                done,
                total,
                format!("{} of {} files", number(done), number(total)),
            )
        }),
        disk: held.map(|held| size(held.disk_bytes)),
        problem: clean(if problem.is_empty() { &told } else { &problem }),
    }
}

/// A recorded holder that is no member any more.
fn gone(id: &NodeId) -> Replica {
    Replica {
        id: clean(id.as_str()),
        href: "/nodes".to_owned(),
        state: State::of_member_state(MemberState::Down),
        holder: true,
        wanted: false,
        contents: None,
        bar: None,
        disk: None,
        problem: "it is no member any more".to_owned(),
    }
}
