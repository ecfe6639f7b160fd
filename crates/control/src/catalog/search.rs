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
pub struct Filter {
    /// In lower case; all of them must be part of the path or the source.
    pub words: Vec<String>,
    pub state: Option<RepositoryState>,
    /// Only those that failed, are ready with fewer holders than this, or whose last refresh
    /// failed.
    pub troubled_below: Option<usize>,
}

/// By what they are sorted; equal ones by their path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sorting {
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
                let (path, source) = (
                    entry.path.as_str().to_lowercase(),
                    entry.source.as_str().to_lowercase(),
                );
                self.words
                    .iter()
                    .all(|word| path.contains(word) || source.contains(word))
            })
    }
}

impl Sorting {
    fn key(self, entry: &Repository) -> i64 {
        let of_snapshot = |value: fn(&monofs_model::Snapshot) -> u64| {
            entry.snapshot.as_ref().map_or(-1, |snapshot| {
                i64::try_from(value(snapshot)).unwrap_or(i64::MAX)
            })
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
            Self::Committed => entry
                .snapshot
                .as_ref()
                .map_or(i64::MIN, |snapshot| snapshot.commit_time),
        }
    }
}

impl Catalog {
    /// `limit` of the matching entries after the first `offset`, and how many match in all. Errors:
    /// the router stops.
    pub async fn search(
        catalog: &Arc<Self>,
        filter: Filter,
        sorting: Sorting,
        descending: bool,
        offset: usize,
        limit: usize,
    ) -> Result<(Vec<Arc<Repository>>, usize)> {
        let _place = catalog
            .searches
            .acquire()
            .await
            .map_err(|_| Error::unavailable("this router stops"))?;
        let catalog = catalog.clone();
        let work = tokio::task::spawn_blocking(move || {
            let found = catalog.matching(&filter);
            let total = found.len();
            (cut(found, sorting, descending, offset, limit), total)
        });
        work.await
            .map_err(|e| Error::internal(format!("a search of the catalogue ended early: {e}")))
    }

    /// In the order of their paths.
    fn matching(&self, filter: &Filter) -> Vec<Arc<Repository>> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.page("", &after, PAGE);
            let Some(last) = page.last() else {
                return found;
            };
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
    let mut keyed: Vec<(i64, usize)> = found
        .iter()
        .enumerate()
        .map(|(at, entry)| (sorting.key(entry), at))
        .collect();
    let order = |a: &(i64, usize), b: &(i64, usize)| -> Ordering {
        let by_key = if descending {
            b.0.cmp(&a.0)
        } else {
            a.0.cmp(&b.0)
        };
        by_key.then(a.1.cmp(&b.1))
    };
    if end < keyed.len() {
        keyed.select_nth_unstable_by(end - 1, order);
        keyed.truncate(end);
    }
    keyed.sort_unstable_by(order);
    keyed[offset..]
        .iter()
        .map(|(_, at)| found[*at].clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use monofs_model::{
        Consistency, ContentMode, DisplayPath, NodeId, Oid, RefName, Snapshot, SourceUrl,
    };

    use super::*;

    fn entry(number: usize) -> Arc<Repository> {
        let oid = Oid::from_bytes(&[7; 20]).expect("twenty bytes");
        // Scattered, with equal ones among them.
        let bytes = (number * 7919 % 1000) as u64;
        let snapshot = Snapshot {
            commit: oid,
            root: oid,
            commit_time: 5,
            trees: 1,
            blobs: 1,
            bytes,
            submodules: Vec::new(),
        };
        Arc::new(Repository {
            path: DisplayPath::new(&format!("h/{number:06}")).expect("a path"),
            source: SourceUrl::new(&format!("https://Example.com/Team/{number}"))
                .expect("a source"),
            ref_name: RefName::new("").expect("HEAD"),
            state: if number.is_multiple_of(10) {
                RepositoryState::Failed
            } else {
                RepositoryState::Ready
            },
            snapshot: (!number.is_multiple_of(10)).then_some(snapshot),
            generation: 1,
            holders: (0..number % 3)
                .map(|n| NodeId::new(&format!("n{n}")).expect("an id"))
                .collect(),
            content: ContentMode::Eager,
            consistency: Consistency::Eventual,
            created_at: 1,
            refreshed_at: 1,
            last_error: String::new(),
        })
    }

    #[test]
    fn a_part_of_a_sorted_list_is_the_same_as_that_part_of_all_of_it() {
        let all: Vec<_> = (0..3000).map(entry).collect();
        for sorting in [
            Sorting::Path,
            Sorting::State,
            Sorting::Bytes,
            Sorting::Copies,
            Sorting::Committed,
        ] {
            for descending in [false, true] {
                let whole = cut(all.clone(), sorting, descending, 0, all.len());
                let keys: Vec<i64> = whole.iter().map(|entry| sorting.key(entry)).collect();
                assert!(
                    if descending {
                        keys.is_sorted_by(|a, b| a >= b)
                    } else {
                        keys.is_sorted()
                    },
                    "{sorting:?}"
                );
                for (offset, limit) in [(0, 10), (995, 10), (2995, 10), (3000, 10), (usize::MAX, 1)]
                {
                    let part = cut(all.clone(), sorting, descending, offset, limit);
                    let expected: Vec<_> = whole.iter().skip(offset).take(limit).cloned().collect();
                    assert_eq!(part, expected, "{sorting:?} {descending} {offset}");
                }
            }
        }
    }

    #[test]
    fn filters_are_taken_together() {
        let count = |filter: Filter| {
            (0..100)
                .map(entry)
                .filter(|entry| filter.takes(entry))
                .count()
        };
        let words = |words: &[&str]| Filter {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Filter::default()
        };
        assert_eq!(count(Filter::default()), 100);
        assert_eq!(
            count(words(&["example.com"])),
            100,
            "of the source, without regard to case"
        );
        assert_eq!(count(words(&["00005"])), 11);
        assert_eq!(count(words(&["00005", "team/55"])), 1);
        assert_eq!(count(words(&["nowhere"])), 0);
        assert_eq!(
            count(Filter {
                state: Some(RepositoryState::Failed),
                ..Filter::default()
            }),
            10
        );
        // All that failed, and of the others those with none or one of two holders.
        assert_eq!(
            count(Filter {
                troubled_below: Some(2),
                ..Filter::default()
            }),
            70
        );
    }
}
