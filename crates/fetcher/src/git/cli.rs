//! Git remotes through the installed `git`, for what gix cannot do.
//!
//! Invariants: URLs and refs come after `--end-of-options`; secrets travel in the environment of
//! the child (`GIT_CONFIG_*`), never in its arguments; nothing of the user's configuration is read.

use std::borrow::Cow;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use monofs_model::source::Scheme;
use monofs_model::{Error, Oid, RefName, Result, SourceUrl};

use super::advert::{self, AdvertisedRef, RefChoice};
use super::bundle;
use super::child::{self, GitChild};
use super::failure::{
    GixVerdict, RemoteRequest, is_withheld, judge_text, one_line, over_limit, silent,
};
use super::http::basic;
use super::layout;
use super::transport::ssh_options;
use crate::credentials::{Credentials, HostCredentials};
use crate::source::{CommitWant, FetchPhase, FetchTask, ResolvedRef};

/// Objects above this size are streamed by `git` instead of being held in its memory.
pub const BIG_FILE_THRESHOLD: &str = "core.bigFileThreshold=16m";
/// Most bytes of a list of refs.
const REFS_BYTES_MAX: u64 = 256 << 20;

/// Whether there is a `git` to call.
pub fn is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        Command::new("git")
            .arg("--version")
            .output()
            .is_ok_and(|out| out.status.success())
    })
}

/// `git` with the login for the host of `source`.
fn git(source: &SourceUrl, host: &HostCredentials, task: &FetchTask) -> Result<Command> {
    let mut command = child::git();
    command.args(["-c", "credential.helper=", "-c", BIG_FILE_THRESHOLD]);
    command.args([
        "-c",
        "fetch.unpackLimit=1",
        "-c",
        "transfer.bundleURI=false",
        "-c",
        "protocol.version=2",
    ]);
    // Only the scheme of the URL itself, also after a redirect.
    let allowed = match source.scheme() {
        Scheme::Https => "protocol.https.allow=always",
        Scheme::Http => "protocol.http.allow=always",
        Scheme::Ssh => "protocol.ssh.allow=always",
        Scheme::Git => "protocol.git.allow=always",
        Scheme::File => "protocol.file.allow=always",
    };
    command.args(["-c", "protocol.allow=never", "-c", allowed]);
    let mut settings = vec![
        ("http.lowSpeedLimit", "1".to_owned()),
        (
            "http.lowSpeedTime",
            task.limits.idle_timeout.as_secs().max(1).to_string(),
        ),
    ];
    if matches!(source.scheme(), Scheme::Http | Scheme::Https)
        && let Some(login) = host.login(source)?
    {
        settings.push((
            "http.extraHeader",
            format!(
                "Authorization: {}",
                basic(&login.user, login.token.reveal())
            ),
        ));
        // `git` would send the header to wherever it is sent on to.
        settings.push(("http.followRedirects", "false".to_owned()));
    } else {
        settings.push(("http.followRedirects", "initial".to_owned()));
    }
    if let Some(ca_file) = &host.ca_file {
        settings.push(("http.sslCAInfo", ca_file.display().to_string()));
    }
    command.env("GIT_CONFIG_COUNT", settings.len().to_string());
    for (i, (key, value)) in settings.iter().enumerate() {
        command
            .env(format!("GIT_CONFIG_KEY_{i}"), key)
            .env(format!("GIT_CONFIG_VALUE_{i}"), value);
    }
    if source.scheme() == Scheme::Ssh {
        let quoted: Vec<String> = ssh_options(source, host, task)
            .iter()
            .map(|o| format!("'{}'", o.replace('\'', "'\\''")))
            .collect();
        command
            .env("GIT_SSH_COMMAND", format!("ssh {}", quoted.join(" ")))
            .env("GIT_SSH_VARIANT", "ssh");
    }
    Ok(command)
}

/// The remote as an argument: a bundle is a path, and the user of a web address goes into the login
/// alone.
fn location(source: &SourceUrl) -> Cow<'_, str> {
    if let Some(path) = bundle::path_of(source) {
        return Cow::Owned(path);
    }
    match source.scheme() {
        Scheme::Http | Scheme::Https => Cow::Owned(source.request_url()),
        _ => Cow::Borrowed(source.as_str()),
    }
}

/// Which commit a ref is at.
pub fn resolve(
    source: &SourceUrl,
    ref_name: &RefName,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> Result<ResolvedRef> {
    let host = credentials.of(source);
    let mut command = git(source, host, task)?;
    let asked = RemoteRequest {
        source,
        ref_name,
        commit: None,
        host,
        limits: task.limits,
    };
    command.args(["ls-remote", "--symref", "--end-of-options"]);
    command.arg(location(source).as_ref());
    let listed = run(command, &asked, task, None, |_| {}).map_err(|e| e.into_error(&asked))?;
    match advert::choose(source, ref_name, &parse_refs(&listed))? {
        RefChoice::Found(resolved) => match bundle::path_of(source) {
            // A bundle does not say what its tags name.
            Some(_) if resolved.full_ref.starts_with("refs/tags/") => {
                peel(resolved, &asked, credentials, task)
            }
            _ => Ok(resolved),
        },
        RefChoice::PerhapsCommit => Err(Error::not_found(format!(
            "{source}: no branch, tag or advertised commit is '{ref_name}'; give the full commit id"
        ))),
    }
}

/// The commit that a tag names, by a look into the tag itself.
fn peel(
    tag: ResolvedRef,
    asked: &RemoteRequest<'_>,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> Result<ResolvedRef> {
    // The tag is fetched into a repository that lasts only as long as this look.
    let directory =
        tempfile::tempdir().map_err(|e| Error::internal(format!("temporary directory: {e}")))?;
    layout::create(directory.path(), tag.commit.format())?;
    let want = CommitWant {
        source: asked.source,
        ref_name: asked.ref_name,
        commit: tag.commit,
        have: &[],
        into: directory.path(),
    };
    let refs = RefsFetch {
        refs: tag.full_ref.clone(),
        depth: None,
    };
    fetch_refs(&want, &refs, credentials, task).map_err(|e| e.into_error(asked))?;

    // Git follows the tag, and tags of tags, down to a commit.
    let mut command = child::git();
    command.arg("--git-dir").arg(directory.path());
    command.args([
        "rev-parse",
        "--verify",
        &format!("{}^{{commit}}", tag.commit),
    ]);
    let printed = run(command, asked, task, None, |_| {}).map_err(|e| e.into_error(asked))?;
    let commit = String::from_utf8_lossy(&printed).trim().parse()?;
    Ok(ResolvedRef { commit, ..tag })
}

/// What to ask a remote for.
pub struct RefsFetch {
    /// A ref or a refspec.
    pub refs: String,
    /// How many commits of each; `None` = all.
    pub depth: Option<u32>,
}

/// Brings in one commit by its id.
pub fn fetch(
    want: &CommitWant<'_>,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> std::result::Result<(), GixVerdict> {
    let asked = RefsFetch {
        refs: want.commit.to_string(),
        depth: Some(1),
    };
    fetch_refs(want, &asked, credentials, task)
}

/// Brings in what refs name, in the hope that the commit is among it. Which it is not said here.
pub fn fetch_refs(
    want: &CommitWant<'_>,
    refs: &RefsFetch,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> std::result::Result<(), GixVerdict> {
    let host = credentials.of(want.source);
    let mut command = git(want.source, host, task).map_err(GixVerdict::Clear)?;
    let asked = RemoteRequest {
        source: want.source,
        ref_name: want.ref_name,
        commit: Some(want.commit),
        host,
        limits: task.limits,
    };
    command.arg("--git-dir").arg(want.into);
    command.args([
        "fetch",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--progress",
    ]);
    // What is here of a shallow history is completed where all of it is asked for.
    let is_shallow = std::fs::metadata(want.into.join("shallow")).is_ok_and(|file| file.len() > 0);
    match refs.depth {
        Some(depth) => {
            command.arg(format!("--depth={depth}"));
        }
        None if is_shallow => {
            command.arg("--unshallow");
        }
        None => {}
    }
    command.args([
        "--no-recurse-submodules",
        "--end-of-options",
        location(want.source).as_ref(),
        &refs.refs,
    ]);
    // Names what is here, as `git` itself looks at refs alone for that.
    let names = want.into.join("refs/have");
    let named = write_haves(&names, want.have);
    let fetched = named.map_err(GixVerdict::Clear).and_then(|()| {
        let progress = {
            let task = task.clone();
            move |line: &str| follow(&task, line)
        };
        run(command, &asked, task, Some(want.into), progress)
    });
    // Refs are of no other use here.
    let _ = std::fs::remove_dir_all(&names);
    fetched.map(|_| ())
}

fn write_haves(directory: &std::path::Path, have: &[Oid]) -> Result<()> {
    let written = std::fs::create_dir_all(directory).and_then(|()| {
        have.iter().try_for_each(|commit| {
            std::fs::write(directory.join(commit.to_string()), format!("{commit}\n"))
        })
    });
    written.map_err(|e| Error::internal(format!("cannot write {}: {e}", directory.display())))
}

/// Runs `command` to its end and returns what it wrote; `into`: the directory that what it receives
/// goes to, whose growth is bounded.
fn run(
    command: Command,
    asked: &RemoteRequest<'_>,
    task: &Arc<FetchTask>,
    into: Option<&std::path::Path>,
    on_line: impl FnMut(&str) + Send + 'static,
) -> std::result::Result<Vec<u8>, GixVerdict> {
    use std::io::Read;
    // Its output is bounded; nothing is written to it.
    let before = into.map_or(0, layout::disk_bytes);
    let mut child = GitChild::spawn_into(command, task, into.map(Into::into), on_line)
        .map_err(GixVerdict::Clear)?;
    let (read, write) = child.take_pipes();
    drop(write);
    let mut output = Vec::new();
    let read = read.take(REFS_BYTES_MAX).read_to_end(&mut output);
    let timed_out = child.timed_out();
    let (status, said) = child.finish().map_err(GixVerdict::Clear)?;
    task.check().map_err(GixVerdict::Clear)?;
    // What came quickly was not measured on the way.
    let after = into.map_or(0, layout::disk_bytes);
    task.bound_bytes(after.saturating_sub(before));
    if task.over_limit() {
        return Err(GixVerdict::Clear(over_limit(asked)));
    }
    if timed_out {
        return Err(GixVerdict::Clear(silent(asked)));
    }
    if status.success() && read.is_ok() {
        return Ok(output);
    }
    if asked.commit.is_some() && is_withheld(&said) {
        return Err(GixVerdict::Withheld(said));
    }
    // Otherwise the last line that names an error says why.
    let last = said
        .lines()
        .rev()
        .find(|line| line.contains("fatal:") || line.contains("error:"))
        .unwrap_or(&said);
    Err(GixVerdict::Clear(judge_text(&said, asked).unwrap_or_else(
        || Error::unavailable(format!("{}: git failed: {}", asked.source, one_line(last))),
    )))
}

fn parse_refs(listed: &[u8]) -> Vec<AdvertisedRef> {
    // Lines are `ref: TARGET<tab>HEAD`, `OID<tab>NAME`, and `OID<tab>TAG^{}` after a tag.
    let mut refs: Vec<AdvertisedRef> = Vec::new();
    let mut head_target = None;
    for line in String::from_utf8_lossy(listed).lines() {
        let Some((left, name)) = line.split_once('\t') else {
            continue;
        };
        if let Some(target) = left.strip_prefix("ref: ") {
            if name == "HEAD" {
                head_target = Some(target.to_owned());
            }
            continue;
        }
        let Ok(object) = left.parse::<Oid>() else {
            continue;
        };
        match (name.strip_suffix("^{}"), refs.last_mut()) {
            (Some(tag), Some(last)) if last.name == tag => last.object = object,
            _ => refs.push(AdvertisedRef {
                name: name.to_owned(),
                object,
                target: None,
            }),
        }
    }
    if let Some(head) = refs.iter_mut().find(|r| r.name == "HEAD") {
        head.target = head_target;
    }
    refs
}

/// Reads `Receiving objects:  45% (123/273), 1.20 MiB | ...` and `Resolving deltas: ...`.
fn follow(task: &FetchTask, line: &str) {
    follow_objects(task, line);
    if let Some(bytes) = line.split(", ").nth(1).and_then(parse_bytes) {
        task.set_bytes(bytes);
    }
}

/// The same without the bytes, which are counted where they come in.
pub fn follow_objects(task: &FetchTask, line: &str) {
    // The words at the start tell the phase; other lines say nothing of the two that are followed.
    let line = line.trim_start_matches("remote: ");
    let phase = if line.starts_with("Receiving objects:") || line.starts_with("Unpacking objects:")
    {
        FetchPhase::Receiving
    } else if line.starts_with("Resolving deltas:") {
        FetchPhase::Indexing
    } else {
        return;
    };

    // The counts stand in the parentheses. A line without them changes nothing.
    let counts = line
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'));
    let Some((done, total)) = counts.and_then(|(counts, _)| counts.split_once('/')) else {
        return;
    };
    let (Ok(done), Ok(total)) = (done.parse::<usize>(), total.parse::<u64>()) else {
        return;
    };

    // Each phase has its own counter, and both share one total.
    let counter = if phase == FetchPhase::Receiving {
        &task.received
    } else {
        &task.resolved
    };
    counter.store(done, std::sync::atomic::Ordering::Relaxed);
    task.set_total(total);
    task.set_phase(phase);
}

/// Reads `1.20 MiB` at the start of a text.
fn parse_bytes(text: &str) -> Option<u64> {
    let (number, rest) = text.split_once(' ')?;
    let unit = match rest.split(' ').next()? {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    number
        .parse::<f64>()
        .ok()
        .map(|number| (number * unit) as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::FetchLimits;

    #[test]
    fn tags_are_peeled_and_head_is_named() {
        let a = "1".repeat(40);
        let b = "2".repeat(40);
        let text = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/tags/v1\n{a}\trefs/tags/v1^{{}}\n"
        );
        let refs = parse_refs(text.as_bytes());
        assert_eq!(refs.len(), 3);
        assert_eq!(refs[0].target.as_deref(), Some("refs/heads/main"));
        assert_eq!(refs[2].object.to_string(), a);
    }

    #[test]
    fn progress_of_git_is_read() {
        let task = FetchTask::new(FetchLimits::default());
        follow(
            &task,
            "Receiving objects:  45% (123/273), 1.50 MiB | 1.20 MiB/s",
        );
        let progress = task.progress();
        assert_eq!(
            (
                progress.objects_done,
                progress.objects_total,
                progress.bytes_done
            ),
            (123, 273, 3 << 19)
        );
    }
}
