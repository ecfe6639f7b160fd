//! What readers did: the evidence on which contents are fetched and stored before they are asked
//! for.
//!
//! A mount writes it down while it answers reads, and decides by it what is fetched ahead. Nothing here does IO or knows its users.

pub mod kinds;
pub mod marks;

pub use self::kinds::{NameKind, ReadKinds};
pub use self::marks::Marks;
