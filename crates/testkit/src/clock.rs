//! A wall clock that jumps under a running process: Debian's libfaketime, told through a file.
//!
//! Only the wall clock jumps; the monotonic one goes on, as when an operator or NTP sets the clock
//! of a machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where Debian keeps the library, below the directory of the machine's architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// How long a process may go on with the offset that it last read, in seconds.
const REREAD_SECONDS: u32 = 1;

/// The wall clock of one process.
pub struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// A right clock, kept in a file of `dir`.
    #[track_caller]
    pub fn new(dir: &Path, name: &str) -> Self {
        let clock = Self {
            file: dir.join(format!("{name}.clock")),
        };
        clock.jump(0);
        clock
    }

    /// The variables with which a process uses this clock.
    #[track_caller]
    pub fn envs(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), library().into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.clone().into()),
            (
                "FAKETIME_CACHE_DURATION".into(),
                REREAD_SECONDS.to_string().into(),
            ),
            ("DONT_FAKE_MONOTONIC".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
            ("NO_FAKE_STAT".into(), "1".into()),
        ]
    }

    /// From now on (within a second) the clock shows the right time plus `seconds`.
    #[track_caller]
    pub fn jump(&self, seconds: i64) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n"))
            .and_then(|()| std::fs::rename(&next, &self.file))
            .unwrap_or_else(|error| panic!("set the clock in {}: {error}", self.file.display()));
    }
}

#[track_caller]
fn library() -> PathBuf {
    let roots = ["/usr/lib", "/usr/local/lib"].map(Path::new);
    let dirs = roots
        .iter()
        .filter_map(|root| std::fs::read_dir(root).ok())
        .flatten()
        .flatten();
    let found = dirs
        .map(|dir| dir.path().join(LIBRARY))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("this test needs libfaketime: install it with `apt-get install -y faketime`")
    })
}
