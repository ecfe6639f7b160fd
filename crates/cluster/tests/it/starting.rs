//! What binaries say of settings that work and that their operator most likely does not want.

use monofs_testkit::process::binary;
use monofs_testkit::{Process, free_port, wait_until};

use crate::system::SOON;

fn spawn(name: &str, args: Vec<String>, envs: Vec<(&str, &str)>) -> Process {
    let envs = envs
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()));
    Process::spawn_with(binary(name), args, envs)
}

/// A router with the embedded state in `dir` that names the node at `node`; its gRPC port is there,
/// too.
fn router(
    dir: &std::path::Path,
    node: &str,
    more: &[&str],
    envs: Vec<(&str, &str)>,
) -> (Process, u16) {
    let port = free_port();
    let mut args = vec![
        "--listen=127.0.0.1".to_owned(),
        format!("--port={port}"),
        format!("--http-port={}", free_port()),
        format!("--state-dir={}", dir.display()),
        format!("--nodes=node1={node}"),
        "--health-interval=200ms".to_owned(),
    ];
    args.extend(more.iter().map(|flag| (*flag).to_owned()));
    (spawn("monofs-router", args, envs), port)
}

/// The status of the router at `port`, as JSON; empty while it does not answer.
fn status(port: u16) -> String {
    let done = std::process::Command::new(binary("monofs-admin"))
        .args([
            &format!("--router=127.0.0.1:{port}"),
            "status",
            "--format=json",
        ])
        .output()
        .unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn two_routers_without_a_common_state_are_told_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let node_address = format!("127.0.0.1:{}", free_port());
    let db = format!("--db-path={}", dir.path().join("node").display());
    let args = vec![
        "--node-id=node1".into(),
        db,
        format!("--addr={node_address}"),
    ];
    let _node = spawn("monofs-node", args, Vec::new());
    // As the replicas of a Deployment are: the same command line, a directory each.
    let pod = vec![("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    let (mut first, first_port) = router(&dir.path().join("a"), &node_address, &[], pod.clone());
    first.wait_line("every replica has another catalogue", SOON);
    let (mut second, second_port) = router(&dir.path().join("b"), &node_address, &[], pod);
    for (port, other) in [(first_port, second_port), (second_port, first_port)] {
        wait_until("the other catalogue is told", SOON, || {
            let text = status(port);
            text.contains("has another catalogue and uses 1 member")
                && text.contains(&format!("router 127.0.0.1:{other}"))
                && text.contains("every replica has another catalogue")
        });
    }
    for router in [&mut first, &mut second] {
        router.wait_line("a router with another catalogue uses this member", SOON);
    }
}

#[test]
fn flags_of_the_guide_that_do_nothing_yet_are_accepted_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let node_address = format!("127.0.0.1:{}", free_port());
    let (mut router, port) = router(
        &dir.path().join("router"),
        &node_address,
        &["--search-addr=search:9100"],
        Vec::new(),
    );
    router.wait_line("--search-addr is accepted and ignored", SOON);
    wait_until("the router serves", SOON, || !status(port).is_empty());

    let db = format!("--db-path={}", dir.path().join("node").display());
    let flags = vec![
        "--node-id=node1".into(),
        db,
        format!("--addr={node_address}"),
        "--enable-prediction".into(),
    ];
    // What a label of a pod that is not there comes to.
    let mut node = spawn("monofs-node", flags, vec![("MONOFS_ZONE", "")]);
    node.wait_line("--enable-prediction is accepted and ignored", SOON);
    node.wait_line("MONOFS_ZONE is empty", SOON);
    // The directory of this test is one for temporary files.
    assert!(node.log().iter().any(|line| line.contains("would be lost")));

    let mount = dir.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    let flags = vec![
        format!("--mount={}", mount.display()),
        format!("--cache={}", dir.path().join("cache").display()),
        format!("--overlay={}", dir.path().join("overlay").display()),
        format!("--router=127.0.0.1:{port}"),
        "--writable".into(),
    ];
    let mut client = spawn("monofs-client", flags, Vec::new()).mounting_at(&mount);
    client.wait_line("--writable is accepted and ignored", SOON);
    client.wait_line("--overlay is accepted and ignored", SOON);
}
