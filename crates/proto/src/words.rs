//! The words for enums of the protocol in tables, JSON, metrics and on the page: one for each,
//! everywhere.

use crate::v1::job::{Kind, State};

impl Kind {
    /// Those that a job can have.
    pub const ALL: [Self; 5] = [
        Self::Repair,
        Self::Rebalance,
        Self::Drain,
        Self::Failover,
        Self::Recover,
    ];

    /// What a job does.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Repair => "repair",
            Self::Rebalance => "rebalance",
            Self::Drain => "drain",
            Self::Failover => "failover",
            Self::Recover => "recover",
            Self::Unspecified => "unknown",
        }
    }
}

impl State {
    /// Those that a job can be in.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Waiting,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Where a job is.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unspecified => "unknown",
        }
    }
}
