//! Which router works on a path: a row that this router holds in the state store meanwhile.
//!
//! Invariant: of all routers at most one holds the lease on a path. A router with a state store of
//! its own needs no rows; the caller sees to it that two of its own jobs do not meet.

use std::time::Duration;

use monofs_model::{DisplayPath, Error, RefName, Result, SourceUrl};
use monofs_proto::v1;
use monofs_proto::v1::path_claim::Purpose;
use tokio::time::Instant;

use crate::clock;
use crate::control::Control;
use crate::state::HeldKey;

/// Pause before a lease that was in the way is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long a release may take; then the row goes a moment later.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// The right to work on a path, until it is released or lost.
pub struct PathLease {
    /// `None` in a state store that no other router uses.
    row: Option<HeldKey>,
}

/// What a router is going to do with a path.
#[derive(Debug, Clone, Copy)]
pub enum PathWork<'a> {
    /// Bring a commit of this source.
    Ingest {
        source: &'a SourceUrl,
        ref_name: &'a RefName,
    },
    /// Collect, move or delete copies: nothing may be ingested meanwhile.
    CleanUp,
}

/// The answer to a request for a lease.
pub enum LeaseOutcome {
    Mine(PathLease),
    /// Another router holds it, for this.
    Theirs(v1::PathClaim),
}

impl PathLease {
    /// Ends when the lease is lost, which it may never be.
    pub async fn lost(&self) {
        match &self.row {
            Some(row) => row.lost.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Lets others work on the path; returns when they can.
    pub async fn release(self) {
        if let Some(row) = self.row {
            row.release(RELEASE_TIMEOUT).await;
        }
    }
}

/// Takes the lease on `path`, or says which router has it. Errors: `Unavailable` when the state
/// store is away, `Refused` when it stays unclear.
pub async fn take(
    control: &Control,
    path: &DisplayPath,
    work: PathWork<'_>,
) -> Result<LeaseOutcome> {
    if !control.shared.store().is_shared() {
        return Ok(LeaseOutcome::Mine(PathLease { row: None }));
    }
    // Taken by holding a row that says what for.
    let claim = v1::PathClaim {
        path: path.to_string(),
        router_id: control.own.router_id.clone(),
        purpose: work.purpose().into(),
        source: work.source(),
        ref_name: work.ref_name(),
        since: clock::now(),
    };
    let key = control.tables.claims.key(path.as_str());
    let value = control.tables.claims.value(&claim);
    // A row of an earlier life of this router ends with its lease.
    let give_up = Instant::now() + control.lease * 2;
    loop {
        let mut changed = control.tables.claims.changed();
        let taken = control
            .shared
            .store()
            .hold(&key, value.clone(), control.lease)
            .await;
        if let Some(row) = taken.map_err(|error| control.shared.refused(error))? {
            return Ok(LeaseOutcome::Mine(PathLease { row: Some(row) }));
        }
        // Memory may still show an earlier one.
        if let Some(theirs) = control.tables.claims.stored(path.as_str()).await?
            && theirs.router_id != control.own.router_id
        {
            return Ok(LeaseOutcome::Theirs(theirs));
        }
        if Instant::now() > give_up {
            return Err(Error::refused(format!(
                "'{path}' is being worked on; try again in a moment"
            )));
        }
        // What was in the way is gone in a moment.
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
    }
}

impl PathWork<'_> {
    fn purpose(&self) -> Purpose {
        match self {
            Self::Ingest { .. } => Purpose::Ingest,
            Self::CleanUp => Purpose::Collect,
        }
    }

    fn source(&self) -> String {
        match self {
            Self::Ingest { source, .. } => source.to_string(),
            Self::CleanUp => String::new(),
        }
    }

    fn ref_name(&self) -> String {
        match self {
            Self::Ingest { ref_name, .. } => ref_name.as_str().to_owned(),
            Self::CleanUp => String::new(),
        }
    }
}
