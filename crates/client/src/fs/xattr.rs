//! Extended attributes: where an entry comes from.
//!
//! | name | value |
//! |---|---|
//! | `user.monofs.oid` | object id of the file, symlink or directory; of a submodule, the commit |
//! | `user.monofs.commit` | commit that is shown |
//! | `user.monofs.repo` | display path of the repository |
//! | `user.monofs.source` | URL it comes from |
//! | `user.monofs.submodule` | of a submodule: `<url>@<commit>`; without a known URL `@<commit>` |
//!
//! Directories above repositories have none. In a repository each is answered by its name, but only
//! the root lists them: tools that copy attributes copy what is listed, and would write these to
//! every copy, or fail where attributes cannot be written.

use std::sync::Arc;

use monofs_content::repo::{Repo, snapshot_of};
use monofs_model::{EntryKind, Oid, Repository};

use super::Fs;
use super::identity::{Identity, Ino, SLOTS};
use super::inode::InodeTarget;
use crate::errno::Errno;
use crate::want::Outcome;

const OID: &[u8] = b"user.monofs.oid";
const COMMIT: &[u8] = b"user.monofs.commit";
const REPO: &[u8] = b"user.monofs.repo";
const SOURCE: &[u8] = b"user.monofs.source";
const SUBMODULE: &[u8] = b"user.monofs.submodule";

struct XattrSubject {
    kind: EntryKind,
    oid: Oid,
    repo: Arc<Repo>,
}

impl Fs {
    /// The value of an extended attribute. Errors: `ENODATA`.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Outcome<Vec<u8>> {
        // Everything else a program may ask for (ACLs, capabilities, labels) is answered without
        // looking.
        if !name.starts_with(b"user.monofs.") {
            return Err(Errno::NODATA.into());
        }
        let subject = self.subject(ino)?.ok_or(Errno::NODATA)?;
        match name {
            OID => Ok(subject.oid.to_string().into_bytes()),
            COMMIT => Ok(snapshot_of(&self.entry_of(ino, &subject.repo))
                .commit
                .to_string()
                .into_bytes()),
            REPO => Ok(subject.repo.entry().path.as_str().as_bytes().to_vec()),
            SOURCE => Ok(subject.repo.entry().source.to_string().into_bytes()),
            SUBMODULE if subject.kind == EntryKind::Submodule => {
                let path = self.path_in_repo(ino)?;
                let entry = self.entry_of(ino, &subject.repo);
                let module = snapshot_of(&entry)
                    .submodules
                    .iter()
                    .find(|module| module.path == path);
                Ok(format!(
                    "{}@{}",
                    module.map_or("", |module| &module.url),
                    subject.oid
                )
                .into_bytes())
            }
            _ => Err(Errno::NODATA.into()),
        }
    }

    /// The names of the extended attributes that an inode lists, each with a NUL after it.
    pub fn listxattr(&self, ino: Ino) -> Outcome<Vec<u8>> {
        let mut list = Vec::new();
        if self.is_root_of_repository(ino)? {
            for name in [OID, COMMIT, REPO, SOURCE] {
                list.extend_from_slice(name);
                list.push(0);
            }
        }
        Ok(list)
    }

    /// Whether a repository begins at this inode. Errors: `ESTALE`.
    fn is_root_of_repository(&self, ino: Ino) -> Outcome<bool> {
        let Some(subject) = self.subject(ino)? else {
            return Ok(false);
        };
        let parent = self.inodes.with(ino, |inode| inode.parent);
        Ok(!self.belongs_to(parent.ok_or(Errno::STALE)?, &subject.repo))
    }

    fn subject(&self, ino: Ino) -> Outcome<Option<XattrSubject>> {
        let subject = self.inodes.with(ino, |inode| match &inode.what {
            InodeTarget::Entry {
                kind, oid, repo, ..
            } => Some(XattrSubject {
                kind: *kind,
                oid: *oid,
                repo: repo.clone(),
            }),
            _ => None,
        });
        Ok(subject.ok_or(Errno::STALE)?)
    }

    /// The catalogue entry an inode belongs to: the one being served, unless it or a directory
    /// above it was replaced.
    fn entry_of(&self, ino: Ino, repo: &Arc<Repo>) -> Arc<Repository> {
        let mut at = ino;
        while let Some((parent, pinned)) = self
            .inodes
            .with(at, |inode| (inode.parent, inode.pinned().cloned()))
        {
            if let Some(pinned) = pinned {
                return pinned.entry();
            }
            if parent == at || !self.belongs_to(parent, repo) {
                break;
            }
            at = parent;
        }
        repo.entry()
    }

    /// The path of an entry below its repository's root. Names are not kept with inodes, so each
    /// directory above is asked for the name that leads down.
    pub(crate) fn path_in_repo(&self, ino: Ino) -> Outcome<Vec<u8>> {
        // From the entry up to the repository's root.
        let mut names: Vec<Vec<u8>> = Vec::new();
        let own = self.subject(ino)?.ok_or(Errno::NODATA)?.repo;
        let mut at = ino;
        loop {
            let (parent, check) = self
                .inodes
                .with(at, |inode| (inode.parent, inode.check()))
                .ok_or(Errno::STALE)?;
            let above = self.inodes.with(parent, |inode| match &inode.what {
                InodeTarget::Entry { repo, .. } => Some((inode.shown()?, repo.clone())),
                _ => None,
            });
            // Above the root there may be another repository.
            let above = above.ok_or(Errno::STALE)?;
            let Some((shown, repo)) = above.filter(|(_, repo)| Arc::ptr_eq(repo, &own)) else {
                break;
            };
            let listed = self.names(&repo, &shown, parent)?;
            let identity = Identity {
                base: at & !(SLOTS - 1),
                check,
            };
            let name = listed
                .iter()
                .find(|named| Identity::entry(parent, named) == identity);
            names.push(name.ok_or(Errno::NODATA)?.entry.name.to_vec());
            at = parent;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }
}
