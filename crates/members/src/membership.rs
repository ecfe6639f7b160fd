//! Who is in the cluster and in what state: fed by probes, announcements, clients' reports and what
//! all routers share.
//!
//! Whether a member lives, each router judges for itself, so that this goes on while the state
//! store is away. What has to last is shared through the state store: registrations, what operators
//! want, what the leader found on a node. One task ([`run`]) owns the machine of
//! `monofs_fleet::members` that makes a view of both; all others read what it shows or send it
//! events.
//!
//! Invariants: only that task changes the view, so its number grows with every change; a member
//! that registered is known to every router, and to this one after a restart, until it is removed.

pub mod facts;
mod input;
pub mod members;
mod probe;
pub mod seen;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_fleet::members::{MemberCommand, MemberEvent};
use monofs_model::NodeId;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use input::MembershipInput;
use members::Membership;
pub use members::{can_refresh, can_take, node, placeable};
pub use probe::ProbePace;
use probe::Prober;

/// Runs membership until `stop`.
pub async fn run(
    membership: Membership,
    fleet: Arc<Fleet>,
    pace: ProbePace,
    stop: CancellationToken,
) {
    // What the machine wants recorded is written by a task of its own, so that a slow store delays
    // no decision.
    tokio::spawn(writer::run(
        fleet.members.writer.clone(),
        fleet.members.inputs.clone(),
        stop.clone(),
    ));
    let mut task = MembershipTask {
        membership,
        prober: Prober::default(),
        fleet,
        pace,
    };

    // Probes that were missed are not made up for: one round at a time is enough.
    let mut ticker = tokio::time::interval(pace.interval.max(Duration::from_millis(1)));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);

    // All that can change the state of a member arrives here, one event after the other.
    loop {
        let Membership {
            machine,
            inputs,
            shared,
        } = &mut task.membership;
        let due = machine
            .due()
            .unwrap_or_else(|| Instant::now() + EVENTS_PAUSE_MAX);
        tokio::select! {
            () = stop.cancelled() => return,
            Some(input) = inputs.recv() => task.input(input),
            event = task.prober.next() => task.step(event),
            () = shared.changed() => task.take_shared(),
            _ = ticker.tick() => task.probe_all(),
            () = tokio::time::sleep_until(due.into()) => task.step(MemberEvent::Tick),
        }
    }
}

/// The machine looks at its timers at least this often.
const EVENTS_PAUSE_MAX: Duration = Duration::from_secs(60);

struct MembershipTask {
    membership: Membership,
    prober: Prober,
    fleet: Arc<Fleet>,
    pace: ProbePace,
}

impl MembershipTask {
    fn input(&mut self, input: MembershipInput) {
        match input {
            MembershipInput::Announce(member, reply) => {
                let admitted = self.membership.machine.admit(&member, Instant::now());
                if admitted.is_ok() {
                    self.step(MemberEvent::Announced(*member));
                }
                // Who asked may have given up.
                let _ = reply.send(admitted);
            }
            MembershipInput::Machine(event) => {
                if matches!(event, MemberEvent::ReturnNoted(_)) {
                    // What was noted counts from now on instead of the event's own mark.
                    self.take_shared();
                }
                self.step(event);
            }
        }
    }

    fn take_shared(&mut self) {
        for event in self.membership.shared.changes() {
            self.step(event);
        }
    }

    fn probe_all(&mut self) {
        for known in self.membership.machine.members() {
            self.prober.start(&self.fleet, self.pace, known);
        }
        // Use of disk changes all the time and matters to nobody who waits for changes.
        let ids: Vec<NodeId> = self
            .membership
            .machine
            .members()
            .map(|known| known.member.id.clone())
            .collect();
        self.fleet
            .members
            .show(&self.membership.machine, &ids, false);
    }

    fn step(&mut self, event: MemberEvent) {
        // An intent is shown with the member, so its change is shown also when the state stays.
        let mut changed: Vec<NodeId> = match &event {
            MemberEvent::Intent(id, _) => vec![id.clone()],
            _ => Vec::new(),
        };

        // What was heard is noted before the machine decides, with the reason that the history
        // shows.
        let why = seen::why(&event);
        if let Some(id) = seen::heard(&event) {
            self.fleet.members.seen.answered(id);
        }

        // The machine decides alone and says what is to be done; carrying it out changes no
        // decision.
        let commands = self.membership.machine.step(event, Instant::now());
        let mut matters = false;
        for command in commands {
            match command {
                MemberCommand::Show(member) => {
                    self.fleet.members.seen.state(&member, why);
                    matters = true;
                    changed.push(member.id);
                }
                MemberCommand::Hide(id) => {
                    self.fleet.members.seen.gone(&id);
                    matters = true;
                    changed.push(id);
                }
                MemberCommand::Record(member) => self.fleet.members.writer.record(member),
                MemberCommand::NoteReturn(id) => self.fleet.members.writer.note_return(id),
                MemberCommand::Probe(id) => {
                    if let Some(known) = self.membership.machine.get(&id) {
                        self.prober.start(&self.fleet, self.pace, known);
                    }
                }
            }
        }

        // The view is shown once for all commands.
        if !changed.is_empty() {
            self.fleet
                .members
                .show(&self.membership.machine, &changed, matters);
        }
    }
}
