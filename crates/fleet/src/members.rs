//! Who is a member of the cluster, and in what state: [`machine`] takes events and gives commands,
//! [`member`] judges one member by what is known of it.

mod addresses;
mod event;
mod facts;
mod machine;
mod member;
#[cfg(test)]
mod tests;

pub use event::{MemberCommand, MemberEvent};
pub use facts::{AuditFinding, DepartureIntent, MemberFacts, MemberTimes};
pub use machine::{MEMBERS_MAX, MemberMachine};
pub use member::{TrackedMember, keeps_copies};
