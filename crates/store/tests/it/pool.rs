//! The pool of repositories: bound, removal, damage, one process.

use std::fs;
use std::sync::Arc;

use monofs_model::{ErrorKind, ObjectFormat};
use monofs_store::{EnvOptions, RepoPool};
use tempfile::tempdir;

use crate::sample::{meta, problems, sample};

fn pool(root: &std::path::Path, max_open: usize) -> RepoPool {
    RepoPool::open(root, max_open, EnvOptions::default()).unwrap()
}

#[test]
fn repositories_come_back_after_eviction_and_restart() {
    let root = tempdir().unwrap();
    {
        let pool = pool(root.path(), 3);
        for n in 0..10 {
            let facts = meta(&format!("r{n}"));
            let store = pool.get_or_create(&facts).unwrap();
            let sample = sample(ObjectFormat::Sha1, n, 2, 2, 0);
            store
                .adopt(&mut sample.trees.iter().cloned(), &sample.snapshot, &facts)
                .unwrap();
            assert!(pool.open_count() <= 3);
        }
        assert!(pool.disk_bytes() > 0);
        assert_eq!(pool.list().unwrap().len(), 10);
    }
    let pool = pool(root.path(), 3);
    for n in 0..10 {
        let facts = meta(&format!("r{n}"));
        let store = pool.get(&facts.storage_id).unwrap().unwrap();
        assert_eq!(store.meta().unwrap(), facts);
        assert_eq!(
            store.snapshots().unwrap()[0].commit_time,
            1_700_000_000 + n as i64
        );
    }
    assert!(pool.get(&meta("none").storage_id).unwrap().is_none());
    assert_eq!(pool.list().unwrap().len(), 10, "asking makes nothing");
}

#[test]
fn a_repository_in_use_is_never_closed_and_the_bound_holds() {
    let root = tempdir().unwrap();
    let pool = pool(root.path(), 2);
    let a = pool.get_or_create(&meta("a")).unwrap();
    let b = pool.get_or_create(&meta("b")).unwrap();
    let error = pool.get_or_create(&meta("c")).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    drop(b);
    let c = pool.get_or_create(&meta("c")).unwrap();
    assert!(Arc::ptr_eq(
        &a,
        &pool.get(&meta("a").storage_id).unwrap().unwrap()
    ));
    drop((a, c));
    // The least recently used goes first: `a` was asked for after `c`.
    pool.get_or_create(&meta("b")).unwrap();
    assert_eq!(pool.open_count(), 2);
}

#[test]
fn a_dropped_repository_is_gone_and_can_be_made_anew_while_a_reader_still_holds_the_old_one() {
    let root = tempdir().unwrap();
    let pool = pool(root.path(), 8);
    let facts = meta("a");
    let old = pool.get_or_create(&facts).unwrap();
    let before = sample(ObjectFormat::Sha1, 1, 3, 5, 0);
    before.adopt(&old);
    assert!(pool.drop_repo(&facts.storage_id).unwrap());
    assert!(!pool.drop_repo(&facts.storage_id).unwrap());
    assert!(pool.get(&facts.storage_id).unwrap().is_none());
    let new = pool.get_or_create(&facts).unwrap();
    assert_eq!(new.snapshots().unwrap(), []);
    assert_eq!(
        old.snapshots().unwrap(),
        std::slice::from_ref(&before.snapshot)
    );
    assert_eq!(problems(&old), [""; 0]);
    drop((old, new));
    assert_eq!(fs::read_dir(root.path().join("trash")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.path().join("new")).unwrap().count(), 0);
}

#[test]
fn what_a_crash_left_half_made_or_half_removed_is_cleaned_at_open() {
    let root = tempdir().unwrap();
    let facts = meta("a");
    drop(pool(root.path(), 8).get_or_create(&facts).unwrap());
    let id = facts.storage_id.as_str();
    fs::rename(
        root.path().join("repos").join(id),
        root.path().join("trash").join(format!("{id}.0")),
    )
    .unwrap();
    fs::create_dir(root.path().join("new/half")).unwrap();
    fs::write(root.path().join("new/half/data.mdb"), b"half").unwrap();
    let pool = pool(root.path(), 8);
    assert_eq!(pool.list().unwrap(), []);
    assert_eq!(fs::read_dir(root.path().join("trash")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.path().join("new")).unwrap().count(), 0);
}

#[test]
fn a_damaged_repository_is_an_error_until_it_is_set_aside() {
    let root = tempdir().unwrap();
    let facts = meta("a");
    drop(pool(root.path(), 8).get_or_create(&facts).unwrap());
    let data = root
        .path()
        .join("repos")
        .join(facts.storage_id.as_str())
        .join("data.mdb");
    for n in 1..=2 {
        fs::write(&data, b"this is not a database, whatever its name says").unwrap();
        let pool = pool(root.path(), 8);
        assert_eq!(
            pool.get(&facts.storage_id).err().unwrap().kind,
            ErrorKind::Corrupt
        );
        assert_eq!(
            pool.get_or_create(&facts).err().unwrap().kind,
            ErrorKind::Corrupt,
            "not silently replaced"
        );
        let aside = pool.quarantine(&facts.storage_id).unwrap();
        assert!(
            aside.ends_with(format!("{}.corrupt-{n}", facts.storage_id))
                && aside.join("data.mdb").exists()
        );
        assert_eq!(pool.list().unwrap(), []);
        pool.get_or_create(&facts).unwrap();
    }
}

#[test]
fn a_second_process_is_refused() {
    let root = tempdir().unwrap();
    let first = pool(root.path(), 8);
    // flock knows open files, not processes, so a second open here stands for one elsewhere.
    let error = RepoPool::open(root.path(), 8, EnvOptions::default())
        .err()
        .unwrap();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(
        error
            .message
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    drop(first);
    pool(root.path(), 8);
}

#[test]
fn threads_that_ask_for_the_same_repositories_get_the_same_stores() {
    let root = tempdir().unwrap();
    let pool = pool(root.path(), 4);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let pool = &pool;
            scope.spawn(move || {
                for step in 0..60u64 {
                    let facts = meta(&format!("r{}", (thread * 7 + step * 5) % 9));
                    let store = pool.get_or_create(&facts).unwrap();
                    assert_eq!(store.meta().unwrap(), facts);
                    if step % 10 == 9 {
                        drop(store);
                        pool.drop_repo(&facts.storage_id).unwrap();
                    }
                }
            });
        }
    });
    assert!(pool.open_count() <= 4);
}

#[test]
fn no_file_descriptor_is_inherited_by_children() {
    let root = tempdir().unwrap();
    let pool = pool(root.path(), 4);
    let _store = pool.get_or_create(&meta("a")).unwrap();
    let mut seen = 0;
    for fd in fs::read_dir("/proc/self/fd").unwrap() {
        let path = fd.unwrap().path();
        let Ok(target) = fs::read_link(&path) else {
            continue;
        };
        if target.starts_with(root.path()) {
            let info =
                fs::read_to_string(path.to_str().unwrap().replace("/fd/", "/fdinfo/")).unwrap();
            let flags = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .unwrap()
                .trim();
            let close_on_exec = 0o2_000_000;
            assert_ne!(
                u32::from_str_radix(flags, 8).unwrap() & close_on_exec,
                0,
                "{}",
                target.display()
            );
            seen += 1;
        }
    }
    // The lock of the pool; data, synchronous data and lock file of the environment.
    assert!(seen >= 4, "{seen}");
}
