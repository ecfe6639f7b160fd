//! The leader's loop: tells the plan what changed, carries out what it says, and writes down how
//! far that is.
//!
//! Invariants: only the leader works, and what runs is broken off when it leads no more; nothing is
//! begun in a maintenance, nor before every member had the time to be heard; all copies that run
//! share the bandwidth given.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use monofs_model::{Actor, DisplayPath, Error, ErrorKind, MemberState, NodeId, Result};
use monofs_rpc::context;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::facts;
use super::jobs::Book;
use super::work::{self, CopyPace};
use crate::parts::Parts;
use crate::recovery;
use monofs_control::Control;
use monofs_control::catalog::CatalogPosition;
use monofs_fleet::copies::{
    CommandOutcome, NodeFacts, PlanAction, PlanCommand, PlanEvent, Planner, StorageKey,
};

/// Commands carried out at a time.
const COMMANDS_MAX: usize = 4;
/// Entries taken in at a time.
const PAGE: usize = 10_000;
/// Job rows are written this often at most, but for what ended.
const ROWS_EVERY: Duration = Duration::from_millis(500);
/// The loop looks around at least this often.
const TICK_MAX: Duration = Duration::from_secs(1);

/// Works until `stop`; to be run by the leader.
pub(crate) async fn run(state: Arc<Parts>, stop: CancellationToken) {
    stop.run_until_cancelled(lead(&state)).await;
}

/// A command that runs.
struct RunningCommand {
    command: PlanCommand,
    pace: Arc<CopyPace>,
    abort: AbortHandle,
    /// It was broken off, and what it left is being taken back.
    undoes: bool,
}

struct Leader {
    /// Who the rows are written by: this worker, in its term.
    actor: Actor,
    state: Arc<Parts>,
    planner: Planner,
    nodes: (Vec<NodeFacts>, usize),
    /// Up to where the catalogue is in the plan; `None` = not at all.
    position: Option<CatalogPosition>,
    work: JoinSet<Result<()>>,
    running: HashMap<Id, RunningCommand>,
    book: Book,
    /// For the plan's clock.
    since: Instant,
    rows_written: Option<Instant>,
    rows_due: bool,
}

async fn lead(state: &Arc<Parts>) {
    let mut leader = Leader {
        actor: context::actor(),
        state: state.clone(),
        planner: Planner::default(),
        nodes: Default::default(),
        position: None,
        work: JoinSet::new(),
        running: HashMap::new(),
        book: Book::default(),
        since: Instant::now(),
        rows_written: None,
        rows_due: true,
    };
    let mut catalog = state.control.catalog.changed();
    let mut view = state.fleet.members.subscribe();
    let mut tables: Vec<watch::Receiver<()>> = vec![
        state.control.tables.jobs.changed(),
        state.control.tables.intents.changed(),
        state.control.tables.maintenance.changed(),
    ];
    let tick = state
        .config
        .worker_interval
        .min(TICK_MAX)
        .max(Duration::from_millis(10));
    loop {
        // Before the catalogue: what audits changed there is in the plan then.
        let behind = recovery::behind(&state.control, &state.fleet);
        let draining = leader.draining();
        leader.look().await;
        leader.publish();
        leader.tell_members(&behind, &draining).await;
        leader.begin();
        leader.write_rows().await;
        let [jobs, intents, maintenance] = &mut tables[..] else {
            return;
        };
        tokio::select! {
            Some(ended) = leader.work.join_next_with_id() => leader.ended(ended),
            _ = catalog.changed() => {}
            _ = view.changed() => {}
            _ = jobs.changed() => {}
            _ = intents.changed() => {}
            _ = maintenance.changed() => {}
            () = tokio::time::sleep(tick) => {}
        }
        while let Some(ended) = leader.work.try_join_next_with_id() {
            leader.ended(ended);
        }
    }
}

impl Leader {
    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// Lets the plan do something that may take long, on a thread that may block.
    async fn plan(&mut self, change: impl FnOnce(&mut Planner) + Send + 'static) {
        let mut planner = std::mem::take(&mut self.planner);
        let changed = tokio::task::spawn_blocking(move || {
            change(&mut planner);
            planner
        });
        match changed.await {
            Ok(planner) => self.planner = planner,
            Err(error) => {
                // Everything is taken in again.
                tracing::error!(%error, "the plan was lost");
                (self.position, self.nodes) = (None, Default::default());
            }
        }
    }

    /// Takes in what changed.
    async fn look(&mut self) {
        let nodes = facts::nodes(&self.state.control, &self.state.fleet);
        if nodes != self.nodes {
            self.nodes = nodes.clone();
            let now = self.now();
            self.plan(move |planner| {
                planner.step(
                    PlanEvent::Nodes {
                        nodes: &nodes.0,
                        copies: nodes.1,
                    },
                    now,
                );
            })
            .await;
        }
        if !self.take_changes() {
            self.load().await;
        }
        let (held_back, asked) =
            Book::asked(&mut self.planner, &self.state.control.tables.jobs.list());
        for running in self
            .running
            .values()
            .filter(|r| !r.undoes && held_back.contains(&r.command.cause))
        {
            running.abort.abort();
        }
        let now = self.now();
        self.planner
            .step(PlanEvent::Asked { held_back, asked }, now);
    }

    /// Takes in what changed in the catalogue; false when that is not known.
    fn take_changes(&mut self) -> bool {
        let changes = self
            .position
            .as_ref()
            .and_then(|position| self.state.control.catalog.changes_since(position));
        let Some(changes) = changes else { return false };
        let now = self.now();
        for entry in &changes.upserts {
            if let Some(facts) = facts::repository(entry, true) {
                self.planner.step(PlanEvent::Repository(facts), now);
            }
        }
        for path in &changes.removed {
            if let Ok(path) = DisplayPath::new(path) {
                self.planner
                    .step(PlanEvent::Removed(path.storage_id().number()), now);
            }
        }
        self.position = Some(changes.position);
        true
    }

    /// For the metrics of this router.
    fn publish(&self) {
        let lacks = |node: &monofs_model::Member| (node.id.clone(), self.planner.lacks(&node.id));
        self.state
            .work
            .replication
            .planned(self.state.fleet.members.view().nodes().map(lacks).collect());
    }

    fn draining(&self) -> Vec<NodeId> {
        let view = self.state.fleet.members.view();
        view.nodes()
            .filter(|node| node.state == MemberState::Draining)
            .map(|node| node.id.clone())
            .collect()
    }

    /// Says which nodes that came back have all that they should have, and which that are emptied
    /// hold nothing any more.
    async fn tell_members(&self, behind: &[NodeId], draining: &[NodeId]) {
        if self.position.is_none() {
            return;
        }
        for id in behind.iter().filter(|id| self.planner.lacks(id) == 0) {
            match self.state.fleet.members.caught_up(&self.actor, id).await {
                Ok(()) => tracing::info!(node = %id, "the node has caught up"),
                Err(error) => {
                    tracing::warn!(node = %id, %error, "cannot record that a node has caught up; \
                     trying again")
                }
            }
        }
        for id in draining.iter().filter(|id| self.planner.holds(id) == 0) {
            if let Err(error) = self.state.fleet.members.emptied(&self.actor, id).await {
                tracing::warn!(node = %id, %error, "cannot record that a node is empty; trying \
                 again");
            }
        }
    }

    /// Takes in everything.
    async fn load(&mut self) {
        self.work.abort_all();
        // A plan that is lost takes it back.
        self.position = Some(self.state.control.catalog.position());
        let state = self.state.clone();
        let now = self.now();
        let nodes = self.nodes.clone();
        self.planner = Planner::default();
        self.plan(move |planner| {
            planner.step(
                PlanEvent::Nodes {
                    nodes: &nodes.0,
                    copies: nodes.1,
                },
                now,
            );
            let mut after = String::new();
            loop {
                let page = state.control.catalog.page("", &after, PAGE);
                let Some(last) = page.last() else { return };
                after = last.path.to_string();
                for facts in page
                    .iter()
                    .filter_map(|entry| facts::repository(entry, false))
                {
                    planner.step(PlanEvent::Repository(facts), now);
                }
            }
        })
        .await;
    }

    /// Why nothing may be begun; `None` = it may.
    fn paused(&self) -> Option<String> {
        if let Some(maintenance) = self.state.control.tables.maintenance.get("") {
            let reason = maintenance.reason;
            return Some(format!(
                "the cluster is drained ({reason}); `monofs-admin undrain` ends that"
            ));
        }
        let early = self.since.elapsed() < self.state.config.unhealthy_threshold;
        let unheard = |node: &monofs_model::Member| {
            matches!(node.state, MemberState::Joining | MemberState::Suspect)
        };
        (early
            && (self.planner.has_strangers()
                || self.state.fleet.members.view().nodes().any(unheard)))
        .then(|| "waiting for the members to be heard".to_owned())
    }

    /// Carries out what the plan says, as much as there is room for.
    fn begin(&mut self) {
        self.book.paused = self.paused();
        if self.book.paused.is_some() {
            if self.state.control.tables.maintenance.get("").is_some() {
                self.work.abort_all();
            }
            return;
        }
        let now = self.now();
        while self.running.len() < COMMANDS_MAX {
            let Some(share) = self.share() else { return };
            let Some(command) = self.planner.step(PlanEvent::Room(1), now).pop() else {
                return;
            };
            if self
                .running
                .values()
                .any(|running| running.command.key == command.key)
            {
                // Begun before everything was taken in anew.
                let outcome = CommandOutcome::Later(self.state.config.worker_interval);
                self.planner.step(
                    PlanEvent::Ended {
                        key: command.key,
                        outcome,
                    },
                    now,
                );
                continue;
            }
            self.book.begun(command.cause);
            self.rows_due = true;
            let pace = Arc::new(CopyPace {
                bytes_per_second_max: share,
                ..CopyPace::default()
            });
            let work = {
                let state = self.state.clone();
                let command = command.clone();
                let pace = pace.clone();
                async move { work::perform(&context::actor(), &state, &command, &pace).await }
            };
            let abort = self.work.spawn(context::begin("reconcile", work));
            self.running.insert(
                abort.id(),
                RunningCommand {
                    command,
                    pace,
                    abort,
                    undoes: false,
                },
            );
        }
    }

    /// The bandwidth of the next command, 0 = no limit; `None` when those that run have all of it.
    fn share(&self) -> Option<u64> {
        let whole = self.state.config.rebalance_bandwidth;
        let taken: u64 = self
            .running
            .values()
            .map(|running| running.pace.bytes_per_second_max)
            .sum();
        let waiting: u64 = self
            .planner
            .pending()
            .values()
            .map(|tally| tally.runnable)
            .sum();
        share(whole, taken, waiting)
    }

    fn ended(&mut self, ended: Result<(Id, Result<()>), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => (error.id(), None),
        };
        let Some(RunningCommand {
            command,
            pace,
            undoes,
            ..
        }) = self.running.remove(&id)
        else {
            return;
        };
        if outcome.is_none() && !undoes {
            return self.undo(command);
        }
        // What it changed is in the catalogue: that is known before the plan goes on.
        if !self.take_changes() {
            self.position = None;
        }
        self.rows_due = true;
        let outcome = match outcome {
            Some(Err(error)) if undoes => {
                tracing::warn!(%error, "a copy that was broken off is left until its node is asked \
                 what it holds");
                CommandOutcome::Later(self.state.config.worker_interval)
            }
            None | Some(Ok(())) if undoes => {
                CommandOutcome::Later(self.state.config.worker_interval)
            }
            Some(Ok(())) => {
                self.book
                    .done(command.cause, pace.bytes.load(Ordering::Relaxed));
                CommandOutcome::Done
            }
            Some(Err(error)) => self.failed(&command, &error),
            None => CommandOutcome::Failed,
        };
        let now = self.now();
        self.planner.step(
            PlanEvent::Ended {
                key: command.key,
                outcome,
            },
            now,
        );
    }

    fn failed(&mut self, command: &PlanCommand, error: &Error) -> CommandOutcome {
        let action = match &command.action {
            PlanAction::Copy { node, .. } => {
                format!(
                    "copy {} to {node}",
                    path_of(&self.state.control, command.key)
                )
            }
            PlanAction::Delete { node, .. } => {
                format!(
                    "delete {} from {node}",
                    path_of(&self.state.control, command.key)
                )
            }
        };
        self.book
            .failed(command.cause, &error.clone().context(action.clone()));
        if matches!(error.kind, ErrorKind::Refused) {
            tracing::debug!(%error, "cannot {action} now");
            return CommandOutcome::Later(self.state.config.worker_interval);
        }
        tracing::warn!(%error, "cannot {action}; trying again");
        CommandOutcome::Failed
    }

    /// A copy that was broken off is not left lying about; nothing else is done with the repository
    /// before that.
    fn undo(&mut self, command: PlanCommand) {
        let state = self.state.clone();
        let undone = command.clone();
        let undo = async move { work::undo(&state, &undone).await };
        let abort = self.work.spawn(context::begin("undo", undo));
        self.running.insert(
            abort.id(),
            RunningCommand {
                command,
                pace: Arc::default(),
                abort,
                undoes: true,
            },
        );
    }

    async fn write_rows(&mut self) {
        self.book.live.clear();
        for RunningCommand { command, pace, .. } in self.running.values() {
            *self.book.live.entry(command.cause).or_default() += pace.bytes.load(Ordering::Relaxed);
        }
        let rested = self
            .rows_written
            .is_none_or(|at| at.elapsed() >= ROWS_EVERY);
        if !rested && !self.rows_due {
            return;
        }
        match self
            .book
            .write(&self.actor, &self.state.control, &mut self.planner)
            .await
        {
            Ok(()) => self.rows_due = false,
            Err(error) => tracing::warn!(%error, "cannot record how far jobs are; trying again"),
        }
        self.rows_written = Some(Instant::now());
    }
}

fn path_of(control: &Control, key: StorageKey) -> String {
    let id = monofs_model::StorageId::of_number(key);
    control
        .catalog
        .by_storage_id(&id)
        .map_or_else(|| id.to_string(), |entry| entry.path.to_string())
}

/// What the next command may take of `whole` bytes a second, of which `taken` are given away, when
/// `waiting` could begin.
fn share(whole: u64, taken: u64, waiting: u64) -> Option<u64> {
    if whole == 0 {
        return Some(0);
    }
    let part = (whole / waiting.clamp(1, COMMANDS_MAX as u64)).max(1);
    let least = (whole / COMMANDS_MAX as u64).max(1);
    let left = whole.saturating_sub(taken);
    (left >= least).then(|| part.min(left))
}
