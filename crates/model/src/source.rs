//! Where a repository comes from: sources and ref names, parsed as Git itself parses them and
//! checked before any of them reaches a Git implementation.
//!
//! Invariant: a [`SourceUrl`] never starts with `-`, has a known scheme, and holds no password, no
//! `..` segment and no control character, also behind percent escapes. So it cannot become an option
//! of a command, nor lead elsewhere than it says.

mod parse;
mod record;
mod redact;
mod ref_name;
mod remote_host;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use redact::redact;
pub use ref_name::RefName;
pub use remote_host::RemoteHost;

use crate::error::{Error, Result};
use crate::limits::SOURCE_BYTES_MAX;
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

impl Scheme {
    /// The word before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Git => "git",
            Self::File => "file",
        }
    }

    /// The port that is asked when a source names none.
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Https => Some(443),
            Self::Http => Some(80),
            Self::Ssh => Some(22),
            Self::Git => Some(9418),
            Self::File => None,
        }
    }
}

/// A Git remote: `https`, `http`, `ssh` (also `user@host:path`), `git` or `file` (also an absolute
/// path).
///
/// It is kept as one text in a normal form: hosts are in lower case, absolute paths are URLs, and
/// what Git takes as relative to a home directory stays `user@host:path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceUrl {
    text: String,
    scheme: Scheme,
    layout: SourceLayout,
}

/// Where the parts lie in the normal form of a source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SourceLayout {
    /// Start and end of the user name; both the same when there is none.
    user: (u16, u16),
    /// Start and end of the host name, without brackets.
    host: (u16, u16),
    /// Start of the path.
    path: u16,
    /// The port, when the source names one.
    port: Option<u16>,
    escapes: EscapeRule,
}

/// Whether percent escapes in a source stand for other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum EscapeRule {
    /// In URLs.
    Decoded,
    /// In `host:path`.
    Literal,
}

impl SourceUrl {
    /// Parses a source as Git does, and normalises it. Errors: `Invalid`, without repeating a
    /// password, for what Git would refuse or reach at another place than the text says, and for
    /// what could carry an option, a secret or a control character.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why: String| {
            Error::invalid(format!("source '{}': {why}", redact(text).escape_debug()))
        };
        if text.is_empty() || text.len() > SOURCE_BYTES_MAX {
            return Err(wrong("is empty or longer than 2048 bytes".to_owned()));
        }
        let parts = parse::parse(text).map_err(|fault| wrong(fault.to_string()))?;
        let source = Self::of_parts(&parts);
        if source.text.len() > SOURCE_BYTES_MAX {
            return Err(wrong(
                "is longer than 2048 bytes when written as a URL".to_owned(),
            ));
        }
        Ok(source)
    }

    fn of_parts(parts: &parse::SourceParts) -> Self {
        let mut text = String::new();
        let bracketed = parts.host.contains(':');
        let is_relative = parts.scheme == Scheme::Ssh && !parts.path.starts_with(['/', '~']);
        // `host:path` has its port within brackets, a URL behind them.
        let port_within = is_relative && parts.port.is_some();
        if !is_relative {
            text.push_str(parts.scheme.as_str());
            text.push_str("://");
        }
        if port_within {
            text.push('[');
        }

        // User, host and port.
        let user_at = text.len();
        let user_end = user_at + parts.user.as_ref().map_or(0, String::len);
        if let Some(user) = &parts.user {
            text.push_str(user);
            text.push('@');
        }
        text.push_str(if bracketed && !port_within { "[" } else { "" });
        let host_at = text.len();
        text.push_str(&parts.host);
        let host_end = text.len();
        text.push_str(if bracketed && !port_within { "]" } else { "" });
        if let Some(port) = parts.port {
            text.push_str(&format!(":{port}"));
        }
        text.push_str(if port_within { "]" } else { "" });

        // The path, behind a colon or a slash.
        if is_relative {
            text.push(':');
        } else if parts.path.starts_with('~') {
            text.push('/');
        }
        let path_at = text.len();
        match parts.scheme {
            _ if is_relative => text.push_str(&parts.path),
            Scheme::Http | Scheme::Https => text.push_str(&parts.path),
            _ => parse::encode(&parts.path, &mut text),
        }

        // What does not fit into the bound of a source is refused by the caller.
        let place = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        Self {
            scheme: parts.scheme,
            layout: SourceLayout {
                user: (place(user_at), place(user_end)),
                host: (place(host_at), place(host_end)),
                path: place(path_at),
                port: parts.port,
                escapes: if is_relative {
                    EscapeRule::Literal
                } else {
                    EscapeRule::Decoded
                },
            },
            text,
        }
    }

    fn piece(&self, (start, end): (u16, u16)) -> &str {
        &self.text[usize::from(start)..usize::from(end)]
    }

    /// The normal form, as given to a Git implementation and stored; never holds a password.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How the source is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The user name, decoded, when the source names one.
    pub fn user(&self) -> Option<Cow<'_, str>> {
        let user = self.piece(self.layout.user);
        (!user.is_empty()).then(|| match self.scheme {
            Scheme::Http | Scheme::Https => parse::decode_text(user),
            _ => Cow::Borrowed(user),
        })
    }

    /// Host name in lower case, or an address without brackets; empty for files.
    pub fn host(&self) -> &str {
        self.piece(self.layout.host)
    }

    /// Port, when the source names one.
    pub fn port(&self) -> Option<u16> {
        self.layout.port
    }

    /// The name of its host: `host`, or `host:port` where it names a port, in lower case. `None` for
    /// a source on the fetcher's own disk.
    pub fn host_name(&self) -> Option<String> {
        self.remote_host().map(|host| host.to_string())
    }

    /// Host and port, the way tables of hosts are keyed; `None` for files.
    pub fn remote_host(&self) -> Option<RemoteHost> {
        (self.scheme != Scheme::File).then(|| RemoteHost {
            host: self.host().to_owned(),
            port: self.port(),
        })
    }

    /// The path, decoded: what a server is asked for over `git` and `ssh`, what is opened for a
    /// file. It starts with `/`, or is relative to a home directory.
    pub fn path(&self) -> Cow<'_, str> {
        let path = self.raw_path();
        match self.layout.escapes {
            EscapeRule::Decoded => parse::decode_text(path),
            EscapeRule::Literal => Cow::Borrowed(path),
        }
    }

    /// The path as written, with its percent escapes: what a server is asked for over http.
    pub fn raw_path(&self) -> &str {
        &self.text[usize::from(self.layout.path)..]
    }

    /// The URL that is asked over http: without the user, which goes into the login.
    pub fn request_url(&self) -> String {
        let host = self.remote_host().map(|host| host.to_string());
        let host = host.unwrap_or_default();
        format!("{}://{host}{}", self.scheme.as_str(), self.raw_path())
    }

    /// Whether the path is relative to a home directory on the remote.
    pub fn is_relative(&self) -> bool {
        !self.raw_path().starts_with('/')
    }

    /// Where the repository appears unless the user says otherwise: `host/path`, decoded, without
    /// `.git`; `local/<name>` for files.
    pub fn display_path(&self) -> Result<DisplayPath> {
        let path = self.path();
        let path = path.trim_matches('/');
        let path = path.strip_suffix("/.git").unwrap_or(path);
        let path = path.strip_suffix(".git").unwrap_or(path);
        let derived = match self.scheme {
            Scheme::File => format!("local/{}", path.rsplit('/').next().unwrap_or("")),
            _ => format!(
                "{}/{}",
                self.host().replace(':', "."),
                path.trim_start_matches('~').trim_start_matches('/')
            ),
        };
        DisplayPath::new(&derived)
            .map_err(|e| e.context("cannot derive where to show this source, use --path"))
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
        source.text
    }
}

#[cfg(test)]
mod tests;
