//! The files of a bare repository, as both gix and `git` accept it.
//!
//! Written by hand: templates and hooks never come in, and no configuration but ours applies.

use std::fs;
use std::path::{Path, PathBuf};

use gix::odb::pack;
use monofs_model::{Error, ObjectFormat, Oid, Result};

use super::ids::{from_gix, hash_kind};

/// Creates an empty bare repository at `directory`, which may exist.
pub fn create(directory: &Path, format: ObjectFormat) -> Result<()> {
    let extension = match format {
        ObjectFormat::Sha1 => "\trepositoryformatversion = 0\n\tbare = true\n".to_owned(),
        ObjectFormat::Sha256 => {
            "\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
                .to_owned()
        }
    };
    let made = fs::create_dir_all(directory.join("objects/pack"))
        .and_then(|()| fs::create_dir_all(directory.join("refs")))
        .and_then(|()| fs::write(directory.join("HEAD"), "ref: refs/heads/none\n"))
        .and_then(|()| fs::write(directory.join("config"), format!("[core]\n{extension}")));
    made.map_err(|e| cannot("create the repository", directory, &e))
}

/// Removes what a killed fetch left behind: temporary files, locks, packs without an index and
/// indices without a pack.
pub fn sweep(directory: &Path) -> Result<()> {
    let packs = directory.join("objects/pack");
    for entry in fs::read_dir(&packs).map_err(|e| cannot("read", &packs, &e))? {
        let path = entry.map_err(|e| cannot("read", &packs, &e))?.path();
        let whole = match path.extension().and_then(|e| e.to_str()) {
            Some("pack") => path.with_extension("idx").exists(),
            Some("idx" | "rev") => path.with_extension("pack").exists(),
            _ => false,
        };
        if !whole {
            fs::remove_file(&path).map_err(|e| cannot("remove", &path, &e))?;
        }
    }
    match fs::remove_file(directory.join("shallow.lock")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(cannot("unlock", directory, &e)),
        _ => Ok(()),
    }
}

/// The indices of the repository's packs, in a stable order.
pub fn pack_indices(directory: &Path) -> Result<Vec<PathBuf>> {
    let packs = directory.join("objects/pack");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&packs).map_err(|e| cannot("read", &packs, &e))? {
        let path = entry.map_err(|e| cannot("read", &packs, &e))?.path();
        if path.extension().is_some_and(|e| e == "idx") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The ids of all packed objects.
pub fn packed_ids(directory: &Path, format: ObjectFormat) -> Result<Vec<Oid>> {
    let mut ids = Vec::new();
    for path in pack_indices(directory)? {
        let index = open_index(&path, format)?;
        ids.extend(index.iter().map(|entry| from_gix(&entry.oid)));
    }
    Ok(ids)
}

/// Opens one pack index. Errors: `Corrupt`.
pub fn open_index(path: &Path, format: ObjectFormat) -> Result<pack::index::File> {
    pack::index::File::at(path, hash_kind(format))
        .map_err(|e| Error::corrupt(format!("pack index {}: {e}", path.display())))
}

/// Bytes of disk that `directory` takes, with everything below it.
pub fn disk_bytes(directory: &Path) -> u64 {
    let mut sum = 0;
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        // What vanishes meanwhile takes no room.
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => sum += meta.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let message = format!("cannot {what} {}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::full(message),
        _ => Error::internal(message),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn git_takes_the_directory_for_a_bare_repository_of_its_format() {
        for (format, word) in [
            (ObjectFormat::Sha1, "sha1"),
            (ObjectFormat::Sha256, "sha256"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            create(dir.path(), format).unwrap();
            let shown = Command::new("git")
                .arg("--git-dir")
                .arg(dir.path())
                .args(["rev-parse", "--is-bare-repository", "--show-object-format"])
                .output()
                .unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            assert_eq!(text, format!("true\n{word}\n"));
            assert_eq!(packed_ids(dir.path(), format).unwrap(), []);
        }
    }

    #[test]
    fn a_sweep_removes_what_is_not_whole_and_keeps_what_is() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), ObjectFormat::Sha1).unwrap();
        let packs = dir.path().join("objects/pack");
        for name in [
            "pack-1.pack",
            "pack-1.idx",
            "pack-1.rev",
            "pack-2.pack",
            "pack-3.idx",
            "tmp_pack_x",
        ] {
            fs::write(packs.join(name), "x").unwrap();
        }
        fs::write(dir.path().join("shallow.lock"), "").unwrap();
        sweep(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(&packs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["pack-1.idx", "pack-1.pack", "pack-1.rev"]);
        assert!(!dir.path().join("shallow.lock").exists());
        sweep(dir.path()).expect("a second sweep finds nothing to do");
    }

    #[test]
    fn indices_come_in_a_stable_order_and_a_broken_one_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), ObjectFormat::Sha1).unwrap();
        let packs = dir.path().join("objects/pack");
        for name in ["pack-b.idx", "pack-a.idx", "pack-a.pack"] {
            fs::write(packs.join(name), "no index").unwrap();
        }
        let indices = pack_indices(dir.path()).unwrap();
        assert_eq!(
            indices,
            [packs.join("pack-a.idx"), packs.join("pack-b.idx")]
        );
        let error = packed_ids(dir.path(), ObjectFormat::Sha1).unwrap_err();
        assert_eq!(error.kind, monofs_model::ErrorKind::Corrupt);
        assert!(error.message.contains("pack-a.idx"), "{error}");
    }

    #[test]
    fn the_size_of_a_directory_is_that_of_all_files_below_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("one"), [0; 10]).unwrap();
        fs::write(dir.path().join("a/b/two"), [0; 32]).unwrap();
        assert_eq!(disk_bytes(dir.path()), 42);
        assert_eq!(disk_bytes(&dir.path().join("gone")), 0);
    }
}
