//! The node role: keeps repositories in LMDB and serves their directory records and contents.
//!
//! Owns: which commits this node holds, and the proof that they are what their ids say. Invariants:
//! - nothing enters a store before it was verified against its oid (`adopt` for records, `upstream`
//!   for contents);
//! - a snapshot row is written last, so "held" always means the whole closure of directory records;
//! - a node never asks another server on behalf of a request that says `held_only`, so replicas
//!   cannot ask in circles.
//!
//! A read goes `service::content` -> store, and on a miss `upstream` -> peer or fetcher -> store.
//! An ingest goes `service::node` -> `adopt` -> store, then `hydrate` in the background. A copy
//! that moves takes what the leaving one holds: `service::node` -> `cover` -> peer.

mod adopt;
mod blobs;
mod config;
mod cover;
mod flights;
mod hydrate;
mod operations;
mod pace;
mod progress;
mod service;
mod state;
mod suspects;
mod trees;
mod turns;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::view::Role;
use monofs_model::{ClusterView, Member, MemberState, Result};
use monofs_proto::v1::content_server::ContentServer;
use monofs_proto::v1::node_server::NodeServer;
use monofs_rpc::{ChannelPool, Running};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;
use state::NodeState;

/// A node that runs.
pub struct RunningNode {
    server: Running,
    state: Arc<NodeState>,
    stop: CancellationToken,
}

impl RunningNode {
    /// Where it serves gRPC.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Serves `/health`, `/ready` and `/metrics` on `listener`; returns where.
    pub fn serve_http(&self, listener: TcpListener) -> Result<std::net::SocketAddr> {
        monofs_rpc::operations::serve(listener, self.state.clone(), self.stop.child_token())
    }

    /// Finishes what runs, for `limit` at most, and closes the stores.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.cancel();
        self.server.shutdown(limit).await;
        self.state.tasks.close();
        if tokio::time::timeout(limit, self.state.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.state.tasks.len(),
                "work in the background did not end in time"
            );
        }
    }
}

/// Starts a node on `listener`. Errors: the database directory cannot be used.
pub async fn spawn(config: Config, listener: TcpListener) -> Result<RunningNode> {
    let stop = CancellationToken::new();
    let address = config.advertised(&listener)?;
    let state = Arc::new(NodeState::open(config, stop.clone()).await?);
    let view = join_cluster(&state, address, stop.clone());
    state.follow(view, stop.clone());
    hydrate::resume(&state).await?;
    let content = ContentServer::new(service::ContentService::new(state.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let node = NodeServer::new(service::NodeService::new(state.clone()));
    let routes = Routes::new(content).add_service(node);
    let server = monofs_rpc::server::serve_counted(
        listener,
        routes,
        state.requests.clone(),
        stop.child_token(),
    )?;
    server.set_serving(true).await;
    tracing::info!(node = %state.config.node_id, address = %server.address(), db = %state.config.db_path.display(), "node serves");
    Ok(RunningNode {
        server,
        state,
        stop,
    })
}

fn join_cluster(
    state: &Arc<NodeState>,
    address: String,
    stop: CancellationToken,
) -> watch::Receiver<ClusterView> {
    if state.config.routers.is_empty() {
        return watch::channel(ClusterView::default()).1;
    }
    let announced = state.clone();
    let member = move || Member {
        id: announced.config.node_id.clone(),
        role: Role::Node,
        address: address.clone(),
        external_address: announced.config.external_address.clone(),
        weight: announced.config.weight,
        zone: announced.config.zone.clone(),
        state: MemberState::Active,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity_bytes: announced.config.capacity_bytes,
        used_bytes: announced.disk_used(),
        incarnation: announced.incarnation,
        share_percent: 100,
        failed_over: false,
    };
    monofs_rpc::register::register(
        ChannelPool::clone(&state.channels),
        state.config.routers.clone(),
        member,
        stop,
    )
}
