//! What `--repo` names: a source, the path at which it is shown, and why there.
//!
//! A repository in a directory is shown where its `origin` says, so that a checkout has the same
//! path as everywhere else; without an origin that is a URL it is shown below `local/`.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use monofs_model::source::Scheme;
use monofs_model::{DisplayPath, SourceUrl};

/// A repository to ingest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RepositoryToShow {
    /// A URL, or the absolute path of a directory.
    pub(crate) source: SourceUrl,
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
    /// Reads `SOURCE` or `SOURCE=PATH`. What exists as a path is a source as a whole; else the last
    /// `=` separates the two. Errors: what is wrong with the source or the path.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        // What exists as a path is a directory, whatever letters it has.
        let (source, chosen) = match text.rsplit_once('=') {
            Some((source, path)) if !Path::new(text).exists() => (source, Some(path)),
            _ => (text, None),
        };
        let directory = Path::new(source);
        let is_directory = !source.contains("://") && directory.exists();
        let source = if is_directory {
            SourceUrl::new(&absolute(directory)?)?
        } else {
            SourceUrl::new(source)?
        };

        // A path that the user names wins over the origin's, that over the source's own.
        if let Some(path) = chosen {
            let path = DisplayPath::new(path).with_context(|| format!("--repo {text}"))?;
            return Ok(Self {
                source,
                path,
                chosen_by: PathChoice::User,
            });
        }
        let origin = is_directory.then(|| path_of_origin(directory)).flatten();
        let (path, chosen_by) = match origin {
            Some(path) => (path, PathChoice::Origin),
            None if is_directory => (derived(&source)?, PathChoice::Directory),
            None => (derived(&source)?, PathChoice::Url),
        };
        Ok(Self {
            source,
            path,
            chosen_by,
        })
    }
}

impl fmt::Display for RepositoryToShow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source.scheme() {
            Scheme::File => self.source.path(),
            _ => self.source.as_str().into(),
        };
        write!(f, "{source} as {}", self.path)?;
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
    fn an_existing_path_with_an_equals_sign_is_a_source_as_a_whole() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("work=mine");
        std::fs::create_dir(&directory).expect("make a directory");
        let found = parse(directory.to_str().expect("a path of UTF-8"));
        assert_eq!(found.path.as_str(), "local/work=mine");
        assert_eq!(found.chosen_by, PathChoice::Directory);
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
