//! Directories that were retired: what the kernel knows below them is pinned to the snapshot that
//! they belong to.
//!
//! A retired directory is pinned at once, so that what is looked up in it from then on is pinned
//! too; what the kernel knew before is found here, directory by directory. A directory whose names
//! are not at hand is passed over: the retired one above it makes the whole snapshot in use, only
//! the contents below are not named.
//!
//! The kernel keeps a name, and with it the inode, until memory is short, and the inode would count
//! as in use for as long. So it is told to drop names that lead to pinned inodes below a retired
//! directory; one that is open then is forgotten when it is closed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use monofs_content::names::DirectoryNames;
use monofs_content::repo::Repo;
use monofs_content::shown::ShownTree;
use monofs_model::EntryKind;
use parking_lot::Mutex;

use super::Fs;
use super::identity::{Identity, Ino};

/// Most names that wait to be dropped; one beyond that is dropped when the kernel wants to.
const NAMES_MAX: usize = 1 << 20;

/// A directory that was taken away from lookups.
struct RetiredDirectory {
    directory: Ino,
    shown: ShownTree,
    /// What it belonged to, as all below it but for the repositories inside.
    repo: Arc<Repo>,
    /// What it belongs to.
    pinned: Arc<Repo>,
}

/// What is to be done about retired directories.
#[derive(Default)]
pub(super) struct RetiredDirectories {
    /// Those that were not looked into yet.
    pending: Mutex<Vec<RetiredDirectory>>,
    /// Names of pinned inodes that the kernel is to drop, each with its directory.
    names: Mutex<HashSet<(Ino, Box<[u8]>)>>,
}

impl RetiredDirectories {
    /// The kernel was told a name that leads to a pinned inode, or knows it from before.
    pub fn note_name(&self, directory: Ino, name: &[u8]) {
        let mut names = self.names.lock();
        if names.len() < NAMES_MAX {
            names.insert((directory, name.into()));
        }
    }
}

impl Fs {
    /// Retires a directory, or what else has a name above repositories (`pinned` is `None` there).
    pub(super) fn retire(&self, ino: Ino, pinned: Option<&Arc<Repo>>) {
        let showed = self.repo_and_shown_of(ino);
        self.inodes.retire(ino, pinned);
        if let Some((repo, shown)) = showed
            && let Some(pinned) = pinned
        {
            self.retired.pending.lock().push(RetiredDirectory {
                directory: ino,
                shown,
                repo,
                pinned: pinned.clone(),
            });
        }
    }

    /// Pins what the kernel knows below the directories that were retired since the last call.
    pub fn pin_retired(&self) {
        let mut pending = std::mem::take(&mut *self.retired.pending.lock());
        while let Some(retired) = pending.pop() {
            let Some(names) = DirectoryNames::at_hand(&self.cache, &retired.shown) else {
                continue;
            };
            // Without lookups meanwhile: what one registers in a directory is found below, or the
            // directory is pinned by then.
            let _still = self.world_mut();
            for named in names.iter() {
                let entry = named.entry;
                let found = self.inodes.find(Identity::entry(retired.directory, &named));
                let Some(ino) = found.filter(|ino| self.belongs_to(*ino, &retired.repo)) else {
                    continue;
                };
                self.inodes.pin(ino, &retired.pinned);
                self.retired.note_name(retired.directory, entry.name);
                if entry.kind == EntryKind::Directory {
                    pending.push(RetiredDirectory {
                        directory: ino,
                        shown: named.shown(),
                        repo: retired.repo.clone(),
                        pinned: retired.pinned.clone(),
                    });
                }
            }
        }
    }

    /// The names of pinned inodes that the kernel learned or knew since the last call, and is to
    /// drop, by directory.
    pub fn take_retired_names(&self) -> BTreeMap<Ino, Vec<Box<[u8]>>> {
        let names = std::mem::take(&mut *self.retired.names.lock());
        let mut by_directory: BTreeMap<Ino, Vec<Box<[u8]>>> = BTreeMap::new();
        for (directory, name) in names {
            by_directory.entry(directory).or_default().push(name);
        }
        by_directory
    }
}
