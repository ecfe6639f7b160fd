//! What is asked: operations, their shares, and how popular each directory and file is.
//!
//! Popularity has two levels: a repository is drawn, then a directory or file in it. On both, rank
//! k has the weight k^-s (Zipf); ranks are a seeded permutation, and s = 0 is uniform.

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};

use super::corpus::{Corpus, KnownFile};
use super::operation::{LoadOperation, LoadTask, Workload};
use super::rng::SeededRng;

/// Exponent of the popularity of `mixed` unless told otherwise: what web and file traces show
/// (YCSB's default, too).
pub const ZIPF_MIXED: f64 = 0.99;
/// The shares of `mixed`, in percent. Like a cold checkout under an editor or a build: many names,
/// fewer contents.
pub const MIXED: [(LoadOperation, u32); 5] = [
    (LoadOperation::Resolve, 5),
    (LoadOperation::Lookup, 45),
    (LoadOperation::List, 15),
    (LoadOperation::ReadSmall, 30),
    (LoadOperation::ReadLarge, 5),
];

/// Draws items by popularity.
struct Popularity {
    /// Sums of the weights up to each item.
    sums: Vec<f64>,
    items: Vec<u32>,
}

impl Popularity {
    /// Over items `(repository, weight)`; what weighs nothing is never drawn. `None` when nothing
    /// can be.
    fn new(
        items: impl Iterator<Item = (u32, f64)>,
        zipf: f64,
        rng: &mut SeededRng,
    ) -> Option<Self> {
        // Items group by group, and the order of the groups is their rank.
        let mut groups: Vec<(u32, Vec<(u32, f64)>)> = Vec::new();
        for (number, (repository, weight)) in
            items.enumerate().filter(|(_, (_, weight))| *weight > 0.0)
        {
            // Items come repository by repository.
            match groups.last_mut() {
                Some((last, group)) if *last == repository => group.push((number as u32, weight)),
                _ => groups.push((repository, vec![(number as u32, weight)])),
            }
        }
        rng.shuffle(&mut groups);
        // Each item gets its part of the weight of its group.
        let mut drawn = Self {
            sums: Vec::new(),
            items: Vec::new(),
        };
        let mut sum = 0.0;
        for (rank, (_, mut group)) in groups.into_iter().enumerate() {
            rng.shuffle(&mut group);
            let weights = group.iter().enumerate();
            let whole: f64 = weights
                .map(|(place, (_, weight))| weight * share(place, zipf))
                .sum();
            for (place, (item, weight)) in group.into_iter().enumerate() {
                sum += share(rank, zipf) * weight * share(place, zipf) / whole;
                drawn.sums.push(sum);
                drawn.items.push(item);
            }
        }
        (sum > 0.0).then_some(drawn)
    }

    fn draw(&self, rng: &mut SeededRng) -> usize {
        let point = rng.unit() * self.sums.last().copied().unwrap_or_default();
        let at = self
            .sums
            .partition_point(|sum| *sum <= point)
            .min(self.items.len() - 1);
        self.items[at] as usize
    }
}

/// The weight of a rank, counted from 0.
fn share(rank: usize, zipf: f64) -> f64 {
    ((rank + 1) as f64).powf(-zipf)
}

/// Draws tasks.
pub struct LoadMix {
    parts: Vec<(LoadOperation, u32, Popularity)>,
    whole: u32,
}

impl LoadMix {
    /// What `workload` asks of this corpus. Errors: the corpus has nothing of the kind.
    pub fn new(workload: Workload, corpus: &Corpus, zipf: f64, seed: u64) -> Result<Self> {
        let mut rng = SeededRng::new(seed, u64::MAX);
        let single = [(workload.only(), 1)];
        let wanted: &[(LoadOperation, u32)] = if workload == Workload::Mixed {
            &MIXED
        } else {
            &single
        };
        // What each operation can ask for; of `mixed`, one that has nothing is left out.
        let mut parts = Vec::new();
        for (operation, share) in wanted {
            let items: Vec<(u32, f64)> = match operation {
                LoadOperation::Resolve => (0..corpus.repositories.len() as u32)
                    .map(|number| (number, 1.0))
                    .collect(),
                LoadOperation::Lookup => corpus
                    .directories
                    .iter()
                    .map(|d| (d.repository, f64::from(d.entries)))
                    .collect(),
                LoadOperation::List => corpus
                    .directories
                    .iter()
                    .map(|d| (d.repository, 1.0))
                    .collect(),
                LoadOperation::ReadSmall => alike(&corpus.small),
                LoadOperation::ReadLarge => alike(&corpus.large),
            };
            if let Some(popularity) = Popularity::new(items.into_iter(), zipf, &mut rng) {
                parts.push((*operation, *share, popularity));
            } else if workload != Workload::Mixed {
                return Err(nothing(*operation).into());
            }
        }
        let whole = parts.iter().map(|(_, share, _)| share).sum();
        Ok(Self { parts, whole })
    }

    /// The operations that will be asked. Of `mixed`, those that the corpus has nothing for are
    /// left out, and the others keep their proportions.
    pub fn operations(&self) -> impl Iterator<Item = LoadOperation> {
        self.parts.iter().map(|(operation, ..)| *operation)
    }

    /// The next task.
    pub fn draw(&self, rng: &mut SeededRng) -> LoadTask {
        let mut point = rng.below(self.whole as usize) as u32;
        let mut at = 0;
        while let Some((_, share, _)) = self.parts.get(at)
            && point >= *share
        {
            point -= share;
            at += 1;
        }
        let (operation, _, popularity) = &self.parts[at.min(self.parts.len() - 1)];
        LoadTask {
            operation: *operation,
            item: popularity.draw(rng),
            random: rng.bits(),
        }
    }
}

/// Files as items that are equally popular.
fn alike(files: &[KnownFile]) -> Vec<(u32, f64)> {
    files.iter().map(|file| (file.repository, 1.0)).collect()
}

fn nothing(operation: LoadOperation) -> Failure {
    let what = match operation {
        LoadOperation::Resolve => "no repository",
        LoadOperation::Lookup => "no directory with entries",
        LoadOperation::List => "no directory",
        LoadOperation::ReadSmall => "no file of at most 64 KiB",
        LoadOperation::ReadLarge => "no file over 1 MiB",
    };
    Failure::new(
        Code::Refused,
        format!("the chosen repositories have {what}, which {operation} needs"),
    )
    .hint("choose others with --path, or another --workload")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_draws_follow_their_ranks_and_nothing_without_weight() {
        let mut rng = SeededRng::new(1, 0);
        let items = || (0..100u32).map(|item| (0, if item == 7 { 0.0 } else { 1.0 }));
        let drawn = Popularity::new(items(), 1.0, &mut rng).expect("there are items");
        let mut counts = [0u32; 100];
        (0..100_000).for_each(|_| counts[drawn.draw(&mut rng)] += 1);
        assert_eq!(counts[7], 0);
        let first = counts[drawn.items[0] as usize];
        let second = counts[drawn.items[1] as usize];
        // The first of 99 ranks has 1 / H(99) = 19.3 % of the draws, the second half of that.
        assert!(
            (18_500..20_200).contains(&first) && (9_100..10_300).contains(&second),
            "{first} {second}"
        );
        let uniform = Popularity::new(items(), 0.0, &mut rng).expect("there are items");
        let mut counts = [0u32; 100];
        (0..100_000).for_each(|_| counts[uniform.draw(&mut rng)] += 1);
        assert!(
            counts
                .iter()
                .enumerate()
                .all(|(item, count)| item == 7 || (800..1250).contains(count)),
            "{counts:?}"
        );
        assert!(Popularity::new([(0, 0.0)].into_iter(), 0.0, &mut rng).is_none());
    }

    #[test]
    fn repositories_are_drawn_first_whatever_their_size() {
        let mut rng = SeededRng::new(2, 0);
        let items = (0..1010u32).map(|item| (u32::from(item >= 10), 1.0));
        let drawn = Popularity::new(items, 0.0, &mut rng).expect("there are items");
        let small = (0..10_000).filter(|_| drawn.draw(&mut rng) < 10).count();
        assert!((4700..5300).contains(&small), "{small}");
    }

    #[test]
    fn a_seed_decides_everything() {
        let draws = |seed| {
            (0..4)
                .map(|_| ())
                .scan(SeededRng::new(seed, 3), |rng, ()| Some(rng.bits()))
                .collect::<Vec<_>>()
        };
        assert_eq!(draws(5), draws(5));
        assert_ne!(draws(5), draws(6));
        assert_eq!(MIXED.iter().map(|(_, share)| share).sum::<u32>(), 100);
    }
}
