//! The list of repositories: filtered, sorted, one page of it, whatever the size of the catalogue.

use std::cmp::Ordering;
use std::sync::Arc;

use askama::Template;
use monofs_model::{Repository, RepositoryState, Result};
use serde::Deserialize;

use super::Pages;
use super::parts::State;
use super::shell::Shell;
use super::text::{When, clean, encode_path, number, short, size};
use crate::RouterState;
use crate::browse::percent_encoded;

/// Entries on one page.
const PAGE: usize = 50;
/// Entries looked at while the catalogue cannot change.
const STEP: usize = 1000;
/// Longest filter, in bytes.
const FILTER_MAX: usize = 200;

/// The query of the page.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    state: String,
    sort: String,
    page: String,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    All,
    Ready,
    Ingesting,
    Failed,
    /// Ready, and the last refresh failed.
    Stale,
    /// Ready, with fewer copies than wanted.
    Few,
}

/// With the word in the URL and the one on the page.
const CHOICES: [(Only, &str, &str); 6] = [
    (Only::All, "", "all"),
    (Only::Ready, "ready", "ready"),
    (Only::Ingesting, "ingesting", "ingesting"),
    (Only::Failed, "failed", "failed"),
    (Only::Stale, "stale", "refresh fails"),
    (Only::Few, "few", "too few copies"),
];

/// What the order is by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Path,
    Size,
    Copies,
    Committed,
    Refreshed,
}

const COLUMNS: [(Column, &str); 5] = [
    (Column::Path, "path"),
    (Column::Size, "size"),
    (Column::Copies, "copies"),
    (Column::Committed, "committed"),
    (Column::Refreshed, "refreshed"),
];

/// The query, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// Lower case.
    text: String,
    only: Only,
    column: Column,
    descending: bool,
    /// From 0.
    page: usize,
    /// Of each repository.
    copies: usize,
}

impl Wanted {
    fn new(asked: &Asked, copies: usize) -> Self {
        let mut text = asked.q.trim().to_lowercase();
        text.truncate(text.floor_char_boundary(FILTER_MAX));
        let (name, descending) = match asked.sort.strip_prefix('-') {
            Some(name) => (name, true),
            None => (asked.sort.as_str(), false),
        };
        let column = COLUMNS.iter().find(|(_, word)| *word == name).map_or(Column::Path, |(column, _)| *column);
        let only = CHOICES.iter().find(|(_, word, _)| *word == asked.state).map_or(Only::All, |(only, ..)| *only);
        let page = asked.page.parse::<usize>().unwrap_or(1).saturating_sub(1);
        Self { text, only, column, descending, page, copies }
    }

    fn has(&self, entry: &Repository) -> bool {
        let ready = entry.state == RepositoryState::Ready;
        let state = match self.only {
            Only::All => true,
            Only::Ready => ready,
            Only::Ingesting => entry.state == RepositoryState::Ingesting,
            Only::Failed => entry.state == RepositoryState::Failed,
            Only::Stale => ready && !entry.last_error.is_empty(),
            Only::Few => ready && entry.holders.len() < self.copies,
        };
        let found = |text: &str| text.to_lowercase().contains(&self.text);
        state && (self.text.is_empty() || found(entry.path.as_str()) || found(entry.source.as_str()))
    }

    fn order(&self, a: &Repository, b: &Repository) -> Ordering {
        let of = |entry: &Repository| match self.column {
            Column::Path => 0,
            Column::Size => entry.snapshot.as_ref().map_or(-1, |snapshot| snapshot.bytes as i64),
            Column::Copies => entry.holders.len() as i64,
            Column::Committed => entry.snapshot.as_ref().map_or(-1, |snapshot| snapshot.commit_time),
            Column::Refreshed => entry.refreshed_at,
        };
        let order = of(a).cmp(&of(b)).then_with(|| a.path.cmp(&b.path));
        if self.descending { order.reverse() } else { order }
    }

    /// One page of what is wanted of `all`, and how many there are.
    fn select(&self, all: impl Iterator<Item = Arc<Repository>>) -> (Vec<Arc<Repository>>, usize) {
        let mut found: Vec<Arc<Repository>> = all.filter(|entry| self.has(entry)).collect();
        let total = found.len();
        let from = (self.page * PAGE).min(total);
        let to = (from + PAGE).min(total);
        // Only what is shown has to be in order.
        if from > 0 && from < total {
            found.select_nth_unstable_by(from, |a, b| self.order(a, b));
        }
        let rest = &mut found[from..];
        if to - from < rest.len() && to > from {
            rest.select_nth_unstable_by(to - from, |a, b| self.order(a, b));
        }
        let mut shown = found[from..to].to_vec();
        shown.sort_by(|a, b| self.order(a, b));
        (shown, total)
    }
}

/// All entries, in steps between which the catalogue can change.
pub(super) fn all(state: &RouterState) -> impl Iterator<Item = Arc<Repository>> {
    let mut after = Some(String::new());
    std::iter::from_fn(move || {
        let page = state.catalog.page("", after.as_ref()?, STEP);
        after = page.last().map(|entry| entry.path.to_string());
        (!page.is_empty()).then_some(page)
    })
    .flatten()
}

struct Row {
    href: String,
    path: String,
    state: State,
    commit: String,
    committed: When,
    size: String,
    copies: String,
    refreshed: When,
}

struct Heading {
    name: &'static str,
    href: String,
    /// `aria-sort`; empty = it is not the order.
    sort: &'static str,
    number: bool,
}

struct Choice {
    word: &'static str,
    name: &'static str,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "repositories.html")]
pub(super) struct Page {
    shell: Shell,
    asked: Asked,
    choices: Vec<Choice>,
    headings: Vec<Heading>,
    rows: Vec<Row>,
    /// Such as `51 to 100 of 100,000`.
    range: String,
    filtered: bool,
    before: Option<String>,
    after: Option<String>,
}

pub(super) async fn page(pages: &Pages, asked: &Asked) -> Result<Page> {
    let view = pages.state.members.view();
    let copies = (view.replication_factor as usize).min(view.nodes().count());
    let wanted = Wanted::new(asked, copies);
    let wants = wanted.clone();
    let (found, total) = pages.scan(move |state| wants.select(all(state))).await?;
    let from = (wanted.page * PAGE).min(total);
    let url = |page: usize| url(asked, &asked.sort, page);
    let choice = |(only, word, name)| Choice { word, name, chosen: only == wanted.only };
    Ok(Page {
        shell: Shell::new(&pages.state, "Repositories", "/repos"),
        choices: CHOICES.into_iter().map(choice).collect(),
        headings: headings(asked, &wanted),
        rows: found.iter().map(|entry| row(entry, copies)).collect(),
        range: format!("{} to {} of {}", number((from + 1).min(total) as u64), number((from + found.len()) as u64), number(total as u64)),
        filtered: !wanted.text.is_empty() || wanted.only != Only::All,
        before: (wanted.page > 0).then(|| url(wanted.page)),
        after: (from + found.len() < total).then(|| url(wanted.page + 2)),
        asked: asked.clone(),
    })
}

/// `page`: from 1.
fn url(asked: &Asked, sort: &str, page: usize) -> String {
    let text = |value: &str| percent_encoded(value.as_bytes());
    let mut url = format!("/repos?q={}&state={}&sort={}", text(&asked.q), text(&asked.state), text(sort));
    if page > 1 {
        url.push_str(&format!("&page={page}"));
    }
    url
}

fn headings(asked: &Asked, wanted: &Wanted) -> Vec<Heading> {
    let heading = |name, column: Column, number| {
        let word = COLUMNS.iter().find(|(found, _)| *found == column).map_or("", |(_, word)| word);
        let here = wanted.column == column;
        // Figures are looked at from the top.
        let descending = if here { !wanted.descending } else { column != Column::Path };
        let sort = match (here, wanted.descending) {
            (false, _) => "",
            (true, true) => "descending",
            (true, false) => "ascending",
        };
        Heading { name, href: url(asked, &format!("{}{word}", if descending { "-" } else { "" }), 1), sort, number }
    };
    vec![
        heading("Path", Column::Path, false),
        heading("Size", Column::Size, true),
        heading("Copies", Column::Copies, true),
        heading("Commit", Column::Committed, false),
        heading("Looked upstream", Column::Refreshed, false),
    ]
}

fn row(entry: &Repository, copies: usize) -> Row {
    let snapshot = entry.snapshot.as_ref();
    let commit = snapshot.map(|snapshot| snapshot.commit.to_string()).unwrap_or_default();
    Row {
        href: format!("/repos/{}", encode_path(entry.path.as_str())),
        path: clean(entry.path.as_str()),
        state: State::of_repository(entry, copies),
        commit: short(&commit).to_owned(),
        committed: When::at(snapshot.map_or(0, |snapshot| snapshot.commit_time)),
        size: snapshot.map_or("–".to_owned(), |snapshot| size(snapshot.bytes)),
        copies: format!("{} of {copies}", entry.holders.len()),
        refreshed: When::at(entry.refreshed_at),
    }
}

#[cfg(test)]
mod tests {
    use monofs_model::{DisplayPath, ObjectFormat, ObjectKind, Oid, RefName, Snapshot, SourceUrl};

    use super::*;

    fn entry(number: usize) -> Arc<Repository> {
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, b"");
        let snapshot = Snapshot {
            commit: oid,
            root: oid,
            commit_time: number as i64,
            trees: 1,
            blobs: 1,
            bytes: (number * 7919 % 1000) as u64,
            submodules: Vec::new(),
        };
        Arc::new(Repository {
            path: DisplayPath::new(&format!("host/Org/repo{number:05}")).expect("a path"),
            source: SourceUrl::new(&format!("https://host/org/repo{number}")).expect("a source"),
            ref_name: RefName::new("main").expect("a ref"),
            state: if number.is_multiple_of(10) { RepositoryState::Failed } else { RepositoryState::Ready },
            snapshot: Some(snapshot),
            generation: 1,
            holders: Vec::new(),
            content: Default::default(),
            consistency: Default::default(),
            created_at: 0,
            refreshed_at: 0,
            last_error: String::new(),
        })
    }

    fn wanted(q: &str, state: &str, sort: &str, page: &str) -> Wanted {
        let asked = Asked { q: q.into(), state: state.into(), sort: sort.into(), page: page.into() };
        Wanted::new(&asked, 2)
    }

    #[test]
    fn any_page_of_any_order_is_what_sorting_everything_gives() {
        let all: Vec<_> = (0..1234).map(entry).collect();
        for sort in ["path", "-path", "size", "-size", "committed", "-refreshed", "nonsense"] {
            for page in ["1", "2", "13", "25", "26", "99", "x"] {
                let wanted = wanted("", "", sort, page);
                let mut sorted = all.clone();
                sorted.sort_by(|a, b| wanted.order(a, b));
                let (shown, total) = wanted.select(all.iter().cloned());
                let expected: Vec<_> = sorted.into_iter().skip(wanted.page * PAGE).take(PAGE).collect();
                assert_eq!((shown, total), (expected, 1234), "{sort} {page}");
            }
        }
    }

    #[test]
    fn filters_look_at_paths_and_sources_and_states() {
        let all = || (0..100).map(entry);
        assert_eq!(wanted("ORG/repo0001", "", "", "").select(all()).1, 10);
        assert_eq!(wanted("org/repo7", "", "", "").select(all()).1, 11, "by source");
        assert_eq!(wanted("", "failed", "", "").select(all()).1, 10);
        assert_eq!(wanted("", "few", "", "").select(all()).1, 90);
        let long = wanted(&"ä".repeat(500), "", "", "");
        assert!(long.text.len() <= FILTER_MAX && long.select(all()).1 == 0);
    }
}
