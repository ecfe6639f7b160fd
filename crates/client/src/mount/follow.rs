//! The start of following the catalogue, and the wait for something to show.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use monofs_model::{Error, Result};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::context::MountContext;
use crate::catalog::RouterLink;
use crate::catalog::ack::AppliedPositions;
use crate::catalog::apply::{Applier, ApplierParts, drop_retired_names};
use crate::catalog::watch::{CatalogWatch, ClientIdentity};
use crate::changes::diff;
use crate::config::Config;
use crate::invalidate::Invalidator;
use crate::status::StatusSource;

/// Batches of changes that may wait to be applied.
const CHANGES_MAX: usize = 16;
/// How long a router may take to say what changed since the position it was told.
const RESUME_GRACE: Duration = Duration::from_millis(50);
/// Longest wait for a first listing that goes on arriving.
const LISTING_WAIT_MAX: Duration = Duration::from_secs(120);

/// What following the catalogue takes, besides settings.
pub(super) struct FollowParts {
    pub context: Arc<MountContext>,
    pub source: Arc<StatusSource>,
    pub link: Arc<RouterLink>,
    pub invalidator: Arc<OnceLock<Invalidator>>,
    pub stop: CancellationToken,
}

/// What is shown at the start, if no router answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartingPoint {
    /// The copy of the catalogue in the cache.
    Copy,
    Nothing,
}

/// Signals of the tasks that follow the catalogue, for the start of the mount.
struct StartSignals {
    /// A position was applied.
    applied: watch::Receiver<AppliedPositions>,
    /// Every router was tried in vain.
    all_tried: watch::Receiver<bool>,
    /// A router was heard.
    any_heard: watch::Receiver<bool>,
}

/// Starts to follow the catalogue; returns when there is something to show. Errors: `Unavailable`
/// when no router answers and there is no copy of the catalogue.
pub(super) async fn follow(config: &Config, mount: &Path, parts: FollowParts) -> Result<()> {
    let (changes, inbox) = mpsc::channel(CHANGES_MAX);
    let (views, new_views) = watch::channel(None);
    let (applied, mut positions) = watch::channel(AppliedPositions::default());
    let (tried, all_tried) = watch::channel(false);
    let (heard, any_heard) = watch::channel(false);

    // What the cache knows is shown first.
    let context = &parts.context;
    follow_changes(context, parts.invalidator.clone(), parts.stop.clone());
    let mut applier = Applier::new(ApplierParts {
        fs: context.fs.clone(),
        content: context.content.clone(),
        counters: context.counters.clone(),
        link: parts.link.clone(),
        invalidator: parts.invalidator,
        changes: context.changes.clone(),
        views: new_views,
        applied,
        stop: parts.stop.clone(),
    });
    let start = if applier.load_copy().await {
        StartingPoint::Copy
    } else {
        StartingPoint::Nothing
    };
    positions.mark_unchanged();

    // From here on these tasks follow the routers.
    let watch = CatalogWatch {
        routers: config.routers.clone(),
        channels: context.content.channels(),
        identity: ClientIdentity {
            client_id: client_id(mount),
            mount: mount.display().to_string(),
        },
        link: parts.link.clone(),
        fs: context.fs.clone(),
        content: context.content.clone(),
        source: parts.source,
        timeout: config.rpc_timeout,
        changes,
        views,
        applied: positions.clone(),
        tried,
        heard,
        stop: parts.stop,
    };
    context.spawner.spawn_watchful(watch.run());
    context.spawner.spawn_watchful(applier.run(inbox));

    let signals = StartSignals {
        applied: positions,
        all_tried,
        any_heard,
    };
    if wait_for_a_router(config, &parts.link, start, signals).await || start == StartingPoint::Copy
    {
        return Ok(());
    }
    let limit = config.rpc_timeout;
    let why = parts.link.state().last_error.clone();
    let why = why.unwrap_or_else(|| format!("no answer within {limit:?}"));
    Err(Error::unavailable(format!(
        "no router answers ({why}), and the cache has no catalogue to start from; check --router"
    )))
}

/// Starts what goes on beside the changes of the catalogue: the kernel drops names of what was
/// retired, watchers of the mount are told paths.
fn follow_changes(
    context: &MountContext,
    invalidator: Arc<OnceLock<Invalidator>>,
    stop: CancellationToken,
) {
    let dropping = drop_retired_names(context.fs.clone(), invalidator, stop);
    context.spawner.spawn_watchful(dropping);
    context.spawner.spawn(diff::follow(
        context.changes.clone(),
        context.fs.cache.clone(),
        context.content.clone(),
    ));
}

/// Waits until what a router says is shown. False: none said anything in time.
async fn wait_for_a_router(
    config: &Config,
    link: &RouterLink,
    start: StartingPoint,
    signals: StartSignals,
) -> bool {
    let wait = match start {
        StartingPoint::Copy => config.start_wait,
        StartingPoint::Nothing => config.rpc_timeout,
    };
    let shown = is_up_to_date_soon(link, start, signals);
    tokio::pin!(shown);
    let started = Instant::now();
    loop {
        if let Ok(is_shown) = tokio::time::timeout(wait, &mut shown).await {
            return is_shown;
        }
        // A large catalogue on a busy machine: as long as the router goes on sending, it is waited
        // for.
        let goes_on = start == StartingPoint::Nothing
            && heard_within(link, wait)
            && started.elapsed() < LISTING_WAIT_MAX;
        if !goes_on {
            return false;
        }
    }
}

/// Returns true when what a router says is shown, and false when every router was tried in vain.
async fn is_up_to_date_soon(
    link: &RouterLink,
    start: StartingPoint,
    mut signals: StartSignals,
) -> bool {
    tokio::select! {
        _ = all_is_shown(&mut signals.applied) => return true,
        _ = signals.all_tried.wait_for(|tried| *tried) => return false,
        _ = signals.any_heard.wait_for(|heard| *heard), if start == StartingPoint::Copy => {}
    }
    // A router that has nothing new to say says nothing; what is new it says at once.
    let said_something = tokio::time::timeout(RESUME_GRACE, all_is_shown(&mut signals.applied))
        .await
        .is_ok();
    if !said_something && !is_up_to_date(link) {
        // Fails when the task that applies changes has ended: nothing more will be shown.
        let _ = all_is_shown(&mut signals.applied).await;
    }
    true
}

/// Waits until a change was applied and no repository lags. Err: the task that applies changes has
/// ended.
async fn all_is_shown(
    applied: &mut watch::Receiver<AppliedPositions>,
) -> Result<(), watch::error::RecvError> {
    loop {
        applied.changed().await?;
        if applied.borrow_and_update().is_all_shown() {
            return Ok(());
        }
    }
}

fn is_up_to_date(link: &RouterLink) -> bool {
    let state = link.state();
    state.received == state.applied
}

fn heard_within(link: &RouterLink, silence: Duration) -> bool {
    link.state()
        .last_message
        .is_some_and(|last| last.elapsed() < silence)
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
