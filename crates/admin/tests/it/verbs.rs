//! The operator's verbs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use monofs_testkit::free_port;

use crate::fake::{Fake, REPO};
use crate::{command, run};

#[test]
fn wrong_usage_is_code_two() {
    for args in [
        &["nonsense"][..],
        &["repo"],
        &["ingest"],
        &["ingest", "--source=ext::sh -c id"],
        &["ingest", "--source=https://h/x", "--ref=--upload-pack=x"],
        &["ingest", "--source=https://h/x", "--consistency=maybe"],
        &["repos", "--format=yaml"],
        &["repos", "--router=nowhere"],
        &["refresh"],
        &["refresh", "a/b", "--all"],
        &["cat"],
        &["drain"],
        &["drain", "--reason="],
        &["drain", "--reason=x", "--force"],
        &["trigger-failover"],
        &["clear-failover"],
        &["remove-member"],
        &["rebalance", "--path=a/b", "--storage-id=00"],
        &["rebalance", "--dry-run", "--wait"],
        &["jobs", "cancel"],
        &["jobs", "--all", "watch", "x"],
    ] {
        let ran = run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        assert!(ran.err.starts_with("error: "), "{args:?}: {}", ran.err);
    }
}

#[test]
fn every_command_explains_itself() {
    let help = run(&["--help"]).done().text();
    assert!(
        help.starts_with("Operate a MonoFS cluster") && help.contains("Exit codes: 0 done"),
        "{help}"
    );
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "));
    let commands: Vec<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(commands.len(), 27, "{commands:?}");
    for name in commands.into_iter().filter(|name| *name != "help") {
        let help = run(&[name, "--help"]).done().text();
        assert!(help.contains("Examples:\n  monofs-admin"), "{help}");
        assert!(
            help.contains("[default: localhost:9090]") && help.contains("MONOFS_ROUTER"),
            "{help}"
        );
    }
}

#[test]
fn an_ingest_reports_progress_and_where_to_look() {
    let fake = Fake::start();
    let ran = fake
        .admin(&["ingest", "--source=https://example.com/x.git", "--wait"])
        .done();
    assert!(
        ran.err.contains("fetching: 10/20 objects, 2.0 KiB\n"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("copying directories: node1 durable\n"),
        "{}",
        ran.err
    );
    let expected = "example.com/x is at abababababab (main): 2 directories, 5 files, 4.0 KiB; held \
     by node1, node2\n\
                    look into it: monofs-admin ls example.com/x\n";
    assert_eq!(ran.text(), expected);
    let asked = fake.world().ingests.lock().pop().unwrap();
    assert!(asked.wait_hydrated && asked.ref_name.is_empty() && asked.path.is_empty());
    let args = [
        "ingest",
        "--source=git@h:a/b.git",
        "--ref=v1",
        "--path=/p/q/",
        "--consistency=strong",
        "--content=lazy",
    ];
    let json = fake
        .admin(&[&args[..], &["--format=json"]].concat())
        .done()
        .json();
    assert_eq!(json["repository"]["path"], "p/q");
    assert_eq!(json["unchanged"], false);
    assert_eq!(json["replicas"][0]["node_id"], "node1");
    let asked = fake.world().ingests.lock().pop().unwrap();
    assert_eq!(
        (
            asked.ref_name.as_str(),
            asked.path.as_str(),
            asked.consistency,
            asked.content
        ),
        ("v1", "p/q", 2, 2)
    );
}

#[test]
fn an_ingest_that_fails_says_why_and_with_which_code() {
    let fake = Fake::start();
    let ingest = |host: &str| fake.admin(&["ingest", &format!("--source=https://{host}/x.git")]);
    ingest("taken").failed(4, "is taken by another source");
    ingest("offline").failed(1, "connection refused");
    ingest("mute").failed(1, "without saying how");
}

#[test]
fn an_interrupted_ingest_says_that_the_cluster_goes_on() {
    let fake = Fake::start();
    let mut child = command(&[
        "ingest",
        "--source=https://slow/x.git",
        &format!("--router={}", fake.address()),
    ])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "https://slow/x.git: resolving");
    let sent = std::process::Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(
        lines.next().unwrap(),
        "error: interrupted; the cluster goes on with the work"
    );
    assert_eq!(
        lines.next().unwrap(),
        "hint: `monofs-admin repos` shows how it ends"
    );
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn repositories_have_a_stable_shape() {
    let fake = Fake::start();
    let json = fake
        .admin(&["repos", "github.com", "--format=json"])
        .done()
        .json();
    let mut expected = serde_json::json!({
        "path": REPO, "path_encoded": REPO.replace('/', "%2F"), "state": "ready", "source": format!("https://{REPO}.git"), "ref": "main",
        "commit": "ab".repeat(20), "commit_time": "2020-09-13T12:26:40Z", "root": null,
        "directories": 2, "files": 5, "bytes": 4096, "submodules": 1, "generation": 3,
        "holders": ["node1", "node2"], "content": "eager", "consistency": "eventual",
        "storage_id": "0123456789abcdef0123456789abcdef", "created_at": "2023-11-14T22:13:20Z",
        "refreshed_at": "2023-11-14T22:14:20Z", "last_error": null, "shadowed_by": null,
    });
    expected["root"] = json["repositories"][0]["root"].clone();
    let list = serde_json::json!({
        "repositories": [expected], "total": 1, "offset": 0, "limit": 1, "next_offset": null
    });
    assert_eq!(json, list);
    let table = fake.admin(&["repos"]).done().text();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.starts_with("PATH") && table.contains("abababababab"),
        "{table}"
    );
    let repo = fake
        .admin(&["repo", &format!("/{REPO}/"), "--format=json"])
        .done()
        .json();
    assert_eq!(repo["replicas"][0]["held"]["disk_bytes"], 8192);
    assert_eq!(repo["replicas"][1]["error"], "no answer");
    let text = fake.admin(&["repo", REPO]).done().text();
    assert!(
        text.contains("commit:       ababab") && text.contains("25 %"),
        "{text}"
    );
    fake.admin(&["repo", "no/such"])
        .failed(1, "no repository at no/such");
}

#[test]
fn delete_asks_and_without_a_terminal_wants_yes() {
    let fake = Fake::start();
    fake.admin(&["delete", REPO])
        .failed(2, "no terminal to ask on");
    assert_eq!(
        fake.admin(&["repos", "--format=json"]).done().json()["repositories"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        fake.admin(&["delete", REPO, "--yes", "--format=json"])
            .done()
            .json()["deleted"],
        REPO
    );
    fake.admin(&["delete", REPO, "--yes"])
        .failed(1, "no repository at");
}

#[test]
fn refreshing_all_goes_on_after_a_failure() {
    let fake = Fake::start();
    let one = fake
        .admin(&["refresh", REPO, "--format=json"])
        .done()
        .json();
    assert_eq!(one["refreshed"][0]["result"], "unchanged");
    let all = fake.admin(&["refresh", "--all", "--format=json"]);
    all.failed(1, "1 of 3 repositories could not be refreshed");
    let results: Vec<_> = all.json()["refreshed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["result"].clone())
        .collect();
    assert_eq!(results, ["unchanged", "updated", "failed"]);
    fake.admin(&["refresh", "gitlab.com/new"])
        .failed(4, "being ingested");
}

#[test]
fn status_is_one_screen_with_what_is_wrong_and_what_to_type() {
    let fake = Fake::start();
    let ran = fake.admin(&["status"]).done();
    let text = ran.text();
    let start = "degraded: 1 problem\n  ! node2 is down: start it, or \\u{1b}[31mwait; \
     `monofs-admin failover`\n    > monofs-admin failover\n";
    assert!(text.starts_with(start), "{text}");
    // Long lines go on below their values.
    let unbroken = text.replace(&format!("\n{:14}", ""), " ");
    for part in [
        "\nrepositories  2 ready, 1 being ingested, 0 failed; 2 copies wanted\n",
        "\nrouters       2 active; router2 leads; version 0.1.0\n",
        "\nnodes         1 active, 1 down; 4.0 KiB used, 1.0 GiB free; 1 hydrating, 3 queued\n",
        "\nfetchers      1 active, 1 suspect; cache 1.0 KiB of 2.0 KiB, 75 % hits; 2 running\n",
        "\nclients       2 mounts; 99 % cache hits, 1 lagging, 2 failed reads\n",
        "\njobs          none\n",
        "  conn",
    ] {
        assert!(unbroken.contains(part), "{part} is missing in {text}");
    }
    assert!(!ran.out.contains(&0x1b), "no escape reaches the terminal");
    assert!(
        text.lines().count() < 24 && text.lines().all(|line| line.len() <= 80),
        "{text}"
    );
    let dead = format!("127.0.0.1:{}", free_port());
    let routers = format!("--router={dead},{}", fake.address());
    let json = run(&["status", &routers, "--format=json"]).done().json();
    assert_eq!(
        (json["health"].as_str(), json["healthy"].as_bool()),
        (Some("degraded"), Some(false))
    );
    assert_eq!(json["problems"].as_array().unwrap().len(), 2);
    let expected = serde_json::json!({
        "problem": format!("router {dead} does not answer: start it, or take it out of --router"),
        "next": format!("monofs-admin status --router={dead}"), "critical": null,
    });
    assert_eq!(json["findings"][1], expected);
    assert_eq!(
        (
            json["routers"][0]["reachable"].as_bool(),
            json["routers"][1]["reachable"].as_bool()
        ),
        (Some(false), Some(true))
    );
    assert_eq!(
        (
            json["routers"][1]["id"].as_str(),
            json["maintenance"].is_null()
        ),
        (Some("router1"), true)
    );
    assert_eq!(json["nodes"][0]["figures"]["repositories"], 2);
    assert_eq!(json["nodes"][1]["state"], "down");
    assert!(
        run(&["status", &routers])
            .done()
            .text()
            .contains("2 active, 1 without an answer; router2 leads")
    );
    let text = Fake::start_empty().admin(&["status"]).done().text();
    assert!(
        text.starts_with(
            "unhealthy: 2 problems\n  ! no node is active\n    > monofs-node --node-id=ID"
        ),
        "{text}"
    );
}

#[test]
fn status_has_a_stable_exit_code_and_fits_a_screen_however_large_the_cluster_is() {
    let fake = Fake::start_crowded();
    let text = fake.admin(&["status"]).done().text();
    assert!(
        text.lines().count() < 24 && text.lines().all(|line| line.len() <= 80),
        "{text}"
    );
    for part in [
        "degraded: 31 problems\n",
        "more: monofs-admin status --format=json\n",
        "100 active",
        "more: monofs-admin nodes",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let row = text
        .lines()
        .skip_while(|line| !line.starts_with("MEMBER"))
        .nth(1)
        .unwrap();
    assert!(row.contains("down"), "trouble first: {row}");
    fake.admin(&["status", "--check"])
        .failed(1, "the cluster is degraded");
    fake.admin(&["status", "--check", "--format=json"])
        .failed(1, "the cluster is degraded");
}

#[test]
fn figures_and_holdings_are_told_in_both_formats() {
    let fake = Fake::start();
    let all = fake
        .admin(&["stats", "--type=all", "--format=json"])
        .done()
        .json();
    assert_eq!(
        (
            all["cluster"]["files"].as_u64(),
            all["cluster"]["nodes_active"].as_u64()
        ),
        (Some(10), Some(1))
    );
    assert_eq!(all["nodes"].as_array().unwrap().len(), 2);
    let cluster = fake
        .admin(&["stats", "--type=cluster", "--format=json"])
        .done()
        .json();
    assert!(cluster.get("nodes").is_none());
    assert_eq!(
        cluster["cluster"]["requests"]["p99_seconds"].as_f64(),
        Some(0.05)
    );
    assert_eq!(cluster["cluster"]["reading"]["lagging_repositories"], 1);
    let nodes = fake.admin(&["stats", "--type=nodes"]).done().text();
    let row = |start: &str, of: &str| {
        let table = nodes
            .split("\n\n")
            .find(|table| table.contains(of))
            .unwrap();
        table
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap()
            .to_owned()
    };
    assert!(
        row("node1", "BYTES SERVED").contains("<300us  <50ms  75 %"),
        "{nodes}"
    );
    assert!(
        row("node2", "BYTES SERVED")
            .split_whitespace()
            .skip(1)
            .all(|cell| cell == "-"),
        "{nodes}"
    );
    let mounts = fake.admin(&["stats", "--type=clients"]).done().text();
    assert!(
        mounts.contains("/mnt/\\u{1b}[31mold") && mounts.contains("99 %"),
        "{mounts}"
    );
    assert!(
        fake.admin(&["stats", "--type=fetchers"])
            .done()
            .text()
            .contains("fetcher2")
    );
    assert!(
        fake.admin(&["stats"])
            .done()
            .text()
            .contains("repositories:")
    );
    let nodes = fake.admin(&["nodes", "--format=json"]).done().json();
    assert_eq!(nodes["nodes"][1]["error"], "connection refused");
    assert!(fake.admin(&["nodes"]).done().text().contains("node1:9000"));
    assert_eq!(
        fake.admin(&["fetchers", "--format=json"]).done().json()["fetchers"][0]["figures"]["cache_hits"],
        3
    );
    assert!(fake.admin(&["fetchers"]).done().text().contains("75 %"));
    let held = fake
        .admin(&["node-files", "--node-id=all", "--format=json"])
        .done()
        .json();
    assert_eq!(held["nodes"][0]["repositories"][0]["path"], REPO);
    assert_eq!(held["nodes"][0]["orphaned_repositories"], 1);
    assert_eq!(
        held["nodes"][0]["repositories"][0]["orphaned_commits"][0],
        "ab".repeat(20)
    );
    assert_eq!(held["nodes"][1]["error"], "connection refused");
    let text = fake.admin(&["node-files", "--node-id=node1"]).done().text();
    assert!(text.contains(REPO) && text.contains("not named"), "{text}");
    fake.admin(&["node-files", "--node-id=node2"])
        .failed(3, "no node could be asked");
    fake.admin(&["node-files", "--node-id=node9"])
        .failed(1, "no node is called node9");
}

#[test]
fn verify_fails_when_anything_is_damaged() {
    let fake = Fake::start();
    let good = fake.admin(&["verify", "--format=json"]).done().json();
    assert_eq!(
        (
            good["ok"].as_bool(),
            good["replicas"][0]["objects"].as_u64()
        ),
        (Some(true), Some(9))
    );
    let bad = fake.admin(&["verify", &format!("--path={REPO}")]);
    bad.failed(1, "1 error found");
    assert!(
        bad.text()
            .contains("node2 github.com/org/repo: blob ab12: the bytes do not match"),
        "{}",
        bad.text()
    );
}

#[test]
fn settings_come_from_the_environment_and_a_file_too() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admin.toml");
    std::fs::write(
        &file,
        format!(
            "router = ['{}']\nformat = 'json'\n[stats]\ntype = 'nodes'\n",
            fake.address()
        ),
    )
    .unwrap();
    let output = command(&["stats"])
        .env("MONOFS_CONFIG", &file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json.get("cluster").is_none() && json["nodes"].is_array());
    let output = command(&["repos", "--format=json"])
        .env("MONOFS_ROUTER", fake.address().to_string())
        .output()
        .unwrap();
    assert!(output.status.success());
}
