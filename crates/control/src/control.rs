//! [`Control`]: the parts of the control state, put together for one router.

use std::sync::Arc;
use std::time::Duration;

use monofs_model::Result;
use monofs_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::{
    Catalog, CatalogWriter, PublishedCommits, RetainedSnapshots, TimesOfGenerations,
};
use crate::lead::{self, KeptRow, RowHold};
use crate::state::{MeasuredState, SharedState, StateDurations, StateStore, StateTables};

/// The control state as one router sees it, and what that router is in it.
pub struct Control {
    pub shared: Arc<SharedState>,
    pub tables: StateTables,
    /// What is at which path, in memory.
    pub catalog: Arc<Catalog>,
    /// The way to change what is at which path.
    pub entries: CatalogWriter,
    /// Snapshots that were replaced and may still be read.
    pub retained: Arc<RetainedSnapshots>,
    /// The commits that entries showed.
    pub published: PublishedCommits,
    /// The times of generations.
    pub times: TimesOfGenerations,
    /// Whether this router is the one that runs the workers of which there must be one.
    pub leading: watch::Receiver<bool>,
    /// This router, as the others see it.
    pub own: v1::RouterStatus,
    /// After how long of silence what a router holds is free for others.
    pub lease: Duration,
    /// How long the state store took to answer.
    pub durations: Arc<StateDurations>,
    leads: watch::Sender<bool>,
}

impl Control {
    /// Loads the state that is in `store` and follows it until `stop`. `own`: this router; `lease`:
    /// after how long of silence what it holds is free for others. Errors: the store's; a row
    /// cannot be understood.
    pub async fn start(
        store: Arc<dyn StateStore>,
        own: v1::RouterStatus,
        lease: Duration,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>> {
        // The parts of memory, empty.
        let durations = Arc::<StateDurations>::default();
        let shared = SharedState::new(MeasuredState::new(store, durations.clone()));
        let tables = StateTables::new(&shared);
        let catalog = Arc::new(Catalog::new(&shared));
        let retained = Arc::new(RetainedSnapshots::new(&shared));
        let published = PublishedCommits::new(&shared);
        let entries = CatalogWriter::new(
            &catalog,
            &published,
            &retained,
            &tables.routers,
            &own.router_id,
        );
        // They fill, and follow the store from then on.
        let mut followers = tables.followers();
        followers.push(catalog.clone());
        followers.push(retained.clone());
        shared.start(followers, stop.clone()).await?;
        let (leads, leading) = watch::channel(false);
        let times = TimesOfGenerations::new(&shared);
        Ok(Arc::new(Self {
            shared,
            tables,
            catalog,
            entries,
            retained,
            published,
            times,
            leading,
            own,
            lease,
            durations,
            leads,
        }))
    }

    /// Lets this router be seen by the others, and lead when no other does, until `stop`. The tasks
    /// end after they released this router's leases, or tried to for a bounded time.
    pub fn take_part(self: &Arc<Self>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        vec![
            tokio::spawn(self.clone().lead(stop.clone())),
            tokio::spawn(self.clone().present(stop.clone())),
        ]
    }

    /// Tries to be the leader until `stop`, and says in [`Control::leading`] when it is.
    async fn lead(self: Arc<Self>, stop: CancellationToken) {
        let table = &self.tables.leader;
        let row = KeptRow {
            key: table.key(""),
            value: table.value(&self.own),
            lease: self.lease,
            changed: table.changed(),
        };
        let store = self.shared.store();
        lead::keep(store, row, |hold| self.set_leading(hold), stop).await;
    }

    /// Shows this router to the others until `stop`.
    async fn present(self: Arc<Self>, stop: CancellationToken) {
        let table = &self.tables.routers;
        let row = KeptRow {
            key: table.key(&self.own.router_id),
            value: table.value(&self.own),
            lease: self.lease,
            changed: table.changed(),
        };
        lead::keep(self.shared.store(), row, |_| {}, stop).await;
    }

    fn set_leading(&self, hold: RowHold) {
        let leading = hold == RowHold::Held;
        if self.leads.send_replace(leading) != leading {
            tracing::info!(router = self.own.router_id, leading, "leadership");
        }
    }

    /// Whether this router leads now.
    pub fn is_leading(&self) -> bool {
        *self.leading.borrow()
    }

    /// All routers that run, as the state store says; empty while it cannot be asked.
    pub fn routers(&self) -> Vec<v1::RouterStatus> {
        if !*self.shared.reachable().borrow() {
            return Vec::new();
        }
        let leader = self.tables.leader.get("").map(|leader| leader.router_id);
        let mut routers = self.tables.routers.list();
        for router in &mut routers {
            router.leader = leader.as_ref() == Some(&router.router_id);
        }
        routers
    }
}
