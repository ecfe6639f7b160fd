//! The session with the kernel: its options, its threads, and what goes wrong when it starts.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use monofs_content::spawner::blocking;
use monofs_model::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::context::MountContext;
use crate::config::Config;
use crate::fill::Filler;
use crate::fuse::{Adapter, SessionNotifier};
use crate::invalidate::Invalidator;

/// Where the kernel takes mounts.
const FUSE_DEVICE: &str = "/dev/fuse";

/// A mount that the kernel has.
pub(super) struct Session {
    pub thread: JoinHandle<std::io::Result<()>>,
    pub unmounter: fuser::SessionUnmounter,
    /// Cancelled once the kernel has let go of the mount.
    pub ended: CancellationToken,
}

/// Has the kernel mount, and starts to answer it and to tell it of changes.
pub(super) async fn start(
    config: &Config,
    mount: &Path,
    context: &Arc<MountContext>,
    invalidator: &OnceLock<Invalidator>,
) -> Result<Session> {
    let options = session_options(config);
    let adapter = Adapter(context.clone());
    let at = mount.to_owned();
    let session = blocking(move || fuser::Session::new(adapter, &at, &options)).await?;
    let mut session = session.map_err(|e| mount_error(mount, &e))?;

    // Before any request is answered: from then on the kernel knows names.
    let device = session.as_fd().try_clone_to_owned();
    let device = device.map_err(|e| Error::internal(format!("duplicate the FUSE device: {e}")))?;
    let kernel = SessionNotifier::new(session.notifier(), device);
    // Both are set here only.
    let _ = invalidator.set(Invalidator::start(kernel, context.counters.clone())?);
    if config.prefetch {
        let filler = Filler::start(session.notifier(), &context.fs, &context.counters)?;
        let _ = context.filler.set(filler);
    }

    let unmounter = session.unmount_callable();
    let ended = CancellationToken::new();
    let end = ended.clone();
    let thread = std::thread::Builder::new()
        .name("monofs-fuse".into())
        .spawn(move || {
            let result = session.run();
            end.cancel();
            result
        })
        .map_err(|e| Error::internal(format!("start the FUSE threads: {e}")))?;
    Ok(Session {
        thread,
        unmounter,
        ended,
    })
}

fn session_options(config: &Config) -> fuser::Config {
    use fuser::MountOption;
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::FSName("monofs".into()),
        MountOption::Subtype("monofs".into()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::DefaultPermissions,
    ];
    // Who may look into it: the kernel asks nothing about others.
    let for_all_users = config
        .allow_other
        .unwrap_or_else(|| rustix::process::geteuid().is_root());
    options.acl = if for_all_users {
        fuser::SessionACL::All
    } else {
        fuser::SessionACL::Owner
    };
    options.n_threads = Some(config.threads());
    options.clone_fd = true;
    options
}

fn mount_error(mount: &Path, error: &std::io::Error) -> Error {
    let at = mount.display();
    match error.kind() {
        // Users other than root mount through a helper, which may be what is missing.
        std::io::ErrorKind::NotFound if Path::new(FUSE_DEVICE).exists() => Error::refused(format!(
            "mount at {at}: fusermount3 is missing; install the package fuse3"
        )),
        std::io::ErrorKind::NotFound => Error::refused(format!(
            "mount at {at}: {FUSE_DEVICE} is missing; load the kernel module (modprobe fuse)"
        )),
        std::io::ErrorKind::PermissionDenied => Error::refused(format!(
            "mount at {at}: {error}; {FUSE_DEVICE} must be accessible, and for --allow-other \
             /etc/fuse.conf must say user_allow_other; in a container, give it --device \
             {FUSE_DEVICE} --cap-add SYS_ADMIN"
        )),
        _ => Error::refused(format!("mount at {at}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use monofs_model::ErrorKind;

    use super::*;

    #[test]
    fn a_mount_that_the_kernel_refuses_says_what_to_do() {
        let mount = Path::new("/mnt/monofs");
        let missing = match Path::new(FUSE_DEVICE).exists() {
            true => "package fuse3",
            false => "modprobe fuse",
        };
        for (code, hint) in [
            (libc::ENOENT, missing),
            (libc::EACCES, "user_allow_other"),
            (libc::EINVAL, "/mnt/monofs"),
        ] {
            let error = mount_error(mount, &io::Error::from_raw_os_error(code));
            assert_eq!(error.kind, ErrorKind::Refused);
            assert!(error.message.contains(hint), "{error}");
        }
    }
}
