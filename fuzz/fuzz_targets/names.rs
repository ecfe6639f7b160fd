//! Paths, ids, sources, refs and entry names: what people and other processes type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monofs_model::source::redact;
use monofs_model::tree::check_entry_name;
use monofs_model::{DisplayPath, NodeId, Oid, RefName, SourceUrl, StorageId};

fuzz_target!(|data: &[u8]| {
    if check_entry_name(data).is_ok() {
        assert!(
            !data.is_empty() && data.len() <= 255 && !data.contains(&b'/') && !data.contains(&0)
        );
        assert!(data != b"." && data != b".." && !data.eq_ignore_ascii_case(b".git"));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(path) = DisplayPath::new(text) {
        check_path(&path);
    }
    if let Ok(id) = StorageId::new(text) {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(id) = NodeId::new(text) {
        assert!(!id.as_str().is_empty() && !id.as_str().contains(['/', '\0']));
    }
    if let Ok(oid) = text.parse::<Oid>() {
        assert!(oid.to_string().eq_ignore_ascii_case(text));
    }
    if let Ok(name) = RefName::new(text) {
        assert_eq!(name.as_str(), text);
        assert!(
            !text.starts_with('-') && !text.contains("..") && !text.contains(char::is_whitespace)
        );
        let _ = name.may_be_commit();
    }
    let _ = redact(text);
    if let Ok(source) = SourceUrl::new(text) {
        check_source(&source);
    }
});

fn check_path(path: &DisplayPath) {
    assert_eq!(DisplayPath::new(path.as_str()).as_ref(), Ok(path));
    assert!(StorageId::new(path.storage_id().as_str()).is_ok());
    assert!(path.overlaps(path));
    let joined = std::path::Path::new("/mount").join(path.as_str());
    assert!(
        joined.components().count() == path.components().count() + 2,
        "the path left its directory"
    );
}

fn check_source(source: &SourceUrl) {
    let url = source.as_str();
    assert!(!url.starts_with('-') && !url.contains(char::is_whitespace));
    assert!(
        !source.host().starts_with('-'),
        "a host that is an option: {url}"
    );
    let again = SourceUrl::new(url).expect("a normalised source is valid");
    assert_eq!(again.as_str(), url);
    let _ = (source.port(), source.path(), source.scheme());
    if let Ok(path) = source.display_path() {
        check_path(&path);
    }
}
