//! A mount from its checks to its end.
//!
//! Order of the start: the mount point is looked at, the cache opened, the catalogue loaded (from a
//! router, or from the copy in the cache), and only then the kernel asked to mount; requests are
//! answered from the moment the kernel can be told of changes. Order of the end: the kernel lets go
//! of the mount (by force, if it is busy), then the tasks end, then the cache is closed.

pub mod context;
mod follow;
pub mod point;
mod readahead;
mod session;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use monofs_content::cache::Cache;
use monofs_content::content::{Content, ContentSettings};
use monofs_content::counters::Counters;
use monofs_content::evidence::Marks;
use monofs_content::spawner::{Spawner, blocking};
use monofs_model::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::context::{FileOwner, MountContext};
use self::follow::{FollowParts, follow};
use crate::catalog::RouterLink;
use crate::changes::ChangeLog;
use crate::config::Config;
use crate::fs::Fs;
use crate::fs::control::DocumentName;
use crate::memory;
use crate::prefetch::{Prefetch, PrefetchMode};
use crate::status::{Status, StatusSource};

/// How long the end of a mount waits for the kernel to let go of it.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// A mounted tree. [`Mounted::unmount`] ends it; dropping it unmounts too, without waiting.
pub struct Mounted {
    mount: PathBuf,
    context: Arc<MountContext>,
    source: Arc<StatusSource>,
    stop: CancellationToken,
    session: Option<JoinHandle<std::io::Result<()>>>,
    unmounter: Option<fuser::SessionUnmounter>,
    ended: CancellationToken,
}

/// Mounts as `config` says and returns when the tree can be used. Errors: `Invalid` and `Refused`
/// for a wrong mount point or setting, `Unavailable` when no router answers and there is no copy of
/// the catalogue to start from.
pub async fn mount(config: Config) -> Result<Mounted> {
    // The checks come before anything is started.
    config.check()?;
    let path = config.mount.clone();
    let mount = blocking(move || point::prepare(&path)).await??;
    let counters = Arc::new(Counters::default());
    let cache = open_cache(&config, counters.clone()).await?;

    // The parts of the mount.
    let link = Arc::new(RouterLink::default());
    let source = StatusSource::new(mount.display().to_string(), link.clone());
    let stop = CancellationToken::new();
    let spawner = Spawner::new(stop.clone());
    let context = build(&config, &source, cache, counters, spawner);
    source.attach(&context);

    // Something to show, and then the kernel that shows it.
    let invalidator = Arc::new(OnceLock::new());
    let parts = FollowParts {
        context: context.clone(),
        source: source.clone(),
        link,
        invalidator: invalidator.clone(),
        stop: stop.clone(),
    };
    let started = match follow(&config, &mount, parts).await {
        Ok(()) => session::start(&config, &mount, &context, &invalidator).await,
        Err(error) => Err(error),
    };
    let session = match started {
        Ok(session) => session,
        Err(error) => {
            stop.cancel();
            close(context).await;
            return Err(error);
        }
    };

    // The attributes of the mount point are asked of us, so not on a thread that must answer.
    let at = mount.clone();
    let _ = blocking(move || readahead::widen(&at)).await;
    memory::look_after(&config.cache_dir, &context.spawner);
    tracing::info!(mount = %mount.display(), "mounted");
    Ok(Mounted {
        mount,
        context,
        source,
        stop,
        session: Some(session.thread),
        unmounter: Some(session.unmounter),
        ended: session.ended,
    })
}

async fn open_cache(config: &Config, counters: Arc<Counters>) -> Result<Arc<Cache>> {
    let dir = config.cache_dir.clone();
    let max_bytes = config.max_cache_bytes;
    let keep = config.keep_cache;
    blocking(move || {
        std::fs::create_dir_all(&dir).map_err(|e| {
            Error::refused(format!(
                "cache directory {}: {e}; choose another with --cache",
                dir.display()
            ))
        })?;
        if !keep {
            monofs_store::cache::wipe(&dir)?;
        }
        Cache::open(&dir, max_bytes, counters)
    })
    .await?
}

/// Puts the parts of a mount together.
fn build(
    config: &Config,
    source: &Arc<StatusSource>,
    cache: Arc<Cache>,
    counters: Arc<Counters>,
    spawner: Spawner,
) -> Arc<MountContext> {
    let marks = Marks::new(counters.clone());
    let settings = ContentSettings {
        routers: config.routers.clone(),
        addresses: config.addresses,
        via_router: config.via_router,
        timeout: config.rpc_timeout,
    };
    let content = Content::new(
        settings,
        cache.clone(),
        counters.clone(),
        marks.clone(),
        spawner.clone(),
    );
    // The file system serves the status of the mount that it is a part of.
    let document_source = source.clone();
    let changes = Arc::new(ChangeLog::default());
    let told = changes.clone();
    let documents = Box::new(move |name| match name {
        DocumentName::Status => document_source.document(),
        DocumentName::Changes(position) => told.document(position),
    });
    let fs = Arc::new(Fs::new(cache, marks, documents, unix_seconds()));
    let mode = if config.prefetch {
        PrefetchMode::On
    } else {
        PrefetchMode::Off
    };
    Arc::new(MountContext {
        prefetch: Prefetch::new(fs.clone(), content.clone(), spawner.clone(), mode),
        fs,
        content,
        counters,
        changes,
        owner: FileOwner {
            uid: config
                .uid
                .unwrap_or_else(|| rustix::process::getuid().as_raw()),
            gid: config
                .gid
                .unwrap_or_else(|| rustix::process::getgid().as_raw()),
        },
        timeout: config.rpc_timeout,
        spawner,
        filler: OnceLock::new(),
    })
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Its state now.
    pub fn status(&self) -> Option<Status> {
        self.source.status()
    }

    /// Serves `/health`, `/ready` and `/metrics` on `listener` until it is unmounted; returns
    /// where.
    pub fn serve_http(&self, listener: TcpListener) -> Result<SocketAddr> {
        monofs_rpc::operations::serve(listener, self.source.clone(), self.stop.child_token())
    }

    /// Waits until the kernel has let go of the mount, for instance because of `umount`.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Unmounts. Processes that still use the mount get errors from then on.
    pub async fn unmount(mut self) -> Result<()> {
        let result = match self.unmounter.take() {
            Some(mut unmounter) if !self.ended.is_cancelled() => {
                let mount = self.mount.clone();
                blocking(move || point::release(&mount, &mut unmounter)).await?
            }
            _ => Ok(()),
        };

        // The kernel asks nothing more, or gets errors: the threads and the tasks end.
        self.stop.cancel();
        let _ = tokio::time::timeout(RELEASE_WAIT, self.ended.cancelled()).await;
        if let Some(session) = self.session.take().filter(|_| self.ended.is_cancelled()) {
            let _ = blocking(move || session.join()).await;
        }
        close(self.context.clone()).await;
        result
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(mut unmounter) = self.unmounter.take()
            && !self.ended.is_cancelled()
            && let Err(error) = point::release(&self.mount, &mut unmounter)
        {
            tracing::warn!(%error, "the mount was left behind");
        }
    }
}

/// Ends the tasks, which have been told to stop, and then the cache.
async fn close(context: Arc<MountContext>) {
    context.spawner.ended(RELEASE_WAIT).await;
    let _ = blocking(move || context.fs.cache.close()).await;
}

fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
