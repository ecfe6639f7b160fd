//! What every page shows around its own: navigation, the router that answers, what is wrong.

use super::assets::{URLS, Urls};
use super::text::{Line, clean, count, time_of_day};
use crate::overview;
use monofs_api::Finding;
use monofs_control::clock;

use monofs_router::parts::Parts;

/// The parts of the site, in the order of the navigation: address, name, icon.
const PARTS: [(&str, &str, &str); 9] = [
    ("/", "Overview", "i-overview"),
    ("/repos", "Repositories", "i-repos"),
    ("/browse/", "Browse", "i-browse"),
    ("/nodes", "Nodes", "i-nodes"),
    ("/fetchers", "Fetchers", "i-fetchers"),
    ("/jobs", "Jobs", "i-jobs"),
    ("/placement", "Placement", "i-placement"),
    ("/clients", "Clients", "i-clients"),
    ("/add", "Add", "i-add"),
];

pub(super) struct Link {
    pub href: &'static str,
    pub name: &'static str,
    pub icon: &'static str,
    pub here: bool,
}

/// What surrounds a page.
pub(super) struct Shell {
    /// Without odd characters.
    pub title: String,
    section: &'static str,
    pub router_id: String,
    pub version: &'static str,
    pub leading: bool,
    /// Changes can be made: the state store is reached.
    pub can_change: bool,
    pub clock: String,
    pub health: Health,
    /// A line about what is wrong; the overview says it at length instead.
    pub strip: bool,
    pub assets: &'static Urls,
}

impl Shell {
    /// `section`: the address of the part of the site that the page belongs to.
    pub fn new(state: &Parts, title: &str, section: &'static str) -> Self {
        Self {
            title: clean(title),
            section,
            router_id: clean(&state.control.own.router_id),
            version: env!("CARGO_PKG_VERSION"),
            leading: *state.control.leading.borrow(),
            can_change: *state.control.shared.reachable().borrow(),
            clock: format!("{} UTC", time_of_day(clock::now())),
            health: Health::of(&overview::health(state).1),
            strip: section != "/",
            assets: &URLS,
        }
    }

    pub fn links(&self) -> Vec<Link> {
        let link = |(href, name, icon)| Link {
            href,
            name,
            icon,
            here: href == self.section,
        };
        PARTS.into_iter().map(link).collect()
    }
}

/// What is wrong, and what to do next.
pub(super) struct Health {
    pub word: &'static str,
    pub tone: &'static str,
    pub shape: &'static str,
    pub problems: Vec<Shown>,
}

/// One thing that is wrong.
pub(super) struct Shown {
    pub shape: &'static str,
    pub severity: &'static str,
    pub what: Line,
    /// The next thing to do.
    pub next: Option<Line>,
}

impl Health {
    pub fn of(problems: &[Finding]) -> Self {
        let critical = problems
            .iter()
            .any(|problem| problem.critical == Some(true));
        let (word, tone, shape) = match (critical, problems.is_empty()) {
            (true, _) => ("Unhealthy", "bad", "i-cross"),
            (false, false) => ("Degraded", "warn", "i-triangle"),
            (false, true) => ("Healthy", "good", "i-check"),
        };
        Self {
            word,
            tone,
            shape,
            problems: problems.iter().map(shown).collect(),
        }
    }

    /// All of it in one line; `None` = nothing is wrong.
    pub fn strip(&self) -> Option<String> {
        let more = self.problems.len().checked_sub(1)?;
        let first = &self.problems[0].what;
        let rest = if more == 0 {
            String::new()
        } else {
            format!(", and {}", count(more as u64, "other problem"))
        };
        Some(format!("{}: {}{rest}", self.word, first.text()))
    }
}

fn shown(problem: &Finding) -> Shown {
    let (what, next) = match problem.problem.split_once(": ") {
        Some((what, next)) => (what, Some(Line::new(next))),
        None => (problem.problem.as_str(), None),
    };
    let (shape, severity) = if problem.critical == Some(true) {
        ("i-cross", "critical")
    } else {
        ("i-triangle", "warning")
    };
    Shown {
        shape,
        severity,
        what: Line::new(what),
        next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_what_is_wrong_and_the_next_thing_to_do() {
        let problem = |line: &str, critical| Finding {
            critical: Some(critical),
            ..Finding::said(line)
        };
        let health = Health::of(&[
            problem("no node is active: start `monofs-node`, then look", true),
            problem("node2 (127.0.0.1:9000) is suspect: look at its log", false),
        ]);
        assert_eq!((health.word, health.tone), ("Unhealthy", "bad"));
        assert_eq!(
            health.strip().as_deref(),
            Some("Unhealthy: no node is active, and 1 other problem")
        );
        let next = health.problems[0].next.as_ref().map(ToString::to_string);
        assert_eq!(
            next.as_deref(),
            Some("start <code>monofs-node</code>, then look")
        );
        assert_eq!(
            health.problems[1].what.text(),
            "node2 (127.0.0.1:9000) is suspect"
        );
        assert!(Health::of(&[]).strip().is_none());
    }
}
