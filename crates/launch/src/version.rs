//! Which build this is: the package's version and the commit it was built from.

/// The version of the workspace, such as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this was built from, shortened; `unknown` when built without git and without
/// `MONOFS_COMMIT`.
pub const COMMIT: &str = env!("MONOFS_BUILD_COMMIT");

/// Version and commit as `--version` shows them.
pub const LONG: &str = if cfg!(debug_assertions) {
    concat!(
        env!("CARGO_PKG_VERSION"),
        " (",
        env!("MONOFS_BUILD_COMMIT"),
        ", debug)"
    )
} else {
    concat!(
        env!("CARGO_PKG_VERSION"),
        " (",
        env!("MONOFS_BUILD_COMMIT"),
        ")"
    )
};

/// The day of that commit, such as `2026-11-27`; empty when built without git.
pub const DATE: &str = env!("MONOFS_BUILD_DATE");
