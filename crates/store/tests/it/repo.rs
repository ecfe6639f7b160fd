//! What a repository keeps and gives back.

use bytes::Bytes;
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{
    ContentMode, ErrorKind, GenerationNode, GenerationRef, ObjectFormat, ObjectKind, Oid, Snapshot,
    TreeRecord,
};
use monofs_store::{BlobWalk, Durability, EnvOptions, RepoStore, frame};
use tempfile::tempdir;

use crate::sample::{large, meta, noise, open, problems, sample, wide};

#[test]
fn what_was_adopted_is_read_back_byte_for_byte_after_a_restart() {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let dir = tempdir().unwrap();
        let sample = sample(format, 1, 20, 30, 0);
        {
            let store = open(dir.path());
            sample.adopt(&store);
            store.put_blobs(&sample.blobs).unwrap();
        }
        let store = RepoStore::open_existing(dir.path()).unwrap();
        assert_eq!(
            store.snapshots().unwrap(),
            std::slice::from_ref(&sample.snapshot)
        );
        assert_eq!(
            store.snapshot(&sample.snapshot.commit).unwrap().as_ref(),
            Some(&sample.snapshot)
        );
        assert!(store.has_snapshot(&sample.snapshot.commit).unwrap());
        let reader = store.read().unwrap();
        for (oid, record) in &sample.trees {
            assert_eq!(reader.tree(oid).unwrap(), Some(&record[..]));
        }
        for ((oid, frame), raw) in sample.blobs.iter().zip(&sample.raw) {
            assert_eq!(reader.chunk(oid, 0).unwrap(), Some(&frame[..]));
            assert_eq!(&frame::decode(frame).unwrap()[..], &raw[..]);
            assert!(reader.chunk(oid, 1).unwrap().is_none());
        }
        assert!(
            BlobWalk::new(sample.snapshot.root)
                .next_missing(&reader, usize::MAX)
                .unwrap()
                .is_empty()
        );
        drop(reader);
        let counts = store.counts().unwrap();
        assert_eq!((counts.trees, counts.blobs), (20, 600));
        assert_eq!(problems(&store), [""; 0]);
        let report = store.check(&mut |_| true).unwrap();
        assert_eq!(
            report.bytes,
            sample.raw.iter().map(|raw| raw.len() as u64).sum::<u64>()
        );
        assert_eq!((report.trees, report.blobs, report.snapshots), (20, 600, 1));
    }
}

#[test]
fn facts_are_kept_and_replaced() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let mut facts = meta("sample");
    assert_eq!(store.meta().unwrap(), facts);
    facts.content = ContentMode::Lazy;
    store.set_meta(&facts).unwrap();
    drop(store);
    // Opening again with other facts does not change them.
    assert_eq!(open(dir.path()).meta().unwrap(), facts);
}

#[test]
fn a_snapshot_with_a_hole_is_refused_and_leaves_no_row() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let sample = sample(ObjectFormat::Sha1, 1, 5, 3, 0);
    let (hole, _) = sample.trees[2];
    let mut trees = sample.trees.iter().filter(|(oid, _)| *oid != hole).cloned();
    let error = store
        .adopt(&mut trees, &sample.snapshot, &meta("sample"))
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotHeld);
    assert!(error.message.contains(&hole.to_string()), "{error}");
    assert_eq!(store.snapshots().unwrap(), []);
    for (oid, record) in sample.trees.iter().filter(|(oid, _)| *oid != hole) {
        store.put_trees(&[(*oid, record.clone())]).unwrap();
    }
    assert_eq!(
        store
            .read()
            .unwrap()
            .missing_trees(&sample.snapshot.root, 10)
            .unwrap(),
        [hole]
    );
    assert_eq!(
        store.put_snapshot(&sample.snapshot).unwrap_err().kind,
        ErrorKind::NotHeld
    );
    store.put_trees(&sample.trees[2..3]).unwrap();
    store.put_snapshot(&sample.snapshot).unwrap();
    assert_eq!(store.snapshots().unwrap().len(), 1);
}

#[test]
fn missing_blobs_are_named_once_with_their_sizes_in_one_walk_that_pauses() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let sample = sample(ObjectFormat::Sha1, 1, 4, 10, 0);
    sample.adopt(&store);
    store.put_blobs(&sample.blobs[..15]).unwrap();
    let mut expected: Vec<_> = sample
        .blobs
        .iter()
        .zip(&sample.raw)
        .skip(15)
        .map(|((oid, _), raw)| (*oid, raw.len() as u64))
        .collect();
    expected.sort();
    for limit in [1, 7, usize::MAX] {
        let mut walk = BlobWalk::new(sample.snapshot.root);
        let mut missing = Vec::new();
        loop {
            let step = walk.next_missing(&store.read().unwrap(), limit).unwrap();
            assert!(step.len() <= limit);
            if step.is_empty() {
                break;
            }
            missing.extend(step);
        }
        missing.sort();
        assert_eq!(missing, expected, "in steps of {limit}");
    }
    let mut held = std::collections::HashSet::new();
    let mut walk = BlobWalk::new(sample.snapshot.root);
    while walk
        .next_held(&store.read().unwrap(), 3, |oid, _| held.extend([*oid]))
        .unwrap()
    {}
    assert_eq!(
        held,
        sample.blobs[..15]
            .iter()
            .map(|(oid, _)| *oid)
            .collect::<std::collections::HashSet<_>>()
    );
    let nowhere = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, b"nowhere");
    let error = BlobWalk::new(nowhere)
        .next_missing(&store.read().unwrap(), 7)
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotHeld);
}

#[test]
fn what_is_put_between_two_steps_of_a_walk_is_not_missing_in_the_next() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let sample = sample(ObjectFormat::Sha1, 1, 4, 10, 0);
    sample.adopt(&store);
    let mut walk = BlobWalk::new(sample.snapshot.root);
    assert_eq!(
        walk.next_missing(&store.read().unwrap(), 5).unwrap().len(),
        5
    );
    store.put_blobs(&sample.blobs).unwrap();
    assert!(
        walk.next_missing(&store.read().unwrap(), 5)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn counts_follow_every_change_without_counting_again() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let sample = sample(ObjectFormat::Sha1, 1, 4, 10, 0);
    sample.adopt(&store);
    assert_eq!(store.counts().unwrap().blobs, 0);
    store.put_blobs(&sample.blobs[..15]).unwrap();
    store.put_blobs(&sample.blobs[10..20]).unwrap();
    assert_eq!(store.counts().unwrap().blobs, 20);
    let (long, _, frames) = large(5, 3 * CHUNK_BYTES);
    let mut writer = store.begin_large(&long, 3 * CHUNK_BYTES as u64).unwrap();
    for (index, frame) in frames.into_iter().enumerate() {
        writer.put(index as u32, frame).unwrap();
        assert_eq!(
            store.counts().unwrap().blobs,
            20,
            "half a blob does not count"
        );
    }
    writer.finish().unwrap();
    assert_eq!(store.counts().unwrap().blobs, 21);
    store.gc(&[sample.snapshot.commit]).unwrap();
    assert_eq!(store.counts().unwrap().blobs, 20);
    drop(store);
    assert_eq!(
        RepoStore::open_existing(dir.path())
            .unwrap()
            .counts()
            .unwrap()
            .blobs,
        20
    );
}

#[test]
fn the_map_grows_as_needed_while_readers_come_and_go() {
    let dir = tempdir().unwrap();
    let options = EnvOptions {
        map_bytes_min: 1 << 20,
        durability: Durability::System,
        ..EnvOptions::default()
    };
    let store = RepoStore::open(dir.path(), &meta("sample"), &options).unwrap();
    let first = noise(0, 5000);
    let first_oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, &first);
    store
        .put_blobs(&[(first_oid, frame::encode(&first))])
        .unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let outer = store.read().unwrap();
                    // A second view on the same thread must not wait for a resize that waits for
                    // the first.
                    let inner = store.read().unwrap();
                    let frame = inner.chunk(&first_oid, 0).unwrap().unwrap();
                    assert_eq!(&frame::decode(frame).unwrap()[..], &first[..]);
                    drop(inner);
                    assert!(outer.has_blob(&first_oid));
                }
            });
        }
        for n in 1..=40u64 {
            let raw = noise(n, CHUNK_BYTES);
            let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, &raw);
            store.put_blobs(&[(oid, frame::encode(&raw))]).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(store.counts().unwrap().blobs, 41);
    assert!(store.disk_bytes() > 40 << 20);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn the_bound_of_the_map_is_an_error_and_the_store_stays_usable() {
    let dir = tempdir().unwrap();
    let options = EnvOptions {
        map_bytes_min: 1 << 20,
        map_bytes_max: 4 << 20,
        ..EnvOptions::default()
    };
    let store = RepoStore::open(dir.path(), &meta("sample"), &options).unwrap();
    let sample = sample(ObjectFormat::Sha1, 1, 3, 3, 0);
    sample.adopt(&store);
    let raw = noise(7, CHUNK_BYTES);
    let oid = |n: u8| Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, &[n]);
    let batch: Vec<_> = (0..8).map(|n| (oid(n), frame::encode(&raw))).collect();
    assert_eq!(store.put_blobs(&batch).unwrap_err().kind, ErrorKind::Full);
    assert!(!store.read().unwrap().has_blob(&oid(0)));
    store.put_blobs(&sample.blobs).unwrap();
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_thread_that_reads_while_its_write_must_grow_the_map_gets_an_error_instead_of_a_deadlock() {
    let dir = tempdir().unwrap();
    let options = EnvOptions {
        map_bytes_min: 1 << 20,
        ..EnvOptions::default()
    };
    let store = RepoStore::open(dir.path(), &meta("sample"), &options).unwrap();
    let (oid, _, frames) = large(1, 3 * CHUNK_BYTES);
    let reader = store.read().unwrap();
    let mut writer = store.begin_large(&oid, 3 * CHUNK_BYTES as u64).unwrap();
    let mut frames = frames.into_iter().enumerate();
    let written = frames.try_for_each(|(index, frame)| writer.put(index as u32, frame));
    let error = written.and_then(|()| writer.finish()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    drop(reader);
    assert_eq!(store.counts().unwrap().blobs, 0);
}

#[test]
fn a_large_blob_appears_when_finished_and_not_before() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let size = 20 * CHUNK_BYTES + 12345;
    let (oid, raw, frames) = large(3, size);
    let mut writer = store.begin_large(&oid, size as u64).unwrap();
    assert_eq!(
        store.begin_large(&oid, size as u64).err().unwrap().kind,
        ErrorKind::Refused
    );
    for (index, frame) in frames.iter().enumerate() {
        writer.put(index as u32, frame.clone()).unwrap();
        assert!(!store.read().unwrap().has_blob(&oid));
        assert!(store.read().unwrap().chunk(&oid, 1).unwrap().is_none());
    }
    writer.finish().unwrap();
    let mut found = Vec::new();
    let reader = store.read().unwrap();
    for index in 0..frame::chunk_count(size as u64) {
        frame::decode_into(
            reader.chunk(&oid, index as u32).unwrap().unwrap(),
            &mut found,
        )
        .unwrap();
    }
    drop(reader);
    assert_eq!(found, raw);
    assert_eq!(store.counts().unwrap().blobs, 1);
    // Again: nothing changes, and abandoning it takes nothing away.
    let mut again = store.begin_large(&oid, size as u64).unwrap();
    again.put(0, frames[0].clone()).unwrap();
    drop(again);
    assert!(store.read().unwrap().has_blob(&oid));
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn an_abandoned_large_blob_leaves_nothing() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let size = 20 * CHUNK_BYTES;
    let (oid, _, frames) = large(4, size);
    let mut writer = store.begin_large(&oid, size as u64).unwrap();
    for (index, frame) in frames.iter().take(18).enumerate() {
        writer.put(index as u32, frame.clone()).unwrap();
    }
    assert_eq!(
        writer.put(19, frames[19].clone()).unwrap_err().kind,
        ErrorKind::Invalid
    );
    assert_eq!(
        writer.put(18, frame::encode(b"short")).unwrap_err().kind,
        ErrorKind::Corrupt
    );
    assert_eq!(writer.finish().unwrap_err().kind, ErrorKind::Invalid);
    assert!(!store.read().unwrap().has_blob(&oid));
    let report = store
        .check(&mut |progress| progress.rows_total == 0)
        .unwrap();
    assert!(report.is_sound(), "rows were left");
    // The oid is free again, and an empty blob is one empty chunk.
    let empty = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, b"");
    let mut writer = store.begin_large(&empty, 0).unwrap();
    writer.put(0, frame::encode(b"")).unwrap();
    writer.finish().unwrap();
    store.begin_large(&oid, size as u64).unwrap();
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn gc_keeps_what_kept_snapshots_reach_and_removes_the_rest() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let samples: Vec<_> = (1..=3)
        .map(|seed| sample(ObjectFormat::Sha1, seed, 6, 20, 10))
        .collect();
    for sample in &samples {
        sample.adopt(&store);
        store.put_blobs(&sample.blobs).unwrap();
    }
    let (stray, _, frames) = large(9, 3 * CHUNK_BYTES);
    let mut writer = store.begin_large(&stray, 3 * CHUNK_BYTES as u64).unwrap();
    for (index, frame) in frames.into_iter().enumerate() {
        writer.put(index as u32, frame).unwrap();
    }
    writer.finish().unwrap();
    let keep = [
        samples[1].snapshot.commit,
        Oid::of(ObjectFormat::Sha1, ObjectKind::Commit, b"unknown"),
    ];
    let report = store.gc(&keep).unwrap();
    assert_eq!(report.snapshots_removed, 2);
    assert_eq!(report.trees_removed, 12);
    assert_eq!(report.chunks_removed, 2 * 6 * 10 + 3);
    assert!(report.bytes_removed > 3 << 20);
    assert_eq!(store.snapshots().unwrap(), [samples[1].snapshot.clone()]);
    let reader = store.read().unwrap();
    assert!(samples[1].blobs.iter().all(|(oid, _)| reader.has_blob(oid)));
    assert!(samples[1].trees.iter().all(|(oid, _)| reader.has_tree(oid)));
    assert!(!reader.has_blob(&samples[0].blobs[15].0) && !reader.has_tree(&samples[0].trees[0].0));
    assert!(!reader.has_blob(&stray));
    drop(reader);
    assert_eq!(store.counts().unwrap().blobs, 120);
    assert_eq!(problems(&store), [""; 0]);
    assert_eq!(store.gc(&keep).unwrap(), Default::default());
    store.gc(&[]).unwrap();
    assert_eq!(store.counts().unwrap(), Default::default());
}

#[test]
fn gc_keeps_the_generation_nodes_that_held_commits_name() {
    let dir = tempdir().unwrap();
    let kept = sample(ObjectFormat::Sha1, 1, 2, 2, 0);
    let gone = sample(ObjectFormat::Sha1, 2, 2, 2, 0);
    let store = open(dir.path());
    kept.adopt(&store);
    gone.adopt(&store);

    // A node below another, each of the commit that stays and of the one that goes.
    let leaf = GenerationNode::new(&[1, 2].map(GenerationRef::Constant)).encode();
    let leaf_id = GenerationNode::id_of(&leaf);
    let above = GenerationRef::Node {
        own: 1,
        id: leaf_id,
    };
    let top = GenerationNode::new(&[GenerationRef::Constant(1), above]).encode();
    let other = GenerationNode::new(&[3, 4].map(GenerationRef::Constant)).encode();
    let root = |encoded: &[u8]| GenerationRef::Node {
        own: 2,
        id: GenerationNode::id_of(encoded),
    };
    let nodes = [&leaf, &top, &other].map(|node| (GenerationNode::id_of(node), node.clone()));
    let reader = store.read().unwrap();
    assert!(reader.generation_node(&leaf_id).unwrap().is_none());
    drop(reader);
    store.put_generation_nodes(&nodes).unwrap();
    store
        .put_generations(&kept.snapshot.commit, 2, &root(&top))
        .unwrap();
    store
        .put_generations(&gone.snapshot.commit, 2, &root(&other))
        .unwrap();
    assert!(store.check(&mut |_| true).unwrap().is_sound());

    let report = store.gc(&[kept.snapshot.commit]).unwrap();
    assert_eq!(report.generation_nodes_removed, 1);
    drop(store);
    let store = RepoStore::open_existing(dir.path()).unwrap();
    let reader = store.read().unwrap();
    let missing = |root: &GenerationRef| reader.missing_generation_nodes(root).unwrap();
    assert_eq!(missing(&root(&top)), []);
    assert_eq!(missing(&root(&other)), [GenerationNode::id_of(&other)]);
    assert!(store.check(&mut |_| true).unwrap().is_sound());
}

#[test]
fn gc_leaves_a_large_blob_that_is_being_written() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let size = 12 * CHUNK_BYTES;
    let (oid, _, frames) = large(4, size);
    let mut writer = store.begin_large(&oid, size as u64).unwrap();
    for (index, frame) in frames.into_iter().enumerate() {
        writer.put(index as u32, frame).unwrap();
    }
    assert_eq!(store.gc(&[]).unwrap().chunks_removed, 0);
    writer.finish().unwrap();
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn gc_sweeps_nothing_when_a_kept_closure_has_a_hole() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let (kept, gone) = (
        sample(ObjectFormat::Sha1, 1, 3, 4, 0),
        sample(ObjectFormat::Sha1, 2, 3, 4, 0),
    );
    kept.adopt(&store);
    gone.adopt(&store);
    store
        .put_trees(&[(kept.trees[0].0, Bytes::from_static(b"not a record"))])
        .unwrap();
    assert_eq!(
        store.gc(&[kept.snapshot.commit]).unwrap_err().kind,
        ErrorKind::Corrupt
    );
    assert!(store.read().unwrap().has_tree(&gone.trees[0].0));
}

#[test]
fn a_snapshot_of_many_directories_is_adopted_in_bounded_transactions() {
    let dir = tempdir().unwrap();
    let options = EnvOptions {
        map_bytes_min: 1 << 20,
        durability: Durability::System,
        ..EnvOptions::default()
    };
    let store = RepoStore::open(dir.path(), &meta("sample"), &options).unwrap();
    let sample = wide(24, 40_000);
    let bytes: usize = sample.trees.iter().map(|(_, record)| record.len()).sum();
    assert!(bytes > 40 << 20, "{bytes}");
    sample.adopt(&store);
    let mut walked = 0;
    let mut count = |_: &Oid, _: &TreeRecord| {
        walked += 1;
        Ok(true)
    };
    store
        .read()
        .unwrap()
        .walk_trees(&sample.snapshot.root, &mut count)
        .unwrap();
    assert_eq!(walked, 25);
}

#[test]
fn a_check_can_be_stopped_and_says_so() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let sample = sample(ObjectFormat::Sha1, 1, 4, 600, 0);
    sample.adopt(&store);
    store.put_blobs(&sample.blobs).unwrap();
    let mut calls = 0;
    let report = store.check(&mut |progress| {
        calls += 1;
        assert!(progress.rows_done <= progress.rows_total);
        calls < 2
    });
    let report = report.unwrap();
    assert!(!report.complete && !report.is_sound());
    assert_eq!(calls, 2);
}

#[test]
fn snapshots_are_listed_with_all_their_fields() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let sample = sample(ObjectFormat::Sha1, 1, 1, 1, 0);
    sample.adopt(&store);
    let other = Snapshot {
        commit: Oid::of(ObjectFormat::Sha1, ObjectKind::Commit, b"other"),
        commit_time: -1,
        submodules: Vec::new(),
        ..sample.snapshot.clone()
    };
    store.put_snapshot(&other).unwrap();
    let mut expected = [sample.snapshot, other];
    expected.sort_by_key(|snapshot| snapshot.commit);
    assert_eq!(store.snapshots().unwrap(), expected);
}
