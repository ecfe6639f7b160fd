//! The copy of the catalogue in the cache, for a start without any router and to resume from:
//! written in parts, so that a change of one repository does not rewrite all of them.
//!
//! A repository's part is decided by its path. A part is a `CatalogPage`; the head, written after
//! the parts, has the position they are as of, and their checksums. Invariant: a copy whose parts
//! are not those of its head (the disk was full, or the process killed in between) is shown if
//! there is no router, but nothing is resumed from it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use monofs_content::cache::Cache;
use monofs_content::packed::{self, CheckedEntry, PageCheck};
use monofs_content::repo::Repo;
use monofs_proto::v1;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::fs::Fs;

/// Number of parts.
const PARTS: usize = 64;
/// Version of the copy; another one is ignored.
const VERSION: u32 = 1;
const HEAD: &str = "catalog/head";

static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    (0..PARTS)
        .map(|part| format!("catalog/{part:02}"))
        .collect()
});

#[derive(Clone, PartialEq, Message)]
struct CopyHead {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    position: Option<v1::Position>,
    /// Of each part; 0 = there is none.
    #[prost(fixed64, repeated, tag = "3")]
    checksums: Vec<u64>,
}

/// What is on disk, and what of it is out of date.
#[derive(Debug)]
pub struct CatalogCopy {
    checksums: Vec<u64>,
    outdated: BTreeSet<usize>,
}

/// What a copy says.
#[derive(Debug)]
pub struct LoadedCopy {
    /// `None`: it cannot be said what changed since.
    pub position: Option<v1::Position>,
    pub entries: Vec<CheckedEntry>,
}

fn part_of(path: &str) -> usize {
    xxh3_64(path.as_bytes()) as usize % PARTS
}

impl Default for CatalogCopy {
    fn default() -> Self {
        Self {
            checksums: vec![0; PARTS],
            outdated: (0..PARTS).collect(),
        }
    }
}

impl CatalogCopy {
    /// Reads the copy in the cache, if there is one.
    pub async fn load(&mut self, cache: &Cache) -> Option<LoadedCopy> {
        let head = CopyHead::decode(&cache.value(HEAD)?[..]).ok()?;
        if head.version != VERSION || head.checksums.len() != PARTS {
            return None;
        }
        let mut pages = Vec::new();
        let mut loaded = LoadedCopy {
            position: head.position,
            entries: Vec::new(),
        };
        for (part, checksum) in head
            .checksums
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, checksum)| *checksum != 0)
        {
            let bytes = Bytes::from(cache.value(&NAMES[part]).unwrap_or_default());
            if xxh3_64(&bytes) == checksum {
                self.checksums[part] = checksum;
                self.outdated.remove(&part);
            } else {
                loaded.position = None;
            }
            pages.push(PageCheck::begin(bytes));
        }
        for page in pages {
            // A part that is no page is not that of the head either, and will be written again.
            loaded
                .entries
                .extend(page.entries().await.unwrap_or_default());
        }
        // A part that is not there is as it should be.
        self.outdated.retain(|part| head.checksums[*part] != 0);
        Some(loaded)
    }

    /// What is shown at `path` may have changed.
    pub fn outdate(&mut self, path: &str) {
        if self.outdated.len() < PARTS {
            self.outdated.insert(part_of(path));
        }
    }

    /// Writes what is out of date of what `fs` shows, as of `position`. Returns the number of
    /// bytes.
    pub fn write(&mut self, fs: &Fs, position: Option<v1::Position>) -> usize {
        let mut parts: Vec<Vec<Arc<Repo>>> = vec![Vec::new(); PARTS];
        if !self.outdated.is_empty() {
            for repo in fs.world().repos() {
                let part = part_of(repo.path());
                if self.outdated.contains(&part) {
                    parts[part].push(repo.clone());
                }
            }
        }
        let mut written = 0;
        for part in std::mem::take(&mut self.outdated) {
            // In order, so that the same entries are the same bytes.
            parts[part].sort_by(|a, b| a.path().cmp(b.path()));
            let page = packed::page(parts[part].iter().map(|repo| repo.to_packed()));
            let checksum = if page.is_empty() { 0 } else { xxh3_64(&page) };
            if checksum != self.checksums[part] {
                self.checksums[part] = checksum;
                written += page.len();
                fs.cache.put_value(&NAMES[part], page);
            }
        }
        let head = CopyHead {
            version: VERSION,
            position,
            checksums: self.checksums.clone(),
        }
        .encode_to_vec();
        written += head.len();
        fs.cache.put_value(HEAD, head);
        written
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::{Oid, Repository};

    use super::*;
    use crate::fs::namespace::tests::entry;
    use crate::fs::switch::FlipTarget;
    use monofs_content::counters::Counters;
    use monofs_content::evidence::Marks;

    const MANY: usize = 20_000;

    fn path(number: usize) -> String {
        format!("h/org-{:03}/project-{number:05}", number % 100)
    }

    fn at(revision: u64) -> Option<v1::Position> {
        Some(v1::Position {
            epoch: "e".into(),
            revision,
        })
    }

    fn repository(number: usize, generation: u64) -> Arc<Repository> {
        entry(
            &path(number),
            Oid::from_bytes(&[1; 20]).unwrap(),
            generation,
        )
    }

    /// A file system that shows many repositories, and its cache.
    fn many(dir: &std::path::Path) -> Fs {
        let counters = Arc::new(Counters::default());
        let cache = Cache::open(dir, 64 << 20, counters.clone()).unwrap();
        let fs = Fs::new(
            cache,
            Marks::new(counters),
            Box::new(|_| Bytes::from_static(b"{}")),
            1,
        );
        fs.change_repositories(
            (0..MANY)
                .filter_map(|number| Repo::new(repository(number, 1)))
                .collect(),
            &[],
        );
        fs
    }

    async fn load(fs: &Fs) -> LoadedCopy {
        fs.cache.flush();
        CatalogCopy::default().load(&fs.cache).await.unwrap()
    }

    #[tokio::test]
    async fn a_flip_rewrites_a_small_part() {
        let dir = tempfile::tempdir().unwrap();
        let fs = many(dir.path());
        let mut copy = CatalogCopy::default();
        assert!(copy.load(&fs.cache).await.is_none());
        let all = copy.write(&fs, at(1));
        assert!(all / MANY < 256, "{all} bytes for {MANY} repositories");
        let loaded = load(&fs).await;
        assert_eq!((loaded.position, loaded.entries.len()), (at(1), MANY));

        let repo = fs.repo(&path(5)).unwrap();
        let target = FlipTarget {
            entry: &repository(5, 2),
            lost: &Default::default(),
            late: None,
        };
        fs.try_flip(&repo, &target).unwrap();
        copy.outdate(&path(5));
        let one = copy.write(&fs, at(2));
        assert!(one < all / (PARTS / 2), "{one} of {all} bytes");
        let loaded = load(&fs).await;
        let (_, flipped) = loaded
            .entries
            .into_iter()
            .find(|(of, _)| *of == path(5))
            .unwrap();
        assert_eq!(
            (loaded.position, flipped.unwrap().decode().generation),
            (at(2), 2)
        );
        // What did not change is not written, only where the catalogue is now.
        assert!(copy.write(&fs, at(3)) < 1024);
        assert_eq!(load(&fs).await.position, at(3));
    }

    #[tokio::test]
    async fn nothing_is_resumed_from_a_copy_that_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let fs = many(dir.path());
        CatalogCopy::default().write(&fs, at(1));
        let part = part_of(&path(0));
        fs.cache.flush();
        fs.cache.put_value(
            &NAMES[part],
            packed::page([fs.repo(&path(0)).unwrap().to_packed()].into_iter()),
        );
        let mut copy = CatalogCopy::default();
        fs.cache.flush();
        let loaded = copy.load(&fs.cache).await.unwrap();
        assert_eq!(loaded.position, None);
        assert!((MANY / 2..MANY).contains(&loaded.entries.len()));
        // And the part is written again.
        copy.write(&fs, at(2));
        let loaded = load(&fs).await;
        assert_eq!((loaded.position, loaded.entries.len()), (at(2), MANY));
    }
}
