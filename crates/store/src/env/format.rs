//! The table in which a database says what it is: its kind, and the version of its format.

use std::path::Path;

use monofs_model::{Error, Result};

/// Version of what is written on disk; newer ones are refused.
pub(super) const FORMAT_VERSION: u32 = 1;
/// The table, and its keys.
pub(super) const META_TABLE: &str = "meta";
pub(super) const KEY_VERSION: &[u8] = b"format-version";
pub(super) const KEY_KIND: &[u8] = b"kind";

/// Whether a database is of this kind, and of a format version that this program reads.
pub(super) fn check_format(
    dir: &Path,
    kind: &str,
    found: Option<&[u8]>,
    version: Option<&[u8]>,
) -> Result<()> {
    let dir = dir.display();
    if found != Some(kind.as_bytes()) {
        let found = String::from_utf8_lossy(found.unwrap_or_default());
        return Err(Error::refused(format!(
            "{dir}: holds a '{found}' database, not a '{kind}'; give another directory"
        )));
    }
    let version = version
        .and_then(|raw| raw.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or_else(|| Error::corrupt(format!("{dir}: the format version is missing")))?;
    if version > FORMAT_VERSION {
        return Err(Error::refused(format!(
            "{dir}: format version {version} is newer than this program, which reads up to \
             {FORMAT_VERSION}; upgrade it"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;

    fn check(kind: Option<&[u8]>, version: Option<&[u8]>) -> Result<()> {
        check_format(Path::new("/some/dir"), "state", kind, version)
    }

    #[test]
    fn a_database_of_this_kind_and_of_any_format_so_far_is_taken() {
        for version in 0..=FORMAT_VERSION {
            check(Some(b"state"), Some(&version.to_be_bytes())).unwrap();
        }
    }

    #[test]
    fn a_database_of_another_kind_is_refused_and_both_kinds_are_named() {
        let version = FORMAT_VERSION.to_be_bytes();
        for kind in [Some(&b"cache"[..]), None] {
            let error = check(kind, Some(&version)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused);
            assert!(error.message.contains("not a 'state'"), "{error}");
            assert!(error.message.contains("/some/dir"), "{error}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_the_upgrade_named() {
        let newer = (FORMAT_VERSION + 1).to_be_bytes();
        let error = check(Some(b"state"), Some(&newer)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.message.contains("upgrade"), "{error}");
    }

    #[test]
    fn a_version_that_is_missing_or_malformed_is_damage() {
        for version in [None, Some(&b""[..]), Some(b"1"), Some(b"12345")] {
            let error = check(Some(b"state"), version).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt, "{version:?}");
        }
    }
}
