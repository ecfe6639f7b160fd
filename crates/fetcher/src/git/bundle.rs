//! Bundles: a repository, or a part of one, as a single file on the fetcher's disk.
//!
//! Source: `gitformat-bundle(5)`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use monofs_model::SourceUrl;
use monofs_model::source::Scheme;

/// What every version of a bundle begins with.
const SIGNATURE: &[u8] = b"# v";
const NAME: &[u8] = b" git bundle\n";

/// The path of the bundle that `source` is; `None` when it is something else.
pub fn path_of(source: &SourceUrl) -> Option<String> {
    if source.scheme() != Scheme::File {
        return None;
    }
    let path = source.path();
    is_bundle(Path::new(path.as_ref())).then(|| path.into_owned())
}

/// What cannot be read is none, and is told by who reads it as a repository.
fn is_bundle(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let mut head = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head.starts_with(SIGNATURE) && head.ends_with(NAME)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_known_by_what_it_begins_with() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        let source = SourceUrl::new(&file.display().to_string()).unwrap();
        let of = |contents: &[u8]| {
            std::fs::write(&file, contents).unwrap();
            path_of(&source)
        };
        assert!(of(b"# v2 git bundle\n0123 refs/heads/main\n").is_some());
        assert!(of(b"# v3 git bundle\n@object-format=sha256\n").is_some());
        assert!(of(b"# v2 git bundl").is_none());
        assert!(of(b"").is_none());
        let directory = SourceUrl::new(&dir.path().display().to_string()).unwrap();
        assert_eq!(path_of(&directory), None);
    }
}
