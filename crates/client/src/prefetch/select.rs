//! Which files may be fetched unasked, and which of them are not at hand.

use std::collections::HashSet;

use monofs_model::limits::CHUNK_BYTES;
use monofs_model::tree::Entry;
use monofs_model::{EntryKind, Oid};

use monofs_content::cache::Cache;
use monofs_content::want::Span;

/// Files up to this size are fetched with their directory.
pub const SMALL_FILE_BYTES: u64 = CHUNK_BYTES as u64;

/// Whether an entry has contents that readers open: symlinks are read by other means.
pub(crate) fn is_file(entry: &Entry<'_>) -> bool {
    matches!(entry.kind, EntryKind::File | EntryKind::Executable)
}

/// The span of a file that is small enough to be fetched unasked.
pub(crate) fn small_file(entry: &Entry<'_>) -> Option<Span> {
    let fits = is_file(entry) && entry.size <= SMALL_FILE_BYTES;
    fits.then_some(Span {
        blob: entry.oid,
        size: entry.size,
        first: 0,
        count: 1,
    })
}

/// Those of the spans that are not at hand as a whole.
pub(super) fn absent(cache: &Cache, spans: Vec<Span>) -> Vec<Span> {
    let missing = cache.missing_frames(spans.iter().flat_map(Span::chunks));
    let missing: HashSet<Oid> = missing.into_iter().map(|(blob, _)| blob).collect();
    spans
        .into_iter()
        .filter(|span| missing.contains(&span.blob))
        .collect()
}
