//! Where a run mounts, or why it does not.

use std::io;
use std::path::{Path, PathBuf};

use monofs_client::mount::point;
use monofs_launch::exit::{Code, Failure};

use crate::say::shell_path;

/// Where the kernel takes mounts.
const FUSE_DEVICE: &str = "/dev/fuse";

/// Where to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MountPlace {
    /// The user named it: that it cannot be had ends the run.
    Asked(PathBuf),
    /// Below the temporary directory; the run goes on without it.
    Temporary(PathBuf),
    None(NoMount),
}

/// Why nothing is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoMount {
    /// `--no-mount`.
    Asked,
    /// There is no `--mount`.
    NoPlace,
    /// This machine, or this container, has no FUSE.
    NoDevice,
    /// It was tried.
    Failed(String),
}

impl NoMount {
    /// One sentence that says so, and what to do about it.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Asked => "nothing is mounted (--no-mount)".to_owned(),
            Self::NoPlace => {
                "nothing is mounted; to see files, end it and add --mount DIRECTORY".to_owned()
            }
            Self::NoDevice => format!(
                "nothing is mounted: {FUSE_DEVICE} is not here (modprobe fuse; in a container, \
                 --device {FUSE_DEVICE} --cap-add SYS_ADMIN)"
            ),
            Self::Failed(why) => format!("nothing is mounted: {why}"),
        }
    }
}

impl MountPlace {
    /// Checks what the user asked for, and makes nothing: `asked` is what `--mount` says, the data
    /// are in `directory` unless they are temporary. Errors: the directory cannot be mounted on.
    pub(super) fn checked(asked: &Path, directory: Option<&Path>) -> anyhow::Result<Self> {
        if asked.starts_with("~") {
            let home = "the shell expands ~ only at the start of a word: write --mount ~/... (with \
                        a blank, not =) or $HOME/...";
            let message = format!("mount point {}: '~' was not expanded", asked.display());
            return Err(Failure::new(Code::Usage, message).hint(home).into());
        }
        let place = std::path::absolute(asked)?;
        if let Some(directory) = directory {
            check_apart(&place, directory)?;
        }
        if !Path::new(FUSE_DEVICE).exists() {
            return Ok(Self::None(NoMount::NoDevice));
        }
        if !is_missing(&place) {
            point::prepare(&place)?;
        }
        Ok(Self::Asked(place))
    }

    /// The place of a run that has all it makes in a temporary directory.
    pub(super) fn temporary(directory: &Path) -> Self {
        match Path::new(FUSE_DEVICE).exists() {
            true => Self::Temporary(directory.join("mount")),
            false => Self::None(NoMount::NoDevice),
        }
    }

    /// The directory, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Asked(path) | Self::Temporary(path) => Some(path),
            Self::None(_) => None,
        }
    }

    /// How to look at what is shown at `path` of the tree, if anything is; `router` is its address.
    pub(super) fn how_to_look(&self, path: Option<&str>, router: &str) -> String {
        match (self, path) {
            (Self::None(why), Some(path)) => {
                format!("{}: monofs-admin ls {path} --router {router}", why.words())
            }
            (Self::None(why), None) => why.words(),
            (Self::Asked(mount) | Self::Temporary(mount), path) => {
                let at = path.map_or_else(|| mount.clone(), |path| mount.join(path));
                format!("mounted: ls {}", shell_path(&at))
            }
        }
    }
}

/// A mount over the data would hide them, and data in the mount could not be written.
fn check_apart(mount: &Path, directory: &Path) -> Result<(), Failure> {
    if !mount.starts_with(directory) && !directory.starts_with(mount) {
        return Ok(());
    }
    let message = format!(
        "mount point {} and the data in {} are in each other's way",
        mount.display(),
        directory.display()
    );
    let hint = "give two directories, neither of which is in the other";
    Err(Failure::new(Code::Usage, message).hint(hint))
}

/// Whether there is nothing at this path: not even a dead mount.
pub(super) fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_in_the_way_of_the_data_is_refused() {
        for (mount, data) in [("/a/b", "/a"), ("/a", "/a/b"), ("/a", "/a")] {
            let error = MountPlace::checked(Path::new(mount), Some(Path::new(data))).unwrap_err();
            assert!(error.to_string().contains("in each other's way"), "{error}");
        }
        let error = MountPlace::checked(Path::new("~/m"), None).unwrap_err();
        assert!(error.to_string().contains("not expanded"), "{error}");
    }

    #[test]
    fn a_run_without_a_mount_says_so_and_how_to_have_one() {
        for (why, words) in [
            (NoMount::NoPlace, "add --mount DIRECTORY"),
            (NoMount::NoDevice, "--device /dev/fuse --cap-add SYS_ADMIN"),
            (NoMount::Asked, "--no-mount"),
            (NoMount::Failed("it is busy".to_owned()), "it is busy"),
        ] {
            let line = MountPlace::None(why).how_to_look(Some("local/x"), "localhost:1");
            assert!(line.starts_with("nothing is mounted"), "{line}");
            assert!(line.contains(words), "{line}");
            assert!(
                line.ends_with("monofs-admin ls local/x --router localhost:1"),
                "{line}"
            );
        }
    }
}
