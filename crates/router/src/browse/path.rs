//! Paths of the tree as URLs name them: bytes, not text.

use monofs_api::percent::{percent_decoded, percent_encoded};
use monofs_model::limits::NAME_BYTES_MAX;
use monofs_model::{Error, Result};

/// Longest path in bytes; Linux's own limit is half of it.
const PATH_BYTES_MAX: usize = 8192;
/// Most components: each one is a directory record to get.
const COMPONENTS_MAX: usize = 256;

/// A path below the root of the tree, split at slashes. It never leads up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreePath(Vec<Vec<u8>>);

impl TreePath {
    /// Takes `/`, `a//b/` and `./a` as a shell user would. Errors: `Invalid` for `..`, NUL, and
    /// what is too long.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        // The message shows the beginning of the path only, for a path can be as long as its sender
        // likes.
        let wrong = |why: &str| {
            let shown = &bytes[..bytes.len().min(100)];
            Err(Error::invalid(format!(
                "path '{}': {why}",
                String::from_utf8_lossy(shown).escape_debug()
            )))
        };

        // What the bytes alone show is refused before they are taken apart.
        if bytes.len() > PATH_BYTES_MAX {
            return wrong("is longer than 8192 bytes");
        }
        if bytes.contains(&0) {
            return wrong("has a NUL");
        }

        // Empty components and '.' say nothing and are dropped; a '..' is refused, not resolved.
        let parts = bytes
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".");
        let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
        if parts.iter().any(|part| part == b"..") {
            return wrong("has a '..' component; there is no way up");
        }
        if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
            return wrong("has a component longer than 255 bytes");
        }
        if parts.len() > COMPONENTS_MAX {
            return wrong("has more than 256 components");
        }
        Ok(Self(parts))
    }

    /// From a percent-encoded path, as after the host of a URL. Errors: those of [`TreePath::new`].
    pub fn decode(encoded: &str) -> Result<Self> {
        Self::new(&percent_decoded(encoded))
    }

    /// Whether this is the root of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of it is UTF-8, as the namespace is.
    pub fn is_text(&self) -> bool {
        self.0.iter().all(|part| std::str::from_utf8(part).is_ok())
    }

    /// The components before the first one that is no UTF-8: only they can be part of the
    /// namespace.
    pub fn text(&self) -> String {
        let parts = self
            .0
            .iter()
            .map_while(|part| std::str::from_utf8(part).ok());
        parts.collect::<Vec<_>>().join("/")
    }

    /// The components after the first `depth`.
    pub fn below(&self, depth: usize) -> &[Vec<u8>] {
        self.0.get(depth..).unwrap_or_default()
    }

    /// The components from the root down.
    pub fn components(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The path with `name` added.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_vec());
        Self(parts)
    }

    /// For people: what is no UTF-8, and control characters, as escapes.
    pub fn shown(&self) -> String {
        format!("/{}", shown(&self.0.join(&b'/')))
    }

    /// For URLs: percent-encoded, without a leading slash.
    pub fn encoded(&self) -> String {
        self.0
            .iter()
            .map(|part| percent_encoded(part))
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// Bytes as text for people: what is no UTF-8, and control characters, as escapes.
pub fn shown(bytes: &[u8]) -> String {
    monofs_model::text::escaped(bytes, char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_bytes_that_never_lead_up() {
        let path = TreePath::decode("a//b/./%ff/c%20d").expect("well formed");
        assert_eq!(path.shown(), "/a/b/\\xff/c d");
        assert_eq!((path.text(), path.is_text()), ("a/b".to_owned(), false));
        assert_eq!(path.encoded(), "a/b/%FF/c%20d");
        assert_eq!(path.below(2).len(), 2);
        assert!(TreePath::decode("/").expect("the root").is_root());
        for wrong in [
            "a/../b",
            "%2e%2e/etc/passwd",
            "..",
            "a%00b",
            &"x".repeat(256),
            &"a/".repeat(5000),
        ] {
            assert!(TreePath::decode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_for_people_has_no_control_characters() {
        assert_eq!(
            shown(b"a\x1b[2J\xff\n\xc3\xa4"),
            "a\\u{1b}[2J\\xff\\n\u{e4}"
        );
    }

    proptest! {
        #[test]
        fn an_encoded_path_is_the_same_path(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(path) = TreePath::new(&bytes) {
                prop_assert_eq!(TreePath::decode(&path.encoded()).expect("it was one"), path);
            }
        }
    }
}
