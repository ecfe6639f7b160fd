//! The names in a directory as a request needs them: or what is missing to tell them.

use std::sync::Arc;

use monofs_content::names::DirectoryNames;
use monofs_content::repo::Repo;
use monofs_content::shown::{NamedEntry, ShownTree};

use super::Fs;
use super::identity::Ino;
use crate::errno::Errno;
use crate::want::{Miss, Outcome, TimesWant, TreeWant};

impl Fs {
    /// The names in the directory that shows `shown`, or the miss of what tells them.
    pub(crate) fn names(
        &self,
        repo: &Arc<Repo>,
        shown: &ShownTree,
        directory: Ino,
    ) -> Outcome<DirectoryNames> {
        DirectoryNames::at_hand(&self.cache, shown).ok_or_else(|| {
            Miss::Tree(TreeWant {
                repo: repo.clone(),
                key: shown.key(),
                directory,
            })
        })
    }

    /// Whether the times of all names are known here; the miss of those that are not. A listing asks
    /// before it takes references to any of them.
    pub(super) fn check_times(&self, repo: &Arc<Repo>, names: &DirectoryNames) -> Outcome<()> {
        let generations = names.untimed(repo);
        match generations.is_empty() {
            true => Ok(()),
            false => Err(Miss::Times(TimesWant {
                repo: repo.clone(),
                generations,
            })),
        }
    }

    /// When a name of `names` last changed, in seconds since the epoch, or the miss of the times of
    /// all of them: their listing needs them, too.
    pub(super) fn time_of(
        &self,
        repo: &Arc<Repo>,
        named: &NamedEntry<'_>,
        names: &DirectoryNames,
    ) -> Outcome<i64> {
        let generation = named.generations.own();
        if let Some(time) = repo.time_of(generation) {
            return Ok(time);
        }
        self.check_times(repo, names)?;
        // They became known in between.
        repo.time_of(generation).ok_or_else(|| Errno::IO.into())
    }
}
