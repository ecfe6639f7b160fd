//! The pictures of docs/screenshots, made by `make screenshots`.

use std::path::PathBuf;
use std::time::Duration;

use monofs_cluster::Ingest;
use monofs_testkit::Repo;

use crate::site::{Site, project};

/// Name, page, colours, size.
const PICTURES: [(&str, &str, &str, (u32, u32)); 12] = [
    ("overview", "/", "light", (1280, 900)),
    ("overview-dark", "/", "dark", (1280, 900)),
    ("overview-phone", "/", "light", (390, 844)),
    ("repositories", "/repos", "light", (1280, 700)),
    (
        "repository",
        "/repos/github.com/example/ferry",
        "light",
        (1280, 900),
    ),
    (
        "browse",
        "/browse/github.com/example/ferry/src/main.rs#L6-L8",
        "light",
        (1280, 620),
    ),
    (
        "directory",
        "/browse/github.com/example/ferry",
        "dark",
        (1280, 900),
    ),
    ("node", "/nodes/node1", "light", (1280, 900)),
    (
        "placement",
        "/placement?without=node2",
        "light",
        (1280, 900),
    ),
    ("add", "/add", "light", (1280, 900)),
    (
        "ingest",
        "/add/github.com/example/ferry",
        "dark",
        (1280, 700),
    ),
    ("jobs", "/jobs", "light", (1280, 900)),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes pictures for the documentation: `make screenshots`"]
async fn screenshots() {
    let out = std::env::var_os("MONOFS_SCREENSHOTS")
        .map(PathBuf::from)
        .expect("MONOFS_SCREENSHOTS says where to");
    std::fs::create_dir_all(&out).unwrap();
    let site = Site::start_with(|builder| {
        builder.nodes(4).node(|config| {
            let number = config
                .node_id
                .as_str()
                .trim_start_matches("node")
                .parse::<usize>()
                .unwrap_or(0);
            config.zone = if number % 2 == 0 { "east" } else { "west" }.to_owned();
            config.weight = if number == 4 { 2.0 } else { 1.0 };
        })
    })
    .await;
    site.ingest(&project(), "github.com/example/ferry").await;
    for number in 0..12 {
        let repo = Repo::new();
        repo.commit(|changes| {
            changes
                .file("README.md", format!("# number {number}\n"))
                .many("src", 20 + number * 7);
        });
        let path = format!(
            "github.com/example/{}",
            ["anchor", "buoy", "canal", "dock", "estuary", "fjord"][number % 6]
        );
        let what = Ingest::of(repo.url())
            .at("main")
            .shown_as(format!("{path}-{}", number / 6 + 1))
            .strong();
        site.cluster.ingest(what.hydrated()).await.unwrap();
    }
    // Samples of the history are seconds apart; a picture without a curve says little.
    let reads = site.browse_for(Duration::from_secs(45)).await;
    assert!(reads > 0);
    for (name, page, colours, (width, height)) in PICTURES {
        let browser = &site.browser;
        browser.colours(colours).await;
        browser.screen(width, height).await;
        browser.go(page).await;
        browser.find("main h1, main .crumbs").await;
        std::fs::write(out.join(format!("{name}.png")), browser.picture().await).unwrap();
    }
    let _ = site.browser.complaints().await;
    site.end().await;
}
