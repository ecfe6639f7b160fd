//! Snapshots of a repository: the rows that say "everything below this root is here".

use std::collections::HashSet;

use bytes::Bytes;
use heed::RwTxn;
use monofs_model::limits::SUBMODULES_MAX;
use monofs_model::{Error, Oid, Result, Snapshot, Submodule};

use super::meta::RepoMeta;
use super::store::{KEY_META, RepoStore, TXN_BYTES};
use super::trees::{TreeVisit, missing_tree, walk};
use crate::encoding::{Decoder, Encoder};
use crate::env::{TxnResult, put_changed};

const SNAPSHOT_VERSION: u8 = 1;

impl RepoStore {
    /// Writes a snapshot's row, without its generations. Errors: `NotHeld`, naming the first tree that its closure lacks;
    /// nothing is written then.
    pub fn put_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        let _sweep = self.sweep.read();
        self.env.write("write the snapshot", |wtxn| {
            self.put_snapshot_row(wtxn, snapshot)
        })
    }

    /// Stores directory records and the snapshot that they complete. The snapshot's row, the facts
    /// and the last records are one transaction; earlier records go in bounded transactions before
    /// it and mean nothing by themselves. Errors: `NotHeld` when the closure has a hole; no
    /// snapshot is written then, the records stay until `gc`.
    pub fn adopt(
        &self,
        trees: &mut dyn Iterator<Item = (Oid, Bytes)>,
        snapshot: &Snapshot,
        meta: &RepoMeta,
    ) -> Result<()> {
        let _sweep = self.sweep.read();
        let facts = meta.encode();
        loop {
            // Records are gathered up to the size of one transaction.
            let mut bytes = 0;
            let mut batch = Vec::new();
            while bytes < TXN_BYTES {
                let Some((oid, record)) = trees.next() else {
                    break;
                };
                bytes += record.len();
                batch.push((oid, record));
            }
            // A full batch goes by itself; the rest goes with the snapshot.
            if bytes >= TXN_BYTES {
                self.put_trees(&batch)?;
                continue;
            }
            return self
                .env
                .write("adopt the snapshot", |wtxn| -> TxnResult<()> {
                    for (oid, record) in &batch {
                        put_changed(self.tables.trees, wtxn, oid.as_bytes(), record)?;
                    }
                    self.put_snapshot_row(wtxn, snapshot)?;
                    self.tables.facts.put(wtxn, KEY_META, &facts)?;
                    Ok(())
                });
        }
    }

    fn put_snapshot_row(&self, wtxn: &mut RwTxn<'_>, snapshot: &Snapshot) -> TxnResult<()> {
        walk(
            self.tables,
            wtxn,
            &snapshot.root,
            &mut HashSet::new(),
            |step| match step {
                TreeVisit::Missing(oid) => Err(missing_tree(&snapshot.root, &oid).into()),
                TreeVisit::Tree(..) => Ok(true),
            },
        )?;
        self.tables
            .snapshots
            .put(wtxn, snapshot.commit.as_bytes(), &encode(snapshot)?)?;
        Ok(())
    }

    /// All snapshots held, in order of their commit ids, without their generations.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let broken = |e| self.env.error("list snapshots", e);
        let txn = self.env.read()?;
        let mut snapshots = Vec::new();
        for row in self.tables.snapshots.iter(&txn).map_err(broken)? {
            let (_, row) = row.map_err(broken)?;
            snapshots.push(decode(row)?);
        }
        Ok(snapshots)
    }

    /// The snapshot of a commit.
    pub fn snapshot(&self, commit: &Oid) -> Result<Option<Snapshot>> {
        let txn = self.env.read()?;
        let row = self.tables.snapshots.get(&txn, commit.as_bytes());
        row.map_err(|e| self.env.error("read a snapshot", e))?
            .map(decode)
            .transpose()
    }

    /// Whether the snapshot of a commit is held.
    pub fn has_snapshot(&self, commit: &Oid) -> Result<bool> {
        let txn = self.env.read()?;
        let row = self.tables.snapshots.get(&txn, commit.as_bytes());
        Ok(row
            .map_err(|e| self.env.error("look for a snapshot", e))?
            .is_some())
    }
}

fn encode(snapshot: &Snapshot) -> Result<Vec<u8>> {
    if snapshot.submodules.len() > SUBMODULES_MAX {
        let count = snapshot.submodules.len();
        return Err(Error::invalid(format!(
            "a snapshot remembers at most {SUBMODULES_MAX} submodules, not {count}"
        )));
    }
    let mut row = Encoder::new(SNAPSHOT_VERSION);
    row.bytes(snapshot.commit.as_bytes())
        .bytes(snapshot.root.as_bytes())
        .u64(snapshot.commit_time.cast_unsigned());
    row.u64(snapshot.trees)
        .u64(snapshot.blobs)
        .u64(snapshot.bytes)
        .u64(snapshot.submodules.len() as u64);
    for submodule in &snapshot.submodules {
        row.bytes(&submodule.path).bytes(submodule.url.as_bytes());
    }
    Ok(row.finish())
}

pub(super) fn decode(row: &[u8]) -> Result<Snapshot> {
    let mut row = Decoder::new(row, SNAPSHOT_VERSION, "snapshot")?;
    let mut snapshot = Snapshot {
        commit: row.oid()?,
        root: row.oid()?,
        commit_time: row.u64()?.cast_signed(),
        trees: row.u64()?,
        blobs: row.u64()?,
        bytes: row.u64()?,
        submodules: Vec::new(),
        generations: None,
    };
    // The list is read only after its length was found possible.
    let count = row.u64()?;
    if count > SUBMODULES_MAX as u64 {
        return Err(Error::corrupt(format!(
            "snapshot: {count} submodules are over the limit of {SUBMODULES_MAX}"
        )));
    }
    for _ in 0..count {
        snapshot.submodules.push(Submodule {
            path: row.bytes()?.to_vec(),
            url: row.text()?.to_owned(),
        });
    }
    row.finish()?;
    Ok(snapshot)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn oids() -> impl Strategy<Value = Oid> {
        prop_oneof![
            any::<[u8; 20]>().prop_map(|b| b.to_vec()),
            any::<[u8; 32]>().prop_map(|b| b.to_vec())
        ]
        .prop_map(|raw| Oid::from_bytes(&raw).unwrap())
    }

    proptest! {
        #[test]
        fn snapshots_round_trip(
            (commit, root) in (oids(), oids()),
            numbers: (i64, u64, u64, u64),
            submodules in proptest::collection::vec((any::<Vec<u8>>(), any::<String>()), 0..4),
        ) {
            let (commit_time, trees, blobs, bytes) = numbers;
            let submodules = submodules.into_iter().map(|(path, url)| Submodule { path, url }).collect();
            let snapshot = Snapshot {
                commit, root, commit_time, trees, blobs, bytes, submodules, generations: None,
            };
            prop_assert_eq!(decode(&encode(&snapshot).unwrap()).unwrap(), snapshot);
        }

        #[test]
        fn no_bytes_can_make_the_decoder_panic(mut row: Vec<u8>, versioned: bool) {
            if versioned {
                row.insert(0, SNAPSHOT_VERSION);
            }
            let _ = decode(&row);
        }
    }
}
