//! How the memory of this router follows the state store: everything is read once, then every
//! commit of every router comes through one watch, in order.
//!
//! Invariants: memory changes here only, so what one router commits and what another does look the
//! same; a commit returns after this router's memory has it (a write is seen by the reads that
//! follow it).

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::StreamExt;
use monofs_model::{Actor, Error, ErrorKind, Result};
use monofs_rpc::Backoff;
use monofs_store::state::{CommitOutcome, Compare, Scan, Write};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::action::StateAction;
use super::store::{CommitBatch, StateStore};

/// How long a commit may take to come back through the watch.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);
/// Most tries of one change while others change the same keys and memory hears of it.
const ATTEMPTS_MAX: usize = 64;
/// Most tries in a row of which memory hears nothing new.
const UNHEARD_MAX: u32 = 16;
/// How long memory is given to hear of a change that was in the way: longer with each try of which
/// it hears nothing.
const CONFLICT_PAUSE_FIRST: Duration = Duration::from_millis(50);
const CONFLICT_PAUSE_LAST: Duration = Duration::from_millis(400);
/// Pauses between tries to watch again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// How often it is asked whether changes can be made.
const REACH_EVERY: Duration = Duration::from_secs(3);

/// A part of the router's memory that is a copy of some keys.
pub trait StateFollower: Send + Sync {
    /// Replaces everything by what is in the store. Errors: a value cannot be understood.
    fn load(&self, scan: &Scan) -> Result<()>;
    /// Takes over what one commit changed; keys of others are passed over. Errors: a value cannot
    /// be understood.
    fn apply(&self, batch: &CommitBatch) -> Result<()>;
}

/// A change of the state: what must still be so, and what is written then.
#[derive(Debug, Default)]
pub struct StateTransaction {
    pub compares: Vec<Compare>,
    pub writes: Vec<Write>,
}

/// What to commit after a conflict.
struct NextAttempt {
    change: StateTransaction,
    /// Memory has heard of what was in the way.
    is_news: bool,
}

impl NextAttempt {
    /// Asks `attempt` again when memory has one of the keys of `compares` at another revision: until
    /// then the same would fail again, whatever else is being changed. After `pause` it is tried
    /// nevertheless. `applied`: has seen all that the last attempt looked at.
    async fn after(
        compares: &[Compare],
        pause: Duration,
        applied: &mut watch::Receiver<u64>,
        attempt: &mut impl FnMut() -> Result<StateTransaction>,
    ) -> Result<Self> {
        let give_up = Instant::now() + pause;
        loop {
            let told = tokio::time::timeout_at(give_up, applied.changed()).await;
            let change = attempt()?;
            let is_news = change.compares != compares;
            if is_news || told.is_err() {
                return Ok(Self { change, is_news });
            }
        }
    }
}

/// The state store, and what follows it.
pub struct SharedState {
    store: Arc<dyn StateStore>,
    /// All commits up to here are in memory.
    applied: watch::Sender<u64>,
    /// Whether the store could be reached when it was last tried.
    reachable: watch::Sender<bool>,
    followers: OnceLock<Vec<Weak<dyn StateFollower>>>,
}

impl SharedState {
    /// Nothing follows yet; see [`SharedState::start`].
    pub fn new(store: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            applied: watch::channel(0).0,
            reachable: watch::channel(true).0,
            followers: OnceLock::new(),
        })
    }

    /// The name of the store's history, another one for each store: see [`StateStore::epoch`].
    pub fn epoch(&self) -> String {
        self.store.epoch()
    }

    /// The store itself, for what memory does not have.
    pub(crate) fn store(&self) -> &dyn StateStore {
        &*self.store
    }

    /// Up to where memory is.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Whether the store could be reached when it was last tried, and when that changes.
    pub fn reachable(&self) -> watch::Receiver<bool> {
        self.reachable.subscribe()
    }

    /// Changes the state by compare-and-set, on behalf of `actor`: the one way to change what is
    /// recorded. (Leases are held and released in the store itself, and what was collected is
    /// forgotten there.)
    ///
    /// `attempt` looks at memory and says on what conditions to write what (nothing to write:
    /// done). It is asked again when another change was faster. Returns after memory has the
    /// commit. Errors: `attempt`'s own; `Refused` after [`ATTEMPTS_MAX`] conflicts, or
    /// [`UNHEARD_MAX`] of which memory hears nothing; `Unavailable`
    /// when the store is away.
    pub(crate) async fn transact(
        &self,
        actor: &Actor,
        action: StateAction<'_>,
        mut attempt: impl FnMut() -> Result<StateTransaction>,
    ) -> Result<()> {
        // The subscription begins before the first attempt, so that no change in between is missed.
        let mut applied = self.applied.subscribe();
        let mut next = NextAttempt {
            change: attempt()?,
            is_news: true,
        };
        let mut unheard = 1;
        let mut pauses = Backoff::new(CONFLICT_PAUSE_FIRST, CONFLICT_PAUSE_LAST);
        for _ in 0..ATTEMPTS_MAX {
            // An attempt that has nothing to write finds the state as it is wanted.
            let StateTransaction { compares, writes } = next.change;
            if writes.is_empty() {
                return Ok(());
            }
            match self.store.commit(compares.clone(), writes).await {
                Ok(CommitOutcome::Done { revision }) => {
                    tracing::debug!(%action, %actor, revision, "changed the control state");
                    return self.seen(revision).await.map_err(|_| {
                        Error::unavailable(
                            "written, but the state store does not tell this router about it; look \
                             again",
                        )
                    });
                }
                Ok(CommitOutcome::Conflict) if unheard == UNHEARD_MAX => break,
                Ok(CommitOutcome::Conflict) => {}
                Err(error) => {
                    tracing::debug!(%action, %actor, %error, "could not change the control state");
                    return Err(self.refused(error));
                }
            }

            // After a conflict the next attempt waits for news or for the pause. News shows that
            // memory keeps up, so the count of tries without any begins again.
            let pause = pauses.next_pause();
            next = NextAttempt::after(&compares, pause, &mut applied, &mut attempt).await?;
            unheard += 1;
            if next.is_news {
                unheard = 1;
                pauses.reset();
            }
        }

        // Other changes won each time; this one may succeed when they pause.
        tracing::debug!(%action, %actor, "gave way to others that change the control state");
        Err(Error::refused(
            "others keep changing the same part of the cluster's state; try again",
        ))
    }

    /// The error of a change that could not be made, with what to do.
    pub(crate) fn refused(&self, error: Error) -> Error {
        if error.kind != ErrorKind::Unavailable {
            return error;
        }
        self.away(&error);
        Error::unavailable(format!(
            "the state store cannot be reached, so nothing can be changed; reads go on. Look at \
             it, then try again ({})",
            error.message
        ))
    }

    /// Waits until memory has the commit of `revision`. Errors: `Unavailable` when it takes too
    /// long.
    pub(crate) async fn seen(&self, revision: u64) -> Result<()> {
        let mut applied = self.applied.subscribe();
        let wait = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout(ECHO_TIMEOUT, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::unavailable(
                "the state store does not tell this router what others changed; try again",
            )),
        }
    }

    /// Loads `followers` and lets them follow until `stop`. To be called once.
    pub async fn start(
        self: &Arc<Self>,
        followers: Vec<Arc<dyn StateFollower>>,
        stop: CancellationToken,
    ) -> Result<()> {
        let weak = followers.iter().map(Arc::downgrade).collect();
        if self.followers.set(weak).is_err() {
            return Err(Error::internal("the state is followed already"));
        }
        let revision = self.load().await?;
        let reaching = self.clone().keep_reaching();
        tokio::spawn(stop.clone().run_until_cancelled_owned(reaching));
        let following = self.clone().keep_following(revision);
        tokio::spawn(stop.run_until_cancelled_owned(following));
        Ok(())
    }

    /// Asks again and again whether changes can be made.
    async fn keep_reaching(self: Arc<Self>) {
        loop {
            tokio::time::sleep(REACH_EVERY).await;
            match self.store.reach().await {
                Ok(()) => self.back(),
                Err(error) => self.away(&error),
            }
        }
    }

    /// Watches from `revision` on, and again whenever the watch ends.
    async fn keep_following(self: Arc<Self>, mut revision: u64) {
        let mut retries = Backoff::new(PAUSE_FIRST, PAUSE_LAST);
        loop {
            let Err(error) = self.follow(&mut revision, &mut retries).await else {
                continue;
            };
            if error.kind == ErrorKind::NotHeld {
                tracing::info!(%error, "reading the whole state again");
                match self.load().await {
                    Ok(loaded) => {
                        // At once, before that is the past, too.
                        revision = loaded;
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(error) => self.away(&error),
                }
            } else {
                self.away(&error);
            }
            tokio::time::sleep(retries.next_pause()).await;
        }
    }

    /// One watch, until it ends. `revision`: up to where memory is. `retries` begin again with what
    /// the watch brings.
    async fn follow(&self, revision: &mut u64, retries: &mut Backoff) -> Result<()> {
        let mut batches = self.store.watch(*revision).await?;
        self.back();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            for follower in self.followers() {
                // A value that cannot be understood stays as it was in memory, and is told.
                if let Err(error) = follower.apply(&batch) {
                    tracing::error!(%error, "cannot take over a change of the state");
                }
            }
            *revision = batch.revision;
            retries.reset();
            self.applied.send_replace(batch.revision);
        }
        Err(Error::unavailable("the state store ended the watch"))
    }

    async fn load(&self) -> Result<u64> {
        let scan = self.store.scan("").await?;
        for follower in self.followers() {
            follower.load(&scan)?;
        }
        self.applied.send_replace(scan.revision);
        Ok(scan.revision)
    }

    /// The parts of memory that are still in use.
    fn followers(&self) -> impl Iterator<Item = Arc<dyn StateFollower>> {
        let all = self.followers.get().into_iter().flatten();
        all.filter_map(Weak::upgrade)
    }

    fn back(&self) {
        if self
            .reachable
            .send_if_modified(|reachable| !std::mem::replace(reachable, true))
        {
            tracing::info!("the state store can be reached again");
        }
    }

    fn away(&self, error: &Error) {
        if self
            .reachable
            .send_if_modified(|reachable| std::mem::replace(reachable, false))
        {
            tracing::warn!(%error, "the state store cannot be reached; serving what is known, \
             refusing changes");
        }
    }
}
