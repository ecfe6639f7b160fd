//! Generation trees of held commits: worked out once, from the snapshot before and the difference,
//! and by every other replica copied and verified.
//!
//! What a node lacks of the snapshot before (it may never have held it) comes from peers; fetchers
//! know no generations.
//!
//! Invariant: generations are noted for a commit only when all their nodes are here.
//!
//! Callers: `adopt`, `service::node`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use monofs_model::generations::{self, GenerationBase, GenerationParts, UpdateOutcome};
use monofs_model::limits::{CONTENT_REQUEST_ITEMS_MAX, TREE_DEPTH_MAX};
use monofs_model::{
    Error, ErrorKind, GenerationNode, GenerationRef, Oid, Result, StorageId, TreeRecord,
};
use monofs_proto::{convert, v1};
use monofs_store::repo::RepoStore;
use parking_lot::Mutex;

use crate::blocking::blocking;
use crate::stores::NodeStores;
use crate::upstream::servers::{ServerAttempt, UpstreamKind, UpstreamServer, Upstreams};

/// Makes generation trees, and takes those that peers have.
pub(crate) struct Generations {
    stores: Arc<NodeStores>,
    upstreams: Arc<Upstreams>,
}

/// A checked `MakeGenerationsRequest`.
struct MakeRequest {
    id: StorageId,
    commit: Oid,
    generation: u64,
    base: GenerationBase,
    peers: Vec<UpstreamServer>,
}

impl MakeRequest {
    fn parse(request: v1::MakeGenerationsRequest) -> Result<Self> {
        let base_generations = convert::generations(&request.base_generations)?;
        Ok(Self {
            id: StorageId::new(&request.storage_id)?,
            commit: Oid::from_bytes(&request.commit)?,
            generation: request.generation,
            base: GenerationBase {
                root: Oid::from_bytes(&request.base_root)?,
                generations: base_generations
                    .ok_or_else(|| Error::invalid("make generations: no base"))?,
            },
            peers: request
                .peers
                .into_iter()
                .map(UpstreamServer::peer)
                .collect(),
        })
    }
}

impl Generations {
    /// For the repositories in `stores`; what is lacking comes through `upstreams`.
    pub fn new(stores: Arc<NodeStores>, upstreams: Arc<Upstreams>) -> Self {
        Self { stores, upstreams }
    }

    /// Works out the generations of a held commit from those of the snapshot before it. Errors:
    /// `NotHeld` when the commit is not held, or no peer has what is lacking of the one before.
    pub async fn make(
        &self,
        request: v1::MakeGenerationsRequest,
    ) -> Result<v1::MakeGenerationsResponse> {
        let request = MakeRequest::parse(request)?;
        let _writer = self.stores.lock_writer(&request.id).await;
        let store = self.stores.get(&request.id).await?;
        let looked = store.clone();
        let commit = request.commit;
        let snapshot = blocking(move || looked.snapshot(&commit)).await?;
        let root = snapshot
            .ok_or_else(|| Error::not_held(format!("commit {commit} is not held here")))?
            .root;

        // Every round learns what is lacking one level further down.
        let fetched: Arc<FetchedParts> = Arc::default();
        for _ in 0..TREE_DEPTH_MAX {
            let parts = PartsAtHand {
                store: store.clone(),
                fetched: fetched.clone(),
            };
            let MakeRequest {
                base, generation, ..
            } = request;
            let outcome =
                blocking(move || generations::update(base, root, generation, &parts)).await?;
            match outcome {
                UpdateOutcome::Made(made) => {
                    let response = v1::MakeGenerationsResponse {
                        generations: convert::generation_bytes(&made.root),
                        nodes_made: made.nodes.len() as u64,
                        bytes_made: made.nodes.iter().map(|(_, node)| node.len() as u64).sum(),
                    };
                    self.keep(&store, &request, &fetched, made).await?;
                    return Ok(response);
                }
                UpdateOutcome::Missing { records, nodes } => {
                    let wanted = WantedParts { records, nodes };
                    self.fetch(&request.id, &request.peers, wanted, &fetched)
                        .await?;
                }
            }
        }
        Err(Error::invalid(format!(
            "directories nest deeper than {TREE_DEPTH_MAX}"
        )))
    }

    /// Stores what was made, with the nodes of the snapshot before that it goes on using.
    async fn keep(
        &self,
        store: &Arc<RepoStore>,
        request: &MakeRequest,
        fetched: &Arc<FetchedParts>,
        made: generations::GenerationUpdate,
    ) -> Result<()> {
        let mut nodes = made.nodes;
        nodes.extend(fetched.nodes.lock().drain());
        let putting = store.clone();
        blocking(move || putting.put_generation_nodes(&nodes)).await?;
        self.copy_missing(store, &request.id, &made.root, &request.peers)
            .await?;
        let store = store.clone();
        let commit = request.commit;
        let generation = request.generation;
        blocking(move || store.put_generations(&commit, generation, &made.root)).await
    }

    /// Takes the generation tree of a held commit from the peers among `servers`, if it has nodes.
    /// Errors: `NotHeld` when no peer has all of it.
    pub async fn take(
        &self,
        store: &Arc<RepoStore>,
        id: &StorageId,
        held: HeldGenerations,
        servers: &[UpstreamServer],
    ) -> Result<()> {
        if held.generations.node().is_none() {
            return Ok(());
        }
        self.copy_missing(store, id, &held.generations, servers)
            .await?;
        let store = store.clone();
        let HeldGenerations {
            commit,
            shown_in,
            generations,
        } = held;
        blocking(move || store.put_generations(&commit, shown_in, &generations)).await
    }

    async fn copy_missing(
        &self,
        store: &Arc<RepoStore>,
        id: &StorageId,
        root: &GenerationRef,
        servers: &[UpstreamServer],
    ) -> Result<()> {
        for _ in 0..TREE_DEPTH_MAX {
            let looked = store.clone();
            let root = *root;
            let missing = blocking(move || looked.read()?.missing_generation_nodes(&root)).await?;
            if missing.is_empty() {
                return Ok(());
            }
            let fetched: Arc<FetchedParts> = Arc::default();
            let wanted = WantedParts {
                records: Vec::new(),
                nodes: missing,
            };
            self.fetch(id, servers, wanted, &fetched).await?;
            let nodes: Vec<(Oid, Bytes)> = fetched.nodes.lock().drain().collect();
            let store = store.clone();
            blocking(move || store.put_generation_nodes(&nodes)).await?;
        }
        Err(Error::corrupt("a generation tree does not end"))
    }

    /// Takes all that is wanted from the first peer that has it. Errors: `NotHeld` when each of them
    /// says that it has not, or there are none.
    async fn fetch(
        &self,
        id: &StorageId,
        servers: &[UpstreamServer],
        wanted: WantedParts,
        fetched: &FetchedParts,
    ) -> Result<()> {
        let mut failure = Error::not_held(format!("no peer to take generations of {id} from"));
        let is_peer = |server: &&UpstreamServer| server.kind == UpstreamKind::Peer;
        let peers: Vec<UpstreamServer> = servers.iter().filter(is_peer).cloned().collect();
        for attempt in ServerAttempt::each(&peers) {
            let Err(error) = self.fetch_from(attempt, id, &wanted, fetched).await else {
                return Ok(());
            };
            // One that could not be asked may have it.
            if error.kind != ErrorKind::NotHeld || failure.kind == ErrorKind::NotHeld {
                failure = error.context(format!("generations from {}", attempt.server.address));
            }
        }
        Err(failure)
    }

    async fn fetch_from(
        &self,
        attempt: ServerAttempt<'_>,
        id: &StorageId,
        wanted: &WantedParts,
        fetched: &FetchedParts,
    ) -> Result<()> {
        // Records and nodes are asked for side by side, as if they were of one directory each.
        let items = wanted.records.len().max(wanted.nodes.len());
        for from in (0..items).step_by(CONTENT_REQUEST_ITEMS_MAX) {
            let records = part(&wanted.records, from);
            let nodes = part(&wanted.nodes, from);
            let request = v1::GetTreesRequest {
                storage_id: id.to_string(),
                oids: records.iter().map(convert::oid_bytes).collect(),
                generations: nodes.iter().map(convert::oid_bytes).collect(),
                byte_budget: match records {
                    [] => u64::MAX,
                    _ => 0,
                },
                held_only: true,
                ..Default::default()
            };
            let context = self.upstreams.context();
            let channel = self.upstreams.channel(attempt.server)?;
            let call = monofs_rpc::content::get_trees(channel, &context, request);
            let mut answers = self.upstreams.wait(attempt, call).await?;
            while let Some(answer) = self
                .upstreams
                .wait(attempt, async { answers.next().await.transpose() })
                .await?
            {
                fetched.take(answer)?;
            }
        }
        fetched.check_has(wanted)
    }
}

/// The generations of a commit that is held.
#[derive(Clone, Copy)]
pub(crate) struct HeldGenerations {
    pub commit: Oid,
    /// The generation that shows it.
    pub shown_in: u64,
    pub generations: GenerationRef,
}

/// Records and nodes that are lacking.
struct WantedParts {
    records: Vec<Oid>,
    nodes: Vec<Oid>,
}

fn part(ids: &[Oid], from: usize) -> &[Oid] {
    let rest = ids.get(from..).unwrap_or_default();
    &rest[..rest.len().min(CONTENT_REQUEST_ITEMS_MAX)]
}

/// What peers gave, verified.
#[derive(Default)]
struct FetchedParts {
    records: Mutex<HashMap<Oid, TreeRecord>>,
    nodes: Mutex<HashMap<Oid, Bytes>>,
}

impl FetchedParts {
    fn take(&self, answer: v1::GetTreesResponse) -> Result<()> {
        for tree in answer.trees {
            let oid = Oid::from_bytes(&tree.oid)?;
            let record = TreeRecord::parse_verified(tree.record, &oid)?;
            self.records.lock().insert(oid, record);
        }
        for node in answer.generations {
            let id = Oid::from_bytes(&node.id)?;
            GenerationNode::decode_verified(&node.node, &id)?;
            self.nodes.lock().insert(id, node.node);
        }
        Ok(())
    }

    fn check_has(&self, wanted: &WantedParts) -> Result<()> {
        let records = self.records.lock();
        let nodes = self.nodes.lock();
        let lacks_record = wanted
            .records
            .iter()
            .find(|oid| !records.contains_key(*oid));
        let lacks_node = wanted.nodes.iter().find(|id| !nodes.contains_key(*id));
        match lacks_record.or(lacks_node) {
            None => Ok(()),
            Some(id) => Err(Error::not_held(format!("it does not hold {id}"))),
        }
    }
}

/// The store, and beside it what was fetched for this one time.
struct PartsAtHand {
    store: Arc<RepoStore>,
    fetched: Arc<FetchedParts>,
}

impl GenerationParts for PartsAtHand {
    fn record(&self, tree: &Oid) -> Result<Option<TreeRecord>> {
        if let Some(record) = self.fetched.records.lock().get(tree) {
            return Ok(Some(record.clone()));
        }
        let reader = self.store.read()?;
        let bytes = reader.tree(tree)?.map(Bytes::copy_from_slice);
        bytes.map(TreeRecord::parse).transpose()
    }

    fn node(&self, id: &Oid) -> Result<Option<GenerationNode>> {
        if let Some(node) = self.fetched.nodes.lock().get(id) {
            return GenerationNode::decode(node).map(Some);
        }
        let reader = self.store.read()?;
        reader
            .generation_node(id)?
            .map(GenerationNode::decode)
            .transpose()
    }
}
