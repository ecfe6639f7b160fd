//! Sources in records of versions that parsed them otherwise: such a record must stay readable, and
//! its repository must stay the one that it is.

use super::{Scheme, SourceUrl};
use crate::error::Result;

impl SourceUrl {
    /// Reads a source that was accepted when it was recorded. What is refused by now and had no
    /// effect then goes: the query of a web address, and a port that no host has, in whose place the
    /// usual one was asked. Errors: `Invalid`.
    pub fn of_record(text: &str) -> Result<Self> {
        Self::new(text).or_else(|error| {
            let kept = without_refused(text).ok_or(error)?;
            Self::new(&kept)
        })
    }

    /// Whether this is the remote that `recorded` stands for, either by the same text or as earlier
    /// versions wrote `host:path`: as if the path began at the root of the host.
    pub fn is_recorded_as(&self, recorded: &SourceUrl) -> bool {
        if self == recorded {
            return true;
        }
        let wrote_absolute = self.scheme == Scheme::Ssh && self.is_relative();
        wrote_absolute
            && recorded.scheme == Scheme::Ssh
            && (recorded.user(), recorded.host(), recorded.port())
                == (self.user(), self.host(), self.port())
            && recorded.raw_path().strip_prefix('/') == Some(self.raw_path())
    }
}

/// The source without what is refused by now; `None` when nothing of that is there.
fn without_refused(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    if matches!(scheme, "http" | "https") {
        let end = rest.find(['?', '#'])?;
        return Some(format!("{scheme}://{}", &rest[..end]));
    }
    let (authority, path) = rest.split_at(rest.find('/')?);
    let (host, port) = authority.rsplit_once(':')?;
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_of_before_stay_readable() {
        for (text, now) in [
            ("https://host/x?a=b", "https://host/x"),
            ("https://host/x#y", "https://host/x"),
            ("git://host:99999/x", "git://host/x"),
            ("ssh://git@host:70000/x", "ssh://git@host/x"),
            ("ssh://git@host/org/x.git", "ssh://git@host/org/x.git"),
            ("file:///a%20b", "file:///a%20b"),
        ] {
            assert_eq!(SourceUrl::of_record(text).unwrap().as_str(), now);
        }
        assert!(SourceUrl::of_record("ext::sh").is_err());
        assert!(SourceUrl::of_record("https://u:p@host/x").is_err());
    }

    #[test]
    fn a_path_at_a_host_is_the_repository_that_earlier_versions_recorded() {
        let source = |text: &str| SourceUrl::new(text).unwrap();
        let recorded = source("ssh://git@host/org/x.git");
        assert!(source("git@Host:org/x.git").is_recorded_as(&recorded));
        assert!(source("git@host:/org/x.git").is_recorded_as(&recorded));
        for other in [
            "git@host:org/y.git",
            "me@host:org/x.git",
            "https://host/org/x.git",
        ] {
            assert!(!source(other).is_recorded_as(&recorded), "{other}");
        }
        let relative = source("git@host:org/x.git");
        assert!(
            !recorded.is_recorded_as(&relative),
            "an absolute path is another one"
        );
    }
}
