//! What states members went through, as this router saw it: for the page of a node.
//!
//! In memory, since this router started; bounded by [`MEMBERS_MAX`] and [`CHANGES_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};

use monofs_model::{ClusterView, MemberState, NodeId};

use crate::{RouterState, clock};

/// Members that are followed; of more, the first ones seen.
const MEMBERS_MAX: usize = 2000;
/// Changes of one member that are kept.
const CHANGES_MAX: usize = 50;

/// A member got into this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Seconds since the epoch.
    pub at: i64,
    pub state: MemberState,
    pub failed_over: bool,
}

/// The last changes of every member.
#[derive(Default)]
pub(super) struct States {
    /// Newest last.
    members: RwLock<BTreeMap<NodeId, VecDeque<Change>>>,
}

impl States {
    /// The changes of a member, newest first.
    pub fn of(&self, id: &NodeId) -> Vec<Change> {
        let members = self.members.read().expect("no holder of this lock panics");
        members.get(id).into_iter().flatten().rev().copied().collect()
    }

    /// Takes in the view as it is at `at`.
    fn see(&self, view: &ClusterView, at: i64) {
        let mut members = self.members.write().expect("no holder of this lock panics");
        members.retain(|id, _| view.members.iter().any(|member| member.id == *id));
        for member in &view.members {
            if members.len() >= MEMBERS_MAX && !members.contains_key(&member.id) {
                continue;
            }
            let changes = members.entry(member.id.clone()).or_default();
            let now = Change { at, state: member.state, failed_over: member.failed_over };
            let same = |last: &Change| (last.state, last.failed_over) == (now.state, now.failed_over);
            if !changes.back().is_some_and(same) {
                changes.push_back(now);
                if changes.len() > CHANGES_MAX {
                    changes.pop_front();
                }
            }
        }
    }
}

/// Follows the view until the router stops.
pub(super) async fn follow(states: Arc<States>, state: Arc<RouterState>) {
    let mut view = state.members.subscribe();
    let work = async {
        loop {
            states.see(&view.borrow_and_update(), clock::now());
            if view.changed().await.is_err() {
                return;
            }
        }
    };
    state.stop.run_until_cancelled(work).await;
}

#[cfg(test)]
mod tests {
    use monofs_model::Member;
    use monofs_model::view::Role;

    use super::*;

    fn view(members: &[(&str, MemberState)]) -> ClusterView {
        let member = |(id, state): &(&str, MemberState)| Member {
            id: NodeId::new(id).expect("an id"),
            role: Role::Node,
            address: String::new(),
            external_address: String::new(),
            weight: 1.0,
            zone: String::new(),
            state: *state,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: 0,
            share_percent: 100,
            failed_over: false,
        };
        ClusterView { members: members.iter().map(member).collect(), ..Default::default() }
    }

    #[test]
    fn only_changes_are_kept_and_only_of_members() {
        let states = States::default();
        let id = NodeId::new("a").expect("an id");
        for (at, state) in [(1, MemberState::Joining), (2, MemberState::Active), (3, MemberState::Active)] {
            states.see(&view(&[("a", state), ("b", MemberState::Active)]), at);
        }
        let seen: Vec<_> = states.of(&id).iter().map(|change| (change.at, change.state)).collect();
        assert_eq!(seen, [(2, MemberState::Active), (1, MemberState::Joining)]);
        for at in 0..100 {
            let state = if at % 2 == 0 { MemberState::Down } else { MemberState::Active };
            states.see(&view(&[("a", state)]), at);
        }
        assert_eq!(states.of(&id).len(), CHANGES_MAX);
        assert!(states.of(&NodeId::new("b").expect("an id")).is_empty(), "it left");
    }
}
