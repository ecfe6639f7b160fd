//! The HTTP API of a real cluster, asked over real connections.

use monofs_cluster::Ingest;
use monofs_testkit::{Etcd, Repo};
use serde_json::{Value, json};

use crate::shape::differences;
use crate::web::{Events, ask, get, post};

/// The answer of `GET path`, which must be 200 and of the shape that `template` is described with.
async fn shaped(at: &str, openapi: &Value, template: &str, path: &str) -> Value {
    let answer = get(at, path).await;
    assert_eq!(
        answer.status,
        200,
        "{path}: {}",
        String::from_utf8_lossy(&answer.body)
    );
    let schema = &openapi["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]
        ["schema"];
    assert!(schema.is_object(), "{template} is not described");
    let value = answer.json();
    assert_eq!(
        differences(openapi, schema, &value),
        Vec::<String>::new(),
        "{path}: {value:#}"
    );
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_added_browsed_and_deleted_and_every_answer_has_its_documented_shape() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let at = cluster.http_address();
    let repo = Repo::new();
    repo.commit(|tree| {
        tree.one_of_everything()
            .many("many", 700)
            .file(b"odd/\xff\n<b>", "odd\n");
    });
    let openapi = get(&at, "/api/v1/openapi.json").await.json();

    let started = post(
        &at,
        "/api/v1/repos",
        &json!({ "source": repo.url(), "path": "a/refresh" }),
    )
    .await;
    assert_eq!(
        started.status,
        202,
        "{}",
        String::from_utf8_lossy(&started.body)
    );
    assert_eq!(
        started.header("location"),
        Some("/api/v1/repos/a%2Frefresh")
    );
    let events = started.json()["events"].as_str().unwrap().to_owned();
    let mut events = Events::of(&at, &format!("{events}?hydrated=true")).await;
    let done = events.find("done", |name, data| {
        assert_ne!(name, "failed", "{data}");
        name == "done"
    });
    let done = done.await;
    assert_eq!(
        differences(
            &openapi,
            &json!({ "$ref": "#/components/schemas/IngestProgress" }),
            &done
        ),
        [""; 0]
    );
    assert_eq!(done["repository"]["commit"], repo.rev("main").to_string());

    let list = shaped(
        &at,
        &openapi,
        "/api/v1/repos",
        "/api/v1/repos?q=REFRESH&sort=bytes&order=desc&state=ready",
    )
    .await;
    assert_eq!(
        (&list["total"], &list["repositories"][0]["path"]),
        (&json!(1), &json!("a/refresh"))
    );
    for path in ["/api/v1/repos/a%2Frefresh", "/api/v1/repos/a/refresh"] {
        let one = shaped(&at, &openapi, "/api/v1/repos/{path}", path).await;
        assert_eq!(one["replicas"].as_array().unwrap().len(), 2, "{one:#}");
        assert_eq!(one["replicas"][0]["current"], true);
    }
    for path in [
        "/api/v1/repos/a%2Frefresh/history",
        "/api/v1/repos/a/refresh/history",
    ] {
        let history = shaped(&at, &openapi, "/api/v1/repos/{path}/history", path).await;
        assert_eq!(
            history["publications"][0]["commit"],
            repo.rev("main").to_string()
        );
        assert_eq!(history["publications"][0]["router"], "router1");
    }
    let root = shaped(&at, &openapi, "/api/v1/tree", "/api/v1/tree").await;
    assert_eq!(
        (&root["kind"], &root["entries"][0]["name"]),
        (&json!("namespace"), &json!("a"))
    );
    let last = shaped(
        &at,
        &openapi,
        "/api/v1/tree",
        "/api/v1/tree?path=a/refresh/many&offset=600&limit=500",
    )
    .await;
    assert_eq!(
        (
            last["entries"].as_array().unwrap().len(),
            &last["next_offset"]
        ),
        (100, &Value::Null)
    );
    let odd = shaped(
        &at,
        &openapi,
        "/api/v1/tree",
        "/api/v1/tree?path=a/refresh/odd",
    )
    .await;
    assert_eq!(
        odd["entries"][0]["path_encoded"],
        "a/refresh/odd/%FF%0A%3Cb%3E"
    );
    for (template, path) in [
        ("/health", "/health"),
        ("/ready", "/ready"),
        ("/api/status", "/api/status"),
        ("/api/fetchers", "/api/fetchers"),
        ("/api/v1/overview", "/api/v1/overview"),
        ("/api/v1/history", "/api/v1/history?range=24h"),
        ("/api/v1/nodes", "/api/v1/nodes"),
        ("/api/v1/nodes/{id}", "/api/v1/nodes/node1?limit=1"),
        ("/api/v1/fetchers", "/api/v1/fetchers"),
        ("/api/v1/clients", "/api/v1/clients"),
        ("/api/v1/jobs", "/api/v1/jobs?all=true"),
        ("/api/v1/failover", "/api/v1/failover"),
        ("/api/v1/placement", "/api/v1/placement?without=node1"),
    ] {
        shaped(&at, &openapi, template, path).await;
    }

    let gone = ask(&at, "DELETE", "/api/v1/repos/a/refresh", &[], b"").await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    assert_eq!(get(&at, "/api/v1/repos/a%2Frefresh").await.status, 404);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_sent_whole_and_in_ranges_and_never_as_pages_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let at = cluster.http_address();
    let repo = Repo::new();
    let large = monofs_testkit::repo::pattern(3 << 20);
    repo.commit(|tree| {
        tree.file("page.html", "<script>alert(1)</script>")
            .file("large.bin", &large)
            .file("empty", "");
        tree.symlink("link", "/etc/passwd").file(b"\xff", "odd");
    });
    cluster
        .ingest(Ingest::of(repo.url()).shown_as("x/y"))
        .await
        .unwrap();
    let file = |path: &str| format!("/api/v1/file?path=x/y/{path}");

    let page = get(&at, &file("page.html")).await;
    assert_eq!(
        (page.status, page.body.as_slice()),
        (200, &b"<script>alert(1)</script>"[..])
    );
    assert_eq!(
        page.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .starts_with("sandbox;")
    );
    assert_eq!(get(&at, &file("%FF")).await.body, b"odd");
    assert_eq!(
        get(&at, &file("empty")).await.header("content-length"),
        Some("0")
    );
    let whole = get(&at, &file("large.bin")).await;
    assert_eq!(whole.body, large);
    assert_eq!(
        whole.header("content-type"),
        Some("application/octet-stream")
    );
    let tag = whole.header("etag").unwrap();
    let range = |range: &'static str| {
        let (at, path) = (at.clone(), file("large.bin"));
        async move { ask(&at, "GET", &path, &[("range", range)], b"").await }
    };
    let part = range("bytes=1048570-2097160").await;
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, Some("bytes 1048570-2097160/3145728"))
    );
    assert_eq!(part.body, large[1_048_570..=2_097_160]);
    assert_eq!(range("bytes=-5").await.body, large[large.len() - 5..]);
    assert_eq!(range("bytes=3145728-").await.status, 416);
    let unchanged = ask(
        &at,
        "GET",
        &file("large.bin"),
        &[("if-none-match", tag)],
        b"",
    )
    .await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let saved = get(&at, &format!("{}&download=true", file("page.html"))).await;
    assert_eq!(
        saved.header("content-disposition"),
        Some("attachment; filename*=UTF-8''page.html")
    );
    let head = ask(&at, "HEAD", &file("large.bin"), &[], b"").await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, Some("3145728"), 0)
    );

    let link = get(&at, "/api/v1/tree?path=x/y/link").await.json();
    assert_eq!(
        (&link["kind"], &link["target"]),
        (&json!("symlink"), &json!("/etc/passwd"))
    );
    for (path, status) in [
        ("link", 400),
        ("", 400),
        ("nothing", 404),
        ("../../../etc/passwd", 400),
        ("page.html/x", 404),
    ] {
        assert_eq!(get(&at, &file(path)).await.status, status, "{path}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_one_shape_and_no_other_site_can_change_anything() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let at = cluster.http_address();
    let json = ("content-type", "application/json");
    let long = vec![b' '; 100 << 10];
    let own = format!("http://{at}");
    // Method, path, headers, body; status and kind of the error.
    type Case<'a> = (
        &'a str,
        &'a str,
        Vec<(&'a str, &'a str)>,
        &'a [u8],
        u16,
        &'a str,
    );
    let cases: Vec<Case<'_>> = vec![
        ("GET", "/api/v1/nothing", vec![], b"", 404, "not_found"),
        ("GET", "/api/v2/repos", vec![], b"", 404, "not_found"),
        ("PUT", "/api/v1/repos", vec![json], b"{}", 405, "invalid"),
        ("POST", "/health", vec![], b"", 405, "invalid"),
        ("POST", "/api/v1/repos", vec![], b"{}", 415, "invalid"),
        ("POST", "/api/v1/repos", vec![json], b"{", 400, "invalid"),
        (
            "POST",
            "/api/v1/repos",
            vec![json],
            b"{\"source\":\"nonsense\"}",
            400,
            "invalid",
        ),
        (
            "POST",
            "/api/v1/repos",
            vec![json],
            b"{\"source\":\"https://h/a/b\",\"wait\":1}",
            400,
            "invalid",
        ),
        ("POST", "/api/v1/repos", vec![json], &long, 413, "invalid"),
        (
            "POST",
            "/api/v1/drain",
            vec![json, ("origin", "http://evil.example")],
            b"{}",
            403,
            "refused",
        ),
        (
            "POST",
            "/api/v1/drain",
            vec![json, ("sec-fetch-site", "cross-site")],
            b"{}",
            403,
            "refused",
        ),
        (
            "DELETE",
            "/api/v1/repos/a",
            vec![("origin", "http://evil.example")],
            b"",
            403,
            "refused",
        ),
        (
            "POST",
            "/api/v1/drain",
            vec![json, ("origin", &own)],
            b"{\"node\":\"nobody\"}",
            404,
            "not_found",
        ),
        (
            "POST",
            "/api/v1/drain",
            vec![json],
            b"{\"node\":\"fetcher1\"}",
            409,
            "refused",
        ),
        ("GET", "/api/v1/repos?limit=0", vec![], b"", 400, "invalid"),
        ("GET", "/api/v1/repos?limt=5", vec![], b"", 400, "invalid"),
        (
            "GET",
            "/api/v1/repos?sort=colour",
            vec![],
            b"",
            400,
            "invalid",
        ),
        ("GET", "/api/v1/repos/%FF", vec![], b"", 400, "invalid"),
        (
            "GET",
            "/api/v1/repos/a/b/c/events",
            vec![],
            b"",
            404,
            "not_found",
        ),
        ("GET", "/api/v1/tree?path=%00", vec![], b"", 400, "invalid"),
        (
            "GET",
            "/api/v1/tree?path=a/../b",
            vec![],
            b"",
            400,
            "invalid",
        ),
        ("GET", "/api/v1/file", vec![], b"", 400, "invalid"),
        (
            "GET",
            "/api/v1/history?range=1y",
            vec![],
            b"",
            400,
            "invalid",
        ),
        (
            "GET",
            "/api/v1/jobs/none/events",
            vec![],
            b"",
            404,
            "not_found",
        ),
    ];
    for (method, path, headers, body, status, kind) in cases {
        let answer = ask(&at, method, path, &headers, body).await;
        let what = format!(
            "{method} {path} {headers:?}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        assert_eq!(answer.status, status, "{what}");
        let error = &answer.json()["error"];
        assert_eq!(error["kind"], kind, "{what}");
        assert!(
            !error["message"].as_str().unwrap().is_empty()
                && !error["hint"].as_str().unwrap().is_empty(),
            "{what}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{what}"
        );
        assert!(
            answer
                .header("content-security-policy")
                .unwrap()
                .contains("frame-ancestors 'none'"),
            "{what}"
        );
        assert!(status != 405 || answer.header("allow").is_some(), "{what}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_and_a_drain_are_told_live() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = monofs_cluster::Builder::quick(dir.path())
        .nodes(3)
        .start()
        .await
        .unwrap();
    let at = cluster.http_address();
    let repo = Repo::new();
    repo.commit(|tree| {
        tree.file("a", "a");
    });
    let held = cluster
        .ingest(Ingest::of(repo.url()).shown_as("x/y").strong())
        .await
        .unwrap();
    let mut events = Events::of(&at, "/api/v1/events").await;
    let first = events.next().await.unwrap();
    assert_eq!(
        (first.0.as_str(), &first.1["nodes"]["by_state"]["active"]),
        ("overview", &json!(3))
    );

    let loss = get(
        &at,
        &format!("/api/v1/placement?without={}", held.holders[0]),
    )
    .await
    .json();
    assert_eq!(
        (&loss["without"]["copies"], &loss["without"]["below_copies"]),
        (&json!(1), &json!(1))
    );
    let third = (1..=3)
        .map(|n| format!("node{n}"))
        .find(|id| held.holders.iter().all(|h| h.as_str() != id))
        .unwrap();
    assert_eq!(loss["without"]["targets"][0]["node"], third.as_str());

    let drained = post(
        &at,
        "/api/v1/drain",
        &json!({ "node": held.holders[0], "reason": "new disk" }),
    )
    .await
    .json();
    let job = drained["job"].as_str().unwrap().to_owned();
    let mut job_events = Events::of(&at, &format!("/api/v1/jobs/{job}/events")).await;
    let ended = job_events
        .find("the end of the job", |_, data| data["state"] == "done")
        .await;
    assert_eq!(ended["id"], job.as_str());
    assert!(
        job_events.next().await.is_none(),
        "the stream ends with the job"
    );
    events
        .find("a drained node", |_, data| {
            data["nodes"]["by_state"]["drained"] == 1
        })
        .await;
    let node = get(&at, &format!("/api/v1/nodes/{}", held.holders[0]))
        .await
        .json();
    assert_eq!(
        (&node["node"]["intent"]["reason"], &node["page"]["total"]),
        (&json!("new disk"), &json!(0))
    );

    cluster.stop_node(2).await;
    let down = events
        .find("a node that is down", |_, data| {
            data["nodes"]["by_state"]["down"] == 1
        })
        .await;
    assert_eq!(down["health"], "degraded");
    let node = get(&at, "/api/v1/nodes/node3").await.json();
    assert_eq!(node["states"][0]["state"], "down");
    assert!(
        node["probe"]["last_error"].is_string() && node["node"]["error"].is_string(),
        "{node:#}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_is_followed_from_the_router_that_does_not_do_it() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start();
    let cluster = monofs_cluster::Builder::quick(dir.path())
        .routers(2, vec![etcd.endpoint()])
        .start()
        .await
        .unwrap();
    let (first, second) = (cluster.http_address_of(0), cluster.http_address_of(1));
    let repo = Repo::new();
    repo.commit(|tree| {
        tree.many("many", 3000);
    });
    let started = post(
        &first,
        "/api/v1/repos",
        &json!({ "source": repo.url(), "path": "x/y" }),
    )
    .await;
    assert_eq!(started.status, 202);
    monofs_testkit::wait::wait_until_async(
        "the other router to hear of it",
        crate::SOON,
        || async { get(&second, "/api/v1/repos/x/y").await.status == 200 },
    )
    .await;
    let mut events = Events::of(&second, "/api/v1/repos/x/y/events?hydrated=true").await;
    let done = events.find("done", |name, data| {
        assert_ne!(name, "failed", "{data}");
        name == "done"
    });
    let done = done.await;
    assert_eq!(done["repository"]["commit"], repo.rev("main").to_string());
    assert_eq!(done["replicas"].as_array().unwrap().len(), 2, "{done:#}");
    let history = get(&second, "/api/v1/repos/x/y/history").await.json();
    assert_eq!(history["publications"][0]["router"], "router1");
    cluster.shutdown().await;
}
