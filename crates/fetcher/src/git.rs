//! Git as a [`RemoteSource`]: gix first, the installed `git` for what gix cannot do.

pub mod advert;
mod bundle;
pub mod child;
pub mod cli;
pub mod failure;
mod gauge;
pub mod http;
pub mod ids;
mod intake;
mod ladder;
pub mod layout;
pub mod native;
pub mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use monofs_model::source::Scheme;
use monofs_model::{Error, RefName, Result, SourceUrl};

use crate::credentials::Credentials;
use crate::source::{CommitWant, FetchTask, LocalFiles, RemoteSource, ResolvedRef};
use failure::{GixVerdict, is_whole_only};
use ladder::ServerAbility;

/// Git remotes.
pub struct GitSource {
    credentials: Credentials,
    local_files: LocalFiles,
    fallbacks: AtomicU64,
}

impl GitSource {
    /// Remotes as seen with these credentials.
    pub fn new(credentials: Credentials, local_files: LocalFiles) -> Self {
        Self {
            credentials,
            local_files,
            fallbacks: AtomicU64::new(0),
        }
    }

    /// How often the installed `git` had to take over so far.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    fn check(&self, source: &SourceUrl) -> Result<()> {
        if source.scheme() == Scheme::File && self.local_files == LocalFiles::Refused {
            return Err(Error::refused(format!(
                "{source}: this fetcher does not read files of its own host (--allow-file)"
            )));
        }
        Ok(())
    }

    /// Tells the log why `git` has to do it, or returns the clear error.
    fn fall_back(
        &self,
        reason: &str,
        what: &str,
        source: &SourceUrl,
        ref_name: &RefName,
    ) -> Result<()> {
        if !cli::is_installed() {
            return Err(Error::unavailable(format!(
                "{source}: {reason}; with 'git' installed on the fetcher's host there are other ways"
            )));
        }
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%source, %ref_name, reason, "gix cannot {what} here: falling back to the \
         installed git");
        Ok(())
    }
}

impl RemoteSource for GitSource {
    fn resolve(
        &self,
        source: &SourceUrl,
        ref_name: &RefName,
        task: &Arc<FetchTask>,
    ) -> Result<ResolvedRef> {
        self.check(source)?;
        if let Some(resolved) = advert::full_commit_id(ref_name) {
            return Ok(resolved);
        }
        if bundle::path_of(source).is_some() {
            return cli::resolve(source, ref_name, &self.credentials, task);
        }
        match native::resolve(source, ref_name, &self.credentials, task) {
            Ok(resolved) => Ok(resolved),
            Err(GixVerdict::Clear(error)) => Err(error),
            Err(GixVerdict::Withheld(reason) | GixVerdict::Strange(reason)) => {
                self.fall_back(&reason, "resolve", source, ref_name)?;
                cli::resolve(source, ref_name, &self.credentials, task)
            }
        }
    }

    fn fetch(&self, want: &CommitWant<'_>, task: &Arc<FetchTask>) -> Result<()> {
        self.check(want.source)?;
        if bundle::path_of(want.source).is_some() {
            let reason = "a bundle holds whole refs";
            let ability = ServerAbility::WholeOnly;
            return ladder::climb(want, ability, reason, &self.credentials, task);
        }
        // By its id, with gix; with git where gix does not understand the server.
        let reason = match native::fetch(want, &self.credentials, task) {
            Ok(()) => return Ok(()),
            Err(GixVerdict::Clear(error)) => return Err(error),
            Err(GixVerdict::Withheld(reason)) => {
                self.fall_back(
                    &reason,
                    "fetch a commit by its id",
                    want.source,
                    want.ref_name,
                )?;
                reason
            }
            Err(GixVerdict::Strange(reason)) => {
                self.fall_back(&reason, "fetch", want.source, want.ref_name)?;
                task.set_bytes(0);
                match cli::fetch(want, &self.credentials, task) {
                    Ok(()) => return Ok(()),
                    Err(GixVerdict::Clear(error)) => return Err(error),
                    Err(GixVerdict::Withheld(reason) | GixVerdict::Strange(reason)) => reason,
                }
            }
        };
        let ability = if is_whole_only(&reason) {
            ServerAbility::WholeOnly
        } else {
            ServerAbility::Shallow
        };
        ladder::climb(want, ability, &reason, &self.credentials, task)
    }
}
