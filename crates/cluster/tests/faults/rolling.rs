//! A rolling upgrade: every server is restarted, one at a time, while a full tree is read.

use std::sync::Arc;
use std::time::Duration;

use monofs_testkit::ExpectedTree;

use crate::reader::Reader;
use crate::reading::{FAULT_AT, judge, summary, tree};
use crate::site::{Plan, Role, Site};

const PATH: &str = "h/tree";
/// Time that a server has to end after SIGTERM; `--shutdown-timeout` is 10 s.
const ENDS_WITHIN: Duration = Duration::from_secs(12);
const PAUSE_MAX: Duration = Duration::from_secs(1);

fn upgrade(gently: bool) {
    let repo = tree(3, 1200);
    let expected = Arc::new(ExpectedTree::of(&repo, "main"));
    let mut site = Site::start(Plan::default());
    site.ingest(&repo.url(), PATH, "eager");
    let steps = [
        (Role::Node, site.nodes.len()),
        (Role::Fetcher, site.fetchers.len()),
        (Role::Router, 1),
    ];
    let mut broken = Vec::new();
    for (role, index) in steps
        .into_iter()
        .flat_map(|(role, count)| (0..count).map(move |index| (role, index)))
    {
        site.remount();
        let reader = Reader::begin(
            site.shown(PATH, &expected.commit.to_string()),
            expected.clone(),
        );
        reader.wait_share(FAULT_AT);
        assert!(
            !reader.is_finished(),
            "the tree was read before the restart came"
        );
        let server = site.server(role, index);
        if gently {
            let status = server.process.terminate(ENDS_WITHIN);
            assert!(status.success(), "{} ended with {status}", server.id);
        }
        server.process.restart();
        let id = server.id.clone();
        let seen = reader.join();
        println!(
            "{id} restarted {}: {}",
            if gently {
                "with SIGTERM"
            } else {
                "after kill -9"
            },
            summary(&seen)
        );
        broken.extend(judge(&seen, PAUSE_MAX).map(|what| format!("{id}: {what}")));
        site.wait_whole();
        site.wait_replicated(PATH);
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    site.must(&["verify"]);
}

#[test]
fn a_rolling_upgrade_costs_no_read() {
    upgrade(true);
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn servers_killed_and_started_one_by_one_cost_no_read() {
    upgrade(false);
}
