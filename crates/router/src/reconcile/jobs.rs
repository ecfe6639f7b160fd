//! Jobs as operators see them: one row for each cause, in the state store, so that every router
//! shows the same and a new leader goes on with them.
//!
//! ```text
//! running <--> waiting      (the plan says which)
//!    |            |
//!    +--> done <--+         nothing is left to do
//!    +--> cancelled         an operator said so: held back until a rebalance is asked for, or nothing is left of it
//! ```
//!
//! Invariants: a row says what the plan says, it never decides it, but for one that is cancelled;
//! of each cause at most one has not ended; the last [`ENDED_MAX`] that ended are kept.

use std::collections::{BTreeMap, BTreeSet};

use monofs_model::{Actor, DisplayPath, Error, NodeId, Result};
use monofs_proto::v1;
use monofs_proto::v1::job::{Kind, State};

use monofs_control::clock;

use monofs_control::Control;
use monofs_fleet::copies::{PlanCause, Planner, StepTally, StorageKey};

/// Jobs that have ended and are still shown.
const ENDED_MAX: usize = 100;
/// Most characters of a message in a row.
const TEXT_MAX: usize = 300;

/// Whether it will not change any more.
pub fn has_ended(job: &v1::Job) -> bool {
    matches!(job.state(), State::Done | State::Failed | State::Cancelled)
}

/// The job of this kind and subject that has not ended.
pub fn running(control: &Control, kind: Kind, subject: &str) -> Option<v1::Job> {
    control
        .tables
        .jobs
        .list()
        .into_iter()
        .find(|job| job.kind() == kind && job.subject == subject && !has_ended(job))
}

/// The job of this kind and subject that runs, or a new one. Errors: the state store's.
pub async fn open(
    actor: &Actor,
    control: &Control,
    kind: Kind,
    subject: &str,
    reason: &str,
) -> Result<v1::Job> {
    let of_cause = |job: &&v1::Job| job.kind() == kind && job.subject == subject;
    if let Some(job) = running(control, kind, subject) {
        return Ok(job);
    }
    let all = control.tables.jobs.list();
    // The same name for all who open it at the same time: the first one makes it.
    let name = |n: u64| format!("{}-{n}", stem(kind, subject));
    let number = |job: &v1::Job| {
        job.id
            .rsplit_once('-')
            .and_then(|(_, n)| n.parse::<u64>().ok())
    };
    let last = all
        .iter()
        .filter(of_cause)
        .filter_map(number)
        .max()
        .unwrap_or(0);
    let mut job = v1::Job {
        id: name(last + 1),
        subject: subject.to_owned(),
        reason: reason.to_owned(),
        started_at: clock::now(),
        ..Default::default()
    };
    job.set_kind(kind);
    job.set_state(State::Running);
    let made = control
        .tables
        .jobs
        .update(actor, &job.id, |row| {
            Ok(Some(row.cloned().unwrap_or_else(|| job.clone())))
        })
        .await?;
    made.ok_or_else(|| Error::internal(format!("job {} was made and not found", job.id)))
}

fn stem(kind: Kind, subject: &str) -> String {
    let kind = kind.word();
    match subject {
        "" => kind.to_owned(),
        path if path.contains('/') => {
            let id = DisplayPath::new(path)
                .map(|path| path.storage_id().to_string())
                .unwrap_or_default();
            format!("{kind}-{}", id.get(..8).unwrap_or("path"))
        }
        node => format!("{kind}-{node}"),
    }
}

/// Ends a job and holds back what is left of it. Errors: `NotFound`; `Refused` when it has ended,
/// or follows from an intent.
pub async fn cancel(actor: &Actor, control: &Control, id: &str) -> Result<v1::Job> {
    let unknown = || {
        Error::not_found(format!(
            "no job '{}'; `monofs-admin jobs` lists them",
            id.escape_debug()
        ))
    };
    let cancelled = |row: Option<&v1::Job>| {
        let row = row.ok_or_else(unknown)?;
        match (row.state(), row.kind()) {
            (State::Cancelled, _) => return Ok(Some(row.clone())),
            (State::Done | State::Failed, _) => {
                return Err(Error::refused(format!("job {id} has ended already")));
            }
            (_, Kind::Drain) => {
                let node = &row.subject;
                return Err(Error::refused(format!(
                    "{node} is still wanted empty; end that with `monofs-admin undrain \
                     --node={node}`, and the job ends"
                )));
            }
            (_, Kind::Failover) => {
                let node = &row.subject;
                return Err(Error::refused(format!(
                    "{node} is still failed over; end that with `monofs-admin clear-failover \
                     --node-id={node}`, and the job ends"
                )));
            }
            _ => {}
        }
        let message =
            "cancelled; what is left is not done until `monofs-admin rebalance` is run".to_owned();
        let mut row = v1::Job {
            ended_at: clock::now(),
            held_back: true,
            message,
            ..row.clone()
        };
        row.set_state(State::Cancelled);
        Ok(Some(row))
    };
    control
        .tables
        .jobs
        .update(actor, id, cancelled)
        .await?
        .ok_or_else(unknown)
}

/// What was cancelled may be done again. Errors: the state store's.
pub async fn release(actor: &Actor, control: &Control) -> Result<()> {
    for job in control
        .tables
        .jobs
        .list()
        .iter()
        .filter(|job| job.held_back)
    {
        let_go(actor, control, &job.id).await?;
    }
    Ok(())
}

/// What this job was about is held back no more.
async fn let_go(actor: &Actor, control: &Control, id: &str) -> Result<()> {
    let free = |row: Option<&v1::Job>| {
        Ok(row.map(|row| v1::Job {
            held_back: false,
            ..row.clone()
        }))
    };
    control.tables.jobs.update(actor, id, free).await.map(drop)
}

/// The cause that a row is about; `None` when its subject is nothing that the plan can know.
fn cause(planner: &mut Planner, job: &v1::Job) -> Option<PlanCause> {
    let mut node = || NodeId::new(&job.subject).ok().map(|id| planner.number(&id));
    match job.kind() {
        Kind::Repair => node().map(PlanCause::Repair),
        Kind::Drain => node().map(PlanCause::Drain),
        Kind::Failover => node().map(PlanCause::Failover),
        Kind::Recover => node().map(PlanCause::Recover),
        Kind::Rebalance if job.subject.is_empty() => Some(PlanCause::Rebalance),
        Kind::Rebalance => Some(PlanCause::Asked(
            DisplayPath::new(&job.subject).ok()?.storage_id().number(),
        )),
        Kind::Unspecified => None,
    }
}

/// Kind, subject and reason of the job for a cause; `None` for one that only an operator opens.
fn subject(planner: &Planner, cause: PlanCause) -> Option<(Kind, String, String)> {
    let name = |node: u32| planner.node_id(node).to_string();
    Some(match cause {
        PlanCause::Repair(node) => (
            Kind::Repair,
            name(node),
            format!("copies of {} are missing", name(node)),
        ),
        PlanCause::Recover(node) => (
            Kind::Recover,
            name(node),
            format!("{} came back and missed something", name(node)),
        ),
        PlanCause::Failover(node) => (
            Kind::Failover,
            name(node),
            format!("{} is failed over", name(node)),
        ),
        PlanCause::Drain(node) => (
            Kind::Drain,
            name(node),
            format!("{} is being drained", name(node)),
        ),
        PlanCause::Rebalance => (
            Kind::Rebalance,
            String::new(),
            "placement wants copies elsewhere".to_owned(),
        ),
        PlanCause::Asked(_) => return None,
    })
}

/// What was done for one cause by this router.
#[derive(Debug, Clone, Default)]
struct Done {
    steps: u64,
    bytes: u64,
    last_error: Option<String>,
}

/// The leader's book of what was done, from which it writes the rows.
#[derive(Default)]
pub(super) struct Book {
    done: BTreeMap<PlanCause, Done>,
    /// Commands of these were begun.
    begun: BTreeSet<PlanCause>,
    /// Contents taken by commands that run.
    pub live: BTreeMap<PlanCause, u64>,
    /// Nothing may be done now, and why.
    pub paused: Option<String>,
}

impl Book {
    pub fn begun(&mut self, cause: PlanCause) {
        self.begun.insert(cause);
    }

    pub fn done(&mut self, cause: PlanCause, bytes: u64) {
        let done = self.done.entry(cause).or_default();
        done.steps += 1;
        done.bytes += bytes;
    }

    pub fn failed(&mut self, cause: PlanCause, error: &Error) {
        self.done.entry(cause).or_default().last_error = Some(shortened(&error.to_string()));
    }

    /// What is held back, and the repositories that an operator asked for.
    pub fn asked(
        planner: &mut Planner,
        rows: &[v1::Job],
    ) -> (BTreeSet<PlanCause>, BTreeMap<StorageKey, PlanCause>) {
        let held_back = rows
            .iter()
            .filter(|job| job.held_back)
            .filter_map(|job| cause(planner, job))
            .collect();
        let mut asked = BTreeMap::new();
        for job in rows.iter().filter(|job| !has_ended(job)) {
            if let Some(cause @ PlanCause::Asked(key)) = cause(planner, job) {
                asked.insert(key, cause);
            }
        }
        (held_back, asked)
    }

    /// Brings the rows up to what the plan says. Errors: the state store's; what could not be
    /// written is written next time.
    pub async fn write(
        &mut self,
        actor: &Actor,
        control: &Control,
        planner: &mut Planner,
    ) -> Result<()> {
        let mut open_causes = BTreeSet::new();
        for job in control.tables.jobs.list() {
            let Some(cause) = cause(planner, &job) else {
                continue;
            };
            if has_ended(&job) {
                let over = job.held_back && !planner.pending().contains_key(&cause);
                if over {
                    let_go(actor, control, &job.id).await?;
                }
                if job.held_back && !over {
                    open_causes.insert(cause);
                }
                continue;
            }
            open_causes.insert(cause);
            self.write_one(actor, control, planner, cause, &job).await?;
        }
        let missing: Vec<PlanCause> = self
            .begun
            .iter()
            .copied()
            .filter(|cause| !open_causes.contains(cause))
            .collect();
        for cause in missing {
            if let Some((kind, subject, reason)) = subject(planner, cause) {
                let job = open(actor, control, kind, &subject, &reason).await?;
                self.write_one(actor, control, planner, cause, &job).await?;
            }
            self.begun.remove(&cause);
        }
        prune(actor, control).await
    }

    async fn write_one(
        &mut self,
        actor: &Actor,
        control: &Control,
        planner: &Planner,
        cause: PlanCause,
        job: &v1::Job,
    ) -> Result<()> {
        let tally = planner.pending().get(&cause);
        let done = self.done.get(&cause).cloned().unwrap_or_default();
        let live = self.live.get(&cause).copied().unwrap_or(0);
        let left = tally.map_or(0, |tally| tally.bytes);
        let (now_state, message) = self.judge(control, planner, cause, tally);
        let change = |row: Option<&v1::Job>| {
            // Cancelled, or ended by another leader, meanwhile.
            let Some(row) = row.filter(|row| !has_ended(row)) else {
                return Ok(row.cloned());
            };
            let mut row = row.clone();
            row.steps_done += done.steps;
            row.steps_total = row.steps_done + tally.map_or(0, StepTally::steps);
            row.bytes_done += done.bytes;
            row.bytes_total = row.bytes_done + left.max(live);
            row.router_id.clone_from(&control.own.router_id);
            row.message = if live > 0 {
                format!("{message}, {live} bytes of the copies that run are taken")
            } else {
                message.clone()
            };
            if let Some(error) = &done.last_error {
                row.last_error.clone_from(error);
            }
            if now_state == State::Done {
                row.ended_at = clock::now();
            }
            row.set_state(now_state);
            Ok(Some(row))
        };
        control.tables.jobs.update(actor, &job.id, change).await?;
        self.done.remove(&cause);
        if now_state == State::Done {
            self.begun.remove(&cause);
        }
        Ok(())
    }

    fn judge(
        &self,
        control: &Control,
        planner: &Planner,
        cause: PlanCause,
        tally: Option<&StepTally>,
    ) -> (State, String) {
        let Some(tally) = tally else {
            return self.judge_empty(control, planner, cause);
        };
        if let Some(why) = &self.paused {
            return (State::Waiting, why.clone());
        }
        match tally.blocked() {
            Some(wait) => (State::Waiting, planner.waiting_for(wait)),
            None => (
                State::Running,
                format!(
                    "{} copies to make, {} to delete",
                    tally.copies, tally.deletes
                ),
            ),
        }
    }

    /// Nothing can be done: all is done, or a node that is to be emptied does not answer.
    fn judge_empty(
        &self,
        control: &Control,
        planner: &Planner,
        cause: PlanCause,
    ) -> (State, String) {
        let PlanCause::Drain(node) = cause else {
            return (State::Done, "nothing is left to do".to_owned());
        };
        let id = planner.node_id(node);
        let held = planner.holds(id);
        let wanted = control.tables.intents.get(id.as_str()).is_some();
        if held > 0 && wanted {
            let message =
                format!("{held} copies are recorded on {id}, which stay until it answers");
            return (State::Waiting, message);
        }
        (
            State::Done,
            if wanted {
                format!("{id} holds nothing any more")
            } else {
                "not wanted any more".to_owned()
            },
        )
    }
}

async fn prune(actor: &Actor, control: &Control) -> Result<()> {
    let mut ended: Vec<v1::Job> = control.tables.jobs.list();
    ended.retain(|job| has_ended(job) && !job.held_back);
    ended.sort_by(|a, b| (a.ended_at, &a.id).cmp(&(b.ended_at, &b.id)));
    let surplus = ended.len().saturating_sub(ENDED_MAX);
    for job in &ended[..surplus] {
        let gone = |row: Option<&v1::Job>| Ok(row.filter(|row| row.held_back).cloned());
        control.tables.jobs.update(actor, &job.id, gone).await?;
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;
    use crate::fixture::{TestRouter, actor};

    async fn put(control: &Control, job: v1::Job) {
        let id = job.id.clone();
        let set = control
            .tables
            .jobs
            .update(actor(), &id, |_| Ok(Some(job.clone())));
        set.await.expect("the row is written");
    }

    fn ended(id: &str, at: i64) -> v1::Job {
        let mut job = v1::Job {
            id: id.into(),
            ended_at: at,
            ..Default::default()
        };
        job.set_kind(Kind::Repair);
        job.set_state(State::Done);
        job
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_is_opened_once_and_the_next_of_its_kind_has_the_next_number() {
        let router = TestRouter::start().await;
        let control = &router.parts().control;
        let first = open(actor(), control, Kind::Drain, "n1", "why")
            .await
            .expect("opened");
        let same = open(actor(), control, Kind::Drain, "n1", "other")
            .await
            .expect("there");
        assert_eq!((first.id.as_str(), &first), ("drain-n1-1", &same));
        let other = open(actor(), control, Kind::Drain, "n2", "")
            .await
            .expect("opened");
        assert_eq!(other.id, "drain-n2-1");
        let mut over = first.clone();
        over.set_state(State::Done);
        put(control, over).await;
        let next = open(actor(), control, Kind::Drain, "n1", "")
            .await
            .expect("opened");
        assert_eq!(next.id, "drain-n1-2");
        let path = open(actor(), control, Kind::Rebalance, "a/b", "")
            .await
            .expect("opened");
        assert!(!path.id.contains('/'), "{}", path.id);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_is_cancelled_once_unless_it_follows_from_an_intent() {
        let router = TestRouter::start().await;
        let control = &router.parts().control;
        let unknown = cancel(actor(), control, "nope").await.expect_err("unknown");
        assert_eq!(unknown.kind, ErrorKind::NotFound);
        for (kind, verb) in [(Kind::Drain, "undrain"), (Kind::Failover, "clear-failover")] {
            let job = open(actor(), control, kind, "n1", "")
                .await
                .expect("opened");
            let refused = cancel(actor(), control, &job.id)
                .await
                .expect_err("it is wanted");
            assert!(refused.message.contains(verb), "{refused}");
        }
        let job = open(actor(), control, Kind::Rebalance, "", "")
            .await
            .expect("opened");
        let cancelled = cancel(actor(), control, &job.id).await.expect("cancelled");
        assert!(cancelled.held_back && has_ended(&cancelled));
        assert_eq!(
            cancel(actor(), control, &job.id).await.expect("again"),
            cancelled
        );
        release(actor(), control).await.expect("released");
        let row = control.tables.jobs.get(&job.id).expect("a row");
        assert!(!row.held_back);
        put(control, ended("repair-1", 1)).await;
        let over = cancel(actor(), control, "repair-1")
            .await
            .expect_err("it ended");
        assert_eq!(over.kind, ErrorKind::Refused);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn old_ended_jobs_go_and_what_is_held_back_stays() {
        let router = TestRouter::start().await;
        let control = &router.parts().control;
        let mut held = ended("repair-held", 0);
        held.held_back = true;
        put(control, held).await;
        for number in 0..ENDED_MAX + 5 {
            put(
                control,
                ended(&format!("repair-{number:03}"), number as i64),
            )
            .await;
        }
        prune(actor(), control).await.expect("pruned");
        let jobs = control.tables.jobs.list();
        assert_eq!(jobs.len(), ENDED_MAX + 1);
        assert!(jobs.iter().any(|job| job.id == "repair-held"));
        assert!(!jobs.iter().any(|job| job.id == "repair-004"));
        assert!(jobs.iter().any(|job| job.id == "repair-005"));
    }
}
