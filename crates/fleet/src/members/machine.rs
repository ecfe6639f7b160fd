//! Who is a member and in what state, as one machine: `step(event, now) -> commands`.
//!
//! No IO and no clock in here. Invariants: an event costs what it changes, never a look at all
//! members (but for the begin and the end of a maintenance); the number of the view grows with
//! everything shown and only then; what is shown follows from facts, see [`TrackedMember::judge`].
//! A task of the router owns the one instance.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use monofs_model::view::Role;
use monofs_model::{Error, Member, MemberState, NodeId, Result};

use super::addresses::MemberAddresses;
use super::event::{MemberCommand, MemberEvent};
use super::facts::{AuditFinding, DepartureIntent, MemberFacts, MemberTimes};
use super::member::{TrackedMember, as_recorded};
use crate::settings::StaticMember;

/// Most members; another one is refused.
pub const MEMBERS_MAX: usize = 10_000;

/// All members.
pub struct MemberMachine {
    settings: MemberTimes,
    members: BTreeMap<NodeId, TrackedMember>,
    intents: HashMap<NodeId, DepartureIntent>,
    audits: HashMap<NodeId, AuditFinding>,
    maintenance: bool,
    resumed: Option<Instant>,
    addresses: MemberAddresses,
    timers: BTreeSet<(Instant, NodeId)>,
    number: u64,
}

impl MemberMachine {
    /// The members of the command line; the number of the view goes on after `number`. Errors: two
    /// have the same id.
    pub fn new(
        settings: MemberTimes,
        fixed: &[StaticMember],
        number: u64,
        now: Instant,
    ) -> Result<Self> {
        let mut machine = Self {
            settings,
            members: BTreeMap::new(),
            intents: HashMap::new(),
            audits: HashMap::new(),
            maintenance: false,
            resumed: None,
            addresses: MemberAddresses::default(),
            timers: BTreeSet::new(),
            number,
        };
        for fixed in fixed {
            // A member without an id has a placeholder until it says what it calls itself.
            let mut tracked = TrackedMember::new(fixed.member(), now);
            tracked.placeholder = !fixed.named;
            tracked.fixed = Some(fixed.clone());
            if !fixed.named {
                machine.addresses.await_name(&fixed.address, &fixed.id);
            }
            machine.addresses.reserve(&fixed.address, &fixed.id);
            if machine.members.insert(fixed.id.clone(), tracked).is_some() {
                return Err(Error::invalid(format!(
                    "two members have the id '{}'",
                    fixed.id
                )));
            }
            machine.settle(&fixed.id, now, &mut Vec::new());
        }
        Ok(machine)
    }

    /// Of the view that has everything shown so far.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// All members in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &TrackedMember> {
        self.members.values()
    }

    pub fn get(&self, id: &NodeId) -> Option<&TrackedMember> {
        self.members.get(id)
    }

    /// Whether an operator wants copies off it.
    pub fn departing(&self, id: &NodeId) -> bool {
        self.intents.contains_key(id)
    }

    /// When time alone changes something: not before.
    pub fn due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Whether this member may announce itself. Errors: `Full`; `Refused` while another process has
    /// its id.
    pub fn admit(&self, member: &Member, now: Instant) -> Result<()> {
        // A new member needs a place, a known one keeps its role.
        let Some(known) = self.members.get(&member.id) else {
            if self.members.len() >= MEMBERS_MAX {
                return Err(Error::full(format!(
                    "the cluster has {MEMBERS_MAX} members already"
                )));
            }
            return Ok(());
        };
        if known.member.role != member.role && known.recorded.is_some() {
            return Err(Error::refused(format!(
                "'{}' is the id of a {}; give every member an id of its own",
                member.id,
                known.member.role.as_str()
            )));
        }
        // Another process at another address, while this one was heard of: two have one id.
        let Some(announced) = known.announced.map(|at| now.saturating_duration_since(at)) else {
            return Ok(());
        };
        let before = known
            .recorded
            .as_ref()
            .map_or(known.member.incarnation, |recorded| recorded.incarnation);
        if member.incarnation != before
            && known.moved_to(member)
            && announced < self.settings.threshold / 2
        {
            return Err(Error::refused(format!(
                "'{}' runs at {} (heard of {} ms ago); give every member an id of its own",
                member.id,
                known.member.address,
                announced.as_millis()
            )));
        }
        Ok(())
    }

    /// Takes in one event.
    pub fn step(&mut self, event: MemberEvent, now: Instant) -> Vec<MemberCommand> {
        let mut out = Vec::new();
        match event {
            MemberEvent::Announced(member) => self.announced(member, now, &mut out),
            MemberEvent::Answered(id) => self.answered(&id, now, &mut out),
            MemberEvent::Identified {
                asked,
                id,
                incarnation,
                version,
            } => {
                self.identified(&asked, id, incarnation, version, now, &mut out);
            }
            MemberEvent::Failed(id) => {
                if let Some(known) = self.members.get_mut(&id) {
                    known.doubted |= known
                        .reported
                        .is_some_and(|at| now < at + self.settings.threshold);
                    self.settle(&id, now, &mut out);
                }
            }
            MemberEvent::Reported(id) => {
                if let Some(known) = self.members.get_mut(&id) {
                    known.reported = Some(now);
                    out.push(MemberCommand::Probe(id));
                }
            }
            MemberEvent::Loaded(member) => self.registered(member, true, now, &mut out),
            MemberEvent::Registered(_, Some(member)) => {
                self.registered(member, false, now, &mut out)
            }
            MemberEvent::Registered(id, None) => self.removed(&id, now, &mut out),
            MemberEvent::Intent(id, intent) => {
                set(&mut self.intents, &id, intent);
                self.settle(&id, now, &mut out);
            }
            MemberEvent::Audited(id, audit) => {
                set(&mut self.audits, &id, audit);
                self.settle(&id, now, &mut out);
            }
            MemberEvent::ReturnNoted(id) => {
                if let Some(known) = self.members.get_mut(&id) {
                    known.returned = false;
                    self.settle(&id, now, &mut out);
                }
            }
            MemberEvent::Maintenance(on) => self.maintain(on, now, &mut out),
            MemberEvent::Tick => {}
        }
        // Whatever is due by now is looked at, too.
        self.expire(now, &mut out);
        out
    }

    fn expire(&mut self, now: Instant, out: &mut Vec<MemberCommand>) {
        while let Some((due, id)) = self.timers.first().cloned().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, id.clone()));
            if let Some(known) = self.members.get_mut(&id) {
                known.timer = None;
                self.settle(&id, now, out);
            }
        }
    }

    /// An answer counts for the member that is at the address now, and for no other.
    fn answered(&mut self, id: &NodeId, now: Instant, out: &mut Vec<MemberCommand>) {
        let counts = self.members.get(id).is_some_and(|known| {
            !known.placeholder && self.addresses.at(&known.member.address) == Some(id)
        });
        if counts {
            self.heard(id, now, out);
        }
    }

    /// A maintenance begins or ends.
    fn maintain(&mut self, on: bool, now: Instant, out: &mut Vec<MemberCommand>) {
        if self.maintenance && !on {
            self.resumed = Some(now);
        }
        self.maintenance = on;
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.settle(&id, now, out);
        }
    }

    /// A member that says of itself what it is.
    fn announced(&mut self, member: Member, now: Instant, out: &mut Vec<MemberCommand>) {
        let id = member.id.clone();
        let member = self.adopt(member, false, now, out);
        self.claim_address(&member);
        if let Some(known) = self.members.get_mut(&id) {
            known.announced = Some(now);
        }
        self.record(&id, &member, out);
        self.heard(&id, now, out);
    }

    /// A process at the address of a member of the command line says what it calls itself.
    fn identified(
        &mut self,
        asked: &NodeId,
        id: NodeId,
        incarnation: u64,
        version: String,
        now: Instant,
        out: &mut Vec<MemberCommand>,
    ) {
        let Some(thought) = self.members.get(asked) else {
            return;
        };
        let Some(fixed) = thought.fixed.clone() else {
            return;
        };
        if fixed.named && id != *asked {
            // Said until it is down for want of an answer of its own.
            if thought.member.state != MemberState::Down {
                tracing::warn!(
                    %asked,
                    calls_itself = %id,
                    address = fixed.address,
                    "--nodes gives a member a wrong id"
                );
            }
            return;
        }
        let known = self.members.get(&id);
        let base = known.map_or_else(|| fixed.member(), |known| known.member.clone());
        let incarnation = if incarnation == 0 {
            base.incarnation
        } else {
            incarnation
        };
        let said = Member {
            id: id.clone(),
            address: fixed.address.clone(),
            incarnation,
            version,
            ..base
        };
        let member = self.adopt(said, false, now, out);
        self.claim_address(&member);
        self.record(&id, &member, out);
        self.heard(&id, now, out);
    }

    /// A member of the shared table.
    fn registered(
        &mut self,
        member: Member,
        loaded: bool,
        now: Instant,
        out: &mut Vec<MemberCommand>,
    ) {
        let id = member.id.clone();
        let new = !self.members.contains_key(&id);
        let member = self.adopt(member, loaded, now, out);
        let other = self.addresses.at(&member.address);
        let other = other.and_then(|other| self.members.get(other));
        if other.is_none_or(|other| other.member.incarnation < member.incarnation) {
            self.claim_address(&member);
        }
        if let Some(known) = self.members.get_mut(&id) {
            known.recorded = Some(as_recorded(member));
        }
        self.settle(&id, now, out);
        if new && !loaded {
            out.push(MemberCommand::Probe(id));
        }
    }

    /// Takes over what is said of a member (a new one, too), below what the command line says, and
    /// returns the sum.
    fn adopt(
        &mut self,
        mut member: Member,
        loaded: bool,
        now: Instant,
        out: &mut Vec<MemberCommand>,
    ) -> Member {
        if !member.weight.is_normal() || member.weight < 0.0 {
            member.weight = 1.0;
        }
        let fixed = self.take_unnamed(&member, out);
        let known = self.members.entry(member.id.clone()).or_insert_with(|| {
            tracing::info!(
                id = %member.id,
                address = %member.address,
                role = member.role.as_str(),
                "new member"
            );
            let joining = Member {
                state: MemberState::Joining,
                share_percent: 0,
                ..member.clone()
            };
            TrackedMember::new(joining, now)
        });
        known.placeholder = false;
        known.known_before |= loaded;
        if fixed.is_some() {
            known.fixed = fixed;
        }
        if let Some(fixed) = &known.fixed {
            fixed.overrule(&mut member);
        }
        if known.moved_to(&member) {
            tracing::warn!(
                id = %member.id,
                was = known.member.address,
                is = member.address,
                "member moved"
            );
        }
        if known.member.address != member.address {
            self.addresses.leave(&known.member.address, &member.id);
        }
        // What this router judges itself stays as it is.
        let shown = &known.member;
        member.state = shown.state;
        member.share_percent = shown.share_percent;
        member.failed_over = shown.failed_over;
        let same = Member {
            used_bytes: member.used_bytes,
            ..shown.clone()
        } == member;
        known.member = member.clone();
        if !same {
            self.number += 1;
            out.push(MemberCommand::Show(member.clone()));
        }
        member
    }

    /// What the command line says of the one at this address without naming it; its placeholder
    /// goes.
    fn take_unnamed(
        &mut self,
        member: &Member,
        out: &mut Vec<MemberCommand>,
    ) -> Option<StaticMember> {
        let before = self.addresses.take_name(member)?;
        let known = self.members.get_mut(&before)?;
        let fixed = known.fixed.take();
        if known.placeholder {
            self.forget(&before, out);
        }
        fixed
    }

    fn claim_address(&mut self, member: &Member) {
        let before = self.addresses.claim(member);
        if let Some(before) = before.filter(|before| self.members.contains_key(before)) {
            tracing::warn!(
                address = member.address,
                was = %before,
                is = %member.id,
                "another member is at this address"
            );
        }
    }

    /// Has it recorded if something that matters differs.
    fn record(&mut self, id: &NodeId, member: &Member, out: &mut Vec<MemberCommand>) {
        let member = as_recorded(member.clone());
        if let Some(known) = self.members.get(id)
            && known.recorded.as_ref() != Some(&member)
        {
            out.push(MemberCommand::Record(member));
        }
    }

    fn heard(&mut self, id: &NodeId, now: Instant, out: &mut Vec<MemberCommand>) {
        let Some(known) = self.members.get_mut(id) else {
            return;
        };
        let is_new = known.heard.is_none() && !known.known_before && !self.audits.contains_key(id);
        known.reported = None;
        known.doubted = false;
        known.heard = Some(now);
        if known.down_since.take().is_some() && known.member.role == Role::Node && !is_new {
            known.returned = true;
            out.push(MemberCommand::NoteReturn(id.clone()));
        }
        self.settle(id, now, out);
    }

    fn removed(&mut self, id: &NodeId, now: Instant, out: &mut Vec<MemberCommand>) {
        let Some(known) = self.members.get_mut(id) else {
            return;
        };
        known.recorded = None;
        if known.fixed.is_some() {
            self.settle(id, now, out);
        } else {
            self.forget(id, out);
        }
    }

    fn forget(&mut self, id: &NodeId, out: &mut Vec<MemberCommand>) {
        let Some(known) = self.members.remove(id) else {
            return;
        };
        if let Some(timer) = known.timer {
            self.timers.remove(&(timer, id.clone()));
        }
        self.addresses.leave(&known.member.address, id);
        self.number += 1;
        out.push(MemberCommand::Hide(id.clone()));
    }

    /// Brings what is shown of a member up to date with what is known.
    fn settle(&mut self, id: &NodeId, now: Instant, out: &mut Vec<MemberCommand>) {
        let facts = MemberFacts {
            intent: self.intents.get(id).copied(),
            audit: self.audits.get(id).copied(),
            maintenance: self.maintenance,
            resumed: self.resumed,
        };
        let Some(known) = self.members.get_mut(id) else {
            return;
        };
        // The state, and the share of reads that goes with it.
        let before = known.member.state;
        let state = known.judge(facts, &self.settings, now);
        known.enter(state, now);
        let share = known.share(&self.settings, now);
        // What readers must see of that.
        let failed_over = facts.intent == Some(DepartureIntent::Failover);
        let shown = (before, known.member.share_percent, known.member.failed_over);
        if shown != (state, share, failed_over) {
            if (before, known.member.failed_over) != (state, failed_over) {
                known.since = now;
            }
            if before != state {
                tracing::info!(%id, from = before.as_str(), to = state.as_str(), "member state");
            }
            known.member.state = state;
            known.member.share_percent = share;
            known.member.failed_over = failed_over;
            self.number += 1;
            out.push(MemberCommand::Show(known.member.clone()));
        }
        // When it is looked at next without an event.
        if let Some(due) = known.due(facts, &self.settings, now)
            && known.timer.is_none_or(|timer| due < timer)
        {
            if let Some(timer) = known.timer.replace(due) {
                self.timers.remove(&(timer, id.clone()));
            }
            self.timers.insert((due, id.clone()));
        }
    }
}

/// Keeps what is said of a member, or that nothing is said.
fn set<T>(map: &mut HashMap<NodeId, T>, id: &NodeId, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(id.clone(), value)),
        None => drop(map.remove(id)),
    }
}
