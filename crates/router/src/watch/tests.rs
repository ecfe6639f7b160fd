//! Look-ups of the namespace, and clients that come from elsewhere.

use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_rpc::Channel;

use super::*;
use crate::fixture::{SOON, TestRouter};

/// A client that watches: it leaves when this is dropped.
struct Watching {
    _says: mpsc::Sender<v1::WatchRequest>,
    hears: Streaming<v1::WatchResponse>,
}

impl Watching {
    /// Begins a watch with this message.
    async fn begin(catalog: &mut CatalogClient<Channel>, first: Said) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(4);
        let message = v1::WatchRequest {
            message: Some(first),
        };
        says.send(message).await.expect("sent");
        let watch = catalog.watch(ReceiverStream::new(said)).await?;
        Ok(Self {
            _says: says,
            hears: watch.into_inner(),
        })
    }

    /// The deltas up to the one that completes at least `wanted` entries, as one.
    async fn run(&mut self, wanted: usize) -> v1::CatalogDelta {
        let mut run = v1::CatalogDelta::default();
        while !run.complete || run.upserts.len() < wanted {
            let heard = tokio::time::timeout(SOON, self.hears.message()).await;
            let heard = heard.expect("it comes").expect("no error");
            if let Some(Message::Delta(delta)) = heard.expect("it goes on").message {
                run.reset |= delta.reset;
                run.complete = delta.complete;
                run.upserts.extend(delta.upserts);
            }
        }
        run
    }
}

fn hello(resume: Option<v1::Position>) -> Said {
    Said::Hello(v1::WatchHello {
        client_id: "c1".into(),
        mount: "/mnt/monofs".into(),
        resume,
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_listed_page_by_page_and_paths_resolved_to_their_repository() {
    let router = TestRouter::start().await;
    for name in ["h/a/one", "h/a/two", "h/b/one"] {
        router.repository(name, &["n1"], 1).await;
    }
    let (channel, _serving) = router.serve().await;
    let mut catalog = CatalogClient::new(channel);
    let request = |page_token: &str| v1::ListRequest {
        prefix: "h".into(),
        page_size: 1,
        page_token: page_token.into(),
    };
    let first = catalog
        .list(request(""))
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(first.entries[0].name, "a");
    assert!(
        first.entries[0].repository.is_none(),
        "it is a directory above repositories"
    );
    let next = catalog.list(request(&first.next_page_token)).await;
    let next = next.expect("listed").into_inner();
    assert_eq!(next.entries[0].name, "b");
    let resolve = |path: &str| v1::ResolveRequest { path: path.into() };
    let found = catalog.resolve(resolve("h/a/two/src/main.rs")).await;
    let found = found.expect("found").into_inner();
    assert_eq!(found.rest, "src/main.rs");
    assert_eq!(found.repository.expect("one").path, "h/a/two");
    let missing = catalog
        .resolve(resolve("h/c"))
        .await
        .expect_err("nothing there");
    assert_eq!(missing.code(), tonic::Code::NotFound);
    assert_eq!(
        (page_size(0), page_size(7), page_size(u32::MAX)),
        (LIST_PAGE, 7, LIST_PAGE_MAX)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_resumes_where_it_was_and_one_of_another_epoch_gets_everything() {
    let router = TestRouter::start().await;
    router.repository("h/a", &["n1"], 1).await;
    let at = router.parts().control.catalog.position();
    let position = |epoch: &str| v1::Position {
        epoch: epoch.into(),
        revision: at.revision,
    };
    router.repository("h/b", &["n1"], 2).await;
    let (channel, _serving) = router.serve().await;
    let mut catalog = CatalogClient::new(channel);
    let mut runs = Vec::new();
    for (epoch, wanted) in [(at.epoch.as_str(), 1), ("another", 2)] {
        let said = hello(Some(position(epoch)));
        let watching = Watching::begin(&mut catalog, said).await;
        let run = watching.expect("let in").run(wanted).await;
        let mut paths: Vec<String> = run.upserts.into_iter().map(|entry| entry.path).collect();
        paths.sort();
        paths.dedup();
        runs.push((run.reset, paths.join(" ")));
    }
    let expected = [(false, "h/b".to_owned()), (true, "h/a h/b".to_owned())];
    assert_eq!(runs, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_with_a_hello_and_its_client_is_counted_until_it_leaves() {
    let router = TestRouter::start().await;
    let (channel, _serving) = router.serve().await;
    let mut catalog = CatalogClient::new(channel);
    let ack = Said::Ack(v1::Position::default());
    let wrong = Watching::begin(&mut catalog, ack).await;
    let wrong = wrong.err().expect("no hello");
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument);
    let watchers = &router.parts().work.watchers;
    let watching = Watching::begin(&mut catalog, hello(None)).await;
    let listed = watchers.list();
    assert_eq!((listed.len(), listed[0].mount.as_str()), (1, "/mnt/monofs"));
    drop(watching);
    monofs_testkit::wait::wait_until("it has left", SOON, || watchers.is_empty());
}
