use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::args;

#[derive(Debug, Parser)]
struct Server {
    #[arg(long, default_value_t = 9090)]
    port: u16,
    #[arg(long)]
    node_id: String,
    #[arg(long, default_value = "2s", value_parser = args::duration)]
    health_interval: Duration,
    #[arg(long, default_value = "")]
    nodes: args::Peers,
    #[arg(long, default_value = "")]
    weights: args::Keyed<f64>,
    #[arg(long, value_delimiter = ',')]
    fetcher: Vec<String>,
    #[arg(long)]
    enable_prediction: bool,
    #[arg(long, alias = "db")]
    db_path: Option<PathBuf>,
}

#[derive(Debug, Parser)]
struct Tool {
    #[arg(long, global = true, default_value = "localhost:9090")]
    router: String,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Up {
        #[arg(long, default_value_t = 1)]
        nodes: u32,
    },
    Down,
}

fn parse<A: Parser>(file: &str, words: &[&str]) -> Result<A, String> {
    let argv: Vec<OsString> = std::iter::once("x")
        .chain(words.iter().copied())
        .map(OsString::from)
        .collect();
    let command = with_environment(A::command());
    let command =
        with_file(command, Path::new("/etc/x.toml"), file).map_err(|failure| failure.message)?;
    let matches = command
        .try_get_matches_from(argv)
        .map_err(|error| error.to_string())?;
    A::from_arg_matches(&matches).map_err(|error| error.to_string())
}

#[test]
fn the_file_beats_defaults_and_flags_beat_the_file() {
    let file =
        "port = 1\nnode_id = 'n1'\nhealth-interval = '5s'\nenable-prediction = true\ndb = '/d'";
    let args: Server = parse(file, &[]).unwrap();
    assert_eq!((args.port, args.node_id.as_str()), (1, "n1"));
    assert_eq!(args.health_interval, Duration::from_secs(5));
    assert!(args.enable_prediction);
    assert_eq!(args.db_path, Some(PathBuf::from("/d")));
    let args: Server = parse(
        file,
        &["--port=2", "--node-id", "n2", "--enable-prediction=false"],
    )
    .unwrap();
    assert_eq!(
        (args.port, args.node_id.as_str(), args.enable_prediction),
        (2, "n2", false)
    );
    assert!(
        parse::<Server>("", &[]).unwrap_err().contains("--node-id"),
        "what is required stays required"
    );
    assert!(
        parse::<Server>("", &["--node-id=a", "--enable-prediction"])
            .unwrap()
            .enable_prediction
    );
}

#[test]
fn lists_and_tables_become_lists_of_values() {
    let file = "node-id = 'a'\nfetcher = ['f1:1', 'f2:2']\nnodes = ['n1=a:1', 'b:2']\nweights = \
     { n1 = 2.5, b = 1 }";
    let args: Server = parse(file, &[]).unwrap();
    assert_eq!(args.fetcher, ["f1:1", "f2:2"]);
    let nodes: Vec<_> = args
        .nodes
        .iter()
        .map(|peer| (peer.id.as_str(), peer.address.as_str()))
        .collect();
    assert_eq!(nodes, [("n1", "a:1"), ("b", "b:2")]);
    assert_eq!(
        *args.weights,
        BTreeMap::from([("n1".to_owned(), 2.5), ("b".to_owned(), 1.0)])
    );
    let args: Server = parse(
        "node-id = 'a'\nfetcher = 'f1:1,f2:2'",
        &["--fetcher=f3:3", "--fetcher=f4:4"],
    )
    .unwrap();
    assert_eq!(
        args.fetcher,
        ["f3:3", "f4:4"],
        "flags replace the file's list"
    );
    let args: Server = parse("node-id = 'a'\nfetcher = 'f1:1,f2:2'", &[]).unwrap();
    assert_eq!(args.fetcher, ["f1:1", "f2:2"]);
    assert!(
        parse::<Server>("node-id = 'a'\nfetcher = []", &[])
            .unwrap()
            .fetcher
            .is_empty()
    );
}

#[test]
fn what_the_file_says_wrongly_is_named() {
    let cases = [
        ("prot = 1", "unknown key 'prot'"),
        ("config = 'x'", "unknown key 'config'"),
        ("port = 'abc'", "key 'port': invalid value 'abc'"),
        ("port = 70000", "key 'port': invalid value '70000'"),
        ("port = [[1]]", "key 'port': is nested too deeply"),
        ("health_interval = '5 parsecs'", "key 'health_interval'"),
        ("node-id = 'a'\nnode_id = 'b'", "there twice"),
        ("[server]\nport = 1", "unknown key 'server'"),
        ("port = 1\nport = 2", "line 2"),
        ("port", "line 1"),
    ];
    for (file, expected) in cases {
        let said = parse::<Server>(file, &["--node-id=a"]).unwrap_err();
        assert!(
            said.contains(expected) && said.contains("/etc/x.toml"),
            "{file}: {said}"
        );
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_table_holds_the_keys_of_a_subcommand() {
    let file = "router = 'r:1'\n[up]\nnodes = 3";
    let args: Tool = parse(file, &["up"]).unwrap();
    assert_eq!(args.router, "r:1");
    assert!(matches!(args.command, Verb::Up { nodes: 3 }));
    assert!(matches!(
        parse::<Tool>(file, &["up", "--nodes=5"]).unwrap().command,
        Verb::Up { nodes: 5 }
    ));
    assert!(matches!(
        parse::<Tool>(file, &["down", "--router=x"])
            .unwrap()
            .command,
        Verb::Down
    ));
    assert!(
        parse::<Tool>("[up]\nnode = 3", &["up"])
            .unwrap_err()
            .contains("unknown key 'up.node'")
    );
    assert!(
        parse::<Tool>("nodes = 3", &["up"])
            .unwrap_err()
            .contains("unknown key 'nodes'")
    );
}

#[test]
fn the_settings_file_is_found_in_any_spelling() {
    let found =
        |words: &[&str]| file_named_by(&words.iter().map(OsString::from).collect::<Vec<_>>());
    assert_eq!(found(&["x", "--config", "/a"]), Some(PathBuf::from("/a")));
    assert_eq!(
        found(&["x", "up", "--config=/a"]),
        Some(PathBuf::from("/a"))
    );
    assert_eq!(found(&["x", "--", "--config=/a"]), None);
    assert_eq!(found(&["x", "--config"]), None);
    assert_eq!(variable_of("rpc-timeout"), "MONOFS_RPC_TIMEOUT");
}

#[test]
fn a_missing_or_enormous_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    assert!(
        read_file(&missing)
            .unwrap_err()
            .message
            .contains("none.toml")
    );
    assert!(read_file(dir.path()).is_err());
    let large = dir.path().join("large.toml");
    std::fs::File::create(&large)
        .unwrap()
        .set_len(FILE_BYTES_MAX + 1)
        .unwrap();
    assert!(read_file(&large).unwrap_err().message.contains("larger"));
}

fn toml_value() -> impl Strategy<Value = toml::Value> {
    let leaf = prop_oneof![
        ".*".prop_map(toml::Value::String),
        any::<i64>().prop_map(toml::Value::Integer),
        any::<f64>().prop_map(toml::Value::Float),
        any::<bool>().prop_map(toml::Value::Boolean),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(toml::Value::Array),
            prop::collection::btree_map(key(), inner, 0..4)
                .prop_map(|map| toml::Value::Table(map.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("port".to_owned()),
        Just("node-id".to_owned()),
        Just("nodes".to_owned()),
        Just("weights".to_owned()),
        Just("fetcher".to_owned()),
        Just("enable_prediction".to_owned()),
        Just("up".to_owned()),
        Just("help".to_owned()),
        ".*",
    ]
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".*") {
        let _ = parse::<Server>(&text, &[]);
    }

    #[test]
    fn arbitrary_toml_never_panics(table in prop::collection::btree_map(key(), toml_value(), 0..4)) {
        let table: toml::Table = table.into_iter().collect();
        let text = toml::to_string(&table).unwrap();
        let _ = parse::<Server>(&text, &[]);
        let _ = parse::<Tool>(&text, &["up"]);
    }
}
