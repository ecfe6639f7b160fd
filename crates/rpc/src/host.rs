//! What a server calls the machine that it runs on.

/// This host's name; empty where it has none.
///
/// From the system call, since a hardened unit (`ProcSubset=pid`) has no `/proc/sys`.
pub fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .trim()
        .to_owned()
}
