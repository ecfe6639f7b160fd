//! The catalogue: which repository is at which path and commit, and every change of it.
//!
//! Keys of the state store: `repo/<path>` (an entry), `retained/<storage id>/<commit>` (a snapshot
//! that was replaced and may still be read), `below/<path>` (written by every creation below that
//! path, so that none overtakes one of the path itself, see `room`; `names` is what routers of before that
//! write instead), and kept aside `published/<storage id>` (the commits
//! that an entry showed) and `times/<storage id>/<row>` (the times of its generations). Values are a version byte and a message of the wire protocol, which only
//! ever gains fields.
//!
//! From the bottom: `path_key` (the order of paths), `entry` (keys and values), `index` and
//! `memory` (the copy that requests are answered from), pure questions to it (`copies`, `summary`,
//! `listing`, `search`), [`Catalog`] (follows the store and answers), [`RetainedSnapshots`],
//! [`PublishedCommits`] and [`TimesOfGenerations`] (read from the store on demand), [`CatalogWriter`] (every change).
//!
//! Invariants: memory changes only after the store did; a repository comes to lie inside another only where
//! that one does not have the name, and is recorded as shadowed while it has; a change that readers
//! can see is in the log of changes; nothing here looks at all entries but the load at the start,
//! [`Catalog::listing`], whose result is shared, and [`Catalog::search`], of which few run at a
//! time.

mod copies;
mod entry;
mod index;
mod known;
mod listing;
mod memory;
mod path_key;
mod published;
mod retained;
mod room;
mod search;
mod seed;
mod summary;
#[cfg(test)]
mod tests;
mod times;
mod write;

pub use copies::CopyCounts;
pub use entry::{RetainedSnapshot, no_repository};
pub use known::{Catalog, FoundRepositories};
pub use listing::CatalogListing;
pub use memory::{CatalogChanges, CatalogPosition};
pub use path_key::PathKey;
pub use published::PublishedCommits;
pub use retained::{RetainedById, RetainedSnapshots};
pub use room::EnclosingTree;
pub use search::{RepositoryFilter, RepositoryQuery, RepositorySorting, SortDirection};
pub use seed::seed_catalogue;
pub use summary::{CatalogSummary, TroubledEntries};
pub use times::{GenerationTime, ROW as TIMES_ROW, TimesOfGenerations};
pub use write::CatalogWriter;
