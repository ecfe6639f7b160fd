//! A mount from its checks to its end.
//!
//! Order of the start: the mount point is looked at, the cache opened, the catalogue loaded (from a
//! router, or from the copy in the cache), and only then the kernel asked to mount; requests are
//! answered from the moment the kernel can be told of changes. Order of the end: the kernel lets go
//! of the mount (by force, if it is busy), then the tasks end, then the cache is closed.

pub mod point;
mod readahead;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use monofs_model::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::catalog::Link;
use crate::catalog::apply::Applier;
use crate::catalog::watch::{Identity, Watch};
use crate::config::Config;
use crate::content::Content;
use crate::counters::Counters;
use crate::evidence::Marks;
use crate::fill::Filler;
use crate::fs::Fs;
use crate::fuse::{Adapter, Notifier, Shared};
use crate::invalidate::Invalidator;
use crate::memory;
use crate::prefetch::Prefetch;
use crate::spawner::Spawner;
use crate::status::{Source, Status};

/// Batches of changes that may wait to be applied.
const CHANGES_MAX: usize = 16;
/// How long a router may take to say what changed since the position it was told.
const RESUME_GRACE: Duration = Duration::from_millis(50);
/// Longest wait for a first listing that goes on arriving.
const LISTING_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long the end of a mount waits for the kernel to let go of it.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// A mounted tree. [`Mounted::unmount`] ends it; dropping it unmounts too, without waiting.
pub struct Mounted {
    mount: PathBuf,
    shared: Arc<Shared>,
    source: Arc<Source>,
    stop: CancellationToken,
    session: Option<std::thread::JoinHandle<std::io::Result<()>>>,
    unmounter: Option<fuser::SessionUnmounter>,
    ended: CancellationToken,
}

/// Mounts as `config` says and returns when the tree can be used. Errors: `Invalid` and `Refused`
/// for a wrong mount point or setting, `Unavailable` when no router answers and there is no copy of
/// the catalogue to start from.
pub async fn mount(config: Config) -> Result<Mounted> {
    config.check()?;
    let path = config.mount.clone();
    let mount = blocking(move || point::prepare(&path)).await??;
    let counters = Arc::new(Counters::default());
    let cache = open_cache(&config, counters.clone()).await?;
    let link = Arc::new(Link::default());
    let source = Source::new(mount.display().to_string(), link.clone());
    let stop = CancellationToken::new();
    let shared = build(
        &config,
        &source,
        cache,
        counters,
        Spawner::new(stop.clone()),
    );
    source.attach(&shared);

    let invalidator = Arc::new(OnceLock::new());
    let started = match follow(
        &config,
        &mount,
        &shared,
        &source,
        &link,
        &invalidator,
        &stop,
    )
    .await
    {
        Ok(()) => start_session(&config, &mount, &shared, &invalidator).await,
        Err(error) => Err(error),
    };
    let (session, unmounter, ended) = match started {
        Ok(started) => started,
        Err(error) => {
            stop.cancel();
            close(shared).await;
            return Err(error);
        }
    };
    let at = mount.clone();
    // The attributes of the mount point are asked of us, so not on a thread that must answer.
    let _ = blocking(move || readahead::widen(&at)).await;
    memory::look_after(&config.cache_dir, &shared.spawner);
    tracing::info!(mount = %mount.display(), "mounted");
    Ok(Mounted {
        mount,
        shared,
        source,
        stop,
        session: Some(session),
        unmounter: Some(unmounter),
        ended,
    })
}

async fn open_cache(config: &Config, counters: Arc<Counters>) -> Result<Arc<Cache>> {
    let (dir, max_bytes, keep) = (
        config.cache_dir.clone(),
        config.max_cache_bytes,
        config.keep_cache,
    );
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

fn build(
    config: &Config,
    source: &Arc<Source>,
    cache: Arc<Cache>,
    counters: Arc<Counters>,
    spawner: Spawner,
) -> Arc<Shared> {
    let marks = Marks::new(counters.clone());
    let content = Content::new(
        config,
        cache.clone(),
        counters.clone(),
        marks.clone(),
        spawner.clone(),
    );
    let documents = {
        let source = source.clone();
        Box::new(move || source.document())
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    Arc::new(Shared {
        fs: Fs::new(cache, marks, documents, now),
        prefetch: Prefetch::new(content.clone(), config.prefetch),
        content,
        counters,
        uid: config
            .uid
            .unwrap_or_else(|| rustix::process::getuid().as_raw()),
        gid: config
            .gid
            .unwrap_or_else(|| rustix::process::getgid().as_raw()),
        timeout: config.rpc_timeout,
        spawner,
        filler: OnceLock::new(),
    })
}

/// Starts to follow the catalogue; returns when there is something to show.
async fn follow(
    config: &Config,
    mount: &Path,
    shared: &Arc<Shared>,
    source: &Arc<Source>,
    link: &Arc<Link>,
    invalidator: &Arc<OnceLock<Invalidator>>,
    stop: &CancellationToken,
) -> Result<()> {
    let (changes, inbox) = mpsc::channel(CHANGES_MAX);
    let (views, new_views) = watch::channel(None);
    let (applied, mut positions) = watch::channel(None);
    let (tried, mut all_tried) = watch::channel(false);
    let (heard, mut any_heard) = watch::channel(false);
    let mut applier = Applier::new(
        shared.clone(),
        link.clone(),
        invalidator.clone(),
        new_views,
        applied,
        stop.clone(),
    );
    let has_copy = applier.load_copy().await;
    positions.mark_unchanged();
    let watch = Watch {
        routers: config.routers.clone(),
        channels: shared.content.channels(),
        identity: Identity {
            client_id: client_id(mount),
            mount: mount.display().to_string(),
        },
        link: link.clone(),
        content: shared.content.clone(),
        source: source.clone(),
        timeout: config.rpc_timeout,
        changes,
        views,
        applied: positions.clone(),
        tried,
        heard,
        stop: stop.clone(),
    };
    shared.spawner.spawn_watchful(watch.run());
    shared.spawner.spawn_watchful(applier.run(inbox));
    let wait = if has_copy {
        config.start_wait
    } else {
        config.rpc_timeout
    };
    let up_to_date = || {
        let state = link.state();
        state.received == state.applied
    };
    let ready = async {
        tokio::select! {
            _ = positions.changed() => return true,
            _ = all_tried.wait_for(|tried| *tried) => return false,
            _ = any_heard.wait_for(|heard| *heard), if has_copy => {}
        }
        // A router that has nothing new to say says nothing; what is new it says at once.
        if tokio::time::timeout(RESUME_GRACE, positions.changed())
            .await
            .is_err()
            && !up_to_date()
        {
            let _ = positions.changed().await;
        }
        true
    };
    tokio::pin!(ready);
    let started = Instant::now();
    let heard = loop {
        match tokio::time::timeout(wait, &mut ready).await {
            Ok(heard) => break heard,
            // A large catalogue on a busy machine: as long as the router goes on sending, it is
            // waited for.
            Err(_)
                if !has_copy
                    && heard_within(link, wait)
                    && started.elapsed() < LISTING_WAIT_MAX => {}
            Err(_) => break false,
        }
    };
    if heard || has_copy {
        return Ok(());
    }
    let why = link
        .state()
        .last_error
        .clone()
        .unwrap_or_else(|| format!("no answer within {wait:?}"));
    Err(Error::unavailable(format!(
        "no router answers ({why}), and the cache has no catalogue to start from; check --router"
    )))
}

fn heard_within(link: &Link, silence: Duration) -> bool {
    link.state()
        .last_message
        .is_some_and(|last| last.elapsed() < silence)
}

type Started = (
    std::thread::JoinHandle<std::io::Result<()>>,
    fuser::SessionUnmounter,
    CancellationToken,
);

/// Has the kernel mount, and starts to answer it.
async fn start_session(
    config: &Config,
    mount: &Path,
    shared: &Arc<Shared>,
    invalidator: &Arc<OnceLock<Invalidator>>,
) -> Result<Started> {
    let options = session_options(config);
    let (adapter, at) = (Adapter(shared.clone()), mount.to_owned());
    let session = blocking(move || fuser::Session::new(adapter, &at, &options)).await?;
    let mut session = session.map_err(|e| mount_error(mount, &e))?;
    let device = std::os::fd::AsFd::as_fd(&session).try_clone_to_owned();
    let device = device.map_err(|e| Error::internal(format!("duplicate the FUSE device: {e}")))?;
    let kernel = Notifier::new(session.notifier(), device);
    let _ = invalidator.set(Invalidator::start(kernel, shared.counters.clone())?);
    if config.prefetch {
        let _ = shared
            .filler
            .set(Filler::start(session.notifier(), shared)?);
    }
    let unmounter = session.unmount_callable();
    let ended = CancellationToken::new();
    let end = ended.clone();
    let thread = std::thread::Builder::new()
        .name("monofs-fuse".into())
        .spawn(move || {
            let result = session.run();
            end.cancel();
            result
        })
        .map_err(|e| Error::internal(format!("start the FUSE threads: {e}")))?;
    Ok((thread, unmounter, ended))
}

fn session_options(config: &Config) -> fuser::Config {
    use fuser::MountOption;
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::FSName("monofs".into()),
        MountOption::Subtype("monofs".into()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::DefaultPermissions,
    ];
    let everybody = config
        .allow_other
        .unwrap_or_else(|| rustix::process::geteuid().is_root());
    options.acl = if everybody {
        fuser::SessionACL::All
    } else {
        fuser::SessionACL::Owner
    };
    options.n_threads = Some(config.threads());
    options.clone_fd = true;
    options
}

fn mount_error(mount: &Path, error: &std::io::Error) -> Error {
    let at = mount.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::refused(format!(
            "mount at {at}: /dev/fuse is missing; load the kernel module (modprobe fuse)"
        )),
        std::io::ErrorKind::PermissionDenied => Error::refused(format!(
            "mount at {at}: {error}; /dev/fuse must be accessible, and for --allow-other \
             /etc/fuse.conf must say user_allow_other"
        )),
        _ => Error::refused(format!("mount at {at}: {error}")),
    }
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

    /// Waits until the kernel has let go of the mount, for instance because somebody ran `umount`.
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
        self.stop.cancel();
        let _ = tokio::time::timeout(RELEASE_WAIT, self.ended.cancelled()).await;
        if let Some(session) = self.session.take().filter(|_| self.ended.is_cancelled()) {
            let _ = blocking(move || session.join()).await;
        }
        close(self.shared.clone()).await;
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
async fn close(shared: Arc<Shared>) {
    shared.spawner.ended(RELEASE_WAIT).await;
    let _ = blocking(move || shared.fs.cache.close()).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("a blocking task failed: {e}")))
}

/// `host:pid:mount point`: tells operators which client it is.
fn client_id(mount: &Path) -> String {
    let host = rustix::system::uname();
    format!(
        "{}:{}:{}",
        host.nodename().to_string_lossy(),
        std::process::id(),
        mount.display()
    )
}
