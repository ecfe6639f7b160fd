//! Wider readahead: the kernel offers FUSE 128 KiB; with 1 MiB a sequential read is one request per
//! chunk.

use std::path::Path;

use monofs_model::limits::CHUNK_BYTES;

/// Sets the readahead of the mount's device to one chunk. Only root may; without it, reads are
/// smaller, no more.
pub fn widen(mount: &Path) {
    let Ok(stat) = rustix::fs::stat(mount) else {
        return;
    };
    let major = rustix::fs::major(stat.st_dev);
    let minor = rustix::fs::minor(stat.st_dev);
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, format!("{}", CHUNK_BYTES >> 10)) {
        tracing::debug!(path, %error, "readahead stays as the kernel set it");
    }
}
