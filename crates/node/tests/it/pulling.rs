//! Reads of contents that the node does not hold yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_model::limits::CHUNK_BYTES;
use monofs_model::view::Role;
use monofs_model::{ErrorKind, Oid};
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::repo::pattern;
use monofs_testkit::wait::wait_until_async;
use tokio::net::TcpListener;

use crate::fake::{FakeMode, FakeRouter, FakeServer, member};
use crate::rig::{AdoptionExt, Rig, SHORT, SOON, Source, decoded, kind};

/// A node that holds the records of a repository and no contents, beside these servers.
struct LazyNode {
    rig: Rig,
    _router: FakeRouter,
}

impl LazyNode {
    async fn start(source: &Source, peers: &[String], fetchers: &[String]) -> Self {
        Self::start_with(source, peers, fetchers, SOON).await
    }

    async fn start_with(
        source: &Source,
        peers: &[String],
        fetchers: &[String],
        timeout: Duration,
    ) -> Self {
        let peers = peers.iter().enumerate();
        let mut members: Vec<v1::Member> = peers
            .map(|(n, address)| member(&format!("peer{n}"), Role::Node, address))
            .collect();
        let named = fetchers.iter().enumerate();
        members.extend(
            named.map(|(n, address)| member(&format!("fetcher{n}"), Role::Fetcher, address)),
        );
        let router = FakeRouter::start(members).await;
        let routers = vec![router.address()];
        let rig = Rig::start_with(move |config| {
            config.routers = routers.clone();
            config.upstream_timeout = timeout;
        })
        .await;
        router.wait_seen(2).await;
        let records = source.server(FakeMode::Serve).await;
        rig.adopt(source.adoption().lazy().with_peer(&records))
            .await
            .unwrap();
        Self {
            rig,
            _router: router,
        }
    }
}

fn one_file(bytes: &[u8]) -> (Source, Oid) {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("file", bytes);
    });
    let source = Source::new(repo);
    let oid = source.at_path("file");
    (source, oid)
}

/// Waits for a gated server to be asked.
async fn asked(server: &FakeServer, requests: u64) {
    wait_until_async("the server is asked", SOON, || async {
        server.blob_requests() >= requests
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pulled_once_is_held() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
    for _ in 0..2 {
        let read = node.rig.read(&source, source.spans()).await.unwrap();
        for oid in source.objects.blob_ids() {
            assert_eq!(read.bytes(&oid), *source.objects.blob(&oid));
        }
        assert_eq!(read.missing, []);
    }
    assert_eq!(fetcher.blob_requests(), 1);
    let stat = node.rig.stat().await;
    let blobs = source.snapshot("main").blobs;
    assert_eq!(stat.chunks_missed, blobs);
    assert_eq!(stat.chunks_held, blobs);
    assert_eq!(node.rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_held_contents_asks_no_other_server() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
    let read = node.rig.read_held(&source, source.spans()).await.unwrap();
    assert_eq!(read.chunks, []);
    let mut missing = read.missing;
    missing.sort();
    assert_eq!(missing, source.objects.blob_ids());
    assert_eq!(fetcher.blob_requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_holds_contents_is_asked_before_a_fetcher() {
    let source = Source::small();
    let peer = source.server(FakeMode::Serve).await;
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[peer.address()], &[fetcher.address()]).await;
    node.rig.read(&source, source.spans()).await.unwrap();
    assert_eq!(peer.blob_requests(), 1);
    assert_eq!(*peer.asked.held_only.lock(), Some(true));
    assert_eq!(*peer.asked.origin.lock(), None);
    assert_eq!(fetcher.blob_requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_a_peer_lacks_or_falsifies_come_from_the_fetcher() {
    for bad in [
        FakeMode::Empty,
        FakeMode::Corrupt,
        FakeMode::Unasked,
        FakeMode::LeaveOut,
        FakeMode::BreakAfter(3),
    ] {
        let repo = Repo::new();
        repo.commit(|c| {
            c.one_of_everything();
        });
        let source = Source::new(repo);
        let peer = source.server(bad).await;
        let fetcher = source.server(FakeMode::Serve).await;
        let node = LazyNode::start(&source, &[peer.address()], &[fetcher.address()]).await;
        let small = source.spans().into_iter();
        let small: Vec<_> = small
            .filter(|span| span.size <= CHUNK_BYTES as u64)
            .collect();
        let read = node.rig.read(&source, small.clone()).await.unwrap();
        assert_eq!(read.missing, [], "{bad:?}");
        for span in &small {
            let oid = Oid::from_bytes(&span.oid).unwrap();
            let blob = source.objects.blob(&oid);
            assert!(read.bytes(&oid).starts_with(blob), "{bad:?} {oid}");
        }
        assert!(peer.blob_requests() > 0, "{bad:?}");
        assert!(fetcher.blob_requests() > 0, "{bad:?}");
        assert_eq!(node.rig.verify().await, Vec::<String>::new(), "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_of_wrong_bytes_is_not_held() {
    let (source, oid) = one_file(&pattern(3 * CHUNK_BYTES + 5));
    let wrong = source.server(FakeMode::Corrupt).await;
    let node = LazyNode::start(&source, &[], &[wrong.address()]).await;
    let read = node.rig.read(&source, vec![source.span(&oid)]).await;
    assert_eq!(kind(read), ErrorKind::Corrupt);
    let held = node.rig.read_held(&source, vec![source.span(&oid)]).await;
    assert_eq!(held.unwrap().missing, [oid]);
    // Nothing of it is in the way of the right bytes.
    wrong.set(FakeMode::Serve);
    let read = node
        .rig
        .read(&source, vec![source.span(&oid)])
        .await
        .unwrap();
    assert!(read.bytes(&oid) == *source.objects.blob(&oid));
    assert_eq!(node.rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_no_server_has_are_reported_missing() {
    let source = Source::small();
    let peer = source.server(FakeMode::Empty).await;
    let fetcher = source.server(FakeMode::Empty).await;
    let node = LazyNode::start(&source, &[peer.address()], &[fetcher.address()]).await;
    let some = source.spans()[..3].to_vec();
    let read = node.rig.read(&source, some).await.unwrap();
    assert_eq!(read.chunks, []);
    assert_eq!(read.missing.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_failed_is_asked_last_for_a_while() {
    let source = Source::small();
    let peer = source.server(FakeMode::Fail).await;
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[peer.address()], &[fetcher.address()]).await;
    for span in &source.spans()[..5] {
        node.rig.read(&source, vec![span.clone()]).await.unwrap();
    }
    assert_eq!(peer.blob_requests(), 1);
    assert_eq!(fetcher.blob_requests(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_gone_without_a_word_costs_one_wait() {
    let source = Source::small();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = gone.local_addr().map(|address| (gone, address.to_string()));
    let (_listener, address) = gone.unwrap();
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[address], &[fetcher.address()]).await;
    let from = Instant::now();
    for span in &source.spans()[..8] {
        let read = node.rig.read(&source, vec![span.clone()]).await.unwrap();
        assert_eq!(read.missing, []);
    }
    assert!(from.elapsed() < SOON / 3, "{:?}", from.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lives_and_does_not_answer_is_given_up_at_the_deadline() {
    let source = Source::small();
    let peer = source.server(FakeMode::Hang).await;
    let fetcher = source.server(FakeMode::Serve).await;
    let servers = (vec![peer.address()], vec![fetcher.address()]);
    let node = LazyNode::start_with(&source, &servers.0, &servers.1, SHORT).await;
    let read = node.rig.read(&source, source.spans()).await.unwrap();
    assert_eq!(read.missing, []);
    assert_eq!(peer.blob_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_one_file_pull_it_once() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("small", "contents")
            .file("large", pattern(4 * CHUNK_BYTES));
    });
    let source = Arc::new(Source::new(repo));
    for name in ["small", "large"] {
        let fetcher = source.server(FakeMode::Gated).await;
        let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
        let oid = source.at_path(name);
        let reads = (0..8).map(|_| node.rig.read(&source, vec![source.span(&oid)]));
        let opens = async {
            asked(&fetcher, 1).await;
            fetcher.admit(100);
        };
        let (reads, ()) = tokio::join!(futures::future::join_all(reads), opens);
        for read in reads {
            assert!(read.unwrap().bytes(&oid) == *source.objects.blob(&oid));
        }
        assert_eq!(fetcher.blob_requests(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_whose_leader_failed_pulls_on_its_own() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::GatedFailure).await;
    let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
    let spans = source.spans();
    let wanted = Oid::from_bytes(&spans[0].oid).unwrap();
    let leader = node.rig.read(&source, vec![spans[0].clone()]);
    let follower = async {
        asked(&fetcher, 1).await;
        fetcher.set(FakeMode::Serve);
        // The second blob comes once the first one is known to be pulled by the other reader.
        let mut stream = node.rig.open(&source, spans[..2].to_vec()).await;
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.chunks[0].oid, spans[1].oid);
        fetcher.admit(1);
        let second = stream.message().await.unwrap().unwrap();
        assert_eq!(stream.message().await.unwrap(), None);
        second
    };
    let (led, followed) = tokio::join!(leader, follower);
    assert_eq!(kind(led), ErrorKind::Unavailable);
    assert_eq!(followed.missing.len(), 0, "the fetcher has it");
    assert_eq!(followed.chunks[0].oid, spans[0].oid);
    let held = node.rig.read_held(&source, vec![spans[0].clone()]).await;
    assert_eq!(held.unwrap().bytes(&wanted), *source.objects.blob(&wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_large_file_get_its_chunks_while_the_rest_arrives() {
    let (source, oid) = one_file(&pattern(6 * CHUNK_BYTES));
    let fetcher = source.server(FakeMode::Gated).await;
    let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
    let spans = vec![source.span(&oid)];
    let mut leader = node.rig.open(&source, spans.clone()).await;
    asked(&fetcher, 1).await;
    fetcher.admit(2);
    let first = leader.message().await.unwrap().unwrap();
    assert_eq!(first.chunks[0].index, 0);
    // Another one begins in the middle, and the first one leaves.
    let mut follower = node.rig.open(&source, spans).await;
    let second = follower.message().await.unwrap().unwrap();
    assert_eq!(second.chunks[0].index, 0);
    drop(leader);
    fetcher.admit(100);
    let mut chunks = second.chunks;
    while let Some(message) = follower.message().await.unwrap() {
        assert_eq!(message.missing.len(), 0);
        chunks.extend(message.chunks);
    }
    assert!(decoded(&chunks) == *source.objects.blob(&oid));
    assert_eq!(fetcher.blob_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_whose_server_broke_off_goes_on_from_the_next_one() {
    let (source, oid) = one_file(&pattern(6 * CHUNK_BYTES));
    let peer = source.server(FakeMode::BreakAfter(3)).await;
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[peer.address()], &[fetcher.address()]).await;
    let read = node
        .rig
        .read(&source, vec![source.span(&oid)])
        .await
        .unwrap();
    assert!(read.bytes(&oid) == *source.objects.blob(&oid));
    assert_eq!(node.rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_whose_only_pull_broke_off_is_pulled_by_the_reader_that_is_left() {
    let (source, oid) = one_file(&pattern(6 * CHUNK_BYTES));
    let fetcher = source.server(FakeMode::Gated).await;
    let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
    let leader = node.rig.read(&source, vec![source.span(&oid)]);
    let follower = async {
        asked(&fetcher, 1).await;
        fetcher.admit(2);
        let mut stream = node.rig.open(&source, vec![source.span(&oid)]).await;
        // It follows the pull of the first reader, which then breaks off.
        let mut chunks = stream.message().await.unwrap().unwrap().chunks;
        fetcher.set(FakeMode::Serve);
        fetcher.break_gate();
        while let Some(message) = stream.message().await.unwrap() {
            assert_eq!(message.missing.len(), 0, "the fetcher has it");
            chunks.extend(message.chunks);
        }
        chunks
    };
    let (led, chunks) = tokio::join!(leader, follower);
    assert_eq!(kind(led), ErrorKind::Unavailable);
    assert!(decoded(&chunks) == *source.objects.blob(&oid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_wrong_sizes_harm_no_honest_reader() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("small", "contents")
            .file("large", pattern(2 * CHUNK_BYTES));
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
    let small = source.span(&source.at_path("small"));
    let large = source.span(&source.at_path("large"));
    let sizes = [0, 1, CHUNK_BYTES as u64 + 1, 5 << 20, 1 << 40, u64::MAX];
    for round in ["before they are held", "while they are held"] {
        for span in [&small, &large] {
            for size in sizes.into_iter().filter(|size| *size != span.size) {
                let wrong = v1::BlobSpan {
                    size,
                    ..span.clone()
                };
                // It is an error or the bytes that there are; the node lives.
                let _ = node.rig.read(&source, vec![wrong]).await;
            }
        }
        for span in [&small, &large] {
            let oid = Oid::from_bytes(&span.oid).unwrap();
            let read = node.rig.read(&source, vec![span.clone()]).await.unwrap();
            assert!(read.bytes(&oid) == *source.objects.blob(&oid), "{round}");
        }
    }
    assert_eq!(node.rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_holds_up_no_other_reader_of_the_same_files() {
    // More than the windows of a connection and all queues hold.
    let repo = Repo::new();
    let bytes = CHUNK_BYTES - 1;
    let contents = pattern(48 * bytes);
    repo.commit(|c| {
        for n in 0..48 {
            c.file(format!("f{n}"), &contents[n * bytes..(n + 1) * bytes]);
        }
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let node = LazyNode::start(&source, &[], &[fetcher.address()]).await;
    let request = v1::GetBlobsRequest {
        storage_id: source.id().to_string(),
        spans: source.spans(),
        ..Default::default()
    };
    let stuck = node.rig.own_content().get_blobs(request).await.unwrap();
    asked(&fetcher, 1).await;
    let from = Instant::now();
    let read = node.rig.read(&source, source.spans()).await.unwrap();
    assert_eq!(read.missing, []);
    assert!(from.elapsed() < SOON / 2, "{:?}", from.elapsed());
    for oid in source.objects.blob_ids() {
        assert!(read.bytes(&oid) == *source.objects.blob(&oid));
    }
    // The slow one gets everything, too.
    let mut stream = stuck.into_inner();
    let mut chunks = 0;
    while let Some(message) = stream.message().await.unwrap() {
        chunks += message.chunks.len();
    }
    assert_eq!(chunks, 48);
}
