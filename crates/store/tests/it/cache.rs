//! The client's cache: bound, generations, trust.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{ErrorKind, ObjectFormat, ObjectKind, Oid};
use monofs_store::cache::{CACHE_BYTES_MIN, wipe};
use monofs_store::{CacheOptions, CacheStore, frame};
use tempfile::tempdir;

use crate::sample::noise;

fn open(dir: &Path) -> CacheStore {
    CacheStore::open(
        dir,
        &CacheOptions {
            max_bytes: CACHE_BYTES_MIN,
        },
    )
    .unwrap()
}

fn oid(n: u64) -> Oid {
    Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, &n.to_le_bytes())
}

fn chunk(n: u64) -> (Oid, u32, Bytes) {
    (oid(n), 0, frame::encode(&noise(n, 200_000)))
}

/// The generations' directories, ascending.
fn generations(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("gen-")
        })
        .collect();
    found.sort();
    found
}

fn disk_bytes(dir: &Path) -> u64 {
    let files = generations(dir)
        .into_iter()
        .flat_map(|path| [path.join("data.mdb"), path.join("frames")]);
    files.map(|file| file.metadata().unwrap().len()).sum()
}

fn cut_in_half(file: &Path) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

#[test]
fn what_was_put_is_found_after_a_restart() {
    let dir = tempdir().unwrap();
    let sha256 = Oid::of(ObjectFormat::Sha256, ObjectKind::Tree, b"x");
    {
        let cache = open(dir.path());
        cache
            .put_trees(&[
                (oid(1), Bytes::from_static(b"record")),
                (sha256, Bytes::from_static(b"long oid")),
            ])
            .unwrap();
        cache
            .put_chunks(&[
                (oid(1), 0, Bytes::from_static(b"zero")),
                (oid(1), 7, Bytes::from_static(b"seven")),
            ])
            .unwrap();
        cache.kv_put("catalogue", b"entries").unwrap();
    }
    let cache = open(dir.path());
    let reader = cache.read();
    assert_eq!(reader.tree(&oid(1)), Some(&b"record"[..]));
    assert_eq!(reader.tree(&sha256), Some(&b"long oid"[..]));
    assert_eq!(reader.chunk(&oid(1), 0).as_deref(), Some(&b"zero"[..]));
    assert_eq!(reader.chunk(&oid(1), 7).as_deref(), Some(&b"seven"[..]));
    assert_eq!(reader.chunk(&oid(1), 1), None);
    assert_eq!(reader.tree(&oid(2)), None);
    assert_eq!(cache.kv_get("catalogue").unwrap().unwrap(), b"entries");
    assert_eq!(cache.kv_get("other").unwrap(), None);
}

#[test]
fn the_disk_never_holds_more_than_the_bound_and_the_newest_stays() {
    let dir = tempdir().unwrap();
    let cache = open(dir.path());
    cache.kv_put("catalogue", b"entries").unwrap();
    for n in 0..400u64 {
        cache.put_chunks(&[chunk(n)]).unwrap();
        assert!(disk_bytes(dir.path()) <= CACHE_BYTES_MIN, "after {n}");
        assert_eq!(cache.read().chunk(&oid(n), 0), Some(chunk(n).2));
    }
    let stats = cache.stats();
    assert!(stats.rotations >= 3, "{stats:?}");
    assert_eq!(
        stats.current_bytes + stats.previous_bytes,
        disk_bytes(dir.path())
    );
    let reader = cache.read();
    assert_eq!(reader.chunk(&oid(0), 0), None);
    // A generation's worth is always there.
    assert!((340..400).all(|n| reader.chunk(&oid(n), 0).is_some()));
    drop(reader);
    assert_eq!(
        cache.kv_get("catalogue").unwrap().unwrap(),
        b"entries",
        "values survive generations"
    );
}

#[test]
fn what_is_used_stays_while_the_rest_goes() {
    let dir = tempdir().unwrap();
    let cache = open(dir.path());
    cache.put_chunks(&[chunk(0), chunk(1)]).unwrap();
    cache
        .put_trees(&[
            (oid(0), Bytes::from_static(b"used")),
            (oid(1), Bytes::from_static(b"unused")),
        ])
        .unwrap();
    for n in 2..400u64 {
        cache.put_chunks(&[chunk(n)]).unwrap();
        let reader = cache.read();
        assert_eq!(reader.chunk(&oid(0), 0), Some(chunk(0).2), "at {n}");
        assert_eq!(reader.tree(&oid(0)), Some(&b"used"[..]), "at {n}");
    }
    let reader = cache.read();
    assert_eq!(reader.chunk(&oid(1), 0), None);
    assert_eq!(reader.tree(&oid(1)), None);
    assert!(cache.stats().promoted >= 4);
}

#[test]
fn a_hit_just_before_a_rotation_survives_it() {
    let dir = tempdir().unwrap();
    let cache = open(dir.path());
    let mut n = 0;
    let mut fill_until_rotated = |cache: &CacheStore| {
        let before = cache.stats().rotations;
        while cache.stats().rotations == before {
            n += 1;
            cache.put_chunks(&[chunk(n)]).unwrap();
        }
    };
    cache.put_chunks(&[chunk(1 << 40)]).unwrap();
    fill_until_rotated(&cache);
    assert!(cache.read().chunk(&oid(1 << 40), 0).is_some());
    // One put that is larger than what is left rotates at once.
    let large: Vec<_> = (1 << 20..(1 << 20) + 100).map(chunk).collect();
    cache.put_chunks(&large).unwrap();
    assert!(cache.read().chunk(&oid(1 << 40), 0).is_some());
}

#[test]
fn a_reader_keeps_its_view_while_generations_go() {
    let dir = tempdir().unwrap();
    let cache = open(dir.path());
    cache.put_chunks(&[chunk(0)]).unwrap();
    let reader = cache.read();
    assert!(reader.chunk(&oid(0), 0).is_some());
    for n in 1..300 {
        cache.put_chunks(&[chunk(n)]).unwrap();
    }
    assert_eq!(reader.chunk(&oid(0), 0), Some(chunk(0).2));
    assert_eq!(cache.read().chunk(&oid(0), 0), None);
}

#[test]
fn readers_and_a_writer_agree_while_generations_rotate() {
    let dir = tempdir().unwrap();
    let cache = open(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..3u64 {
            let (cache, done) = (&cache, &done);
            scope.spawn(move || {
                let mut n = seed;
                while !done.load(Ordering::Relaxed) {
                    n = (n * 31 + 7) % 300;
                    if let Some(found) = cache.read().chunk(&oid(n), 0) {
                        assert_eq!(&frame::decode(&found).unwrap()[..], noise(n, 200_000));
                    }
                }
            });
        }
        let mut last = VecDeque::new();
        for n in 0..300 {
            last.push_back(chunk(n));
            if last.len() == 10 {
                cache.put_chunks(last.make_contiguous()).unwrap();
                last.clear();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(cache.stats().rotations >= 2);
}

#[test]
fn rows_too_large_for_any_generation_are_passed_over() {
    let dir = tempdir().unwrap();
    let cache = open(dir.path());
    let record = Bytes::from(vec![1; CACHE_BYTES_MIN as usize]);
    cache
        .put_trees(&[(oid(1), record), (oid(2), Bytes::from_static(b"small"))])
        .unwrap();
    assert_eq!(cache.read().tree(&oid(1)), None);
    assert_eq!(cache.read().tree(&oid(2)), Some(&b"small"[..]));
}

#[test]
fn damaged_bytes_are_replaced_by_sound_ones() {
    let dir = tempdir().unwrap();
    let cache = open(dir.path());
    cache
        .put_chunks(&[(oid(1), 0, Bytes::from_static(b"damaged"))])
        .unwrap();
    cache
        .put_chunks(&[(oid(1), 0, Bytes::from_static(b"sound"))])
        .unwrap();
    assert_eq!(
        cache.read().chunk(&oid(1), 0).as_deref(),
        Some(&b"sound"[..])
    );
}

#[test]
fn a_cache_that_was_open_when_the_machine_went_down_is_emptied() {
    let dir = tempdir().unwrap();
    {
        let cache = open(dir.path());
        cache.put_chunks(&[chunk(1)]).unwrap();
        cache.kv_put("catalogue", b"entries").unwrap();
        assert!(dir.path().join("boot").exists());
    }
    assert!(
        !dir.path().join("boot").exists(),
        "a clean close leaves no marker"
    );
    fs::write(dir.path().join("boot"), b"0d9c1e9a-of-another-boot").unwrap();
    let cache = open(dir.path());
    assert_eq!(cache.read().chunk(&oid(1), 0), None);
    assert_eq!(
        cache.kv_get("catalogue").unwrap().unwrap(),
        b"entries",
        "values are synced, so they can be trusted"
    );
}

#[test]
fn a_generation_that_does_not_open_is_dropped() {
    let dir = tempdir().unwrap();
    {
        let cache = open(dir.path());
        (0..120).for_each(|n| cache.put_chunks(&[chunk(n)]).unwrap());
        assert!(cache.stats().rotations >= 1);
    }
    cut_in_half(&generations(dir.path()).last().unwrap().join("data.mdb"));
    let cache = open(dir.path());
    cache.put_chunks(&[chunk(1000)]).unwrap();
    assert!(cache.read().chunk(&oid(1000), 0).is_some());
    assert!(disk_bytes(dir.path()) <= CACHE_BYTES_MIN);
}

#[test]
fn frames_that_were_cut_off_are_missed_and_taken_in_again() {
    let dir = tempdir().unwrap();
    {
        let cache = open(dir.path());
        cache.put_chunks(&[chunk(1), chunk(2)]).unwrap();
    }
    cut_in_half(&generations(dir.path())[0].join("frames"));
    let cache = open(dir.path());
    assert_eq!(cache.read().chunk(&oid(1), 0), Some(chunk(1).2));
    assert_eq!(cache.read().chunk(&oid(2), 0), None);
    // What comes next must not be taken for what stood there.
    cache.put_chunks(&[chunk(3)]).unwrap();
    assert_eq!(cache.read().chunk(&oid(3), 0), Some(chunk(3).2));
    assert!(
        cache
            .read()
            .chunk(&oid(2), 0)
            .is_none_or(|found| frame::decode(&found).is_err())
    );
    cache.put_chunks(&[chunk(2)]).unwrap();
    assert_eq!(cache.read().chunk(&oid(2), 0), Some(chunk(2).2));
}

#[test]
fn a_lowered_bound_holds_after_the_next_open() {
    let dir = tempdir().unwrap();
    {
        let cache = CacheStore::open(
            dir.path(),
            &CacheOptions {
                max_bytes: 4 * CACHE_BYTES_MIN,
            },
        )
        .unwrap();
        let batch: Vec<_> = (0..500).map(chunk).collect();
        cache.put_chunks(&batch).unwrap();
    }
    assert!(disk_bytes(dir.path()) > CACHE_BYTES_MIN);
    let cache = open(dir.path());
    assert!(disk_bytes(dir.path()) <= CACHE_BYTES_MIN);
    cache.put_chunks(&[chunk(1)]).unwrap();
    assert!(cache.read().chunk(&oid(1), 0).is_some());
}

#[test]
fn misuse_is_refused_and_a_wipe_empties() {
    let dir = tempdir().unwrap();
    let small = CacheOptions {
        max_bytes: CACHE_BYTES_MIN - 1,
    };
    assert_eq!(
        CacheStore::open(dir.path(), &small).err().unwrap().kind,
        ErrorKind::Invalid
    );
    let cache = open(dir.path());
    let again = CacheStore::open(
        dir.path(),
        &CacheOptions {
            max_bytes: CACHE_BYTES_MIN,
        },
    );
    assert_eq!(again.err().unwrap().kind, ErrorKind::Refused);
    assert_eq!(wipe(dir.path()).unwrap_err().kind, ErrorKind::Refused);
    assert_eq!(cache.kv_put("", b"").unwrap_err().kind, ErrorKind::Invalid);
    cache
        .put_chunks(&[(oid(1), 0, frame::encode(&vec![0; CHUNK_BYTES]))])
        .unwrap();
    cache.kv_put("catalogue", b"entries").unwrap();
    drop(cache);
    wipe(dir.path()).unwrap();
    let cache = open(dir.path());
    assert_eq!(cache.read().chunk(&oid(1), 0), None);
    assert_eq!(cache.kv_get("catalogue").unwrap(), None);
    wipe(&dir.path().join("never made")).unwrap();
}
