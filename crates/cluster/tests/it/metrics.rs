//! What every role tells Prometheus: the list of names is kept beside this file, explained in
//! `docs/metrics.md`, and accepted by Prometheus's own checker.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use monofs_cluster::{Cluster, Ingest};
use monofs_testkit::Repo;
use monofs_testkit::wait::{require, wait_for_async, wait_until_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::system::{SOON, System, can_mount, off_thread};

const ROLES: [&str; 4] = ["router", "node", "fetcher", "client"];

/// The body of `GET path`.
async fn get(at: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.0 200") || path != "/metrics",
        "{head}"
    );
    assert!(
        path != "/metrics" || head.contains("text/plain; version=0.0.4"),
        "{head}"
    );
    body.to_owned()
}

/// `name{label names} type` of every family that has a sample.
fn shape(text: &str) -> BTreeSet<String> {
    let types: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let mut shapes = BTreeSet::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            let family = name.strip_suffix(end)?;
            (types.get(family) == Some(&"histogram")).then_some(family)
        });
        let family = family.unwrap_or(name);
        let labels = labels.strip_suffix('}').unwrap();
        let names = labels
            .split("\",")
            .filter_map(|label| Some(label.split_once('=')?.0))
            .filter(|name| *name != "le");
        let names: BTreeSet<&str> = names.collect();
        let kind = types
            .get(family)
            .unwrap_or_else(|| panic!("{family} has no type"));
        shapes.insert(format!(
            "{family}{{{}}} {kind}",
            names.into_iter().collect::<Vec<_>>().join(",")
        ));
    }
    shapes
}

fn golden_file(role: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/metrics")
        .join(format!("{role}.txt"))
}

fn golden(role: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(golden_file(role)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The value of the first series whose text begins with `series`.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find(|line| line.starts_with(series))?
        .rsplit_once(' ')?
        .1
        .parse()
        .ok()
}

/// A system that did everything once, and where each role tells its metrics.
struct Observed {
    system: System,
    at: [(&'static str, String); 4],
}

impl Observed {
    async fn start() -> Self {
        let repo = Repo::new();
        repo.commit(|c| {
            c.file("dir/small", "read me")
                .file("dir/large", vec![7; 3 << 20])
                .file("other/file", "x");
        });
        let system = System::start_with(monofs_cluster::Builder::metrics).await;
        system
            .cluster
            .ingest(Ingest::of(repo.url()).at("main").shown_as("h/lazy").lazy())
            .await
            .unwrap();
        system.cluster.refresh("h/lazy").await.unwrap();
        let dir = system.at("h/lazy/dir");
        let read = move || {
            std::fs::read_dir(&dir)
                .unwrap()
                .map(|e| std::fs::read(e.unwrap().path()).unwrap().len())
                .sum()
        };
        let bytes: usize = off_thread(read).await;
        assert_eq!(bytes, (3 << 20) + 7);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = system
            .mounted
            .as_ref()
            .unwrap()
            .serve_http(listener)
            .unwrap()
            .to_string();
        let cluster: &Cluster = &system.cluster;
        let at = [
            ("router", cluster.http_address()),
            ("node", cluster.node_metrics(0).unwrap()),
            ("fetcher", cluster.fetcher_metrics(0).unwrap()),
            ("client", client),
        ];
        // A request is counted once it was answered.
        get(&at[0].1, "/metrics").await;
        // Both nodes were asked for contents only if the client's order says so.
        let other = cluster.node_metrics(1).unwrap();
        let served = |text: &str| value(text, "monofs_node_chunks_served_total").unwrap() > 0.0;
        let node = if served(&get(&at[1].1, "/metrics").await) {
            at[1].1.clone()
        } else {
            other
        };
        let [router, _, fetcher, client] = at;
        Self {
            system,
            at: [router, ("node", node), fetcher, client],
        }
    }

    async fn scrape(&self, role: &str) -> String {
        get(
            &self.at.iter().find(|(name, _)| *name == role).unwrap().1,
            "/metrics",
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_tells_the_names_of_the_list_and_no_others() {
    if !can_mount() {
        return;
    }
    let observed = Observed::start().await;
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for role in ROLES {
        let wanted = golden(role);
        // Some are told only after something that happens now and then, such as a heartbeat.
        let complete =
            || async { update || shape(&observed.scrape(role).await).is_superset(&wanted) };
        if tokio::time::timeout(
            SOON,
            wait_until_async("all names are told", SOON * 2, complete),
        )
        .await
        .is_err()
        {
            eprintln!("{role}: not all names came");
        }
        let found = shape(&observed.scrape(role).await);
        if update {
            let lines: String = found.iter().map(|line| format!("{line}\n")).collect();
            std::fs::create_dir_all(golden_file(role).parent().unwrap()).unwrap();
            std::fs::write(golden_file(role), lines).unwrap();
            continue;
        }
        let (gone, new): (Vec<_>, Vec<_>) = (
            wanted.difference(&found).collect(),
            found.difference(&wanted).collect(),
        );
        assert!(
            gone.is_empty() && new.is_empty(),
            "{role}: gone: {gone:#?}, new: {new:#?}. Names are what dashboards and alerts are made \
             of: if this is meant, explain \
             them in docs/metrics.md, and write the list anew with UPDATE_GOLDEN=1 cargo nextest run --workspace -E 'test(every_role_tells)'"
        );
    }
    observed.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_are_those_of_what_was_done_and_every_status_tells_the_same() {
    if !can_mount() {
        return;
    }
    let observed = Observed::start().await;
    let cluster = &observed.system.cluster;
    let node = observed.scrape("node").await;
    let blobs =
        "monofs_rpc_requests_total{service=\"monofs.v1.Content\",method=\"GetBlobs\",code=\"ok\"}";
    assert!(value(&node, blobs).unwrap() >= 1.0, "{node}");
    assert!(
        value(&node, "monofs_cache_misses_total{tier=\"contents\"}").unwrap() >= 2.0,
        "{node}"
    );
    let fetcher = observed.scrape("fetcher").await;
    let fetched = "monofs_fetcher_fetches_total{host=\"file\",outcome=\"ok\"}";
    assert_eq!(value(&fetcher, fetched), Some(1.0), "{fetcher}");
    let client = observed.scrape("client").await;
    assert!(
        value(&client, "monofs_fuse_upcalls_total{op=\"read\"}").unwrap() >= 2.0,
        "{client}"
    );
    assert!(
        value(&client, "monofs_client_fetched_bytes_total").unwrap() > 7.0,
        "{client}"
    );
    assert_eq!(get(&observed.at[3].1, "/health").await, "healthy\n");

    // The router's own status has the same numbers, and what the client reported.
    let status = wait_for_async("the client reported", SOON, || async {
        let status = cluster.status().await.unwrap();
        let report = status.clients.first()?.report?;
        (report.upcalls > 0 && status.clients[0].reported_at > 0).then_some(status)
    })
    .await;
    let stats: Vec<_> = status
        .nodes
        .iter()
        .filter_map(|node| node.stat.as_ref())
        .collect();
    let missed: u64 = stats.iter().map(|stat| stat.chunks_missed).sum();
    let asked: u64 = stats.iter().flat_map(|stat| &stat.request_durations).sum();
    assert!(missed >= 2 && asked >= 1, "{stats:?}");
    assert!(
        stats
            .iter()
            .all(|stat| stat.request_durations.len() == 17 && stat.requests_failed == 0),
        "{stats:?}"
    );
    let router = observed.scrape("router").await;
    for (series, wanted) in [
        ("monofs_router_members{role=\"node\",state=\"active\"}", 2.0),
        ("monofs_router_members{role=\"node\",state=\"down\"}", 0.0),
        ("monofs_router_repositories{state=\"ready\"}", 1.0),
        ("monofs_router_ingests_total{outcome=\"ok\"}", 1.0),
        ("monofs_router_refreshes_total{outcome=\"ok\"}", 1.0),
        ("monofs_router_leading", 1.0),
        ("monofs_router_clients", 1.0),
        ("monofs_router_client_lag_revisions", 0.0),
        ("monofs_router_problems{severity=\"critical\"}", 0.0),
    ] {
        assert_eq!(
            value(&router, series),
            Some(wanted),
            "{series} in\n{router}"
        );
    }
    observed.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_on_a_node_that_is_gone_are_missing_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = crate::system::builder(&dir.path().join("cluster"))
        .start()
        .await
        .unwrap();
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a", "b");
    });
    cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").strong())
        .await
        .unwrap();
    let series = [
        "monofs_router_copies{state=\"missing\"}",
        "monofs_router_repositories_below_copies",
    ];
    let told = async |cluster: &Cluster, wanted: f64| {
        let at = cluster.http_address();
        let all = || async {
            let text = get(&at, "/metrics").await;
            let lag = value(&text, "monofs_router_replication_lag_seconds").unwrap();
            series
                .iter()
                .all(|series| value(&text, series) == Some(wanted))
                && (lag > 0.0) == (wanted > 0.0)
        };
        wait_until_async("copies are missing, or none", SOON, all).await;
    };
    told(&cluster, 0.0).await;
    cluster.stop_node(1).await;
    told(&cluster, 1.0).await;
    cluster.start_node(1).await.unwrap();
    told(&cluster, 0.0).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_accepts_what_every_role_tells() {
    if !can_mount() {
        return;
    }
    let promtool = require("promtool");
    let observed = Observed::start().await;
    for role in ROLES {
        let text = observed.scrape(role).await;
        let mut check = Command::new(&promtool);
        check
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut check = check.spawn().unwrap();
        check
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = check.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{role}: {said}\n{text}"
        );
    }
    observed.system.stop().await;
}

#[test]
fn the_documentation_explains_every_name_and_no_others() {
    let page = include_str!("../../../../docs/metrics.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name);
    let explained: BTreeSet<&str> = rows.filter(|name| name.contains('_')).collect();
    let lists: Vec<BTreeSet<String>> = ROLES.iter().map(|role| golden(role)).collect();
    let told: BTreeSet<&str> = lists
        .iter()
        .flatten()
        .filter_map(|line| Some(line.split_once('{')?.0))
        .collect();
    assert_eq!(
        explained.difference(&told).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "explained, and told by no role"
    );
    assert_eq!(
        told.difference(&explained).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "not explained in docs/metrics.md"
    );
}
