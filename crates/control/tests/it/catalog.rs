//! Changes of the catalogue: their rules, and that all routers see the same.

use std::collections::BTreeMap;

use monofs_control::catalog::{
    RepositoryFilter, RepositoryQuery, RepositorySorting, SortDirection,
};
use monofs_model::{ErrorKind, NodeId, Repository, RepositoryState, Result};
use monofs_testkit::random::{Rng, seed_or};

use crate::rig::{
    OldRouter, SharedStore, TestRouter, actor, entry, node, old_router, path, snapshot,
};

async fn create(router: &TestRouter, at: &str) -> Result<()> {
    router.control.entries.create(actor(), entry(at)).await
}

async fn fail(router: &TestRouter, at: &str) {
    let failed = |entry: &Repository| {
        Ok(Some(Repository {
            state: RepositoryState::Failed,
            ..entry.clone()
        }))
    };
    let path = path(at);
    router
        .control
        .entries
        .update(actor(), &path, failed)
        .await
        .unwrap();
}

#[tokio::test]
async fn beside_an_old_router_no_repository_lies_inside_another_and_failed_ones_make_room() {
    let store = SharedStore::open().await;
    old_router(&*store.raw, OldRouter::ComparesDirectories).await;
    let router = store.router("only").await;
    create(&router, "h/team/x").await.unwrap();
    for (at, why) in [
        ("h/team/x", "is already there"),
        ("h/team", "overlaps it"),
        ("h/team/x/y", "overlaps it"),
    ] {
        let error = create(&router, at).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert!(
            error.message.contains(why) && error.message.contains("'h/team/x'"),
            "{error}"
        );
    }
    create(&router, "h/team/xy").await.unwrap();
    create(&router, "h/other/a").await.unwrap();
    for at in ["h/team/x", "h/team/xy"] {
        fail(&router, at).await;
    }
    create(&router, "h/team").await.unwrap();
    let all: Vec<String> = paths(&router);
    assert_eq!(all, ["h/other/a", "h/team"]);
}

fn paths(router: &TestRouter) -> Vec<String> {
    let all = router.control.catalog.page("", "", 100);
    all.iter().map(|entry| entry.path.to_string()).collect()
}

#[tokio::test]
async fn of_two_routers_beside_an_old_one_that_create_overlapping_entries_one_succeeds() {
    let store = SharedStore::open().await;
    old_router(&*store.raw, OldRouter::ComparesDirectories).await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    for round in 0..10 {
        let outer = format!("h/{round}");
        let inner = format!("h/{round}/inner");
        let (one, other) = tokio::join!(create(&first, &outer), create(&second, &inner));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
    first.catches_up(&store).await;
    second.catches_up(&store).await;
    assert_eq!(paths(&first), paths(&second));
    assert_eq!(first.control.catalog.len(), 10);
}

#[tokio::test]
async fn a_flip_of_an_entry_that_moved_on_is_refused() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    create(&first, "h/x").await.unwrap();
    second.catches_up(&store).await;
    let seen = second.control.catalog.require("h/x").unwrap();
    let flipped = first
        .control
        .entries
        .flip(actor(), &seen, &snapshot(1), &node("a"))
        .await
        .unwrap();
    assert_eq!(
        (flipped.generation, flipped.state, &flipped.holders[..]),
        (1, RepositoryState::Ready, &[node("a")][..])
    );
    let error = second
        .control
        .entries
        .flip(actor(), &seen, &snapshot(2), &node("b"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.message.contains("changed while"), "{error}");
    second.catches_up(&store).await;
    assert_eq!(second.control.catalog.require("h/x").unwrap(), flipped);
}

#[tokio::test]
async fn holders_change_for_the_generation_that_is_meant_and_the_last_ones_stay() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    create(&router, "h/x").await.unwrap();
    let entries = &router.control.entries;
    let at = path("h/x");
    let fresh = router.control.catalog.require("h/x").unwrap();
    let generation = entries
        .flip(actor(), &fresh, &snapshot(1), &node("b"))
        .await
        .unwrap()
        .generation;
    let holders = || {
        router
            .control
            .catalog
            .require("h/x")
            .unwrap()
            .holders
            .clone()
    };
    // Twice, in order, and for another generation.
    for name in ["c", "a", "c"] {
        entries
            .add_holder(actor(), &at, generation, &node(name))
            .await
            .unwrap();
    }
    entries
        .add_holder(actor(), &at, generation + 1, &node("z"))
        .await
        .unwrap();
    assert_eq!(holders(), [node("a"), node("b"), node("c")]);
    entries
        .remove_holder(actor(), &at, generation + 1, &node("a"))
        .await
        .unwrap();
    entries
        .remove_holder(actor(), &at, generation, &node("c"))
        .await
        .unwrap();
    assert_eq!(holders(), [node("a"), node("b")]);
    // A copy may go only while the others that were named are recorded.
    let refused: [(u64, &[NodeId]); 4] = [
        (generation, &[]),
        (generation, &[node("a")]),
        (generation, &[node("b"), node("c")]),
        (generation + 1, &[node("b")]),
    ];
    for (generation, keep) in refused {
        let error = entries
            .release_holder(actor(), &at, generation, &node("a"), keep)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{keep:?}: {error}");
    }
    entries
        .release_holder(actor(), &at, generation, &node("a"), &[node("b")])
        .await
        .unwrap();
    assert_eq!(holders(), [node("b")]);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_changed() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let at = path("h/x");
    let entries = &router.control.entries;
    let outcomes = [
        entries.remove(actor(), &at).await.map(drop),
        entries.add_holder(actor(), &at, 1, &node("a")).await,
        entries.update(actor(), &at, |_| Ok(None)).await.map(drop),
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
        assert!(error.message.contains("monofs-admin repos"), "{error}");
    }
}

#[tokio::test]
async fn a_search_gives_the_part_that_was_asked_for_and_the_number_of_all() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    for number in 0..12 {
        create(&router, &format!("h/{number:02}")).await.unwrap();
    }
    fail(&router, "h/03").await;
    fail(&router, "h/07").await;
    let query = |state, direction, offset| RepositoryQuery {
        filter: RepositoryFilter {
            state,
            ..RepositoryFilter::default()
        },
        sorting: RepositorySorting::Path,
        direction,
        offset,
        limit: 3,
    };
    let cases = [
        (
            None,
            SortDirection::Ascending,
            9,
            vec!["h/09", "h/10", "h/11"],
            12,
        ),
        (
            None,
            SortDirection::Descending,
            10,
            vec!["h/01", "h/00"],
            12,
        ),
        (
            Some(RepositoryState::Failed),
            SortDirection::Ascending,
            0,
            vec!["h/03", "h/07"],
            2,
        ),
    ];
    for (state, direction, offset, expected, total) in cases {
        let query = query(state, direction, offset);
        let found = router.control.catalog.search(query).await.unwrap();
        let shown: Vec<&str> = found.shown.iter().map(|e| e.path.as_str()).collect();
        assert_eq!((shown, found.total), (expected, total));
    }
}

#[tokio::test]
async fn a_listing_is_made_once_for_all_that_wait_and_lists_what_readers_see() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let catalog = &router.control.catalog;
    create(&router, "h/x").await.unwrap();
    let empty = catalog.listing().await.unwrap();
    assert!(empty.pages.iter().all(|page| page.is_empty()));
    let fresh = catalog.require("h/x").unwrap();
    router
        .control
        .entries
        .flip(actor(), &fresh, &snapshot(1), &node("a"))
        .await
        .unwrap();
    let (one, other) = tokio::join!(catalog.listing(), catalog.listing());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(std::sync::Arc::ptr_eq(&one, &other));
    let changes = catalog.changes_since(&one.position).expect("it is known");
    assert_eq!(
        changes.upserts.len(),
        1,
        "an old listing is sent with what changed since"
    );
}

/// Two routers change the same few paths at random; in the end both know what a plain map says.
#[tokio::test]
async fn after_any_changes_by_any_router_all_of_them_know_the_same() {
    let seed = seed_or(1);
    let mut rng = Rng::new(seed);
    let store = SharedStore::open().await;
    let routers = [store.router("first").await, store.router("second").await];
    let mut expected: BTreeMap<String, Repository> = BTreeMap::new();
    // The last generations of paths whose repositories were removed.
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for step in 0..150 {
        let router = &routers[rng.below(2) as usize];
        let at = ["h/a", "h/b", "h/a/inner", "top"][rng.below(4) as usize];
        // A router that is behind refuses what others did meanwhile; that is tested elsewhere.
        router.catches_up(&store).await;
        let entries = &router.control.entries;
        let known = expected.get(at).cloned();
        match (rng.below(5), known) {
            (0 | 1, None) => {
                // A repository around it that has a tree has to be looked into.
                let free = expected.values().all(|other| {
                    let inside = format!("{}/", other.path);
                    other.snapshot.is_none() || !at.starts_with(&inside)
                });
                let created = create(router, at).await;
                assert_eq!(created.is_ok(), free, "seed {seed}, step {step}: {at}");
                if free {
                    let generation = counted.get(at).copied().unwrap_or(0);
                    let created = Repository {
                        generation,
                        ..entry(at)
                    };
                    expected.insert(at.to_owned(), created);
                }
            }
            (2, Some(known)) => {
                entries.remove(actor(), &path(at)).await.unwrap();
                counted.insert(at.to_owned(), known.generation);
                expected.remove(at);
            }
            (3, Some(known)) => {
                expected.insert(
                    at.to_owned(),
                    (*entries
                        .flip(actor(), &known, &snapshot(step), &node("a"))
                        .await
                        .unwrap())
                    .clone(),
                );
            }
            (_, Some(mut known)) => {
                let holder = node(["b", "c"][rng.below(2) as usize]);
                entries
                    .add_holder(actor(), &path(at), known.generation, &holder)
                    .await
                    .unwrap();
                if !known.holders.contains(&holder) {
                    known.holders.push(holder);
                    known.holders.sort();
                }
                expected.insert(at.to_owned(), known);
            }
            (_, None) => {}
        }
    }
    for router in &routers {
        router.catches_up(&store).await;
        let all = router.control.catalog.page("", "", 100);
        let all: Vec<&Repository> = all.iter().map(|entry| &**entry).collect();
        let mut by_path: Vec<&Repository> = expected.values().collect();
        by_path.sort_by(|a, b| a.path.components().cmp(b.path.components()));
        assert_eq!(all, by_path, "seed {seed}");
        for holder in ["a", "b", "c"].map(node) {
            let held = expected.values().filter(|e| e.holders.contains(&holder));
            assert_eq!(
                router.control.catalog.count_held_by(&holder),
                held.count(),
                "seed {seed}"
            );
        }
    }
}
