//! Directory records: fetched from holders, verified, and the last ones kept, since one is looked at page by page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use monofs_model::tree::{EntryKind, TreeRecord};
use monofs_model::{Error, Oid, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::content::get_trees;
use monofs_rpc::{Channel, Context};
use tokio::sync::Semaphore;

use super::ask::{self, SILENCE};
use super::{Child, Inside};
use crate::{RouterState, nodes};

/// Bytes of records that are kept.
pub(super) const BYTES_MAX: usize = 64 << 20;
/// Number of records that are kept.
const RECORDS_MAX: usize = 512;
/// Records that are fetched at the same time; more wait.
const FETCHES_MAX: usize = 8;
/// A record over this is checked on a thread that may block.
const BLOCKING_BYTES: usize = 256 << 10;

/// The records looked at last. The repository is part of the key, so that rights can be checked later.
pub(crate) struct Records {
    kept: Mutex<Kept>,
    fetches: Semaphore,
}

#[derive(Default)]
struct Kept {
    /// The one used last is last.
    records: VecDeque<((StorageId, Oid), TreeRecord)>,
    bytes: usize,
}

impl Default for Records {
    fn default() -> Self {
        Self { kept: Mutex::default(), fetches: Semaphore::new(FETCHES_MAX) }
    }
}

impl Records {
    fn get(&self, key: &(StorageId, Oid)) -> Option<TreeRecord> {
        let mut kept = self.lock();
        let at = kept.records.iter().position(|(found, _)| found == key)?;
        let found = kept.records.remove(at)?;
        let record = found.1.clone();
        kept.records.push_back(found);
        Some(record)
    }

    fn keep(&self, key: (StorageId, Oid), record: &TreeRecord) {
        let bytes = record.bytes().len();
        if bytes > BYTES_MAX / 2 {
            return;
        }
        let mut kept = self.lock();
        if kept.records.iter().any(|(found, _)| *found == key) {
            return;
        }
        kept.bytes += bytes;
        kept.records.push_back((key, record.clone()));
        while kept.bytes > BYTES_MAX || kept.records.len() > RECORDS_MAX {
            let Some((_, oldest)) = kept.records.pop_front() else { break };
            kept.bytes -= oldest.bytes().len();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock panics")
    }
}

/// The record of this directory. Errors: no holder gives a good one.
pub(super) async fn get(state: &Arc<RouterState>, directory: &Inside) -> Result<TreeRecord> {
    let id = directory.repository.storage_id();
    let key = (id.clone(), directory.oid);
    if let Some(record) = state.records.get(&key) {
        return Ok(record);
    }
    let _permit = state.records.fetches.acquire().await.map_err(|_| Error::unavailable("this router stops"))?;
    // Somebody else may have fetched it while this one waited.
    if let Some(record) = state.records.get(&key) {
        return Ok(record);
    }
    let repository = &directory.repository;
    let origin = nodes::origin(&repository.source, &repository.ref_name, &directory.snapshot.commit);
    let request = v1::GetTreesRequest {
        storage_id: id.to_string(),
        oids: vec![convert::oid_bytes(&directory.oid)],
        depth: 1,
        origin: Some(origin),
        ..Default::default()
    };
    let record = ask::holders(state, repository, |channel| fetch(channel, request.clone(), directory.oid)).await?;
    state.records.keep(key, &record);
    Ok(record)
}

async fn fetch(channel: Channel, request: v1::GetTreesRequest, oid: Oid) -> Result<TreeRecord> {
    let mut answers = get_trees(channel, &Context::new(SILENCE), request).await?;
    while let Some(answer) = answers.next().await {
        if let Some(tree) = answer?.trees.into_iter().find(|tree| tree.oid == oid.as_bytes()) {
            // A copy of its own: what arrived may be a slice of a larger message, which would be kept with it.
            let bytes = Bytes::copy_from_slice(&tree.record);
            if bytes.len() <= BLOCKING_BYTES {
                return TreeRecord::parse_verified(bytes, &oid);
            }
            return blocking(move || TreeRecord::parse_verified(bytes, &oid)).await;
        }
    }
    Err(Error::not_held(format!("does not hold the directory {oid}")))
}

/// `limit` entries after the first `offset`, by name, or by kind and name.
pub(super) async fn page(
    record: TreeRecord,
    offset: usize,
    limit: usize,
    directories_first: bool,
) -> Result<Vec<Child>> {
    let large = record.bytes().len() > BLOCKING_BYTES;
    let cut = move || Ok(cut(&record, offset, limit, directories_first));
    if large { blocking(cut).await } else { cut() }
}

fn cut(record: &TreeRecord, offset: usize, limit: usize, directories_first: bool) -> Vec<Child> {
    let child = |entry: monofs_model::tree::Entry<'_>| Child {
        name: entry.name.to_vec(),
        kind: entry.kind,
        oid: entry.oid,
        size: entry.size,
    };
    if !directories_first {
        return record.iter().skip(offset).take(limit).map(child).collect();
    }
    let is_directory = |kind: EntryKind| matches!(kind, EntryKind::Directory | EntryKind::Submodule);
    let directories = record.iter().filter(|entry| is_directory(entry.kind));
    let files = record.iter().filter(|entry| !is_directory(entry.kind));
    directories.chain(files).skip(offset).take(limit).map(child).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("a directory record: {e}")))?
}

#[cfg(test)]
mod tests {
    use monofs_model::{DisplayPath, ObjectFormat, ObjectKind};

    use super::*;

    fn record(names: &[(&str, &str)]) -> TreeRecord {
        let mut tree = Vec::new();
        for (mode, name) in names {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend_from_slice(Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, name.as_bytes()).as_bytes());
        }
        TreeRecord::encode(&tree, ObjectFormat::Sha1, |name, _, _| Ok(name.len() as u64)).expect("a good tree")
    }

    #[test]
    fn pages_follow_the_names_or_the_kinds() {
        let record = record(&[("100644", "a"), ("40000", "b"), ("100755", "c"), ("160000", "d"), ("120000", "e")]);
        let names = |offset, limit, first| {
            let children = cut(&record, offset, limit, first);
            children.iter().map(|child| String::from_utf8_lossy(&child.name).into_owned()).collect::<String>()
        };
        assert_eq!(names(0, 3, false), "abc");
        assert_eq!(names(3, 3, false), "de");
        assert_eq!(names(0, 3, true), "bda");
        assert_eq!(names(3, 9, true), "ce");
        assert_eq!(names(9, 9, true), "");
    }

    #[test]
    fn the_records_used_last_are_kept_within_their_bounds() {
        let records = Records::default();
        let id = DisplayPath::new("a/b").expect("a path").storage_id();
        let kept: Vec<_> = (0..RECORDS_MAX + 10)
            .map(|number| {
                let record = record(&[("100644", &format!("file{number}"))]);
                let key = (id.clone(), Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, record.git_tree()));
                records.keep(key.clone(), &record);
                // The first one is used again and again.
                records.get(&(id.clone(), first_oid()));
                key
            })
            .collect();
        assert!(records.get(&kept[0]).is_some() && records.get(&kept[1]).is_none());
        let (count, bytes) = (records.lock().records.len(), records.lock().bytes);
        assert_eq!(count, RECORDS_MAX);
        assert_eq!(bytes, records.lock().records.iter().map(|(_, record)| record.bytes().len()).sum::<usize>());
    }

    fn first_oid() -> Oid {
        Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, record(&[("100644", "file0")]).git_tree())
    }
}
