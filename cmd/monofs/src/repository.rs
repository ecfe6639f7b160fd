//! What `--repo` names: a source, a ref of it, the path at which it is shown, and why there.
//!
//! `SOURCE[@REF][=DISPLAY]` is split from behind: what exists as a path is a source as a whole; else
//! the last `=` begins the path, and the last `@` after the last `/` of what is before it the ref, in
//! which `%2F` stands for `/`.
//!
//! A repository in a directory is shown where its `origin` says, so that a checkout has the same
//! path as everywhere else; without an origin that is a URL it is shown below `local/`.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use monofs_launch::exit::{Code, Failure};
use monofs_model::source::Scheme;
use monofs_model::{DisplayPath, RefName, SourceUrl};

/// A repository to ingest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RepositoryToShow {
    /// A URL, or the absolute path of a directory.
    pub(crate) source: SourceUrl,
    /// Empty: the HEAD of the source.
    pub(crate) ref_name: RefName,
    pub(crate) path: DisplayPath,
    chosen_by: PathChoice,
}

/// Where a display path is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathChoice {
    /// `--repo SOURCE=PATH`.
    User,
    /// The URL of the source.
    Url,
    /// The URL of the origin of a directory.
    Origin,
    /// The name of a directory without such an origin.
    Directory,
}

impl RepositoryToShow {
    /// Reads `SOURCE[@REF][=DISPLAY]`. Errors: what is wrong with the source, the ref or the path;
    /// a source that is neither a URL nor a path that exists.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let (rest, chosen) = split_display(text);
        let (named, ref_name) = split_ref(rest);
        let ref_name = RefName::new(&ref_name.replace("%2F", "/").replace("%2f", "/"))
            .with_context(|| format!("--repo {text}"))?;
        let is_path = exists(named);
        if !is_path && !looks_like_url(named) {
            return Err(no_such_path(named).into());
        }
        let source = if is_path {
            SourceUrl::new(&absolute(Path::new(named))?)?
        } else {
            SourceUrl::new(named)?
        };

        // A path that the user names wins over the origin's, that over the source's own.
        let origin = is_path.then(|| path_of_origin(Path::new(named))).flatten();
        let (path, chosen_by) = match (chosen, origin) {
            (Some(path), _) => {
                let path = DisplayPath::new(path).with_context(|| format!("--repo {text}"))?;
                (path, PathChoice::User)
            }
            (None, Some(path)) => (path, PathChoice::Origin),
            (None, None) if is_path => (derived(&source)?, PathChoice::Directory),
            (None, None) => (derived(&source)?, PathChoice::Url),
        };
        Ok(Self {
            source,
            ref_name,
            path,
            chosen_by,
        })
    }
}

/// What is before the last `=` and behind it, unless the whole exists as a path.
fn split_display(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('=') {
        Some((rest, path)) if !exists(text) => (rest, Some(path)),
        _ => (text, None),
    }
}

/// What is before the last `@` after the last `/` and behind it, unless the whole exists as a path.
/// In `user@host:path` the `@` before the host is none of a ref, nor is that of a URL without a path.
fn split_ref(text: &str) -> (&str, &str) {
    if exists(text) {
        return (text, "");
    }
    let path_at = match (text.rfind('/'), text.rfind(':')) {
        (Some(slash), _) if slash > 0 && text[..slash].ends_with(":/") => return (text, ""),
        (Some(slash), _) => slash + 1,
        (None, Some(colon)) => colon + 1,
        (None, None) => 0,
    };
    match text[path_at..].rfind('@') {
        Some(at) if at > 0 => (&text[..path_at + at], &text[path_at + at + 1..]),
        _ => (text, ""),
    }
}

/// Whether there is something at this path, of which perhaps nothing more can be known.
fn exists(path: &str) -> bool {
    match std::fs::metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// Whether a text that is no path here can be a source: a URL, or `host:path`.
fn looks_like_url(text: &str) -> bool {
    let host_end = text.find(':');
    text.contains("://") || host_end.is_some_and(|end| end > 0 && !text[..end].contains('/'))
}

/// Nothing is at a path that the user named; with what may have been meant.
fn no_such_path(named: &str) -> Failure {
    let first = named.split('/').next().unwrap_or(named);
    let hint = if named.starts_with('~') {
        "the shell expands ~ only at the start of a word: write --repo ~/... or $HOME/..."
            .to_owned()
    } else if named.contains('/') && first.contains('.') && !first.starts_with('.') {
        format!("for the repository at that address write https://{named}")
    } else if named.contains('@') {
        "for a branch with a slash in its name write %2F, as in SOURCE@feature%2Fname".to_owned()
    } else if named.matches('/').count() == 1 && !named.starts_with(['.', '/']) {
        format!("for the repository of GitHub write https://github.com/{named}.git")
    } else {
        "give a URL, or the path of a directory that is there".to_owned()
    };
    let shown = named.escape_debug();
    let message = format!("no such repository: there is nothing at '{shown}', and it is no URL");
    Failure::new(Code::Usage, message).hint(hint)
}

impl fmt::Display for RepositoryToShow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source.scheme() {
            Scheme::File => self.source.path(),
            _ => self.source.as_str().into(),
        };
        write!(f, "{source}")?;
        if !self.ref_name.as_str().is_empty() {
            write!(f, " at {}", self.ref_name)?;
        }
        write!(f, " as {}", self.path)?;
        let another = "--repo SOURCE=PATH names another";
        match self.chosen_by {
            PathChoice::User | PathChoice::Url => Ok(()),
            PathChoice::Origin => write!(f, ", the path of its origin; {another}"),
            PathChoice::Directory => write!(f, ", as no URL is its origin; {another}"),
        }
    }
}

fn absolute(directory: &Path) -> anyhow::Result<String> {
    let found = directory
        .canonicalize()
        .with_context(|| format!("find {}", directory.display()))?;
    found
        .to_str()
        .map(str::to_owned)
        .with_context(|| format!("{} is not valid UTF-8; give a file:// URL", found.display()))
}

fn derived(source: &SourceUrl) -> anyhow::Result<DisplayPath> {
    source
        .display_path()
        .with_context(|| format!("say where to show it: --repo {source}=PATH"))
}

/// Where the origin of the repository in `directory` is shown, when that is a URL that we parse.
/// Without Git, without an origin, and of a repository of another user there is none.
fn path_of_origin(directory: &Path) -> Option<DisplayPath> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["config", "--get", "remote.origin.url"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    path_of_url(String::from_utf8(output.stdout).ok()?.trim_end())
}

/// The display path of a remote's URL; of a path on this machine there is none.
fn path_of_url(url: &str) -> Option<DisplayPath> {
    let url = SourceUrl::new(url).ok()?;
    match url.scheme() {
        Scheme::File => None,
        _ => url.display_path().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RepositoryToShow {
        RepositoryToShow::parse(text).expect("a repository")
    }

    #[test]
    fn a_url_is_shown_where_it_says_unless_another_path_is_named() {
        let url = "https://host/org/repo.git";
        assert_eq!(parse(url).path.as_str(), "host/org/repo");
        let named = parse("https://host/org/a=b.git=elsewhere/repo");
        assert_eq!(named.path.as_str(), "elsewhere/repo");
        assert_eq!(named.source.as_str(), "https://host/org/a=b.git");
    }

    #[test]
    fn a_ref_stands_behind_the_last_at_sign_after_the_last_slash() {
        for (text, source, ref_name, path) in [
            (
                "https://host/org/repo.git@v1",
                "https://host/org/repo.git",
                "v1",
                "host/org/repo",
            ),
            (
                "https://host/org/repo@release%2F1.x",
                "https://host/org/repo",
                "release/1.x",
                "host/org/repo",
            ),
            (
                "https://host/org/repo@v1=a/b@c",
                "https://host/org/repo",
                "v1",
                "a/b@c",
            ),
            (
                "https://host/@org/repo",
                "https://host/@org/repo",
                "",
                "host/@org/repo",
            ),
            (
                "https://host/org/@repo",
                "https://host/org/@repo",
                "",
                "host/org/@repo",
            ),
            (
                "https://host/org/a@b@v1",
                "https://host/org/a@b",
                "v1",
                "host/org/a@b",
            ),
            (
                "git@host:org/repo.git",
                "git@host:org/repo.git",
                "",
                "host/org/repo",
            ),
            (
                "git@host:org/repo.git@main",
                "git@host:org/repo.git",
                "main",
                "host/org/repo",
            ),
            ("git@host:repo.git", "git@host:repo.git", "", "host/repo"),
            (
                "git@host:repo.git@main",
                "git@host:repo.git",
                "main",
                "host/repo",
            ),
            (
                "ssh://git@host/repo.git",
                "ssh://git@host/repo.git",
                "",
                "host/repo",
            ),
        ] {
            let found = parse(text);
            assert_eq!(found.source.as_str(), source, "{text}");
            assert_eq!(found.ref_name.as_str(), ref_name, "{text}");
            assert_eq!(found.path.as_str(), path, "{text}");
        }
    }

    #[test]
    fn an_existing_path_is_a_source_as_a_whole_whatever_it_looks_like() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        for name in [
            "work=mine",
            "tool@v2",
            "x=y@z",
            "git@host:repo",
            "https:/host/repo",
        ] {
            let directory = parent.path().join(name);
            std::fs::create_dir_all(&directory).expect("make a directory");
            let directory = directory.to_str().expect("a path of UTF-8");
            let found = parse(directory);
            assert_eq!(found.source.path(), directory);
            assert_eq!(found.chosen_by, PathChoice::Directory);
            assert_eq!(found.ref_name.as_str(), "");
            // Behind it ref and path are read as behind any other.
            let found = parse(&format!("{directory}@feature%2Fa=team/tool"));
            assert_eq!(found.source.path(), directory);
            assert_eq!(found.ref_name.as_str(), "feature/a");
            assert_eq!(found.path.as_str(), "team/tool");
        }
    }

    #[test]
    fn a_source_that_is_not_there_says_what_may_have_been_meant() {
        for (text, hint) in [
            ("torvalds/linux", "https://github.com/torvalds/linux.git"),
            ("github.com/org/repo", "https://github.com/org/repo"),
            ("/nowhere/at/all", "a directory that is there"),
            ("./x@feature/a", "%2F"),
            ("~/code", "$HOME"),
        ] {
            let error = RepositoryToShow::parse(text).expect_err("nothing is there");
            let failure = error.downcast::<Failure>().expect("a failure with a hint");
            assert!(
                failure.message.starts_with("no such repository"),
                "{failure}"
            );
            let found = failure.hint.expect("a hint");
            assert!(found.contains(hint), "{text}: {found}");
        }
    }

    #[test]
    fn a_directory_with_letters_of_urls_in_its_name_is_that_directory() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        for name in [
            "c#.git",
            "what?.git",
            "50%off.git",
            "50%20off.git",
            "a b.git",
            "h:x.git",
        ] {
            let directory = parent.path().join(name);
            std::fs::create_dir(&directory).expect("make a directory");
            let directory = directory.to_str().expect("a path of UTF-8");
            let found = parse(directory);
            assert_eq!(found.source.path(), directory);
            let shown = name.strip_suffix(".git").expect("all end like this");
            assert_eq!(found.path.as_str(), format!("local/{shown}"));
            assert!(found.to_string().starts_with(directory), "{found}");
        }
    }

    #[test]
    fn origins_that_are_paths_or_hold_secrets_lead_nowhere() {
        for url in [
            "",
            "/srv/x.git",
            "file:///srv/x.git",
            "../x",
            "https://me:secret@host/x",
        ] {
            assert_eq!(path_of_url(url), None, "{url}");
        }
        let path = path_of_url("git@host:org/repo.git");
        assert_eq!(
            path.expect("a URL that is parsed").as_str(),
            "host/org/repo"
        );
    }

    #[test]
    fn a_bad_path_is_named_with_its_flag() {
        let error = RepositoryToShow::parse("https://host/repo=../up").expect_err("a bad path");
        assert!(
            format!("{error:#}").contains("--repo https://host/repo=../up"),
            "{error:#}"
        );
    }
}
