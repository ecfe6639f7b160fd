//! One member as the machine tracks it, and the state that follows from what is known about it.
//!
//! Invariant: the state is a function of facts and of time ([`TrackedMember::judge`]), so none can
//! be left behind by a forgotten transition.

use std::time::{Duration, Instant};

use monofs_model::view::Role;
use monofs_model::{Member, MemberState};

use super::facts::{DepartureIntent, MemberFacts, MemberTimes};
use crate::settings::StaticMember;

/// A member, and since when what is the case.
#[derive(Debug)]
pub struct TrackedMember {
    /// As readers and placement see it.
    pub member: Member,
    /// It was named on the command line.
    pub fixed: Option<StaticMember>,
    /// Named by its address only; what it calls itself is not known yet, so it holds nothing and
    /// is not used.
    pub placeholder: bool,
    /// As the shared table has it, with the word of the command line in place of its own.
    pub recorded: Option<Member>,
    /// It was a member before this router started.
    pub known_before: bool,
    /// When it was last heard of.
    pub heard: Option<Instant>,
    /// When it announced itself to this router last.
    pub announced: Option<Instant>,
    /// When this router learnt of it.
    pub known: Instant,
    /// When another member or a client saw it fail.
    pub reported: Option<Instant>,
    /// It was seen failing, and then a probe failed too.
    pub doubted: bool,
    /// Since when it is down.
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

    /// Notes what being in `state` from now on means for what comes after it.
    pub(super) fn enter(&mut self, state: MemberState, now: Instant) {
        match state {
            MemberState::Down => {
                self.down_since.get_or_insert(now);
                self.ramp = None;
                self.returned = false;
            }
            MemberState::Recovering => {
                self.regains = true;
                self.ramp = None;
            }
            MemberState::Active if std::mem::take(&mut self.regains) => self.ramp = Some(now),
            _ => {}
        }
    }

    /// The share of reads that it gets now, in percent; forgets the ramp when that is all.
    pub(super) fn share(&mut self, settings: &MemberTimes, now: Instant) -> u32 {
        let share = self.ramp.map_or(100, |from| {
            settings.share(now.saturating_duration_since(from))
        });
        if share >= 100 {
            self.ramp = None;
        }
        share
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

/// Whether the copies of a member count where they are: placement goes on wanting them there. Those
/// of a member that is down count for `delay`. `gone`: for how long a member that was heard of
/// before is down; `None` for one that never was.
pub fn keeps_copies(state: MemberState, gone: Option<Duration>, delay: Duration) -> bool {
    match state {
        MemberState::Active | MemberState::Recovering | MemberState::Suspect => true,
        MemberState::Down => gone.is_some_and(|gone| gone < delay),
        MemberState::Joining | MemberState::Draining | MemberState::Drained => false,
    }
}

/// A member as it is recorded: without what each router judges for itself and what changes all the
/// time.
pub(super) fn as_recorded(member: Member) -> Member {
    Member {
        state: MemberState::Joining,
        used_bytes: 0,
        share_percent: 100,
        failed_over: false,
        ..member
    }
}
