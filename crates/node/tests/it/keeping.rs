//! Contents of a replaced commit that readers hold open: brought here, and read as of that commit.

use monofs_model::{ErrorKind, Oid, Result};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_rpc::from_status;
use monofs_testkit::Repo;
use monofs_testkit::repo::pattern;
use monofs_testkit::wait::wait_until_async;

use crate::fake::{FakeMode, FakeServer};
use crate::rig::{AdoptionExt, Rig, SOON, Source, kind};

const LARGE: usize = 3 << 20;

/// A lazy node that holds two commits, the first of which was replaced; its fetcher.
struct TwoCommits {
    rig: Rig,
    source: Source,
    first: Oid,
    /// Content of the first commit alone.
    large: Oid,
    fetcher: FakeServer,
}

impl TwoCommits {
    async fn start(mode: FakeMode) -> Self {
        let repo = Repo::new();
        let first = repo.commit(|c| {
            c.file("large", pattern(LARGE)).file("d/small", "small");
        });
        repo.point("refs/heads/first", &first);
        repo.commit(|c| {
            c.file("large", "not any more");
        });
        let source = Source::new(repo);
        let large = Oid::of(
            source.repo.format(),
            monofs_model::ObjectKind::Blob,
            &pattern(LARGE),
        );
        let records = source.server(FakeMode::Serve).await;
        let fetcher = source.server(mode).await;
        let rig = Rig::start().await;
        for revision in ["first", "main"] {
            let adoption = source.adoption_of(revision).lazy();
            let adoption = adoption.with_peer(&records).with_fetcher(&fetcher);
            rig.adopt(adoption).await.unwrap();
        }
        Self {
            rig,
            source,
            first,
            large,
            fetcher,
        }
    }

    async fn keep(&self, contents: &[Oid]) -> Result<v1::KeepResponse> {
        let request = v1::KeepRequest {
            storage_id: self.source.id().to_string(),
            commit: oid_bytes(&self.first),
            oids: contents.iter().map(oid_bytes).collect(),
        };
        let answer = self.rig.node().keep(request).await;
        answer.map(|kept| kept.into_inner()).map_err(from_status)
    }

    fn commit_asked(&self) -> Option<Oid> {
        let origin = self.fetcher.asked.origin.lock().clone();
        origin.map(|origin| Oid::from_bytes(&origin.commit).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_to_keep_are_pulled_as_of_their_commit_and_then_held() {
    let node = TwoCommits::start(FakeMode::Serve).await;
    assert_eq!(node.keep(&[node.large]).await.unwrap().missing, 1);
    wait_until_async("the contents are here", SOON, || async {
        node.keep(&[node.large]).await.unwrap().missing == 0
    })
    .await;
    assert_eq!(node.commit_asked(), Some(node.first));
    let asked = node.fetcher.blob_requests();
    let spans = vec![node.source.span(&node.large)];
    let read = node.rig.read_held(&node.source, spans).await.unwrap();
    assert!(read.bytes(&node.large) == pattern(LARGE));
    assert_eq!(node.fetcher.blob_requests(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_of_the_commit_is_neither_pulled_nor_missing() {
    let node = TwoCommits::start(FakeMode::Serve).await;
    let foreign = Oid::from_bytes(&[7; 20]).unwrap();
    let kept = node.keep(&[foreign]).await.unwrap();
    assert_eq!((kept.missing, node.fetcher.blob_requests()), (0, 0));
    let unknown = v1::KeepRequest {
        storage_id: node.source.id().to_string(),
        commit: vec![7; 20].into(),
        oids: vec![oid_bytes(&node.large)],
    };
    let refused = node.rig.node().keep(unknown).await.map_err(from_status);
    assert_eq!(kind(refused), ErrorKind::NotHeld);
    let many = vec![node.large; monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX + 1];
    assert_eq!(kind(node.keep(&many).await), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_fails_is_told_and_tried_again() {
    let node = TwoCommits::start(FakeMode::Fail).await;
    node.keep(&[node.large]).await.unwrap();
    wait_until_async("the failure is told", SOON, || async {
        let kept = node.keep(&[node.large]).await.unwrap();
        kept.missing == 1 && !kept.last_error.is_empty()
    })
    .await;
    node.fetcher.set(FakeMode::Serve);
    wait_until_async("the contents are here", SOON, || async {
        let kept = node.keep(&[node.large]).await.unwrap();
        kept.missing == 0
    })
    .await;
    assert_eq!(node.keep(&[]).await.unwrap().last_error, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_pulled_as_of_the_commit_that_the_reader_sees() {
    let node = TwoCommits::start(FakeMode::Serve).await;
    let read = |commit: Oid| v1::GetBlobsRequest {
        storage_id: node.source.id().to_string(),
        spans: vec![node.source.span(&node.large)],
        origin: Some(v1::Origin {
            commit: oid_bytes(&commit),
            // Only the commit counts: where it comes from the node knows itself.
            source: "https://elsewhere.example/evil.git".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    node.rig.blobs(read(node.first)).await.unwrap();
    assert_eq!(node.commit_asked(), Some(node.first));
    let origin = node.fetcher.asked.origin.lock().clone().unwrap();
    assert_eq!(origin.source, "https://example.org/org/repo.git");
}
