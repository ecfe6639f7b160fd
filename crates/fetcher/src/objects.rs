//! Reading the objects of a cached repository: headers, trees, commits and blobs, each checked
//! against its id.
//!
//! An [`ObjectReader`] is for one thread; the pack files behind it are shared.

use std::path::Path;
use std::sync::Arc;

use gix::objs::{Find, Kind};
use gix::odb::{Header, Store, pack};
use monofs_model::{Error, ObjectFormat, ObjectKind, Oid, Result};

use crate::git::ids::{hash_kind, to_gix};

/// Bytes of bases that one thread keeps to resolve deltas.
const DELTA_BASE_BYTES_MAX: usize = 24 << 20;
/// Largest object that is read whole, in bytes; longer blobs are streamed.
const OBJECT_BYTES_MAX: usize = 96 << 20;

/// The pack files of one repository, shared by threads.
#[derive(Clone)]
pub struct PackFiles {
    store: Arc<Store>,
    format: ObjectFormat,
}

impl PackFiles {
    /// Opens the bare repository at `directory`.
    pub fn open(directory: &Path, format: ObjectFormat) -> Result<Self> {
        let options = gix::odb::store::init::Options {
            alloc_limit_bytes: Some(OBJECT_BYTES_MAX),
            ..gix::odb::store::init::Options::default()
        };
        let none = &mut std::iter::empty();
        let store = Store::at_opts(directory.join("objects"), hash_kind(format), none, options)
            .map_err(|e| {
                Error::corrupt(format!(
                    "cannot open the cached repository {}: {e}",
                    directory.display()
                ))
            })?;
        Ok(Self {
            store: Arc::new(store),
            format,
        })
    }

    /// A reader for the calling thread.
    pub fn reader(&self) -> ObjectReader {
        let mut handle = self.store.to_cache_arc();
        handle.set_pack_cache(|| {
            Box::new(pack::cache::lru::MemoryCappedHashmap::new(
                DELTA_BASE_BYTES_MAX,
            ))
        });
        ObjectReader {
            handle,
            format: self.format,
        }
    }
}

/// The objects of one repository, as one thread reads them.
pub struct ObjectReader {
    handle: gix::odb::HandleArc,
    format: ObjectFormat,
}

impl ObjectReader {
    /// The hash that names the objects.
    pub fn format(&self) -> ObjectFormat {
        self.format
    }

    /// Kind and size without reading the object. `None` when it is not here. Errors: `Corrupt`.
    pub fn header(&self, oid: &Oid) -> Result<Option<(ObjectKind, u64)>> {
        if oid.format() != self.format {
            return Ok(None);
        }
        let header =
            Header::try_header(&self.handle, &to_gix(oid)).map_err(|e| unreadable(oid, &e))?;
        Ok(header.map(|h| (kind(h.kind()), h.size())))
    }

    /// Reads an object into `buffer`, which then holds exactly its bytes. `None` when it is not
    /// here. Errors: `Corrupt` when the bytes cannot be read or do not hash to `oid`.
    pub fn read(&self, oid: &Oid, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>> {
        if oid.format() != self.format {
            return Ok(None);
        }
        buffer.clear();
        let found = match self
            .handle
            .try_find(&to_gix(oid), buffer)
            .map_err(|e| unreadable(oid, &e))?
        {
            Some(data) => (kind(data.kind), data.data.len()),
            None => return Ok(None),
        };
        buffer.truncate(found.1);
        oid.verify(found.0, buffer)?;
        Ok(Some(found.0))
    }

    /// Reads an object that must be here and be of `wanted`'s kind.
    pub fn read_as(&self, oid: &Oid, wanted: ObjectKind, buffer: &mut Vec<u8>) -> Result<()> {
        match self.read(oid, buffer)? {
            Some(found) if found == wanted => Ok(()),
            Some(found) => Err(Error::invalid(format!(
                "{oid} is a {}, not a {}",
                found.as_str(),
                wanted.as_str()
            ))),
            None => Err(Error::corrupt(format!(
                "{} {oid} is missing",
                wanted.as_str()
            ))),
        }
    }
}

fn kind(kind: Kind) -> ObjectKind {
    match kind {
        Kind::Blob => ObjectKind::Blob,
        Kind::Tree => ObjectKind::Tree,
        Kind::Commit => ObjectKind::Commit,
        Kind::Tag => ObjectKind::Tag,
    }
}

fn unreadable(oid: &Oid, error: &gix::Error) -> Error {
    let causes: Vec<String> = error.iter_errors().map(ToString::to_string).collect();
    Error::corrupt(format!(
        "object {oid} cannot be read: {}",
        crate::git::failure::one_line(&causes.join(": "))
    ))
}
