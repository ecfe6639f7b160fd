//! `kill -9` while writing: the test runs itself as a child, kills it at a random moment, and looks
//! at what is left.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{ErrorKind, ObjectFormat};
use monofs_store::cache::CACHE_BYTES_MIN;
use monofs_store::{CacheOptions, CacheStore, EnvOptions, RepoPool, frame};
use tempfile::tempdir;

use crate::sample::{large, meta, noise, problems, sample};

const ROLE: &str = "MONOFS_STORE_TEST_CHILD";
const DIR: &str = "MONOFS_STORE_TEST_DIR";
const ROUNDS: u64 = 12;

/// Runs `test` of this binary in a child that takes `role`, and waits until it has begun.
fn child(test: &str, role: &str, dir: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert!(
            lines.read_line(&mut line).unwrap() > 0,
            "the child ended before it began"
        );
    }
    (child, lines)
}

/// The child's directory, when this process is the child for `role`.
fn child_dir(role: &str) -> Option<std::path::PathBuf> {
    (std::env::var(ROLE).ok()? == role).then(|| std::env::var_os(DIR).unwrap().into())
}

/// Adopts, hydrates, writes large blobs, collects garbage, drops and makes repositories, for ever.
fn write_for_ever(dir: &Path) -> ! {
    let pool = RepoPool::open(
        dir,
        4,
        EnvOptions {
            map_bytes_min: 1 << 20,
            ..EnvOptions::default()
        },
    )
    .unwrap();
    println!("begun");
    for step in 0u64.. {
        let facts = meta(&format!("r{}", step % 2));
        let store = pool.get_or_create(&facts).unwrap();
        let sample = sample(ObjectFormat::Sha1, step % 5, 30, 10, 5);
        store
            .adopt(&mut sample.trees.iter().cloned(), &sample.snapshot, &facts)
            .unwrap();
        for batch in sample.blobs.chunks(50) {
            store.put_blobs(batch).unwrap();
        }
        let size = 10 * CHUNK_BYTES;
        let (oid, _, frames) = large(step % 3, size);
        let mut writer = store.begin_large(&oid, size as u64).unwrap();
        frames
            .into_iter()
            .enumerate()
            .for_each(|(n, frame)| writer.put(n as u32, frame).unwrap());
        if step % 2 == 0 {
            writer.finish().unwrap();
        } else {
            drop(writer);
        }
        store.gc(&[sample.snapshot.commit]).unwrap();
        if step % 6 == 5 {
            drop(store);
            pool.drop_repo(&facts.storage_id).unwrap();
        }
    }
    unreachable!("the steps never end")
}

#[test]
fn repositories_survive_kill_9_at_any_moment() {
    if let Some(dir) = child_dir("repositories") {
        write_for_ever(&dir);
    }
    let dir = tempdir().unwrap();
    let mut snapshots = 0;
    for round in 0..ROUNDS {
        let (mut child, _lines) = child(
            "crash::repositories_survive_kill_9_at_any_moment",
            "repositories",
            dir.path(),
        );
        // Not a wait for anything: the moment of death is what is being varied.
        std::thread::sleep(Duration::from_millis(5 + noise(round, 1)[0] as u64 * 2));
        child.kill().unwrap();
        child.wait().unwrap();
        let pool = RepoPool::open(dir.path(), 4, EnvOptions::default()).unwrap();
        for id in pool.list().unwrap() {
            let store = pool
                .get(&id)
                .unwrap()
                .unwrap_or_else(|| panic!("round {round}: {id} is gone"));
            assert_eq!(problems(&store), [""; 0], "round {round}");
            for snapshot in store.snapshots().unwrap() {
                snapshots += 1;
                let reader = store.read().unwrap();
                assert_eq!(
                    reader.missing_trees(&snapshot.root, 1).unwrap(),
                    [],
                    "round {round}"
                );
            }
        }
    }
    assert!(
        snapshots > 0,
        "no child lived long enough to write a snapshot"
    );
}

#[test]
fn the_cache_keeps_what_it_had_when_its_process_is_killed() {
    let chunk = |n: u64| {
        let raw = noise(n, 100_000);
        (
            monofs_model::Oid::of(ObjectFormat::Sha1, monofs_model::ObjectKind::Blob, &raw),
            0,
            frame::encode(&raw),
        )
    };
    if let Some(dir) = child_dir("cache") {
        let cache = CacheStore::open(
            &dir,
            &CacheOptions {
                max_bytes: CACHE_BYTES_MIN,
            },
        )
        .unwrap();
        cache.put_chunks(&[chunk(0)]).unwrap();
        println!("begun");
        for n in 1.. {
            cache
                .read()
                .chunk(&chunk(0).0, 0)
                .expect("what is used stays");
            cache.put_chunks(&[chunk(n % 1000)]).unwrap();
        }
    }
    let dir = tempdir().unwrap();
    for round in 0..ROUNDS {
        let (mut child, _lines) = child(
            "crash::the_cache_keeps_what_it_had_when_its_process_is_killed",
            "cache",
            dir.path(),
        );
        let options = CacheOptions {
            max_bytes: CACHE_BYTES_MIN,
        };
        assert_eq!(
            CacheStore::open(dir.path(), &options).err().unwrap().kind,
            ErrorKind::Refused,
            "a second process"
        );
        std::thread::sleep(Duration::from_millis(noise(round, 1)[0] as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let cache = CacheStore::open(dir.path(), &options).unwrap();
        let reader = cache.read();
        assert_eq!(
            reader.chunk(&chunk(0).0, 0),
            Some(chunk(0).2),
            "round {round}"
        );
        for n in 0..1000 {
            if let Some(found) = reader.chunk(&chunk(n).0, 0) {
                assert_eq!(found, chunk(n).2, "round {round}");
            }
        }
    }
}
