//! Translation between our object ids and those of gix.

use gix::ObjectId;
use monofs_model::{ObjectFormat, Oid};

/// gix's id of an object.
pub fn to_gix(oid: &Oid) -> ObjectId {
    ObjectId::try_from(oid.as_bytes()).expect("an Oid has the length of one of gix's hashes")
}

/// Our id of an object.
pub fn from_gix(id: &gix::oid) -> Oid {
    Oid::from_bytes(id.as_bytes()).expect("gix's hashes have 20 or 32 bytes")
}

/// gix's word for an object format.
pub fn hash_kind(format: ObjectFormat) -> gix::hash::Kind {
    match format {
        ObjectFormat::Sha1 => gix::hash::Kind::Sha1,
        ObjectFormat::Sha256 => gix::hash::Kind::Sha256,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ObjectKind;
    use monofs_model::oid::ObjectHasher;

    use super::*;

    #[test]
    fn ids_of_both_formats_are_the_same_bytes_on_both_sides() {
        for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
            let mut hasher = ObjectHasher::new(format, ObjectKind::Blob, 5);
            hasher.update(b"hello");
            let oid = hasher.finish();
            let id = to_gix(&oid);
            assert_eq!(id.kind(), hash_kind(format));
            assert_eq!(id.to_string(), oid.to_string());
            assert_eq!(from_gix(&id), oid);
        }
    }
}
