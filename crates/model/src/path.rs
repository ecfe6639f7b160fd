//! Display paths (where a repository appears in the tree) and the storage ids derived from them.
//!
//! Invariant: a [`DisplayPath`] is 1..=32 components of printable bytes, none of which is `.`,
//! `..`, `.git` or starts with `.monofs`, so joining it below a mount point or a database directory
//! can never leave it.

use std::fmt;
use std::str::FromStr;

use sha2::Digest;

use crate::error::{Error, Result};
use crate::limits::{DISPLAY_PATH_BYTES_MAX, DISPLAY_PATH_COMPONENTS_MAX, NAME_BYTES_MAX};

/// Where a repository appears in the mounted tree, such as `github.com/org/repo`. Any depth: GitLab
/// subgroups work.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct DisplayPath(String);

impl DisplayPath {
    /// Checks and normalises: surrounding slashes are dropped, everything else must already be
    /// clean.
    pub fn new(text: &str) -> Result<Self> {
        let trimmed = text.trim_matches('/');
        let wrong =
            |why: &str| Error::invalid(format!("display path '{}': {why}", text.escape_debug()));
        if trimmed.is_empty() {
            return Err(wrong("is empty"));
        }
        if trimmed.len() > DISPLAY_PATH_BYTES_MAX {
            return Err(wrong("is longer than 1024 bytes"));
        }
        for (number, component) in trimmed.split('/').enumerate() {
            if number == DISPLAY_PATH_COMPONENTS_MAX {
                return Err(wrong("has more than 32 components"));
            }
            check_component(component).map_err(wrong)?;
        }
        Ok(Self(trimmed.to_owned()))
    }

    /// The whole path without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the root of the mount down.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether one of the two lies inside the other, or both are the same.
    pub fn overlaps(&self, other: &DisplayPath) -> bool {
        fn inside(outer: &str, inner: &str) -> bool {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        inside(&self.0, &other.0) || inside(&other.0, &self.0)
    }

    /// The id under which every role stores this repository.
    pub fn storage_id(&self) -> StorageId {
        let mut hasher = sha2::Sha256::new();
        hasher.update(b"monofs-storage-v1\0");
        hasher.update(self.0.as_bytes());
        let digest = hasher.finalize();
        let digits = digest[..16].iter().flat_map(|byte| [byte >> 4, byte & 15]);
        StorageId(
            digits
                .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
                .collect(),
        )
    }
}

fn check_component(name: &str) -> std::result::Result<(), &'static str> {
    match name {
        "" => Err("has an empty component"),
        "." | ".." => Err("has a '.' or '..' component"),
        _ if name.eq_ignore_ascii_case(".git") => Err("has a '.git' component"),
        _ if name.starts_with(".monofs") => Err("'.monofs' is reserved"),
        _ if name.starts_with('-') => Err("has a component that starts with '-'"),
        _ if name.len() > NAME_BYTES_MAX => Err("has a component longer than 255 bytes"),
        _ if name.chars().any(|c| c.is_control() || c == '\\') => {
            Err("has a control character or a backslash")
        }
        _ => Ok(()),
    }
}

impl fmt::Display for DisplayPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DisplayPath {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for DisplayPath {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<DisplayPath> for String {
    fn from(path: DisplayPath) -> String {
        path.0
    }
}

/// The id of a repository's storage: 32 lower-case hexadecimal digits, the first half of
/// `SHA-256("monofs-storage-v1\0" + display path)`. Safe as a file name; the key of placement.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct StorageId(String);

impl StorageId {
    /// Checks an id that came from outside.
    pub fn new(text: &str) -> Result<Self> {
        let valid = text.len() == 32
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !valid {
            return Err(Error::invalid(format!(
                "'{}' is not a storage id (32 hexadecimal digits)",
                text.escape_debug()
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id whose digits have this value.
    pub fn of_number(number: u128) -> Self {
        Self(format!("{number:032x}"))
    }

    /// The value of the digits: the id in a quarter of the memory.
    pub fn number(&self) -> u128 {
        u128::from_str_radix(&self.0, 16).expect("a storage id has 32 hexadecimal digits")
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for StorageId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for StorageId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<StorageId> for String {
    fn from(id: StorageId) -> String {
        id.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn storage_ids_never_move() {
        let path = DisplayPath::new("/github.com/org/repo/").unwrap();
        assert_eq!(path.as_str(), "github.com/org/repo");
        // `printf 'monofs-storage-v1\0github.com/org/repo' | sha256sum | cut -c1-32`
        assert_eq!(
            path.storage_id().as_str(),
            "c67ca64edfa11ec5e0cbe01c7e60fb99"
        );
        assert!(StorageId::new(path.storage_id().as_str()).is_ok());
        assert!(StorageId::new("../../../../etc/passwd0000000000").is_err());
    }

    #[test]
    fn paths_that_could_escape_or_confuse_are_refused() {
        for bad in [
            "",
            "/",
            "a//b",
            "a/../b",
            ".",
            "a/.git",
            "a/.GIT/b",
            ".monofs/status",
            "a/-x",
            "a\0b",
            "a\nb",
            "a\\b",
        ] {
            assert!(DisplayPath::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(DisplayPath::new(&"a/".repeat(33)).is_err());
        assert!(DisplayPath::new(&"n".repeat(256)).is_err());
        assert!(DisplayPath::new("gitlab.com/group/sub/sub2/project").is_ok());
    }

    #[test]
    fn nesting_is_an_overlap_and_a_common_prefix_is_not() {
        let path = |text| DisplayPath::new(text).unwrap();
        assert!(path("a/b").overlaps(&path("a/b/c")));
        assert!(path("a/b/c").overlaps(&path("a/b")));
        assert!(path("a/b").overlaps(&path("a/b")));
        assert!(!path("a/b").overlaps(&path("a/bc")));
    }

    proptest::proptest! {
        #[test]
        fn an_accepted_path_stays_below_what_it_is_joined_to(text in "[a-zA-Z0-9./\\\\ _é-]{0,40}") {
            let Ok(path) = DisplayPath::new(&text) else { return Ok(()) };
            proptest::prop_assert_eq!(&DisplayPath::new(path.as_str()).unwrap(), &path);
            let joined = std::path::Path::new("/mount").join(path.as_str());
            proptest::prop_assert!(joined.starts_with("/mount"));
            let below = joined.components().skip(2);
            proptest::prop_assert!(
                below.clone().all(|one| matches!(one, std::path::Component::Normal(_)))
            );
            proptest::prop_assert_eq!(below.count(), path.components().count());
        }

        #[test]
        fn a_storage_id_is_its_number(number in proptest::num::u128::ANY) {
            let id = StorageId::of_number(number);
            proptest::prop_assert_eq!(id.number(), number);
            proptest::prop_assert_eq!(StorageId::new(id.as_str()).unwrap(), id);
        }
    }

    #[test]
    fn what_is_no_storage_id_is_refused() {
        let long = "0".repeat(33);
        let upper = "A".repeat(32);
        for bad in ["", "0", "../../etc", &long, &upper] {
            assert!(StorageId::new(bad).is_err(), "{bad}");
        }
    }
}
