//! A look into a tree whose records and contents nodes serve, honestly or not.

use bytes::Bytes;
use futures::TryStreamExt;
use monofs_model::tree::TreeRecord;
use monofs_model::{ErrorKind, ObjectFormat, ObjectKind, Oid, Snapshot, Submodule};

use super::*;
use crate::fixture::peers::FakeNode;
use crate::fixture::{TestRouter, actor, entry, node_id, snapshot};

fn blob(raw: &[u8]) -> Oid {
    Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, raw)
}

/// A directory of these entries: mode, name, object id, size.
fn directory(entries: &[(&str, &str, Oid, u64)]) -> (Oid, TreeRecord) {
    let mut tree = Vec::new();
    for (mode, name, oid, _) in entries {
        tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        tree.extend_from_slice(oid.as_bytes());
    }
    let size_of = |name: &[u8], _, _| {
        let mut entries = entries.iter();
        let found = entries.find(|entry| entry.1.as_bytes() == name);
        Ok(found.expect("one of them").3)
    };
    let record = TreeRecord::encode(&tree, ObjectFormat::Sha1, size_of).expect("a good tree");
    let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &tree);
    (oid, record)
}

/// Two nodes that are recorded to hold `h/org/repo`, with `README`, `dir/file`, a link and a
/// submodule. What they serve is up to the test.
struct Rig {
    router: TestRouter,
    nodes: [FakeNode; 2],
    root: (Oid, TreeRecord),
    dir: (Oid, TreeRecord),
}

impl Rig {
    async fn start() -> Self {
        let router = TestRouter::start().await;
        let dir = directory(&[("100755", "file", blob(b"inner\n"), 6)]);
        let root = directory(&[
            ("100644", "README", blob(b"hello\n"), 6),
            ("40000", "dir", dir.0, 0),
            ("120000", "link", blob(b"dir/file"), 8),
            ("160000", "module", snapshot(5).commit, 0),
        ]);
        let shown = Snapshot {
            root: root.0,
            submodules: vec![Submodule {
                path: b"module".to_vec(),
                url: "https://example.com/a/module".into(),
            }],
            ..snapshot(1)
        };
        let nodes = [FakeNode::start("n1").await, FakeNode::start("n2").await];
        nodes.iter().for_each(|node| node.put("h/org/repo", &shown));
        let entries = &router.parts().control.entries;
        let new = entry("h/org/repo");
        entries.create(actor(), new.clone()).await.expect("created");
        let holders = [node_id("n1"), node_id("n2")];
        let flipped = entries.flip(actor(), &new, &shown, &holders[0]).await;
        let flipped = flipped.expect("published");
        let add = entries.add_holder(actor(), &flipped.path, 1, &holders[1]);
        add.await.expect("recorded");
        for (name, node) in ["n1", "n2"].iter().zip(&nodes) {
            router.node_at(name, &node.address).await;
        }
        Self {
            router,
            nodes,
            root,
            dir,
        }
    }

    /// The node serves the tree as it is.
    fn serve(&self, node: &FakeNode) {
        for (oid, record) in [&self.root, &self.dir] {
            node.serve_tree(*oid, Bytes::copy_from_slice(record.bytes()));
        }
        for raw in [&b"hello\n"[..], b"inner\n", b"dir/file"] {
            node.serve_blob(blob(raw), raw);
        }
    }

    async fn look(&self, at: &str) -> Result<Found> {
        let path = TreePath::new(at.as_bytes())?;
        look(self.router.parts(), &path, &Paging::default()).await
    }

    async fn inside(&self, at: &str) -> Inside {
        match self.look(at).await.expect("it is there") {
            Found::Entry(inside) => inside,
            _ => panic!("{at} is a directory"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_walked_from_the_namespace_down_to_a_file() {
    let rig = Rig::start().await;
    rig.nodes.iter().for_each(|node| rig.serve(node));
    let Ok(Found::Namespace(top)) = rig.look("").await else {
        panic!("the root is a directory above repositories");
    };
    assert_eq!(top.names.len(), 1);
    assert_eq!(
        (top.names[0].0.as_str(), top.names[0].1.is_none()),
        ("h", true)
    );
    let Ok(Found::Directory(root)) = rig.look("h/org/repo").await else {
        panic!("a repository is a directory");
    };
    let names: Vec<_> = root.entries.iter().map(|child| &child.name[..]).collect();
    assert_eq!(names, [&b"README"[..], b"dir", b"link", b"module"]);
    assert_eq!(root.total, 4);
    let file = rig.inside("h/org/repo/dir/file").await;
    assert_eq!((file.kind, file.size), (EntryKind::Executable, 6));
    let fleet = &rig.router.parts().fleet;
    let raw = read_small(fleet, &file, 100).await.expect("it is read");
    assert_eq!(&raw[..], b"inner\n");
    let part: Vec<Bytes> = read(fleet.clone(), file, 2..4)
        .try_collect()
        .await
        .expect("read");
    assert_eq!(part.concat(), b"ne");
    // A link is shown and never followed; a submodule says where it comes from.
    let link = rig.inside("h/org/repo/link").await;
    let target = read_small(fleet, &link, 100).await.expect("its target");
    assert_eq!(
        (link.kind, &target[..]),
        (EntryKind::Symlink, &b"dir/file"[..])
    );
    let module = rig.inside("h/org/repo/module").await;
    assert_eq!(module.submodule_url(), Some("https://example.com/a/module"));
    for missing in [
        "h/org/repo/link/file",
        "h/org/repo/none",
        "h/none",
        "h/org/repo/README/x",
    ] {
        let error = rig.look(missing).await.err().expect("nothing is there");
        assert_eq!(error.kind, ErrorKind::NotFound, "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_serves_other_bytes_is_not_believed_and_the_next_one_is_asked() {
    let rig = Rig::start().await;
    for liar in 0..2 {
        // Records that were looked at are kept: another router looks for the second turn.
        let rig = if liar == 0 { &rig } else { &Rig::start().await };
        let (other_oid, other) = directory(&[("100644", "evil", blob(b"x"), 1)]);
        assert_ne!(other_oid, rig.root.0);
        rig.nodes[liar].serve_tree(rig.root.0, Bytes::copy_from_slice(other.bytes()));
        rig.nodes[liar].serve_blob(blob(b"hello\n"), b"HELLO\n");
        rig.serve(&rig.nodes[1 - liar]);
        let file = rig.inside("h/org/repo/README").await;
        let fleet = &rig.router.parts().fleet;
        let raw = read_small(fleet, &file, 100)
            .await
            .expect("the other one has it");
        assert_eq!(&raw[..], b"hello\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_no_holder_has_right_are_an_error_and_end_the_stream() {
    let rig = Rig::start().await;
    rig.serve(&rig.nodes[0]);
    for node in &rig.nodes {
        node.serve_blob(blob(b"hello\n"), b"HELLO\n");
    }
    let file = rig.inside("h/org/repo/README").await;
    let fleet = rig.router.parts().fleet.clone();
    let mut pieces = read(fleet, file, 0..u64::MAX);
    let first = futures::StreamExt::next(&mut pieces).await.expect("told");
    assert_eq!(first.expect_err("wrong bytes").kind, ErrorKind::Corrupt);
    assert!(futures::StreamExt::next(&mut pieces).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_a_commit_says_why_it_shows_nothing() {
    let router = TestRouter::start().await;
    let entries = &router.parts().control.entries;
    entries
        .create(actor(), entry("a/b"))
        .await
        .expect("created");
    let at = |text: &str| TreePath::new(text.as_bytes()).expect("a path");
    let shown = look(router.parts(), &at("a/b"), &Paging::default()).await;
    let refused = shown.err().expect("no commit yet");
    assert_eq!(refused.kind, ErrorKind::Refused);
    assert!(
        refused.message.contains("it is being ingested"),
        "{refused}"
    );
    // Without a holder that answers, what is published cannot be shown either.
    router.repository("c/d", &["n1"], 1).await;
    let shown = look(router.parts(), &at("c/d"), &Paging::default()).await;
    let error = shown.err().expect("no holder is there");
    assert!(
        error.message.contains("no node that holds 'c/d'"),
        "{error}"
    );
}
