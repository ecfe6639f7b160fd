//! One member as the machine tracks it, and the state that follows from what is known about it.
//!
//! Invariant: the state is a function of facts and of time ([`TrackedMember::judge`]), so none can be
//! left behind by a forgotten transition.

use std::time::{Duration, Instant};

use monofs_model::view::Role;
use monofs_model::{Member, MemberState};

use super::event::MemberTimes;
use crate::settings::StaticMember;

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepartureIntent {
    /// `emptied`: no copy is left on it.
    Drain {
        emptied: bool,
    },
    Failover,
}

/// What is recorded about the last look at what a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditFinding {
    /// Of the start that was asked; `None` = it must be asked again.
    pub incarnation: Option<u64>,
    /// It may lack copies that placement wants on it.
    pub behind: bool,
}

/// What decides beside the member itself.
#[derive(Clone, Copy)]
pub struct MemberFacts {
    pub intent: Option<DepartureIntent>,
    pub audit: Option<AuditFinding>,
    pub maintenance: bool,
    /// When a maintenance ended: nobody is down for a silence before that.
    pub resumed: Option<Instant>,
}

/// A member, and since when what is the case.
#[derive(Debug)]
pub struct TrackedMember {
    /// As readers and placement see it.
    pub member: Member,
    /// It was named on the command line.
    pub fixed: Option<StaticMember>,
    /// Named by its address only; what it calls itself is not known yet, so it is nobody's holder
    /// and not used.
    pub placeholder: bool,
    /// As the shared table has it, with the word of the command line in place of its own.
    pub recorded: Option<Member>,
    /// It was a member before this router started.
    pub known_before: bool,
    pub heard: Option<Instant>,
    /// When it announced itself to this router last.
    pub announced: Option<Instant>,
    /// When this router learnt of it.
    pub known: Instant,
    /// Somebody saw it fail.
    pub reported: Option<Instant>,
    /// It was seen failing, and then a probe failed too.
    pub doubted: bool,
    pub down_since: Option<Instant>,
    /// It came back, and the audits do not say so yet.
    pub returned: bool,
    /// Reads return gradually when it is active next.
    pub regains: bool,
    /// Since when they do.
    pub ramp: Option<Instant>,
    /// Since when it is in its state.
    pub since: Instant,
    /// The earliest time at which it is looked at without an event.
    pub timer: Option<Instant>,
}

impl TrackedMember {
    pub fn new(member: Member, now: Instant) -> Self {
        Self {
            member,
            fixed: None,
            placeholder: false,
            recorded: None,
            known_before: false,
            heard: None,
            announced: None,
            known: now,
            reported: None,
            doubted: false,
            down_since: None,
            returned: false,
            regains: false,
            ramp: None,
            since: now,
            timer: None,
        }
    }

    /// Whether this member says to be somewhere else. The command line's word on where it is counts
    /// more than its own.
    pub fn moved_to(&self, member: &Member) -> bool {
        self.fixed.is_none() && self.member.address != member.address
    }

    /// Since when nothing was heard of it.
    fn quiet_since(&self) -> Instant {
        self.heard.unwrap_or(self.known)
    }

    /// Since when its silence counts against it.
    fn absent_since(&self, facts: MemberFacts) -> Instant {
        facts.resumed.map_or(self.quiet_since(), |resumed| {
            resumed.max(self.quiet_since())
        })
    }

    /// The state now.
    ///
    /// ```text
    ///              first answer, nothing recorded
    ///   joining --------------------------------------> active <---- heard ---- suspect
    ///                                                   |  | ^                     ^
    ///          not audited since it started, or behind  |  | |                     |
    ///             +-------------------------------------+  | +--- audited and      |
    ///             v                                        |      not behind       |
    ///   down -> recovering --------------------------------|------------+          |
    ///    ^  heard |                                        |                       |
    ///    |        |  drain wanted                          | drain wanted          |
    ///    |        +----------------------> draining <------+                       |
    ///    |                                  | emptied                              |
    ///    |                                  v                                      |
    ///    |                               drained                                   |
    ///    |                                                                         |
    ///    |  the threshold of silence, from every state                             |
    ///    |  (not during maintenance)             half of it, or a report and a failed probe
    ///    +-- any                                                             any --+
    /// ```
    ///
    /// Undrained or cleared nodes are `behind`, so they recover. A member that was known before
    /// this router started is suspect, not joining, until it is heard. Fetchers hold nothing: they
    /// are active when they are heard.
    pub fn judge(&self, facts: MemberFacts, settings: &MemberTimes, now: Instant) -> MemberState {
        let silence = now.saturating_duration_since(self.quiet_since());
        let absence = now.saturating_duration_since(self.absent_since(facts));
        let unheard = if self.known_before {
            MemberState::Suspect
        } else {
            MemberState::Joining
        };
        if self.down_since.is_some() || (absence >= settings.threshold && !facts.maintenance) {
            MemberState::Down
        } else if self.heard.is_none() {
            unheard
        } else if self.doubted || silence >= settings.threshold / 2 {
            MemberState::Suspect
        } else {
            self.alive(facts)
        }
    }

    fn alive(&self, facts: MemberFacts) -> MemberState {
        if self.member.role == Role::Fetcher {
            return MemberState::Active;
        }
        let audited = facts
            .audit
            .is_none_or(|audit| audit.incarnation == Some(self.member.incarnation));
        let known_well = audited && !self.returned;
        match facts.intent {
            Some(DepartureIntent::Drain { emptied }) if emptied && known_well => {
                MemberState::Drained
            }
            Some(DepartureIntent::Drain { .. }) => MemberState::Draining,
            _ if !known_well => MemberState::Recovering,
            Some(DepartureIntent::Failover) => MemberState::Active,
            None if facts.audit.is_some_and(|audit| audit.behind) => MemberState::Recovering,
            None => MemberState::Active,
        }
    }

    /// When time alone can change its state or its share next.
    pub fn due(&self, facts: MemberFacts, settings: &MemberTimes, now: Instant) -> Option<Instant> {
        let silence = match self.member.state {
            MemberState::Down => None,
            MemberState::Suspect | MemberState::Joining => {
                (!facts.maintenance).then(|| self.absent_since(facts) + settings.threshold)
            }
            _ => Some(self.quiet_since() + settings.threshold / 2),
        };
        let ramp = self.ramp.and_then(|from| settings.next_step(from, now));
        silence.into_iter().chain(ramp).min()
    }
}

/// Whether its copies count where they are: placement goes on wanting them there. A member that is
/// down does so for `delay`, one that nobody ever heard of does not.
pub fn keeps_copies(
    state: MemberState,
    relied_on: bool,
    gone: Option<Duration>,
    delay: Duration,
) -> bool {
    match state {
        MemberState::Active | MemberState::Recovering | MemberState::Suspect => true,
        MemberState::Down => relied_on && gone.is_some_and(|gone| gone < delay),
        MemberState::Joining | MemberState::Draining | MemberState::Drained => false,
    }
}

impl StaticMember {
    /// What is known of it before it was heard of.
    pub fn member(&self) -> Member {
        Member {
            id: self.id.clone(),
            role: self.role,
            address: self.address.clone(),
            external_address: self.external_address.clone(),
            weight: self.weight,
            zone: self.zone.clone(),
            state: MemberState::Joining,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: 0,
            share_percent: 100,
            failed_over: false,
        }
    }

    /// Puts what the command line says in place of what the member says.
    pub(super) fn overrule(&self, member: &mut Member) {
        member.address.clone_from(&self.address);
        if member.external_address.is_empty() {
            member.external_address.clone_from(&self.external_address);
        }
        if self.weight != 1.0 {
            member.weight = self.weight;
        }
        if !self.zone.is_empty() {
            member.zone.clone_from(&self.zone);
        }
    }
}
