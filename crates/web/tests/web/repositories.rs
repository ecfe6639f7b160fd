//! A catalogue of many entries.

use std::sync::Arc;

use fantoccini::key::Key;
use monofs_control::state::EmbeddedState;
use monofs_model::{Consistency, ContentMode, DisplayPath, NodeId, ObjectFormat, ObjectKind, Oid};
use monofs_model::{RefName, Repository, RepositoryState, Snapshot, SourceUrl};

use crate::browser::Browser;
use crate::site::builder;

const MANY: usize = 20_000;

fn entry(number: usize) -> Repository {
    let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, b"");
    let snapshot = Snapshot {
        commit: oid,
        root: oid,
        commit_time: 1_700_000_000,
        trees: 1,
        blobs: 1,
        bytes: number as u64,
        submodules: Vec::new(),
        generations: None,
    };
    Repository {
        path: DisplayPath::new(&format!("host/org{:03}/repo{number:06}", number / 100)).unwrap(),
        source: SourceUrl::new(&format!("https://host/repo{number}")).unwrap(),
        ref_name: RefName::new("main").unwrap(),
        state: RepositoryState::Ready,
        snapshot: Some(snapshot),
        generation: 1,
        generation_time: None,
        root_time: None,
        holders: vec![NodeId::new("node1").unwrap()],
        content: ContentMode::Lazy,
        consistency: Consistency::Eventual,
        created_at: 1_700_000_000,
        refreshed_at: 1_700_000_000,
        last_error: String::new(),
        shadowed_by: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_repositories_are_filtered_sorted_and_paged() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedState::open(dir.path().join("router"))
        .await
        .unwrap();
    monofs_control::seed_catalogue(Arc::new(store), (0..MANY).map(entry))
        .await
        .unwrap();
    let cluster = builder(dir.path())
        .nodes(0)
        .fetchers(0)
        .start()
        .await
        .unwrap();
    let browser = Browser::open(&cluster.http_address()).await;
    browser.go("/repos").await;
    browser.wait_for(".pages", "1 to 50 of 20,000").await;
    let rows = browser
        .run("return document.querySelectorAll('#list tbody tr').length")
        .await;
    assert_eq!(rows, 50);
    browser.click(".pages a[rel=next]").await;
    browser.wait_for(".pages", "51 to 100 of 20,000").await;
    browser
        .client
        .active_element()
        .await
        .unwrap()
        .send_keys("/")
        .await
        .unwrap();
    let focused = browser.client.active_element().await.unwrap();
    assert_eq!(
        focused.attr("id").await.unwrap().as_deref(),
        Some("q"),
        "'/' goes to the filter"
    );
    focused.send_keys("org123").await.unwrap();
    focused
        .send_keys(&char::from(Key::Enter).to_string())
        .await
        .unwrap();
    browser.wait_for(".pages", "1 to 50 of 100").await;
    browser.click("thead th.number a").await;
    browser
        .wait_for("tbody tr:first-child th", "repo012399")
        .await;
    browser.go("/repos?q=nothing-like-this").await;
    browser.wait_for("#list", "Nothing fits").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
    cluster.shutdown().await;
}
