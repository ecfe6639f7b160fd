//! The repositories, and the tree of one of them: every kind of entry, and contents that are
//! damaged or lost.

use bytes::Bytes;
use monofs_model::tree::TreeRecord;
use monofs_model::{ObjectFormat, ObjectKind, Oid};
use monofs_proto::v1;
use monofs_testkit::hostile::{RawEntry, tree_bytes};
use parking_lot::Mutex;

use super::{LARGE, REPO, World, ready};

impl World {
    pub fn filled() -> Self {
        let mut world = Self {
            problems: vec![
                "node2 is down: start it, or \u{1b}[31mwait; `monofs-admin failover`".into(),
            ],
            ..Self::default()
        };
        let root = world.make_tree();
        let mut with_tree = ready(REPO);
        let snapshot = with_tree.snapshot.as_mut().unwrap();
        snapshot.root = Bytes::copy_from_slice(root.as_bytes());
        snapshot.submodules = vec![v1::Submodule {
            path: Bytes::from_static(b"ext"),
            url: "https://example.com/ext.git".into(),
        }];
        let fresh = v1::Repository {
            state: v1::RepositoryState::Ingesting.into(),
            snapshot: None,
            holders: Vec::new(),
            last_error: "connection reset".into(),
            ..ready("gitlab.com/new")
        };
        let hidden = v1::Repository {
            shadowed_by: "gitlab.com/a".into(),
            ..ready("gitlab.com/a/b/c")
        };
        world.repositories = Mutex::new(vec![with_tree, hidden, fresh]);
        world
    }

    fn blob(&mut self, bytes: &[u8]) -> Oid {
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, bytes);
        self.blobs.insert(oid, Bytes::copy_from_slice(bytes));
        oid
    }

    fn tree(&mut self, entries: &[RawEntry<'_>]) -> Oid {
        let raw = tree_bytes(entries);
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &raw);
        let sizes =
            |_: &[u8], _, oid: Oid| Ok(self.blobs.get(&oid).map_or(0, |bytes| bytes.len() as u64));
        let record = TreeRecord::encode(&raw, ObjectFormat::Sha1, sizes).unwrap();
        self.trees.insert(oid, record.bytes().clone());
        oid
    }

    fn make_tree(&mut self) -> Oid {
        let readme = self.blob(b"# hello\n");
        let empty = self.blob(b"");
        let large = self.blob(&monofs_testkit::repo::pattern(LARGE));
        let link = self.blob(b"README.md");
        let damaged = self.blob(b"what it should be");
        self.blobs
            .insert(damaged, Bytes::from_static(b"what it shouldnt "));
        let lost = Oid::from_bytes(&[9; 20]).unwrap();
        let inner = self.tree(&[RawEntry::file(b"main.rs", readme)]);
        let entry = |mode, name, oid| RawEntry { mode, name, oid };
        self.tree(&[
            entry("100644", b"README.md", readme),
            entry("100644", b"caf\xe9", empty),
            entry("100644", b"damaged", damaged),
            entry("100644", b"evil\x1b[31m", empty),
            entry("160000", b"ext", Oid::from_bytes(&[7; 20]).unwrap()),
            entry("100644", b"large.bin", large),
            entry("120000", b"link", link),
            entry("100644", b"lost", lost),
            entry("100755", b"run", empty),
            entry("40000", b"src", inner),
        ])
    }
}
