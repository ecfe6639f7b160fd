//! How environments are opened, what bounds them, and how full they are.

/// Smallest map: address space, not memory or disk.
pub const MAP_BYTES_MIN: u64 = 64 << 20;
/// The map never grows beyond this.
pub const MAP_BYTES_MAX: u64 = 1 << 40;
/// Read transactions at the same time in one environment.
pub const READERS_MAX: u32 = 510;
/// LMDB's data file in an environment's directory.
pub(crate) const DATA_FILE: &str = "data.mdb";

/// When a commit is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it returns (fsync).
    #[default]
    Commit,
    /// When the operating system gets to it: survives the death of the process, not that of the
    /// machine.
    System,
}

/// What opening does where there is no database yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// Makes an empty one.
    Create,
    /// Says `NotFound`.
    Fail,
}

/// How environments are opened. The default is right for nodes and routers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvOptions {
    /// The map is at least this large, in bytes.
    pub map_bytes_min: u64,
    /// The map never grows beyond this; reaching it is [`monofs_model::ErrorKind::Full`].
    pub map_bytes_max: u64,
    pub durability: Durability,
}

impl Default for EnvOptions {
    fn default() -> Self {
        Self {
            map_bytes_min: MAP_BYTES_MIN,
            map_bytes_max: MAP_BYTES_MAX,
            durability: Durability::Commit,
        }
    }
}

/// How full environments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EnvUsage {
    /// Address space that is mapped.
    pub map_bytes: u64,
    /// Bytes of pages in use, with those that wait to be used again.
    pub used_bytes: u64,
    /// Places for read transactions that were taken at the same time, at most.
    pub readers: u64,
}
