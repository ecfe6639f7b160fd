//! Contents through the router, of holders that have them and of those that do not.

use bytes::Bytes;
use monofs_model::{ObjectFormat, ObjectKind, Oid};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1::content_client::ContentClient;
use tonic::Code;

use super::*;
use crate::fixture::{TestRouter, path, snapshot};

fn blobs(at: &str, oid: &Oid) -> v1::GetBlobsRequest {
    v1::GetBlobsRequest {
        storage_id: path(at).storage_id().to_string(),
        spans: vec![v1::BlobSpan {
            oid: oid_bytes(oid),
            first_chunk: 0,
            chunk_count: 1,
            size: 5,
        }],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_holder_is_asked_when_one_cannot_answer() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, b"hello");
    node.serve_blob(oid, b"hello");
    node.serve_tree(snapshot(1).root, Bytes::from_static(b"as it is"));
    // Wherever a repository is asked for first, one of the two is not there.
    router.node("n2").await;
    for number in 0..6 {
        let at = format!("a/r{number}");
        node.put(&at, &snapshot(1));
        router.repository(&at, &["n1", "n2"], 1).await;
    }
    let (channel, _serving) = router.serve().await;
    let mut content = ContentClient::new(channel);
    for number in 0..6 {
        let at = format!("a/r{number}");
        let answer = content
            .get_blobs(blobs(&at, &oid))
            .await
            .expect("an answer");
        let message = answer.into_inner().message().await.expect("a message");
        let chunks = message.expect("one").chunks;
        assert_eq!((chunks.len(), chunks[0].index), (1, 0));
        let trees = v1::GetTreesRequest {
            storage_id: path(&at).storage_id().to_string(),
            oids: vec![oid_bytes(&snapshot(1).root)],
            ..Default::default()
        };
        let answer = content.get_trees(trees).await.expect("an answer");
        let message = answer.into_inner().message().await.expect("a message");
        let trees = message.expect("one").trees;
        assert_eq!(trees[0].record, &b"as it is"[..], "passed on as it came");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_an_error_that_says_who_was_asked() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    node.put("a/b", &snapshot(1));
    router.repository("a/b", &["n1"], 1).await;
    router.repository("a/away", &["n9"], 1).await;
    let (channel, _serving) = router.serve().await;
    let mut content = ContentClient::new(channel);
    let unknown = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, b"");
    let trees = |at: &str| v1::GetTreesRequest {
        storage_id: path(at).storage_id().to_string(),
        oids: vec![oid_bytes(&unknown)],
        ..Default::default()
    };
    let missing = content
        .get_trees(trees("a/b"))
        .await
        .expect_err("no such tree");
    assert!(missing.message().contains("node n1"), "{missing}");
    let no_holder = content
        .get_trees(trees("a/away"))
        .await
        .expect_err("no node");
    assert_eq!(no_holder.code(), Code::Unavailable);
    let no_entry = content
        .get_trees(trees("a/none"))
        .await
        .expect_err("no entry");
    assert_eq!(no_entry.code(), Code::NotFound);
    let nonsense = v1::GetTreesRequest {
        storage_id: "../etc".into(),
        ..Default::default()
    };
    let nonsense = content
        .get_trees(nonsense)
        .await
        .expect_err("no storage id");
    assert_eq!(nonsense.code(), Code::InvalidArgument);
}
