//! The wire protocol `monofs.v1`: generated messages and services, and their conversions to and
//! from `model`; and the part of etcd's protocol that the router speaks as a client.
//!
//! Invariant: fields are only ever added. Roles one minor version apart work together.

pub mod convert;
pub mod durations;
mod words;

/// The generated messages, clients and servers.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    tonic::include_proto!("monofs.v1");

    /// The compiled descriptors, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        tonic::include_file_descriptor_set!("monofs.v1.descriptors");

    // Every service of this package, with each of its methods.
    include!(concat!(env!("OUT_DIR"), "/monofs.v1.methods.rs"));
}

/// etcd's v3 API, the part in use: messages and clients.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
