//! The load generator against live clusters: what it reports, and that a stall is charged for all
//! that was due in it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use monofs_cluster::{Builder, Cluster, Ingest};
use monofs_model::placement::{Candidate, rank};
use monofs_model::{NodeId, Repository};
use monofs_testkit::free_port;
use monofs_testkit::proxy::{Fault, Proxy};
use monofs_testkit::repo::{Repo, pattern};
use serde_json::Value;

use crate::{Ran, command, run};

/// A router, two nodes and a fetcher in this process.
struct Live {
    cluster: Option<Cluster>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Live {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cluster = runtime.block_on(Builder::new(dir.path()).start()).unwrap();
        Self {
            cluster: Some(cluster),
            runtime,
            _dir: dir,
        }
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    fn ingest(&self, what: Ingest) -> Repository {
        self.runtime.block_on(self.cluster().ingest(what)).unwrap()
    }

    fn stop_node(&mut self, number: usize) {
        self.runtime
            .block_on(self.cluster.as_mut().unwrap().stop_node(number));
    }

    fn bench(&self, args: &[&str]) -> Ran {
        let router = format!("--router={}", self.cluster().router_address());
        run(&[
            &[
                "bench",
                "--clients=2",
                "--warmup=200ms",
                "--duration=1s",
                &router,
            ],
            args,
        ]
        .concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        self.bench(&[args, &["--format=json"]].concat())
            .done()
            .json()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take() {
            self.runtime.block_on(cluster.shutdown());
        }
    }
}

/// Forty directories of small files and, if asked for, one file of three chunks.
fn repository(with_large: bool) -> Repo {
    let repo = Repo::new();
    repo.commit(|changes| {
        for number in 0..40 {
            changes.file(
                format!("dir{number}/a.txt"),
                format!("contents of {number}\n"),
            );
            changes.file(format!("dir{number}/sub/b.txt"), pattern(1000 + number));
        }
        if with_large {
            changes.file("large.bin", pattern((2 << 20) + 99));
        }
    });
    repo
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no whole number"))
}

#[track_caller]
fn went_well(report: &Value) {
    let total = &report["total"];
    assert!(number(&total["ok"]) > 0, "{report:#}");
    assert_eq!(
        (number(&total["errors"]), number(&report["unsent"])),
        (0, 0),
        "{report:#}"
    );
    let percentiles =
        ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(|key| number(&total[key]));
    assert!(percentiles[0] > 0 && percentiles.is_sorted(), "{report:#}");
    let histogram = report["histogram"].as_array().unwrap();
    assert_eq!(
        histogram
            .iter()
            .map(|octave| number(&octave["count"]))
            .sum::<u64>(),
        number(&total["ok"])
    );
}

#[test]
fn every_workload_runs_against_a_live_cluster() {
    let live = Live::start();
    let repos = [repository(true), repository(false)];
    live.ingest(Ingest::of(repos[0].url()).shown_as("h/org/one").hydrated());
    live.ingest(Ingest::of(repos[1].url()).shown_as("h/org/two").hydrated());
    for workload in [
        "resolve",
        "lookup",
        "list",
        "read-small",
        "read-large",
        "mixed",
    ] {
        let report = live.json(&["--workload", workload, "--rate=200"]);
        went_well(&report);
        assert_eq!(
            (report["workload"].as_str(), report["loop"].as_str()),
            (Some(workload), Some("open"))
        );
        // Due in a second: 200 with a deviation of 14.
        assert!(
            (120..280).contains(&number(&report["total"]["ok"])),
            "{report:#}"
        );
        assert_eq!(report["repositories"], 2);
        let operations = report["operations"].as_array().unwrap();
        assert_eq!(
            operations.len(),
            if workload == "mixed" { 5 } else { 1 },
            "{report:#}"
        );
    }
    for target in ["router", "node1", "node2"] {
        let report = live.json(&[
            "--workload=read-small",
            "--rate=max",
            "--target",
            target,
            "--path=h/org/one",
        ]);
        went_well(&report);
        assert_eq!(
            (report["loop"].as_str(), report["target"].as_str()),
            (Some("closed"), Some(target))
        );
        assert_eq!(
            (
                number(&report["small_files"]),
                number(&report["large_files"])
            ),
            (80, 1),
            "{report:#}"
        );
        assert!(report["offered_rate_per_s"].is_null() && report["send_lag_p99_us"].is_null());
    }
}

#[test]
fn the_report_has_a_stable_shape() {
    let live = Live::start();
    let repo = repository(false);
    live.ingest(Ingest::of(repo.url()).shown_as("h/org/one").hydrated());
    let report = live.json(&[
        "--workload=list",
        "--rate=100",
        "--in-flight=7",
        "--seed=3",
        "--zipf=1.5",
    ]);
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        keys(&report),
        "clients delayed directories duration_s elapsed_s failovers generator_cpu_s \
         generator_cpu_us_per_operation \
         histogram in_flight_max large_files loop offered_rate_per_s operations repositories sampled seed \
         send_lag_max_us send_lag_p50_us send_lag_p99_us small_files target threads total unsent warmup_s warnings \
         workload zipf"
    );
    let row = "bytes_per_s errors errors_by_kind first_error max_us mean_us ok operation p50_us \
     p90_us p999_us p99_us \
               rate_per_s";
    assert_eq!(
        (
            keys(&report["total"]).as_str(),
            keys(&report["operations"][0]).as_str()
        ),
        (row, row)
    );
    assert_eq!(keys(&report["histogram"][0]), "below_us count");
    assert_eq!(
        (
            number(&report["in_flight_max"]),
            number(&report["seed"]),
            report["zipf"].as_f64()
        ),
        (7, 3, Some(1.5))
    );
    // The root, and two directories for each of forty.
    assert_eq!(
        (number(&report["directories"]), report["sampled"].as_bool()),
        (81, Some(false))
    );
    let table = live.bench(&["--workload=list", "--rate=100"]).done().text();
    for word in [
        "list on nodes: open loop, 100 requests/s",
        "P99.9",
        "generator CPU:",
        "sent late by:",
    ] {
        assert!(table.contains(word), "{table}");
    }
    assert!(
        live.bench(&["--workload=list", "--rate=max"])
            .done()
            .text()
            .contains("CLOSED LOOP")
    );
}

/// A run that is watched: it tells its phases on standard error.
fn start(router: &str, args: &[&str]) -> (Child, BufReader<ChildStderr>) {
    let router = format!("--router={router}");
    let mut child = command(&[
        "bench",
        "--clients=2",
        "--warmup=300ms",
        "--format=json",
        &router,
    ])
    .args(args)
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    (child, stderr)
}

fn until_measuring(stderr: &mut BufReader<ChildStderr>) {
    let mut line = String::new();
    while !line.starts_with("bench: measuring") {
        line.clear();
        assert!(
            stderr.read_line(&mut line).unwrap() > 0,
            "the run ended before it measured"
        );
    }
}

#[track_caller]
fn finish(child: Child) -> Value {
    let (code, report) = end(child);
    assert_eq!(code, Some(0), "{report:#}");
    report
}

fn end(child: Child) -> (Option<i32>, Value) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap(),
    )
}

/// A server that answers nothing for a while: all that was due then must be seen to be late, not
/// one request for each client.
#[track_caller]
fn a_stall_is_seen_whole(in_flight: &str) -> Value {
    // Twice an octave of the histogram, so that the slower half of the stall has a line of its own.
    const STALL: Duration = Duration::from_micros(1 << 20);
    const RATE: u64 = 200;
    let live = Live::start();
    let repo = repository(false);
    live.ingest(Ingest::of(repo.url()).shown_as("h/org/one").hydrated());
    let address = live.cluster().router_address();
    let proxy = Proxy::to(
        address.rsplit_once(':').unwrap().1.parse().unwrap(),
        Fault::None,
    );
    let args = [
        "--workload=list",
        "--target=router",
        "--rate=200",
        "--duration=4s",
        in_flight,
    ];
    let (child, mut stderr) = start(&format!("127.0.0.1:{}", proxy.port()), &args);
    until_measuring(&mut stderr);
    proxy.set_both(Fault::BlackHole);
    std::thread::sleep(STALL);
    proxy.set_both(Fault::None);
    let report = finish(child);
    went_well(&report);
    let slow = report["histogram"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|octave| number(&octave["below_us"]) > 1 << 19);
    let slow: u64 = slow.map(|octave| number(&octave["count"])).sum();
    let expected = RATE * STALL.as_micros() as u64 / 2 / 1_000_000;
    assert!(
        (expected * 2 / 3..=expected * 3 / 2).contains(&slow),
        "{slow} of {expected} were slow: {report:#}"
    );
    assert!(
        number(&report["total"]["p50_us"]) < 200_000
            && number(&report["total"]["p99_us"]) > 500_000,
        "{report:#}"
    );
    report
}

#[test]
fn a_stall_is_charged_for_every_request_that_was_due_in_it() {
    let report = a_stall_is_seen_whole("--in-flight=1000");
    assert_eq!(number(&report["delayed"]), 0, "{report:#}");
}

#[test]
fn a_stall_is_charged_for_requests_that_could_not_be_sent_either() {
    let report = a_stall_is_seen_whole("--in-flight=8");
    assert!(number(&report["delayed"]) > 100, "{report:#}");
    assert!(
        report["warnings"][0]
            .as_str()
            .unwrap()
            .contains("raise --in-flight"),
        "{report:#}"
    );
}

#[test]
fn a_node_that_stops_is_passed_over_as_a_client_would() {
    let mut live = Live::start();
    let repo = repository(false);
    let entry = live.ingest(
        Ingest::of(repo.url())
            .shown_as("h/org/one")
            .strong()
            .hydrated(),
    );
    let candidate = |id: &str| Candidate {
        id: NodeId::new(id).unwrap(),
        weight: 1.0,
        zone: String::new(),
    };
    let first = rank(
        &entry.storage_id(),
        &[candidate("node1"), candidate("node2")],
    )
    .swap_remove(0);
    let first_number = if first.as_str() == "node1" { 0 } else { 1 };
    let address = live.cluster().router_address();
    let (child, mut stderr) = start(
        &address,
        &["--workload=lookup", "--rate=200", "--duration=3s"],
    );
    until_measuring(&mut stderr);
    live.stop_node(first_number);
    let report = finish(child);
    went_well(&report);
    assert!(number(&report["failovers"]) > 0, "{report:#}");
}

#[test]
fn a_node_that_stops_while_it_alone_is_asked_gives_errors_by_kind() {
    let mut live = Live::start();
    let repo = repository(false);
    live.ingest(
        Ingest::of(repo.url())
            .shown_as("h/org/one")
            .strong()
            .hydrated(),
    );
    let address = live.cluster().router_address();
    let args = [
        "--workload=lookup",
        "--rate=200",
        "--duration=3s",
        "--target=node1",
    ];
    let (child, mut stderr) = start(&address, &args);
    until_measuring(&mut stderr);
    live.stop_node(0);
    let (code, report) = end(child);
    let total = &report["total"];
    // Unreachable, when the node was gone before anything that counts was asked.
    assert_eq!(
        code,
        Some(if number(&total["ok"]) > 0 { 0 } else { 3 }),
        "{report:#}"
    );
    assert_eq!(
        total["errors_by_kind"]["unavailable"], total["errors"],
        "{report:#}"
    );
    assert!(
        number(&total["errors"]) > 0 && total["first_error"].as_str().is_some(),
        "{report:#}"
    );
    assert!(
        report["warnings"].to_string().contains(" errors ("),
        "{report:#}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    let live = Live::start();
    live.bench(&["--rate=10"])
        .failed(4, "there is no repository");
    let (repo, lazy) = (repository(false), repository(false));
    live.ingest(Ingest::of(repo.url()).shown_as("h/org/one").hydrated());
    live.ingest(Ingest::of(lazy.url()).shown_as("h/lazy").lazy());
    live.bench(&["--rate=10", "--path=h/org/none"])
        .failed(1, "no repository at or below h/org/none");
    live.bench(&["--rate=10", "--target=node9"])
        .failed(1, "no node is called node9");
    live.bench(&["--rate=10", "--workload=read-large"])
        .failed(4, "no file over 1 MiB");
    live.bench(&["--rate=10", "--workload=read-small", "--path=/h/lazy/"])
        .failed(4, "contents are lazy");
    live.bench(&["--rate=999999"])
        .failed(2, "too high for 2 clients");
    let address = format!("--router={}", live.cluster().router_address());
    run(&["bench", "--rate=10", "--duration=0", &address]).failed(2, "measures nothing");
    live.bench(&["--rate=0.0001", "--workload=list"])
        .failed(2, "no operation was due");
    went_well(&live.json(&["--rate=100", "--workload=list", "--path=h/lazy"]));
    for bad in ["--rate=-1", "--clients=0", "--zipf=x", "--target=-"] {
        assert_eq!(live.bench(&["--rate=10", bad]).code, 2, "{bad}");
    }
    let nobody = format!("--router=127.0.0.1:{}", free_port());
    run(&["bench", "--rate=10", &nobody]).failed(3, "no router could be reached");
}
