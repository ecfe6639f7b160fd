//! The plan as it would be carried out now, for who only wants to see it: made by any router, from
//! what it knows.

use std::sync::Arc;
use std::time::Duration;

use monofs_model::{DisplayPath, Repository, Result, StorageId};
use monofs_proto::v1;
use monofs_proto::v1::planned_move::Kind;

use super::facts;
use monofs_control::Control;
use monofs_control::catalog::no_repository;
use monofs_fleet::copies::{CopyFault, CopyStep, PlanCause, PlanEvent, Planner};
use monofs_members::fleet::Fleet;

/// Moves that are told one by one; the others are counted.
const MOVES_MAX: usize = 10_000;
/// Entries looked at while the catalogue cannot change.
const PAGE: usize = 1000;

/// Which repositories a rebalance is about.
pub(crate) enum Scope {
    Everything,
    One(Arc<Repository>),
}

impl Scope {
    /// Errors: `Invalid`, `NotFound`.
    pub fn of(control: &Control, request: &v1::RebalanceRequest) -> Result<Self> {
        let entry = match (request.storage_id.as_str(), request.path.as_str()) {
            ("", "") => return Ok(Self::Everything),
            ("", path) => control.catalog.require(path)?,
            (id, path) => {
                let found = control
                    .catalog
                    .by_storage_id(&StorageId::new(id)?)
                    .ok_or_else(|| no_repository(id))?;
                if !path.is_empty() && DisplayPath::new(path)? != found.path {
                    return Err(no_repository(&format!("{path} ({id})")));
                }
                found
            }
        };
        Ok(Self::One(entry))
    }
}

/// All moves of `scope`. Looks at every entry: for a thread that may block.
pub(crate) fn moves(control: &Control, fleet: &Fleet, scope: &Scope) -> v1::RebalanceResponse {
    let (nodes, copies) = facts::nodes(control, fleet);
    let mut planner = Planner::default();
    planner.step(
        PlanEvent::Nodes {
            nodes: &nodes,
            copies,
        },
        Duration::ZERO,
    );
    let mut told = v1::RebalanceResponse::default();
    if let Scope::One(entry) = scope {
        tell(&mut planner, entry, &mut told);
        return told;
    }
    let mut after = String::new();
    loop {
        let page = control.catalog.page("", &after, PAGE);
        let Some(last) = page.last() else { return told };
        after = last.path.to_string();
        page.iter()
            .for_each(|entry| tell(&mut planner, entry, &mut told));
    }
}

fn tell(planner: &mut Planner, entry: &Repository, told: &mut v1::RebalanceResponse) {
    let Some(facts) = facts::repository(entry, false) else {
        return;
    };
    let serving: Vec<String> = planner
        .serving(&entry.holders)
        .map(ToString::to_string)
        .collect();
    for step in planner.preview(facts) {
        let kind = match step.fault {
            CopyFault::Missing => Kind::Copy,
            CopyFault::TooMany => Kind::Delete,
        };
        told.copies_total += u64::from(kind == Kind::Copy);
        told.deletes_total += u64::from(kind == Kind::Delete);
        told.bytes_total += step.bytes;
        if told.moves.len() < MOVES_MAX {
            told.moves.push(v1::PlannedMove {
                kind: kind.into(),
                path: entry.path.to_string(),
                node_id: planner.node_id(step.node).to_string(),
                from: if kind == Kind::Copy {
                    serving.clone()
                } else {
                    Vec::new()
                },
                bytes: step.bytes,
                reason: reason(planner, &step),
            });
        }
    }
}

fn reason(planner: &Planner, step: &CopyStep) -> String {
    let why = match step.cause {
        PlanCause::Repair(node) if planner.is_member(node) => {
            format!("copies are missing: {}", planner.node_id(node))
        }
        PlanCause::Repair(node) => format!("{} is no member any more", planner.node_id(node)),
        PlanCause::Recover(node) => format!("{} came back and missed it", planner.node_id(node)),
        PlanCause::Failover(node) => format!("{} is failed over", planner.node_id(node)),
        PlanCause::Drain(node) => format!("{} is being drained", planner.node_id(node)),
        PlanCause::Rebalance | PlanCause::Asked(_) => match step.fault {
            CopyFault::Missing => "placement wants it there".to_owned(),
            CopyFault::TooMany => "one copy too many".to_owned(),
        },
    };
    match step.wait {
        Some(wait) => format!("{why}; {}", planner.waiting_for(wait)),
        None => why,
    }
}
