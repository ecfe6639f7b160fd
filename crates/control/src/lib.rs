//! The control state of a cluster: its store, the catalogue, the tables, who leads, and who works on
//! which path.
//!
//! Owns the one mutable thing of the system, *path -> commit*, and everything else that routers
//! share. Invariants:
//! - the state store's copy is the only authority; memory is a copy of it that changes after the
//!   store did, through one watch ([`state`]);
//! - a flip (a new commit, or its removal) is one compare-and-set ([`catalog`]);
//! - what must be done once in a cluster is done by the router that holds the leader's lease
//!   ([`lead`]), and work on a path by the router that holds the lease on it ([`path_lease`]).
//!
//! Nothing here calls a node or serves HTTP. Callers: the loops and services of `router`.

pub mod catalog;
pub mod clock;
pub mod lead;
mod location;
pub mod path_lease;
pub mod state;

use std::sync::Arc;
use std::time::Duration;

use monofs_model::Result;
use monofs_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use catalog::Catalog;
pub use catalog::seed_catalogue;
pub use location::StateLocation;
use state::{MeasuredState, SharedState, StateDurations, StateStore, Tables};

/// The control state as one router sees it, and what that router is in it.
pub struct Control {
    pub shared: Arc<SharedState>,
    pub tables: Tables,
    pub catalog: Arc<Catalog>,
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
    /// after how long of silence what it holds is free for others. Errors: the store's; a row cannot
    /// be understood.
    pub async fn start(
        store: Arc<dyn StateStore>,
        own: v1::RouterStatus,
        lease: Duration,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>> {
        let durations = Arc::<StateDurations>::default();
        let shared = SharedState::new(MeasuredState::new(store, durations.clone()));
        let tables = Tables::new(&shared);
        let catalog = Arc::new(Catalog::new(&shared, &own.router_id));
        let mut followers = tables.followers();
        followers.push(catalog.clone());
        shared.start(followers, stop.clone()).await?;
        let (leads, leading) = watch::channel(false);
        Ok(Arc::new(Self {
            shared,
            tables,
            catalog,
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
            tokio::spawn(lead::lead(self.clone(), stop.clone())),
            tokio::spawn(lead::present(self.clone(), stop.clone())),
        ]
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
