//! Run files: what each `monofs up` of this user has, so that another process can show it, end it,
//! and clear away what it left if it died.
//!
//! Invariants: a file is written as a whole or not at all; it is there before what it names is made
//! and goes after that is undone; its process is known by id, time of start and namespace, so a
//! later process with the same id is never taken for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::runtime;

/// The layout of run files; those of another layout are left alone.
const VERSION: u32 = 1;
/// Ends of the names of run files.
const SUFFIX: &str = ".run";
/// Run files that are looked at.
const RUNS_MAX: usize = 1024;

/// A process, told apart from every other that this machine runs or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the start of the machine.
    start_ticks: u64,
    /// The start of the machine.
    boot: String,
    /// Where its id counts.
    namespace: String,
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    Runs,
    Dead,
    /// It is or was in a container of its own.
    Unknown,
}

impl ProcessIdentity {
    /// This process.
    fn own() -> io::Result<Self> {
        let pid = std::process::id();
        let start_ticks = start_ticks(pid)
            .ok_or_else(|| io::Error::other("/proc does not tell when this process started"))?;
        Ok(Self {
            pid,
            start_ticks,
            boot: boot()?,
            namespace: namespace()?,
        })
    }

    /// Whether it runs now.
    pub(crate) fn liveness(&self) -> Liveness {
        match (boot(), namespace()) {
            (Ok(boot), _) if boot != self.boot => Liveness::Dead,
            (Ok(_), Ok(namespace)) if namespace == self.namespace => {
                match start_ticks(self.pid) == Some(self.start_ticks) {
                    true => Liveness::Runs,
                    false => Liveness::Dead,
                }
            }
            _ => Liveness::Unknown,
        }
    }
}

/// What a run has. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    version: u32,
    pub(crate) process: ProcessIdentity,
    /// Seconds since 1970.
    started_at: u64,
    /// Where its data are.
    pub(crate) directory: PathBuf,
    /// What goes away with the run: that directory, or one above it.
    pub(crate) temporary: Option<PathBuf>,
    pub(crate) mount: Option<PathBuf>,
    /// The mount point was made by the run, which removes it.
    pub(crate) made_mount_point: bool,
    /// `host:port`; empty until they listen.
    pub(crate) router: String,
    pub(crate) http: String,
}

impl RunRecord {
    /// The record of this process, which has nothing but a directory yet. Errors: `/proc` does not
    /// tell about processes.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            version: VERSION,
            process: ProcessIdentity::own()?,
            started_at: unix_seconds(),
            directory: directory.to_owned(),
            temporary: None,
            mount: None,
            made_mount_point: false,
            router: String::new(),
            http: String::new(),
        })
    }

    /// How long it has run.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_secs(unix_seconds().saturating_sub(self.started_at))
    }
}

/// The file of this run; dropping it leaves the file, as a killed process does.
#[derive(Debug)]
pub(crate) struct RunFile {
    at: PathBuf,
    pub(crate) record: RunRecord,
}

impl RunFile {
    /// Writes the file of this run. Errors: no private directory can be had for it.
    pub(crate) fn create(record: RunRecord) -> io::Result<Self> {
        let directory = runtime::path();
        let at = directory.join(format!("{}{SUFFIX}", record.process.pid));
        let file = Self { at, record };
        // A run that ends takes the directory away when it is empty, perhaps just now.
        for _ in 0..3 {
            runtime::make(&directory)?;
            match file.write() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                written => return written.map(|()| file),
            }
        }
        file.write().map(|()| file)
    }

    /// Writes what has changed.
    pub(crate) fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.record)?;
        let unfinished = self.at.with_extension("new");
        std::fs::write(&unfinished, text)?;
        std::fs::rename(&unfinished, &self.at)
    }

    /// Takes the file away.
    pub(crate) fn remove(self) {
        remove(&self.at);
    }
}

/// A run file that was found, and whether its process runs.
#[derive(Debug)]
pub(crate) struct FoundRun {
    pub(crate) at: PathBuf,
    pub(crate) record: RunRecord,
    pub(crate) liveness: Liveness,
}

/// The run files of this user, in the order of their ids. Files that cannot be read or are of
/// another version are passed over. Errors: the directory is not this user's own.
pub(crate) fn all() -> io::Result<Vec<FoundRun>> {
    let directory = runtime::path();
    if !directory.try_exists()? {
        return Ok(Vec::new());
    }

    // Another user could have filled a directory that is not ours, and its records name processes.
    runtime::check(&directory)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory)?.flatten().take(RUNS_MAX) {
        let at = entry.path();
        let is_run = at.to_str().is_some_and(|name| name.ends_with(SUFFIX));
        let record = std::fs::read(&at)
            .ok()
            .filter(|_| is_run)
            .and_then(|text| serde_json::from_slice::<RunRecord>(&text).ok())
            .filter(|record| record.version == VERSION);
        if let Some(record) = record {
            let liveness = record.process.liveness();
            found.push(FoundRun {
                at,
                record,
                liveness,
            });
        }
    }

    // The directory lists its files in no order.
    found.sort_by_key(|run| run.record.process.pid);
    Ok(found)
}

/// Those of [`all`] that run now; none if they cannot be known.
pub(crate) fn running() -> Vec<RunRecord> {
    let found = all().unwrap_or_default();
    found
        .into_iter()
        .filter(|run| run.liveness == Liveness::Runs)
        .map(|run| run.record)
        .collect()
}

/// Takes a run file away, and its directory if it was the last.
pub(crate) fn remove(at: &Path) {
    // Another run may have cleared it away, and others may be there.
    let _ = std::fs::remove_file(at);
    if let Some(directory) = at.parent() {
        let _ = std::fs::remove_dir(directory);
    }
}

/// When a process started; `None` if it does not run (any more). Its fields are behind the name of
/// the program, which is in parentheses and may hold any letters: the state first, the start as the
/// 20th. Source: proc(5), `/proc/PID/stat`.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // One that has ended and waits for its parent holds nothing.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

fn namespace() -> io::Result<String> {
    let link = std::fs::read_link("/proc/self/ns/pid")?;
    Ok(link.to_string_lossy().into_owned())
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_taken_for_an_earlier_one_with_its_id() {
        let own = ProcessIdentity::own().unwrap();
        assert_eq!(own.liveness(), Liveness::Runs);
        let earlier = ProcessIdentity {
            start_ticks: own.start_ticks - 1,
            ..own.clone()
        };
        assert_eq!(earlier.liveness(), Liveness::Dead);
        let before_boot = ProcessIdentity {
            boot: "another".to_owned(),
            ..own.clone()
        };
        assert_eq!(before_boot.liveness(), Liveness::Dead);
        let in_a_container = ProcessIdentity {
            namespace: "pid:[1]".to_owned(),
            ..own
        };
        assert_eq!(in_a_container.liveness(), Liveness::Unknown);
    }

    #[test]
    fn a_process_that_ended_but_was_not_waited_for_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        // Its end is told by the state in /proc, since nothing waits for it yet.
        while start_ticks(pid).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
