//! Many repositories are added at once.

use futures::StreamExt;
use monofs_cluster::{Builder, Ingest};
use monofs_model::ErrorKind;

/// What operators have running at a time.
const AT_ONCE: usize = 64;
const REPOSITORIES: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_added_at_once_in_the_same_directories_do_not_keep_each_other_out() {
    let dir = tempfile::tempdir().unwrap();
    // Without nodes an ingest ends right after its entry was made.
    let builder = Builder::quick(dir.path()).nodes(0).fetchers(0);
    let cluster = builder.start().await.unwrap();
    let ingests = (0..REPOSITORIES).map(|n| {
        let path = format!("forge.example/org{}/r{n}", n % 2);
        let what = Ingest::of("https://forge.example/x.git").shown_as(path);
        cluster.ingest(what)
    });
    let mut outcomes = futures::stream::iter(ingests).buffer_unordered(AT_ONCE);
    while let Some(outcome) = outcomes.next().await {
        let error = outcome.expect_err("there is no node");
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(error.message.contains("no node is active"), "{error}");
    }
    let status = cluster.status().await.unwrap();
    assert_eq!(status.repositories_failed, REPOSITORIES as u64);
    drop(outcomes);
    cluster.shutdown().await;
}
