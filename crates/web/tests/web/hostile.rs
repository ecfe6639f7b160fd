//! Names and contents made to break a page.

use monofs_cluster::Ingest;
use monofs_testkit::Repo;

use crate::http;
use crate::site::builder;

const SCRIPT: &str = "<script>alert(1)<!--";
const QUOTES: &str = "a\" onmouseover='alert(2)' x=\"";
const TURNED: &str = "photo\u{202e}gpj.exe";

/// A page whose every tag that could run something is the page's own.
fn assert_safe(page: &str, about: &str) {
    for wrong in [
        "<script>alert",
        "<b>x",
        " onmouseover='alert",
        "<img src=x",
        "\u{202e}",
    ] {
        assert!(!page.contains(wrong), "{about} has {wrong:?} unescaped");
    }
    let scripts = page.matches("<script").count();
    assert_eq!(scripts, 3, "{about} has {scripts} scripts");
    assert!(
        !page.contains("style=\"") && !page.contains(" onclick="),
        "{about} has what the policy forbids"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_contents_are_shown_and_do_nothing() {
    let repo = Repo::new();
    repo.commit(|changes| {
        changes
            .file(SCRIPT, "x")
            .file(QUOTES, "<img src=x onerror=alert(3)>\n")
            .file(TURNED, "x")
            .file(b"caf\xe9\xff/in".as_slice(), "inside")
            .file("README", "<script>alert(4)</script>\u{202e}\n")
            .file("page.html", "<script>alert(5)</script>\n<b>x</b>\n")
            .symlink("link", "<script>alert(6)")
            .symlink("up", "../../../../../etc/passwd");
    });
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).nodes(1).start().await.unwrap();
    let path = "h/<b>x\"y'&\u{202e}z";
    cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as(path).hydrated())
        .await
        .unwrap();
    let address = cluster.http_address();
    let encoded = "h/%3Cb%3Ex%22y%27%26%E2%80%AEz";
    let below = |name: &str| format!("/browse/{encoded}/{name}");
    let pages = [
        "/".to_owned(),
        "/repos".to_owned(),
        "/repos?q=%3Cb%3Ex%3Cscript%3Ealert(1)&state=%22%3E%3Cscript%3Ealert(1)&sort=%22%3E"
            .to_owned(),
        format!("/repos/{encoded}"),
        format!("/add/{encoded}"),
        "/browse/h".to_owned(),
        below(""),
        below("%3Cscript%3Ealert(1)%3C!--"),
        below("a%22%20onmouseover=%27alert(2)%27%20x=%22"),
        below("photo%E2%80%AEgpj.exe"),
        below("caf%E9%FF/in"),
        below("page.html"),
        below("link"),
        below("up"),
        below("none%3Cscript%3Ealert(1)"),
        "/nodes/%3Cscript%3Ealert(1)".to_owned(),
        "/placement?without=%3Cscript%3Ealert(1)".to_owned(),
        "/%3Cscript%3Ealert(1)".to_owned(),
        "/clients?q=%22%3E%3Cscript%3Ealert(1)".to_owned(),
    ];
    for page in &pages {
        let answer = http::page(&address, page).await;
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{page}: {}",
            answer.head
        );
        assert!(
            answer.head.contains("x-content-type-options: nosniff"),
            "{page}"
        );
        assert_safe(&answer.text(), page);
    }
    let root = http::page(&address, &below("")).await.text();
    assert!(
        root.contains("caf\\xe9\\xff") && root.contains(&below("caf%E9%FF")),
        "bytes that are no text have their link"
    );
    assert!(root.contains("photo\\u{202e}gpj.exe"));
    assert!(
        http::page(&address, &below("caf%E9%FF/in"))
            .await
            .text()
            .contains("inside")
    );
    assert!(
        http::page(&address, &below("up"))
            .await
            .text()
            .contains("outside of the tree")
    );
    assert_eq!(
        http::page(&address, "/browse/h/../../etc/passwd")
            .await
            .status,
        400
    );
    let nothing = http::ask(
        "GET",
        &address,
        "/nothing",
        "accept: application/json\r\n",
        "",
    )
    .await;
    assert!(
        nothing.status == 404 && nothing.text().starts_with("{\"error\""),
        "a program gets JSON"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_odd_files_are_shown_in_part_or_told_apart() {
    let repo = Repo::new();
    repo.commit(|changes| {
        changes
            .file("long.rs", "let a = 1; // x\n".repeat(200_000))
            .file("line.js", format!("var a = \"{}\";\n", "x".repeat(600_000)))
            .file(
                "deep.json",
                format!("{}{}\n", "[".repeat(40_000), "]".repeat(40_000)),
            )
            .file("latin1.txt", b"caf\xe9\n".as_slice())
            .file("nul", b"a\0b".as_slice())
            .many("dir", 30_000);
    });
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).nodes(1).start().await.unwrap();
    cluster
        .ingest(
            Ingest::of(repo.url())
                .at("main")
                .shown_as("h/large")
                .hydrated(),
        )
        .await
        .unwrap();
    let address = cluster.http_address();
    let page = async |name: &str| {
        let answer = http::page(&address, &format!("/browse/h/large/{name}")).await;
        assert_eq!(answer.status, 200, "{name}");
        answer.text()
    };
    let long = page("long.rs").await;
    assert!(long.contains("Only the first part is shown") && !long.contains("id=\"L20001\""));
    assert!(page("line.js").await.contains("too long for colours"));
    assert!(page("deep.json").await.contains("id=\"L1\""));
    assert!(page("latin1.txt").await.contains("caf\u{fffd}"));
    assert!(page("nul").await.contains("Binary file"));
    let directory = page("dir?offset=29900").await;
    assert!(
        directory.contains("29,901 to 30,000 of 30,000"),
        "the end of a huge directory"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_node_the_page_says_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path())
        .nodes(0)
        .fetchers(0)
        .start()
        .await
        .unwrap();
    let address = cluster.http_address();
    let overview = http::page(&address, "/").await.text();
    let command = format!(
        "monofs-node --node-id=node1 --router={}",
        cluster.router_address()
    );
    assert!(
        overview.contains("Unhealthy") && overview.contains(&command),
        "{overview}"
    );
    for page in [
        "/nodes",
        "/fetchers",
        "/jobs",
        "/placement",
        "/clients",
        "/add",
        "/repos",
        "/browse/",
    ] {
        assert_eq!(http::page(&address, page).await.status, 200, "{page}");
    }
    cluster.shutdown().await;
}
