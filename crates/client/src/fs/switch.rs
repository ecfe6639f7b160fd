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

use monofs_content::names::DirectoryNames;
use monofs_content::repo::{Repo, snapshot_of};
use monofs_content::shown::{DirectoryKey, NamedEntry, ShownTree};
use monofs_content::times::{LateRun, ShownTimes};
use monofs_model::tree::Entry;
use monofs_model::{EntryKind, Oid, Repository, TreeRecord};

use super::Fs;
use super::identity::{Identity, Ino, ROOT};
use super::inode::InodeTarget;
use super::namespace::join;

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

/// What a flip needs and is not here, all of one repository.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MissingRecords {
    /// Of the new snapshot.
    pub new: Vec<DirectoryKey>,
    /// Of the old snapshot; replicas may have dropped them.
    pub old: Vec<DirectoryKey>,
    /// Generations of the new snapshot whose times are needed.
    pub times: Vec<u64>,
}

/// What a flip shows, and what is known about it.
pub struct FlipTarget<'a> {
    pub entry: &'a Arc<Repository>,
    /// What it takes of the old snapshot and is lost for good: these are done without.
    pub lost: &'a HashSet<Oid>,
    /// If it is shown late: the generations that come to be shown, and when.
    pub late: Option<LateRun>,
}

/// One directory to be switched.
struct DirectorySwitch {
    directory: Ino,
    shown: ShownTree,
    names: Vec<Box<[u8]>>,
    /// When its own names last changed, if that is another time than before.
    mtime: Option<i64>,
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
    /// Known directories that are still to be compared, each with what it is to show.
    pending: Vec<(Ino, ShownTree)>,
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

    /// Serves the entry of `target` instead of what `repo` serves now, in one step, if all that is
    /// needed for that is here.
    pub fn try_flip(
        &self,
        repo: &Arc<Repo>,
        target: &FlipTarget<'_>,
    ) -> Result<FlipEffect, MissingRecords> {
        let mut world = self.world_mut();
        let old = repo.entry();
        let new = snapshot_of(target.entry);
        let planning = FlipPlanning {
            fs: self,
            repo,
            target,
            times: ShownTimes::of(target.entry, new),
        };
        // Where a repository around it has the name, the inode is of that one.
        let root = self.known(old.path.as_str());
        let plan = match root.filter(|root| self.belongs_to(*root, repo)) {
            Some(root) => planning.plan(root, ShownTree::root_of(new))?,
            None => FlipPlan::default(),
        };

        // All that is needed is here: from now on everything is switched.
        let pinned = repo.pinned();
        for change in &plan.changes {
            self.inodes
                .switch_directory(change.directory, change.shown, &pinned, change.mtime);
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
        // The time of what was shown last is told by no entry from now on.
        let shown_last = repo.shown_times().last_told();
        repo.learn_times(|known| {
            shown_last
                .iter()
                .for_each(|(generation, time)| known.learn(*generation, *time));
            if old.generation > target.entry.generation {
                known.forget_after(target.entry.generation);
            }
            target.late.iter().for_each(|run| known.add_late(*run));
        });
        world.set(repo, target.entry.clone());
        let changed = plan
            .changes
            .into_iter()
            .filter(|change| !change.names.is_empty() || change.mtime.is_some());
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
}

/// Works out what a flip changes.
struct FlipPlanning<'a> {
    fs: &'a Fs,
    repo: &'a Arc<Repo>,
    target: &'a FlipTarget<'a>,
    /// What the new entry tells.
    times: ShownTimes,
}

impl FlipPlanning<'_> {
    /// What changes when the directory `root` of the repository and all known ones below it come to
    /// show `new_root`.
    fn plan(&self, root: Ino, new_root: ShownTree) -> Result<FlipPlan, MissingRecords> {
        let mut plan = FlipPlan::default();
        let mut missing = MissingRecords::default();
        plan.pending.push((root, new_root));
        while let Some((directory, new)) = plan.pending.pop() {
            let shown = self.fs.shown_of(directory);
            let Some(old) = shown.filter(|old| *old != new) else {
                continue;
            };
            let old_key = old.key();
            let old_node_lost = old_key
                .node
                .is_some_and(|id| self.target.lost.contains(&id));
            let is_lost = self.target.lost.contains(&old.tree) || old_node_lost;
            let old_names = DirectoryNames::at_hand(&self.fs.cache, &old);
            let new_names = DirectoryNames::at_hand(&self.fs.cache, &new);
            if old_names.is_none() && !is_lost {
                missing.old.push(old_key);
            }
            let time = self.time_of(new.generations.own());
            if time.is_none() {
                missing.times.push(new.generations.own());
            }
            let Some(new_names) = new_names else {
                missing.new.push(new.key());
                continue;
            };
            let mut change = DirectorySwitch {
                directory,
                shown: new,
                names: Vec::new(),
                mtime: None,
            };
            match &old_names {
                Some(old_names) => compare_names(old_names, &new_names, |was, is| {
                    self.plan_entry(was, is, &mut change, &mut plan);
                }),
                // Names that are gone cannot be listed, so the kernel must drop all it knows.
                None if is_lost => {
                    plan.drop_all_names = true;
                    for named in new_names.iter() {
                        self.plan_entry(None, Some(&named), &mut change, &mut plan);
                    }
                }
                None => continue,
            }
            let own_changed = old.generations.own() != new.generations.own();
            if own_changed || !change.names.is_empty() {
                change.mtime = time;
            }
            plan.changes.push(change);
        }
        if missing == MissingRecords::default() {
            Ok(plan)
        } else {
            Err(missing)
        }
    }

    /// When a generation of the new snapshot is said to have been.
    fn time_of(&self, generation: u64) -> Option<i64> {
        let late = self.target.late;
        let late = late.filter(|run| (run.first..=run.last).contains(&generation));
        late.map(|run| run.shown_at)
            .or_else(|| self.repo.time_with(&self.times, generation))
    }

    /// Plans for one name of a directory, before and after. At least one of the two is there, and
    /// they differ.
    fn plan_entry(
        &self,
        was: Option<&NamedEntry<'_>>,
        is: Option<&NamedEntry<'_>>,
        change: &mut DirectorySwitch,
        plan: &mut FlipPlan,
    ) {
        let Some(name) = was.or(is).map(|named| named.entry.name) else {
            return;
        };
        let directory = change.directory;
        let below = self.fs.inodes.find(Identity::directory(directory, name));
        // What leads to a repository inside this one: it stays, until this one has the name.
        let joined = below.filter(|below| !self.fs.belongs_to(*below, self.repo));
        if let Some(joined) = joined {
            if is.is_none_or(|is| is.entry.kind == EntryKind::Submodule) {
                return;
            }
            let showed = self.fs.repo_and_shown_of(joined);
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
            plan.pending.push((below, is.shown()));
            if was_directory {
                return;
            }
        } else if was_directory && is.is_some_and(is_directory) {
            // The kernel does not know the directory.
            return;
        } else if let Some(was) = was {
            match below {
                Some(below) if was_directory => plan.retired.push(below),
                _ => plan.replaced.push(Identity::entry(directory, was)),
            }
        }
        change.names.push(name.into());
    }
}

fn is_directory(named: &NamedEntry<'_>) -> bool {
    named.entry.kind == EntryKind::Directory
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

/// Calls `differ` for each name whose entry, or when it last changed, is not the same in both.
fn compare_names(
    old: &DirectoryNames,
    new: &DirectoryNames,
    mut differ: impl FnMut(Option<&NamedEntry<'_>>, Option<&NamedEntry<'_>>),
) {
    let mut old = old.iter().peekable();
    let mut new = new.iter().peekable();
    loop {
        // Both are sorted by name.
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(was), Some(is)) => was.entry.name.cmp(is.entry.name),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        let is_same = match (&was, &is) {
            (Some(was), Some(is)) => was.entry.kind == is.entry.kind && was.shown() == is.shown(),
            _ => false,
        };
        if !is_same {
            differ(was.as_ref(), is.as_ref());
        }
    }
}
