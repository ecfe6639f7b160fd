//! A node that stops ends what it does and lets go of its stores.

use std::time::Duration;

use monofs_testkit::wait::wait_until_async;

use crate::fake::FakeMode;
use crate::rig::{AdoptionExt, Rig, SOON, Source};

/// Starts again as soon as the stores are free.
async fn start_again(rig: &mut Rig) {
    let from = std::time::Instant::now();
    while let Err(error) = rig.start_again().await {
        assert!(from.elapsed() < SOON / 3, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_waits_for_a_server_does_not_keep_a_stopped_nodes_stores() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Hang).await;
    let mut rig = Rig::start().await;
    let request = source.adoption().with_fetcher(&fetcher);
    let mut node = rig.node();
    let adopting = tokio::spawn(async move { node.adopt(request.clone()).await });
    wait_until_async("the server is asked", SOON, || async {
        fetcher.tree_requests() > 0
    })
    .await;
    rig.stop(Duration::from_millis(200)).await;
    start_again(&mut rig).await;
    adopting.abort();
    fetcher.set(FakeMode::Serve);
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&source.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_waits_for_a_server_does_not_keep_a_stopped_nodes_stores() {
    let source = Source::small();
    let records = source.server(FakeMode::Serve).await;
    let fetcher = source.server(FakeMode::Gated).await;
    let address = fetcher.address();
    let mut rig = Rig::start_with(move |config| config.fetchers = vec![address.clone()]).await;
    rig.adopt(source.adoption().lazy().with_peer(&records))
        .await
        .unwrap();
    let mut content = rig.own_content();
    let request = monofs_proto::v1::GetBlobsRequest {
        storage_id: source.id().to_string(),
        spans: source.spans(),
        ..Default::default()
    };
    let reading = content.get_blobs(request).await.unwrap();
    wait_until_async("the server is asked", SOON, || async {
        fetcher.blob_requests() > 0
    })
    .await;
    rig.stop(Duration::from_millis(200)).await;
    start_again(&mut rig).await;
    drop(reading);
    fetcher.set(FakeMode::Serve);
    let read = rig.read(&source, source.spans()).await.unwrap();
    assert_eq!(read.missing, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hydration_under_way_ends_with_the_node() {
    let source = Source::small();
    let records = source.server(FakeMode::Serve).await;
    let fetcher = source.server(FakeMode::Gated).await;
    let mut rig = Rig::start().await;
    let request = source.adoption().with_peer(&records).with_fetcher(&fetcher);
    rig.adopt(request).await.unwrap();
    wait_until_async("contents are asked for", SOON, || async {
        fetcher.blob_requests() > 0
    })
    .await;
    let from = std::time::Instant::now();
    rig.stop(SOON).await;
    assert!(from.elapsed() < SOON / 2, "{:?}", from.elapsed());
    rig.start_again().await.unwrap();
}
