//! The ways to bring in a commit that a server does not simply hand out: each asks for more than
//! the one before, until the commit is here.
//!
//! ```text
//! the commit alone, by its id (gix, then git) -> the newest commits of its ref -> the whole ref
//!     -> all refs, within the bound of what may be fetched
//! ```
//!
//! Servers that know only protocol version 0 hand out what a ref names alone; old ones know nothing
//! of shallow answers; a web server that serves plain files (dumb http) knows neither; a bundle is
//! a file of whole refs. Invariant: a rung that ends without an error has the commit; else the
//! message says for each rung why it had not.

use std::sync::Arc;

use monofs_model::{Error, ObjectKind, Oid, Result};

use super::cli::{self, RefsFetch};
use super::failure::{GixVerdict, one_line};
use crate::credentials::Credentials;
use crate::objects::PackFiles;
use crate::source::{CommitWant, FetchTask};

/// Commits of a ref that are asked for before the whole of it.
const NEWEST_COMMITS: u32 = 50;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LadderRung {
    NewestOfRef,
    WholeRef,
    AllRefs,
}

impl LadderRung {
    const ALL: [Self; 3] = [Self::NewestOfRef, Self::WholeRef, Self::AllRefs];

    fn words(self) -> &'static str {
        match self {
            Self::NewestOfRef => "shallow by ref",
            Self::WholeRef => "the whole ref",
            Self::AllRefs => "all refs",
        }
    }
}

/// What is known of the server before the first rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerAbility {
    /// It may answer with a part of the history.
    Shallow,
    /// It knows whole histories alone.
    WholeOnly,
}

/// Goes down the ladder after the commit could not be had by its id, for `reason`.
pub fn climb(
    want: &CommitWant<'_>,
    ability: ServerAbility,
    reason: &str,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> Result<()> {
    let mut failures = vec![format!("shallow by id: {}", one_line(reason))];
    // What the name means now; a commit's own id says nothing about a ref.
    let named = match want.ref_name.as_str().parse::<Oid>() {
        Ok(_) => Ok("HEAD".to_owned()),
        Err(_) => cli::resolve(want.source, want.ref_name, credentials, task).map(|found| {
            if found.full_ref.is_empty() {
                "HEAD".to_owned()
            } else {
                found.full_ref
            }
        }),
    };
    for rung in LadderRung::ALL {
        if rung == LadderRung::NewestOfRef && ability == ServerAbility::WholeOnly {
            continue;
        }
        let refs = match (rung, &named) {
            (LadderRung::AllRefs, _) => "+refs/*:refs/have/all/*".to_owned(),
            (_, Ok(full_ref)) => full_ref.clone(),
            (_, Err(error)) if error.pause.is_some() => return Err(error.clone()),
            (_, Err(error)) => {
                failures.push(format!("{}: {}", rung.words(), one_line(&error.message)));
                continue;
            }
        };
        tracing::info!(
            source = %want.source,
            commit = %want.commit,
            rung = rung.words(),
            after = failures.last(),
            "the server does not hand out the commit alone: asking for more"
        );
        match ask(want, rung, refs, credentials, task)? {
            None => return Ok(()),
            Some(failure) => failures.push(failure),
        }
    }
    Err(Error::not_found(format!(
        "{}: commit {} (ref '{}') cannot be had: {}; if the ref was rewritten, resolve it again",
        want.source,
        want.commit,
        want.ref_name,
        failures.join("; ")
    )))
}

/// Tries one rung; returns why the commit is not here afterwards, `None` when it is. Errors: those
/// that the next rung would meet, too.
fn ask(
    want: &CommitWant<'_>,
    rung: LadderRung,
    refs: String,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> Result<Option<String>> {
    // Each rung is a fetch of its own, with its own count of bytes.
    task.set_bytes(0);
    let depth = (rung == LadderRung::NewestOfRef).then_some(NEWEST_COMMITS);
    let asked = RefsFetch { refs, depth };

    // What is clear would fail the next rungs alike; a refusal of this rung is a reason to go on.
    match cli::fetch_refs(want, &asked, credentials, task) {
        Ok(()) => {}
        Err(GixVerdict::Clear(error)) => {
            let doing = format!("commit {} by {}", want.commit, rung.words());
            return Err(error.context(doing));
        }
        Err(GixVerdict::Withheld(reason) | GixVerdict::Strange(reason)) => {
            return Ok(Some(format!("{}: {}", rung.words(), one_line(&reason))));
        }
    }

    // A fetch may succeed without the commit: it is deeper than the newest ones, or in no ref.
    if is_here(want)? {
        tracing::info!(source = %want.source, commit = %want.commit, rung = rung.words(), "got it");
        return Ok(None);
    }
    Ok(Some(format!(
        "{}: the commit is not in what came",
        rung.words()
    )))
}

/// Whether the commit has arrived.
fn is_here(want: &CommitWant<'_>) -> Result<bool> {
    let objects = PackFiles::open(want.into, want.commit.format())?.reader();
    let header = objects.header(&want.commit)?;
    Ok(matches!(header, Some((ObjectKind::Commit, _))))
}
