//! What nodes ask for: closures within budgets, blobs in chunks, ranges of long files.

use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{ErrorKind, Oid, TreeRecord};
use monofs_testkit::Repo;
use monofs_testkit::repo::pattern;

use crate::rig::{NO_LIMIT, Rig, error_of, object};

#[tokio::test(flavor = "multi_thread")]
async fn closures_are_breadth_first_and_keep_to_depth_and_budget() {
    let repo = Repo::new();
    repo.commit(|c| {
        for a in 0..5 {
            for b in 0..5 {
                c.file(format!("a{a}/b{b}/c/file"), format!("{a}{b}"));
            }
        }
    });
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    let root = fetched.snapshot.root;
    let get = async |budget, depth| {
        rig.trees(&fetched.id, &[root], budget, depth, None)
            .await
            .unwrap()
            .0
    };
    let bytes = |trees: &[(Oid, TreeRecord)]| {
        trees
            .iter()
            .map(|(_, r)| r.bytes().len() as u64)
            .sum::<u64>()
    };
    assert_eq!(get(NO_LIMIT, 1).await.len(), 1);
    assert_eq!(get(NO_LIMIT, 2).await.len(), 1 + 5);
    assert_eq!(get(NO_LIMIT, 3).await.len(), 1 + 5 + 25);
    let all = get(NO_LIMIT, 0).await;
    assert_eq!(all.len() as u64, fetched.snapshot.trees);
    assert_eq!(
        get(0, 0).await.len(),
        1,
        "the budget is for what was not asked for"
    );
    let root_bytes = bytes(&all[..1]);
    let some = get(1000, 0).await;
    assert!(
        some.len() > 1 && bytes(&some) - root_bytes <= 1000,
        "{}",
        some.len()
    );
    let in_order: Vec<Oid> = all[..some.len()].iter().map(|(oid, _)| *oid).collect();
    assert_eq!(
        some.iter().map(|(oid, _)| *oid).collect::<Vec<_>>(),
        in_order
    );
    assert_eq!(get(1, 0).await.len(), 1);

    let nowhere: Oid = "0123456789012345678901234567890123456789".parse().unwrap();
    let blob = object(&repo, "main:a0/b0/c/file");
    let (trees, missing) = rig
        .trees(&fetched.id, &[nowhere, root, blob], 0, 1, None)
        .await
        .unwrap();
    assert_eq!((trees.len(), missing), (1, vec![nowhere, blob]));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_every_size_and_ranges_of_them() {
    let repo = Repo::new();
    let sizes = [
        0,
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        3 * CHUNK_BYTES + 5,
        20 * CHUNK_BYTES + 7,
    ];
    repo.commit(|c| {
        for size in sizes {
            c.file(format!("f{size}"), pattern(size));
        }
        c.many("many", 500);
    });
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    let seen = rig.everything(&fetched).await.unwrap();
    for size in sizes {
        assert!(
            seen[format!("f{size}").as_bytes()].contents == pattern(size),
            "{size}"
        );
    }
    for size in [3 * CHUNK_BYTES + 5, 20 * CHUNK_BYTES + 7] {
        let oid = object(&repo, &format!("main:f{size}"));
        let whole = pattern(size);
        for (first, count) in [(0, 1), (1, 1), (1, 2), (2, 0), (0, 0), (3, 100)] {
            let span = monofs_proto::v1::BlobSpan {
                oid: bytes::Bytes::copy_from_slice(oid.as_bytes()),
                first_chunk: first,
                chunk_count: count,
                size: size as u64,
            };
            let (blobs, _) = rig.spans(&fetched.id, vec![span], None).await.unwrap();
            let start = first as usize * CHUNK_BYTES;
            let end = if count == 0 {
                size
            } else {
                size.min(start + count as usize * CHUNK_BYTES)
            };
            assert!(blobs[&oid] == whole[start..end], "{size}: {first}+{count}");
        }
    }
    let nowhere: Oid = "0123456789012345678901234567890123456789".parse().unwrap();
    let (_, missing) = rig.blobs(&fetched.id, &[nowhere], None).await.unwrap();
    assert_eq!(missing, [nowhere]);
    let error = error_of(rig.blobs(&fetched.id, &[fetched.snapshot.root], None).await);
    assert_eq!(error.kind, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_too_long_for_gix_are_indexed_by_git() {
    let repo = Repo::new();
    let size = 70 << 20;
    repo.commit(|c| {
        c.file("long", vec![0; size]).file("short", "x");
    });
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    assert_eq!(fetched.snapshot.bytes, size as u64 + 1);
    assert_eq!(
        rig.source.fallbacks(),
        0,
        "what was received was not asked for again"
    );
    let oid = object(&repo, "main:long");
    let (blobs, _) = rig.blobs(&fetched.id, &[oid], None).await.unwrap();
    oid.verify(monofs_model::ObjectKind::Blob, &blobs[&oid])
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_listed_with_their_urls() {
    let repo = Repo::new();
    let other: Oid = "00112233445566778899aabbccddeeff00112233".parse().unwrap();
    repo.commit(|c| {
        c.submodule("libs/other", "https://example.org/other.git", &other);
    });
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    let modules = &fetched.snapshot.submodules;
    assert_eq!(modules.len(), 1);
    assert_eq!(modules[0].path, b"libs/other");
    assert_eq!(modules[0].url, "https://example.org/other.git");
    assert_eq!(fetched.snapshot.commit_time, monofs_testkit::git::EPOCH);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused() {
    let rig = Rig::new().await;
    let mut client = rig.content_client();
    let bad_id = monofs_proto::v1::GetTreesRequest {
        storage_id: "../x".to_owned(),
        ..Default::default()
    };
    let status = client.get_trees(bad_id).await.unwrap_err();
    assert_eq!(monofs_rpc::from_status(status).kind, ErrorKind::Invalid);
    let id = crate::rig::id_of("x").to_string();
    let bad_oid = monofs_proto::v1::GetTreesRequest {
        storage_id: id.clone(),
        oids: vec![bytes::Bytes::from_static(b"short")],
        ..Default::default()
    };
    let status = client.get_trees(bad_oid).await.unwrap_err();
    assert_eq!(monofs_rpc::from_status(status).kind, ErrorKind::Invalid);
    let too_many = monofs_proto::v1::GetBlobsRequest {
        storage_id: id,
        spans: vec![monofs_proto::v1::BlobSpan::default(); 65_537],
        ..Default::default()
    };
    let status = client.get_blobs(too_many).await.unwrap_err();
    assert_eq!(monofs_rpc::from_status(status).kind, ErrorKind::Invalid);
}
