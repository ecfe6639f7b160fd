//! Taking the cluster or a node out of service and back: what is said, in both formats, and what is
//! refused.

use serde_json::json;

use crate::fake::{Fake, REPO};

#[test]
fn the_guide_is_right_about_the_spelling() {
    let fake = Fake::start();
    fake.admin(&["drain", "--reason=Scheduled maintenance"])
        .done();
    fake.admin(&["undrain"]).done();
    fake.admin(&["rebalance", "--storage-id=0123456789abcdef0123456789abcdef"])
        .done();
    fake.admin(&["trigger-failover", "--node-id=node2"]).done();
    fake.admin(&["clear-failover", "--node-id=node2"]).done();
    fake.admin(&["stats", "--type=all", "--format=json"])
        .done()
        .json();
    // Both names of the same thing work everywhere.
    fake.admin(&["drain", "--node-id=node2", "--reason=x"])
        .done();
    fake.admin(&["undrain", "--node-id=node2"]).done();
    fake.admin(&["trigger-failover", "--node=node2"]).done();
    fake.admin(&["clear-failover", "--node=node2"]).done();
    fake.admin(&["remove", "--member=node2"]).done();
}

#[test]
fn a_drained_cluster_says_why_and_how_it_ends() {
    let fake = Fake::start();
    let drain = ["drain", "--reason=new \u{1b}[31mswitch"];
    let text = fake.admin(&drain).done().text();
    assert!(
        text.starts_with("the cluster is drained: ")
            && text.ends_with("next: monofs-admin undrain\n"),
        "{text}"
    );
    let again = fake
        .admin(&[&drain[..], &["--format=json"]].concat())
        .done()
        .json();
    let expected = json!({
        "action": "drain", "node_id": null, "unchanged": true, "job_id": null, "next": "monofs-admin undrain",
    });
    assert_eq!(again, expected);
    assert!(
        fake.admin(&drain)
            .done()
            .text()
            .starts_with("the cluster was drained already")
    );

    let status = fake.admin(&["status"]).done().text();
    let told = "! the cluster is drained (new \\u{1b}[31mswitch): nobody fails over and \
     nothing\n    moves\n    > monofs-admin undrain\n";
    assert!(status.contains(told), "{status}");
    let json = fake.admin(&["status", "--format=json"]).done().json();
    assert_eq!(
        json["maintenance"],
        json!({"reason": "new \u{1b}[31mswitch", "since": "2023-11-14T22:15:00Z"})
    );
    fake.admin(&["rebalance"])
        .failed(4, "the cluster is drained: nothing moves");
    fake.admin(&["rebalance", "--dry-run"]).done();

    assert!(
        fake.admin(&["undrain"])
            .done()
            .text()
            .starts_with("the cluster is no longer drained")
    );
    assert!(
        fake.admin(&["undrain"])
            .done()
            .text()
            .starts_with("the cluster was not drained\n")
    );
    assert!(fake.admin(&["status", "--format=json"]).done().json()["maintenance"].is_null());
}

#[test]
fn a_node_is_drained_with_a_job_to_follow() {
    let fake = Fake::start();
    fake.admin(&["drain", "--node=node1", "--reason=disks"])
        .failed(4, "1 repository would have fewer than 2 copies");
    fake.admin(&["drain", "--node=node9", "--reason=disks"])
        .failed(1, "no node is called node9");
    let forced = ["drain", "--node=node1", "--reason=disks", "--force"];
    let text = fake.admin(&forced).done().text();
    let expected = "node1 is being drained: its copies move off while it goes on serving\n\
                    next: monofs-admin jobs watch drain-node1\n";
    assert_eq!(text, expected);
    assert!(
        fake.admin(&forced)
            .done()
            .text()
            .starts_with("node1 was being drained already\n")
    );
    let json = fake
        .admin(&["drain", "--node=node2", "--reason=old", "--format=json"])
        .done()
        .json();
    let expected = json!({
        "action": "drain", "node_id": "node2", "unchanged": false, "job_id": "drain-node2",
        "next": "monofs-admin jobs watch drain-node2",
    });
    assert_eq!(json, expected);

    let status = fake.admin(&["status", "--format=json"]).done().json();
    let intent = json!({
        "node_id": "node1", "kind": "drain", "reason": "disks", "since": "2023-11-14T22:15:00Z", "force": true,
    });
    assert_eq!(
        (&status["intents"][0], status["jobs"][1]["id"].as_str()),
        (&intent, Some("drain-node2"))
    );
    let screen = fake.admin(&["status"]).done().text();
    for part in [
        "! node1 is being drained (disks)\n    > monofs-admin undrain --node=node1\n",
        "> monofs-admin undrain --node=node2",
        "\njobs          2 running ",
        " drain drain-node1: 1/4 steps, 1.0 KiB of 4.0 KiB, copies github.com/org/repo to node1",
    ] {
        // Long lines go on below their values.
        assert!(
            screen.replace(&format!("\n{:14}", ""), " ").contains(part),
            "{part} is missing in {screen}"
        );
    }
    assert!(
        fake.admin(&["undrain", "--node=node1"])
            .done()
            .text()
            .starts_with("node1 takes part again")
    );
    assert!(
        fake.admin(&["undrain", "--node=node1"])
            .done()
            .text()
            .starts_with("node1 was not being drained\n")
    );
}

#[test]
fn the_status_names_all_routers_and_who_leads() {
    let fake = Fake::start();
    let screen = fake.admin(&["status"]).done().text();
    let row = |id: &str| {
        screen
            .lines()
            .find(|line| line.starts_with(id))
            .unwrap_or_else(|| panic!("{screen}"))
            .to_owned()
    };
    assert!(
        row("router1").contains("router         active   0.1.0"),
        "{screen}"
    );
    assert!(
        row("router2").contains("router, leads  active   0.1.0"),
        "{screen}"
    );
    let json = fake.admin(&["status", "--format=json"]).done().json();
    let expected = json!({
        "id": "router2", "address": "router2:9090", "http_address": "router2:8080", "version": "0.1.0",
        "started_at": "2023-11-14T22:15:00Z", "leader": true, "own": false,
    });
    assert_eq!(json["routers_known"][1], expected);
}

#[test]
fn a_node_is_left_at_once_and_let_back() {
    let fake = Fake::start();
    fake.admin(&["trigger-failover", "--node-id=node1"])
        .failed(4, "fewer than 2 copies");
    fake.admin(&["trigger-failover", "--node-id=node9"])
        .failed(1, "no node is called node9");
    let forced = [
        "trigger-failover",
        "--node-id=node1",
        "--reason=disk errors",
        "--force",
    ];
    let text = fake.admin(&forced).done().text();
    let expected = "readers leave node1 now, and its copies are made elsewhere\n\
                    next: monofs-admin jobs watch failover-node1\n";
    assert_eq!(text, expected);
    assert_eq!(
        fake.admin(&[&forced[..], &["--format=json"]].concat())
            .done()
            .json()["unchanged"],
        true
    );

    let nodes = fake.admin(&["nodes", "--format=json"]).done().json();
    assert_eq!(
        (
            &nodes["nodes"][0]["failed_over"],
            &nodes["nodes"][0]["share_percent"]
        ),
        (&json!(true), &json!(100))
    );
    assert!(
        fake.admin(&["nodes"])
            .done()
            .text()
            .contains("active, failed over")
    );
    let json = fake.admin(&["failover", "--format=json"]).done().json();
    let down = json!({
        "node_id": "node2", "state": "down", "reason": "it does not answer", "since": "2023-11-14T22:15:00Z",
        "repositories": 2, "targets": [{"node_id": "node1", "repositories": 2}],
    });
    assert_eq!(
        (
            &json["failovers"][0],
            json["failovers"][1]["reason"].as_str()
        ),
        (&down, Some("disk errors"))
    );
    let table = fake.admin(&["failover"]).done().text();
    assert!(
        table.starts_with("NODE") && table.contains("node1 (2)") && table.contains("disk errors"),
        "{table}"
    );

    let text = fake
        .admin(&["clear-failover", "--node-id=node1"])
        .done()
        .text();
    assert!(text.starts_with("node1 is let back: "), "{text}");
    let json = fake
        .admin(&["clear-failover", "--node-id=node1", "--format=json"])
        .done()
        .json();
    let expected = json!({
        "action": "clear-failover", "node_id": "node1", "unchanged": true, "job_id": null,
        "next": "monofs-admin failover",
    });
    assert_eq!(json, expected);
}

#[test]
fn only_a_member_that_is_gone_can_be_forgotten() {
    let fake = Fake::start();
    fake.admin(&["remove-member", "--member=node1"])
        .failed(4, "node1 is active");
    fake.admin(&["remove-member", "--member=node9"])
        .failed(1, "no node is called node9");
    let json = fake
        .admin(&["remove-member", "--member=node2", "--format=json"])
        .done()
        .json();
    assert_eq!(json, json!({"removed": "node2"}));
    fake.admin(&["remove-member", "--member=node2"])
        .failed(1, "no node is called node2");
    assert!(
        fake.admin(&["failover"])
            .done()
            .text()
            .starts_with("no failover: ")
    );
}

#[test]
fn a_plan_is_shown_before_anything_moves() {
    let fake = Fake::start();
    let table = fake.admin(&["rebalance", "--dry-run"]).done().text();
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("STEP")
            && lines[1].starts_with("copy")
            && lines[2].starts_with("delete"),
        "{table}"
    );
    assert!(
        lines[1].contains("node1") && lines[1].contains("4.0 KiB  placement wants it there"),
        "{table}"
    );
    assert_eq!(
        lines[4..],
        [
            "1 copy, 1 deletion, 4.0 KiB to copy",
            "nothing was started; next: the same without --dry-run"
        ]
    );
    assert_eq!(
        fake.admin(&["jobs", "--format=json"]).done().json(),
        json!({"jobs": [], "total": 0, "offset": 0, "limit": 0, "next_offset": null})
    );
    let json = fake
        .admin(&["rebalance", "--dry-run", "--format=json"])
        .done()
        .json();
    let copy = json!({
        "kind": "copy", "path": REPO, "node_id": "node1", "from": ["node2"], "bytes": 4096,
        "reason": "placement wants it there",
    });
    let delete = json!({
        "kind": "delete", "path": REPO, "node_id": "node2", "from": [], "bytes": 4096, "reason": "one copy too many",
    });
    let expected = json!({
        "dry_run": true, "moves": [copy, delete], "copies_total": 1, "deletes_total": 1, "bytes_total": 4096,
        "job_id": null, "job": null,
    });
    assert_eq!(json, expected);
    let text = fake
        .admin(&["rebalance", "--path=/gitlab.com/a/b/c/"])
        .done()
        .text();
    assert_eq!(
        text,
        "nothing to do: every copy is where placement wants it\n"
    );
    fake.admin(&["rebalance", "--path=no/such"])
        .failed(1, "no repository is called that");
    fake.admin(&["rebalance", "--storage-id=ff"])
        .failed(1, "no repository is called that");
}
