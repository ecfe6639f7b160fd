//! Small parts of pages: states with their shapes, bars, charts' text. Each one escapes what it is
//! given.

use askama::Template;
use askama::filters::HtmlSafe;
use monofs_model::{Member, MemberState, Repository, RepositoryState};
use monofs_proto::v1;
use monofs_proto::v1::job;

use super::text::{percent, size};

/// A state: a word, a shape and a colour.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(
    source = r##"<span class="state {{ tone }}"><svg class="icon" aria-hidden="true"><use href="#{{ shape }}"/></svg>{{ word }}</span>"##,
    ext = "html"
)]
pub(super) struct State {
    pub word: &'static str,
    pub tone: &'static str,
    pub shape: &'static str,
}

impl HtmlSafe for State {}

const fn state(word: &'static str, tone: &'static str, shape: &'static str) -> State {
    State { word, tone, shape }
}

impl State {
    pub fn of_member(member: &Member) -> Self {
        if member.failed_over {
            return state("failed over", "warn", "i-swap");
        }
        Self::of_member_state(member.state)
    }

    /// Of a member that nobody failed over.
    pub const fn of_member_state(member: MemberState) -> Self {
        match member {
            MemberState::Active => state("active", "good", "i-dot"),
            MemberState::Joining => state("joining", "info", "i-ring"),
            MemberState::Suspect => state("suspect", "warn", "i-triangle"),
            MemberState::Down => state("down", "bad", "i-cross"),
            MemberState::Recovering => state("recovering", "info", "i-half"),
            MemberState::Draining => state("draining", "warn", "i-down"),
            MemberState::Drained => state("drained", "idle", "i-square"),
        }
    }

    /// `copies`: how many are wanted.
    pub fn of_repository(repository: &Repository, copies: usize) -> Self {
        if repository.shadowed_by.is_some() {
            return state("shadowed", "warn", "i-triangle");
        }
        match repository.state {
            RepositoryState::Ingesting => state("ingesting", "info", "i-half"),
            RepositoryState::Failed => state("failed", "bad", "i-cross"),
            RepositoryState::Ready if repository.holders.is_empty() => {
                state("no copy", "bad", "i-cross")
            }
            RepositoryState::Ready if !repository.last_error.is_empty() => {
                state("refresh fails", "warn", "i-triangle")
            }
            RepositoryState::Ready if repository.holders.len() < copies => {
                state("few copies", "warn", "i-triangle")
            }
            RepositoryState::Ready => state("ready", "good", "i-dot"),
        }
    }

    pub fn of_job(row: &v1::Job) -> Self {
        match row.state() {
            job::State::Running => state("running", "info", "i-half"),
            job::State::Waiting => state("waiting", "warn", "i-pause"),
            job::State::Done => state("done", "good", "i-check"),
            job::State::Failed => state("failed", "bad", "i-cross"),
            job::State::Cancelled => state("cancelled", "idle", "i-square"),
            job::State::Unspecified => state("unknown", "idle", "i-ring"),
        }
    }
}

/// How full something is, as a bar with its figures.
#[derive(Debug, Clone, PartialEq, Template)]
#[template(
    source = r#"<div class="barred"><svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="6" rx="1"/><rect class="fill {{ tone }}" width="{{ width }}" height="6" rx="1"/></svg><span class="small number">{{ label }}</span></div>"#,
    ext = "html"
)]
pub(super) struct Bar {
    width: String,
    tone: &'static str,
    label: String,
}

impl HtmlSafe for Bar {}

impl Bar {
    /// Of a disk or cache; warns at 80 %, and more at 95 %.
    pub fn usage(used: u64, whole: u64) -> Self {
        let share = if whole == 0 {
            0.0
        } else {
            (used as f64 / whole as f64).min(1.0)
        };
        let tone = match share {
            s if s >= 0.95 => "bad",
            s if s >= 0.8 => "warn",
            _ => "",
        };
        let label = match percent(used, whole) {
            Some(percent) => format!("{} of {} ({percent})", size(used), size(whole)),
            None => size(used),
        };
        Self {
            width: format!("{:.1}", share * 100.0),
            tone,
            label,
        }
    }

    /// Of work: `done` of `total`.
    pub fn progress(done: u64, total: u64, label: String) -> Self {
        let share = if total == 0 {
            0.0
        } else {
            (done as f64 / total as f64).min(1.0)
        };
        Self {
            width: format!("{:.1}", share * 100.0),
            tone: if share >= 1.0 { "good" } else { "" },
            label,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_differ_in_word_and_shape_and_not_only_in_colour() {
        use MemberState::{Active, Down, Drained, Draining, Joining, Recovering, Suspect};
        let states = [
            Joining, Active, Suspect, Down, Recovering, Draining, Drained,
        ]
        .map(State::of_member_state);
        let mut seen: Vec<_> = states
            .iter()
            .map(|state| (state.word, state.shape))
            .collect();
        seen.sort_unstable();
        seen.dedup_by(|a, b| a.0 == b.0 || a.1 == b.1);
        assert_eq!(seen.len(), states.len());
    }

    #[test]
    fn a_bar_says_its_figures_and_stays_within_itself() {
        let shown = Bar::usage(5 << 30, 4 << 30).to_string();
        assert!(
            shown.contains(r#"width="100.0""#) && shown.contains("bad"),
            "{shown}"
        );
        assert!(Bar::usage(1, 0).to_string().contains(r#"width="0.0""#));
    }
}
