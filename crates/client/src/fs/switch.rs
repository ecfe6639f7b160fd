//! Changes of state: repositories come and go, and a repository's commit is replaced by another (a
//! flip).
//!
//! A flip compares the directories that the kernel knows, old tree against new, and touches nothing
//! else: a directory the kernel has no inode for cannot have a cached name below it. All
//! directories are switched in one step under the write side of the switch lock; what the kernel
//! must be told comes back as a list, to be sent afterwards by a thread that holds no lock. Until
//! then the kernel may show the old names, which lead to the old bytes; after it, only the new
//! ones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use monofs_model::tree::Entry;
use monofs_model::{EntryKind, Oid, Repository, TreeRecord};

use super::Fs;
use super::identity::{Identity, Ino, ROOT};
use super::inode::InodeTarget;
use super::namespace::join;
use crate::repo::{Repo, snapshot_of};

/// What the kernel must be told about one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    pub directory: Ino,
    /// Names that were added, removed or lead to another inode now.
    pub names: Vec<Box<[u8]>>,
}

/// The effect of a flip.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FlipEffect {
    pub invalidations: Vec<Invalidation>,
    /// Names that cannot be listed changed too: the kernel must drop all it knows.
    pub drop_all_names: bool,
}

/// Records that a flip needs and that are not here, all of one repository.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MissingRecords {
    /// Of the new snapshot.
    pub new: Vec<Oid>,
    /// Of the old snapshot; replicas may have dropped them.
    pub old: Vec<Oid>,
}

/// One directory to be switched.
struct DirectorySwitch {
    directory: Ino,
    tree: Oid,
    names: Vec<Box<[u8]>>,
}

/// All that a flip changes.
#[derive(Default)]
struct FlipPlan {
    changes: Vec<DirectorySwitch>,
    retired: Vec<Ino>,
    /// Roots of repositories inside this one whose names it has now, with what they showed; and
    /// directories that led to such.
    shadowed: Vec<(Ino, Option<Arc<Repo>>)>,
    /// Files and symlinks that were replaced: they stay readable and belong to the old snapshot.
    replaced: Vec<Identity>,
    drop_all_names: bool,
    /// Known directories that are still to be compared, each with the tree that it is to show.
    pending: Vec<(Ino, Oid)>,
}

impl Fs {
    /// Tells the clock to directories above repositories.
    pub fn set_now(&self, now: i64) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// The repository at `path`.
    pub fn repo(&self, path: &str) -> Option<Arc<Repo>> {
        self.world().repo(path).cloned()
    }

    /// The paths of all repositories.
    pub fn paths(&self) -> Vec<String> {
        self.world()
            .repos()
            .map(|repo| repo.path().to_owned())
            .collect()
    }

    /// Shows `added` and stops showing what is at the paths `removed`.
    pub fn change_repositories(
        &self,
        added: Vec<Arc<Repo>>,
        removed: &[String],
    ) -> Vec<Invalidation> {
        let mut world = self.world_mut();
        let gone: HashMap<&String, Arc<Repo>> = removed
            .iter()
            .filter_map(|path| Some((path, world.repo(path)?.clone())))
            .collect();
        let changes = world.change(added, removed);

        // What the kernel knows of the names that changed.
        let mut invalidations: Vec<Invalidation> = Vec::new();
        let mut retired = Vec::new();
        for change in changes {
            let Some(directory) = self.known(&change.parent) else {
                continue;
            };
            if change.retired
                && let Some(ino) = self
                    .inodes
                    .find(Identity::directory(directory, change.name.as_bytes()))
            {
                let gone = gone.get(&join(&change.parent, &change.name));
                // In a repository the name may lead to a directory of its own, which stays.
                let is_of_it = match gone {
                    Some(repo) => self.belongs_to(ino, repo),
                    None => self.is_above_repositories(ino),
                };
                if is_of_it {
                    retired.push((ino, gone.map(|repo| repo.pinned())));
                }
            }
            let name = change.name.as_bytes().into();
            match invalidations
                .last_mut()
                .filter(|last| last.directory == directory)
            {
                Some(last) => last.names.push(name),
                None => invalidations.push(Invalidation {
                    directory,
                    names: vec![name],
                }),
            }
        }
        // Only now: a retired directory is not found by its path, and its children were looked for
        // through it.
        retired
            .iter()
            .for_each(|(ino, pinned)| self.retire(*ino, pinned.as_ref()));
        invalidations
            .iter()
            .for_each(|change| self.inodes.touch(change.directory, self.now()));
        invalidations
    }

    /// Serves `entry` instead of what `repo` serves now, in one step, if all records needed for
    /// that are here. Old records that are `lost` for good are done without.
    pub fn try_flip(
        &self,
        repo: &Arc<Repo>,
        entry: &Arc<Repository>,
        lost: &HashSet<Oid>,
    ) -> Result<FlipEffect, MissingRecords> {
        let mut world = self.world_mut();
        let old = repo.entry();
        let new = snapshot_of(entry);
        // Where a repository around it has the name, the inode is of that one.
        let root = self.known(old.path.as_str());
        let plan = match root.filter(|root| self.belongs_to(*root, repo)) {
            Some(root) => self.plan(repo, root, new.root, lost)?,
            None => FlipPlan::default(),
        };

        // All that is needed is here: from now on everything is switched.
        let pinned = repo.pinned();
        for change in &plan.changes {
            let mtime = (!change.names.is_empty()).then_some(new.commit_time);
            self.inodes
                .switch_directory(change.directory, change.tree, &pinned, mtime);
        }
        plan.retired
            .iter()
            .for_each(|ino| self.retire(*ino, Some(&pinned)));
        plan.shadowed
            .iter()
            .for_each(|(ino, showed)| self.retire(*ino, showed.as_ref()));
        plan.replaced
            .iter()
            .filter_map(|id| self.inodes.find(*id))
            .for_each(|ino| self.inodes.pin(ino, &pinned));
        world.set(repo, entry.clone());
        let changed = plan
            .changes
            .into_iter()
            .filter(|change| !change.names.is_empty());
        let invalidations = changed
            .map(|c| Invalidation {
                directory: c.directory,
                names: c.names,
            })
            .collect();
        Ok(FlipEffect {
            invalidations,
            drop_all_names: plan.drop_all_names,
        })
    }

    /// The inode of a directory above or at a repository's root, if the kernel knows it.
    fn known(&self, path: &str) -> Option<Ino> {
        let mut components = path.split('/').filter(|name| !name.is_empty());
        components.try_fold(ROOT, |parent, name| {
            self.inodes
                .find(Identity::directory(parent, name.as_bytes()))
        })
    }

    fn is_above_repositories(&self, ino: Ino) -> bool {
        let is_above = |what: &InodeTarget| matches!(what, InodeTarget::Namespace(_));
        let is_above = self.inodes.with(ino, |inode| is_above(&inode.what));
        is_above.unwrap_or(false)
    }

    /// What changes when the directory `root` of `repo` and all known ones below it come to show
    /// the tree `new_root`.
    fn plan(
        &self,
        repo: &Arc<Repo>,
        root: Ino,
        new_root: Oid,
        lost: &HashSet<Oid>,
    ) -> Result<FlipPlan, MissingRecords> {
        let mut plan = FlipPlan::default();
        let mut missing = MissingRecords::default();
        plan.pending.push((root, new_root));
        while let Some((directory, new)) = plan.pending.pop() {
            let Some(old) = self.tree_of(directory).filter(|old| *old != new) else {
                continue;
            };
            let is_lost = lost.contains(&old);
            let old_record = self.cache.record(&old);
            let new_record = self.cache.record(&new);
            if old_record.is_none() && !is_lost {
                missing.old.push(old);
            }
            if new_record.is_none() {
                missing.new.push(new);
            }
            let Some(new_record) = new_record else {
                continue;
            };
            let mut change = DirectorySwitch {
                directory,
                tree: new,
                names: Vec::new(),
            };
            match &old_record {
                Some(old_record) => compare(old_record, &new_record, |was, is| {
                    self.plan_entry(repo, was, is, &mut change, &mut plan);
                }),
                // Names that are gone cannot be listed, so the kernel must drop all it knows.
                None if is_lost => {
                    plan.drop_all_names = true;
                    for entry in new_record.iter() {
                        self.plan_entry(repo, None, Some(&entry), &mut change, &mut plan);
                    }
                }
                None => continue,
            }
            plan.changes.push(change);
        }
        if missing == MissingRecords::default() {
            Ok(plan)
        } else {
            Err(missing)
        }
    }

    /// Plans for one name of a directory, before and after. At least one of the two is there, and
    /// they differ.
    fn plan_entry(
        &self,
        repo: &Arc<Repo>,
        was: Option<&Entry<'_>>,
        is: Option<&Entry<'_>>,
        change: &mut DirectorySwitch,
        plan: &mut FlipPlan,
    ) {
        let Some(name) = was.or(is).map(|entry| entry.name) else {
            return;
        };
        let directory = change.directory;
        let below = self.inodes.find(Identity::directory(directory, name));
        // What leads to a repository inside this one: it stays, until this one has the name.
        let joined = below.filter(|below| !self.belongs_to(*below, repo));
        if let Some(joined) = joined {
            if is.is_none_or(|is| is.kind == EntryKind::Submodule) {
                return;
            }
            let showed = self.repo_and_tree_of(joined);
            plan.shadowed
                .push((joined, showed.map(|(inner, _)| inner.pinned())));
            change.names.push(name.into());
            return;
        }
        let was_directory = was.is_some_and(is_directory);
        if let Some(is) = is.filter(|is| is_directory(is))
            && let Some(below) = below
            && (was_directory || was.is_none())
        {
            // The name leads to the same inode; only what is below it may differ.
            plan.pending.push((below, is.oid));
            if was_directory {
                return;
            }
        } else if was_directory && is.is_some_and(is_directory) {
            // The kernel does not know the directory.
            return;
        } else if let Some(was) = was {
            match below {
                Some(below) if was_directory => plan.retired.push(below),
                _ => plan
                    .replaced
                    .push(Identity::entry(directory, name, was.kind, &was.oid)),
            }
        }
        change.names.push(name.into());
    }
}

fn is_directory(entry: &Entry<'_>) -> bool {
    entry.kind == EntryKind::Directory
}

/// Calls `differ` for each name whose entry is not the same in both.
pub(crate) fn compare(
    old: &TreeRecord,
    new: &TreeRecord,
    mut differ: impl FnMut(Option<&Entry<'_>>, Option<&Entry<'_>>),
) {
    let mut old = old.iter().peekable();
    let mut new = new.iter().peekable();
    loop {
        // Both are sorted by name.
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(was), Some(is)) => was.name.cmp(is.name),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        let is_same = match (&was, &is) {
            (Some(was), Some(is)) => was.kind == is.kind && was.oid == is.oid,
            _ => false,
        };
        if !is_same {
            differ(was.as_ref(), is.as_ref());
        }
    }
}
