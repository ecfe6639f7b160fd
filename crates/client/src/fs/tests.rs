//! The file system without kernel and network: records by hand, positions, flips and what they
//! invalidate.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::Duration;

use bytes::Bytes;
use monofs_content::cache::Cache;
use monofs_content::counters::Counters;
use monofs_content::evidence::Marks;
use monofs_content::repo::Repo;
use monofs_content::shown::DirectoryKey;
use monofs_content::times::LateRun;
use monofs_model::{
    ErrorKind, GenerationNode, GenerationRef, ObjectFormat, ObjectKind, Oid, Repository, TreeRecord,
};

use super::attr::{FileKind, InodeAttr, LookupAnswer};
use super::control::STATUS_NAME;
use super::identity::{CONTROL, Identity, Ino, ROOT};
use super::namespace::tests::entry;
use super::readdir::{DirItem, ListingMode};
use super::switch::{FlipEffect, FlipTarget, Invalidation, MissingRecords};
use super::{Documents, Fs};
use crate::errno::Errno;
use crate::want::Miss;

struct Fixture {
    fs: Fs,
    _dir: tempfile::TempDir,
}

/// A name of a directory: a file with this content, or a directory with this tree.
#[derive(Clone, Copy)]
enum Is<'a> {
    File(&'a str),
    Directory(Oid),
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let counters = Arc::new(Counters::default());
        let cache = Cache::open(dir.path(), 64 << 20, counters.clone()).unwrap();
        let documents = Box::new(|_| Bytes::from_static(b"{}"));
        Self {
            fs: Fs::new(cache, Marks::new(counters), documents, 100),
            _dir: dir,
        }
    }

    /// Puts in a directory record and returns its oid.
    fn tree(&self, names: &[(&str, Is<'_>)]) -> Oid {
        let mut raw = Vec::new();
        for (name, is) in names {
            let (mode, oid) = match is {
                Is::File(content) => (
                    "100644",
                    Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, content.as_bytes()),
                ),
                Is::Directory(tree) => ("40000", *tree),
            };
            raw.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            raw.extend_from_slice(oid.as_bytes());
        }
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &raw);
        self.fs.cache.put_record(
            oid,
            TreeRecord::encode(&raw, ObjectFormat::Sha1, |_, _, _| Ok(1)).unwrap(),
        );
        oid
    }

    fn show(&self, root: Oid) -> Arc<Repo> {
        let repo = Repo::new(entry("h/r", root, 1)).unwrap();
        self.fs.change_repositories(vec![repo.clone()], &[]);
        repo
    }

    fn find(&self, parent: Ino, name: &str) -> Option<InodeAttr> {
        match self.fs.lookup(parent, name.as_bytes()).unwrap() {
            LookupAnswer::Inode(attr, _) => Some(attr),
            LookupAnswer::Nothing => None,
        }
    }

    fn walk(&self, path: &str) -> Option<Ino> {
        path.split('/')
            .try_fold(ROOT, |parent, name| Some(self.find(parent, name)?.ino))
    }

    /// Shows a repository at `path`, with this tree.
    fn show_at(&self, path: &str, root: Oid) -> Vec<Invalidation> {
        let repo = Repo::new(entry(path, root, 1)).unwrap();
        self.fs.change_repositories(vec![repo], &[])
    }

    fn flip(&self, repo: &Arc<Repo>, root: Oid, generation: u64) -> Vec<Invalidation> {
        self.try_flip(repo, root, generation, &HashSet::new())
            .unwrap()
            .invalidations
    }

    fn try_flip(
        &self,
        repo: &Arc<Repo>,
        root: Oid,
        generation: u64,
        lost: &HashSet<Oid>,
    ) -> Result<FlipEffect, MissingRecords> {
        let target = FlipTarget {
            entry: &entry(repo.path(), root, generation),
            lost,
            late: None,
        };
        self.fs.try_flip(repo, &target)
    }

    /// Names from `position` on, at most `limit`, and where to go on.
    fn list(&self, ino: Ino, position: u64, limit: usize) -> Result<(Vec<String>, u64), Miss> {
        let (mut names, mut next) = (Vec::new(), position);
        self.fs.readdir(
            ino,
            position,
            ListingMode::WithAttributes,
            &mut |item: &DirItem<'_>| {
                let full = names.len() == limit;
                if !full {
                    names.push(String::from_utf8_lossy(item.name).into_owned());
                    next = item.next;
                }
                full
            },
        )?;
        Ok((names, next))
    }
}

/// A directory without a generation node.
fn plain(tree: Oid) -> DirectoryKey {
    DirectoryKey { tree, node: None }
}

fn names(change: &Invalidation) -> Vec<&str> {
    change
        .names
        .iter()
        .map(|name| std::str::from_utf8(name).unwrap())
        .collect()
}

#[test]
fn a_flip_names_what_changed_in_directories_that_the_kernel_knows() {
    let fixture = Fixture::new();
    let same = fixture.tree(&[("x", Is::File("x"))]);
    let old_sub = fixture.tree(&[
        ("a", Is::File("1")),
        ("b", Is::File("b")),
        ("gone", Is::Directory(same)),
    ]);
    let new_sub = fixture.tree(&[
        ("a", Is::File("2")),
        ("b", Is::File("b")),
        ("new", Is::File("n")),
    ]);
    let unknown = fixture.tree(&[("a", Is::File("3"))]);
    let old = fixture.tree(&[
        ("known", Is::Directory(old_sub)),
        ("other", Is::Directory(old_sub)),
        ("s", Is::Directory(same)),
    ]);
    let new = fixture.tree(&[
        ("known", Is::Directory(new_sub)),
        ("other", Is::Directory(unknown)),
        ("s", Is::Directory(same)),
    ]);
    let repo = fixture.show(old);
    let (root, known) = (
        fixture.walk("h/r").unwrap(),
        fixture.walk("h/r/known").unwrap(),
    );
    let gone = fixture.walk("h/r/known/gone").unwrap();
    let file = fixture.walk("h/r/known/a").unwrap();

    let changes = fixture.flip(&repo, new, 2);
    assert_eq!(
        changes.len(),
        1,
        "the root's names lead where they led: {changes:?}"
    );
    assert_eq!(
        (changes[0].directory, names(&changes[0])),
        (known, vec!["a", "gone", "new"])
    );
    assert_eq!(fixture.walk("h/r").unwrap(), root);
    assert_eq!(fixture.walk("h/r/known").unwrap(), known);
    assert_ne!(fixture.walk("h/r/known/a").unwrap(), file);
    assert!(fixture.walk("h/r/known/gone").is_none());
    assert_eq!(
        fixture.fs.getattr(known).unwrap().mtime,
        1_000_002,
        "its names changed with this commit"
    );
    assert_eq!(fixture.fs.getattr(root).unwrap().mtime, 1_000_001);
    // What is still open goes on: the old file, and the directory that is gone.
    assert_eq!(fixture.fs.getattr(file).unwrap().kind, FileKind::File);
    assert_eq!(fixture.list(gone, 0, 9).unwrap().0, [".", "..", "x"]);
    // The same name again is another directory.
    fixture.flip(&repo, old, 3);
    assert_ne!(fixture.walk("h/r/known/gone").unwrap(), gone);
    assert_eq!(
        fixture.walk("h/r/known/a").unwrap(),
        file,
        "the same bytes are the same inode"
    );
}

#[test]
fn a_flip_asks_for_records_and_changes_nothing_without_them() {
    let fixture = Fixture::new();
    let old = fixture.tree(&[("a", Is::File("1"))]);
    let repo = fixture.show(old);
    fixture.walk("h/r/a").unwrap();
    let absent = Oid::from_bytes(&[9; 20]).unwrap();
    let needed = fixture
        .try_flip(&repo, absent, 2, &HashSet::new())
        .unwrap_err();
    assert_eq!((needed.new, needed.old), (vec![plain(absent)], vec![]));
    assert_eq!(repo.root().tree, old);
    assert!(fixture.walk("h/r/a").is_some());
}

#[test]
fn a_repository_that_nobody_looked_at_flips_without_any_record() {
    let fixture = Fixture::new();
    let repo = fixture.show(Oid::from_bytes(&[8; 20]).unwrap());
    assert!(
        fixture
            .flip(&repo, Oid::from_bytes(&[9; 20]).unwrap(), 2)
            .is_empty()
    );
}

#[test]
fn lost_records_cost_all_names_and_not_the_flip() {
    let fixture = Fixture::new();
    let old = Oid::from_bytes(&[8; 20]).unwrap();
    let repo = fixture.show(old);
    fixture.walk("h/r").unwrap();
    let new = fixture.tree(&[("a", Is::File("1"))]);
    let needed = fixture
        .try_flip(&repo, new, 2, &HashSet::new())
        .unwrap_err();
    assert_eq!(needed.old, [plain(old)]);
    let flipped = fixture
        .try_flip(&repo, new, 2, &HashSet::from([old]))
        .unwrap();
    assert!(flipped.drop_all_names);
    assert_eq!(names(&flipped.invalidations[0]), ["a"]);
}

#[test]
fn a_listing_goes_on_in_the_version_it_began_with() {
    let fixture = Fixture::new();
    let old = fixture.tree(&[
        ("a", Is::File("1")),
        ("b", Is::File("1")),
        ("c", Is::File("1")),
    ]);
    let new = fixture.tree(&[("x", Is::File("1"))]);
    let repo = fixture.show(old);
    let root = fixture.walk("h/r").unwrap();
    let (first, next) = fixture.list(root, 0, 3).unwrap();
    assert_eq!(first, [".", "..", "a"]);
    fixture.flip(&repo, new, 2);
    assert_eq!(fixture.list(root, next, 9).unwrap().0, ["b", "c"]);
    assert_eq!(fixture.list(root, 0, 9).unwrap().0, [".", "..", "x"]);
    // So it does a few versions later, and then says that it cannot.
    for generation in 3..6 {
        let tree = fixture.tree(&[("y", Is::File(&generation.to_string()))]);
        fixture.flip(&repo, tree, generation);
    }
    assert_eq!(fixture.list(root, next, 9).unwrap().0, ["b", "c"]);
    fixture.flip(&repo, old, 6);
    assert!(matches!(
        fixture.list(root, next, 9),
        Err(Miss::Fail(Errno::STALE))
    ));
}

#[test]
fn what_a_full_sink_refuses_is_not_referenced() {
    let fixture = Fixture::new();
    let root = fixture.tree(&[("a", Is::File("1")), ("b", Is::File("2"))]);
    fixture.show(root);
    let at = fixture.walk("h/r").unwrap();
    let before = fixture.fs.inode_count();
    fixture.list(at, 0, 3).unwrap();
    assert_eq!(fixture.fs.inode_count(), before + 1);
}

#[test]
fn a_missing_record_is_named_and_a_file_is_no_directory() {
    let fixture = Fixture::new();
    let absent = Oid::from_bytes(&[9; 20]).unwrap();
    let root = fixture.tree(&[("d", Is::Directory(absent)), ("f", Is::File("1"))]);
    fixture.show(root);
    let directory = fixture.walk("h/r/d").unwrap();
    assert!(
        matches!(fixture.fs.lookup(directory, b"x"), Err(Miss::Tree(want)) if want.key == plain(absent))
    );
    let file = fixture.walk("h/r/f").unwrap();
    assert!(matches!(
        fixture.fs.lookup(file, b"x"),
        Err(Miss::Fail(Errno::NOTDIR))
    ));
    assert!(matches!(
        fixture.fs.read(directory, 0, 1, &mut |_| {}),
        Err(Miss::Fail(Errno::ISDIR))
    ));
    assert!(
        matches!(fixture.fs.read(file, 0, 1, &mut |_| {}), Err(Miss::Chunks(want)) if want.span.first == 0)
    );
    assert!(matches!(
        fixture.fs.getattr(12345),
        Err(Miss::Fail(Errno::STALE))
    ));
}

#[test]
fn content_is_answered_before_it_is_on_disk_and_found_there_after() {
    let fixture = Fixture::new();
    let root = fixture.tree(&[("f", Is::File("1"))]);
    fixture.show(root);
    let file = fixture.walk("h/r/f").unwrap();
    let blob = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, b"1");
    fixture.fs.cache.put_frame(
        blob,
        0,
        monofs_store::frame::encode(b"1"),
        bytes::Bytes::from_static(b"1"),
    );
    let read = || {
        let mut bytes = Vec::new();
        fixture
            .fs
            .read(file, 0, 100, &mut |piece| bytes.extend_from_slice(piece))
            .map(|_| bytes)
    };
    assert_eq!(read().unwrap(), b"1");
    fixture.fs.cache.flush();
    assert_eq!(fixture.fs.cache.status().pending_bytes, 0);
    assert_eq!(read().unwrap(), b"1");
    let busy = Cache::open(fixture._dir.path(), 64 << 20, Arc::default())
        .map(drop)
        .unwrap_err();
    assert_eq!(busy.kind, ErrorKind::Refused);
}

#[test]
fn numbers_of_a_listing_are_those_of_a_lookup() {
    let fixture = Fixture::new();
    let sub = fixture.tree(&[("x", Is::File("x"))]);
    let root = fixture.tree(&[("d", Is::Directory(sub)), ("f", Is::File("1"))]);
    fixture.show(root);
    let at = fixture.walk("h/r").unwrap();
    let mut listed = Vec::new();
    let mut sink = |item: &DirItem<'_>| {
        listed.push((item.name.to_vec(), item.ino));
        false
    };
    fixture
        .fs
        .readdir(at, 0, ListingMode::Names, &mut sink)
        .unwrap();
    assert_eq!(
        fixture.fs.inode_count(),
        4,
        "listing without attributes registers nothing"
    );
    for (name, ino) in listed.into_iter().skip(2) {
        assert_eq!(
            fixture
                .find(at, std::str::from_utf8(&name).unwrap())
                .unwrap()
                .ino,
            ino
        );
    }
    assert_eq!(
        fixture.fs.inodes.find(Identity::directory(at, b"d")),
        fixture.walk("h/r/d")
    );
}

#[test]
fn a_large_directory_above_repositories_is_listed_page_by_page_while_it_changes() {
    let fixture = Fixture::new();
    let root = fixture.tree(&[("a", Is::File("1"))]);
    let repo = |number: usize| Repo::new(entry(&format!("h/r{number:05}"), root, 1)).unwrap();
    fixture
        .fs
        .change_repositories((0..20_000).map(repo).collect(), &[]);
    let host = fixture.walk("h").unwrap();
    let (mut names, mut position) = (Vec::new(), 0);
    loop {
        let (page, next) = fixture.list(host, position, 777).unwrap();
        if page.is_empty() {
            break;
        }
        // Any position can be returned to.
        assert_eq!(
            fixture.list(host, position, 777).unwrap(),
            (page.clone(), next)
        );
        names.extend(page);
        position = next;
        if names.len() == 777 {
            fixture
                .fs
                .change_repositories(vec![repo(20_000)], &["h/r00001".into(), "h/r19999".into()]);
        }
    }
    let expected = [".", ".."]
        .into_iter()
        .map(str::to_owned)
        .chain((0..20_000).map(|n| format!("r{n:05}")));
    assert_eq!(names, expected.collect::<Vec<_>>());
    assert_eq!(
        fixture.list(host, 0, usize::MAX).unwrap().0.len(),
        2 + 20_000 - 1
    );
    assert_eq!(fixture.fs.volume().files, 2 * (20_000 - 1));
}

/// A file system whose documents can be made only while repositories can come and go: making one
/// has another thread add a repository and waits for it. The flag rises once that took too long.
fn fs_with_documents_that_need_a_writer(dir: &std::path::Path) -> (Arc<Fs>, Arc<AtomicBool>) {
    let counters = Arc::new(Counters::default());
    let cache = Cache::open(dir, 64 << 20, counters.clone()).unwrap();
    let itself: Arc<OnceLock<Weak<Fs>>> = Arc::default();
    let blocked = Arc::new(AtomicBool::new(false));
    let documents: Documents = {
        let itself = itself.clone();
        let blocked = blocked.clone();
        Box::new(move |_| {
            let fs = itself.get().and_then(Weak::upgrade).unwrap();
            let (done, written) = mpsc::channel();
            std::thread::spawn(move || {
                let repo = Repo::new(entry("h/r", Oid::from_bytes(&[1; 20]).unwrap(), 1)).unwrap();
                fs.change_repositories(vec![repo], &[]);
                // The receiver is gone when it waited in vain.
                let _ = done.send(());
            });
            if written.recv_timeout(Duration::from_secs(10)).is_err() {
                blocked.store(true, Ordering::Relaxed);
            }
            Bytes::from_static(b"{}")
        })
    };
    let fs = Arc::new(Fs::new(cache, Marks::new(counters), documents, 100));
    itself.set(Arc::downgrade(&fs)).unwrap();
    (fs, blocked)
}

#[test]
fn repositories_change_while_a_document_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, blocked) = fs_with_documents_that_need_a_writer(dir.path());
    fs.lookup(CONTROL, STATUS_NAME).unwrap();
    assert!(!blocked.load(Ordering::Relaxed), "by a lookup of one");
    fs.readdir(
        CONTROL,
        0,
        ListingMode::WithAttributes,
        &mut |_: &DirItem<'_>| false,
    )
    .unwrap();
    assert!(!blocked.load(Ordering::Relaxed), "by a listing");
}

#[test]
fn a_listing_with_repositories_inside_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let inner = fixture.tree(&[("x", Is::File("x"))]);
    let root = fixture.tree(&[("a", Is::File("1")), ("m", Is::Directory(inner))]);
    let outer = fixture.show(root);
    for name in ["b", "m", "z"] {
        fixture.show_at(&format!("h/r/{name}"), inner);
    }
    let top = fixture.walk("h/r").unwrap();
    // One name at a time.
    let (mut all, mut position) = (Vec::new(), 0);
    loop {
        let (names, next) = fixture.list(top, position, 1).unwrap();
        if names.is_empty() {
            break;
        }
        all.extend(names);
        position = next;
    }
    assert_eq!(all, [".", "..", "a", "m", "b", "z"]);

    // A listing in progress sees the names of when it began, whatever comes and goes meanwhile.
    let (_, in_record) = fixture.list(top, 0, 3).unwrap();
    let (_, in_joined) = fixture.list(top, 0, 5).unwrap();
    fixture.show_at("h/r/aa", inner);
    let without = fixture.tree(&[("z", Is::File("2"))]);
    fixture.flip(&outer, without, 2);
    assert_eq!(fixture.list(top, in_joined, 9).unwrap().0, ["z"]);
    assert_eq!(
        fixture.list(top, in_record, 9).unwrap().0,
        ["m", "aa", "b", "z"]
    );
    assert_eq!(
        fixture.list(top, 0, 9).unwrap().0,
        [".", "..", "z", "aa", "b", "m"]
    );
}

#[test]
fn what_lies_inside_gives_way_to_a_name_of_the_repository_and_comes_back() {
    let fixture = Fixture::new();
    let inner = fixture.tree(&[("x", Is::File("inner"))]);
    let own = fixture.tree(&[("x", Is::File("own"))]);
    let empty = fixture.tree(&[("f", Is::File("f"))]);
    let with = fixture.tree(&[("f", Is::File("f")), ("sub", Is::Directory(own))]);
    let outer = fixture.show(empty);
    assert!(fixture.walk("h/r").is_some() && fixture.walk("h/r/sub").is_none());
    let told = fixture.show_at("h/r/sub/deep", inner);
    assert_eq!(names(&told[0]), ["sub"], "{told:?}");
    let joined = fixture.walk("h/r/sub/deep/x").unwrap();

    // The directory that leads to it becomes one of the repository, and it lies in that.
    let told = fixture.flip(&outer, with, 2);
    assert_eq!((told.len(), names(&told[0])), (1, vec!["sub"]));
    assert!(fixture.walk("h/r/sub/x").is_some());
    assert!(fixture.walk("h/r/sub/deep/x").is_some());

    // The repository has the name itself.
    let taken = fixture.tree(&[("deep", Is::Directory(own))]);
    let shadows = fixture.tree(&[("f", Is::File("f")), ("sub", Is::Directory(taken))]);
    let told = fixture.flip(&outer, shadows, 3);
    let told: Vec<_> = told.iter().flat_map(names).collect();
    assert!(told.contains(&"deep"), "{told:?}");
    let own_x = fixture.walk("h/r/sub/deep/x").unwrap();
    assert_ne!(own_x, joined);
    assert!(fixture.fs.getxattr(own_x, b"user.monofs.repo").unwrap() == b"h/r");

    // What is shadowed is updated and nothing is told; then it is shown again.
    let newer = fixture.tree(&[("x", Is::File("newer"))]);
    let repo = fixture.fs.repo("h/r/sub/deep").unwrap();
    assert!(fixture.flip(&repo, newer, 2).is_empty());
    assert_eq!(fixture.walk("h/r/sub/deep/x"), Some(own_x));
    fixture.flip(&outer, empty, 4);
    let back = fixture.walk("h/r/sub/deep/x").unwrap();
    let commit = fixture.fs.getxattr(back, b"user.monofs.repo").unwrap();
    assert_eq!(commit, b"h/r/sub/deep");
    let found = fixture
        .fs
        .repo_and_shown_of(fixture.walk("h/r/sub/deep").unwrap());
    assert_eq!(found.unwrap().1.tree, newer);
}

/// An entry all of whose names last changed in its generation, at `time`.
fn all_changed(root: Oid, generation: u64, time: i64) -> Arc<Repository> {
    let mut changed = (*entry("h/r", root, generation)).clone();
    if let Some(snapshot) = &mut changed.snapshot {
        snapshot.generations = Some(GenerationRef::Constant(generation));
    }
    changed.generation_time = Some(time);
    changed.root_time = Some(time);
    Arc::new(changed)
}

#[test]
fn the_same_bytes_of_another_generation_are_another_file_with_its_time() {
    let fixture = Fixture::new();
    let root = fixture.tree(&[("a", Is::File("1"))]);
    let repo = Repo::new(all_changed(root, 1, 100)).unwrap();
    fixture.fs.change_repositories(vec![repo.clone()], &[]);
    let at = fixture.walk("h/r").unwrap();
    let before = fixture.find(at, "a").unwrap();
    assert_eq!(before.mtime, 100);
    let target = FlipTarget {
        entry: &all_changed(root, 3, 500),
        lost: &HashSet::new(),
        late: None,
    };
    let effect = fixture.fs.try_flip(&repo, &target).unwrap();
    assert_eq!(names(&effect.invalidations[0]), ["a"]);
    let after = fixture.find(at, "a").unwrap();
    assert_ne!(after.ino, before.ino);
    assert_eq!(after.mtime, 500);
    assert_eq!(fixture.fs.getattr(at).unwrap().mtime, 500);
    assert_eq!(fixture.fs.getattr(before.ino).unwrap().mtime, 100);
    assert_eq!(repo.time_of(1), Some(100), "what was shown is remembered");
}

#[test]
fn what_is_shown_late_has_the_time_of_showing_it() {
    let fixture = Fixture::new();
    let root = fixture.tree(&[("a", Is::File("1"))]);
    let repo = Repo::new(all_changed(root, 1, 100)).unwrap();
    fixture.fs.change_repositories(vec![repo.clone()], &[]);
    let at = fixture.walk("h/r").unwrap();
    let new = fixture.tree(&[("a", Is::File("2"))]);
    let target = FlipTarget {
        entry: &all_changed(new, 3, 500),
        lost: &HashSet::new(),
        late: Some(LateRun {
            first: 2,
            last: 3,
            shown_at: 900,
        }),
    };
    fixture.fs.try_flip(&repo, &target).unwrap();
    assert_eq!(fixture.find(at, "a").unwrap().mtime, 900);
    assert_eq!(fixture.fs.getattr(at).unwrap().mtime, 900);
}

#[test]
fn a_name_whose_time_is_not_known_here_is_a_miss_of_all_such_times() {
    let fixture = Fixture::new();
    let root = fixture.tree(&[("a", Is::File("1")), ("b", Is::File("2"))]);
    let node = GenerationNode::new(&[2, 3].map(GenerationRef::Constant));
    let encoded = node.encode();
    let id = GenerationNode::id_of(&encoded);
    let mut shown = (*all_changed(root, 9, 900)).clone();
    if let Some(snapshot) = &mut shown.snapshot {
        snapshot.generations = Some(GenerationRef::Node { own: 4, id });
    }
    let repo = Repo::new(Arc::new(shown)).unwrap();
    fixture.fs.change_repositories(vec![repo.clone()], &[]);
    let at = fixture.walk("h/r").unwrap();
    let wanted = DirectoryKey {
        tree: root,
        node: Some(id),
    };
    let missed = fixture.fs.lookup(at, b"a");
    assert!(matches!(missed, Err(Miss::Tree(want)) if want.key == wanted));
    fixture.fs.cache.put_generations(id, encoded, node);
    let unknown = |miss: &Miss| matches!(miss, Miss::Times(want) if want.generations == [2, 3]);
    assert!(unknown(&fixture.fs.lookup(at, b"a").unwrap_err()));
    assert!(unknown(&fixture.list(at, 0, 9).unwrap_err()));
    repo.learn_times(|known| {
        known.learn(2, 200);
        known.learn(3, 300);
    });
    let times = ["a", "b"].map(|name| fixture.find(at, name).unwrap().mtime);
    assert_eq!(times, [200, 300]);
    assert_eq!(fixture.list(at, 0, 9).unwrap().0, [".", "..", "a", "b"]);
}
