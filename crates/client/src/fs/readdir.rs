//! Directory listings.
//!
//! A position in a listing is `version << 32 | index`: which version of the directory is being
//! listed, and how far. A listing that began before a switch goes on in the version it began with;
//! its names are then not to be trusted by the kernel beyond this listing. Index 0 is `.`, 1 is
//! `..`. Names of repositories inside a repository come after those of its directory: their index is
//! [`JOINED`], then seven bits of the version of their own listing, then how far.

use std::sync::Arc;

use monofs_content::names::DirectoryNames;
use monofs_content::repo::Repo;
use monofs_content::shown::NamedEntry;

use super::Fs;
use super::attr::{FileKind, InodeAttr, NameTrust};
use super::control::{DocumentName, STATUS_NAME};
use super::identity::{CONTROL, Identity, Ino, ROOT};
use super::joined::JoinedNames;
use super::lookup::{NameSource, TimedEntry};
use super::namespace::{Namespace, at_short_version, at_version};
use crate::errno::Errno;
use crate::want::Outcome;

/// `.` and `..` come before the names.
const DOTS: u64 = 2;
/// The bit of an index that names of repositories inside a repository have.
const JOINED: u64 = 1 << 31;
/// Where the version of their listing is in such an index, and how many versions are told apart.
const JOINED_VERSION_AT: u32 = 24;
const JOINED_VERSIONS: u64 = 1 << 7;
/// Version of a directory whose names never change.
const ONLY_VERSION: u32 = 1;

/// What a listing tells of each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingMode {
    /// Its number and kind.
    Names,
    /// Its attributes too. One reference is taken to each inode that the sink accepts.
    WithAttributes,
}

/// One name of a listing.
#[derive(Debug)]
pub struct DirItem<'a> {
    pub name: &'a [u8],
    pub ino: Ino,
    pub kind: FileKind,
    /// The position after this name.
    pub next: u64,
    /// With [`ListingMode::WithAttributes`]: the attributes, and how long the name may be believed.
    /// Never for `.` and `..`.
    pub attr: Option<(InodeAttr, NameTrust)>,
}

/// Takes names until it says that it is full; the name it refuses was not taken.
pub trait DirSink {
    /// True: full, `item` was not taken.
    fn is_full_for(&mut self, item: &DirItem<'_>) -> bool;
}

impl<F: FnMut(&DirItem<'_>) -> bool> DirSink for F {
    fn is_full_for(&mut self, item: &DirItem<'_>) -> bool {
        self(item)
    }
}

impl Fs {
    /// Lists the directory `ino` from `position` on.
    pub fn readdir(
        &self,
        ino: Ino,
        position: u64,
        mode: ListingMode,
        sink: &mut dyn DirSink,
    ) -> Outcome<()> {
        let version = (position >> 32) as u32;
        let listing = ListingCall {
            fs: self,
            ino,
            mode,
            index: position & u64::from(u32::MAX),
        };
        if ino == CONTROL {
            return listing.control(sink);
        }
        let world = self.world();
        match self.directory(ino)? {
            NameSource::Control | NameSource::Submodule => {
                listing.dots(ONLY_VERSION, sink).map(|_| ())
            }
            NameSource::Namespace(path) => listing.namespace(&world, &path, version, sink),
            NameSource::Tree {
                repo,
                shown,
                version: current,
            } => {
                let now = self.names(&repo, &shown, ino)?;
                let joined = self.joined(&world, ino, &repo);
                if position == 0 || version == current {
                    let view = DirectoryView {
                        names: &now,
                        version: current,
                        now: None,
                        joined,
                    };
                    return listing.tree(&repo, &view, sink);
                }
                // The directory was switched since this listing began.
                let past = self
                    .inodes
                    .with(ino, |inode| inode.past(version))
                    .flatten()
                    .ok_or(Errno::STALE)?;
                let names = self.names(&past.pinned, &past.shown, ino)?;
                let view = DirectoryView {
                    names: &names,
                    version,
                    now: Some(CurrentNames { repo, names: now }),
                    joined,
                };
                listing.tree(&past.pinned, &view, sink)
            }
        }
    }
}

/// A repository's directory as it is being listed.
struct DirectoryView<'a> {
    names: &'a DirectoryNames,
    version: u32,
    /// What the names lead to now when `names` are earlier ones.
    now: Option<CurrentNames>,
    /// What leads to repositories inside this one.
    joined: Option<JoinedNames<'a>>,
}

/// What the names in a directory lead to now.
struct CurrentNames {
    repo: Arc<Repo>,
    names: DirectoryNames,
}

/// One call of [`Fs::readdir`].
struct ListingCall<'a> {
    fs: &'a Fs,
    ino: Ino,
    mode: ListingMode,
    /// Index of the first name to tell.
    index: u64,
}

impl ListingCall<'_> {
    /// Tells `.` and `..`. Returns the index of the first name, or `None` when the sink is full.
    fn dots(&self, version: u32, sink: &mut dyn DirSink) -> Outcome<Option<u64>> {
        let parent = self
            .fs
            .inodes
            .with(self.ino, |inode| inode.parent)
            .ok_or(Errno::STALE)?;
        // The parent of the root is the root.
        for (index, name, ino) in [(0u64, &b"."[..], self.ino), (1, b"..", parent)] {
            if index < self.index {
                continue;
            }
            let item = DirItem {
                name,
                ino,
                kind: FileKind::Directory,
                next: position_at(version, index + 1),
                attr: None,
            };
            if sink.is_full_for(&item) {
                return Ok(None);
            }
        }
        Ok(Some(self.index.saturating_sub(DOTS)))
    }

    /// Tells the names in the hidden directory: one, of a document that is made for this call.
    fn control(&self, sink: &mut dyn DirSink) -> Outcome<()> {
        if self.dots(ONLY_VERSION, sink)? == Some(0) {
            let attr = match self.mode {
                ListingMode::Names => None,
                ListingMode::WithAttributes => {
                    Some((self.fs.new_document(DocumentName::Status), NameTrust::Once))
                }
            };
            // Its number is another at each lookup; the kernel asks again for the real one.
            self.offer(
                Identity::directory(CONTROL, STATUS_NAME),
                STATUS_NAME,
                FileKind::File,
                position_at(ONLY_VERSION, DOTS + 1),
                attr,
                sink,
            );
        }
        Ok(())
    }

    /// Tells the names in a directory above repositories.
    fn namespace(
        &self,
        world: &Namespace,
        path: &str,
        version: u32,
        sink: &mut dyn DirSink,
    ) -> Outcome<()> {
        let Some(current) = world.listing(path) else {
            // Still open, but no repository is below it any more.
            debug_assert!(self.ino != ROOT || world.totals().repositories == 0);
            return self.dots(ONLY_VERSION, sink).map(|_| ());
        };
        // A listing that began in an earlier version goes on in it.
        let is_current = self.index == 0 || version == current.version;
        let (listing, trust) = if is_current {
            (current.clone(), NameTrust::Forever)
        } else {
            let past = at_version(current, version).ok_or(Errno::STALE)?;
            (past, NameTrust::Once)
        };
        let Some(start) = self.dots(listing.version, sink)? else {
            return Ok(());
        };
        for (n, (name, child)) in listing.from(start as usize).enumerate() {
            let name = name.as_bytes();
            let attr = match self.mode {
                ListingMode::Names => None,
                ListingMode::WithAttributes => {
                    Some((self.fs.remember_child(self.ino, path, name, child)?, trust))
                }
            };
            let is_full = self.offer(
                Identity::directory(self.ino, name),
                name,
                FileKind::Directory,
                position_at(listing.version, DOTS + start + n as u64 + 1),
                attr,
                sink,
            );
            if is_full {
                break;
            }
        }
        Ok(())
    }

    /// Tells the names in a repository's directory, and then those that lead to repositories inside
    /// it.
    fn tree(
        &self,
        repo: &Arc<Repo>,
        view: &DirectoryView<'_>,
        sink: &mut dyn DirSink,
    ) -> Outcome<()> {
        let DirectoryView {
            names,
            version,
            now,
            joined,
        } = view;
        // Before a reference is taken, or a name told.
        if self.mode == ListingMode::WithAttributes {
            self.fs.check_times(repo, names)?;
            if let Some(now) = now {
                self.fs.check_times(&now.repo, &now.names)?;
            }
        }
        let Some(start) = self.dots(*version, sink)? else {
            return Ok(());
        };
        if self.index & JOINED != 0 {
            return self.joined(view, sink);
        }
        for (n, named) in names.iter().enumerate().skip(start as usize) {
            let entry = named.entry;
            let joined_instead =
                |joined: &JoinedNames<'_>| joined.child(entry.name, Some(&entry)).is_some();
            if joined.as_ref().is_some_and(joined_instead) {
                continue;
            }
            let attr = match self.mode {
                ListingMode::Names => None,
                ListingMode::WithAttributes => {
                    Some(self.attributes(repo, names, &named, now.as_ref())?)
                }
            };
            let is_full = self.offer(
                Identity::entry(self.ino, &named),
                entry.name,
                FileKind::from(entry.kind),
                position_at(*version, DOTS + n as u64 + 1),
                attr,
                sink,
            );
            if is_full {
                return Ok(());
            }
        }
        self.joined(view, sink)
    }

    /// Tells the names that lead to repositories inside this one, as far as the directory has none
    /// of them itself. A listing of them that began in an earlier version goes on in it.
    fn joined(&self, view: &DirectoryView<'_>, sink: &mut dyn DirSink) -> Outcome<()> {
        let Some(joined) = &view.joined else {
            return Ok(());
        };

        // The position says where the listing goes on, and in which version of the joined names it
        // began; a version that is not kept any more ends it.
        let place = self.index & (JOINED - 1);
        let (listing, start) = match self.index & JOINED {
            0 => (joined.listing.clone(), 0),
            _ => {
                let version = place >> JOINED_VERSION_AT;
                let past = at_short_version(joined.listing, version, JOINED_VERSIONS);
                let start = place & ((1 << JOINED_VERSION_AT) - 1);
                (past.ok_or(Errno::STALE)?, start)
            }
        };

        // The kernel may keep what is current; names of a past version are good for this answer
        // only.
        let is_current = view.now.is_none() && listing.version == joined.listing.version;
        let trust = if is_current {
            NameTrust::Forever
        } else {
            NameTrust::Once
        };
        let short = u64::from(listing.version) % JOINED_VERSIONS;

        // A name that the directory has itself is left out, since a repository inside gets free
        // names only.
        for (n, (name, child)) in listing.from(start as usize).enumerate() {
            let name = name.as_bytes();
            if !joined.is_free(view.names.record.find(name).as_ref()) {
                continue;
            }
            let attr = match self.mode {
                ListingMode::Names => None,
                ListingMode::WithAttributes => {
                    let attr = self
                        .fs
                        .remember_child(self.ino, &joined.path, name, child)?;
                    Some((attr, trust))
                }
            };
            let next = JOINED | short << JOINED_VERSION_AT | (start + n as u64 + 1);
            let is_full = self.offer(
                Identity::directory(self.ino, name),
                name,
                FileKind::Directory,
                position_at(view.version, next),
                attr,
                sink,
            );
            if is_full {
                break;
            }
        }
        Ok(())
    }

    /// The attributes of one of `names`, and how long it may be believed.
    fn attributes(
        &self,
        repo: &Arc<Repo>,
        names: &DirectoryNames,
        named: &NamedEntry<'_>,
        now: Option<&CurrentNames>,
    ) -> Outcome<(InodeAttr, NameTrust)> {
        let fs = self.fs;
        let mtime = fs.time_of(repo, named, names)?;
        let Some(now) = now else {
            let attr = fs.remember_entry(self.ino, repo, named, mtime)?;
            return Ok((attr, NameTrust::Forever));
        };
        // In an earlier version, names lead to what they lead to now, if they still do.
        let current = match now.names.find(named.entry.name) {
            Some(named) => {
                let mtime = fs.time_of(&now.repo, &named, &now.names)?;
                Some((&now.repo, TimedEntry { named, mtime }))
            }
            None => None,
        };
        let past = TimedEntry {
            named: *named,
            mtime,
        };
        let attr = fs.remember_past_entry(self.ino, repo, past, current)?;
        Ok((attr, NameTrust::Once))
    }

    /// Gives one name to the sink. True: it is full, and the reference that was taken is given
    /// back.
    fn offer(
        &self,
        identity: Identity,
        name: &[u8],
        kind: FileKind,
        next: u64,
        attr: Option<(InodeAttr, NameTrust)>,
        sink: &mut dyn DirSink,
    ) -> bool {
        let ino = attr.map_or_else(|| self.fs.inodes.number(identity), |(attr, _)| attr.ino);
        let is_full = sink.is_full_for(&DirItem {
            name,
            ino,
            kind,
            next,
            attr,
        });
        if let (true, Some((attr, _))) = (is_full, attr) {
            self.fs.inodes.forget(attr.ino, 1);
        }
        is_full
    }
}

/// The position of a name in a listing.
fn position_at(version: u32, index: u64) -> u64 {
    u64::from(version) << 32 | index
}
