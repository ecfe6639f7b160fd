//! Repositories inside repositories: whether one around has the name, which its tree says.
//!
//! A repository is shown unless the nearest one around it that is shown has its name, a submodule
//! aside. Mounts see that by themselves, at each look. Here it is found out before a repository is
//! added, and recorded afterwards by the leader ([`run`]), for operators and for look-ups without a
//! mount.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_control::Control;
use monofs_control::catalog::EnclosingTree;
use monofs_model::{Actor, DisplayPath, Error, Oid, Repository, Result};
use monofs_rpc::context;
use tokio_util::sync::CancellationToken;

use crate::browse;
use crate::parts::{Parts, Work};
use monofs_members::fleet::Fleet;

/// How often an addition looks again because a repository around it changed meanwhile.
const LOOKS_MAX: usize = 5;
/// Pause before trees that no holder gave are asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// Adds the entry of a repository where none around it has the name. Errors: `Refused` when one
/// has, and those of [`monofs_control::catalog::CatalogWriter::create_inside`].
pub(crate) async fn create(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    work: &Work,
    entry: Repository,
) -> Result<()> {
    let path = &entry.path;
    let mut looks = 0;
    loop {
        looks += 1;
        let around = control.catalog.around(path);
        if let Some(outer) = shadow(fleet, work, path, &around).await? {
            return Err(Error::refused(format!(
                "cannot add '{path}': the repository '{outer}' around it has that name itself; \
                 choose another --path"
            )));
        }
        let trees = trees_of(&around);
        let created = control.entries.create_inside(actor, entry.clone(), &trees);
        match created.await {
            // What was looked into is not what is there now.
            Err(_) if looks < LOOKS_MAX && trees_of(&control.catalog.around(path)) != trees => {}
            outcome => return outcome,
        }
    }
}

fn trees_of(around: &[Arc<Repository>]) -> Vec<EnclosingTree> {
    let tree = |outer: &Arc<Repository>| {
        Some(EnclosingTree {
            path: outer.path.clone(),
            root: outer.snapshot.as_ref()?.root,
        })
    };
    around.iter().filter_map(tree).collect()
}

/// Which of the repositories `around` a path, the outermost first, hides what is at it. Errors: no
/// holder gives its tree.
async fn shadow(
    fleet: &Fleet,
    work: &Work,
    path: &DisplayPath,
    around: &[Arc<Repository>],
) -> Result<Option<DisplayPath>> {
    let mut shown: Option<&Arc<Repository>> = None;
    for outer in around {
        let is_hidden = match shown {
            Some(shown) => has_name(fleet, work, shown, &outer.path).await?,
            None => false,
        };
        if !is_hidden {
            shown = Some(outer);
        }
    }
    let Some(nearest) = shown else {
        return Ok(None);
    };
    let has_it = has_name(fleet, work, nearest, path).await?;
    Ok(has_it.then(|| nearest.path.clone()))
}

async fn has_name(
    fleet: &Fleet,
    work: &Work,
    outer: &Arc<Repository>,
    path: &DisplayPath,
) -> Result<bool> {
    let found = browse::has_name(fleet, work, outer, path).await;
    found.map_err(|error| {
        error.context(format!(
            "cannot look whether '{}' around '{path}' has that name",
            outer.path
        ))
    })
}

/// What was found out about a path: the root trees around it, and which repository hides it.
type KnownShadows = HashMap<DisplayPath, (Vec<Oid>, Option<DisplayPath>)>;

/// Records which repositories are hidden by others around them, after each change, until `stop`.
pub(crate) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let mut changed = parts.control.catalog.changed();
    let mut known = KnownShadows::new();
    loop {
        changed.mark_unchanged();
        let all_known = record_all(&parts, &mut known).await;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !all_known => {}
        }
    }
}

/// False: something could not be found out, or not be recorded.
async fn record_all(parts: &Parts, known: &mut KnownShadows) -> bool {
    let nested = parts.control.catalog.nested();
    known.retain(|path, _| nested.iter().any(|entry| entry.path == *path));
    let mut all_known = true;
    for entry in &nested {
        if let Err(error) = record(parts, known, entry).await {
            tracing::warn!(path = %entry.path, %error, "cannot find out whether it is shadowed");
            all_known = false;
        }
    }
    all_known
}

async fn record(parts: &Parts, known: &mut KnownShadows, entry: &Repository) -> Result<()> {
    let around = parts.control.catalog.around(&entry.path);
    let roots: Vec<Oid> = trees_of(&around).iter().map(|tree| tree.root).collect();
    // Most changes are none of these trees.
    let found = match known.get(&entry.path).filter(|(seen, _)| *seen == roots) {
        Some((_, found)) => found.clone(),
        None => {
            let found = shadow(&parts.fleet, &parts.work, &entry.path, &around).await?;
            known.insert(entry.path.clone(), (roots, found.clone()));
            found
        }
    };
    if found == entry.shadowed_by {
        return Ok(());
    }
    match &found {
        Some(outer) => {
            tracing::warn!(path = %entry.path, %outer, "shadowed: the repository around has the name")
        }
        None => tracing::info!(path = %entry.path, "shown again"),
    }
    let change = |stored: &Repository| {
        let changed = Repository {
            shadowed_by: found.clone(),
            ..stored.clone()
        };
        Ok((stored.shadowed_by != found).then_some(changed))
    };
    let actor = context::actor();
    let updated = parts.control.entries.update(&actor, &entry.path, change);
    updated.await.map(drop)
}
