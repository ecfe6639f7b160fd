//! The two files of an environment before LMDB maps them: the lock file gets its blocks, the data
//! file is proved whole, and the first map is sized.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use monofs_model::{Error, Result};

use super::options::{DATA_FILE, EnvOptions, MAP_BYTES_MAX};
use crate::fault::{damaged, io_error};
use crate::structure::{MetaPage, ProofDepth, ProofError, prove};

const LOCK_FILE: &str = "lock.mdb";
/// LMDB's lock file for [`super::options::READERS_MAX`] readers: a head and a cache line each.
const LOCK_FILE_BYTES: u64 = 512 * 64;
/// Up to this many branch and leaf pages (a few hundred thousand objects, some milliseconds) are
/// walked at every open.
const PROVE_PAGES_AT_OPEN: u64 = 16_384;

/// LMDB writes its lock file through a map, page by page as readers come; on a full disk the first
/// write to a page that has no block yet would kill the process (SIGBUS). So all blocks are taken
/// beforehand.
///
/// Gives the number of a descriptor that was free just now: those of the environment come after it.
pub(super) fn allocate_lock_file(dir: &Path) -> Result<RawFd> {
    let path = dir.join(LOCK_FILE);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = opened.map_err(|e| io_error(&path, "open", &e))?;
    match rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        LOCK_FILE_BYTES,
    ) {
        // Where blocks cannot be taken beforehand there is nothing to do.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(file.as_raw_fd()),
        Err(e) => Err(io_error(&path, "allocate", &e.into())),
    }
}

/// The size of the map that an environment starts with: room to grow, within the bounds of the
/// options, and never less than the file.
pub(super) fn first_map_bytes(file_bytes: u64, options: &EnvOptions) -> usize {
    let wanted = file_bytes
        .saturating_mul(4)
        .checked_next_power_of_two()
        .unwrap_or(MAP_BYTES_MAX);
    let bounded = wanted
        .max(options.map_bytes_min)
        .min(options.map_bytes_max)
        .max(file_bytes);
    bounded.next_multiple_of(page_bytes()) as usize
}

/// The size of a page of this machine, in bytes.
pub(crate) fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Walks a data file that is about to be mapped: wholly if that is quick or if the file is shorter
/// than it should be. LMDB leaves free pages at the end unwritten, so only pages in use decide.
pub(super) fn prove_file(dir: &Path) -> Result<()> {
    let path = dir.join(DATA_FILE);
    let failed = |e: io::Error| io_error(&path, "read", &e);
    let file = File::open(&path).map_err(failed)?;
    let have = file.metadata().map_err(failed)?.len();
    // A file that is too short is walked however large it is: the missing pages may be in use.
    let mut needed = 0;
    let proved = MetaPage::read(&file, None).and_then(|meta| {
        let meta = meta.expect("no transaction was asked for");
        needed = meta.needed_bytes();
        let depth = ProofDepth::Index {
            pages_max: if have < needed {
                u64::MAX
            } else {
                PROVE_PAGES_AT_OPEN
            },
        };
        prove(&file, &meta, depth)
    });
    match proved {
        Ok(_) => Ok(()),
        Err(ProofError::Io(e)) => Err(failed(e)),
        Err(ProofError::Damage(_)) if have < needed => Err(Error::corrupt(damaged(
            dir,
            &format!("it was cut off: {have} bytes are left of {needed}"),
        ))),
        Err(ProofError::Damage(found)) => Err(Error::corrupt(damaged(dir, &found.to_string()))),
    }
}
