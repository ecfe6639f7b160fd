//! Live progress on standard error: a bar on a terminal, plain lines anywhere else.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use monofs_launch::colour;
use monofs_proto::v1;
use monofs_proto::v1::fetch_progress::Phase as FetchPhase;
use monofs_proto::v1::ingest_progress::Phase;

use crate::output::note;
use crate::text::{clean, count, size};

/// Plain lines of one phase are at least this far apart.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
/// How often a bar moves although nothing arrived.
const TICK: Duration = Duration::from_millis(120);
/// Most complaints of replicas that are told.
const COMPLAINTS_MAX: usize = 100;

/// Where the work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressStep {
    /// What is being done.
    pub phase: &'static str,
    pub done: u64,
    /// 0 = not known.
    pub total: u64,
    /// The figures as text.
    pub detail: String,
}

impl ProgressStep {
    /// A step of which no figures are known.
    pub fn of(phase: &'static str) -> Self {
        Self {
            phase,
            done: 0,
            total: 0,
            detail: String::new(),
        }
    }

    /// A step that is over as soon as it is told.
    fn whole(phase: &'static str) -> Self {
        Self {
            done: 1,
            total: 1,
            ..Self::of(phase)
        }
    }
}

/// Shows one piece of work.
pub struct ProgressDisplay {
    subject: String,
    bar: Option<ProgressBar>,
    last: Option<(ProgressStep, Instant)>,
    complaints: HashSet<String>,
}

impl ProgressDisplay {
    /// Progress of work on `subject`.
    pub fn new(subject: &str) -> Self {
        // A bar where there is a terminal, lines elsewhere.
        let colours = colour::wanted(&std::io::stderr());
        let drawn = std::io::stderr().is_terminal() && !colour::is_plain_terminal();
        let bar = drawn.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = if colours {
                "{spinner:.cyan} {prefix} {bar:30.cyan} {msg} ({elapsed})"
            } else {
                "{spinner} {prefix} {bar:30} {msg} ({elapsed})"
            };
            bar.set_style(
                ProgressStyle::with_template(template).expect("the template is a constant"),
            );
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            subject: clean(subject),
            bar,
            last: None,
            complaints: HashSet::new(),
        }
    }

    /// Shows where the work is now.
    pub fn show(&mut self, step: ProgressStep) {
        // A bar is moved at every step.
        if let Some(bar) = &self.bar {
            bar.set_prefix(step.phase);
            bar.set_length(step.total.max(1));
            bar.set_position(if step.total == 0 {
                0
            } else {
                step.done.min(step.total)
            });
            bar.set_message(step.detail.clone());
            return;
        }
        // Lines are printed at every phase, and now and then inside one.
        let new_phase = self
            .last
            .as_ref()
            .is_none_or(|(last, _)| last.phase != step.phase);
        let due = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| *last != step && at.elapsed() >= PLAIN_INTERVAL);
        if new_phase || due {
            let gap = if step.detail.is_empty() { "" } else { ": " };
            note(&format!(
                "{}: {}{gap}{}",
                self.subject, step.phase, step.detail
            ));
            self.last = Some((step, Instant::now()));
        }
    }

    /// Tells something once, above the bar.
    pub fn complain(&mut self, line: &str) {
        if self.complaints.len() >= COMPLAINTS_MAX || !self.complaints.insert(line.to_owned()) {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| note(line)),
            None => note(line),
        }
    }

    /// Shows where an ingest or refresh is.
    pub fn ingest(&mut self, wire: &v1::IngestProgress) {
        for replica in wire
            .replicas
            .iter()
            .filter(|replica| !replica.error.is_empty())
        {
            self.complain(&format!(
                "warning: {}: {}",
                clean(&replica.node_id),
                clean(&replica.error)
            ));
        }
        // At the end the answer says it all.
        if wire.phase() != Phase::Done {
            self.show(ingest_step(wire));
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What an ingest's message says.
fn ingest_step(wire: &v1::IngestProgress) -> ProgressStep {
    // A host that says "not now" is told in place of the phase, with when it is asked again.
    if let Some(pause) = &wire.waiting_for {
        return ProgressStep {
            detail: format!(
                "{} says not now ({}), asked again {}",
                clean(&pause.host),
                clean(&pause.cause),
                at(pause.next_try_at)
            ),
            ..ProgressStep::of("waiting")
        };
    }

    // What every member of the replica set copies is summed up; of directories alone it is told
    // when they are durable.
    match wire.phase() {
        Phase::Unspecified | Phase::Resolving => ProgressStep::of("resolving"),
        Phase::Fetching => fetch_step(wire.fetch.as_ref()),
        Phase::Adopting => copy_step("copying directories", wire, |replica| CopyCount {
            done: replica.trees_done,
            total: replica.trees_total,
            durable: replica.durable,
        }),
        Phase::Published => ProgressStep::whole("published"),
        Phase::Hydrating => copy_step("copying contents", wire, |replica| CopyCount {
            done: replica.blobs_done,
            total: replica.blobs_total,
            durable: false,
        }),
        Phase::Done => ProgressStep::whole("done"),
    }
}

/// A moment in seconds since the epoch, as people read it.
fn at(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let time = std::time::UNIX_EPOCH + since;
    format!("at {}", humantime::format_rfc3339_seconds(time))
}

fn fetch_step(fetch: Option<&v1::FetchProgress>) -> ProgressStep {
    let Some(fetch) = fetch else {
        return ProgressStep::of("fetching");
    };
    // What a fetcher does, and the figures that it knows.
    let phase = match fetch.phase() {
        FetchPhase::Unspecified | FetchPhase::Receiving => "fetching",
        FetchPhase::Connecting => "connecting",
        FetchPhase::Indexing => "indexing",
        FetchPhase::Walking => "reading directories",
        FetchPhase::Done => "fetched",
    };
    let objects = match (fetch.objects_done, fetch.objects_total) {
        (0, 0) => None,
        (done, 0) => Some(count(done, "object")),
        (done, total) => Some(format!("{done}/{total} objects")),
    };
    let bytes = (fetch.bytes_done > 0).then(|| size(fetch.bytes_done));
    let figures = [objects, bytes].into_iter().flatten();
    ProgressStep {
        phase,
        done: fetch.objects_done,
        total: fetch.objects_total,
        detail: figures.collect::<Vec<_>>().join(", "),
    }
}

/// How much of something a replica has.
struct CopyCount {
    done: u64,
    /// 0 = not known.
    total: u64,
    /// It is written, and a power cut does not take it.
    durable: bool,
}

/// A step in which every replica copies something.
fn copy_step(
    phase: &'static str,
    wire: &v1::IngestProgress,
    of: fn(&v1::ReplicaProgress) -> CopyCount,
) -> ProgressStep {
    let mut step = ProgressStep::of(phase);
    let mut details = Vec::new();
    for replica in &wire.replicas {
        let copied = of(replica);
        step.done = step.done.saturating_add(copied.done);
        step.total = step.total.saturating_add(copied.total);
        let id = clean(&replica.node_id);
        details.push(match (replica.error.is_empty(), &copied) {
            (false, _) => format!("{id} failed"),
            (true, CopyCount { durable: true, .. }) => format!("{id} durable"),
            (true, CopyCount { done, total: 0, .. }) => format!("{id} {done}"),
            (true, CopyCount { done, total, .. }) => format!("{id} {done}/{total}"),
        });
    }
    step.detail = details.join(", ");
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_of_an_ingest_has_its_words() {
        let mut wire = v1::IngestProgress::default();
        assert_eq!(ingest_step(&wire).phase, "resolving");
        wire.set_phase(Phase::Fetching);
        let mut fetch = v1::FetchProgress {
            objects_done: 5,
            objects_total: 9,
            bytes_done: 2048,
            ..Default::default()
        };
        fetch.set_phase(FetchPhase::Receiving);
        wire.fetch = Some(fetch);
        let step = ingest_step(&wire);
        assert_eq!(
            (step.phase, step.detail.as_str()),
            ("fetching", "5/9 objects, 2.0 KiB")
        );
        wire.set_phase(Phase::Adopting);
        let replica = |id: &str| v1::ReplicaProgress {
            node_id: id.into(),
            trees_done: 3,
            trees_total: 4,
            ..Default::default()
        };
        wire.replicas = vec![
            replica("n1"),
            v1::ReplicaProgress {
                error: "full".into(),
                ..replica("n2")
            },
        ];
        let step = ingest_step(&wire);
        assert_eq!(
            (step.done, step.total, step.detail.as_str()),
            (6, 8, "n1 3/4, n2 failed")
        );
    }
}
