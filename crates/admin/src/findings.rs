//! What is wrong, each with the command to type next, and the one word about it all.
//!
//! A router says what is wrong in lines that name a command between backquotes. What it does not
//! say, because it is older or because nothing is wrong with it, follows from the rest of its
//! answer.

use monofs_api::{Finding, Health};
use monofs_proto::v1;

use crate::text::shell_word;

/// A router of the command line that does not answer.
pub fn silent_router(address: &str) -> Finding {
    Finding::new(
        format!("router {address} does not answer: start it, or take it out of --router"),
        format!("monofs-admin status --router={}", shell_word(address)),
    )
}

/// What is wrong, the router's lines first.
pub fn findings(status: &v1::StatusResponse) -> Vec<Finding> {
    let mut found: Vec<Finding> = status
        .problems
        .iter()
        .map(|line| Finding::said(line))
        .collect();
    for other in unsaid(status) {
        let is_said = other.next.as_deref().is_some_and(|next| {
            let mut lines = found.iter();
            lines.any(|found| found.problem.contains(next))
        });
        if !is_said {
            found.push(other);
        }
    }
    found
}

/// What follows from the answer whether the router says it or not.
fn unsaid(status: &v1::StatusResponse) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(maintenance) = &status.maintenance {
        let why = format!(
            "the cluster is drained ({}): nobody fails over and nothing moves",
            maintenance.reason
        );
        found.push(Finding::new(why, "monofs-admin undrain"));
    }
    for intent in &status.intents {
        let id = shell_word(&intent.node_id);
        let reason = if intent.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", intent.reason)
        };
        found.push(match intent.kind() {
            v1::node_intent::Kind::Failover => Finding::new(
                format!("{} is failed over{reason}", intent.node_id),
                format!("monofs-admin clear-failover --node-id={id}"),
            ),
            v1::node_intent::Kind::Drain | v1::node_intent::Kind::Unspecified => Finding::new(
                format!("{} is being drained{reason}", intent.node_id),
                format!("monofs-admin undrain --node={id}"),
            ),
        });
    }
    // A router that has anything to say says these, too.
    if status.problems.is_empty() {
        if !status.nodes.iter().any(|node| is_active(&node.member)) {
            found.push(Finding::new(
                "no node is active",
                "monofs-node --node-id=ID --router=ROUTER:9090",
            ));
        }
        if !status
            .fetchers
            .iter()
            .any(|fetcher| is_active(&fetcher.member))
        {
            let problem = "no fetcher is active: ingest and refresh wait";
            found.push(Finding::new(problem, "monofs-fetcher --router=ROUTER:9090"));
        }
        if status.repositories_failed > 0 {
            found.push(Finding::new(
                "repositories failed to ingest",
                "monofs-admin repos",
            ));
        }
    }
    found
}

fn is_active(member: &Option<v1::Member>) -> bool {
    member
        .as_ref()
        .is_some_and(|member| member.state() == v1::MemberState::Active)
}

/// The word for a cluster with these problems.
pub fn health(status: &v1::StatusResponse, findings: &[Finding]) -> Health {
    use v1::MemberState::{Active, Drained, Draining, Recovering, Suspect};
    let served = status
        .nodes
        .iter()
        .filter_map(|node| node.member.as_ref())
        .any(|member| {
            matches!(
                member.state(),
                Active | Suspect | Recovering | Draining | Drained
            )
        });
    match (served, findings.is_empty()) {
        (false, _) => Health::Unhealthy,
        (true, false) => Health::Degraded,
        (true, true) => Health::Healthy,
    }
}

/// Command lines that lead on from here, each once.
pub fn next(status: &v1::StatusResponse, findings: &[Finding]) -> Vec<String> {
    let mut next: Vec<String> = Vec::new();
    for command in findings.iter().filter_map(|finding| finding.next.as_ref()) {
        if !next.contains(command) {
            next.push(command.clone());
        }
    }
    if status.repositories_ready + status.repositories_ingesting + status.repositories_failed == 0
        && next.is_empty()
    {
        next.push("monofs-admin ingest --source=URL".to_owned());
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_router_does_not_say_follows_from_the_rest() {
        let mut status = v1::StatusResponse::default();
        let found = findings(&status);
        assert_eq!(
            found[0].next.as_deref(),
            Some("monofs-node --node-id=ID --router=ROUTER:9090")
        );
        assert_eq!(health(&status, &found), Health::Unhealthy);
        status.maintenance = Some(v1::Maintenance {
            reason: "work".into(),
            since: 1,
        });
        status.problems = vec!["drained: `monofs-admin undrain` ends it".into()];
        assert_eq!(findings(&status).len(), 1, "it is said already");
        status.problems = vec!["something else".into()];
        assert_eq!(findings(&status).len(), 2);
    }
}
