//! How contents come to the nodes, and what is said about it.

use std::collections::BTreeMap;

use monofs_cluster::{Cluster, Ingest};
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::random::Rng;

use crate::system::SOON;

const FILES: u64 = 600;
const CHUNK: usize = 1 << 20;

fn many_files() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        for n in 0..FILES {
            c.file(format!("d{}/f{n}", n % 20), format!("contents {n}"));
        }
        // Named twice, and one blob.
        c.file("twice", "contents 0");
    });
    repo
}

async fn one_node(dir: &std::path::Path) -> Cluster {
    crate::system::builder(dir).nodes(1).start().await.unwrap()
}

/// What the only node says of the repository.
async fn held(cluster: &Cluster, path: &str) -> v1::HeldRepository {
    let mut admin = cluster.admin().unwrap();
    let request = v1::GetRepositoryRequest { path: path.into() };
    let answer = admin.get_repository(request).await.unwrap().into_inner();
    answer
        .replicas
        .into_iter()
        .next()
        .and_then(|replica| replica.held)
        .expect("the node answers")
}

/// All blobs of `main` with their sizes.
fn blobs(repo: &Repo) -> BTreeMap<String, u64> {
    let listed = String::from_utf8(repo.git(["ls-tree", "-r", "-l", "main"])).unwrap();
    let words = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .map(|words| (words[2].to_owned(), words[3].parse().unwrap()))
        .collect()
}

fn span(oid: &str, size: u64, first_chunk: u32, chunk_count: u32) -> v1::BlobSpan {
    let oid: monofs_model::Oid = oid.parse().unwrap();
    v1::BlobSpan {
        oid: monofs_proto::convert::oid_bytes(&oid),
        size,
        first_chunk,
        chunk_count,
    }
}

/// Reads spans from the only node: the chunks that came.
async fn read(
    cluster: &Cluster,
    id: &str,
    spans: Vec<v1::BlobSpan>,
    held_only: bool,
) -> Vec<v1::BlobChunk> {
    let channel = monofs_rpc::ChannelPool::default()
        .get(&cluster.node_address(0))
        .unwrap();
    let request = v1::GetBlobsRequest {
        storage_id: id.to_owned(),
        spans,
        held_only,
        ..Default::default()
    };
    let mut answers = monofs_rpc::content::client(channel)
        .get_blobs(request)
        .await
        .unwrap()
        .into_inner();
    let mut chunks = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        chunks.extend(answer.chunks);
    }
    chunks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hydration_that_was_stopped_goes_on_and_progress_is_true_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = one_node(dir.path()).await;
    let repo = many_files();
    let entry = cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").lazy())
        .await
        .unwrap();
    let id = entry.storage_id().to_string();
    let all = blobs(&repo);
    assert_eq!(all.len() as u64, FILES);
    let some: Vec<_> = all
        .iter()
        .take(250)
        .map(|(oid, size)| span(oid, *size, 0, 0))
        .collect();
    assert_eq!(read(&cluster, &id, some, false).await.len(), 250);
    let seen = held(&cluster, "h/r").await;
    assert_eq!(
        (seen.hydrated_blobs, seen.total_blobs, seen.blobs),
        (250, FILES, 250)
    );

    // The next commit is eager, and stopped wherever it is by then.
    repo.commit(|c| {
        c.file("next", "another");
    });
    let next = blobs(&repo);
    cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r"))
        .await
        .unwrap();
    cluster.stop_fetcher(0).await;
    cluster.stop_node(0).await;
    cluster.start_node(0).await.unwrap();
    cluster.wait_members(1, 0).await.unwrap();
    let everything = || {
        next.iter()
            .map(|(oid, size)| span(oid, *size, 0, 0))
            .collect::<Vec<_>>()
    };
    let seen = held(&cluster, "h/r").await;
    let here = read(&cluster, &id, everything(), true).await;
    let old = here
        .iter()
        .filter(|chunk| all.contains_key(&oid_of(chunk)))
        .count();
    assert_eq!(seen.snapshots.len(), 2);
    assert_eq!(
        (seen.hydrated_blobs, seen.blobs),
        ((here.len() + old) as u64, here.len() as u64)
    );
    assert!(old >= 250 && seen.total_blobs == 2 * FILES + 1, "{seen:?}");

    cluster.start_fetcher(0).await.unwrap();
    let done = || async { held(&cluster, "h/r").await.hydrated_blobs == 2 * FILES + 1 };
    monofs_testkit::wait::wait_until_async("all contents came", SOON, done).await;
    assert_eq!(
        read(&cluster, &id, everything(), true).await.len() as u64,
        FILES + 1
    );
    cluster.stop_fetcher(0).await;
    cluster.stop_node(0).await;
    cluster.start_node(0).await.unwrap();
    cluster.wait_members(1, 0).await.unwrap();
    let seen = held(&cluster, "h/r").await;
    assert_eq!(
        (seen.hydrated_blobs, seen.total_blobs, seen.blobs),
        (2 * FILES + 1, 2 * FILES + 1, FILES + 1)
    );
    cluster.shutdown().await;
}

fn oid_of(chunk: &v1::BlobChunk) -> String {
    monofs_model::Oid::from_bytes(&chunk.oid)
        .unwrap()
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_lazy_file_read_chunk_by_chunk_is_pulled_once() {
    const CHUNKS: u32 = 24;
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = one_node(dir.path()).await;
    let mut rng = Rng::new(7);
    let contents: Vec<u8> = (0..CHUNKS as usize * CHUNK - 5)
        .map(|_| rng.bits() as u8)
        .collect();
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("long", &contents);
    });
    let entry = cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").lazy())
        .await
        .unwrap();
    let id = entry.storage_id().to_string();
    let (oid, size) = blobs(&repo).pop_first().unwrap();
    // The answer to the first chunk ends with it, while the rest still comes; readers of the rest
    // follow the same pull.
    let last = read(&cluster, &id, vec![span(&oid, size, CHUNKS - 1, 1)], false);
    let first = read(&cluster, &id, vec![span(&oid, size, 0, 1)], false);
    let (first, last) = tokio::join!(first, last);
    assert_eq!(
        (first[0].index, first.len(), last[0].index, last.len()),
        (0, 1, CHUNKS - 1, 1)
    );
    // All of it is here, though no reader asked for the middle.
    let whole = || async { held(&cluster, "h/r").await.hydrated_blobs == 1 };
    monofs_testkit::wait::wait_until_async("the whole blob is held", SOON, whole).await;
    cluster.stop_fetcher(0).await;
    for chunk in 0..CHUNKS {
        let read = read(&cluster, &id, vec![span(&oid, size, chunk, 1)], false).await;
        assert_eq!((read.len(), read[0].index), (1, chunk));
    }
    cluster.shutdown().await;
}
