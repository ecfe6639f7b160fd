//! What the router's other parts see of membership, and the way to send it events.
//!
//! Invariant: only the task of [`super::run`] changes what is shown here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_control::clock;
use monofs_control::state::{StateTable, StateTables};
use monofs_fleet::members::{MemberEvent, MemberMachine, MemberTimes, TrackedMember, keeps_copies};
use monofs_fleet::settings::StaticMember;
use monofs_model::placement::Candidate;
use monofs_model::view::Role;
use monofs_model::{Actor, ClusterView, Error, Member, MemberState, NodeId, Result};
use monofs_proto::v1;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use super::facts::TableChanges;
use super::input::MembershipInput;
use super::seen::{MemberObservations, StateChange};
use super::writer::Writer;

/// Events that wait for the task; senders wait when there are more.
const EVENTS_MAX: usize = 4096;
/// How long an announcement may wait for its turn.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of a member beside what readers see.
#[derive(Debug, Clone, Copy)]
struct ShownStanding {
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
pub struct Members {
    pub(super) inputs: mpsc::Sender<MembershipInput>,
    view: watch::Sender<ClusterView>,
    standings: RwLock<BTreeMap<NodeId, ShownStanding>>,
    rebalance_delay: Duration,
    intents: Arc<StateTable<v1::NodeIntent>>,
    audits: Arc<StateTable<v1::NodeAudit>>,
    pub(super) writer: Arc<Writer>,
    pub(super) seen: MemberObservations,
}

/// What this router heard of a member.
pub struct LastHeard {
    /// How long ago; `None` = never.
    pub ago: Option<Duration>,
    /// Why the last probe failed, if it did.
    pub failure: Option<String>,
}

/// By what members are judged.
#[derive(Debug, Clone)]
pub struct MemberSettings {
    pub times: MemberTimes,
    /// Members known from the start; others register themselves.
    pub members: Vec<StaticMember>,
    /// Copies of each repository.
    pub replication_factor: u32,
    /// How long copies on a node that is down still count.
    pub rebalance_delay: Duration,
}

/// The machine and what feeds it, for [`super::run`].
pub struct Membership {
    pub(super) machine: MemberMachine,
    pub(super) inputs: mpsc::Receiver<MembershipInput>,
    pub(super) shared: TableChanges,
}

impl Members {
    /// The members of the command line and of the shared tables, which must have been loaded.
    /// Errors: two have one id.
    pub fn new(settings: &MemberSettings, tables: &StateTables) -> Result<(Self, Membership)> {
        let now = Instant::now();
        // Of seconds, so that a restarted router goes on above the numbers that it gave before.
        let number = clock::now() as u64 * 1000;
        let mut machine =
            MemberMachine::new(settings.times.clone(), &settings.members, number, now)?;
        let mut shared = TableChanges::new(tables);
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
            replication_factor: settings.replication_factor,
        };
        let standings = machine
            .members()
            .map(|known| (known.member.id.clone(), standing(&machine, known)))
            .collect();
        let members = Self {
            inputs: sender,
            view: watch::channel(view).0,
            standings: RwLock::new(standings),
            rebalance_delay: settings.rebalance_delay,
            intents: tables.intents.clone(),
            audits: tables.audits.clone(),
            writer: Arc::new(Writer::new(tables)),
            seen: MemberObservations::default(),
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
                .send(MembershipInput::Announce(Box::new(member), reply))
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
            .try_send(MembershipInput::Machine(MemberEvent::Reported(id.clone())));
    }

    /// Which routers with other catalogues use this member, as it says itself.
    pub fn asked_by(&self, id: &NodeId, others: &[v1::CatalogAsker]) {
        self.seen.other_askers(id, others);
    }

    /// The routers of other catalogues that use members of this one, and those members.
    pub fn other_routers(&self) -> BTreeMap<String, Vec<NodeId>> {
        self.seen.other_routers()
    }

    /// What this router heard of it.
    pub fn heard(&self, id: &NodeId) -> LastHeard {
        let ago = self
            .standing(id)
            .and_then(|standing| standing.heard)
            .map(|at| at.elapsed());
        LastHeard {
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
        let standings = self.standings.read();
        let should_hold = |node: &&Member| {
            standings.get(&node.id).is_some_and(|standing| {
                let down_since = standing.down_since.filter(|_| standing.relied_on);
                let gone = down_since.map(|since| since.elapsed());
                !standing.departing && keeps_copies(node.state, gone, self.rebalance_delay)
            })
        };
        view.nodes().filter(should_hold).map(Into::into).collect()
    }

    /// The reconciler gave this node all that placement wants on it: reads may return to it.
    /// Errors: the state store's.
    pub async fn caught_up(&self, actor: &Actor, id: &NodeId) -> Result<()> {
        let settle = |row: Option<&v1::NodeAudit>| {
            Ok(row.map(|row| v1::NodeAudit {
                behind: row.behind && row.at == 0,
                ..row.clone()
            }))
        };
        self.audits
            .update(actor, id.as_str(), settle)
            .await
            .map(drop)
    }

    /// This node is held back no more and may lack what was placed meanwhile: it is caught up
    /// before reads return to it. Errors: the state store's.
    pub async fn fell_behind(&self, actor: &Actor, id: &NodeId) -> Result<()> {
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
        self.audits
            .update(actor, id.as_str(), behind)
            .await
            .map(drop)
    }

    /// No copy is left on this node, which is being drained. Errors: the state store's.
    pub async fn emptied(&self, actor: &Actor, id: &NodeId) -> Result<()> {
        let empty = |row: Option<&v1::NodeIntent>| {
            Ok(row.map(|row| v1::NodeIntent {
                emptied: row.kind() == v1::node_intent::Kind::Drain,
                ..row.clone()
            }))
        };
        self.intents
            .update(actor, id.as_str(), empty)
            .await
            .map(drop)
    }

    fn standing(&self, id: &NodeId) -> Option<ShownStanding> {
        self.standings.read().get(id).copied()
    }

    /// Shows the members whose ids are given as the machine has them now.
    pub(super) fn show(&self, machine: &MemberMachine, changed: &[NodeId], matters: bool) {
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
        let mut standings = self.standings.write();
        for id in changed {
            match machine.get(id) {
                Some(known) => drop(standings.insert(id.clone(), standing(machine, known))),
                None => drop(standings.remove(id)),
            }
        }
    }
}

fn standing(machine: &MemberMachine, known: &TrackedMember) -> ShownStanding {
    ShownStanding {
        since: known.since,
        down_since: known.down_since,
        heard: known.heard,
        relied_on: known.heard.is_some() || known.known_before,
        departing: machine.departing(&known.member.id),
    }
}

/// The nodes that a copy can be given to now, as placement sees them.
pub fn placeable(view: &ClusterView) -> Vec<Candidate> {
    view.nodes()
        .filter(|member| can_take(member))
        .map(Into::into)
        .collect()
}

/// Whether a copy can be given to this node now.
pub fn can_take(member: &Member) -> bool {
    member.state.accepts() && !member.failed_over
}

/// The node called `id`. Errors: `NotFound`; `Refused` when it is a fetcher.
pub fn node<'a>(view: &'a ClusterView, id: &str) -> Result<&'a Member> {
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

/// Whether a fetcher can be asked for commits, and a node can take them.
pub fn can_refresh(view: &ClusterView) -> bool {
    let active = |role| {
        view.members
            .iter()
            .any(|member| member.role == role && member.state == MemberState::Active)
    };
    active(Role::Fetcher) && active(Role::Node)
}
