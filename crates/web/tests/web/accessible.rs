//! Every page for everybody: no serious finding of axe-core, in light and in dark; readable on a
//! phone.

use std::path::PathBuf;

use serde_json::Value;

use crate::browser::Browser;
use crate::site::{Site, project};

/// Puts `scripts/require-axe` there, which `make test` runs.
fn axe() -> String {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
        PathBuf::from,
    );
    let path = target.join("axe/axe.min.js");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/require-axe", path.display()))
}

const PAGES: [&str; 19] = [
    "/",
    "/?range=24h",
    "/repos",
    "/repos?q=nothing",
    "/repos/h/org/ferry",
    "/add",
    "/add/h/org/ferry",
    "/browse/",
    "/browse/h/org/ferry",
    "/browse/h/org/ferry/src/main.rs",
    "/browse/h/org/ferry/logo.png",
    "/nodes",
    "/nodes/node1",
    "/fetchers",
    "/jobs",
    "/placement",
    "/placement?without=node1",
    "/clients",
    "/nothing/here",
];

/// What axe-core finds that is serious.
async fn findings(browser: &Browser, axe: &str) -> Vec<Value> {
    browser.run(axe).await;
    let script = "const done = arguments[0]; axe.run(document, \
     { resultTypes: ['violations'] }).then(
        (found) => done(found.violations.filter((v) => ['serious', 'critical'].includes(v.impact)).map(
            (v) => ({ rule: v.id, help: v.help, at: v.nodes.slice(0, 3).map((n) => n.html + ' ' + n.failureSummary) }))),
        (error) => done([String(error)]));";
    let found = browser
        .client
        .execute_async(script, Vec::new())
        .await
        .unwrap();
    found.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_keeps_anybody_out() {
    let axe = axe();
    let site = Site::start().await;
    site.ingest(&project(), "h/org/ferry").await;
    let browser = &site.browser;
    for colours in ["light", "dark"] {
        browser.colours(colours).await;
        for page in PAGES {
            browser.go(page).await;
            let found = findings(browser, &axe).await;
            assert!(
                found.is_empty(),
                "{page} in {colours}: {}",
                serde_json::to_string_pretty(&found).unwrap()
            );
        }
    }
    // The page that is not there is told to the console as a failed request.
    let complaints = browser.complaints().await;
    assert!(
        complaints.iter().all(|line| line.contains("/nothing/here")),
        "{complaints:?}"
    );
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_a_phone_and_says_what_it_is() {
    let site = Site::start().await;
    site.ingest(&project(), "h/org/ferry").await;
    let browser = &site.browser;
    browser.screen(360, 740).await;
    let mut titles = Vec::new();
    for page in PAGES {
        browser.go(page).await;
        let wide = browser
            .run("const d = document.documentElement; return d.scrollWidth - d.clientWidth")
            .await;
        assert_eq!(wide, 0, "{page} is wider than a phone");
        titles.push(browser.client.title().await.unwrap());
    }
    assert!(
        titles.iter().all(|title| title.ends_with(" · MonoFS")),
        "{titles:?}"
    );
    browser.go("/").await;
    browser.click("[data-menu]").await;
    browser.click("nav a[href='/nodes']").await;
    browser.wait_for("h1", "Nodes").await;
    // Everything can be reached by Tab: the first stop leads past the navigation.
    browser.screen(1280, 900).await;
    browser.go("/nodes").await;
    browser
        .client
        .active_element()
        .await
        .unwrap()
        .send_keys("\u{e004}")
        .await
        .unwrap();
    assert_eq!(
        browser
            .client
            .active_element()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "Skip to content"
    );
    let _ = browser.complaints().await;
    site.end().await;
}
