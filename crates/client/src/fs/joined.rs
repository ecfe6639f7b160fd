//! Repositories inside a repository: names that its directories get besides their own.
//!
//! Invariant: a repository's own names win, a submodule's empty directory aside. So when an update
//! of the outer repository brings a name, what lies there is shown no more from that flip on, and
//! again when the name goes; nothing has to be told for that but the flip.

use std::sync::Arc;

use monofs_content::repo::Repo;
use monofs_model::EntryKind;
use monofs_model::tree::Entry;

use super::Fs;
use super::identity::{Identity, Ino, SLOTS};
use super::inode::InodeTarget;
use super::namespace::{Namespace, NamespaceChild, NamespaceListing, join};

/// The names that lead to repositories inside a repository, in one of its directories.
pub(super) struct JoinedNames<'a> {
    /// The path of the directory from the root of the mount down.
    pub path: String,
    pub listing: &'a Arc<NamespaceListing>,
}

impl<'a> JoinedNames<'a> {
    /// What `name` leads to, where the directory's own `entry` of that name leaves room for it.
    pub fn child(&self, name: &[u8], entry: Option<&Entry<'_>>) -> Option<&'a NamespaceChild> {
        let is_free = self.is_free(entry);
        is_free.then(|| self.listing.find(name)).flatten()
    }

    /// Whether a directory that has this `entry` leaves its name to a repository inside.
    pub fn is_free(&self, entry: Option<&Entry<'_>>) -> bool {
        entry.is_none_or(|entry| entry.kind == EntryKind::Submodule)
    }
}

impl Fs {
    /// The names joined into the directory `ino` of `repo`; `None` when there are none.
    pub(super) fn joined<'a>(
        &self,
        world: &'a Namespace,
        ino: Ino,
        repo: &Arc<Repo>,
    ) -> Option<JoinedNames<'a>> {
        // A directory that was replaced has no place for them.
        if repo.is_pinned() {
            return None;
        }
        // Of most repositories that is all.
        let mut listing = world.listing(repo.path())?;
        let mut path = repo.path().to_owned();

        // From the directory up to the root of its repository.
        let mut way = Vec::new();
        let mut at = ino;
        loop {
            let (parent, check) = self
                .inodes
                .with(at, |inode| (inode.parent, inode.check()))?;
            if parent == at || !self.belongs_to(parent, repo) {
                break;
            }
            let base = at & !(SLOTS - 1);
            way.push((parent, Identity { base, check }));
            at = parent;
        }

        // And down again by the names that lead to repositories: inodes do not know theirs.
        for (parent, identity) in way.into_iter().rev() {
            let mut names = listing.from(0).map(|(name, _)| name);
            let name =
                names.find(|name| Identity::directory(parent, name.as_bytes()) == identity)?;
            path = join(&path, name);
            listing = world.listing(&path)?;
        }
        Some(JoinedNames { path, listing })
    }

    /// Whether an inode is of this repository.
    pub(super) fn belongs_to(&self, ino: Ino, repo: &Arc<Repo>) -> bool {
        let is_of = self.inodes.with(ino, |inode| match &inode.what {
            InodeTarget::Entry { repo: have, .. } => Arc::ptr_eq(have, repo),
            _ => false,
        });
        is_of.unwrap_or(false)
    }
}
