//! Databases written by earlier versions open for ever: `tests/fixtures/repo-v<n>` and
//! `tests/fixtures/state-v<n>`.
//!
//! To make those of a new format version, run
//! `MONOFS_WRITE_FIXTURES=1 cargo nextest run -p monofs-store every_version -j1` and commit the new
//! directories; never replace old ones.

use std::fs;
use std::path::{Path, PathBuf};

use monofs_model::ObjectFormat;
use monofs_store::{CommitOutcome, RepoStore, StateEnv, Write};
use tempfile::{TempDir, tempdir};

use crate::sample::{Sample, meta, open, problems, sample};

/// The format version that this program writes.
const VERSION: u32 = 1;

fn fixture(name: &str, version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("{name}-v{version}"))
}

/// A copy to work on: opening a database writes to its directory.
fn copy(name: &str, version: u32) -> TempDir {
    let dir = tempdir().unwrap();
    fs::copy(
        fixture(name, version).join("data.mdb"),
        dir.path().join("data.mdb"),
    )
    .unwrap();
    dir
}

fn contents() -> Sample {
    sample(ObjectFormat::Sha1, 1, 2, 3, 0)
}

fn write_fixtures() {
    if std::env::var_os("MONOFS_WRITE_FIXTURES").is_none() {
        return;
    }
    for name in ["repo", "state"] {
        let target = fixture(name, VERSION);
        if target.exists() {
            continue;
        }
        let dir = tempdir().unwrap();
        if name == "repo" {
            let store = open(dir.path());
            contents().adopt(&store);
            store.put_blobs(&contents().blobs).unwrap();
        } else {
            let state = StateEnv::open(dir.path()).unwrap();
            state
                .commit(
                    &[],
                    &[Write::Put {
                        key: b"key".to_vec(),
                        value: b"value".to_vec(),
                    }],
                )
                .unwrap();
        }
        fs::create_dir_all(&target).unwrap();
        fs::copy(dir.path().join("data.mdb"), target.join("data.mdb")).unwrap();
    }
}

#[test]
fn repositories_of_every_version_open_and_are_sound() {
    write_fixtures();
    for version in 1..=VERSION {
        let dir = copy("repo", version);
        let store = RepoStore::open_existing(dir.path()).unwrap();
        let contents = contents();
        assert_eq!(store.meta().unwrap(), meta("sample"));
        assert_eq!(
            store.snapshots().unwrap(),
            std::slice::from_ref(&contents.snapshot)
        );
        let reader = store.read().unwrap();
        for (oid, frame) in &contents.blobs {
            assert_eq!(reader.chunk(oid, 0).unwrap(), Some(&frame[..]));
        }
        for (oid, record) in &contents.trees {
            assert_eq!(reader.tree(oid).unwrap(), Some(&record[..]));
        }
        drop(reader);
        assert_eq!(problems(&store), [""; 0]);
        // And goes on being written.
        store.set_meta(&meta("other")).unwrap();
        store.gc(&[]).unwrap();
    }
}

#[test]
fn states_of_every_version_open() {
    write_fixtures();
    for version in 1..=VERSION {
        let dir = copy("state", version);
        let state = StateEnv::open(dir.path()).unwrap();
        let row = state.get(b"key").unwrap().unwrap();
        assert_eq!((row.value.as_slice(), row.revision), (&b"value"[..], 1));
        assert_eq!(
            state
                .commit(
                    &[],
                    &[Write::Delete {
                        key: b"key".to_vec()
                    }]
                )
                .unwrap(),
            CommitOutcome::Done { revision: 2 }
        );
    }
}

#[test]
fn a_newer_version_is_refused_in_words() {
    use heed::types::Bytes;
    let dir = copy("state", VERSION);
    let env = unsafe { heed::EnvOpenOptions::new().max_dbs(4).open(dir.path()) }.unwrap();
    let wtxn = env.write_txn().unwrap();
    env.create_databases_and_commit(wtxn, |opener, wtxn| {
        let meta = opener.create_database::<Bytes, Bytes>(wtxn, Some("meta"))?;
        meta.put(wtxn, b"format-version", &(VERSION + 1).to_be_bytes())?;
        Ok::<_, heed::Error>(heed::CommitOrAbort::<_, ()>::Commit(()))
    })
    .unwrap();
    drop(env);
    let error = StateEnv::open(dir.path()).err().unwrap();
    assert_eq!(error.kind, monofs_model::ErrorKind::Refused);
    assert!(
        error.message.contains("format version 2 is newer"),
        "{error}"
    );
}
