//! nginx in front of git-http-backend: `http`, with a login if wanted, and `https`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::certs::Authority;
use super::server::{git_exec, server_env, start};
use crate::process::Process;
use crate::wait::wait_until;

/// What the server asks for.
#[derive(Default)]
pub struct HttpOptions<'a> {
    /// User and password of basic authentication.
    pub login: Option<(&'a str, &'a str)>,
    /// Serves https with this authority's certificate.
    pub authority: Option<&'a Authority>,
    /// Hides what clients say about the protocol version, as old servers do: they get version 0.
    pub old_protocol: bool,
    /// Serves the files of the repositories and runs no program of Git ("dumb http").
    pub plain_files: bool,
}

/// The server.
pub struct HttpRemote {
    port: u16,
    tls: bool,
    dir: tempfile::TempDir,
    _nginx: Process,
    _fcgiwrap: Process,
}

impl HttpRemote {
    /// Serves the repositories below `base`.
    #[track_caller]
    pub fn serve(base: &Path, options: &HttpOptions<'_>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Git's own program runs behind a socket, as nginx cannot start programs.
        let socket = dir.path().join("fcgi.sock");
        let fcgiwrap = Process::spawn_with(
            crate::wait::require("fcgiwrap"),
            ["-s".to_owned(), format!("unix:{}", socket.display())],
            server_env(),
        );
        wait_until("fcgiwrap listens", Duration::from_secs(20), || {
            socket.exists()
        });
        if let Some((user, password)) = options.login {
            let line = format!("{user}:{}\n", hashed(password));
            std::fs::write(dir.path().join("htpasswd"), line).expect("write the passwords");
        }
        let config = dir.path().join("nginx.conf");
        let (nginx, port) = start(&crate::wait::require("nginx"), |port| {
            std::fs::write(
                &config,
                configuration(port, base, dir.path(), &socket, options),
            )
            .expect("write nginx.conf");
            let error_log = dir.path().join("error.log");
            vec![
                "-c".into(),
                config.clone().into(),
                "-p".into(),
                dir.path().into(),
                "-e".into(),
                error_log.into(),
            ]
        });
        Self {
            port,
            tls: options.authority.is_some(),
            dir,
            _nginx: nginx,
            _fcgiwrap: fcgiwrap,
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a repository, named relative to the base.
    pub fn url(&self, name: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}/{name}", self.port)
    }

    /// The server's log of requests.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }

    /// Where the server's files are.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

/// The text of nginx.conf. Everything that nginx writes goes to `dir`, and it runs as one process:
/// as workers of another user it could not read the repositories of the test.
fn configuration(
    port: u16,
    base: &Path,
    dir: &Path,
    socket: &Path,
    options: &HttpOptions<'_>,
) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let mut text = String::from("daemon off;\nmaster_process off;\n");
    add_line(
        &mut text,
        format_args!("pid {};\nerror_log {};", at("nginx.pid"), at("error.log")),
    );
    add_line(
        &mut text,
        format_args!(
            "events {{ worker_connections 64; }}\nhttp {{\naccess_log {};",
            at("access.log")
        ),
    );
    for kind in ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"] {
        add_line(&mut text, format_args!("{kind}_temp_path {};", at(kind)));
    }
    // The server: where it listens, and with which certificate.
    let ssl = if options.authority.is_some() {
        " ssl"
    } else {
        ""
    };
    add_line(
        &mut text,
        format_args!("server {{\nlisten 127.0.0.1:{port}{ssl};\nclient_max_body_size 0;"),
    );
    if super::server::has_ipv6() {
        add_line(&mut text, format_args!("listen [::1]:{port}{ssl};"));
    }
    if let Some(authority) = options.authority {
        add_line(
            &mut text,
            format_args!("ssl_certificate {};", authority.certificate().display()),
        );
        add_line(
            &mut text,
            format_args!("ssl_certificate_key {};", authority.key().display()),
        );
    }
    add_locations(&mut text, base, &at("htpasswd"), socket, options);
    add_line(&mut text, format_args!("}}\n}}\n}}"));
    text
}

/// What is served at which path, up to the brace that ends the last location.
fn add_locations(
    text: &mut String,
    base: &Path,
    logins: &str,
    socket: &Path,
    options: &HttpOptions<'_>,
) {
    // Everything goes to Git, after a login if one is wanted; what has moved is redirected first.
    add_line(
        text,
        format_args!("location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}"),
    );
    add_line(text, format_args!("location / {{"));
    if options.login.is_some() {
        add_line(
            text,
            format_args!("auth_basic test;\nauth_basic_user_file {logins};"),
        );
    }
    if options.plain_files {
        add_line(text, format_args!("root {};", base.display()));
        return;
    }
    add_line(
        text,
        format_args!(
            "fastcgi_pass unix:{};\nfastcgi_buffering off;",
            socket.display()
        ),
    );
    for (name, value) in backend_variables(base, options) {
        add_line(text, format_args!("fastcgi_param {name} \"{value}\";"));
    }
}

fn add_line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "{words}").expect("a String takes everything");
}

/// What git-http-backend reads from its environment; names with a dollar are nginx's own.
fn backend_variables(base: &Path, options: &HttpOptions<'_>) -> [(&'static str, String); 14] {
    let backend = git_exec("git-http-backend");
    let version = if options.old_protocol {
        ""
    } else {
        "$http_git_protocol"
    };
    [
        ("SCRIPT_FILENAME", backend.display().to_string()),
        ("GIT_PROJECT_ROOT", base.display().to_string()),
        ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
        ("GIT_PROTOCOL", version.to_owned()),
        ("PATH_INFO", "$uri".to_owned()),
        ("QUERY_STRING", "$query_string".to_owned()),
        ("REQUEST_METHOD", "$request_method".to_owned()),
        ("CONTENT_TYPE", "$content_type".to_owned()),
        ("CONTENT_LENGTH", "$content_length".to_owned()),
        ("HTTP_CONTENT_ENCODING", "$http_content_encoding".to_owned()),
        ("REMOTE_USER", "$remote_user".to_owned()),
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "safe.directory".to_owned()),
        ("GIT_CONFIG_VALUE_0", "*".to_owned()),
    ]
}

/// A password as nginx compares it.
#[track_caller]
fn hashed(password: &str) -> String {
    // Not as an argument: tests look for passwords there.
    let mut command = Command::new(crate::wait::require("openssl"));
    command.args(["passwd", "-apr1", "-stdin"]);
    let out = crate::git::output(&mut command, format!("{password}\n").as_bytes());
    String::from_utf8_lossy(&out).trim().to_owned()
}
