//! The JSON documents of the router's HTTP API and of `monofs-admin --format json`: one for each
//! fact, made from messages (`proto`) and from what the catalogue holds (`model`). The crates `web`
//! and `admin` print nothing else.
//!
//! Invariants: a fact has one word in both tongues. Fields are only ever added; a word that was
//! replaced stays in the tongue that had it (see [`tongue`]). Sizes are bytes, what is not known is
//! `null`. No IO, no clock, and nothing of a role is known here.

pub mod bench;
pub mod browse;
pub mod clients;
pub mod commands;
pub mod findings;
pub mod guide;
pub mod hosts;
pub mod ingest;
pub mod jobs;
pub mod members;
pub mod overview;
pub mod page;
pub mod percent;
pub mod placement;
pub mod reads;
pub mod repos;
pub mod requests;
pub mod stats;
pub mod tongue;
pub mod wire;

pub use findings::{Finding, Health};
pub use page::{ListPage, ListPaging};
pub use tongue::{Time, Tongue};
pub use wire::{hex, said, told};

use serde::Serialize;

mod sealed {
    pub trait Sealed {}
}

/// A whole answer of a command of `monofs-admin`, which prints nothing else as JSON. Only this
/// crate says what is one, so that no command can have words of its own.
pub trait CommandDocument: Serialize + sealed::Sealed {}

/// Says that these are answers of commands.
macro_rules! command_documents {
    ($($document:ty),+ $(,)?) => {
        $(
            impl sealed::Sealed for $document {}
            impl CommandDocument for $document {}
        )+
    };
}

command_documents![
    bench::LoadReport,
    browse::TreeDocument,
    browse::PathDocument,
    commands::ClusterStatus,
    commands::Deleted,
    commands::Removed,
    commands::PagesWritten,
    commands::AcceptedCommand,
    commands::Rebalanced,
    commands::OneJob,
    commands::NodeFiles,
    commands::Refreshed,
    commands::Verified,
    commands::LiveFigures,
    ingest::IngestDocument,
    jobs::JobList,
    jobs::FailoverList,
    members::NodeList,
    members::FetcherList,
    repos::RepositoryList,
    repos::RepositoryInFull,
    stats::ClusterFigures,
];
