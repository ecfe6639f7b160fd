//! Generated repositories: the same seed always gives the same objects.

use std::path::Path;

use bytes::Bytes;
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{
    ContentMode, DisplayPath, EntryKind, ObjectFormat, ObjectKind, Oid, RefName, Snapshot,
    SourceUrl, Submodule, TreeRecord,
};
use monofs_store::{EnvOptions, RepoMeta, RepoStore, frame};

/// Everything of one commit.
pub struct Sample {
    pub snapshot: Snapshot,
    pub trees: Vec<(Oid, Bytes)>,
    /// Blobs of one chunk: oid and frame.
    pub blobs: Vec<(Oid, Bytes)>,
    /// Raw bytes of the blobs, in the same order.
    pub raw: Vec<Vec<u8>>,
}

pub fn meta(name: &str) -> RepoMeta {
    let path = DisplayPath::new(&format!("example.org/{name}")).unwrap();
    RepoMeta {
        storage_id: path.storage_id(),
        path,
        source: SourceUrl::new("https://example.org/sample.git").unwrap(),
        ref_name: RefName::new("main").unwrap(),
        content: ContentMode::Eager,
        format: ObjectFormat::Sha1,
    }
}

pub fn open(dir: &Path) -> RepoStore {
    RepoStore::open(dir, &meta("sample"), &EnvOptions::default()).unwrap()
}

/// Deterministic noise that does not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A directory of `files` files and one of them per directory below, `dirs` directories in a chain.
/// Files of different seeds differ; `shared` of them are the same for all seeds.
pub fn sample(format: ObjectFormat, seed: u64, dirs: usize, files: usize, shared: usize) -> Sample {
    let mut result = Sample {
        snapshot: Snapshot {
            commit: Oid::of(format, ObjectKind::Commit, &seed.to_le_bytes()),
            root: Oid::of(format, ObjectKind::Tree, b""),
            commit_time: 1_700_000_000 + seed as i64,
            trees: 0,
            blobs: 0,
            bytes: 0,
            submodules: vec![Submodule {
                path: b"third\xffparty".to_vec(),
                url: "../other.git".into(),
            }],
            generations: None,
        },
        trees: Vec::new(),
        blobs: Vec::new(),
        raw: Vec::new(),
    };
    let mut below: Option<Oid> = None;
    for dir in 0..dirs.max(1) {
        let mut tree = Vec::new();
        let mut entry = |mode: &str, name: String, oid: &Oid| {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend_from_slice(oid.as_bytes());
        };
        let mut sizes = std::collections::HashMap::new();
        for file in 0..files {
            let origin = if file < shared { 0 } else { seed };
            let raw = noise(
                origin << 32 | (dir as u64) << 16 | file as u64,
                10 + file * 37 % 5000,
            );
            let oid = Oid::of(format, ObjectKind::Blob, &raw);
            entry("100644", format!("file-{file:05}"), &oid);
            sizes.insert(oid, raw.len() as u64);
            result.blobs.push((oid, frame::encode(&raw)));
            result.raw.push(raw);
        }
        if let Some(oid) = &below {
            entry("40000", "sub".into(), oid);
        }
        let record = TreeRecord::encode(&tree, format, |_, kind, oid| {
            assert_eq!(kind, EntryKind::File);
            Ok(sizes[&oid])
        });
        let oid = Oid::of(format, ObjectKind::Tree, &tree);
        result.trees.push((oid, record.unwrap().bytes().clone()));
        below = Some(oid);
    }
    result.snapshot.root = below.unwrap();
    result.snapshot.trees = result.trees.len() as u64;
    result.snapshot.blobs = result.blobs.len() as u64;
    result
}

/// A chain of directories with many files each, whose contents the store lacks.
pub fn wide(dirs: u64, files: u64) -> Sample {
    let format = ObjectFormat::Sha1;
    let mut result = sample(format, 1, 1, 0, 0);
    for dir in 0..dirs {
        let mut tree = Vec::new();
        for file in 0..files {
            tree.extend_from_slice(format!("100644 file-{file:08}\0").as_bytes());
            tree.extend_from_slice(&noise(dir * files + file, format.oid_len()));
        }
        tree.extend_from_slice(b"40000 sub\0");
        tree.extend_from_slice(result.snapshot.root.as_bytes());
        let record = TreeRecord::encode(&tree, format, |_, _, _| Ok(1)).unwrap();
        result.snapshot.root = Oid::of(format, ObjectKind::Tree, &tree);
        result
            .trees
            .push((result.snapshot.root, record.bytes().clone()));
    }
    result
}

impl Sample {
    pub fn adopt(&self, store: &RepoStore) {
        store
            .adopt(
                &mut self.trees.iter().cloned(),
                &self.snapshot,
                &meta("sample"),
            )
            .unwrap();
    }
}

/// A blob of several chunks: oid, raw bytes, frames.
pub fn large(seed: u64, size: usize) -> (Oid, Vec<u8>, Vec<Bytes>) {
    let raw = noise(seed, size);
    let frames = raw.chunks(CHUNK_BYTES).map(frame::encode).collect();
    (
        Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, &raw),
        raw,
        frames,
    )
}

/// The problems of a full check.
pub fn problems(store: &RepoStore) -> Vec<String> {
    let report = store.check(&mut |_| true).unwrap();
    assert!(report.complete);
    assert_eq!(report.problems.len() as u64, report.problems_total);
    report
        .problems
        .into_iter()
        .map(|problem| problem.message)
        .collect()
}
