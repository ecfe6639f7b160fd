//! Who is in the cluster and in what state: fed by probes, announcements, clients' reports and what
//! all routers share.
//!
//! Whether a member lives, each router judges for itself, so that this goes on while the state
//! store is away. What has to last is shared through the state store: registrations, what operators
//! want, what the leader found on a node. One task ([`run`]) owns the [`machine`] that makes a view
//! of both; everybody else reads what it shows or sends it events.
//!
//! Invariants: only that task changes the view, so its number grows with every change; a member
//! that registered is known to every router, and to this one after a restart, until it is removed.

pub(crate) mod event;
mod facts;
pub(crate) mod machine;
pub(crate) mod member;
mod probe;
mod recovery;
mod seen;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use monofs_model::placement::Candidate;
use monofs_model::view::Role;
use monofs_model::{ClusterView, Error, Member, NodeId, Result};
use monofs_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::RouterState;
use crate::config::Config;
use crate::state::{Table, Tables};
use event::{Command, Event, Settings};
use facts::Shared;
use machine::Machine;
use member::{Tracked, keeps_copies};
use probe::Prober;
pub(crate) use recovery::{behind, run as recover};
use seen::Seen;
pub(crate) use seen::StateChange;
use writer::Writer;

/// Events that wait for the task; senders wait when there are more.
const EVENTS_MAX: usize = 4096;
/// How long an announcement may wait for its turn.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of a member beside what readers see.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// Since when it is in its state.
    since: Instant,
    down_since: Option<Instant>,
    /// When this router last heard of it: an answer to a probe, or its own announcement.
    heard: Option<Instant>,
    /// It was heard of, now or before this router started.
    relied_on: bool,
    /// An operator wants copies off it.
    departing: bool,
}

/// What the router's other parts see of membership.
pub(crate) struct Members {
    inputs: mpsc::Sender<Input>,
    view: watch::Sender<ClusterView>,
    standings: RwLock<BTreeMap<NodeId, Standing>>,
    rebalance_delay: Duration,
    intents: Arc<Table<v1::NodeIntent>>,
    audits: Arc<Table<v1::NodeAudit>>,
    writer: Writer,
    seen: Seen,
}

/// What this router heard of a member.
pub(crate) struct Heard {
    /// How long ago; `None` = never.
    pub ago: Option<Duration>,
    /// Why the last probe failed, if it did.
    pub failure: Option<String>,
}

enum Input {
    Announce(Box<Member>, oneshot::Sender<Result<()>>),
    Event(Event),
}

/// The machine and what feeds it, for [`run`].
pub(crate) struct Membership {
    machine: Machine,
    inputs: mpsc::Receiver<Input>,
    shared: Shared,
}

impl Members {
    /// The members of the command line and of the shared tables, which must have been loaded.
    /// Errors: two have one id.
    pub fn new(config: &Config, tables: &Tables) -> Result<(Self, Membership)> {
        let now = Instant::now();
        // Of seconds, so that a restarted router goes on above the numbers that it gave before.
        let number = crate::clock::now() as u64 * 1000;
        let mut machine = Machine::new(Settings::from(config), &config.members, number, now)?;
        let mut shared = Shared::new(tables);
        for event in shared.loaded() {
            machine.step(event, now);
        }
        let (sender, inputs) = mpsc::channel(EVENTS_MAX);
        let view = ClusterView {
            number: machine.number(),
            members: machine
                .members()
                .map(|known| known.member.clone())
                .collect(),
            replication_factor: config.replication_factor,
        };
        let standings = machine
            .members()
            .map(|known| (known.member.id.clone(), standing(&machine, known)))
            .collect();
        let members = Self {
            inputs: sender,
            view: watch::channel(view).0,
            standings: RwLock::new(standings),
            rebalance_delay: config.rebalance_delay,
            intents: tables.intents.clone(),
            audits: tables.audits.clone(),
            writer: Writer::new(tables),
            seen: Seen::default(),
        };
        for known in machine.members() {
            members.seen.state(&known.member, "as this router started");
        }
        Ok((
            members,
            Membership {
                machine,
                inputs,
                shared,
            },
        ))
    }

    /// The view as it is now.
    pub fn view(&self) -> ClusterView {
        self.view.borrow().clone()
    }

    /// Wakes at every change of the view.
    pub fn subscribe(&self) -> watch::Receiver<ClusterView> {
        self.view.subscribe()
    }

    /// A member announced itself. Errors: `Full`; `Refused` when another process has its id.
    pub async fn announced(&self, member: Member) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.inputs
                .send(Input::Announce(Box::new(member), reply))
                .await
                .ok()?;
            answer.await.ok()
        };
        let busy =
            || Error::unavailable("this router is too busy to take announcements, or it stops");
        tokio::time::timeout(ANNOUNCE_TIMEOUT, exchange)
            .await
            .ok()
            .flatten()
            .unwrap_or_else(|| Err(busy()))
    }

    /// Somebody saw this member fail: it is looked at at once. A report too many is dropped, probes
    /// go on anyway.
    pub fn reported(&self, id: &NodeId) {
        let _ = self
            .inputs
            .try_send(Input::Event(Event::Reported(id.clone())));
    }

    /// What this router heard of it.
    pub fn heard(&self, id: &NodeId) -> Heard {
        let ago = self
            .standing(id)
            .and_then(|standing| standing.heard)
            .map(|at| at.elapsed());
        Heard {
            ago,
            failure: self.seen.failure(id),
        }
    }

    /// The states that this router saw it in, the oldest first.
    pub fn states(&self, id: &NodeId) -> Vec<StateChange> {
        self.seen.states(id)
    }

    /// How long it is in its state, and failed over or not.
    pub fn standing_for(&self, id: &NodeId) -> Option<Duration> {
        self.standing(id).map(|standing| standing.since.elapsed())
    }

    /// How long it is down; `None` = it is not.
    fn gone_for(&self, id: &NodeId) -> Option<Duration> {
        self.standing(id)
            .and_then(|standing| standing.down_since)
            .map(|since| since.elapsed())
    }

    /// How long the copies of a node that is down still count where they are; `None` = they do not,
    /// or it is not down.
    pub fn copies_stay_for(&self, id: &NodeId) -> Option<Duration> {
        self.standing(id)
            .filter(|standing| standing.relied_on && !standing.departing)?;
        self.rebalance_delay
            .checked_sub(self.gone_for(id)?)
            .filter(|left| !left.is_zero())
    }

    /// The nodes that should hold copies now: those that take part, and those that are down for
    /// less than `--rebalance-delay`. Which of them can be given one now, [`placeable`] says.
    pub fn placement_nodes(&self) -> Vec<Candidate> {
        let view = self.view.borrow();
        let standings = self
            .standings
            .read()
            .expect("no holder of this lock panics");
        let should_hold = |node: &&Member| {
            standings.get(&node.id).is_some_and(|standing| {
                let gone = standing.down_since.map(|since| since.elapsed());
                !standing.departing
                    && keeps_copies(node.state, standing.relied_on, gone, self.rebalance_delay)
            })
        };
        view.nodes().filter(should_hold).map(Into::into).collect()
    }

    /// The reconciler gave this node all that placement wants on it: reads may return to it.
    /// Errors: the state store's.
    pub async fn caught_up(&self, id: &NodeId) -> Result<()> {
        let settle = |row: Option<&v1::NodeAudit>| {
            Ok(row.map(|row| v1::NodeAudit {
                behind: row.behind && row.at == 0,
                ..row.clone()
            }))
        };
        self.audits.update(id.as_str(), settle).await.map(drop)
    }

    /// This node is held back no more and may lack what was placed meanwhile: it is caught up
    /// before reads return to it. Errors: the state store's.
    pub async fn fell_behind(&self, id: &NodeId) -> Result<()> {
        let behind = |row: Option<&v1::NodeAudit>| {
            let row = row.cloned().unwrap_or_else(|| v1::NodeAudit {
                node_id: id.to_string(),
                ..Default::default()
            });
            Ok(Some(v1::NodeAudit {
                behind: true,
                ..row
            }))
        };
        self.audits.update(id.as_str(), behind).await.map(drop)
    }

    /// No copy is left on this node, which is being drained. Errors: the state store's.
    pub async fn emptied(&self, id: &NodeId) -> Result<()> {
        let empty = |row: Option<&v1::NodeIntent>| {
            Ok(row.map(|row| v1::NodeIntent {
                emptied: row.kind() == v1::node_intent::Kind::Drain,
                ..row.clone()
            }))
        };
        self.intents.update(id.as_str(), empty).await.map(drop)
    }

    fn standing(&self, id: &NodeId) -> Option<Standing> {
        self.standings
            .read()
            .expect("no holder of this lock panics")
            .get(id)
            .copied()
    }

    /// Shows the members whose ids are given as the machine has them now.
    fn show(&self, machine: &Machine, changed: &[NodeId], matters: bool) {
        self.view.send_if_modified(|view| {
            view.number = machine.number();
            for id in changed {
                let at = view.members.binary_search_by(|member| member.id.cmp(id));
                match (at, machine.get(id)) {
                    (Ok(at), Some(known)) => view.members[at] = known.member.clone(),
                    (Ok(at), None) => drop(view.members.remove(at)),
                    (Err(at), Some(known)) => view.members.insert(at, known.member.clone()),
                    (Err(_), None) => {}
                }
            }
            matters
        });
        let mut standings = self
            .standings
            .write()
            .expect("no holder of this lock panics");
        for id in changed {
            match machine.get(id) {
                Some(known) => drop(standings.insert(id.clone(), standing(machine, known))),
                None => drop(standings.remove(id)),
            }
        }
    }
}

fn standing(machine: &Machine, known: &Tracked) -> Standing {
    Standing {
        since: known.since,
        down_since: known.down_since,
        heard: known.heard,
        relied_on: known.heard.is_some() || known.known_before,
        departing: machine.departing(&known.member.id),
    }
}

/// Runs membership until `stop`.
pub(crate) async fn run(membership: Membership, state: Arc<RouterState>, stop: CancellationToken) {
    tokio::spawn(writer::run(state.clone(), stop.clone()));
    let mut task = Task {
        membership,
        prober: Prober::default(),
        state,
    };
    let mut ticker = tokio::time::interval(
        task.state
            .config
            .health_interval
            .max(Duration::from_millis(1)),
    );
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
            () = tokio::time::sleep_until(due.into()) => task.step(Event::Tick),
        }
    }
}

/// The machine looks at its timers at least this often.
const EVENTS_PAUSE_MAX: Duration = Duration::from_secs(60);

struct Task {
    membership: Membership,
    prober: Prober,
    state: Arc<RouterState>,
}

impl Task {
    fn input(&mut self, input: Input) {
        match input {
            Input::Announce(member, reply) => {
                let admitted = self.membership.machine.admit(&member, Instant::now());
                if admitted.is_ok() {
                    self.step(Event::Announced(*member));
                }
                // Who asked may have given up.
                let _ = reply.send(admitted);
            }
            Input::Event(event) => {
                if matches!(event, Event::ReturnNoted(_)) {
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
            self.prober.start(&self.state, known);
        }
        // Use of disk changes all the time and matters to nobody who waits for changes.
        let ids: Vec<NodeId> = self
            .membership
            .machine
            .members()
            .map(|known| known.member.id.clone())
            .collect();
        self.state
            .members
            .show(&self.membership.machine, &ids, false);
    }

    fn step(&mut self, event: Event) {
        let mut changed: Vec<NodeId> = match &event {
            Event::Intent(id, _) => vec![id.clone()],
            _ => Vec::new(),
        };
        let why = seen::why(&event);
        if let Some(id) = seen::heard(&event) {
            self.state.members.seen.answered(id);
        }
        let commands = self.membership.machine.step(event, Instant::now());
        let mut matters = false;
        for command in commands {
            match command {
                Command::Show(member) => {
                    self.state.members.seen.state(&member, why);
                    matters = true;
                    changed.push(member.id);
                }
                Command::Hide(id) => {
                    self.state.members.seen.gone(&id);
                    matters = true;
                    changed.push(id);
                }
                Command::Record(member) => self.state.members.writer.record(member),
                Command::NoteReturn(id) => self.state.members.writer.note_return(id),
                Command::Probe(id) => {
                    if let Some(known) = self.membership.machine.get(&id) {
                        self.prober.start(&self.state, known);
                    }
                }
            }
        }
        if !changed.is_empty() {
            self.state
                .members
                .show(&self.membership.machine, &changed, matters);
        }
    }
}

/// The nodes that a copy can be given to now, as placement sees them.
pub(crate) fn placeable(view: &ClusterView) -> Vec<Candidate> {
    view.nodes()
        .filter(|member| can_take(member))
        .map(Into::into)
        .collect()
}

/// Whether a copy can be given to this node now.
pub(crate) fn can_take(member: &Member) -> bool {
    member.state.accepts() && !member.failed_over
}

/// The node called `id`. Errors: `NotFound`; `Refused` when it is a fetcher.
pub(crate) fn node<'a>(view: &'a ClusterView, id: &str) -> Result<&'a Member> {
    match view.members.iter().find(|member| member.id.as_str() == id) {
        Some(member) if member.role == Role::Node => Ok(member),
        Some(_) => Err(Error::refused(format!(
            "'{id}' is a fetcher, which holds no copies; name a node"
        ))),
        None => Err(Error::not_found(format!(
            "no node '{}'; `monofs-admin nodes` lists them",
            id.escape_debug()
        ))),
    }
}
