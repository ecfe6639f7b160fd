//! `git daemon`.

use std::path::Path;

use super::server::{git_exec, start};
use crate::process::Process;

/// Serves every repository below a directory as `git://`.
pub struct GitDaemon {
    port: u16,
    _process: Process,
}

impl GitDaemon {
    /// Serves the repositories below `base`.
    #[track_caller]
    pub fn serve(base: &Path) -> Self {
        let (process, port) = start(&git_exec("git-daemon"), |port| {
            let v6 = super::server::has_ipv6().then(|| "--listen=::1".into());
            let mut args = vec![
                "--reuseaddr".into(),
                "--listen=127.0.0.1".into(),
                format!("--port={port}").into(),
                "--export-all".into(),
                "--informative-errors".into(),
                format!("--base-path={}", base.display()).into(),
                base.into(),
            ];
            args.splice(1..1, v6);
            args
        });
        Self {
            port,
            _process: process,
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a repository, named relative to the base.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}
