//! Damaged files: found, named, never a crash.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{ErrorKind, ObjectFormat};
use monofs_store::{RepoStore, StateEnv, frame};
use tempfile::tempdir;

use crate::sample::{large, noise, open, problems, sample};

fn filled(dir: &Path) -> crate::sample::Sample {
    let store = open(dir);
    let sample = sample(ObjectFormat::Sha1, 1, 8, 40, 0);
    sample.adopt(&store);
    store.put_blobs(&sample.blobs).unwrap();
    sample
}

/// Where `needle` is; pages that were copied on write may hold it more than once.
fn find(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    let found: Vec<_> = (0..haystack.len() - needle.len())
        .filter(|&at| haystack[at..].starts_with(needle))
        .collect();
    assert!(!found.is_empty());
    found
}

#[test]
fn a_flipped_byte_in_a_blob_or_a_record_is_found_by_check() {
    let dir = tempdir().unwrap();
    let sample = filled(dir.path());
    let data = dir.path().join("data.mdb");
    let bytes = fs::read(&data).unwrap();
    let (blob, raw) = (sample.blobs[39].0, &sample.raw[39]);
    let (tree, record) = &sample.trees[3];
    for (places, named) in [
        (find(&bytes, &raw[..64]), blob),
        (find(&bytes, record), *tree),
    ] {
        let mut damaged = bytes.clone();
        places.iter().for_each(|&at| damaged[at + 20] ^= 0x10);
        fs::write(&data, &damaged).unwrap();
        let store = RepoStore::open_existing(dir.path()).unwrap();
        let found = problems(&store);
        assert!(
            found
                .iter()
                .any(|problem| problem.contains(&named.to_string())),
            "{named}: {found:?}"
        );
        drop(store);
        fs::write(&data, &bytes).unwrap();
    }
    assert_eq!(
        problems(&RepoStore::open_existing(dir.path()).unwrap()),
        [""; 0]
    );
}

#[test]
fn bytes_under_the_wrong_oid_are_found_even_when_their_checksum_holds() {
    let dir = tempdir().unwrap();
    let sample = filled(dir.path());
    let store = RepoStore::open_existing(dir.path()).unwrap();
    // Same length, so that the sizes in the records stay true.
    let other = noise(77, sample.raw[5].len());
    store
        .put_blobs(&[(sample.blobs[5].0, frame::encode(&other))])
        .unwrap();
    store
        .put_trees(&[(sample.trees[1].0, sample.trees[2].1.clone())])
        .unwrap();
    let found = problems(&store);
    let named = |oid: &str| found.iter().filter(|problem| problem.contains(oid)).count();
    assert!(named(&sample.blobs[5].0.to_string()) == 1, "{found:?}");
    assert!(named(&sample.trees[1].0.to_string()) >= 1, "{found:?}");
}

#[test]
fn a_size_that_contradicts_the_blob_is_found() {
    let dir = tempdir().unwrap();
    let sample = filled(dir.path());
    let store = RepoStore::open_existing(dir.path()).unwrap();
    let record = monofs_model::TreeRecord::parse(sample.trees[0].1.clone()).unwrap();
    let lying =
        monofs_model::TreeRecord::encode(record.git_tree(), ObjectFormat::Sha1, |_, _, _| Ok(3))
            .unwrap();
    store
        .put_trees(&[(sample.trees[0].0, lying.bytes().clone())])
        .unwrap();
    let found = problems(&store);
    assert_eq!(found.len(), 40, "{found:?}");
    assert!(found[0].contains("is said to have 3 bytes"), "{found:?}");
}

#[test]
fn a_chunk_missing_from_a_large_blob_is_found() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let (oid, _, frames) = large(5, 4 * CHUNK_BYTES);
    let mut writer = store.begin_large(&oid, 4 * CHUNK_BYTES as u64).unwrap();
    frames
        .iter()
        .enumerate()
        .for_each(|(n, frame)| writer.put(n as u32, frame.clone()).unwrap());
    writer.finish().unwrap();
    assert_eq!(problems(&store), [""; 0]);
    // The first chunk of another blob in its place.
    store
        .put_blobs(&[(oid, frame::encode(&noise(1, CHUNK_BYTES)))])
        .unwrap();
    assert!(problems(&store)[0].contains(&oid.to_string()));
}

#[test]
fn a_truncated_data_file_is_corrupt_and_says_what_to_do() {
    let dir = tempdir().unwrap();
    filled(dir.path());
    let data = dir.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    let mut len = whole.len() - 4096;
    loop {
        fs::write(&data, &whole[..len]).unwrap();
        let error = RepoStore::open_existing(dir.path())
            .err()
            .expect("a truncated file was opened");
        assert_eq!(error.kind, ErrorKind::Corrupt, "{len}: {error}");
        assert!(
            error.message.contains(&*dir.path().to_string_lossy()),
            "{error}"
        );
        if len == 0 {
            break;
        }
        len = if len > 20_000 {
            len / 2
        } else {
            len.saturating_sub(3000)
        };
    }
    fs::write(&data, &whole).unwrap();
    assert_eq!(
        problems(&RepoStore::open_existing(dir.path()).unwrap()),
        [""; 0]
    );
}

/// LMDB may leave free pages at the end unwritten, so a file that lacks only those is whole.
#[test]
fn a_file_that_lacks_only_free_pages_is_no_damage() {
    let dir = tempdir().unwrap();
    let first = filled(dir.path());
    let second = sample(ObjectFormat::Sha1, 2, 8, 40, 0);
    {
        let store = RepoStore::open_existing(dir.path()).unwrap();
        second.adopt(&store);
        store.put_blobs(&second.blobs).unwrap();
        // Every round moves what is in use to lower pages.
        for seed in 3..6 {
            store.gc(&[first.snapshot.commit]).unwrap();
            sample(ObjectFormat::Sha1, seed, 2, 2, 0).adopt(&store);
        }
    }
    let data = dir.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    let mut shortest = whole.len();
    loop {
        fs::write(&data, &whole[..shortest - 4096]).unwrap();
        match RepoStore::open_existing(dir.path()) {
            Err(e) if e.kind == ErrorKind::Corrupt => break,
            opened => {
                let store = opened.unwrap();
                assert_eq!(
                    store.disk_bytes(),
                    whole.len() as u64,
                    "the missing pages are allocated again"
                );
                assert_eq!(problems(&store), [""; 0]);
                second.adopt(&store);
                store.put_blobs(&second.blobs).unwrap();
                assert_eq!(problems(&store), [""; 0]);
            }
        }
        shortest -= 4096;
    }
    assert!(
        shortest < whole.len(),
        "no page at the end was free: the test proves nothing"
    );
}

#[test]
fn files_that_are_something_else_are_refused_in_words() {
    let dir = tempdir().unwrap();
    assert_eq!(
        RepoStore::open_existing(dir.path()).err().unwrap().kind,
        ErrorKind::NotFound
    );
    fs::write(dir.path().join("data.mdb"), vec![0x5a; 100_000]).unwrap();
    let error = RepoStore::open_existing(dir.path()).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");

    let dir = tempdir().unwrap();
    drop(StateEnv::open(dir.path()).unwrap());
    let error = RepoStore::open_existing(dir.path()).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.message.contains("'state'"), "{error}");
}

/// Every page of a small database, one damaged byte at a time: whatever LMDB makes of it, this
/// process must survive, and wrong bytes must not pass for right ones.
#[test]
fn structural_damage_anywhere_is_survived() {
    let dir = tempdir().unwrap();
    let sample = filled(dir.path());
    let data = dir.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    for page in 0..whole.len() / 4096 {
        for (at, value) in [
            (8, 0xffu8),
            (10, 0xff),
            (12, 0xff),
            (13, 0xff),
            (14, 0xff),
            (16, 0xff),
            (17, 0x7f),
            (18, 0xff),
        ] {
            let mut damaged = whole.clone();
            damaged[page * 4096 + at] ^= value;
            fs::write(&data, &damaged).unwrap();
            let Ok(store) = RepoStore::open_existing(dir.path()) else {
                continue;
            };
            let report = store.check(&mut |_| true).unwrap();
            if report.is_sound() {
                let reader = store.read().unwrap();
                for (oid, frame) in &sample.blobs {
                    assert_eq!(
                        reader.chunk(oid, 0).unwrap(),
                        Some(&frame[..]),
                        "page {page} byte {at}"
                    );
                }
                for (oid, record) in &sample.trees {
                    assert_eq!(
                        reader
                            .tree(oid)
                            .unwrap()
                            .map(Bytes::copy_from_slice)
                            .as_ref(),
                        Some(record)
                    );
                }
            }
        }
    }
}
