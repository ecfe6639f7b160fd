//! From the form to a line of a file.

use crate::http;
use crate::site::{MAIN, Site, project};

#[tokio::test(flavor = "multi_thread")]
async fn the_form_ingests_a_repository_and_its_files_can_be_read() {
    let site = Site::start().await;
    let browser = &site.browser;
    let repo = project();
    browser.go("/").await;
    browser.wait_for("main", "To begin").await;

    browser.go("/add").await;
    browser.fill("#source", "ftp://nowhere/x").await;
    browser.click("form.form button[type=submit]").await;
    browser
        .wait_for("[data-error]", "use https, http, ssh, git or file")
        .await;
    browser
        .run("document.getElementById('source').value = ''")
        .await;
    browser.fill("#source", &repo.url()).await;
    browser.fill("#ref", "main").await;
    browser.fill("#path", "github.com/example/ferry").await;
    browser.click("form.form button[type=submit]").await;
    browser
        .wait_text(".phases", "that all is done", |text| {
            text.matches("done").count() >= 5
        })
        .await;
    let here = browser.client.current_url().await.unwrap();
    assert_eq!(
        here.path(),
        "/add/github.com/example/ferry",
        "a reload shows the same"
    );
    browser.client.refresh().await.unwrap();
    browser
        .wait_text(".phases", "that all is done", |text| {
            text.matches("done").count() >= 5
        })
        .await;

    browser.click("#next a.primary").await;
    browser
        .wait_for(".plain", "Carries *messages* over a river.")
        .await;
    browser
        .go("/browse/github.com/example/ferry/src/main.rs#L6-L8")
        .await;
    browser.find("#L6.line-marked .t-f").await;
    let marked = browser
        .run("return document.querySelectorAll('.line-marked').length")
        .await;
    assert_eq!(marked, 3);
    browser.click("#L9 a.line-number").await;
    browser.find("#L9.line-marked").await;
    assert!(
        browser
            .client
            .current_url()
            .await
            .unwrap()
            .as_str()
            .ends_with("#L9")
    );
    let shown = browser
        .run(
            "return [...document.querySelectorAll('.code tr')].map(row => \
     row.cells[1].textContent).join('\\n') + '\\n'",
        )
        .await;
    assert_eq!(shown, MAIN);

    let raw = browser
        .find(".title .actions a")
        .await
        .attr("href")
        .await
        .unwrap()
        .unwrap();
    let file = http::ask("GET", &site.cluster.http_address(), &raw, "", "").await;
    assert_eq!((file.status, file.text().as_str()), (200, MAIN));
    assert!(
        file.head.contains("content-type: text/plain"),
        "{}",
        file.head
    );

    browser
        .go("/browse/github.com/example/ferry/logo.png")
        .await;
    browser.wait_for("main", "Binary file").await;
    browser.go("/browse/github.com/example/ferry/main").await;
    browser.click("main .empty a").await;
    browser.find("#L1").await;
    browser.go("/browse/github.com/example/ferry/data").await;
    browser.wait_for(".pages", "1 to 500 of 1,200").await;
    browser.click(".pages a[rel=next]").await;
    browser.wait_for(".pages", "501 to 1,000 of 1,200").await;

    browser.go("/repos/github.com/example/ferry").await;
    browser.click("button[data-dialog=delete]").await;
    assert!(
        !browser
            .find("#delete button[type=submit]")
            .await
            .is_enabled()
            .await
            .unwrap()
    );
    browser
        .fill("#delete-path", "github.com/example/ferry")
        .await;
    browser.click("#delete button[type=submit]").await;
    browser.wait_for("main", "There is no repository yet").await;
    // What the wrong source was answered is told to the console, too.
    let complaints = browser.complaints().await;
    assert!(
        complaints.len() == 1 && complaints[0].contains("400"),
        "{complaints:?}"
    );
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_fails_says_so_where_it_happened() {
    let site = Site::start().await;
    let browser = &site.browser;
    browser.go("/add").await;
    browser.fill("#source", "file:///nowhere/at/all").await;
    browser.fill("#path", "h/lost").await;
    browser.click("form.form button[type=submit]").await;
    let told = browser.wait_for(".phases li.bad", "failed").await;
    assert!(
        told.contains("Look the ref up") && told.len() > 60,
        "{told}"
    );
    browser.find("#next a[href='/add']").await;
    site.end().await;
}
