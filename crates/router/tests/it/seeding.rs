//! The example that seeds a state for measurements.

use std::path::PathBuf;
use std::process::Command;

use crate::large::{Counting, Router, all_repositories};

/// Beside the directory of the test binaries, where cargo puts examples when it builds tests.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let example = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/seed_catalogue");
    assert!(
        example.exists(),
        "{} is missing; build it with cargo build --examples",
        example.display()
    );
    example
}

fn seed(arguments: &[&str]) -> (bool, String) {
    let out = Command::new(example()).args(arguments).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_seeded_state_is_a_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let arguments = [
        "--state-dir",
        state.to_str().unwrap(),
        "--repositories=250",
        "--hosts",
        "3",
    ];
    let (ok, said) = seed(&arguments);
    assert!(ok && said.contains("250 repositories"), "{said}");
    let (again, said) = seed(&arguments);
    assert!(
        !again && said.contains("has repositories already"),
        "{said}"
    );

    let router = Router::start(Counting::open(&state).await).await;
    let all = all_repositories(&mut router.admin().await, "", 100).await;
    assert_eq!(all.len(), 250);
    let hosts: std::collections::BTreeSet<_> = all
        .iter()
        .map(|path| path.split('/').next().unwrap())
        .collect();
    assert_eq!(
        hosts.into_iter().collect::<Vec<_>>(),
        ["forge.example", "forge1.example", "forge2.example"]
    );
}

#[test]
fn what_is_wrong_with_the_options_is_said() {
    for (arguments, why) in [
        (&["--repositories", "1"][..], "no --state-dir"),
        (
            &["--state-dir", "/nowhere", "--repositories", "x"],
            "not a number",
        ),
        (
            &[
                "--state-dir",
                "/nowhere",
                "--repositories",
                "1",
                "--other",
                "2",
            ],
            "unknown option --other",
        ),
    ] {
        let (ok, said) = seed(arguments);
        assert!(!ok && said.contains(why), "{said}");
    }
}
