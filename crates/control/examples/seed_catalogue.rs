//! Writes a router's embedded state with many published repositories, for measuring catalogues
//! without their contents: the entries are real, but no node holds what they name, so below a
//! repository there is nothing to read.
//!
//! ```text
//! seed_catalogue --state-dir DIR --repositories N [--hosts H] [--organisations O]
//! ```
//!
//! The first host has nine tenths of the repositories, the others share the rest. Names and object
//! ids are a function of the numbers given. The sources are below `.example`, which cannot be
//! registered, so that a refresh reaches no host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use monofs_control::seed_catalogue;
use monofs_control::state::EmbeddedState;
use monofs_model::{
    Consistency, ContentMode, DisplayPath, Error, NodeId, ObjectFormat, ObjectKind, Oid, RefName,
    Repository, RepositoryState, Result, Snapshot, SourceUrl,
};

const USAGE: &str =
    "usage: seed_catalogue --state-dir DIR --repositories N [--hosts H] [--organisations O]";
const HOSTS: usize = 4;
const ORGANISATIONS: usize = 1000;
const NODES: [&str; 2] = ["seeded-1", "seeded-2"];

struct Options {
    state_dir: PathBuf,
    repositories: usize,
    hosts: usize,
    organisations: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let seeded = match options(std::env::args().skip(1)) {
        Ok(options) => seed(&options).await,
        Err(error) => Err(error),
    };
    match seeded {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut arguments = arguments.flat_map(|argument| match argument.split_once('=') {
        Some((name, value)) => vec![name.to_owned(), value.to_owned()],
        None => vec![argument],
    });
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| Error::invalid(format!("{name} has no value\n{USAGE}")))?;
        given.insert(name, value);
    }
    let state_dir = given
        .remove("--state-dir")
        .ok_or_else(|| Error::invalid(format!("no --state-dir\n{USAGE}")))?;
    let mut number = |name: &str, default: Option<usize>| match given.remove(name) {
        Some(text) => text
            .parse()
            .map_err(|_| Error::invalid(format!("{name}: '{text}' is not a number\n{USAGE}"))),
        None => default.ok_or_else(|| Error::invalid(format!("no {name}\n{USAGE}"))),
    };
    let options = Options {
        state_dir: state_dir.into(),
        repositories: number("--repositories", None)?,
        hosts: number("--hosts", Some(HOSTS))?.max(1),
        organisations: number("--organisations", Some(ORGANISATIONS))?.max(1),
    };
    match given.keys().next() {
        Some(name) => Err(Error::invalid(format!("unknown option {name}\n{USAGE}"))),
        None => Ok(options),
    }
}

async fn seed(options: &Options) -> Result<String> {
    let store = EmbeddedState::open(options.state_dir.clone()).await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    let mut paths = (0..options.repositories)
        .map(|number| path(number, options))
        .collect::<Result<Vec<_>>>()?;
    paths.sort_by(|a, b| a.components().cmp(b.components()));
    let holders = NODES
        .iter()
        .map(|id| NodeId::new(id))
        .collect::<Result<Vec<_>>>()?;
    let repositories = paths
        .into_iter()
        .map(|path| repository(path, &holders, now))
        .collect::<Result<Vec<_>>>()?
        .into_iter();
    let count = seed_catalogue(Arc::new(store), repositories).await?;
    Ok(format!(
        "{count} repositories written to {}",
        options.state_dir.display()
    ))
}

/// `forge.example/org-0042/project-00000042`.
fn path(number: usize, options: &Options) -> Result<DisplayPath> {
    let host = if options.hosts == 1 || number % 10 != 9 {
        0
    } else {
        1 + number / 10 % (options.hosts - 1)
    };
    let host = if host == 0 {
        "forge.example".to_owned()
    } else {
        format!("forge{host}.example")
    };
    // A prime step, so that organisations of every host have a like number of repositories.
    let organisation = number.wrapping_mul(7919) % options.organisations;
    DisplayPath::new(&format!("{host}/org-{organisation:04}/project-{number:08}"))
}

fn repository(path: DisplayPath, holders: &[NodeId], now: i64) -> Result<Repository> {
    let oid = |kind| Oid::of(ObjectFormat::Sha1, kind, path.as_str().as_bytes());
    let snapshot = Snapshot {
        commit: oid(ObjectKind::Commit),
        root: oid(ObjectKind::Tree),
        commit_time: now,
        trees: 40,
        blobs: 400,
        bytes: 4 << 20,
        submodules: Vec::new(),
        generations: None,
    };
    Ok(Repository {
        source: SourceUrl::new(&format!("https://{path}.git"))?,
        ref_name: RefName::new("main")?,
        path,
        state: RepositoryState::Ready,
        snapshot: Some(snapshot),
        generation: 1,
        generation_time: None,
        root_time: None,
        holders: holders.to_vec(),
        content: ContentMode::Eager,
        consistency: Consistency::Eventual,
        created_at: now,
        refreshed_at: now,
        last_error: String::new(),
        shadowed_by: None,
    })
}
