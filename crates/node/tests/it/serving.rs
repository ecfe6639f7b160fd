//! What a node says of what it holds, to honest and to hostile callers.

use std::collections::HashSet;

use monofs_model::limits::{CHUNK_BYTES, CONTENT_REQUEST_ITEMS_MAX};
use monofs_model::view::Role;
use monofs_model::{EntryKind, ErrorKind, Oid, TreeRecord};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::repo::pattern;
use monofs_testkit::wait::wait_until_async;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::{FakeMode, FakeRouter, member};
use crate::rig::{AdoptionExt, Rig, SOON, Source, kind};

async fn hydrated(source: &Source) -> Rig {
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&source.id()).await;
    rig
}

fn trees_of(source: &Source, oids: &[Oid]) -> v1::GetTreesRequest {
    v1::GetTreesRequest {
        storage_id: source.id().to_string(),
        oids: oids.iter().map(oid_bytes).collect(),
        ..Default::default()
    }
}

/// The ids of all records of an answer, in order.
fn ids(answers: &[v1::GetTreesResponse]) -> Vec<Oid> {
    let trees = answers.iter().flat_map(|answer| &answer.trees);
    trees
        .map(|tree| Oid::from_bytes(&tree.oid).unwrap())
        .collect()
}

/// The closure of a tree, breadth first, computed from the records.
fn breadth_first(source: &Source, root: Oid, levels: usize) -> Vec<Oid> {
    let mut order = vec![root];
    let mut seen = HashSet::from([root]);
    let mut level = vec![root];
    for _ in 1..levels {
        let mut below = Vec::new();
        for oid in level {
            let record = TreeRecord::parse(source.objects.record(&oid).clone()).unwrap();
            let directories = record.iter().filter(|e| e.kind == EntryKind::Directory);
            below.extend(directories.map(|e| e.oid).filter(|oid| seen.insert(*oid)));
        }
        order.extend(&below);
        level = below;
    }
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_budget_only_the_requested_records_come() {
    let source = Source::small();
    let rig = hydrated(&source).await;
    let wanted = ["d1", "d2/e0"].map(|path| source.at_path(path));
    let answers = rig.trees(trees_of(&source, &wanted)).await.unwrap();
    assert_eq!(ids(&answers), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_closure_comes_breadth_first_as_deep_as_was_asked() {
    let source = Source::small();
    let rig = hydrated(&source).await;
    for (depth, levels) in [(1, 1), (2, 2), (0, 3), (9, 3)] {
        let request = v1::GetTreesRequest {
            byte_budget: u64::MAX,
            depth,
            ..trees_of(&source, &[source.root()])
        };
        let answers = rig.trees(request).await.unwrap();
        assert_eq!(
            ids(&answers),
            breadth_first(&source, source.root(), levels),
            "depth {depth}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_ends_the_closure_before_the_first_record_that_does_not_fit() {
    let source = Source::small();
    let rig = hydrated(&source).await;
    let order = breadth_first(&source, source.root(), 3);
    let sizes: Vec<u64> = order[1..]
        .iter()
        .map(|oid| source.objects.record(oid).len() as u64)
        .collect();
    for fitting in 0..=sizes.len() {
        let budget: u64 = sizes[..fitting].iter().sum();
        let request = v1::GetTreesRequest {
            byte_budget: budget,
            ..trees_of(&source, &[source.root()])
        };
        let answers = rig.trees(request).await.unwrap();
        assert_eq!(ids(&answers), order[..=fitting], "a budget of {budget}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requested_records_come_although_the_budget_ended_before_them() {
    let source = Source::small();
    let rig = hydrated(&source).await;
    let wanted = ["", "d1/e1", "d3"].map(|path| source.at_path(path));
    let request = v1::GetTreesRequest {
        byte_budget: 1,
        ..trees_of(&source, &wanted)
    };
    assert_eq!(ids(&rig.trees(request).await.unwrap()), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_that_are_not_held_are_named_and_the_others_come() {
    let source = Source::small();
    let rig = hydrated(&source).await;
    let unknown = Oid::from_bytes(&[5; 20]).unwrap();
    let request = trees_of(&source, &[unknown, source.root()]);
    let answers = rig.trees(request).await.unwrap();
    assert_eq!(ids(&answers), [source.root()]);
    let missing: Vec<_> = answers.iter().flat_map(|a| a.missing.clone()).collect();
    assert_eq!(missing, [oid_bytes(&unknown)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_of_a_long_answer_is_small() {
    let repo = Repo::new();
    repo.commit(|c| {
        for n in 0..400 {
            c.file(format!("d{n:03}/{}", "n".repeat(200)), format!("{n}"));
        }
        for n in 0..40 {
            c.file(format!("f{n:02}"), pattern((40 << 10) + n));
        }
    });
    let source = Source::new(repo);
    let rig = hydrated(&source).await;
    let request = v1::GetTreesRequest {
        byte_budget: u64::MAX,
        ..trees_of(&source, &[source.at_path("d000"), source.root()])
    };
    let answers = rig.trees(request).await.unwrap();
    assert_eq!(ids(&answers).len(), 401);
    let records: usize = answers[0].trees.iter().map(|t| t.record.len()).sum();
    assert!(records < 64 << 10, "{records}");

    let mut stream = rig.open(&source, source.spans()).await;
    let first = stream.message().await.unwrap().unwrap();
    let frames: usize = first.chunks.iter().map(|chunk| chunk.frame.len()).sum();
    assert!(frames < 64 << 10, "{frames}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_a_large_file_come_alone_or_in_runs() {
    let repo = Repo::new();
    let contents = pattern(5 * CHUNK_BYTES + 17);
    repo.commit(|c| {
        c.file("large", &contents);
    });
    let source = Source::new(repo);
    let rig = hydrated(&source).await;
    let oid = source.at_path("large");
    for (first, count) in [(0, 1), (2, 2), (5, 1), (3, 0), (4, 99), (0, 0)] {
        let span = v1::BlobSpan {
            first_chunk: first,
            chunk_count: count,
            ..source.span(&oid)
        };
        let read = rig.read_held(&source, vec![span]).await.unwrap();
        let end = match count {
            0 => 6,
            count => (first + count).min(6),
        };
        let indexes: Vec<u32> = read.chunks.iter().map(|chunk| chunk.index).collect();
        assert_eq!(indexes, (first..end).collect::<Vec<_>>());
        let from = first as usize * CHUNK_BYTES;
        let to = contents.len().min(end as usize * CHUNK_BYTES);
        assert!(read.bytes(&oid) == contents[from..to]);
    }
    let past = v1::BlobSpan {
        first_chunk: 6,
        ..source.span(&oid)
    };
    let refused = rig.read_held(&source, vec![past]).await;
    assert_eq!(kind(refused), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_refused_by_kind_and_the_node_goes_on() {
    let source = Source::small();
    let rig = hydrated(&source).await;
    let too_many = vec![source.root(); CONTENT_REQUEST_ITEMS_MAX + 1];
    let mut bad_id = trees_of(&source, &[source.root()]);
    bad_id.oids.push(vec![1; 21].into());
    let mut no_repository = trees_of(&source, &[source.root()]);
    no_repository.storage_id = "/etc/passwd".to_owned();
    for request in [trees_of(&source, &too_many), bad_id, no_repository] {
        assert_eq!(kind(rig.trees(request).await), ErrorKind::Invalid);
    }
    let unknown = Source::small().at("h/unknown");
    let request = trees_of(&unknown, &[source.root()]);
    assert_eq!(kind(rig.trees(request).await), ErrorKind::NotHeld);

    let span = source.spans()[0].clone();
    let too_many = vec![span.clone(); CONTENT_REQUEST_ITEMS_MAX + 1];
    let bad_id = v1::BlobSpan {
        oid: Default::default(),
        ..span
    };
    for spans in [too_many, vec![bad_id]] {
        let refused = rig.read(&source, spans).await;
        assert_eq!(kind(refused), ErrorKind::Invalid);
    }
    let refused = rig.read(&unknown, source.spans()).await;
    assert_eq!(kind(refused), ErrorKind::NotHeld);

    // A tree is no content, and nothing comes of an empty request.
    let tree = v1::BlobSpan {
        oid: oid_bytes(&source.root()),
        size: 10,
        ..Default::default()
    };
    let read = rig.read_held(&source, vec![tree]).await.unwrap();
    assert_eq!(read.missing, [source.root()]);
    assert_eq!(rig.read(&source, vec![]).await.unwrap().chunks, []);
    assert_eq!(rig.trees(trees_of(&source, &[])).await.unwrap(), []);
}

#[test]
fn callers_that_do_not_read_their_answers_do_not_use_up_the_threads_for_the_disk() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Each answer is longer than all windows and queues on its way.
        let repo = Repo::new();
        repo.commit(|c| {
            c.file("large", pattern(32 * CHUNK_BYTES));
            c.file("small", "contents");
        });
        let source = Source::new(repo);
        let rig = hydrated(&source).await;
        let request = v1::GetBlobsRequest {
            storage_id: source.id().to_string(),
            spans: vec![source.span(&source.at_path("large"))],
            held_only: true,
            ..Default::default()
        };
        let mut unread = Vec::new();
        for _ in 0..24 {
            let mut client = rig.own_content();
            unread.push(client.get_blobs(request.clone()).await.unwrap());
        }
        // Listing needs such a thread.
        let held = tokio::time::timeout(SOON, rig.held(&source.id())).await;
        assert_eq!(held.unwrap().unwrap().snapshots.len(), 1);
        // An answer that is read after all is whole.
        let mut stream = unread.pop().unwrap().into_inner();
        let mut chunks = 0;
        while let Some(message) = stream.message().await.unwrap() {
            chunks += message.chunks.len();
        }
        assert_eq!(chunks, 32);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_names_every_repository_and_one_alone_in_full() {
    let first = Source::small();
    let second = Source::small().at("h/second");
    let fetcher = first.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    assert_eq!(rig.list_held().await, []);
    rig.adopt(first.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.adopt(second.adoption().lazy().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&first.id()).await;
    let listed = rig.list_held().await;
    let mut paths: Vec<&str> = listed.iter().map(|held| held.path.as_str()).collect();
    paths.sort();
    assert_eq!(paths, ["h/r", "h/second"]);
    assert!(listed.iter().all(|held| held.total_blobs == 0));
    let one = rig.held(&first.id()).await.unwrap();
    assert_eq!(one.total_blobs, first.snapshot("main").blobs);
    assert!(one.disk_bytes > 0);
    let unknown = Source::small().at("h/unknown");
    assert_eq!(kind(rig.held(&unknown.id()).await), ErrorKind::NotHeld);

    let stat = rig.stat().await;
    assert_eq!(stat.node_id, "node1");
    assert_eq!(stat.repositories, 2);
    assert!(stat.disk_used_bytes > 0);
    assert!(stat.disk_free_bytes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_set_aside_and_adopted_again() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let mut rig = hydrated(&source).await;
    rig.stop(SOON).await;
    let store = rig.dir.path().join("db/repos").join(source.id().as_str());
    let data = store.join("data.mdb");
    let bytes = std::fs::metadata(&data).unwrap().len();
    std::fs::write(&data, vec![0x5a; bytes as usize]).unwrap();
    rig.start_again().await.unwrap();
    let read = rig.read_held(&source, source.spans()).await;
    assert_eq!(kind(read), ErrorKind::NotHeld);
    assert_eq!(rig.list_held().await, []);
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&source.id()).await;
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

/// The answer to a GET.
async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_tell_what_was_served_and_what_was_wrong() {
    let source = Source::small();
    let wrong = source.server(FakeMode::Corrupt).await;
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let request = source.adoption().with_peer(&wrong).with_fetcher(&fetcher);
    rig.adopt(request).await.unwrap();
    rig.wait_hydrated(&source.id()).await;
    rig.read(&source, source.spans()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = rig.running().serve_http(listener).unwrap().to_string();
    assert!(get(&address, "/health").await.contains("200 OK"));
    let metrics = get(&address, "/metrics").await;
    let blobs = source.snapshot("main").blobs;
    for line in [
        "monofs_node_repositories 1".to_owned(),
        "monofs_node_corrupt_total 1".to_owned(),
        format!("monofs_node_chunks_served_total {blobs}"),
        format!("monofs_cache_hits_total{{tier=\"contents\"}} {blobs}"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_announces_itself_and_follows_the_view() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let refusing = FakeRouter::start(vec![]).await;
    refusing.refuse(true);
    let router = FakeRouter::start(vec![]).await;
    let routers = vec![refusing.address(), router.address()];
    let mut rig = Rig::start_with(move |config| {
        config.routers = routers.clone();
        config.zone = "east".to_owned();
        config.weight = 2.5;
        config.capacity_bytes = 1 << 40;
        config.external_address = "node.example.org:9000".to_owned();
    })
    .await;
    router.wait_seen(1).await;
    let announced = router.seen().pop().unwrap();
    assert_eq!(announced.id, "node1");
    assert_eq!(announced.role(), v1::Role::Node);
    assert_eq!(announced.address, rig.address());
    assert_eq!(announced.external_address, "node.example.org:9000");
    assert_eq!(announced.zone, "east");
    assert_eq!(announced.weight, 2.5);
    assert_eq!(announced.capacity_bytes, 1 << 40);

    // A fetcher that the view shows is asked, without being named by a request.
    let records = source.server(FakeMode::Serve).await;
    rig.adopt(source.adoption().lazy().with_peer(&records))
        .await
        .unwrap();
    assert_eq!(fetcher.blob_requests(), 0);
    let shown = member("fetcher1", Role::Fetcher, &fetcher.address());
    router.show(vec![shown]);
    router.wait_seen(2).await;
    rig.read(&source, source.spans()).await.unwrap();
    assert_eq!(fetcher.blob_requests(), 1);
    wait_until_async("its disk use is announced", SOON, || async {
        router.seen().pop().unwrap().used_bytes > 0
    })
    .await;

    // Another start is another incarnation.
    rig.restart().await;
    router.wait_seen(1).await;
    let again = router.seen().pop().unwrap();
    assert_ne!(again.incarnation, announced.incarnation);
}
