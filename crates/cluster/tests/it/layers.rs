//! The arrows of the architecture, read from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

/// Who may depend on a library that only one crate is allowed to see.
const OWNERS: [(&str, &str); 4] = [
    ("heed", "monofs-store"),
    ("fuser", "monofs-client"),
    ("gix", "monofs-fetcher"),
    ("prometheus-client", "monofs-rpc"),
];
const ROLES: [&str; 4] = [
    "monofs-router",
    "monofs-node",
    "monofs-fetcher",
    "monofs-client",
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let args = [
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
        "--manifest-path",
        manifest,
    ];
    let output = std::process::Command::new(cargo)
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let normal = |value: &&serde_json::Value| value["kind"].is_null();
    let of = |package: &serde_json::Value| {
        package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(normal)
            .map(name)
            .collect()
    };
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (name(package), of(package)))
        .collect()
}

/// The packages of this workspace that `start` depends on, directly or through others.
fn reached(start: &str, all: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![start.to_owned()];
    while let Some(package) = waiting.pop() {
        let below = all[&package].iter().filter(|name| all.contains_key(*name));
        for name in below {
            if found.insert(name.clone()) {
                waiting.push(name.clone());
            }
        }
    }
    found
}

#[test]
fn every_arrow_points_down() {
    let all = dependencies();
    for (library, owner) in OWNERS {
        for (package, uses) in all.iter().filter(|(package, _)| *package != owner) {
            assert!(
                !uses.contains(library),
                "{package} depends on {library}; only {owner} may"
            );
        }
    }
    for role in ROLES {
        let others: Vec<_> = ROLES
            .iter()
            .filter(|other| **other != role && all[role].contains(**other))
            .collect();
        assert!(
            others.is_empty(),
            "{role} depends on {others:?}; roles never depend on each other"
        );
    }
    for package in reached("monofs-admin", &all) {
        assert!(
            !ROLES.contains(&package.as_str()),
            "monofs-admin reaches {package}; what an operator's command knows, a router told it"
        );
    }
    let ours = |package: &str| {
        all[package]
            .iter()
            .filter(|name| name.starts_with("monofs"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(ours("monofs-model"), Vec::<String>::new());
    assert_eq!(ours("monofs-store"), ["monofs-model"]);
    assert_eq!(ours("monofs-proto"), ["monofs-model"]);
    assert_eq!(ours("monofs-rpc"), ["monofs-model", "monofs-proto"]);
    for io in ["tokio", "tonic", "prost"] {
        assert!(!all["monofs-model"].contains(io), "model depends on {io}");
    }
}
