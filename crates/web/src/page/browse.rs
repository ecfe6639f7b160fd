//! The tree as readers see it: directories page by page, files with lines to link to, and what is
//! neither.

use std::sync::Arc;

use askama::Template;
use axum::response::Response;
use monofs_api::percent::percent_encoded;
use monofs_model::tree::EntryKind;
use monofs_model::{Repository, Result, SourceUrl};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::answer::show;
use super::highlight::{self, Code};
use super::parts::State;
use super::shell::Shell;
use super::text::{When, clean, clean_bytes, encode_path, number, short, size};
use monofs_control::Control;
use monofs_members::fleet::Fleet;
use monofs_router::browse::{self, Child, Directory, Found, Inside, Namespace, Paging, TreePath};
use monofs_router::parts::Parts;

/// Names on one page.
const PAGE: usize = 500;
/// Bytes and lines of a file that are shown; the rest is in the raw file.
const SHOWN_BYTES_MAX: usize = 1 << 20;
const SHOWN_LINES_MAX: usize = 20_000;
/// Bytes of a README below a directory.
const README_BYTES_MAX: usize = 64 << 10;
/// In these first bytes a NUL tells a binary file, as Git has it.
const BINARY_BYTES: usize = 8000;

/// The query of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BrowseQuery {
    offset: String,
    after: String,
}

struct Crumb {
    name: String,
    href: String,
}

struct EntryRow {
    name: String,
    href: String,
    icon: &'static str,
    kind: &'static str,
    size: String,
}

/// A name of the tree above repositories.
struct Name {
    name: String,
    href: String,
    repository: Option<NamedRepository>,
}

struct NamedRepository {
    state: State,
    commit: String,
    committed: When,
    size: String,
}

/// Which repository and commit is looked into.
struct Within {
    href: String,
    path: String,
    commit: String,
    committed: When,
    ref_name: String,
}

#[derive(Template)]
#[template(path = "namespace.html")]
struct NamespacePage {
    shell: Shell,
    crumbs: Vec<Crumb>,
    names: Vec<Name>,
    next: Option<String>,
    is_root: bool,
}

#[derive(Template)]
#[template(path = "directory.html")]
struct DirectoryPage {
    shell: Shell,
    crumbs: Vec<Crumb>,
    within: Within,
    rows: Vec<EntryRow>,
    up: Option<String>,
    total: String,
    range: Option<String>,
    before: Option<String>,
    next: Option<String>,
    readme: Option<Readme>,
}

struct Readme {
    name: String,
    href: String,
    text: String,
    cut: bool,
}

/// What a file shows of itself.
enum Body {
    Code(Code),
    Binary,
    Empty,
    /// Where a symlink points, and a link to it if that is inside the tree.
    Symlink {
        target: String,
        href: Option<String>,
    },
    /// Where a submodule comes from, and where it is in the tree if it is.
    Submodule {
        url: Option<String>,
        href: Option<String>,
    },
}

#[derive(Template)]
#[template(path = "file.html")]
struct FilePage {
    shell: Shell,
    crumbs: Vec<Crumb>,
    within: Within,
    kind: &'static str,
    size: String,
    oid: String,
    raw: String,
    body: Body,
    /// The first part only is shown.
    cut: bool,
    /// Some bytes are no text.
    lossy: bool,
}

/// `encoded`: the path as in the URL.
pub(super) async fn answer(
    state: &Arc<Parts>,
    highlights: &Arc<Semaphore>,
    encoded: &str,
    asked: &BrowseQuery,
) -> Response {
    match found(state, encoded, asked).await {
        Ok((path, Found::Namespace(namespace))) => show(
            state,
            "/browse/",
            Ok(self::namespace(state, &path, namespace, asked)),
        ),
        Ok((path, Found::Directory(directory))) => show(
            state,
            "/browse/",
            Ok(self::directory(state, &path, directory).await),
        ),
        Ok((path, Found::Entry(inside))) => show(
            state,
            "/browse/",
            file(state, highlights, &path, inside).await,
        ),
        Err(error) => show::<NamespacePage>(state, "/browse/", Err(error)),
    }
}

async fn found(
    state: &Arc<Parts>,
    encoded: &str,
    asked: &BrowseQuery,
) -> Result<(TreePath, Found)> {
    let path = TreePath::decode(encoded)?;
    let paging = Paging {
        offset: asked.offset.parse().unwrap_or(0),
        after: asked.after.clone(),
        limit: PAGE,
        directories_first: true,
    };
    let found = browse::look(state, &path, &paging).await?;
    Ok((path, found))
}

fn crumbs(path: &TreePath) -> Vec<Crumb> {
    let mut here = TreePath::default();
    let mut crumbs = vec![Crumb {
        name: "all".to_owned(),
        href: "/browse/".to_owned(),
    }];
    for part in path.components() {
        here = here.join(part);
        crumbs.push(Crumb {
            name: clean_bytes(part),
            href: href(&here),
        });
    }
    crumbs
}

fn href(path: &TreePath) -> String {
    format!("/browse/{}", path.encoded())
}

/// The page of a directory that begins with the entry `offset`.
fn page_href(path: &TreePath, offset: usize) -> String {
    match offset {
        0 => href(path),
        offset => format!("{}?offset={offset}", href(path)),
    }
}

fn title(path: &TreePath) -> String {
    match path.components().last() {
        Some(name) => format!("{} in {}", clean_bytes(name), path.shown()),
        None => "Browse".to_owned(),
    }
}

fn namespace(
    state: &Parts,
    path: &TreePath,
    namespace: Namespace,
    asked: &BrowseQuery,
) -> NamespacePage {
    let view = state.fleet.members.view();
    let copies = view.copies_wanted();
    let name = |(name, repository): &(String, Option<Arc<Repository>>)| Name {
        name: clean(name),
        href: href(&path.join(name.as_bytes())),
        repository: repository.as_ref().map(|entry| {
            let snapshot = entry.snapshot.as_ref();
            NamedRepository {
                state: State::of_repository(entry, copies),
                commit: snapshot
                    .map(|snapshot| short(&snapshot.commit.to_string()).to_owned())
                    .unwrap_or_default(),
                committed: When::at(snapshot.map_or(0, |snapshot| snapshot.commit_time)),
                size: snapshot
                    .map(|snapshot| size(snapshot.bytes))
                    .unwrap_or_default(),
            }
        }),
    };
    let next = namespace
        .next
        .map(|next| format!("{}?after={}", href(path), percent_encoded(next.as_bytes())));
    NamespacePage {
        shell: Shell::new(state, &title(path), "/browse/"),
        crumbs: crumbs(path),
        names: namespace.names.iter().map(name).collect(),
        next,
        is_root: path.is_root() && asked.after.is_empty(),
    }
}

fn within(inside: &Inside) -> Within {
    let entry = &inside.repository;
    let snapshot = &inside.snapshot;
    Within {
        href: format!("/repos/{}", encode_path(entry.path.as_str())),
        path: clean(entry.path.as_str()),
        commit: short(&snapshot.commit.to_string()).to_owned(),
        committed: When::at(snapshot.commit_time),
        ref_name: clean(entry.ref_name.as_str()),
    }
}

async fn directory(state: &Parts, path: &TreePath, directory: Directory) -> DirectoryPage {
    let Directory {
        inside,
        entries,
        offset,
        total,
    } = directory;
    let shown = entries.len();
    let parent = crumbs(path)
        .into_iter()
        .rev()
        .nth(1)
        .map(|crumb| crumb.href);
    DirectoryPage {
        shell: Shell::new(state, &title(path), "/browse/"),
        crumbs: crumbs(path),
        within: within(&inside),
        rows: entries.iter().map(|child| row(path, child)).collect(),
        up: parent,
        total: number(total as u64),
        range: (total > PAGE).then(|| {
            let from = (offset + 1).min(total);
            let to = offset + shown;
            format!(
                "{} to {} of {}",
                number(from as u64),
                number(to as u64),
                number(total as u64)
            )
        }),
        before: (offset > 0).then(|| page_href(path, offset.saturating_sub(PAGE))),
        next: (offset + shown < total).then(|| page_href(path, offset + shown)),
        readme: readme(&state.fleet, path, &inside, &entries).await,
    }
}

fn row(path: &TreePath, child: &Child) -> EntryRow {
    let icon = match child.kind {
        EntryKind::File => "i-file",
        EntryKind::Executable => "i-run",
        EntryKind::Symlink => "i-link",
        EntryKind::Directory => "i-browse",
        EntryKind::Submodule => "i-module",
    };
    EntryRow {
        name: clean_bytes(&child.name),
        href: href(&path.join(&child.name)),
        icon,
        kind: browse::kind_word(child.kind),
        size: if child.kind.is_blob() {
            size(child.size)
        } else {
            String::new()
        },
    }
}

/// The text of the README among `entries`, if one is and can be had.
async fn readme(
    fleet: &Arc<Fleet>,
    path: &TreePath,
    inside: &Inside,
    entries: &[Child],
) -> Option<Readme> {
    let child = entries.iter().find(|child| is_readme(child))?;
    let mut file = inside.clone();
    file.rest.push(child.name.clone());
    (file.kind, file.oid, file.size) = (child.kind, child.oid, child.size);
    // Without it the directory is shown all the same.
    let bytes = browse::read_small(fleet, &file, README_BYTES_MAX)
        .await
        .ok()?;
    let text = String::from_utf8_lossy(&bytes);
    (!is_binary(&bytes) && !text.trim().is_empty()).then(|| Readme {
        name: clean_bytes(&child.name),
        href: href(&path.join(&child.name)),
        text: text
            .split('\n')
            .map(|line| clean(line.trim_end_matches('\r').replace('\t', "    ").as_str()))
            .collect::<Vec<_>>()
            .join("\n"),
        cut: child.size > README_BYTES_MAX as u64,
    })
}

/// Names of files that tell about their directory, in lower case.
const README_NAMES: [&[u8]; 5] = [
    b"readme",
    b"readme.md",
    b"readme.txt",
    b"readme.rst",
    b"readme.adoc",
];

fn is_readme(child: &Child) -> bool {
    let name = child.name.to_ascii_lowercase();
    matches!(child.kind, EntryKind::File | EntryKind::Executable)
        && README_NAMES.contains(&name.as_slice())
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(BINARY_BYTES).any(|byte| *byte == 0)
}

async fn file(
    state: &Parts,
    highlights: &Arc<Semaphore>,
    path: &TreePath,
    inside: Inside,
) -> Result<FilePage> {
    let mut page = FilePage {
        shell: Shell::new(state, &title(path), "/browse/"),
        crumbs: crumbs(path),
        within: within(&inside),
        kind: browse::kind_word(inside.kind),
        size: size(inside.size),
        oid: inside.oid.to_string(),
        raw: format!("/api/v1/file?path={}", path.encoded()),
        body: Body::Empty,
        cut: false,
        lossy: false,
    };
    match inside.kind {
        EntryKind::Submodule => page.body = submodule(&state.control, &inside),
        EntryKind::Symlink => page.body = symlink(&state.fleet, path, &inside).await?,
        _ => contents(&state.fleet, highlights, path, &inside, &mut page).await?,
    }
    Ok(page)
}

async fn contents(
    fleet: &Arc<Fleet>,
    highlights: &Arc<Semaphore>,
    path: &TreePath,
    inside: &Inside,
    page: &mut FilePage,
) -> Result<()> {
    if inside.size == 0 {
        return Ok(());
    }
    let bytes = browse::read_small(fleet, inside, SHOWN_BYTES_MAX).await?;
    if is_binary(&bytes) {
        page.body = Body::Binary;
        return Ok(());
    }
    let (text, cut) = shown(&bytes, inside.size);
    page.lossy = text.contains('\u{fffd}');
    page.cut = cut;
    let name = path
        .components()
        .last()
        .map(|name| clean_bytes(name))
        .unwrap_or_default();
    page.body = Body::Code(highlight::show(highlights, name, text.into()).await);
    Ok(())
}

/// What of a file's first bytes is shown as text, and whether there is more of it.
fn shown(bytes: &[u8], whole: u64) -> (String, bool) {
    let mut end = bytes.len();
    if let Some((at, _)) = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(SHOWN_LINES_MAX - 1)
    {
        end = at + 1;
    }
    if (end as u64) < whole {
        // Not in the middle of a line, or at least not of a character.
        end = bytes[..end]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(end, |at| at + 1);
        while end > 0 && end < bytes.len() && bytes[end] & 0xc0 == 0x80 {
            end -= 1;
        }
    }
    (
        String::from_utf8_lossy(&bytes[..end]).into_owned(),
        (end as u64) < whole,
    )
}

async fn symlink(fleet: &Arc<Fleet>, path: &TreePath, inside: &Inside) -> Result<Body> {
    let limit = monofs_model::limits::SYMLINK_BYTES_MAX as usize;
    let target = browse::read_small(fleet, inside, limit).await?;
    Ok(Body::Symlink {
        target: clean_bytes(&target),
        href: pointed_at(path, &target).map(|path| href(&path)),
    })
}

/// Where a relative symlink at `path` points, if that is inside the tree.
fn pointed_at(path: &TreePath, target: &[u8]) -> Option<TreePath> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let mut parts: Vec<&[u8]> = path.components().iter().map(Vec::as_slice).collect();
    parts.pop()?;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    TreePath::new(&parts.join(&b'/')).ok()
}

fn submodule(control: &Control, inside: &Inside) -> Body {
    let url = inside.submodule_url();
    let shown_at = url.and_then(|url| SourceUrl::new(url).ok()?.display_path().ok());
    let known = shown_at.filter(|path| {
        control
            .catalog
            .get(path)
            .is_some_and(|entry| entry.snapshot.is_some())
    });
    Body::Submodule {
        url: url.map(clean),
        href: known.map(|path| format!("/browse/{}", encode_path(path.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_symlinks_target_stays_in_the_tree() {
        let path = TreePath::decode("h/org/repo/dir/link").expect("a path");
        let to = |target: &str| pointed_at(&path, target.as_bytes()).map(|path| path.encoded());
        assert_eq!(to("../file").as_deref(), Some("h/org/repo/file"));
        assert_eq!(to("./a//b").as_deref(), Some("h/org/repo/dir/a/b"));
        assert_eq!(to("/etc/passwd"), None);
        assert_eq!(to("../../../../../../etc/passwd"), None);
    }

    #[test]
    fn a_long_file_is_cut_at_a_line_and_never_in_a_character() {
        assert_eq!(shown(b"a\nb\n", 4), ("a\nb\n".to_owned(), false));
        assert_eq!(shown(b"a\nbcd", 100), ("a\n".to_owned(), true));
        let many = "x\n".repeat(SHOWN_LINES_MAX + 5);
        let (text, cut) = shown(many.as_bytes(), many.len() as u64);
        assert_eq!((text.lines().count(), cut), (SHOWN_LINES_MAX, true));
        assert_eq!(shown("aä".as_bytes(), 100).0, "aä");
    }
}
