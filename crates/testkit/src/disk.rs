//! Small disks that can be filled: a tmpfs of a given size.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The file that takes the space.
const FILLER: &str = "filler";
/// Bytes written at once.
const PIECE_BYTES: usize = 1 << 16;

/// A small file system. Unmounted when dropped, even while something still uses it.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty one of `bytes` at `at`, which is created. Needs root.
    #[track_caller]
    pub fn mount(at: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(at)
            .unwrap_or_else(|error| panic!("create {}: {error}", at.display()));
        let options =
            std::ffi::CString::new(format!("size={bytes}")).expect("a number has no zero byte");
        mount(
            "tmpfs",
            at,
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap_or_else(|error| panic!("mount a tmpfs at {} (needs root): {error}", at.display()));
        Self { at: at.to_owned() }
    }

    /// Takes all the space that is left.
    #[track_caller]
    pub fn fill(&self) {
        use std::io::Write;
        let path = self.at.join(FILLER);
        let open = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path);
        let mut file = open.unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        loop {
            match file.write(&[0; PIECE_BYTES]) {
                Ok(1..) => {}
                Ok(0) => return,
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) =>
                {
                    return;
                }
                Err(error) => panic!("fill {}: {error}", path.display()),
            }
        }
    }

    /// Bytes in use.
    #[track_caller]
    pub fn used_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at)
            .unwrap_or_else(|error| panic!("stat {}: {error}", self.at.display()));
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// Gives the space back.
    pub fn free(&self) {
        // It may not have been filled.
        let _ = std::fs::remove_file(self.at.join(FILLER));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at, UnmountFlags::DETACH) {
            eprintln!("the tmpfs at {} is left behind: {error}", self.at.display());
        }
    }
}
