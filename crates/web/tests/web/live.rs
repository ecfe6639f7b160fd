//! What changes is seen without a reload.

use crate::site::{Site, project};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_by_its_dialog_and_its_state_changes_before_ones_eyes() {
    let site = Site::start().await;
    let browser = &site.browser;
    site.ingest(&project(), "h/ferry").await;
    let holder = site.cluster.repository("h/ferry").await.unwrap().holders[0].to_string();
    browser.go(&format!("/nodes/{holder}")).await;
    browser.run("window.stayed = true").await;
    browser.wait_for("#node-state", "active").await;
    browser.click("button[data-dialog=drain]").await;
    browser.fill("#drain-reason", "new disks").await;
    browser.click("#drain button[type=submit]").await;
    browser.wait_for("#node-state", "drained").await;
    browser.wait_for("#head", "new disks").await;
    browser.wait_for("#passed", "draining").await;
    browser.click("button[data-dialog=undrain]").await;
    browser.click("#undrain button[type=submit]").await;
    browser.wait_for("#node-state", "active").await;
    assert_eq!(
        browser.run("return window.stayed").await,
        true,
        "the page was not loaded again"
    );
    browser.go("/jobs").await;
    browser
        .wait_for("#ended", &format!("drain-{holder}-1"))
        .await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_says_what_is_wrong_as_soon_as_it_is() {
    let mut site = Site::start().await;
    site.browser.go("/").await;
    site.browser.run("window.stayed = true").await;
    site.browser.wait_for("#health", "Healthy").await;
    site.browser.wait_for("[data-connection]", "live").await;
    site.cluster.stop_node(2).await;
    let told = site.browser.wait_for("#health", "node3").await;
    assert!(told.contains("Degraded"), "{told}");
    site.browser.wait_for("#tiles a[href='/nodes']", "2").await;
    site.cluster.start_node(2).await.unwrap();
    site.browser.wait_for("#health", "Healthy").await;
    assert_eq!(
        site.browser.run("return window.stayed").await,
        true,
        "the page was not loaded again"
    );
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_colours_follow_the_system_and_the_button() {
    let site = Site::start_with(|builder| builder.nodes(1)).await;
    let browser = &site.browser;
    let ground = || async {
        browser
            .run("return getComputedStyle(document.documentElement).backgroundColor")
            .await
    };
    browser.colours("light").await;
    browser.go("/").await;
    let light = ground().await;
    browser.colours("dark").await;
    let dark = ground().await;
    assert_ne!(light, dark);
    browser.click("[data-theme-button]").await;
    assert_eq!(ground().await, light, "light although the system is dark");
    browser.client.refresh().await.unwrap();
    assert_eq!(ground().await, light, "it is remembered");
    browser.click("[data-theme-button]").await;
    assert_eq!(ground().await, dark);
    site.end().await;
}
