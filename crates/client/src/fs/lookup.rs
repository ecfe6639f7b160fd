//! Names and attributes.

use std::sync::Arc;

use monofs_content::evidence::NameKind;
use monofs_content::repo::Repo;
use monofs_content::shown::{NamedEntry, ShownTree};
use monofs_model::EntryKind;
use monofs_model::limits::NAME_BYTES_MAX;
use monofs_model::tree::Entry;

use super::Fs;
use super::attr::{DIRECTORY_BYTES, InodeAttr, LookupAnswer, NameTrust};
use super::control::CONTROL_NAME;
use super::identity::{CONTROL, Identity, Ino, ROOT};
use super::inode::{Inode, InodeTarget};
use super::namespace::{NamespaceChild, join};
use crate::errno::Errno;
use crate::want::{Miss, Outcome, TimesWant};

/// Where a directory's names come from.
pub(super) enum NameSource {
    /// The hidden one, whose names [`super::control`] makes without the switch lock.
    Control,
    /// Above repositories, by path.
    Namespace(Arc<str>),
    /// In a repository: what is shown, and its version.
    Tree {
        repo: Arc<Repo>,
        shown: ShownTree,
        version: u32,
    },
    /// A submodule: always empty.
    Submodule,
}

/// An entry of a directory, and when it last changed, in seconds since the epoch.
pub(super) struct TimedEntry<'a> {
    pub named: NamedEntry<'a>,
    pub mtime: i64,
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
            NameSource::Tree { repo, shown, .. } => {
                let names = self.names(&repo, &shown, parent)?;
                let named = names.find(name);
                if let Some(joined) = self.joined(&world, parent, &repo)
                    && let Some(child) = joined.child(name, named.as_ref().map(|own| &own.entry))
                {
                    let attr = self.remember_child(parent, &joined.path, name, child)?;
                    return Ok(LookupAnswer::Inode(attr, NameTrust::Forever));
                }
                let Some(named) = named else {
                    return Ok(LookupAnswer::Nothing);
                };
                let mtime = self.time_of(&repo, &named, &names)?;
                let attr = self.remember_entry(parent, &repo, &named, mtime)?;
                Ok(LookupAnswer::Inode(attr, NameTrust::Forever))
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
                repo,
                ..
            } => Ok(NameSource::Tree {
                repo: repo.clone(),
                shown: inode.shown().expect("it is a directory of a repository"),
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

    /// Registers an entry of a repository's directory, which last changed at `mtime`, and takes one
    /// reference to it.
    pub(super) fn remember_entry(
        &self,
        parent: Ino,
        repo: &Arc<Repo>,
        named: &NamedEntry<'_>,
        mtime: i64,
    ) -> Outcome<InodeAttr> {
        let identity = Identity::entry(parent, named);
        let attr = self.inodes.remember(
            identity,
            Some(repo),
            |inode| inode.is_entry(named),
            || new_entry(identity, parent, repo, named, mtime),
        );
        if repo.is_pinned() {
            self.retired.note_name(parent, named.entry.name);
        }
        Ok(attr.ok_or(Errno::IO)?)
    }

    /// Registers an entry of a directory as it was before a switch, in the snapshot of `repo`. What
    /// the entry is now, and of which repository, is told by `current`.
    pub(super) fn remember_past_entry(
        &self,
        parent: Ino,
        repo: &Arc<Repo>,
        past: TimedEntry<'_>,
        current: Option<(&Arc<Repo>, TimedEntry<'_>)>,
    ) -> Outcome<InodeAttr> {
        let TimedEntry { named, mtime } = past;
        match current {
            Some((shown, current)) if leads_to_same(&current.named, &named) => {
                self.remember_entry(parent, shown, &current.named, current.mtime)
            }
            _ if named.entry.kind == EntryKind::Directory => {
                let identity = Identity::directory(parent, named.entry.name);
                let attr = self.inodes.remember_retired(identity, || {
                    new_entry(identity, parent, repo, &named, mtime)
                });
                self.retired.note_name(parent, named.entry.name);
                Ok(attr.ok_or(Errno::IO)?)
            }
            _ => self.remember_entry(parent, repo, &named, mtime),
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
        // A new root directory needs to know when its names last changed.
        let mtime = match child {
            NamespaceChild::Directory => self.now(),
            NamespaceChild::Repository(repo) => root_time(repo)?,
        };
        let attr = self.inodes.remember(
            identity,
            None,
            |inode| is_child(&inode.what, child),
            || new_child(identity, parent, &join_name(path, name), child, mtime),
        );
        Ok(attr.ok_or(Errno::IO)?)
    }
}

/// Whether two entries of one name lead to the same inode: a directory stays one whatever it shows.
fn leads_to_same(current: &NamedEntry<'_>, past: &NamedEntry<'_>) -> bool {
    let is_directory = current.entry.kind == EntryKind::Directory;
    let is_same = current.entry.kind == past.entry.kind;
    is_same && (is_directory || current.shown() == past.shown())
}

/// When the names in a repository's root directory last changed.
fn root_time(repo: &Arc<Repo>) -> Outcome<i64> {
    let generation = repo.root().generations.own();
    repo.time_of(generation).ok_or_else(|| {
        Miss::Times(TimesWant {
            repo: repo.clone(),
            generations: vec![generation],
        })
    })
}

fn join_name(path: &str, name: &[u8]) -> String {
    join(path, &String::from_utf8_lossy(name))
}

/// An inode for a name above repositories; `path`: where it is.
fn new_child(
    identity: Identity,
    parent: Ino,
    path: &str,
    child: &NamespaceChild,
    mtime: i64,
) -> Inode {
    // A directory above repositories is known by its path alone, a repository by the entry of its
    // root.
    match child {
        NamespaceChild::Directory => {
            let what = InodeTarget::Namespace(path.into());
            Inode::new(identity, parent, what, DIRECTORY_BYTES, mtime)
        }
        NamespaceChild::Repository(repo) => {
            let shown = repo.root();
            let root = NamedEntry {
                entry: Entry {
                    name: b"",
                    kind: EntryKind::Directory,
                    oid: shown.tree,
                    size: 0,
                },
                generations: shown.generations,
            };
            let what = InodeTarget::entry(&root, repo);
            Inode::new(identity, parent, what, DIRECTORY_BYTES, mtime)
                .with_generations(&shown.generations)
        }
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

fn new_entry(
    identity: Identity,
    parent: Ino,
    repo: &Arc<Repo>,
    named: &NamedEntry<'_>,
    mtime: i64,
) -> Inode {
    let what = InodeTarget::entry(named, repo);
    let mut inode = Inode::new(identity, parent, what, size_of(&named.entry), mtime);
    inode.name_kind = NameKind::of(named.entry.name);
    match named.entry.kind {
        EntryKind::Directory => inode.with_generations(&named.generations),
        _ => inode,
    }
}

/// The size that `stat` reports for an entry.
fn size_of(entry: &Entry<'_>) -> u64 {
    if entry.kind.is_blob() {
        entry.size
    } else {
        DIRECTORY_BYTES
    }
}
