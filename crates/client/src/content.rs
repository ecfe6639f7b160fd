//! Getting content that is not at hand: single flight, the right replica, a second one when the
//! first is slow, a deadline, and verification before anything is kept.
//!
//! Everything here is immutable and named by its oid, so answers that arrive twice or late do no
//! harm: whatever was verified goes into the cache. Callers are told that their keys are at hand;
//! they then look into the cache again.

pub mod balance;
pub mod fetch;
pub mod flights;
pub mod hedge;
pub mod replicas;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_model::limits::{CONTENT_REQUEST_ITEMS_MAX, TREE_CLOSURE_BYTES};
use monofs_model::{Error, Oid, Result, StorageId};
use monofs_rpc::channel::ChannelPool;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::fetch::{Ask, Load};
use self::flights::{Claim, Flights, landed};
use self::hedge::Hedging;
use self::replicas::Replicas;
use crate::cache::Cache;
use crate::config::Config;
use crate::counters::Counters;
use crate::evidence::Marks;
use crate::repo::Repo;
use crate::spawner::Spawner;
use crate::want::{ContentKey, Span};

/// Budget of a request for trees once the repository's whole closure has been asked for.
const TREE_MORE_BYTES: u64 = 1 << 20;
/// How long somebody who needs a key waits for another's request for it before asking too: that
/// request may be a long one that was made ahead of need.
const OVERTAKE_AFTER: Duration = Duration::from_millis(250);
/// How long a miss waits for the closure that is just streaming in.
const CLOSURE_WAIT: Duration = Duration::from_millis(60);
/// Tries of one caller: its own request, after having waited for another's.
const ROUNDS_MAX: usize = 4;

/// The way to content that is not at hand. Cheap to clone.
#[derive(Clone)]
pub struct Content(Arc<Inner>);

pub(crate) struct Inner {
    pub cache: Arc<Cache>,
    pub counters: Arc<Counters>,
    /// What is fetched unasked is marked once it is claimed, so before anybody can read it.
    pub marks: Arc<Marks>,
    pub replicas: Replicas,
    pub channels: ChannelPool,
    pub timeout: Duration,
    hedging: Hedging,
    flights: Flights,
    /// Repositories whose closure is streaming in; the value changes with each message.
    closures: Mutex<HashMap<StorageId, watch::Sender<u64>>>,
    /// Since when nobody has answered.
    down_since: Mutex<Option<Instant>>,
    spawner: Spawner,
}

impl Content {
    /// Content from the members of the view that [`Content::replicas`] will be told of.
    pub(crate) fn new(
        config: &Config,
        cache: Arc<Cache>,
        counters: Arc<Counters>,
        marks: Arc<Marks>,
        spawner: Spawner,
    ) -> Self {
        Self(Arc::new(Inner {
            cache,
            counters,
            marks,
            replicas: Replicas::new(config.routers.clone(), config.addresses, config.via_router),
            channels: ChannelPool::default(),
            timeout: config.rpc_timeout,
            hedging: Hedging::default(),
            flights: Flights::default(),
            closures: Mutex::default(),
            down_since: Mutex::default(),
            spawner,
        }))
    }

    /// Whom it asks.
    pub fn replicas(&self) -> &Replicas {
        &self.0.replicas
    }

    /// The connections it uses.
    pub fn channels(&self) -> ChannelPool {
        self.0.channels.clone()
    }

    /// Keys being fetched.
    pub fn in_flight(&self) -> usize {
        self.0.flights.count()
    }

    /// Brings the record of a tree into the cache; the first time for a repository, all records
    /// below it too. Those of `ahead` are asked for in the same request and not waited for.
    pub async fn tree(&self, repo: &Arc<Repo>, tree: Oid, ahead: Vec<Oid>) -> Result<()> {
        self.0.await_closure(repo, &tree).await;
        let budget = if repo.first_touch() {
            TREE_CLOSURE_BYTES
        } else {
            TREE_MORE_BYTES
        };
        let result = self
            .obtain(
                repo,
                Need::Trees {
                    trees: vec![tree],
                    ahead,
                    budget,
                },
            )
            .await;
        if result.is_err() {
            repo.touch_again();
        }
        result
    }

    /// Brings the records of these trees into the cache, and up to `budget` bytes of what is below
    /// them.
    pub async fn trees(&self, repo: &Arc<Repo>, trees: Vec<Oid>, budget: u64) -> Result<()> {
        for batch in trees.chunks(CONTENT_REQUEST_ITEMS_MAX) {
            self.obtain(
                repo,
                Need::Trees {
                    trees: batch.to_vec(),
                    ahead: Vec::new(),
                    budget,
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Brings the chunks of `wanted` into the cache, and in the same request those of `ahead`,
    /// which are not waited for.
    pub async fn chunks(&self, repo: &Arc<Repo>, wanted: Span, ahead: Vec<Span>) -> Result<()> {
        self.obtain(repo, Need::Spans { wanted, ahead }).await
    }

    /// Brings chunks into the cache that nobody waits for yet. Returns when they are there, unless
    /// others are fetching them, and whether anything had to be asked for.
    pub async fn ahead(&self, repo: &Arc<Repo>, spans: &[Span]) -> Result<bool> {
        let inner = &self.0;
        let (claim, absent) = inner.claim(spans.iter().flat_map(Span::keys), || {
            inner.absent_chunks(spans.iter())
        });
        let is_mine = |key: &ContentKey| claim.contains(key);
        let spans: Vec<Span> = spans
            .iter()
            .filter(|span| span.keys().any(|key| is_mine(&key)))
            .copied()
            .collect();
        if spans.is_empty() {
            return Ok(false);
        }
        inner.marks.mark(&spans);
        let needed = absent.into_iter().filter(is_mine).collect();
        let (load, _) = Load::new(needed, claim);
        inner
            .fetch(repo, &Ask::Spans(spans), &load, false)
            .await
            .map(|()| true)
    }

    async fn obtain(&self, repo: &Arc<Repo>, need: Need) -> Result<()> {
        for round in 0..ROUNDS_MAX {
            let (claim, absent) = self.0.claim(need.keys(), || need.absent(&self.0));
            let missing: Vec<ContentKey> =
                need.wanted().filter(|key| absent.contains(key)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let others: Vec<ContentKey> = missing
                .iter()
                .filter(|key| !claim.contains(key))
                .copied()
                .collect();
            let overtake = round > 0 || others.is_empty();
            let mine: Vec<ContentKey> = missing
                .into_iter()
                .filter(|key| overtake || claim.contains(key))
                .collect();
            if !mine.is_empty() {
                self.start(repo, &need, mine, claim).await?;
            }
            for key in others.iter().filter(|_| !overtake) {
                if let Some(landing) = self.0.flights.landing(key) {
                    let _ = tokio::time::timeout(OVERTAKE_AFTER, landed(landing)).await;
                }
            }
        }
        let absent = need.absent(&self.0);
        match need.wanted().any(|key| absent.contains(&key)) {
            false => Ok(()),
            // It arrived and is gone again before it could be used.
            true => Err(Error::full(
                "the client's cache is too small for what is being read; raise --max-cache-gb",
            )),
        }
    }

    /// Runs the request in a task of its own, which may go on after what is needed has arrived.
    async fn start(
        &self,
        repo: &Arc<Repo>,
        need: &Need,
        mine: Vec<ContentKey>,
        claim: Claim,
    ) -> Result<()> {
        let ask = need.ask(&mine, &claim);
        if let (Need::Spans { .. }, Ask::Spans(spans)) = (need, &ask) {
            // The first is what somebody waits for.
            self.0.marks.mark(&spans[1..]);
        }
        let (load, arrived) = Load::new(mine.into_iter().collect(), claim);
        let (inner, repo) = (self.0.clone(), repo.clone());
        self.0.spawner.spawn(async move {
            let result = inner.fetch(&repo, &ask, &load, true).await;
            load.finish(result);
        });
        arrived
            .await
            .unwrap_or_else(|_| Err(Error::unavailable("the request was given up")))
    }
}

/// What a caller needs.
enum Need {
    Trees {
        trees: Vec<Oid>,
        ahead: Vec<Oid>,
        budget: u64,
    },
    Spans {
        wanted: Span,
        ahead: Vec<Span>,
    },
}

impl Need {
    /// The keys that are waited for.
    fn wanted(&self) -> impl Iterator<Item = ContentKey> {
        let (trees, span) = match self {
            Self::Trees { trees, .. } => (&trees[..], None),
            Self::Spans { wanted, .. } => (&[][..], Some(wanted)),
        };
        trees
            .iter()
            .copied()
            .map(ContentKey::Tree)
            .chain(span.into_iter().flat_map(Span::keys))
    }

    /// All keys.
    fn keys(&self) -> impl Iterator<Item = ContentKey> {
        let (trees, spans) = match self {
            Self::Trees { ahead, .. } => (&ahead[..], &[][..]),
            Self::Spans { ahead, .. } => (&[][..], &ahead[..]),
        };
        self.wanted()
            .chain(trees.iter().copied().map(ContentKey::Tree))
            .chain(spans.iter().flat_map(Span::keys))
    }

    /// The keys that are not at hand; those of `ahead` were looked at by whoever chose them a
    /// moment ago.
    fn absent(&self, inner: &Inner) -> HashSet<ContentKey> {
        match self {
            Self::Trees { trees, ahead, .. } => {
                let missing = trees.iter().filter(|tree| !inner.cache.has_record(tree));
                missing
                    .chain(ahead)
                    .copied()
                    .map(ContentKey::Tree)
                    .collect()
            }
            Self::Spans { wanted, ahead } => {
                let mut absent = inner.absent_chunks([wanted].into_iter());
                absent.extend(ahead.iter().flat_map(Span::keys));
                absent
            }
        }
    }

    fn ask(&self, mine: &[ContentKey], claim: &Claim) -> Ask {
        match self {
            Self::Trees { ahead, budget, .. } => {
                let trees = mine.iter().filter_map(|key| {
                    if let ContentKey::Tree(tree) = key {
                        Some(*tree)
                    } else {
                        None
                    }
                });
                let ahead = ahead
                    .iter()
                    .filter(|tree| claim.contains(&ContentKey::Tree(**tree)));
                let trees = trees
                    .chain(ahead.copied())
                    .take(CONTENT_REQUEST_ITEMS_MAX)
                    .collect();
                Ask::Trees {
                    trees,
                    budget: *budget,
                }
            }
            Self::Spans { wanted, ahead } => {
                let ahead = ahead
                    .iter()
                    .filter(|span| span.keys().any(|key| claim.contains(&key)));
                Ask::Spans(
                    std::iter::once(*wanted)
                        .chain(ahead.copied())
                        .take(CONTENT_REQUEST_ITEMS_MAX)
                        .collect(),
                )
            }
        }
    }
}

impl Inner {
    /// Claims those of `keys` that are `absent` and that nobody else fetches; gives all absent
    /// ones, too. What is absent is looked up after the claim: before it, another's request could
    /// bring a key between the look and the claim.
    fn claim(
        &self,
        keys: impl Iterator<Item = ContentKey>,
        absent: impl FnOnce() -> HashSet<ContentKey>,
    ) -> (Claim, HashSet<ContentKey>) {
        let mut claim = self.flights.claim(keys);
        let absent = absent();
        claim.keep(&absent);
        (claim, absent)
    }

    fn absent_chunks<'a>(&self, spans: impl Iterator<Item = &'a Span>) -> HashSet<ContentKey> {
        let missing = self.cache.missing_frames(spans.flat_map(Span::chunks));
        missing
            .into_iter()
            .map(|(blob, index)| ContentKey::Chunk(blob, index))
            .collect()
    }

    /// If the closure of this repository is streaming in, gives the tree a moment to arrive with
    /// it.
    async fn await_closure(&self, repo: &Arc<Repo>, tree: &Oid) {
        let closures = || self.closures.lock();
        let Some(mut progress) = closures()
            .get(repo.storage_id())
            .map(watch::Sender::subscribe)
        else {
            return;
        };
        let _ = tokio::time::timeout(CLOSURE_WAIT, async {
            while !self.cache.has_record(tree) && progress.changed().await.is_ok() {}
        })
        .await;
    }

    fn closure_begins(&self, repo: &Repo) {
        let mut closures = self.closures.lock();
        closures
            .entry(repo.storage_id().clone())
            .or_insert_with(|| watch::channel(0).0);
    }

    fn closure_goes_on(&self, repo: &Repo) {
        let progress = {
            let closures = self.closures.lock();
            closures.get(repo.storage_id()).cloned()
        };
        // This wakes the waiters, so it is done without the lock.
        if let Some(progress) = progress {
            progress.send_modify(|count| *count += 1);
        }
    }

    fn closure_ends(&self, repo: &Repo) {
        let ended = {
            let mut closures = self.closures.lock();
            closures.remove(repo.storage_id())
        };
        // This wakes the waiters, so it is done without the lock.
        drop(ended);
    }

    /// Whether nobody has answered for so long that trying until the deadline is pointless.
    fn is_down(&self) -> bool {
        let since = *self.down_since.lock();
        since.is_some_and(|since| since.elapsed() > self.timeout)
    }

    fn note_answer(&self, answered: bool) {
        let mut since = self.down_since.lock();
        *since = if answered {
            None
        } else {
            since.or_else(|| Some(Instant::now()))
        };
    }
}
