//! The steps of one ingest job.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use monofs_model::{
    Actor, Consistency, DisplayPath, Error, ErrorKind, Member, NodeId, Oid, Repository,
    RepositoryState, Result, Snapshot, StorageId, placement,
};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;

use super::generations;
use super::host_wait::settled;
use super::job::Job;
use monofs_control::Control;
use monofs_control::catalog::no_repository;
use monofs_members::fleet::Fleet;
use monofs_members::{fleet, membership};

/// How often a ref is looked up for one job that finds it rewritten each time.
const LOOKS_MAX: usize = 3;

/// Runs a job to its end.
pub(super) async fn run(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    job: &Arc<Job>,
) -> Result<()> {
    let spec = &job.spec;
    let id = spec.path.storage_id();
    let replicas = choose_replicas(fleet, job)?;
    let mut commit = resolve(fleet, job, &id).await?;
    let entry = control
        .catalog
        .get(&spec.path)
        .ok_or_else(|| no_repository(spec.path.as_str()))?;
    let entry = spec.applied_to(&entry);
    if let Some(current) = entry
        .snapshot
        .as_ref()
        .filter(|current| current.commit == commit)
    {
        let commit = current.commit;
        return unchanged(actor, control, job, commit).await;
    }
    let mut looks = 1;
    let (snapshot, lacking) = loop {
        let (fetched, lacking) = tokio::join!(
            fetch(fleet, job, &id, &commit),
            lacking(fleet, &spec.path, &commit, &replicas)
        );
        match fetched {
            // The ref was rewritten after the look: what it is at now is looked up again.
            Err(error) if error.kind == ErrorKind::NotFound && looks < LOOKS_MAX => {
                let again = resolve(fleet, job, &id).await?;
                if again == commit {
                    return Err(error);
                }
                tracing::info!(path = %spec.path, %commit, now = %again, "the ref moved between \
                 look and fetch: fetching what it is at now");
                commit = again;
                looks += 1;
            }
            fetched => break (fetched?, lacking),
        }
    };
    if snapshot.commit != commit {
        return Err(Error::corrupt(format!(
            "the fetcher gave commit {} for {commit}",
            snapshot.commit
        )));
    }
    job.phase(Phase::Adopting);
    // However this ends, what the nodes are given and is not published is collected.
    let entries = &control.entries;
    entries
        .note_given(actor, &spec.path, &snapshot, &lacking)
        .await?;
    replicate(actor, control, fleet, job, &entry, &snapshot, &replicas).await
}

/// Those of `nodes` that say that they do not hold this commit. One that has it already, or cannot
/// be asked, may have it for another reason, so a failed ingest takes nothing away from it.
async fn lacking(fleet: &Fleet, path: &DisplayPath, commit: &Oid, nodes: &[Member]) -> Vec<NodeId> {
    let asked = nodes
        .iter()
        .map(|node| fleet.confirm_commit(node, path, commit));
    let answers = join_all(asked).await;
    let lacks = |answer: &Result<()>| {
        answer
            .as_ref()
            .is_err_and(|error| error.kind == ErrorKind::NotHeld)
    };
    let answered = nodes.iter().zip(&answers);
    answered
        .filter(|(_, answer)| lacks(answer))
        .map(|(node, _)| node.id.clone())
        .collect()
}

/// Which commit the job's ref is at. Waits for the host as long as the job may.
async fn resolve(fleet: &Fleet, job: &Job, id: &StorageId) -> Result<Oid> {
    let spec = &job.spec;
    job.phase(Phase::Resolving);
    loop {
        let outcome = fleet
            .resolve_upstream(id, &spec.source, &spec.ref_name)
            .await;
        if let Some(commit) = settled(job, outcome).await? {
            return Ok(commit);
        }
    }
}

/// Brings the commit into a fetcher's cache. Waits for the host as long as the job may.
async fn fetch(fleet: &Fleet, job: &Job, id: &StorageId, commit: &Oid) -> Result<Snapshot> {
    let spec = &job.spec;
    job.phase(Phase::Fetching);
    let origin = fleet::origin(&spec.source, &spec.ref_name, commit);
    loop {
        let report = |progress: v1::FetchProgress| job.update(|seen| seen.fetch = Some(progress));
        let outcome = fleet.fetch(id, &origin, report).await;
        if let Some(snapshot) = settled(job, outcome).await? {
            return Ok(snapshot);
        }
    }
}

/// The nodes that should hold the repository and can take it now. Errors: `Unavailable` when there
/// is none.
fn choose_replicas(fleet: &Fleet, job: &Job) -> Result<Vec<Member>> {
    let view = fleet.members.view();
    let candidates = membership::placeable(&view);
    let copies = view.replication_factor.max(1) as usize;
    let chosen = placement::replicas(&job.spec.path.storage_id(), &candidates, copies);
    if chosen.is_empty() {
        let known = view.nodes().count();
        return Err(Error::unavailable(format!(
            "no node is active ({known} known); see `monofs-admin nodes`"
        )));
    }
    if job.spec.consistency == Consistency::Strong && chosen.len() < copies {
        return Err(Error::unavailable(format!(
            "strong consistency needs {copies} active nodes, {} are; start more or use \
             --consistency=eventual",
            chosen.len()
        )));
    }
    Ok(chosen
        .iter()
        .filter_map(|id| view.nodes().find(|member| member.id == *id).cloned())
        .collect())
}

/// The ref has not moved.
async fn unchanged(actor: &Actor, control: &Control, job: &Arc<Job>, commit: Oid) -> Result<()> {
    let looked = |entry: &Repository| Ok(Some(job.spec.applied_to(entry)));
    let entry = control
        .entries
        .update(actor, &job.spec.path, looked)
        .await?;
    tracing::debug!(path = %job.spec.path, %commit, "unchanged upstream");
    job.update(|progress| {
        progress.unchanged = true;
        progress.repository = Some(v1::Repository::from(&*entry));
        progress.set_phase(Phase::Done);
    });
    Ok(())
}

/// All replicas adopt in parallel; the flip comes with the first acknowledgement, or with `strong`
/// after the last.
async fn replicate(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    job: &Arc<Job>,
    entry: &Repository,
    snapshot: &Snapshot,
    replicas: &[Member],
) -> Result<()> {
    let strong = job.spec.consistency == Consistency::Strong;
    let mut adoptions: FuturesUnordered<_> = replicas
        .iter()
        .map(|node| adopt_on(fleet, job, node, entry, snapshot))
        .collect();
    let mut held: Vec<&Member> = Vec::new();
    let mut published: Option<Arc<Repository>> = None;
    let mut failure = None;
    while let Some((node, outcome)) = adoptions.next().await {
        match outcome {
            Ok(()) => held.push(node),
            Err(error) => {
                tracing::warn!(path = %job.spec.path, node = %node.id, %error, "a replica did not adopt");
                job.replica(node.id.as_str(), |replica| {
                    replica.error = error.to_string()
                });
                failure = Some(error.context(format!("node {}", node.id)));
                continue;
            }
        }
        match &published {
            // One that cannot get the generations is no holder; a later copy makes it one.
            Some(shown) => match generations::copy_to(fleet, node, shown).await {
                Ok(()) => {
                    control
                        .entries
                        .add_holder(actor, &job.spec.path, shown.generation, &node.id)
                        .await?
                }
                Err(error) => {
                    tracing::warn!(path = %job.spec.path, node = %node.id, %error, "a replica has no generations")
                }
            },
            None if strong && held.len() < replicas.len() => {}
            None => {
                let parts = PublishParts {
                    actor,
                    control,
                    fleet,
                    job,
                };
                published = Some(parts.publish(entry, snapshot, &held).await?);
            }
        }
    }
    if published.is_none() {
        return Err(failure.unwrap_or_else(|| Error::internal("no replica answered")));
    }
    if let Some(current) = control.catalog.get(&job.spec.path) {
        job.update(|progress| progress.repository = Some(v1::Repository::from(&*current)));
    }
    Ok(())
}

async fn adopt_on<'a>(
    fleet: &Fleet,
    job: &Arc<Job>,
    node: &'a Member,
    entry: &Repository,
    snapshot: &Snapshot,
) -> (&'a Member, Result<()>) {
    let report = |progress: &v1::AdoptProgress| {
        job.replica(node.id.as_str(), |replica| {
            replica.trees_done = progress.trees_done;
            replica.trees_total = progress.trees_total;
            replica.durable = progress.durable;
        });
    };
    job.replica(node.id.as_str(), |replica| {
        replica.trees_total = snapshot.trees
    });
    let adopted = fleet.adopt_and_wait(node, entry, snapshot, 0, report).await;
    (node, adopted.map(drop))
}

/// What publishing takes.
struct PublishParts<'a> {
    actor: &'a Actor,
    control: &'a Control,
    fleet: &'a Fleet,
    job: &'a Arc<Job>,
}

impl PublishParts<'_> {
    /// Shows `snapshot`, which these nodes hold, instead of what `entry` shows.
    async fn publish(
        &self,
        entry: &Repository,
        snapshot: &Snapshot,
        held: &[&Member],
    ) -> Result<Arc<Repository>> {
        let Self {
            actor,
            control,
            fleet,
            job,
        } = self;
        let (first, more) = held
            .split_first()
            .ok_or_else(|| Error::internal("publish without a holder"))?;

        // Which names change with it, on each node that is to count as a holder.
        let mut snapshot = Snapshot {
            generations: Some(generations::made_for(fleet, entry, snapshot, first).await),
            ..snapshot.clone()
        };
        let shown = Repository {
            snapshot: Some(snapshot.clone()),
            generation: entry.generation + 1,
            holders: vec![first.id.clone()],
            ..entry.clone()
        };
        if !generations::copied_to(fleet, more, &shown).await {
            snapshot.generations = Some(generations::all_now(entry));
        }

        // The flip, then the other holders.
        let flipped = control
            .entries
            .flip(actor, entry, &snapshot, &first.id)
            .await?;
        for node in more {
            control
                .entries
                .add_holder(actor, &job.spec.path, flipped.generation, &node.id)
                .await?;
        }
        tracing::info!(path = %job.spec.path, commit = %snapshot.commit, generation = flipped.generation, "published");
        job.update(|progress| {
            progress.repository = Some(v1::Repository::from(&*flipped));
            progress.set_phase(Phase::Published);
        });
        Ok(flipped)
    }
}

/// Remembers why a job failed; an entry that never had readers becomes `failed`.
pub(super) async fn note_failure(actor: &Actor, control: &Control, job: &Job, error: &Error) {
    let note = |entry: &Repository| {
        let mut noted = entry.clone();
        noted.last_error = error.to_string();
        if noted.snapshot.is_none() {
            noted.state = RepositoryState::Failed;
        }
        Ok(Some(noted))
    };
    if let Err(error) = control.entries.update(actor, &job.spec.path, note).await {
        tracing::warn!(path = %job.spec.path, %error, "cannot record why an ingest failed");
    }
}

#[cfg(test)]
mod tests;
