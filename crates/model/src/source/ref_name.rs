//! Names of refs, refused exactly as `git check-ref-format` refuses them.
//!
//! Invariant: a [`RefName`] never starts with `-`, so it cannot become an option of a command.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits::REF_BYTES_MAX;

/// What to follow upstream: a branch, a tag, a full ref name, or a full or short commit id. Empty =
/// the remote's HEAD.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefName(String);

impl RefName {
    /// Checks the rules of `git check-ref-format --allow-onelevel`, and that the name is short and
    /// no option.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("ref '{}': {why}", text.escape_debug()));

        // MonoFS has rules of its own: an empty name is the remote's HEAD, and none may be long or
        // pass for an option.
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > REF_BYTES_MAX {
            return Err(wrong("is longer than 512 bytes"));
        }
        if text.starts_with('-') {
            return Err(wrong("looks like an option"));
        }

        // Git's rules for the whole name come first, then those for each part of it.
        if text
            .chars()
            .any(|c| c.is_ascii_control() || " ~^:?*[\\".contains(c))
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
    fn ref_names_follow_git() {
        for good in [
            "",
            "main",
            "v1.0",
            "refs/heads/a/b",
            "0123abcd",
            "feature/ü",
            "full\u{3000}width",
            "next\u{85}line",
            "no\u{a0}break",
            "a./b",
            "a/@",
            "a/-b",
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
            "/a",
            ".a",
            "a.",
            "x.lock",
            "x.lock/y",
            "a\0",
            "a\u{7f}",
            "a\\b",
        ] {
            assert!(RefName::new(bad).is_err(), "{bad}");
        }
    }
}
