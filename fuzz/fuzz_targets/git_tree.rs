//! Raw tree objects: as the fetcher gets them from Git remotes. The first byte chooses the object
//! format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monofs_model::tree::{check_entry_name, parse_git_tree};
use monofs_model::{ObjectFormat, TreeRecord};

fuzz_target!(|data: &[u8]| {
    let Some((first, tree)) = data.split_first() else {
        return;
    };
    let format = if first % 2 == 0 {
        ObjectFormat::Sha1
    } else {
        ObjectFormat::Sha256
    };
    let parsed = parse_git_tree(tree, format);
    let record = TreeRecord::encode(tree, format, |name, _, oid| {
        Ok(name.len() as u64 + oid.as_bytes().len() as u64)
    });
    let Ok(entries) = parsed else {
        assert!(record.is_err(), "a malformed tree was encoded");
        return;
    };
    for entry in &entries {
        let name = &tree[entry.name_start..entry.name_start + entry.name_len];
        if check_entry_name(name).is_err() {
            assert!(record.is_err(), "a refused name was encoded");
        }
    }
    let Ok(record) = record else { return };
    assert_eq!(record.len(), entries.len());
    assert_eq!(record.git_tree(), tree);
    let parsed = TreeRecord::parse(record.bytes().clone()).expect("what was encoded can be read");
    assert!(parsed.iter().eq(record.iter()));
});
