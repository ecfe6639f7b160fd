//! Compares the two commits of a flip and tells watchers which paths differ, one flip after the
//! other.
//!
//! Unlike the flip itself, which looks at the directories that the kernel knows, this looks at
//! every directory that differs. Called once by the mount.

use std::collections::HashSet;
use std::sync::Arc;

use monofs_content::cache::Cache;
use monofs_content::content::Content;
use monofs_content::repo::{Repo, snapshot_of};
use monofs_content::shown::DirectoryKey;
use monofs_model::tree::Entry;
use monofs_model::{EntryKind, Error, Oid, Result, TreeRecord};

use super::{ChangeKind, ChangeLog, PathChange, RepositoryChange};
use crate::fs::switch::compare;

/// More changed paths or directories than this in one flip are told as one `reset`.
const PATHS_MAX: usize = 65_536;

/// Tells watchers about each change that `log` takes in, until it is dropped.
pub async fn follow(log: Arc<ChangeLog>, cache: Arc<Cache>, content: Content) {
    loop {
        let changes = match log.next().await {
            // A repository that came or went is one change of its path: what is inside is not
            // listed.
            RepositoryChange::Came(path, commit) => {
                let commit = Some(commit.to_string());
                vec![PathChange::new(ChangeKind::Added, path.as_bytes(), commit)]
            }
            RepositoryChange::Went(path) => {
                vec![PathChange::new(ChangeKind::Removed, path.as_bytes(), None)]
            }
            RepositoryChange::Flipped { was, is } => {
                // A repository that shows another commit is compared with the one before. When that
                // fails, watchers are told to look at all of it again.
                let commit = snapshot_of(&is).commit.to_string();
                let (Some(was), Some(is)) = (Repo::new(was), Repo::new(is)) else {
                    continue;
                };
                let mut comparison = Comparison::new(commit);
                match comparison.run(&cache, &content, &was, &is).await {
                    Ok(()) => comparison.changes,
                    Err(error) => {
                        tracing::info!(repo = is.path(), %error, "told watchers to look again");
                        vec![comparison.reset(is.path())]
                    }
                }
            }
        };
        log.tell(&changes);
    }
}

/// A directory before and after; at least one of the two is there.
struct DirectoryPair {
    path: Vec<u8>,
    was: Option<Oid>,
    is: Option<Oid>,
}

/// The comparison of two commits.
struct Comparison {
    commit: String,
    changes: Vec<PathChange>,
    /// Directories that are still to be compared.
    pending: Vec<DirectoryPair>,
    directories: usize,
}

impl Comparison {
    fn new(commit: String) -> Self {
        Self {
            commit,
            changes: Vec::new(),
            pending: Vec::new(),
            directories: 0,
        }
    }

    fn reset(&self, path: &str) -> PathChange {
        PathChange::new(
            ChangeKind::Reset,
            path.as_bytes(),
            Some(self.commit.clone()),
        )
    }

    /// Compares level by level, so that the records of one level are asked for together. Errors:
    /// records that cannot be had, or too much that differs.
    async fn run(
        &mut self,
        cache: &Cache,
        content: &Content,
        was: &Arc<Repo>,
        is: &Arc<Repo>,
    ) -> Result<()> {
        // The comparison goes level by level, from the two roots down, and ends when it gets too
        // large to be told path by path.
        self.pending.push(DirectoryPair {
            path: is.path().as_bytes().to_vec(),
            was: Some(was.root().tree),
            is: Some(is.root().tree),
        });
        while !self.pending.is_empty() {
            let level = std::mem::take(&mut self.pending);
            self.directories += level.len();
            if self.directories > PATHS_MAX || self.changes.len() > PATHS_MAX {
                return Err(Error::refused(format!(
                    "more than {PATHS_MAX} paths differ from the commit before"
                )));
            }

            // The records that the cache lacks are fetched for the whole level at once, not one by
            // one.
            let missing = |tree: fn(&DirectoryPair) -> Option<Oid>| -> Vec<DirectoryKey> {
                let trees: HashSet<Oid> = level.iter().filter_map(tree).collect();
                let absent = trees.into_iter().filter(|t| cache.record(t).is_none());
                absent.map(DirectoryKey::of_record).collect()
            };
            content.trees(was, missing(|pair| pair.was), 0).await?;
            content.trees(is, missing(|pair| pair.is), 0).await?;

            // Comparing a pair puts the directories below it that differ on the next level.
            for pair in level {
                let old = record(cache, pair.was)?;
                let new = record(cache, pair.is)?;
                self.compare_directory(&pair.path, old.as_ref(), new.as_ref());
            }
        }

        // Paths are told in order, so that the same update is told alike each time.
        self.changes
            .sort_by(|a, b| a.path.cmp(&b.path).then(a.path_bytes.cmp(&b.path_bytes)));
        Ok(())
    }

    fn compare_directory(
        &mut self,
        path: &[u8],
        old: Option<&TreeRecord>,
        new: Option<&TreeRecord>,
    ) {
        match (old, new) {
            (Some(old), Some(new)) => {
                compare(old, new, |was, is| self.compare_entry(path, was, is));
            }
            (Some(old), None) => old
                .iter()
                .for_each(|was| self.compare_entry(path, Some(&was), None)),
            (None, Some(new)) => new
                .iter()
                .for_each(|is| self.compare_entry(path, None, Some(&is))),
            (None, None) => {}
        }
    }

    /// Takes in one name that differs. At least one of the two entries is there.
    fn compare_entry(&mut self, parent: &[u8], was: Option<&Entry<'_>>, is: Option<&Entry<'_>>) {
        let Some(name) = was.or(is).map(|entry| entry.name) else {
            return;
        };
        let path = [parent, b"/", name].concat();
        let was_tree = was.and_then(tree_of);
        let is_tree = is.and_then(tree_of);

        // A name that is a directory on both sides is no change by itself: what differs is inside.
        if was_tree.is_none() || is_tree.is_none() {
            let change = match (was, is) {
                (None, _) => ChangeKind::Added,
                (_, None) => ChangeKind::Removed,
                _ => ChangeKind::Modified,
            };
            let commit = Some(self.commit.clone());
            self.changes.push(PathChange::new(change, &path, commit));
        }

        // What is inside is compared on the next level, also for a directory that came or went.
        if was_tree.is_some() || is_tree.is_some() {
            self.pending.push(DirectoryPair {
                path,
                was: was_tree,
                is: is_tree,
            });
        }
    }
}

fn tree_of(entry: &Entry<'_>) -> Option<Oid> {
    (entry.kind == EntryKind::Directory).then_some(entry.oid)
}

/// The record of a tree that was just asked for.
fn record(cache: &Cache, tree: Option<Oid>) -> Result<Option<TreeRecord>> {
    let Some(tree) = tree else { return Ok(None) };
    let record = cache.record(&tree);
    record.map(Some).ok_or_else(|| {
        Error::unavailable("the cache is too small for all directories that differ at once")
    })
}
