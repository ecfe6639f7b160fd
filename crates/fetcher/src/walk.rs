//! From a commit to its snapshot: reads every tree once, checks it, and encodes its directory
//! record.
//!
//! Invariants: the walk keeps its own stack, so depth costs no thread stack; each distinct tree is
//! read once, so a small repository that unfolds into billions of paths costs what it weighs; every
//! tree hashes to its id; every error names the path at which it was found.

use std::collections::{HashMap, HashSet};

use monofs_model::limits::{SYMLINK_BYTES_MAX, TREE_DEPTH_MAX, TREES_PER_SNAPSHOT_MAX};
use monofs_model::{EntryKind, Error, ErrorKind, ObjectKind, Oid, Result, Snapshot, TreeRecord};

use crate::modules;
use crate::objects::ObjectReader;
use crate::source::FetchTask;

/// Most distinct files in a snapshot.
const BLOBS_PER_SNAPSHOT_MAX: usize = 50_000_000;
/// Longest path in a message, in bytes.
const SHOWN_PATH_BYTES_MAX: usize = 200;

/// What a commit object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CommitHeader {
    root: Oid,
    /// Committer time, seconds since the epoch.
    time: i64,
}

/// A directory on the way down.
struct WalkLevel {
    name: Vec<u8>,
    oid: Oid,
    record: TreeRecord,
    /// The next entry to look at.
    next: usize,
    /// Levels from here down, this one included, as far as seen.
    height: usize,
}

/// One walk over a snapshot.
struct SnapshotWalk<'a> {
    objects: &'a ObjectReader,
    task: &'a FetchTask,
    stack: Vec<WalkLevel>,
    /// Levels from each tree that is done down, itself included.
    heights: HashMap<Oid, usize>,
    blobs: HashMap<Oid, u64>,
    bytes: u64,
    buffer: Vec<u8>,
}

/// Walks the commit and hands each distinct tree's record to `keep`. Errors: `Invalid` for what may
/// not be mounted, `Corrupt` for what is missing or broken.
pub fn snapshot(
    objects: &ObjectReader,
    commit: &Oid,
    task: &FetchTask,
    keep: &mut dyn FnMut(&Oid, &TreeRecord),
) -> Result<Snapshot> {
    // The walk counts each distinct tree and file once, however many paths lead to it.
    let mut buffer = Vec::new();
    let CommitHeader { root, time } = read_commit(objects, commit, &mut buffer)?;
    let mut walk = SnapshotWalk {
        objects,
        task,
        stack: Vec::new(),
        heights: HashMap::new(),
        blobs: HashMap::new(),
        bytes: 0,
        buffer,
    };
    walk.run(root, keep)?;

    // Only the root's `.gitmodules` counts for Git, and it can be read now that its tree is
    // checked.
    let submodules = modules::of_root(objects, &root)?;
    Ok(Snapshot {
        commit: *commit,
        root,
        commit_time: time,
        trees: walk.heights.len() as u64,
        blobs: walk.blobs.len() as u64,
        bytes: walk.bytes,
        submodules,
        generations: None,
    })
}

/// The record of one tree, without those below it. `None` when the tree is not here.
pub fn record(objects: &ObjectReader, oid: &Oid) -> Result<Option<TreeRecord>> {
    let mut buffer = Vec::new();
    match objects.read(oid, &mut buffer)? {
        Some(ObjectKind::Tree) => encode(objects, &buffer, &mut |_| {})
            .map(Some)
            .map_err(|e| at(e, oid, &[], b"")),
        _ => Ok(None),
    }
}

fn encode(
    objects: &ObjectReader,
    tree: &[u8],
    seen: &mut dyn FnMut((Oid, u64)),
) -> Result<TreeRecord> {
    TreeRecord::encode(tree, objects.format(), |name, kind, oid| {
        let size = size_of(objects, name, kind, &oid)?;
        seen((oid, size));
        Ok(size)
    })
}

fn size_of(objects: &ObjectReader, name: &[u8], kind: EntryKind, oid: &Oid) -> Result<u64> {
    let shown = || String::from_utf8_lossy(name).escape_debug().to_string();

    // The object itself decides: a tree entry only claims what it names. The target of a symlink is
    // judged by its size alone, without reading it.
    match objects.header(oid)? {
        Some((ObjectKind::Blob, size))
            if kind == EntryKind::Symlink && size > SYMLINK_BYTES_MAX =>
        {
            Err(Error::invalid(format!(
                "symlink '{}' has a target of {size} bytes; the limit is {SYMLINK_BYTES_MAX}",
                shown()
            )))
        }
        Some((ObjectKind::Blob, size)) => Ok(size),
        Some((other, _)) => Err(Error::invalid(format!(
            "'{}' is said to be a file, but {oid} is a {}",
            shown(),
            other.as_str()
        ))),
        None => Err(Error::corrupt(format!(
            "the contents of '{}' ({oid}) are missing",
            shown()
        ))),
    }
}

impl SnapshotWalk<'_> {
    fn run(&mut self, root: Oid, keep: &mut dyn FnMut(&Oid, &TreeRecord)) -> Result<()> {
        // Depth first: each step looks at the next entry of the deepest directory.
        self.descend(root, Vec::new(), keep)?;
        while let Some(level) = self.stack.last_mut() {
            let entry = level
                .record
                .get(level.next)
                .map(|e| (e.kind, e.oid, e.name));
            level.next += 1;
            match entry {
                Some((EntryKind::Directory, oid, name)) => match self.heights.get(&oid) {
                    Some(&below) => {
                        level.height = level.height.max(below + 1);
                        self.check_depth()?;
                    }
                    None => {
                        let name = name.to_vec();
                        self.descend(oid, name, keep)?;
                    }
                },
                Some(_) => {}
                None => self.ascend()?,
            }
        }
        Ok(())
    }

    fn descend(
        &mut self,
        oid: Oid,
        name: Vec<u8>,
        keep: &mut dyn FnMut(&Oid, &TreeRecord),
    ) -> Result<()> {
        // The bounds are checked before anything is read.
        self.task.check()?;
        if self.heights.len() as u64 >= TREES_PER_SNAPSHOT_MAX
            || self.blobs.len() > BLOBS_PER_SNAPSHOT_MAX
        {
            return Err(Error::invalid(
                "the commit has too many directories or files for one repository",
            ));
        }
        let read = self
            .objects
            .read_as(&oid, ObjectKind::Tree, &mut self.buffer);
        // The record is made from the tree, and its distinct files are counted meanwhile.
        let blobs = &mut self.blobs;
        let bytes = &mut self.bytes;
        let mut seen = |(oid, size): (Oid, u64)| {
            if blobs.insert(oid, size).is_none() {
                *bytes = bytes.saturating_add(size);
            }
        };
        let encoded = read.and_then(|()| encode(self.objects, &self.buffer, &mut seen));
        let record = encoded.map_err(|e| at(e, &oid, &self.stack, &name))?;
        keep(&oid, &record);
        self.stack.push(WalkLevel {
            name,
            oid,
            record,
            next: 0,
            height: 1,
        });
        self.check_depth()
    }

    fn ascend(&mut self) -> Result<()> {
        let Some(done) = self.stack.pop() else {
            return Ok(());
        };
        self.heights.insert(done.oid, done.height);
        if let Some(parent) = self.stack.last_mut() {
            parent.height = parent.height.max(done.height + 1);
        }
        Ok(())
    }

    /// The levels down to the last one, and what that is known to have below.
    fn check_depth(&self) -> Result<()> {
        let height = self.stack.last().map_or(1, |level| level.height);
        let nested = self.stack.len() + height - 2;
        if nested > TREE_DEPTH_MAX {
            let path = shown_path(&self.stack, b"");
            return Err(Error::invalid(format!(
                "'{path}': directories are nested more than {TREE_DEPTH_MAX} deep"
            )));
        }
        Ok(())
    }
}

/// The error, with the path of the directory at which it was found.
fn at(error: Error, oid: &Oid, stack: &[WalkLevel], name: &[u8]) -> Error {
    let path = shown_path(stack, name);
    let place = if path.is_empty() {
        format!("root directory (tree {oid})")
    } else {
        format!("directory '{path}' (tree {oid})")
    };
    match error.kind {
        ErrorKind::Invalid | ErrorKind::Corrupt => error.context(place),
        _ => error,
    }
}

fn shown_path(stack: &[WalkLevel], last: &[u8]) -> String {
    let names = stack
        .iter()
        .map(|level| level.name.as_slice())
        .chain([last])
        .filter(|name| !name.is_empty());
    let mut path = String::new();
    for name in names {
        if path.len() > SHOWN_PATH_BYTES_MAX {
            path.push_str("/...");
            break;
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.extend(String::from_utf8_lossy(name).escape_debug());
    }
    path
}

fn read_commit(objects: &ObjectReader, oid: &Oid, buffer: &mut Vec<u8>) -> Result<CommitHeader> {
    match objects.read(oid, buffer)? {
        Some(ObjectKind::Commit) => {}
        Some(ObjectKind::Tag) => {
            let target = field(buffer, b"object ").unwrap_or_default();
            let target = String::from_utf8_lossy(target);
            return Err(Error::invalid(format!(
                "{oid} is a tag object, not a commit; give the tag's name, or {target}"
            )));
        }
        Some(other) => {
            return Err(Error::invalid(format!(
                "{oid} is a {}, not a commit; give a branch, a tag of a commit, or a commit id",
                other.as_str()
            )));
        }
        None => return Err(Error::corrupt(format!("commit {oid} is missing"))),
    }
    let malformed = || Error::corrupt(format!("commit {oid} is malformed"));
    let tree = field(buffer, b"tree ")
        .and_then(|hex| std::str::from_utf8(hex).ok())
        .ok_or_else(malformed)?;
    let root: Oid = tree.parse().map_err(|_| malformed())?;
    if root.format() != oid.format() {
        return Err(malformed());
    }
    // `committer Name <mail> 1700000000 +0100`: what cannot be read as a time counts as the epoch,
    // as in Git.
    let line = field(buffer, b"committer ").unwrap_or_default();
    let after_mail = line.rsplit(|&b| b == b'>').next().unwrap_or_default();
    let seconds = std::str::from_utf8(after_mail)
        .ok()
        .and_then(|text| text.split_whitespace().next());
    Ok(CommitHeader {
        root,
        time: seconds.and_then(|s| s.parse().ok()).unwrap_or(0),
    })
}

/// The rest of the first header line that begins with `key`.
fn field<'a>(object: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let headers = object
        .split(|&b| b == b'\n')
        .take_while(|line| !line.is_empty());
    headers.filter_map(|line| line.strip_prefix(key)).next()
}

/// The trees that `record` names, in name order, each once.
pub fn children(record: &TreeRecord) -> Vec<Oid> {
    let mut seen = HashSet::new();
    record
        .iter()
        .filter(|e| e.kind == EntryKind::Directory && seen.insert(e.oid))
        .map(|e| e.oid)
        .collect()
}
