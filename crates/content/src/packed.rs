//! A catalogue entry as it is kept here: encoded, and decoded when the repository is looked at.
//! Of a large catalogue most entries are never touched; encoded ones take a third of the memory and
//! no time.
//!
//! Invariant: what is in a [`Packed`] was decoded and checked once, so decoding it again cannot
//! fail. It has no storage id, no times and no last error, so that two of them are the same bytes
//! if they are the same to readers.

use std::sync::LazyLock;

use bytes::Bytes;
use monofs_model::{Error, Repository, Result};
use monofs_proto::v1;
use prost::Message;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::shown::ShownTree;
use crate::times::ShownTimes;

/// Most threads that check a large catalogue.
const CHECKERS_MAX: usize = 4;

static CHECKERS: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(CHECKERS_MAX),
    )
});

/// The size of what is shown, for `statfs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    pub bytes: u64,
    pub files: u64,
}

/// A checked entry, encoded, and of it what every repository is asked for.
#[derive(Debug, Clone)]
pub struct Packed {
    bytes: Bytes,
    /// The root directory.
    pub root: ShownTree,
    pub times: ShownTimes,
    pub volume: Volume,
}

/// A `CatalogPage` whose entries are not decoded.
#[derive(Clone, PartialEq, prost::Message)]
struct PackedPage {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    upserts: Vec<Bytes>,
}

/// The path of an entry, and the entry unless readers are not to see it.
pub type CheckedEntry = (String, Option<Packed>);

/// Checks the entries of an encoded page; they share its memory. One that is not understood is left
/// out. Errors: `Invalid` for what is no page.
fn check_page(page: Bytes) -> Result<Vec<CheckedEntry>> {
    let page =
        PackedPage::decode(page).map_err(|e| Error::invalid(format!("catalogue page: {e}")))?;
    Ok(page
        .upserts
        .into_iter()
        .filter_map(|entry| understood(Packed::check(entry)))
        .collect())
}

/// A page that is being checked, beside others.
#[derive(Debug)]
pub struct PageCheck(JoinHandle<Result<Vec<CheckedEntry>>>);

impl PageCheck {
    /// Begins a [`check_page`] on the current runtime.
    pub fn begin(page: Bytes) -> Self {
        Self(tokio::spawn(async move {
            let _turn = CHECKERS.acquire().await;
            tokio::task::spawn_blocking(move || check_page(page))
                .await
                .unwrap_or_else(|e| Err(unchecked(e)))
        }))
    }

    /// Its entries.
    pub async fn entries(self) -> Result<Vec<CheckedEntry>> {
        self.0.await.unwrap_or_else(|e| Err(unchecked(e)))
    }
}

fn unchecked(error: tokio::task::JoinError) -> Error {
    Error::internal(format!("check the catalogue: {error}"))
}

/// An entry that is not understood, perhaps of a newer router, is not shown, and that is said.
pub fn understood(entry: Result<CheckedEntry>) -> Option<CheckedEntry> {
    entry
        .inspect_err(
            |error| tracing::warn!(%error, "ignoring what the catalogue says about a repository"),
        )
        .ok()
}

/// The page with these entries, encoded.
pub fn page(entries: impl Iterator<Item = Packed>) -> Vec<u8> {
    PackedPage {
        upserts: entries.map(|entry| entry.bytes).collect(),
    }
    .encode_to_vec()
}

impl Packed {
    /// Checks an encoded entry of a page. Returns its path, and `None` if readers are not to see
    /// it. Errors: `Invalid`.
    pub fn check(bytes: Bytes) -> Result<CheckedEntry> {
        let wire = v1::Repository::decode(bytes.clone())
            .map_err(|e| Error::invalid(format!("catalogue entry: {e}")))?;
        let entry = Repository::try_from(wire).map_err(|e| {
            let path =
                v1::Repository::decode(bytes.clone()).map_or(String::new(), |wire| wire.path);
            e.context(format!("catalogue entry '{}'", path.escape_debug()))
        })?;
        let packed = Self::with(&entry, bytes);
        Ok((entry.path.into(), packed))
    }

    /// Checks an entry. Returns its path, and `None` if readers are not to see it. Errors:
    /// `Invalid`.
    pub fn pack(wire: v1::Repository) -> Result<CheckedEntry> {
        Self::check(for_readers(wire).encode_to_vec().into())
    }

    /// Packs an entry; `None` if readers are not to see it.
    pub fn of(entry: &Repository) -> Option<Self> {
        Self::with(
            entry,
            for_readers(v1::Repository::from(entry))
                .encode_to_vec()
                .into(),
        )
    }

    fn with(entry: &Repository, bytes: Bytes) -> Option<Self> {
        let snapshot = entry.snapshot.as_ref()?;
        let volume = Volume {
            bytes: snapshot.bytes,
            files: snapshot.blobs.saturating_add(snapshot.trees),
        };
        Some(Self {
            bytes,
            root: ShownTree::root_of(snapshot),
            times: ShownTimes::of(entry, snapshot),
            volume,
        })
    }

    /// The entry.
    pub fn decode(&self) -> Repository {
        let wire =
            v1::Repository::decode(self.bytes.clone()).expect("it was decoded when it was packed");
        Repository::try_from(wire).expect("it was checked when it was packed")
    }

    /// Length when encoded.
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether readers see the same.
    pub fn same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

fn for_readers(wire: v1::Repository) -> v1::Repository {
    v1::Repository {
        storage_id: String::new(),
        created_at: 0,
        refreshed_at: 0,
        last_error: String::new(),
        shadowed_by: String::new(),
        ..wire
    }
}
