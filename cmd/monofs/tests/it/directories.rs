//! One default directory for each role: the same in the binary, README, systemd and the image.

use std::path::Path;
use std::process::Command;

use monofs_testkit::Process;
use monofs_testkit::process::binary;

use crate::room::{Room, SOON, ended};

/// A server, the flag of its directory, the default, and the flags that it needs besides.
const SERVERS: [(&str, &str, &str, &[&str]); 3] = [
    (
        "router",
        "--state-dir",
        "/var/lib/monofs/router",
        &["--port=0", "--http-port=0", "--listen=127.0.0.1"],
    ),
    (
        "node",
        "--db-path",
        "/var/lib/monofs/node",
        &["--node-id=n", "--addr=127.0.0.1:0"],
    ),
    (
        "fetcher",
        "--cache-dir",
        "/var/cache/monofs/fetcher",
        &["--addr=127.0.0.1:0"],
    ),
];

fn of_project(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).expect("a file of the project")
}

#[test]
fn each_role_has_one_default_directory() {
    let readme = of_project("README.md");
    let image = of_project("Dockerfile");
    for (role, flag, directory, _) in SERVERS {
        let help = ended(Command::new(binary(&format!("monofs-{role}"))).arg("--help")).stdout;
        let (_, text) = help
            .split_once(&format!("  {flag} <"))
            .expect("the flag is there");
        let default = format!("[default: {directory}]");
        let next = text.find("\n\n").unwrap_or(text.len());
        assert!(text[..next].contains(&default), "{role}: {}", &text[..next]);
        assert!(readme.contains(directory), "README: {directory}");
        let variables = of_project(&format!("deploy/systemd/env/{role}.env"));
        assert!(variables.contains(directory), "systemd: {directory}");
        let parent = Path::new(directory).parent().and_then(Path::to_str);
        assert!(
            image.contains(parent.expect("it has a parent")),
            "image: {directory}"
        );
    }
}

#[test]
fn the_log_names_the_directory_at_the_start() {
    let room = Room::new();
    for (role, flag, _, needed) in SERVERS {
        let directory = room.path(role);
        let mut args = vec![format!("{flag}={}", directory.display())];
        args.extend(needed.iter().map(|word| (*word).to_owned()));
        let program = binary(&format!("monofs-{role}"));
        let mut process = Process::spawn_with(program, args, room.variables());
        let line = process.wait_line("data are kept here", SOON);
        let named = format!("directory={}", directory.display());
        assert!(line.contains(&named) && line.contains(flag), "{line}");
        assert!(process.terminate(SOON).success(), "{role}");
    }
}
