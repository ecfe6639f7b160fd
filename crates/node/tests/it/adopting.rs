//! How a commit comes to be held: whole, verified, and last of all written down.

use std::time::Instant;

use futures::StreamExt;
use monofs_model::limits::{DISPLAY_PATH_COMPONENTS_MAX, SUBMODULES_MAX};
use monofs_model::{ErrorKind, Oid};
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::wait::wait_until_async;
use tokio::net::TcpListener;

use crate::fake::FakeMode;
use crate::rig::{AdoptionExt, Rig, SHORT, SOON, Source, kind};

/// All records below the root, as this node serves them.
async fn closure(rig: &Rig, source: &Source, root: Oid) -> Vec<v1::TreeRecord> {
    let request = v1::GetTreesRequest {
        storage_id: source.id().to_string(),
        oids: vec![monofs_proto::convert::oid_bytes(&root)],
        byte_budget: u64::MAX,
        ..Default::default()
    };
    let answers = rig.trees(request).await.unwrap();
    answers
        .into_iter()
        .flat_map(|answer| answer.trees)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_adopted_with_all_its_records_and_says_so_last() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let request = source.adoption().lazy().with_fetcher(&fetcher);
    let snapshot = request.snapshot.clone().unwrap();
    let messages = rig.adopt(request).await.unwrap();

    let (last, before) = messages.split_last().unwrap();
    assert!(last.durable);
    assert_eq!(last.trees_done, snapshot.trees);
    assert!(before.iter().all(|message| !message.durable));
    assert!(
        before
            .iter()
            .all(|message| message.trees_total == snapshot.trees)
    );
    assert!(before.last().unwrap().bytes_done > 0);

    let held = rig.held(&source.id()).await.unwrap();
    assert_eq!(held.snapshots, std::slice::from_ref(&snapshot));
    assert_eq!(held.trees, snapshot.trees);
    let records = closure(&rig, &source, source.root()).await;
    assert_eq!(records.len() as u64, snapshot.trees);
    for record in records {
        let oid = Oid::from_bytes(&record.oid).unwrap();
        assert_eq!(record.record, source.objects.record(&oid));
    }
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_held_is_durable_without_a_request() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let request = source.adoption().lazy().with_fetcher(&fetcher);
    rig.adopt(request.clone()).await.unwrap();
    let before = fetcher.tree_requests();
    let messages = rig.adopt(request).await.unwrap();
    assert_eq!(messages.len(), 1);
    assert!(messages[0].durable);
    assert_eq!(fetcher.tree_requests(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_commit_costs_the_directories_that_changed() {
    let repo = Source::small().repo;
    repo.commit(|c| {
        c.file("d0/e0/f0", "other contents");
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let first = source.adoption_of("main~").lazy().with_fetcher(&fetcher);
    rig.adopt(first).await.unwrap();
    fetcher.asked.trees.lock().clear();
    let second = source.adoption().lazy().with_fetcher(&fetcher);
    rig.adopt(second).await.unwrap();
    let changed = ["", "d0", "d0/e0"].map(|path| source.at_path(path));
    assert_eq!(*fetcher.asked.trees.lock(), changed);
    assert_eq!(rig.held(&source.id()).await.unwrap().snapshots.len(), 2);
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_do_not_match_their_ids_are_refused_and_the_next_server_is_asked() {
    for bad in [FakeMode::Corrupt, FakeMode::Unasked, FakeMode::LeaveOut] {
        let source = Source::small();
        let wrong = source.server(bad).await;
        let fetcher = source.server(FakeMode::Serve).await;
        let rig = Rig::start().await;
        let request = source
            .adoption()
            .lazy()
            .with_peer(&wrong)
            .with_fetcher(&fetcher);
        rig.adopt(request).await.unwrap();
        assert!(wrong.tree_requests() > 0, "{bad:?}");
        assert!(fetcher.tree_requests() > 0, "{bad:?}");
        assert_eq!(rig.verify().await, Vec::<String>::new(), "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_records_are_wrong_everywhere_is_not_held() {
    let source = Source::small();
    let wrong = source.server(FakeMode::Corrupt).await;
    let rig = Rig::start().await;
    let request = source.adoption().with_fetcher(&wrong);
    assert_eq!(kind(rig.adopt(request).await), ErrorKind::Corrupt);
    let held = rig.held(&source.id()).await.unwrap();
    assert_eq!(held.snapshots, []);
    assert_eq!(held.trees, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_hold_the_commit_costs_one_question() {
    let source = Source::small();
    let peer = source.server(FakeMode::Empty).await;
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let request = source
        .adoption()
        .lazy()
        .with_peer(&peer)
        .with_fetcher(&fetcher);
    rig.adopt(request).await.unwrap();
    assert_eq!(peer.tree_requests(), 1);
    // A peer answers from what it holds, and only a fetcher learns where to get the rest.
    assert_eq!(*peer.asked.held_only.lock(), Some(true));
    assert_eq!(*peer.asked.origin.lock(), None);
    assert_eq!(*fetcher.asked.held_only.lock(), Some(false));
    let origin = fetcher.asked.origin.lock().clone().unwrap();
    assert_eq!(origin.source, "https://example.org/org/repo.git");
    assert_eq!(origin.commit, source.snapshot("main").commit);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_gone_without_a_word_is_given_up_soon() {
    let source = Source::small();
    // The kernel takes connections for it, as for a stopped process.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let mut request = source.adoption().lazy().with_fetcher(&fetcher);
    request.peers.push(gone.local_addr().unwrap().to_string());
    let from = Instant::now();
    rig.adopt(request).await.unwrap();
    assert!(from.elapsed() < SOON / 2, "{:?}", from.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lives_and_does_not_answer_is_given_up_at_the_deadline() {
    let source = Source::small();
    let hanging = source.server(FakeMode::Hang).await;
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start_with(|config| config.upstream_timeout = SHORT).await;
    let request = source
        .adoption()
        .lazy()
        .with_peer(&hanging)
        .with_fetcher(&fetcher);
    rig.adopt(request).await.unwrap();
    assert_eq!(hanging.tree_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_the_error_says_that_there_is_none() {
    let source = Source::small();
    let rig = Rig::start().await;
    let error = rig.adopt(source.adoption()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("no fetcher or peer"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_broke_off_goes_on_with_what_it_lacks() {
    for restarts in [false, true] {
        let source = Source::small();
        let fetcher = source.server(FakeMode::BreakAfter(5)).await;
        let mut rig = Rig::start().await;
        let request = source.adoption().lazy().with_fetcher(&fetcher);
        assert_eq!(
            kind(rig.adopt(request.clone()).await),
            ErrorKind::Unavailable
        );
        // What came is kept, and is no commit.
        let held = rig.held(&source.id()).await.unwrap();
        assert_eq!(held.trees, 5);
        assert_eq!(held.snapshots, []);

        if restarts {
            rig.restart().await;
        }
        fetcher.set(FakeMode::Serve);
        fetcher.asked.trees.lock().clear();
        rig.adopt(request).await.unwrap();
        let trees = source.snapshot("main").trees;
        assert_eq!(fetcher.asked.trees.lock().len() as u64, trees - 5);
        assert!(!fetcher.asked.trees.lock().contains(&source.root()));
        assert_eq!(rig.held(&source.id()).await.unwrap().trees, trees);
        assert_eq!(rig.verify().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_adoptions_of_one_commit_ask_once() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Gated).await;
    let rig = Rig::start().await;
    let request = source.adoption().lazy().with_fetcher(&fetcher);
    let first = rig.adopt(request.clone());
    let second = rig.adopt(request);
    let opens = async {
        wait_until_async("one of them asks", SOON, || async {
            fetcher.tree_requests() > 0
        })
        .await;
        fetcher.admit(1000);
    };
    let (first, second, ()) = tokio::join!(first, second, opens);
    assert!(first.unwrap().last().unwrap().durable);
    assert!(second.unwrap().last().unwrap().durable);
    assert_eq!(fetcher.tree_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_adoptions_of_two_commits_of_one_repository_are_both_whole() {
    let repo = Source::small().repo;
    repo.commit(|c| {
        c.file("d1/more", "more").delete("d2");
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let old = source.adoption_of("main~").with_fetcher(&fetcher);
    let new = source.adoption().with_fetcher(&fetcher);
    let (old, new) = tokio::join!(rig.adopt(old), rig.adopt(new));
    old.unwrap();
    new.unwrap();
    rig.wait_hydrated(&source.id()).await;
    assert_eq!(rig.held(&source.id()).await.unwrap().snapshots.len(), 2);
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_does_not_stop_an_adoption() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Gated).await;
    let rig = Rig::start().await;
    let request = source.adoption().lazy().with_fetcher(&fetcher);
    let mut answer = rig.node().adopt(request).await.unwrap().into_inner();
    assert!(futures::poll!(answer.next()).is_pending());
    drop(answer);
    fetcher.admit(1000);
    wait_until_async("the commit is held", SOON, || async {
        let held = rig.held(&source.id()).await;
        held.is_ok_and(|held| held.snapshots.len() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_invalid_and_leave_nothing() {
    let source = Source::small();
    let good = source.adoption();
    let rig = Rig::start().await;
    let deep = vec!["d"; DISPLAY_PATH_COMPONENTS_MAX + 1].join("/");
    let mut bad = vec![v1::AdoptRequest::default()];
    let mut with = |change: &dyn Fn(&mut v1::AdoptRequest)| {
        let mut request = good.clone();
        change(&mut request);
        bad.push(request);
    };
    with(&|request| request.origin = None);
    with(&|request| request.snapshot = None);
    with(&|request| request.content = v1::ContentMode::Unspecified.into());
    with(&|request| request.storage_id = "../../etc".to_owned());
    with(&|request| request.storage_id = String::new());
    with(&|request| request.path = "../escape".to_owned());
    with(&|request| request.path = deep.clone());
    with(&|request| request.origin.as_mut().unwrap().source = "no url".to_owned());
    with(&|request| request.origin.as_mut().unwrap().ref_name = "a..b".to_owned());
    with(&|request| request.snapshot.as_mut().unwrap().commit = vec![1; 19].into());
    with(&|request| request.snapshot.as_mut().unwrap().root = Default::default());
    for request in bad {
        let named = format!("{request:?}");
        assert_eq!(
            kind(rig.adopt(request).await),
            ErrorKind::Invalid,
            "{named}"
        );
    }
    assert_eq!(rig.list_held().await, []);
}

fn long_submodule(n: usize) -> v1::Submodule {
    v1::Submodule {
        path: format!("third-party/{}/{n}", "p".repeat(200)).into(),
        url: format!("https://example.org/{}/{n}.git", "u".repeat(300)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_with_as_many_submodules_as_are_allowed_is_adopted_and_listed() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let mut request = source.adoption().lazy().with_fetcher(&fetcher);
    let modules: Vec<v1::Submodule> = (0..SUBMODULES_MAX).map(long_submodule).collect();
    request.snapshot.as_mut().unwrap().submodules = modules.clone();
    rig.adopt(request.clone()).await.unwrap();
    let held = rig.held(&source.id()).await.unwrap();
    assert_eq!(held.snapshots[0].submodules, modules);

    let mut over = request;
    over.snapshot.as_mut().unwrap().commit = vec![9; 20].into();
    over.snapshot
        .as_mut()
        .unwrap()
        .submodules
        .push(long_submodule(0));
    assert_eq!(kind(rig.adopt(over).await), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_of_sha256_ids_is_adopted_and_hydrated() {
    let repo = Repo::with_format(monofs_model::ObjectFormat::Sha256);
    repo.commit(|c| {
        c.one_of_everything();
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&source.id()).await;
    assert_eq!(rig.verify().await, Vec::<String>::new());
    for oid in source.objects.blob_ids() {
        let read = rig
            .read_held(&source, vec![source.span(&oid)])
            .await
            .unwrap();
        assert_eq!(read.bytes(&oid), *source.objects.blob(&oid));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_changed_are_those_of_the_last_adoption() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let lazy = source.adoption().lazy().with_fetcher(&fetcher);
    rig.adopt(lazy).await.unwrap();
    assert_eq!(fetcher.blob_requests(), 0);
    // Nothing but the mode of contents is new: they come.
    let mut eager = source.adoption().with_fetcher(&fetcher);
    eager.origin.as_mut().unwrap().source = "https://example.org/moved/repo.git".to_owned();
    rig.adopt(eager).await.unwrap();
    rig.wait_hydrated(&source.id()).await;
    let origin = fetcher.asked.origin.lock().clone().unwrap();
    assert_eq!(origin.source, "https://example.org/moved/repo.git");
}
