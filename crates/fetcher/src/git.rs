//! Git as a [`RemoteSource`]: gix first, the installed `git` for what gix cannot do.

pub mod advert;
pub mod child;
pub mod cli;
pub mod failure;
mod gauge;
pub mod ids;
mod intake;
pub mod layout;
pub mod native;
pub mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use monofs_model::source::Scheme;
use monofs_model::{Error, RefName, Result, SourceUrl};

use crate::credentials::Credentials;
use crate::source::{CommitWant, FetchTask, LocalFiles, RemoteSource, ResolvedRef};
use failure::{GixVerdict, RemoteRequest};

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
        verdict: GixVerdict,
        what: &str,
        source: &SourceUrl,
        ref_name: &RefName,
    ) -> Result<()> {
        match verdict {
            GixVerdict::Clear(error) => Err(error),
            GixVerdict::Strange(reason) => {
                let asked = RemoteRequest {
                    source,
                    ref_name,
                    commit: None,
                    has_login: false,
                };
                if !cli::is_installed() {
                    return Err(GixVerdict::Strange(reason).into_error(&asked));
                }
                self.fallbacks.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%source, %ref_name, reason, "gix cannot {what} here: falling back \
                 to the installed git");
                Ok(())
            }
        }
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
        match native::resolve(source, ref_name, &self.credentials, task) {
            Ok(resolved) => Ok(resolved),
            Err(verdict) => {
                self.fall_back(verdict, "resolve", source, ref_name)?;
                cli::resolve(source, ref_name, &self.credentials, task)
            }
        }
    }

    fn fetch(&self, want: &CommitWant<'_>, task: &Arc<FetchTask>) -> Result<()> {
        self.check(want.source)?;
        match native::fetch(want, &self.credentials, task) {
            Ok(()) => Ok(()),
            Err(verdict) => {
                self.fall_back(verdict, "fetch", want.source, want.ref_name)?;
                task.set_bytes(0);
                cli::fetch(want, &self.credentials, task)
            }
        }
    }
}
