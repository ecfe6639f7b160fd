//! Builds a fetcher from its settings, runs it, and stops it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::view::Role;
use monofs_model::{Error, Member, MemberState, NodeId, Oid, Result, StorageId};
use monofs_proto::v1::content_server::ContentServer;
use monofs_proto::v1::fetcher_server::FetcherServer;
use monofs_rpc::metrics::Calls;
use monofs_rpc::{ChannelPool, operations, register, server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::cache::RepoCache;
use crate::config::Config;
use crate::flights::FetchFlights;
use crate::git::GitSource;
use crate::operations::FetcherOperations;
use crate::records::EncodedRecords;
use crate::service::FetcherService;
use crate::source::{FetchLimits, RemoteSource};

/// How often idle repositories are looked for, at most.
const EVICTION_PERIOD_MAX: Duration = Duration::from_secs(60);
/// How often idle repositories are looked for, at least this far apart.
const EVICTION_PERIOD_MIN: Duration = Duration::from_millis(100);

/// A fetcher that runs.
pub struct RunningFetcher {
    server: server::RunningServer,
    flights: Arc<FetchFlights>,
    operated: Arc<FetcherOperations>,
    stop: CancellationToken,
}

impl RunningFetcher {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Fetches under way.
    pub fn fetches_running(&self) -> usize {
        self.flights.running()
    }

    /// Removes what the cache holds of repositories that are idle or too much, now. Returns how
    /// many went.
    pub fn evict(&self, age: Duration) -> usize {
        self.flights.cache.evict(Some(age), None)
    }

    /// Whether `commit` of the repository is cached.
    pub fn holds(&self, id: &StorageId, commit: &Oid) -> bool {
        self.flights.cache.holds(id, commit)
    }

    /// Serves `/health`, `/ready` and `/metrics` on `listener`; returns where.
    pub fn serve_http(&self, listener: TcpListener) -> Result<SocketAddr> {
        operations::serve(listener, self.operated.clone(), self.stop.child_token())
    }

    /// Waits until the server ends by itself.
    pub async fn ended(&mut self) {
        self.server.ended().await;
    }

    /// Stops accepting, lets requests end for `limit`, then stops the fetches that are left.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.cancel();
        self.server.shutdown(limit).await;
        self.flights.end(limit).await;
        self.flights.cache.close();
    }
}

/// Starts a fetcher on `listener`.
pub async fn spawn(config: Config, listener: TcpListener) -> Result<RunningFetcher> {
    let source = Arc::new(GitSource::new(
        config.credentials.clone(),
        config.local_files(),
    ));
    spawn_with(config, listener, source).await
}

/// Starts a fetcher whose repositories come from `source`.
pub async fn spawn_with(
    config: Config,
    listener: TcpListener,
    source: Arc<dyn RemoteSource>,
) -> Result<RunningFetcher> {
    // What is cached is taken over before anything is served.
    config.check()?;
    let dir = config.cache_dir.clone();
    let bytes_max = config.cache_bytes_max;
    let opened = tokio::task::spawn_blocking(move || RepoCache::open(&dir, bytes_max));
    let cache = Arc::new(
        opened
            .await
            .map_err(|e| Error::internal(format!("open the cache: {e}")))??,
    );
    let records = Arc::new(EncodedRecords::new(config.record_cache_bytes));
    let limits = FetchLimits {
        connect_timeout: config.connect_timeout,
        idle_timeout: config.idle_timeout,
        object_bytes_max: config.object_bytes_max,
        bytes_max: config.cache_bytes_max,
    };
    let flights = FetchFlights::new(source, cache.clone(), records, config.fetch_workers, limits);
    // Both services answer from the same flights.
    let service = FetcherService::new(&config.fetcher_id, flights.clone());
    let routes = Routes::new(
        FetcherServer::new(service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
    )
    .add_service(
        ContentServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX),
    );
    // The server runs, then routers hear of it.
    let stop = CancellationToken::new();
    let requests = Arc::<Calls>::default();
    let routers = ChannelPool::default();
    let operated = FetcherOperations {
        flights: flights.clone(),
        requests: requests.clone(),
        calls: routers.calls().clone(),
    };
    let server = server::serve_counted(listener, routes, requests, stop.child_token())?;
    server.announce_ready().await;
    tokio::spawn(evict_idle(
        cache.clone(),
        config.cache_age,
        stop.child_token(),
    ));
    announce(&config, server.address(), cache, routers, &stop)?;
    tracing::info!(
        address = %server.address(),
        cache_dir = %config.cache_dir.display(),
        "fetcher ready"
    );
    Ok(RunningFetcher {
        server,
        flights,
        operated: Arc::new(operated),
        stop,
    })
}

async fn evict_idle(cache: Arc<RepoCache>, age: Duration, stop: CancellationToken) {
    let period = (age / 4).clamp(EVICTION_PERIOD_MIN, EVICTION_PERIOD_MAX);
    while stop
        .run_until_cancelled(tokio::time::sleep(period))
        .await
        .is_some()
    {
        let cache = cache.clone();
        // Removing files would hold up the other tasks of this thread.
        let _ = tokio::task::spawn_blocking(move || cache.evict(Some(age), None)).await;
    }
}

/// Registers with the routers, if there are any.
fn announce(
    config: &Config,
    listening: SocketAddr,
    cache: Arc<RepoCache>,
    routers: ChannelPool,
    stop: &CancellationToken,
) -> Result<()> {
    if config.routers.is_empty() {
        return Ok(());
    }
    // Each heartbeat says how full the cache is.
    let id = NodeId::new(&config.fetcher_id)?;
    let address = advertised(config, listening);
    let external_address = config.external_addr.clone();
    let member = move || Member {
        id: id.clone(),
        role: Role::Fetcher,
        address: address.clone(),
        external_address: external_address.clone(),
        weight: 1.0,
        zone: String::new(),
        state: MemberState::Active,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity_bytes: cache.bytes_max(),
        used_bytes: cache.disk_bytes(),
        incarnation: 0,
        share_percent: 100,
        failed_over: false,
    };
    register::register(routers, config.routers.clone(), member, stop.child_token());
    Ok(())
}

/// The address to announce.
fn advertised(config: &Config, listening: SocketAddr) -> String {
    if config.advertise.is_empty() {
        monofs_rpc::server::announced(listening)
    } else {
        config.advertise.clone()
    }
}
