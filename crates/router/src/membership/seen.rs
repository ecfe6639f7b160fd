//! What this router saw of each member, for operators: the states that it came into, and how probes
//! of it went.
//!
//! Invariants: of each member the last [`STATES_MAX`] states, and nothing of one that was removed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use monofs_model::{Member, MemberState, NodeId};

use super::event::Event;
use crate::clock;

/// States that are kept of each member.
const STATES_MAX: usize = 50;
/// Longest text of a failed probe, in characters.
const FAILURE_MAX: usize = 300;

/// A state that a member came into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateChange {
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
}

/// By member.
#[derive(Default)]
pub(super) struct Seen(Mutex<BTreeMap<NodeId, Of>>);

impl Seen {
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

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Of>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// What an event says about why a state changed.
pub(super) fn why(event: &Event) -> &'static str {
    match event {
        Event::Announced(_) => "it announced itself",
        Event::Answered(_) | Event::Identified { .. } => "it answered a probe",
        Event::Failed(_) => "a probe of it failed",
        Event::Reported(_) => "a client or another member saw it fail",
        Event::Loaded(_) => "it was a member before this router started",
        Event::Registered(..) => "another router knows it",
        Event::Intent(_, Some(_)) => "an operator wants copies off it",
        Event::Intent(_, None) => "no operator wants copies off it any more",
        Event::Audited(..) => "what it holds was looked at",
        Event::ReturnNoted(_) => "it came back",
        Event::Maintenance(true) => "the cluster is drained",
        Event::Maintenance(false) => "the cluster is drained no more",
        Event::Tick => "time passed: nothing was heard of it, or its recovery ended",
    }
}

/// Whom an event says to be there.
pub(super) fn heard(event: &Event) -> Option<&NodeId> {
    match event {
        Event::Announced(member) => Some(&member.id),
        Event::Answered(id) | Event::Identified { id, .. } => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_states_are_kept_and_the_same_one_is_no_change() {
        let seen = Seen::default();
        let id = NodeId::new("n1").expect("an id");
        let mut member = crate::config::StaticMember {
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
