//! Random repositories and random edits from a seed, for tests against the reference model.
//!
//! The same seed gives the same commits on every machine; a failing test prints its seed and
//! nothing else is needed.

use monofs_model::Oid;
use monofs_model::limits::NAME_BYTES_MAX;

use crate::model::{ExpectedKind, ExpectedTree};
use crate::repo::{Changes, Repo, pattern};

/// Deepest path a generator makes, in names.
const DEPTH_MAX: u64 = 5;
/// Largest random file in bytes, rarely reached.
const FILE_BYTES_MAX: u64 = 3 << 20;

/// A small deterministic generator of numbers (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(usize::try_from(self.below(items.len() as u64)).unwrap_or(0))
    }
}

/// The seed of this run: `MONOFS_TEST_SEED`, or the one given.
pub fn seed_or(default: u64) -> u64 {
    std::env::var("MONOFS_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Fills `main` with a first commit of about `files` entries.
pub fn populate(repo: &Repo, rng: &mut Rng, files: usize) -> Oid {
    repo.commit(|changes| {
        for _ in 0..files {
            let path = path(rng);
            add(changes, rng, &path);
        }
        changes.file("always", b"so that the tree is never empty\n");
    })
}

/// Adds a commit of up to `edits` random changes to `main`: add, change, delete, rename, flip the
/// exec bit, turn a file into a directory and back, retarget a link, delete a whole directory.
pub fn edit(repo: &Repo, rng: &mut Rng, edits: usize) -> Oid {
    let before = ExpectedTree::of(repo, "main");
    let edited = before.entries.iter().filter(|(path, entry)| {
        *path != b"always" && !matches!(entry.kind, ExpectedKind::Submodule { .. })
    });
    let mut entries: Vec<(Vec<u8>, ExpectedKind)> = edited
        .map(|(path, entry)| (path.clone(), entry.kind.clone()))
        .collect();
    repo.commit(|changes| {
        for _ in 0..edits {
            one_edit(changes, rng, &mut entries);
        }
        // A commit always changes something, and the tree is never empty.
        changes.file("always", rng.bits().to_string());
    })
}

/// One change of a random kind; entries that it touched are taken out of `entries`.
fn one_edit(changes: &mut Changes<'_>, rng: &mut Rng, entries: &mut Vec<(Vec<u8>, ExpectedKind)>) {
    if rng.one_in(3) {
        let path = path(rng);
        entries.retain(|(other, _)| !touches(other, &path));
        return add(changes, rng, &path);
    }
    let Some((path, kind)) = rng.pick(entries).cloned() else {
        return;
    };
    // What has been touched in this commit is left alone: fast-import refuses to rename what is no
    // longer there.
    entries.retain(|(other, _)| !touches(other, &path));
    // What can happen to an entry depends on its kind.
    match (kind, rng.below(4)) {
        (ExpectedKind::Directory, 0) => drop(changes.delete(&path)),
        (ExpectedKind::Directory, 1) => drop(changes.file(&path, b"was a directory\n")),
        (ExpectedKind::Directory, _) => {
            let to = [&path[..], b"-moved"].concat();
            if to
                .rsplit(|&byte| byte == b'/')
                .next()
                .is_some_and(|name| name.len() > NAME_BYTES_MAX)
            {
                changes.delete(&path);
            } else {
                entries.retain(|(other, _)| !touches(other, &to));
                changes.rename(&path, to);
            }
        }
        (ExpectedKind::File { .. }, 0) => {
            changes.delete(&path);
            let inner = [&path[..], b"/", &name(rng)].concat();
            add(changes, rng, &inner);
        }
        (ExpectedKind::File { .. }, 1) => {
            let to = self::path(rng);
            if !touches(&to, &path) {
                entries.retain(|(other, _)| !touches(other, &to));
                changes.rename(&path, to);
            }
        }
        (_, 2) => drop(changes.delete(&path)),
        _ => add(changes, rng, &path),
    }
}

/// Whether one path is the other or lies inside it.
fn touches(a: &[u8], b: &[u8]) -> bool {
    is_inside(a, b) || is_inside(b, a)
}

fn is_inside(outer: &[u8], inner: &[u8]) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn add(changes: &mut Changes<'_>, rng: &mut Rng, path: &[u8]) {
    match rng.below(10) {
        0 => drop(changes.exec(path, contents(rng))),
        1 => {
            let target = self::path(rng);
            changes.symlink(path, target);
        }
        _ => drop(changes.file(path, contents(rng))),
    }
}

fn contents(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(20) {
        0 => 0,
        1 => rng.below(FILE_BYTES_MAX),
        2..6 => rng.below(200_000),
        _ => rng.below(2_000),
    };
    let mut bytes = pattern(usize::try_from(len).expect("below 3 MiB"));
    let salt = rng.bits().to_le_bytes();
    bytes
        .iter_mut()
        .zip(salt)
        .for_each(|(byte, salt)| *byte ^= salt);
    bytes
}

fn path(rng: &mut Rng) -> Vec<u8> {
    let depth = 1 + rng.below(DEPTH_MAX);
    let names: Vec<Vec<u8>> = (0..depth).map(|_| name(rng)).collect();
    names.join(&b'/')
}

/// Mostly from a small set, so that paths meet; sometimes awkward.
fn name(rng: &mut Rng) -> Vec<u8> {
    const USUAL: [&str; 12] = [
        "a", "b", "c", "src", "lib", "a.b", "a-b", "a0", "test", "docs", "x.rs", "Makefile",
    ];
    match rng.below(12) {
        0 => {
            // Any bytes but those that a name cannot have.
            let raw = rng.bits().to_le_bytes();
            let safe = raw[..4].iter().map(|byte| match byte {
                0 | b'/' | b'.' => b'_',
                byte => *byte,
            });
            std::iter::once(b'r').chain(safe).collect()
        }
        1 => vec![b'L'; 1 + rng.below(255) as usize],
        2 => format!("f{}", rng.below(1000)).into_bytes(),
        _ => rng
            .pick(&USUAL)
            .map(|name| name.as_bytes().to_vec())
            .unwrap_or_default(),
    }
}
