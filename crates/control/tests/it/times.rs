//! The times of generations: set by the flip, read on demand, and never begun anew at a path.

use monofs_control::catalog::{GenerationTime, TIMES_ROW};
use monofs_control::clock;
use monofs_model::{GenerationRef, Repository, Snapshot};

use crate::rig::{SharedStore, TestRouter, actor, entry, node, path, snapshot};

/// Flips the entry at `h/x` to another commit, of which no name is an old one.
async fn flip(router: &TestRouter, number: u64) -> Repository {
    let shown = router.control.catalog.require("h/x").unwrap();
    let snapshot = Snapshot {
        generations: Some(GenerationRef::Constant(shown.generation + 1)),
        ..snapshot(number)
    };
    let entries = &router.control.entries;
    let flipped = entries.flip(actor(), &shown, &snapshot, &node("a")).await;
    (*flipped.unwrap()).clone()
}

fn time_of(entry: &Repository) -> i64 {
    let shown = entry.snapshot.as_ref().unwrap();
    entry.generation_time.unwrap_or(shown.commit_time)
}

#[tokio::test]
async fn the_first_generation_has_the_commits_time_and_each_later_one_that_of_its_flip() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let entries = &router.control.entries;
    entries.create(actor(), entry("h/x")).await.unwrap();
    let first = flip(&router, 7).await;
    assert_eq!((first.generation, time_of(&first)), (1, 7));
    let mut before = first;
    for number in 8..11 {
        let began = clock::now();
        let next = flip(&router, number).await;
        assert!(time_of(&next) > time_of(&before) && time_of(&next) >= began);
        assert!(
            time_of(&next) <= clock::now() + 2,
            "it is not shown before its time"
        );
        assert_eq!(next.root_time, next.generation_time);
        before = next;
    }
    let rows = router.control.times.rows(&before.storage_id(), &[0]).await;
    let rows = rows.unwrap();
    assert_eq!((rows[0].first, rows[0].deltas.len()), (1, 4));
    assert_eq!(rows[0].deltas.iter().sum::<i64>(), time_of(&before));
}

#[tokio::test]
async fn a_root_directory_that_did_not_change_keeps_its_time() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let entries = &router.control.entries;
    entries.create(actor(), entry("h/x")).await.unwrap();
    let first = flip(&router, 7).await;
    let kept = Snapshot {
        generations: Some(GenerationRef::Constant(1)),
        ..snapshot(8)
    };
    let second = entries.flip(actor(), &first, &kept, &node("a")).await;
    assert_eq!(second.unwrap().root_time, Some(7));
}

#[tokio::test]
async fn generations_go_on_where_a_deleted_entry_ended() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let entries = &router.control.entries;
    entries.create(actor(), entry("h/x")).await.unwrap();
    flip(&router, 1).await;
    let last = flip(&router, 2).await;
    entries.remove(actor(), &path("h/x")).await.unwrap();
    let id = last.storage_id();
    let told = router.control.times.last(&id).await.unwrap();
    let time = time_of(&last);
    assert_eq!(
        told,
        Some(GenerationTime {
            generation: 2,
            time
        })
    );
    entries.create(actor(), entry("h/x")).await.unwrap();
    let again = flip(&router, 3).await;
    assert_eq!(again.generation, 3);
    assert!(time_of(&again) > time);
}

#[tokio::test]
async fn what_was_published_before_times_were_kept_shows_its_commits_time_from_then_on() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let entries = &router.control.entries;
    let old = Repository {
        snapshot: Some(snapshot(5)),
        generation: 9,
        ..entry("h/x")
    };
    entries.create(actor(), old).await.unwrap();
    let next = flip(&router, 6).await;
    let rows = router.control.times.rows(&next.storage_id(), &[0]).await;
    let rows = rows.unwrap();
    assert_eq!((rows[0].first, rows[0].deltas[0]), (9, 5));
    assert_eq!(rows[0].deltas.iter().sum::<i64>(), time_of(&next));
}

#[tokio::test]
async fn a_row_begins_where_the_one_before_is_full() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let entries = &router.control.entries;
    let old = Repository {
        snapshot: Some(snapshot(5)),
        generation: TIMES_ROW - 2,
        ..entry("h/x")
    };
    entries.create(actor(), old).await.unwrap();
    flip(&router, 6).await;
    let next = flip(&router, 7).await;
    assert_eq!(next.generation, TIMES_ROW);
    let rows = router
        .control
        .times
        .rows(&next.storage_id(), &[0, 1, 2])
        .await;
    let firsts: Vec<u64> = rows.unwrap().iter().map(|row| row.first).collect();
    assert_eq!(firsts, [TIMES_ROW - 2, TIMES_ROW]);
}
