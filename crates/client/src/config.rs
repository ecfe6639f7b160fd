//! Settings of a mount. Owns defaults and their checks; read once by [`crate::mount()`].

use std::path::PathBuf;
use std::time::Duration;

pub use monofs_content::content::AddressChoice;
use monofs_model::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most FUSE threads a mount may have.
pub const THREADS_MAX: usize = 16;
/// Smallest bound of the on-disk cache: two generations with room for the records of a large
/// repository.
pub const CACHE_BYTES_MIN: u64 = 64 << 20;

/// Settings of one mount. Every field has a default except `mount`, which must be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to mount: an existing, empty directory.
    pub mount: PathBuf,
    /// `host:port` of the routers, tried in turn.
    pub routers: Vec<String>,
    /// Directory of the on-disk cache; one process at a time may use it.
    pub cache_dir: PathBuf,
    /// Bound of the on-disk cache in bytes.
    pub max_cache_bytes: u64,
    /// Deadline of one file system call: what cannot be had by then is an I/O error.
    pub rpc_timeout: Duration,
    /// Whether the on-disk cache survives from one mount to the next.
    pub keep_cache: bool,
    /// Which address of a node to use.
    pub addresses: AddressChoice,
    /// Read through the routers only, never from nodes.
    pub via_router: bool,
    /// Whether other users may look into the mount; unset: only if root mounts it.
    pub allow_other: Option<bool>,
    /// Owner of all files; unset: the user who mounts.
    pub uid: Option<u32>,
    /// Group of all files; unset: the group of the user who mounts.
    pub gid: Option<u32>,
    /// FUSE threads; unset: one for each core, at least 2, at most 4.
    pub n_threads: Option<usize>,
    /// Whether contents that were not asked for yet are fetched ahead of readers.
    pub prefetch: bool,
    /// How long the first connection to a router may delay the mount when a copy of the catalogue
    /// is in the cache.
    pub start_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mount: PathBuf::new(),
            routers: vec!["localhost:9090".to_owned()],
            cache_dir: default_cache_dir(),
            max_cache_bytes: 10 << 30,
            rpc_timeout: Duration::from_secs(10),
            keep_cache: true,
            addresses: AddressChoice::Auto,
            via_router: false,
            allow_other: None,
            uid: None,
            gid: None,
            n_threads: None,
            prefetch: true,
            start_wait: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Refuses settings that cannot work, naming the one that is wrong.
    pub fn check(&self) -> Result<()> {
        // What has no default that could be right.
        if self.mount.as_os_str().is_empty() {
            return Err(Error::invalid(
                "no mount point given; use --mount DIRECTORY",
            ));
        }
        if self.routers.is_empty() {
            return Err(Error::invalid("no router given; use --router HOST:PORT"));
        }
        if let Some(bad) = self.routers.iter().find(|router| !is_host_port(router)) {
            return Err(Error::invalid(format!(
                "router '{}' is not HOST:PORT",
                bad.escape_debug()
            )));
        }
        // Numbers that leave nothing to work with.
        if self.rpc_timeout.is_zero() {
            return Err(Error::invalid(
                "the rpc timeout is zero; give it some time, such as 10s",
            ));
        }
        if self.max_cache_bytes < CACHE_BYTES_MIN {
            return Err(Error::invalid(format!(
                "the cache bound of {} bytes is below the least useful one of {CACHE_BYTES_MIN}",
                self.max_cache_bytes
            )));
        }
        if self.n_threads.is_some_and(|n| n == 0 || n > THREADS_MAX) {
            return Err(Error::invalid(format!(
                "the number of FUSE threads must be 1 to {THREADS_MAX}"
            )));
        }
        Ok(())
    }

    /// FUSE threads to start.
    pub(crate) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        self.n_threads.unwrap_or_else(|| cores.clamp(2, 4))
    }
}

/// `$XDG_CACHE_HOME/monofs`, else `$HOME/.cache/monofs`, else `/var/cache/monofs/client`.
pub fn default_cache_dir() -> PathBuf {
    environment_path("XDG_CACHE_HOME")
        .or_else(|| environment_path("HOME").map(|home| home.join(".cache")))
        .map_or_else(
            || PathBuf::from("/var/cache/monofs/client"),
            |base| base.join("monofs"),
        )
}

fn environment_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        let good = Config {
            mount: "/mnt".into(),
            ..Config::default()
        };
        assert!(good.check().is_ok());
        let bad = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().expect_err("must be refused").message
        };
        assert!(bad(|c| c.mount = PathBuf::new()).contains("--mount"));
        assert!(bad(|c| c.routers.clear()).contains("--router"));
        assert!(bad(|c| c.routers.push("host".into())).contains("'host'"));
        assert!(bad(|c| c.rpc_timeout = Duration::ZERO).contains("timeout"));
        assert!(bad(|c| c.max_cache_bytes = 1).contains("cache"));
        assert!(bad(|c| c.n_threads = Some(0)).contains("threads"));
    }
}
