//! The list of repositories: filtered, sorted, one page of it, whatever the size of the catalogue.

use askama::Template;
use monofs_model::{Repository, RepositoryState, Result};
use serde::Deserialize;

use super::parts::State;
use super::shell::Shell;
use super::text::{When, clean, encode_path, number, short, size};
use monofs_api::percent::percent_encoded;
use monofs_control::catalog::{
    FoundRepositories, RepositoryFilter, RepositoryQuery, RepositorySorting, SortDirection,
};
use monofs_router::parts::Parts;

/// Entries on one page.
const PAGE: usize = 50;
/// Longest filter, in bytes.
const FILTER_MAX: usize = 200;

/// The query of the page.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct RepositoriesQuery {
    q: String,
    state: String,
    sort: String,
    page: String,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    All,
    In(RepositoryState),
    /// Those that somebody should look at.
    Troubled,
}

/// With the word in the URL and the one on the page.
const CHOICES: [(Only, &str, &str); 5] = [
    (Only::All, "", "all"),
    (Only::Troubled, "troubled", "need a look"),
    (Only::In(RepositoryState::Ready), "ready", "ready"),
    (
        Only::In(RepositoryState::Ingesting),
        "ingesting",
        "ingesting",
    ),
    (Only::In(RepositoryState::Failed), "failed", "failed"),
];

/// With the word in the URL.
const COLUMNS: [(RepositorySorting, &str); 5] = [
    (RepositorySorting::Path, "path"),
    (RepositorySorting::Bytes, "size"),
    (RepositorySorting::Copies, "copies"),
    (RepositorySorting::Committed, "committed"),
    (RepositorySorting::Refreshed, "refreshed"),
];

/// The query, understood; what it does not say, or says wrongly, is as it is without it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WantedPage {
    /// In lower case.
    words: Vec<String>,
    only: Only,
    sorting: RepositorySorting,
    descending: bool,
    /// From 0.
    page: usize,
}

impl WantedPage {
    fn new(asked: &RepositoriesQuery) -> Self {
        let mut text = asked.q.to_lowercase();
        text.truncate(text.floor_char_boundary(FILTER_MAX));
        let (name, descending) = match asked.sort.strip_prefix('-') {
            Some(name) => (name, true),
            None => (asked.sort.as_str(), false),
        };
        let sorting = COLUMNS
            .iter()
            .find(|(_, word)| *word == name)
            .map_or(RepositorySorting::Path, |(sorting, _)| *sorting);
        let only = CHOICES
            .iter()
            .find(|(_, word, _)| *word == asked.state)
            .map_or(Only::All, |(only, ..)| *only);
        let page = asked
            .page
            .parse::<usize>()
            .unwrap_or(1)
            .saturating_sub(1)
            .min(usize::MAX / PAGE - 1);
        Self {
            words: text.split_whitespace().map(str::to_owned).collect(),
            only,
            sorting,
            descending,
            page,
        }
    }

    /// `copies`: wanted of each repository.
    fn filter(&self, copies: usize) -> RepositoryFilter {
        RepositoryFilter {
            words: self.words.clone(),
            state: match self.only {
                Only::In(state) => Some(state),
                _ => None,
            },
            troubled_below: (self.only == Only::Troubled).then_some(copies),
        }
    }
}

struct RepositoryRow {
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
pub(super) struct RepositoriesPage {
    shell: Shell,
    asked: RepositoriesQuery,
    choices: Vec<Choice>,
    headings: Vec<Heading>,
    rows: Vec<RepositoryRow>,
    /// Such as `51 to 100 of 100,000`.
    range: String,
    filtered: bool,
    before: Option<String>,
    after: Option<String>,
}

pub(super) async fn page(state: &Parts, asked: &RepositoriesQuery) -> Result<RepositoriesPage> {
    let view = state.fleet.members.view();
    let copies = view.copies_wanted();
    let wanted = WantedPage::new(asked);
    let from = wanted.page * PAGE;
    let query = RepositoryQuery {
        filter: wanted.filter(copies),
        sorting: wanted.sorting,
        direction: if wanted.descending {
            SortDirection::Descending
        } else {
            SortDirection::Ascending
        },
        offset: from,
        limit: PAGE,
    };
    let FoundRepositories { shown, total } = state.control.catalog.search(query).await?;
    let first = if shown.is_empty() { 0 } else { from + 1 };
    let last = from.min(total) + shown.len();
    let choice = |(only, word, name)| Choice {
        word,
        name,
        chosen: only == wanted.only,
    };
    Ok(RepositoriesPage {
        shell: Shell::new(state, "Repositories", "/repos"),
        choices: CHOICES.into_iter().map(choice).collect(),
        headings: headings(asked, &wanted),
        rows: shown.iter().map(|entry| row(entry, copies)).collect(),
        range: format!(
            "{} to {} of {}",
            number(first as u64),
            number(last as u64),
            number(total as u64)
        ),
        filtered: !wanted.words.is_empty() || wanted.only != Only::All,
        before: (wanted.page > 0).then(|| url(asked, &asked.sort, wanted.page)),
        after: (last < total).then(|| url(asked, &asked.sort, wanted.page + 2)),
        asked: asked.clone(),
    })
}

/// `page`: from 1.
fn url(asked: &RepositoriesQuery, sort: &str, page: usize) -> String {
    let mut url = format!(
        "/repos?q={}&state={}&sort={}",
        encoded(&asked.q),
        encoded(&asked.state),
        encoded(sort)
    );
    if page > 1 {
        url.push_str(&format!("&page={page}"));
    }
    url
}

fn encoded(text: &str) -> String {
    percent_encoded(text.as_bytes())
}

fn headings(asked: &RepositoriesQuery, wanted: &WantedPage) -> Vec<Heading> {
    use RepositorySorting::{Bytes, Committed, Copies, Path, Refreshed};
    let columns = [
        ("Path", Path),
        ("Size", Bytes),
        ("Copies", Copies),
        ("Commit", Committed),
        ("Looked upstream", Refreshed),
    ];
    columns
        .map(|(name, column)| heading(asked, wanted, name, column))
        .into()
}

/// The heading of a column, with a link that sorts by it, or turns the order around.
fn heading(
    asked: &RepositoriesQuery,
    wanted: &WantedPage,
    name: &'static str,
    column: RepositorySorting,
) -> Heading {
    let mut columns = COLUMNS.iter();
    let found = columns.find(|(found, _)| *found == column);
    let word = found.map_or("", |(_, word)| word);
    let here = wanted.sorting == column;
    // Figures are looked at from the top.
    let turns_down = if here {
        !wanted.descending
    } else {
        column != RepositorySorting::Path
    };
    let sort = match (here, wanted.descending) {
        (false, _) => "",
        (true, true) => "descending",
        (true, false) => "ascending",
    };
    let mark = if turns_down { "-" } else { "" };
    Heading {
        name,
        href: url(asked, &format!("{mark}{word}"), 1),
        sort,
        number: matches!(column, RepositorySorting::Bytes | RepositorySorting::Copies),
    }
}

fn row(entry: &Repository, copies: usize) -> RepositoryRow {
    let snapshot = entry.snapshot.as_ref();
    let commit = snapshot
        .map(|snapshot| snapshot.commit.to_string())
        .unwrap_or_default();
    RepositoryRow {
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
    use super::*;

    fn asked(q: &str, state: &str, sort: &str, page: &str) -> RepositoriesQuery {
        RepositoriesQuery {
            q: q.into(),
            state: state.into(),
            sort: sort.into(),
            page: page.into(),
        }
    }

    #[test]
    fn a_query_that_says_nonsense_shows_the_first_page_of_all() {
        let wanted = WantedPage::new(&asked("  ", "x", "-nonsense", "x"));
        assert_eq!(
            (wanted.only, wanted.sorting, wanted.page),
            (Only::All, RepositorySorting::Path, 0)
        );
        let far = WantedPage::new(&asked(
            &"ä".repeat(500),
            "troubled",
            "-size",
            "99999999999999999999",
        ));
        assert!(far.words[0].len() <= FILTER_MAX);
        assert_eq!(
            (far.filter(2).troubled_below, far.sorting, far.descending),
            (Some(2), RepositorySorting::Bytes, true)
        );
    }

    #[test]
    fn links_keep_the_filter_and_turn_the_order() {
        let asked = asked("a&b", "ready", "size", "3");
        let headings = headings(&asked, &WantedPage::new(&asked));
        assert_eq!(headings[1].href, "/repos?q=a%26b&state=ready&sort=-size");
        assert_eq!((headings[1].sort, headings[0].sort), ("ascending", ""));
        assert_eq!(
            url(&asked, &asked.sort, 4),
            "/repos?q=a%26b&state=ready&sort=size&page=4"
        );
    }
}
