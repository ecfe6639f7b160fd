//! The actor of a request: on whose behalf it runs, under which id it is logged, and by which door
//! it entered the process.
//!
//! A verb that changes or reveals something takes `&Actor`, so that an audit line and, later, a
//! decision about rights need no second look at the request. `rpc::context` fills actors: the
//! server's layer for gRPC calls, the HTTP side for its requests, and a worker of the process for
//! work that no request asked for. Invariant: both texts are printable ASCII within a bound, so
//! they may be written into log lines and metadata as they are.
//!
//! Until authentication exists every principal is [`PrincipalName::anonymous`], unless a peer of
//! the cluster passes on another name; a name alone grants nothing.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// Longest request id that is accepted from a caller, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest principal name that is accepted from a caller, in bytes.
pub const PRINCIPAL_NAME_BYTES_MAX: usize = 256;

/// The name of the user or service that a request acts for. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrincipalName(Arc<str>);

impl PrincipalName {
    /// The principal of every request that did not authenticate.
    pub fn anonymous() -> Self {
        static ANONYMOUS: LazyLock<PrincipalName> =
            LazyLock::new(|| PrincipalName("anonymous".into()));
        ANONYMOUS.clone()
    }

    /// `text` as a principal name: 1 to [`PRINCIPAL_NAME_BYTES_MAX`] bytes of visible ASCII. `None`
    /// for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = (1..=PRINCIPAL_NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_name.then(|| Self(text.into()))
    }

    /// The name as it is logged and sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id that ties the log lines of one request together, over every role that it reaches. Cheap
/// to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id made of a number: its 16 hexadecimal digits.
    pub fn from_number(number: u64) -> Self {
        Self(format!("{number:016x}").into())
    }

    /// `text` as a request id: 1 to [`REQUEST_ID_BYTES_MAX`] ASCII letters, digits and hyphens.
    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_id.then(|| Self(text.into()))
    }

    /// The id as it is logged and sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a request entered the process that works on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// A gRPC call: the command line tool, a client, or another role.
    Grpc,
    /// The HTTP API, which the web page uses too.
    Http,
    /// An operation of the kernel on a mount.
    Mount,
    /// A worker of the process itself: a clock, a watch or a queue began the work.
    Worker,
}

impl Door {
    /// All doors, for exhaustive tables and tests.
    pub const ALL: [Door; 4] = [Door::Grpc, Door::Http, Door::Mount, Door::Worker];

    /// The stable word used in logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Door::Grpc => "grpc",
            Door::Http => "http",
            Door::Mount => "mount",
            Door::Worker => "worker",
        }
    }

    /// The inverse of [`Door::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|door| door.as_str() == word)
    }
}

/// On whose behalf a request runs, its id, and the door that it came by. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub principal: PrincipalName,
    pub request_id: RequestId,
    pub door: Door,
}

impl Actor {
    /// An actor that did not authenticate.
    pub fn anonymous(request_id: RequestId, door: Door) -> Self {
        Self {
            principal: PrincipalName::anonymous(),
            request_id,
            door,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} by {} (request {})",
            self.principal,
            self.door.as_str(),
            self.request_id
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_door_survives_its_word() {
        for door in Door::ALL {
            assert_eq!(Door::parse(door.as_str()), Some(door));
        }
        assert_eq!(Door::parse("window"), None);
    }

    #[test]
    fn text_that_could_forge_a_log_line_is_no_name_and_no_id() {
        let long_name = "n".repeat(PRINCIPAL_NAME_BYTES_MAX + 1);
        for bad in ["", "a b", "a\nb", "a\u{202e}b", "\u{7f}", &long_name] {
            assert_eq!(PrincipalName::parse(bad), None, "{bad:?}");
        }
        let long_id = "1".repeat(REQUEST_ID_BYTES_MAX + 1);
        for bad in ["", "a b", "a\"b", "a=b", "é", &long_id] {
            assert_eq!(RequestId::parse(bad), None, "{bad:?}");
        }
        let longest_name = "n".repeat(PRINCIPAL_NAME_BYTES_MAX);
        for good in ["alice", "ci@example.org", "team/tool", &longest_name] {
            assert_eq!(PrincipalName::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn an_id_made_of_a_number_is_accepted_by_the_next_role() {
        for number in [0, 1, u64::MAX] {
            let id = RequestId::from_number(number);
            assert_eq!(id.as_str().len(), 16);
            assert_eq!(RequestId::parse(id.as_str()), Some(id));
        }
    }

    #[test]
    fn an_actor_is_shown_in_one_line_with_all_it_knows() {
        let actor = Actor::anonymous(RequestId::from_number(255), Door::Http);
        assert_eq!(
            actor.to_string(),
            "anonymous by http (request 00000000000000ff)"
        );
    }
}
