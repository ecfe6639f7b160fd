//! Directory records: fetched from holders, verified, and the last ones kept, since one is looked
//! at page by page.

use bytes::Bytes;
use futures::StreamExt;
use monofs_model::tree::{EntryKind, TreeRecord};
use monofs_model::{Error, Oid, Result};
use monofs_proto::{convert, v1};
use monofs_rpc::content::get_trees;
use monofs_rpc::{Channel, Context};

use super::ask::{self, SILENCE};
use super::cache::RecordCache;
use super::found::{Child, Inside};
use monofs_members::fleet::{self, Fleet};

/// A record over this is checked on a thread that may block.
const BLOCKING_BYTES: usize = 256 << 10;

/// The record of this directory. Errors: no holder gives a good one.
pub(super) async fn get(
    fleet: &Fleet,
    cache: &RecordCache,
    directory: &Inside,
) -> Result<TreeRecord> {
    let id = directory.repository.storage_id();
    let key = (id.clone(), directory.oid);
    if let Some(record) = cache.kept.get(&key) {
        return Ok(record);
    }
    let _permit = cache
        .fetches
        .acquire()
        .await
        .map_err(|_| Error::unavailable("this router stops"))?;
    // Somebody else may have fetched it while this one waited.
    if let Some(record) = cache.kept.get(&key) {
        return Ok(record);
    }
    let repository = &directory.repository;
    let origin = fleet::origin(
        &repository.source,
        &repository.ref_name,
        &directory.snapshot.commit,
    );
    let request = v1::GetTreesRequest {
        storage_id: id.to_string(),
        oids: vec![convert::oid_bytes(&directory.oid)],
        depth: 1,
        origin: Some(origin),
        ..Default::default()
    };
    let record = ask::holders(fleet, repository, |channel| {
        fetch(channel, request.clone(), directory.oid)
    })
    .await?;
    cache.kept.insert(key, record.clone());
    Ok(record)
}

async fn fetch(channel: Channel, request: v1::GetTreesRequest, oid: Oid) -> Result<TreeRecord> {
    let mut answers = get_trees(channel, &Context::new(SILENCE), request).await?;
    while let Some(answer) = answers.next().await {
        if let Some(tree) = answer?
            .trees
            .into_iter()
            .find(|tree| tree.oid == oid.as_bytes())
        {
            // A copy of its own: what arrived may be a slice of a larger message, which would be
            // kept with it.
            let bytes = Bytes::copy_from_slice(&tree.record);
            if bytes.len() <= BLOCKING_BYTES {
                return TreeRecord::parse_verified(bytes, &oid);
            }
            return blocking(move || TreeRecord::parse_verified(bytes, &oid)).await;
        }
    }
    Err(Error::not_held(format!(
        "does not hold the directory {oid}"
    )))
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
    let is_directory =
        |kind: EntryKind| matches!(kind, EntryKind::Directory | EntryKind::Submodule);
    let directories = record.iter().filter(|entry| is_directory(entry.kind));
    let files = record.iter().filter(|entry| !is_directory(entry.kind));
    directories
        .chain(files)
        .skip(offset)
        .take(limit)
        .map(child)
        .collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("a directory record: {e}")))?
}

#[cfg(test)]
mod tests {
    use monofs_model::{DisplayPath, ObjectFormat, ObjectKind};

    use super::*;

    fn record(names: &[(&str, &str)]) -> TreeRecord {
        let mut tree = Vec::new();
        for (mode, name) in names {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend_from_slice(
                Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, name.as_bytes()).as_bytes(),
            );
        }
        TreeRecord::encode(
            &tree,
            ObjectFormat::Sha1,
            |name, _, _| Ok(name.len() as u64),
        )
        .expect("a good tree")
    }

    #[test]
    fn pages_follow_the_names_or_the_kinds() {
        let record = record(&[
            ("100644", "a"),
            ("40000", "b"),
            ("100755", "c"),
            ("160000", "d"),
            ("120000", "e"),
        ]);
        let names = |offset, limit, first| {
            let children = cut(&record, offset, limit, first);
            children
                .iter()
                .map(|child| String::from_utf8_lossy(&child.name).into_owned())
                .collect::<String>()
        };
        assert_eq!(names(0, 3, false), "abc");
        assert_eq!(names(3, 3, false), "de");
        assert_eq!(names(0, 3, true), "bda");
        assert_eq!(names(3, 9, true), "ce");
        assert_eq!(names(9, 9, true), "");
    }

    #[test]
    fn records_are_kept_within_their_bound() {
        let records = RecordCache::default();
        let id = DisplayPath::new("a/b").expect("a path").storage_id();
        let long = "x".repeat(200);
        for number in 0..300 {
            let names: Vec<String> = (0..2000)
                .map(|file| format!("{file:04}{number}{long}"))
                .collect();
            let names: Vec<(&str, &str)> =
                names.iter().map(|name| ("100644", name.as_str())).collect();
            let record = record(&names);
            let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, record.git_tree());
            records.kept.insert((id.clone(), oid), record);
        }
        assert!(
            records.kept.weight() <= crate::browse::cache::BYTES_MAX as u64,
            "{} bytes",
            records.kept.weight()
        );
        assert!(
            records.kept.len() > 10 && records.kept.len() < 300,
            "{} records",
            records.kept.len()
        );
    }
}
