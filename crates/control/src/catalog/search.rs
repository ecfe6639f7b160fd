//! Which entries match, sorted and cut: pure, over the entries that [`super::Catalog::search`]
//! looks at.

use std::cmp::Ordering;
use std::sync::Arc;

use monofs_model::{Repository, RepositoryState, Snapshot};

/// Searches at the same time; more wait.
pub(super) const SEARCHES_MAX: usize = 2;
/// Entries looked at while the catalogue cannot change.
pub(super) const SEARCH_PAGE: usize = 2000;

/// Which entries are wanted, in which order, and which part of them.
#[derive(Debug, Clone)]
pub struct RepositoryQuery {
    pub filter: RepositoryFilter,
    pub sorting: RepositorySorting,
    pub direction: SortDirection,
    /// Matching entries that are passed over.
    pub offset: usize,
    /// Matching entries that are shown after those, at most.
    pub limit: usize,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct RepositoryFilter {
    /// In lower case; all of them must be part of the path or the source.
    pub words: Vec<String>,
    pub state: Option<RepositoryState>,
    /// Only those that failed, are ready with fewer holders than this, or whose last refresh
    /// failed.
    pub troubled_below: Option<usize>,
}

/// By what they are sorted; equal ones by their path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositorySorting {
    Path,
    State,
    Bytes,
    Files,
    Copies,
    Created,
    Refreshed,
    Committed,
}

/// From the lowest, or from the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortDirection {
    Ascending,
    Descending,
}

impl RepositoryFilter {
    pub(super) fn takes(&self, entry: &Repository) -> bool {
        self.state.is_none_or(|state| state == entry.state)
            && self
                .troubled_below
                .is_none_or(|copies| is_troubled(entry, copies))
            && (self.words.is_empty() || self.has_words(entry))
    }

    fn has_words(&self, entry: &Repository) -> bool {
        let path = entry.path.as_str().to_lowercase();
        let source = entry.source.as_str().to_lowercase();
        self.words
            .iter()
            .all(|word| path.contains(word) || source.contains(word))
    }
}

fn is_troubled(entry: &Repository, copies: usize) -> bool {
    !entry.last_error.is_empty()
        || entry.state == RepositoryState::Failed
        || (entry.state == RepositoryState::Ready && entry.holders.len() < copies)
}

impl RepositorySorting {
    fn key(self, entry: &Repository) -> i64 {
        match self {
            Self::Path => 0,
            Self::State => match entry.state {
                RepositoryState::Failed => 0,
                RepositoryState::Ingesting => 1,
                RepositoryState::Ready => 2,
            },
            Self::Bytes => count_of(entry, |snapshot| snapshot.bytes),
            Self::Files => count_of(entry, |snapshot| snapshot.blobs),
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

/// A number of the snapshot that an entry shows; -1 when it shows none.
fn count_of(entry: &Repository, count: fn(&Snapshot) -> u64) -> i64 {
    entry.snapshot.as_ref().map_or(-1, |snapshot| {
        i64::try_from(count(snapshot)).unwrap_or(i64::MAX)
    })
}

impl SortDirection {
    fn apply(self, ascending: Ordering) -> Ordering {
        match self {
            Self::Ascending => ascending,
            Self::Descending => ascending.reverse(),
        }
    }
}

impl RepositoryQuery {
    /// The part of `found` that is shown; `found` are all that match, in the order of paths.
    pub(super) fn cut(&self, mut found: Vec<Arc<Repository>>) -> Vec<Arc<Repository>> {
        let end = self.offset.saturating_add(self.limit).min(found.len());
        if self.offset >= end {
            return Vec::new();
        }
        if self.sorting == RepositorySorting::Path {
            if self.direction == SortDirection::Descending {
                found.reverse();
            }
            return found.drain(self.offset..end).collect();
        }
        // Equal keys stay in the order of paths.
        let mut keyed: Vec<(i64, usize)> = found
            .iter()
            .enumerate()
            .map(|(at, entry)| (self.sorting.key(entry), at))
            .collect();
        let order = |a: &(i64, usize), b: &(i64, usize)| -> Ordering {
            self.direction.apply(a.0.cmp(&b.0)).then(a.1.cmp(&b.1))
        };
        // What comes after the part that is wanted need not be sorted.
        if end < keyed.len() {
            keyed.select_nth_unstable_by(end - 1, order);
            keyed.truncate(end);
        }
        keyed.sort_unstable_by(order);
        let part = keyed[self.offset..].iter();
        part.map(|(_, at)| found[*at].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use monofs_model::{Consistency, ContentMode, DisplayPath, NodeId, Oid, RefName, SourceUrl};

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
            generations: None,
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
            generation_time: None,
            root_time: None,
            holders: (0..number % 3)
                .map(|n| NodeId::new(&format!("n{n}")).expect("an id"))
                .collect(),
            content: ContentMode::Eager,
            consistency: Consistency::Eventual,
            created_at: 1,
            refreshed_at: 1,
            last_error: String::new(),
            shadowed_by: None,
        })
    }

    #[test]
    fn a_part_of_a_sorted_list_is_the_same_as_that_part_of_all_of_it() {
        let all: Vec<_> = (0..3000).map(entry).collect();
        for sorting in [
            RepositorySorting::Path,
            RepositorySorting::State,
            RepositorySorting::Bytes,
            RepositorySorting::Copies,
            RepositorySorting::Committed,
        ] {
            for direction in [SortDirection::Ascending, SortDirection::Descending] {
                let cut = |offset: usize, limit: usize| {
                    let query = RepositoryQuery {
                        filter: RepositoryFilter::default(),
                        sorting,
                        direction,
                        offset,
                        limit,
                    };
                    query.cut(all.clone())
                };
                let whole = cut(0, all.len());
                let keys: Vec<i64> = whole.iter().map(|entry| sorting.key(entry)).collect();
                let sorted = match direction {
                    SortDirection::Ascending => keys.is_sorted(),
                    SortDirection::Descending => keys.is_sorted_by(|a, b| a >= b),
                };
                assert!(sorted, "{sorting:?}");
                for (offset, limit) in [(0, 10), (995, 10), (2995, 10), (3000, 10), (usize::MAX, 1)]
                {
                    let part = cut(offset, limit);
                    let expected: Vec<_> = whole.iter().skip(offset).take(limit).cloned().collect();
                    assert_eq!(part, expected, "{sorting:?} {direction:?} {offset}");
                }
            }
        }
    }

    #[test]
    fn filters_are_taken_together() {
        let count = |filter: RepositoryFilter| {
            (0..100)
                .map(entry)
                .filter(|entry| filter.takes(entry))
                .count()
        };
        let words = |words: &[&str]| RepositoryFilter {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            ..RepositoryFilter::default()
        };
        assert_eq!(count(RepositoryFilter::default()), 100);
        assert_eq!(
            count(words(&["example.com"])),
            100,
            "of the source, without regard to case"
        );
        assert_eq!(count(words(&["00005"])), 11);
        assert_eq!(count(words(&["00005", "team/55"])), 1);
        assert_eq!(count(words(&["nowhere"])), 0);
        assert_eq!(
            count(RepositoryFilter {
                state: Some(RepositoryState::Failed),
                ..RepositoryFilter::default()
            }),
            10
        );
        // All that failed, and of the others those with none or one of two holders.
        assert_eq!(
            count(RepositoryFilter {
                troubled_below: Some(2),
                ..RepositoryFilter::default()
            }),
            70
        );
    }
}
