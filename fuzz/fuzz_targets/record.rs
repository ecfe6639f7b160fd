//! Directory records: as nodes, clients and caches get them from elsewhere.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use monofs_model::{ObjectFormat, ObjectKind, Oid, TreeRecord};

fuzz_target!(init: seed(), |data: &[u8]| {
    let Ok(record) = TreeRecord::parse(Bytes::copy_from_slice(data)) else { return };
    let mut before: Option<Vec<u8>> = None;
    for (position, entry) in record.iter().enumerate() {
        assert_eq!(record.get(position), Some(entry));
        assert_eq!(record.find(entry.name), Some(entry));
        assert_eq!(entry.oid.format(), record.format());
        assert!(before.as_deref() < Some(entry.name), "names are sorted and unique");
        before = Some(entry.name.to_vec());
    }
    assert_eq!(record.get(record.len()), None);
    let oid = Oid::of(record.format(), ObjectKind::Tree, record.git_tree());
    assert!(TreeRecord::parse_verified(record.bytes().clone(), &oid).is_ok());
    let other = Oid::of(record.format(), ObjectKind::Blob, record.git_tree());
    assert!(TreeRecord::parse_verified(record.bytes().clone(), &other).is_err());
    // What was accepted can be made again from the tree alone.
    let again = TreeRecord::encode(record.git_tree(), record.format(), |name, _, _| {
        Ok(record.find(name).map_or(0, |entry| entry.size))
    });
    let again = again.expect("a record's own tree encodes");
    // Sizes of directories are not proved by the tree, so only names and kinds must agree.
    assert!(again.iter().zip(record.iter()).all(|(a, b)| (a.name, a.kind, a.oid) == (b.name, b.kind, b.oid)));
});

/// Valid records to start from: only the encoder knows how to make them.
fn seed() {
    for (format, name) in [
        (ObjectFormat::Sha1, "sha1"),
        (ObjectFormat::Sha256, "sha256"),
    ] {
        let len = format.oid_len();
        let one = entry("100644", b"a", len);
        let many = [
            entry("100644", b"a.b", len),
            entry("40000", b"a", len),
            entry("100755", b"x\xff", len),
            entry("120000", b"y", len),
            entry("160000", b"z", len),
        ]
        .concat();
        for (tree, kind) in [(&[][..], "empty"), (&one, "one"), (&many, "many")] {
            let record = TreeRecord::encode(tree, format, |_, _, _| Ok(9)).expect("a valid tree");
            monofs_fuzz::keep("record", &format!("{name}-{kind}"), record.bytes());
        }
    }
}

/// An entry of a tree object with an id of `len` bytes.
fn entry(mode: &str, name: &[u8], len: usize) -> Vec<u8> {
    [mode.as_bytes(), b" ", name, b"\0", &vec![7; len]].concat()
}
