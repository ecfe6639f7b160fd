//! What this router saw of each member, for operators: the states that it came into, and how probes
//! of it went.
//!
//! Invariants: of each member the last [`STATES_MAX`] states, and nothing of one that was removed.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};

use monofs_model::{Member, MemberState, NodeId};
use monofs_proto::v1;

use monofs_control::clock;
use monofs_fleet::members::MemberEvent;

/// States that are kept of each member.
const STATES_MAX: usize = 50;
/// Longest text of a failed probe, in characters.
const FAILURE_MAX: usize = 300;

/// A state that a member came into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub state: MemberState,
    /// Seconds since the epoch.
    pub since: i64,
    /// One line: what made it so.
    pub why: String,
}

#[derive(Default)]
struct Of {
    /// The oldest first.
    states: VecDeque<StateChange>,
    /// Of the last probe, if it failed.
    failure: Option<String>,
    /// The router of another catalogue that asks it, too.
    other_router: Option<String>,
}

/// By member.
#[derive(Default)]
pub(super) struct MemberObservations(Mutex<BTreeMap<NodeId, Of>>);

impl MemberObservations {
    /// It is in this state now because of `why`; nothing when it was before.
    pub fn state(&self, member: &Member, why: &str) {
        let mut seen = self.lock();
        let of = seen.entry(member.id.clone()).or_default();
        if of
            .states
            .back()
            .is_some_and(|last| last.state == member.state)
        {
            return;
        }
        of.states.push_back(StateChange {
            state: member.state,
            since: clock::now(),
            why: why.to_owned(),
        });
        if of.states.len() > STATES_MAX {
            of.states.pop_front();
        }
    }

    /// A probe of it failed. Nothing is noted of one that is no member.
    pub fn failed(&self, id: &NodeId, error: &str) {
        if let Some(of) = self.lock().get_mut(id) {
            of.failure = Some(error.chars().take(FAILURE_MAX).collect());
        }
    }

    /// It was heard of.
    pub fn answered(&self, id: &NodeId) {
        if let Some(of) = self.lock().get_mut(id) {
            of.failure = None;
        }
    }

    /// Which routers with other catalogues it is asked by, as it says itself.
    pub fn other_askers(&self, id: &NodeId, others: &[v1::CatalogAsker]) {
        if let Some(of) = self.lock().get_mut(id) {
            let other = others.first().map(|other| other.router.clone());
            if let Some(router) = other.as_ref().filter(|_| of.other_router.is_none()) {
                tracing::warn!(member = %id, %router, "a router with another catalogue uses this \
                 member, too; routers share a catalogue only with the same --state etcd://");
            }
            of.other_router = other;
        }
    }

    /// The routers of other catalogues, and the members that they ask, too.
    pub fn other_routers(&self) -> BTreeMap<String, Vec<NodeId>> {
        let mut routers: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        for (id, of) in self.lock().iter() {
            if let Some(router) = &of.other_router {
                routers.entry(router.clone()).or_default().push(id.clone());
            }
        }
        routers
    }

    /// It is no member any more.
    pub fn gone(&self, id: &NodeId) {
        self.lock().remove(id);
    }

    /// Its states, the oldest first.
    pub fn states(&self, id: &NodeId) -> Vec<StateChange> {
        self.lock()
            .get(id)
            .map(|of| of.states.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Why the last probe of it failed, if it did.
    pub fn failure(&self, id: &NodeId) -> Option<String> {
        self.lock().get(id)?.failure.clone()
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, BTreeMap<NodeId, Of>> {
        self.0.lock()
    }
}

/// What an event says about why a state changed.
pub(super) fn why(event: &MemberEvent) -> &'static str {
    match event {
        MemberEvent::Announced(_) => "it announced itself",
        MemberEvent::Answered(_) | MemberEvent::Identified { .. } => "it answered a probe",
        MemberEvent::Failed(_) => "a probe of it failed",
        MemberEvent::Reported(_) => "a client or another member saw it fail",
        MemberEvent::Loaded(_) => "it was a member before this router started",
        MemberEvent::Registered(..) => "another router knows it",
        MemberEvent::Intent(_, Some(_)) => "an operator wants copies off it",
        MemberEvent::Intent(_, None) => "no operator wants copies off it any more",
        MemberEvent::Audited(..) => "what it holds was looked at",
        MemberEvent::ReturnNoted(_) => "it came back",
        MemberEvent::Maintenance(true) => "the cluster is drained",
        MemberEvent::Maintenance(false) => "the cluster is drained no more",
        MemberEvent::Tick => "time passed: nothing was heard of it, or its recovery ended",
    }
}

/// Whom an event says to be there.
pub(super) fn heard(event: &MemberEvent) -> Option<&NodeId> {
    match event {
        MemberEvent::Announced(member) => Some(&member.id),
        MemberEvent::Answered(id) | MemberEvent::Identified { id, .. } => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_states_are_kept_and_the_same_one_is_no_change() {
        let seen = MemberObservations::default();
        let id = NodeId::new("n1").expect("an id");
        let mut member = monofs_fleet::settings::StaticMember {
            id: id.clone(),
            named: true,
            role: monofs_model::view::Role::Node,
            address: "n1:1".into(),
            external_address: String::new(),
            weight: 1.0,
            zone: String::new(),
        }
        .member();
        for turn in 0..STATES_MAX + 5 {
            member.state = if turn % 2 == 0 {
                MemberState::Active
            } else {
                MemberState::Suspect
            };
            seen.state(&member, "first");
            seen.state(&member, "again");
        }
        let states = seen.states(&id);
        assert_eq!(states.len(), STATES_MAX);
        assert!(states.iter().all(|change| change.why == "first"));
        assert_eq!(
            states.last().map(|change| change.state),
            Some(MemberState::Active)
        );
        seen.failed(&id, "connection refused");
        assert_eq!(seen.failure(&id).as_deref(), Some("connection refused"));
        seen.answered(&id);
        assert_eq!(seen.failure(&id), None);
        seen.gone(&id);
        seen.failed(&id, "late");
        assert!(seen.states(&id).is_empty() && seen.failure(&id).is_none());
    }
}
