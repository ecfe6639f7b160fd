//! What `--format json` promises: the paths and types of every command's document, against
//! `tests/golden/json-shapes.txt`.
//!
//! Documents come from the router that pretends (which fills every field) and from a real cluster
//! (which must not show anything else).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use monofs_api::tongue::{REPLACED_ON_THE_COMMAND_LINE, REPLACED_OVER_HTTP};
use monofs_cluster::{Builder, Ingest};
use monofs_testkit::repo::Repo;
use serde_json::Value;

use crate::fake::{Fake, REPO};
use crate::{Ran, run};

/// Set to anything, the golden file is written instead of compared.
const UPDATE: &str = "UPDATE_GOLDEN";
/// Commands that print something else than a document.
const WITHOUT_JSON: [&str; 2] = ["cat", "completions"];
/// What is null in every document of that command.
const ALWAYS_NULL: [&str; 11] = [
    "clear-failover .job_id",
    "undrain .job_id",
    "status .jobs[].ended_at",
    "top .jobs[].ended_at",
    "ingest .repository.shadowed_by",
    "ingest .waiting_for",
    "ls .next_after",
    "ls .target",
    "repo .wanted",
    "repo .worked_on_by",
    "repo .replicas[].wanted",
];
/// What only the router that answers over HTTP knows: null on the command line, in any document.
const TOLD_OVER_HTTP: [&str; 4] = [
    "s[].since",
    "[].repositories_recorded",
    ".findings[].critical",
    ".next_offset",
];

/// For each `command path`: the types that were seen there.
#[derive(Default)]
struct Shapes(BTreeMap<String, BTreeSet<&'static str>>);

impl Shapes {
    fn add(&mut self, command: &str, ran: &Ran) {
        self.walk(&format!("{command} "), &ran.json());
    }

    fn walk(&mut self, path: &str, value: &Value) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        self.0.entry(path.to_owned()).or_default().insert(kind);
        match value {
            Value::Array(items) => items
                .iter()
                .for_each(|item| self.walk(&format!("{path}[]"), item)),
            Value::Object(fields) => fields
                .iter()
                .for_each(|(name, value)| self.walk(&format!("{path}.{name}"), value)),
            _ => {}
        }
    }

    /// One line for each path: `command path: type`, with `?` where it may be null.
    fn lines(&self) -> String {
        let line = |(path, kinds): (&String, &BTreeSet<&'static str>)| {
            let known: Vec<&str> = kinds
                .iter()
                .copied()
                .filter(|kind| *kind != "null")
                .collect();
            match (known.is_empty(), kinds.contains("null")) {
                (true, _) => format!("{path}: null\n"),
                (false, true) => format!("{path}: {}?\n", known.join("|")),
                (false, false) => format!("{path}: {}\n", known.join("|")),
            }
        };
        self.0.iter().map(line).collect()
    }
}

/// Every command as it is asked, several times where documents differ. The order matters: some
/// change the cluster.
const RUNS: &[&[&str]] = &[
    &["ingest", "--source=https://h/x"],
    &["ingest", "--source=https://h/partly"],
    &["repos"],
    &["repo", REPO],
    &["repo", "gitlab.com/new"],
    &["repo", "gitlab.com/a/b/c"],
    &["refresh", REPO],
    &["refresh", "--all"],
    &["verify"],
    &["verify", "--path=github.com/org/repo"],
    &["nodes"],
    &["fetchers"],
    &["node-files", "--node-id=all"],
    &["rebalance", "--dry-run"],
    &["rebalance"],
    &["rebalance", "--path=x/bad", "--wait"],
    &["jobs"],
    &["jobs", "--all"],
    &["jobs", "watch", "rebalance-bad"],
    &["jobs", "watch", "rebalance-all"],
    &["drain", "--reason=work"],
    &["drain", "--node=node1", "--reason=disks", "--force"],
    &["trigger-failover", "--node-id=node2"],
    &["failover"],
    &["nodes"],
    &["status"],
    &["top", "--interval=200ms"],
    &["stats", "--type=all"],
    &["jobs", "cancel", "rebalance-all"],
    &["jobs", "cancel", "rebalance-bad"],
    &["undrain"],
    &["undrain", "--node=node1"],
    &["clear-failover", "--node-id=node2"],
    &["remove-member", "--member=node2"],
    &["ls"],
    &["ls", "gitlab.com"],
    &["ls", REPO],
    &["ls", "github.com/org/repo/README.md"],
    &["ls", "github.com/org/repo/ext"],
    &["stat", "gitlab.com"],
    &["stat", REPO],
    &["stat", "github.com/org/repo/README.md"],
    &["stat", "github.com/org/repo/link"],
    &["stat", "github.com/org/repo/ext"],
    &["delete", REPO, "--yes"],
];

/// The name of a run's command in the golden file.
fn name_of(args: &[&str]) -> String {
    match args {
        ["jobs", verb @ ("watch" | "cancel"), ..] => format!("jobs {verb}"),
        [name, ..] => (*name).to_owned(),
        [] => String::new(),
    }
}

fn pretended() -> Shapes {
    let mut shapes = Shapes::default();
    let (fake, empty) = (Fake::start(), Fake::start_empty());
    for args in RUNS {
        shapes.add(
            &name_of(args),
            &fake.admin(&[*args, &["--format=json"]].concat()),
        );
    }
    for args in [
        &["status"][..],
        &["top", "--interval=200ms"],
        &["stats"],
        &["repos"],
    ] {
        shapes.add(
            &name_of(args),
            &empty.admin(&[args, &["--format=json"]].concat()),
        );
    }
    let dead = format!(
        "--router=127.0.0.1:{},{}",
        monofs_testkit::free_port(),
        fake.address()
    );
    shapes.add("status", &run(&["status", "--format=json", &dead]));
    let dir = tempfile::tempdir().unwrap();
    let pages = format!("--dir={}", dir.path().display());
    shapes.add("man", &run(&["man", &pages, "--format=json"]));
    shapes
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/json-shapes.txt")
}

#[test]
fn documents_have_the_shape_that_is_promised() {
    let shapes = pretended();
    let unknown: Vec<&String> = shapes
        .0
        .iter()
        .filter(|(path, kinds)| {
            let only = |kind| kinds.len() == 1 && kinds.contains(kind);
            let hollow = only("array") && !shapes.0.contains_key(&format!("{path}[]"));
            let untold = TOLD_OVER_HTTP.iter().any(|end| path.ends_with(end));
            (only("null") && !untold && !ALWAYS_NULL.contains(&path.as_str())) || hollow
        })
        .map(|(path, _)| path)
        .collect();
    assert!(
        unknown.is_empty(),
        "the pretended router must fill these, or their types are not held: {unknown:#?}"
    );
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(golden(), shapes.lines()).unwrap();
    }
    let promised = std::fs::read_to_string(golden()).unwrap_or_default();
    let lines = |text: &str| {
        text.lines()
            .map(str::to_owned)
            .collect::<BTreeSet<String>>()
    };
    let (now, then) = (lines(&shapes.lines()), lines(&promised));
    let gone: Vec<&String> = then.difference(&now).collect();
    let new: Vec<&String> = now.difference(&then).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "JSON documents changed.\nGone or of another type, which breaks whoever reads them: \
         {gone:#?}\nNew: {new:#?}\n\
         If only fields were added, run this test with {UPDATE}=1 and commit {}.",
        golden().display()
    );
}

#[test]
fn no_command_is_left_out_of_the_promise() {
    let help = run(&["--help"]).done().text();
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "));
    let commands: Vec<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let promised = std::fs::read_to_string(golden()).unwrap();
    for name in commands
        .iter()
        .filter(|name| !WITHOUT_JSON.contains(name) && !["help", "bench"].contains(name))
    {
        assert!(
            promised
                .lines()
                .any(|line| line.starts_with(&format!("{name} "))),
            "{name} is not in {:?}",
            golden()
        );
    }
}

#[test]
fn a_real_cluster_shows_nothing_that_is_not_promised() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cluster = runtime.block_on(Builder::new(dir.path()).start()).unwrap();
    let repo = Repo::new();
    repo.commit(|changes| {
        changes.file("README.md", "hello\n");
    });
    runtime
        .block_on(cluster.ingest(Ingest::of(repo.url()).shown_as("h/org/one").hydrated()))
        .unwrap();
    let promised = std::fs::read_to_string(golden()).unwrap();
    let promised: BTreeMap<&str, &str> = promised
        .lines()
        .filter_map(|line| line.rsplit_once(": "))
        .collect();
    let router = format!("--router={}", cluster.router_address());
    let source = format!("--source={}", repo.url());
    let runs: [&[&str]; 22] = [
        &["status"],
        &["top", "--interval=200ms"],
        &["stats", "--type=all"],
        &["repos"],
        &["repo", "h/org/one"],
        &["refresh", "h/org/one"],
        &["ingest", &source, "--path=h/org/two"],
        &["verify"],
        &["nodes"],
        &["fetchers"],
        &["node-files", "--node-id=all"],
        &["rebalance", "--dry-run"],
        &["jobs", "--all"],
        &["drain", "--reason=work"],
        &["undrain"],
        &["trigger-failover", "--node-id=node1", "--force"],
        &["failover"],
        &["clear-failover", "--node-id=node1"],
        &["ls", "h/org/one"],
        &["stat", "h/org/one"],
        &["stat", "h/org/one/README.md"],
        &["delete", "h/org/two", "--yes"],
    ];
    let mut shapes = Shapes::default();
    for args in runs {
        shapes.add(
            &name_of(args),
            &run(&[args, &["--format=json", &router]].concat()).done(),
        );
    }
    for (path, kinds) in &shapes.0 {
        let Some(kind) = promised.get(path.as_str()) else {
            panic!("{path} is not promised")
        };
        let kinds: Vec<&str> = kinds
            .iter()
            .copied()
            .filter(|kind| *kind != "null")
            .collect();
        let holds = kinds.iter().all(|seen| {
            kind.trim_end_matches('?')
                .split('|')
                .any(|known| known == *seen)
        });
        assert!(holds, "{path} is {kinds:?}, promised is {kind}");
    }
    runtime.block_on(cluster.shutdown());
}

#[test]
fn a_word_that_was_replaced_stands_beside_the_one_that_replaced_it() {
    let promised = std::fs::read_to_string(golden()).unwrap();
    let paths: BTreeSet<&str> = promised
        .lines()
        .filter_map(|line| line.rsplit_once(": "))
        .map(|(path, _)| path)
        .collect();
    for (word, by) in REPLACED_ON_THE_COMMAND_LINE {
        let old: Vec<&&str> = paths
            .iter()
            .filter(|path| path.ends_with(&format!(".{word}")))
            .collect();
        assert!(!old.is_empty(), "{word} has gone");
        for path in old {
            let new = path.strip_suffix(word).unwrap().to_owned() + by;
            assert!(paths.contains(new.as_str()), "{path} without {new}");
        }
    }
}

/// The document that a router gives over HTTP.
fn over_http(address: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    serde_json::from_str(body).unwrap()
}

/// The paths of all words of a document, without those of one tongue that were replaced.
fn words(document: &Value, replaced: &[(&str, &str)]) -> BTreeSet<String> {
    let mut shapes = Shapes::default();
    shapes.walk("", document);
    // A word counts with everything below it.
    let is_replaced = |path: &String| {
        let parts: Vec<&str> = path
            .split('.')
            .map(|part| part.trim_end_matches("[]"))
            .collect();
        let mut prefixes = (1..=parts.len()).map(|length| parts[..length].join("."));
        prefixes.any(|prefix| {
            replaced.iter().any(|(word, by)| {
                prefix.ends_with(&format!(".{word}")) && !prefix.ends_with(&format!(".{by}"))
            })
        })
    };
    let words = shapes.0.into_keys();
    words.filter(|path| !is_replaced(path)).collect()
}

#[test]
fn both_tongues_tell_a_fact_in_the_same_words() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cluster = runtime.block_on(Builder::new(dir.path()).start()).unwrap();
    let repo = Repo::new();
    repo.commit(|changes| {
        changes.file("README.md", "hello\n");
    });
    runtime
        .block_on(cluster.ingest(Ingest::of(repo.url()).shown_as("h/org/one").hydrated()))
        .unwrap();
    let router = format!("--router={}", cluster.router_address());
    // Something to list: a node that readers have left.
    run(&["trigger-failover", "--node-id=node1", "--force", &router]).done();
    let same: [(&[&str], &str); 6] = [
        (&["nodes"], "/api/v1/nodes"),
        (&["fetchers"], "/api/v1/fetchers"),
        (&["repos"], "/api/v1/repos"),
        (&["repo", "h/org/one"], "/api/v1/repos/h%2Forg%2Fone"),
        (&["failover"], "/api/v1/failover"),
        (&["ls", "h/org/one"], "/api/v1/tree?path=h/org/one"),
    ];
    for (args, path) in same {
        let told = run(&[args, &["--format=json", &router]].concat()).done();
        let mut told = words(&told.json(), &REPLACED_ON_THE_COMMAND_LINE);
        let mut answered = words(
            &over_http(&cluster.http_address(), path),
            &REPLACED_OVER_HTTP,
        );
        // What placement wants is null on the command line; what a node holds stood in a document
        // of its own there.
        answered.retain(|word| !word.ends_with(".wanted[]"));
        told.retain(|word| !word.contains(".held."));
        told.remove(".replicas[].held");
        assert_eq!(told, answered, "{args:?} and {path}");
    }
    runtime.block_on(cluster.shutdown());
}
