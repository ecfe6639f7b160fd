//! For which sources an entry of the credentials file is: a host, perhaps a port, perhaps the first
//! parts of a path.

use monofs_model::source::RemoteHost;
use monofs_model::{Error, Result, SourceUrl};

/// What the key of an entry names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoginScope {
    /// In lower case, an IPv6 address without brackets.
    host: String,
    port: Option<u16>,
    /// The parts of the path, without `.git` at the end; empty = all paths.
    path: Vec<String>,
}

/// How exactly a scope names a source: more is more exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopeFit {
    path_parts: usize,
    names_port: bool,
}

impl LoginScope {
    /// Reads a key. Errors: `Invalid` for one that no source can match.
    pub fn parse(key: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::invalid(format!(
                "host '{}': {why}; write HOST, HOST:PORT or HOST/PATH",
                monofs_model::source::redact(key).escape_debug()
            ))
        };

        // A key that matches no source would leave its entry without effect, unnoticed: it is
        // refused here.
        if key.contains("://") {
            return Err(wrong("has a scheme, so that no source can match it"));
        }
        if key.contains('@') {
            return Err(wrong(
                "has a user, so that no source can match it; that goes into 'user'",
            ));
        }
        if key.contains(['*', '?', '#', '\\'])
            || key.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(wrong(
                "has a character that no host has, so that no source can match it",
            ));
        }

        // What is left is read as the host and the path of a source are, so that equal ones compare
        // equal.
        let (authority, path) = key.split_once('/').unwrap_or((key, ""));
        let RemoteHost { host, port } = host_and_port(authority)
            .ok_or_else(|| wrong("has no usable host or port, so that no source can match it"))?;
        let path: Vec<String> = parts(path).iter().map(|part| unescaped(part)).collect();
        if path
            .iter()
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(wrong(
                "has an empty or a relative part in its path, so that no source can match it",
            ));
        }
        Ok(Self { host, port, path })
    }

    /// How exactly it names `source`; `None`: it is not for it.
    pub fn fit(&self, source: &SourceUrl) -> Option<ScopeFit> {
        let port = source.port().or(source.scheme().default_port());
        let path = parts(source.path().trim_start_matches('/'));
        let matches = self.host == source.host()
            && (self.port.is_none() || self.port == port)
            && path.starts_with(&self.path);
        matches.then_some(ScopeFit {
            path_parts: self.path.len(),
            names_port: self.port.is_some(),
        })
    }
}

/// A port of zero is none, and neither is one that is not there.
fn host_and_port(authority: &str) -> Option<RemoteHost> {
    let host = RemoteHost::new(authority).ok()?;
    let usable = !host.host.is_empty() && !host.host.starts_with('-') && host.port != Some(0);
    let without_port = authority.ends_with(':') && host.port.is_none() && !host.host.contains(':');
    (usable && !without_port).then_some(host)
}

/// The parts of a path, the last one without `.git`.
fn parts(path: &str) -> Vec<String> {
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    if path.is_empty() {
        return Vec::new();
    }
    let parts = path.trim_end_matches('/').split('/');
    parts.map(str::to_owned).collect()
}

fn unescaped(part: &str) -> String {
    let bytes = part.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;

    #[test]
    fn the_longest_path_wins_then_the_port() {
        let text = "[hosts.h]\nuser = 'all'\n[hosts.'h/orgA']\nuser = 'a'\n[hosts.'h/orgA/x.git']\n\
            user = 'ax'\n[hosts.'h:8443']\nuser = 'port'\n[hosts.'H2:443/My Project']\nuser = 'never'\n";
        let text = text.replace("My Project", "My%20Project");
        let credentials = Credentials::parse(&text).unwrap();
        let user = |url: &str| {
            let entry = credentials.of(&SourceUrl::new(url).unwrap());
            entry.user.clone().unwrap_or_default()
        };
        assert_eq!(user("https://h/orgA/x.git"), "ax");
        assert_eq!(user("https://h/orgA/x"), "ax");
        assert_eq!(user("https://h/orgA/xy.git"), "a");
        assert_eq!(
            user("https://h/orgAB/x.git"),
            "all",
            "a part is matched whole"
        );
        assert_eq!(user("https://h/orga/x.git"), "all");
        assert_eq!(user("https://h:8443/other.git"), "port");
        assert_eq!(
            user("https://h:8443/orgA/y.git"),
            "a",
            "the path counts more than the port"
        );
        assert_eq!(user("ssh://git@h/orgA/y.git"), "a");
        assert_eq!(user("https://H2/My%20Project/_git/x"), "never");
        assert_eq!(user("https://elsewhere/orgA/x.git"), "");
        assert_eq!(user("/h/orgA/x.git"), "");
    }

    #[test]
    fn a_key_that_no_source_can_match_is_an_error() {
        for key in [
            "",
            "https://h",
            "robot@h",
            "h:",
            "h:0",
            "h:70000",
            "h:port",
            "*.example.org",
            "h//x",
            "h/../x",
            "/orgA",
            "[::1",
            "[h]",
            "[::1]x",
            "h h",
        ] {
            let text = format!("[hosts.'{key}']\nuser = 'a'\n");
            let error = Credentials::parse(&text).unwrap_err();
            assert!(error.message.contains("HOST/PATH"), "{key}: {error}");
        }
        for text in [
            "[hosts.h]\n[hosts.H]\n",
            "[hosts.'h/x']\n[hosts.'h/x.git/']\n",
        ] {
            let error = Credentials::parse(text).unwrap_err();
            assert!(error.message.contains("the same"), "{error}");
        }
    }

    #[test]
    fn hosts_match_in_any_case_and_addresses_with_and_without_brackets() {
        for key in ["::1", "[::1]", "[::1]:8080"] {
            let text = format!("[hosts.'{key}']\nuser = 'a'\n");
            let credentials = Credentials::parse(&text).unwrap();
            let entry = credentials.of(&SourceUrl::new("http://[::1]:8080/x").unwrap());
            assert_eq!(entry.user.as_deref(), Some("a"), "{key}");
        }
        let credentials = Credentials::parse("[hosts.LOCALHOST]\nuser = 'a'\n").unwrap();
        let entry = credentials.of(&SourceUrl::new("http://LocalHost/x").unwrap());
        assert_eq!(entry.user.as_deref(), Some("a"));
    }
}
