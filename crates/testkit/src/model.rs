//! The reference model of a mounted repository: what `git ls-tree` says a commit is, and the
//! comparison of a directory with it. It shares no code with what it judges but the object ids.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use monofs_model::{ObjectKind, Oid};

use crate::git;
use crate::repo::{Repo, oid};

/// Differences reported before the comparison gives up.
const DIFFERENCES_MAX: usize = 30;
/// Longest value of an extended attribute that is read.
const XATTR_BYTES_MAX: usize = 8192;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedKind {
    File {
        exec: bool,
        size: u64,
    },
    Symlink {
        size: u64,
    },
    Directory,
    /// With its URL, when `.gitmodules` has one.
    Submodule {
        url: Option<String>,
    },
}

/// One entry of the expected tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedEntry {
    pub kind: ExpectedKind,
    pub oid: Oid,
}

/// A commit as git describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedTree {
    pub commit: Oid,
    pub root: Oid,
    /// Committer time in seconds.
    pub commit_time: i64,
    /// By path below the root, `/` between the names.
    pub entries: BTreeMap<Vec<u8>, ExpectedEntry>,
}

impl ExpectedTree {
    /// Asks git what a revision holds.
    pub fn of(repo: &Repo, revision: &str) -> Self {
        Self::of_path(&repo.path(), revision)
    }

    /// The same for a repository that no generator made.
    pub fn of_path(repo: &Path, revision: &str) -> Self {
        // The commit itself, even if the revision names a tag of it.
        let peeled = format!("{revision}^{{commit}}");
        let commit = oid(&git::line(repo, ["rev-parse", &peeled]));
        let root = oid(&git::line(
            repo,
            ["rev-parse", &format!("{revision}^{{tree}}")],
        ));
        let time = git::line(repo, ["show", "-s", "--format=%ct", &peeled]);
        // Every entry below the root, with sizes and exact names.
        let urls = submodule_urls(repo, &commit);
        let listing = git::run(
            repo,
            [
                "ls-tree",
                "-r",
                "-t",
                "-l",
                "-z",
                "--full-tree",
                &commit.to_string(),
            ],
        );
        let rows = listing
            .split(|byte| *byte == 0)
            .filter(|row| !row.is_empty());
        let entries = rows.map(|row| parse_row(row, &urls)).collect();
        let commit_time = time
            .parse()
            .unwrap_or_else(|_| panic!("git printed {time:?} for a time"));
        Self {
            commit,
            root,
            commit_time,
            entries,
        }
    }

    /// The paths that are files (with or without the exec bit).
    pub fn files(&self) -> impl Iterator<Item = (&[u8], &ExpectedEntry)> {
        self.entries
            .iter()
            .filter(|(_, entry)| matches!(entry.kind, ExpectedKind::File { .. }))
            .map(|(path, entry)| (path.as_slice(), entry))
    }

    fn children(&self) -> BTreeMap<&[u8], BTreeSet<&[u8]>> {
        let mut children: BTreeMap<&[u8], BTreeSet<&[u8]>> =
            BTreeMap::from([(&b""[..], BTreeSet::new())]);
        for (path, entry) in &self.entries {
            let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&path[..at], &path[at + 1..]),
                None => (&b""[..], &path[..]),
            };
            children.entry(parent).or_default().insert(name);
            if matches!(
                entry.kind,
                ExpectedKind::Directory | ExpectedKind::Submodule { .. }
            ) {
                children.entry(path).or_default();
            }
        }
        children
    }
}

/// `<mode> SP <type> SP <oid> SP+ <size> TAB <path>`
fn parse_row(row: &[u8], urls: &BTreeMap<Vec<u8>, String>) -> (Vec<u8>, ExpectedEntry) {
    let tab = row
        .iter()
        .position(|byte| *byte == b'\t')
        .expect("ls-tree puts a tab before the path");
    let head = String::from_utf8_lossy(&row[..tab]).into_owned();
    let path = row[tab + 1..].to_vec();
    let fields: Vec<&str> = head.split_whitespace().collect();
    let [mode, _, id, size] = fields[..] else {
        panic!("ls-tree printed {head:?}")
    };
    // Directories and submodules have a dash there.
    let size = match size {
        "-" => 0,
        digits => digits
            .parse()
            .unwrap_or_else(|_| panic!("ls-tree printed {head:?}")),
    };
    let kind = match mode {
        "040000" => ExpectedKind::Directory,
        "120000" => ExpectedKind::Symlink { size },
        "160000" => ExpectedKind::Submodule {
            url: urls.get(&path).cloned(),
        },
        // Old repositories have 100664 too; only the owner's exec bit means anything.
        _ => ExpectedKind::File {
            exec: mode == "100755",
            size,
        },
    };
    (path, ExpectedEntry { kind, oid: oid(id) })
}

/// The URLs of a commit's submodules by path, as git itself reads `.gitmodules`.
fn submodule_urls(repo: &Path, commit: &Oid) -> BTreeMap<Vec<u8>, String> {
    let paths = gitmodules(repo, commit, r"^submodule\..*\.path$");
    let urls = gitmodules(repo, commit, r"^submodule\..*\.url$");
    let mut by_path = BTreeMap::new();
    for (key, path) in paths {
        let section = key.strip_suffix("path").unwrap_or(&key);
        if let Some(url) = urls.get(&format!("{section}url")) {
            by_path.insert(path.into_bytes(), url.clone());
        }
    }
    by_path
}

/// The settings in a commit's `.gitmodules` whose keys match.
fn gitmodules(repo: &Path, commit: &Oid, keys: &str) -> BTreeMap<String, String> {
    let blob = format!("{commit}:.gitmodules");
    let mut command = git::command(repo);
    let output = command
        .args(["config", "-z", "--blob", &blob, "--get-regexp", keys])
        .output()
        .expect("git runs");
    // No such file or key is an empty answer.
    let rows = String::from_utf8_lossy(&output.stdout);
    rows.split('\0')
        .filter_map(|row| row.split_once('\n'))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// What [`differences`] looks at beyond names, kinds, exec bits, sizes, bytes and targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Extended attributes, commit times and `d_ino == st_ino`: off for a plain checkout.
    pub mount: bool,
    /// Read and hash every file.
    pub contents: bool,
    /// Times are the commit's, as of a repository that was never updated; else those of an earlier
    /// commit or of an update will do.
    pub exact_times: bool,
}

/// Panics with the differences between a mounted repository and what git says it is.
pub fn assert_matches(mounted: &Path, expected: &ExpectedTree) {
    assert_matches_with(
        mounted,
        expected,
        Checks {
            mount: true,
            contents: true,
            exact_times: true,
        },
    );
}

/// Like [`assert_matches`], looking only at what `checks` asks for.
pub fn assert_matches_with(mounted: &Path, expected: &ExpectedTree, checks: Checks) {
    let found = differences(mounted, expected, checks);
    let commit = expected.commit;
    assert!(
        found.is_empty(),
        "{} differs from commit {commit}:\n  {}",
        mounted.display(),
        found.join("\n  ")
    );
}

/// Everything in which a directory differs from the expected tree, up to a bound.
pub fn differences(mounted: &Path, expected: &ExpectedTree, checks: Checks) -> Vec<String> {
    let mut compare = TreeComparison {
        root: mounted,
        expected,
        checks,
        found: Vec::new(),
    };
    // The root has no row of its own in the listing.
    compare.attributes(
        b"",
        mounted,
        &ExpectedEntry {
            kind: ExpectedKind::Directory,
            oid: expected.root,
        },
    );
    for (directory, names) in expected.children() {
        compare.directory(directory, &names);
        if compare.found.len() >= DIFFERENCES_MAX {
            compare.found.push("... and perhaps more".to_owned());
            break;
        }
    }
    compare.found
}

/// A comparison under way.
struct TreeComparison<'a> {
    root: &'a Path,
    expected: &'a ExpectedTree,
    checks: Checks,
    found: Vec<String>,
}

impl TreeComparison<'_> {
    fn say(&mut self, path: &[u8], what: impl std::fmt::Display) {
        if self.found.len() < DIFFERENCES_MAX {
            self.found.push(format!("{}: {what}", path.escape_ascii()));
        }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            self.root.to_owned()
        } else {
            self.root.join(OsStr::from_bytes(path))
        }
    }

    /// Names in both directions, then every entry.
    fn directory(&mut self, directory: &[u8], names: &BTreeSet<&[u8]>) {
        // What the directory lists, each name once.
        let at = self.at(directory);
        let mut listed = BTreeMap::new();
        match fs::read_dir(&at).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.file_name().as_bytes().to_vec();
                    if listed.insert(name.clone(), entry.ino()).is_some() {
                        self.say(
                            directory,
                            format_args!("lists {} twice", name.escape_ascii()),
                        );
                    }
                }
            }
            Err(error) => return self.say(directory, format_args!("cannot be listed: {error}")),
        }
        // Names that should not be there, and names that are missing.
        for name in listed
            .keys()
            .filter(|name| !names.contains(name.as_slice()))
        {
            self.say(
                directory,
                format_args!("lists {}, which is not in the commit", name.escape_ascii()),
            );
        }
        for name in names {
            let path = if directory.is_empty() {
                name.to_vec()
            } else {
                [directory, name].join(&b'/')
            };
            match listed.get(*name) {
                Some(ino) => self.entry(&path, *ino),
                None => self.say(&path, "is missing in its directory"),
            }
        }
        // A name that was never there must not be found either.
        let absent = at.join(".no-such-name-in-any-commit");
        match fs::symlink_metadata(&absent) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => self.say(
                directory,
                format_args!("a name that does not exist answers {other:?}"),
            ),
        }
    }

    /// An entry's attributes, and what it holds: a link's target, a file's bytes, a submodule's URL.
    fn entry(&mut self, path: &[u8], listed_ino: u64) {
        let expected = self.expected;
        let entry = &expected.entries[path];
        let at = self.at(path);
        if let Some(ino) = self.attributes(path, &at, entry)
            && self.checks.mount
            && ino != listed_ino
        {
            self.say(path, format_args!("st_ino is {ino}, d_ino is {listed_ino}"));
        }
        // What it holds depends on its kind.
        match &entry.kind {
            ExpectedKind::Symlink { .. } => match fs::read_link(&at) {
                Ok(target) => self.bytes(path, entry, target.as_os_str().as_bytes()),
                Err(error) => self.say(path, format_args!("the link cannot be read: {error}")),
            },
            ExpectedKind::File { size, .. } if self.checks.contents => {
                self.contents(path, &at, entry, *size)
            }
            ExpectedKind::Submodule { url: Some(url) } if self.checks.mount => {
                self.xattr(
                    path,
                    &at,
                    "user.monofs.submodule",
                    &format!("{url}@{}", entry.oid),
                );
            }
            _ => {}
        }
    }

    /// ExpectedKind, exec bits, size, time and attributes; gives the inode number.
    fn attributes(&mut self, path: &[u8], at: &Path, entry: &ExpectedEntry) -> Option<u64> {
        let meta = match fs::symlink_metadata(at) {
            Ok(meta) => meta,
            Err(error) => {
                self.say(path, format_args!("cannot be looked at: {error}"));
                return None;
            }
        };
        // A wrong kind makes everything else meaningless.
        let kind = meta.file_type();
        let (right, size) = match entry.kind {
            ExpectedKind::File { size, .. } => (kind.is_file(), Some(size)),
            ExpectedKind::Symlink { size } => (kind.is_symlink(), Some(size)),
            ExpectedKind::Directory | ExpectedKind::Submodule { .. } => (kind.is_dir(), None),
        };
        if !right {
            self.say(
                path,
                format_args!("is {kind:?}, should be {:?}", entry.kind),
            );
            return None;
        }
        // Size and exec bit, where the kind has them.
        if let Some(size) = size.filter(|size| *size != meta.len()) {
            self.say(
                path,
                format_args!("has {} bytes, should have {size}", meta.len()),
            );
        }
        if let ExpectedKind::File { exec, .. } = entry.kind
            && (meta.mode() & 0o111 != 0) != exec
        {
            self.say(
                path,
                format_args!(
                    "has mode {:o}, should {}be executable",
                    meta.mode(),
                    if exec { "" } else { "not " }
                ),
            );
        }
        if self.checks.mount {
            self.mount_attributes(path, at, entry, &meta);
        }
        Some(meta.ino())
    }

    /// What only a mount has: the commit's time, and where the entry comes from.
    fn mount_attributes(
        &mut self,
        path: &[u8],
        at: &Path,
        entry: &ExpectedEntry,
        meta: &fs::Metadata,
    ) {
        let commit_time = self.expected.commit_time;
        let earliest = if self.checks.exact_times {
            commit_time
        } else {
            git::EPOCH
        };
        // What an update changed shows the time of the update, which is rounded up.
        let latest = if self.checks.exact_times {
            commit_time
        } else {
            commit_time.max(unix_seconds() + 2)
        };
        if !(earliest..=latest).contains(&meta.mtime()) {
            self.say(
                path,
                format_args!("mtime is {}, the commit's is {commit_time}", meta.mtime()),
            );
        }
        // Linux answers ENODATA for every `user.*` attribute of a symlink without asking the file
        // system.
        if !meta.file_type().is_symlink() {
            let commit = self.expected.commit.to_string();
            self.xattr(path, at, "user.monofs.oid", &entry.oid.to_string());
            self.xattr(path, at, "user.monofs.commit", &commit);
        }
    }

    fn xattr(&mut self, path: &[u8], at: &Path, name: &str, expected: &str) {
        match xattr(at, name) {
            Ok(value) if value == expected.as_bytes() => {}
            Ok(value) => self.say(
                path,
                format_args!("{name} is {}, should be {expected}", value.escape_ascii()),
            ),
            Err(error) => self.say(path, format_args!("{name} cannot be read: {error}")),
        }
    }

    /// The whole file, and one piece from its middle again through another read.
    fn contents(&mut self, path: &[u8], at: &Path, entry: &ExpectedEntry, size: u64) {
        let bytes = match fs::read(at) {
            Ok(bytes) => bytes,
            Err(error) => return self.say(path, format_args!("cannot be read: {error}")),
        };
        self.bytes(path, entry, &bytes);
        // A piece that begins at an odd place must be the same bytes.
        let offset = size / 3;
        let mut piece = vec![
            0;
            usize::try_from(size - offset)
                .unwrap_or(usize::MAX)
                .min(5000)
        ];
        match fs::File::open(at).and_then(|file| file.read_exact_at(&mut piece, offset)) {
            Ok(())
                if bytes.get(offset as usize..offset as usize + piece.len())
                    == Some(&piece[..]) => {}
            Ok(()) => self.say(
                path,
                format_args!("a read at {offset} gives other bytes than the whole file"),
            ),
            Err(error) => self.say(path, format_args!("a read at {offset} fails: {error}")),
        }
    }

    fn bytes(&mut self, path: &[u8], entry: &ExpectedEntry, bytes: &[u8]) {
        let actual = Oid::of(entry.oid.format(), ObjectKind::Blob, bytes);
        if actual != entry.oid {
            self.say(
                path,
                format_args!(
                    "its {} bytes are object {actual}, should be {}",
                    bytes.len(),
                    entry.oid
                ),
            );
        }
    }
}

fn unix_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// An extended attribute of the entry itself (links are not followed).
pub fn xattr(path: &Path, name: &str) -> std::io::Result<Vec<u8>> {
    let mut value = vec![0; XATTR_BYTES_MAX];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}
