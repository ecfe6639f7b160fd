//! Where a test runs: with directories of its own for temporary files, data and run files, so that
//! nothing that runs beside it is seen or touched.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use monofs_testkit::process::binary;
use monofs_testkit::{Process, Repo};

/// Within this a cluster has started and ingested a few small repositories, or ended.
pub const SOON: Duration = Duration::from_secs(60);
/// The last line of a run that serves.
pub const LAST_LINE: &str = "page: http://";

/// Directories of a test.
pub struct Room {
    dir: tempfile::TempDir,
}

/// How a command ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Room {
    pub fn new() -> Self {
        let room = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        for name in ["run", "tmp", "home"] {
            std::fs::create_dir(room.path(name)).expect("make a directory");
        }
        room
    }

    /// A path of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What makes a process stay in the room.
    pub fn variables(&self) -> Vec<(OsString, OsString)> {
        [
            ("XDG_RUNTIME_DIR", "run"),
            ("TMPDIR", "tmp"),
            ("XDG_DATA_HOME", "home"),
        ]
        .map(|(name, directory)| (name.into(), self.path(directory).into()))
        .to_vec()
    }

    /// `monofs up` with free ports and one node, which goes on.
    #[track_caller]
    pub fn up<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Process {
        let fixed = ["up", "--nodes=1"].map(OsString::from);
        let args = fixed.into_iter().chain(args.into_iter().map(Into::into));
        let process = Process::spawn_with(binary("monofs"), args, self.variables());
        process.mounting_at(&self.path("mount"))
    }

    /// `monofs up --temporary`, mounted at `mount` of the room, which serves these.
    #[track_caller]
    pub fn serving(&self, repos: &[&Repo]) -> Process {
        let mut args = vec!["--temporary".to_owned(), self.mount_flag()];
        args.extend(repos.iter().map(|repo| repo_flag(repo)));
        let mut process = self.up(args);
        process.wait_line(LAST_LINE, SOON);
        process
    }

    pub fn mount_flag(&self) -> String {
        format!("--mount={}", self.path("mount").display())
    }

    /// Runs `monofs` to its end.
    #[track_caller]
    pub fn run<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        ended(
            Command::new(binary("monofs"))
                .args(args)
                .envs(self.variables()),
        )
    }

    /// Names of what is in a directory of the room.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(directory)) else {
            return Vec::new();
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// Checks that nothing of any run is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert!(!is_mounted(&self.path("mount")), "a mount is left");
        assert_eq!(self.names("tmp"), Vec::<String>::new());
        assert_eq!(self.names("run"), Vec::<String>::new());
    }
}

/// Runs a command to its end, without the settings of the test's own environment.
#[track_caller]
pub fn ended(command: &mut Command) -> Ended {
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MONOFS_"))
    {
        command.env_remove(name);
    }
    let output = command
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("start the command");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A repository of one file.
pub fn demo() -> Repo {
    let repo = Repo::new();
    repo.commit(|changes| {
        changes.file("README.md", "hello\n");
    });
    repo
}

/// The flag that names a repository.
pub fn repo_flag(repo: &Repo) -> String {
    format!("--repo={}", repo.path().display())
}

/// Whether anything is mounted at a path, dead or alive.
pub fn is_mounted(at: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    let at = at.to_str().expect("a path of UTF-8");
    table.lines().any(|line| line.split(' ').nth(4) == Some(at))
}
