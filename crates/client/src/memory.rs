//! Keeps the resident memory honest: pages of the cache's memory map that were read once stay
//! counted as ours although they are page cache. Letting go of the mapping's page table entries
//! costs a minor fault when a page is read again, no IO.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use monofs_content::spawner::Spawner;

/// Mapped file pages that may be resident before they are let go.
const MAPPED_BYTES_MAX: u64 = 32 << 20;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks after the mappings of the files below `dir` until the mount ends.
pub(crate) fn look_after(dir: &Path, spawner: &Spawner) {
    // The kernel names mappings by full paths.
    let dir: PathBuf = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    spawner.spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if mapped_bytes() > MAPPED_BYTES_MAX {
                let dir = dir.clone();
                let _ = tokio::task::spawn_blocking(move || let_go(&dir)).await;
            }
        }
    });
}

/// Resident pages of mapped files, in bytes; the third field of `/proc/self/statm` (see
/// `proc_pid_statm(5)`).
fn mapped_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(2)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Drops the page table entries of every read-only shared mapping of a file below `dir`.
fn let_go(dir: &Path) {
    let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
    for (start, len) in mappings(&maps, dir) {
        // SAFETY: the range is a mapping of this process, taken from the kernel's own list: shared,
        // of a file, not writable. For such a mapping MADV_DONTNEED changes no content: the next
        // access maps the same page of the file again. Should the range have been unmapped or
        // replaced since the list was read, it could only have been by the cache opening another
        // generation, whose maps are of the same kind.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}

/// Start and length of the read-only shared mappings of files below `dir`, from the text of
/// `/proc/self/maps`.
fn mappings(maps: &[u8], dir: &Path) -> Vec<(usize, usize)> {
    maps.split(|&byte| byte == b'\n')
        .filter_map(|line| mapping(line, dir))
        .collect()
}

/// One line: `start-end permissions offset device inode path`, see `proc_pid_maps(5)`.
fn mapping(line: &[u8], dir: &Path) -> Option<(usize, usize)> {
    let at = line.iter().position(|&byte| byte == b'/')?;
    let (fields, path) = line.split_at(at);
    let below = path.strip_prefix(dir.as_os_str().as_bytes())?;
    if !below.starts_with(b"/") {
        return None;
    }
    let fields = std::str::from_utf8(fields).ok()?;
    let (range, rest) = fields.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    rest.starts_with("r--s").then_some((start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_read_only_shared_maps_of_the_cache_are_let_go() {
        let maps = b"7f00-8f00 r--s 00000000 08:01 12 /var/cache dir/gen-1/data.mdb\n\
            a000-b000 rw-s 00000000 08:01 13 /var/cache dir/gen-1/lock.mdb\n\
            c000-d000 r--p 00000000 08:01 14 /usr/lib/libc.so\n\
            e000-f000 r--s 00000000 08:01 15 /var/cache directory/x\n\
            f000-f100 rw-p 00000000 00:00 0 [heap]\n";
        assert_eq!(
            mappings(maps, Path::new("/var/cache dir")),
            [(0x7f00, 0x1000)]
        );
    }
}
