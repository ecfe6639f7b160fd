//! Creations: those that cannot collide do not meet, and of those that do one wins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use monofs_control::Control;
use monofs_control::catalog::EnclosingTree;
use monofs_control::state::StateStore;
use monofs_model::{
    Consistency, ContentMode, DisplayPath, ErrorKind, NodeId, Oid, RefName, Repository,
    RepositoryState, Result, Snapshot, SourceUrl,
};
use monofs_proto::v1;
use monofs_store::state::{CommitOutcome, Compare, Write};
use monofs_testkit::wait::wait_until_async;
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::rig::{OldRouter, actor, old_router};
use crate::state::{on_both, rows};

const SOON: Duration = Duration::from_secs(20);
/// How often two creations are let loose on each other.
const TRIES: usize = 60;

/// A router on `store`: a memory of its own.
async fn router(store: &Arc<dyn StateStore>, id: &str, stop: &CancellationToken) -> Arc<Control> {
    let own = v1::RouterStatus {
        router_id: id.into(),
        compares_directories: true,
        nests_repositories: true,
        ..Default::default()
    };
    Control::start(store.clone(), own, SOON, stop)
        .await
        .unwrap()
}

fn entry(path: &str, state: RepositoryState) -> Repository {
    Repository {
        path: DisplayPath::new(path).unwrap(),
        source: SourceUrl::new("https://forge.example/x.git").unwrap(),
        ref_name: RefName::new("main").unwrap(),
        state,
        snapshot: None,
        generation: 0,
        generation_time: None,
        root_time: None,
        holders: vec![],
        content: ContentMode::Eager,
        consistency: Consistency::Eventual,
        created_at: 0,
        refreshed_at: 0,
        last_error: String::new(),
        shadowed_by: None,
    }
}

async fn create(router: &Control, path: &str) -> Result<()> {
    let entry = entry(path, RepositoryState::Ingesting);
    router.entries.create(actor(), entry).await
}

async fn remove(router: &Control, path: &str) {
    let path = DisplayPath::new(path).unwrap();
    router.entries.remove(actor(), &path).await.unwrap();
}

async fn keys(store: &dyn StateStore, prefix: &str) -> BTreeSet<String> {
    let rows = rows_of(store, prefix).await;
    rows.into_iter().collect()
}

async fn rows_of(store: &dyn StateStore, prefix: &str) -> Vec<String> {
    let scan = store.scan(prefix).await.unwrap();
    let keys = scan.rows.into_iter().map(|(key, _)| key);
    keys.map(|key| String::from_utf8(key).unwrap()).collect()
}

/// Waits until both routers have heard of all that the state store has.
async fn wait_told(store: &dyn StateStore, routers: &[&Control]) {
    let all = keys(store, "repo/").await.len();
    for router in routers {
        let has_all = || async { router.catalog.len() == all };
        wait_until_async("a router has heard of everything", SOON, has_all).await;
    }
}

fn assert_one_won(outcomes: &[&Result<()>]) {
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1, "{outcomes:?}");
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert!(error.message.contains("choose another"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_creations_side_by_side_all_succeed() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        let routers = [
            router(&store, "one", &stop).await,
            router(&store, "two", &stop).await,
        ];
        let mut paths = (0..400).map(|n| format!("forge.example/org{}/r{n}", n % 3));
        let mut running = FuturesUnordered::new();
        let mut number = 0;
        loop {
            while running.len() < 64
                && let Some(path) = paths.next()
            {
                let router = routers[number % 2].clone();
                number += 1;
                running.push(async move { create(&router, &path).await });
            }
            match running.next().await {
                Some(outcome) => outcome.unwrap(),
                None => break,
            }
        }
        assert_eq!(keys(&*store, "repo/").await.len(), 400);
        // One row for each directory, whatever is in it.
        assert_eq!(keys(&*store, "below/").await.len(), 4);
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_router_that_knows_no_nesting_one_of_two_creations_of_which_one_lies_inside_wins()
{
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        old_router(&*store, OldRouter::ComparesDirectories).await;
        let one = router(&store, "one", &stop).await;
        let two = router(&store, "two", &stop).await;
        for n in 0..TRIES {
            let outer = format!("h/a{n}");
            let inner = match n % 3 {
                0 => format!("h/a{n}/x"),
                1 => format!("h/a{n}/x/y/z"),
                _ => outer.clone(),
            };
            let (first, second) = match n % 2 {
                0 => tokio::join!(create(&one, &outer), create(&two, &inner)),
                _ => tokio::join!(create(&one, &inner), create(&two, &outer)),
            };
            assert_one_won(&[&first, &second]);
        }
        assert_eq!(keys(&*store, "repo/").await.len(), TRIES);
        stop.cancel();
    })
    .await;
}

/// A creation as routers of before `below/` make it: from a memory as of `scan`.
async fn create_as_before(store: &dyn StateStore, path: &str) -> bool {
    let scan = store.scan("").await.unwrap();
    let revision = |key: &str| {
        let found = scan.rows.iter().find(|(found, _)| found == key.as_bytes());
        found.map_or(0, |(_, row)| row.revision)
    };
    let key = format!("repo/{path}");
    let is_taken = scan.rows.iter().any(|(found, _)| {
        let found = String::from_utf8_lossy(found);
        found.strip_prefix("repo/").is_some_and(|found| {
            DisplayPath::new(found)
                .unwrap()
                .overlaps(&DisplayPath::new(path).unwrap())
        })
    });
    if is_taken {
        return false;
    }
    // Meanwhile something else may happen.
    tokio::task::yield_now().await;
    let mut value = vec![1];
    let entry = v1::Repository::from(&entry(path, RepositoryState::Ingesting));
    value.extend(entry.encode_to_vec());
    let compares = ["names", &key].map(|key| Compare {
        key: key.into(),
        revision: revision(key),
    });
    let writes = [("names", Vec::new()), (&key, value)].map(|(key, value)| Write::Put {
        key: key.into(),
        value,
    });
    let outcome = store.commit(compares.into(), writes.into()).await.unwrap();
    matches!(outcome, CommitOutcome::Done { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_router_of_before_no_entry_comes_to_lie_inside_another() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        // As its row says, it compares names alone.
        old_router(&*store, OldRouter::ComparesNames).await;
        let new = router(&store, "new", &stop).await;
        for n in 0..TRIES {
            let outer = format!("h/a{n}");
            let inner = format!("h/a{n}/x");
            let (is_old, is_new) = match n % 2 {
                0 => tokio::join!(create_as_before(&*store, &outer), create(&new, &inner)),
                _ => tokio::join!(create_as_before(&*store, &inner), create(&new, &outer)),
            };
            assert!(!(is_old && is_new.is_ok()), "{outer}");
            if let Err(error) = is_new {
                assert_eq!(error.kind, ErrorKind::Refused, "{error}");
            }
        }
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_row_of_a_directory_goes_with_the_last_repository_in_it() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        let one = router(&store, "one", &stop).await;
        let two = router(&store, "two", &stop).await;
        for path in ["h/a/x", "h/a/y", "h/b/c/z"] {
            create(&one, path).await.unwrap();
        }
        wait_told(&*store, &[&one, &two]).await;
        remove(&two, "h/a/x").await;
        let left = ["below/h", "below/h/a", "below/h/b", "below/h/b/c"];
        assert_eq!(keys(&*store, "below/").await, left.map(String::from).into());
        remove(&two, "h/b/c/z").await;
        let left = ["below/h", "below/h/a"];
        assert_eq!(keys(&*store, "below/").await, left.map(String::from).into());
        remove(&two, "h/a/y").await;
        assert!(rows(&*store, "below/").await.is_empty());
        wait_told(&*store, &[&one, &two]).await;
        create(&one, "h/a").await.unwrap();
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_router_that_knows_no_nesting_failed_entries_give_way() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        old_router(&*store, OldRouter::ComparesDirectories).await;
        let one = router(&store, "one", &stop).await;
        for path in ["h/a/x", "h/a/d/y"] {
            one.entries
                .create(actor(), entry(path, RepositoryState::Failed))
                .await
                .unwrap();
        }
        create(&one, "h/a").await.unwrap();
        assert_eq!(keys(&*store, "repo/").await, ["repo/h/a".into()].into());
        assert_eq!(keys(&*store, "below/").await, ["below/h".into()].into());
        remove(&one, "h/a").await;
        one.entries
            .create(actor(), entry("h/a", RepositoryState::Failed))
            .await
            .unwrap();
        create(&one, "h/a/x").await.unwrap();
        assert_eq!(keys(&*store, "repo/").await, ["repo/h/a/x".into()].into());
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_before_directories_had_rows_is_read_as_it_is() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        assert!(create_as_before(&*store, "h/a/x").await);
        old_router(&*store, OldRouter::ComparesDirectories).await;
        let one = router(&store, "one", &stop).await;
        let refused = create(&one, "h/a").await.unwrap_err();
        assert!(refused.message.contains("h/a/x"), "{refused}");
        create(&one, "h/a/y").await.unwrap();
        for path in ["h/a/x", "h/a/y"] {
            remove(&one, path).await;
        }
        assert!(rows(&*store, "below/").await.is_empty());
        create(&one, "h/a").await.unwrap();
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_creations_of_which_one_lies_inside_the_other_both_succeed() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        let one = router(&store, "one", &stop).await;
        let two = router(&store, "two", &stop).await;
        for n in 0..TRIES {
            let outer = format!("h/a{n}");
            let inner = match n % 3 {
                0 => format!("h/a{n}/x"),
                1 => format!("h/a{n}/x/y/z"),
                _ => outer.clone(),
            };
            let (first, second) = match n % 2 {
                0 => tokio::join!(create(&one, &outer), create(&two, &inner)),
                _ => tokio::join!(create(&one, &inner), create(&two, &outer)),
            };
            if inner == outer {
                assert_one_won(&[&first, &second]);
            } else {
                first.unwrap();
                second.unwrap();
            }
        }
        wait_told(&*store, &[&one, &two]).await;
        for router in [&one, &two] {
            assert_eq!(router.catalog.nested().len(), TRIES.div_ceil(3) * 2);
        }
        stop.cancel();
    })
    .await;
}

fn snapshot(byte: u8) -> Snapshot {
    let oid = |byte: u8| Oid::from_bytes(&[byte; 20]).unwrap();
    Snapshot {
        commit: oid(byte),
        root: oid(byte),
        commit_time: 1,
        trees: 1,
        blobs: 1,
        bytes: 1,
        submodules: vec![],
        generations: None,
    }
}

async fn flip(router: &Control, path: &str, byte: u8) {
    let entry = router.catalog.require(path).unwrap();
    let node = NodeId::new("node").unwrap();
    let next = snapshot(byte);
    let flipped = router.entries.flip(actor(), &entry, &next, &node);
    flipped.await.unwrap();
}

async fn create_inside(router: &Control, path: &str, outer: &str, byte: u8) -> Result<()> {
    let tree = EnclosingTree {
        path: DisplayPath::new(outer).unwrap(),
        root: snapshot(byte).root,
    };
    let entry = entry(path, RepositoryState::Ingesting);
    router.entries.create_inside(actor(), entry, &[tree]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_inside_a_repository_happens_only_in_the_tree_that_was_looked_into() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        let one = router(&store, "one", &stop).await;
        let two = router(&store, "two", &stop).await;
        for n in 0..TRIES {
            let outer = format!("h/a{n}");
            let inner = format!("h/a{n}/x/y");
            create(&one, &outer).await.unwrap();
            flip(&one, &outer, 1).await;
            let unseen = create(&one, &inner).await.unwrap_err();
            assert!(unseen.message.contains("try again"), "{unseen}");
            let wrong = create_inside(&one, &inner, &outer, 9).await.unwrap_err();
            assert_eq!(wrong.kind, ErrorKind::Refused, "{wrong}");
            wait_told(&*store, &[&one, &two]).await;
            let is_told = || async { two.catalog.require(&outer).unwrap().generation == 1 };
            wait_until_async("the other router has heard of the flip", SOON, is_told).await;

            // The tree changes while the creation is on its way.
            let (_, created) = match n % 2 {
                0 => tokio::join!(
                    flip(&one, &outer, 2),
                    create_inside(&two, &inner, &outer, 1)
                ),
                _ => tokio::join!(
                    flip(&two, &outer, 2),
                    create_inside(&one, &inner, &outer, 1)
                ),
            };
            let scan = store.scan("repo/").await.unwrap();
            let revision = |path: &str| {
                let key = format!("repo/{path}");
                let row = scan
                    .rows
                    .iter()
                    .find(|(key_of, _)| *key_of == key.as_bytes());
                row.map(|(_, row)| row.revision)
            };
            match created {
                Ok(()) => assert!(revision(&inner) < revision(&outer), "{outer}"),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
                    assert_eq!(revision(&inner), None);
                }
            }
            wait_told(&*store, &[&one, &two]).await;
        }
        stop.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_entries_are_in_the_way_of_no_other_and_stay() {
    on_both(|place| async move {
        let (store, stop) = (place.open().await, CancellationToken::new());
        let one = router(&store, "one", &stop).await;
        let failed = entry("h/a/x", RepositoryState::Failed);
        one.entries.create(actor(), failed).await.unwrap();
        create(&one, "h/a").await.unwrap();
        create(&one, "h/a/x/y").await.unwrap();
        let all = ["repo/h/a", "repo/h/a/x", "repo/h/a/x/y"];
        assert_eq!(keys(&*store, "repo/").await, all.map(String::from).into());
        create(&one, "h/a/x").await.unwrap();
        let known = one.catalog.require("h/a/x").unwrap();
        assert_eq!(known.state, RepositoryState::Ingesting);
        remove(&one, "h/a").await;
        assert_eq!(one.catalog.nested().len(), 1);
        stop.cancel();
    })
    .await;
}
