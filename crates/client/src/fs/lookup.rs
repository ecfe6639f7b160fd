//! Names and attributes.

use std::sync::Arc;

use monofs_model::limits::NAME_BYTES_MAX;
use monofs_model::tree::Entry;
use monofs_model::{EntryKind, Oid};

use super::Fs;
use super::attr::{DIRECTORY_BYTES, InodeAttr, LookupAnswer, NameTrust};
use super::control::CONTROL_NAME;
use super::identity::{CONTROL, Identity, Ino, ROOT};
use super::inode::{Inode, InodeTarget};
use super::namespace::{NamespaceChild, join};
use crate::errno::Errno;
use crate::evidence::NameKind;
use crate::repo::Repo;
use crate::want::Outcome;

/// Where a directory's names come from.
pub(super) enum NameSource {
    /// The hidden one, whose names [`super::control`] makes without the switch lock.
    Control,
    /// Above repositories, by path.
    Namespace(Arc<str>),
    /// In a repository: the tree and its version.
    Tree {
        repo: Arc<Repo>,
        tree: Oid,
        version: u32,
    },
    /// A submodule: always empty.
    Submodule,
}

impl Fs {
    /// What `name` in the directory `parent` is. Takes one reference to the inode in the answer.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Outcome<LookupAnswer> {
        if name.len() > NAME_BYTES_MAX {
            // The kernel itself lets four times as much through.
            return Err(Errno::NAMETOOLONG.into());
        }
        if parent == CONTROL {
            return Ok(self.lookup_control(name));
        }
        let world = self.world();
        match self.directory(parent)? {
            NameSource::Control | NameSource::Submodule => Ok(LookupAnswer::Nothing),
            NameSource::Namespace(_) if parent == ROOT && name == CONTROL_NAME => {
                let attr = self.getattr(CONTROL)?;
                Ok(LookupAnswer::Inode(attr, NameTrust::Forever))
            }
            NameSource::Namespace(path) => {
                let child = world.listing(&path).and_then(|listing| listing.find(name));
                match child {
                    Some(child) => {
                        let attr = self.remember_child(parent, &path, name, child)?;
                        Ok(LookupAnswer::Inode(attr, NameTrust::Forever))
                    }
                    None => Ok(LookupAnswer::Nothing),
                }
            }
            NameSource::Tree { repo, tree, .. } => {
                let record = self.record(&repo, &tree, parent)?;
                let entry = record.find(name);
                if let Some(joined) = self.joined(&world, parent, &repo)
                    && let Some(child) = joined.child(name, entry.as_ref())
                {
                    let attr = self.remember_child(parent, &joined.path, name, child)?;
                    return Ok(LookupAnswer::Inode(attr, NameTrust::Forever));
                }
                match entry {
                    Some(entry) => Ok(LookupAnswer::Inode(
                        self.remember_entry(parent, &repo, &entry)?,
                        NameTrust::Forever,
                    )),
                    None => Ok(LookupAnswer::Nothing),
                }
            }
        }
    }

    /// The attributes of an inode that the kernel holds.
    pub fn getattr(&self, ino: Ino) -> Outcome<InodeAttr> {
        Ok(self
            .inodes
            .with(ino, |inode| inode.attr(ino))
            .ok_or(Errno::STALE)?)
    }

    /// What kind of directory `ino` is. Errors: `ENOTDIR`, `ESTALE`.
    pub(super) fn directory(&self, ino: Ino) -> Outcome<NameSource> {
        let found = self.inodes.with(ino, |inode| match &inode.what {
            InodeTarget::Control => Ok(NameSource::Control),
            InodeTarget::Namespace(path) => Ok(NameSource::Namespace(path.clone())),
            InodeTarget::Entry {
                kind: EntryKind::Directory,
                oid,
                repo,
            } => Ok(NameSource::Tree {
                repo: repo.clone(),
                tree: *oid,
                version: inode.version,
            }),
            InodeTarget::Entry {
                kind: EntryKind::Submodule,
                ..
            } => Ok(NameSource::Submodule),
            InodeTarget::Document(_) | InodeTarget::Entry { .. } => Err(Errno::NOTDIR),
        });
        Ok(found.ok_or(Errno::STALE)??)
    }

    /// Registers an entry of a repository's directory and takes one reference to it.
    pub(super) fn remember_entry(
        &self,
        parent: Ino,
        repo: &Arc<Repo>,
        entry: &Entry<'_>,
    ) -> Outcome<InodeAttr> {
        let identity = Identity::entry(parent, entry.name, entry.kind, &entry.oid);
        let attr = self.inodes.remember(
            identity,
            Some(repo),
            |inode| inode.what.is_entry(entry),
            || new_entry(identity, parent, repo, entry),
        );
        if repo.is_pinned() {
            self.retired.note_name(parent, entry.name);
        }
        Ok(attr.ok_or(Errno::IO)?)
    }

    /// Registers an entry of a directory as it was before a switch, in the snapshot of `repo`. What
    /// the entry is now, and of which repository, is told by `current`.
    pub(super) fn remember_past_entry(
        &self,
        parent: Ino,
        repo: &Arc<Repo>,
        entry: &Entry<'_>,
        current: Option<(&Arc<Repo>, &Entry<'_>)>,
    ) -> Outcome<InodeAttr> {
        match current {
            Some((shown, current))
                if current.kind == entry.kind
                    && (entry.kind == EntryKind::Directory || current.oid == entry.oid) =>
            {
                self.remember_entry(parent, shown, current)
            }
            _ if entry.kind == EntryKind::Directory => {
                let identity = Identity::directory(parent, entry.name);
                let attr = self
                    .inodes
                    .remember_retired(identity, || new_entry(identity, parent, repo, entry));
                self.retired.note_name(parent, entry.name);
                Ok(attr.ok_or(Errno::IO)?)
            }
            _ => self.remember_entry(parent, repo, entry),
        }
    }

    /// Registers a name above repositories and takes one reference to it.
    pub(super) fn remember_child(
        &self,
        parent: Ino,
        path: &str,
        name: &[u8],
        child: &NamespaceChild,
    ) -> Outcome<InodeAttr> {
        let identity = Identity::directory(parent, name);
        let attr = self.inodes.remember(
            identity,
            None,
            |inode| is_child(&inode.what, child),
            || self.new_child(identity, parent, path, name, child),
        );
        Ok(attr.ok_or(Errno::IO)?)
    }

    fn new_child(
        &self,
        identity: Identity,
        parent: Ino,
        path: &str,
        name: &[u8],
        child: &NamespaceChild,
    ) -> Inode {
        let (what, mtime) = match child {
            NamespaceChild::Directory => {
                let path = join(path, &String::from_utf8_lossy(name));
                (InodeTarget::Namespace(path.into()), self.now())
            }
            NamespaceChild::Repository(repo) => {
                let root = InodeTarget::Entry {
                    kind: EntryKind::Directory,
                    oid: repo.root(),
                    repo: repo.clone(),
                };
                (root, repo.commit_time())
            }
        };
        Inode::new(identity, parent, what, DIRECTORY_BYTES, mtime)
    }
}

/// Whether an inode stands for what a name above repositories means.
fn is_child(what: &InodeTarget, child: &NamespaceChild) -> bool {
    match (child, what) {
        (NamespaceChild::Directory, InodeTarget::Namespace(_)) => true,
        (NamespaceChild::Repository(repo), InodeTarget::Entry { repo: have, .. }) => {
            Arc::ptr_eq(repo, have)
        }
        _ => false,
    }
}

fn new_entry(identity: Identity, parent: Ino, repo: &Arc<Repo>, entry: &Entry<'_>) -> Inode {
    let what = InodeTarget::Entry {
        kind: entry.kind,
        oid: entry.oid,
        repo: repo.clone(),
    };
    let mut inode = Inode::new(identity, parent, what, size_of(entry), repo.commit_time());
    inode.name_kind = NameKind::of(entry.name);
    inode
}

/// The size that `stat` reports for an entry.
fn size_of(entry: &Entry<'_>) -> u64 {
    if entry.kind.is_blob() {
        entry.size
    } else {
        DIRECTORY_BYTES
    }
}
