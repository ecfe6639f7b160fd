//! Which entries match, sorted and cut: one pass over all of them, on a thread that may block.

use std::cmp::Ordering;
use std::sync::Arc;

use monofs_model::{Error, Repository, RepositoryState, Result};

use super::Catalog;

/// Searches at the same time; more wait.
pub(super) const SEARCHES_MAX: usize = 2;
/// Entries looked at while the catalogue cannot change.
const PAGE: usize = 2000;

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// In lower case; all of them must be part of the path or the source.
    pub words: Vec<String>,
    pub state: Option<RepositoryState>,
    /// Only those that failed, are ready with fewer holders than this, or whose last refresh failed.
    pub troubled_below: Option<usize>,
}

/// By what they are sorted; equal ones by their path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sorting {
    Path,
    State,
    Bytes,
    Files,
    Copies,
    Created,
    Refreshed,
    Committed,
}

impl Filter {
    fn takes(&self, entry: &Repository) -> bool {
        let troubled = |copies: usize| {
            !entry.last_error.is_empty()
                || entry.state == RepositoryState::Failed
                || (entry.state == RepositoryState::Ready && entry.holders.len() < copies)
        };
        self.state.is_none_or(|state| state == entry.state)
            && self.troubled_below.is_none_or(troubled)
            && (self.words.is_empty() || {
                let (path, source) = (entry.path.as_str().to_lowercase(), entry.source.as_str().to_lowercase());
                self.words.iter().all(|word| path.contains(word) || source.contains(word))
            })
    }
}

impl Sorting {
    fn key(self, entry: &Repository) -> i64 {
        let of_snapshot = |value: fn(&monofs_model::Snapshot) -> u64| {
            entry.snapshot.as_ref().map_or(-1, |snapshot| i64::try_from(value(snapshot)).unwrap_or(i64::MAX))
        };
        match self {
            Self::Path => 0,
            Self::State => match entry.state {
                RepositoryState::Failed => 0,
                RepositoryState::Ingesting => 1,
                RepositoryState::Ready => 2,
            },
            Self::Bytes => of_snapshot(|snapshot| snapshot.bytes),
            Self::Files => of_snapshot(|snapshot| snapshot.blobs),
            Self::Copies => entry.holders.len() as i64,
            Self::Created => entry.created_at,
            Self::Refreshed => entry.refreshed_at,
            Self::Committed => entry.snapshot.as_ref().map_or(i64::MIN, |snapshot| snapshot.commit_time),
        }
    }
}

impl Catalog {
    /// `limit` of the matching entries after the first `offset`, and how many match in all. Errors: the router stops.
    pub async fn search(
        catalog: &Arc<Self>,
        filter: Filter,
        sorting: Sorting,
        descending: bool,
        offset: usize,
        limit: usize,
    ) -> Result<(Vec<Arc<Repository>>, usize)> {
        let _place = catalog.searches.acquire().await.map_err(|_| Error::unavailable("this router stops"))?;
        let catalog = catalog.clone();
        let work = tokio::task::spawn_blocking(move || {
            let found = catalog.matching(&filter);
            let total = found.len();
            (cut(found, sorting, descending, offset, limit), total)
        });
        work.await.map_err(|e| Error::internal(format!("a search of the catalogue ended early: {e}")))
    }

    /// In the order of their paths.
    fn matching(&self, filter: &Filter) -> Vec<Arc<Repository>> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.page("", &after, PAGE);
            let Some(last) = page.last() else { return found };
            after = last.path.to_string();
            found.extend(page.into_iter().filter(|entry| filter.takes(entry)));
        }
    }
}

/// `found` is in the order of paths.
fn cut(
    mut found: Vec<Arc<Repository>>,
    sorting: Sorting,
    descending: bool,
    offset: usize,
    limit: usize,
) -> Vec<Arc<Repository>> {
    let end = offset.saturating_add(limit).min(found.len());
    if offset >= end {
        return Vec::new();
    }
    if sorting == Sorting::Path {
        if descending {
            found.reverse();
        }
        return found.drain(offset..end).collect();
    }
    // What comes after the part that is wanted need not be sorted.
    let mut keyed: Vec<(i64, usize)> = found.iter().enumerate().map(|(at, entry)| (sorting.key(entry), at)).collect();
    let order = |a: &(i64, usize), b: &(i64, usize)| -> Ordering {
        let by_key = if descending { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) };
        by_key.then(a.1.cmp(&b.1))
    };
    if end < keyed.len() {
        keyed.select_nth_unstable_by(end - 1, order);
        keyed.truncate(end);
    }
    keyed.sort_unstable_by(order);
    keyed[offset..].iter().map(|(_, at)| found[*at].clone()).collect()
}
