//! What a commit's `.gitmodules` says about its submodules. Only read: nothing in it is followed.

use gix::bstr::ByteSlice;
use monofs_model::limits::{SOURCE_BYTES_MAX, SUBMODULES_MAX};
use monofs_model::{EntryKind, ObjectKind, Oid, Result, Submodule, TreeRecord};

use crate::objects::ObjectReader;

/// Largest `.gitmodules` that is looked into, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The submodules that `.gitmodules` in the root names. A file that is malformed or too large names
/// none.
pub fn of_root(objects: &ObjectReader, root: &Oid) -> Result<Vec<Submodule>> {
    let Some(record) = crate::walk::record(objects, root)? else {
        return Ok(Vec::new());
    };
    read(objects, &record)
}

fn read(objects: &ObjectReader, record: &TreeRecord) -> Result<Vec<Submodule>> {
    let file = record
        .find(b".gitmodules")
        .filter(|e| matches!(e.kind, EntryKind::File | EntryKind::Executable));
    let Some(file) = file.filter(|e| e.size <= FILE_BYTES_MAX) else {
        return Ok(Vec::new());
    };
    let mut text = Vec::new();
    objects.read_as(&file.oid, ObjectKind::Blob, &mut text)?;
    Ok(parse(&text))
}

/// The submodules that this text names. Public for fuzzing: the text is the work of strangers.
pub fn parse(text: &[u8]) -> Vec<Submodule> {
    let parsed = gix::config::File::from_bytes_no_includes(
        text,
        gix::config::file::Metadata::api(),
        Default::default(),
    );

    // Submodules are information only, so a broken file names none instead of failing the commit.
    let Ok(file) = parsed else { return Vec::new() };
    let mut modules = Vec::new();
    for section in file.sections_by_name("submodule").into_iter().flatten() {
        // An incomplete or unusable section is passed over; the number of them is bounded.
        let (Some(path), Some(url)) = (section.value("path"), section.value("url")) else {
            continue;
        };
        let (Ok(url), true) = (url.to_str(), url.len() <= SOURCE_BYTES_MAX) else {
            continue;
        };
        modules.push(Submodule {
            path: path.to_vec(),
            url: url.to_owned(),
        });
        if modules.len() == SUBMODULES_MAX {
            break;
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_and_nonsense_is_not() {
        let text = b"[submodule \"a\"]\n\tpath = libs/a\n\turl = https://host/a.git\n[submodule \
         \"b\"]\n\turl = x\n";
        let modules = parse(text);
        assert_eq!(modules.len(), 1);
        assert_eq!(
            (modules[0].path.as_slice(), modules[0].url.as_str()),
            (&b"libs/a"[..], "https://host/a.git")
        );
        assert!(parse(b"[[[").is_empty());
        assert!(parse(b"\xff\xfe\0").is_empty());
    }
}
