//! What `/.monofs/status` and [`crate::Mounted::status`] tell.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use bytes::Bytes;
use monofs_content::cache::CacheStatus;
use monofs_model::Member;
use monofs_proto::v1;
use serde::Serialize;

use crate::catalog::RouterLink;
use crate::mount::context::MountContext;

/// Clocks of a mount and its router that differ by more are a problem.
const SKEW_MAX_MS: i64 = 1000;

/// The state of a mount.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub mount: String,
    pub uptime_seconds: u64,
    pub router: RouterLinkStatus,
    pub catalog: CatalogStatus,
    pub cache: CacheStatus,
    pub reads: ReadStatus,
    pub prefetch: PrefetchStatus,
    pub invalidations: InvalidationStatus,
    pub inodes: usize,
    /// Requests of the kernel by kind.
    pub upcalls: BTreeMap<&'static str, u64>,
    /// One line each: what is wrong. Empty: all is well.
    pub problems: Vec<String>,
}

/// The connection to the routers.
#[derive(Debug, Clone, Serialize)]
pub struct RouterLinkStatus {
    pub connected: bool,
    pub address: Option<String>,
    pub connected_seconds: Option<u64>,
    /// Since the last message; what is shown may be this old.
    pub view_age_seconds: Option<u64>,
    pub last_error: Option<String>,
    /// How far this machine's clock is ahead of the router's that was heard last; negative: behind.
    pub clock_ahead_ms: Option<i64>,
    pub view_number: u64,
    pub members: Vec<ViewMember>,
}

/// A member of the view.
#[derive(Debug, Clone, Serialize)]
pub struct ViewMember {
    pub id: String,
    pub address: String,
    pub state: &'static str,
}

impl ViewMember {
    fn of(member: &Member) -> Self {
        Self {
            id: member.id.to_string(),
            address: member.address.clone(),
            state: member.state.as_str(),
        }
    }
}

/// What is shown.
#[derive(Debug, Clone, Serialize)]
pub struct CatalogStatus {
    pub repositories: usize,
    /// Memory that the catalogue takes, in bytes, without what was decoded of repositories that
    /// were looked at.
    pub memory_bytes: usize,
    pub epoch: Option<String>,
    pub received_revision: Option<u64>,
    pub applied_revision: Option<u64>,
    /// Shown at an older commit than the catalogue says, and why.
    pub lagging: BTreeMap<String, String>,
    /// Shown from the copy on disk; no router has confirmed it.
    pub offline_copy: bool,
}

/// Where reads were answered from.
#[derive(Debug, Clone, Serialize)]
pub struct ReadStatus {
    pub records_in_memory: u64,
    pub records_on_disk: u64,
    pub records_missed: u64,
    pub contents_ready: u64,
    pub frames_in_memory: u64,
    pub frames_on_disk: u64,
    pub frames_missed: u64,
    pub waited: u64,
    pub failed: u64,
    pub calls: u64,
    pub calls_failed: u64,
    pub hedges: u64,
    pub hedges_won: u64,
    pub in_flight: usize,
    pub trees_fetched: u64,
    pub chunks_fetched: u64,
    pub bytes_fetched: u64,
    pub corrupt: u64,
    pub cache_written: u64,
    pub cache_write_errors: u64,
    pub cache_write_skipped: u64,
}

/// What was fetched ahead.
#[derive(Debug, Clone, Serialize)]
pub struct PrefetchStatus {
    pub blobs: u64,
    pub bytes: u64,
    pub used: u64,
    pub wasted: u64,
    pub outstanding: usize,
    /// Files put into the kernel's page cache before they were read, and their bytes.
    pub stored: u64,
    pub stored_bytes: u64,
}

/// What the kernel was told.
#[derive(Debug, Clone, Serialize)]
pub struct InvalidationStatus {
    pub flips: u64,
    /// Of those, the ones that came so late that the names show the time of their coming.
    pub late_flips: u64,
    pub names: u64,
    pub directories: u64,
}

/// Makes statuses; filled in once the mount exists, since the file system itself serves the status.
pub struct StatusSource {
    mount: String,
    started: Instant,
    link: Arc<RouterLink>,
    context: OnceLock<Weak<MountContext>>,
}

impl StatusSource {
    /// A source for the mount at `mount`.
    pub fn new(mount: String, link: Arc<RouterLink>) -> Arc<Self> {
        Arc::new(Self {
            mount,
            started: Instant::now(),
            link,
            context: OnceLock::new(),
        })
    }

    /// From now on there is something to tell.
    pub fn attach(&self, context: &Arc<MountContext>) {
        // It is attached once, by the mount that made it.
        let _ = self.context.set(Arc::downgrade(context));
    }

    /// The status document.
    pub fn document(&self) -> Bytes {
        let text = self
            .status()
            .and_then(|status| serde_json::to_vec_pretty(&status).ok());
        let mut text = text.unwrap_or_else(|| b"{}".to_vec());
        text.push(b'\n');
        text.into()
    }

    /// The state now. `None` when the mount is gone.
    pub fn status(&self) -> Option<Status> {
        let context = self.context.get()?.upgrade()?;
        let cache = context.fs.cache.status();
        let router = self.router(&context);
        let catalog = self.catalog(&context);
        let problems = problems(&router, &catalog, &cache);
        // The rest is counters.
        let counters = &context.counters;
        Some(Status {
            version: env!("CARGO_PKG_VERSION"),
            mount: self.mount.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            router,
            catalog,
            cache,
            reads: reads(&context),
            prefetch: PrefetchStatus {
                blobs: counters.prefetched.get(),
                bytes: counters.prefetched_bytes.get(),
                used: counters.prefetch_used.get(),
                wasted: counters.prefetch_wasted.get(),
                outstanding: context.fs.marks.outstanding(),
                stored: counters.stored.get(),
                stored_bytes: counters.stored_bytes.get(),
            },
            invalidations: InvalidationStatus {
                flips: counters.flips.get(),
                late_flips: counters.late_flips.get(),
                names: counters.names_invalidated.get(),
                directories: counters.directories_invalidated.get(),
            },
            inodes: context.fs.inode_count(),
            upcalls: counters.operations().collect(),
            problems,
        })
    }

    /// What is told to the router. `None` when the mount is gone.
    pub fn report(&self) -> Option<v1::ClientReport> {
        let context = self.context.get()?.upgrade()?;
        let counters = &context.counters;
        let cache = context.fs.cache.status();
        let (cache_hits, cache_misses) = counters.hits_and_misses();
        Some(v1::ClientReport {
            cache_bytes: cache.disk_bytes,
            cache_bytes_max: cache.disk_bytes_max,
            cache_hits,
            cache_misses,
            bytes_fetched: counters.bytes_fetched.get(),
            upcalls: counters.operations().map(|(_, count)| count).sum(),
            failed: counters.failed.get(),
            lagging: self.link.state().lagging.len() as u64,
            resident_bytes: monofs_rpc::metrics::resident_bytes().unwrap_or(0),
        })
    }

    /// The mount, while it is there, and its connection.
    pub(crate) fn parts(&self) -> Option<(Arc<MountContext>, &RouterLink)> {
        Some((self.context.get()?.upgrade()?, &self.link))
    }

    fn router(&self, context: &MountContext) -> RouterLinkStatus {
        let state = self.link.state().clone();
        let view = context.content.replicas().view();
        RouterLinkStatus {
            connected: state.connected_since.is_some(),
            address: state.router,
            connected_seconds: state.connected_since.map(|since| since.elapsed().as_secs()),
            view_age_seconds: state.last_message.map(|last| last.elapsed().as_secs()),
            last_error: state.last_error,
            clock_ahead_ms: state.clock.map(|clock| clock.skew_ms()),
            view_number: view.number,
            members: view.members.iter().map(ViewMember::of).collect(),
        }
    }

    fn catalog(&self, context: &MountContext) -> CatalogStatus {
        let totals = context.fs.world().totals();
        let state = self.link.state().clone();
        CatalogStatus {
            repositories: totals.repositories,
            memory_bytes: totals.memory_bytes,
            epoch: state
                .applied
                .as_ref()
                .map(|position| position.epoch.clone()),
            received_revision: state.received.map(|position| position.revision),
            applied_revision: state.applied.map(|position| position.revision),
            lagging: state.lagging,
            offline_copy: state.from_copy,
        }
    }
}

fn reads(context: &MountContext) -> ReadStatus {
    // One to one from the counters, besides what is in flight.
    let counters = &context.counters;
    ReadStatus {
        records_in_memory: counters.records_in_memory.get(),
        records_on_disk: counters.records_on_disk.get(),
        records_missed: counters.records_missed.get(),
        contents_ready: counters.contents_ready.get(),
        frames_in_memory: counters.frames_in_memory.get(),
        frames_on_disk: counters.frames_on_disk.get(),
        frames_missed: counters.frames_missed.get(),
        waited: counters.waited.get(),
        failed: counters.failed.get(),
        calls: counters.calls.get(),
        calls_failed: counters.calls_failed.get(),
        hedges: counters.hedges.get(),
        hedges_won: counters.hedges_won.get(),
        in_flight: context.content.in_flight(),
        trees_fetched: counters.trees_fetched.get(),
        chunks_fetched: counters.chunks_fetched.get(),
        bytes_fetched: counters.bytes_fetched.get(),
        corrupt: counters.corrupt.get(),
        cache_written: counters.cache_written.get(),
        cache_write_errors: counters.cache_write_errors.get(),
        cache_write_skipped: counters.cache_write_skipped.get(),
    }
}

fn problems(
    router: &RouterLinkStatus,
    catalog: &CatalogStatus,
    cache: &CacheStatus,
) -> Vec<String> {
    // The line to the router comes first, since it decides how old the rest may be.
    let mut problems = Vec::new();
    if !router.connected {
        let why = router.last_error.as_deref().unwrap_or("connecting");
        problems.push(format!(
            "no router is connected ({why}); what is shown may be old"
        ));
    }

    // Builds compare the times of files with the clock of this machine, so a clock that is off
    // matters to them.
    let skew_ms = router.clock_ahead_ms.unwrap_or(0);
    if skew_ms.abs() > SKEW_MAX_MS {
        problems.push(format!(
            "this machine's clock is {:.1} s {} the router's: what an update changes may look older \
             than what was built from the text before; set the clocks right",
            skew_ms.abs() as f64 / 1000.0,
            if skew_ms > 0 { "ahead of" } else { "behind" },
        ));
    }
    for (path, why) in &catalog.lagging {
        problems.push(format!("{path} is shown at an older commit: {why}"));
    }
    if let Some(why) = &cache.last_error {
        problems.push(format!("the cache cannot be written: {why}"));
    }
    problems
}
