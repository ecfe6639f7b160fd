//! The node's gRPC services: decode, hand down, answer. No decisions here beyond checking the
//! request.

pub(crate) mod content;
pub(crate) mod node;
pub(crate) mod pulled;
mod verify;
