//! Every bound that more than one role relies on, by name.

/// Contents are stored, sent and cached in chunks of this many raw bytes; only the last chunk of a
/// blob is shorter.
pub const CHUNK_BYTES: usize = 1 << 20;
/// A blob above this size is streamed by the fetcher instead of being held whole in its memory.
pub const STREAM_BLOB_BYTES: u64 = 16 << 20;
/// Longest name of a directory entry in bytes (Linux `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symlink target in bytes (Linux `PATH_MAX` less the final NUL).
pub const SYMLINK_BYTES_MAX: u64 = 4095;
/// Most entries in one directory.
pub const TREE_ENTRIES_MAX: usize = 1_000_000;
/// Largest Git tree object accepted, in bytes.
pub const TREE_BYTES_MAX: usize = 64 << 20;
/// Deepest nesting of directories in a snapshot.
pub const TREE_DEPTH_MAX: usize = 4096;
/// Most directories in a snapshot.
pub const TREES_PER_SNAPSHOT_MAX: u64 = 20_000_000;
/// Longest display path in bytes, and the most components it may have.
pub const DISPLAY_PATH_BYTES_MAX: usize = 1024;
/// Most components of a display path.
pub const DISPLAY_PATH_COMPONENTS_MAX: usize = 32;
/// Longest source URL in bytes.
pub const SOURCE_BYTES_MAX: usize = 2048;
/// Longest reference name in bytes.
pub const REF_BYTES_MAX: usize = 512;
/// Most submodules whose URL a snapshot remembers.
pub const SUBMODULES_MAX: usize = 10_000;
/// Largest gRPC message that any role accepts, in bytes: one directory of [`TREE_ENTRIES_MAX`]
/// entries fits.
pub const MESSAGE_BYTES_MAX: usize = 160 << 20;
/// Most oids or spans in one content request.
pub const CONTENT_REQUEST_ITEMS_MAX: usize = 65_536;
/// Default byte budget of a directory closure (a `GetTrees` answer).
pub const TREE_CLOSURE_BYTES: u64 = 16 << 20;
