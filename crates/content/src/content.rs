//! Getting content that is not at hand: single flight, the right replica, a second one when the
//! first is slow, a deadline, and verification before anything is kept.
//!
//! ```text
//! a caller's need -> flights: what is in flight already is waited for, the rest is claimed
//!                 -> reader:  replica after replica, hedged, until the deadline
//!                 -> peer:    one call; what arrives is verified and goes into the cache
//! ```
//!
//! Everything here is immutable and named by its oid, so answers that arrive twice or late do no
//! harm: whatever was verified goes into the cache. Callers are told that their keys are at hand;
//! they then look into the cache again.

mod balance;
mod closures;
mod flights;
mod hedge;
mod need;
mod outage;
mod peer;
mod progress;
mod reader;
mod replicas;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::limits::{CONTENT_REQUEST_ITEMS_MAX, TREE_CLOSURE_BYTES};
use monofs_model::{Error, Result};
use monofs_rpc::channel::ChannelPool;

use self::closures::Closures;
use self::flights::{FlightClaim, Flights, landed};
use self::hedge::Hedging;
use self::need::{ContentNeed, ContentRequest, absent_chunks};
use self::peer::PeerReader;
use self::progress::RequestProgress;
use self::reader::ReplicaReader;
pub use self::replicas::AddressChoice;
use self::replicas::{ContentPath, Replicas};
use crate::cache::Cache;
use crate::counters::Counters;
use crate::evidence::Marks;
use crate::repo::Repo;
use crate::shown::DirectoryKey;
use crate::spawner::Spawner;
use crate::times;
use crate::want::{ContentKey, Demand, Span};

/// Budget of a request for trees once the repository's whole closure has been asked for.
const TREE_MORE_BYTES: u64 = 1 << 20;
/// How long a caller that needs a key waits for another's request for it before asking too: that
/// request may be a long one that was made ahead of need.
const OVERTAKE_AFTER: Duration = Duration::from_millis(250);
/// How long a miss waits for the closure that is just streaming in.
const CLOSURE_WAIT: Duration = Duration::from_millis(60);
/// Tries of one caller: its own request, after having waited for another's.
const ROUNDS_MAX: usize = 4;

/// Where content comes from, and how long it may take.
#[derive(Debug, Clone)]
pub struct ContentSettings {
    /// `host:port` of the routers.
    pub routers: Vec<String>,
    /// Which address of a node to use.
    pub addresses: AddressChoice,
    /// Read through the routers only, never from nodes.
    pub via_router: bool,
    /// Deadline of one question.
    pub timeout: Duration,
}

/// The way to content that is not at hand. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    reader: Arc<ReplicaReader>,
    flights: Flights,
    /// What is fetched unasked is marked once it is claimed, so before it can be read.
    marks: Arc<Marks>,
    spawner: Spawner,
    /// One question for times at a time: they are few, and a row answers many.
    asking_times: Arc<tokio::sync::Mutex<()>>,
}

impl Content {
    /// Content from the members of the view that [`Content::replicas`] will be told of.
    pub fn new(
        settings: ContentSettings,
        cache: Arc<Cache>,
        counters: Arc<Counters>,
        marks: Arc<Marks>,
        spawner: Spawner,
    ) -> Self {
        let path = if settings.via_router {
            ContentPath::RoutersOnly
        } else {
            ContentPath::NodesFirst
        };
        // One for all requests: what is known about peers and delays is shared.
        let peer = PeerReader {
            cache,
            counters,
            replicas: Arc::new(Replicas::new(settings.routers, settings.addresses, path)),
            channels: ChannelPool::default(),
            timeout: settings.timeout,
            hedging: Hedging::default(),
            closures: Closures::default(),
        };
        Self {
            reader: Arc::new(ReplicaReader::new(peer, spawner.clone())),
            flights: Flights::default(),
            marks,
            spawner,
            asking_times: Arc::default(),
        }
    }

    /// The peers that requests are sent to.
    pub fn replicas(&self) -> &Replicas {
        &self.reader.peer.replicas
    }

    /// The connections it uses.
    pub fn channels(&self) -> ChannelPool {
        self.reader.peer.channels.clone()
    }

    /// How many keys are being fetched.
    pub fn in_flight(&self) -> usize {
        self.flights.count()
    }

    /// Brings the record of a tree into the cache; the first time for a repository, all records
    /// below it too. Those of `ahead` are asked for in the same request and not waited for.
    pub async fn tree(
        &self,
        repo: &Arc<Repo>,
        tree: DirectoryKey,
        ahead: Vec<DirectoryKey>,
    ) -> Result<()> {
        self.await_closure(repo, &tree).await;
        let budget = if repo.first_touch() {
            TREE_CLOSURE_BYTES
        } else {
            TREE_MORE_BYTES
        };
        let need = ContentNeed::Trees {
            wanted: vec![tree],
            ahead,
            budget,
        };
        let result = self.obtain(repo, need).await;
        if result.is_err() {
            repo.touch_again();
        }
        result
    }

    /// Brings the records of these trees into the cache, and up to `budget` bytes of what is below
    /// them.
    pub async fn trees(
        &self,
        repo: &Arc<Repo>,
        trees: Vec<DirectoryKey>,
        budget: u64,
    ) -> Result<()> {
        for batch in trees.chunks(CONTENT_REQUEST_ITEMS_MAX) {
            let need = ContentNeed::Trees {
                wanted: batch.to_vec(),
                ahead: Vec::new(),
                budget,
            };
            self.obtain(repo, need).await?;
        }
        Ok(())
    }

    /// Learns when these generations of a repository were: from the cache, else from a router.
    pub async fn times(&self, repo: &Arc<Repo>, generations: &[u64]) -> Result<()> {
        let _asking = self.asking_times.lock().await;
        let peer = &self.reader.peer;
        let id = repo.storage_id();
        let (last, _) = repo.shown_times().last();
        for row in rows_of(generations) {
            if let Some(kept) = peer.cache.times(id, row) {
                repo.learn_times(|known| known.decode_row(kept, last));
            }
        }

        // Another caller may have asked for them, too.
        let is_unknown = |generation: &&u64| repo.time_of(**generation).is_none();
        let unknown: Vec<u64> = generations.iter().filter(is_unknown).copied().collect();
        let rows = rows_of(&unknown);
        if rows.is_empty() {
            return Ok(());
        }
        for told in peer.ask_times(id, &rows).await? {
            repo.learn_times(|known| known.learn_row(&told));
        }
        rows.iter().for_each(|row| self.keep_times(repo, *row));
        match unknown.iter().find(|generation| is_unknown(generation)) {
            None => Ok(()),
            Some(generation) => Err(Error::not_held(format!(
                "no router knows when generation {generation} of {} was",
                repo.path()
            ))),
        }
    }

    /// Keeps what is known of the times of a repository in one row.
    pub fn keep_times(&self, repo: &Repo, row: u64) {
        if let Some(kept) = repo.look_at_times(|known| known.encode_row(row)) {
            self.reader
                .peer
                .cache
                .put_times(repo.storage_id(), row, kept);
        }
    }

    /// Brings the chunks of `wanted` into the cache, and in the same request those of `ahead`,
    /// which are not waited for.
    pub async fn chunks(&self, repo: &Arc<Repo>, wanted: Span, ahead: Vec<Span>) -> Result<()> {
        self.obtain(repo, ContentNeed::Chunks { wanted, ahead })
            .await
    }

    /// Brings chunks into the cache that no reader waits for yet. Returns when they are there,
    /// unless others are fetching them, and whether anything had to be asked for.
    pub async fn ahead(&self, repo: &Arc<Repo>, spans: &[Span]) -> Result<bool> {
        let keys = spans.iter().flat_map(Span::keys);
        let mut claim = self.flights.claim(keys);
        let absent = absent_chunks(&self.reader.peer.cache, spans);
        claim.keep(&absent);
        let claimed: Vec<Span> = spans
            .iter()
            .filter(|span| span.keys().any(|key| claim.contains(&key)))
            .copied()
            .collect();
        if claimed.is_empty() {
            return Ok(false);
        }
        self.marks.mark(&claimed);
        let needed = absent.into_iter().filter(|key| claim.contains(key));
        let (progress, _) = RequestProgress::new(needed.collect(), claim);
        let request = ContentRequest::Chunks(claimed);
        self.reader
            .fetch(repo, &request, &progress, Demand::Ahead)
            .await?;
        Ok(true)
    }

    /// Brings what is wanted into the cache.
    ///
    /// In the first round, what others are fetching is waited for, for a while. If it has not come
    /// by then it is asked for here as well: their request may be a long one.
    async fn obtain(&self, repo: &Arc<Repo>, need: ContentNeed) -> Result<()> {
        for round in 0..ROUNDS_MAX {
            let (claim, missing) = self.claim_missing(&need);
            if missing.is_empty() {
                return Ok(());
            }
            let (mine, others): (Vec<ContentKey>, Vec<ContentKey>) =
                missing.iter().partition(|key| claim.contains(key));
            if round > 0 || others.is_empty() {
                self.request(repo, &need, missing, claim).await?;
                continue;
            }
            if mine.is_empty() {
                drop(claim);
            } else {
                self.request(repo, &need, mine, claim).await?;
            }
            self.await_others(&others).await;
        }

        // It arrived and may be gone again before it could be used.
        let absent = need.absent(&self.reader.peer.cache);
        if need.wanted().iter().any(|key| absent.contains(key)) {
            return Err(Error::full(
                "the client's cache is too small for what is being read; raise --max-cache-gb",
            ));
        }
        Ok(())
    }

    /// Claims what is needed, not at hand and not in flight; also returns all that is wanted and
    /// not at hand. That is looked up after the claim: else another's request could bring a key
    /// between the look and the claim.
    fn claim_missing(&self, need: &ContentNeed) -> (FlightClaim, Vec<ContentKey>) {
        let mut claim = need.claim(&self.flights);
        let absent = need.absent(&self.reader.peer.cache);
        claim.keep(&absent);
        let mut missing = need.wanted();
        missing.retain(|key| absent.contains(key));
        (claim, missing)
    }

    /// Waits a while for keys that others are fetching.
    async fn await_others(&self, keys: &[ContentKey]) {
        for key in keys {
            if let Some(landing) = self.flights.landing(key) {
                // In vain: the next round asks for it.
                let _ = tokio::time::timeout(OVERTAKE_AFTER, landed(landing)).await;
            }
        }
    }

    /// Asks for `keys` and waits for them. The request runs in a task of its own, which may go on
    /// after they have arrived.
    async fn request(
        &self,
        repo: &Arc<Repo>,
        need: &ContentNeed,
        keys: Vec<ContentKey>,
        claim: FlightClaim,
    ) -> Result<()> {
        let request = need.request(&keys, &claim);
        if let ContentRequest::Chunks(spans) = &request {
            // The first is what the caller waits for.
            self.marks.mark(&spans[1..]);
        }
        let needed: HashSet<ContentKey> = keys.into_iter().collect();
        let (progress, arrived) = RequestProgress::new(needed, claim);
        let reader = self.reader.clone();
        let repo = repo.clone();
        self.spawner.spawn(async move {
            let result = reader
                .fetch(&repo, &request, &progress, Demand::Awaited)
                .await;
            progress.finish(result);
        });
        arrived
            .await
            .unwrap_or_else(|_| Err(Error::unavailable("the request was given up")))
    }

    /// If the closure of this repository is streaming in, gives the tree a moment to arrive with
    /// it.
    async fn await_closure(&self, repo: &Repo, tree: &DirectoryKey) {
        let peer = &self.reader.peer;
        let Some(mut progress) = peer.closures.progress(repo.storage_id()) else {
            return;
        };
        // In vain: the tree is asked for on its own.
        let _ = tokio::time::timeout(CLOSURE_WAIT, async {
            while !peer.cache.has_directory(tree) && progress.changed().await.is_ok() {}
        })
        .await;
    }
}

/// The rows of these generations, each once.
fn rows_of(generations: &[u64]) -> Vec<u64> {
    let rows: std::collections::BTreeSet<u64> = generations
        .iter()
        .map(|generation| generation / times::ROW)
        .collect();
    rows.into_iter().collect()
}
