//! An sshd of our own: its keys, its settings, and one user key that may log in as the user of the
//! test.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::start;
use crate::process::Process;

/// The server.
pub struct SshRemote {
    port: u16,
    user: String,
    base: PathBuf,
    dir: tempfile::TempDir,
    process: Process,
}

impl SshRemote {
    /// Gives the current user `ssh` access; `base` is where URLs are relative to.
    #[track_caller]
    pub fn serve(base: &Path) -> Self {
        Self::serve_with(base, "GIT_PROTOCOL")
    }

    /// Like [`SshRemote::serve`], but as an old server that knows only protocol version 0.
    #[track_caller]
    pub fn serve_old(base: &Path) -> Self {
        Self::serve_with(base, "NOTHING")
    }

    /// `accepted` is the variable that the server takes from clients: Git asks for a newer protocol
    /// with one.
    #[track_caller]
    fn serve_with(base: &Path, accepted: &str) -> Self {
        // The server's key, one that may log in, and one that may not.
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        for key in ["host_key", "user_key", "stranger_key"] {
            run(
                "ssh-keygen",
                &[
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-f",
                    &at(key).display().to_string(),
                ],
            );
        }
        std::fs::copy(at("user_key.pub"), at("authorized_keys")).expect("authorize the key");
        // It serves as the user of the test, on a port of its own.
        let user = run("id", &["-un"]);
        if user == "root" {
            // sshd as root wants this directory for its unprivileged half.
            std::fs::create_dir_all("/run/sshd").expect("create /run/sshd");
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let config = at("sshd_config");
        let (process, port) = start(&crate::wait::require("sshd"), |port| {
            let v6 = if super::server::has_ipv6() {
                format!("ListenAddress [::1]:{port}\n")
            } else {
                String::new()
            };
            let text = format!(
                "ListenAddress 127.0.0.1:{port}\n{v6}HostKey {}\nAuthorizedKeysFile {}\nPidFile \
                 none\nStrictModes no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nUsePAM no\n\
                 AcceptEnv {}\nLogLevel VERBOSE\nSetEnv PATH={path} GIT_CONFIG_NOSYSTEM=1\n",
                at("host_key").display(),
                at("authorized_keys").display(),
                accepted,
            );
            std::fs::write(&config, text).expect("write sshd_config");
            vec!["-D".into(), "-e".into(), "-f".into(), config.clone().into()]
        });
        // What a client that knows the server has on file, and one that was told another key.
        let host_key = std::fs::read_to_string(at("host_key.pub")).expect("the host's public key");
        let other_key =
            std::fs::read_to_string(at("stranger_key.pub")).expect("a stranger's public key");
        let names = format!("[127.0.0.1]:{port},[::1]:{port}");
        std::fs::write(at("known_hosts"), format!("{names} {host_key}"))
            .expect("write known_hosts");
        std::fs::write(at("wrong_hosts"), format!("{names} {other_key}"))
            .expect("write known_hosts");
        Self {
            port,
            user,
            base: base.to_owned(),
            dir,
            process,
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who may log in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The URL of a repository, named relative to the base.
    pub fn url(&self, name: &str) -> String {
        format!(
            "ssh://{}@127.0.0.1:{}{}/{name}",
            self.user,
            self.port,
            self.base.display()
        )
    }

    /// A private key that may log in.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("user_key")
    }

    /// A private key that may not.
    pub fn stranger_key(&self) -> PathBuf {
        self.dir.path().join("stranger_key")
    }

    /// The server's host key, as `known_hosts`.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// Another key under the server's name, as `known_hosts`.
    pub fn wrong_hosts(&self) -> PathBuf {
        self.dir.path().join("wrong_hosts")
    }

    /// What the server said.
    pub fn log(&self) -> Vec<String> {
        self.process.log()
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(crate::wait::require(program))
        .args(args)
        .output()
        .expect("run a program");
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}
