//! `ls`: look into the tree without a mount.

use std::ffi::OsString;

use anyhow::Result;
use monofs_api::browse::{PathKind, ShownCommit, TreeDocument, TreeEntry};
use monofs_api::repos::{RepositoryCondition, ref_word};
use monofs_api::{Time, hex};
use monofs_model::tree::{Entry, EntryKind};
use monofs_proto::v1;

use crate::output::{TextTable, emit, emit_json};
use crate::place::{InsideRepository, NamespacePath, PathPlace, locate};
use crate::session::CommandSession;
use crate::text::{clean, clean_bytes, short};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin ls
  monofs-admin ls -l github.com/org/repo/src";

/// List a directory of the tree, no mount needed
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct LsArgs {
    /// A path of the tree, as on a mount; the root when left away
    #[arg(value_name = "PATH", default_value = "/")]
    path: OsString,
    /// Kind, size and object id of every entry
    #[arg(long, short)]
    long: bool,
}

pub async fn run(args: LsArgs, session: &CommandSession) -> Result<()> {
    let path = NamespacePath::new(&args.path)?;
    let mut listing = PathListing::of(&path);
    match locate(&session.cluster, &path).await? {
        PathPlace::Namespace(entries) => {
            for entry in &entries {
                listing.add_name(&path, entry);
            }
        }
        PathPlace::Inside(inside) => listing.look_inside(session, &path, &inside).await?,
    }
    if session.json() {
        return emit_json(&listing.document);
    }
    emit(&if args.long {
        listing.long()
    } else {
        listing.short()
    })
}

/// What is at a path, and how each of its entries is shown to people.
struct PathListing {
    document: TreeDocument,
    shown: Vec<String>,
}

impl PathListing {
    /// Nothing is known of what is at `path`.
    fn of(path: &NamespacePath) -> Self {
        let document = TreeDocument {
            path: path.shown(),
            path_encoded: path.encoded(),
            kind: PathKind::Namespace,
            repository: None,
            oid: None,
            size: None,
            target: None,
            url: None,
            entries: Vec::new(),
            total: None,
            next_offset: None,
            next_after: None,
        };
        Self {
            document,
            shown: Vec::new(),
        }
    }

    /// Adds a name of the namespace at `path`.
    fn add_name(&mut self, path: &NamespacePath, entry: &v1::ListEntry) {
        let repository = entry.repository.as_ref();
        let snapshot = repository.and_then(|repository| repository.snapshot.as_ref());
        self.shown.push(clean(&entry.name) + "/");
        self.document.entries.push(TreeEntry {
            name: entry.name.clone(),
            path_encoded: path.join(entry.name.as_bytes()).encoded(),
            kind: if repository.is_some() {
                PathKind::Repository
            } else {
                PathKind::Namespace
            },
            oid: snapshot.map(|snapshot| hex(&snapshot.commit)),
            size: snapshot.map(|snapshot| snapshot.bytes),
            state: repository.map(|repository| repository.state().into()),
            name_hex: None,
        });
    }

    /// Takes what is at `path` inside a repository. A path that names no directory lists itself, as
    /// everywhere.
    async fn look_inside(
        &mut self,
        session: &CommandSession,
        path: &NamespacePath,
        inside: &InsideRepository,
    ) -> Result<()> {
        // What is known of the entry itself.
        let document = &mut self.document;
        document.kind = inside.kind.into();
        document.oid = Some(inside.oid.to_string());
        document.size = inside.kind.is_blob().then_some(inside.size);
        document.repository = Some(ShownCommit {
            path: inside.repository.path.clone(),
            ref_name: ref_word(&inside.repository.ref_name),
            commit: hex(&inside.snapshot.commit),
            commit_time: Time::new(inside.snapshot.commit_time),
            generation: inside.repository.generation,
        });
        if inside.kind == EntryKind::Submodule {
            document.url = inside.submodule_url().map(str::to_owned);
        }
        // Its entries.
        if inside.is_directory() {
            let record = inside.record(&session.cluster).await?;
            document.total = Some(record.len());
            for entry in record.iter() {
                self.add_entry(path.join(entry.name), &entry);
            }
        } else {
            let name = inside.rest.last().map_or(&b""[..], Vec::as_slice);
            let itself = Entry {
                name,
                kind: inside.kind,
                oid: inside.oid,
                size: inside.size,
            };
            self.add_entry(path.clone(), &itself);
        }
        Ok(())
    }

    fn add_entry(&mut self, path: NamespacePath, entry: &Entry<'_>) {
        let mark = match entry.kind {
            EntryKind::Directory | EntryKind::Submodule => "/",
            EntryKind::Executable => "*",
            EntryKind::Symlink => "@",
            EntryKind::File => "",
        };
        let is_text = std::str::from_utf8(entry.name).is_ok();
        self.shown.push(clean_bytes(entry.name) + mark);
        self.document.entries.push(TreeEntry {
            name: String::from_utf8_lossy(entry.name).into_owned(),
            path_encoded: path.encoded(),
            kind: entry.kind.into(),
            oid: Some(entry.oid.to_string()),
            size: entry.kind.is_blob().then_some(entry.size),
            state: None,
            name_hex: (!is_text).then(|| hex(entry.name)),
        });
    }

    fn short(&self) -> String {
        self.shown.iter().map(|name| format!("{name}\n")).collect()
    }

    fn long(&self) -> String {
        let mut rows = TextTable::new(&["KIND", ">SIZE", "OBJECT", "NAME"]);
        for (entry, name) in self.document.entries.iter().zip(&self.shown) {
            let size = entry.size.filter(|_| entry.kind != PathKind::Repository);
            let note = entry
                .state
                .filter(|state| *state != RepositoryCondition::Ready)
                .map_or(String::new(), |state| format!("  ({})", state.word()));
            rows.row([
                long_word(entry.kind).to_owned(),
                size.map_or_else(|| "-".to_owned(), |size| size.to_string()),
                short(entry.oid.as_deref().unwrap_or_default()),
                format!("{name}{note}"),
            ]);
        }
        rows.render()
    }
}

/// The word of `ls -l`, to which everything with entries is a directory.
fn long_word(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Namespace => PathKind::Directory.word(),
        kind => kind.word(),
    }
}
