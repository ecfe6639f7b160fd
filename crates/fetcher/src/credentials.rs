//! The logins of the fetcher at each host, read from the `--credentials` file.
//!
//! ```toml
//! [hosts."git.example.org"]            # host, host:port, host/path; the longest path wins
//! user = "robot"                       # default: "git"
//! token_env = "GIT_EXAMPLE_TOKEN"      # or token_file = "/run/secrets/git", or token = "..."
//! ca_file = "/etc/ssl/private-ca.pem"  # trusted in addition for https
//!
//! [hosts."ssh.example.org"]
//! ssh_key = "/etc/monofs/id_ed25519"
//! known_hosts = "/etc/monofs/known_hosts"
//! ```
//!
//! Invariant: a secret is shown by no `Debug`, put on no command line and in no message.

mod scope;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use monofs_model::{Error, Result, SourceUrl};
use serde::Deserialize;

use scope::LoginScope;

/// Largest credentials file and largest token file accepted, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A text that never shows itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The login at one host, and the certificates and keys that are trusted there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostCredentials {
    /// The key of its table, as it was written; empty = there is none.
    #[serde(skip)]
    pub key: String,
    /// User name for http(s) and ssh.
    pub user: Option<String>,
    /// The token or password for http(s), written here; prefer `token_env` or `token_file`.
    pub token: Option<Secret>,
    /// The environment variable that holds the token.
    pub token_env: Option<String>,
    /// The file that holds the token; read at each use, so that it can be rotated.
    pub token_file: Option<PathBuf>,
    /// Private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// Host keys to accept for ssh; any other is refused.
    pub known_hosts: Option<PathBuf>,
    /// PEM certificates to trust for https in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// A user name and secret for http(s).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub token: Secret,
}

impl HostCredentials {
    /// Whether it holds a login, for messages.
    pub fn has_login(&self) -> bool {
        self.token.is_some()
            || self.token_env.is_some()
            || self.token_file.is_some()
            || self.ssh_key.is_some()
    }

    /// The login for http(s) at `source`, if there is one: the user of this entry, else the one that
    /// the source names. Errors: `Refused` when the token cannot be read.
    pub fn login(&self, source: &SourceUrl) -> Result<Option<Login>> {
        // The token stands in the entry, in the environment or in a file. The file is read at every
        // use, so that a renewed token needs no restart.
        let token = if let Some(token) = &self.token {
            token.clone()
        } else if let Some(name) = &self.token_env {
            let token = std::env::var(name).map_err(|_| {
                Error::refused(format!(
                    "credentials: the environment variable {name} is not set"
                ))
            })?;
            Secret(without_mark(&token).to_owned())
        } else if let Some(path) = &self.token_file {
            let text = read_bounded(path).map_err(|e| Error::refused(e.message))?;
            Secret(
                without_mark(&text)
                    .trim_end_matches(['\n', '\r'])
                    .to_owned(),
            )
        } else {
            return Ok(None);
        };

        // An unusable token is a mistake in the setting, say a second line in the file; the host
        // would only refuse it.
        if token.0.is_empty() || token.0.chars().any(char::is_control) {
            return Err(Error::refused(
                "credentials: the token is empty or has a control character",
            ));
        }

        // Most hosts look at the token alone, but a login needs some user.
        let named = || source.user().map(|user| user.into_owned());
        let user = self.user.clone().or_else(named);
        Ok(Some(Login {
            user: user.unwrap_or_else(|| "git".to_owned()),
            token,
        }))
    }
}

/// All credentials of a fetcher, by host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    #[serde(default)]
    hosts: BTreeMap<String, HostCredentials>,
    /// What to be where no entry is for.
    #[serde(skip)]
    nobody: HostCredentials,
}

impl Credentials {
    /// Reads a credentials file. Errors: `Invalid`, naming the file and the key, never a value.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_bounded(path)?;
        Self::parse(&text).map_err(|e| e.context(format!("credentials file {}", path.display())))
    }

    /// Parses the text of a credentials file.
    pub fn parse(text: &str) -> Result<Self> {
        let text = without_mark(text);
        let mut parsed: Self = toml::from_str(text).map_err(|e| {
            // The parser's own rendering quotes the line, which may hold a secret: name only the
            // place and the message.
            let line = e.span().map_or(0, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            Error::invalid(format!("line {line}: {}", without_value(e.message())))
        })?;
        let mut scopes = BTreeMap::new();
        for (host, entry) in &mut parsed.hosts {
            let scope = LoginScope::parse(host)?;
            if let Some(other) = scopes.insert(scope, host.clone()) {
                return Err(Error::invalid(format!(
                    "hosts '{other}' and '{host}' are the same; keep one"
                )));
            }
            entry.key.clone_from(host);
            let ways = [
                entry.token.is_some(),
                entry.token_env.is_some(),
                entry.token_file.is_some(),
            ];
            if ways.iter().filter(|given| **given).count() > 1 {
                return Err(Error::invalid(format!(
                    "host '{host}': give one of token, token_env and token_file"
                )));
            }
            if entry
                .user
                .as_deref()
                .is_some_and(|u| u.is_empty() || u.starts_with('-') || u.contains([':', '@']))
            {
                return Err(Error::invalid(format!(
                    "host '{host}': the user name is not usable"
                )));
            }
        }
        Ok(parsed)
    }

    /// Adds or replaces the entry of a host.
    pub fn insert(&mut self, host: impl ToString, mut entry: HostCredentials) {
        entry.key = host.to_string();
        self.hosts.insert(entry.key.clone(), entry);
    }

    /// What to be at `source`: the entry with the longest path that is a prefix of its path; of
    /// those, the one with its port before the one without.
    pub fn of(&self, source: &SourceUrl) -> &HostCredentials {
        let fit = self.hosts.iter().filter_map(|(key, entry)| {
            let scope = LoginScope::parse(key).ok()?;
            Some((scope.fit(source)?, entry))
        });
        fit.max_by_key(|(fit, _)| *fit)
            .map_or(&self.nobody, |(_, entry)| entry)
    }
}

/// A parser's message without the value that it complains about.
fn without_value(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    match (
        line.starts_with("invalid "),
        line.rsplit_once(", expected "),
    ) {
        (true, Some((_, expected))) => format!("a value of the wrong kind; expected {expected}"),
        _ if line.contains('"') => "is malformed".to_owned(),
        _ => line.to_owned(),
    }
}

fn read_bounded(path: &Path) -> Result<String> {
    let cannot = |e: std::io::Error| {
        Error::invalid(format!(
            "cannot read the credentials file {}: {e}",
            path.display()
        ))
    };
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > FILE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the credentials file {} is over 1 MiB",
            path.display()
        )));
    }
    std::fs::read_to_string(path).map_err(cannot)
}

/// The text without the byte order mark that some editors put in front.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_most_exact_host_wins() {
        let text = "[hosts.\"h\"]\nuser = 'a'\ntoken = 's3cret'\n[hosts.\"h:81\"]\nuser = \
         'b'\ntoken = 't'\n";
        let credentials = Credentials::parse(text).unwrap();
        let user = |url| credentials.of(&SourceUrl::new(url).unwrap()).user.clone();
        assert_eq!(user("http://h/x").as_deref(), Some("a"));
        assert_eq!(user("http://h:81/x").as_deref(), Some("b"));
        assert_eq!(user("http://other/x"), None);
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }

    #[test]
    fn a_host_is_found_however_it_is_written() {
        let text = "[hosts.\"LocalHost\"]\nuser = 'a'\n[hosts.\"[::1]\"]\nuser = \
                    'b'\n[hosts.\"[0::1]:2222\"]\nuser = 'c'\n[hosts.\"tls:443\"]\nuser = 'd'\n";
        let credentials = Credentials::parse(text).unwrap();
        for (source, user) in [
            ("http://localhost/x", Some("a")),
            ("ssh://LOCALHOST:22/x", Some("a")),
            ("git://[::1]/x", Some("b")),
            ("http://[::1]:81/x", Some("b")),
            ("[::1]:x", Some("b")),
            ("ssh://[::1]:2222/x", Some("c")),
            ("[me@::1]:x", Some("b")),
            ("https://tls/x", Some("d")),
            ("http://tls/x", None),
            ("file:///x", None),
        ] {
            let found = credentials
                .of(&SourceUrl::new(source).unwrap())
                .user
                .clone();
            assert_eq!(found.as_deref(), user, "{source}");
        }
        for bad in [
            "[hosts.\"h:99999\"]\n",
            "[hosts.\"[h]\"]\n",
            "[hosts.\"user@h\"]\n",
            "[hosts.\"https://h\"]\n",
            "[hosts.h]\n[hosts.H]\n",
        ] {
            assert!(Credentials::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_user_of_a_source_is_taken_unless_the_entry_names_one() {
        let credentials = Credentials::parse("[hosts.h]\ntoken = 't'\n").unwrap();
        let user = |url: &str| {
            let source = SourceUrl::new(url).unwrap();
            let login = credentials.of(&source).login(&source);
            login.unwrap().map(|login| login.user)
        };
        assert_eq!(user("https://org@h/x").as_deref(), Some("org"));
        assert_eq!(user("https://h/x").as_deref(), Some("git"));
        assert_eq!(user("https://other/x"), None);
    }

    #[test]
    fn a_mark_of_an_editor_is_no_part_of_a_token_or_a_file() {
        let text = "\u{feff}[hosts.h]\ntoken_file = 'TOKEN'\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}s3cret\r\n").unwrap();
        let text = text.replace("TOKEN", &file.path().display().to_string());
        let credentials = Credentials::parse(&text).unwrap();
        let source = SourceUrl::new("https://h/x").unwrap();
        let entry = credentials.of(&source);
        assert_eq!(
            entry.login(&source).unwrap().unwrap().token.reveal(),
            "s3cret"
        );
    }

    #[test]
    fn mistakes_are_named_without_showing_secrets() {
        for text in [
            "[hosts.h]\ntoken = 's3cret'\ntokn = 1\n",
            "[hosts.h]\ntoken = ['s3cret']\n",
            "[hosts.h]\ntoken = 's3cret\n",
            "[hosts.h]\ntoken = 's3cret'\ntoken_env = 'X'\n",
            "hosts = 's3cret'\n",
        ] {
            let error = Credentials::parse(text).unwrap_err();
            assert!(!error.message.contains("s3cret"), "{error}");
            assert!(!error.message.contains('\n'), "{error}");
        }
        let error = Credentials::parse("[hosts.h]\ntokn = 1\n").unwrap_err();
        assert!(
            error.message.contains("tokn") && error.message.contains("line 2"),
            "{error}"
        );
    }

    #[test]
    fn every_example_of_the_documentation_is_accepted() {
        let document = include_str!("../../../docs/credentials.md");
        let examples: Vec<&str> = document
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        assert!(examples.len() >= 2);
        let all = Credentials::parse(&examples.concat()).unwrap();
        let user = |url| all.of(&SourceUrl::new(url).unwrap()).user.clone();
        assert_eq!(
            user("https://git.example.org/a/b").as_deref(),
            Some("robot")
        );
        assert_eq!(
            user("https://git.example.org:8443/a/b").as_deref(),
            Some("other")
        );
        assert!(
            all.of(&SourceUrl::new("git@ssh.example.org:a/b").unwrap())
                .known_hosts
                .is_some()
        );
    }
}
