//! `ls`: look into the tree without a mount.

use std::ffi::OsString;

use anyhow::Result;
use monofs_model::tree::{Entry, EntryKind};
use monofs_proto::v1;
use serde::Serialize;

use crate::output::{Rows, emit, emit_json};
use crate::place::{Inside, Place, TreePath, kind_word, locate};
use crate::session::Session;
use crate::shapes::repository_state;
use crate::text::{clean, clean_bytes, hex, short};

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

#[derive(Serialize)]
struct Answer {
    path: String,
    entries: Vec<Item>,
}

/// One entry of a listing.
#[derive(Debug, Serialize)]
struct Item {
    name: String,
    /// The name's bytes, when they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip)]
    shown: String,
}

pub async fn run(args: LsArgs, session: &Session) -> Result<()> {
    let path = TreePath::new(&args.path)?;
    let items: Vec<Item> = match locate(&session.cluster, &path).await? {
        Place::Namespace(entries) => entries.iter().map(namespace_item).collect(),
        Place::Inside(inside) if inside.is_directory() => inside
            .record(&session.cluster)
            .await?
            .iter()
            .map(|entry| item(&entry))
            .collect(),
        Place::Inside(inside) => vec![itself(&inside)],
    };
    if session.json() {
        return emit_json(&Answer {
            path: path.shown(),
            entries: items,
        });
    }
    emit(&if args.long {
        long(&items)
    } else {
        short_form(&items)
    })
}

fn namespace_item(entry: &v1::ListEntry) -> Item {
    let commit = entry
        .repository
        .as_ref()
        .and_then(|repository| repository.snapshot.as_ref());
    Item {
        name: entry.name.clone(),
        name_hex: None,
        kind: if entry.repository.is_some() {
            "repository"
        } else {
            "directory"
        },
        size: None,
        oid: commit.map(|snapshot| hex(&snapshot.commit)),
        state: entry
            .repository
            .as_ref()
            .map(|repository| repository_state(repository.state())),
        shown: clean(&entry.name) + "/",
    }
}

fn item(entry: &Entry<'_>) -> Item {
    let mark = match entry.kind {
        EntryKind::Directory | EntryKind::Submodule => "/",
        EntryKind::Executable => "*",
        EntryKind::Symlink => "@",
        EntryKind::File => "",
    };
    Item {
        name: String::from_utf8_lossy(entry.name).into_owned(),
        name_hex: std::str::from_utf8(entry.name)
            .is_err()
            .then(|| hex(entry.name)),
        kind: kind_word(entry.kind),
        size: entry.kind.is_blob().then_some(entry.size),
        oid: Some(entry.oid.to_string()),
        state: None,
        shown: clean_bytes(entry.name) + mark,
    }
}

/// A path that names no directory lists itself, as everywhere.
fn itself(inside: &Inside) -> Item {
    let name = inside.rest.last().map_or(&b""[..], Vec::as_slice);
    item(&Entry {
        name,
        kind: inside.kind,
        oid: inside.oid,
        size: inside.size,
    })
}

fn short_form(items: &[Item]) -> String {
    items
        .iter()
        .map(|item| format!("{}\n", item.shown))
        .collect()
}

fn long(items: &[Item]) -> String {
    let mut rows = Rows::new(&["KIND", ">SIZE", "OBJECT", "NAME"]);
    for item in items {
        let size = item
            .size
            .map_or_else(|| "-".to_owned(), |size| size.to_string());
        let note = item
            .state
            .filter(|state| *state != "ready")
            .map_or(String::new(), |state| format!("  ({state})"));
        let oid = short(item.oid.as_deref().unwrap_or_default());
        rows.row([
            item.kind.to_owned(),
            size,
            oid,
            format!("{}{note}", item.shown),
        ]);
    }
    rows.render()
}
