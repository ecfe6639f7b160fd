//! The members of the cluster, and the ways to call them: with deadlines and translated errors. No
//! decisions here.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use monofs_control::state::SharedState;
use monofs_model::Error;
use monofs_model::generations::GenerationBase;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{
    ClusterView, DisplayPath, ErrorKind, GenerationRef, Member, Oid, RefName, Repository, Result,
    Snapshot, SourceUrl, StorageId,
};
use monofs_proto::v1::GenerationTreeState;
use monofs_proto::v1::fetcher_client::FetcherClient;
use monofs_proto::v1::node_client::NodeClient;
use monofs_proto::{convert, v1};
use monofs_rpc::content::guarded;
use monofs_rpc::{Channel, ChannelPool, Context, from_status, while_heard, within};

use crate::generations_lost::LostGenerations;
use crate::hosts::PausedHosts;
use crate::membership::members::Members;

/// Questions of a second each that a silent member may leave unanswered: an ingest has no other
/// node to turn to, so a machine that is busy must not be taken for one that is gone.
const UNHEARD_MAX: u32 = 3;

/// Where a commit of a repository comes from.
pub fn origin(source: &SourceUrl, ref_name: &RefName, commit: &Oid) -> v1::Origin {
    v1::Origin {
        source: source.to_string(),
        ref_name: ref_name.as_str().to_owned(),
        commit: convert::oid_bytes(commit),
    }
}

/// What this router tells members of its catalogue.
pub struct OwnCatalog {
    pub shared: Arc<SharedState>,
    /// `host:port` of this router.
    pub router: String,
}

impl OwnCatalog {
    /// The catalogue as it is named now: a restored state store has another name.
    pub fn asker(&self) -> v1::CatalogAsker {
        v1::CatalogAsker {
            epoch: self.shared.epoch(),
            router: self.router.clone(),
        }
    }
}

/// What a node that adopted a snapshot has of the generation tree that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationTree {
    /// All of it, or it has no nodes.
    Held,
    /// Not all of it, and no holder has it.
    Lost,
}

/// The members, and the ways to call them.
pub struct Fleet {
    pub members: Members,
    pub own: OwnCatalog,
    pub channels: ChannelPool,
    /// Over which members are asked whether they are there, while they are silent.
    pub probes: ChannelPool,
    /// Deadline of one unary call to a member.
    pub call_timeout: Duration,
    /// Longest silence of a member that streams progress.
    pub progress_timeout: Duration,
    /// Remote hosts that fetchers were told to leave alone.
    pub hosts: PausedHosts,
    /// How often no holder could tell when names last changed.
    pub generations_lost: LostGenerations,
}

impl Fleet {
    /// The members that are known, and no connection yet.
    pub fn new(
        members: Members,
        own: OwnCatalog,
        call_timeout: Duration,
        progress_timeout: Duration,
    ) -> Self {
        let channels = ChannelPool::default();
        Self {
            members,
            own,
            probes: channels.apart(),
            channels,
            call_timeout,
            progress_timeout,
            hosts: PausedHosts::default(),
            generations_lost: LostGenerations::default(),
        }
    }

    /// A client of this node.
    pub fn node_client(&self, member: &Member) -> Result<NodeClient<Channel>> {
        // Listings and snapshots name thousands of submodules.
        Ok(NodeClient::new(self.channels.get(&member.address)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Waits for an answer of a member for as long as the member is there: one that is stopped or
    /// cut off is given up in three seconds, where its connection would need ten to notice. Errors:
    /// those of `answer`; `Unavailable` when the member is gone.
    pub async fn while_there<T>(
        &self,
        member: &Member,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        while_heard(&self.probes, &member.address, UNHEARD_MAX, answer).await
    }

    /// Which commit a ref is at upstream, asking fetchers in order of preference. Errors: none asks
    /// while the remote's host wants to be left alone; the error says for how long.
    pub async fn resolve_upstream(
        &self,
        id: &StorageId,
        source: &SourceUrl,
        ref_name: &RefName,
    ) -> Result<Oid> {
        let request = v1::ResolveRefRequest {
            storage_id: id.to_string(),
            source: source.to_string(),
            ref_name: ref_name.as_str().to_owned(),
        };
        // A commit's own id is known without a question to the host.
        let asks_host = ref_name.as_str().parse::<Oid>().is_err();
        if asks_host {
            self.hosts.check(source)?;
        }
        let view = self.members.view();
        let context = Context::new(self.progress_timeout);
        let mut failure = no_fetcher(&view);
        for fetcher in view.fetchers_for(id) {
            let mut client = FetcherClient::new(self.channels.get(&fetcher.address)?);
            let call = client.resolve(context.request(request.clone()));
            let answer = within(context.deadline, "resolve", async {
                call.await.map_err(from_status)
            });
            match self.while_there(fetcher, answer).await {
                Ok(answer) => {
                    if asks_host {
                        self.hosts.answered(source);
                    }
                    return Oid::from_bytes(&answer.into_inner().commit);
                }
                // What the remote said is the same for every fetcher.
                Err(error) if error.kind != ErrorKind::Unavailable || error.pause.is_some() => {
                    self.hosts.note(&error);
                    return Err(error);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Brings a commit into a fetcher's cache, reporting on the way.
    pub async fn fetch(
        &self,
        id: &StorageId,
        origin: &v1::Origin,
        mut progress: impl FnMut(v1::FetchProgress),
    ) -> Result<Snapshot> {
        let view = self.members.view();
        let mut failure = no_fetcher(&view);
        for fetcher in view.fetchers_for(id) {
            match self.fetch_from(fetcher, id, origin, &mut progress).await {
                Ok(snapshot) => return Ok(snapshot),
                // Another one would be told the same.
                Err(error) if error.pause.is_some() => {
                    self.hosts.note(&error);
                    return Err(error);
                }
                // Another one may be reached, or have room; what the remote said is the same for
                // all.
                Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Full) => {
                    tracing::warn!(fetcher = %fetcher.id, %error, "a fetcher cannot fetch; trying \
                     the next one");
                    failure = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    async fn fetch_from(
        &self,
        fetcher: &Member,
        id: &StorageId,
        origin: &v1::Origin,
        progress: &mut impl FnMut(v1::FetchProgress),
    ) -> Result<Snapshot> {
        // The call ends when the fetcher is silent for too long, or is found to be gone.
        let silence = self.progress_timeout;
        let request = v1::FetchRequest {
            storage_id: id.to_string(),
            origin: Some(origin.clone()),
        };
        let mut client = FetcherClient::new(self.channels.get(&fetcher.address)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let call = client.fetch(Context::new(silence).stream(request));
        let answer = within(silence, "fetch", async { call.await.map_err(from_status) });
        let answer = self.while_there(fetcher, answer).await?;

        // Messages are progress until one brings the snapshot.
        let mut messages = guarded(answer.into_inner(), silence, "fetch");
        while let Some(message) = self.while_there(fetcher, messages.try_next()).await? {
            if let Some(snapshot) = message.snapshot.clone() {
                return snapshot.try_into();
            }
            progress(message);
        }
        Err(Error::unavailable(format!(
            "fetcher {} ended without a snapshot",
            fetcher.id
        )))
    }

    /// Lets a node adopt a commit; the messages of the stream are its progress, the last one says
    /// `durable`.
    pub async fn adopt(
        &self,
        view: &ClusterView,
        node: &Member,
        entry: &Repository,
        snapshot: &Snapshot,
        bytes_per_second_max: u64,
    ) -> Result<impl Stream<Item = Result<v1::AdoptProgress>> + use<>> {
        // The holders hold the commit on show. They need not hold another one, so no peer is named
        // for it.
        let id = entry.storage_id();
        let held = entry.snapshot.as_ref() == Some(snapshot);
        let peers = view.readers(&id, if held { &entry.holders } else { &[] });
        let request = v1::AdoptRequest {
            storage_id: id.to_string(),
            path: entry.path.to_string(),
            origin: Some(origin(&entry.source, &entry.ref_name, &snapshot.commit)),
            snapshot: Some(v1::Snapshot::from(snapshot)),
            content: v1::ContentMode::from(entry.content).into(),
            peers: peers
                .iter()
                .filter(|peer| peer.id != node.id)
                .map(|peer| peer.address.clone())
                .collect(),
            fetchers: view
                .fetchers_for(&id)
                .iter()
                .map(|fetcher| fetcher.address.clone())
                .collect(),
            bytes_per_second_max,
            generation: if held { entry.generation } else { 0 },
        };

        // The stream begins when the node answers, and ends when it is silent for too long.
        let silence = self.progress_timeout;
        let mut client = self.node_client(node)?;
        let context = Context::new(silence);
        let call = client.adopt(context.stream(request));
        let answer = within(silence, "adopt", async { call.await.map_err(from_status) });
        let answer = self.while_there(node, answer).await?;
        Ok(guarded(answer.into_inner(), silence, "adopt"))
    }

    /// Lets a node adopt a commit and waits until it is durable. Contents that it takes are limited
    /// to `bytes_per_second_max` (0 = no limit). Tells what it has of the generation tree that the
    /// snapshot names. Errors: `Unavailable`, too, when the node knows no generations and another
    /// holder may have them.
    pub async fn adopt_and_wait(
        &self,
        node: &Member,
        entry: &Repository,
        snapshot: &Snapshot,
        bytes_per_second_max: u64,
        mut progress: impl FnMut(&v1::AdoptProgress),
    ) -> Result<GenerationTree> {
        // The stream tells the progress until the copy is durable.
        let view = self.members.view();
        let mut messages = self
            .adopt(&view, node, entry, snapshot, bytes_per_second_max)
            .await?;
        while let Some(message) = self.while_there(node, messages.try_next()).await? {
            progress(&message);
            if !message.durable {
                continue;
            }

            // The last message also decides about the generation tree. A node that says nothing
            // about it is of an older version, and its tree is lost only when no other reader could
            // have it.
            let has_nodes = snapshot.generations.is_some_and(|all| all.node().is_some());
            let mut others = view
                .readers(&entry.storage_id(), &entry.holders)
                .into_iter();
            return match message.generation_tree() {
                _ if !has_nodes => Ok(GenerationTree::Held),
                GenerationTreeState::Held => Ok(GenerationTree::Held),
                GenerationTreeState::Lost => Ok(GenerationTree::Lost),
                GenerationTreeState::Unspecified if others.all(|other| other.id == node.id) => {
                    Ok(GenerationTree::Lost)
                }
                GenerationTreeState::Unspecified => Err(Error::unavailable(format!(
                    "node {} is of a version that keeps no times; upgrade it",
                    node.id
                ))),
            };
        }
        Err(Error::unavailable(format!(
            "node {} ended without a durable copy",
            node.id
        )))
    }

    /// Lets a node that holds `snapshot` work out when its names last changed, as of the generation
    /// after that of `entry`, which shows `base`. Errors: the node's; `NotHeld` when no holder has
    /// the generations of `base`.
    pub async fn make_generations(
        &self,
        node: &Member,
        entry: &Repository,
        base: GenerationBase,
        snapshot: &Snapshot,
    ) -> Result<GenerationRef> {
        // The node may take the generations of the base from any other reader.
        let id = entry.storage_id();
        let view = self.members.view();
        let peers = view.readers(&id, &entry.holders);
        let context = Context::new(self.progress_timeout);
        let request = context.request(v1::MakeGenerationsRequest {
            storage_id: id.to_string(),
            commit: convert::oid_bytes(&snapshot.commit),
            generation: entry.generation + 1,
            base_root: convert::oid_bytes(&base.root),
            base_generations: convert::generation_bytes(&base.generations),
            peers: peers
                .iter()
                .filter(|peer| peer.id != node.id)
                .map(|peer| peer.address.clone())
                .collect(),
        });

        // One answer is waited for, within the deadline and while the node is there.
        let mut client = self.node_client(node)?;
        let answer = within(context.deadline, "make generations", async {
            client.make_generations(request).await.map_err(from_status)
        });
        let made = self.while_there(node, answer).await?.into_inner();
        convert::generations(&made.generations)?
            .ok_or_else(|| Error::internal(format!("node {} made no generations", node.id)))
    }

    /// Lets a node forget these commits of a repository; others that it holds stay. Invariant: the
    /// request names what may go, so a commit that this router does not know of is never dropped.
    pub async fn drop_commits(&self, node: &Member, id: &StorageId, commits: &[Oid]) -> Result<()> {
        // A node of before `keep_others` takes a request that names nothing for one of everything.
        if commits.is_empty() {
            return Ok(());
        }
        let context = Context::new(self.progress_timeout);
        let mut client = self.node_client(node)?;
        let request = context.request(v1::DropRequest {
            storage_id: id.to_string(),
            only_commits: commits.iter().map(convert::oid_bytes).collect(),
            keep_others: true,
        });
        let answer = within(context.deadline, "drop", async {
            client.drop(request).await.map_err(from_status)
        });
        self.while_there(node, answer).await.map(drop)
    }

    /// Returns when a node said that it holds the commit that `entry` shows. Errors: `NotHeld`;
    /// those of a node that cannot be asked.
    pub async fn confirm_held(&self, node: &Member, entry: &Repository) -> Result<()> {
        let snapshot = entry
            .snapshot
            .as_ref()
            .ok_or_else(|| Error::not_held(format!("{} shows no commit", entry.path)))?;
        self.confirm_commit(node, &entry.path, &snapshot.commit)
            .await
    }

    /// Returns when a node said that it holds this commit of the repository at `path`. Errors:
    /// `NotHeld`; those of a node that cannot be asked.
    pub async fn confirm_commit(
        &self,
        node: &Member,
        path: &DisplayPath,
        commit: &Oid,
    ) -> Result<()> {
        // No peers are named: the node is to answer for what it holds itself.
        let limit = self.call_timeout;
        let request = Context::new(limit).request(v1::CoverRequest {
            storage_id: path.storage_id().to_string(),
            commit: convert::oid_bytes(commit),
            ..Default::default()
        });
        let mut client = self.node_client(node)?;
        let confirmed = within(limit, "confirm a copy", async {
            let mut messages = client
                .cover(request)
                .await
                .map_err(from_status)?
                .into_inner();

            // The messages before are progress; a stream that ends without the confirmation
            // confirms nothing.
            while let Some(message) = messages.message().await.map_err(from_status)? {
                if message.covered {
                    return Ok(());
                }
            }
            Err(Error::unavailable(format!(
                "node {} does not say whether it holds {path}",
                node.id
            )))
        });
        self.while_there(node, confirmed).await
    }

    /// Lets a node see to it that it has these contents of a commit that it holds. Returns how many
    /// it lacks, which it pulls. Errors: `NotHeld`; why its last pull failed.
    pub async fn keep_contents(
        &self,
        node: &Member,
        id: &StorageId,
        commit: &Oid,
        contents: &[Oid],
    ) -> Result<u64> {
        let limit = self.call_timeout;
        let request = Context::new(limit).request(v1::KeepRequest {
            storage_id: id.to_string(),
            commit: convert::oid_bytes(commit),
            oids: contents.iter().map(convert::oid_bytes).collect(),
        });
        let mut client = self.node_client(node)?;
        let answer = within(limit, "keep contents", async {
            client.keep(request).await.map_err(from_status)
        });
        let answer = self.while_there(node, answer).await?.into_inner();
        if answer.missing > 0 && !answer.last_error.is_empty() {
            return Err(Error::unavailable(answer.last_error));
        }
        Ok(answer.missing)
    }

    /// What a node holds, in short.
    pub async fn held_commits(&self, node: &Member) -> Result<Vec<v1::HeldRepository>> {
        let limit = self.progress_timeout;
        let request = Context::new(limit).request(v1::ListHeldRequest::default());
        // An answer is as large as its node holds repositories.
        let mut client = self
            .node_client(node)?
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = within(limit, "list held", async {
            client.list_held(request).await.map_err(from_status)
        });
        Ok(self
            .while_there(node, answer)
            .await?
            .into_inner()
            .repositories)
    }

    /// What a node holds of one repository.
    pub async fn held(&self, node: &Member, id: &StorageId) -> Result<v1::HeldRepository> {
        let request = Context::new(self.call_timeout).request(v1::ListHeldRequest {
            storage_id: id.to_string(),
        });
        let mut client = self.node_client(node)?;
        let answer = within(self.call_timeout, "list held", async {
            client.list_held(request).await.map_err(from_status)
        });
        let held = self
            .while_there(node, answer)
            .await?
            .into_inner()
            .repositories
            .pop();
        held.ok_or_else(|| Error::not_held(format!("node {} does not hold {id}", node.id)))
    }
}

fn no_fetcher(view: &ClusterView) -> Error {
    let known = view.fetchers().count();
    Error::unavailable(format!(
        "no fetcher answers ({known} known); start one with `monofs-fetcher --router=...`"
    ))
}
