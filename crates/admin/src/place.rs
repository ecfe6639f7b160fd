//! Where a path leads: into the namespace above repositories, or to an entry inside one.
//!
//! Paths are bytes, as on a mount. Directory records come one level at a time and are verified
//! against their oid.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use bytes::Bytes;
use monofs_api::percent::percent_encoded;
use monofs_api::repos::RepositoryCondition;
use monofs_launch::exit::{Code, Failure};
use monofs_model::tree::{EntryKind, TreeRecord};
use monofs_model::{Error, Oid};
use monofs_proto::v1;

use crate::cluster::{CallSubject, ClusterClient, RouterClient, explain};
use crate::display_path::where_a_url_leads;
use crate::text::{clean, clean_bytes, shell_word};

/// Most pages of one listing that are asked for; more than that is a router that never ends.
const PAGES_MAX: usize = 100_000;

/// A path below the mount point, split at slashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespacePath(Vec<Vec<u8>>);

impl NamespacePath {
    /// Takes `/`, `a//b/`, `./a` as a shell user would; there is no way up.
    pub fn new(text: &OsStr) -> Result<Self, Failure> {
        let shown = clean_bytes(text.as_bytes());
        if let Some(hint) = text.to_str().and_then(where_a_url_leads) {
            let what = format!("'{shown}' is a URL; a path in the tree is wanted");
            return Err(Failure::new(Code::Usage, what).hint(hint));
        }
        let parts = text
            .as_bytes()
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".");
        let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
        if parts.iter().any(|part| part == b"..") {
            return Err(Failure::new(
                Code::Usage,
                format!("path '{shown}' has a '..' component"),
            )
            .hint(
                "name the directory from the root of the tree: there is no current directory here",
            ));
        }
        Ok(Self(parts))
    }

    /// A path that is known to be one, such as one inside a commit.
    pub fn from_bytes(path: &[u8]) -> Self {
        let parts = path.split(|byte| *byte == b'/');
        Self(
            parts
                .filter(|part| !part.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
        )
    }

    /// The path to ask a URL with: percent-encoded, without a leading slash.
    pub fn encoded(&self) -> String {
        let parts = self.0.iter().map(|part| percent_encoded(part));
        parts.collect::<Vec<_>>().join("/")
    }

    /// The path with `name` added.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_vec());
        Self(parts)
    }

    /// The path as text for people.
    pub fn shown(&self) -> String {
        format!("/{}", clean_bytes(&self.0.join(&b'/')))
    }

    /// The components that a router can be asked about: those before the first one that is no
    /// UTF-8.
    fn text(&self) -> String {
        let parts = self
            .0
            .iter()
            .map_while(|part| std::str::from_utf8(part).ok());
        parts.collect::<Vec<_>>().join("/")
    }
}

/// Where a path leads.
pub enum PathPlace {
    /// Above repositories.
    Namespace(Vec<v1::ListEntry>),
    /// Inside a repository (or its root).
    Inside(Box<InsideRepository>),
}

/// An entry inside a repository.
pub struct InsideRepository {
    pub repository: v1::Repository,
    pub snapshot: v1::Snapshot,
    /// The names below the repository's root.
    pub rest: Vec<Vec<u8>>,
    pub kind: EntryKind,
    pub oid: Oid,
    /// Bytes of a file or symlink target.
    pub size: u64,
}

impl InsideRepository {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }

    /// What lets a server that holds it no longer get it again.
    fn origin(&self) -> v1::Origin {
        v1::Origin {
            source: self.repository.source.clone(),
            ref_name: self.repository.ref_name.clone(),
            commit: self.snapshot.commit.clone(),
        }
    }

    /// The directory record of this directory.
    pub async fn record(&self, cluster: &ClusterClient) -> Result<TreeRecord> {
        // One directory, from any server that holds it.
        let request = v1::GetTreesRequest {
            storage_id: self.repository.storage_id.clone(),
            oids: vec![Bytes::copy_from_slice(self.oid.as_bytes())],
            depth: 1,
            origin: Some(self.origin()),
            ..Default::default()
        };
        let call = |router: RouterClient| {
            let request = router.stream(request.clone());
            async move { router.content().get_trees(request).await }
        };
        let mut answers = cluster
            .follow(CallSubject::Cluster, cluster.timeout(), call)
            .await?;
        // Its record is what its id says, or damaged.
        while let Some(answer) = answers.next().await? {
            if let Some(tree) = answer
                .trees
                .into_iter()
                .find(|tree| tree.oid == self.oid.as_bytes())
            {
                let record = TreeRecord::parse_verified(tree.record, &self.oid);
                return Ok(record.map_err(|error| explain(error, CallSubject::Cluster))?);
            }
        }
        Err(not_held("directory", &self.oid).into())
    }

    /// A request for the contents of this file or symlink, whole.
    pub fn blob_request(&self) -> v1::GetBlobsRequest {
        let span = v1::BlobSpan {
            oid: Bytes::copy_from_slice(self.oid.as_bytes()),
            first_chunk: 0,
            chunk_count: 0,
            size: self.size,
        };
        v1::GetBlobsRequest {
            storage_id: self.repository.storage_id.clone(),
            spans: vec![span],
            origin: Some(self.origin()),
            ..Default::default()
        }
    }

    /// The URL of this submodule.
    pub fn submodule_url(&self) -> Option<&str> {
        let path = self.rest.join(&b'/');
        self.snapshot
            .submodules
            .iter()
            .find(|module| module.path == path)
            .map(|module| module.url.as_str())
    }
}

/// The failure when no server holds an object that the catalogue says exists.
pub fn not_held(what: &str, oid: &Oid) -> Failure {
    Failure::new(
        Code::Unreachable,
        format!("no reachable node holds {what} {oid}"),
    )
    .hint(
        "`monofs-admin status` shows which nodes are down; start them: what they lost is copied \
         from other nodes, else from Git",
    )
}

/// Follows a path down from the root of the namespace.
pub async fn locate(cluster: &ClusterClient, path: &NamespacePath) -> Result<PathPlace> {
    let text = path.text();
    if text.is_empty() && path.0.is_empty() {
        return Ok(PathPlace::Namespace(list(cluster, "").await?));
    }
    let call = |router: RouterClient| {
        let request = router.request(v1::ResolveRequest { path: text.clone() });
        async move { router.catalog().resolve(request).await }
    };
    let resolved: Result<v1::ResolveResponse, Failure> = cluster.ask(call).await;
    let repository = match resolved {
        Ok(answer) => answer.repository,
        Err(failure) if failure.code == Code::Failed || failure.code == Code::Usage => {
            // Not inside a repository; perhaps above some.
            let entries = if text.split('/').count() == path.0.len() {
                list(cluster, &text).await
            } else {
                Ok(Vec::new())
            };
            return match entries {
                Ok(entries) if !entries.is_empty() => Ok(PathPlace::Namespace(entries)),
                Err(other) if other.code == Code::Unreachable => Err(other.into()),
                _ => Err(not_found(path).into()),
            };
        }
        Err(failure) => return Err(failure.into()),
    };
    match repository {
        Some(repository) => Ok(PathPlace::Inside(Box::new(
            descend(cluster, path, repository).await?,
        ))),
        None => Err(not_found(path).into()),
    }
}

fn not_found(path: &NamespacePath) -> Failure {
    explain(
        Error::not_found(format!("{} does not exist", path.shown())),
        CallSubject::Cluster,
    )
}

/// The names below a path of the namespace.
async fn list(cluster: &ClusterClient, prefix: &str) -> Result<Vec<v1::ListEntry>, Failure> {
    let mut entries = Vec::new();
    let mut token = String::new();
    for _ in 0..PAGES_MAX {
        let message = v1::ListRequest {
            prefix: prefix.to_owned(),
            page_token: token,
            page_size: 0,
        };
        let call = |router: RouterClient| {
            let request = router.request(message.clone());
            async move { router.catalog().list(request).await }
        };
        let page: v1::ListResponse = cluster.ask(call).await?;
        entries.extend(page.entries);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    Ok(entries)
}

/// From the root of a repository down to the entry.
async fn descend(
    cluster: &ClusterClient,
    path: &NamespacePath,
    mut repository: v1::Repository,
) -> Result<InsideRepository> {
    // Without a commit there is nothing to go down into.
    let Some(snapshot) = repository.snapshot.take() else {
        let shown = clean(&repository.path);
        return Err(Failure::new(
            Code::Refused,
            format!(
                "repository {shown} has no commit yet: it is {}",
                state(&repository)
            ),
        )
        .hint(format!(
            "`monofs-admin repo {}` says why",
            shell_word(&repository.path)
        ))
        .into());
    };
    let depth = repository
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .count();
    let rest = path.0.get(depth..).unwrap_or_default();
    let root = Oid::from_bytes(&snapshot.root)?;
    let mut here = InsideRepository {
        repository,
        snapshot,
        rest: Vec::new(),
        kind: EntryKind::Directory,
        oid: root,
        size: 0,
    };
    // One directory record for each name.
    for name in rest {
        if !here.is_directory() {
            let shown = clean_bytes(&here.rest.join(&b'/'));
            let wrong = Error::not_found(format!(
                "{} does not exist: '{shown}' is no directory",
                path.shown()
            ));
            return Err(explain(wrong, CallSubject::Cluster).into());
        }
        let record = here.record(cluster).await?;
        let Some(entry) = record.find(name) else {
            return Err(not_found(path).into());
        };
        here.kind = entry.kind;
        here.oid = entry.oid;
        here.size = entry.size;
        here.rest.push(name.clone());
    }
    Ok(here)
}

fn state(repository: &v1::Repository) -> &'static str {
    RepositoryCondition::from(repository).word()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_a_shell_user_writes_them() {
        let path = |text: &str| NamespacePath::new(OsStr::new(text)).map(|path| path.shown());
        assert_eq!(path("/").ok().as_deref(), Some("/"));
        assert_eq!(
            path("github.com//org/./repo/").ok().as_deref(),
            Some("/github.com/org/repo")
        );
        assert!(path("a/../b").is_err());
        let raw = NamespacePath::new(OsStr::from_bytes(b"a/b/\xff/c"));
        assert_eq!(
            raw.map(|raw| (raw.text(), raw.shown())).ok(),
            Some(("a/b".into(), "/a/b/\\xff/c".into()))
        );
    }
}
