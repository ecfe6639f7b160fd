//! Where a repository comes from: source URLs and ref names, checked before any of them reaches a
//! Git implementation.
//!
//! Invariant: a [`SourceUrl`] never starts with `-`, has a known scheme, carries no credentials and
//! no `..` segment; a [`RefName`] never starts with `-` and follows `git check-ref-format`. So
//! neither can become an option of a command.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits::{REF_BYTES_MAX, SOURCE_BYTES_MAX};
use crate::path::DisplayPath;

/// How a source is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Https,
    Http,
    Ssh,
    Git,
    File,
}

/// The URL of a Git remote: `https`, `http`, `ssh` (also `user@host:path`), `git` or `file` (also
/// an absolute path).
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceUrl {
    url: String,
    scheme: Scheme,
}

impl SourceUrl {
    /// Checks and normalises (`/path` -> `file:///path`, `user@host:path` ->
    /// `ssh://user@host/path`).
    pub fn new(text: &str) -> Result<Self> {
        let wrong =
            |why: &str| Error::invalid(format!("source '{}': {why}", redact(text).escape_debug()));
        if text.is_empty() || text.len() > SOURCE_BYTES_MAX {
            return Err(wrong("is empty or longer than 2048 bytes"));
        }
        if text.starts_with('-') {
            return Err(wrong("looks like an option; give a URL"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("has white space or a control character"));
        }
        // As Git has it: letters of a scheme, then two colons. An IPv6 address has them behind a
        // bracket.
        let scheme_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if text.split_once(':').is_some_and(|(helper, rest)| {
            rest.starts_with(':') && helper.chars().all(scheme_letter)
        }) {
            return Err(wrong("remote helpers such as 'ext::' are not allowed"));
        }
        let (scheme, url) = if text.starts_with('/') {
            (Scheme::File, format!("file://{text}"))
        } else if let Some((scheme, _)) = text.split_once("://") {
            (
                parse_scheme(scheme).ok_or_else(|| wrong("use https, http, ssh, git or file"))?,
                text.to_owned(),
            )
        } else if let Some((host, path)) = text.split_once(':') {
            (
                Scheme::Ssh,
                format!("ssh://{host}/{}", path.trim_start_matches('/')),
            )
        } else {
            return Err(wrong(
                "is neither a URL nor an absolute path: write https://HOST/PATH, USER@HOST:PATH or \
                 /PATH",
            ));
        };
        let source = Self { url, scheme };
        source.check().map_err(wrong)?;
        Ok(source)
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        // Credentials belong into the fetcher's file, never into a URL that is stored and shown.
        let authority = self.authority();
        let (user, host) = authority
            .rsplit_once('@')
            .map_or(("", authority), |(user, host)| (user, host));
        match self.scheme {
            Scheme::Ssh if user.contains(':') => {
                return Err("has a password; put credentials in the fetcher's --credentials file");
            }
            Scheme::Ssh => {}
            _ if !user.is_empty() => {
                return Err("has credentials; put them in the fetcher's --credentials file");
            }
            _ => {}
        }
        if self.scheme == Scheme::File && !host.is_empty() && host != "localhost" {
            return Err("a file URL has no host: write file:///path");
        }
        if self.scheme != Scheme::File
            && (host.is_empty() || host.starts_with('-') || user.starts_with('-'))
        {
            return Err("has no usable host name");
        }
        if self.url.len() > SOURCE_BYTES_MAX {
            return Err("is longer than 2048 bytes when written as a URL");
        }
        if host
            .strip_prefix('[')
            .is_some_and(|rest| !is_bracketed_address(rest))
        {
            return Err("has no IPv6 address in its brackets");
        }
        let path = self.path();
        if path.trim_matches('/').is_empty() {
            return Err("names no repository");
        }
        if path
            .split('/')
            .any(|segment| segment == ".." || segment.eq_ignore_ascii_case("%2e%2e"))
        {
            return Err("has a '..' segment");
        }
        if path.starts_with("/-") {
            return Err("has a path that looks like an option");
        }
        Ok(())
    }

    /// The URL as given to a Git implementation; never holds credentials.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// How the source is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().unwrap_or("")
    }

    /// Host name without user and port; empty for files.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((v6, _)) => v6,
            None => host.split(':').next().unwrap_or(""),
        }
    }

    /// Port, when the URL names one.
    pub fn port(&self) -> Option<u16> {
        self.authority()
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
    }

    /// The path from its leading slash on, without query or fragment.
    pub fn path(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.find('/')
            .map_or("", |at| rest[at..].split(['?', '#']).next().unwrap_or(""))
    }

    /// Where the repository appears unless the user says otherwise: `host/path` without `.git`;
    /// `local/<name>` for files.
    pub fn display_path(&self) -> Result<DisplayPath> {
        let path = self.path().trim_matches('/');
        let path = path.strip_suffix("/.git").unwrap_or(path);
        let path = path.strip_suffix(".git").unwrap_or(path);
        let derived = match self.scheme {
            Scheme::File => format!("local/{}", path.rsplit('/').next().unwrap_or("")),
            _ => format!(
                "{}/{}",
                self.host().replace(':', "."),
                path.trim_start_matches('~')
            ),
        };
        DisplayPath::new(&derived)
            .map_err(|e| e.context("cannot derive where to show this source, use --path"))
    }
}

/// What follows the bracket of a host: an address, the other bracket, and perhaps a port.
fn is_bracketed_address(rest: &str) -> bool {
    rest.split_once(']').is_some_and(|(address, port)| {
        address.parse::<std::net::Ipv6Addr>().is_ok() && (port.is_empty() || port.starts_with(':'))
    })
}

fn parse_scheme(word: &str) -> Option<Scheme> {
    Some(match word {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
        "git" => Scheme::Git,
        "file" => Scheme::File,
        _ => return None,
    })
}

/// The text with anything that looks like credentials in a URL taken out, fit for an error message.
pub fn redact(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            match rest[..end].rfind('@') {
                Some(at) => format!("{scheme}://***@{}", &rest[at + 1..]),
                None => text.to_owned(),
            }
        }
        None => text.to_owned(),
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl FromStr for SourceUrl {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for SourceUrl {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<SourceUrl> for String {
    fn from(source: SourceUrl) -> String {
        source.url
    }
}

/// What to follow upstream: a branch, a tag, a full ref name, or a full or short commit id. Empty =
/// the remote's HEAD.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefName(String);

impl RefName {
    /// Checks the rules of `git check-ref-format --allow-onelevel`.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("ref '{}': {why}", text.escape_debug()));
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > REF_BYTES_MAX {
            return Err(wrong("is longer than 512 bytes"));
        }
        if text.starts_with('-') {
            return Err(wrong("looks like an option"));
        }
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
        {
            return Err(wrong("has a character that no ref may have"));
        }
        if text.contains("..")
            || text.contains("@{")
            || text == "@"
            || text.ends_with('.')
            || text.ends_with('/')
        {
            return Err(wrong("is not a valid ref name"));
        }
        if text
            .split('/')
            .any(|part| part.is_empty() || part.starts_with('.') || part.ends_with(".lock"))
        {
            return Err(wrong("is not a valid ref name"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text; empty = the remote's HEAD.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it could be a commit id: 4 to 64 hexadecimal digits.
    pub fn may_be_commit(&self) -> bool {
        (4..=64).contains(&self.0.len()) && self.0.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "HEAD" } else { &self.0 })
    }
}

impl FromStr for RefName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for RefName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<RefName> for String {
    fn from(name: RefName) -> String {
        name.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn display_paths_follow_the_source() {
        for (source, path) in [
            ("https://github.com/org/repo.git", "github.com/org/repo"),
            ("https://gitlab.com/a/b/c/d/", "gitlab.com/a/b/c/d"),
            ("git@github.com:org/repo.git", "github.com/org/repo"),
            ("ssh://git@host:2222/srv/x.git", "host/srv/x"),
            ("git://127.0.0.1:9418/linux.git", "127.0.0.1/linux"),
            ("ssh://git@[::1]:2222/srv/x.git", "..1/srv/x"),
            ("/srv/work/project/.git", "local/project"),
            ("file:///srv/project.git", "local/project"),
        ] {
            assert_eq!(
                SourceUrl::new(source)
                    .unwrap()
                    .display_path()
                    .unwrap()
                    .as_str(),
                path,
                "{source}"
            );
        }
    }

    #[test]
    fn hostile_sources_are_refused_without_repeating_their_secrets() {
        for bad in [
            "",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "ext::sh",
            "https://user:secret@host/x",
            "https://secret@host/x",
            "ssh://user:secret@host/x",
            "https://host/a/../b",
            "https://host/%2e%2e/b",
            "file://host/x",
            "ftp://host/x",
            "https:///x",
            "ssh://-oProxyCommand=x/y",
            "ssh://git@[-oProxyCommand=x]:22/y",
            "https://[host]/y",
            "ssh://[::1/y",
            "-oProxyCommand=x:y",
            "git://host/",
            "relative/path",
            "https://host/a b",
            "git://host/--x",
        ] {
            let error = SourceUrl::new(bad).expect_err(bad);
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn ref_names_follow_git() {
        for good in [
            "",
            "main",
            "v1.0",
            "refs/heads/a/b",
            "0123abcd",
            "feature/ü",
        ] {
            assert!(RefName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a~1",
            "a^{tree}",
            "a:b",
            "a@{1}",
            "@",
            "a//b",
            "a/",
            ".a",
            "x.lock",
            "a\0",
        ] {
            assert!(RefName::new(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_accepted_source_is_its_own_normal_form_and_no_option(
            text in "(https|ssh|git|file|http)?(://|:|)[a-zA-Z0-9@:/.%~-]{0,30}"
        ) {
            let Ok(source) = SourceUrl::new(&text) else { return Ok(()) };
            let again = SourceUrl::new(source.as_str()).unwrap();
            proptest::prop_assert_eq!(&again, &source);
            proptest::prop_assert!(!source.as_str().starts_with('-'));
            proptest::prop_assert!(!source.host().starts_with('-'));
            proptest::prop_assert!(!source.path().split('/').any(|segment| segment == ".."));
        }

        #[test]
        fn a_refused_source_never_repeats_its_password(password in "[a-z0-9]{12}") {
            let secret = format!("https://robot:{password}@host/org/x.git");
            let error = SourceUrl::new(&secret).unwrap_err();
            proptest::prop_assert!(!error.message.contains(&password), "{}", error);
            let broken = format!("ftp://robot:{password}@host/x y");
            let error = SourceUrl::new(&broken).unwrap_err();
            proptest::prop_assert!(!error.message.contains(&password), "{}", error);
        }
    }
}
