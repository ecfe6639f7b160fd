//! Who is a member of the cluster, and in what state: [`machine`] takes events and gives commands,
//! [`member`] judges one member by what is known of it.

pub mod event;
pub mod machine;
pub mod member;
#[cfg(test)]
mod tests;

pub use event::{MemberCommand, MemberEvent, MemberTimes};
pub use machine::MemberMachine;
pub use member::{AuditFinding, DepartureIntent, TrackedMember, keeps_copies};
