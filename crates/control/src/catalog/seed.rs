//! Fills an empty state with entries, many in one commit: for measuring catalogues without
//! ingesting what is in them.

use std::sync::Arc;

use monofs_model::{DisplayPath, Error, Repository, Result};
use monofs_store::state::{CommitOutcome, Compare, Write};

use super::entry::{NAMES_KEY, REPO_PREFIX, encode_repository, repo_key};
use crate::state::StateStore;

/// Entries written by one commit.
const SEED_BATCH: usize = 5000;

/// Writes `repositories` to a state without any, and returns how many they were. Their paths must
/// come in the order of their components, without one inside another. Errors: `Refused` when there
/// are entries already, `Invalid` for paths out of order, the state store's own.
pub async fn seed_catalogue(
    store: Arc<dyn StateStore>,
    repositories: impl Iterator<Item = Repository> + Send,
) -> Result<usize> {
    if !store.scan(REPO_PREFIX).await?.rows.is_empty() {
        return Err(Error::refused(
            "the state has repositories already; seed an empty one",
        ));
    }
    let mut last: Option<DisplayPath> = None;
    let mut writes = Vec::new();
    let mut count = 0;
    for repository in repositories {
        if last
            .as_ref()
            .is_some_and(|last| !may_follow(last, &repository.path))
        {
            return Err(Error::invalid(format!(
                "'{}' is out of order or overlaps the path before it",
                repository.path
            )));
        }
        // Many in one commit.
        writes.push(Write::Put {
            key: repo_key(&repository.path),
            value: encode_repository(&repository),
        });
        count += 1;
        last = Some(repository.path);
        if writes.len() == SEED_BATCH {
            commit(&store, std::mem::take(&mut writes)).await?;
        }
    }
    commit(&store, writes).await?;
    Ok(count)
}

/// Whether `path` comes after `last` in the order of components, and not inside it.
fn may_follow(last: &DisplayPath, path: &DisplayPath) -> bool {
    last.components().lt(path.components()) && !last.overlaps(path)
}

async fn commit(store: &Arc<dyn StateStore>, mut writes: Vec<Write>) -> Result<()> {
    let absent = writes.iter().map(|write| match write {
        Write::Put { key, .. } | Write::Delete { key } => Compare {
            key: key.clone(),
            revision: 0,
        },
    });
    let compares = absent.collect();
    writes.push(Write::Put {
        key: NAMES_KEY.into(),
        value: Vec::new(),
    });
    match store.commit(compares, writes).await? {
        CommitOutcome::Done { .. } => Ok(()),
        CommitOutcome::Conflict => Err(Error::refused(
            "another process writes to this state; seed one of your own",
        )),
    }
}
