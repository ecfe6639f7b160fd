//! A router that answers from memory. Repositories whose path or source holds a certain word, and
//! jobs with a certain id, fail in a certain way.

mod admin;
mod answers;
mod content;
mod operations;
mod tree;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use monofs_model::{Error, Oid};
use monofs_proto::v1;
use monofs_rpc::to_status;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Response, Status};

use operations::Operations;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The path of the repository that has a tree.
pub const REPO: &str = "github.com/org/repo";
/// Bytes of the large file in it: three chunks.
pub const LARGE: usize = (2 << 20) + 77;

/// The router; stopped when dropped.
pub struct Fake {
    address: SocketAddr,
    world: Arc<World>,
    _runtime: tokio::runtime::Runtime,
}

/// What it knows and what was done to it.
#[derive(Default)]
pub struct World {
    repositories: Mutex<Vec<v1::Repository>>,
    pub ingests: Mutex<Vec<v1::IngestRequest>>,
    problems: Vec<String>,
    trees: HashMap<Oid, Bytes>,
    blobs: HashMap<Oid, Bytes>,
    operations: Mutex<Operations>,
    /// It has lost its state store: nothing can be changed.
    unable: bool,
    /// It has many more nodes.
    crowded: bool,
    /// How often its status was asked for: counters of members grow with it.
    asked: AtomicU64,
}

impl Fake {
    /// A router with repositories `github.com/org/repo` (with a tree), `gitlab.com/a/b/c` and
    /// `gitlab.com/new` (still being ingested).
    pub fn start() -> Self {
        Self::start_with(World::filled())
    }

    /// A router with nothing.
    pub fn start_empty() -> Self {
        Self::start_with(World::default())
    }

    /// A router that has lost its state store.
    pub fn start_unable() -> Self {
        Self::start_with(World {
            unable: true,
            ..World::filled()
        })
    }

    /// A router of a hundred nodes that are well, and thirty that are down.
    pub fn start_crowded() -> Self {
        let down = |number| {
            format!(
                "down{number:03} is down: start it, or if it will not come back `monofs-admin \
                 remove-member --member=down{number:03}`"
            )
        };
        let problems = World::filled()
            .problems
            .into_iter()
            .chain((0..30).map(down))
            .collect();
        Self::start_with(World {
            crowded: true,
            problems,
            ..World::filled()
        })
    }

    fn start_with(world: World) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let world = Arc::new(world);
        let routes = Routes::new(v1::admin_server::AdminServer::from_arc(Arc::clone(&world)))
            .add_service(v1::catalog_server::CatalogServer::from_arc(Arc::clone(
                &world,
            )))
            .add_service(v1::content_server::ContentServer::from_arc(Arc::clone(
                &world,
            )));
        let address = runtime.block_on(async {
            let listener = monofs_rpc::server::bind("127.0.0.1:0").await.unwrap();
            monofs_rpc::serve(listener, routes, CancellationToken::new())
                .unwrap()
                .address()
        });
        Self {
            address,
            world,
            _runtime: runtime,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn world(&self) -> &World {
        &self.world
    }
}

fn ready(path: &str) -> v1::Repository {
    v1::Repository {
        path: path.into(),
        storage_id: "0123456789abcdef0123456789abcdef".into(),
        source: format!("https://{path}.git"),
        ref_name: "main".into(),
        state: v1::RepositoryState::Ready.into(),
        generation: 3,
        holders: vec!["node1".into(), "node2".into()],
        content: v1::ContentMode::Eager.into(),
        consistency: v1::Consistency::Eventual.into(),
        created_at: 1_700_000_000,
        refreshed_at: 1_700_000_060,
        snapshot: Some(v1::Snapshot {
            commit: Bytes::from(vec![0xab; 20]),
            root: Bytes::from(vec![0xcd; 20]),
            commit_time: 1_600_000_000,
            trees: 2,
            blobs: 5,
            bytes: 4096,
            submodules: Vec::new(),
            generations: Bytes::new(),
        }),
        ..Default::default()
    }
}

impl World {
    fn able(&self) -> Result<(), Status> {
        if self.unable {
            Err(to_status(Error::unavailable(
                "the state store cannot be reached",
            )))
        } else {
            Ok(())
        }
    }

    fn find(&self, path: &str) -> Result<v1::Repository, Status> {
        let repositories = self.repositories.lock();
        let found = repositories
            .iter()
            .find(|repository| repository.path == path)
            .cloned();
        found.ok_or_else(|| to_status(Error::not_found(format!("no repository at {path}"))))
    }
}

fn streamed<T: Send + 'static>(items: Vec<Result<T, Status>>) -> Response<Answers<T>> {
    Response::new(stream::iter(items).boxed())
}
