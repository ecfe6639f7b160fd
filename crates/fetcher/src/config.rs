//! The settings of a fetcher, as data. Every field's comment is its manual.

use std::path::PathBuf;
use std::time::Duration;

use monofs_model::{Error, Result};

use crate::credentials::Credentials;
use crate::source::{LocalFiles, OBJECT_BYTES_MAX};

/// Fetches that may run at once unless configured otherwise.
pub const FETCH_WORKERS: usize = 4;
/// Most fetches that may be configured to run at once.
pub const FETCH_WORKERS_MAX: usize = 256;

/// The settings of one fetcher.
#[derive(Debug, Clone)]
pub struct Config {
    /// The id under which routers know this fetcher.
    pub fetcher_id: String,
    /// Where fetched repositories are kept. One fetcher per directory.
    pub cache_dir: PathBuf,
    /// Bytes of disk the cache may use; the repositories used least recently go first.
    pub cache_bytes_max: u64,
    /// A repository that is not requested during this time leaves the cache.
    pub cache_age: Duration,
    /// Bytes of memory for encoded directory records.
    pub record_cache_bytes: u64,
    /// Fetches that may run at once; further ones wait.
    pub fetch_workers: usize,
    /// Bytes of the largest object that is held in memory while a pack is indexed; a pack with a
    /// larger one is handed to the installed `git`, which streams it.
    pub object_bytes_max: usize,
    /// Which login to use at which host.
    pub credentials: Credentials,
    /// Whether `file` sources are allowed: they let every user who may ingest read this
    /// host's repositories.
    pub allow_file: bool,
    /// How long to try to connect to a remote.
    pub connect_timeout: Duration,
    /// How long a remote may be silent before the fetch is given up.
    pub idle_timeout: Duration,
    /// `host:port` of the routers to register with.
    pub routers: Vec<String>,
    /// `host:port` at which nodes and routers reach this fetcher; empty = the host's name and the
    /// port it listens on.
    pub advertise: String,
    /// Announced to clients outside the private network; empty = the same as `advertise`.
    pub external_addr: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fetcher_id: "fetcher".to_owned(),
            cache_dir: PathBuf::from("/var/cache/monofs/fetcher"),
            cache_bytes_max: 50 << 30,
            cache_age: Duration::from_secs(2 * 3600),
            record_cache_bytes: 64 << 20,
            fetch_workers: FETCH_WORKERS,
            object_bytes_max: OBJECT_BYTES_MAX,
            credentials: Credentials::default(),
            allow_file: true,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            routers: Vec::new(),
            advertise: String::new(),
            external_addr: String::new(),
        }
    }
}

impl Config {
    /// What [`Config::allow_file`] says, as the source of repositories takes it.
    pub fn local_files(&self) -> LocalFiles {
        if self.allow_file {
            LocalFiles::Allowed
        } else {
            LocalFiles::Refused
        }
    }

    /// Whether the settings make sense together. Errors: `Invalid`, naming the setting.
    pub fn check(&self) -> Result<()> {
        if self.fetcher_id.is_empty() {
            return Err(Error::invalid("the fetcher id is empty; set --fetcher-id"));
        }
        if self.fetch_workers == 0 || self.fetch_workers > FETCH_WORKERS_MAX {
            return Err(Error::invalid(format!(
                "--prefetch-workers is {}; give 1 to {FETCH_WORKERS_MAX}",
                self.fetch_workers
            )));
        }
        if self.cache_bytes_max == 0 || self.cache_age.is_zero() {
            return Err(Error::invalid(
                "--max-cache-gb and --cache-age-hours must be over 0",
            ));
        }
        if self.connect_timeout.is_zero() || self.idle_timeout.is_zero() {
            return Err(Error::invalid(
                "the connect and idle timeouts must be over 0",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_nothing_was_said_about_make_sense() {
        Config::default().check().unwrap();
        assert_eq!(Config::default().local_files(), LocalFiles::Allowed);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_the_flag_to_change() {
        type Change = fn(&mut Config);
        let wrong: [(Change, &str); 7] = [
            (|c| c.fetcher_id.clear(), "--fetcher-id"),
            (|c| c.fetch_workers = 0, "--prefetch-workers"),
            (|c| c.fetch_workers = FETCH_WORKERS_MAX + 1, "1 to 256"),
            (|c| c.cache_bytes_max = 0, "--max-cache-gb"),
            (|c| c.cache_age = Duration::ZERO, "--cache-age-hours"),
            (|c| c.connect_timeout = Duration::ZERO, "timeouts"),
            (|c| c.idle_timeout = Duration::ZERO, "timeouts"),
        ];
        for (change, named) in wrong {
            let mut config = Config::default();
            change(&mut config);
            let error = config.check().unwrap_err();
            assert_eq!(error.kind, monofs_model::ErrorKind::Invalid);
            assert!(error.message.contains(named), "{error}");
        }
    }
}
