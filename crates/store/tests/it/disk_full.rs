//! A full disk, on a small file system of its own.

use std::ffi::CStr;
use std::path::Path;

use monofs_model::{ErrorKind, ObjectFormat, ObjectKind, Oid};
use monofs_store::cache::CACHE_BYTES_MIN;
use monofs_store::{CacheOptions, CacheStore, RepoStore, frame};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::{TempDir, tempdir};

use crate::sample::{noise, open, problems, sample};

struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounting needs root, as the tests of the real mount do.
    fn new(size: &CStr) -> Self {
        let dir = tempdir().unwrap();
        mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(size),
        )
        .unwrap_or_else(|e| panic!("this test mounts a tmpfs, so it must run as root: {e}"));
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

fn blob(n: u64) -> (Oid, bytes::Bytes) {
    let raw = noise(n, 300_000);
    (
        Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, &raw),
        frame::encode(&raw),
    )
}

#[test]
fn a_full_disk_is_an_error_and_the_repository_stays_usable() {
    let disk = SmallDisk::new(c"size=8m");
    let dir = disk.path().join("repo");
    let store = open(&dir);
    let sample = sample(ObjectFormat::Sha1, 1, 4, 10, 0);
    sample.adopt(&store);
    store.put_blobs(&sample.blobs).unwrap();
    let mut held = Vec::new();
    let error = loop {
        let (oid, frame) = blob(held.len() as u64);
        match store.put_blobs(&[(oid, frame)]) {
            Ok(()) => held.push(oid),
            Err(e) => break e,
        }
        assert!(held.len() < 100, "the disk never filled");
    };
    assert_eq!(error.kind, ErrorKind::Full, "{error}");
    assert!(held.len() > 10);
    // Reads go on, and so do writes once there is room: gc frees pages inside the file.
    assert!(held.iter().all(|oid| store.read().unwrap().has_blob(oid)));
    let again = store
        .put_blobs(&[blob(1000), blob(1001), blob(1002)])
        .unwrap_err();
    assert_eq!(again.kind, ErrorKind::Full, "{again}");
    assert_eq!(problems(&store), [""; 0]);
    drop(store);
    let store = RepoStore::open_existing(&dir).unwrap();
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_full_disk_stops_the_cache_from_growing_and_nothing_else() {
    let disk = SmallDisk::new(c"size=24m");
    let cache = CacheStore::open(
        disk.path(),
        &CacheOptions {
            max_bytes: 2 * CACHE_BYTES_MIN,
        },
    )
    .unwrap();
    let mut failed = 0;
    for n in 0..200 {
        match cache.put_chunks(&[(blob(n).0, 0, blob(n).1)]) {
            Ok(()) => assert!(cache.read().chunk(&blob(n).0, 0).is_some()),
            Err(e) => {
                assert_eq!(e.kind, ErrorKind::Full, "{e}");
                failed += 1;
            }
        }
    }
    // The cache made room by itself: a generation that does not fit gives way to the next.
    assert!(failed < 20, "{failed} of 200 puts failed");
    assert!(cache.stats().rotations > 0);
}
