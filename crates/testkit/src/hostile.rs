//! Repositories that no honest git would make: what a server must refuse with one clear line, or
//! serve unharmed.

use std::path::PathBuf;

use monofs_model::{ObjectFormat, Oid};

use crate::git;
use crate::repo::{MAIN, Repo, oid, pattern};

/// An entry of a tree object, written as given.
pub struct RawEntry<'a> {
    /// As in the object: `100644`, `100755`, `120000`, `40000`, `160000`, or anything else.
    pub mode: &'a str,
    pub name: &'a [u8],
    pub oid: Oid,
}

impl<'a> RawEntry<'a> {
    /// A plain file.
    pub fn file(name: &'a [u8], oid: Oid) -> Self {
        Self {
            mode: "100644",
            name,
            oid,
        }
    }
}

/// The bytes of a tree object with these entries in this order.
pub fn tree_bytes(entries: &[RawEntry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(entry.mode.bytes());
        bytes.push(b' ');
        bytes.extend(entry.name);
        bytes.push(0);
        bytes.extend(entry.oid.as_bytes());
    }
    bytes
}

impl Repo {
    /// Writes a tree object without any check.
    pub fn raw_tree(&self, entries: &[RawEntry<'_>]) -> Oid {
        self.raw_object("tree", &tree_bytes(entries))
    }

    /// Writes an object of any type and bytes without any check.
    pub fn raw_object(&self, kind: &str, bytes: &[u8]) -> Oid {
        let args = ["hash-object", "-t", kind, "-w", "--literally", "--stdin"];
        oid(String::from_utf8_lossy(&git::feed(&self.path(), args, bytes)).trim())
    }

    /// Makes `main` a single commit of this tree, which git does not look into.
    pub fn commit_raw_tree(&self, root: &Oid) -> Oid {
        let who = format!("{} {} +0000", git::IDENTITY, git::EPOCH);
        let text = format!("tree {root}\nauthor {who}\ncommitter {who}\n\nhostile\n");
        let commit = self.raw_object("commit", text.as_bytes());
        self.point(&format!("refs/heads/{MAIN}"), &commit);
        commit
    }

    /// Puts the bytes of one loose object in the place of another, so that they no longer match its
    /// id. The repository must not have been packed.
    pub fn swap_loose_object(&self, victim: &Oid, other: &Oid) {
        let to = self.loose_path(victim);
        let from = self.loose_path(other);
        let bytes =
            std::fs::read(&from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        std::fs::remove_file(&to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
        std::fs::write(&to, bytes).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    }

    /// Removes a loose object, as a broken copy of a repository lacks one.
    pub fn remove_loose_object(&self, victim: &Oid) {
        let path = self.loose_path(victim);
        std::fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn loose_path(&self, id: &Oid) -> PathBuf {
        let text = id.to_string();
        self.path()
            .join("objects")
            .join(&text[..2])
            .join(&text[2..])
    }

    /// Packs everything and then changes the pack's bytes.
    pub fn damage_pack(&self, damage: impl Fn(&mut Vec<u8>)) {
        self.repack();
        for pack in self.packs() {
            let mut bytes =
                std::fs::read(&pack).unwrap_or_else(|error| panic!("{}: {error}", pack.display()));
            damage(&mut bytes);
            std::fs::remove_file(&pack)
                .unwrap_or_else(|error| panic!("{}: {error}", pack.display()));
            std::fs::write(&pack, bytes)
                .unwrap_or_else(|error| panic!("{}: {error}", pack.display()));
        }
    }
}

/// A repository whose `main` is hostile in one way.
pub struct HostileRepo {
    /// What is wrong with it, as a test's message says it.
    pub what: &'static str,
    pub repo: Repo,
    pub commit: Oid,
}

/// Every kind of tree that must be refused as a whole: names that could leave the directory or that
/// two readers would understand differently, and trees that are no trees.
pub fn refused_trees() -> Vec<HostileRepo> {
    let mut all = trees_with_bad_names();
    all.extend(trees_that_are_ambiguous());
    all.extend(trees_that_are_no_trees());
    all
}

/// Names that could leave the directory, hide a repository or not be kept.
fn trees_with_bad_names() -> Vec<HostileRepo> {
    let names: [(&'static str, &[u8]); 8] = [
        ("an entry named .git", b".git"),
        ("an entry named .GIT", b".GIT"),
        ("an entry named ..", b".."),
        ("an entry named .", b"."),
        ("an entry with a slash", b"a/b"),
        ("an entry that climbs out", b"../../escape"),
        ("an absolute entry", b"/etc/passwd"),
        ("an entry without a name", b""),
    ];
    let mut all: Vec<HostileRepo> = names
        .into_iter()
        .map(|(what, name)| {
            hostile(what, |repo, blob| {
                repo.raw_tree(&[RawEntry::file(name, blob)])
            })
        })
        .collect();
    let long = vec![b'n'; 256];
    all.push(hostile("a name of 256 bytes", |repo, blob| {
        repo.raw_tree(&[RawEntry::file(&long, blob)])
    }));
    all.push(hostile("a .git entry deep below", |repo, blob| {
        let mut tree = repo.raw_tree(&[RawEntry::file(b".git", blob)]);
        for _ in 0..3 {
            tree = repo.raw_tree(&[RawEntry {
                mode: "40000",
                name: b"d",
                oid: tree,
            }]);
        }
        tree
    }));
    all
}

/// Two entries of one name.
fn trees_that_are_ambiguous() -> Vec<HostileRepo> {
    vec![
        hostile("the same name twice", |repo, blob| {
            repo.raw_tree(&[
                RawEntry::file(b"same", blob),
                RawEntry::file(b"same", repo.blob(b"other")),
            ])
        }),
        hostile("a file and a directory of one name", |repo, blob| {
            let inner = repo.raw_tree(&[RawEntry::file(b"x", blob)]);
            repo.raw_tree(&[
                RawEntry::file(b"same", blob),
                RawEntry {
                    mode: "40000",
                    name: b"same",
                    oid: inner,
                },
            ])
        }),
    ]
}

/// Objects that cannot be read as the tree they should be.
fn trees_that_are_no_trees() -> Vec<HostileRepo> {
    vec![
        hostile(
            "a tree object that ends in the middle of an entry",
            |repo, blob| {
                let mut bytes = tree_bytes(&[RawEntry::file(b"cut", blob)]);
                bytes.truncate(bytes.len() - 5);
                repo.raw_object("tree", &bytes)
            },
        ),
        hostile("an entry with a mode that is no number", |repo, blob| {
            repo.raw_tree(&[RawEntry {
                mode: "rwxr-xr-x",
                name: b"x",
                oid: blob,
            }])
        }),
        hostile("a directory entry that names a blob", |repo, blob| {
            repo.raw_tree(&[RawEntry {
                mode: "40000",
                name: b"d",
                oid: blob,
            }])
        }),
    ]
}

/// A symlink whose target is `len` bytes long.
pub fn long_symlink(len: usize) -> HostileRepo {
    hostile("a symlink that is too long", |repo, _| {
        let target = repo.blob(&vec![b'l'; len]);
        repo.raw_tree(&[RawEntry {
            mode: "120000",
            name: b"link",
            oid: target,
        }])
    })
}

/// A repository in which the bytes of one blob do not match its id; `repo` is loose.
pub fn mismatched_blob() -> (HostileRepo, Oid) {
    let mut victim = None;
    let made = hostile("a blob whose bytes do not match its id", |repo, _| {
        let good = repo.blob(&pattern(5000));
        let evil = repo.blob(b"not what the id says");
        let root = repo.raw_tree(&[RawEntry::file(b"file", good)]);
        repo.swap_loose_object(&good, &evil);
        victim = Some(good);
        root
    });
    (made, victim.expect("the closure ran"))
}

/// A repository whose only commit has the root tree that `root` writes; it gets an honest blob.
fn hostile(what: &'static str, root: impl FnOnce(&Repo, Oid) -> Oid) -> HostileRepo {
    let repo = Repo::with_format(ObjectFormat::Sha1);
    let blob = repo.blob(b"payload");
    let root = root(&repo, blob);
    let commit = repo.commit_raw_tree(&root);
    HostileRepo { what, repo, commit }
}
