//! The runs of generations that this mount showed late, kept in the cache: a mount after this one shows
//! them with the same times.

use std::collections::BTreeMap;

use prost::Message;

use monofs_content::cache::Cache;
use monofs_content::repo::Repo;
use monofs_content::times::{KeptLateRun, KeptLateRuns, LateRun};

/// The value in the cache.
const VALUE: &str = "late";
/// Repositories whose late runs are remembered; beyond that, those first in the order of paths go.
const REPOSITORIES_MAX: usize = 4096;

/// Late runs by the path of the repository.
#[derive(Debug, Default)]
pub(super) struct LateRuns(BTreeMap<String, Vec<LateRun>>);

impl LateRuns {
    /// What is kept in `cache`. What is not understood is as good as not there.
    pub fn load(cache: &Cache) -> Self {
        let kept = cache.value(VALUE).unwrap_or_default();
        let mut runs = Self::default();
        for kept in KeptLateRuns::decode(&kept[..]).unwrap_or_default().runs {
            let run = LateRun {
                first: kept.first,
                last: kept.last,
                shown_at: kept.shown_at,
            };
            runs.0.entry(kept.path).or_default().push(run);
        }
        runs
    }

    /// Tells a repository that comes to be shown what was late of it. Runs of generations that it did
    /// not come to yet are of another history.
    pub fn tell(&self, repo: &Repo) {
        let (last, _) = repo.shown_times().last();
        let runs = self.0.get(repo.path()).into_iter().flatten();
        let mut runs = runs.filter(|run| run.last <= last).peekable();
        if runs.peek().is_some() {
            repo.learn_times(|known| runs.for_each(|run| known.add_late(*run)));
        }
    }

    /// Keeps what a repository was shown late.
    pub fn add(&mut self, cache: &Cache, repo: &Repo) {
        let runs = repo.look_at_times(|known| known.late_runs().to_vec());
        self.0
            .insert(repo.path().to_owned(), runs.unwrap_or_default());
        if self.0.len() > REPOSITORIES_MAX {
            self.0.pop_first();
        }
        self.keep(cache);
    }

    /// Forgets a repository that is gone: what comes to its path is of other generations.
    pub fn forget(&mut self, cache: &Cache, path: &str) {
        if self.0.remove(path).is_some() {
            self.keep(cache);
        }
    }

    fn keep(&self, cache: &Cache) {
        let all = self.0.iter().flat_map(|(path, runs)| {
            runs.iter().map(|run| KeptLateRun {
                path: path.clone(),
                first: run.first,
                last: run.last,
                shown_at: run.shown_at,
            })
        });
        let kept = KeptLateRuns {
            runs: all.collect(),
        };
        cache.put_value(VALUE, kept.encode_to_vec());
    }
}
