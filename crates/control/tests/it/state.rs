//! One suite for both state stores, and what only etcd can go through.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use monofs_control::state::{CommitBatch, EmbeddedState, EtcdState, StateStore};
use monofs_model::{ErrorKind, Result};
use monofs_store::state::{CommitOutcome, Compare, Versioned, Write};
use monofs_testkit::Etcd;
use monofs_testkit::wait::wait_until_async;

const SOON: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(5);

/// A place that a state store can be opened at, again and again.
pub enum Place {
    Embedded(tempfile::TempDir),
    Etcd(Etcd),
}

impl Place {
    pub async fn open(&self) -> Arc<dyn StateStore> {
        match self {
            Place::Embedded(dir) => {
                Arc::new(EmbeddedState::open(dir.path().to_owned()).await.unwrap())
            }
            Place::Etcd(etcd) => Arc::new(open_etcd(etcd).await),
        }
    }
}

async fn open_etcd(etcd: &Etcd) -> EtcdState {
    EtcdState::open(vec![etcd.endpoint()], "test")
        .await
        .unwrap()
}

/// Runs one case on every implementation.
pub async fn on_both<F: Future<Output = ()>>(case: impl Fn(Place) -> F) {
    case(Place::Embedded(tempfile::tempdir().unwrap())).await;
    case(Place::Etcd(Etcd::start())).await;
}

fn put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}

fn at(key: &str, revision: u64) -> Compare {
    Compare {
        key: key.into(),
        revision,
    }
}

async fn done(store: &dyn StateStore, compares: Vec<Compare>, writes: Vec<Write>) -> u64 {
    match store.commit(compares, writes).await.unwrap() {
        CommitOutcome::Done { revision } => revision,
        CommitOutcome::Conflict => panic!("a conflict"),
    }
}

pub async fn rows(store: &dyn StateStore, prefix: &str) -> Vec<(String, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let scan = store.scan(prefix).await.unwrap();
    scan.rows
        .into_iter()
        .map(|(key, row)| (text(key), text(row.value)))
        .collect()
}

async fn next(watch: &mut BoxStream<'static, Result<CommitBatch>>) -> Result<CommitBatch> {
    tokio::time::timeout(SOON, watch.next())
        .await
        .expect("something comes")
        .expect("the watch goes on")
}

#[tokio::test]
async fn a_commit_happens_wholly_or_not_at_all() {
    on_both(|place| async move {
        let store = place.open().await;
        let first = done(
            &*store,
            vec![at("a", 0)],
            vec![put("a", "1"), put("b", "1")],
        )
        .await;
        let conflicts = [
            (vec![at("a", 0)], "absent, but it is there"),
            (
                vec![at("a", first), at("c", first)],
                "one of two does not hold",
            ),
            (vec![at("a", first + 1)], "another revision"),
        ];
        for (compares, why) in conflicts {
            let outcome = store
                .commit(compares, vec![put("a", "2"), delete("b"), put("c", "2")])
                .await
                .unwrap();
            assert_eq!(outcome, CommitOutcome::Conflict, "{why}");
        }
        assert_eq!(
            rows(&*store, "").await,
            [("a".into(), "1".into()), ("b".into(), "1".into())]
        );
        let second = done(
            &*store,
            vec![at("a", first), at("c", 0)],
            vec![put("a", "2"), delete("b")],
        )
        .await;
        assert!(second > first, "revisions grow");
        let scan = store.scan("").await.unwrap();
        assert_eq!(
            scan.rows,
            [(
                b"a".to_vec(),
                Versioned {
                    value: b"2".to_vec(),
                    revision: second
                }
            )]
        );
        assert!(scan.revision >= second);
        let deleted = done(&*store, vec![], vec![delete("never there")]).await;
        assert!(
            deleted > second,
            "what changes nothing is a commit nevertheless"
        );
    })
    .await;
}

#[tokio::test]
async fn scans_are_by_prefix_and_in_order() {
    on_both(|place| async move {
        let store = place.open().await;
        let many: Vec<String> = (0..600).map(|n| format!("many/{n:04}")).collect();
        for part in many.chunks(100) {
            done(
                &*store,
                vec![],
                part.iter().map(|key| put(key, "x")).collect(),
            )
            .await;
        }
        done(
            &*store,
            vec![],
            vec![put("man", "x"), put("many0", "x"), put("ma", "x")],
        )
        .await;
        let found: Vec<String> = rows(&*store, "many/")
            .await
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(found, many);
        let all: Vec<String> = rows(&*store, "")
            .await
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert!(all.is_sorted());
        assert_eq!(all.len(), many.len() + 3);
    })
    .await;
}

#[tokio::test]
async fn what_is_kept_aside_is_read_only_by_who_asks_for_it() {
    on_both(|place| async move {
        let store = place.open().await;
        let start = store.scan("").await.unwrap().revision;
        let mut watch = store.watch(start).await.unwrap();
        let writes = vec![
            put("aside/h/1", "old"),
            put("a", "1"),
            put("b", "1"),
            put("aside", "no key of that kind"),
        ];
        let first = done(&*store, vec![], writes).await;
        let second = done(
            &*store,
            vec![at("aside/h/1", first)],
            vec![put("aside/h/1", "new"), put("a", "2")],
        )
        .await;
        let outcome = store
            .commit(vec![at("aside/h/1", first)], vec![put("a", "3")])
            .await
            .unwrap();
        assert_eq!(outcome, CommitOutcome::Conflict, "it can be compared with");
        let everything: Vec<String> = rows(&*store, "")
            .await
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(everything, ["a", "aside", "b"]);
        let scan = store.scan("aside/h/").await.unwrap();
        assert_eq!(
            scan.rows,
            [(
                b"aside/h/1".to_vec(),
                Versioned {
                    value: b"new".to_vec(),
                    revision: second
                }
            )]
        );
        for revision in [first, second] {
            let batch = next(&mut watch).await.unwrap();
            assert_eq!(batch.revision, revision);
            assert!(
                batch
                    .events
                    .iter()
                    .all(|event| !event.key.starts_with(b"aside/")),
                "{batch:?}"
            );
        }
        done(
            &*store,
            vec![],
            vec![
                delete("aside/h/1"),
                delete("a"),
                delete("b"),
                delete("aside"),
            ],
        )
        .await;
        assert!(rows(&*store, "aside/").await.is_empty() && rows(&*store, "").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_watch_gives_every_commit_whole_and_in_order() {
    on_both(|place| async move {
        let store = place.open().await;
        done(&*store, vec![], vec![put("before", "x")]).await;
        let start = store.scan("").await.unwrap().revision;
        let mut watch = store.watch(start).await.unwrap();
        let mut expected = Vec::new();
        for n in 0..20 {
            let writes = vec![
                put("a", &n.to_string()),
                put(&format!("k{n}"), "x"),
                delete(&format!("k{}", n - 1)),
            ];
            expected.push(done(&*store, vec![], writes).await);
        }
        for (n, revision) in expected.into_iter().enumerate() {
            let batch = next(&mut watch).await.unwrap();
            assert_eq!(batch.revision, revision);
            let value = |key: &str| {
                batch
                    .events
                    .iter()
                    .find(|e| e.key == key.as_bytes())
                    .map(|e| e.value.clone())
            };
            let put = Versioned {
                value: n.to_string().into_bytes(),
                revision,
            };
            assert_eq!(value("a"), Some(Some(put)));
            assert!(value(&format!("k{n}")).is_some_and(|value| value.is_some()));
            if n > 0 {
                assert_eq!(
                    value(&format!("k{}", n - 1)),
                    Some(None),
                    "a deletion is told"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_begins_where_a_scan_ended_although_commits_went_on() {
    on_both(|place| async move {
        let store = place.open().await;
        let start = store.scan("").await.unwrap().revision;
        let missed = [
            done(&*store, vec![], vec![put("a", "1")]).await,
            done(&*store, vec![], vec![delete("a")]).await,
        ];
        let mut watch = store.watch(start).await.unwrap();
        let later = done(&*store, vec![], vec![put("b", "1")]).await;
        for revision in missed.into_iter().chain([later]) {
            assert_eq!(next(&mut watch).await.unwrap().revision, revision);
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_from_a_future_or_forgotten_revision_says_so() {
    on_both(|place| async move {
        let store = place.open().await;
        let now = done(&*store, vec![], vec![put("a", "1")]).await;
        let Err(error) = store.watch(now + 1000).await.map(drop) else {
            panic!("that revision is not there yet")
        };
        assert_eq!(error.kind, ErrorKind::NotHeld, "{error}");
    })
    .await;
}

#[tokio::test]
async fn what_is_held_is_held_once_and_goes_with_its_holder() {
    on_both(|place| async move {
        let store = place.open().await;
        let held = store
            .hold("lock", b"me".to_vec(), TTL)
            .await
            .unwrap()
            .expect("no process has it");
        assert!(
            store
                .hold("lock", b"other".to_vec(), TTL)
                .await
                .unwrap()
                .is_none(),
            "it is held"
        );
        assert!(
            store
                .hold("other", b"me".to_vec(), TTL)
                .await
                .unwrap()
                .is_some(),
            "another key is free"
        );
        assert_eq!(rows(&*store, "lock").await, [("lock".into(), "me".into())]);
        assert!(!held.lost.is_cancelled());
        held.release(SOON).await;
        assert_eq!(rows(&*store, "lock").await, []);
        assert!(
            store
                .hold("lock", b"other".to_vec(), TTL)
                .await
                .unwrap()
                .is_some(),
            "it was released"
        );
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart_but_what_was_held() {
    on_both(|mut place| async move {
        let store = place.open().await;
        let first = done(&*store, vec![], vec![put("a", "1")]).await;
        let epoch = store.epoch();
        let held = store
            .hold("lock", b"me".to_vec(), TTL)
            .await
            .unwrap()
            .expect("no process has it");
        held.release(SOON).await;
        drop(store);
        if let Place::Etcd(etcd) = &mut place {
            etcd.kill();
            etcd.start_again();
        }
        let store = place.open().await;
        assert_eq!(store.epoch(), epoch, "it is the same history");
        assert_eq!(rows(&*store, "").await, [("a".into(), "1".into())]);
        let held = store.hold("lock", b"me".to_vec(), TTL).await.unwrap();
        assert!(held.is_some(), "what a process held that is gone is free");
        let second = done(&*store, vec![at("a", first)], vec![put("a", "2")]).await;
        assert!(second > first, "revisions go on");
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_the_bound() {
    let etcd = Etcd::start();
    let store = open_etcd(&etcd).await;
    let large = Write::Put {
        key: b"a".to_vec(),
        value: vec![1; 2 << 20],
    };
    let error = store.commit(vec![], vec![large]).await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Invalid && error.message.contains("1500000"),
        "{error}"
    );
    let many = (0..200).map(|n| put(&n.to_string(), "x")).collect();
    let error = store.commit(vec![], many).await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Invalid && error.message.contains("128"),
        "{error}"
    );
    let most = Write::Put {
        key: b"a".to_vec(),
        value: vec![1; 1_490_000],
    };
    done(&store, vec![], vec![most]).await;
    let full = (0..128).map(|n| put(&n.to_string(), "x")).collect();
    done(&store, vec![], full).await;
    assert_eq!(rows(&store, "").await.len(), 129);
}

#[tokio::test]
async fn a_watch_resumes_and_a_compacted_one_must_read_again() {
    let etcd = Etcd::start();
    let store = open_etcd(&etcd).await;
    let revisions = [
        done(&store, vec![], vec![put("a", "1")]).await,
        done(&store, vec![], vec![put("a", "2")]).await,
    ];
    let mut watch = store.watch(revisions[0] - 1).await.unwrap();
    for revision in revisions {
        assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    }
    let last = done(&store, vec![], vec![put("b", "1")]).await;
    etcd.compact(last);
    let refused = match store.watch(revisions[0]).await {
        Ok(mut watch) => next(&mut watch).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(refused.kind, ErrorKind::NotHeld, "{refused}");
    assert!(
        store.watch(last).await.is_ok(),
        "from now on it can be watched"
    );
}

#[tokio::test]
async fn while_etcd_is_away_changes_are_refused_in_time_and_then_go_on() {
    let mut etcd = Etcd::start();
    let store = open_etcd(&etcd).await;
    let first = done(&store, vec![], vec![put("a", "1")]).await;
    let mut watch = store.watch(first).await.unwrap();
    let held = store
        .hold("lock", b"me".to_vec(), TTL)
        .await
        .unwrap()
        .expect("no process has it");
    etcd.kill();
    let from = std::time::Instant::now();
    let error = store.commit(vec![], vec![put("a", "2")]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(
        from.elapsed() < Duration::from_secs(6),
        "{:?}",
        from.elapsed()
    );
    let ended = loop {
        if let Err(error) = next(&mut watch).await {
            break error;
        }
    };
    assert_eq!(ended.kind, ErrorKind::Unavailable, "{ended}");
    tokio::time::timeout(TTL, held.lost.cancelled())
        .await
        .expect("what cannot be kept is lost before its time is over");
    etcd.start_again();
    wait_until_async("etcd is back", SOON, || async {
        store.reach().await.is_ok()
    })
    .await;
    assert_eq!(rows(&store, "a").await, [("a".into(), "1".into())]);
    done(&store, vec![at("a", first)], vec![put("a", "2")]).await;
    let mut watch = store.watch(first).await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|key| key != b"a") {
        seen.extend(
            next(&mut watch)
                .await
                .unwrap()
                .events
                .into_iter()
                .map(|event| event.key),
        );
    }
    let free = || async {
        store
            .hold("lock", b"me".to_vec(), TTL)
            .await
            .unwrap()
            .is_some()
    };
    wait_until_async("the lock is free", SOON, free).await;
}

#[tokio::test]
async fn a_hold_survives_a_short_absence_of_etcd() {
    let mut etcd = Etcd::start();
    let store = open_etcd(&etcd).await;
    let long = Duration::from_secs(60);
    let held = store
        .hold("lock", b"me".to_vec(), long)
        .await
        .unwrap()
        .expect("no process has it");
    etcd.kill();
    etcd.start_again();
    wait_until_async("etcd is back", SOON, || async {
        store.reach().await.is_ok()
    })
    .await;
    assert_eq!(rows(&store, "lock").await, [("lock".into(), "me".into())]);
    assert!(!held.lost.is_cancelled());
}

#[tokio::test]
async fn an_emptied_etcd_is_another_history() {
    let mut etcd = Etcd::start();
    let store = open_etcd(&etcd).await;
    for n in 0..5 {
        done(&store, vec![], vec![put("a", &n.to_string())]).await;
    }
    let before = store.scan("").await.unwrap().revision;
    let epoch = store.epoch();
    etcd.kill();
    etcd.erase();
    etcd.start_again();
    wait_until_async("etcd is back", SOON, || async {
        store.reach().await.is_ok()
    })
    .await;
    let Err(error) = store.watch(before).await.map(drop) else {
        panic!("that history is gone")
    };
    assert_eq!(error.kind, ErrorKind::NotHeld, "{error}");
    let scan = store.scan("").await.unwrap();
    assert_eq!(scan.rows, []);
    assert_ne!(store.epoch(), epoch);
    let other = open_etcd(&etcd).await;
    assert_eq!(other.epoch(), store.epoch(), "all routers give it one name");
    assert!(store.watch(scan.revision).await.is_ok());
}

#[tokio::test]
async fn one_of_several_endpoints_is_enough() {
    let etcd = Etcd::start();
    let unused = format!("127.0.0.1:{}", monofs_testkit::free_port());
    let store = EtcdState::open(vec![unused, etcd.endpoint()], "test")
        .await
        .unwrap();
    let revision = done(&store, vec![], vec![put("a", "1")]).await;
    assert!(store.watch(revision).await.is_ok());
}
