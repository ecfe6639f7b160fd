//! Copies that move while the router that has them moved is killed: the work goes on, and nothing
//! is lost on the way.

use monofs_testkit::{ExpectedTree, wait_until};

use crate::reading::tree;
use crate::site::{Plan, Role, SOON, Site};

const PATHS: [&str; 4] = ["h/one", "h/two", "h/three", "h/four"];
const LEAVING: &str = "node1";
/// Often enough to hit a copy, a deletion and the time between them.
const KILLS: usize = 4;

#[test]
fn a_drain_goes_on_whenever_its_router_is_killed() {
    let repo = tree(5, 400);
    let mut site = Site::start(Plan::default());
    PATHS
        .iter()
        .for_each(|path| site.ingest(&repo.url(), path, "eager"));
    site.must(&["drain", "--node", LEAVING, "--reason", "a test"]);
    for _ in 0..KILLS {
        site.server(Role::Router, 0).process.restart();
        wait_until("the router answers", SOON, || {
            site.admin(&["status"]).status.success()
        });
        for path in PATHS {
            let left = site.holders(path).unwrap_or_default();
            assert!(
                left.len() >= 2,
                "{path} has fewer copies than before: {left:?}"
            );
        }
    }
    let ended = |job: &serde_json::Value| job["kind"] == "drain" && job["state"] == "done";
    wait_until("the same job is done", SOON, || {
        let jobs = site.admin_json(&["jobs", "--all"]);
        jobs.is_some_and(|answer| {
            answer["jobs"]
                .as_array()
                .is_some_and(|jobs| jobs.len() == 1 && jobs.iter().all(ended))
        })
    });
    let commit = ExpectedTree::of(&repo, "main").commit.to_string();
    for path in PATHS {
        let held = site.copies(path, &commit);
        assert!(
            held.len() == 2 && held.iter().all(|node| node != LEAVING),
            "{path} is on {held:?}"
        );
        assert_eq!(site.copies(path, ""), held, "nothing else is left");
    }
    site.must(&["verify"]);
}
