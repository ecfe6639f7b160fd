//! The commits that an entry showed: kept aside in the state store, read on demand, and never
//! in memory.
//!
//! A value is [`VERSION`] and a `monofs.v1.Publications`. It is written by the commit that flips
//! the entry, so it says neither more nor less than what happened; it goes with the entry.

use std::sync::Arc;

use monofs_model::{DisplayPath, Error, ErrorKind, Oid, Repository, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_store::state::Write;
use prost::Message;

use crate::state::{ASIDE, SharedState};

/// Version of every value written.
const VERSION: u8 = 1;
/// Commits that are kept of each entry.
const KEPT_MAX: usize = 20;

/// The key of the commits that the entry with this storage id showed.
pub(super) fn published_key(id: &StorageId) -> Vec<u8> {
    format!("{ASIDE}published/{id}").into_bytes()
}

/// The commits that entries showed.
#[derive(Clone)]
pub struct PublishedCommits {
    shared: Arc<SharedState>,
}

impl PublishedCommits {
    pub fn new(shared: &Arc<SharedState>) -> Self {
        Self {
            shared: shared.clone(),
        }
    }

    /// The last commits that the entry at `path` showed, the oldest first. Errors: the state
    /// store's.
    pub async fn of(&self, path: &DisplayPath) -> Result<Vec<v1::Publication>> {
        let key = String::from_utf8(published_key(&path.storage_id())).expect("made of text");
        let scan = self.shared.store().scan(&key).await?;
        let Some((_, row)) = scan.rows.first() else {
            return Ok(Vec::new());
        };
        decode(&row.value).map_err(|error| error.context(format!("what {path} showed")))
    }

    /// The commits that `entry` showed before what it shows now, as far as they are remembered.
    /// Nothing while that cannot be understood. Errors: the state store's.
    pub async fn replaced_in(&self, entry: &Repository) -> Result<Vec<Oid>> {
        let shown = match self.of(&entry.path).await {
            Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
            shown => shown.unwrap_or_default(),
        };
        let current = entry.snapshot.as_ref().map(|snapshot| snapshot.commit);
        let older = shown
            .iter()
            .filter(|publication| publication.generation < entry.generation);
        let commits = older.filter_map(|publication| Oid::from_bytes(&publication.commit).ok());
        Ok(commits.filter(|commit| Some(*commit) != current).collect())
    }
}

/// The write that adds what `entry` shows from now on to what it showed `before`.
pub(super) fn with_publication(
    before: &[v1::Publication],
    entry: &Repository,
    router_id: &str,
    now: i64,
) -> Option<Write> {
    let snapshot = entry.snapshot.as_ref()?;
    let publication = v1::Publication {
        generation: entry.generation,
        commit: convert::oid_bytes(&snapshot.commit),
        ref_name: entry.ref_name.as_str().to_owned(),
        commit_time: snapshot.commit_time,
        published_at: now,
        router_id: router_id.to_owned(),
        blobs: snapshot.blobs,
        bytes: snapshot.bytes,
    };
    // The last ones, and this one.
    let kept = before
        .iter()
        .skip((before.len() + 1).saturating_sub(KEPT_MAX))
        .cloned();
    let publications = v1::Publications {
        publications: kept.chain([publication]).collect(),
    };
    let mut value = vec![VERSION];
    value.extend_from_slice(&publications.encode_to_vec());
    Some(Write::Put {
        key: published_key(&entry.storage_id()),
        value,
    })
}

fn decode(value: &[u8]) -> Result<Vec<v1::Publication>> {
    match value.split_first() {
        Some((&VERSION, message)) => {
            let decoded = v1::Publications::decode(message)
                .map_err(|e| Error::corrupt(format!("a value: {e}")))?;
            Ok(decoded.publications)
        }
        version => Err(Error::refused(format!(
            "a value has version {:?}, this router knows {VERSION}; run a newer monofs-router",
            version.map(|(version, _)| version)
        ))),
    }
}
